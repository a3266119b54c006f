"""Metrics, the component that says what evaluations measure beside the usual.

The usual metrics of a task, such as AUC and log loss, are summed up batch by
batch in every evaluation (network.metrics). Those here look at all rows
together, so an evaluation keeps them in memory: 12 bytes per row and task, and
what the columns of Metrics.user and Metrics.slices take.
"""

import collections
import functools

import gin
import numpy as np

from ple_estimator import errors
from ple_estimator.metrics import probabilities
from ple_estimator.metrics import ranking

KEPT_ROWS = 1000000  # what a file of evaluated rows has at the most
MOST_SLICES = 20  # values of a column with a metric of their own
OTHERS = 'other values'

Measured = collections.namedtuple(
    'Measured', 'label prediction weight user')
Measured.__doc__ = """The rows of one task whose weight is above 0.

Attributes:
  label: [rows] float64.
  prediction: [rows] float64.
  weight: [rows] float64.
  user: [rows] of any type that sorts, or None.
"""


def _of_users(metric):
  def of(rows, *k):
    return metric(rows.label, rows.prediction, *k, groups=rows.user,
                  weights=rows.weight)

  return of


def _of_rows(metric):
  def of(rows):
    return metric(rows.label, rows.prediction, rows.weight)

  return of


# Of binary tasks; those with k are written with it, 'lift@0.1'.
_PLAIN = collections.OrderedDict([
    ('gauc', _of_users(ranking.gauc)),
    ('pr_auc', _of_rows(ranking.pr_auc)),
    ('normalised_entropy', _of_rows(probabilities.normalised_entropy)),
    ('expected_calibration_error',
     _of_rows(probabilities.expected_calibration_error)),
])
_AT = collections.OrderedDict([
    ('lift', _of_users(ranking.lift_at)),
    ('recall', _of_users(ranking.recall_at)),
])
_GROW = ('gauc', 'pr_auc', 'lift', 'recall')


@gin.register
class Metrics:
  """What evaluations measure beside the usual, and which rows they keep.

  Attributes:
    names: tuple of str, metrics of all binary tasks.
    user: str, the column that names the user of a row, or None.
    slices: tuple of str, columns.
    keep_rows: int, see __init__.
    train_rows: int, see __init__.
  """

  def __init__(self, names=(), user=None, slices=(), keep_rows=KEPT_ROWS,
               train_rows=0):
    """Checks and stores the hyperparameters.

    Args:
      names: list of metrics of all binary tasks (the probability of a product
        of tasks, pCTCVR, is one, see ProductTask; with the weight 0 it is only
        measured): 'gauc', the mean AUC of users, which needs `user`; 'pr_auc';
        'normalised_entropy'; 'expected_calibration_error'; 'lift@0.1' and
        'recall@0.1', of the tenth of the rows with the highest predictions;
        'lift@10' and 'recall@10', of the 10 highest of each user, which needs
        `user`. The formulas are in ranking and probabilities. They are named
        '<task>/<metric>' like any other, also in EarlyStopping.metric.
      user: str, a column of FeatureSpec.columns that names the user.
      slices: names of columns of FeatureSpec.columns. For each value of one
        there is the AUC of its rows, '<task>/auc/<column>=<value>', of tasks
        that are not binary the RMSE. Values beyond the 20 most frequent are
        measured together as 'other values'.
      keep_rows: int, the number of rows, from the first on, that an evaluation
        writes to eval_rows.parquet and --mode=test to test_rows.parquet, from
        which reports are made; 0 writes none.
      train_rows: int, the number of training rows, from the first on, that
        each evaluation of a training measures too, to show overfitting:
        '<task>/auc/train'; 0 measures none.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check_list('Metrics.names', names, lambda name: isinstance(
        name, str), "metrics, such as ['gauc', 'lift@0.1']", may_be_empty=True)
    errors.check_text('Metrics.user', user, or_none=True)
    errors.check_list('Metrics.slices', slices, lambda name: isinstance(
        name, str), "columns, such as ['pid']", may_be_empty=True)
    errors.check_integer('Metrics.keep_rows', keep_rows, 0)
    errors.check_integer('Metrics.train_rows', train_rows, 0)
    self.names, self.user = tuple(names), user
    self.slices = tuple(slices)
    self.keep_rows = keep_rows
    self.train_rows = train_rows
    self._functions = collections.OrderedDict(
        (name, function(name, user)) for name in names)

  @property
  def columns(self):
    """tuple of str, the columns that it needs, each once."""
    named = ((self.user,) if self.user else ()) + self.slices
    return tuple(collections.OrderedDict.fromkeys(named))

  @property
  def needs_all_rows(self):
    """bool, whether it has a metric that looks at all rows together."""
    return bool(self._functions or self.slices)

  def check(self, columns, tasks):
    """Raises UserError unless the columns exist and a task has the metrics.

    Args:
      columns: dict of the name of each of FeatureSpec.columns to the shape of
        one value, () where a row has one.
      tasks: dict of task name to whether it is binary.
    """
    for binding, names in [('user', (self.user,) if self.user else ()),
                           ('slices', self.slices)]:
      for name in names:
        errors.check(name in columns, 'Metrics.%s must name columns of '
                     'FeatureSpec.columns (%s), got %r.', binding,
                     ', '.join(columns), name)
        errors.check(not columns[name], 'Metrics.%s must name columns with one '
                     'value per row, got the vector %r.', binding, name)
    errors.check(
        not self.names or any(tasks.values()), 'Metrics.names are metrics of '
        'binary tasks, and there is none (%s), got %s.', ', '.join(tasks),
        errors.written(list(self.names)))

  def measure(self, rows, tasks):
    """Measures the rows of an evaluation.

    Args:
      rows: dict of name to [rows] array: '<task>/label', '<task>/prediction'
        and '<task>/weight' of each task, and the columns.
      tasks: dict of task name to whether it is binary. A task with several
        predictions per row has no metrics here.

    Returns:
      OrderedDict of metric name to float.
    """
    found = collections.OrderedDict()
    for task, is_binary in tasks.items():
      if rows[task + '/prediction'].ndim > 1:
        continue
      of_task, counts = measured(rows, task, self.user)
      for name, function in self._functions.items() if is_binary else ():
        found['%s/%s' % (task, name)] = function(of_task)
      for column in self.slices:
        found.update(_slices(task, is_binary, of_task, column,
                             rows[column][counts]))
    return found


def measured(rows, task, user=None):
  """The rows of a task that count.

  Args:
    rows: dict, see Metrics.measure.
    task: str.
    user: str, a column, or None.

  Returns:
    (Measured, [rows] bool: which of all rows they are).
  """
  weight = np.asarray(rows[task + '/weight'], np.float64)
  counts = weight > 0
  label, prediction = (np.asarray(rows['%s/%s' % (task, name)],
                                  np.float64)[counts]
                       for name in ('label', 'prediction'))
  return Measured(label, prediction, weight[counts],
                  rows[user][counts] if user else None), counts


def slices(values):
  """Splits rows by a column, the most frequent value first.

  Args:
    values: [rows] array.

  Returns:
    list of (str, [rows] bool); beyond MOST_SLICES values there is one more for
    all others.
  """
  names, index, counts = np.unique(
      values, return_inverse=True, return_counts=True)
  order = np.argsort(-counts, kind='mergesort')
  found = [(_text(names[i]), index.ravel() == i) for i in order[:MOST_SLICES]]
  if len(order) > MOST_SLICES:
    found.append((OTHERS, np.isin(index.ravel(), order[MOST_SLICES:])))
  return found


def _slices(task, is_binary, rows, column, values):
  metric = ranking.auc if is_binary else probabilities.rmse
  return {'%s/%s/%s=%s' % (task, 'auc' if is_binary else 'rmse', column, name):
          metric(rows.label[which], rows.prediction[which], rows.weight[which])
          for name, which in slices(values)}


def _text(value):
  return value.decode('utf-8', 'backslashreplace') if isinstance(
      value, bytes) else str(value)


def function(name, user=None, binding='Metrics.'):
  """The function of Measured of a metric, see Metrics.names.

  Args:
    name: str.
    user: str, the column of the user, or None.
    binding: str, what a message calls the place of names and user.

  Raises:
    UserError: if there is no such metric.
  """
  base, at, written = name.partition('@')
  if not at and name in _PLAIN:
    errors.check(name != 'gauc' or user, '%suser must name the column of the '
                 "user for 'gauc', got %s.", binding, user)
    return _PLAIN[name]
  errors.check(
      at and base in _AT, '%snames must be of %s, got %r.', binding,
      ', '.join(list(_PLAIN) + ['%s@K' % name for name in _AT]), name)
  k = _number(written)
  errors.check(
      k is not None and (0 < k < 1 or k >= 1 and k == int(k)),
      '%snames must have after @ a share of the rows between 0 and 1 or a '
      'whole number of rows of each user, got %r.', binding, name)
  errors.check(k < 1 or user, '%suser must name the column of the user for '
               '%r, got %s.', binding, name, user)
  metric = _AT[base]
  return functools.partial(_at, metric, k if k < 1 else int(k))


def _at(metric, k, rows):
  return metric(rows, k)


def _number(text):
  try:
    return float(text)
  except ValueError:
    return None


def grows(measure):
  """Whether a metric of Metrics.names improves when it grows.

  Args:
    measure: str, e.g. 'gauc' or 'lift@0.1', without its task.
  """
  return measure.partition('@')[0] in _GROW


def is_one(measure):
  """Whether a text is a metric of Metrics.names."""
  return measure in _PLAIN or measure.partition('@')[0] in _AT and (
      _number(measure.partition('@')[2]) is not None)
