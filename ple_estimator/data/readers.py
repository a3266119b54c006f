"""From files to checked Arrow tables: rows, slices, shuffling, bad rows.

A data set is cut into slices (row groups of Parquet, byte ranges of CSV); a
slice is read as a stream of tables whose columns are typed by the feature
spec. What is held in memory at a time is one row group or one block of CSV,
plus the shuffle buffer, whatever the size of the files.
"""

import collections
import functools
import glob
import io
import os

from absl import logging
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ple_estimator import errors
from ple_estimator import files

# Rows start..stop of a Parquet row group, or bytes start..stop of a CSV file.
Slice = collections.namedtuple('Slice', ['path', 'group', 'start', 'stop'])

_CSV_BLOCK_BYTES = 4 << 20
_CSV_SLICE_BYTES = 64 << 20
_SHOWN_BAD_ROWS = 10


def find_files(data_dir, entries, suffix, binding):
  """Lists the files that a binding names.

  Args:
    data_dir: str, what relative names start from.
    entries: str or list of str: files, directories or glob patterns.
    suffix: str, of the files to take from a directory; '' takes all.
    binding: str, the name of the binding, for errors.

  Returns:
    sorted list of paths; those of several entries one after another.

  Raises:
    UserError: if an entry names no file, or a file is empty.
  """
  found = []
  for entry in [entries] if isinstance(entries, str) else entries:
    path = os.path.join(data_dir, entry)
    if os.path.isdir(path):
      names = [n for n in os.listdir(path)
               if n[0] not in '._' and n.endswith(suffix)]
      matches = [os.path.join(path, n) for n in names]
      matches = [m for m in matches if os.path.isfile(m)]
    else:
      matches = [m for m in glob.glob(path) if os.path.isfile(m)]
    errors.check(
        matches, '%s must name existing files, got %r: nothing at %s.',
        binding, entry, os.path.abspath(path))
    found += [path for path in sorted(matches) if path not in found]
  errors.check(found, '%s must name at least one file, got %r.',
               binding, entries)
  for path in found:
    errors.check(os.path.getsize(path), '%s is empty.', path)
  return found


class BadRows:
  """What to do with a row that cannot be used; counts those skipped."""

  def __init__(self, skip, shown=_SHOWN_BAD_ROWS):
    """Keeps the policy.

    Args:
      skip: bool, whether to skip bad rows instead of raising at the first.
      shown: int, how many skipped rows to log one by one.
    """
    self.skip = skip
    self.skipped = 0
    self._shown = shown

  def add(self, path, row, problem):
    """Takes note of one bad row.

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


class ParquetReader:
  """Reads Parquet files, one row group at a time."""

  def __init__(self, paths, columns, bad_rows):
    """Keeps what to read.

    Args:
      paths: list of str.
      columns: list of features.Column, in the order of the tables to return.
      bad_rows: BadRows.
    """
    self._paths = paths
    self._columns = columns
    self._bad_rows = bad_rows
    self._opened = None, None  # path, pa.parquet.ParquetFile

  def check(self):
    """Reads every footer.

    Raises:
      UserError: if a file is no whole Parquet file, or lacks a column, or has
        one of another type.
    """
    for path in self._paths:
      errors.check(self._open(path).metadata.num_rows, '%s has no rows.', path)
      schema = self._open(path).schema_arrow
      for column in self._columns:
        errors.check(
            column.name in schema.names,
            '%s must have a column %r, got %s.', path, column.name,
            ', '.join(schema.names))
        found = schema.field(column.name).type
        errors.check(
            column.accepts(found), '%s column %r must be %s, got %s.',
            path, column.name, column.wants, found)

  def count_rows(self):
    """Returns the number of rows, from the footers."""
    return sum(self._open(path).metadata.num_rows for path in self._paths)

  def slices(self, at_least=1, most_rows=None):
    """Returns the row groups, cut to have at_least slices, of most_rows."""
    groups = []
    for path in self._paths:
      metadata = self._open(path).metadata
      for group in range(metadata.num_row_groups):
        groups.append((path, group, metadata.row_group(group).num_rows))
    least = -(-at_least // max(1, len(groups)))
    found = []
    for path, group, rows in groups:
      pieces = max(least, -(-rows // (most_rows or max(1, rows))))
      found += [Slice(path, group, rows * i // pieces, rows * (i + 1) // pieces)
                for i in range(pieces)]
    return found

  def read(self, piece):
    """Yields the rows of a Slice as pa.Table.

    Raises:
      UserError: if a row is bad, or the file is damaged.
    """
    data = self._open(piece.path)
    try:
      table = data.read_row_group(
          piece.group, [column.name for column in self._columns],
          use_threads=False)
    except (pa.ArrowException, OSError) as error:
      raise errors.UserError('%s row group %d cannot be read: %s' % (
          piece.path, piece.group, error))
    before = sum(data.metadata.row_group(g).num_rows
                 for g in range(piece.group)) + piece.start
    table = table.slice(piece.start, piece.stop - piece.start)
    yield _checked(table, self._columns, self._bad_rows, piece.path,
                   lambda index: before + index + 1)

  def _open(self, path):
    if self._opened[0] != path:
      try:
        self._opened = path, pa.parquet.ParquetFile(path)
      except (pa.ArrowException, OSError) as error:
        raise errors.UserError(
            '%s must be a whole Parquet file, got: %s' % (path, error))
    return self._opened[1]


class CsvReader:
  """Reads CSV files, one block at a time.

  Fields may be quoted; a line break inside quotes is not supported, since
  files are cut at line breaks.
  """

  def __init__(self, paths, spec, columns, bad_rows, header, delimiter):
    """Keeps what to read.

    Args:
      paths: list of str.
      spec: features.FeatureSpec, whose columns the file has, in this order if
        there is no header.
      columns: list of features.Column, in the order of the tables to return.
      bad_rows: BadRows.
      header: bool, whether the first line of a file names its columns; they
        may then come in another order, and there may be more of them.
      delimiter: str, one character.
    """
    self._paths = paths
    self._spec = spec
    self._columns = columns
    self._bad_rows = bad_rows
    self._header = header
    self._delimiter = delimiter

  def check(self):
    """Reads the first block of every file.

    Raises:
      UserError: if a file has no rows, its header lacks a column, or its first
        row has another number of fields or a bad value.
    """
    for path in self._paths:
      bad_rows = BadRows(self._bad_rows.skip, shown=0)
      first = next(self._parse(
          path, self._start(path), os.path.getsize(path), bad_rows), None)
      errors.check(first is not None, '%s has no rows.', path)
      errors.check(first.num_rows, '%s must have a good row among its first '
                   '%d, got none.', path, bad_rows.skipped)

  def count_rows(self):
    """Returns the number of lines that hold rows, by counting line breaks.

    Once per file: the number is remembered until the file changes.
    """
    return sum(self._count_rows_of(path) for path in self._paths)

  def _count_rows_of(self, path):
    start, size = self._start(path), os.path.getsize(path)
    return files.remembered(
        (os.path.abspath(path), size, os.stat(path).st_mtime, start),
        lambda: _count_lines(path, start, size))

  def slices(self, at_least=1, most_rows=None):
    """Returns byte ranges; a line belongs to that in which it starts.

    Args:
      at_least: int, slices.
      most_rows: int, rows in a slice on average; None is no limit.
    """
    total = sum(os.path.getsize(path) for path in self._paths)
    if most_rows:
      at_least = max(at_least, -(-self.count_rows() // most_rows))
    size = min(_CSV_SLICE_BYTES, max(1, total // max(1, at_least)))
    found = []
    for path in self._paths:
      start, stop = self._start(path), os.path.getsize(path)
      pieces = max(1, -(-(stop - start) // size))
      found += [Slice(path, 0, start + (stop - start) * i // pieces,
                      start + (stop - start) * (i + 1) // pieces)
                for i in range(pieces)]
    return found

  def read(self, piece):
    """Yields the rows of a Slice as pa.Table.

    Raises:
      UserError: if a row is bad.
    """
    begin = _line_start(piece.path, piece.start, self._start(piece.path))
    end = _line_start(piece.path, piece.stop, self._start(piece.path))
    return self._parse(piece.path, begin, end, self._bad_rows)

  def _names(self, path):
    """The names of the columns of a file."""
    wanted = [column.name for column in self._spec.columns]
    if not self._header:
      return wanted
    with open(path, 'rb') as f:
      line = f.readline()
    parsed = pa.csv.read_csv(
        io.BytesIO(line),
        parse_options=pa.csv.ParseOptions(delimiter=self._delimiter))
    lacking = [c.name for c in self._columns
               if c.name not in parsed.column_names]
    errors.check(not lacking, '%s must have a header with %s, got %s.',
                 path, ', '.join(lacking), ', '.join(parsed.column_names))
    return parsed.column_names

  def _start(self, path):
    """Where the rows start, in bytes."""
    if not self._header:
      return 0
    with open(path, 'rb') as f:
      return len(f.readline())

  def _parse(self, path, begin, end, bad_rows):
    """Yields the rows of whole lines as pa.Table."""
    if begin >= end:
      return
    split = []  # (row, problem) of the lines that Arrow could not split

    def take_note(row):
      split.append((row.number, 'must have %d columns, got %d' % (
          row.expected_columns, row.actual_columns)))
      return 'skip'

    before = _LinesBefore(path, begin)
    names = self._names(path)
    with pa.BufferReader(_map(path, begin, end)) as data:
      try:
        batches = pa.csv.open_csv(
            data,
            read_options=pa.csv.ReadOptions(
                use_threads=False, block_size=_CSV_BLOCK_BYTES,
                column_names=names),
            parse_options=pa.csv.ParseOptions(
                delimiter=self._delimiter, ignore_empty_lines=False,
                invalid_row_handler=take_note),
            convert_options=pa.csv.ConvertOptions(
                check_utf8=False, strings_can_be_null=False,
                include_columns=[column.name for column in self._columns],
                column_types={name: pa.binary() for name in names}))
        rows, noted = 0, 0
        for batch in batches:
          for row, problem in split[noted:]:
            bad_rows.add(path, before() + row, problem)
          noted = len(split)
          yield _checked(
              pa.Table.from_batches([batch]), self._columns, bad_rows, path,
              functools.partial(_line_of, before, rows, split))
          rows += batch.num_rows
        for row, problem in split[noted:]:
          bad_rows.add(path, before() + row, problem)
      except pa.ArrowException as error:
        raise errors.UserError('%s cannot be read as CSV: %s' % (path, error))


def _map(path, begin, end):
  """The bytes of a file as a pa.Buffer, read when they are looked at.

  Not a Python file: a stream of Arrow that ends early waits, with the GIL, for
  its read-ahead, which would need the GIL to read (a hang on pyarrow 12).
  """
  mapped = pa.memory_map(path)
  mapped.seek(begin)
  return mapped.read_buffer(end - begin)


def _checked(table, columns, bad_rows, path, number_of):
  """Types the columns of a table and takes its bad rows out.

  Args:
    table: pa.Table with the columns, as the file has them.
    columns: list of features.Column.
    bad_rows: BadRows.
    path: str.
    number_of: function of the index of a row to its number in the file.

  Returns:
    pa.Table of the columns' arrow_types, without the bad rows.
  """
  arrays, problems = [], {}
  for column in columns:
    array = table.column(column.name).combine_chunks()
    values, bad = column.parse(array)
    arrays.append(values)
    for index in [] if bad is None else np.flatnonzero(bad):
      found = array[int(index)].as_py()
      if isinstance(found, bytes):
        found = found.decode('utf-8', 'replace')
      problems.setdefault(int(index), 'column %r must %s, got %r' % (
          column.name, column.requirement(), found))
  typed = pa.Table.from_arrays(arrays, [column.name for column in columns])
  for index in sorted(problems):
    bad_rows.add(path, number_of(index), problems[index])
  if problems:
    good = np.ones(typed.num_rows, bool)
    good[list(problems)] = False
    typed = typed.filter(pa.array(good))
  return typed


class _LinesBefore:
  """Counts the lines before a byte of a file, once and only if asked."""

  def __init__(self, path, begin):
    self._path = path
    self._begin = begin
    self._lines = None

  def __call__(self):
    if self._lines is None:
      self._lines = _count_lines(self._path, 0, self._begin)
    return self._lines


def _line_of(before, rows_before, split, index):
  """The line of a row that Arrow returned, from 1.

  Args:
    before: function to the number of lines before where Arrow began.
    rows_before: int, rows that Arrow returned before this batch.
    split: ascending (line, problem) of lines that Arrow did not return,
      counted from where it began.
    index: int, of the row in its batch.
  """
  # The i-th dropped line (from 0) lies behind line - i - 1 returned rows.
  row, low, high = rows_before + index, 0, len(split)
  while low < high:
    middle = (low + high) // 2
    if split[middle][0] - middle - 1 <= row:
      low = middle + 1
    else:
      high = middle
  return before() + row + 1 + low


def _line_start(path, offset, first):
  """The first line start at or after offset, where `first` is one."""
  if offset <= first:
    return first
  with open(path, 'rb') as f:
    f.seek(offset - 1)
    f.readline()
    return f.tell()


def _count_lines(path, begin, end):
  """The number of lines between two bytes, the last one broken or not."""
  lines, last = 0, b'\n'
  with open(path, 'rb') as data:
    data.seek(begin)
    while data.tell() < end:
      block = data.read(min(_CSV_BLOCK_BYTES, end - data.tell()))
      lines += block.count(b'\n')
      last = block[-1:]
  return lines + (last != b'\n')
