"""Paired tests against SciPy, a direct form of DeLong's, and simulations."""

import math

import numpy as np
import pytest

from ple_estimator.metrics import intervals
from ple_estimator.metrics import paired
from ple_estimator.metrics import probabilities
from ple_estimator.metrics import ranking


def _two_models(seed, num=300, ties=False, gain=0.5):
  random = np.random.RandomState(seed)
  labels = (random.rand(num) < 0.3).astype(np.float64)
  shared = random.normal(size=num) + labels
  a = shared + 0.5 * random.normal(size=num)
  b = shared + 0.5 * random.normal(size=num) + gain * labels
  if ties:
    a, b = np.round(a), np.round(b)
  return labels, a, b


def _delong_of_the_paper(labels, a, b):
  """The covariances of the structural components, by a table of all pairs."""
  def components(scores):
    positives, negatives = scores[labels == 1], scores[labels == 0]
    wins = ((positives[:, None] > negatives) +
            0.5 * (positives[:, None] == negatives))
    return wins.mean(axis=1), wins.mean(axis=0)

  (a_1, a_0), (b_1, b_0) = components(a), components(b)
  covariance = (np.cov([a_1, b_1]) / len(a_1) + np.cov([a_0, b_0]) / len(a_0))
  contrast = np.array([-1, 1])
  return b_1.mean() - a_1.mean(), math.sqrt(contrast @ covariance @ contrast)


@pytest.mark.parametrize('ties', [False, True])
def test_delong_is_that_of_the_paper(ties):
  stats = pytest.importorskip('scipy.stats')
  labels, a, b = _two_models(1, ties=ties)
  value, error = _delong_of_the_paper(labels, a, b)
  found = paired.delong(labels, a, b)
  assert found.value == pytest.approx(value, abs=1e-12)
  assert found.value == pytest.approx(
      ranking.auc(labels, b) - ranking.auc(labels, a), abs=1e-12)
  assert found.p == pytest.approx(2 * stats.norm.sf(abs(value / error)))
  assert found.low == pytest.approx(value - stats.norm.ppf(.975) * error)
  assert found.high == pytest.approx(value + stats.norm.ppf(.975) * error)


def test_equal_models_do_not_differ():
  labels, a, _ = _two_models(2)
  assert paired.delong(labels, a, a) == (0, 0, 0, 1)


def test_p_values_of_equally_good_models_are_even():
  """Of 200 pairs of equally good models, about a tenth has p below 0.1."""
  ps = [paired.delong(*_two_models(seed, gain=0)).p for seed in range(200)]
  assert 0.04 < np.mean(np.asarray(ps) < 0.1) < 0.17


def test_one_class_has_no_comparison():
  assert math.isnan(paired.delong([1, 1, 1], [1, 2, 3], [3, 2, 1]).p)


def test_the_bootstrap_agrees_with_delong():
  labels, a, b = _two_models(5, num=1000)
  of_a, of_b = ranking.Ordered(labels, a), ranking.Ordered(labels, b)
  found = paired.bootstrap(
      of_a.auc, of_b.auc, intervals.Draws(1000, rounds=1000))
  expected = paired.delong(labels, a, b)
  assert found.value == pytest.approx(expected.value)
  assert found.low == pytest.approx(expected.low, abs=0.003)
  assert found.high == pytest.approx(expected.high, abs=0.003)


def test_the_bootstrap_of_means_agrees_with_a_paired_t_test():
  stats = pytest.importorskip('scipy.stats')
  random = np.random.RandomState(6)
  a = random.normal(size=400)
  b = a + 0.06 + 0.5 * random.normal(size=400)
  found = paired.bootstrap(
      lambda weights: probabilities.mean(a, weights),
      lambda weights: probabilities.mean(b, weights),
      intervals.Draws(400, rounds=4000))
  assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.02)


def test_holm_by_hand():
  # Sorted: 0.01 * 3, then 0.03 * 2, then 0.04 * 1, none below the one before.
  assert paired.holm([0.04, 0.01, math.nan, 0.03]) == pytest.approx(
      [0.06, 0.03, math.nan, 0.06], nan_ok=True)


def test_quantiles_are_scipys():
  stats = pytest.importorskip('scipy.stats')
  for share in (0.01, 0.5, 0.975):
    assert paired.normal_quantile(share) == pytest.approx(
        stats.norm.ppf(share), abs=1e-9)
