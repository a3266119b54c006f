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
  """

  scope = 'fwfm'

  def __init__(self, dim=16, scale=3.0, weight_scale=10.0, l2=0.0):
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

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__('logits', scale, l2)
    errors.check_integer('FwFM.dim', dim, 1)
    errors.check_number('FwFM.weight_scale', weight_scale, above=0)
    self._dim = dim
    self._weight_scale = weight_scale

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
    pairs = np.triu(np.ones([count, count], np.float32), 1)[:, :, np.newaxis]
    products = tf.matmul(vectors, vectors, transpose_b=True)
    return interaction.Contribution(logits=tf.matmul(
        tf.reshape(products, [-1, count * count]),
        tf.reshape(weights * pairs, [count * count, num_tasks])))
