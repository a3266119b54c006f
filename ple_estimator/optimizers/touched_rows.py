"""Which rows of ordinary tables training has touched lately."""

import tensorflow.compat.v1 as tf

from ple_estimator.engine import compat

_NEVER = -1


def of_graph():
  """The TouchedRows of the default graph, a list."""
  return tf.get_collection(TouchedRows)


class TouchedRows:
  """Notes the last step that updated each row of a variable.

  The variable may be a part of another; rows are then the other's.

  Attributes:
    variables: list of the variable and those of its slots that have its height.
  """

  def __init__(self, variable, slots):
    """Makes the notes in the default graph.

    Args:
      variable: the table.
      slots: list of variables, its optimizer's slots.
    """
    self._whole_name, _, self._first = compat.whole(variable)
    height = variable.shape.as_list()[0]
    self.variables = [variable] + [
        slot for slot in slots if slot.shape.as_list()[:1] == [height]]
    self._device = variable.device
    with tf.device(self._device):
      self._steps = compat.HashTable(
          variable.op.name + '/touched', default=_NEVER)
    tf.add_to_collection(TouchedRows, self)

  def note(self, rows, step):
    """Notes rows; returns an op.

    Args:
      rows: [n] int64, of the variable.
      step: int64 scalar, the global step.
    """
    with tf.device(self._device):
      return self._steps.insert(rows, tf.fill(tf.shape(rows), step))

  def changes(self, since):
    """The rows touched from a step on, in ascending order; forgets others.

    Args:
      since: int64 scalar.

    Returns:
      dict of name in a delta to tensor: <variable>-rows, and -values for each
      of `variables`, by the names of the wholes.
    """
    with tf.device(self._device):
      all_rows, steps = self._steps.export()
      old = steps < since
      forget = self._steps.remove(tf.boolean_mask(all_rows, old))
      with tf.control_dependencies([forget]):
        rows = tf.sort(tf.boolean_mask(all_rows, ~old))
      found = {self._whole_name + '-rows': rows + self._first}
      for variable in self.variables:
        found[compat.whole(variable)[0] + '-values'] = tf.gather(variable, rows)
    return found
