"""Parquet files to tables: schemas, damage, bad rows."""

import inspect
import os
import subprocess
import sys

import conftest
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import reader_cases

from ple_estimator import errors
from ple_estimator.data import feature_spec
from ple_estimator.data import parquet_files
from ple_estimator.data import parquet_reader
from ple_estimator.data import row_checks


def test_parquet_names_file_and_row(tmp_path):
  path = tmp_path / 'x.parquet'
  pa.parquet.write_table(pa.table({
      'y': [0.0, None, 1.0, 1.0, 0.0], 'id': [1, 2, 3, 4, 100000],
      'word': ['a'] * 5}), str(path), row_group_size=2)
  with pytest.raises(errors.UserError, match=r'x\.parquet row 2 column .y.'):
    reader_cases.ids(reader_cases.of_parquet(path)[0])
  reader, bad = reader_cases.of_parquet(path, skip=True)
  assert reader_cases.ids(reader) == [1, 3, 4] and bad.skipped == 2
  reader, bad = reader_cases.of_parquet(path, skip=True, labels=False)
  assert reader_cases.ids(reader) == [1, 2, 3, 4]


@pytest.mark.parametrize('spoil, message', [
    (lambda b: b[:len(b) // 2], 'must be a whole Parquet file'),
    (lambda b: b'1,2,3\n', 'must be a whole Parquet file'),
])
def test_damaged_parquet_is_refused_at_once(tmp_path, spoil, message):
  path = tmp_path / 'x.parquet'
  pa.parquet.write_table(pa.table({'y': [0.0] * 1000}), str(path))
  path.write_bytes(spoil(path.read_bytes()))
  with pytest.raises(errors.UserError, match=message):
    reader_cases.of_parquet(path)[0].check()


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
  reader, _ = reader_cases.of_parquet(path)
  reader.check()
  with pytest.raises(errors.UserError, match='row group 1 cannot be read'):
    reader_cases.ids(reader)


def test_parquet_without_rows_is_refused_at_once(tmp_path):
  path = tmp_path / 'x.parquet'
  pa.parquet.write_table(pa.table({
      'y': pa.array([], pa.float32()), 'id': pa.array([], pa.int64()),
      'word': pa.array([], pa.string())}), str(path))
  with pytest.raises(errors.UserError, match='x.parquet has no rows'):
    reader_cases.of_parquet(path)[0].check()


def test_parquet_schema_is_checked(tmp_path):
  path = tmp_path / 'x.parquet'
  pa.parquet.write_table(pa.table({'y': [0.0], 'id': [1]}), str(path))
  with pytest.raises(errors.UserError, match="a column 'word', got y, id"):
    reader_cases.of_parquet(path)[0].check()
  pa.parquet.write_table(
      pa.table({'y': [0.0], 'id': [[1]], 'word': ['a']}), str(path))
  with pytest.raises(errors.UserError, match="'id' must be an integer, or text "
                     'or another number that is one, got list'):
    reader_cases.of_parquet(path)[0].check()


def write(path, **columns):
  path.parent.mkdir(parents=True, exist_ok=True)
  pa.parquet.write_table(pa.table(columns), str(path))
  return str(path)


def rows_of(paths, *columns, skip=False):
  """What the reader makes of files, as a dict of lists, after its check."""
  made = parquet_reader.ParquetReader(
      paths, feature_spec.FeatureSpec(list(columns)).columns,
      row_checks.BadRows(skip))
  made.check()
  return pa.concat_tables([
      table for piece in made.slices() for table in made.read(piece)
  ]).to_pydict()


NUMBER = {'name': 'x', 'kind': 'number', 'default': 0.5}


def test_parts_without_rows_or_values(tmp_path, caplog):
  paths = [
      write(tmp_path / 'a.parquet', x=pa.array([], pa.null())),
      write(tmp_path / 'b.parquet', x=[1.5, None]),
      write(tmp_path / 'c.parquet', x=pa.nulls(2)),
      write(tmp_path / 'd.parquet', y=pa.array([], pa.string()))]
  assert rows_of(paths, NUMBER) == {'x': [1.5, 0.5, 0.5, 0.5]}
  assert caplog.records[-1].getMessage() == (
      'Skipped 2 files without rows, such as %s.' % paths[0])
  with pytest.raises(errors.UserError, match='a.parquet has no rows, and no '
                     'other of the 2 files has'):
    rows_of([paths[0], paths[3]], NUMBER)


def test_a_column_that_folders_name(tmp_path):
  paths = [
      write(tmp_path / 'dt=2024-01-01' / 'h=7' / 'a.parquet', x=[1.5, 2.5]),
      write(tmp_path / 'dt=__HIVE_DEFAULT_PARTITION__' / 'h=8' / 'b.parquet',
            x=[3.5], h=[5])]
  columns = [NUMBER, {'name': 'dt', 'kind': 'hashed', 'num_buckets': 9},
             {'name': 'h', 'kind': 'integer', 'num_buckets': 24}]
  assert rows_of(paths, *columns) == {
      'x': [1.5, 2.5, 3.5], 'dt': [b'2024-01-01'] * 2 + [b''],
      'h': [7, 7, 5]}  # a file's own column counts
  assert rows_of(paths[:1], *columns[1:]) == {
      'dt': [b'2024-01-01'] * 2, 'h': [7, 7]}
  with pytest.raises(errors.UserError, match="a.parquet row 1 column 'dt' must "
                     "be an integer in .0, 9., got '2024-01-01'"):
    rows_of(paths, {'name': 'dt', 'kind': 'integer', 'num_buckets': 9})
  with pytest.raises(errors.UserError, match="must have a column 'day', got x"):
    rows_of(paths, {'name': 'day', 'kind': 'integer', 'num_buckets': 9})


def test_a_column_that_is_there_twice(tmp_path):
  path = str(tmp_path / 'x.parquet')
  pa.parquet.write_table(pa.Table.from_arrays(
      [pa.array([1.0]), pa.array([2.0]), pa.array([3.0]), pa.array([4.0])],
      ['x', 'x', 'y', 'y']), path)
  with pytest.raises(errors.UserError, match="x.parquet must have one column "
                     "'x', got 2 of this name"):
    rows_of([path], NUMBER)
  pa.parquet.write_table(pa.Table.from_arrays(
      [pa.array([1.0]), pa.array([3.0]), pa.array([4.0])],
      ['x', 'y', 'y']), path)
  assert rows_of([path], NUMBER) == {'x': [1.0]}  # nobody wants y


def test_a_name_that_is_not_utf8(tmp_path):
  path = write(tmp_path / 'x.parquet', x=[1.0], abcd=[1.0])
  data = (tmp_path / 'x.parquet').read_bytes()
  (tmp_path / 'x.parquet').write_bytes(data.replace(b'abcd', b'ab\xff\xfe'))
  with pytest.raises(errors.UserError) as raised:
    rows_of([path], NUMBER)
  assert 'x.parquet must ' in str(raised.value)
  assert '\n' not in str(raised.value)


def test_items_that_are_not_utf8(tmp_path):
  many = {'name': 'x', 'kind': 'hashed_list', 'num_buckets': 9}
  text = pa.array([b'a', b'\xff|b', b'c\xff'], pa.binary())
  lists = pa.ListArray.from_arrays(
      pa.array([0, 1, 2, 3], pa.int32()), pa.Array.from_buffers(
          pa.string(), 3, text.buffers()))
  path = write(tmp_path / 'x.parquet', x=lists)
  with pytest.raises(errors.UserError) as raised:
    rows_of([path], many)
  assert str(raised.value) == (
      "%s row 2 column 'x' must have items of text or whole numbers of at most "
      "2^53, without the separator '|' inside, got ['\ufffd|b']." % path)
  assert rows_of([path], many, skip=True) == {'x': [b'a', b'c\xff']}
  path = write(tmp_path / 'y.parquet', x=lists.flatten())
  with pytest.raises(errors.UserError, match="y.parquet row 1 column 'x' must "
                     "be a number, got 'a'"):
    rows_of([path], NUMBER)
  with pytest.raises(errors.UserError, match="got '\ufffd.b'"):
    write(tmp_path / 'z.parquet', x=lists.flatten()[1:])
    rows_of([str(tmp_path / 'z.parquet')], NUMBER)


CODE = """
import os
import sys
import pyarrow as pa
import pyarrow.parquet
class Type(pa.PyExtensionType):
  def __init__(self):
    super().__init__(pa.float64())
  def __reduce__(self):
    return os.mkdir, (sys.argv[2],)
pa.parquet.write_table(pa.table({'x': pa.ExtensionArray.from_storage(
    Type(), pa.array([1.0, 2.0]))}), sys.argv[1])
"""
OPEN = """
import sys
from ple_estimator.data import parquet_files
try:
  parquet_files.opened(sys.argv[1])
except ValueError as error:
  print(error)
"""


def test_code_in_a_file_is_not_run(tmp_path):
  path, marker = str(tmp_path / 'x.parquet'), str(tmp_path / 'marker')
  made = subprocess.run(
      [sys.executable, '-W', 'ignore', '-c', CODE, path, marker])
  if made.returncode:
    pytest.skip('this pyarrow cannot write such a file')
  assert os.path.exists(path) and not os.path.exists(marker)
  said = subprocess.run(
      [sys.executable, '-c', OPEN, path], stdout=subprocess.PIPE,
      env=dict(os.environ, PYTHONPATH=conftest.ROOT)).stdout.decode()
  assert not os.path.exists(marker)
  assert said == (
      "%s must be a whole Parquet file, got: a column has the extension type "
      "'arrow.py_extension_type', which runs code of the file "
      '(CVE-2023-47248), and is refused\n' % path)


def test_code_in_a_file_would_be_run(tmp_path):
  """By pyarrow as it is; otherwise the test above would prove nothing."""
  if int(pa.__version__.split('.')[0]) >= 14:
    pytest.skip('pyarrow has mended it')
  path, marker = str(tmp_path / 'x.parquet'), str(tmp_path / 'marker')
  subprocess.check_call([sys.executable, '-c', CODE, path, marker])
  subprocess.run([sys.executable, '-c', 'import sys, pyarrow.parquet as p; '
                  'p.ParquetFile(sys.argv[1])', path], stderr=subprocess.PIPE)
  assert os.path.exists(marker)


@pytest.mark.skipif(
    'write_page_checksum' not in inspect.signature(
        pa.parquet.ParquetWriter.__init__).parameters,
    reason='this pyarrow writes no checksums')
def test_checksums_find_a_flipped_bit(tmp_path):
  path = tmp_path / 'x.parquet'
  table = pa.table({'x': np.arange(1000.0)})
  with parquet_files.writer(str(path), table.schema) as made:
    made.write_table(table)
  assert rows_of([str(path)], NUMBER)['x'][-1] == 999
  data = bytearray(path.read_bytes())
  chunk = parquet_files.opened(str(path)).metadata.row_group(0).column(0)
  data[chunk.data_page_offset - 20] ^= 1  # a value of the dictionary
  path.write_bytes(bytes(data))
  with pytest.raises(errors.UserError, match='x.parquet row group 0 cannot be '
                     'read: .*CRC checksum'):
    rows_of([str(path)], NUMBER)
