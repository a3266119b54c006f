"""Reads CSV files, one block of lines at a time."""

import collections

from absl import logging
import pyarrow as pa
import pyarrow.csv

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.data import csv_dialect
from ple_estimator.data import csv_lines
from ple_estimator.data import reader
from ple_estimator.data import row_checks
from ple_estimator.storage import sources
from ple_estimator.storage import uris

_SLICE_BYTES = 64 << 20

# Where the rows of a file start, in bytes, and the names of its columns.
_Layout = collections.namedtuple('_Layout', 'start names')


class CsvReader(reader.Reader):
  """Reads CSV files; a slice is a range of bytes.

  A row is a line that is not blank, so files can be cut at line breaks. A line
  with a quote that is not closed on it is a bad row, and so is every line that
  Arrow does not make one row of: no line is lost.

  A compressed file (.gz, .bz2, .zst) is one slice, since it can be read from
  its start only.
  """

  def __init__(self, paths, columns, bad_rows, names, header=False,
               dialect=csv_dialect.Dialect(), unlabelled=None):
    """Stores the arguments; opens no file.

    Args:
      paths: list of str.
      columns: list of column_kinds.Column, in the order of the tables to
        return.
      bad_rows: row_checks.BadRows.
      names: list of str, the columns of the files in their order, for files
        without a header.
      header: bool, whether the first line of a file that is not blank names
        its columns; they may then come in another order, and there may be more
        of them.
      dialect: csv_dialect.Dialect, checked.
      unlabelled: list of str, the columns of a file without a header that has
        no labels, which is told by the number of fields in its first row; None
        if labels are read.
    """
    super().__init__(paths, columns, bad_rows)
    self._names = names
    self._header = header
    self._dialect = dialect
    self._unlabelled = unlabelled
    self._layouts = {}  # of the files opened so far, by path

  def check(self):
    """Reads the first block of every file; files without rows are skipped.

    Raises:
      UserError: if no file has rows, or a file is damaged, its header lacks a
        column, or its first row has another number of fields or a bad value.
    """
    empty = [path for path, has_rows in zip(
        self._paths, sources.each(self._has_rows, self._paths)) if not has_rows]
    if len(empty) == len(self._paths):
      others = len(empty) > 1 and (
          ', and no other of the %d files has' % len(empty))
      raise errors.UserError('%s has no rows%s.' % (empty[0], others or ''))
    if empty:
      logging.warning('Skipped %d files without rows, such as %s.',
                      len(empty), empty[0])

  def _has_rows(self, path):
    """Reads the first block of a file; whether it has one."""
    bad_rows = row_checks.BadRows(self._bad_rows.skip, shown=0)
    first = next(self._tables(path, self._layout(path).start, None, bad_rows),
                 None)
    errors.check(first is None or first.num_rows, '%s must have a good row '
                 'among its first %d, got none.', path, bad_rows.skipped)
    return first is not None

  def count_rows(self):
    """Returns the number of lines that hold rows, by counting line breaks.

    The lines of a file are counted once: the number is remembered in the
    user's cache folder until the file changes.

    Raises:
      UserError: if a compressed file is damaged.
    """
    return sum(sources.each(self._count_rows_of, self._paths))

  def _count_rows_of(self, path):
    start = self._layout(path).start
    return files.remembered(
        ('CSV rows', uris.absolute(path)) + sources.stat(path) + (start,),
        lambda: csv_lines.count(path, start)[1])

  def slices(self, at_least=1, most_rows=None):
    """Returns byte ranges; a line belongs to the range in which it starts.

    Args:
      at_least: int, number of slices; there may be fewer if files are
        compressed.
      most_rows: int, rows in a slice on average; None is no limit. Compressed
        files do not keep to it.
    """
    total = sum(sources.size(path) for path in self._paths
                if not csv_lines.codec(path))
    if most_rows:
      at_least = max(at_least, -(-self.count_rows() // most_rows))
    size = min(_SLICE_BYTES, max(1, total // max(1, at_least)))
    slices = []
    for path in self._paths:
      start = self._layout(path).start
      if csv_lines.codec(path):
        slices.append(reader.Slice(path, 0, start, None))
        continue
      stop = sources.size(path)
      parts = max(1, -(-(stop - start) // size))
      ends = [start + (stop - start) * i // parts for i in range(parts + 1)]
      slices += [reader.Slice(path, 0, ends[i], ends[i + 1])
                 for i in range(parts)]
    return slices

  def read(self, piece):
    """Yields the rows of a slice as pa.Table.

    Raises:
      UserError: if a row is bad and bad rows are not skipped, or a compressed
        file is damaged.
    """
    start = self._layout(piece.path).start
    if piece.stop is None:
      return self._tables(piece.path, start, None, self._bad_rows)
    return self._tables(
        piece.path, csv_lines.start(piece.path, piece.start, start),
        csv_lines.start(piece.path, piece.stop, start), self._bad_rows)

  def _tables(self, path, begin, end, bad_rows):
    """Yields the rows of whole lines, bytes [begin, end), as pa.Table."""
    parser = _Parser(
        self._dialect, self._layout(path).names,
        [column.name for column in self._columns])
    lines_read = 0
    for block in csv_lines.blocks(path, begin, end, parser.behind):
      problems = _Problems(_LineNumbers(path, begin, lines_read, block))
      table, rows = parser.parse(block, problems)
      typed = row_checks.typed(
          table, self._columns, problems, path,
          lambda index: index if rows is None else rows[index])
      found = problems.tell(bad_rows, path)
      if found or typed.num_rows:
        yield typed
      lines_read += block.num_lines

  def _layout(self, path):
    """Returns the _Layout of a file."""
    if path not in self._layouts:
      self._layouts[path] = (
          self._read_header(path) if self._header else
          _Layout(csv_lines.first(path), self._names_in(path)))
    return self._layouts[path]

  def _names_in(self, path):
    """Returns the columns of a file without a header."""
    if self._unlabelled and self._unlabelled != self._names:
      fields, problem = self._dialect.splitter().split(
          csv_lines.header(path)[0])
      if not problem and len(fields) == len(self._unlabelled):
        return self._unlabelled
    return self._names

  def _read_header(self, path):
    """Returns the _Layout that the header of a file says."""
    line, number, start = csv_lines.header(path)
    if not line:
      return _Layout(start, self._names)  # There are no rows either.
    names, problem = self._dialect.splitter().split(line)
    errors.check(not problem, '%s row %d, its header, %s.', path, number,
                 problem)
    # A name that is not UTF-8 is none that the feature spec has.
    names = [name.decode('utf-8', 'backslashreplace') for name in names]
    wanted = [column.name for column in self._columns]
    lacking = [name for name in wanted if name not in names]
    errors.check(not lacking, '%s must have a header with %s, got %s.',
                 path, ', '.join(lacking), ', '.join(names))
    double = [name for name in wanted if names.count(name) > 1]
    errors.check(not double, '%s must have a header that names %s once, got '
                 '%s.', path, ', '.join(double), ', '.join(names))
    return _Layout(start, names)


class _Parser:
  """Makes tables of blocks, one row of each line that is not blank.

  Arrow parses a whole block at once, in this thread and without a function or
  file of Python's. To Arrow a row may be several lines, as a quote may be
  closed on a later line. But a row is at least one line. So if there are as
  many rows as lines, each row is one line. Only otherwise are the lines looked
  at one by one.

  Attributes:
    behind: bytes, a row that must stand behind the lines of a block: a quote
      that the last of them does not close takes this row in, so that there are
      fewer rows than lines.
  """

  def __init__(self, dialect, names, wanted):
    """Keeps the settings.

    Args:
      dialect: csv_dialect.Dialect.
      names: list of str, the columns of the lines.
      wanted: list of str, the columns of the tables.
    """
    self._splitter = dialect.splitter()
    self._num_columns = len(names)
    self._wanted = wanted
    self.behind = (dialect.delimiter * (len(names) - 1) or 'x').encode()
    # Arrow knows columns by their place, as names of the files may come twice.
    self._places = [str(names.index(name)) for name in wanted]
    self._parse_options = dialect.parse_options()
    self._convert_options = pa.csv.ConvertOptions(
        check_utf8=False, strings_can_be_null=bool(dialect.null_values),
        null_values=list(dialect.null_values), include_columns=self._places,
        column_types={place: pa.binary() for place in self._places})

  def parse(self, block, problems):
    """Returns the good rows of a block.

    Args:
      block: csv_lines.Block.
      problems: _Problems, told of the lines that are no rows.

    Returns:
      (table, rows): pa.Table of binary columns; list of int, which rows of
      the block these are, or None if all.
    """
    table = self._parse_all(block, block.num_lines)
    if table is not None:
      return table, None  # No line is blank.
    lines, good = block.rows(), []
    for row, line in enumerate(lines):
      problem = self._splitter.problem(line, self._num_columns)
      if problem:
        problems.add(None, row, problem)
      else:
        good.append(row)
    tables, rows = self._parse_some(lines, good, problems)
    return pa.concat_tables([self._empty()] + tables), rows

  def _parse_some(self, lines, rows, problems):
    """Parses some lines; those that Arrow does not take are bad rows.

    It halves the lines until it has found them. There are none unless Arrow
    and Splitter understand a line differently.

    Args:
      lines: list of bytes.
      rows: list of int, which lines to parse.
      problems: as `parse`.

    Returns:
      (tables, rows): list of pa.Table, and a list of the int that they have.
    """
    if not rows:
      return [], []
    table = self._parse_all(csv_lines.block_of(
        [lines[row] for row in rows], self.behind), len(rows))
    if table is not None:
      return [table], rows
    if len(rows) == 1:
      problems.add(None, rows[0], 'cannot be split into %d columns' %
                   self._num_columns)
      return [], []
    half = len(rows) // 2
    tables, kept = self._parse_some(lines, rows[:half], problems)
    more_tables, more = self._parse_some(lines, rows[half:], problems)
    return tables + more_tables, kept + more

  def _parse_all(self, block, num_rows):
    """Parses lines at once.

    Args:
      block: csv_lines.Block with `behind`.
      num_rows: int, how many rows they should be.

    Returns:
      pa.Table with so many rows, or None if Arrow makes other rows of them.
    """
    try:
      # In Python 3.7 read_csv is half as fast, for what it does about signals.
      with pa.csv.open_csv(
          pa.BufferReader(block.buffer), pa.csv.ReadOptions(
              use_threads=False, block_size=block.buffer.size,
              column_names=list(map(str, range(self._num_columns)))),
          self._parse_options, self._convert_options) as parsed:
        table = parsed.read_all()
    except (pa.ArrowInvalid, UnicodeError):  # a line has too few or many fields
      return None
    if table.num_rows != num_rows + 1:
      return None
    columns = table.slice(0, num_rows).columns
    if self._convert_options.strings_can_be_null:
      columns = [column.fill_null(b'') for column in columns]
    return self._named(columns)

  def _empty(self):
    return self._named([pa.array([], pa.binary()) for _ in self._places])

  def _named(self, arrays):
    return pa.Table.from_arrays(arrays, self._wanted)


class _Problems:
  """The bad rows of a block, to be told of in their order.

  It takes the place of row_checks.BadRows, since rows that cannot be split are
  found before those with a bad value, whatever their order.
  """

  def __init__(self, numbers):
    """Starts without any.

    Args:
      numbers: _LineNumbers of the block.
    """
    self._numbers = numbers
    self._found = []

  def add(self, path, row, problem):
    """Notes a bad row; `row` counts from 0 in the block."""
    del path  # that of the block
    self._found.append((row, problem))

  def tell(self, bad_rows, path):
    """Tells a row_checks.BadRows of all; returns how many there are."""
    for row, problem in sorted(self._found):
      bad_rows.add(path, self._numbers.of_row(row), problem)
    return len(self._found)


class _LineNumbers:
  """Says in which line of its file a row of a block stands."""

  def __init__(self, path, begin, lines_read, block):
    """Counts nothing before a number is asked for.

    Args:
      path: str.
      begin: int, the byte at which reading began.
      lines_read: int, lines between there and the block.
      block: csv_lines.Block.
    """
    self._path = path
    self._begin = begin
    self._lines_read = lines_read
    self._block = block
    self._before = None

  def of_row(self, row):
    """Returns the line of a row, from 1; `row` counts from 0 in the block."""
    if self._before is None:
      # A byte order mark, behind which the first line starts, is no line.
      self._before = self._lines_read + csv_lines.count(
          self._path, csv_lines.first(self._path), self._begin)[0]
    return self._before + self._block.line_of(row) + 1
