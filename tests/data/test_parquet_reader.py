"""Parquet files to tables: schemas, damage, bad rows."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import reader_cases

from ple_estimator import errors


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
