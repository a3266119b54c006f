"""Reads Parquet files, one row group at a time."""

from absl import logging
import pyarrow as pa

from ple_estimator import errors
from ple_estimator.data import input_files
from ple_estimator.data import parquet_files
from ple_estimator.data import reader
from ple_estimator.data import row_checks
from ple_estimator.storage import sources
from ple_estimator.storage import uris


class ParquetReader(reader.Reader):
  """Reads Parquet files; a slice is a row group, or some rows of one.

  A column that a file does not have and that a folder of its path names, as
  dt=2024-01-01 does, has the value in the path in all rows of the file.
  """

  def __init__(self, paths, columns, bad_rows):
    """As Reader."""
    super().__init__(paths, columns, bad_rows)
    self._opened = None, None  # the path and pa.parquet.ParquetFile read last

  def check(self):
    """Reads the footer of every file; files without rows are skipped.

    Raises:
      UserError: if no file has rows, or a file is damaged, lacks a column, has
        it twice or with another type.
    """
    empty = [path for path, rows in zip(self._paths, sources.each(
        self._check_file, self._paths)) if not rows]
    errors.check(len(empty) < len(self._paths), '%s has no rows%s.', empty[0]
                 if empty else 'The input', ', and no other of the %d files has'
                 % len(empty) if len(empty) > 1 else '')
    if empty:
      logging.warning('Skipped %d files without rows, such as %s.',
                      len(empty), empty[0])

  def _check_file(self, path):
    """Checks the columns of a file; returns its number of rows.

    A file without rows need not have columns.
    """
    opened = self._open(path)
    schema, rows = opened.schema_arrow, opened.metadata.num_rows
    from_path = input_files.partitions(path)
    for column in self._columns if rows else ():
      count = schema.names.count(column.name)
      errors.check(count < 2, '%s must have one column %r, got %d of this '
                   'name.', path, column.name, count)
      errors.check(
          count or column.name in from_path,
          '%s must have a column %r, got %s.', path, column.name,
          ', '.join(schema.names))
      arrow_type = (schema.field(column.name).type if count else pa.string())
      errors.check(
          column.accepts(arrow_type), '%s column %r must be %s, got %s.',
          path, column.name, column.wants, arrow_type)
    return rows

  def count_rows(self):
    """Returns the number of rows, from the footers."""
    return sum(metadata.num_rows for metadata in sources.each(
        self._metadata, self._paths))

  def slices(self, at_least=1, most_rows=None):
    """Returns the row groups, each cut into parts where that is asked for."""
    groups = []
    for path, metadata in zip(self._paths, sources.each(
        self._metadata, self._paths)):
      for group in range(metadata.num_row_groups):
        if metadata.row_group(group).num_rows:
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
    rows = opened.metadata.row_group(piece.group).num_rows
    found = self._row_group(opened, piece, rows)
    from_path = input_files.partitions(piece.path)
    table = pa.table({
        column.name: found.column(column.name)
        if column.name in found.column_names else
        pa.array([from_path[column.name]] * rows, pa.string())
        for column in self._columns})
    before = piece.start + sum(
        opened.metadata.row_group(group).num_rows
        for group in range(piece.group))
    yield row_checks.typed(
        table.slice(piece.start, piece.stop - piece.start), self._columns,
        self._bad_rows, piece.path, lambda index: before + index + 1)

  def _row_group(self, opened, piece, rows):
    """Returns the columns that a file has of the row group of a slice."""
    names = opened.schema_arrow.names
    try:
      table = sources.retried(piece.path, lambda: opened.read_row_group(
          piece.group, [c.name for c in self._columns if c.name in names],
          use_threads=False))
    except errors.UserError:
      raise
    except (pa.ArrowException, OSError) as error:
      raise errors.UserError('%s row group %d cannot be read: %s' % (
          piece.path, piece.group, parquet_files.one_line(error)))
    errors.check(
        table.num_rows == rows or not table.num_columns,
        '%s row group %d cannot be read: it must have %d rows, got %d.',
        piece.path, piece.group, rows, table.num_rows)
    return table

  def _open(self, path):
    """Returns the pa.parquet.ParquetFile of a path."""
    known, opened = self._opened  # several threads may look at remote files
    if known != path:
      opened = parquet_files.opened(path)
      self._opened = path, opened
    return opened

  def _metadata(self, path):
    """Returns the pa.parquet.FileMetaData of a path."""
    if uris.is_remote(path):
      return parquet_files.metadata(path)
    return self._open(path).metadata
