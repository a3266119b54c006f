"""Products of the vectors of all pairs of columns."""

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.interactions import interaction


@gin.register
class FM(interaction.Interaction):
  """The second-order part of a factorization machine.

  Rendle, "Factorization Machines", ICDM 2010, eq. 1 and lemma 3.1: the sum over
  all pairs of columns of the products of their vectors, dimension by dimension,

    p_f = 1/2 ((sum_c v_cf)^2 - sum_c v_cf^2).

  A number x_i takes part with the vector x_i v_i. Added to the logits, task k
  has sum_f h_kf p_f, where h starts at 1; or sum_f p_f of vectors that only
  this task has. The experts read p itself, as in He and Chua, "Neural
  Factorization Machines", SIGIR 2017, eq. 4. `Wide` is the first-order part.
  """

  scope = 'fm'

  def __init__(self, dim=None, per_task=False, scale=1.0, l2=0.0,
               to='logits'):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      dim: int, the width of vectors that only this interaction reads. None
        takes the vectors that the experts read, which must all have one dim.
      per_task: bool, whether each task has vectors of its own, of the width
        `dim`; only to the logits.
      scale: float, a vector is this times what the table holds. Products of
        vectors that start near 0 begin to learn slowly; with a scale above 1
        they start larger and, under Adam, move as many times faster.
      l2: float, adds l2 |v|^2 / 2 for the vector of each different value of a
        batch to the training loss, so that rare values stay near 0; only with
        `dim`.
      to: 'logits' or 'experts', where the result goes.

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__(to, scale, l2)
    errors.check_integer('FM.dim', dim, 1, or_none=True)
    errors.check_bool('FM.per_task', per_task)
    errors.check(not per_task or dim is not None and to == 'logits',
                 "FM.per_task must be False without FM.dim, and with FM.to = "
                 "'experts', got True for %s and %r.", dim, to)
    errors.check(not l2 or dim is not None, 'FM.l2 must be 0 without FM.dim, '
                 'got %r: bind the l2 of the embedding.', l2)
    self._dim = dim
    self._per_task = per_task

  def own_width(self, num_tasks):
    return (self._dim or 0) * (num_tasks if self._per_task else 1)

  def own_names(self, scope, tasks):
    if not self._per_task:
      return super().own_names(scope, tasks)
    return [('%s/%s' % (scope, task), self._dim or 0) for task in tasks]

  def check(self, columns, num_numbers):
    errors.check(columns or self._dim is not None and num_numbers, 'FM without '
                 'FM.dim needs columns with vectors, of a kind such as hashed '
                 'or integer, got none.')
    if self._dim is None:
      self._check_one_dim(columns)

  def __call__(self, fields, num_tasks, purpose):
    products = self._products(
        fields.vectors if self._dim is None else fields.own, fields,
        num_tasks)
    if self.to == 'experts':
      return interaction.Contribution(inputs=products)
    if self._per_task:
      return interaction.Contribution(logits=tf.reduce_sum(
          tf.reshape(products, [-1, num_tasks, self._dim]), axis=2))
    weights = tf.get_variable(
        'weights', [products.shape[1].value, num_tasks], tf.float32,
        tf.ones_initializer())
    return interaction.Contribution(logits=tf.matmul(products, weights))

  def _products(self, blocks, fields, num_tasks):
    """[batch, n] float32, the sums of products of all pairs of columns."""
    blocks = [self._scale * block for block in blocks]
    totals = [interaction.sum_columns(blocks)] if blocks else []
    squares = [interaction.sum_columns([tf.square(x) for x in blocks])
               ] if blocks else []
    if fields.num_numbers():
      width = totals[0].shape[1].value if totals else self.own_width(
          num_tasks)
      vectors = interaction.number_vectors(fields, width)
      totals.append(tf.matmul(fields.numbers, vectors))
      squares.append(tf.matmul(tf.square(fields.numbers), tf.square(vectors)))
    return 0.5 * (tf.square(tf.add_n(totals)) - tf.add_n(squares))
