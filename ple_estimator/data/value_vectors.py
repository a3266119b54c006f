"""Reads the vectors that the values of a category column start from.

A column names the file by its argument `vectors`. A Parquet file has two
columns of any names: values, as a data file would have them, and lists of dim
numbers. A .npy file is an array [num_buckets, dim], whose row i is of the id i.
"""

import collections

from absl import logging
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import arrow_values
from ple_estimator.data import column_kinds
from ple_estimator.data import packing
from ple_estimator.data import parquet_files
from ple_estimator.storage import sources

_Part = collections.namedtuple('_Part', 'values vectors')


def read(column, dim):
  """Reads the file of a column, and logs what of it is used.

  Args:
    column: column_kinds.Column with `vectors`.
    dim: int, the width of the vectors that the experts read.

  Returns:
    (ids, vectors): [n] int64, different and ascending, and [n, dim] float32. An
    id that several values of the file have has the mean of their vectors.

  Raises:
    UserError: if the file cannot be read, or a value or vector cannot be used.
  """
  if column.vectors.endswith('.npy'):
    return _of_npy(column, dim)
  values, vectors = _of_parquet(column, dim)
  ids = _ids(column, values)
  known = ids != column_kinds.NO_ID
  ids, found, counts = _means(ids[known], vectors[known])
  logging.info(
      'The column %r starts from %s: %d of its %d rows have the vectors of %d '
      'values, %d of them the mean of several%s.', column.name, column.vectors,
      len(ids), column.num_buckets, known.sum(), (counts > 1).sum(),
      '' if known.all() else '; %d values are not listed in the vocabulary and '
      'left out' % (~known).sum())
  return ids, found


def _check(condition, column, message, *args):
  """Raises UserError with the names of a column and its file."""
  errors.check(condition, 'FeatureSpec.columns, %r: vectors %r ' + message,
               column.name, column.vectors, *args)


def _means(ids, vectors):
  """The mean vector of each different id.

  Returns:
    (ids, means, counts): of [n] different ids, ascending.
  """
  order = np.argsort(ids, kind='stable')
  different, first, counts = np.unique(
      ids[order], return_index=True, return_counts=True)
  if len(different) == len(ids):
    return different, vectors[order], counts
  sums = np.add.reduceat(vectors[order].astype(np.float64), first, axis=0)
  return different, (sums / counts[:, np.newaxis]).astype(np.float32), counts


# ---------------------------------------------------------------- .npy


def _of_npy(column, dim):
  """As `read`, of an array with a row for each id."""
  wanted = (column.num_buckets, dim)
  try:
    array = sources.retried(column.vectors, lambda: _loaded(column.vectors))
  except (OSError, ValueError, EOFError) as error:
    if isinstance(error, errors.UserError):
      raise
    _check(False, column, 'must be a whole .npy file of numbers, got: %s',
           ' '.join(str(error).split()))
  _check(array.shape == wanted and array.dtype.kind in 'fiu', column,
         'must have shape (num_buckets, dim) = %r and numbers, got %r of type '
         '%s.', wanted, array.shape, array.dtype)
  with np.errstate(over='ignore'):
    array = array.astype(np.float32)
  bad = ~np.isfinite(array).all(axis=1)
  _check(not bad.any(), column, 'must have finite numbers, got others in row '
         '%d, which is of the id %d.', bad.argmax() + 1, bad.argmax())
  logging.info('The column %r starts from %s, which has a row for each of its '
               '%d ids.', column.name, column.vectors, len(array))
  return np.arange(len(array)), array


def _loaded(path):
  with sources.opened(path) as f:
    return np.load(f, allow_pickle=False)


# ------------------------------------------------------------- Parquet


def _of_parquet(column, dim):
  """The values of a file as `parse` returns them, and their vectors.

  Returns:
    (values, vectors): [n] numpy array of bytes or numbers, all different, and
    [n, dim] float32.
  """
  try:
    source = parquet_files.opened(column.vectors)
    reader = _Reader(column, dim, source.schema_arrow)
    parts, count = [], 0
    for group in range(source.metadata.num_row_groups):
      table = source.read_row_group(group)
      parts.append(reader.read(table, count))
      count += table.num_rows
  except errors.UserError as error:
    if str(error).startswith('FeatureSpec.columns'):
      raise
    raise errors.UserError(
        'FeatureSpec.columns, %r: vectors: %s' % (column.name, error))
  except (pa.ArrowException, OSError) as error:
    _check(False, column, 'must be a whole Parquet file, got: %s',
           parquet_files.one_line(error))
  _check(count, column, 'must have rows, got none.')
  values, vectors = [np.concatenate(of) for of in zip(*parts)]
  different, counts = np.unique(values, return_counts=True)
  twice = different[counts > 1]
  _check(not len(twice), column, 'must have different values, got %r twice.',
         _shown(twice[0]) if len(twice) else None)
  return values, vectors


def _shown(value):
  """A value of a numpy array as Python has it, bytes as text."""
  if isinstance(value, bytes):
    return value.decode(errors='replace')
  return value.item()


class _Reader:
  """Reads the row groups of a file with the vectors of a column."""

  def __init__(self, column, dim, schema):
    """Finds the two columns.

    Args:
      column: column_kinds.Column.
      dim: int.
      schema: pa.Schema of the file.
    """
    self._column = column
    self._vector = column_kinds.Vector('vector', dim)
    lists = [field.name for field in schema if _is_list(field.type)]
    others = [field.name for field in schema if not _is_list(field.type)]
    _check(len(lists) == len(others) == 1, column, 'must have two columns, '
           'values and lists of %d numbers, got %s.', dim, ', '.join(
               '%s (%s)' % (field.name, field.type) for field in schema))
    self._values, self._lists = others[0], lists[0]
    of_values, of_lists = [
        schema.field(name).type for name in (self._values, self._lists)]
    _check(column.accepts(of_values), column, 'must have values that the '
           'column takes, %s, got %s in %r.', column.wants, of_values,
           self._values)
    _check(self._vector.accepts(of_lists), column, 'must have lists of %d '
           'numbers, got %s in %r.', dim, of_lists, self._lists)

  def read(self, table, first):
    """Parses a row group.

    Args:
      table: pa.Table.
      first: int, how many rows of the file come before it.

    Returns:
      _Part.
    """
    array = packing.one_chunk(table.column(self._values))
    lists = packing.one_chunk(table.column(self._lists))
    values, bad = self._parsed(array)
    self._check_rows(self._column, array, bad, first)
    vectors, bad = self._vector.parse(lists)
    self._check_rows(self._vector, lists, bad, first)
    return _Part(values, packing.to_numpy(vectors.flatten()).reshape(
        (len(vectors),) + self._vector.shape))

  def _parsed(self, array):
    """Parses values; (numpy array, bool numpy array or None), as `parse`."""
    if pa.types.is_dictionary(array.type):
      array = array.dictionary_decode()
    missing = self._missing(array)
    if self._column.accepts(pa.list_(array.type)):  # each is an item of a list
      array = pa.ListArray.from_arrays(
          pa.array(np.arange(len(array) + 1), pa.int32()), array)
    values, bad = self._column.parse(array)
    bad = missing if bad is None else bad | missing
    if pa.types.is_binary(values.type):
      return np.array(values.to_pylist(), object), bad
    return packing.to_numpy(values), bad

  def _missing(self, array):
    """Where an array has no value: [rows] bool."""
    if pa.types.is_binary(self._column.arrow_type):
      values = pc.fill_null(arrow_values.texts(array)[0], b'')
      return pc.equal(values, pa.scalar(b'', pa.binary())).to_numpy(
          zero_copy_only=False)
    values, _ = arrow_values.numbers(array, self._column.arrow_type)
    return np.isnan(values.to_numpy(zero_copy_only=False).astype(np.float64))

  def _check_rows(self, kind, array, bad, first):
    """Raises UserError if a row of the file cannot be used."""
    if bad is None or not bad.any():
      return
    row = int(bad.argmax())
    value = array[row].as_py()
    if isinstance(value, bytes):
      value = value.decode(errors='replace')
    problem = ('must have a value, got %r' % (value,)
               if value in (None, '') else kind.problem(value))
    _check(False, self._column, 'row %d: %s %s.', first + row + 1,
           'the vector' if kind is self._vector else 'the value', problem)


def _is_list(arrow_type):
  return (arrow_values.is_list(arrow_type) or
          pa.types.is_fixed_size_list(arrow_type))


def _ids(column, values):
  """The ids of values, as the graph makes them: [n] -> [n] int64."""
  with tf.Graph().as_default(), tf.Session() as session:
    given = tf.placeholder(column.dtype, [None])
    return session.run(column.item_ids(given), {given: values})
