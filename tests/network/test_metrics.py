"""Streaming metrics against exact ones."""

from experiments import exact_auc
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.network import metrics


def streamed(make, *columns):
  """Feeds columns in odd batches to a metric; returns its value."""
  fed = [tf.placeholder(tf.float32, [None]) for _ in columns]
  value, update = make(*fed)
  with tf.Session() as sess:
    sess.run(tf.local_variables_initializer())
    for start in range(0, len(columns[0]), 700):
      sess.run(update, {f: c[start:start + 700]
                        for f, c in zip(fed, columns)})
    return sess.run(value)


@pytest.mark.parametrize('mean, std', [
    (-3.0, 1.0),    # a usual click model
    (-7.0, 0.5),    # conversions: all probabilities below 0.01
    (-2.0, 0.003),  # hardly trained: all probabilities alike
    (0.0, 20.0),    # saturated
])
def test_auc_is_exact_to_a_thousandth(mean, std):
  rng = np.random.RandomState(3)
  logits = rng.normal(mean, std, 5000).astype('f')
  chance = 1 / (1 + np.exp(-(logits - mean) / std))
  labels = (rng.rand(5000) < 0.4 * chance).astype('f')
  weights = rng.randint(0, 3, 5000).astype('f')
  got = streamed(metrics.auc, labels, logits, weights)
  assert abs(got - exact_auc(logits, labels, weights)) < 5e-4
  assert got > 0.55  # the test can tell apart


def test_auc_counts_ties_half():
  got = streamed(metrics.auc, np.array([1, 0, 0, 1], 'f'),
                 np.array([0, 0, -1, 1], 'f'), np.ones(4, 'f'))
  assert got == pytest.approx(3.5 / 4)


def test_auc_of_one_class_is_nan():
  assert np.isnan(streamed(
      metrics.auc, np.ones(3, 'f'), np.zeros(3, 'f'), np.ones(3, 'f')))


def test_mean_and_ratio_are_weighted():
  values, weights = np.arange(1500, dtype='f'), np.arange(1500, dtype='f') % 3
  assert streamed(metrics.mean, values, weights) == pytest.approx(
      np.average(values, weights=weights))
  assert streamed(metrics.ratio, values, weights) == pytest.approx(
      values.sum() / weights.sum())


def test_auc_with_a_nan_logit_is_nan():
  for first in (float('nan'), 1.0):
    got = streamed(metrics.auc, np.array([1, 0], 'f'),
                   np.array([first, 1], 'f'), np.ones(2, 'f'))
    assert np.isnan(got) == np.isnan(first)


def test_a_mean_of_nothing_is_what_is_asked_for():
  none, ones = np.zeros(3, 'f'), np.ones(3, 'f')
  assert np.isnan(streamed(metrics.mean, ones, none))
  assert streamed(
      lambda v, w: metrics.mean(v, w, of_none=0), ones, none) == 0
  assert np.isnan(streamed(
      lambda v, w: metrics.mean(v, w, of_none=0), ones * np.nan, ones))
  assert np.isinf(streamed(metrics.ratio, ones, none))
