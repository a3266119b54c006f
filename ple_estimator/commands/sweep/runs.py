"""Runs: a trial with a seed, as a process that trains it or tests it."""

import math
import os

from ple_estimator import files
from ple_estimator.commands.sweep import checking
from ple_estimator.commands.sweep import pool
from ple_estimator.commands.sweep import stopping
from ple_estimator.commands.sweep import trials
from ple_estimator.training import comparison
from ple_estimator.training import evaluations

_ERROR = 'ple_estimator: '  # how run.py begins the line of an error
_TAIL_BYTES = 20000


class Run(pool.Task):
  """The training of a trial with one seed.

  Attributes:
    trial: trials.Trial.
    seed: int.
    run_dir: str, its Experiment.model_dir.
    state: one of records.STATES; None until it has ended.
    error: str, why it has failed; or None.
    is_running: bool.
  """

  def __init__(self, trial, seed, sweep, records, is_to_end, say):
    """Looks how it has ended, if it has.

    Args:
      trial, seed: see the attributes.
      sweep: sweep.Sweep, with threads above 0.
      records: records.Records.
      is_to_end: function of a Run, which has new evaluations, to bool: whether
        the trial is worse than others.
      say: function of a Run that has ended.
    """
    self.trial, self.seed = trial, seed
    self.run_dir = records.run_dir(trial, seed)
    self.is_running = False
    self._sweep, self._records = sweep, records
    self._is_to_end, self._say = is_to_end, say
    self._starts, self._looked_at = 0, 0
    self._evaluations = evaluations.Evaluations(self.run_dir)
    record = records.read_run(self.run_dir) or {}
    if record.get('state') == 'failed':  # is tried again
      record = {}
    self.state, self.error = record.get('state'), record.get('error')
    self._counted = (
        record['evaluations'] if self.state == 'stopped' else None)

  @property
  def curve(self):
    """Sweep.metric of its evaluations in their order, a list of float.

    Of a run that was stopped, of those up to the one by which it was.
    """
    self._evaluations.read()
    return self._evaluations.values(self._sweep.metric)[
        :self._looked_at if self.state is None else self._counted]

  @property
  def evaluation(self):
    """The evaluation of the checkpoint that training has kept, a dict."""
    self._evaluations.read()
    return self._evaluations.marked('kept') or {}

  @property
  def value(self):
    """Sweep.metric of that evaluation, a float; NaN without it.

    Of a run that was stopped, the best of its curve.
    """
    if self.state == 'stopped':
      return stopping.best_of(self.curve, self._sweep.direction)
    return comparison.value_of(self.evaluation, self._sweep.metric)

  @property
  def tested(self):
    """What test.json holds, a dict; None without it."""
    return files.read_json(os.path.join(self.run_dir, 'test.json'),
                           keys=['global_step'])

  @property
  def log(self):
    """The file with what its processes have written."""
    return os.path.join(self.run_dir, 'run.log')

  def words(self, mode='train'):
    """The arguments of the `ple-estimator` that trains or tests it."""
    return trials.command(self.trial, checking.lines_of_run(
        self.run_dir, self.seed, self._sweep.threads), mode)

  def child(self):
    self.is_running = True
    self._starts += 1
    return pool.child(self.words(), self._sweep.threads, self.log)

  def look(self):
    """Has each new evaluation compared; whether the run is to be ended."""
    if self.state is not None:
      return self.state == 'stopped'
    self._evaluations.read()
    count = len(self._evaluations.values(self._sweep.metric))
    while self._looked_at < count:
      self._looked_at += 1
      if self._is_to_end(self):
        self.stop()
        return True
    return False

  def stop(self):
    """Is ended by a rule, after the evaluation that was looked at last."""
    self._counted = self._looked_at
    self._set('stopped')

  def fail(self, error):
    """Has failed.

    Args:
      error: str, why.
    """
    self._set('failed', error)

  def ended(self, status):
    self.is_running = False
    if self.state is not None:
      self._say(self)
      return False
    if status == 0:
      self._set('done')
    elif status >= 128 and self._starts <= self._sweep.restarts:
      return True  # from its checkpoint
    elif status >= 128:
      self.fail('signal %d has ended it %d times (Sweep.restarts = %d)' % (
          status - 128, self._starts, self._sweep.restarts))
    else:
      self.fail(last_error(self.log))
    self._say(self)
    return False

  def _set(self, state, error=None):
    self.state, self.error = state, error
    os.makedirs(self.run_dir, exist_ok=True)
    self._records.write_run(
        self.run_dir, state, self._counted or 0, error)


class Test(pool.Task):
  """The test of a run, once: its best checkpoint on the test rows."""

  def __init__(self, run, threads, say):
    """Starts nothing.

    Args:
      run: Run.
      threads: int.
      say: function of a line.
    """
    self._run = run
    self._threads = threads
    self._say = say

  def child(self):
    return pool.child(self._run.words('test'), self._threads, self._run.log)

  def ended(self, status):
    if status or not self._run.tested:
      self._run.error = 'the test has failed: ' + last_error(self._run.log)
      self._say('%s, seed %d: %s' % (
          self._run.trial.name, self._run.seed, self._run.error))
    return False


def last_error(log):
  """The line that says why a process has failed.

  Args:
    log: str, the file of its output.

  Returns:
    str, the last error of run.py, or else the last line.
  """
  with open(log, 'rb') as f:
    f.seek(0, os.SEEK_END)
    f.seek(max(0, f.tell() - _TAIL_BYTES))
    lines = f.read().decode('utf-8', 'replace').strip().splitlines()
  for line in reversed(lines):
    if line.startswith(_ERROR):
      return line[len(_ERROR):]
  return lines[-1].strip() if lines else 'it has written nothing'


def mean(values):
  """The mean of floats; NaN of none."""
  return math.fsum(values) / len(values) if values else math.nan


def spread(values):
  """The standard deviation of a sample; NaN of fewer than two values."""
  if len(values) < 2:
    return math.nan
  middle = mean(values)
  return math.sqrt(math.fsum(
      (value - middle) ** 2 for value in values) / (len(values) - 1))
