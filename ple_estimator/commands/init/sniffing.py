"""Finds out how a CSV file is written: its encoding, dialect and header.

The standard library's csv.Sniffer looks for a delimiter that occurs equally
often in all lines, and so is misled by lists and quoted text. Here each pair of
a delimiter and a quote takes the lines apart, and the one counts whose rows
agree on the number of fields.
"""

import codecs
import collections
import csv
import io
import re

from ple_estimator import errors
from ple_estimator.data import csv_dialect
from ple_estimator.data import csv_lines

_HEAD_BYTES = 1 << 20
_ROWS = 1000  # that are taken apart
_DELIMITERS = ',;\t|\x01^~'
_MARKS = [(codecs.BOM_UTF8, 'utf-8-sig'), (codecs.BOM_UTF16_LE, 'utf-16'),
          (codecs.BOM_UTF16_BE, 'utf-16')]
# What a file is tried as that says nothing itself; the last one takes any.
_ENCODINGS = ('utf-8', 'cp1252', 'latin-1')
NUMBER = re.compile(r'\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*\Z')


class Sniffed(collections.namedtuple(
    'Sniffed', 'encoding dialect header fields line_end')):
  """How a CSV file is written.

  Attributes:
    encoding: str, as Python names it.
    dialect: csv_dialect.Dialect, without null values.
    header: bool, whether the first row names the columns.
    fields: list of str, the first row.
    line_end: str, 'LF', 'CRLF' or 'CR'.
  """

  __slots__ = ()


def sniff(path, labels, names=None, encoding=None, delimiter=None):
  """Looks at the beginning of a CSV file.

  Args:
    path: str; may be compressed, see csv_lines.
    labels: list of str, columns that a header has to name.
    names: list of str, the columns in their order if the user names them; then
      a first row that has one of them is a header.
    encoding: str, or None to find it.
    delimiter: str, or None to find it.

  Returns:
    Sniffed.

  Raises:
    UserError: if the file is no text, or no delimiter is found.
  """
  head, whole = _head(path)
  encoding, text = _decoded(path, head, whole, encoding)
  text = _whole_lines(text, whole)
  errors.check(text.strip(), '%s has no rows.', path)
  dialect, rows = _dialect(path, text, delimiter)
  known = set(names or ()) | set(labels)
  header = (bool(known & set(rows[0])) or not names and looks_like_header(rows))
  return Sniffed(encoding, dialect, header, rows[0], _line_end(text))


def first_row(path, sniffed):
  """The fields of the first row of another file of the same kind.

  Args:
    path: str.
    sniffed: Sniffed.

  Returns:
    list of str; empty if the file has no row.
  """
  head, whole = _head(path)
  text = _whole_lines(_decoded(path, head, whole, sniffed.encoding)[1], whole)
  return next(iter(_split(text, sniffed.dialect)), [])


def unique(fields):
  """Names of columns, each of them once.

  Args:
    fields: list of str, a header, in which names may be empty or come twice.

  Returns:
    list of str: of two columns `price` the second is `price_2`, and the third
    column is `column_3` if it has no name.
  """
  found = []
  for at, field in enumerate(fields):
    field = field.strip() or 'column_%d' % (at + 1)
    name, count = field, 1
    while name in found or count > 1 and name in fields:
      count += 1
      name = '%s_%d' % (field, count)
    found.append(name)
  return found


def looks_like_header(rows):
  """Whether the first of some rows names their columns.

  It does if it has no number and no empty field, and below one of its fields
  there are only numbers, or never the field itself again.

  Args:
    rows: list of lists of str, of one length.
  """
  first, rest = rows[0], rows[1:]
  if not rest or any(NUMBER.match(field) for field in first):
    return False
  columns = [[row[i].strip() for row in rest if row[i].strip()]
             for i in range(len(first))]
  if any(column and all(map(NUMBER.match, column)) for column in columns):
    return True
  return all(field.strip() not in column
             for field, column in zip(first, columns)) and all(
                 len(set(column)) < max(2, len(column)) for column in columns)


def _head(path):
  """The first bytes of the text of a file, and whether these are all."""
  with csv_lines.opened(path) as stream:
    head = stream.read(_HEAD_BYTES)
    return head, len(head) < _HEAD_BYTES or not stream.read(1)


def _decoded(path, head, whole, encoding):
  """Returns (encoding, text) of the beginning of a file."""
  marked = [name for mark, name in _MARKS if head.startswith(mark)]
  if not marked:
    csv_lines.first(path)  # refuses what is no text
  for name in [encoding] if encoding else marked or _ENCODINGS:
    try:
      text = codecs.getincrementaldecoder(name)().decode(head, whole)
      return name, text
    except UnicodeDecodeError:
      continue
    except LookupError:
      raise errors.UserError(
          '--encoding must be one that Python knows, got %r.' % encoding)
  raise errors.UserError('%s is not %s: name its encoding with --encoding.' % (
      path, encoding or marked[0]))


def _whole_lines(text, whole):
  """Leaves out a last line that was cut."""
  if whole:
    return text
  end = max(text.rfind('\n'), text.rfind('\r'))
  return text[:end + 1] if end >= 0 else text


def _line_end(text):
  counts = [(text.count('\r\n'), 'CRLF'),
            (text.count('\n') - text.count('\r\n'), 'LF'),
            (text.count('\r') - text.count('\r\n'), 'CR')]
  return max(counts)[1] if max(counts)[0] else 'LF'


def _dialect(path, text, delimiter):
  """Returns the csv_dialect.Dialect of a text, and its first rows.

  Only rows of the most frequent number of fields are returned.
  """
  found = [_of_delimiter(text, one) for one in delimiter or _DELIMITERS]
  best = max(found, key=lambda trial: trial.rank())
  errors.check(best.width > 1, '%s must have a delimiter between its columns, '
               'got none of %s: name it with --delimiter.', path,
               ' '.join(map(repr, delimiter or _DELIMITERS)))
  best.dialect.check('--')
  errors.check(
      len(best.rows[0]) == best.width, '%s row 1 must have %d columns as most '
      'other rows, got %d: %s.', path, best.width, len(best.rows[0]),
      ', '.join(best.rows[0])[:60])
  return best.dialect, [row for row in best.rows if len(row) == best.width]


class _Trial(collections.namedtuple('_Trial', 'dialect rows width share')):
  """A dialect that was tried, and the share of rows that agree on a width."""

  __slots__ = ()

  def rank(self):
    """What the best delimiter has most of."""
    return self.width > 1, round(self.share, 2), self.width


def _of_delimiter(text, delimiter):
  """The _Trial of the best quote; the first one if others do no better."""
  trials = []
  for quote in _quotes(text, delimiter):
    dialect = csv_dialect.Dialect(
        delimiter, quote, _escape(text, delimiter, quote))
    rows = _split(text, dialect)
    width, count = collections.Counter(map(len, rows)).most_common(1)[0]
    trials.append(_Trial(dialect, rows, width, count / len(rows)))
  return max(trials, key=lambda trial: trial.share)


def _quotes(text, delimiter):
  """Quotes to try; the first one counts if others do no better."""
  single = len(re.findall(r"(?:^|%s)'[^'\r\n]*'(?=%s|\r|\n|\Z)" % (
      (re.escape(delimiter),) * 2), text, re.M))
  lines = text.count('\n') + text.count('\r') + 1
  return ("'", '"', None) if 2 * single > lines else ('"', None)


def _escape(text, delimiter, quote):
  """The escape character: a backslash that stands before what ends a field."""
  if quote:
    inside = re.search(r'[^%s\s]%s%s[^%s\s]' % (
        (re.escape(delimiter),) + (quote,) * 2 + (re.escape(delimiter),)), text)
    return '\\' if '\\' + quote in text and not inside else None
  return '\\' if '\\' + delimiter in text else None


def _split(text, dialect):
  """The first rows of a text: list of lists of str, without blank lines."""
  quoting = csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE
  reader = csv.reader(
      io.StringIO(text, newline=''), delimiter=dialect.delimiter,
      quotechar=dialect.quote or None, escapechar=dialect.escape,
      doublequote=True, quoting=quoting,
      strict=True)
  rows = []
  try:
    for row in reader:
      if row:
        rows.append(row)
      if len(rows) == _ROWS:
        break
  except csv.Error:  # such as a quote that is not closed
    rows.append([])
  return rows or [[]]
