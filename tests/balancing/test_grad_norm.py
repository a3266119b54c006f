"""Weights by the norms of gradients, against numpy."""

import numpy as np
import problem
import pytest

from ple_estimator.balancing import grad_norm


def by_hand(feeds, alpha, rate):
  """The variables after each step."""
  params, v, first = problem.parameters(), np.ones(3), np.zeros(3)
  after = []
  for batch in feeds:
    losses, gradients = problem.differentiated(params, batch)
    part = np.array([batch['weights'][name].sum() > 0
                     for name in problem.NAMES])
    first = np.where((first == 0) & part, losses, first)
    norms = problem.WEIGHTS * [
        np.linalg.norm(of['shared']) for of in gradients]
    pace = losses[part] / first[part]
    target = (v * norms)[part].mean() * (pace / pace.mean()) ** alpha
    before, step = v, np.zeros(3)
    step[part] = np.sign((v * norms)[part] - target) * norms[part]
    v = np.maximum(v - rate * step, 1e-3)
    v = v * 3 / v.sum()
    params = problem.descended(params, gradients, before)
    after.append(dict(params))
    for i, name in enumerate(problem.NAMES):
      after[-1]['balancing/%s/weight' % name] = v[i]
      after[-1]['balancing/%s/first_loss' % name] = first[i]
  return after


@pytest.mark.parametrize('alpha, rate, slices', [
    (1.5, 0.025, 1), (0.0, 0.1, 1), (0.5, 0.05, 4)])
def test_weights_are_those_of_numpy(alpha, rate, slices):
  feeds = problem.batches(7)
  got, _, _ = problem.trained(
      grad_norm.GradNorm(alpha, rate), feeds, slices)
  wanted = by_hand(feeds, alpha, rate)
  problem.assert_equal(got, wanted)
  assert abs(wanted[-1]['balancing/stay/weight'] - 1) > 0.01


def test_a_task_whose_rows_come_late_starts_late():
  feeds = problem.batches(3)[::-1]  # the first batch has no row of 'buy'
  got, _, _ = problem.trained(grad_norm.GradNorm(), feeds)
  assert got[0]['balancing/buy/first_loss'] == 0
  assert got[1]['balancing/buy/first_loss'] > 0
  problem.assert_equal(got, by_hand(feeds, 1.5, 0.025))


def test_no_weight_falls_to_0():
  got, _, _ = problem.trained(
      grad_norm.GradNorm(learning_rate=10.0), problem.batches(4))
  weights = [[of_step['balancing/%s/weight' % name] for name in problem.NAMES]
             for of_step in got]
  assert np.min(weights) > 0
  np.testing.assert_allclose(np.sum(weights, axis=1), 3, rtol=1e-5)
