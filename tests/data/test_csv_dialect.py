"""Lines are split as Python's csv module and Arrow split them."""

import csv
import random

import pytest

from ple_estimator import errors
from ple_estimator.data import csv_dialect

BACKSLASH = csv_dialect.Dialect(escape='\\')


def by_csv(line, dialect):
  """The fields of a line by the standard library."""
  row, = csv.reader([line], delimiter=dialect.delimiter,
                    quotechar=dialect.quote or '"', escapechar=dialect.escape,
                    quoting=csv.QUOTE_MINIMAL if dialect.quote else
                    csv.QUOTE_NONE)
  return [field.encode() for field in row]


@pytest.mark.parametrize('dialect, line, fields', [
    (csv_dialect.Dialect(), 'a,"b,c",d', ['a', 'b,c', 'd']),
    (csv_dialect.Dialect(), '"",,""""', ['', '', '"']),
    (csv_dialect.Dialect(), '12" tv,"a""b"', ['12" tv', 'a"b']),
    (csv_dialect.Dialect(), '"a"b,c', ['ab', 'c']),
    (csv_dialect.Dialect(quote=None), '"a,b', ['"a', 'b']),
    (csv_dialect.Dialect('\t', "'"), "'a\tb'\t\"", ['a\tb', '"']),
    (csv_dialect.Dialect('|'), 'a|b,c|', ['a', 'b,c', '']),
    (csv_dialect.Dialect(']', '^'), '^a]^^^]b-', ['a]^', 'b-']),
    (BACKSLASH, r'a\,b,"c\"d",\"e', ['a,b', 'c"d', '"e']),
    (BACKSLASH, r'"a\\",b\\', ['a\\', 'b\\']),
])
def test_a_line_is_split(dialect, line, fields):
  splitter = dialect.splitter()
  assert splitter.split(line.encode()) == ([f.encode() for f in fields], None)
  assert by_csv(line, dialect) == [f.encode() for f in fields]
  assert splitter.problem(line.encode(), len(fields)) is None
  assert splitter.problem(line.encode(), 9) == (
      'must have 9 columns, got %d' % len(fields))


@pytest.mark.parametrize('dialect, line, problem', [
    (csv_dialect.Dialect(), 'a,"b', 'has a quote that is not closed on its'),
    (csv_dialect.Dialect(), 'a,"b""', 'has a quote that is not closed on its'),
    (BACKSLASH, r'a,"b\"', 'has a quote that is not closed on its line'),
    (BACKSLASH, 'a,b\\', 'ends in the escape character'),
])
def test_a_line_that_does_not_end(dialect, line, problem):
  assert problem in dialect.splitter().problem(line.encode(), 2)


@pytest.mark.parametrize('dialect', [
    csv_dialect.Dialect(), csv_dialect.Dialect(quote=None),
    csv_dialect.Dialect(';', "'", '\\')])
def test_random_lines_are_split_as_python_does(dialect):
  rng = random.Random(5)
  splitter, compared = dialect.splitter(), 0
  for _ in range(3000):
    line = ''.join(rng.choice('a;,"\'\\') for _ in range(rng.randint(1, 9)))
    fields, problem = splitter.split(line.encode())
    # Just behind quotes, Python does not take the escape character for one.
    if problem is None and "'\\" not in line:
      assert fields == by_csv(line, dialect), line
      compared += 1
  assert compared > 500


@pytest.mark.parametrize('values, message', [
    ({'delimiter': ''}, "X.delimiter must be one ASCII character, and no line "
     "break, got ''."),
    ({'delimiter': '::'}, 'X.delimiter must be one ASCII character'),
    ({'delimiter': '\xa7'}, 'X.delimiter must be one ASCII character'),
    ({'delimiter': '\n'}, 'X.delimiter must be one ASCII character'),
    ({'delimiter': '\0'}, 'X.delimiter must be one ASCII character'),
    ({'delimiter': None}, 'X.delimiter must be one ASCII character, and no'),
    ({'quote': ''}, 'X.quote must be one ASCII character or None'),
    ({'quote': False}, 'X.quote must be one ASCII character or None'),
    ({'quote': ','}, "X.quote must differ from the delimiter, got ','"),
    ({'escape': '\r'}, 'X.escape must be one ASCII character or None'),
    ({'escape': ','}, "X.escape must differ from the delimiter, got ','"),
    ({'escape': '"'}, 'X.escape must differ from the quote, got \'"\' for'),
    ({'null_values': 'NULL'}, "X.null_values must be a tuple of texts, such as "
     r"\('NULL',\), got 'NULL'."),
    ({'null_values': (0,)}, 'X.null_values must be a tuple of texts'),
    ({'null_values': ('\\N',), 'escape': '\\'},
     'X.null_values must not hold the escape character'),
])
def test_a_dialect_is_checked(values, message):
  csv_dialect.Dialect('\x01', None, None, ['\\N']).check('X.')
  with pytest.raises(errors.UserError, match=message):
    csv_dialect.Dialect(**values).check('X.')
