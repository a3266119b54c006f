"""Vectors of numbers, one for each narrow range of values."""

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.interactions import interaction


@gin.register
class Binned(interaction.Interaction):
  """A vector and first-order weights for the bin that a number lies in.

  A column of kind number is cut into bins of one width, and each bin is treated
  like a value of a category: the experts read a vector of the bin, and task k
  gets the weight that the bin has for it. So single values that stand out, such
  as a capital gain of exactly 15,024, can have an effect of their own, as they
  do in decision trees. Columns should be standardised (`mean`, `std` and
  `log1p`); where there is none, nothing is added. `Periodic` is the smooth
  counterpart.
  """

  scope = 'binned'

  def __init__(self, width=0.01, num_bins=2000, dim=8, scale=3.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      width: float, of a bin, in standard deviations of the column.
      num_bins: int, per number, around 0; the outermost two have all that lies
        beyond them.
      dim: int, of the vectors.
      scale: float, the weights are this times their variable, so that under
        Adam they move as many times faster.

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__('experts', scale)
    errors.check_number('Binned.width', width, above=0)
    errors.check_integer('Binned.num_bins', num_bins, 2)
    errors.check_integer('Binned.dim', dim, 1)
    self._width = width
    self._num_bins = num_bins
    self._dim = dim

  def __call__(self, fields, num_tasks, purpose):
    count = fields.num_numbers()
    if not count:
      return interaction.Contribution()
    table = tf.get_variable(
        'table', [count * self._num_bins, self._dim + num_tasks], tf.float32,
        tf.random_normal_initializer(stddev=0.01))
    # A served number that is missing is NaN, and so is its row's answer, but
    # NaN as a row of the table would fail the whole batch.
    numbers = tf.where(tf.is_nan(fields.numbers),
                       tf.zeros_like(fields.numbers), fields.numbers)
    bins = tf.clip_by_value(
        tf.floor(numbers / self._width) + self._num_bins // 2, 0.0,
        self._num_bins - 1.0)
    rows = tf.cast(bins, tf.int64) + self._num_bins * tf.range(
        count, dtype=tf.int64)
    found = tf.nn.embedding_lookup(table, rows, partition_strategy='div')
    vectors = tf.reshape(found[:, :, :self._dim], [-1, count * self._dim])
    return interaction.Contribution(
        inputs=vectors, logits=self._scale * tf.reduce_sum(
            found[:, :, self._dim:], axis=1))
