"""Products of the vectors of all pairs of columns, each pair with a weight."""

import gin
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.interactions import interaction


@gin.register
class FwFM(interaction.Interaction):
  """A field-weighted factorization machine, added to the logits.

  Pan et al., "Field-weighted Factorization Machines for Click-Through Rate
  Prediction in Display Advertising", WWW 2018, eq. 5. Task k gets

    logit_k = sum_{i < j} r_kij <v_i, v_j>

  for the pairs of columns, with a vector v per value and a weight r per pair
  and task, which starts at 1. A factorization machine (`FM`) gives all pairs
  the weight 1. Here a pair that matters, such as the category of an item and
  those that a user looked at, can grow, and others can vanish. A number x_i
  takes part with the vector x_i v_i. Where there is one column alone, there are
  no pairs and nothing is added. `Wide` is the first-order part.

  So two tasks see the same product of a user and an item, but for a factor,
  although who clicks and who buys may differ. With `matrix_scale` each task
  reads the vectors of each column through a matrix, which starts at 0:

    logit_k = sum_{i < j} r_kij <u_ki, u_kj>,  u_ki = v_i + M_ki v_i

  This is a field-matrixed factorization machine (Sun et al., "FM^2:
  Field-matrixed Factorization Machines for Recommender Systems", WWW 2021,
  section 3) per task, whose matrix of a pair is r_kij (I + M_ki)^T (I + M_kj):
  a matrix per column and not per pair costs less.
  """

  scope = 'fwfm'

  def __init__(self, dim=16, scale=3.0, weight_scale=10.0, l2=0.0,
               matrix_scale=None):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      dim: int, the width of the vectors. Only this interaction reads them.
      scale: float, a vector is this times what the table holds. Products of
        vectors that start near 0 begin to learn slowly; with a scale above 1
        they start larger and, under Adam, move as many times faster.
      weight_scale: float, r is 1 plus this times its variable, so that under
        Adam it moves as many times faster.
      l2: float, adds l2 |v|^2 / 2 for the vector of each different value of a
        batch to the training loss, so that rare values stay near 0.
      matrix_scale: float, M is this times its variable; None is no matrices.

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__('logits', scale, l2)
    errors.check_integer('FwFM.dim', dim, 1)
    errors.check_number('FwFM.weight_scale', weight_scale, above=0)
    errors.check_number('FwFM.matrix_scale', matrix_scale, above=0,
                        or_none=True)
    self._dim = dim
    self._weight_scale = weight_scale
    self._matrix_scale = matrix_scale

  def own_width(self, num_tasks):
    return self._dim

  def __call__(self, fields, num_tasks, purpose):
    vectors = [self._scale * block for block in fields.own]
    if fields.num_numbers():
      vectors.append(fields.numbers[:, :, tf.newaxis] *
                     interaction.number_vectors(fields, self._dim))
    vectors = tf.concat(vectors, axis=1)
    count = vectors.shape[1].value
    # A tensor, because a partitioner may cut the variable into parts.
    weights = 1 + self._weight_scale * tf.convert_to_tensor(tf.get_variable(
        'weights', [count, count, num_tasks], tf.float32,
        tf.zeros_initializer()))
    weights *= np.triu(np.ones([count, count], np.float32), 1)[:, :, np.newaxis]
    return interaction.Contribution(logits=(
        _weighted(vectors, weights) if self._matrix_scale is None else
        self._matrixed(vectors, weights)))

  def _matrixed(self, vectors, weights):
    """The logits of vectors that each task reads through its matrices.

    Args:
      vectors: [batch, columns, dim] float32.
      weights: [columns, columns, tasks] float32, 0 but for pairs i < j.

    Returns:
      [batch, tasks] float32.
    """
    count, dim = vectors.shape[1].value, self._dim
    tasks = weights.shape[2].value
    matrices = np.eye(dim, dtype=np.float32) + self._matrix_scale * (
        tf.transpose(tf.convert_to_tensor(tf.get_variable(
            'matrices', [count, dim, dim, tasks], tf.float32,
            tf.zeros_initializer())), [3, 0, 1, 2]))
    # All products are of large matrices: [batch, dim] x [dim, dim] for each
    # task and column, then [columns, columns] x [columns, batch * dim] for each
    # task.
    read = tf.matmul(tf.transpose(vectors, [1, 0, 2])[tf.newaxis], matrices)
    others = tf.matmul(
        tf.transpose(weights, [2, 0, 1]),
        tf.reshape(read, [tasks, count, -1]))
    products = read * tf.reshape(others, tf.shape(read))
    return tf.transpose(tf.reduce_sum(
        tf.reduce_sum(products, axis=1), axis=2))


def _weighted(vectors, weights):
  """The logits of vectors that all tasks read, as `FwFM._matrixed`."""
  count = vectors.shape[1].value
  products = tf.matmul(vectors, vectors, transpose_b=True)
  return tf.matmul(tf.reshape(products, [-1, count * count]),
                   tf.reshape(weights, [count * count, -1]))
