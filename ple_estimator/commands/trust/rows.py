"""Rows of CSV or Parquet files as numpy arrays, as a served model takes them.

With a run (--gin_file) a file is read as the run reads its own. Without, it is
read by what a SavedModel asks for: text, integers, numbers or vectors.
"""

import itertools
import os

import numpy as np
import pyarrow as pa
import pyarrow.csv
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import arrow_values
from ple_estimator.data import parquet_files

SEPARATOR = '|'  # of lists, if nothing says otherwise: that of HashedList
_MISSING = {tf.string: b'', tf.int64: -1}  # of numbers NaN, see data/serving.py


def of_run(experiment, entry, limit):
  """Reads the first rows of files, as a run reads them.

  Args:
    experiment: experiment.Experiment.
    entry: str, what Experiment.rows_of takes.
    limit: int, how many rows at most.

  Returns:
    (table, count): pa.Table of typed columns, the first rows that can be used,
    and the int number of rows that the files have.

  Raises:
    UserError: if the files cannot be read, or have no usable row.
  """
  return read(experiment, experiment.rows_of(entry), limit)


def read(experiment, source, limit, with_labels=False, more=()):
  """Reads the first rows of an input.

  Args:
    experiment: experiment.Experiment.
    source: inputs.FileInput.
    limit: int, how many rows at most.
    with_labels: bool, whether labels and weights are read, and the columns that
      say which rows are of a task.
    more: names of further columns to read.

  Returns:
    (table, count): as `of_run`.

  Raises:
    UserError: if the files cannot be read, or have no usable row.
  """
  reading = experiment.model.reading()._replace(
      groups=(), fused=False, with_labels=with_labels)
  reading = reading._replace(
      keep=(reading.keep if with_labels else ()) + tuple(more))
  source.check(reading)
  source.batch_size = min(limit, source.batch_size)
  tables, left = [], limit
  for table in source.tables(reading):
    tables.append(table.slice(0, left))
    left -= tables[-1].num_rows
    if not left:
      break
  return pa.concat_tables(tables), source.count_rows(reading)


def of_file(path, inputs, limit, columns=None):
  """Reads the first rows of a file by what a SavedModel asks for.

  Args:
    path: str, a Parquet file, or a CSV file with commas between fields.
    inputs: dict of column name to tensor, see answering.Answering.
    limit: int, how many rows at most.
    columns: list of str, the columns of a CSV file without header; None reads
      them from its first line.

  Returns:
    (pa.Table, count): the columns of the file as it has them, and the int
    number of all its rows.

  Raises:
    UserError: if the file cannot be read or lacks a column.
  """
  errors.check(os.path.isfile(path), 'FILE must be a file, got %r.', path)
  tables, found = [], 0
  try:
    for table in _tables(path, columns):
      lacking = [name for name in inputs if name not in table.schema.names]
      errors.check(
          not lacking, '%s must have the columns that the SavedModel asks for, '
          'lacks %s.%s', path, ', '.join(lacking), '' if path.endswith(
              '.parquet') or columns else ' A CSV file without header needs '
          '--columns.')
      tables.append(table.slice(0, max(limit - found, 0)))
      found += table.num_rows
  except pa.ArrowInvalid as error:
    raise errors.UserError('%s cannot be read: %s' % (
        path, str(error).partition('\n')[0])) from error
  errors.check(found, '%s has no rows.', path)
  return pa.concat_tables(tables), found


def _tables(path, columns):
  if path.endswith('.parquet'):
    batches = parquet_files.opened(path).iter_batches()
  else:
    with pa.csv.open_csv(path, pa.csv.ReadOptions(
        column_names=columns)) as first:
      kinds = {name: pa.string() for name in first.schema.names}
    batches = pa.csv.open_csv(
        path, pa.csv.ReadOptions(column_names=columns),
        convert_options=pa.csv.ConvertOptions(column_types=kinds))
  for batch in batches:
    yield pa.Table.from_batches([batch])


def fed(table, inputs):
  """What a model is fed with for the rows of a table.

  Args:
    table: pa.Table.
    inputs: dict of column name to tensor, see answering.Answering.

  Returns:
    dict of column name to [rows] or [rows, width] numpy array.

  Raises:
    UserError: if a value does not fit the type that is asked for.
  """
  return {name: _array(name, table.column(name), tensor)
          for name, tensor in inputs.items()}


def _array(name, column, tensor):
  array = pa.concat_arrays(column.chunks)
  if tensor.shape.ndims == 2:
    return _vectors(name, array, tensor.shape[1].value)
  if tensor.dtype == tf.string:
    return np.array(_texts(name, array), object)
  kind = pa.int64() if tensor.dtype == tf.int64 else pa.float32()
  errors.check(arrow_values.is_value(array.type), 'Column %r must be numbers '
               'for this model, got %s.', name, array.type)
  values, bad = arrow_values.numbers(array, kind)
  _check(name, array, bad, 'a number')
  if tensor.dtype == tf.int64:
    return values.fill_null(_MISSING[tf.int64]).to_numpy()
  return values.to_numpy(zero_copy_only=False)  # null becomes NaN


def _texts(name, array):
  """The values of a column as a list of bytes; lists with separators."""
  if not arrow_values.is_list(array.type):
    errors.check(arrow_values.is_value(array.type), 'Column %r must be text '
                 'for this model, got %s. --gin_file reads it as the run does.',
                 name, array.type)
    texts, bad = arrow_values.texts(array)
    _check(name, array, bad, 'text or a whole number')
    return [b'' if text is None else text for text in texts.to_pylist()]
  items = _texts(name, array.flatten())
  lengths = [0 if value is None else len(value) for value in array.to_pylist()]
  ends = np.cumsum([0] + lengths)
  return [SEPARATOR.encode().join(items[start:stop])
          for start, stop in zip(ends, ends[1:])]


def _vectors(name, array, width):
  rows = [text.split(SEPARATOR) if isinstance(text, str) else text
          for text in array.to_pylist()]
  rows = [[np.nan] * width if not row or row == [''] else row for row in rows]
  lengths = {len(row) for row in rows}
  errors.check(lengths <= {width}, 'Column %r must have %d numbers in each '
               'row, got %s.', name, width, ', '.join(
                   map(str, sorted(lengths - {width}))))
  try:
    return np.array([[np.nan if item in ('', None) else item for item in row]
                     for row in rows], np.float32)
  except ValueError as error:
    raise errors.UserError('Column %r must have numbers: %s.' % (
        name, error)) from error


def _check(name, array, bad, wanted):
  if bad.any():
    row = int(np.flatnonzero(bad)[0])
    raise errors.UserError('Column %r must be %s, got %r in row %d.' % (
        name, wanted, array[row].as_py(), row + 1))


def examples(columns):
  """Serializes rows as tf.train.Examples, which leave out what is missing.

  Args:
    columns: dict of column name to numpy array, as `fed` returns it.

  Returns:
    list of bytes.
  """
  count = len(next(iter(columns.values())))
  return [tf.train.Example(features=tf.train.Features(feature=dict(
      itertools.chain.from_iterable(
          _features(name, values[i]) for name, values in columns.items())))
                          ).SerializeToString() for i in range(count)]


def _features(name, value):
  """Yields the (name, Feature) of one value, or nothing where it is missing."""
  if isinstance(value, (bytes, str)):
    if value:
      yield name, tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
  elif isinstance(value, np.integer):
    if value != _MISSING[tf.int64]:
      yield name, tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
  elif not np.isnan(value).all():
    yield name, tf.train.Feature(float_list=tf.train.FloatList(
        value=np.ravel(value)))
