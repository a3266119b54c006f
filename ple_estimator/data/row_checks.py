"""Checks rows: gives columns their types and takes bad rows out."""

from absl import logging
import numpy as np
import pyarrow as pa

from ple_estimator import errors
from ple_estimator.data import arrow_values

_SHOWN_BAD_ROWS = 10


class BadRows:
  """What to do with a row that cannot be used; counts those skipped.

  Attributes:
    skip: bool, whether to skip bad rows instead of raising at the first.
    skipped: int, how many rows have been skipped so far.
  """

  def __init__(self, skip, shown=_SHOWN_BAD_ROWS):
    """Starts at zero.

    Args:
      skip: bool, whether to skip bad rows instead of raising at the first.
      shown: int, how many skipped rows to log one by one.
    """
    self.skip = skip
    self.skipped = 0
    self._shown = shown

  def add(self, path, row, problem):
    """Counts one bad row, or raises.

    Args:
      path: str, its file.
      row: int, its number in the file, from 1.
      problem: str, e.g. "must have 20 columns, got 19".

    Raises:
      UserError: unless bad rows are skipped.
    """
    message = '%s row %d %s.' % (path, row, problem)
    errors.check(self.skip, '%s', message)
    self.skipped += 1
    if self.skipped <= self._shown:
      logging.warning('Skipped: %s', message)
    if self.skipped == self._shown:
      logging.warning('Further skipped rows are only counted.')


def typed(table, columns, bad_rows, path, number_of):
  """Gives the columns of a table their types and takes its bad rows out.

  Args:
    table: pa.Table with the columns, as the file has them.
    columns: list of column_kinds.Column.
    bad_rows: BadRows.
    path: str.
    number_of: function of the index of a row to its number in the file, from
      1; called for bad rows only.

  Returns:
    pa.Table of the columns' arrow_types, without the bad rows.

  Raises:
    UserError: if a row is bad and bad rows are not skipped.
  """
  arrays, problems = [], {}
  for column in columns:
    array = table.column(column.name).combine_chunks()
    values, bad = column.parse(array)
    arrays.append(values)
    for index in [] if bad is None else np.flatnonzero(bad).tolist():
      problems.setdefault(index, 'column %r %s' % (
          column.name, column.problem(_shown(array[index]))))
  by_name = dict(zip([column.name for column in columns], arrays))
  for column in columns:
    for bad, problem in column.unfit(by_name):
      for index in np.flatnonzero(bad).tolist():
        problems.setdefault(index, 'column %r %s, got %r' % (
            column.name, problem, _shown(
                table.column(column.name).combine_chunks()[index])))
  table = pa.Table.from_arrays(arrays, [column.name for column in columns])
  if not problems:
    return table
  for index in sorted(problems):
    bad_rows.add(path, number_of(index), problems[index])
  good = np.ones(table.num_rows, bool)
  good[list(problems)] = False
  return table.filter(pa.array(good))


def _shown(scalar):
  """Returns a pa.Scalar as Python has it, bytes as text.

  What should be UTF-8 and is not is shown as far as it goes.
  """
  kind = scalar.type
  if pa.types.is_string(kind) or pa.types.is_large_string(kind):
    return str(scalar.as_buffer().to_pybytes(), 'utf-8',
               'replace') if scalar.is_valid else None
  elif arrow_values.is_list(kind) and scalar.is_valid:
    return [_shown(item) for item in scalar.values]
  value = scalar.as_py()
  return value.decode('utf-8', 'replace') if isinstance(
      value, bytes) else value
