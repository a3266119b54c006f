"""The moving averages of batch norm, which evaluation goes by."""

import collections

import conftest
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.engine import purpose
from ple_estimator.network import batch_norm
from ple_estimator.network import mlp
from ple_estimator.network import ple
from ple_estimator.network import precision
from ple_estimator.network import towers

FUSED = pytest.mark.parametrize(
    'fused', [False, pytest.param(True, marks=conftest.needs_kernels)])


def moved(fused, steps, momentum, first_step=0):
  """Trains nothing, but moves the averages for some steps.

  Returns:
    (averages, batches): lists over steps of the moving mean, and of the
    activations that were normalised, [rows, 3] each.
  """
  rng = np.random.RandomState(2)
  with tf.Graph().as_default():
    step = tf.train.create_global_step()
    x = tf.placeholder(tf.float32, [None, 3])
    tf.identity(mlp.Mlp(
        'PLE', 'relu', batch_norm.BatchNorm(momentum), 0.0, 0.0)(
            collections.OrderedDict(net=mlp.Net(x, (3,))), purpose.Purpose(
                True, precision.Precision(), fused))['net'])
    kernel, bias = tf.trainable_variables()[:2]
    mean, = [v for v in tf.global_variables() if 'moving_mean' in v.name]
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    averages, batches = [], []
    with tf.Session() as sess:
      sess.run(tf.global_variables_initializer())
      # relu(x) is what is normalised, and x is positive here.
      sess.run([kernel.assign(np.eye(3)), bias.assign(np.zeros(3)),
                mean.assign([100, 100, 100]), step.assign(first_step)])
      for i in range(steps):
        batches.append(rng.rand(64, 3).astype('f') + i)
        sess.run(updates, {x: batches[-1]})
        sess.run(step.assign_add(1))
        averages.append(sess.run(mean))
    return averages, batches


@FUSED
@pytest.mark.parametrize('momentum', [0.99, 0.5, 0.0])
def test_the_momentum_grows_with_the_step(fused, momentum):
  averages, batches = moved(fused, 30, momentum)
  wanted = np.full(3, 100.0)
  for t, (got, batch) in enumerate(zip(averages, batches)):
    share = min(momentum, t / (t + 10))
    wanted = share * wanted + (1 - share) * batch.mean(axis=0)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@FUSED
def test_the_start_has_no_weight_after_one_step(fused):
  averages, batches = moved(fused, 1, 0.99)
  np.testing.assert_allclose(averages[0], batches[0].mean(axis=0), rtol=1e-4)


@FUSED
def test_training_that_goes_on_keeps_the_averages(fused):
  averages, batches = moved(fused, 1, 0.9, first_step=100000)
  np.testing.assert_allclose(
      averages[0], 0.9 * 100 + 0.1 * batches[0].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize('call, message', [
    (lambda: batch_norm.BatchNorm(1.0), 'BatchNorm.momentum must be'),
    (lambda: batch_norm.BatchNorm(-0.1), 'BatchNorm.momentum must be'),
    (lambda: batch_norm.BatchNorm(epsilon=0), 'BatchNorm.epsilon must be'),
    (lambda: ple.PLE(batch_norm=3), 'PLE.batch_norm must be'),
    (lambda: towers.Tower(batch_norm='yes'), 'Tower.batch_norm must be'),
])
def test_refuses(call, message):
  with pytest.raises(errors.UserError, match=message):
    call()


@FUSED
def test_epsilon_is_added_to_the_variance(fused):
  with tf.Graph().as_default(), tf.Session() as sess:
    tf.train.create_global_step()
    x = tf.constant([[1.0], [3.0]])
    y = mlp.Mlp('PLE', 'relu', batch_norm.BatchNorm(epsilon=3.0), 0.0, 0.0)(
        collections.OrderedDict(net=mlp.Net(x, (1,))), purpose.Purpose(
            True, precision.Precision(), fused))['net']
    sess.run(tf.global_variables_initializer())
    sess.run(tf.trainable_variables()[0].assign([[1.0]]))
    # Mean 2, variance 1, so that the deviation is sqrt(1 + 3) = 2.
    np.testing.assert_allclose(sess.run(y), [[-0.5], [0.5]], rtol=1e-6)
