"""Vectors that training leaves as they start."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.embeddings import hashed
from ple_estimator.embeddings import keyed
from ple_estimator.engine import purpose


def built(columns, emb_fusion=True, l2=0.0):
  """The [2, n] float32 vectors of the ids 1 and 3 of all columns."""
  embedding = hashed.HashEmbedding(emb_fusion=emb_fusion, l2=l2)
  found = {c.name: tf.constant([1, 3], tf.int64) for c in columns}
  for group in embedding.groups(columns):
    found.update(group.pack(found))
  return tf.concat(
      embedding(found, columns, purpose.Purpose(training=True)), axis=1)


def shapes(variables):
  return {v.op.name: v.shape.as_list() for v in variables}


@pytest.mark.parametrize('emb_fusion, frozen, trained', [
    (True, 'dim_4_mean_frozen', 'dim_4_mean'), (False, 'a', 'b')])
def test_a_frozen_column_has_a_table_that_is_not_trained(
    emb_fusion, frozen, trained):
  vectors = built([column_kinds.Integer('a', 5, 4, trainable=False),
                   column_kinds.Integer('b', 6, 4)], emb_fusion, l2=0.5)
  assert shapes(tf.trainable_variables()) == {trained + '/embedding': [6, 4]}
  assert shapes(tf.global_variables()) == {
      trained + '/embedding': [6, 4], frozen + '/embedding': [5, 4]}
  # The penalty is on what is trained alone.
  penalty, = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    found, tables, loss = sess.run(
        [vectors, {v.op.name: v for v in tf.global_variables()}, penalty])
  a, b = tables[frozen + '/embedding'], tables[trained + '/embedding']
  np.testing.assert_array_equal(found, np.hstack([a[[1, 3]], b[[1, 3]]]))
  np.testing.assert_allclose(loss, 0.25 * np.square(b[[1, 3]]).sum(), rtol=1e-5)


def test_what_interactions_read_of_it_is_trained():
  column = column_kinds.Integer('a', 5, 6, trainable=False)
  column.own_dim, column.own_l2 = 2, ((2, 0.0),)
  vectors = built([column])
  own, = tf.trainable_variables()
  assert shapes(tf.global_variables()) == {
      'dim_6_mean_frozen/embedding': [5, 4], 'dim_6_mean_frozen/own': [5, 2]}
  gradient = tf.convert_to_tensor(tf.gradients(vectors, own)[0])
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    found, rows, slope = sess.run([vectors, own, gradient])
  np.testing.assert_array_equal(found[:, 4:], rows[[1, 3]])
  np.testing.assert_array_equal(slope, np.eye(5)[[1, 3]].sum(0)[:, None] *
                                np.ones([1, 2]))


@pytest.mark.parametrize('embedding, message', [
    (keyed.EmbeddingVariable(), "'trainable' must be True with "
     r'EmbeddingVariable: bind Model.embedding = @HashEmbedding\(\)'),
    (hashed.MultiHashEmbedding(min_buckets=5), "'trainable' must be True with "
     'num_buckets of at least MultiHashEmbedding.min_buckets = 5'),
])
def test_an_embedding_that_cannot_freeze_says_so(embedding, message):
  columns = [column_kinds.Hashed('a', 9, 4, trainable=False)]
  with pytest.raises(errors.UserError, match=message):
    embedding.groups(columns)
  assert hashed.MultiHashEmbedding(min_buckets=10).groups(columns)


def test_a_frozen_column_has_no_penalty():
  with pytest.raises(errors.UserError, match="l2 must be None with 'trainable'"
                     ': False, got 0.1'):
    column_kinds.Hashed('a', 9, 4, l2=0.1, trainable=False)
