"""Columns that share a table in whole runs."""

import os
import re
import shutil

import conftest
import experiments
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import files
from ple_estimator.commands import inspect_embeddings
from ple_estimator.data import packing
from ple_estimator.engine import native
from ple_estimator.training import incremental

LABELS = [{'name': 'clk', 'kind': 'label', 'values': (0, 1)},
          {'name': 'buy', 'kind': 'label', 'values': (0, 1)}]
CANDIDATE = {'name': 'cate_id', 'kind': 'hashed', 'num_buckets': 300}
HISTORY = {'name': 'tag_category_list', 'kind': 'hashed_list',
           'num_buckets': 300}
OTHERS = [{'name': 'tag_brand_list', 'kind': 'hashed_list', 'num_buckets': 100},
          {'name': 'price', 'kind': 'integer', 'num_buckets': 50}]
BASE = ['Experiment.eval_input = None', 'Experiment.exports = None',
        'Experiment.early_stopping = None', 'run_config.save_steps = 100',
        'FeatureSpec.overrides = {}', 'lazy_adam.epsilon = 1e-3',
        'Model.interactions = [@Wide(), @FwFM()]', 'FwFM.dim = 3']
EV = ['EmbeddingVariable.capacity = 20_000']
TABLE = 'table_category/embedding'


def columns(table='category', *others):
  """The binding of the columns; None shares no table."""
  shared = {'table': table} if table else {}
  return 'FeatureSpec.columns = %r' % (LABELS + [
      dict(CANDIDATE, **shared), dict(HISTORY, **shared)] + list(
          others or OTHERS))


def load(gin_file, model_dir, taobao, *bindings):
  return experiments.load('gin/%s.gin' % gin_file, model_dir, taobao, *(
      BASE + EV * (gin_file == 'ev') + list(bindings)))


def train(gin_file, model_dir, taobao, *bindings, steps=5):
  with tf.Graph().as_default():
    made = load(gin_file, model_dir, taobao, *(
        ['Experiment.max_steps = %d' % steps] + list(bindings)))
    made.train()
  return made


def tensors(model_dir, step):
  return incremental.read(str(model_dir / ('model.ckpt-%d' % step)))


def by_key(found, table, ending='-values'):
  return dict(zip(found[table + '-keys'].tolist(), found[table + ending]))


@pytest.fixture(scope='module')
def older(taobao, tmp_path_factory):
  """The model_dir of a model that was trained for 5 steps."""
  found = {}

  def of(gin_file, table):
    if (gin_file, table) not in found:
      found[gin_file, table] = tmp_path_factory.mktemp(gin_file)
      train(gin_file, found[gin_file, table], taobao, columns(table))
    return found[gin_file, table]

  return of


@pytest.mark.skipif(not native.available(), reason='needs the kernels')
@pytest.mark.parametrize('gin_file', [
    'base', pytest.param('ev', marks=pytest.mark.slow)])
def test_training_is_the_same_with_and_without_kernels(
    older, taobao, tmp_path, gin_file):
  # From one checkpoint: initial values depend on the ops of the graph.
  found = []
  for op_fusion in (True, False):
    folder = tmp_path / str(op_fusion)
    shutil.copytree(str(older(gin_file, 'category')), str(folder))
    train(gin_file, folder, taobao, columns(),
          'Model.op_fusion = %s' % op_fusion, steps=10)
    found.append(tensors(folder, 10))
  fused, plain = found
  assert sorted(fused) == sorted(plain)
  ending = '-values' if gin_file == 'ev' else ''
  assert TABLE + ending in fused and TABLE + '/Adam' + ending in fused
  for name, value in plain.items():
    np.testing.assert_allclose(
        fused[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize('gin_file', [
    'base', pytest.param('ev', marks=pytest.mark.slow)])
def test_served_answers_are_the_predictions(older, taobao, tmp_path, gin_file):
  shutil.copytree(str(older(gin_file, 'category')), str(tmp_path / 'run'))
  with tf.Graph().as_default():
    made = load(gin_file, tmp_path / 'run', taobao, columns(),
                'Experiment.predict_input = @eval/ParquetInput()')
    wanted = np.concatenate([of['ctr'] for of in made.predict().batches()])
    made.export()
  for found in experiments.served(tmp_path / 'run', taobao, tmp_path,
                                  'cate_id tag_category_list tag_brand_list '
                                  'price'.split()):
    np.testing.assert_allclose(found['ctr'], wanted, rtol=1e-4)


@pytest.mark.slow
def test_inspect_embeddings_shows_the_table(older, capsys):
  assert inspect_embeddings.main([str(older('ev', 'category'))]) == 0
  assert '| %s |' % TABLE in capsys.readouterr().out


def example():
  """The columns of gin/README.md, which are to work as they stand."""
  with open(os.path.join(conftest.ROOT, 'gin', 'README.md')) as f:
    return ' '.join(re.search(
        r'### A history and the item.*?```\n(.*?)```', f.read(),
        re.S).group(1).split())


def test_the_columns_of_the_documentation_are_trained(tmp_path):
  rng = np.random.RandomState(4)
  lines = ['click,item,category,history_item,history_category,history_weekday']
  for _ in range(200):
    item, history = rng.randint(50), rng.randint(50, size=rng.randint(60))
    lines.append('%d,%d,%d,%s,%s,%s' % (
        item % 5 in history % 5, item, item % 5, *['|'.join(map(str, of))
         for of in (history, history % 5, history % 7)]))
  (tmp_path / 'x.csv').write_text('\n'.join(lines) + '\n')
  train('csv', tmp_path / 'run', tmp_path, example(),
        "CsvInput.files = 'x.csv'", "train/CsvInput.files = 'x.csv'",
        'CsvInput.header = True',
        'Model.tasks = [@ctr/Task()]', "ctr/Task.label = 'click'",
        "FeatureSpec.overrides = {'item': {'num_buckets': 1000}, "
        "'history_item': {'num_buckets': 1000}}", steps=2)
  found = tensors(tmp_path / 'run', 2)
  assert found['table_item/embedding'].shape == (1000, 20)
  assert found['table_category/embedding'].shape == (1000, 20)
  assert found['dim_20_mean/embedding'].shape == (20, 20)


# --------------------------------------------------------------- a warm start


def start(gin_file, model_dir, taobao, source, *bindings):
  """Starts a model from another: (tensors, lines of the report by name)."""
  train(gin_file, model_dir, taobao, 'WarmStart.source = %r' % str(source),
        'Experiment.warm_start = @WarmStart()', 'WarmStart.averages = False',
        'lazy_adam.learning_rate = 1e-30', *bindings, steps=1)
  return tensors(model_dir, 0)


def reported(model_dir):
  """What is said of each variable: a dict of name to (taken, why)."""
  said = files.read_json(str(model_dir / 'warm_start.json'),
                         keys={'variables': list})
  return {of['name']: (of['taken'], of['why']) for of in said['variables']}


def texts_of(taobao, column):
  """The different values of a column in the training rows."""
  fields = pa.parquet.read_table(
      taobao + '/taobao_train_data.parquet', columns=[column]).column(0)
  return {item for field in fields.to_pylist() for item in (
      field or '').split('|') if item}


def hashes(values, num_buckets):
  with tf.Graph().as_default(), tf.Session() as sess:
    return sess.run(
        tf.strings.to_hash_bucket_fast(sorted(values), num_buckets)).tolist()


@pytest.mark.slow
def test_a_table_is_taken_whole_under_another_name(older, taobao, tmp_path):
  source = older('base', 'category')
  now = start('base', tmp_path, taobao, source, columns('cate'))
  for ending in ('', '/Adam'):
    np.testing.assert_array_equal(now['table_cate/embedding' + ending],
                                  tensors(source, 5)[TABLE + ending])
  said = reported(tmp_path)
  assert said['table_cate/embedding [cate_id]'] == ('taken', '')
  assert said['table_cate/embedding [tag_category_list]'] == (
      'taken', 'has the rows of cate_id')


@pytest.mark.slow
def test_a_table_starts_from_the_first_column_that_is_there(
    older, taobao, tmp_path):
  then = tensors(older('base', None), 5)['dim_21_mean/embedding']
  now = start('base', tmp_path, taobao, older('base', None), columns())
  np.testing.assert_array_equal(now[TABLE], then[:300])
  assert reported(tmp_path)[TABLE + ' [tag_category_list]'] == (
      'taken', 'has the rows of cate_id')


def test_columns_start_from_the_table_that_they_shared(older, taobao, tmp_path):
  source = older('base', 'category')
  now = start('base', tmp_path, taobao, source, columns(None))
  then, here = tensors(source, 5), now['dim_21_mean/embedding']
  for begin in (0, 300):
    np.testing.assert_array_equal(here[begin:begin + 300], then[TABLE])
  np.testing.assert_array_equal(here[600:], then['dim_21_mean/embedding'])


@pytest.mark.slow
def test_a_keyed_table_starts_from_the_first_column_that_is_there(
    older, taobao, tmp_path):
  source = older('ev', None)
  now = by_key(start('ev', tmp_path, taobao, source, columns()), TABLE)
  then = by_key(tensors(source, 5), 'dim_21_mean/embedding')
  salt = packing.salt('cate_id')
  seen = [key for key in hashes(texts_of(taobao, 'cate_id'), 2**63 - 1)
          if key ^ salt in then]
  assert len(seen) > 10
  for key in seen:
    np.testing.assert_array_equal(now[key], then[key ^ salt])
  assert reported(tmp_path)[TABLE + ' [tag_category_list]'] == (
      'taken', 'has the rows of cate_id')


def test_columns_start_from_the_keyed_table_that_they_shared(
    older, taobao, tmp_path):
  source = older('ev', 'category')
  now = by_key(start('ev', tmp_path, taobao, source, columns(None)),
               'dim_21_mean/embedding')
  then = by_key(tensors(source, 5), TABLE)
  for column in ('cate_id', 'tag_category_list'):
    salt = packing.salt(column)
    for key, row in then.items():
      np.testing.assert_array_equal(now[key ^ salt], row)


@pytest.mark.slow
def test_a_shared_keyed_table_is_taken_whole(older, taobao, tmp_path):
  source = older('ev', 'category')
  now = by_key(start('ev', tmp_path, taobao, source, columns()), TABLE)
  then = by_key(tensors(source, 5), TABLE)
  assert sorted(now) == sorted(then)
  for key, row in then.items():
    np.testing.assert_array_equal(now[key], row)


@pytest.mark.slow
def test_values_of_all_columns_get_the_rows_of_their_buckets(
    older, taobao, tmp_path):
  source = older('base', 'category')
  now = by_key(start('ev', tmp_path, taobao, source, columns(),
                     'WarmStart.keys_from_input = True'), TABLE)
  then = tensors(source, 5)[TABLE]
  values = texts_of(taobao, 'cate_id') | texts_of(taobao, 'tag_category_list')
  assert sorted(now) == sorted(hashes(values, 2**63 - 1))
  for key, bucket in zip(hashes(values, 2**63 - 1), hashes(values, 300)):
    np.testing.assert_array_equal(now[key], then[bucket])
