"""Streaming metrics: (value, update_op) pairs as in tf.metrics.

Sums are float64, because a float32 count does not grow beyond 2^24.
"""

import math

import tensorflow.compat.v1 as tf

from ple_estimator.metrics import chosen

_AUC_BINS = 2**20
_AUC_LOGIT_RANGE = 32.0  # beyond it (probabilities below 1e-14) rows are ties


def auc(labels, logits, weights):
  """Area under the ROC curve by a histogram of the logits.

  tf.metrics.auc compares probabilities with 200 evenly spaced thresholds. If
  most probabilities are below 0.1, as in advertising, few of the thresholds
  tell rows apart. Here logits fall into 2**20 bins of width 6e-5, and rows of
  one bin count as ties. The error is at most half the probability that a
  positive and a negative row share a bin.

  Args:
    labels: [batch] float32, 0 or 1.
    logits: [batch] float32.
    weights: [batch] float32, not negative.

  Returns:
    (value, update_op): float32 scalar, NaN while either class is absent or if
    a logit was NaN, and an operation.
  """
  with tf.variable_scope(None, 'auc'):
    width = 2 * _AUC_LOGIT_RANGE / _AUC_BINS
    unknown = tf.is_nan(logits)
    clipped = tf.clip_by_value(
        tf.where(unknown, tf.zeros_like(logits), logits),
        -_AUC_LOGIT_RANGE, _AUC_LOGIT_RANGE)
    bins = tf.cast(tf.floor((clipped + _AUC_LOGIT_RANGE) / width), tf.int64)
    bins = tf.minimum(bins, _AUC_BINS - 1)
    # [bins, 2] float64 sums of weights: negatives, positives.
    mass = tf.get_variable(
        'mass', [_AUC_BINS, 2], tf.float64, tf.zeros_initializer(),
        trainable=False, collections=[
            tf.GraphKeys.LOCAL_VARIABLES, tf.GraphKeys.METRIC_VARIABLES])
    # A logit that is NaN has no place among the others: so has none of them.
    weights = tf.where(unknown, tf.fill(tf.shape(weights), math.nan), weights)
    rows = tf.stack([weights * (1 - labels), weights * labels], axis=1)
    update = tf.scatter_add(mass, bins, tf.cast(rows, tf.float64))
    negatives, positives = tf.unstack(mass.read_value(), axis=1)
    below = tf.cumsum(negatives, exclusive=True)
    wins = tf.reduce_sum(positives * (below + 0.5 * negatives))
    pairs = tf.reduce_sum(positives) * tf.reduce_sum(negatives)
    return tf.cast(wins / pairs, tf.float32), update.op


def ratio(numerators, denominators, of_none=math.nan):
  """sum(numerators) / sum(denominators) over all rows seen.

  Args:
    numerators: [batch] float32.
    denominators: [batch] float32.
    of_none: float, the value while both sum to 0.

  Returns:
    (value, update_op): float32 scalar, and an operation.
  """
  with tf.variable_scope(None, 'ratio'):
    top, top_update = _total(numerators, 'numerator')
    bottom, bottom_update = _total(denominators, 'denominator')
    is_none = tf.logical_and(tf.equal(top, 0), tf.equal(bottom, 0))
    value = tf.where(is_none, tf.constant(of_none, tf.float64), top / bottom)
    return tf.cast(value, tf.float32), tf.group(top_update, bottom_update)


def mean(values, weights, of_none=math.nan):
  """The mean of values [batch] weighted by weights [batch]; see `ratio`."""
  return ratio(values * weights, weights, of_none)


def means(columns):
  """The means of several columns, which share two variables.

  Args:
    columns: dict of name to [batch] float32.

  Returns:
    dict of name to (value, update_op): float32 scalar, NaN without a row, and
    an operation, the same for all.
  """
  names = list(columns)
  if not names:
    return {}
  with tf.variable_scope(None, 'means'):
    rows = tf.stack([columns[name] for name in names], axis=1)
    totals, add = _total(rows, 'numerator', [len(names)])
    count, add_count = _total(tf.ones_like(rows[:, 0]), 'denominator')
    values = tf.unstack(tf.cast(totals / count, tf.float32))
    update = tf.group(add, add_count)
  return {name: (value, update) for name, value in zip(names, values)}


def root(metric):
  """The square root of a metric's (value, update_op)."""
  value, update = metric
  return tf.sqrt(value), update


def _total(values, name, shape=()):
  total = tf.get_variable(
      name, list(shape), tf.float64, tf.zeros_initializer(), trainable=False,
      collections=[
          tf.GraphKeys.LOCAL_VARIABLES, tf.GraphKeys.METRIC_VARIABLES])
  update = tf.assign_add(
      total, tf.reduce_sum(tf.cast(values, tf.float64), axis=0))
  return total.read_value(), update.op


def grows(metric):
  """Whether a metric, e.g. 'ctr/auc', improves when it grows."""
  measure = metric.split('/')[-1]
  return measure in ('auc', 'accuracy') or chosen.grows(measure)


def is_better(metric, value, than):
  """Whether a metric's value is better than another, NaN being the worst.

  Args:
    metric: str, e.g. 'ctr/auc'.
    value: float.
    than: float.
  """
  if math.isnan(than):
    return not math.isnan(value)
  return value > than if grows(metric) else value < than
