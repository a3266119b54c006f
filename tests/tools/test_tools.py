"""The tools, run as a user runs them."""

import json

import benchmark
import benchmark_table
from conftest import tool
from experiments import FEW_COLUMNS
from experiments import SMALL
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch_recipe


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


def test_benchmark_reports_ratios_of_the_same_round():
  runs = [{'steps_per_second': rate, 'peak_rss_mb': 100 * i}
          for i, rate in enumerate([20.0, 12.0, 20.0])]
  row = benchmark_table.summary('a', runs, [10.0, 8.0, 5.0])
  assert row['ratio'] == 2.0 and row['ratio_range'] == [1.5, 4.0]
  row.update(dtype='float32', roofline=0.5, limit=0.25)
  assert list(benchmark_table.markdown([row]))[2] == (
      '| a | - | float32 | - | - | 20.0 | - | 2.00 (1.50 to 4.00) | 50 % | '
      '25 % | - | 100 MB | - |')


# Of the experiment; the recipe has one size.
QUICK = ['--gin_bindings=' + line for line in SMALL + FEW_COLUMNS if
         'BATCH_SIZE' not in line]


@pytest.mark.slow
def test_benchmark_runs_recipe_and_experiment(taobao, tmp_path):
  done = tool('benchmark', 'gin/base.gin', '--data', taobao, '--pairs', '1',
              '--steps', '20', '--batch_size', '200', '--epochs', '1', '--json',
              tmp_path / 'out.json', *QUICK)
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
              '--no_recipe', *QUICK)
  assert done.returncode == 0, done.stderr
  rows = [line for line in done.stdout.splitlines() if line.startswith('| gin')]
  assert [row.split(' | ')[0] for row in rows] == [
      '| gin/base.gin', '| gin/mmoe.gin']
  assert '| 1.00 (1.00 to 1.00) |' in rows[0] and 'recipe' not in done.stdout


@pytest.mark.slow
def test_benchmark_compares_an_experiment_with_a_tuned_peer(taobao, tmp_path):
  done = tool('benchmark', 'gin/base.gin', '--data', taobao, '--pairs', '1',
              '--steps', '20', '--batch_size', '512', '--no_recipe', '--peers',
              'torch', '--json', tmp_path / 'out.json', *QUICK)
  if 'benchmark.py: error: --peers' in done.stderr:
    pytest.skip(done.stderr.splitlines()[-1])
  assert done.returncode == 0, done.stderr
  peer, own = json.loads((tmp_path / 'out.json').read_text())
  assert (peer['name'], peer['dtype']) == ('torch', 'float32')
  assert peer['framework'].startswith('PyTorch 2.')
  assert own['framework'].startswith('TensorFlow ')
  assert peer['ratio'] == 1
  assert own['ratio'] == own['steps_per_second'] / peer['steps_per_second']
  assert peer['examples_per_second'] == 512 * peer['steps_per_second']
  assert 200 < peer['peak_rss_mb'] < 3000


def test_benchmark_refuses_a_peer_that_cannot_run(monkeypatch):
  monkeypatch.setattr(torch_recipe, 'has_bfloat16', lambda: False)
  with pytest.raises(ValueError, match='bfloat16 needs a processor with'):
    benchmark.check_peers(['torch', 'torch-bfloat16'])


@pytest.mark.slow
def test_benchmark_times_the_input_alone(taobao):
  done = tool('benchmark', 'gin/base.gin', 'gin/csv.gin', '--data', taobao,
              '--input', '--steps', '50', '--cpus', '0')
  assert done.returncode == 0, done.stderr
  rates = [line.split()[1] for line in done.stdout.splitlines()]
  assert len(rates) == 2 and min(map(int, rates)) > 5


@pytest.mark.slow
def test_make_data_draws_from_as_many_users_as_told(tmp_path):
  done = tool('make_data', '--out', tmp_path, '--train', '3000', '--test', '10',
              '--users', '100000', '--ads', '20000')
  assert done.returncode == 0, done.stderr
  rows = pa.parquet.read_table(str(tmp_path / 'taobao_train_data.parquet'))
  assert len(set(rows['user_id'].to_pylist())) > 2500
  done = tool('make_data', '--out', tmp_path / 'x', '--ads', '0')
  assert done.returncode == 2 and '--ads to 250000' in done.stderr
