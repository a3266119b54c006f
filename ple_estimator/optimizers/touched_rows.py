"""Which rows of ordinary tables were updated since a global step.

Incremental checkpoints save these rows only.
"""

import tensorflow.compat.v1 as tf

from ple_estimator.engine import compat

_NEVER = -1


def of_graph():
  """The TouchedRows of the default graph, a list."""
  return tf.get_collection(TouchedRows)


class TouchedRows:
  """Records the global step that last updated each row of a variable.

  The variable may be one partition of a partitioned variable. A delta then has
  the rows' numbers in the whole variable.

  Attributes:
    variables: list of the variable and those of its slots that have as many
      rows.
  """

  def __init__(self, variable, slots):
    """Makes the hash table of rows to steps in the default graph.

    Args:
      variable: resource variable, the table.
      slots: list of variables, the optimizer's slots for it.
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
    """Records that rows are updated; returns an op.

    Args:
      rows: [n] int64, numbers of rows in `variable`.
      step: int64 scalar, the global step.
    """
    with tf.device(self._device):
      return self._steps.insert(rows, tf.fill(tf.shape(rows), step))

  def changes(self, since):
    """The rows updated since a step, in ascending order; forgets all others.

    Args:
      since: int64 scalar, the first global step that counts.

    Returns:
      dict of name in a delta to tensor: <name>-rows of the variable, and
      <name>-values for each of `variables`. Names are those of the whole
      variables.
    """
    with tf.device(self._device):
      all_rows, steps = self._steps.export()
      old = steps < since
      forget = self._steps.remove(tf.boolean_mask(all_rows, old))
      with tf.control_dependencies([forget]):
        rows = tf.sort(tf.boolean_mask(all_rows, ~old))
      delta = {self._whole_name + '-rows': rows + self._first}
      for variable in self.variables:
        delta[compat.whole(variable)[0] + '-values'] = tf.gather(variable, rows)
    return delta
