"""The tools, run as a user runs them."""

import json
import os
import subprocess
import sys

import benchmark
import conftest
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf


def tool(name, *args, **kwargs):
  return subprocess.run(
      [sys.executable, os.path.join(conftest.ROOT, 'tools', name + '.py')]
      + list(map(str, args)), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      universal_newlines=True, cwd=kwargs.get('cwd', conftest.ROOT),
      env=dict(os.environ, PYTHONPATH=conftest.ROOT))


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  path = tmp_path_factory.mktemp('made')
  done = tool('make_data', '--out', path, '--train', 60000, '--test', 20000)
  assert done.returncode == 0, done.stderr
  return path


def test_rows_have_the_shape_of_the_real_ones(made):
  table = pa.parquet.read_table(str(made / 'taobao_train_data.parquet'))
  columns = {n: np.array(table[n].to_pylist()) for n in table.column_names}
  # Rates of the real rows; a popular user or ad moves them by some percent.
  for name, value, rate in [
      ('cms_segid', '', 0.0425), ('pvalue_level', '', 0.5276),
      ('new_user_class_level', '', 0.2402), ('tag_category_list', '', 0.4202),
      ('brand', 'NULL', 0.3161)]:
    assert abs((columns[name] == value).mean() - rate) < 0.05, name
  tags = [t.split('|') for t in columns['tag_brand_list'] if t]
  assert max(map(len, tags)) == 50 and 25 < np.mean(list(map(len, tags))) < 37
  assert columns['price'].min() == 0 and columns['price'].max() == 49
  assert not (columns['buy'] > columns['clk']).any()
  counts = np.sort(np.unique(columns['adgroup_id'], return_counts=True)[1])
  assert counts[-30:].sum() > 5 * counts[:30].sum()  # a heavy tail


def test_csv_and_parquet_hold_the_same_rows(made):
  table = pa.parquet.read_table(str(made / 'taobao_test_data.parquet'))
  with open(str(made / 'taobao_test_data')) as f:
    rows = [line.rstrip('\n').split(',') for line in f]
  assert rows == [[str(x) for x in row]
                  for row in zip(*table.to_pydict().values())]


def test_ceiling_is_that_of_the_probabilities(made):
  with open(str(made / 'ceiling.json')) as f:
    ceiling = json.load(f)
  table = pa.parquet.read_table(str(made / 'taobao_test_data.parquet'))
  for task in ('clk', 'buy'):
    assert ceiling[task]['positives'] == sum(table[task].to_pylist())
    assert 0.75 < ceiling[task]['auc'] < 0.97
    rate = np.mean(table[task].to_pylist())
    entropy = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    assert ceiling[task]['log_loss'] < 0.9 * entropy


def test_data_depends_on_the_seed_alone(made, tmp_path):
  for seed, same in [(2021, True), (7, False)]:
    out = tmp_path / str(seed)
    assert not tool('make_data', '--out', out, '--train', 1000, '--test', 20000,
                    '--seed', seed).returncode
    assert (out.joinpath('taobao_test_data').read_bytes() ==
            made.joinpath('taobao_test_data').read_bytes()) == same


def test_data_that_is_there_is_not_overwritten(tmp_path):
  (tmp_path / 'taobao_train_data').write_text('mine')
  args = ['--out', tmp_path, '--train', 100, '--test', 100]
  done = tool('make_data', *args)
  assert done.returncode and 'has taobao_train_data already' in done.stderr
  assert (tmp_path / 'taobao_train_data').read_text() == 'mine'
  assert not tool('make_data', '--force', *args).returncode


def test_converted_csv_is_the_parquet(made, tmp_path):
  out = tmp_path / 'x.parquet'
  done = tool('csv_to_parquet', made / 'taobao_test_data', '--out', out,
              '--row-group-size', 7000)
  assert done.returncode == 0, done.stderr
  assert done.stdout == '%s: 20000 rows\n' % out
  got, wanted = [pa.parquet.read_table(str(p)) for p in (
      out, made / 'taobao_test_data.parquet')]
  assert got.column_names == wanted.column_names
  for name in wanted.column_names:
    assert got[name].to_pylist() == wanted[name].to_pylist(), name
  found = pa.parquet.ParquetFile(str(out)).metadata
  assert [found.row_group(i).num_rows for i in range(3)] == [7000, 7000, 6000]
  assert got.schema.field('user_id').type == pa.string()
  assert got.schema.field('price').type == pa.int64()


def test_split_leaves_no_user_on_both_sides(made, tmp_path):
  done = tool('csv_to_parquet', made / 'taobao_test_data', '--out',
              tmp_path / 'x', '--split-by', 'user_id', '--test-fraction', 0.25)
  assert done.returncode == 0, done.stderr
  train, test = [pa.parquet.read_table(str(tmp_path / n))['user_id']
                 for n in ('x_train.parquet', 'x_test.parquet')]
  assert len(train) + len(test) == 20000
  assert not set(train.to_pylist()) & set(test.to_pylist())
  assert 0.2 < len(test) / 20000 < 0.3


def test_conversion_refuses_a_bad_row_and_leaves_nothing(made, tmp_path):
  rows = (made / 'taobao_test_data').read_text().splitlines()
  rows[15000] = rows[15000].rsplit(',', 1)[0]
  path = tmp_path / 'bad'
  path.write_text('\n'.join(rows))
  done = tool('csv_to_parquet', path)
  assert done.returncode == 1 and done.stderr == (
      'csv_to_parquet: %s row 15001 must have 20 columns, got 19.\n' % path)
  assert os.listdir(str(tmp_path)) == ['bad']
  done = tool('csv_to_parquet', path, '--skip-bad-rows')
  assert done.returncode == 0
  assert '19999 rows\n1 bad rows skipped\n' in done.stdout


def test_conversion_ignores_no_option(made):
  done = tool('csv_to_parquet', made / 'taobao_test_data',
              '--test-fraction', 0.25)
  assert done.returncode == 2
  assert '--test-fraction needs --split-by' in done.stderr


@pytest.mark.parametrize('args, message', [
    (['nope'], "arguments must name existing files, got 'nope'"),
    (['{}', '--split-by', 'user'], '--split-by must be a column (clk, buy, '),
    (['{}', '--gin_file', 'gin/nope.gin'], 'must name an existing file'),
    (['{}*'], '--out must be given for more than one file'),
    (['{}', '{}.parquet'], '--out must be given for more than one file'),
])
def test_conversion_refuses(made, args, message):
  args = [a.format(made / 'taobao_test_data') for a in args]
  done = tool('csv_to_parquet', *args)
  assert done.returncode == 1 and message in done.stderr
  assert 'Traceback' not in done.stderr


def test_converted_missing_integer_is_read_as_missing(tmp_path):
  (tmp_path / 'x.gin').write_text(
      'import ple_estimator.features\n'
      "FeatureSpec.columns = [\n"
      "  {'name': 'day', 'kind': 'integer', 'num_buckets': 7},\n"
      "  {'name': 'x', 'kind': 'number', 'default': 2.5}]\n")
  (tmp_path / 'x.csv').write_text('3,1\n,\n')
  done = tool('csv_to_parquet', 'x.csv', '--gin_file', 'x.gin', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  table = pa.parquet.read_table(str(tmp_path / 'x.csv.parquet'))
  assert table['day'].to_pylist() == [3, None]
  assert table['x'].to_pylist() == [1, 2.5]


@pytest.mark.slow
@pytest.mark.parametrize('rows', [500000, 2000000])
def test_conversion_runs_in_constant_memory(tmp_path, rows):
  tool('make_data', '--out', tmp_path, '--train', rows, '--test', 1000)
  code = ('import sys; sys.path[:0] = ["tools", "tests"]; '
          'import conftest, csv_to_parquet; '
          'csv_to_parquet.main(sys.argv[1:]); print(conftest.peak_mb())')
  out = subprocess.check_output(
      [sys.executable, '-c', code, str(tmp_path / 'taobao_train_data')],
      cwd=conftest.ROOT).decode().split()
  assert int(out[-3]) == rows
  assert int(out[-1]) < 900  # MB, most of it TensorFlow


def test_benchmark_reports_ratios_of_the_same_round():
  runs = [{'steps_per_second': rate, 'peak_rss_mb': 100 * i}
          for i, rate in enumerate([20.0, 12.0, 20.0])]
  row = benchmark.summary('a', runs, [10.0, 8.0, 5.0])
  assert row['ratio'] == 2.0 and row['ratio_range'] == [1.5, 4.0]
  row.update(dtype='float32', roofline=0.5, limit=0.25)
  assert list(benchmark.markdown([row]))[2] == (
      '| a | - | float32 | - | - | 20.0 | - | 2.00 (1.50 to 4.00) | 50 % | '
      '25 % | - | 100 MB | - |')


def test_benchmark_finds_the_costliest_ops():
  events = [{'ph': 'X', 'dur': dur, 'args': {'op': op}} for op, dur in [
      ('MatMul', 1500), ('Add', 200), ('MatMul', 500)]]
  trace = {'traceEvents': events + [{'ph': 'M', 'args': {'name': 'x'}}]}
  assert list(benchmark.costliest(trace))[2:] == [
      '| MatMul | 2.00 | 2 |', '| Add | 0.20 | 1 |']


@pytest.mark.slow
def test_benchmark_runs_recipe_and_experiment(taobao, tmp_path):
  done = tool('benchmark', 'gin/base.gin', '--data', taobao, '--pairs', '1',
              '--steps', '20', '--batch_size', '64', '--epochs', '1', '--json',
              tmp_path / 'out.json')
  assert done.returncode == 0, done.stderr
  rows = json.loads((tmp_path / 'out.json').read_text())
  assert [row['name'] for row in rows] == ['stock recipe', 'gin/base.gin']
  assert rows[0]['ratio'] == 1
  for row in rows:
    assert row['steps_per_second'] > 0 and row['peak_rss_mb'] > 100
    assert 0 < row['cpu_seconds_per_1000_steps'] < 10000
    assert 0.3 < row['auc'] < 0.9
  assert 1 < rows[1]['start_up_seconds'] < 60
  assert '| gin/base.gin | TensorFlow ' in done.stdout


@pytest.mark.slow
def test_benchmark_compares_experiments_without_the_recipe(taobao):
  done = tool('benchmark', 'gin/base.gin', 'gin/mmoe.gin', '--data', taobao,
              '--pairs', '1', '--steps', '20', '--batch_size', '64',
              '--no_recipe')
  assert done.returncode == 0, done.stderr
  rows = [line for line in done.stdout.splitlines() if line.startswith('| gin')]
  assert [row.split(' | ')[0] for row in rows] == [
      '| gin/base.gin', '| gin/mmoe.gin']
  assert '| 1.00 (1.00 to 1.00) |' in rows[0] and 'recipe' not in done.stdout


def test_benchmark_times_the_input_alone(taobao):
  done = tool('benchmark', 'gin/base.gin', 'gin/csv.gin', '--data', taobao,
              '--input', '--steps', '50', '--cpus', '0')
  assert done.returncode == 0, done.stderr
  rates = [line.split()[1] for line in done.stdout.splitlines()]
  assert len(rates) == 2 and min(map(int, rates)) > 5


@pytest.mark.slow
def test_profile_lists_ops(taobao, tmp_path):
  done = tool('benchmark', 'gin/base.gin', '--data', taobao, '--batch_size',
              '64', '--profile', cwd=str(tmp_path))
  assert done.returncode == 0, done.stderr
  assert '| PleNetsGrad |' in done.stdout
  assert (tmp_path / 'timeline-base.json').exists()


def test_report_is_a_table_of_runs(tmp_path):
  (tmp_path / 'base').mkdir()
  (tmp_path / 'base' / 'metrics.json').write_text(
      '{"ctr/auc": 0.5, "cvr/auc": null, "global_step": 7}')
  (tmp_path / 'ceiling.json').write_text(json.dumps(
      {t: {'auc': 0.75, 'log_loss': 0.25} for t in ('clk', 'buy')}))
  done = tool('report', tmp_path / 'base', '--ceiling',
              tmp_path / 'ceiling.json', '--metrics', 'ctr/auc', 'cvr/auc')
  assert done.stdout.splitlines()[2:] == [
      '| ceiling |  | 0.7500 | 0.7500 |  |', '| base | 7 | 0.5000 | - | - |']
  done = tool('report', tmp_path / 'nope')
  assert done.returncode == 1 and 'nope' in done.stderr


def test_inspect_embeddings_counts_what_a_checkpoint_holds(tmp_path):
  names = {'t/embedding-keys': np.array([3, 5, 9]),
           't/embedding-values': np.array([[1, 1], [0, 0], [0, 2]], 'f'),
           't/embedding-freqs': np.array([1, 2, 9]),
           't/embedding-versions': np.array([0, 0, 0]),
           't/embedding/Adam-values': np.zeros([3, 2], 'f'),
           't/embedding-keys_filtered': np.array([4]),
           't/embedding-freqs_filtered': np.array([1]),
           't/embedding-versions_filtered': np.array([0])}
  path = str(tmp_path / 'model.ckpt-7')
  save = tf.raw_ops.SaveV2(
      prefix=path, tensor_names=list(names),
      shape_and_slices=[''] * len(names), tensors=list(names.values()))
  with tf.Session() as session:
    session.run(save)
  done = tool('inspect_embeddings', path, '--picture', tmp_path / 'p.svg')
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  # Rows and slots 48 bytes, three numbers a key 72, four hash entries 192.
  assert lines[2] == '| t/embedding | 2 | 3 | 1 | 0.0 | 0.0 |'
  cells = [line.split()[:2] for line in lines if line.startswith('  ')]
  assert cells[:4] == [['1', '2'], ['2-3', '1'], ['4-7', '0'], ['8-15', '1']]
  norms = [int(count) for _, count in cells[4:]]
  assert norms == [1] + [0] * 5 + [1] + [0] * 4 + [1]  # 0, 1 and 2 of 2
  picture = (tmp_path / 'p.svg').read_text(encoding='utf-8')
  assert picture.count('<rect x=') == 4 + 12
  done = tool('inspect_embeddings', tmp_path / 'nope')
  assert done.returncode == 1 and 'no checkpoint at' in done.stderr


def test_make_data_draws_from_as_many_users_as_told(tmp_path):
  done = tool('make_data', '--out', tmp_path, '--train', '3000', '--test', '10',
              '--users', '100000', '--ads', '20000')
  assert done.returncode == 0, done.stderr
  rows = pa.parquet.read_table(str(tmp_path / 'taobao_train_data.parquet'))
  assert len(set(rows['user_id'].to_pylist())) > 2500
  done = tool('make_data', '--out', tmp_path / 'x', '--ads', '0')
  assert done.returncode == 2 and '--ads to 250000' in done.stderr
