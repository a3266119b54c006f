"""Numbers that look random but depend on a key alone.

References:
  Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA
    2014 (the constants and the finalizer of splitmix64).
"""

import numpy as np
import tensorflow.compat.v1 as tf

# The constants of splitmix64 as int64.
GOLDEN = 0x9e3779b97f4a7c15 - 2**64
_MIX_1 = 0xbf58476d1ce4e5b9 - 2**64
_MIX_2 = 0x94d049bb133111eb - 2**64

_STDDEV_OF_UNIFORM = 3 ** -0.5  # the standard deviation of uniform [-1, 1)
_MANTISSA_BITS = 24  # integers up to 2^24 are exact in float32

xor = tf.bitwise.bitwise_xor


def scramble(x):
  """The splitmix64 finalizer: [...] int64 -> [...] int64 that look random.

  The result has the same bits in every version of TensorFlow: products wrap
  around, and shifts are logical.
  """
  x = x + np.int64(GOLDEN)
  x = xor(x, _shift(x, 30)) * np.int64(_MIX_1)
  x = xor(x, _shift(x, 27)) * np.int64(_MIX_2)
  return xor(x, _shift(x, 31))


def not_negative(x):
  """[...] int64 -> [...] int64 without the sign bit, for a remainder."""
  return tf.bitwise.bitwise_and(x, np.int64(2**63 - 1))


def uniform(keys, dim, stddev, seed):
  """Vectors for keys, uniform around 0.

  Args:
    keys: [n] int64.
    dim: int, numbers per key.
    stddev: float, the standard deviation of the numbers.
    seed: int; other seeds give other vectors.

  Returns:
    [n, dim] float32, which depend on key and seed alone.
  """
  keys = scramble(xor(keys, np.int64(seed)))
  numbers = scramble(keys[:, tf.newaxis] + np.arange(dim, dtype=np.int64))
  numbers = tf.bitwise.bitwise_and(numbers, np.int64(2**_MANTISSA_BITS - 1))
  return (tf.cast(numbers, tf.float32) * 2.0 ** (1 - _MANTISSA_BITS) -
          1) * (stddev / _STDDEV_OF_UNIFORM)


def _shift(x, bits):
  shifted = tf.bitwise.right_shift(x, tf.constant(bits, tf.int64))
  return tf.bitwise.bitwise_and(shifted, np.int64((1 << (64 - bits)) - 1))
