"""Tables that give a row to a key when it is first trained.

A hash table maps keys to rows of ordinary variables of fixed height, so that
any optimizer and any parameter server can work on them; memory of rows that no
key has owned yet is never touched. A training step

  1. looks its keys up (`KeyedTable.lookup`), reading only. A key that owns no
     row but is admitted gets the vector that its row will start from;
  2. differentiates the loss by these vectors (`KeyedTable.source`);
  3. gives the admitted keys their rows (`KeyedTable.own`): values, slots and
     counters are written first and the key is inserted last, under a lock that
     all processes share. What is found is therefore always whole;
  4. lets the optimizer update the rows.

Saving takes the same lock: it evicts, then copies keys, rows, counters and all
slots in one piece. A checkpoint does not know of row numbers, so it restores
into any capacity that holds its keys. Names of its tensors are DeepRec's
("Embedding-Variable-Export-Format"), keys in ascending order.

With several parameter servers each has a part of the table, a table of its own
with its own lock, and a key belongs to one of them. Part i of X is saved as
X/part_i, as DeepRec does, by the server that it is on; who restores reads of
any number of parts those that may hold its own keys. `joined` and `read` are
for all who look into a checkpoint besides.
"""

import collections
import math
import re
import zlib

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.embeddings import admission
from ple_estimator.engine import compat

_NO_ROW = -1
_STDDEV_OF_UNIFORM = 3 ** -0.5  # of numbers uniform in [-1, 1)
_MANTISSA_BITS = 24  # integers up to 2^24 are exact in float32
_FULL = '%s must be raised: %d rows are not enough for '
_WAITING = ['-keys_filtered', '-freqs_filtered', '-versions_filtered']
_PART = re.compile(r'/part_(\d+)(?=(/\w+)?-\w+$)')


def full_error(error):
  """The UserError about a table that is full, or None.

  Args:
    error: exception; TensorFlow puts what an op says into a longer message.
  """
  if not isinstance(error, tf.errors.OpError):
    return None
  match = re.search(_FULL.replace('%s', r'[\w.]+').replace('%d', r'\d+') +
                    r'[\w ]+', error.message)
  return match and errors.UserError(
      match.group() + '. The last checkpoint restores into a larger capacity: '
      'train on with it.')


def of_graph(graph=None):
  """The keyed tables, or parts, of a graph or the default one, a list."""
  # A key that is no text: TensorFlow does not try to export the collection.
  return (graph or tf.get_default_graph()).get_collection(KeyedTable)


def joined(names):
  """Which tensors of a checkpoint are parts of which.

  Args:
    names: iterable of the names of all tensors.

  Returns:
    dict of name to a list of names: a tensor of a table that was saved in parts
    is all of these, one behind the other; any other is its own.
  """
  parts = collections.defaultdict(list)
  for name in names:
    part = _PART.search(name)
    parts[_PART.sub('', name)].append((int(part.group(1)) if part else 0, name))
  return {whole: [name for _, name in sorted(found)]
          for whole, found in parts.items()}


def read(reader, names):
  """A tensor of a checkpoint as an array.

  Args:
    reader: what tf.train.load_checkpoint returns.
    names: list of str, its parts, see `joined`.
  """
  parts = [reader.get_tensor(name) for name in names]
  return parts[0] if len(parts) == 1 else np.concatenate(parts)


class PartitionedTable:
  """A table whose keys are dealt out to KeyedTables on all parameter servers.

  What is looked up does not depend on their number: a row starts from its key.
  """

  def __init__(self, num_parts, *args, **kwargs):
    """Makes the parts in the default graph.

    Args:
      num_parts: int, of parameter servers; 1 is a table in one piece.
      *args: as KeyedTable's, and so `kwargs`.
      **kwargs: likewise.
    """
    self._parts = []
    device = ''
    for i in range(num_parts):
      with tf.device(device):
        self._parts.append(KeyedTable(
            *args, part=i, num_parts=num_parts, **kwargs))
      device = _next_task(self._parts[-1].values.device, num_parts)

  def lookup(self, keys, counts, shared=None, admitted=None):
    """As KeyedTable.lookup."""
    return self._ask(
        lambda part, keys, counts, *admitted: part.lookup(
            keys, counts, shared, *admitted),
        keys, counts, *([] if admitted is None else [admitted]))

  def seen(self, keys):
    """As KeyedTable.seen."""
    return self._ask(lambda part, keys: part.seen(keys), keys)

  def _ask(self, question, keys, *of_keys):
    """Asks each part about its keys, and puts the answers into their order.

    Args:
      question: function of (KeyedTable, its share of keys and of_keys) to one
        answer per key.
      keys: [n] int64.
      *of_keys: [n], what goes with the keys.
    """
    count = len(self._parts)
    if count == 1:
      return question(self._parts[0], keys, *of_keys)
    owner = _part_of(keys, count)
    places, *shares = [tf.dynamic_partition(x, owner, count) for x in (
        tf.range(tf.size(keys)), keys) + of_keys]
    found = [question(part, *share)
             for part, share in zip(self._parts, zip(*shares))]
    answer = tf.dynamic_stitch(places, found)
    answer.set_shape(found[0].shape)
    return answer


def _next_task(device, count):
  """The device string of the parameter server after one; '' where is none."""
  spec = tf.DeviceSpec.from_string(device)
  if spec.job is None:
    return ''
  return tf.DeviceSpec(
      job=spec.job, task=((spec.task or 0) + 1) % count).to_string()


def _part_of(keys, count):
  """[n] int64 keys -> [n] int32, which of `count` parts each belongs to."""
  # Ids may be multiples of anything.
  positive = tf.bitwise.bitwise_and(
      admission.scramble(keys), np.int64(2**63 - 1))
  return tf.cast(tf.mod(positive, np.int64(count)), tf.int32)


def _height(capacity, parts):
  """The rows of each part of a table that is to hold `capacity` keys.

  Whose key is whose is as good as random, so parts differ: six deviations more
  than an equal share are too few once in a billion tables.
  """
  share = -(-capacity // parts)
  return min(capacity, share + math.ceil(6 * share ** 0.5) + 6)


class KeyedTable:
  """A table, or a part of one: [height, dim] float32 and what belongs to rows.

  Attributes:
    name: str, what its tensors begin with in a checkpoint.
    values: variable, the rows.
    source: [n, dim] float32, the vectors of the lookup in training, to
      differentiate a loss by; `masked` drops the gradients of keys that are
      not admitted.
    reads: list of the tensors to be evaluated before the table is updated.
    variables: list of all variables that the table saves by itself.
  """

  def __init__(self, name, dim, capacity, owner, stddev, training,
               filter=None, eviction=None, part=0, num_parts=1):
    """Makes the variables in the default graph.

    Args:
      name: str, the variable scope.
      dim: int.
      capacity: int, rows, of all parts together.
      owner: str, the gin binding that sets capacity, for messages.
      stddev: float, of what rows start from, uniform around 0.
      training: bool; else the table is read only, and has keys and rows alone.
      filter: an object with `build`, e.g. admission.CounterFilter; None admits
        every key.
      eviction: e.g. admission.GlobalStepEviction; None evicts nothing.
      part: int, which part this is.
      num_parts: int, how many parts the table has.
    """
    self._owner = owner
    self._capacity = capacity
    self._height = _height(capacity, num_parts)
    self._part, self._num_parts = part, num_parts
    self._dim = dim
    self._stddev = stddev
    self._training = training
    self._eviction = eviction
    self._slots = []
    self.reads = []
    with tf.variable_scope(name) as scope:
      scope.set_partitioner(None)  # it is by key, not by row
      self.values = self._column('embedding', [dim], tf.float32)
      place = self._of_part(scope.name)
      self._filter = admission.Everyone() if not (training and filter) else (
          filter.build(place, self.values.device, num_parts))
      with tf.device(self.values.device):
        self._make_state(place)
    self.name = self.values.op.name
    self._whole_name = scope.name + '/embedding'
    tf.add_to_collection(KeyedTable, self)

  def _make_state(self, place):
    self._rows = compat.HashTable(place + '/rows', default=_NO_ROW)
    # Fed where a checkpoint has another number of parts; see `sources_in`.
    self.sources = tf.placeholder_with_default([self.values.op.name], [None])
    self.variables = [self.values]
    if not self._training:
      return
    self._lock = compat.Lock(place)
    self._freqs = self._column('freqs', [], tf.int64)
    self._versions = self._column('versions', [], tf.int64)
    # Rows that were taken back, a ring: of all that ever were, the first
    # `taken` were given out again and those before `reusable` may be. A worker
    # that looked a row up before it was evicted may still write to it; so it
    # waits there until the next eviction.
    self._free = self._column('free_rows', [], tf.int64)
    self._state = tf.get_variable(  # next new row, taken, reusable, freed
        self._of_part('state'), [4], tf.int64, tf.zeros_initializer(),
        trainable=False)
    self.variables += [self._freqs, self._versions, self._free, self._state]

  def _of_part(self, name):
    return '%s/part_%d' % (name, self._part) if self._num_parts > 1 else name

  def _column(self, name, row_shape, dtype):
    """A variable with one entry per row."""
    return tf.get_variable(
        self._of_part(name), [self._height] + row_shape, dtype,
        compat.uninitialized, trainable=False)

  # ------------------------------------------------------------ the step

  def lookup(self, keys, counts, shared=None, admitted=None):
    """Looks up the vectors of different keys, of this part.

    Args:
      keys: [n] int64, not negative.
      counts: [n] int64, how often each comes in the batch.
      shared: function of [m] keys without a row to [m, dim] float32, the
        vectors that they use, and that their rows start from; None is 0 for
        the former and numbers drawn by key and seed for the latter.
      admitted: [n] bool, which keys may own a row; None leaves it to the
        filter.

    Returns:
      [n, dim] float32.
    """
    with tf.device(self.values.device):
      rows = self._rows.lookup(keys)
      known = rows >= 0
      found = self._gather(self.values, tf.maximum(rows, 0))
      found.set_shape([None, self._dim])
      unknown = tf.where(~known)
      shape = tf.shape(found, out_type=tf.int64)
      missing = tf.gather(keys, unknown[:, 0])
      stand_in = (tf.zeros_like(found) if shared is None
                  else tf.scatter_nd(unknown, shared(missing), shape))
      if not self._training:
        return tf.where(known, found, stand_in)
      self._keys, self._counts = keys, counts
      if admitted is None:
        admitted = self._filter.admits(keys, counts)
      self._owned = known | admitted
      start = (tf.scatter_nd(unknown, self._start(missing), shape)
               if shared is None else tf.stop_gradient(stand_in))
      self.source = tf.where(known, found, start)
      vectors = tf.where(self._owned, self.source, stand_in)
      self.reads.append(vectors)
      return vectors

  def seen(self, keys):
    """[n] int64, how often keys were counted in training, rows or none."""
    with tf.device(self.values.device):
      rows = self._rows.lookup(keys)
      found = tf.where(rows >= 0,
                       self._gather(self._freqs, tf.maximum(rows, 0)),
                       self._filter.seen(keys))
      self.reads.append(found)
      return found

  def _start(self, keys):
    """[n] keys -> [n, dim] float32, what their rows start from."""
    seed = (tf.get_default_graph().seed or 0) ^ zlib.crc32(
        self._whole_name.encode())
    keys = admission.scramble(tf.bitwise.bitwise_xor(keys, np.int64(seed)))
    numbers = admission.scramble(
        keys[:, tf.newaxis] + np.arange(self._dim, dtype=np.int64))
    numbers = tf.bitwise.bitwise_and(numbers, np.int64(2**_MANTISSA_BITS - 1))
    spread = self._stddev / _STDDEV_OF_UNIFORM
    return (tf.cast(numbers, tf.float32) * 2.0 ** (1 - _MANTISSA_BITS) -
            1) * spread

  def masked(self, gradient):
    """[n, dim] gradient of `source` -> [owned, dim], of the admitted keys."""
    return tf.boolean_mask(gradient, self._owned)

  def own(self, step):
    """Gives the admitted keys of the lookup their rows; counts the others.

    Args:
      step: int64 scalar, the global step.

    Returns:
      [owned] int64, different rows.
    """
    with tf.device(self.values.device):
      keys, counts, start = [
          tf.boolean_mask(x, self._owned)
          for x in (self._keys, self._counts, self.source)]
      others = [tf.boolean_mask(x, ~self._owned)
                for x in (self._keys, self._counts)]

      def locked():
        counted = self._filter.count(*others, step=step)
        with tf.control_dependencies(counted):
          return self._insert(keys, start)

      rows = self._rows.lookup(keys)
      nothing_new = tf.reduce_all(rows >= 0)
      if self._filter.counts:
        nothing_new &= tf.equal(tf.size(others[0]), 0)
      rows = tf.cond(nothing_new, lambda: tf.identity(rows),
                     lambda: self._lock.execute(locked))
      rows.set_shape([None])
      with tf.control_dependencies([
          self._scatter('Add', self._freqs, rows, counts),
          self._scatter('Update', self._versions, rows,
                        tf.fill(tf.shape(rows), step))]):
        return tf.identity(rows)

  def _insert(self, keys, start):
    """Under the lock: inserts the keys that still have no row.

    Args:
      keys: [n] int64.
      start: [n, dim] float32, what their rows start from.

    Returns:
      [n] int64, the rows of all keys.
    """
    missing = self._rows.lookup(keys) < 0  # another process may have been first
    keys_in, start = [tf.boolean_mask(x, missing) for x in (keys, start)]
    rows = self._allocate(tf.size(keys_in, out_type=tf.int64))
    seen = self._filter.seen(keys_in)
    with tf.control_dependencies([seen]):
      written = self._filter.forget(keys_in) + [
          self._scatter('Update', self.values, rows, start),
          self._scatter('Update', self._freqs, rows, seen)]
      for slot, first in self._slots:
        shape = tf.concat([tf.shape(rows), first.shape[1:].as_list()], axis=0)
        written.append(self._scatter(
            'Update', slot, rows, tf.broadcast_to(first, shape)))
    with tf.control_dependencies(written):
      inserted = self._rows.insert(keys_in, rows)
    with tf.control_dependencies([inserted]):
      return self._rows.lookup(keys)

  def _allocate(self, count):
    """Under the lock: takes `count` free rows; [count] int64."""
    next_row, taken, reusable, freed = tf.unstack(self._state.read_value())
    again = tf.minimum(count, reusable - taken)
    after = next_row + count - again
    fits = tf.Assert(after <= self._height, [
        _FULL % (self._owner, self._capacity) + 'training'])
    # The lock does not order what is inside of it: check and read, then write.
    with tf.control_dependencies([fits]):
      places = tf.mod(taken + tf.range(again), np.int64(self._height))
      rows = tf.concat([self._gather(self._free, places),
                        tf.range(next_row, after)], axis=0)
    with tf.control_dependencies([rows]):
      moved = self._state.assign(
          tf.stack([after, taken + again, reusable, freed]), read_value=False)
    with tf.control_dependencies([moved]):
      return tf.identity(rows)

  # -------------------------------------------------------- optimizer slots

  def slot_getter(self, getter, name, shape=None, dtype=tf.float32,
                  initializer=None, **kwargs):
    """A custom getter that makes the slots of `values` without filling them.

    Their rows are written when a key gets them. Slots of no height, the powers
    of a beta, are made as ever, and are the same for all parts.
    """
    if not name.startswith(self.name + '/') or not tf.TensorShape(shape).rank:
      slot = getter(name, shape=shape, dtype=dtype, initializer=initializer,
                    **kwargs)
      if self._num_parts > 1 and name.startswith(self.name + '/'):
        compat.declare_copy(
            slot, self._whole_name + slot.op.name[len(self.name):])
      return slot
    slot = getter(name, shape=shape, dtype=dtype,
                  initializer=compat.uninitialized, **kwargs)
    row_shape = tf.TensorShape(shape).as_list()[1:]
    with tf.device(self.values.device):
      self._slots.append((slot, initializer([1] + row_shape, dtype=dtype)))
    self.variables.append(slot)
    return slot

  # ------------------------------------------------------------- checkpoints

  def saveable(self):
    """What saves and restores the table, a SaveableObject for tf.train.Saver.

    Call it once the optimizer has made its slots.
    """
    return _Saveable(self)

  def columns(self):
    """Variables with one entry per row, and their names in a checkpoint."""
    found = [('-values', self.values)]
    if self._training:
      found += [('-freqs', self._freqs), ('-versions', self._versions)]
    return found + [('%s-values' % slot.op.name[len(self.name):], slot)
                    for slot, _ in self._slots]

  def snapshot(self, since=None):
    """Evicts, and copies what is left; under the lock.

    Args:
      since: int64 scalar, to copy only keys that were trained, or counted, at
        this global step or later, and to evict none; None copies all.

    Returns:
      dict of name in the checkpoint to tensor.
    """
    def locked():
      evicts = self._training and self._eviction and since is None
      evicted = self._evict() if evicts else []
      with tf.control_dependencies(evicted):
        keys, rows = self._rows.export()
        waiting = self._filter.export() if self._training else ()
      if since is not None:
        late = self._gather(self._versions, rows) >= since
        keys, rows = [tf.boolean_mask(x, late) for x in (keys, rows)]
        waiting = [tf.boolean_mask(x, waiting[-1] >= since) for x in waiting]
      order = tf.argsort(keys)
      rows = tf.gather(rows, order)
      found = [tf.gather(keys, order)] + [
          self._gather(column, rows) for _, column in self.columns()]
      if waiting:
        order = tf.argsort(waiting[0])
        found += [tf.gather(x, order) for x in waiting]
      return found

    with tf.device(self.values.device):
      tensors = self._lock.execute(locked) if self._training else locked()
      return dict(zip(self.tensor_names(), map(tf.identity, tensors)))

  def tensor_names(self):
    """The names of the tensors of `snapshot`, in its order."""
    names = ['-keys'] + [suffix for suffix, _ in self.columns()]
    if self._training:
      names += _WAITING
    return [self.name + suffix for suffix in names]

  def checkpoint_shapes(self):
    """Names of the tensors of the whole, with shapes as far as known."""
    shapes = [[None]] + [[None] + column.shape.as_list()[1:]
                         for _, column in self.columns()]
    names = [_PART.sub('', name) for name in self.tensor_names()]
    return dict(zip(names, shapes + [[None]] * (len(names) - len(shapes))))

  def _evict(self):
    """Under the lock: takes rows back; returns a list of ops."""
    keys, rows = self._rows.export()
    step = tf.train.get_global_step().read_value()
    gone = self._eviction.evicts(
        lambda: self._gather(self.values, rows),
        self._gather(self._versions, rows), step)
    keys, rows = [tf.boolean_mask(x, gone) for x in (keys, rows)]
    next_row, taken, _, freed = tf.unstack(self._state.read_value())
    count = tf.size(rows, out_type=tf.int64)
    places = tf.mod(freed + tf.range(count), np.int64(self._height))
    with tf.control_dependencies([places, rows]):
      return self._filter.forget_stale(self._eviction, step) + [
          self._rows.remove(keys),
          self._scatter('Update', self._free, places, rows),
          self._state.assign(
              tf.stack([next_row, taken, freed, freed + count]),
              read_value=False)]

  def sources_in(self, names):
    """Which tables of a checkpoint may hold keys of this one: what to feed.

    Args:
      names: set of the names of its tensors.

    Returns:
      list of str, values for `sources`.
    """
    if self._whole_name + '-keys' in names:
      return [self._whole_name]
    saved = [self._whole_name + '/part_%d' % i for i in range(len(names))]
    saved = [name for name in saved if name + '-keys' in names]
    # By the remainders of one number: if it is `part` of num_parts and i of
    # len(saved), the two are equal modulo what divides both.
    common = math.gcd(self._num_parts, len(saved))
    return saved[self._part % common:len(saved):common] or [self.name]

  def restore(self, prefix):
    """Puts what a checkpoint holds in place of all contents; returns an op.

    One of `sources` after the other, so that no more need be in memory.

    Args:
      prefix: string scalar.
    """
    def locked():
      columns = [column for _, column in self.columns()]
      emptied = [self._rows.clear(), self._filter.clear()] + [
          self._allocated(column) for column in columns + (
              [self._free] if self._training else [])]
      with tf.control_dependencies(emptied):
        begin = [tf.zeros([], tf.int32), tf.zeros([], tf.int64)]
      _, count = tf.while_loop(
          lambda i, count: i < tf.size(self.sources),
          lambda i, count: (i + 1, self._load(prefix, self.sources[i], count)),
          begin, parallel_iterations=1, back_prop=False)
      if not self._training:
        return count
      zero = tf.zeros([], tf.int64)
      written = self._state.assign(
          tf.stack([count, zero, zero, zero]), read_value=False)
      with tf.control_dependencies([written]):
        return tf.identity(count)

    with tf.device(self.values.device):
      # Who trains on meanwhile must not give out rows by the old count.
      done = self._lock.execute(locked) if self._training else locked()
      return done.op

  def _load(self, prefix, source, count):
    """Adds what a table of a checkpoint holds for this one.

    Args:
      prefix: string scalar, of the checkpoint.
      source: string scalar, the name of the table.
      count: int64 scalar, the rows that are taken already.

    Returns:
      int64 scalar, the rows that are taken then.
    """
    columns = self.columns()
    keys, *found = self._read(
        prefix, source, ['-keys'] + [suffix for suffix, _ in columns],
        [tf.int64] + [column.dtype.base_dtype for _, column in columns])
    rows = tf.range(count, count + tf.size(keys, out_type=tf.int64))
    count += tf.size(keys, out_type=tf.int64)
    fits = tf.Assert(count <= self._height, [
        _FULL % (self._owner, self._capacity) + 'the checkpoint'])
    with tf.control_dependencies([fits]):
      written = [self._scatter('Update', column, rows, values)
                 for (_, column), values in zip(columns, found)]
      if self._training:
        written.append(self._filter.load(*self._read(
            prefix, source, _WAITING, [tf.int64] * len(_WAITING))))
    with tf.control_dependencies(written):
      inserted = self._rows.insert(keys, rows)
    with tf.control_dependencies([inserted]):
      return tf.identity(count)

  def _read(self, prefix, source, suffixes, dtypes):
    """Tensors of a table in a checkpoint, keys first: what is of this part."""
    with tf.device('/cpu:0'):
      found = tf.raw_ops.RestoreV2(
          prefix=prefix, tensor_names=tf.strings.join([source, suffixes]),
          shape_and_slices=[''] * len(suffixes), dtypes=dtypes)
    if self._num_parts == 1:
      return found
    keys = tf.reshape(found[0], [-1])
    own = tf.where(tf.equal(_part_of(keys, self._num_parts), self._part))[:, 0]
    return [tf.gather(x, own) for x in found]

  def _allocated(self, column):
    """Gives a variable its memory, if it has none: a restore replaces init."""
    return tf.cond(
        compat.is_initialized(column), tf.no_op,
        lambda: tf.group(column.assign(
            compat.uninitialized(column.shape, column.dtype.base_dtype),
            read_value=False)))

  # By the raw ops: the methods of a variable read all of it, or copy it.

  @staticmethod
  def _gather(column, rows):
    return tf.raw_ops.ResourceGather(
        resource=column.handle, indices=rows, dtype=column.dtype.base_dtype)

  @staticmethod
  def _scatter(kind, column, rows, values):
    return getattr(tf.raw_ops, 'ResourceScatter' + kind)(
        resource=column.handle, indices=rows, updates=values)


class _Saveable(compat.SaveableObject):
  """A KeyedTable to tf.train.Saver."""

  reads_itself = True  # see compat.SaverBuilder

  def __init__(self, table):
    self._table = table
    super().__init__(
        table.values.handle,
        [compat.SaveSpec(tensor, '', name, tensor.dtype)
         for name, tensor in table.snapshot().items()], table.name)

  def restore(self, restored_tensors, restored_shapes):
    del restored_shapes
    return self._table.restore(restored_tensors[0])
