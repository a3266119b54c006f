"""Welch's test and Student's t against SciPy."""

import math

import numpy as np
import pytest

from ple_estimator.metrics import seeds


@pytest.mark.parametrize('a,b', [
    ([0.91, 0.92], [0.93, 0.931]), ([1.0, 2, 3, 4], [2.5, 2.6, 2.7]),
    ([0.5, 0.5], [0.4, 0.6, 0.5, 0.45])])
def test_welch_is_that_of_scipy(a, b):
  stats = pytest.importorskip('scipy.stats')
  found = seeds.welch(a, b)
  t, p = stats.ttest_ind(b, a, equal_var=False)
  assert found.value == pytest.approx(np.mean(b) - np.mean(a))
  assert found.p == pytest.approx(p, rel=1e-9)
  error = found.value / t if t else None
  if error:
    parts = [np.var(of, ddof=1) / len(of) for of in (a, b)]
    freedom = sum(parts)**2 / sum(
        part**2 / (len(of) - 1) for part, of in zip(parts, (a, b)))
    margin = stats.t.ppf(0.975, freedom) * error
    assert found.low == pytest.approx(found.value - margin)
    assert found.high == pytest.approx(found.value + margin)


def test_t_is_that_of_scipy():
  stats = pytest.importorskip('scipy.stats')
  for freedom in (1, 1.3, 2, 7.5, 40, 1000):
    for t in (0.0, 0.01, 0.7, 2.0, 5.0, 30.0):
      assert seeds.t_two_sided(t, freedom) == pytest.approx(
          2 * stats.t.sf(t, freedom), rel=1e-9, abs=1e-300)
    for share in (0.6, 0.975, 0.9995):
      assert seeds.t_quantile(share, freedom) == pytest.approx(
          stats.t.ppf(share, freedom), rel=1e-8)


def test_one_run_or_no_spread_has_no_interval():
  for a, b in (([0.9], [0.8, 0.7]), ([0.9, 0.9], [0.8, 0.8])):
    found = seeds.welch(a, b)
    assert found.value < 0
    assert all(map(math.isnan, found[1:]))
