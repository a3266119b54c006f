"""What is on disk of a sweep, each file written whole.

  Sweep.out/
    trials.json                 list of dicts: the trials in the order in which
                                they began: name, point, and notes of the search
    sweep.json, table.md        the results, written at the end
    <trial>/config.gin          every binding of the trial, but for its seeds
    <trial>/seed-<n>/           Experiment.model_dir of a run
    <trial>/seed-<n>/run.json   how the run has ended: its state, and why
    <trial>/seed-<n>/run.log    what its processes have written

A run without run.json is trained, from its checkpoint if it has one. To train
one anew, delete its folder.
"""

import collections
import contextlib
import fcntl
import os

from ple_estimator import errors
from ple_estimator import files

STATES = ('done', 'stopped', 'failed')


class Records:
  """The folder of a sweep."""

  def __init__(self, out):
    """Makes the folder.

    Args:
      out: str.

    Raises:
      UserError: if it cannot be written to.
    """
    self.out = out
    try:
      os.makedirs(out, exist_ok=True)
      self._lock = open(os.path.join(out, '.lock'), 'a')
    except OSError as error:
      raise errors.UserError('Sweep.out must be a folder that can be written '
                             'to, got %r: %s.' % (out, error.strerror))

  @contextlib.contextmanager
  def held(self):
    """Keeps a second sweep out of the folder while this one runs."""
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise errors.UserError(
          'Sweep.out must be that of one sweep at a time, and %s is in use. '
          'Wait for its end, or bind another Sweep.out.' % self.out) from error
    try:
      yield
    finally:
      fcntl.flock(self._lock, fcntl.LOCK_UN)

  def path(self, *parts):
    """The path of something in the folder."""
    return os.path.join(self.out, *parts)

  def run_dir(self, trial, seed):
    """Experiment.model_dir of a run.

    Args:
      trial: trials.Trial.
      seed: int.
    """
    return self.path(trial.name, 'seed-%d' % seed)

  def trials(self):
    """The trials that have begun: a list of dicts with name, point, notes."""
    found = files.read_json(self.path('trials.json'), keys={'trials': list})
    return [dict(of, point=collections.OrderedDict(map(tuple, of['point'])))
            for of in found['trials']] if found else []

  def write_trials(self, entries):
    """Keeps the trials that have begun.

    Args:
      entries: list of (trials.Trial, notes).
    """
    files.write_json(self.path('trials.json'), {'trials': [
        {'name': trial.name, 'point': list(trial.point.items()),
         'notes': notes} for trial, notes in entries]}, indent=1)

  def check_same(self, trial, text):
    """Sees that a trial has the bindings that it began with.

    Args:
      trial: trials.Trial.
      text: str, its bindings.

    Raises:
      UserError: if it began with others.
    """
    path = self.path(trial.name, 'config.gin')
    if not os.path.exists(path):
      os.makedirs(os.path.dirname(path), exist_ok=True)
      files.write_text(path, text)
      return
    with open(path) as f:
      before = f.read().splitlines()
    now = text.splitlines()
    gone = [line for line in before if line not in now]
    come = [line for line in now if line not in before]
    errors.check(
        not gone and not come, '%s began with other bindings (%s; now %s). '
        'Bind another Sweep.out, or delete the folder to train the trial anew.',
        os.path.dirname(path), gone[0] if gone else 'none',
        come[0] if come else 'none')

  def read_run(self, run_dir):
    """How a run has ended: a dict of 'state', 'evaluations' and 'error'.

    None if it has not.

    Args:
      run_dir: str.
    """
    found = files.read_json(os.path.join(run_dir, 'run.json'),
                            keys={'state': str, 'evaluations': int})
    return found if found and found['state'] in STATES else None

  def write_run(self, run_dir, state, evaluations=0, error=None):
    """Keeps how a run has ended.

    Args:
      run_dir: str.
      state: one of STATES.
      evaluations: int, of a run that was stopped: after how many.
      error: str, of a run that has failed: the line that says why.
    """
    files.write_json(os.path.join(run_dir, 'run.json'), {
        'state': state, 'evaluations': evaluations, 'error': error}, indent=1)
