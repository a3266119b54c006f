"""The points of curves: ROC, precision and recall, calibration, histograms."""

import collections

import numpy as np

from ple_estimator.metrics import probabilities
from ple_estimator.metrics import ranking

POINTS = 80  # of a curve, at most; more cannot be seen
BINS = 40
_FIRST = 10  # positives; the precision of fewer is little but chance

Bars = collections.namedtuple('Bars', 'edges shares')
Bars.__doc__ = """A histogram.

Attributes:
  edges: [bins + 1] float64.
  shares: [bins] float64, the share of the weight in each bin.
"""


def roc(task):
  """The ROC curve of a binary task.

  Args:
    task: rows.TaskRows.

  Returns:
    (false positive rates, true positive rates), [points] each, from (0, 0) to
    (1, 1); empty if a class is absent. At most POINTS points of the curve are
    kept, so that the area under them is not the AUC to the last digit.
  """
  positives, negatives = ranking.Ordered(
      task.labels, task.predictions).mass(task.weights)
  if not positives.sum() > 0 or not negatives.sum() > 0:
    return np.zeros([0]), np.zeros([0])
  true, false = [np.concatenate([[0.0], np.cumsum(of) / of.sum()])
                 for of in (positives, negatives)]
  # Where either moves: the steep start of the curve would be lost otherwise.
  at = _thinned(true + false)
  return false[at], true[at]


def precision_recall(task):
  """The precision at each recall of a binary task.

  Args:
    task: rows.TaskRows.

  Returns:
    (recalls, precisions), [points] each, by recall, from the tenth positive on;
    empty without a positive.
  """
  positives, negatives = ranking.Ordered(
      task.labels, task.predictions).mass(task.weights)
  if not positives.sum() > 0:
    return np.zeros([0]), np.zeros([0])
  hits = np.cumsum(positives)
  taken = hits + np.cumsum(negatives)
  kept = (positives > 0) & (hits >= min(_FIRST, hits[-1] / 2))
  recall, precision = hits[kept] / hits[-1], hits[kept] / taken[kept]
  at = _thinned(recall)
  return recall[at], precision[at]


def _thinned(along):
  """At most POINTS indices, about evenly along an increasing [n] array."""
  wanted = np.linspace(along[0], along[-1], POINTS)
  return np.unique(np.append(
      np.searchsorted(along, wanted[:-1], 'left'), len(along) - 1))


def calibration(task):
  """Bins of about equally many rows, a probabilities.Bins."""
  return probabilities.bins(task.labels, task.predictions, task.weights)


def log_odds_edges(of_tasks):
  """Edges of bins of log odds that hold the predictions of several runs.

  Args:
    of_tasks: list of rows.TaskRows.

  Returns:
    [BINS + 1] float64.
  """
  ends = [np.percentile(log_odds(task.predictions[task.weights > 0]), [0, 100])
          for task in of_tasks]
  low, high = min(end[0] for end in ends), max(end[1] for end in ends)
  return np.linspace(low, max(high, low + 1e-6), BINS + 1)


def edges(of_tasks):
  """The same of the predictions and labels themselves, of no binary task."""
  ends = [np.percentile(np.concatenate(
      [task.predictions[task.weights > 0], task.labels[task.weights > 0]]),
                        [0.5, 99.5]) for task in of_tasks]
  low, high = min(end[0] for end in ends), max(end[1] for end in ends)
  return np.linspace(low, max(high, low + 1e-6), BINS + 1)


def log_odds(predictions):
  """log(p / (1 - p)), of probabilities clipped to [1e-7, 1 - 1e-7]."""
  clipped = np.clip(predictions, 1e-7, 1 - 1e-7)
  return np.log(clipped) - np.log1p(-clipped)


def histogram(values, weights, at):
  """The shares of values in bins; what lies beyond counts in the outer ones.

  Args:
    values: [rows].
    weights: [rows].
    at: [bins + 1], the edges.

  Returns:
    Bars.
  """
  counts, _ = np.histogram(np.clip(values, at[0], at[-1]), at, weights=weights)
  total = counts.sum()
  return Bars(at, counts / total if total else counts)
