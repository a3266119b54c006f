"""Gives out and takes back the rows of a table."""

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator.embeddings import table_columns
from ple_estimator.embeddings import table_parts

# The gin binding, the capacity; what for follows.
FULL = '%s must be raised: %d rows are not enough for '


class Capacity:
  """How many keys a table may hold, and how many rows a part has for them.

  Attributes:
    height: int, the rows of one part.
  """

  def __init__(self, rows, binding, num_parts=1):
    """Computes the height.

    Args:
      rows: int, of all parts together.
      binding: str, the gin binding that sets it, for the message.
      num_parts: int, how many parts the table has.
    """
    self.height = table_parts.height(rows, num_parts)
    self._full = FULL % (binding, rows)

  def check(self, count, purpose):
    """An op that fails unless one part has `count` rows.

    Args:
      count: int64 scalar.
      purpose: str, what the rows are needed for: 'training'.
    """
    return tf.Assert(count <= self.height, [self._full + purpose])


class RowAllocator:
  """Gives out the rows of one part of a table and takes them back.

  Rows that have never been used are given out in ascending order. Rows that
  were freed stand in a ring buffer, in the order in which they were freed.
  Another worker may have looked a row up just before it was freed, and then
  still writes its update to it. So a freed row waits until the next call of
  `free`, that is until the next eviction, before it is given out again.

  All methods must be called under the lock of the table.

  Attributes:
    variables: list of the two variables.
    state: [4] int64 variable: the next row that was never used, and how many
      rows have, since the table was created, left the ring, been allowed to
      leave it, and entered it. The latter three only grow; modulo the height
      they are places in the ring.
  """

  def __init__(self, capacity, part=0, num_parts=1):
    """Makes the variables in the variable scope and on the device in force.

    Args:
      capacity: Capacity.
      part: int, which part of the table this is.
      num_parts: int, how many parts there are.
    """
    self._capacity = capacity
    self._ring = table_columns.make(
        table_parts.name_of('free_rows', part, num_parts), capacity.height, [],
        tf.int64)
    self.state = tf.get_variable(
        table_parts.name_of('state', part, num_parts), [4], tf.int64,
        tf.zeros_initializer(), trainable=False)
    self.variables = [self._ring, self.state]

  def allocate(self, count):
    """Takes free rows, the freed ones first.

    Args:
      count: int64 scalar.

    Returns:
      [count] int64, different rows. It fails without effect if there are not
      as many, see Capacity.check.
    """
    unused, taken, reusable, freed = tf.unstack(self.state.read_value())
    again = tf.minimum(count, reusable - taken)
    after = unused + count - again
    # The lock does not order the ops inside of it, so the order is given here:
    # check, read, and write last.
    with tf.control_dependencies([self._capacity.check(after, 'training')]):
      rows = tf.concat([
          table_columns.gather(self._ring, self._places(taken, again)),
          tf.range(unused, after)], axis=0)
    with tf.control_dependencies([rows]):
      written = self._write(after, taken + again, reusable, freed)
    with tf.control_dependencies([written]):
      return tf.identity(rows)

  def free(self, rows):
    """Takes rows back, and allows those of the last call to be given out.

    Args:
      rows: [n] int64, different rows that were given out.

    Returns:
      list of ops.
    """
    unused, taken, _, freed = tf.unstack(self.state.read_value())
    count = tf.size(rows, out_type=tf.int64)
    places = self._places(freed, count)
    with tf.control_dependencies([places, rows]):
      return [table_columns.update(self._ring, places, rows),
              self._write(unused, taken, freed, freed + count)]

  def allocated(self):
    """Gives the ring its memory before a restore; returns an op."""
    return table_columns.allocated(self._ring)

  def reset(self, count):
    """Forgets everything but that the first `count` rows are in use.

    Args:
      count: int64 scalar.

    Returns:
      tf.Operation.
    """
    zero = tf.zeros([], tf.int64)
    return self._write(count, zero, zero, zero)

  def _places(self, first, count):
    """The places in the ring of `count` entries from the first on."""
    return tf.mod(first + tf.range(count), np.int64(self._capacity.height))

  def _write(self, *numbers):
    return self.state.assign(tf.stack(numbers), read_value=False)
