"""Vectors of numbers, made of waves."""

import math

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.interactions import interaction


@gin.register
class Periodic(interaction.Interaction):
  """A vector for each number, which the experts read beside the number.

  Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep
  Learning", NeurIPS 2022, section 3.3 (PLR): the number x of column i has

    relu(W_i [sin(v_i), cos(v_i)] + b_i),  v_i = 2 pi c_i x

  with trained frequencies c_i, which start from a normal distribution. A dense
  layer of an expert is a smooth function of x; with this it can tell apart what
  lies close together, as decision trees do. Numbers should be standardised
  (`mean`, `std` and `log1p` of the column); where there is none, nothing is
  added.
  """

  scope = 'periodic'

  def __init__(self, dim=8, num_frequencies=48, stddev=10.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      dim: int, the width of a vector.
      num_frequencies: int, per number.
      stddev: float, of the frequencies at the start, in waves per standard
        deviation of the column.

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__('experts')
    errors.check_integer('Periodic.dim', dim, 1)
    errors.check_integer('Periodic.num_frequencies', num_frequencies, 1)
    errors.check_number('Periodic.stddev', stddev, above=0)
    self._dim = dim
    self._num_frequencies = num_frequencies
    self._stddev = stddev

  def __call__(self, fields, num_tasks, purpose):
    count, waves = fields.num_numbers(), self._num_frequencies
    if not count:
      return interaction.Contribution()
    frequencies = tf.get_variable(
        'frequencies', [count, waves], tf.float32,
        tf.random_normal_initializer(stddev=self._stddev))
    kernel = tf.get_variable(
        'kernel', [count, 2 * waves, self._dim], tf.float32,
        tf.random_uniform_initializer(-1, 1))
    bias = tf.get_variable(
        'bias', [count, self._dim], tf.float32, tf.zeros_initializer())
    angles = 2 * math.pi * frequencies * fields.numbers[:, :, tf.newaxis]
    features = tf.concat([tf.sin(angles), tf.cos(angles)], axis=2)
    # [batch, count, 2 waves] x [count, 2 waves, dim], column by column.
    products = tf.matmul(
        tf.transpose(features, [1, 0, 2]), kernel / math.sqrt(2 * waves))
    vectors = tf.nn.relu(tf.transpose(products, [1, 0, 2]) + bias)
    return interaction.Contribution(
        inputs=tf.reshape(vectors, [-1, count * self._dim]))
