"""Saves and restores keyed tables.

Saving takes the lock of the table: it evicts rows, then copies keys, rows,
counters and all slots at one instant. A checkpoint has no row numbers, so it
restores into any capacity that holds its keys. Its tensors have the names of
DeepRec ("Embedding-Variable-Export-Format"), keys in ascending order. Of a
checkpoint with another number of parts, each part reads those saved parts that
may hold its keys, and keeps its own keys of them.
"""

import tensorflow.compat.v1 as tf

from ple_estimator.embeddings import table_columns
from ple_estimator.embeddings import table_parts
from ple_estimator.engine import compat

# The keys that a filter has counted but not admitted.
_WAITING = ['-keys_filtered', '-freqs_filtered', '-versions_filtered']


class TableCheckpoint:
  """Saves and restores one part of a table.

  Attributes:
    sources: [m] string placeholder, the tables of the checkpoint to restore
      from, see `sources_in`; by default the one of the part's own name.
  """

  def __init__(self, state, eviction=None):
    """Makes the placeholder in the default graph.

    Args:
      state: table_state.TableState.
      eviction: e.g. admission.GlobalStepEviction; None evicts nothing.
    """
    self._state = state
    self._eviction = eviction
    with tf.device(state.device):
      self.sources = tf.placeholder_with_default([state.name], [None])

  def read_slot(self, suffix):
    """Restores the values from what a slot was saved as.

    Args:
      suffix: str, what the name of the slot ends with: '/average'.
    """
    self._state.saved_values = suffix + '-values'

  def saveable(self):
    """What saves and restores the table, a SaveableObject for tf.train.Saver.

    Call it after the optimizer has created its slots.
    """
    return _Saveable(self, self._state)

  def suffixes(self):
    """What the names of the tensors of `snapshot` end with, in its order."""
    return ['-keys'] + [suffix for suffix, _ in self._state.columns()] + (
        _WAITING if self._state.training else [])

  def shapes(self):
    """The tensors of the whole table in a checkpoint, see also `read_slot`.

    Returns:
      dict of name to shape, a list of int, None for what is not known.
    """
    rows = {suffix: column.shape.as_list()[1:]
            for suffix, column in self._state.columns()}
    shapes = {self._state.whole_name + suffix: [None] + rows.get(suffix, [])
              for suffix in self.suffixes()}
    values = shapes.pop(self._state.whole_name + self._state.saved_values)
    shapes[self._state.whole_name + '-values'] = values
    return shapes

  # ----------------------------------------------------------------- saving

  def snapshot(self, since=None):
    """Evicts, and copies what is left; under the lock.

    Args:
      since: int64 scalar, to copy only keys that were trained, or counted, at
        this global step or later, and to evict none; None copies all.

    Returns:
      dict of name in the checkpoint to tensor.
    """
    def locked():
      evicts = self._state.training and self._eviction and since is None
      with tf.control_dependencies(self._evict() if evicts else []):
        keys, rows = self._state.rows.export()
        waiting = self._state.filter.export() if self._state.training else ()
      if since is not None:
        late = table_columns.gather(self._state.versions, rows) >= since
        keys, rows = [tf.boolean_mask(x, late) for x in (keys, rows)]
        waiting = [tf.boolean_mask(x, waiting[-1] >= since) for x in waiting]
      order = tf.argsort(keys)
      rows = tf.gather(rows, order)
      tensors = [tf.gather(keys, order)] + [
          table_columns.gather(column, rows)
          for _, column in self._state.columns()]
      if waiting:
        order = tf.argsort(waiting[0])
        tensors += [tf.gather(x, order) for x in waiting]
      return tensors

    with tf.device(self._state.device):
      tensors = self._state.locked(locked)
      return {self._state.name + suffix: tf.identity(tensor)
              for suffix, tensor in zip(self.suffixes(), tensors)}

  def _evict(self):
    """Under the lock: takes rows back from keys; returns a list of ops."""
    keys, rows = self._state.rows.export()
    step = tf.train.get_global_step().read_value()
    gone = self._eviction.evicts(
        lambda: table_columns.gather(self._state.values, rows),
        table_columns.gather(self._state.versions, rows), step)
    keys, rows = [tf.boolean_mask(x, gone) for x in (keys, rows)]
    freed = self._state.allocator.free(rows)
    with tf.control_dependencies([rows]):
      return freed + [self._state.rows.remove(keys)] + (
          self._state.filter.forget_stale(self._eviction, step))

  # -------------------------------------------------------------- restoring

  def sources_in(self, names):
    """What to feed to `sources` for a checkpoint, a list of str.

    Args:
      names: set of the names of all tensors of the checkpoint.
    """
    return table_parts.sources_in(
        names, self._state.whole_name, self._state.part, self._state.num_parts)

  def restore(self, prefix):
    """Replaces all contents by those of a checkpoint; returns an op.

    It reads one of `sources` after the other, so that no more than one has to
    be in memory beside the table.

    Args:
      prefix: string scalar, of the checkpoint.
    """
    def locked():
      with tf.control_dependencies(self._empty()):
        begin = [tf.zeros([], tf.int32), tf.zeros([], tf.int64)]
      _, count = tf.while_loop(
          lambda i, count: i < tf.size(self.sources),
          lambda i, count: (i + 1, self._load(prefix, self.sources[i], count)),
          begin, parallel_iterations=1, back_prop=False)
      if not self._state.training:
        return count
      with tf.control_dependencies([self._state.allocator.reset(count)]):
        return tf.identity(count)

    with tf.device(self._state.device):
      # Under the lock too: a worker that goes on training meanwhile must not
      # get rows that are free by the old count.
      return self._state.locked(locked).op

  def _empty(self):
    """Drops all keys and makes sure that memory is there; a list of ops."""
    state = self._state
    emptied = [state.rows.clear(), state.filter.clear()] + [
        table_columns.allocated(column) for _, column in state.columns()]
    return emptied + (
        [state.allocator.allocated()] if state.training else [])

  def _load(self, prefix, source, count):
    """Adds those keys of a table of a checkpoint that belong to this part.

    Args:
      prefix: string scalar, of the checkpoint.
      source: string scalar, the name of the table.
      count: int64 scalar, how many rows are in use before.

    Returns:
      int64 scalar, how many rows are in use after it.
    """
    state = self._state
    suffixes, variables = zip(*state.columns())
    keys, *values = self._read(
        prefix, source, ('-keys',) + suffixes,
        [tf.int64] + [column.dtype.base_dtype for column in variables])
    rows = tf.range(count, count + tf.size(keys, out_type=tf.int64))
    count += tf.size(keys, out_type=tf.int64)
    with tf.control_dependencies([
        state.capacity.check(count, 'the checkpoint')]):
      written = [table_columns.update(column, rows, of_column)
                 for column, of_column in zip(variables, values)]
      if state.training:
        written.append(state.filter.load(*self._read(
            prefix, source, _WAITING, [tf.int64] * len(_WAITING))))
    with tf.control_dependencies(written):
      inserted = state.rows.insert(keys, rows)
    with tf.control_dependencies([inserted]):
      return tf.identity(count)

  def _read(self, prefix, source, suffixes, dtypes):
    """Reads tensors of a table, and keeps what belongs to this part.

    Args:
      prefix: string scalar, of the checkpoint.
      source: string scalar, the name of the table.
      suffixes: of the names of the tensors; the first are keys.
      dtypes: list of tf.DType, one per suffix.

    Returns:
      list of tensors, [keys of this part, ...] each.
    """
    with tf.device('/cpu:0'):
      tensors = tf.raw_ops.RestoreV2(
          prefix=prefix, tensor_names=tf.strings.join([source, suffixes]),
          shape_and_slices=[''] * len(suffixes), dtypes=dtypes)
    if self._state.num_parts == 1:
      return tensors
    keys = tf.reshape(tensors[0], [-1])
    part = table_parts.part_of(keys, self._state.num_parts)
    own = tf.where(tf.equal(part, self._state.part))[:, 0]
    return [tf.gather(x, own) for x in tensors]


class _Saveable(compat.SaveableObject):
  """A TableCheckpoint as tf.train.Saver wants it."""

  reads_itself = True  # see compat.SaverBuilder

  def __init__(self, checkpoint, state):
    self._checkpoint = checkpoint
    super().__init__(
        state.values.handle,
        [compat.SaveSpec(tensor, '', name, tensor.dtype)
         for name, tensor in checkpoint.snapshot().items()], state.name)

  def restore(self, restored_tensors, restored_shapes):
    del restored_shapes
    return self._checkpoint.restore(restored_tensors[0])
