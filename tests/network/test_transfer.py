"""The transfer of AITM against its equations in numpy."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.engine import purpose as purpose_lib
from ple_estimator.network import ple
from ple_estimator.network import precision
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
