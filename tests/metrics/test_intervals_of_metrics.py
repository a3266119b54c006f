"""The bootstrap against closed forms and SciPy."""

import math

import numpy as np
import pytest

from ple_estimator.metrics import intervals
from ple_estimator.metrics import probabilities


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
  values = np.random.RandomState(0).normal(3, 2, 1000)
  found = intervals.bootstrap(
      lambda weights: probabilities.mean(values, weights),
      intervals.Draws(1000, rounds=2000))
  error = values.std(ddof=1) / math.sqrt(1000)
  assert found.value == pytest.approx(values.mean())
  assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.01)
  assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.01)


def test_rows_of_one_user_are_drawn_together():
  draws = intervals.Draws(6, groups=['a', 'a', 'b', 'b', 'b', 'c'], rounds=20)
  for counts in draws:
    assert counts[0] == counts[1]
    assert counts[2] == counts[3] == counts[4]
    assert counts[0] + counts[2] + counts[5] == 3  # three users are drawn


def test_users_of_many_alike_rows_widen_the_interval():
  # 20 users with 50 equal rows each: 20 numbers, not 1,000.
  of_users = np.random.RandomState(1).normal(0, 1, 20)
  values, users = np.repeat(of_users, 50), np.repeat(np.arange(20), 50)
  found = intervals.bootstrap(
      lambda weights: probabilities.mean(values, weights),
      intervals.Draws(1000, users, rounds=1000))
  width = 2 * 1.96 * of_users.std() / math.sqrt(20)
  assert found.high - found.low == pytest.approx(width, rel=0.1)


def test_draws_are_the_same_for_two_models():
  first, second = (list(intervals.Draws(50, seed=3, rounds=4))
                   for _ in range(2))
  np.testing.assert_array_equal(first, second)
  assert not np.array_equal(first[0], first[1])


def test_a_metric_that_is_mostly_not_defined_has_no_interval():
  found = intervals.bootstrap(
      lambda weights: math.nan, intervals.Draws(5, rounds=10))
  assert math.isnan(found.low) and math.isnan(found.high)
