"""How the text of a CSV line stands for fields: delimiter, quote, escape."""

import collections
import re

import pyarrow as pa
import pyarrow.csv

from ple_estimator import errors


class Dialect(collections.namedtuple(
    'Dialect', 'delimiter quote escape null_values')):
  """The dialect of CSV files.

  A field that starts with the quote lasts until the next quote; a doubled
  quote inside stands for one, and the delimiter is text there. A quote further
  on in a field is text. What follows the escape character is text, inside
  quotes and outside. A line is a row: no field holds a line break.

  Attributes:
    delimiter: str, one ASCII character between fields.
    quote: str, one ASCII character around fields, or None if quotes are text.
    escape: str, one ASCII character, or None if there is none.
    null_values: tuple of str, texts that count as empty fields, with quotes
      around them or without.
  """

  __slots__ = ()

  def __new__(cls, delimiter=',', quote='"', escape=None, null_values=()):
    return super().__new__(cls, delimiter, quote, escape, null_values)

  def check(self, owner):
    """Checks the values where they are bound.

    Args:
      owner: str, what stands before the name of a value in a message, such as
        'CsvInput.'.

    Raises:
      UserError: if a value is out of range, or two do not go together.
    """
    _check_character(owner + 'delimiter', self.delimiter)
    for name in ('quote', 'escape'):
      character = getattr(self, name)
      if character is not None:
        _check_character(owner + name, character, ' or None')
        errors.check(
            character != self.delimiter, '%s%s must differ from the delimiter, '
            'got %r for both.', owner, name, character)
    errors.check(
        self.escape is None or self.escape != self.quote,
        '%sescape must differ from the quote, got %r for both; a doubled quote '
        'is understood without it.', owner, self.escape)
    errors.check(
        isinstance(self.null_values, (list, tuple)) and
        all(isinstance(text, str) for text in self.null_values),
        "%snull_values must be a tuple of texts, such as ('NULL',), got %s.",
        owner, errors.written(self.null_values))
    for text in self.null_values:
      errors.check(
          self.escape is None or self.escape not in text, '%snull_values must '
          'not hold the escape character %r, which is never part of a value, '
          'got %r; bind escape to None if the files do not escape.',
          owner, self.escape, text)

  def parse_options(self):
    """Returns the pa.csv.ParseOptions of the dialect."""
    return pa.csv.ParseOptions(
        delimiter=self.delimiter, quote_char=self.quote or False,
        escape_char=self.escape or False, double_quote=bool(self.quote),
        newlines_in_values=False, ignore_empty_lines=True)

  def splitter(self):
    """Returns a Splitter, which takes lines apart one by one."""
    return Splitter(self)


class Splitter:
  """Takes one line apart exactly; slow, for headers and lines that are bad."""

  def __init__(self, dialect):
    """Keeps the dialect, a checked Dialect."""
    self._delimiter = dialect.delimiter.encode()
    self._quote = (dialect.quote or '').encode()
    self._escape = (dialect.escape or '').encode()
    self._field = re.compile(self._pattern(), re.DOTALL)

  def _pattern(self):
    """Returns the regular expression of a field: group 1 within quotes."""
    delimiter, quote, escape = map(
        re.escape, (self._delimiter, self._quote, self._escape))
    escaped = b'%s.' % escape if escape else b''
    bare = _run(delimiter, escape, escaped)
    if not quote:
      return b'()(%s)' % bare
    inside = _run(quote, escape, b'|'.join(filter(None, [quote * 2, escaped])))
    return b'(?:%s(%s)%s(?!%s)|(?!%s))(%s)' % (
        quote, inside, quote, quote, quote, bare)

  def split(self, line):
    """Splits a line.

    Args:
      line: bytes, without a line break.

    Returns:
      (fields, problem): list of bytes and None; or those before the problem,
      and a str such as 'has a quote that is not closed on its line'.
    """
    fields, at = [], 0
    while True:
      match = self._field.match(line, at)
      if not match:
        return fields, 'has a quote that is not closed on its line'
      fields.append(self._text(match))
      at = match.end()
      if at == len(line):
        return fields, None
      if line[at:at + 1] != self._delimiter:
        return fields, 'ends in the escape character'
      at += 1

  def problem(self, line, num_columns):
    """Says why a line is no row.

    Args:
      line: bytes, without a line break.
      num_columns: int, the fields that it must have.

    Returns:
      str, such as 'must have 20 columns, got 19', or None if it is a row.
    """
    if (self._quote and self._quote in line or
        self._escape and self._escape in line):
      fields, problem = self.split(line)
      if problem:
        return problem
      found = len(fields)
    else:
      found = line.count(self._delimiter) + 1
    if found == num_columns:
      return None
    return 'must have %d columns, got %d' % (num_columns, found)

  def _text(self, match):
    """Returns what a field stands for."""
    quoted, bare = match.group(1) or b'', match.group(2)
    pairs = [re.escape(self._quote * 2)] if self._quote else []
    if self._escape:
      pairs.append(re.escape(self._escape) + b'.')
    if pairs and quoted:
      quoted = re.sub(b'|'.join(pairs), lambda pair: pair.group()[1:], quoted,
                      flags=re.DOTALL)
    if self._escape:
      bare = re.sub(pairs[-1], lambda pair: pair.group()[1:], bare,
                    flags=re.DOTALL)
    return quoted + bare


def _run(end, escape, pairs):
  """Returns the regular expression of text up to a character.

  Args:
    end: bytes, the character as a regular expression.
    escape: bytes, the escape character, or b''.
    pairs: bytes, the regular expression of two characters that are text, or
      b'' if there is none.
  """
  others = b'[^%s%s]*' % (end, escape)
  return b'%s(?:(?:%s)%s)*' % (others, pairs, others) if pairs else others


def _check_character(name, value, or_none=''):
  errors.check(
      isinstance(value, str) and len(value) == 1 and '\0' < value < '\x80' and
      value not in '\r\n', '%s must be one ASCII character%s, and no line '
      'break, got %s.', name, or_none, errors.written(value))
