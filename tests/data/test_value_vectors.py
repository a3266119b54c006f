"""The vectors of files against means over loops of plain Python."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.data import value_vectors

RNG = np.random.RandomState(3)
VECTORS = RNG.rand(40, 3).astype('f')
NAMES = ['item %d' % i for i in range(40)]


def parquet(path, values, vectors, **kwargs):
  """Writes a file of values and lists, in two row groups."""
  if not isinstance(vectors, pa.Array):
    vectors = pa.array(list(map(list, vectors)), pa.list_(pa.float32()))
  pa.parquet.write_table(
      pa.table({'key': values, 'vector': vectors}), str(path),
      row_group_size=max(1, (len(values) + 1) // 2), **kwargs)
  return str(path)


def hashes(texts, num_buckets):
  with tf.Session() as sess:
    return sess.run(tf.strings.to_hash_bucket_fast(texts, num_buckets))


def means(ids, vectors):
  """The mean of each id, one at a time, in the order of the ids."""
  different = sorted(set(ids))
  return different, [np.mean([v.astype('d') for i, v in zip(ids, vectors)
                              if i == one], axis=0) for one in different]


@pytest.mark.parametrize('kind', [
    column_kinds.Hashed, column_kinds.HashedList])
@pytest.mark.parametrize('values', [
    pa.array(NAMES), pa.array(NAMES).dictionary_encode(),
    pa.array([name.encode() for name in NAMES])])
def test_a_bucket_starts_from_the_mean_of_its_values(
    kind, values, tmp_path, caplog, monkeypatch):
  monkeypatch.setattr(logging.getLogger('absl'), 'propagate', True)
  caplog.set_level(logging.INFO)
  path = parquet(tmp_path / 'v.parquet', values, VECTORS)
  ids = hashes(NAMES, 31)
  wanted, of = means(ids, VECTORS)
  rows, vectors = value_vectors.read(kind('a', 31, 3, vectors=path), 3)
  assert rows.tolist() == wanted
  np.testing.assert_allclose(vectors, of, rtol=1e-6)
  assert vectors.dtype == np.float32
  several = sum(np.sum(ids == i) > 1 for i in wanted)
  assert several
  assert ("The column 'a' starts from %s: %d of its 31 rows have the vectors "
          'of 40 values, %d of them the mean of several.' % (
              path, len(wanted), several)) in caplog.text


@pytest.mark.parametrize('arrow_type', [pa.int64(), pa.int32(), pa.float64()])
def test_values_are_read_as_those_of_data_files(arrow_type, tmp_path):
  path = parquet(tmp_path / 'v.parquet', pa.array([7, 3, 12], arrow_type),
                 pa.FixedSizeListArray.from_arrays(
                     pa.array(VECTORS[:3].ravel(), pa.float64()), 3))
  for column, ids in [
      (column_kinds.Hashed('a', 1000, 3, vectors=path),
       hashes(['7', '3', '12'], 1000)),
      (column_kinds.Integer('a', 20, 3, vectors=path), [7, 3, 12]),
      (column_kinds.Vocabulary('a', (12, 7, 3), 3, vectors=path), [1, 2, 0]),
      (column_kinds.Bucketised('a', (5, 10), 3, vectors=path), [1, 0, 2])]:
    rows, vectors = value_vectors.read(column, 3)
    assert rows.tolist() == sorted(ids)
    np.testing.assert_allclose(vectors, VECTORS[np.argsort(ids)], rtol=1e-6)


@pytest.mark.parametrize('num_oov', [0, 2])
def test_values_out_of_a_vocabulary(num_oov, tmp_path, caplog, monkeypatch):
  monkeypatch.setattr(logging.getLogger('absl'), 'propagate', True)
  caplog.set_level(logging.INFO)
  path = parquet(tmp_path / 'v.parquet', NAMES[:5], VECTORS[:5])
  column = column_kinds.Vocabulary(
      'a', (NAMES[3], 'x', NAMES[1]), 3, num_oov, vectors=path)
  rows, vectors = value_vectors.read(column, 3)
  assert rows.tolist() == [0, 2]
  np.testing.assert_array_equal(vectors, VECTORS[[3, 1]])
  assert '; 3 values are not listed in the vocabulary and left out.' in (
      caplog.text)


@pytest.mark.parametrize('column, height', [
    (lambda path: column_kinds.Integer('a', 6, 3, vectors=path), 6),
    (lambda path: column_kinds.Vocabulary(
        'a', ('x', 'y'), 3, 2, vectors=path), 4),
    (lambda path: column_kinds.Bucketised('a', (1, 2), 3, vectors=path), 3)])
@pytest.mark.parametrize('dtype', ['f4', '>f8', 'i2'])
def test_an_array_has_a_row_per_id(column, height, dtype, tmp_path):
  path = str(tmp_path / 'v.npy')
  array = (100 * VECTORS[:height]).astype(dtype)
  np.save(path, array)
  rows, vectors = value_vectors.read(column(path), 3)
  assert rows.tolist() == list(range(height))
  np.testing.assert_allclose(vectors, array.astype('f4'))
  assert vectors.dtype == np.float32


def wrong(values, vectors):
  return lambda path: parquet(path, values, vectors)


LISTS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]
WITH_NAN = LISTS[:2] + [[7.0, float('nan'), 9.0]]
TEXTS = ['p', 'q', 'r']


@pytest.mark.parametrize('write, message', [
    (wrong(TEXTS, LISTS[:2] + [[1.0, 2.0]]),
     r'row 3: the vector must be a list of 3 numbers, got \[1.0, 2.0\]'),
    (wrong(TEXTS, WITH_NAN),
     'row 3: the vector must be .*, got nan as number 2 of 3'),
    (wrong(TEXTS, pa.array([LISTS[0], None, LISTS[2]],
                           pa.list_(pa.float32()))),
     'row 2: the vector must have a value, got None'),
    (wrong(['p', '', 'r'], LISTS),
     "row 2: the value must have a value, got ''"),
    (wrong(['p', 'q', None], LISTS),
     'row 3: the value must have a value, got None'),
    (wrong([0.5, 1.0, 2.0], LISTS), 'row 1: the value must .*, got 0.5'),
    (wrong(['p', 'q', 'p'], LISTS),
     "must have different values, got 'p' twice"),
    (wrong(pa.array([], pa.string()), []), 'must have rows, got none'),
    (wrong(pa.array([['p']] * 3), LISTS),
     r'must have two columns, values and lists of 3 numbers, got key \(list.*'
     r'\), vector \(list.*\)'),
    (wrong(pa.array([b'p'] * 3).cast(pa.binary()), pa.array(TEXTS)),
     r'must have two columns, .*, got key \(binary\), vector \(string\)'),
    (wrong(TEXTS, pa.FixedSizeListArray.from_arrays(
        pa.array([1.0] * 6), 2)), 'must have lists of 3 numbers, got fixed'),
    (lambda path: open(path, 'wb').write(b'none'), 'must be a whole Parquet'),
    (lambda path: None, 'No such file'),
])
def test_a_file_that_cannot_be_used_is_named(write, message, tmp_path):
  path = str(tmp_path / 'v.parquet')
  write(path)
  with pytest.raises(errors.UserError, match=message) as error:
    value_vectors.read(column_kinds.Hashed('a', 9, 3, vectors=path), 3)
  assert str(error.value).startswith("FeatureSpec.columns, 'a': vectors")
  assert path in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('column, values, message', [
    (column_kinds.Integer, [1, 9, 2],
     r'row 2: the value must be an integer in \[0, 9\), got 9'),
    (column_kinds.Integer, [1, -1, 2], 'row 2: the value must be an integer'),
    (column_kinds.Integer, [1, 'x', 2], "row 2: the value must .*, got 'x'"),
    (column_kinds.HashedList, ['p', 'q|r', 's'],
     r"row 2: the value must .* without the separator '\|' inside, got 'q\|r'"),
])
def test_values_that_the_column_would_not_take(
    column, values, message, tmp_path):
  path = parquet(tmp_path / 'v.parquet', pa.array(
      values if isinstance(values[1], int) else list(map(str, values))), LISTS)
  with pytest.raises(errors.UserError, match=message):
    value_vectors.read(column('a', 9, 3, vectors=path), 3)


@pytest.mark.parametrize('array, message', [
    (np.ones((5, 3), 'f'), r'must have shape \(num_buckets, dim\) = \(9, 3\) '
     r'and numbers, got \(5, 3\) of type float32'),
    (np.ones((9, 3), bool), r'got \(9, 3\) of type bool'),
    (np.where(np.arange(27) == 13, np.inf, 1).reshape(9, 3),
     'must have finite numbers, got others in row 5, which is of the id 4'),
    (np.full((9, 3), 1e39), 'must have finite numbers'),
    (np.array([None]), 'must be a whole .npy file of numbers, got: .*pickle'),
    (None, 'must be a whole .npy file of numbers, got: .*No such file'),
])
def test_an_array_that_cannot_be_used_is_named(array, message, tmp_path):
  path = str(tmp_path / 'v.npy')
  if array is not None:
    np.save(path, array)
  with pytest.raises(errors.UserError, match=message) as error:
    value_vectors.read(column_kinds.Integer('a', 9, 3, vectors=path), 3)
  assert path in str(error.value) and '\n' not in str(error.value)


def test_the_argument_is_checked_where_it_is_bound():
  for make, endings in [
      (lambda path: column_kinds.Hashed('a', 9, 3, vectors=path), '.parquet'),
      (lambda path: column_kinds.Integer('a', 9, 3, vectors=path),
       '.parquet or .npy')]:
    with pytest.raises(errors.UserError, match=(
        "vectors must be a path that ends in %s, got 'v.csv'" % endings)):
      make('v.csv')
    with pytest.raises(errors.UserError, match='vectors must be'):
      make(3)
  with pytest.raises(errors.UserError, match="ends in .parquet, got 'v.npy'"):
    column_kinds.HashedList('a', 9, 3, vectors='v.npy')
