"""The start of rows per column, and the penalty on rows, against numpy."""

import conftest
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.embeddings import admission
from ple_estimator.embeddings import hashed
from ple_estimator.embeddings import keyed
from ple_estimator.embeddings import keyed_table
from ple_estimator.engine import forms
from ple_estimator.engine import purpose
from ple_estimator.optimizers import factories


def look_up(embedding, columns, ids, num_ps=0, training=True):
  """Returns the list of [batch, n] vectors of int64 ids."""
  tf.set_random_seed(7)
  found = {name: tf.constant(value, tf.int64) for name, value in ids.items()}
  for group in embedding.groups(columns):
    found.update(group.pack(found))
  return embedding(found, columns, purpose.Purpose(
      training=training, num_ps=num_ps))


def run(tensors):
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    return sess.run(tensors)


def penalties():
  return tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)


# ------------------------------------------------------------------ the start


def test_columns_that_say_something_else_have_a_table_of_their_own():
  columns = [column_kinds.Integer('a', 5, 4),
             column_kinds.Integer('b', 6, 4, stddev=0.01),
             column_kinds.Integer('c', 7, 4, l2=1e-5, stddev=0.01),
             column_kinds.HashedList('d', 8, 4, stddev=0.01),
             column_kinds.Hashed('e', 9, 4, l2=1e20)]
  for embedding in (hashed.HashEmbedding(), keyed.EmbeddingVariable()):
    assert [(g.name, [c.name for c in g.columns])
            for g in embedding.groups(columns)] == [
                ('dim_4_mean', ['a']), ('dim_4_mean_stddev_0.01', ['b', 'd']),
                ('dim_4_mean_stddev_0.01_l2_1e-05', ['c']),
                ('dim_4_mean_l2_1e20', ['e'])]
  found = {c.name: tf.constant([1], tf.int64) for c in columns if c.name != 'd'}
  groups = hashed.HashEmbedding(l2=0.1).groups(
      [c for c in columns if c.name != 'd'])
  for group in groups:
    found.update(group.pack(found))
  hashed.HashEmbedding(l2=0.1)(
      found, [c for c in columns if c.name != 'd'],
      purpose.Purpose(training=True))
  assert len(penalties()) == 4


HIGH = 3000
COLUMNS = [column_kinds.Integer('a', HIGH, 8, stddev=0.02),
           column_kinds.Integer('b', HIGH, 8)]
# A normal that is cut at two deviations has 0.88 of the deviation.
CUT = 0.88


@pytest.mark.parametrize('emb_fusion', [True, False])
@pytest.mark.parametrize('make, scale', [
    (hashed.HashEmbedding, CUT),
    (keyed.EmbeddingVariable, 1.0),
    (keyed.DynamicDimensionEmbedding, 1.0),
    (lambda **kwargs: keyed.AdaptiveEmbedding(
        admission.CounterFilter(2), shared_rows=HIGH, **kwargs), CUT),
    (lambda **kwargs: hashed.MultiHashEmbedding('add', **kwargs), CUT),
    (lambda **kwargs: hashed.MultiHashEmbedding('concat', **kwargs), CUT),
    # The product of two.
    (lambda **kwargs: hashed.MultiHashEmbedding('mul', **kwargs), CUT**2)])
def test_rows_start_with_the_deviation_of_their_column(make, scale, emb_fusion):
  ids = {name: np.arange(HIGH) for name in 'ab'}
  embedding = make(stddev=0.3, emb_fusion=emb_fusion)
  if isinstance(embedding, keyed.DynamicDimensionEmbedding):
    embedding = keyed.DynamicDimensionEmbedding(
        (1, 1), stddev=0.3, emb_fusion=emb_fusion)
  first, second = run(look_up(embedding, COLUMNS, ids))
  # Rows of multi-hash tables are few: sqrt(HIGH).
  assert first.shape == second.shape == (HIGH, 8)
  assert first.std() == pytest.approx(scale * 0.02, rel=0.12)
  assert second.std() == pytest.approx(scale * 0.3, rel=0.12)


def test_a_start_of_zeros_is_refused_where_products_would_not_learn():
  columns = [column_kinds.Integer('a', 2000, 4, stddev=0)]
  with pytest.raises(errors.UserError, match=(
      "FeatureSpec.columns, 'a': 'stddev' must be above 0 with "
      "MultiHashEmbedding.operation = 'mul', got 0")):
    hashed.MultiHashEmbedding().groups(columns)
  with pytest.raises(errors.UserError, match='MultiHashEmbedding.stddev must'):
    hashed.MultiHashEmbedding(stddev=0.0)
  assert hashed.MultiHashEmbedding('add').groups(columns)


# ---------------------------------------------------------------- the penalty

L2 = 0.7
OF_B = 0.2
PENALISED = [column_kinds.Integer('a', 5, 3), column_kinds.Integer('c', 4, 3),
             column_kinds.Integer('b', 6, 3, l2=OF_B)]
IDS = {'a': [4, 4, -1, 0], 'c': [1, 1, 1, 2], 'b': [5, 0, 5, 5]}


def test_the_penalty_of_a_hashed_table_counts_each_row_once():
  embedding = hashed.HashEmbedding(l2=L2)
  look_up(embedding, PENALISED, IDS)
  first, second = tf.global_variables()
  total = tf.add_n(penalties())
  value, tables, slices = run([
      total, [first, second], tf.gradients(total, [first, second])])
  touched = [[4, 0, 5 + 1, 5 + 2], [5, 0]]
  wanted = [np.zeros_like(table) for table in tables]
  for out, table, rows, l2 in zip(wanted, tables, touched, (L2, OF_B)):
    out[rows] = l2 * table[rows]
  for table, sliced, out in zip(tables, slices, wanted):
    dense = np.zeros_like(table)
    np.add.at(dense, sliced.indices, sliced.values)
    np.testing.assert_allclose(dense, out, rtol=1e-6)
  assert value == pytest.approx(sum(
      (out * table).sum() / 2 for out, table in zip(wanted, tables)))


@pytest.mark.parametrize('operation', ['mul', 'add', 'concat'])
def test_the_penalty_of_multi_hash_is_that_of_the_rows_of_both(operation):
  column = column_kinds.Integer('a', 1000, 4)
  ids = [3, 33, 35, 3]  # of 32 by 32: quotients 0, 1, 1 and remainders 3, 1, 3
  look_up(hashed.MultiHashEmbedding(operation, l2=L2), [column], {'a': ids})
  value, tables = run([penalties()[0], tf.global_variables()])
  quotients, remainders = tables
  assert value == pytest.approx(L2 / 2 * (
      (quotients[:2] ** 2).sum() + (remainders[[1, 3]] ** 2).sum()))


@pytest.mark.parametrize('num_ps', [0, 3])
def test_the_penalty_of_a_keyed_table_leaves_out_keys_without_row(num_ps):
  step = tf.train.create_global_step()
  embedding = keyed.EmbeddingVariable(
      50, filter=admission.CounterFilter(2), l2=L2)
  vectors, = look_up(embedding, [column_kinds.Integer('a', 9, 3)],
                     {'a': [4, 4, 7, 1, 1]}, num_ps)
  total, = penalties()
  sources = [table.source for table in keyed_table.of_graph()]
  gradients = [table.masked(g) for table, g in zip(
      keyed_table.of_graph(), tf.gradients(total, sources))]
  train = conftest.train_op(lambda: factories.sgd(1.0), total)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    value, found, got = sess.run([total, vectors, tf.concat(gradients, axis=0)])
    rows = found[[0, 3]]  # 4 and 1 are admitted, 7 is not
    assert not found[2].any() and rows.any()
    assert value == pytest.approx(L2 / 2 * (rows ** 2).sum())
    np.testing.assert_allclose(np.sort(got, axis=0),
                               np.sort(L2 * rows, axis=0), rtol=1e-6)
    sess.run(train)
    np.testing.assert_allclose(
        sess.run(vectors)[[0, 3]], (1 - L2) * rows, rtol=1e-5)
    assert sess.run(step) == 1


@pytest.mark.parametrize('num_ps', [0, 2])
def test_the_penalty_of_shared_rows_counts_each_once(num_ps):
  tf.train.create_global_step()
  embedding = keyed.AdaptiveEmbedding(
      admission.CounterFilter(2), shared_rows=5, l2=L2)
  vectors, = look_up(embedding, [column_kinds.Integer('a', 99, 3)],
                     {'a': [1, 6, 11, 3, 7, 7, 2]}, num_ps)
  shared, = [v for v in tf.global_variables() if 'shared' in v.op.name]
  value, table, found = run([penalties()[0], shared, vectors])
  # 7 has a row, the others share: 1, 6 and 11 row 1, 3 row 3, 2 row 2.
  np.testing.assert_array_equal(found, table[[1, 1, 1, 3, 2, 2, 2]])
  assert value == pytest.approx(L2 / 2 * (
      (table[[1, 3, 2]] ** 2).sum() + (table[2] ** 2).sum()))


@pytest.mark.parametrize('l2, training', [(0.0, True), (L2, False)])
def test_there_is_no_penalty_without_strength_nor_in_evaluation(l2, training):
  look_up(hashed.HashEmbedding(l2=l2), [column_kinds.Integer('a', 5, 3)],
          {'a': [1]}, training=training)
  assert not penalties()


def test_the_penalty_is_refused_with_the_fused_lookup_of_deeprec(monkeypatch):
  monkeypatch.setattr(forms.Engine, 'uses', lambda *args: True)
  with pytest.raises(errors.UserError, match="HashEmbedding.l2, Wide.l2, "
                     "FM.l2, FwFM.l2, and 'l2' of a column, must be 0 with "
                     "DeepRec's fused lookup, got 0.7"):
    look_up(hashed.HashEmbedding(l2=L2), [column_kinds.Integer('a', 5, 3)],
            {'a': [1]})
