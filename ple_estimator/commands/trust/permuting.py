"""How much worse a model answers when a column has the values of other rows.

Breiman, "Random Forests", Machine Learning 2001, section 10, and Fisher, Rudin
and Dominici, "All Models are Wrong, but Many are Useful", JMLR 2019, for any
model: the values of a column are permuted among the rows, which leaves their
distribution as it is and takes away what they say about the row, and the
metrics are compared with those of the rows as they are.
"""

import collections

import numpy as np

from ple_estimator import errors
from ple_estimator.commands.trust import associations
from ple_estimator.metrics import intervals
from ple_estimator.metrics import probabilities
from ple_estimator.metrics import ranking

Unit = collections.namedtuple('Unit', 'columns kind')
Unit.__doc__ = """Columns that are permuted together, all by one permutation.

Attributes:
  columns: tuple of str.
  kind: str: 'column'; 'aligned', lists whose items belong together;
    'crossed', columns that the model combines; 'correlated', columns of which
    one says much about the other; or 'named', by --groups.
"""

Importance = collections.namedtuple(
    'Importance', 'unit importance spread low high')
Importance.__doc__ = """What a task loses by the permutation of a unit.

Attributes:
  unit: Unit.
  importance: float, how much worse the metric is, the mean of the
    permutations: by how much AUC falls, or the loss rises.
  spread: float, the standard deviation of the permutations; NaN of one.
  low: float, the lower end of the 95 % interval of `importance`, by the
    bootstrap of rows, or of users.
  high: float, the upper end.
"""


def units(judged, only=(), groups=(), correlated=0.5):
  """What is to be permuted: every column, and groups of columns.

  Args:
    judged: judged.Judged.
    only: names of columns; others are left out. () leaves out none.
    groups: list of lists of names, further groups.
    correlated: float, the Cramer's V from which columns are a group.

  Returns:
    list of Unit, no two of the same columns.

  Raises:
    UserError: if there is no such column.
  """
  columns = list(judged.columns)
  for flag, names in [('--only', only)] + [('--groups', of) for of in groups]:
    for name in names:
      errors.check(name in columns, '%s must name columns that the model reads '
                   '(%s), got %r.', flag, ', '.join(columns), name)
  chosen = [name for name in columns if not only or name in only]
  alone = [name for name in chosen
           if not any(name in of for of in judged.aligned)]
  found = [([name], 'column') for name in alone]
  found += [(of, 'aligned') for of in judged.aligned if set(of) & set(chosen)]
  inside = set(alone).union(*[of for of, _ in found])
  found += [(of, 'crossed') for of in judged.crossed if set(of) <= inside]
  found += [(of, 'correlated') for of in associations.together(
      {name: judged.columns[name] for name in columns if name in inside},
      correlated)]
  found += [(of, 'named') for of in groups]
  by_columns = collections.OrderedDict()
  for names, kind in found:
    by_columns.setdefault(_whole(names, judged), kind)
  return [Unit(*pair) for pair in by_columns.items()]


def _whole(names, judged):
  """Names in the order of the columns, with the lists aligned to them."""
  names = set(names).union(*[of for of in judged.aligned if set(of) &
                             set(names)])
  return tuple(name for name in judged.columns if name in names)


class Permuting:
  """Measures a model on rows, some of whose columns are permuted.

  Attributes:
    scores: OrderedDict of task name to the float metric of the rows as they
      are.
  """

  def __init__(self, judged, repeats=5, seed=0, rounds=200):
    """Answers and measures the rows as they are.

    Args:
      judged: judged.Judged.
      repeats: int, how often each unit is permuted.
      seed: int, of the permutations. They are the same for all units.
      rounds: int, samples of the bootstrap.

    Raises:
      UserError: if the metric of a task is not defined for these rows.
    """
    self._judged = judged
    count = len(next(iter(judged.columns.values())))
    self._orders = [np.random.RandomState([seed, i]).permutation(count)
                    for i in range(repeats)]
    self._draws = intervals.Draws(count, judged.user, rounds)
    answers = judged.answer(judged.columns)
    self.scores, self._metrics = collections.OrderedDict(), {}
    for name, task in judged.tasks.items():
      _check_rows(name, task)
      metric = _metric(task, answers[name])
      self.scores[name] = metric(task.weight)
      _check_score(name, task, self.scores[name])
      self._metrics[name] = metric

  def __call__(self, unit):
    """Measures the rows with a unit permuted: dict of task to Importance."""
    columns = self._judged.columns
    answers = [self._judged.answer(dict(columns, **{
        name: columns[name][order] for name in unit.columns}))
               for order in self._orders]
    found = {}
    for name, task in self._judged.tasks.items():
      metrics = [_metric(task, of[name]) for of in answers]
      sign = 1 if task.losses is None else -1
      worse = sign * (self.scores[name] - np.array(
          [metric(task.weight) for metric in metrics]))
      low, high = intervals.percentiles(
          sign * self._of_draws(task, self._metrics[name], metrics))
      found[name] = Importance(
          unit, float(worse.mean()), float(worse.std(ddof=1))
          if len(worse) > 1 else np.nan, low, high)
    return found

  def _of_draws(self, task, metric, permuted):
    """The mean difference in each sample of the bootstrap, [rounds].

    A row that is drawn k times counts k times with its label, and k times where
    it lends its values to another row: the mean over pairs of rows that a
    permutation estimates depends on both. The metric of the rows as they are
    has the same weights, so that what is common to both cancels.
    """
    found = []
    for drawn in self._draws:
      weights = [task.weight * drawn * drawn[order] for order in self._orders]
      found.append(np.mean([metric(of) - after(of)
                            for after, of in zip(permuted, weights)]))
    return np.array(found)


def _metric(task, answers):
  """The metric of a task: a function of the [rows] weights of all rows."""
  counts = task.weight > 0
  label, answers = task.label[counts], answers[counts]
  if task.losses is None:
    ordered = ranking.Ordered(label, answers)
    return lambda weights: ordered.auc(weights[counts])
  losses = np.asarray(task.losses(label, answers), np.float64)
  return lambda weights: probabilities.mean(losses, weights[counts])


def _check_rows(name, task):
  """Raises UserError unless a task has rows with which it can be measured."""
  counts = task.weight > 0
  label = task.label[counts]
  errors.check(
      len(label), 'Task %s must have a row that counts: none of %d has a label '
      'and a weight and is in its sample space. Take more rows (--rows), or '
      'others.', name, len(counts))
  errors.check(
      task.losses is not None or len(set(label)) > 1, 'Task %s must have rows '
      'of both labels for AUC: all %d that count have the label %g. Take more '
      'rows (--rows), or others.', name, len(label), label[0])


def _check_score(name, task, score):
  errors.check(
      np.isfinite(score), 'The %s of task %s must be a number, got %g: '
      'predictions are not finite. Choose an earlier checkpoint '
      '(--checkpoint).', task.metric, name, score)
