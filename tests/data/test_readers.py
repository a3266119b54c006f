"""Files to tables: rows, slices, bad rows, shuffling."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from ple_estimator import errors
from ple_estimator.data import feature_spec
from ple_estimator.data import readers
from ple_estimator.data import stream

SPEC = feature_spec.FeatureSpec([
    {'name': 'y', 'kind': 'label'},
    {'name': 'id', 'kind': 'integer', 'num_buckets': 100000},
    {'name': 'word', 'kind': 'hashed', 'num_buckets': 7},
])


def lines(count, start=0):
  return ['%d,%d,w%s' % (i % 2, i, 'x' * (i % 13))
          for i in range(start, start + count)]


def csv_reader(path, skip=False, header=False, spec=SPEC, labels=True):
  bad = readers.BadRows(skip)
  made = readers.CsvReader([str(path)], spec, spec.read(labels), bad, header,
                           ',')
  return made, bad


def parquet_reader(path, skip=False, labels=True):
  bad = readers.BadRows(skip)
  return readers.ParquetReader([str(path)], SPEC.read(labels), bad), bad


def ids(reader, slices=None):
  return [x for piece in (slices or reader.slices())
          for table in reader.read(piece) for x in table['id'].to_pylist()]


@pytest.fixture(params=['csv', 'parquet'])
def made(request, tmp_path):
  """A reader of 1,000 rows with ids 0 to 999."""
  if request.param == 'csv':
    path = tmp_path / 'x.csv'
    path.write_text('\n'.join(lines(1000)))  # no newline at the end
    return csv_reader(path)[0]
  path = tmp_path / 'x.parquet'
  pa.parquet.write_table(pa.table({
      'more': [0] * 1000, 'word': ['w'] * 1000, 'id': list(range(1000)),
      'y': [0.0] * 1000}), str(path), row_group_size=170)
  return parquet_reader(path)[0]


@pytest.mark.parametrize('count', [1, 2, 3, 5, 40])
def test_shards_neither_overlap_nor_lose(made, count):
  slices = made.slices(at_least=count)
  shards = [ids(made, slices[i::count]) for i in range(count)]
  assert sorted(x for shard in shards for x in shard) == list(range(1000))
  assert all(shards)  # everyone has something to do


def test_rows_keep_their_order_and_are_counted(made):
  made.check()
  assert ids(made) == list(range(1000))
  assert made.count_rows() == 1000


def test_blocks_and_slices_of_csv_are_cut_at_lines(tmp_path, monkeypatch):
  monkeypatch.setattr(readers, '_CSV_BLOCK_BYTES', 200)
  monkeypatch.setattr(readers, '_CSV_SLICE_BYTES', 333)
  path = tmp_path / 'x.csv'
  path.write_text('\n'.join(lines(500)) + '\n')
  reader, _ = csv_reader(path)
  assert len(reader.slices()) > 20
  assert ids(reader) == list(range(500))
  assert reader.count_rows() == 500


@pytest.mark.parametrize('block', [100, 1 << 20])
@pytest.mark.parametrize('bad_line, problem', [
    ('1,2', 'must have 3 columns, got 2'),
    ('1,2,a,b', 'must have 3 columns, got 4'),
    ('one,2,a', "column 'y' must be a number, got 'one'"),
    ('1,100000,a', r"column 'id' must be an integer in \[0, 100000\), got"),
    ('1,-1,a', "column 'id' must be an integer"),
    ('', "column 'y' must be a number, got ''"),
])
def test_csv_names_file_and_row(tmp_path, monkeypatch, bad_line, problem,
                                block):
  monkeypatch.setattr(readers, '_CSV_BLOCK_BYTES', block)
  path = tmp_path / 'x.csv'
  rows = lines(100)
  # Lines that Arrow drops must not shift the numbers of those behind.
  rows[20], rows[40], rows[70] = '1,2,3,4', bad_line, bad_line
  path.write_text('\n'.join(rows) + '\n')
  reader, bad = csv_reader(path, skip=True)
  messages = []
  bad.add = lambda path, row, problem: messages.append((row, problem))
  assert ids(reader) == [i for i in range(100) if i not in (20, 40, 70)]
  assert sorted(row for row, _ in messages) == [21, 41, 71]
  with pytest.raises(errors.UserError, match=r'x\.csv row 21 must have 3'):
    ids(csv_reader(path)[0])
  rows[20] = rows[0]
  path.write_text('\n'.join(rows) + '\n')
  with pytest.raises(errors.UserError, match=r'x\.csv row 41 ' + problem):
    ids(csv_reader(path)[0])


def test_row_numbers_hold_in_later_slices(tmp_path, monkeypatch):
  monkeypatch.setattr(readers, '_CSV_SLICE_BYTES', 300)
  path = tmp_path / 'x.csv'
  rows = lines(100)
  rows[90] = 'x,1,2'
  path.write_text('\n'.join(rows))
  with pytest.raises(errors.UserError, match='row 91 '):
    ids(csv_reader(path)[0])


def test_skipped_rows_are_counted(tmp_path):
  path = tmp_path / 'x.csv'
  rows = lines(100)
  for i in range(0, 60, 2):
    rows[i] = 'x'
  path.write_text('\n'.join(rows))
  reader, bad = csv_reader(path, skip=True)
  assert len(ids(reader)) == 70 and bad.skipped == 30


def test_parquet_names_file_and_row(tmp_path):
  path = tmp_path / 'x.parquet'
  pa.parquet.write_table(pa.table({
      'y': [0.0, None, 1.0, 1.0, 0.0], 'id': [1, 2, 3, 4, 100000],
      'word': ['a'] * 5}), str(path), row_group_size=2)
  with pytest.raises(errors.UserError, match=r'x\.parquet row 2 column .y.'):
    ids(parquet_reader(path)[0])
  reader, bad = parquet_reader(path, skip=True)
  assert ids(reader) == [1, 3, 4] and bad.skipped == 2
  reader, bad = parquet_reader(path, skip=True, labels=False)
  assert ids(reader) == [1, 2, 3, 4]


def test_header_names_the_columns_in_any_order(tmp_path):
  path = tmp_path / 'x.csv'
  path.write_text('word,more,id,y\na,0,7,1\nb,0,8,0\n')
  reader, _ = csv_reader(path, header=True)
  reader.check()
  table, = reader.read(reader.slices()[0])
  assert table.column_names == ['y', 'id', 'word']
  assert table['id'].to_pylist() == [7, 8] and reader.count_rows() == 2
  path.write_text('word,more,id\na,0,7\n')
  with pytest.raises(errors.UserError, match='a header with y, got word, mor'):
    csv_reader(path, header=True)[0].check()


def test_quotes_are_understood(tmp_path):
  path = tmp_path / 'x.csv'
  path.write_text('1,7,"a,""b"""\n')
  table, = csv_reader(path)[0].read(csv_reader(path)[0].slices()[0])
  assert table['word'].to_pylist() == [b'a,"b"']


@pytest.mark.parametrize('spoil, message', [
    (lambda b: b[:len(b) // 2], 'must be a whole Parquet file'),
    (lambda b: b'1,2,3\n', 'must be a whole Parquet file'),
])
def test_damaged_parquet_is_refused_at_once(tmp_path, spoil, message):
  path = tmp_path / 'x.parquet'
  pa.parquet.write_table(pa.table({'y': [0.0] * 1000}), str(path))
  path.write_bytes(spoil(path.read_bytes()))
  with pytest.raises(errors.UserError, match=message):
    parquet_reader(path)[0].check()


def test_damaged_row_group_is_named(tmp_path):
  path = tmp_path / 'x.parquet'
  pa.parquet.write_table(
      pa.table({'y': np.random.rand(1000), 'id': list(range(1000)),
                'word': ['w'] * 1000}), str(path), row_group_size=500)
  data = bytearray(path.read_bytes())
  start = pa.parquet.ParquetFile(str(path)).metadata.row_group(1).column(
      0).data_page_offset
  data[start:start + 40] = b'\xff' * 40
  path.write_bytes(bytes(data))
  reader, _ = parquet_reader(path)
  reader.check()
  with pytest.raises(errors.UserError, match='row group 1 cannot be read'):
    ids(reader)


def test_parquet_without_rows_is_refused_at_once(tmp_path):
  path = tmp_path / 'x.parquet'
  pa.parquet.write_table(pa.table({
      'y': pa.array([], pa.float32()), 'id': pa.array([], pa.int64()),
      'word': pa.array([], pa.string())}), str(path))
  with pytest.raises(errors.UserError, match='x.parquet has no rows'):
    parquet_reader(path)[0].check()


def test_parquet_schema_is_checked(tmp_path):
  path = tmp_path / 'x.parquet'
  pa.parquet.write_table(pa.table({'y': [0.0], 'id': [1]}), str(path))
  with pytest.raises(errors.UserError, match="a column 'word', got y, id"):
    parquet_reader(path)[0].check()
  pa.parquet.write_table(
      pa.table({'y': [0.0], 'id': ['1'], 'word': ['a']}), str(path))
  with pytest.raises(errors.UserError, match="'id' must be integer, got str"):
    parquet_reader(path)[0].check()


def test_files_are_found(tmp_path):
  for name in ['b.parquet', 'a.parquet', '_SUCCESS', 'c.csv']:
    (tmp_path / name).write_text('x')
  def found(files, suffix=''):
    paths = readers.find_files(str(tmp_path), files, suffix, 'In.files')
    return [p[len(str(tmp_path)) + 1:] for p in paths]
  assert found('*.parquet') == ['a.parquet', 'b.parquet']
  assert found(['c.csv', 'a.parquet']) == ['c.csv', 'a.parquet']
  assert [p.lstrip('./') for p in found('.', '.parquet')] == [
      'a.parquet', 'b.parquet']
  with pytest.raises(errors.UserError, match="In.files must name existing fil"
                     "es, got 'nope': nothing at /.*nope"):
    found('nope')
  assert found(['a.parquet', '*.parquet']) == ['a.parquet', 'b.parquet']
  (tmp_path / 'a.parquet').write_text('')
  with pytest.raises(errors.UserError, match='a.parquet is empty'):
    found('*.parquet')


def tables(count, size):
  for start in range(0, count, size):
    yield pa.table({'id': list(range(start, min(count, start + size)))})


def test_shuffle_is_a_permutation_that_mixes():
  out = [x for t in stream.shuffled(
      tables(1000, 77), 200, np.random.RandomState(1))
         for x in t['id'].to_pylist()]
  assert sorted(out) == list(range(1000)) and out != sorted(out)
  # Neighbours end up apart, and the buffer bounds how early a row can come.
  assert np.abs(np.diff(out)).mean() > 40
  assert all(x < 100 * (i // 100) + 200 for i, x in enumerate(out))


def test_shuffle_depends_on_the_seed_alone():
  def order(size, seed):
    return [x for t in stream.shuffled(
        tables(1000, size), 300, np.random.RandomState(seed))
            for x in t['id'].to_pylist()]
  assert order(77, 1) == order(500, 1) != order(77, 2)


@pytest.mark.parametrize('drop, sizes', [(False, [32] * 31 + [8]),
                                         (True, [32] * 31)])
def test_batches_have_one_size(drop, sizes):
  got = list(stream.batched(tables(1000, 77), 32, drop))
  assert [t.num_rows for t in got] == sizes
  assert [x for t in got for x in t['id'].to_pylist()] == list(
      range(sum(sizes)))


def test_lines_are_counted_once_until_the_file_changes(tmp_path, monkeypatch):
  path = tmp_path / 'a.csv'
  path.write_text('1,x\n2,y\n')
  counted = []
  count_lines = readers._count_lines
  monkeypatch.setattr(readers, '_count_lines', lambda *args: (
      counted.append(args), count_lines(*args))[1])
  spec = feature_spec.FeatureSpec([{'name': 'a', 'kind': 'label'},
                               {'name': 'b', 'kind': 'hashed',
                                'num_buckets': 3}])

  def count():
    return readers.CsvReader([str(path)], spec, spec.columns,
                             readers.BadRows(False), False, ',').count_rows()
  assert count() == 2 and count() == 2 and len(counted) == 1
  path.write_text('1,x\n2,y\n3,z')
  assert count() == 3 and len(counted) == 2
  monkeypatch.setenv('XDG_CACHE_HOME', '/proc/none')  # nothing can be kept
  assert count() == 3 and count() == 3 and len(counted) == 4
