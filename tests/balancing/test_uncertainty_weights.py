"""Weights by a trained variance per task, against numpy."""

import numpy as np
import problem
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.balancing import uncertainty_weights


def by_hand(feeds, scale):
  """The variables after each step, and the loss of each step."""
  params, logs = problem.parameters(), np.zeros(3)
  after, losses = [], []
  for batch in feeds:
    of_batch, gradients = problem.differentiated(params, batch)
    counts = np.array([batch['weights'][name].sum() > 0
                       for name in problem.NAMES])
    factors = np.exp(-logs) * [1, 0.5, 1]
    losses.append((problem.WEIGHTS * (
        factors * of_batch + counts * logs / 2)).sum())
    params = problem.descended(params, gradients, factors)
    logs = logs - problem.RATE * scale ** 2 * problem.WEIGHTS * (
        counts / 2 - factors * of_batch)
    after.append(dict(params, **{
        'balancing/%s/log_variance' % name: log / scale
        for name, log in zip(problem.NAMES, logs)}))
  return after, losses


@pytest.mark.parametrize('slices, scale', [(1, 1.0), (3, 0.5)])
def test_variances_and_weights_are_those_of_numpy(slices, scale):
  feeds = problem.batches()
  got, losses, _ = problem.trained(
      uncertainty_weights.UncertaintyWeights(scale), feeds, slices)
  wanted, wanted_losses = by_hand(feeds, scale)
  problem.assert_equal(got, wanted)
  assert losses == pytest.approx(wanted_losses, rel=1e-4)


def test_a_loss_that_stays_gets_the_weight_that_the_likelihood_wants():
  # A regression with loss L: L / (2 L) = 1 / 2 at log sigma^2 = log(L).
  feeds = [dict(batch, ids=np.zeros(6, int), weights={
      'click': np.ones(6), 'stay': np.ones(6), 'buy': np.zeros(6)}, labels={
          'click': np.array([0, 1] * 3), 'stay': np.array([-2, 2] * 3),
          'buy': np.zeros(6)}) for batch in problem.batches(1)] * 600
  after, _, _ = problem.trained(
      uncertainty_weights.UncertaintyWeights(), feeds)
  values = {name: after[-1]['balancing/%s/log_variance' % name]
            for name in problem.NAMES}
  # The best constants predict 0: losses of log(2) and 4.
  assert values['stay'] == pytest.approx(np.log(4), abs=0.05)
  assert values['click'] == pytest.approx(np.log(2 * np.log(2)), abs=0.1)
  assert values['buy'] == 0


def test_tensorboard_shows_the_weights():
  problem.trained(uncertainty_weights.UncertaintyWeights(), [])
  names = {op.name for op in tf.get_default_graph().get_operations()
           if op.type == 'ScalarSummary'}
  assert {name + '/balancing' for name in problem.NAMES} <= names
