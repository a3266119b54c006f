"""What every reader does: all rows once, in order, in slices."""

import pyarrow as pa
import pyarrow.parquet
import pytest
import reader_cases


@pytest.fixture(params=['csv', 'parquet'])
def made(request, tmp_path):
  """A reader of 1,000 rows with ids 0 to 999."""
  if request.param == 'csv':
    path = tmp_path / 'x.csv'
    path.write_text('\n'.join(reader_cases.lines(1000)))  # no last newline
    return reader_cases.of_csv(path)[0]
  path = tmp_path / 'x.parquet'
  pa.parquet.write_table(pa.table({
      'more': [0] * 1000, 'word': ['w'] * 1000, 'id': list(range(1000)),
      'y': [0.0] * 1000}), str(path), row_group_size=170)
  return reader_cases.of_parquet(path)[0]


@pytest.mark.parametrize('count', [1, 2, 3, 5, 40])
def test_shards_neither_overlap_nor_lose(made, count):
  slices = made.slices(at_least=count)
  shards = [reader_cases.ids(made, slices[i::count]) for i in range(count)]
  assert sorted(x for shard in shards for x in shard) == list(range(1000))
  assert all(shards)  # everyone has something to do


def test_rows_keep_their_order_and_are_counted(made):
  made.check()
  assert reader_cases.ids(made) == list(range(1000))
  assert made.count_rows() == 1000
