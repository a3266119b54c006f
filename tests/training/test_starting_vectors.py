"""Tables that start from the vectors of files, and what does not."""

import logging
import os

import experiments
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.embeddings import hashed
from ple_estimator.embeddings import keyed
from ple_estimator.engine import purpose
from ple_estimator.training import starting_vectors

DIM = 16
BASE = ['Experiment.eval_input = None', 'Experiment.exports = None',
        'Experiment.early_stopping = None', 'run_config.save_steps = 100',
        'Model.interactions = [@Wide(), @FwFM()]', 'FwFM.dim = 3',
        'Model.averaging = @Averaging()', 'FeatureSpec.overrides = {}']
COLUMNS = '''FeatureSpec.columns = [
    {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
    {'name': 'buy', 'kind': 'label', 'values': (0, 1)},
    {'name': 'pid', 'kind': 'hashed', 'num_buckets': 10},
    {'name': 'brand', 'kind': 'hashed', 'num_buckets': 50 %s},
    {'name': 'price', 'kind': 'integer', 'num_buckets': 50 %s}]'''


def columns(of_brand='', of_price=''):
  return ' '.join((COLUMNS % (of_brand, of_price)).split())


class _Size(tf.train.SessionRunHook):
  """Notes how large the graph is."""

  def after_create_session(self, session, coord):
    self.size = session.graph.as_graph_def().ByteSize()


def train(model_dir, taobao, *bindings, steps=1):
  size = _Size()
  with tf.Graph().as_default():
    experiments.load(
        'gin/base.gin', model_dir, taobao, 'Experiment.max_steps = %d' % steps,
        *(BASE + list(bindings)), hooks=[size]).train()
  return size.size


def tensors(model_dir, step):
  reader = tf.train.load_checkpoint(
      str(model_dir / ('model.ckpt-%d' % step)))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


@pytest.fixture
def written(tmp_path):
  """Files of vectors: (brands.parquet, prices.npy, the two arrays)."""
  rng = np.random.RandomState(5)
  brands, prices = rng.rand(30, DIM).astype('f'), rng.rand(50, DIM).astype('f')
  paths = str(tmp_path / 'brands.parquet'), str(tmp_path / 'prices.npy')
  pa.parquet.write_table(pa.table({
      'brand': pa.array(range(30)),
      'vector': pa.array(list(map(list, brands)), pa.list_(pa.float32()))}),
                         paths[0])
  np.save(paths[1], prices)
  return paths + (brands, prices)


def hashes(values, num_buckets):
  with tf.Graph().as_default(), tf.Session() as sess:
    return sess.run(tf.strings.to_hash_bucket_fast(
        [str(value) for value in values], num_buckets))


def of_brands(brands):
  """The rows that start from brands, and their vectors."""
  ids = hashes(range(len(brands)), 50)
  rows = sorted(set(ids.tolist()))
  return rows, np.array([brands[ids == row].mean(axis=0) for row in rows])


@pytest.mark.slow
def test_tables_start_from_files_and_all_else_as_before(
    taobao, tmp_path, written):
  of_file = ", 'vectors': %r"
  plain = train(tmp_path / 'plain', taobao, columns())
  size = train(tmp_path / 'new', taobao, columns(
      of_file % written[0], of_file % written[1]), steps=2)
  # Not the weight of a vector more is in the graph.
  assert abs(size - plain) < 100
  before, now = [tensors(tmp_path / name, 0) for name in ('plain', 'new')]
  name = 'dim_21_mean/embedding'  # with a weight for each task, and 3 of FwFM
  rows, vectors = of_brands(written[2])
  wanted = before[name].copy()
  wanted[10:60][rows, :DIM] = vectors
  wanted[60:110, :DIM] = written[3]
  np.testing.assert_allclose(now[name], wanted, rtol=1e-6)
  np.testing.assert_array_equal(now[name + '/average'], now[name])
  for other in set(before) - {name, name + '/average'}:
    np.testing.assert_array_equal(now[other], before[other], err_msg=other)
  # They are trained, from the second step on: towers start from a logit of 0.
  after = tensors(tmp_path / 'new', 2)[name]
  assert (after[60:110, :DIM] != wanted[60:110, :DIM]).any()


@pytest.mark.slow
def test_a_frozen_column_stays_as_the_file_has_it_and_goes_on_without_it(
    taobao, tmp_path, written, caplog, monkeypatch):
  monkeypatch.setattr(logging.getLogger('absl'), 'propagate', True)
  caplog.set_level(logging.INFO)
  new, name = tmp_path / 'new', 'dim_21_mean_frozen/'
  of_price = columns('', ", 'trainable': False, 'vectors': %r" % written[1])
  train(new, taobao, of_price, steps=2)
  for step in (0, 2):
    found = tensors(new, step)
    np.testing.assert_array_equal(found[name + 'embedding'], written[3])
  assert (found[name + 'own'] != tensors(new, 0)[name + 'own']).any()
  os.remove(written[1])  # a run that goes on needs no file
  train(new, taobao, of_price, steps=3)
  np.testing.assert_array_equal(
      tensors(new, 3)[name + 'embedding'], written[3])
  assert ('The vectors of files are not read (price): training goes on from a '
          'checkpoint.') in caplog.text
  with pytest.raises(errors.UserError, match=(
      "FeatureSpec.columns, 'price': vectors .*prices.npy.*No such file")):
    train(tmp_path / 'another', taobao, of_price)


def test_a_warm_start_goes_before_a_file(taobao, tmp_path, written):
  train(tmp_path / 'old', taobao, columns().replace("'brand'", "'cate_id'"))
  of_file = ", 'vectors': %r"
  train(tmp_path / 'new', taobao, columns(
      of_file % written[0], of_file % written[1]),
        'Experiment.warm_start = @WarmStart()', 'WarmStart.averages = False',
        'WarmStart.source = %r' % str(tmp_path / 'old'))
  name = 'dim_21_mean/embedding'
  old, new = tensors(tmp_path / 'old', 1)[name], tensors(
      tmp_path / 'new', 0)[name]
  rows, vectors = of_brands(written[2])
  np.testing.assert_allclose(new[10:60][rows, :DIM], vectors, rtol=1e-6)
  np.testing.assert_array_equal(new[60:], old[60:])


@pytest.mark.parametrize('emb_fusion', [True, False])
@pytest.mark.parametrize('parts', [1, 3])
def test_tables_in_parts_and_alone(parts, emb_fusion, tmp_path):
  path = str(tmp_path / 'v.npy')
  vectors = np.random.RandomState(6).rand(7, 4).astype('f')
  np.save(path, vectors)
  made = [column_kinds.Integer('a', 5, 4),
          column_kinds.Integer('b', 7, 4, vectors=path)]
  embedding = hashed.HashEmbedding(emb_fusion=emb_fusion)
  found = {'a': tf.range(5, dtype=tf.int64), 'b': tf.constant(
      [6, 0, 3, 1, 5], tf.int64)}
  groups = embedding.groups(made)
  for group in groups:
    found.update(group.pack(found))
  with tf.variable_scope(
      tf.get_variable_scope(), partitioner=tf.fixed_size_partitioner(parts)):
    looked_up = tf.concat(embedding(found, made, purpose.Purpose(True)), axis=1)
  start = tf.global_variables_initializer()
  tf.get_default_graph().finalize()  # as it is where a session begins
  with tf.Session() as sess:
    sess.run(start)
    before = sess.run(looked_up)
    starting = starting_vectors.StartingVectors(groups)
    assert starting.columns == ['b']
    starting.fill(sess)
    after = sess.run(looked_up)
  np.testing.assert_array_equal(after[:, :4], before[:, :4])
  np.testing.assert_array_equal(after[:, 4:], vectors[[6, 0, 3, 1, 5]])


@pytest.mark.parametrize('embedding, message', [
    (keyed.EmbeddingVariable(), "'vectors' must be None with EmbeddingVariable"
     r': bind Model.embedding = @HashEmbedding\(\) to start from the vectors '
     "of a file, got 'v.parquet'"),
    (hashed.MultiHashEmbedding(min_buckets=9), "'vectors' must be None with "
     'num_buckets of at least MultiHashEmbedding.min_buckets = 9, .*: raise'),
])
def test_an_embedding_without_rows_of_ids_refuses(embedding, message):
  with pytest.raises(errors.UserError, match=message):
    embedding.groups([column_kinds.Hashed('a', 9, 4, vectors='v.parquet')])
  assert hashed.MultiHashEmbedding(min_buckets=10).groups(
      [column_kinds.Hashed('a', 9, 4, vectors='v.parquet')])
