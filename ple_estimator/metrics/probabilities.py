"""Whether predictions are right as numbers: losses, calibration and errors.

In this module `labels` and `predictions` are [rows]; `weights` is [rows], not
negative, or None for 1 each. All are converted to float64. A metric that is not
defined is NaN.
"""

import collections
import math

import numpy as np

_EPSILON = 1e-15  # probabilities are clipped to [_EPSILON, 1 - _EPSILON]
DEFAULT_BINS = 20


def row_log_losses(labels, predictions):
  """The log loss of each row, in nats.

  Args:
    labels: [rows], in [0, 1].
    predictions: [rows] probabilities, clipped to [1e-15, 1 - 1e-15].

  Returns:
    [rows] float64.
  """
  labels = np.asarray(labels, np.float64)
  predictions = np.clip(
      np.asarray(predictions, np.float64), _EPSILON, 1 - _EPSILON)
  return -(labels * np.log(predictions) + (1 - labels) * np.log1p(-predictions))


def log_loss(labels, predictions, weights=None):
  """The mean log loss of rows, in nats; see `row_log_losses`."""
  return mean(row_log_losses(labels, predictions), weights)


def normalised_entropy(labels, predictions, weights=None):
  """The log loss divided by that of the mean label as the only prediction.

  He et al., Practical Lessons from Predicting Clicks on Ads at Facebook,
  ADKDD 2014, section 3: it does not depend on how rare positives are; 1 is a
  model that knows the rate alone.

  Returns:
    float, NaN if all labels are alike.
  """
  rate = mean(labels, weights)
  if not 0 < rate < 1:
    return math.nan
  entropy = -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))
  return log_loss(labels, predictions, weights) / entropy


def calibration(labels, predictions, weights=None):
  """The sum of the predictions divided by that of the labels.

  Returns:
    float, NaN if the labels sum to 0.
  """
  labels, predictions, weights = _floats(labels, predictions, weights)
  total = (labels * weights).sum()
  return float((predictions * weights).sum() / total) if total else math.nan


Bins = collections.namedtuple('Bins', 'predicted observed weight least most')
Bins.__doc__ = """Rows in bins of alike predictions, [bins] float64 each.

Attributes:
  predicted: the mean prediction.
  observed: the mean label.
  weight: the sum of the weights.
  least: the smallest prediction.
  most: the largest prediction.
"""


def bins(labels, predictions, weights=None, num_bins=DEFAULT_BINS):
  """Sorts rows into bins of about equally many, by their prediction.

  Bins of equal width would hold nearly all rows of an advertising task in the
  first one. Rows of one prediction stay together, so there may be fewer bins.

  Args:
    labels: [rows].
    predictions: [rows].
    weights: [rows] or None; a bin has about a num_bins-th of their sum.
    num_bins: int, at least 1.

  Returns:
    Bins; of those whose weight is above 0.
  """
  labels, predictions, weights = _floats(labels, predictions, weights)
  order = np.argsort(predictions, kind='mergesort')
  labels, predictions, weights = (
      labels[order], predictions[order], weights[order])
  total = weights.sum()
  if not total > 0:
    return Bins(*[np.zeros([0])] * 5)
  middle = (np.cumsum(weights) - 0.5 * weights) / total
  bin_of = np.minimum((middle * num_bins).astype(np.int64), num_bins - 1)
  # All rows of one prediction go where the first of them is.
  new = np.concatenate([[True], predictions[1:] != predictions[:-1]])
  bin_of = bin_of[np.flatnonzero(new)][np.cumsum(new) - 1]
  counts = np.bincount(bin_of, weights, num_bins)
  kept = counts > 0
  sums = [np.bincount(bin_of, values * weights, num_bins)[kept] / counts[kept]
          for values in (predictions, labels)]
  firsts = np.searchsorted(bin_of, np.flatnonzero(kept), 'left')
  lasts = np.searchsorted(bin_of, np.flatnonzero(kept), 'right') - 1
  return Bins(sums[0], sums[1], counts[kept], predictions[firsts],
              predictions[lasts])


def expected_calibration_error(labels, predictions, weights=None,
                               num_bins=DEFAULT_BINS):
  """The mean distance of predicted and observed rates over bins of rows.

  Naeini et al., AAAI 2015, with bins of equally many rows (`bins`).

  Args:
    labels: [rows].
    predictions: [rows].
    weights: [rows] or None.
    num_bins: int, at least 1.

  Returns:
    float, in the unit of the labels; 0 is best. NaN without rows.
  """
  found = bins(labels, predictions, weights, num_bins)
  return mean(np.abs(found.predicted - found.observed), found.weight)


def rmse(labels, predictions, weights=None):
  """The square root of the mean squared error, in the unit of the labels."""
  labels, predictions, weights = _floats(labels, predictions, weights)
  return math.sqrt(mean((labels - predictions)**2, weights))


def mae(labels, predictions, weights=None):
  """The mean absolute error, in the unit of the labels."""
  labels, predictions, weights = _floats(labels, predictions, weights)
  return mean(np.abs(labels - predictions), weights)


def accuracy(labels, predictions, weights=None):
  """The share of rows whose label is 1 where the prediction is at least 0.5."""
  labels, predictions, weights = _floats(labels, predictions, weights)
  return mean((predictions >= 0.5) == (labels >= 0.5), weights)


def mean(values, weights=None):
  """The mean of values [rows], NaN where the weights sum to 0."""
  values = np.asarray(values, np.float64)
  weights = (np.ones_like(values) if weights is None else
             np.asarray(weights, np.float64))
  total = weights.sum()
  return float((values * weights).sum() / total) if total else math.nan


def _floats(labels, predictions, weights):
  labels = np.asarray(labels, np.float64)
  weights = (np.ones_like(labels) if weights is None else
             np.asarray(weights, np.float64))
  return labels, np.asarray(predictions, np.float64), weights
