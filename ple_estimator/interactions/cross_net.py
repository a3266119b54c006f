"""Cross layers: products of the input with itself, of growing order."""

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.interactions import interaction


@gin.register
class CrossNet(interaction.Interaction):
  """The cross network of DCN-v2.

  Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021, eq. 1: from
  the concatenated vectors and numbers x_0, layer l makes

    x_{l+1} = x_0 * (W_l x_l + b_l) + x_l

  (* by element). With a rank r, W_l is U_l V_l^T with r columns each (eq. 2).
  The experts read the last x in place of x_0 (the paper's stacked structure);
  or a linear layer per task adds it to the logits (the parallel structure).
  """

  scope = 'cross_net'

  def __init__(self, num_layers=2, rank=None, to='experts'):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      num_layers: int.
      rank: int, of the matrices W; None is full rank.
      to: 'experts' or 'logits', where the result goes.

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__(to)
    errors.check_integer('CrossNet.num_layers', num_layers, 1)
    errors.check_integer('CrossNet.rank', rank, 1, or_none=True)
    self._num_layers = num_layers
    self._rank = rank

  def __call__(self, fields, num_tasks, purpose):
    x = fields.inputs
    for i in range(self._num_layers):
      with tf.variable_scope('layer_%d' % i):
        x = fields.inputs * self._linear(x, purpose) + x
    if self.to == 'experts':
      return interaction.Contribution(crossed=x)
    kernel = tf.get_variable(
        'logits', [x.shape[1].value, num_tasks], tf.float32,
        tf.zeros_initializer())
    return interaction.Contribution(logits=tf.matmul(x, kernel))

  def _linear(self, x, purpose):
    """W x + b of a layer, [batch, in_dim] float32."""
    width = x.shape[1].value
    sizes = [('kernel', width, width)] if self._rank is None else [
        ('kernel_v', width, self._rank), ('kernel_u', self._rank, width)]
    product = x
    for name, rows, columns in sizes:
      product = purpose.precision.matmul(product, tf.convert_to_tensor(
          tf.get_variable(name, [rows, columns], tf.float32,
                          tf.glorot_uniform_initializer())))
    with tf.variable_scope(tf.get_variable_scope()) as scope:
      scope.set_partitioner(None)  # a vector is too small to be cut
      bias = tf.get_variable('bias', [width], tf.float32,
                             tf.zeros_initializer())
    return tf.nn.bias_add(product, bias)
