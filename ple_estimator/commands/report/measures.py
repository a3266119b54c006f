"""The metrics that a report computes from rows, and in which way they are good.

A metric is a function of [rows] weights to a float, so that a bootstrap can ask
for it with many weights of the same rows.
"""

import collections

import numpy as np

from ple_estimator.metrics import probabilities
from ple_estimator.metrics import ranking

# 1: more is better. -1: less is better. 0: neither; the best is 1.
_DIRECTIONS = {
    'auc': 1, 'gauc': 1, 'pr_auc': 1, 'accuracy': 1, 'lift': 1, 'recall': 1,
    'calibration': 0}
# What tests compare: order, and the numbers themselves.
COMPARED = ('auc', 'log_loss', 'rmse', 'mae', 'accuracy')
# What the seesaw shows: one metric per task, the first that it has.
MAIN = ('auc', 'rmse', 'log_loss', 'loss')


def direction(measure):
  """1 if more of it is better, -1 if less is, 0 if it should be 1.

  Args:
    measure: str, such as 'auc' or 'lift@0.1'.
  """
  return _DIRECTIONS.get(measure.partition('@')[0], -1)


def of(task):
  """The metrics of a task.

  Args:
    task: rows.TaskRows.

  Returns:
    OrderedDict of name to function of [rows] weights to a float.
  """
  if task.predictions.ndim == 2:
    return _of_classes(task)
  if task.kind == 'binary':
    return _of_probabilities(task)
  errors = task.predictions - task.labels
  square, absolute = errors**2, np.abs(errors)
  return collections.OrderedDict([
      ('rmse', lambda weights: probabilities.mean(square, weights)**0.5),
      ('mae', lambda weights: probabilities.mean(absolute, weights)),
      ('calibration', _calibration(task))])


def _of_probabilities(task):
  ordered = ranking.Ordered(task.labels, task.predictions)
  losses = probabilities.row_log_losses(task.labels, task.predictions)
  return collections.OrderedDict([
      ('auc', ordered.auc),
      ('pr_auc', ordered.pr_auc),
      ('log_loss', lambda weights: probabilities.mean(losses, weights)),
      ('calibration', _calibration(task))])


def _of_classes(task):
  labels = task.labels.astype(np.int64)
  hits = task.predictions.argmax(1) == labels
  chosen = task.predictions[np.arange(len(labels)), labels]
  losses = probabilities.row_log_losses(np.ones_like(chosen), chosen)
  return collections.OrderedDict([
      ('accuracy', lambda weights: probabilities.mean(hits, weights)),
      ('log_loss', lambda weights: probabilities.mean(losses, weights))])


def _calibration(task):
  return lambda weights: probabilities.calibration(
      task.labels, task.predictions, weights)
