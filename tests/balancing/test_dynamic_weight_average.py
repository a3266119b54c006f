"""Weights by how fast losses fall, against numpy."""

import numpy as np
import problem
import pytest

from ple_estimator.balancing import dynamic_weight_average


def by_hand(feeds, window, temperature):
  """The variables after each step, and the factors of each step."""
  params, history = problem.parameters(), []
  after, factors_of = [], []
  for t, batch in enumerate(feeds):
    ratios = np.ones(3)
    if t // window >= 2:
      last, before = [_means(history, t // window - back, window)
                      for back in (1, 2)]
      known = np.isfinite(last / before)
      ratios[known] = (last / before)[known]
    powers = np.exp(ratios / temperature)
    factors = 3 * powers / powers.sum()
    losses, gradients = problem.differentiated(params, batch)
    history.append((losses, np.array([
        batch['weights'][name].sum() for name in problem.NAMES])))
    params = problem.descended(params, gradients, factors)
    after.append(dict(params))
    factors_of.append(factors)
  return after, factors_of


def _means(history, window, steps):
  """The mean loss of each task over the rows of a window, nan without any."""
  losses, rows = zip(*history[window * steps:(window + 1) * steps])
  with np.errstate(invalid='ignore'):
    return (np.array(losses) * rows).sum(axis=0) / np.sum(rows, axis=0)


@pytest.mark.parametrize('window, temperature, slices', [
    (1, 2.0, 1), (2, 0.5, 1), (3, 1.0, 2)])
def test_weights_are_those_of_numpy(window, temperature, slices):
  feeds = problem.batches(6 * window)  # more windows than the sums have rows
  with np.errstate(divide='ignore', invalid='ignore'):
    wanted, factors = by_hand(feeds, window, temperature)
  got, losses, _ = problem.trained(
      dynamic_weight_average.DynamicWeightAverage(window, temperature), feeds,
      slices)
  problem.assert_equal(got, wanted)
  # The weights have moved, and their mean is 1 at each step.
  assert np.std(factors, axis=0).min() > 0.01
  params = [problem.parameters()] + wanted[:-1]
  assert losses == pytest.approx([
      (problem.WEIGHTS * of * problem.differentiated(p, batch)[0]).sum()
      for of, p, batch in zip(factors, params, feeds)], rel=1e-4)


def test_the_first_two_windows_have_equal_weights():
  feeds = problem.batches(4)
  got, _, _ = problem.trained(
      dynamic_weight_average.DynamicWeightAverage(2), feeds)
  params, wanted = problem.parameters(), []
  for batch in feeds:
    params = problem.descended(
        params, problem.differentiated(params, batch)[1], np.ones(3))
    wanted.append(params)
  problem.assert_equal(got, wanted)
