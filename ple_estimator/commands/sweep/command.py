r"""Trains the combinations of .gin files and bindings, and compares them.

  ple-estimator sweep gin/sweep.gin --dry_run
  ple-estimator sweep gin/sweep.gin
  ple-estimator sweep gin/sweep.gin --gin_bindings 'Sweep.processes = 4'

The file binds a Sweep, here of two networks and three learning rates, which are
6 trials, each of them trained with two seeds:

  Sweep:
    files = ['gin/small.gin']        # all trials, as --gin_file
    lines = ['EPOCHS = 20']          # all trials, as --gin_bindings
    choices = {'network': ['gin/mmoe.gin', 'gin/cgc.gin']}
    bindings = {'LEARNING_RATE': [0.001, 0.003, 0.01]}
    seeds = [1, 2]
    processes = 2

gin/README.md has all that can be bound: random search, Optuna, and a rule that
ends bad trials early. All trials are built before one is trained, so that a
misspelt binding is told at once. Each run has a folder, result/<name of the
file>/<trial>/seed-<n>. Trials are compared by evaluations of the validation
rows; when all are trained, the best one is measured on the test rows.

The same command goes on after it was broken off: what is done is not done
again, and a run that was under way goes on from its checkpoint. Runs that have
failed are tried again. The exit status is 1 if a run has failed.
"""

import argparse
import contextlib
import os
import signal
import sys

from absl import logging

from ple_estimator import config
from ple_estimator import errors
from ple_estimator.commands import words
from ple_estimator.commands.sweep import checking
from ple_estimator.commands.sweep import optuna_search  # noqa: F401, for gin
from ple_estimator.commands.sweep import pool
from ple_estimator.commands.sweep import records as records_lib
from ple_estimator.commands.sweep import results
from ple_estimator.commands.sweep import runs
from ple_estimator.commands.sweep import sweep as sweep_lib
from ple_estimator.commands.sweep import training
from ple_estimator.commands.sweep import trials
from ple_estimator.engine import compat

_GO_ON = 'the same command goes on where it was broken off.'


def main(arguments=None):
  """Sweeps; returns the exit status.

  Args:
    arguments: list of str; None takes those of the process.
  """
  args = _parser().parse_args(arguments)
  try:
    errors.check(not os.environ.get('TF_CONFIG'), 'A sweep trains each trial '
                 'in one process: unset TF_CONFIG.')
    with _on_sigterm():
      return run(args)
  except errors.UserError as error:
    sys.stderr.write('ple-estimator sweep: %s\n' % error)
    return 1
  except KeyboardInterrupt:
    sys.stderr.write('ple-estimator sweep: interrupted; %s\n' % _GO_ON)
    return 128 + signal.SIGINT
  except _Terminated:
    sys.stderr.write('ple-estimator sweep: SIGTERM; %s\n' % _GO_ON)
    return 128 + signal.SIGTERM


class _Terminated(BaseException):
  """SIGTERM was received."""


@contextlib.contextmanager
def _on_sigterm():
  def on_sigterm(signum, frame):
    raise _Terminated()

  before = signal.signal(signal.SIGTERM, on_sigterm)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


def run(args):
  """Trains, tests and reports; returns the exit status.

  Args:
    args: the arguments of the command.

  Raises:
    UserError: if the file, or a trial, cannot be used.
  """
  logging.set_verbosity(logging.WARNING)
  compat.quiet()
  sweep = load(args.gin_file, args.gin_bindings)
  if args.dry_run:
    _show(sweep)
    return 0
  _checked(sweep)
  records = records_lib.Records(sweep.out)
  with records.held():
    made = training.Training(sweep, records, _say)
    _say('%d runs, %d of them done; %d at a time, %d thread%s each; results in '
         '%s' % (sweep.search.count(sweep.space) * len(sweep.seeds), sum(
             r.state is not None for of in made.runs for r in of),
                 sweep.processes, sweep.threads,
                 '' if sweep.threads == 1 else 's', sweep.out))
    made.run()
    found = results.Results(sweep, made)
    test(sweep, found)
    found.write(records)
  _tell(sweep, found)
  return int(any(run.error for row in found.rows for run in row.runs))


def load(gin_file, bindings):
  """Reads a sweep's .gin file.

  Args:
    gin_file: str, its path.
    bindings: list of str, lines of gin that win over it.

  Returns:
    sweep.Sweep, whose folder and threads are settled.

  Raises:
    UserError: if something in it is wrong.
  """
  loaded = config.load(gin_file, bindings, roots=('Sweep',))
  with config.explained(loaded):
    sweep = sweep_lib.Sweep()
    sweep.search.check(sweep.space)
  sweep.out = sweep.out or os.path.join('result', loaded.name)
  sweep.threads = sweep.threads or max(
      1, len(os.sched_getaffinity(0)) // sweep.processes)
  return sweep


def _checked(sweep):
  """Builds the experiments of trials that are known before one is trained.

  Args:
    sweep: sweep.Sweep.

  Returns:
    list of trials.Trial: all, or where the search goes by what others gave,
    such as have every option and both ends of every range.

  Raises:
    UserError: if one of them cannot be built.
  """
  search, space = sweep.search, sweep.space
  points = [search.ask(i, space, [], sweep.direction) for i in range(
      search.count(space))] if search.knows_all else space.corners()
  made = []
  for point in points:
    made.append(trials.make(sweep, point, made))
    checking.check(sweep, made[-1])
  return made


def _show(sweep):
  """Prints the trials, with the commands that train them."""
  made = _checked(sweep)
  _say('%d trials%s, each with the seed%s %s:' % (
      sweep.search.count(sweep.space), '' if sweep.search.knows_all else
      ', which are chosen as others are trained. Here are all options and the '
      'ends of all ranges', '' if len(sweep.seeds) == 1 else 's',
      ', '.join(map(str, sweep.seeds))))
  for trial in made:
    _say('%s\n    ple-estimator %s' % (
        trial.name, trials.shown(trials.command(trial))))


def test(sweep, found):
  """Tests the runs that are to be tested and have not been."""
  waiting = [of for of in found.to_test() if not of.tested]
  pool.Pool(sweep.processes, lambda: runs.Test(
      waiting.pop(0), sweep.threads, _say) if waiting else None).run()


def _tell(sweep, found):
  """Prints what has been found, and makes the report."""
  _say('\nThe validation rows, by which trials are compared:\n\n%s' %
       results.text(found.validation()))
  table = found.test()
  if table:
    _say('\nThe test rows, which decide nothing:\n\n%s' % results.text(table))
  _say('\n' + '\n'.join(found.said()))
  if found.winner:
    _say('To train it alone:\n  ple-estimator %s' % trials.shown(
        trials.command(found.winner.trial)))
  _say('The tables are in %s, all numbers in %s.' % (
      os.path.join(sweep.out, 'table.md'),
      os.path.join(sweep.out, 'sweep.json')))
  report(sweep.out, [run.run_dir for row in found.rows for run in row.runs
                     if run.state == 'done'])


def report(out, run_dirs):
  """Makes the report of runs; says where curves are without that command.

  Args:
    out: str, the folder of the sweep.
    run_dirs: list of str, the folders of runs that are done.
  """
  if 'report' not in words.MODULES:
    _say('Curves: tensorboard --logdir=%s' % out)
  elif run_dirs:
    with contextlib.suppress(SystemExit):  # argparse; it has said why
      words.run('report', run_dirs + ['--out', os.path.join(out, 'report')])


def _say(line):
  print(line, flush=True)


def _parser():
  parser = argparse.ArgumentParser(
      prog='ple-estimator sweep', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('gin_file', metavar='SWEEP.gin',
                      help='the file that binds the Sweep')
  parser.add_argument('--gin_bindings', action='append', default=[],
                      metavar='LINE',
                      help="a line of gin that wins over the file, such as "
                      "'Sweep.seeds = [1]'; may be given several times")
  parser.add_argument('--dry_run', action='store_true',
                      help='check and print the trials, train none')
  return parser
