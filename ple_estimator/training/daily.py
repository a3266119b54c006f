"""Day by day: each new day is evaluated, then trained, then exported.

A day is a partition of the training files, such as the folder dt=2024-05-01, or
a file. Each new one

  1. is evaluated with the model of the days before it, which has not seen its
     rows (progressive validation);
  2. is trained in one run, at whose end rows are evicted, where the embedding
     has an eviction, and a checkpoint is saved;
  3. is exported, if the gate lets it pass.

model_dir/daily.json holds what was done, and model_dir/daily.md the same as a
table. It is written when a day has been evaluated and when it is done. So the
same command goes on, also after a kill: with the day in hand, from its last
checkpoint, which says what rows were read, and then with the next. The file is
written whole, and one that is damaged all the same ends the run: as if it were
missing, days that are done would be evaluated by a model that was trained on
them, and exported again.
"""

import collections
import json
import os
import time

from absl import logging
import gin

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.network import metrics
from ple_estimator.storage import uris
from ple_estimator.training import comparison

_RECORD = 'daily.json'
_REMEDY = (
    'It says which days are done. Put a copy of it in its place. Without one, '
    'remove it and take the files of the days that are done out of the '
    'training input: all days that the input names then count as new.')
# What a day has that is done, and what one has that was begun.
_BEGUN = {'day': str, 'files': list, 'before': (dict, type(None))}
_DONE = dict(_BEGUN, step=int, gate=(dict, type(None)), why=str,
             export=(str, type(None)), seconds=(int, float))
_TABLE = 'daily.md'

Actions = collections.namedtuple('Actions', [
    'evaluate', 'train', 'gate', 'export', 'step'])
Actions.__doc__ = """What Daily does with a model.

Attributes:
  evaluate: function of paths to a dict of metrics, of the last checkpoint.
  train: function of paths, which trains on these files after that.
  gate: function without arguments to a dict of metrics of the last checkpoint
    on the rows of Experiment.eval_input; None if there are no such rows.
  export: function without arguments to the folder of a SavedModel.
  step: function without arguments to the global step of the last checkpoint, or
    to None.
"""


@gin.register
class Daily:
  """What a day is and when its model is exported; see Experiment.daily.

  Attributes:
    metric: str or tuple of str, see comparison.stored.
  """

  def __init__(self, partition='dt', metric='mean/auc', margin=0.005,
               export=True):
    """Checks and stores the arguments; opens nothing.

    Args:
      partition: str, the name in the folders of the days: 'dt' of
        dt=2024-05-01/part-0.parquet. Days come in the order of their names.
        '' makes each file a day, in the order in which the binding of the
        files names them.
      metric: str, by which a model is exported or not, as in metrics.json;
        'mean/auc' and a list or tuple of metrics are means, see
        EarlyStopping.metric.
      margin: float, how much worse the metric may be than that of the model
        that was exported last. It is that of the new model on the rows of
        Experiment.eval_input; without eval_input it is that of the model before
        the day on the rows of the day.
      export: bool, whether to export at all.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check(
        isinstance(partition, str) and not set(partition) & {'=', os.sep},
        'Daily.partition must be the name before the = of a folder, such as '
        "'dt', or '', got %s.", errors.written(partition))
    comparison.check_form('Daily.metric', metric)
    errors.check_number('Daily.margin', margin, least=0)
    errors.check_bool('Daily.export', export)
    self._partition = partition
    self.metric = comparison.stored(metric)
    self._margin = margin
    self._export = export

  def days(self, paths):
    """Sorts files into days.

    Args:
      paths: list of str.

    Returns:
      OrderedDict of the name of a day to its paths.

    Raises:
      UserError: if a path is in no partition.
    """
    if not self._partition:
      return collections.OrderedDict((path, [path]) for path in paths)
    found, start = collections.defaultdict(list), self._partition + '='
    for path in paths:
      names = [part for part in path.split(os.sep) if part.startswith(start)]
      errors.check(
          names, 'Daily.partition must be in the path of every training file, '
          "got %r, and %s has no folder %s...; '' makes each file a day.",
          self._partition, path, start)
      found[names[-1]].append(path)
    return collections.OrderedDict(sorted(found.items()))

  def run(self, model_dir, paths, actions):
    """Does all days that are not done.

    Args:
      model_dir: str.
      paths: list of str, the files of all days.
      actions: Actions.

    Returns:
      list of dict, one per day that is done, as daily.json has them.
    """
    record = _Record(model_dir, self.metric)
    days = self.days(paths)
    done = {day['day'] for day in record.days}
    new = [name for name in days if name not in done]
    logging.info('%d days are done, %d are new%s.', len(done), len(new),
                 ': ' + ', '.join(new) if new else '')
    for name in new:
      _check_order(name, record.days, self._partition)
      self._day(name, days[name], record, actions)
    for line in record.table():
      logging.info('%s', line)
    return record.days

  def _day(self, name, paths, record, actions):
    """Does one day."""
    begin = time.time()
    day = record.in_hand(name)
    if day is None:
      logging.info('%s: %d files', name, len(paths))
      step = actions.step()
      day = {'day': name, 'files': list(map(uris.absolute, paths)),
             'before': actions.evaluate(paths) if step else None}
      record.begin(day)
    else:
      logging.info('%s was begun and goes on.', name)
    actions.train(paths)
    found = actions.gate()
    day['gate'] = day['before'] if found is None else found
    day['step'] = actions.step()
    passes, day['why'] = self._passes(day['gate'], record.exported())
    logging.info('%s is %sexported: %s', name, '' if passes else 'not ',
                 day['why'])
    day['export'] = actions.export() if passes else None
    day['seconds'] = round(time.time() - begin, 1)
    record.end(day)

  def _passes(self, found, last):
    """Whether a model is exported: (bool, the reason).

    Args:
      found: dict of the metrics that the gate goes by, or None.
      last: dict, the day that was exported last, or None.
    """
    if not self._export:
      return False, 'Daily.export is False'
    name = comparison.name_of(self.metric)
    value = comparison.value_of(found, self.metric)
    if found is None:
      return True, 'there is no model before it to compare with'
    if value != value:
      return False, '%s is not a number' % name
    base = comparison.value_of(last and last['gate'], self.metric)
    if base != base:
      return True, '%s %.4f is the first' % (name, value)
    metric = self.metric if isinstance(self.metric, str) else self.metric[0]
    allowed = base + (-1 if metrics.grows(metric) else 1) * self._margin
    passes = not metrics.is_better(metric, allowed, than=value)
    return passes, '%s %.4f is %s %.4f, that of %s %.4f with the margin %g' % (
        name, value, 'not worse than' if passes else 'worse than', allowed,
        last['day'], base, self._margin)


class _Record:
  """The file daily.json.

  Attributes:
    days: list of dict, those that are done.
  """

  def __init__(self, model_dir, metric):
    self._folder = model_dir
    self._metric = metric
    found = _read(os.path.join(model_dir, _RECORD))
    self.days, self._in_hand = found['days'], found['in_hand']

  def in_hand(self, name):
    """The day that was begun and is not done, if it is this one; or None."""
    day = self._in_hand
    return day if day and day['day'] == name else None

  def begin(self, day):
    """Notes what a day was evaluated to, before it is trained."""
    self._in_hand = day
    self._write()

  def end(self, day):
    """Notes that a day is done."""
    self.days.append(day)
    self._in_hand = None
    self._write()
    files.write_text(os.path.join(self._folder, _TABLE),
                     '\n'.join(self.table()) + '\n')

  def exported(self):
    """The last day that was exported, a dict, or None."""
    return next((day for day in reversed(self.days) if day['export']), None)

  def table(self):
    """The lines of a Markdown table of all days."""
    name = comparison.name_of(self._metric)
    lines = ['| day | step | %s before training on it | of the gate | exported '
             '| why | seconds |' % name, '|---|---|---|---|---|---|---|']
    for day in self.days:
      values = [comparison.value_of(day[key], self._metric)
                for key in ('before', 'gate')]
      lines.append('| %s | %d | %s | %s | %s | %s | %s |' % (
          (day['day'], day['step']) + tuple(
              '' if value != value else '%.4f' % value for value in values) + (
                  'yes' if day['export'] else 'no', day['why'],
                  day['seconds'])))
    return lines

  def _write(self):
    files.write_json(os.path.join(self._folder, _RECORD),
                     {'days': self.days, 'in_hand': self._in_hand}, indent=1,
                     sync=True)


def _read(path):
  """Returns what daily.json holds, or what it holds at first.

  Raises:
    UserError: if it is damaged.
  """
  found = files.read_needed_json(path, _REMEDY, {
      'days': list, 'in_hand': (dict, type(None))})
  if found is None:
    return {'days': [], 'in_hand': None}
  for day, keys in [(day, _DONE) for day in found['days']] + [
      (found['in_hand'], _BEGUN)] * bool(found['in_hand']):
    errors.check(files.has_keys(day, keys), '%s must hold days with %s, got '
                 '%s. %s', path, ', '.join(sorted(keys)),
                 json.dumps(day)[:60], _REMEDY)
  return found


def _check_order(name, days, partition):
  """Raises UserError if a day comes before one that is done."""
  if not partition or not days:
    return
  last = max(day['day'] for day in days)
  errors.check(
      name > last, 'Daily: %s comes before %s, which is done: days are trained '
      'in their order. Name it differently, or take its files out of the '
      'training input.', name, last)
