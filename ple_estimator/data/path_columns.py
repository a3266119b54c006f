"""Columns that no file has, because the folders that it lies in say them.

Hive and Spark write the rows of one day to dt=2024-01-01/part-0.csv and leave
the column dt out. Parquet files say themselves which columns they have, so that
parquet_reader.py needs none of this.
"""

import copy
import functools

import pyarrow as pa

from ple_estimator.data import input_files
from ple_estimator.data import row_checks


def added(make_reader):
  """Decorates the method `reader` of an input, whose files may lack columns.

  A column of the feature spec comes from the path if the paths of all files
  name it and the first file does not have it. The input says by its method
  has_column(path, name) what a file has.

  Args:
    make_reader: the method, a function of (input, reading.Reading).

  Returns:
    such a function, whose reader adds the columns.
  """
  @functools.wraps(make_reader)
  def reader(owner, reading):
    paths = owner.paths()
    named = functools.reduce(
        lambda names, path: names & set(input_files.partitions(path)),
        paths[1:], set(input_files.partitions(paths[0])))
    lacking = {column.name for column in reading.spec.columns
               if column.name in named and
               not owner.has_column(paths[0], column.name)}
    if not lacking:
      return make_reader(owner, reading)
    spec = copy.copy(reading.spec)
    spec.columns = [c for c in spec.columns if c.name not in lacking]
    return _Reader(make_reader(owner, reading._replace(spec=spec)), paths,
                   reading.columns(), lacking, owner.bad_rows)
  return reader


class _Reader:
  """A reader.Reader that adds columns to the tables of another one."""

  def __init__(self, inner, paths, columns, lacking, bad_rows):
    """Keeps the settings; opens nothing.

    Args:
      inner: reader.Reader of the columns that the files have.
      paths: list of str.
      columns: list of column_kinds.Column, of the tables to return.
      lacking: set of str, names of columns that paths say.
      bad_rows: row_checks.BadRows.
    """
    self._inner = inner
    self._all_paths = paths
    self._wanted = [column.name for column in columns]
    self._lacking = [c for c in columns if c.name in lacking]
    self._bad_rows = bad_rows

  def __getattr__(self, name):
    """All else is as the other reader has it."""
    return getattr(self._inner, name)

  def check(self):
    """As Reader; also raises UserError if a path says a bad value."""
    self._inner.check()
    if not self._bad_rows.skip:
      for path in self._all_paths:
        self._said(path, 1, self._bad_rows)

  def read(self, piece):
    """As Reader."""
    for table in self._inner.read(piece):
      said = self._said(piece.path, table.num_rows, self._bad_rows)
      if said.num_rows == table.num_rows:  # else all are bad, and counted
        for column in said.column_names:
          table = table.append_column(column, said.column(column))
        yield table.select(self._wanted)

  def _said(self, path, rows, bad_rows):
    """Returns the columns that a path says for some rows; none if it is bad."""
    values = input_files.partitions(path)
    return row_checks.typed(
        pa.table({c.name: pa.array([values[c.name]] * rows, pa.string())
                  for c in self._lacking}),
        self._lacking, bad_rows, path, lambda index: index + 1)
