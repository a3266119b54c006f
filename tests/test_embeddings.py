"""Embeddings against numpy lookups."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import embeddings
from ple_estimator import errors
from ple_estimator import features


# A table per column or per group; pooled by TensorFlow's ops or the kernels.
FORMS = [(False, False), (False, True), (True, False), (True, True)]
each_form = pytest.mark.parametrize('emb_fusion, op_fusion', FORMS)


def look_up(embedding, columns, ids, op_fusion):
  """Returns the [batch, sum of dims] vectors."""
  found = {name: tf.SparseTensor(*value) if isinstance(value, tuple)
           else tf.constant(value, tf.int64) for name, value in ids.items()}
  for group in embedding.groups(columns):
    found.update(group.pack(found))
  return tf.concat(embedding(found, columns, True, op_fusion), axis=1)


def tables(embedding, columns):
  """The table of each column and its first row in it, by name."""
  variables = {v.op.name: v for v in tf.global_variables()}
  where = {}
  for group in embedding.groups(columns):
    first = 0
    for column in group.columns:
      where[column.name] = variables[group.name + '/embedding'], first
      first += column.num_buckets
  return where


@each_form
@pytest.mark.parametrize('combiner, scale', [
    ('mean', lambda n: n), ('sum', lambda n: 1), ('sqrtn', lambda n: n ** .5)])
def test_lookup_matches_numpy(combiner, scale, emb_fusion, op_fusion):
  columns = [features.Integer('a', 5, 4),
             features.HashedList('b', 7, 4, combiner=combiner),
             features.Integer('c', 3, 4)]
  rows = [[2, 2, 6], [], [0]]
  embedding = embeddings.HashEmbedding(emb_fusion=emb_fusion)
  vectors = look_up(embedding, columns, {
      'a': [4, -1, 0], 'c': [0, 2, 2],
      'b': ([[0, 0], [0, 1], [0, 2], [2, 0]],
            tf.constant([2, 2, 6, 0], tf.int64), [3, 3])}, op_fusion)
  where = tables(embedding, columns)
  got, slices, found = run([
      vectors, tf.gradients(tf.reduce_sum(vectors * WEIGHTS), [
          where[name][0] for name in 'abc']),
      [where[name][0] for name in 'abc']])
  values = {name: table[where[name][1]:] for name, table in zip('abc', found)}
  order = {'mean': 'abc', 'sum': 'acb', 'sqrtn': 'acb'}[combiner]
  order = order if emb_fusion else 'abc'
  wanted = {
      'a': [values['a'][4], np.zeros(4), values['a'][0]],
      'b': [values['b'][row].sum(axis=0) / scale(max(1, len(row)))
            for row in rows],
      'c': values['c'][[0, 2, 2]]}
  np.testing.assert_allclose(
      got, np.concatenate([wanted[name] for name in order], axis=1), rtol=1e-6)

  # Column c lies behind its neighbours and is touched twice in one place.
  dense = np.zeros_like(found[2])
  np.add.at(dense, slices[2].indices, slices[2].values)
  at = 4 * order.index('c')
  first = where['c'][1]
  np.testing.assert_allclose(
      dense[first:first + 3],
      [WEIGHTS[0, at:at + 4], np.zeros(4),
       WEIGHTS[1, at:at + 4] + WEIGHTS[2, at:at + 4]], rtol=1e-6)


WEIGHTS = np.random.RandomState(2).rand(3, 12).astype('f')


def run(tensors):
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    return sess.run(tensors)


@each_form
def test_missing_id_has_no_gradient(emb_fusion, op_fusion):
  vectors = look_up(embeddings.HashEmbedding(emb_fusion=emb_fusion),
                    [features.Integer('a', 5, 3)], {'a': [4, -1]}, op_fusion)
  slices = tf.gradients(tf.reduce_sum(vectors), tf.global_variables())[0]
  wanted = np.zeros((5, 3))
  wanted[4] = 1
  np.testing.assert_array_equal(run(tf.convert_to_tensor(slices)), wanted)


@each_form
@pytest.mark.parametrize('stddev, wanted', [(None, 0.25), (0.02, 0.02)])
def test_rows_start_small(stddev, wanted, emb_fusion, op_fusion):
  look_up(embeddings.HashEmbedding(stddev, emb_fusion),
          [features.Integer('a', 5000, 16)], {'a': [0]}, op_fusion)
  table, = run(tf.global_variables())
  # A normal cut at two deviations has 0.88 of the deviation.
  assert table.std() == pytest.approx(0.88 * wanted, rel=0.02)
  assert np.abs(table).max() <= 2 * wanted


def test_columns_of_one_dim_and_combiner_share_a_table():
  columns = [features.Integer('a', 5, 4), features.Integer('b', 6, 8),
             features.HashedList('c', 7, 4, combiner='sum'),
             features.HashedList('d', 8, 4)]
  groups = embeddings.HashEmbedding().groups(columns)
  assert [(g.name, g.num_rows, [c.name for c in g.columns])
          for g in groups] == [('dim_4_mean', 13, ['a', 'd']),
                               ('dim_8_mean', 6, ['b']),
                               ('dim_4_sum', 7, ['c'])]
  groups = embeddings.HashEmbedding(emb_fusion=False).groups(columns)
  assert [(g.name, g.num_rows, g.dim, g.combiner) for g in groups] == [
      ('a', 5, 4, 'mean'), ('b', 6, 8, 'mean'), ('c', 7, 4, 'sum'),
      ('d', 8, 4, 'mean')]


def test_refuses():
  with pytest.raises(errors.UserError, match='HashEmbedding.stddev must not'):
    embeddings.HashEmbedding(-1)
