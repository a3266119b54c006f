"""The base class of readers; there is one reader for each file format.

A reader cuts its files into slices, such as the row groups of Parquet or byte
ranges of CSV, and reads a slice as a stream of tables whose columns have the
types that the feature spec asks for. Only one table at a time is in memory,
whatever the size of the files, so a table should have a few MB.
"""

import collections

# A part of one file. What `group`, `start` and `stop` count is up to the
# reader: the rows [start, stop) of a row group, or the bytes of a CSV file.
Slice = collections.namedtuple('Slice', ['path', 'group', 'start', 'stop'])


class Reader:
  """Reads files of one format; a subclass has all four methods."""

  def __init__(self, paths, columns, bad_rows):
    """Stores the arguments; opens no file.

    Args:
      paths: list of str, files that exist and are not empty.
      columns: list of column_kinds.Column, in the order of the tables to
        return.
      bad_rows: row_checks.BadRows, to be told of rows that cannot be used.
    """
    self._paths = paths
    self._columns = columns
    self._bad_rows = bad_rows

  def check(self):
    """Looks at every file, in a time that does not grow with its rows.

    Raises:
      UserError: if a file has no rows, is damaged, or lacks a column.
    """
    raise NotImplementedError

  def count_rows(self):
    """Returns the number of rows of all files, bad ones included."""
    raise NotImplementedError

  def slices(self, at_least=1, most_rows=None):
    """Returns all rows as a list of Slice, in the order of files and rows.

    The list is the same in every process that sees the same files.

    Args:
      at_least: int, number of slices, where there are as many rows.
      most_rows: int, rows in a slice; None is no limit. A format that does not
        know where its rows are may keep to it on average only.
    """
    raise NotImplementedError

  def read(self, piece):
    """Yields the rows of a Slice as pa.Table, see row_checks.typed.

    Args:
      piece: Slice.

    Raises:
      UserError: if a row is bad and bad rows are not skipped, or the file is
        damaged.
    """
    raise NotImplementedError
