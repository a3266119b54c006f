"""Rows of label 0 that are left out, and what trains on the rest."""

import conftest
import gin
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from ple_estimator import config
from ple_estimator import experiment
from ple_estimator.data import inputs
from ple_estimator.data import reader
from ple_estimator.data import sampling

PIECE = reader.Slice('/data/dt=1/a.parquet', 2, 500, 900)


def test_a_chance_is_of_the_place_of_a_row():
  whole = sampling.chances(PIECE, 0, 40000)
  assert whole.dtype == np.float32 and (whole >= 0).all() and (whole < 1).all()
  np.testing.assert_array_equal(
      whole[700:], sampling.chances(PIECE, 700, 39300))
  # As evenly spread as uniform numbers, and not like those of another slice.
  shares = np.histogram(whole, 20, (0, 1))[0] / 40000
  assert abs(shares - 0.05).max() < 5 * np.sqrt(0.05 * 0.95 / 40000)
  for other in (PIECE._replace(group=3), PIECE._replace(start=0),
                PIECE._replace(path='/data/dt=1/b.parquet')):
    found = sampling.chances(other, 0, 40000)
    assert abs(np.corrcoef(whole, found)[0, 1]) < 0.03
  assert abs(np.corrcoef(whole[1:], whole[:-1])[0, 1]) < 0.03
  np.testing.assert_array_equal(whole, sampling.chances(
      PIECE._replace(path='/elsewhere/a.parquet'), 0, 40000))


def table(count, first=0):
  numbers = np.arange(first, first + count)
  return pa.table({
      'n': numbers, 'clk': (numbers % 3 == 0).astype('f'),
      'buy': (numbers % 6 == 0).astype('f'),
      'town': pa.array([b'x' if n % 2 else b'y' for n in numbers],
                       pa.binary())})


def kept(rules):
  tables = [table(1000), table(0), table(1000, 1000)]
  found = list(sampling.sampled(tables, PIECE, rules))
  return np.concatenate([t['n'].to_numpy() for t in found]), np.concatenate(
      [t[sampling.CHANCE].to_numpy() for t in found])


def test_rows_that_no_task_counts_are_left_out():
  n, chance = kept((sampling.Rule('clk', 0.2, None),))
  every = sampling.chances(PIECE, 0, 2000)
  wanted = np.flatnonzero((np.arange(2000) % 3 == 0) | (
      every < np.float32(0.2)))
  np.testing.assert_array_equal(n, wanted)
  np.testing.assert_array_equal(chance, every[wanted])
  # Two tasks: a row counts if it does for one of them.
  n, _ = kept((sampling.Rule('clk', 0.1, None),
               sampling.Rule('buy', 0.5, ('town', 'x'))))
  place = np.arange(2000)
  np.testing.assert_array_equal(n, np.flatnonzero(
      (place % 3 == 0) | (every < np.float32(0.1)) |
      ((place % 2 == 1) & ((place % 6 == 0) | (every < 0.5)))))
  # One that counts all rows of its space.
  n, _ = kept((sampling.Rule('clk', 0.1, None),
               sampling.Rule(None, 1.0, ('clk', 0))))
  assert len(n) == 2000
  tables = [table(5)]
  assert list(sampling.sampled(tables, PIECE, ())) == tables


GIN = '''
include 'gin/base.gin'
FeatureSpec.columns = [
    {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
    {'name': 'buy', 'kind': 'label', 'values': (0, 1)},
    {'name': 'n', 'kind': 'number', 'std': 1000},
    {'name': 'ad', 'kind': 'integer', 'num_buckets': 4},
]
Model.interactions = [@Wide()]
Model.network = None
Model.averaging = None
Model.embedding_dropout = 0.0
Task.tower = None
'''
RATE = ['ctr/Task.negative_rate = 0.2', 'Model.tasks = [@ctr/Task()]']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """20,000 rows, in which the rate of label 1 depends on the ad."""
  path = tmp_path_factory.mktemp('rows')
  rng = np.random.RandomState(7)
  ad = rng.randint(0, 4, 20000)
  found = pa.table({
      'clk': (rng.rand(20000) < np.array([.02, .05, .1, .2])[ad]).astype(int),
      'buy': rng.randint(0, 2, 20000), 'n': np.arange(20000), 'ad': ad})
  pa.parquet.write_table(found, str(path / 'rows.parquet'), 5000)
  with pa.csv.CSVWriter(str(path / 'rows.csv'), found.schema) as writer:
    writer.write_table(found)
  (path / 'x.gin').write_text(GIN)
  return path


def load(folder, model_dir, *bindings):
  gin.clear_config()
  config.load(str(folder / 'x.gin'), [
      'Experiment.model_dir = %r' % str(model_dir),
      'DATA_DIR = %r' % str(folder), 'Experiment.test_input = None',
      'Experiment.exports = None', 'Experiment.early_stopping = None',
      "train/ParquetInput.files = 'rows.parquet'", 'BATCH_SIZE = 200',
      "eval/ParquetInput.files = 'rows.parquet'", 'EPOCHS = 5',
      'lazy_adam.learning_rate = 0.02'] + list(bindings))
  return experiment.Experiment()


@pytest.mark.slow
@pytest.mark.parametrize('fused', [
    pytest.param(True, marks=conftest.needs_kernels), False])
def test_predictions_are_those_of_all_rows(folder, fused, tmp_path):
  made = load(folder, tmp_path, 'Model.op_fusion = %s' % fused, *RATE)
  made.train()
  found = made.evaluate()
  rows = pa.parquet.read_table(str(folder / 'rows.parquet'))
  clk, ad = rows['clk'].to_numpy(), rows['ad'].to_numpy()
  # The rows of an evaluation are all rows.
  assert found['ctr/label/mean'] == pytest.approx(clk.mean(), rel=1e-4)
  assert found['ctr/calibration'] == pytest.approx(1, abs=0.1)
  predicted = pa.parquet.read_table(made.predict().path)['ctr'].to_numpy()
  for value in range(4):
    rate = clk[ad == value].mean()
    assert predicted[ad == value].mean() == pytest.approx(rate, rel=0.2)
  # Five epochs of the rows that are left.
  left = 0
  for group in range(4):
    piece = reader.Slice('rows.parquet', group, 0, 5000)
    at = slice(5000 * group, 5000 * group + 5000)
    left += (clk[at].astype(bool) | (
        sampling.chances(piece, 0, 5000) < np.float32(0.2))).sum()
  assert found['global_step'] == -(-5 * left // 200)


@pytest.mark.parametrize('kind', ['Csv', 'Parquet'])
def test_every_epoch_has_the_same_rows(folder, kind, tmp_path):
  model = load(folder, tmp_path, *RATE).model
  source = getattr(inputs, kind + 'Input')(
      'rows.' + kind.lower(), str(folder), 1000, 3000, 2, **(
          {'header': True} if kind == 'Csv' else {}))
  read = model.training_reading()
  assert model.reading().rules == () and read.rules
  tables = list(source.tables(read, seed=3))
  n = np.concatenate([t['n'].to_numpy() for t in tables])
  half = source.count_rows(read)
  assert len(n) == 2 * half and 4000 < half < 7000
  assert sorted(n[:half]) == sorted(n[half:]) and (n[:half] != n[half:]).any()
  assert len(set(n)) == half
  # Processes that share the rows have them once.
  parts = [np.concatenate([t['n'].to_numpy() for t in source.tables(
      read, shard=(i, 3))]) for i in range(3)]
  total = sum(map(len, parts))
  assert abs(total - 2 * half) < 300
  if kind == 'Parquet':  # where the slices are those of one process
    assert sorted(np.concatenate(parts)) == sorted(n)


def test_a_row_that_another_task_needs_has_no_weight_in_this_one(
    folder, tmp_path):
  made = load(folder, tmp_path, 'ctr/Task.negative_rate = 0.2', 'EPOCHS = 1')
  made.train()
  found = made.evaluate()
  assert found['global_step'] == 100  # cvr needs all rows
  read = made.model.training_reading()
  assert [rule.rate for rule in read.rules] == [0.2, 1.0]
  assert found['ctr/prediction/mean'] < 0.2
