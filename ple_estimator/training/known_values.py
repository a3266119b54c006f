"""Reads the values of category columns: the key and the bucket of each."""

import collections
import copy

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator.data import packing
from ple_estimator.data import reading as reading_lib
from ple_estimator.training import layout

_MOST = 1 << 20  # pairs that are collected before doubles are removed


def read(source, spec, group, num_buckets, fused):
  """Reads all files of an input once.

  Args:
    source: inputs.FileInput, the training rows.
    spec: feature_spec.FeatureSpec.
    group: packing.KeyedGroup.
    num_buckets: dict of column name to the number of its buckets; other columns
      of the group are left out.
    fused: bool, whether the kernels of native.py may be used.

  Returns:
    dict of column name to (keys, buckets), [n] int64 each, of different values.
  """
  columns = []
  for column in group.columns:
    column = copy.copy(spec[column.name])
    # An integer is its own bucket, however many the other model has.
    is_hashed = layout.family(type(column).__name__) == layout.HASHED
    if is_hashed and column.name in num_buckets:
      column.num_buckets = num_buckets[column.name]
    columns.append(column)
  hashed = packing.Group('buckets', columns)
  found = {name: _Pairs() for name in num_buckets}
  for keys, buckets in _batches(source, spec, [group, hashed], fused):
    for i, column in enumerate(columns):
      if column.name in found:
        found[column.name].add(
            _of_column(keys, i, len(columns)),
            _of_column(buckets, i, len(columns)) - hashed.offsets[i])
  return {name: pairs.below(num_buckets[name])
          for name, pairs in found.items()}


def _batches(source, spec, groups, fused):
  """Yields the packing.Packed arrays of each batch, one per group."""
  paths = source.paths()
  part = source.part(paths, 0, 0)._replace(stop=1, shuffle_rows=0)
  with tf.Graph().as_default(), tf.Session() as session:
    iterators = []
    for group in groups:
      reading = reading_lib.Reading(spec, (), [group], fused)
      iterators.append(tf.data.make_initializable_iterator(
          source.dataset(reading, parts=lambda: [part])))
    packed = [group.take(iterator.get_next()[0])
              for group, iterator in zip(groups, iterators)]
    session.run([iterator.initializer for iterator in iterators])
    while True:
      try:
        batch = session.run(packed)
      except tf.errors.OutOfRangeError:
        return
      yield batch


def _of_column(packed, i, count):
  """The rows, or keys, of all values of a column in a batch, [n] int64."""
  batch = (len(packed.splits) - 1) // count
  begin, end = packed.splits[i * batch], packed.splits[(i + 1) * batch]
  return packed.rows[packed.index[begin:end]]


class _Pairs:
  """Different keys, with the bucket of each."""

  def __init__(self):
    self._parts = collections.deque()
    self._count = 0

  def add(self, keys, buckets):
    """Adds the values of a batch."""
    keys, first = np.unique(keys, return_index=True)
    self._parts.append((keys, buckets[first]))
    self._count += len(keys)
    if self._count > _MOST:
      self._parts = collections.deque([self._all()])
      self._count = 0

  def _all(self):
    if not self._parts:
      return np.zeros(0, np.int64), np.zeros(0, np.int64)
    keys, buckets = [np.concatenate(of) for of in zip(*self._parts)]
    keys, first = np.unique(keys, return_index=True)
    return keys, buckets[first]

  def below(self, count):
    """Returns (keys, buckets) of those whose bucket is below a number."""
    keys, buckets = self._all()
    return keys[buckets < count], buckets[buckets < count]
