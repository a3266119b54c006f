"""Dot products of the vectors of chosen columns."""

import gin
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.interactions import interaction


@gin.register
class DotProducts(interaction.Interaction):
  """The dot product of the vectors of each pair of the chosen columns.

  Naumov et al., "Deep Learning Recommendation Model for Personalization and
  Recommendation Systems" (DLRM), 2019, section 2.1. The experts read the
  products beside the vectors; or task k gets sum_ij h_kij <v_i, v_j>, where h
  starts at 1.
  """

  scope = 'dot_products'

  def __init__(self, columns=gin.REQUIRED, to='experts'):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      columns: names of at least two category columns, whose vectors must have
        one dim.
      to: 'experts' or 'logits', where the products go.

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__(to)
    errors.check_list(
        'DotProducts.columns', columns, lambda name: isinstance(name, str),
        "names of columns, such as ['user_id', 'item_id']")
    errors.check(
        len(columns) == len(set(columns)) >= 2, 'DotProducts.columns must be '
        'at least two different names, got %s.', errors.written(columns))
    self._columns = list(columns)

  def check(self, columns, num_numbers):
    by_name = {column.name: column for column in columns}
    for name in self._columns:
      errors.check(
          name in by_name, 'DotProducts.columns must be columns with vectors '
          '(%s), got %r.', ', '.join(by_name), name)
    self._check_one_dim([by_name[name] for name in self._columns])

  def __call__(self, fields, num_tasks, purpose):
    vectors = tf.stack([_vector(fields, name) for name in self._columns],
                       axis=1)
    count = len(self._columns)
    first, second = np.triu_indices(count, 1)
    products = tf.gather(
        tf.reshape(tf.matmul(vectors, vectors, transpose_b=True),
                   [-1, count * count]),
        (first * count + second).tolist(), axis=1)
    if self.to == 'experts':
      return interaction.Contribution(inputs=products)
    weights = tf.get_variable(
        'weights', [len(first), num_tasks], tf.float32, tf.ones_initializer())
    return interaction.Contribution(logits=tf.matmul(products, weights))


def _vector(fields, name):
  """[batch, dim] float32, the vectors of one column."""
  for names, block in zip(fields.names, fields.vectors):
    if name in names:
      return block[:, names.index(name)]
  raise KeyError(name)
