"""Reads Parquet files, one row group at a time."""

import pyarrow as pa
import pyarrow.parquet

from ple_estimator import errors
from ple_estimator.data import reader
from ple_estimator.data import row_checks


class ParquetReader(reader.Reader):
  """Reads Parquet files; a slice is a row group, or some rows of one."""

  def __init__(self, paths, columns, bad_rows):
    """As Reader."""
    super().__init__(paths, columns, bad_rows)
    self._opened = None, None  # the path and pa.parquet.ParquetFile read last

  def check(self):
    """Reads the footer of every file.

    Raises:
      UserError: if a file has no rows, is damaged, lacks a column, or has a
        column of another type.
    """
    for path in self._paths:
      errors.check(self._open(path).metadata.num_rows, '%s has no rows.', path)
      schema = self._open(path).schema_arrow
      for column in self._columns:
        errors.check(
            column.name in schema.names,
            '%s must have a column %r, got %s.', path, column.name,
            ', '.join(schema.names))
        arrow_type = schema.field(column.name).type
        errors.check(
            column.accepts(arrow_type), '%s column %r must be %s, got %s.',
            path, column.name, column.wants, arrow_type)

  def count_rows(self):
    """Returns the number of rows, from the footers."""
    return sum(self._open(path).metadata.num_rows for path in self._paths)

  def slices(self, at_least=1, most_rows=None):
    """Returns the row groups, each cut into parts where that is asked for."""
    groups = []
    for path in self._paths:
      metadata = self._open(path).metadata
      for group in range(metadata.num_row_groups):
        groups.append((path, group, metadata.row_group(group).num_rows))
    least = -(-at_least // max(1, len(groups)))
    slices = []
    for path, group, rows in groups:
      parts = max(least, -(-rows // (most_rows or max(1, rows))))
      slices += [
          reader.Slice(path, group, rows * i // parts, rows * (i + 1) // parts)
          for i in range(parts)]
    return slices

  def read(self, piece):
    """Yields the rows of a slice as one pa.Table; reads its whole row group.

    Raises:
      UserError: if a row is bad and bad rows are not skipped, or the file is
        damaged.
    """
    opened = self._open(piece.path)
    try:
      table = opened.read_row_group(
          piece.group, [column.name for column in self._columns],
          use_threads=False)
    except (pa.ArrowException, OSError) as error:
      raise errors.UserError('%s row group %d cannot be read: %s' % (
          piece.path, piece.group, error))
    before = piece.start + sum(
        opened.metadata.row_group(group).num_rows
        for group in range(piece.group))
    yield row_checks.typed(
        table.slice(piece.start, piece.stop - piece.start), self._columns,
        self._bad_rows, piece.path, lambda index: before + index + 1)

  def _open(self, path):
    """Returns the pa.parquet.ParquetFile of a path."""
    if self._opened[0] != path:
      try:
        self._opened = path, pa.parquet.ParquetFile(path)
      except (pa.ArrowException, OSError) as error:
        raise errors.UserError(
            '%s must be a whole Parquet file, got: %s' % (path, error))
    return self._opened[1]
