"""The number format of the matrix products."""

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors


@gin.register
class Precision:
  """Runs the matrix products in one dtype; everything else stays float32.

  With 'bfloat16' the operands of a product are rounded to 8 bits of mantissa,
  and the product is bfloat16. Variables, biases, activations, batch norm,
  softmax, loss and optimizer are float32. (Batch norm has to be, because
  tf.nn.moments has no bfloat16 kernel on TensorFlow 1.15.) The gradients of a
  product are bfloat16 products too. bfloat16 has the exponent of float32, so no
  loss scaling is needed. The fused kernels (mlp.py) also store what lies
  between two products as bfloat16; their sums are float32.

  Attributes:
    dtype: tf.DType of the operands.

  References:
    Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", 2019.
  """

  def __init__(self, compute='float32'):
    """Stores the dtype.

    Args:
      compute: 'float32' or 'bfloat16'.

    Raises:
      UserError: if compute is neither.
    """
    errors.check_choice('Precision.compute', compute, ('float32', 'bfloat16'))
    self.dtype = tf.as_dtype(compute)

  def matmul(self, x, kernel):
    """[rows, n] float32 times [n, m] float32 -> [rows, m] float32."""
    product = tf.matmul(tf.cast(x, self.dtype), tf.cast(kernel, self.dtype))
    return tf.cast(product, tf.float32)
