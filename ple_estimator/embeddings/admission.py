"""Filters and evictions: which keys own a row of an embedding variable.

A filter decides, at the lookup of a training step, which keys have occurred
often enough to get a row; a key without a row that is still being counted is
called a waiting key. An eviction decides, when a checkpoint is saved, which
rows are taken back from their keys. Semantics are those of DeepRec's documents
"Feature Filter" and "Feature Eviction" unless something else is said here.
"""

import math

import gin
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.embeddings import splitmix64
from ple_estimator.engine import compat

# The count of a waiting key, and the global step at which it occurred last, are
# packed into one int64.
_COUNT_BITS = 24
_MAX_FREQ = (1 << _COUNT_BITS) - 1
_MAX_HASHES = 64


@gin.register
class CounterFilter:
  """A key owns a row from its filter_freq-th occurrence on; counts exactly.

  A key that occurs c times in a batch is counted c times. Each waiting key
  takes about 50 bytes of memory.
  """

  def __init__(self, filter_freq=gin.REQUIRED):
    """Checks and stores the threshold.

    Args:
      filter_freq: int, from 1 to 2^24 - 1; 1 admits every key.
    """
    self.filter_freq = _freq('CounterFilter', filter_freq)

  def build(self, name, device='', num_parts=1):
    """Makes the counts of a table, or of a part of one.

    Args:
      name: str, of the table; every part has another. Variables are made in the
        variable scope in force instead, which is the same for all parts.
      device: str, where the part is.
      num_parts: int, how many parts the table has.

    Returns:
      An object with the methods of Everyone.
    """
    del num_parts  # a key is counted in the part that will have its row
    with tf.device(device):
      return _Counts(name, self.filter_freq)


@gin.register
class CbfFilter:
  """As CounterFilter, but counts waiting keys in a counting Bloom filter.

  Its memory does not depend on how many keys occur. For n expected keys and the
  false-positive probability p it has ceil(-n ln p / ln(2)^2) counters, of which
  each key uses k = ceil(-log2 p). A count is too high with probability p, and
  never too low. Counters stop at filter_freq and have the smallest type that
  holds it (DeepRec's have 8 bytes by default). Keys cannot be removed from the
  filter, so a key whose row was evicted gets a row again at once.
  """

  def __init__(self, filter_freq=gin.REQUIRED, max_element_size=gin.REQUIRED,
               false_positive_probability=0.01):
    """Checks the arguments and computes the sizes.

    Args:
      filter_freq: int, from 1 to 2^24 - 1.
      max_element_size: int, n, the expected number of waiting keys.
      false_positive_probability: float, p, in (0, 1).
    """
    self.filter_freq = _freq('CbfFilter', filter_freq)
    self.max_element_size = max_element_size
    self.false_positive_probability = false_positive_probability
    errors.check_integer('CbfFilter.max_element_size', max_element_size, 1)
    errors.check_number('CbfFilter.false_positive_probability',
                        false_positive_probability, above=0, below=1)
    self.num_hashes = math.ceil(-math.log2(false_positive_probability))
    self.num_counters = math.ceil(
        -math.log(false_positive_probability) / math.log(2) ** 2 *
        max_element_size)
    errors.check(
        self.num_hashes <= _MAX_HASHES,
        'CbfFilter.false_positive_probability must be at least 2^-%d, got %r.',
        _MAX_HASHES, false_positive_probability)

  def build(self, name, device='', num_parts=1):
    """As CounterFilter.build; all parts of a table share the counters."""
    del name
    return _Bloom(self, device, num_parts)


@gin.register
class GlobalStepEviction:
  """Takes back rows that were not trained for more than steps_to_live steps.

  The waiting keys of a CounterFilter are dropped by the same rule.
  """

  def __init__(self, steps_to_live=gin.REQUIRED):
    """Checks and stores the threshold.

    Args:
      steps_to_live: int, global steps.
    """
    errors.check_integer('GlobalStepEviction.steps_to_live', steps_to_live, 1)
    self.steps_to_live = steps_to_live

  def is_stale(self, versions, step):
    """Which waiting keys to drop.

    Args:
      versions: [n] int64, the global step at which each key occurred last.
      step: int64 scalar, the global step of the checkpoint.

    Returns:
      [n] bool.
    """
    return step - versions > self.steps_to_live

  def evicts(self, values, versions, step):
    """Which rows to take back.

    Args:
      values: function without arguments that returns the rows, [n, dim]
        float32; an eviction that does not need them does not call it.
      versions: [n] int64, the global step that trained each row last.
      step: int64 scalar, the global step of the checkpoint.

    Returns:
      [n] bool.
    """
    del values
    return self.is_stale(versions, step)


@gin.register
class L2Eviction:
  """Takes back rows v with 0.5 |v|^2 below a threshold.

  DeepRec compares half of the squared norm too. A threshold of 1.0 therefore
  means a norm of 1.414, which is more than most new rows have. Choose it by the
  histogram that `ple-estimator inspect-embeddings` shows.
  """

  def __init__(self, l2_weight_threshold=gin.REQUIRED):
    """Checks and stores the threshold.

    Args:
      l2_weight_threshold: float, positive.
    """
    errors.check_number('L2Eviction.l2_weight_threshold', l2_weight_threshold,
                        above=0)
    self.l2_weight_threshold = l2_weight_threshold

  def is_stale(self, versions, step):
    """As GlobalStepEviction.is_stale; drops none: waiting keys have no norm."""
    del step
    return tf.zeros_like(versions, tf.bool)

  def evicts(self, values, versions, step):
    """As GlobalStepEviction.evicts."""
    del versions, step
    norms = 0.5 * tf.reduce_sum(tf.square(values()), axis=1)
    return norms < self.l2_weight_threshold


class Everyone:
  """No filter: every key owns a row at once. Also the interface of filters.

  All methods but `admits` and `seen` are called under the lock of the table.

  Attributes:
    counts: bool, whether `count` does anything.
  """

  counts = False

  def admits(self, keys, counts):
    """Which keys that have no row get one in this batch.

    Args:
      keys: [n] int64, different.
      counts: [n] int64, how often each occurs in the batch.

    Returns:
      [n] bool.
    """
    del counts
    return tf.ones_like(keys, tf.bool)

  def seen(self, keys):
    """How often keys without a row have been counted: [n] -> [n] int64."""
    return tf.zeros_like(keys)

  def count(self, keys, counts, step):
    """Counts keys that stay without a row; returns a list of ops.

    Args:
      keys: [n] int64, different.
      counts: [n] int64, how often each occurs in the batch.
      step: int64 scalar, the global step.
    """
    del keys, counts, step
    return []

  def forget(self, keys):
    """Drops keys that get a row now; returns a list of ops."""
    del keys
    return []

  def forget_stale(self, eviction, step):
    """Drops waiting keys by an eviction's is_stale; returns a list of ops."""
    del eviction, step
    return []

  def export(self):
    """The waiting keys as (keys, counts, versions), [n] int64 each."""
    empty = tf.zeros([0], tf.int64)
    return empty, empty, empty

  def clear(self):
    """Drops all waiting keys; returns an op."""
    return tf.no_op()

  def load(self, keys, counts, versions):
    """Adds waiting keys, as `export` returned them; returns an op."""
    del keys, counts, versions
    return tf.no_op()


class _Counts(Everyone):
  """Exact counts of the waiting keys, in a hash table."""

  counts = True

  def __init__(self, name, filter_freq):
    self._filter_freq = filter_freq
    self._waiting = compat.HashTable(name + '/waiting', default=0)

  def admits(self, keys, counts):
    return self.seen(keys) + counts >= self._filter_freq

  def seen(self, keys):
    return _unpack(self._waiting.lookup(keys))[0]

  def count(self, keys, counts, step):
    return [self._waiting.insert(
        keys, _pack(self.seen(keys) + counts, tf.fill(tf.shape(keys), step)))]

  def forget(self, keys):
    return [self._waiting.remove(keys)]

  def forget_stale(self, eviction, step):
    keys, _, versions = self.export()
    return [self._waiting.remove(
        tf.boolean_mask(keys, eviction.is_stale(versions, step)))]

  def export(self):
    keys, packed = self._waiting.export()
    return (keys,) + _unpack(packed)

  def clear(self):
    return self._waiting.clear()

  def load(self, keys, counts, versions):
    return self._waiting.insert(keys, _pack(counts, versions))


class _Bloom(Everyone):
  """Counts in a counting Bloom filter.

  The counters of a key may be anywhere, so all parts of a table share one
  filter. Its counters are a partitioned variable, which restores into any
  number of partitions. The lock of a part orders the updates of its own keys
  only; what other parts do meanwhile can raise a count, never lower it.
  """

  counts = True

  def __init__(self, sizes, device, num_parts):
    self._sizes = sizes
    freq = sizes.filter_freq
    dtype = (tf.uint8 if freq < 1 << 8 else tf.uint16 if freq < 1 << 16
             else tf.int32)
    pieces = min(num_parts, sizes.num_counters)
    with tf.device(device if pieces == 1 else ''), tf.variable_scope(
        tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
      counters = tf.get_variable(
          'counters', [sizes.num_counters], dtype, tf.zeros_initializer(),
          trainable=False, partitioner=(
              tf.fixed_size_partitioner(pieces) if pieces > 1 else None))
    self._counters = list(counters) if pieces > 1 else [counters]

  def admits(self, keys, counts):
    return self.seen(keys) + counts >= self._sizes.filter_freq

  def seen(self, keys):
    return tf.reduce_min(tf.cast(tf.nn.embedding_lookup(
        self._counters, self._places(keys), partition_strategy='div'),
                                 tf.int64), axis=1)

  def count(self, keys, counts, step):
    del step
    total = tf.minimum(self.seen(keys) + counts, self._sizes.filter_freq)
    places = self._places(keys)
    updates = tf.tile(tf.cast(total, self._counters[0].dtype)[:, tf.newaxis],
                      [1, self._sizes.num_hashes])
    return [self._raise(counters, places, updates)
            for counters in self._counters]

  @staticmethod
  def _raise(counters, places, updates):
    """Raises the counters at places to at least updates, in one partition.

    Args:
      counters: variable, one partition of all counters.
      places: [n, hashes] int64, indices into all counters.
      updates: [n, hashes], what each counter must be at least.
    """
    # A counter that several keys share becomes the maximum of their counts, not
    # the sum: that is enough for no count to be too low, and does not overflow.
    places -= np.int64(compat.whole(counters)[2])
    here = (places >= 0) & (places < counters.shape[0].value)
    with tf.device(counters.device):
      return tf.raw_ops.ResourceScatterMax(
          resource=counters.handle, indices=tf.boolean_mask(places, here),
          updates=tf.boolean_mask(updates, here))

  def _places(self, keys):
    """The counters of each key, by double hashing: [n] -> [n, hashes] int64."""
    first = splitmix64.scramble(keys)
    second = splitmix64.scramble(
        splitmix64.xor(keys, np.int64(splitmix64.GOLDEN)))
    i = np.arange(self._sizes.num_hashes, dtype=np.int64)
    # An odd stride is never 0, which would give a key one counter k times.
    odd = tf.bitwise.bitwise_or(second, np.int64(1))
    mixed = first[:, tf.newaxis] + i * odd[:, tf.newaxis]
    return tf.mod(splitmix64.not_negative(mixed),
                  np.int64(self._sizes.num_counters))


def _pack(counts, steps):
  return steps * np.int64(1 << _COUNT_BITS) + tf.minimum(
      counts, np.int64(_MAX_FREQ))


def _unpack(packed):
  return (tf.mod(packed, np.int64(1 << _COUNT_BITS)),
          tf.floordiv(packed, np.int64(1 << _COUNT_BITS)))


def _freq(owner, filter_freq):
  errors.check_integer(owner + '.filter_freq', filter_freq, 1, _MAX_FREQ)
  return filter_freq
