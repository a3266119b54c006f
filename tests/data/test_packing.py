"""Ids by the kernels against ids by TensorFlow, and packed against plain."""

import conftest
import numpy as np
import pyarrow as pa
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.data import column_kinds
from ple_estimator.data import packing
from ple_estimator.engine import native

TEXTS = ['', 'a', 'ab', '|', 'a|b', '||a||', 'x' * 100, 'ä|ö', 'b|a|b',
         'longer than sixteen', 'y' * 33, 'z' * 70] * 3
COLUMNS = [
    column_kinds.Hashed('single', 97, 4),
    column_kinds.Hashed('d', 11, 4, default='?'),
    column_kinds.HashedList('list', 31, 4),
    column_kinds.HashedList('l', 31, 4, default='p|q'),
    column_kinds.HashedList('other', 13, 4, separator='ab', combiner='sum'),
    column_kinds.Integer('i', 50, 4),
    column_kinds.Integer('j', 5, 4, default=3)]


def table():
  arrays = []
  for column in COLUMNS:
    if column.arrow_type == pa.binary():
      arrays.append(pa.array([t.encode() for t in TEXTS], pa.binary()))
    else:
      arrays.append(pa.array(np.arange(len(TEXTS)) % 6 - 1, pa.int64()))
  return pa.Table.from_arrays(arrays, [c.name for c in COLUMNS])


def encoded(rows):
  """What TensorFlow makes of the same rows: dict of name to lists of ids."""
  raw = {c.name: tf.constant(rows.column(c.name).to_pylist(), c.dtype)
         for c in COLUMNS}
  tensors = {c.name: c.encode(raw[c.name]) for c in COLUMNS}
  groups = packing.groups(COLUMNS)
  packed = [group.pack(tensors) for group in groups]
  with tf.Session() as sess:
    ids, packed = sess.run([tensors, packed])
  lists = {}
  for name, value in ids.items():
    lists[name] = [[] for _ in range(rows.num_rows)]
    if isinstance(value, tf.SparseTensorValue):
      for (row, _), item in zip(value.indices, value.values):
        lists[name][row].append(item)
    else:
      lists[name] = [[item] if item >= 0 else [] for item in value]
  return lists, groups, packed


def unpacked(group, rows, index, splits):
  """Lists of ids by column name."""
  found, batch = {}, (len(splits) - 1) // len(group.columns)
  first = 0
  for c, column in enumerate(group.columns):
    found[column.name] = [
        list(rows[index[splits[c * batch + b]:splits[c * batch + b + 1]]] -
             first) for b in range(batch)]
    first += column.num_buckets
  return found


@conftest.needs_kernels
@pytest.mark.parametrize('begin, end', [(0, 36), (5, 17), (3, 4)])
def test_both_ways_give_the_same_ids(begin, end):
  whole = table()
  rows = whole.slice(begin, end - begin)
  wanted, groups, by_tensorflow = encoded(rows)
  # Once hashed and then cut, once the other way round.
  for ids in (packing.to_ids(whole, COLUMNS).slice(begin, end - begin),
              packing.to_ids(rows, COLUMNS)):
    for group, packed in zip(groups, by_tensorflow):
      got = group.pack_table(ids)
      assert len(set(got[0])) == len(got[0])
      again = unpacked(group, *[packed[key] for key in group.keys()])
      for column in group.columns:
        assert unpacked(group, *got)[column.name] == wanted[column.name]
        assert again[column.name] == wanted[column.name]


@conftest.needs_kernels
def test_hash_is_tensorflow_s():
  ids = native.hash_text(pa.array([t.encode() for t in TEXTS]), 1 << 40, -1)
  with tf.Session() as sess:
    wanted = sess.run(tf.strings.to_hash_bucket_fast(TEXTS, 1 << 40))
  np.testing.assert_array_equal(
      ids, np.where(np.array(TEXTS) == '', -1, wanted))


@conftest.needs_kernels
@pytest.mark.parametrize('count', [0, 1, 1000])
def test_unique_numbers_by_appearance(count):
  ids = np.random.RandomState(1).randint(0, 300, count).astype(np.int64) << 20
  rows, index = native.unique(ids)
  np.testing.assert_array_equal(rows[index], ids)
  seen = list(dict.fromkeys(ids.tolist()))
  assert rows.tolist() == seen


def test_numbers_of_chunks_and_slices():
  whole = pa.array(np.arange(10, dtype=np.float32))
  chunked = pa.chunked_array([whole[2:5], whole[7:]])
  np.testing.assert_array_equal(packing.to_numpy(chunked), [2, 3, 4, 7, 8, 9])
  np.testing.assert_array_equal(packing.to_numpy(whole[4:6]), [4, 5])
  assert len(packing.to_numpy(pa.array([], pa.int64()))) == 0
