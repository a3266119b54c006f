"""Embeddings against numpy lookups."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import embeddings
from ple_estimator import errors
from ple_estimator import features


@pytest.mark.parametrize('combiner, scale', [
    ('mean', lambda n: n), ('sum', lambda n: 1), ('sqrtn', lambda n: n ** .5)])
def test_lookup_matches_numpy(combiner, scale):
  columns = [features.Integer('a', 5, 3),
             features.HashedList('b', 7, 4, combiner=combiner)]
  rows = [[2, 2, 6], [], [0]]
  lists = tf.SparseTensor(
      [[0, 0], [0, 1], [0, 2], [2, 0]], tf.constant([2, 2, 6, 0], tf.int64),
      [3, 3])
  vectors = embeddings.HashEmbedding()(
      {'a': tf.constant([4, -1, 0], tf.int64), 'b': lists}, columns)
  tables = {v.op.name: v for v in tf.global_variables()}
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    (a, b), tables = sess.run([vectors, tables])
  table = tables['a/embedding']
  np.testing.assert_allclose(a, [table[4], np.zeros(3), table[0]])
  table = tables['b/embedding']
  np.testing.assert_allclose(b, [
      table[row].sum(axis=0) / scale(max(1, len(row))) for row in rows],
                             rtol=1e-6)


def test_missing_id_has_no_gradient():
  column = features.Integer('a', 5, 3)
  vectors, = embeddings.HashEmbedding()(
      {'a': tf.constant([4, -1], tf.int64)}, [column])
  slices = tf.gradients(tf.reduce_sum(vectors), tf.trainable_variables())[0]
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    gradient = sess.run(tf.convert_to_tensor(slices))
  wanted = np.zeros((5, 3))
  wanted[4] = 1
  np.testing.assert_array_equal(gradient, wanted)


@pytest.mark.parametrize('stddev, wanted', [(None, 0.25), (0.02, 0.02)])
def test_rows_start_small(stddev, wanted):
  embeddings.HashEmbedding(stddev)(
      {'a': tf.constant([0], tf.int64)}, [features.Integer('a', 5000, 16)])
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    table = sess.run(tf.global_variables()[0])
  # A normal cut at two deviations has 0.88 of the deviation.
  assert table.std() == pytest.approx(0.88 * wanted, rel=0.02)
  assert np.abs(table).max() <= 2 * wanted


def test_refuses():
  with pytest.raises(errors.UserError, match='HashEmbedding.stddev must not'):
    embeddings.HashEmbedding(-1)
