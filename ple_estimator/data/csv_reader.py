"""Reads CSV files, one block of lines at a time."""

import bisect
import functools
import io
import os

import pyarrow as pa
import pyarrow.csv

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.data import reader
from ple_estimator.data import row_checks

_BLOCK_BYTES = 4 << 20
_SLICE_BYTES = 64 << 20


class CsvReader(reader.Reader):
  """Reads CSV files; a slice is a range of bytes.

  Fields may be quoted; a line break inside quotes is not supported, since
  files are cut at line breaks.
  """

  def __init__(self, paths, columns, bad_rows, names, header=False,
               delimiter=','):
    """Stores the arguments; opens no file.

    Args:
      paths: list of str.
      columns: list of column_kinds.Column, in the order of the tables to
        return.
      bad_rows: row_checks.BadRows.
      names: list of str, the columns of the files in their order, for files
        without a header.
      header: bool, whether the first line of a file names its columns; they
        may then come in another order, and there may be more of them.
      delimiter: str, one character.
    """
    super().__init__(paths, columns, bad_rows)
    self._names = names
    self._header = header
    self._delimiter = delimiter

  def check(self):
    """Reads the first block of every file.

    Raises:
      UserError: if a file has no rows, its header lacks a column, or its first
        row has another number of fields or a bad value.
    """
    for path in self._paths:
      bad_rows = row_checks.BadRows(self._bad_rows.skip, shown=0)
      first = next(self._parse(
          path, self._start(path), os.path.getsize(path), bad_rows), None)
      errors.check(first is not None, '%s has no rows.', path)
      errors.check(first.num_rows, '%s must have a good row among its first '
                   '%d, got none.', path, bad_rows.skipped)

  def count_rows(self):
    """Returns the number of lines that hold rows, by counting line breaks.

    The lines of a file are counted once: the number is remembered in the
    user's cache folder until the file changes.
    """
    return sum(self._count_rows_of(path) for path in self._paths)

  def _count_rows_of(self, path):
    start, size = self._start(path), os.path.getsize(path)
    return files.remembered(
        (os.path.abspath(path), size, os.stat(path).st_mtime, start),
        lambda: _count_lines(path, start, size))

  def slices(self, at_least=1, most_rows=None):
    """Returns byte ranges; a line belongs to the range in which it starts.

    Args:
      at_least: int, number of slices.
      most_rows: int, rows in a slice on average; None is no limit.
    """
    total = sum(os.path.getsize(path) for path in self._paths)
    if most_rows:
      at_least = max(at_least, -(-self.count_rows() // most_rows))
    size = min(_SLICE_BYTES, max(1, total // max(1, at_least)))
    slices = []
    for path in self._paths:
      start, stop = self._start(path), os.path.getsize(path)
      parts = max(1, -(-(stop - start) // size))
      ends = [start + (stop - start) * i // parts for i in range(parts + 1)]
      slices += [reader.Slice(path, 0, ends[i], ends[i + 1])
                 for i in range(parts)]
    return slices

  def read(self, piece):
    """Yields the rows of a slice as pa.Table.

    Raises:
      UserError: if a row is bad and bad rows are not skipped.
    """
    first = self._start(piece.path)
    begin = _line_start(piece.path, piece.start, first)
    end = _line_start(piece.path, piece.stop, first)
    return self._parse(piece.path, begin, end, self._bad_rows)

  def _start(self, path):
    """Returns the byte at which the rows of a file start."""
    if not self._header:
      return 0
    with open(path, 'rb') as f:
      return len(f.readline())

  def _names_in(self, path):
    """Returns the names of the columns of a file."""
    if not self._header:
      return self._names
    with open(path, 'rb') as f:
      line = f.readline()
    names = pa.csv.read_csv(
        io.BytesIO(line), parse_options=pa.csv.ParseOptions(
            delimiter=self._delimiter)).column_names
    lacking = [c.name for c in self._columns if c.name not in names]
    errors.check(not lacking, '%s must have a header with %s, got %s.',
                 path, ', '.join(lacking), ', '.join(names))
    return names

  def _parse(self, path, begin, end, bad_rows):
    """Yields the rows of whole lines, bytes [begin, end), as pa.Table."""
    if begin >= end:
      return
    lines = _LineNumbers(path, begin)
    names, rows = self._names_in(path), 0
    with pa.BufferReader(_map(path, begin, end)) as data:
      try:
        for batch in self._batches(data, names, lines.drop):
          lines.report(bad_rows)
          yield row_checks.typed(
              pa.Table.from_batches([batch]), self._columns, bad_rows, path,
              functools.partial(lines.of_row, rows))
          rows += batch.num_rows
        lines.report(bad_rows)
      except pa.ArrowException as error:
        raise errors.UserError('%s cannot be read as CSV: %s' % (path, error))

  def _batches(self, data, names, drop):
    """Returns an iterator over the rows as pa.RecordBatch of binary columns.

    Args:
      data: Arrow's input stream of whole lines.
      names: list of str, the columns of a line.
      drop: function that Arrow calls with each line that it cannot split.
    """
    return pa.csv.open_csv(
        data,
        read_options=pa.csv.ReadOptions(
            use_threads=False, block_size=_BLOCK_BYTES, column_names=names),
        parse_options=pa.csv.ParseOptions(
            delimiter=self._delimiter, ignore_empty_lines=False,
            invalid_row_handler=drop),
        convert_options=pa.csv.ConvertOptions(
            check_utf8=False, strings_can_be_null=False,
            include_columns=[column.name for column in self._columns],
            column_types={name: pa.binary() for name in names}))


class _LineNumbers:
  """Says in which line of its file a row stands.

  Arrow returns no row for a line with another number of fields, which it drops
  and tells `drop` of. So the n-th row that it returns need not be in the n-th
  line.
  """

  def __init__(self, path, begin):
    """Counts nothing before a number is asked for.

    Args:
      path: str.
      begin: int, the byte at which Arrow begins to read, the start of a line.
    """
    self._path = path
    self._begin = begin
    self._lines_before_begin = None
    self._dropped = []  # (line counted from begin, problem), ascending
    self._rows_before = []  # how many rows Arrow returns before each of these
    self._num_reported = 0

  def drop(self, line):
    """Notes a line that Arrow could not split; its invalid_row_handler."""
    problem = 'must have %d columns, got %d' % (
        line.expected_columns, line.actual_columns)
    self._rows_before.append(line.number - 1 - len(self._dropped))
    self._dropped.append((line.number, problem))
    return 'skip'

  def report(self, bad_rows):
    """Tells a BadRows of the lines dropped since the last report."""
    new = self._dropped[self._num_reported:]
    self._num_reported += len(new)
    for line, problem in new:
      bad_rows.add(self._path, self._before_begin() + line, problem)

  def of_row(self, rows_before, index):
    """Returns the line of a row that Arrow returned, from 1.

    Args:
      rows_before: int, rows that Arrow returned before this batch.
      index: int, of the row in its batch.
    """
    row = rows_before + index
    dropped = bisect.bisect_right(self._rows_before, row)
    return self._before_begin() + row + dropped + 1

  def _before_begin(self):
    if self._lines_before_begin is None:
      self._lines_before_begin = _count_lines(self._path, 0, self._begin)
    return self._lines_before_begin


def _map(path, begin, end):
  """Returns bytes of a file as a pa.Buffer, which reads them when needed.

  It is not a Python file, because of a hang with pyarrow 12: an Arrow stream
  that ends early holds the GIL while it waits for its read-ahead, and the
  read-ahead of a Python file needs the GIL to read.
  """
  mapped = pa.memory_map(path)
  mapped.seek(begin)
  return mapped.read_buffer(end - begin)


def _line_start(path, offset, first):
  """Returns where the first line at or after a byte starts.

  Args:
    path: str.
    offset: int, in bytes.
    first: int, the byte at which the first row starts.
  """
  if offset <= first:
    return first
  with open(path, 'rb') as f:
    f.seek(offset - 1)
    f.readline()
    return f.tell()


def _count_lines(path, begin, end):
  """Returns how many lines start in bytes [begin, end) of a file.

  The last line counts whether or not it ends in a line break.
  """
  lines, last = 0, b'\n'
  with open(path, 'rb') as f:
    f.seek(begin)
    while f.tell() < end:
      block = f.read(min(_BLOCK_BYTES, end - f.tell()))
      lines += block.count(b'\n')
      last = block[-1:]
  return lines + (last != b'\n')
