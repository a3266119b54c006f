"""The state of a part of a keyed table: variables, hash table and lock."""

import tensorflow.compat.v1 as tf

from ple_estimator.embeddings import admission
from ple_estimator.embeddings import row_allocator
from ple_estimator.embeddings import table_columns
from ple_estimator.embeddings import table_parts
from ple_estimator.embeddings import table_slots
from ple_estimator.engine import compat

NO_ROW = -1  # what `rows` has for a key without a row


class TableState:
  """The contents of one part of a table; the step and checkpoints share it.

  Attributes:
    name: str, what the part's tensors begin with in a checkpoint.
    whole_name: str, as name, of the whole table.
    part: int, which part of the table this is.
    num_parts: int, how many parts there are.
    dim: int.
    device: str, where the part is.
    training: bool; without it the table has `rows` and `values` only.
    capacity: row_allocator.Capacity.
    rows: compat.HashTable of keys to rows, NO_ROW for other keys.
    values: [height, dim] float32 variable, the vectors.
    freqs: [height] int64 variable, how often each key has been seen.
    versions: [height] int64 variable, the global step that trained a row last.
    allocator: row_allocator.RowAllocator.
    slots: table_slots.TableSlots.
    filter: what decides which keys get a row, see admission.Everyone.
    saved_values: str, the suffix of the tensor of a checkpoint that `values`
      are restored from.
  """

  def __init__(self, name, dim, capacity, training, filter, part, num_parts):
    """Makes the variables in the default graph.

    Args:
      name: str, the variable scope.
      dim: int.
      capacity: row_allocator.Capacity.
      training: bool.
      filter: e.g. admission.CounterFilter, or None.
      part: int.
      num_parts: int.
    """
    self.dim = dim
    self.capacity = capacity
    self.training = training
    self.part, self.num_parts = part, num_parts
    self.saved_values = '-values'
    with tf.variable_scope(name) as scope:
      scope.set_partitioner(None)  # a table is divided by key, not by row
      self.values = self._column('embedding', [dim], tf.float32)
      self.device = self.values.device
      self.name = self.values.op.name
      self.whole_name = scope.name + '/embedding'
      self.slots = table_slots.TableSlots(
          self.values, self.whole_name, num_parts)
      place = table_parts.name_of(scope.name, part, num_parts)
      self.filter = admission.Everyone() if not (training and filter) else (
          filter.build(place, self.device, num_parts))
      with tf.device(self.device):
        self.rows = compat.HashTable(place + '/rows', default=NO_ROW)
        if training:
          self._lock = compat.Lock(place)
          self.freqs = self._column('freqs', [], tf.int64)
          self.versions = self._column('versions', [], tf.int64)
          self.allocator = row_allocator.RowAllocator(
              capacity, part, num_parts)

  def _column(self, name, row_shape, dtype):
    return table_columns.make(
        table_parts.name_of(name, self.part, self.num_parts),
        self.capacity.height, row_shape, dtype)

  @property
  def variables(self):
    """All variables that the table saves by itself, a list."""
    of_training = [self.freqs, self.versions] + self.allocator.variables if (
        self.training) else []
    return [self.values] + of_training + self.slots.variables

  def columns(self):
    """All that is saved of a row: list of (suffix of its name, variable)."""
    of_training = [('-freqs', self.freqs), ('-versions', self.versions)] if (
        self.training) else []
    return [(self.saved_values, self.values)] + of_training + (
        self.slots.columns())

  def locked(self, function):
    """Runs a function of no arguments under the lock that processes share.

    A table that only reads has no lock, and needs none.

    Args:
      function: returns tensors; the lock does not order the ops inside of it.

    Returns:
      What the function returns.
    """
    return self._lock.execute(function) if self.training else function()
