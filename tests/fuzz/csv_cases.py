"""Random CSV files, and a parse of their bytes by hand."""

import bz2
import gzip
import os

import oracle
import outcomes
import pyarrow as pa

from ple_estimator import errors
from ple_estimator.data import csv_lines
from ple_estimator.data import csv_reader
from ple_estimator.data import feature_spec
from ple_estimator.data import inputs
from ple_estimator.data import reading as reading_lib

_TEXTS = [b'', b'a', b'word', b' b ', b'x|y||z', b'NULL', b'-', b'N', b'\\N',
          b'"', b'""', b"'", b'a"b', b'"a', b'a""', b'\xc3\xa9', b'\xff', b',',
          b';', b'\t', b'\x00', b'\\', b'a\\', b'|', b'0', b'#', b' ']
_NUMBERS = [b'0', b'1', b' 1', b'1 ', b'0.5', b'-1', b'+1', b'1e3', b'.5',
            b'5.', b'', b'1e39', b'nan', b'NaN', b'inf', b'-inf', b'16777217',
            b'0x10', b'1_0', b'nan(1)', b'one', b'1e-50', b'1.0', b'-0', b'007',
            b'9223372036854775808', b'1e', b'--1', b'\xd9\xa1', b'1e15', b'50']


def columns(rng):
  """Returns some columns, as FeatureSpec.columns has them."""
  def number(**more):
    return dict({'name': 'n', 'kind': 'number'}, **more)
  return [
      [{'name': 'y', 'kind': 'label', 'values': (0, 1)},
       {'name': 'y', 'kind': 'label'}][rng.randint(2)],
      {'name': 'id', 'kind': 'integer', 'num_buckets': 100},
      {'name': 'word', 'kind': 'hashed', 'num_buckets': 7},
      {'name': 'tags', 'kind': 'hashed_list', 'num_buckets': 7},
      [number(), number(default=0.5), number(clip=(0, 9), default=1.0)][
          rng.randint(3)],
      [{'name': 'w', 'kind': 'weight'},
       {'name': 'w', 'kind': 'weight', 'default': 2.0}][rng.randint(2)],
      [{'name': 'age', 'kind': 'bucketised', 'boundaries': (0, 1)},
       {'name': 'age', 'kind': 'bucketised', 'boundaries': (0, 1),
        'default': 5.0}][rng.randint(2)],
      {'name': 'code', 'kind': 'vocabulary', 'values': ['a', 1]},
      [{'name': 'v', 'kind': 'vector', 'width': 2},
       {'name': 'v', 'kind': 'vector', 'width': 2, 'default': 0.5}][
           rng.randint(2)],
  ]


def pick(rng, choices):
  """Returns one of some choices."""
  return choices[rng.randint(len(choices))]


class _File:
  """A random CSV file and what the rows in it are.

  Attributes:
    columns: list of dict, the columns of the feature spec.
    options: dict, arguments of inputs.CsvInput.
    text: bytes, what the file holds.
  """

  def __init__(self, rng):
    self._rng = rng
    self.columns = columns(rng)
    self._delimiter = pick(rng, [',', ',', ';', '\t', '\x01', '|'])
    self._quote = pick(rng, ['"', '"', "'", None])
    self._escape = pick(rng, [None, None, '\\'])
    null_values = pick(rng, [(), (), ('NULL', '-')])
    self._tame = rng.rand() < 0.6  # most of the values can be used
    self._names = [column['name'] for column in self.columns]
    self.options = {
        'delimiter': self._delimiter, 'quote': self._quote,
        'escape': self._escape, 'null_values': null_values,
        'header': bool(rng.rand() < 0.5),
        'on_bad_row': pick(rng, ['error', 'skip'])}
    if self.options['header']:
      self._names += ['more', 'more'][:rng.randint(3)]
      rng.shuffle(self._names)
    self.text = self._make()

  def _make(self):
    """Returns the bytes of the file."""
    rng = self._rng
    lines = [self._line() for _ in range(rng.randint(0, 30))]
    if self.options['header']:
      names = [self._written(name.encode()) for name in self._names]
      lines.insert(0, self._delimiter.encode().join(names))
    ends = pick(rng, [[b'\n'], [b'\r\n'], [b'\r'], [b'\n', b'\r\n', b'\r']])
    text = b''.join(line + pick(rng, ends) * pick(rng, [1, 1, 1, 2])
                    for line in lines)
    if rng.rand() < 0.3:
      text = text.rstrip(b'\r\n')
    if rng.rand() < 0.2:
      text = pick(rng, ends) + text
    return (b'\xef\xbb\xbf' if rng.rand() < 0.2 else b'') + text

  def _line(self):
    rng = self._rng
    if not self._tame and rng.rand() < 0.1:
      return bytes(bytearray(rng.choice(
          bytearray(b'ab01,"\\;\' \t\x01|'), rng.randint(0, 20)).tolist()))
    fields = [self._field(name) for name in self._names]
    if not self._tame and rng.rand() < 0.1:
      fields = fields[1:] if rng.rand() < 0.5 else fields + [b'x']
    return self._delimiter.encode().join(fields)

  def _field(self, name):
    rng = self._rng
    if name in ('word', 'tags', 'code', 'more'):
      value = pick(rng, _TEXTS)
    elif name == 'v':
      tame = self._tame or rng.rand() < 0.9
      value = b'|'.join(pick(rng, _NUMBERS[:2] if tame else _NUMBERS)
                        for _ in range(2 if tame else rng.randint(4)))
    elif self._tame or rng.rand() < 0.95:
      value = pick(rng, _NUMBERS[:2])
    else:
      value = pick(rng, _NUMBERS)
    if not self._tame and rng.rand() < 0.05:
      return value  # as it is, even if it holds the delimiter or a quote
    return self._written(value)

  def _written(self, value):
    """A field as somebody who knows the dialect writes it."""
    delimiter = self._delimiter.encode()
    quote = (self._quote or '').encode()
    escape = (self._escape or '').encode()
    if escape:
      value = value.replace(escape, escape * 2)
    if quote and (delimiter in value or value[:1] == quote or
                  self._rng.rand() < 0.2):
      return quote + value.replace(quote, quote * 2) + quote
    if escape:
      return value.replace(delimiter, escape + delimiter)
    return value.replace(delimiter, b'')

  def rows(self):
    """Parses the bytes.

    Returns:
      (rows, lines): list of tuples of values, None for a bad row; the number
      of the line that each is; or None if the header cannot be used.
    """
    lines = lines_of(self.text[3:] if self.text.startswith(b'\xef\xbb\xbf')
                     else self.text)
    names = self._names
    if self.options['header'] and lines:
      found = self._fields(lines.pop(0)[1])
      if found != [name.encode() for name in names]:
        return None
    rows = []
    for _, line in lines:
      fields = self._fields(line)
      if fields is None or len(fields) != len(names):
        rows.append(None)
        continue
      values = [oracle.value_of(column, self._value(
          fields[names.index(column['name'])])) for column in self.columns]
      rows.append(None if oracle.BAD in values else tuple(values))
    return rows, [number for number, _ in lines]

  def _value(self, field):
    return b'' if field.decode('latin-1') in self.options[
        'null_values'] else field

  def _fields(self, line):
    """The fields of a line, byte by byte; None if it does not end well."""
    delimiter = self._delimiter.encode()
    quote = self._quote.encode() if self._quote else None
    escape = self._escape.encode() if self._escape else None
    fields, field, quoted, begun, at = [], b'', False, False, 0
    while at < len(line):
      char = line[at:at + 1]
      if char == escape:
        if at + 1 == len(line):
          return None
        at += 1
        field, begun = field + line[at:at + 1], True
      elif quoted and char == quote:
        if line[at + 1:at + 2] == quote:
          at += 1
          field += quote
        else:
          quoted = False
      elif not begun and char == quote:
        quoted = begun = True
      elif char == delimiter and not quoted:
        fields.append(field)
        field, begun = b'', False
      else:
        field, begun = field + char, True
      at += 1
    return None if quoted else fields + [field]


def lines_of(text):
  """The lines that are not blank as (number from 1, bytes)."""
  lines, line, number, at = [], b'', 1, 0
  while at < len(text):
    char = text[at:at + 1]
    if char in b'\r\n':
      if char == b'\r' and text[at + 1:at + 2] == b'\n':
        at += 1
      lines.append((number, line))
      number, line = number + 1, b''
    else:
      line += char
    at += 1
  return [(n, x) for n, x in lines + [(number, line)] if x]


def _write(made, rng, folder):
  """Writes the file; returns its path and whether it was damaged."""
  ending = pick(rng, ['', '', '', '', '.gz', '.bz2', '.zst'])
  data, damaged = made.text, False
  if ending:
    compress = {'.gz': gzip.compress, '.bz2': bz2.compress,
                '.zst': _zstd}[ending]
    cut = rng.randint(len(data) + 1)
    data = (compress(data) if rng.rand() < 0.7 else
            compress(data[:cut]) + compress(data[cut:]))
    damaged = rng.rand() < 0.4
  if damaged:
    # Without a checksum nobody can tell that bits have changed.
    data = (data[:rng.randint(1, len(data))] if ending == '.zst' else
            spoilt(data, rng))
  path = os.path.join(folder, 'x.csv' + ending)
  with open(path, 'wb') as f:
    f.write(data)
  return path, damaged


def _zstd(data):
  """A frame of zstd without a checksum, as Arrow writes it."""
  sink = pa.BufferOutputStream()
  with pa.CompressedOutputStream(sink, 'zstd') as stream:
    stream.write(data)
  return sink.getvalue().to_pybytes()


def spoilt(data, rng):
  """Returns bytes that are cut, or some of which are changed."""
  data = bytearray(data)
  if rng.rand() < 0.4:
    return bytes(data[:rng.randint(len(data))])
  for _ in range(rng.randint(1, 4)):
    data[rng.randint(len(data))] ^= 1 << rng.randint(8)
  return bytes(data)


def case(rng, folder):
  """Reads a random CSV file, whole and by several workers."""
  made = _File(rng)
  path, damaged = _write(made, rng, folder)
  csv_lines._BLOCK_BYTES = pick(rng, [7, 100, 1 << 20])
  csv_reader._SLICE_BYTES = pick(rng, [11, 200, 1 << 20])
  source = inputs.CsvInput(path, batch_size=int(rng.randint(1, 9)),
                           **made.options)
  reading = reading_lib.Reading(
      feature_spec.FeatureSpec(made.columns),
      keep=tuple(column['name'] for column in made.columns))
  expected = made.rows()
  try:
    source.check(reading)
    found, skipped, count = read(source, reading)
  except errors.UserError as error:
    return outcomes.REFUSED if damaged else _refusal(
        error, expected, made.options['on_bad_row'])
  outcomes.check(expected is not None, 'The header must be refused.')
  rows, _ = expected
  good = [row for row in rows if row is not None]
  difference = oracle.first_difference(found, good)
  outcomes.check(not difference, '%s', difference)
  num_bad = len(rows) - len(good)
  outcomes.check((skipped, count) == (num_bad, len(rows)),
                 'skipped %d of %d rows and must skip %d of %d', skipped,
                 count, num_bad, len(rows))
  outcomes.check(not num_bad or made.options['on_bad_row'] == 'skip',
                 'A bad row must be refused.')
  workers = int(rng.randint(2, 5))
  check_shares(source, reading, workers, good)
  return outcomes.SKIPPED if num_bad else outcomes.RIGHT


def _refusal(error, expected, on_bad_row):
  """Checks that there was a reason to refuse a file that is not damaged."""
  if expected is None:
    return outcomes.refused(error, 'header')
  rows, numbers = expected
  if not rows:
    return outcomes.refused(error, 'x.csv')
  outcomes.check(None in rows, 'All rows are good, but it says: %s', error)
  if on_bad_row == 'skip':
    outcomes.check(rows[0] is None, 'The first row is good, but it says: %s',
                   error)
    return outcomes.refused(error, 'must have a good row')
  return outcomes.refused(error, ' row %d ' % numbers[rows.index(None)])


def read(source, reading):
  """Returns all rows as tuples, the number skipped and the number counted."""
  source.bad_rows.skipped = 0
  reader = source.reader(reading)
  rows = [row for piece in reader.slices() for table in reader.read(piece)
          for row in rows_of(table)]
  return rows, source.bad_rows.skipped, reader.count_rows()


def rows_of(table):
  """The rows of a pa.Table as tuples."""
  return list(zip(*[column.to_pylist() for column in table.columns]))


def check_shares(source, reading, workers, expected):
  """Raises Wrong unless several workers have all rows, each of them once."""
  found = []
  for i in range(workers):
    try:
      for table in source.tables(reading, shard=(i, workers)):
        found += rows_of(table)
    except errors.UserError as error:  # This worker has nothing to read.
      outcomes.refused(error, 'must have rows that can be used')
  difference = oracle.first_difference(
      sorted(found, key=repr_of), sorted(expected, key=repr_of))
  outcomes.check(not difference, 'By %d workers %s', workers, difference)


def repr_of(row):
  """What rows are sorted by: the same for a float and a np.float32."""
  return repr([value if isinstance(value, (bytes, int)) else
               '%.5g ' * len(value) % tuple(value) if isinstance(value, list)
               else '%.5g' % value for value in row])
