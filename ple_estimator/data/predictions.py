"""Writes predictions to a file, which gets its name when it is complete."""

import collections
import os

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.data import parquet_files

_COLUMNS = 'Experiment.predict_columns'


def check_path(path):
  """Raises UserError unless the ending of path is .parquet or .csv."""
  errors.check(isinstance(path, str) and path.endswith(('.parquet', '.csv')),
               'Experiment.predictions_path must end in .parquet or .csv, got '
               '%s.', errors.written(path))
  files.check_local('Experiment.predictions_path', path)


class Predictions(collections.namedtuple('Predictions', 'path num_rows')):
  """A file of predictions; `batches` reads it when asked.

  Attributes:
    path: str, of the Parquet or CSV file.
    num_rows: int.
  """

  def batches(self):
    """Yields dicts of column name to [batch] or [batch, n] numpy array."""
    if not self.num_rows:
      return
    if self.path.endswith('.csv'):
      tables = pa.csv.open_csv(self.path)
    else:
      tables = parquet_files.opened(self.path).iter_batches()
    for table in tables:
      yield {name: _numpy(table.column(i))
             for i, name in enumerate(table.schema.names)}


def finite(batches, names):
  """Yields batches as they are, as long as predictions are finite.

  Args:
    batches: iterable of dicts of column name to [batch] numpy array, or
      [batch, n] of a task with n classes.
    names: names of the columns to look at, one for each task.

  Raises:
    UserError: at a number that is not finite, with its task and row.
  """
  before = 0
  for batch in batches:
    for name in names:
      rows = batch[name].reshape(len(batch[name]), -1)
      bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
      if not bad.size:
        continue
      row = rows[bad[0]]
      raise errors.UserError(
          'The prediction of task %s is %s for row %d of '
          'Experiment.predict_input, counted from 1 (%d of the %d rows in its '
          'batch are not finite). Look for very large values in the columns of '
          'kind number; if all rows are so, choose an earlier checkpoint.' % (
              name, row[~np.isfinite(row)][0], before + bad[0] + 1, bad.size,
              len(batch[name])))
    before += len(batch[names[0]])
    yield batch


def write(path, batches, metadata=None, binding=_COLUMNS):
  """Writes batches of rows as one Parquet or CSV (with header) file.

  Args:
    path: str, ending in .parquet or .csv.
    batches: iterable of dicts of column name to [batch] numpy array of one
      dtype; bytes become text, and [batch, n] a list of n, in Parquet only.
    metadata: dict of bytes to bytes, which the schema of a Parquet file gets.
    binding: str, what names the columns, for messages.

  Returns:
    Predictions.
  """
  check_path(path)
  os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
  partial = path + '.partial'  # A file that has its name is complete.
  writer, rows = None, 0
  try:
    for batch in batches:
      table = _as_text(pa.Table.from_arrays(
          [_array(values) for values in batch.values()], list(batch)), path,
                       binding)
      if writer is None:
        schema = table.schema.with_metadata(metadata)
        writer = _open(partial, path, schema)
      writer.write_table(table.cast(schema))
      rows += table.num_rows
  except BaseException:
    if writer is not None:
      writer.close()
      os.remove(partial)
    raise
  if writer is not None:
    writer.close()
    os.replace(partial, path)
  return Predictions(path, rows)


def _open(partial, path, schema):
  if path.endswith('.csv'):
    return pa.csv.CSVWriter(partial, schema)
  return parquet_files.writer(partial, schema)


def _as_text(table, path, binding):
  """Turns columns of bytes, as the input had them, into text."""
  for i, field in enumerate(table.schema):
    errors.check(
        not (pa.types.is_list(field.type) and path.endswith('.csv')),
        'Experiment.predictions_path must end in .parquet for the vector %r of '
        '%s, got %r.', field.name, binding, path)
    if pa.types.is_binary(field.type):
      try:
        text = table.column(i).cast(pa.string())
      except pa.ArrowInvalid:
        raise errors.UserError(
            'Column %r must be UTF-8 to be written to %s; leave it out of '
            '%s.' % (field.name, path, binding))
      table = table.set_column(i, field.name, text)
  return table


def _array(values):
  if values.dtype == np.object_:
    return pa.array(list(values), pa.binary())
  if values.ndim == 2:
    ends = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values.ravel()))
  return pa.array(values)


def _numpy(array):
  """A column that was read back, [batch], or [batch, n] where it has lists."""
  if pa.types.is_list(array.type):
    return array.flatten().to_numpy().reshape(len(array), -1)
  return array.to_numpy(zero_copy_only=False)
