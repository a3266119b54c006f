"""Trains the trials of a sweep: what is begun when, and what is ended early."""

import math

from ple_estimator import errors
from ple_estimator.commands.sweep import checking
from ple_estimator.commands.sweep import pool
from ple_estimator.commands.sweep import runs
from ple_estimator.commands.sweep import search
from ple_estimator.commands.sweep import trials


class Training:
  """All runs of a sweep, in the order of its trials.

  A trial is compared, while it is trained, by the run of its first seed. When
  that is ended early, its other runs are ended, or not begun.

  Attributes:
    trials: list of trials.Trial that have begun, or are known.
    runs: list of lists of runs.Run, those of each trial.
  """

  def __init__(self, sweep, records, say):
    """Finds what has been trained before.

    Args:
      sweep: sweep.Sweep, with threads above 0.
      records: records.Records.
      say: function of a line.

    Raises:
      UserError: if a trial cannot be built, or is not the one that it was.
    """
    self._sweep, self._records, self._say = sweep, records, say
    self._count = sweep.search.count(sweep.space)
    self._notes, self.trials, self.runs = [], [], []
    before = records.trials()
    if not sweep.search.knows_all:
      errors.check(
          all(sweep.space.has(entry['point']) for entry in before),
          'Sweep.out must not have trials of other choices and bindings: %s '
          'has. Bind another Sweep.out.', sweep.out)
      for entry in before[:self._count]:
        self._add(entry['point'], entry['notes'])
    while sweep.search.knows_all and len(self.trials) < self._count:
      self._add(self._ask())
    self._keep()

  def run(self):
    """Trains everything that is not done."""
    pool.Pool(self._sweep.processes, self._next).run()

  def state(self, number):
    """'done', 'stopped', 'failed' or 'open', of a trial by its number."""
    states = [run.state for run in self.runs[number]]
    if states[0] == 'stopped':
      return 'stopped'
    if None in states:
      return 'open'
    return 'failed' if 'failed' in states else 'done'

  def value(self, number):
    """The mean of Sweep.metric over the seeds, NaN unless it is done."""
    if self.state(number) != 'done':
      return math.nan
    return runs.mean([run.value for run in self.runs[number]])

  def _ask(self):
    sweep = self._sweep
    return sweep.search.ask(len(self.trials), sweep.space, self._history(),
                            sweep.direction)

  def _history(self):
    return [search.Past(of.point, self.state(i), self.value(i),
                        self.runs[i][0].curve, self._notes[i])
            for i, of in enumerate(self.trials)]

  def _add(self, point, notes=None):
    """Adds a trial; UserError if its experiment cannot be built."""
    trial = trials.make(self._sweep, point, self.trials)
    self._records.check_same(trial, checking.check(self._sweep, trial))
    self._append(trial, notes)

  def _append(self, trial, notes=None):
    self.trials.append(trial)
    self._notes.append(notes or {})
    self.runs.append([
        runs.Run(trial, seed, self._sweep, self._records, self._is_to_end,
                 self._say_of) for seed in self._sweep.seeds])

  def _begin(self):
    """Adds the next trial of a search that goes by those before it."""
    point = self._ask()
    try:
      self._add(point)
    except errors.UserError as error:
      self._append(trials.make(self._sweep, point, self.trials))
      for run in self.runs[-1]:
        run.fail(str(error))
        self._say_of(run)
    self._keep()

  def _keep(self):
    self._records.write_trials(list(zip(self.trials, self._notes)))

  def _next(self):
    """The next Run to start, or None."""
    while True:
      for number, of in enumerate(self.runs):
        if self.state(number) == 'stopped':
          continue
        for run in of:
          if run.state is None and not run.is_running:
            return run
      if len(self.trials) >= self._count:
        return None
      self._begin()

  def _is_to_end(self, run):
    """Whether a run is to be ended after the evaluation looked at last."""
    number = self.trials.index(run.trial)
    rule = self._sweep.stopping
    if rule is None or run is not self.runs[number][0]:
      return False
    before = dict(self._notes[number])
    ends = rule.stops(number, self._sweep.space, self._history(),
                      self._sweep.direction)
    if self._notes[number] != before:
      self._keep()
    for other in self.runs[number][1:]:
      if ends and other.state is None:
        other.stop()
    return ends

  def _say_of(self, run):
    """Says how a run has ended."""
    how = {'done': 'done', 'failed': 'FAILED: %s' % run.error,
           'stopped': 'stopped early, after evaluation %d' % len(run.curve)}[
               run.state]
    ended = sum(other.state is not None for of in self.runs for other in of)
    self._say('%d of %d | %s, seed %d: %s%s' % (
        ended, self._count * len(self._sweep.seeds), run.trial.name, run.seed,
        how, '' if run.state == 'failed' else ' | %.4f at best' % run.value))
