"""The slots that an optimizer keeps for the rows of a keyed table."""

import tensorflow.compat.v1 as tf

from ple_estimator.embeddings import table_columns
from ple_estimator.engine import compat


def make(optimizer, variables, tables):
  """Makes an optimizer's slots; keyed tables fill those of their own rows.

  Args:
    optimizer: tf.train.Optimizer.
    variables: list of resource variables, which may be parts of others.
    tables: list of keyed_table.KeyedTable.
  """
  for table in tables:
    with tf.variable_scope(
        tf.get_variable_scope(), custom_getter=table.state.slots.getter):
      compat.make_slots(optimizer, [table.values])
  compat.make_slots(optimizer, variables)
  for variable in variables:
    for name in optimizer.get_slot_names():
      compat.declare_slot(optimizer.get_slot(variable, name), variable)


class TableSlots:
  """The slots of one part of a table, which are filled row by row.

  A slot as high as the table, such as Adam's m, does not get initial values
  when it is created: each row of it is written when a key gets that row. A
  scalar slot, such as the power of a beta, is created as usual; it is the same
  for all parts, and a checkpoint has it once.

  Attributes:
    variables: list of the slots that are as high as the table.
  """

  def __init__(self, values, whole_name, num_parts):
    """Starts without slots; those come with the optimizer, see `getter`.

    Args:
      values: variable, the rows that the optimizer trains.
      whole_name: str, what values would be called in a table of one part.
      num_parts: int, how many parts the table has.
    """
    self._values = values
    self._whole_name = whole_name
    self._num_parts = num_parts
    self._initial = []  # one row of each of `variables`
    self.variables = []

  def getter(self, getter, name, shape=None, dtype=tf.float32,
             initializer=None, **kwargs):
    """A custom getter for the variable scope of the slots.

    See tf.variable_scope for the arguments.
    """
    def make(initializer):
      return getter(name, shape=shape, dtype=dtype, initializer=initializer,
                    **kwargs)

    own_name = self._values.op.name
    is_own = name.startswith(own_name + '/')
    if is_own and tf.TensorShape(shape).rank:
      slot = make(compat.uninitialized)
      row_shape = tf.TensorShape(shape).as_list()[1:]
      with tf.device(self._values.device):
        self._initial.append(initializer([1] + row_shape, dtype=dtype))
      self.variables.append(slot)
      return slot
    slot = make(initializer)
    if is_own and self._num_parts > 1:
      compat.declare_copy(
          slot, self._whole_name + slot.op.name[len(own_name):])
    return slot

  def columns(self):
    """The slots with the suffixes of their names in a checkpoint."""
    own_name = self._values.op.name
    return [('%s-values' % slot.op.name[len(own_name):], slot)
            for slot in self.variables]

  def starts(self):
    """What a row of each slot starts with, a dict.

    Its keys are the endings of `columns`, its values [1, ...] tensors.
    """
    return {ending: initial for (ending, _), initial in zip(
        self.columns(), self._initial)}

  def initialize(self, rows):
    """Writes initial values into rows of all slots; returns a list of ops."""
    written = []
    for slot, initial in zip(self.variables, self._initial):
      shape = tf.concat([tf.shape(rows), initial.shape[1:].as_list()], axis=0)
      written.append(table_columns.update(
          slot, rows, tf.broadcast_to(initial, shape)))
    return written
