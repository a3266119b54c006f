"""What a sweep has found: tables for people, and sweep.json for programs."""

import collections
import math

from ple_estimator import files
from ple_estimator.commands.sweep import runs
from ple_estimator.network import metrics
from ple_estimator.training import comparison

_ORDER = ('done', 'stopped', 'failed', 'open')

Row = collections.namedtuple('Row', ['number', 'trial', 'runs', 'state',
                                     'value'])
Row.__doc__ = """A trial and how it has ended; see training.Training.

Attributes:
  number: int.
  trial: trials.Trial.
  runs: list of runs.Run.
  state: str.
  value: float.
"""


class Results:
  """The trials of a training, the best first.

  Attributes:
    rows: list of Row.
  """

  def __init__(self, sweep, made):
    """Sorts the trials.

    Args:
      sweep: sweep.Sweep.
      made: training.Training.
    """
    self._sweep = sweep
    rows = [Row(i, of, made.runs[i], made.state(i), made.value(i))
            for i, of in enumerate(made.trials)]
    sign = -1 if metrics.grows(sweep.direction) else 1

    def rank(row):
      unknown = math.isnan(row.value)
      return (_ORDER.index(row.state), unknown,
              0 if unknown else sign * row.value, row.number)

    self.rows = sorted(rows, key=rank)

  @property
  def winner(self):
    """The Row of the best trial, None if none is done with a number."""
    first = self.rows[0]
    return first if first.state == 'done' and not math.isnan(
        first.value) else None

  def to_test(self):
    """The runs that are to be tested, a list of runs.Run."""
    rows = {'none': [], 'best': [self.winner] if self.winner else [], 'all': [
        row for row in self.rows if row.state == 'done']}[self._sweep.test]
    return [run for row in rows for run in row.runs]

  def validation(self):
    """The table of the validation rows: a list of lists of str."""
    return self._table(self.rows, lambda run: run.evaluation)

  def test(self):
    """The table of the test rows, of the trials that were tested; or []."""
    rows = [row for row in self.rows if row.state == 'done' and all(
        run.tested for run in row.runs)]
    return self._table(rows, lambda run: run.tested) if rows else []

  def _table(self, rows, metrics_of):
    names = [self._sweep.metric] + self._parts(rows, metrics_of)
    head = [of.name for of in self._sweep.space.dimensions] or ['trial']
    table = [head + ['seeds'] + [comparison.name_of(n) for n in names]]
    for row in rows:
      table.append(
          [str(value) for value in row.trial.point.values()] or
          [row.trial.name])
      table[-1].append(str(len([r for r in row.runs if r.state == 'done'])))
      if row.state == 'done':
        table[-1] += [_estimate([comparison.value_of(
            metrics_of(run), name) for run in row.runs]) for name in names]
      else:
        table[-1] += [_otherwise(row)] + [''] * (len(names) - 1)
    return table

  def _parts(self, rows, metrics_of):
    """The metrics of single tasks that Sweep.metric is made of, or is like."""
    metric = self._sweep.metric
    measures = {name.rpartition('/')[2] for name in (
        [metric] if isinstance(metric, str) else metric)}
    known = {name for row in rows for run in row.runs
             for name in metrics_of(run) or () if row.state == 'done'}
    return [name for name in sorted(known) if comparison.is_known(name) and
            '/' in name and name.partition('/')[2] in measures and
            name != metric]

  def said(self):
    """What follows from the table, in words; a list of lines."""
    best = self.winner
    if not best:
      return ['No trial was trained to its end.']
    name = comparison.name_of(self._sweep.metric)
    lines = ['Best by %s of the validation rows: %s, %s.' % (
        name, best.trial.name, _of_seeds([run.value for run in best.runs]))]
    others = [row for row in self.rows[1:] if row.state == 'done' and
              not math.isnan(row.value)]
    if others:
      lines.append('Next: %s, %s, a difference of %.4f.' % (
          others[0].trial.name, _of_seeds([r.value for r in others[0].runs]),
          abs(best.value - others[0].value)))
    return lines

  def write(self, records):
    """Writes sweep.json and table.md.

    Args:
      records: records.Records.
    """
    files.write_json(records.path('sweep.json'), {
        'metric': comparison.name_of(self._sweep.metric),
        'best': self.winner.trial.name if self.winner else None,
        'trials': [_as_json(row) for row in self.rows]}, indent=1)
    files.write_text(records.path('table.md'), '\n\n'.join(filter(None, [
        markdown(self.validation()), markdown(self.test())])) + '\n')


def _as_json(row):
  return {
      'name': row.trial.name, 'point': list(row.trial.point.items()),
      'gin_files': row.trial.files, 'gin_bindings': row.trial.lines,
      'state': row.state,
      'value': None if math.isnan(row.value) else row.value,
      'runs': [{
          'seed': run.seed, 'model_dir': run.run_dir, 'state': run.state,
          'error': run.error,
          'value': None if math.isnan(run.value) else run.value,
          'validation': run.evaluation, 'test': run.tested}
               for run in row.runs]}


def _estimate(values):
  """The mean of some values, and their standard deviation if there are two."""
  spread = runs.spread(values)
  return '%.4f' % runs.mean(values) + (
      '' if math.isnan(spread) else ' ± %.4f' % spread)


def _of_seeds(values):
  return '%s%s' % (_estimate(values), '' if len(values) == 1 else
                   ' (mean and standard deviation of %d seeds)' % len(values))


def _otherwise(row):
  """What stands in place of a mean."""
  if row.state == 'stopped':
    first = row.runs[0]
    return 'stopped early, %.4f after evaluation %d' % (
        first.value, len(first.curve))
  if row.state == 'failed':
    return 'failed, %d of %d' % (
        sum(run.state == 'failed' for run in row.runs), len(row.runs))
  return 'not done'


def text(table):
  """A table, a list of lists of str, with columns of blanks between them."""
  widths = [max(map(len, column)) for column in zip(*table)]
  return '\n'.join('  '.join(
      cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
                   for row in table)


def markdown(table):
  """The same for Markdown; '' without rows."""
  rows = [[cell.replace('|', '\\|') for cell in row] for row in table]
  rows[1:1] = [['---'] * len(row) for row in rows[:1]]
  return '\n'.join('| %s |' % ' | '.join(row) for row in rows)
