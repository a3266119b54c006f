"""`ple-estimator csv-to-parquet`: rows, splits, and what it refuses."""

import inspect
import os
import subprocess
import sys

import conftest
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from ple_estimator.data import parquet_files
from ple_estimator.data import predictions


def test_converted_csv_is_the_parquet(command, made, tmp_path):
  out = tmp_path / 'x.parquet'
  status, said, error = command(
      'csv-to-parquet', made / 'taobao_test_data', '--out', out,
      '--row-group-size', 7000)
  assert status == 0, error
  assert said == '%s: 20000 rows\n' % out
  got, wanted = [pa.parquet.read_table(str(p)) for p in (
      out, made / 'taobao_test_data.parquet')]
  assert got.column_names == wanted.column_names
  for name in wanted.column_names:
    assert got[name].to_pylist() == wanted[name].to_pylist(), name
  found = pa.parquet.ParquetFile(str(out)).metadata
  assert [found.row_group(i).num_rows for i in range(3)] == [7000, 7000, 6000]
  assert got.schema.field('user_id').type == pa.string()
  assert got.schema.field('price').type == pa.int64()


def test_split_leaves_no_user_on_both_sides(command, made, tmp_path):
  status, said, error = command(
      'csv-to-parquet', made / 'taobao_test_data', '--out',
      tmp_path / 'x', '--split-by', 'user_id', '--test-fraction', 0.25)
  assert status == 0, error
  train, test = [pa.parquet.read_table(str(tmp_path / n))['user_id']
                 for n in ('x_train.parquet', 'x_test.parquet')]
  assert len(train) + len(test) == 20000
  assert not set(train.to_pylist()) & set(test.to_pylist())
  assert 0.2 < len(test) / 20000 < 0.3


def test_validation_rows_are_drawn_at_random(command, made, tmp_path):
  args = ['csv-to-parquet', made / 'taobao_test_data', '--out',
          tmp_path / 'my_train_data', '--validation', 0.25]
  status, said, error = command(*args)
  assert status == 0, error
  found = [pa.parquet.read_table(str(tmp_path / ('my_%s_data.parquet' % part)))
           for part in ('train', 'validation')]
  assert 0.23 < found[1].num_rows / 20000 < 0.27
  with open(str(made / 'taobao_test_data')) as f:
    keys = [tuple(line.split(',')[i] for i in (3, 8, 19)) for line in f]
  chosen = np.random.RandomState(2021).random_sample(20000) < 0.25
  for table, here in zip(found, (~chosen, chosen)):
    assert list(zip(*[table[name].to_pylist() for name in (
        'adgroup_id', 'user_id')] + [map(str, table['price'].to_pylist())])
    ) == [(ad, user, price.strip()) for (ad, user, price), take
          in zip(keys, here) if take]
  assert command(*args + ['--seed', 7])[0] == 0
  other = pa.parquet.read_table(str(tmp_path / 'my_validation_data.parquet'))
  assert not other.equals(found[1])
  assert command('csv-to-parquet', made / 'taobao_test_data', '--out',
                 tmp_path / 'x', '--validation', 0.5)[0] == 0
  assert (tmp_path / 'x_validation.parquet').exists()


def test_split_in_three_leaves_no_user_in_two(command, made, tmp_path):
  status, said, error = command(
      'csv-to-parquet', made / 'taobao_test_data', '--out', tmp_path / 'x',
      '--split-by', 'user_id', '--test-fraction', 0.2, '--validation', 0.25)
  assert status == 0, error
  found = [pa.parquet.read_table(str(tmp_path / name))['user_id'].to_pylist()
           for name in ('x_train.parquet', 'x_validation.parquet',
                        'x_test.parquet')]
  assert sum(map(len, found)) == 20000
  users = [set(part) for part in found]
  assert len(set().union(*users)) == sum(map(len, users))
  for part, share in zip(users, (0.6, 0.2, 0.2)):
    assert abs(len(part) / sum(map(len, users)) - share) < 0.04


def test_conversion_refuses_a_bad_row_and_leaves_nothing(
    command, made, tmp_path):
  rows = (made / 'taobao_test_data').read_text().splitlines()
  rows[15000] = rows[15000].rsplit(',', 1)[0]
  path = tmp_path / 'bad'
  path.write_text('\n'.join(rows))
  status, said, error = command(
      'csv-to-parquet', path)
  assert status == 1 and error == (
      'ple-estimator csv-to-parquet: %s row 15001 must have 20 columns, got '
      '19.\n' % path)
  assert os.listdir(str(tmp_path)) == ['bad']
  status, said, error = command(
      'csv-to-parquet', path, '--skip-bad-rows')
  assert status == 0
  assert '19999 rows\n1 bad rows skipped\n' in said


def test_conversion_ignores_no_option(command, made):
  status, said, error = command(
      'csv-to-parquet', made / 'taobao_test_data',
      '--test-fraction', 0.25)
  assert status == 2
  assert '--test-fraction needs --split-by' in error
  for options in (['--seed', 1], ['--seed', 1, '--validation', 0.5,
                                  '--split-by', 'user_id']):
    status, said, error = command(
        'csv-to-parquet', made / 'taobao_test_data', *options)
    assert status == 2
    assert '--seed needs --validation without --split-by' in error


def test_conversion_refuses_a_validation_file_without_rows(command, tmp_path):
  (tmp_path / 'x.gin').write_text(
      "FeatureSpec.columns = [{'name': 'x', 'kind': 'number'}]\n")
  (tmp_path / 'x').write_text('1\n2\n')
  status, _, error = command(
      'csv-to-parquet', tmp_path / 'x', '--gin_file', tmp_path / 'x.gin',
      '--validation', 1e-9)
  assert status == 1 and error == (
      'ple-estimator csv-to-parquet: --validation 1e-09 leaves no row for '
      '%s_validation.parquet: choose another share, or another --seed.\n'
      % (tmp_path / 'x'))
  assert sorted(os.listdir(str(tmp_path))) == ['x', 'x.gin']


@pytest.mark.parametrize('args, message', [
    (['nope'], "arguments must name existing files, got 'nope'"),
    (['{}', '--split-by', 'user'], '--split-by must be a column (clk, buy, '),
    (['{}', '--gin_file', 'gin/nope.gin'], 'must name an existing file'),
    (['{}*'], '--out must be given for more than one file'),
    (['{}', '{}.parquet'], '--out must be given for more than one file'),
])
def test_conversion_refuses(command, made, args, message):
  args = [a.format(made / 'taobao_test_data') for a in args]
  status, said, error = command(
      'csv-to-parquet', *args)
  assert status == 1 and message in error
  assert 'Traceback' not in error


def test_converted_missing_integer_is_read_as_missing(
    command, tmp_path, monkeypatch):
  monkeypatch.chdir(str(tmp_path))
  (tmp_path / 'x.gin').write_text(
      "FeatureSpec.columns = [\n"
      "  {'name': 'day', 'kind': 'integer', 'num_buckets': 7},\n"
      "  {'name': 'x', 'kind': 'number', 'default': 2.5}]\n")
  (tmp_path / 'x.csv').write_text('3,1\n,\n')
  status, said, error = command(
      'csv-to-parquet', 'x.csv', '--gin_file', 'x.gin')
  assert status == 0, error
  table = pa.parquet.read_table(str(tmp_path / 'x.csv.parquet'))
  assert table['day'].to_pylist() == [3, None]
  assert table['x'].to_pylist() == [1, 2.5]


def test_conversion_of_a_dialect(command, tmp_path):
  (tmp_path / 'x.gin').write_text(
      "FeatureSpec.columns = [\n"
      "  {'name': 'word', 'kind': 'hashed', 'num_buckets': 7, 'dim': 2},\n"
      "  {'name': 'x', 'kind': 'number', 'default': 2.5}]\n")
  (tmp_path / 'x.csv').write_text("'a;b';1\nc~;d;-\n\n")
  args = ['csv-to-parquet', tmp_path / 'x.csv', '--gin_file',
          tmp_path / 'x.gin', '--delimiter', ';']
  status, _, error = command(
      *args + ['--quote', "'", '--escape', '~', '--null_values', 'NULL', '-'])
  assert status == 0, error
  table = pa.parquet.read_table(str(tmp_path / 'x.csv.parquet'))
  assert table.to_pydict() == {'word': ['a;b', 'c;d'], 'x': [1, 2.5]}
  status, _, error = command(*args + ['--quote', ';'])
  assert status == 2 and '--quote must differ from the delimiter' in error
  status, _, error = command(*args + ['--out', 's3://bucket/x'])
  assert status == 1 and "--out must be a path, got the URL 's3://" in error


@pytest.mark.parametrize('gin_file', ['gin/base.gin', 'gin/work_queue.gin'])
def test_a_whole_experiment_says_the_columns(command, tmp_path, gin_file):
  (tmp_path / 'x.csv').write_text(
      '1,0,p,a,c,m,u,b,i,s,g,f,l,v,h,o,n,t|u,w,7\n' * 3)
  status, said, error = command(
      'csv-to-parquet', tmp_path / 'x.csv', '--gin_file', gin_file)
  assert status == 0, error
  assert said == '%s.parquet: 3 rows\n' % (tmp_path / 'x.csv')


@pytest.mark.skipif(
    'write_page_checksum' not in inspect.signature(
        pa.parquet.ParquetWriter.__init__).parameters,
    reason='this pyarrow writes no checksums')
def test_all_that_writes_parquet_writes_checksums(command, made, tmp_path):
  source = made / 'taobao_test_data'
  status, _, error = command(
      'csv-to-parquet', source, '--out', tmp_path / 'x.parquet')
  assert status == 0, error
  predictions.write(str(tmp_path / 'p.parquet'), [{'price': np.arange(99)}])
  for path in (tmp_path / 'x.parquet', tmp_path / 'p.parquet',
               made / 'taobao_test_data.parquet'):
    data = bytearray(path.read_bytes())
    found = pa.parquet.ParquetFile(str(path))
    column = found.metadata.row_group(0).column(
        found.schema_arrow.names.index('price'))
    data[column.data_page_offset - 1] ^= 1  # the end of the dictionary
    (tmp_path / 'flipped').write_bytes(bytes(data))
    with pytest.raises(OSError, match='CRC checksum'):
      parquet_files.opened(str(tmp_path / 'flipped')).read(['price'])


@pytest.mark.slow
def test_conversion_runs_in_constant_memory(many_rows):
  code = ('import sys; sys.path[:0] = ["tools", "tests"]; '
          'import conftest; from ple_estimator.commands import csv_to_parquet; '
          'csv_to_parquet.main(sys.argv[1:]); print(conftest.peak_mb())')
  peaks = []
  for copies in (50, 250):
    out = subprocess.check_output(
        [sys.executable, '-c', code, many_rows(copies)],
        cwd=conftest.ROOT).decode().split()
    assert int(out[-3]) == 3000 * copies
    peaks.append(int(out[-1]))
  print('peak RSS in MB at 150,000 and 750,000 rows: %s' % peaks)
  assert peaks[1] < 1.15 * peaks[0]
