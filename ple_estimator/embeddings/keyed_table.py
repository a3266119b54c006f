"""Tables that give a row to a key when it is first trained.

A hash table maps keys to rows of ordinary variables of fixed height, so that
any optimizer and any parameter server can work on them. Memory of rows that no
key has had yet is never touched. A training step

  1. looks its keys up (`KeyedTable.lookup`), which only reads. A key that has
     no row but is admitted gets the vector that its row will start from;
  2. differentiates the loss by these vectors (`KeyedTable.source`);
  3. gives the admitted keys their rows (`KeyedTable.own`): vectors, slots and
     counters are written first and the key is inserted last, under a lock that
     all processes share. So a row that a lookup finds is always complete;
  4. lets the optimizer update the rows.

`table_state` has what a table consists of, `row_allocator` which rows are free,
`table_slots` the slots of the optimizer, `keyed_table_checkpoint` how a table
is saved and restored. With several parameter servers `partitioned_table` has a
KeyedTable on each of them, with a lock of its own.
"""

import re
import zlib

import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.embeddings import keyed_table_checkpoint
from ple_estimator.embeddings import row_allocator
from ple_estimator.embeddings import splitmix64
from ple_estimator.embeddings import table_columns
from ple_estimator.embeddings import table_state


def full_error(error):
  """Returns the UserError about a table that is full.

  Args:
    error: exception; the message of TensorFlow's contains what the op that
      failed said, and much more.

  Returns:
    errors.UserError, or None if the error is another one.
  """
  if not isinstance(error, tf.errors.OpError):
    return None
  match = re.search(
      row_allocator.FULL.replace('%s', r'[\w.]+').replace('%d', r'\d+') +
      r'[\w ]+', error.message)
  return match and errors.UserError(
      match.group() + '. The last checkpoint restores into a larger capacity: '
      'train on with it.')


def of_graph(graph=None):
  """The KeyedTables of a graph, by default the default one, a list."""
  # The key of the collection is not a str, so that TensorFlow does not try to
  # export the collection.
  return (graph or tf.get_default_graph()).get_collection(KeyedTable)


class KeyedTable:
  """A table, or one part of a table, and what a training step does with it.

  Attributes:
    name: str, what its tensors begin with in a checkpoint.
    values: [height, dim] float32 variable, the vectors.
    stddev: float, the standard deviation of what rows start from.
    variables: list of all variables that the table saves by itself.
    state: table_state.TableState, what the table consists of.
    checkpoint: keyed_table_checkpoint.TableCheckpoint, saves and restores it.
    source: [n, dim] float32, the vectors of the lookup in training, to
      differentiate a loss by; `masked` drops the gradients of keys that are
      not admitted.
    reads: list of the tensors to be evaluated before the table is updated.
  """

  def __init__(self, name, dim, capacity, owner, stddev, training,
               filter=None, eviction=None, part=0, num_parts=1):
    """Makes the variables in the default graph.

    Args:
      name: str, the variable scope.
      dim: int.
      capacity: int, rows, of all parts together.
      owner: str, the gin binding that sets capacity, for messages.
      stddev: float, standard deviation of what rows start from, which is
        uniform around 0.
      training: bool; without it the table is read only, and has no more than
        keys and vectors.
      filter: an object with `build`, e.g. admission.CounterFilter; None admits
        every key.
      eviction: e.g. admission.GlobalStepEviction; None evicts nothing.
      part: int, which part this is.
      num_parts: int, how many parts the table has.
    """
    self.state = table_state.TableState(
        name, dim, row_allocator.Capacity(capacity, owner, num_parts),
        training, filter, part, num_parts)
    self.checkpoint = keyed_table_checkpoint.TableCheckpoint(
        self.state, eviction)
    self.name = self.state.name
    self.values = self.state.values
    self.stddev = stddev
    self.reads = []
    tf.add_to_collection(KeyedTable, self)

  @property
  def variables(self):
    return self.state.variables

  def lookup(self, keys, counts, shared=None, admitted=None):
    """Looks up the vectors of different keys, of this part.

    Args:
      keys: [n] int64, not negative.
      counts: [n] int64, how often each comes in the batch.
      shared: function of [m] keys without a row to [m, dim] float32, the
        vectors that they use, and that their rows start from. None is zeros
        for use, and numbers drawn by key and seed for the start of a row.
      admitted: [n] bool, which keys may own a row; None leaves it to the
        filter.

    Returns:
      [n, dim] float32.
    """
    state = self.state
    with tf.device(state.device):
      rows = state.rows.lookup(keys)
      known = rows >= 0
      stored = table_columns.gather(state.values, tf.maximum(rows, 0))
      stored.set_shape([None, state.dim])
      unknown = tf.where(~known)
      shape = tf.shape(stored, out_type=tf.int64)
      missing = tf.gather(keys, unknown[:, 0])
      stand_in = (tf.zeros_like(stored) if shared is None
                  else tf.scatter_nd(unknown, shared(missing), shape))
      if not state.training:
        return tf.where(known, stored, stand_in)
      if admitted is None:
        admitted = state.filter.admits(keys, counts)
      start = (tf.scatter_nd(unknown, self._start(missing), shape)
               if shared is None else tf.stop_gradient(stand_in))
      self._keys, self._counts = keys, counts
      self._owned = known | admitted
      self.source = tf.where(known, stored, start)
      vectors = tf.where(self._owned, self.source, stand_in)
      self.reads.append(vectors)
      return vectors

  def seen(self, keys):
    """Returns how often keys were counted in training, with or without a row.

    Args:
      keys: [n] int64.

    Returns:
      [n] int64.
    """
    state = self.state
    with tf.device(state.device):
      rows = state.rows.lookup(keys)
      counts = tf.where(
          rows >= 0, table_columns.gather(state.freqs, tf.maximum(rows, 0)),
          state.filter.seen(keys))
      self.reads.append(counts)
      return counts

  def _start(self, keys):
    """[n] keys -> [n, dim] float32, what their rows start from."""
    # All parts of a table draw the same numbers.
    seed = (tf.get_default_graph().seed or 0) ^ zlib.crc32(
        self.state.whole_name.encode())
    return splitmix64.uniform(keys, self.state.dim, self.stddev, seed)

  def masked(self, gradient):
    """Gradients of the keys that have, or get, a row.

    Args:
      gradient: [n, dim] float32, of `source`.

    Returns:
      [owned, dim] float32, in the order of `own`.
    """
    return tf.boolean_mask(gradient, self._owned)

  def unowned(self):
    """Returns the keys of the lookup that neither have nor get a row."""
    return tf.boolean_mask(self._keys, ~self._owned)

  def own(self, step):
    """Gives the admitted keys of the lookup their rows; counts the others.

    Args:
      step: int64 scalar, the global step.

    Returns:
      [owned] int64, different rows.
    """
    state = self.state
    with tf.device(state.device):
      keys, counts, start = [
          tf.boolean_mask(x, self._owned)
          for x in (self._keys, self._counts, self.source)]
      others = [self.unowned(), tf.boolean_mask(self._counts, ~self._owned)]

      def locked():
        counted = state.filter.count(*others, step=step)
        with tf.control_dependencies(counted):
          return self._insert(keys, start)

      # Most steps have nothing to insert, and then do not take the lock.
      rows = state.rows.lookup(keys)
      nothing_new = tf.reduce_all(rows >= 0)
      if state.filter.counts:
        nothing_new &= tf.equal(tf.size(others[0]), 0)
      rows = tf.cond(nothing_new, lambda: tf.identity(rows),
                     lambda: state.locked(locked))
      rows.set_shape([None])
      with tf.control_dependencies([
          table_columns.add(state.freqs, rows, counts),
          table_columns.update(
              state.versions, rows, tf.fill(tf.shape(rows), step))]):
        return tf.identity(rows)

  def _insert(self, keys, start):
    """Under the lock: inserts the keys that still have no row.

    Args:
      keys: [n] int64.
      start: [n, dim] float32, what their rows start from.

    Returns:
      [n] int64, the rows of all keys.
    """
    state = self.state
    # Another process may have inserted some of them since they were looked up.
    missing = state.rows.lookup(keys) < 0
    new_keys, start = [tf.boolean_mask(x, missing) for x in (keys, start)]
    rows = state.allocator.allocate(tf.size(new_keys, out_type=tf.int64))
    seen = state.filter.seen(new_keys)
    with tf.control_dependencies([seen]):
      written = state.filter.forget(new_keys) + [
          table_columns.update(state.values, rows, start),
          table_columns.update(state.freqs, rows, seen)]
      written += state.slots.initialize(rows)
    with tf.control_dependencies(written):
      inserted = state.rows.insert(new_keys, rows)
    with tf.control_dependencies([inserted]):
      return state.rows.lookup(keys)
