"""Vectors and gradients of columns that share a table."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.data import packing
from ple_estimator.embeddings import admission
from ple_estimator.embeddings import hashed
from ple_estimator.embeddings import keyed
from ple_estimator.engine import forms
from ple_estimator.engine import native
from ple_estimator.engine import purpose

TEXTS = {
    'history': ['a|b|a', '', 'c', 'b|c', 'a'],
    'candidate': ['a', 'b', '', 'c', 'a'],
    'sums': ['b|b', 'a', 'c|a', '', 'a'],
    'rated': ['a:2|b:0.5', 'c:1', '', 'b:3', 'a:1'],
    'roots': ['c|b', 'b|a|c', '', 'a', 'a'],
    'other': ['a', 'b', 'c', '', 'a'],  # does not share
}
SHARED = ['history', 'candidate', 'sums', 'rated', 'roots']
EMBEDDINGS = {
    'hashed': hashed.HashEmbedding,
    'unfused': lambda: hashed.HashEmbedding(emb_fusion=False),
    'multi': lambda: hashed.MultiHashEmbedding(min_buckets=10),
    'keyed': keyed.EmbeddingVariable,
    'keyed_unfused': lambda: keyed.EmbeddingVariable(emb_fusion=False),
    'adaptive': lambda: keyed.AdaptiveEmbedding(admission.CounterFilter(3)),
    'dynamic': lambda: keyed.DynamicDimensionEmbedding((1, 3)),
}
each_embedding = pytest.mark.parametrize(
    'make', list(EMBEDDINGS.values()), ids=list(EMBEDDINGS))
each_way = pytest.mark.parametrize('fused', [False, True])


def columns(table='item', **arguments):
  arguments = dict(arguments, table=table)
  return [
      column_kinds.HashedList('history', 97, 4, **arguments),
      column_kinds.Hashed('candidate', 97, 4, **arguments),
      column_kinds.HashedList('sums', 97, 4, combiner='sum', **arguments),
      column_kinds.HashedList('rated', 97, 4, weights=':', **arguments),
      column_kinds.HashedList('roots', 97, 4, combiner='sqrtn', **arguments),
      column_kinds.Hashed('other', 97, 4)]


def names(embedding, of):
  return [c.name for group in embedding.groups(of) for c in group.columns]


def look_up(embedding, of, fused=True, **kwargs):
  """Returns a dict of column name to [batch, dim] vectors."""
  found = {}
  for group in embedding.groups(of):
    found.update(group.pack({
        c.name: c.encode(tf.constant(TEXTS[c.name])) for c in group.columns}))
  made = purpose.Purpose(training=True, fused=fused and native.available(),
                         **kwargs)
  vectors = tf.concat(embedding(found, of, made), axis=1)
  return dict(zip(names(embedding, of), tf.split(vectors, len(of), axis=1)))


def run(tensors):
  with tf.Session() as sess:
    sess.run([tf.global_variables_initializer(), tf.tables_initializer()])
    return sess.run(tensors)


def weights_of(name, text):
  """What numpy says how much each item counts: a list of (item, weight)."""
  items = [item for item in text.split('|') if item]
  if name == 'rated':
    pairs = [(item[0], float(item[2:])) for item in items]
    total = sum(weight for _, weight in pairs)
    return [(item, weight / total) for item, weight in pairs]
  divisor = {'sums': 1, 'roots': np.sqrt(len(items))}.get(name, len(items))
  return [(item, 1 / divisor) for item in items]


@each_way
@each_embedding
def test_a_value_has_one_vector_in_all_columns(make, fused):
  found = run(look_up(make(), columns(), fused))
  values = dict(zip('ab', found['candidate']), c=found['candidate'][3])
  assert all(np.abs(vector).sum() > 1e-3 for vector in values.values())
  for name in SHARED:
    for row, text in enumerate(TEXTS[name]):
      wanted = sum((weight * values[item] for item, weight in weights_of(
          name, text)), np.zeros(4))
      np.testing.assert_allclose(
          found[name][row], wanted, rtol=1e-5, atol=1e-7, err_msg=name)
  assert not np.isclose(found['other'][0], values['a']).any()


@each_way
def test_there_is_one_gradient_with_each_row_once(fused):
  made = look_up(hashed.HashEmbedding(), columns()[:-1], fused)
  table, = tf.global_variables()
  assert table.op.name == 'table_item/embedding' and table.shape == (97, 4)
  rng = np.random.RandomState(3)
  factors = {name: rng.rand(5, 4).astype(np.float32) for name in SHARED}
  gradient, = tf.gradients(
      tf.add_n([tf.reduce_sum(made[name] * factors[name]) for name in SHARED]),
      table)
  ids = tf.strings.to_hash_bucket_fast(list('abc'), 97)
  rows, values, ids = run([gradient.indices, gradient.values, ids])
  assert sorted(rows) == sorted(ids)  # each once
  wanted = {item: np.zeros(4) for item in 'abc'}
  for name in SHARED:
    for row, text in enumerate(TEXTS[name]):
      for item, weight in weights_of(name, text):
        wanted[item] += weight * factors[name][row]
  for item, row in zip('abc', ids):
    np.testing.assert_allclose(
        values[list(rows).index(row)], wanted[item], rtol=1e-5)


@pytest.mark.parametrize('make, wanted', [
    ('hashed', {'table_item/embedding': 97, 'dim_4_mean/embedding': 97}),
    ('unfused', {'table_item/embedding': 97, 'other/embedding': 97}),
    ('multi', {'table_item/quotient': 10, 'table_item/remainder': 10,
               'multi_hash_dim_4_mean/quotient': 10,
               'multi_hash_dim_4_mean/remainder': 10})])
def test_tables_are_as_high_as_one_column(make, wanted):
  look_up(EMBEDDINGS[make](), columns())
  assert {v.op.name: v.shape[0].value for v in tf.global_variables()} == wanted


def test_single_values_join_the_lists_beside_them():
  group, _ = packing.groups(columns())
  assert [([c.name for c in part.columns], part.combiner, part.weighted)
          for part in group.parts] == [
              (['history', 'candidate'], 'mean', False),
              (['sums'], 'sum', False), (['rated'], 'mean', True),
              (['roots'], 'sqrtn', False)]
  assert group.name == 'table_item' and group.offsets == [0] * 5


def test_the_penalty_counts_a_row_once():
  embedding = hashed.HashEmbedding(stddev=0.5)
  look_up(embedding, columns(l2=2.0)[:2])
  penalty, = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
  table, = tf.global_variables()
  penalty, table, ids = run([
      penalty, table, tf.strings.to_hash_bucket_fast(list('abc'), 97)])
  np.testing.assert_allclose(
      penalty, (table[ids].astype('d') ** 2).sum(), rtol=1e-5)


def test_frozen_columns_share_a_table_that_is_not_trained():
  found = run(look_up(hashed.HashEmbedding(), columns(trainable=False)[:2]))
  np.testing.assert_allclose(found['history'][4], found['candidate'][0])
  assert not tf.trainable_variables()


def test_multi_hash_takes_the_rows_of_both_columns_or_refuses():
  of = columns()[:2]
  pairs = {'history': (20, 5), 'candidate': (20, 5)}
  run(look_up(hashed.MultiHashEmbedding(min_buckets=10, rows=pairs), of))
  assert sorted(v.shape[0].value for v in tf.global_variables()) == [5, 20]
  del pairs['history']
  with pytest.raises(errors.UserError, match=(
      r"^MultiHashEmbedding.rows must be the same for 'history' and "
      r"'candidate', which have the table 'item', got \(10, 10\) and "
      r"\(20, 5\)\.$")):
    hashed.MultiHashEmbedding(min_buckets=10, rows=pairs).groups(of)


def test_the_fused_lookup_of_deeprec_takes_one_combiner(monkeypatch):
  engine = forms.Engine()
  monkeypatch.setattr(engine, 'uses', lambda form, binding: True)
  of = columns()
  with pytest.raises(errors.UserError, match=(
      "FeatureSpec.columns, 'history': 'combiner' must be the same in all "
      "lists of the 'table' 'item' with DeepRec's fused lookup: leave "
      "'fused_lookup' out of Engine.forms.")):
    look_up(hashed.HashEmbedding(), of[:3], engine=engine)
