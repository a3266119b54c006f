"""Whole runs with weights in a column of their own and lists that are joint."""

import glob
import shutil

import experiments
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import serving_client
import tensorflow.compat.v1 as tf

from ple_estimator.engine import native
from ple_estimator.training import incremental

LIST = {'kind': 'hashed_list', 'num_buckets': 50}
HISTORY = dict(LIST, aligned='history', combiner='attention', joint=True)
COLUMNS = [
    {'name': 'click', 'kind': 'label', 'values': (0, 1)},
    {'name': 'item', 'kind': 'hashed', 'num_buckets': 50},
    {'name': 'day', 'kind': 'integer', 'num_buckets': 7, 'dim': 2},
    dict(LIST, name='tags', weights_column='scores'),
    {'name': 'scores', 'kind': 'weight_list'},
    dict(HISTORY, name='seen', query='item', max_items=3, keep='last'),
    dict(HISTORY, name='seen_day', query='day', dim=2, max_items=3,
         keep='last'),
]
READ = ('item', 'day', 'tags', 'scores', 'seen', 'seen_day')
BINDINGS = [
    'FeatureSpec.columns = %r' % COLUMNS, 'FeatureSpec.overrides = {}',
    'FeatureSpec.dim = 4', 'Model.interactions = [@Wide()]',
    'Model.tasks = [@ctr/Task()]', "ctr/Task.label = 'click'",
    'Model.attention = @Attention()', 'Attention.units = (6,)',
    'HashEmbedding.stddev = 1.0', 'Experiment.early_stopping = None',
    'Experiment.exports = None', 'Experiment.eval_input = None',
    'BATCH_SIZE = 50', 'lazy_adam.epsilon = 1e-3']


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
  """A folder with the same rows as lists in Parquet and as text in CSV."""
  folder = tmp_path_factory.mktemp('rows')
  rng = np.random.RandomState(4)
  found = {name: [] for name in ('click',) + READ}
  for _ in range(200):
    seen = rng.randint(20, size=rng.randint(6))
    tags = rng.randint(20, size=rng.randint(4))
    for name, value in [
        ('click', rng.randint(2)), ('item', 'i%d' % rng.randint(20)),
        ('day', rng.randint(7)), ('tags', ['t%d' % tag for tag in tags]),
        ('scores', rng.rand(len(tags)).round(3).tolist()),
        ('seen', ['i%d' % of for of in seen]),
        ('seen_day', ['' if of % 5 == 0 else str(of % 7) for of in seen])]:
      found[name].append(value)
  pa.parquet.write_table(pa.table(found), str(folder / 'x.parquet'))
  (folder / 'x.csv').write_text(''.join(
      ','.join(text_of(found[name][i]) for name in ('click',) + READ) + '\n'
      for i in range(200)))
  return folder


def text_of(value):
  return '|'.join(map(str, value)) if isinstance(value, list) else str(value)


def load(model_dir, rows, *bindings):
  return experiments.load('gin/csv.gin', model_dir, rows, *(
      BINDINGS + ["train/CsvInput.files = 'x.csv'"] + list(bindings)))


def train(model_dir, rows, steps, *bindings):
  with tf.Graph().as_default():
    load(model_dir, rows, 'Experiment.max_steps = %d' % steps,
         *bindings).train()
  return incremental.read(str(model_dir / ('model.ckpt-%d' % steps)))


@pytest.fixture(scope='module')
def trained(rows, tmp_path_factory):
  path = tmp_path_factory.mktemp('trained')
  return path, train(path, rows, 3)


def test_the_network_and_tables_are_trained(trained):
  _, found = trained
  assert found['attention/aligned_history/dense_0/kernel'].shape == (24, 6)
  assert found['dim_5_mean_weighted/embedding'].shape == (50, 5)
  assert np.abs(found['attention/aligned_history/logit/bias']).min() > 1e-4


@pytest.mark.slow
@pytest.mark.skipif(not native.available(), reason='needs the kernels')
def test_training_is_the_same_with_and_without_kernels(
    trained, rows, tmp_path):
  found = []
  for op_fusion in (True, False):
    folder = tmp_path / str(op_fusion)
    shutil.copytree(str(trained[0]), str(folder))
    found.append(train(folder, rows, 6, 'Model.op_fusion = %s' % op_fusion))
  fused, plain = found
  assert sorted(fused) == sorted(plain)
  for name, value in plain.items():
    np.testing.assert_allclose(
        fused[name], value, rtol=2e-3, atol=2e-5, err_msg=name)


def test_predictions_are_those_of_both_signatures_and_of_parquet(
    trained, rows, tmp_path):
  path, wanted = tmp_path / 'run', []
  shutil.copytree(str(trained[0]), str(path))
  for name, ending in [('CsvInput', 'csv'), ('ParquetInput', 'parquet')]:
    with tf.Graph().as_default():
      made = load(path, rows, 'Experiment.predict_input = @some/%s()' % name,
                  "some/%s.files = 'x.%s'" % (name, ending))
      wanted.append(np.concatenate(
          [of['ctr'] for of in made.predict().batches()]))
  made.export()
  np.testing.assert_allclose(*wanted, rtol=1e-4, atol=1e-6)
  saved, = glob.glob(str(path / 'export' / 'saved_model' / '*'))
  table = pa.parquet.read_table(str(rows / 'x.parquet'))
  sent = {name: [value if name == 'day' else text_of(value)
                 for value in table[name].to_pylist()] for name in READ}
  for found in serving_client.answers(saved, sent):
    np.testing.assert_allclose(
        found['ctr'], wanted[0], rtol=1e-4, atol=1e-6)
