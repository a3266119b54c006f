"""Batch norm, whose evaluation is right from the first steps on.

Ioffe and Szegedy, "Batch Normalization", ICML 2015. In training a column is
normalised by the moments of the batch; in evaluation by moving averages of
these. With a constant momentum the averages depend for hundreds of steps on the
numbers that they start from: at momentum 0.99 the start has a weight of 37 %
after 100 steps. Here the momentum grows with the step, so that the start has no
weight at all and young averages follow a network that still changes fast.
"""

import collections

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.engine import native

# The momentum of step t is at most t / (t + _RAMP), t counted from 0: the
# averages are over the last (t + _RAMP) / _RAMP steps or so.
_RAMP = 10.0

# The variables of one batch norm, [n] float32 each; mean and variance are the
# moving averages.
Norm = collections.namedtuple('Norm', 'gamma beta mean variance')


@gin.register
class BatchNorm:
  """The settings of batch norm, for PLE.batch_norm and Tower.batch_norm.

  Attributes:
    epsilon: float.
    settings: tuple of all settings.
  """

  def __init__(self, momentum=0.9, epsilon=1e-3):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      momentum: float in [0, 1), the share that a moving average keeps of itself
        at a step. At global step t it is min(momentum, t / (t + 10)), so the
        first steps' moments are forgotten fast.
      epsilon: float, added to variances.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check_number('BatchNorm.momentum', momentum, least=0, below=1)
    errors.check_number('BatchNorm.epsilon', epsilon, above=0)
    self._momentum = momentum
    self.epsilon = epsilon
    self.settings = momentum, epsilon

  def variables(self, units):
    """Makes the variables of a layer in the current scope; returns a Norm."""
    ones, zeros = tf.ones_initializer(), tf.zeros_initializer()
    return Norm(
        tf.get_variable('gamma', [units], tf.float32, ones),
        tf.get_variable('beta', [units], tf.float32, zeros),
        tf.get_variable('moving_mean', [units], tf.float32, zeros,
                        trainable=False),
        tf.get_variable('moving_variance', [units], tf.float32, ones,
                        trainable=False))

  def scale_and_shift(self, x, norm, training):
    """Describes the norm of x as x * scale + shift; see `normalized`.

    In training the moving averages are moved by tf.GraphKeys.UPDATE_OPS.

    Args:
      x: [batch, n] float32.
      norm: Norm.
      training: bool.

    Returns:
      (scale, shift): [n] float32.
    """
    mean, variance = norm.mean, norm.variance
    if training:
      mean, variance = _moments(x)
      share = 1 - self._momentum_now()
      for moving, batch in ((norm.mean, mean), (norm.variance, variance)):
        tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, moving.assign_sub(
            (moving - batch) * share))
    scale = norm.gamma * tf.rsqrt(variance + self.epsilon)
    return scale, norm.beta - mean * scale

  def move(self, norms, moments):
    """Moves the averages of fused batch norms, by one op per device.

    Args:
      norms: list of Norm.
      moments: [sum of 2 n] float32, mean and variance of each in turn.
    """
    by_device, offset = collections.OrderedDict(), 0
    for norm in norms:
      for moving in (norm.mean, norm.variance):
        by_device.setdefault(moving.device, []).append((moving, offset))
        offset += moving.shape[0].value
    momentum = self._momentum_now()
    for device, pairs in by_device.items():
      with tf.device(device or None):
        tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, native.moving_averages(
            [moving for moving, _ in pairs], [at for _, at in pairs], moments,
            momentum))

  def _momentum_now(self):
    """The momentum of the step that is being made, a float32 scalar."""
    step = tf.cast(tf.train.get_or_create_global_step(), tf.float32)
    return tf.minimum(self._momentum, step / (step + _RAMP))


def moving_moments(norms):
  """Concatenates the moving means and variances of Norms, [n] float32."""
  return tf.concat(
      [x for norm in norms for x in (norm.mean, norm.variance)],
      axis=0) if norms else tf.zeros([0])


def normalized(x, norm):
  """Returns x * scale + shift for a norm (scale, shift), or x for None."""
  return tf.nn.bias_add(x * norm[0], norm[1]) if norm else x


@tf.custom_gradient
def _moments(x):
  """tf.nn.moments over the rows, with a gradient that reads x less often.

  Sums are computed as products with a vector, which is TensorFlow's fastest
  form.

  Args:
    x: [batch, n] float32.

  Returns:
    (mean, variance): [n] float32.
  """
  rows = tf.shape(x)[:1]
  share = 1 / tf.cast(rows[0], tf.float32)
  weights = tf.fill([1, rows[0]], share)
  mean = tf.squeeze(tf.matmul(weights, x), axis=0)
  variance = tf.squeeze(
      tf.matmul(weights, tf.math.squared_difference(x, mean)), axis=0)

  def grad(d_mean, d_variance):
    slope = 2 * share * d_variance
    return tf.nn.bias_add(x * slope, share * d_mean - slope * mean)

  return (mean, variance), grad
