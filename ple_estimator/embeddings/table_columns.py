"""Variables with one entry per row of a table.

Their memory is not touched until a row is written. All reads and writes go
through raw ops: the methods of a resource variable read all of it, or copy it.
"""

import tensorflow.compat.v1 as tf

from ple_estimator.engine import compat


def make(name, height, row_shape, dtype):
  """Makes a variable [height, *row_shape] whose memory stays untouched."""
  return tf.get_variable(
      name, [height] + row_shape, dtype, compat.uninitialized, trainable=False)


def allocated(column):
  """Gives a variable its memory if it has none yet; returns an op.

  A restore takes the place of the initializer, which would have done that.
  """
  return tf.cond(
      compat.is_initialized(column), tf.no_op,
      lambda: tf.group(column.assign(
          compat.uninitialized(column.shape, column.dtype.base_dtype),
          read_value=False)))


def gather(column, rows):
  """The entries of rows: [n] int64 -> [n, *row_shape]."""
  return tf.raw_ops.ResourceGather(
      resource=column.handle, indices=rows, dtype=column.dtype.base_dtype)


def update(column, rows, values):
  """Overwrites the entries of rows; returns an op."""
  return tf.raw_ops.ResourceScatterUpdate(
      resource=column.handle, indices=rows, updates=values)


def add(column, rows, values):
  """Adds to the entries of rows; returns an op."""
  return tf.raw_ops.ResourceScatterAdd(
      resource=column.handle, indices=rows, updates=values)
