"""Metrics of probabilities against scikit-learn and hand-computed numbers."""

import math

import numpy as np
import pytest

from ple_estimator.metrics import probabilities

sklearn_metrics = pytest.importorskip('sklearn.metrics')


def _rows(num=500):
  random = np.random.RandomState(4)
  predictions = random.rand(num) * 0.98 + 0.01
  labels = (random.rand(num) < predictions).astype(np.float64)
  return labels, predictions, random.rand(num) + 0.1


@pytest.mark.parametrize('weighted', [False, True])
def test_losses_are_scikit_learns(weighted):
  labels, predictions, weights = _rows()
  weights = weights if weighted else None
  assert probabilities.log_loss(labels, predictions, weights) == pytest.approx(
      sklearn_metrics.log_loss(labels, predictions, sample_weight=weights))
  assert probabilities.rmse(labels, predictions, weights) == pytest.approx(
      math.sqrt(sklearn_metrics.mean_squared_error(
          labels, predictions, sample_weight=weights)))
  assert probabilities.mae(labels, predictions, weights) == pytest.approx(
      sklearn_metrics.mean_absolute_error(
          labels, predictions, sample_weight=weights))
  assert probabilities.accuracy(labels, predictions, weights) == pytest.approx(
      sklearn_metrics.accuracy_score(
          labels, predictions >= 0.5, sample_weight=weights))


def test_normalised_entropy_of_the_rate_is_1():
  assert probabilities.normalised_entropy(
      [1, 0, 0, 0], [0.25] * 4) == pytest.approx(1)
  assert math.isnan(probabilities.normalised_entropy([0, 0], [0.5, 0.5]))


def test_calibration():
  assert probabilities.calibration([1, 0], [.3, .3]) == pytest.approx(0.6)
  assert probabilities.calibration(
      [1, 0], [.3, .3], [3, 1]) == pytest.approx(1.2 / 3)
  assert math.isnan(probabilities.calibration([0, 0], [.3, .3]))


def test_bins_of_four_rows():
  found = probabilities.bins([0, 1, 0, 1], [.4, .1, .2, .3], num_bins=2)
  np.testing.assert_allclose(found.predicted, [.15, .35])
  np.testing.assert_allclose(found.observed, [.5, .5])
  np.testing.assert_allclose(found.weight, [2, 2])
  np.testing.assert_allclose(found.least, [.1, .3])
  np.testing.assert_allclose(found.most, [.2, .4])
  assert probabilities.expected_calibration_error(
      [0, 1, 0, 1], [.4, .1, .2, .3], num_bins=2) == pytest.approx(
          (abs(.15 - .5) + abs(.35 - .5)) / 2)


def test_rows_of_one_prediction_share_a_bin():
  found = probabilities.bins([0, 1, 1, 0], [.5, .5, .5, .9], num_bins=4)
  np.testing.assert_allclose(found.weight, [3, 1])


def test_bins_are_those_of_scikit_learns_quantiles():
  calibration = pytest.importorskip('sklearn.calibration')
  labels, predictions, _ = _rows()
  observed, predicted = calibration.calibration_curve(
      labels, predictions, n_bins=5, strategy='quantile')
  found = probabilities.bins(labels, predictions, num_bins=5)
  np.testing.assert_allclose(found.observed, observed, atol=1e-12)
  np.testing.assert_allclose(found.predicted, predicted, atol=1e-12)


def test_without_rows():
  assert math.isnan(probabilities.log_loss([], []))
  assert math.isnan(probabilities.expected_calibration_error([], []))
