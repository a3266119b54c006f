"""The transfer of AITM against its equations in numpy."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.engine import purpose as purpose_lib
from ple_estimator.network import gradients
from ple_estimator.network import objective
from ple_estimator.network import ple
from ple_estimator.network import precision
from ple_estimator.network import tasks as tasks_lib
from ple_estimator.network import towers
from ple_estimator.network import transfer

RNG = np.random.RandomState(8)
Q = {name: RNG.randn(6, 4).astype('f') for name in ('ctr', 'cvr', 'pay')}


def inner(inputs, tasks, purpose):
  """A network that gives Q."""
  del inputs, purpose
  return {name: tf.constant(Q[name]) for name in tasks}, {
      'level_0/ctr': {'shared/expert_0': tf.ones([6])}}


def built(order=None, dtype='float32', names=('ctr', 'cvr', 'pay')):
  """(outputs, gates, variables by name) of random variables."""
  made = transfer.AIT(inner, order)
  made.check_tasks(list(names))
  found, gates = made(tf.zeros([6, 1]), list(names), purpose_lib.Purpose(
      training=True, precision=precision.Precision(dtype)))
  variables = tf.trainable_variables()
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    sess.run([v.assign(RNG.randn(*v.shape.as_list())) for v in variables])
    return sess.run([found, gates, {v.op.name: v for v in variables}])


def by_hand(order, variables):
  z, shares = dict(Q), {}
  for before, task in zip(order, order[1:]):
    def dense(x, name, task=task):
      at = 'transfer/%s/%s/' % (task, name)
      return x.dot(variables[at + 'kernel']) + variables[at + 'bias']

    both = [np.maximum(0, dense(z[before], 'handed')), Q[task]]
    scores = np.stack([(dense(u, 'h2') * dense(u, 'h3')).sum(axis=1) / 2
                       for u in both])
    weights = np.exp(scores - scores.max(axis=0))
    weights /= weights.sum(axis=0)
    z[task] = sum(w[:, np.newaxis] * dense(u, 'h1')
                  for w, u in zip(weights, both))
    shares[task] = weights
  return z, shares


@pytest.mark.parametrize('order', [None, ('pay', 'ctr'), ['ctr', 'pay', 'cvr']])
def test_tasks_read_from_the_one_before(order):
  found, gates, variables = built(order)
  z, shares = by_hand(order or ['ctr', 'cvr', 'pay'], variables)
  for name in Q:
    np.testing.assert_allclose(found[name], z[name], rtol=2e-4, atol=1e-5)
  for task, weights in shares.items():
    np.testing.assert_allclose(gates['transfer/' + task]['before'], weights[0],
                               rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(gates['transfer/' + task]['own'], weights[1],
                               rtol=2e-4, atol=1e-6)
  assert len(gates) == 1 + len(shares)
  assert len(variables) == 8 * len(shares)


def test_bfloat16_is_close():
  found, _, variables = built(('ctr', 'cvr'), 'bfloat16', ('ctr', 'cvr'))
  z, _ = by_hand(('ctr', 'cvr'), variables)
  assert np.abs(found['cvr'] - z['cvr']).max() < 0.1 * np.abs(z['cvr']).max()
  assert (found['ctr'] == Q['ctr']).all()


@pytest.mark.parametrize('order, tasks, message', [
    (('ctr', 'buy'), ['ctr', 'cvr'], r"\(ctr, cvr\), got \('ctr', 'buy'\)"),
    (('ctr', 'ctr'), ['ctr', 'cvr'], 'at least two different tasks'),
    (None, ['ctr'], r'at least two different tasks .*\(ctr\), got None'),
])
def test_refuses_an_order(order, tasks, message):
  with pytest.raises(errors.UserError, match='AIT.order must be .*' + message):
    transfer.AIT(ple.PLE(), order).check_tasks(tasks)


def binary(name, **kwargs):
  return tasks_lib.Task(name, name, towers.Tower((2,)), **kwargs)


LABELS = {name: RNG.randint(0, 2, 6).astype('f') for name in Q}
WEIGHTS = {name: np.array([1, 2, 0, 0.5, 1, 3], 'f') for name in Q}
LOGITS = {name: RNG.randn(6).astype('f') for name in Q}


def losses_by_hand(order, alpha):
  """By the equations, of the mean over rows."""
  p = {name: 1 / (1 + np.exp(-LOGITS[name])) for name in Q}
  found = {name: np.average(
      -LABELS[name] * np.log(p[name]) - (1 - LABELS[name]) * np.log1p(-p[name]),
      weights=WEIGHTS[name]) for name in Q}
  for before, name in zip(order, order[1:]):
    found[name] += alpha * np.average(
        np.where(p[name] > p[before], p[name] - p[before], 0),
        weights=WEIGHTS[name])
  return found


@pytest.mark.parametrize('order', [None, ('pay', 'ctr'), ['ctr', 'pay', 'cvr']])
def test_what_lies_above_the_task_before_is_a_loss_of_training(order):
  made = transfer.AIT(inner, order, 0.6).calibrated(list(map(binary, Q)))
  assert [task.name for task in made] == list(Q)
  targets = objective.Targets(*[
      {name: tf.constant(x) for name, x in of.items()}
      for of in (LABELS, WEIGHTS)])
  logits = {name: tf.constant(x) for name, x in LOGITS.items()}
  with tf.Session() as sess:
    trained, plain = sess.run([
        objective.losses(made, targets, logits, training)
        for training in (True, False)])
  assert trained == pytest.approx(
      losses_by_hand(order or list(Q), 0.6), rel=1e-5)
  assert plain == pytest.approx(losses_by_hand([], 0), rel=1e-5)
  assert any(trained[name] > plain[name] + 0.01 for name in Q)


@pytest.mark.parametrize('slices', [1, 2])
def test_the_calibrator_moves_both_probabilities(slices):
  """The gradients by the logits are those of the equation, in slices too."""
  made = transfer.AIT(inner, ('ctr', 'cvr'), 0.6).calibrated(
      list(map(binary, ('ctr', 'cvr'))))
  plain = list(map(binary, ('ctr', 'cvr')))
  inputs = tf.constant(np.stack([LOGITS['ctr'], LOGITS['cvr']], axis=1))
  targets = objective.Targets(*[
      {name: tf.constant(of[name]) for name in ('ctr', 'cvr')}
      for of in (LABELS, WEIGHTS)])

  def build(rows):
    return {'ctr': rows[:, 0], 'cvr': rows[:, 1]}, {}

  with tf.Session() as sess:
    (_, with_it), (_, without) = sess.run([
        (found[0][0], found[1]) for found in [gradients.of_network(
            build, tasks, inputs, targets, slices, [1.0, 1.0])
                                              for tasks in (made, plain)]])
  p, q = [1 / (1 + np.exp(-LOGITS[name])) for name in ('cvr', 'ctr')]
  share = 0.6 * WEIGHTS['cvr'] / WEIGHTS['cvr'].sum() * (p > q)
  np.testing.assert_allclose(
      with_it - without, np.stack(
          [-share * q * (1 - q), share * p * (1 - p)], axis=1), atol=1e-6)


@pytest.mark.parametrize('kwargs', [
    {'loss': 'regression'}, {'sample_space': ('ctr', 1)},
    {'negative_rate': 0.5}, {'positive_weight': 2.0}])
def test_the_calibrator_refuses_probabilities_of_other_rows(kwargs):
  made = transfer.AIT(inner, None, 0.6)
  with pytest.raises(errors.UserError, match='AIT.calibrator_weight must be 0 '
                     'where .*, as in task cvr: it must be binary'):
    made.calibrated([binary('ctr'), binary('cvr', **kwargs)])
  transfer.AIT(inner).calibrated([binary('ctr'), binary('cvr', **kwargs)])
