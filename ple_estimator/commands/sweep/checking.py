"""Looks at the experiments of all trials before one of them is trained."""

import os

import gin

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment
from ple_estimator.training import comparison

# What a run binds beside its trial; no part of what a trial is.
_OF_RUN = ('run_config.seed', 'run_config.inter_op_threads',
           'run_config.intra_op_threads')


def lines_of_run(run_dir, seed, threads):
  """The lines of gin that a run has beside those of its trial.

  Args:
    run_dir: str.
    seed: int.
    threads: int.

  Returns:
    list of str.
  """
  values = [seed, threads, threads]
  return ['%s = %d' % pair for pair in zip(_OF_RUN, values)] + [
      'Experiment.model_dir = %r' % run_dir]


def check(sweep, trial):
  """Builds the Experiment of a trial; reads no data.

  Args:
    sweep: sweep.Sweep.
    trial: trials.Trial.

  Returns:
    str, its bindings as gin writes them, without those of a run.

  Raises:
    UserError: if a file or a binding is wrong, or it cannot be compared.
  """
  try:
    loaded = config.load(trial.files, trial.lines + lines_of_run(
        os.path.join('result', 'sweep'), sweep.seeds[0], 1))
    with config.explained(loaded):
      made = experiment.Experiment()
    errors.check(
        _is_bound('eval_input'), 'Experiment.eval_input must be given for a '
        'sweep, which compares by evaluations.')
    errors.check(
        sweep.test == 'none' or _is_bound('test_input'), 'Experiment.test_input'
        " must be given for Sweep.test = %r. Without test rows: Sweep.test = "
        "'none'.", sweep.test)
    comparison.check('Sweep.metric', sweep.metric, made.model.tasks)
  except errors.UserError as error:
    raise errors.UserError('trial %s: %s' % (trial.name, error)) from error
  with gin.unlock_config():
    for name in _OF_RUN:
      gin.bind_parameter(name, 0)
    gin.bind_parameter('Experiment.model_dir', '')
  return gin.config_str()


def _is_bound(name):
  try:
    return gin.query_parameter('Experiment.' + name) is not None
  except ValueError:  # nothing binds it
    return False
