"""CSV files to tables: lines, blocks, headers, bad rows."""

import bz2
import gzip
import random

import pyarrow as pa
import pytest
import reader_cases

from ple_estimator import errors
from ple_estimator.data import csv_dialect
from ple_estimator.data import csv_lines
from ple_estimator.data import csv_reader
from ple_estimator.data import row_checks


def test_blocks_and_slices_of_csv_are_cut_at_lines(tmp_path, monkeypatch):
  monkeypatch.setattr(csv_lines, '_BLOCK_BYTES', 200)
  monkeypatch.setattr(csv_reader, '_SLICE_BYTES', 333)
  path = tmp_path / 'x.csv'
  path.write_text('\n'.join(reader_cases.lines(500)) + '\n')
  reader, _ = reader_cases.of_csv(path)
  assert len(reader.slices()) > 20
  assert reader_cases.ids(reader) == list(range(500))
  assert reader.count_rows() == 500


@pytest.mark.parametrize('block', [100, 1 << 20])
@pytest.mark.parametrize('bad_line, problem', [
    ('1,2', 'must have 3 columns, got 2'),
    ('1,2,a,b', 'must have 3 columns, got 4'),
    ('one,2,a', "column 'y' must be a number, got 'one'"),
    ('1,100000,a', r"column 'id' must be an integer in \[0, 100000\), got"),
    ('1,-1,a', "column 'id' must be an integer"),
    (',7,a', "column 'y' must be a number, got ''"),
])
def test_csv_names_file_and_row(tmp_path, monkeypatch, bad_line, problem,
                                block):
  monkeypatch.setattr(csv_lines, '_BLOCK_BYTES', block)
  path = tmp_path / 'x.csv'
  rows = reader_cases.lines(100)
  # Lines that are no rows must not shift the numbers of those behind.
  rows[20], rows[40], rows[70] = '1,2,3,4', bad_line, bad_line
  path.write_text('\n'.join(rows) + '\n')
  reader, bad = reader_cases.of_csv(path, skip=True)
  messages = []
  bad.add = lambda path, row, problem: messages.append((row, problem))
  assert reader_cases.ids(reader) == [
      i for i in range(100) if i not in (20, 40, 70)]
  assert sorted(row for row, _ in messages) == [21, 41, 71]
  with pytest.raises(errors.UserError, match=r'x\.csv row 21 must have 3'):
    reader_cases.ids(reader_cases.of_csv(path)[0])
  rows[20] = rows[0]
  path.write_text('\n'.join(rows) + '\n')
  with pytest.raises(errors.UserError, match=r'x\.csv row 41 ' + problem):
    reader_cases.ids(reader_cases.of_csv(path)[0])


def test_row_numbers_hold_in_later_slices(tmp_path, monkeypatch):
  monkeypatch.setattr(csv_reader, '_SLICE_BYTES', 300)
  path = tmp_path / 'x.csv'
  rows = reader_cases.lines(100)
  rows[90] = 'x,1,2'
  path.write_text('\n'.join(rows))
  with pytest.raises(errors.UserError, match='row 91 '):
    reader_cases.ids(reader_cases.of_csv(path)[0])


def test_skipped_rows_are_counted(tmp_path):
  path = tmp_path / 'x.csv'
  rows = reader_cases.lines(100)
  for i in range(0, 60, 2):
    rows[i] = 'x'
  path.write_text('\n'.join(rows))
  reader, bad = reader_cases.of_csv(path, skip=True)
  assert len(reader_cases.ids(reader)) == 70 and bad.skipped == 30


def test_header_names_the_columns_in_any_order(tmp_path):
  path = tmp_path / 'x.csv'
  path.write_text('word,more,id,y\na,0,7,1\nb,0,8,0\n')
  reader, _ = reader_cases.of_csv(path, header=True)
  reader.check()
  table, = reader.read(reader.slices()[0])
  assert table.column_names == ['y', 'id', 'word']
  assert table['id'].to_pylist() == [7, 8] and reader.count_rows() == 2
  path.write_text('word,more,id\na,0,7\n')
  with pytest.raises(errors.UserError, match='a header with y, got word, mor'):
    reader_cases.of_csv(path, header=True)[0].check()


def read(path, **kwargs):
  """(rows as (id, word), (row number, problem) of bad ones) of a file."""
  reader, bad = reader_cases.of_csv(path, skip=True, **kwargs)
  problems, rows = [], []
  bad.add = lambda path, row, problem: problems.append((row, problem))
  for piece in reader.slices():
    for table in reader.read(piece):
      rows += zip(table['id'].to_pylist(), table['word'].to_pylist())
  assert reader.count_rows() == len(rows) + len(problems)
  return rows, problems


NOT_CLOSED = 'has a quote that is not closed on its line'


@pytest.mark.parametrize('text, words, problems', [
    (b'1,1,"a,""b"""\n', [b'a,"b"'], []),
    (b'1,1,12" tv\n0,2,b\n', [b'12" tv', b'b'], []),
    (b'1,1,"a\n0,2,b\n1,3,c"\n', [b'b', b'c"'], [(1, NOT_CLOSED)]),
    (b'1,1,a\n0,2,"b', [b'a'], [(2, NOT_CLOSED)]),
    (b'1,1,"a\n\n0,2,"b\n1,3,c\n', [b'c'],
     [(1, NOT_CLOSED), (3, NOT_CLOSED)]),
    (b'\n\n1,1,a\n\n1,x,b\n\n', [b'a'],
     [(5, "column 'id' must be an integer in [0, 100000), got 'x'")]),
    (b'1,1,a\r0,2,b\r\n1,3,c\n\r0,4,d', [b'a', b'b', b'c', b'd'], []),
    (b'1,1,a\n \n', [b'a'], [(2, 'must have 3 columns, got 1')]),
    (b'\xef\xbb\xbf1,1,a\n', [b'a'], []),
    # The byte order mark is no line: the numbers do not shift.
    (b'\xef\xbb\xbf1,1\n1,1,a\n\n1,x,b\n', [b'a'],
     [(1, 'must have 3 columns, got 2'),
      (4, "column 'id' must be an integer in [0, 100000), got 'x'")]),
    (b'1,1,\xff\n1,\xff\n', [b'\xff'], [(2, 'must have 3 columns, got 2')]),
    (b'1,1,a\n1,\xff,b\n', [b'a'],
     [(2, "column 'id' must be an integer in [0, 100000), got '\ufffd'")]),
    (b'1,1,a\0b\n', [b'a\0b'], []),
])
@pytest.mark.parametrize('block, part', [(4, 5), (4, 64), (1 << 20, 1 << 20)])
def test_no_line_is_lost(tmp_path, monkeypatch, text, words, problems, block,
                         part):
  monkeypatch.setattr(csv_lines, '_BLOCK_BYTES', block)
  monkeypatch.setattr(csv_reader, '_SLICE_BYTES', part)
  path = tmp_path / 'x.csv'
  path.write_bytes(text)
  rows, found = read(path)
  assert [word for _, word in rows] == words and found == problems


def test_one_quote_in_a_large_file_spoils_one_row(tmp_path):
  path = tmp_path / 'x.csv'
  with open(str(path), 'w') as f:
    for i in range(300000):
      f.write('%d,%d,%stitle\n' % (i % 2, i % 100000, '"' if i == 100 else ''))
  rows, problems = read(path)
  assert len(rows) == 299999 and problems == [(101, NOT_CLOSED)]
  with pytest.raises(errors.UserError, match='x.csv row 101 has a quote that'):
    reader_cases.ids(reader_cases.of_csv(path)[0])


@pytest.mark.parametrize('dialect, text, words', [
    ({'quote': None}, '1,1,"a\n1,2,b"\n', [b'"a', b'b"']),
    ({'quote': "'"}, "1,1,'a,\"'\n", [b'a,"']),
    ({'escape': '\\'}, '1,1,"a\\"b"\n1,2,c\\,d\n', [b'a"b', b'c,d']),
    ({'delimiter': '\x01', 'quote': None}, '1\x011\x01a,b\n', [b'a,b']),
    ({'null_values': ('\\N', 'NULL')},
     '1,\\N,\\N\n1,NULL,"NULL"\n1,1,null\n', [b'', b'', b'null']),
])
def test_dialects(tmp_path, dialect, text, words):
  path = tmp_path / 'x.csv'
  path.write_text(text)
  rows, problems = read(path, dialect=csv_dialect.Dialect(**dialect))
  assert [word for _, word in rows] == words and not problems
  if 'null_values' in dialect:
    assert [i for i, _ in rows] == [-1, -1, 1]


def fields_of(line, quote, escape):
  """The fields of a line, character by character; None if it does not end."""
  fields, field, quoted, begun, i = [], '', False, False, 0
  while i < len(line):
    c = line[i]
    if c == escape:
      if i + 1 == len(line):
        return None
      i += 1
      field, begun = field + line[i], True
    elif quoted and c == quote:
      if line[i + 1:i + 2] == quote:
        i += 1
        field += quote
      else:
        quoted = False
    elif not begun and c == quote:
      quoted = begun = True
    elif c == ',' and not quoted:
      fields.append(field)
      field, begun = '', False
    else:
      field, begun = field + c, True
    i += 1
  return None if quoted else fields + [field]


@pytest.mark.parametrize('quote, escape', [
    ('"', None), (None, None), ('"', '\\'), (None, '\\')])
def test_random_files(tmp_path, monkeypatch, quote, escape):
  rng = random.Random(11)
  monkeypatch.setattr(csv_reader.files, 'remembered', lambda key, make: make())
  path, seen = tmp_path / 'x.csv', 0
  for _ in range(25):
    lines = [rng.choice(['1,7,%s', '1,7,%s', '%s', '1,%s,7', '']).replace(
        '%s', ''.join(rng.choice('ab,"\\') for _ in range(rng.randint(0, 6))))
             for _ in range(rng.randint(1, 30))]
    rows, bad = [], []
    for number, line in enumerate(lines, 1):
      fields = fields_of(line, quote, escape)
      if fields and len(fields) == 3 and fields[:2] in (['1', '7'], ['1', '']):
        rows.append(fields[2].encode())
      elif line:
        bad.append(number)
    # A blank line does not end in LF, which would be half of a CRLF after CR.
    path.write_bytes(''.join(line + rng.choice(
        ['\r', '\r\n'] + ['\n'] * bool(line)) for line in lines).encode())
    for block, part in [(5, 40), (1000, 1000)]:
      monkeypatch.setattr(csv_lines, '_BLOCK_BYTES', block)
      monkeypatch.setattr(csv_reader, '_SLICE_BYTES', part)
      found, problems = read(path, dialect=csv_dialect.Dialect(
          ',', quote, escape))
      assert [word for _, word in found] == rows
      assert [number for number, _ in problems] == bad
    seen += len(rows)
  assert seen > 60


def test_lines_that_only_arrow_refuses_are_bad_rows(tmp_path, monkeypatch):
  monkeypatch.setattr(
      csv_dialect.Splitter, 'problem', lambda self, line, num_columns: None)
  path = tmp_path / 'x.csv'
  lines = reader_cases.lines(50)
  lines[7], lines[30], lines[49] = '1,2', '1,2,"a', '1,2,"b'
  path.write_text('\n'.join(lines))
  rows, problems = read(path)
  assert [i for i, _ in rows] == [
      i for i in range(50) if i not in (7, 30, 49)]
  assert problems == [(row, 'cannot be split into 3 columns')
                      for row in (8, 31, 50)]


@pytest.mark.parametrize('text, message', [
    (b'\n1,a,3\n', 'must have a header with y, id, word, got 1, a, 3.'),
    (b'y,id,"word\n1,2,a\n', 'row 1, its header, has a quote that is not'),
    (b'\ny,id,w\xff\n1,2,a', r'a header with word, got y, id, w\\xff\.'),
    (b'y,id,word,id\n1,2,a,3', 'a header that names id once, got y, id, word'),
    (b'y,id,word\n', 'has no rows.'),
    (b'y,id,word\n\n\r\n', 'has no rows.'),
    (b'\n\n', 'has no rows.'),
])
def test_a_header_that_does_not_fit(tmp_path, text, message):
  path = tmp_path / 'x.csv'
  path.write_bytes(text)
  with pytest.raises(errors.UserError, match=message) as raised:
    reader_cases.of_csv(path, header=True)[0].check()
  assert str(raised.value).startswith(str(path))
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize('header', [False, True])
def test_files_without_rows_are_skipped_among_others(tmp_path, header, caplog):
  names = b'y,id,word\n' * header
  paths = [str(tmp_path / name) for name in 'abcd']
  for path, text in zip(paths, [names, b'\r\n\n', names + b'1,7,a\n', b'']):
    with open(path, 'wb') as f:
      f.write(text)
  def of(paths):
    return csv_reader.CsvReader(
        paths, reader_cases.SPEC.columns, row_checks.BadRows(False),
        ['y', 'id', 'word'], header)
  of(paths).check()
  assert reader_cases.ids(of(paths)) == [7] and of(paths).count_rows() == 1
  assert [r.getMessage() for r in caplog.records] == [
      'Skipped 3 files without rows, such as %s.' % paths[0]]
  with pytest.raises(errors.UserError, match='a has no rows, and no other of '
                     'the 3 files has'):
    of(paths[:2] + paths[3:]).check()


@pytest.mark.parametrize('text', [
    b'y,id,word\r1,7,a\n0,8,b\n', b'\n\ny,id,word\n\n1,7,a\n0,8,b\n\n',
    b'\xef\xbb\xbf"y",id,word,\xff,\xff\r\n1,7,a,,\r\n0,8,b,,',
    b'y,id,word\r1,7,a\r0,8,b'])
def test_headers_that_fit(tmp_path, text):
  path = tmp_path / 'x.csv'
  path.write_bytes(text)
  reader_cases.of_csv(path, header=True)[0].check()
  assert read(path, header=True) == ([(7, b'a'), (8, b'b')], [])


def packed(text, suffix):
  """Compresses bytes, by the standard library where it can."""
  if suffix == '.zst':
    return pa.compress(text, 'zstd', asbytes=True)
  return (gzip if suffix == '.gz' else bz2).compress(text)


@pytest.mark.parametrize('suffix', ['.gz', '.bz2', '.zst'])
@pytest.mark.parametrize('header', [False, True])
def test_compressed_files(tmp_path, monkeypatch, suffix, header):
  monkeypatch.setattr(csv_lines, '_BLOCK_BYTES', 100)
  monkeypatch.setattr(csv_reader, '_SLICE_BYTES', 100)
  lines = ['y,id,word'] * header + reader_cases.lines(100) + ['x', '']
  data = packed('\n'.join(lines).encode(), suffix)
  path = tmp_path / ('x.csv' + suffix)
  path.write_bytes(data)
  reader, _ = reader_cases.of_csv(path, header=header)
  reader.check()
  assert len(reader.slices(3, 10)) == 1 and reader.count_rows() == 101
  rows, problems = read(path, header=header)
  assert [i for i, _ in rows] == list(range(100))
  assert problems == [(101 + header, 'must have 3 columns, got 1')]
  for broken in (data[:len(data) // 2], b'1,1,a\n'):
    path.write_bytes(broken)
    with pytest.raises(errors.UserError, match='x.csv%s cannot be read as' %
                       suffix) as raised:
      read(path, header=header)
    assert '\n' not in str(raised.value)


# "1,7,a\n0,8,b\n" as the command zstd writes it: the last 4 bytes check it.
WITH_CHECKSUM = bytes.fromhex(
    '28b52ffd240c610000312c372c610a302c382c620a297cb2cd')


@pytest.mark.parametrize('suffix, data, at', [
    ('.zst', WITH_CHECKSUM, 11),
    ('.gz', gzip.compress(b'1,7,a\n0,8,b\n', 0), 17),
    ('.bz2', bz2.compress(b'1,7,a\n0,8,b\n'), 30)],
                         ids=['zst', 'gz', 'bz2'])  # gz has the time in it
def test_a_flipped_bit_is_seen_where_the_file_has_a_checksum(
    tmp_path, suffix, data, at):
  path = tmp_path / ('x.csv' + suffix)
  path.write_bytes(data)
  assert read(path) == ([(7, b'a'), (8, b'b')], [])
  path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
  with pytest.raises(errors.UserError, match='x.csv%s cannot be read as' %
                     suffix):
    read(path)


def test_parts_of_a_compressed_file_are_read_one_after_another(tmp_path):
  path = tmp_path / 'x.csv.gz'
  path.write_bytes(gzip.compress(b'1,1,a\n1,2') + gzip.compress(b',b\n1,3,c\n'))
  assert read(path) == ([(1, b'a'), (2, b'b'), (3, b'c')], [])


def test_lines_are_counted_once_until_the_file_changes(tmp_path, monkeypatch):
  path = tmp_path / 'a.csv'
  path.write_text('1,7,x\n0,8,y\n')
  counted = []
  count_lines = csv_lines.count
  monkeypatch.setattr(csv_lines, 'count', lambda *args: (
      counted.append(args), count_lines(*args))[1])

  def count():
    return reader_cases.of_csv(path)[0].count_rows()
  assert count() == 2 and count() == 2 and len(counted) == 1
  path.write_text('1,7,x\n0,8,y\n0,9,z')
  assert count() == 3 and len(counted) == 2
  monkeypatch.setenv('XDG_CACHE_HOME', '/proc/none')  # nothing can be kept
  assert count() == 3 and count() == 3 and len(counted) == 4
