"""The rows of the files that init is given, as tables of text."""

import collections

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ple_estimator import errors
from ple_estimator.commands.init import lists
from ple_estimator.commands.init import sniffing
from ple_estimator.data import arrow_values
from ple_estimator.data import csv_lines
from ple_estimator.data import input_files
from ple_estimator.data import parquet_files
from ple_estimator.storage import sources
from ple_estimator.storage import uris

_BATCH_ROWS = 1 << 16
_BLOCK_BYTES = 4 << 20

# Rows as the file has them, and the same as text: two pa.Table with the same
# names. What is text already is stripped of blanks, and null where empty.
Piece = collections.namedtuple('Piece', 'stored text')


def find(binding, entries):
  """Lists the files of an argument.

  Args:
    binding: str, what the user knows the argument as.
    entries: list of str, files, folders or patterns; paths or URIs, see
      storage/uris.py.

  Returns:
    list of str, or [] without entries.

  Raises:
    UserError: if an entry names nothing.
  """
  if not entries:
    return []
  uris.check(binding, entries)
  return input_files.find('', entries, '', binding)


def is_parquet(path):
  """Whether a file begins as Parquet files do."""
  with sources.opened(path, end=4) as stream:
    return stream.read(4) == b'PAR1'


class Files:
  """The files of one run of init, all of one format and with the same columns.

  Attributes:
    sniffed: sniffing.Sniffed of the first file, or None of Parquet.
    names: list of str, the columns in the order of the first file.
    renamed: bool, whether the names are not those of the files.
    types: dict of name to pa.DataType of a column of Parquet; of CSV all are
      pa.string().
    padded: set of the names of columns of text with blanks around some values,
      of the rows that were read so far.
    skipped: int, rows with another number of fields that were left out when
      the files were read the last time.
  """

  def __init__(self, paths, options):
    """Looks at the first file.

    Args:
      paths: list of str, of the training rows.
      options: the arguments of the command: labels, columns, encoding,
        delimiter, rows and skip_bad_rows.

    Raises:
      UserError: if the columns cannot be told.
    """
    self._options = options
    self.skipped = 0
    self.padded = set()
    self.sniffed = None
    if is_parquet(paths[0]):
      schema = parquet_files.opened(paths[0]).schema_arrow
      self.names, self.renamed = list(schema.names), False
      twice = sorted({n for n in self.names if self.names.count(n) > 1})
      errors.check(not twice, '%s must have each column once, got %s twice.',
                   paths[0], ', '.join(twice))
      self.types = {name: schema.field(name).type for name in self.names}
    else:
      self.sniffed = sniffing.sniff(
          paths[0], [label.column for label in options.labels],
          options.columns, options.encoding, options.delimiter)
      self.names, self.renamed = self._names(paths[0])
      self.types = collections.OrderedDict(
          (name, pa.string()) for name in self.names)
    for name, value in input_files.partitions(paths[0]).items():
      if name not in self.types:
        self.names.append(name)
        self.types[name] = pa.string()
    errors.check(len(self.names) > 1, '%s must have a label and a feature, got '
                 'one column.', paths[0])

  def _names(self, path):
    """Names of the columns of the first CSV file, and if these are not its."""
    fields, columns = self.sniffed.fields, self._options.columns
    if columns:
      errors.check(
          len(columns) == len(fields), '--columns must name the %d columns of '
          '%s, got %d: %s.', len(fields), path, len(columns),
          ', '.join(columns))
      return list(columns), self.sniffed.header and columns != fields
    errors.check(
        self.sniffed.header, '%s has no header, its first row is %s: name its '
        'columns in their order with --columns, such as --columns %s.', path,
        _short(self.sniffed.dialect.delimiter.join(fields)),
        ','.join('c%d' % (i + 1) for i in range(min(3, len(fields)))))
    names = sniffing.unique(fields)
    return names, names != fields

  def is_whole(self):
    """Whether the files can be read as they are, without a copy."""
    if not self.sniffed:
      return True
    return not self.renamed and self.sniffed.encoding in (
        'utf-8', 'utf-8-sig', 'utf8')

  def read(self, paths):
    """Yields the rows of some files as Piece, of some thousand rows each.

    Args:
      paths: list of str.

    Raises:
      UserError: if a file is damaged, of another format, or lacks a column, or
        has a row with another number of fields.
    """
    left = self._options.rows or float('inf')
    self.skipped = 0
    for path in paths:
      errors.check(
          is_parquet(path) != bool(self.sniffed), '%s must be %s as the first '
          'file is.', path, 'CSV' if self.sniffed else 'Parquet')
      tables = self._csv(path) if self.sniffed else self._parquet(path)
      for table in tables:
        if table.num_rows > left:
          table = table.slice(0, int(left))
        left -= table.num_rows
        if table.num_rows:
          yield self._piece(table)
        if not left:
          return

  def _piece(self, table):
    columns = collections.OrderedDict()
    for name in table.column_names:
      stored = table.column(name).combine_chunks()
      columns[name] = as_text(stored)
      if name not in self.padded and _is_padded(stored, columns[name]):
        self.padded.add(name)
    return Piece(table, pa.table(columns))

  def _csv(self, path):
    fields = sniffing.first_row(path, self.sniffed)
    names = self.names[:len(self.sniffed.fields)]
    if self.sniffed.header and not self._options.columns:
      names = sniffing.unique(fields)
    read = pa.csv.ReadOptions(
        use_threads=False, block_size=_BLOCK_BYTES, column_names=names,
        skip_rows_after_names=int(self.sniffed.header),
        encoding='utf8' if self.sniffed.encoding.startswith('utf-8')
        else self.sniffed.encoding)
    dialect = self.sniffed.dialect
    parse = pa.csv.ParseOptions(
        delimiter=dialect.delimiter, quote_char=dialect.quote or False,
        escape_char=dialect.escape or False, double_quote=bool(dialect.quote),
        newlines_in_values=True, invalid_row_handler=self._on_bad_row)
    convert = pa.csv.ConvertOptions(
        column_types={name: pa.string() for name in names},
        strings_can_be_null=True, null_values=[''])
    skipped = self.skipped

    def batches():
      self._bad, self.skipped = None, skipped
      with _opened(path) as stream:
        with pa.csv.open_csv(stream, read, parse, convert) as parsed:
          yield from parsed

    try:
      for table in _resumed(path, batches):
        yield self._selected(path, table)
    except errors.UserError:
      raise
    except (pa.ArrowException, UnicodeError, OSError) as error:
      raise errors.UserError(self._problem(path, error))

  def _on_bad_row(self, row):
    """Tells pyarrow what to do with a row of another number of fields."""
    if self._options.skip_bad_rows:
      self.skipped += 1
      return 'skip'
    self._bad = row
    return 'error'

  def _problem(self, path, error):
    if self._bad:
      return ('%s row %s must have %d columns, got %d: %s. --skip-bad-rows '
              'leaves such rows out.' % (
                  path, self._bad.number, self._bad.expected_columns,
                  self._bad.actual_columns, _short(self._bad.text)))
    text = parquet_files.one_line(error)
    if isinstance(error, UnicodeError) or 'UTF8' in text:
      return ('%s is not %s in all rows: name its encoding with --encoding, '
              'such as --encoding cp1252.' % (path, self.sniffed.encoding))
    return '%s cannot be read as CSV: %s' % (path, text)

  def _parquet(self, path):
    have = [name for name in self.names
            if name in parquet_files.opened(path).schema_arrow.names]
    try:
      for table in _resumed(path, lambda: parquet_files.opened(
          path).iter_batches(_BATCH_ROWS, columns=have)):
        yield self._selected(path, table)
    except errors.UserError:
      raise
    except (pa.ArrowException, OSError) as error:
      raise errors.UserError('%s cannot be read: %s' % (
          path, parquet_files.one_line(error)))

  def _selected(self, path, table):
    """The columns in their order, with those that the path names."""
    said = input_files.partitions(path)
    for name in self.names:
      if name not in table.column_names and name in said:
        table = table.append_column(
            name, pa.array([said[name]] * table.num_rows, pa.string()))
    lacking = [n for n in self.names if n not in table.column_names]
    errors.check(not lacking, '%s must have the columns of the first file, got '
                 'none called %s.', path, ', '.join(lacking))
    return table.select(self.names)


def _opened(path):
  """Opens the text of a CSV file as pa.NativeFile."""
  compression = csv_lines.codec(path)
  if not uris.is_remote(path):
    return pa.input_stream(path, compression=compression)
  stream = sources.native(path)
  return pa.CompressedInputStream(
      stream, compression) if compression else stream


def _resumed(path, batches):
  """Yields the rows of a file; goes on where a connection to a store broke.

  Args:
    path: str.
    batches: function without arguments to an iterator over pa.RecordBatch, from
      the first row of the file on, in the same order each time.

  Yields:
    pa.Table.

  Raises:
    UserError: if the store refuses, or does not answer often enough.
  """
  found, rows, skipped = None, 0, 0

  def following():
    nonlocal found, skipped
    if found is None:
      found, skipped = batches(), 0
    try:
      for batch in found:
        if skipped + batch.num_rows > rows:
          batch = batch.slice(rows - skipped)
          skipped = rows + batch.num_rows
          return batch
        skipped += batch.num_rows
    except OSError:
      found = None
      raise

  while True:
    batch = sources.retried(path, following)
    if batch is None:
      return
    rows += batch.num_rows
    yield pa.Table.from_batches([batch])


def as_text(array):
  """Returns values as text, null where there is none.

  Args:
    array: pa.Array of any type.

  Returns:
    pa.Array of string: digits of numbers, `true` and `false`, days and times as
    ISO 8601 writes them, items of a list with lists.SEPARATOR between them, and
    with their weights of a map; of structures all are null.
  """
  if pa.types.is_dictionary(array.type):
    array = array.dictionary_decode()
  if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
    text = pc.utf8_trim_whitespace(array.cast(pa.string()))
    return pc.if_else(pc.equal(text, ''), pa.scalar(None, pa.string()), text)
  if lists.is_vector(array.type):
    array = lists.plain(array)
  if arrow_values.is_list(array.type):
    return _joined(array)
  if lists.is_map(array.type):
    return _utf8(lists.texts_of_maps(array))
  if pa.types.is_nested(array.type):
    return pa.nulls(len(array), pa.string())
  if arrow_values.is_value(array.type):
    text, bad = arrow_values.texts(array)
    if not bad.any():
      return _utf8(text)
    array = pc.if_else(pa.array(bad), array, pa.scalar(None, array.type))
    return pc.coalesce(array.cast(pa.string()), _utf8(text))
  return array.cast(pa.string())


def is_list(arrow_type):
  """Whether a column of Parquet has a list of values in each row."""
  return (arrow_values.is_list(arrow_type) and
          arrow_values.is_value(arrow_type.value_type))


def _is_padded(stored, text):
  """Whether `as_text` has taken blanks away from some values."""
  if pa.types.is_dictionary(stored.type):
    stored = stored.dictionary_decode()
  if not (pa.types.is_string(stored.type) or
          pa.types.is_large_string(stored.type)):
    return False
  return bool(pc.any(pc.not_equal(stored.cast(pa.string()), text)).as_py())


def has_items(arrow_type):
  """Whether a column of Parquet has several values in a row that can be read.
  """
  return (is_list(arrow_type) or lists.is_map(arrow_type) or
          lists.is_vector(arrow_type))


def _utf8(binary):
  try:
    return binary.cast(pa.string())
  except pa.ArrowInvalid:
    return pa.array([None if value is None else value.decode('latin-1')
                     for value in binary.to_pylist()], pa.string())


def _joined(array):
  if not is_list(array.type):
    return pa.nulls(len(array), pa.string())
  items = as_text(array.flatten())
  text = pc.binary_join(pa.ListArray.from_arrays(
      pa.array(arrow_values.splits(array)),
      items.fill_null('').cast(pa.string())), lists.SEPARATOR)
  return pc.if_else(pc.equal(text, ''), pa.scalar(None, pa.string()), text)


def _short(text):
  text = ' '.join(text.split())
  return repr(text if len(text) <= 60 else text[:57] + '...')
