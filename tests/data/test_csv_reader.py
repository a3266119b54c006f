"""CSV files to tables: lines, blocks, headers, bad rows."""

import pytest
import reader_cases

from ple_estimator import errors
from ple_estimator.data import csv_lines
from ple_estimator.data import csv_reader


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


def test_quotes_are_understood(tmp_path):
  path = tmp_path / 'x.csv'
  path.write_text('1,7,"a,""b"""\n')
  reader, _ = reader_cases.of_csv(path)
  table, = reader.read(reader.slices()[0])
  assert table['word'].to_pylist() == [b'a,"b"']


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
