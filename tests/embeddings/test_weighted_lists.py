"""Vectors of lists whose items have weights."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.embeddings import admission
from ple_estimator.embeddings import hashed
from ple_estimator.embeddings import keyed
from ple_estimator.engine import forms
from ple_estimator.engine import native
from ple_estimator.engine import purpose

DIVISORS = {'sum': lambda w: 1.0, 'mean': np.sum,
            'sqrtn': lambda w: np.sqrt(np.sum(np.square(w)))}
FIELDS = ['a:1', 'b:1', 'c:1', 'a:2|b:0.5|a:1', '', 'b:0|c:0', 'c:1e-30|a:0',
          'b:3|c:0.25']


def column(name='x', combiner='mean', **arguments):
  return column_kinds.HashedList(name, 97, 4, weights=':', combiner=combiner,
                                 **arguments)


def look_up(embedding, columns, texts, fused=True, **kwargs):
  """Returns the [batch, sum of dims] vectors."""
  found = {}
  for group in embedding.groups(columns):
    found.update(group.pack({
        c.name: c.encode(tf.constant(texts)) for c in group.columns}))
  made = purpose.Purpose(training=True, fused=fused and native.available(),
                         **kwargs)
  return tf.concat(embedding(found, columns, made), axis=1)


def run(tensors):
  with tf.Session() as sess:
    sess.run([tf.global_variables_initializer(),
              tf.tables_initializer()])
    return sess.run(tensors)


def expected(singles, divisor):
  """What numpy makes of FIELDS, given the vectors of a, b and c."""
  found = []
  for text in FIELDS:
    pairs = [item.split(':') for item in text.split('|') if item]
    weights = np.array([float(weight) for _, weight in pairs])
    total = sum((weight * singles[name].astype(np.float64)
                 for (name, _), weight in zip(pairs, weights)), np.zeros(4))
    found.append(total / (divisor(weights) or 1.0))
  return found


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('combiner', list(DIVISORS))
@pytest.mark.parametrize('make', [
    hashed.HashEmbedding, lambda: hashed.HashEmbedding(emb_fusion=False),
    lambda: hashed.MultiHashEmbedding(min_buckets=10),
    keyed.EmbeddingVariable,
    lambda: keyed.AdaptiveEmbedding(admission.CounterFilter(3)),
    lambda: keyed.DynamicDimensionEmbedding((1, 3)),
], ids=['hashed', 'unfused', 'multi', 'keyed', 'adaptive', 'dynamic'])
def test_vectors_match_numpy(make, combiner, fused):
  embedding = make()
  vectors = run(look_up(
      embedding, [column('x', combiner), column('y', combiner)], FIELDS, fused))
  for of in (vectors[:, :4], vectors[:, 4:]):  # the columns x and y
    assert (np.abs(of[:3]).sum(axis=1) > 1e-3).all()
    np.testing.assert_allclose(
        of, expected(dict(zip('abc', of)), DIVISORS[combiner]), rtol=1e-5,
        atol=1e-7)
  assert not np.array_equal(vectors[:, :4], vectors[:, 4:])


@pytest.mark.parametrize('combiner', list(DIVISORS))
def test_vectors_and_gradients_are_those_of_tensorflow(combiner):
  texts = [text for text in FIELDS if text and text != 'b:0|c:0']
  of = column(combiner=combiner)
  found = look_up(hashed.HashEmbedding(), [of], texts)
  table, = tf.global_variables()
  ids, weights = of.encode(tf.constant(texts))
  wanted = tf.nn.embedding_lookup_sparse(
      table, ids, weights, combiner=combiner)
  factors = np.random.RandomState(3).rand(len(texts), 4).astype(np.float32)
  gradients = [tf.convert_to_tensor(tf.gradients(
      tf.reduce_sum(x * factors), table)[0]) for x in (found, wanted)]
  found, wanted, (got, reference) = run([found, wanted, gradients])
  # TensorFlow divides by the root of 1e-60, which is 0 in float32.
  rows = [i for i, text in enumerate(texts) if 'e-30' not in text]
  np.testing.assert_allclose(found[rows], wanted[rows], rtol=1e-5, atol=1e-7)
  if combiner != 'sqrtn':
    np.testing.assert_allclose(got, reference, rtol=1e-5, atol=1e-7)
    assert np.abs(got).sum() > 1


def test_lists_with_and_without_weights_have_tables_of_their_own():
  columns = [column(), column_kinds.HashedList('y', 97, 4),
             column('z', l2=0.5), column('s', 'sum')]
  assert [group.name for group in hashed.HashEmbedding().groups(columns)] == [
      'dim_4_mean_weighted', 'dim_4_mean', 'dim_4_mean_weighted_l2_0.5',
      'dim_4_sum_weighted']


def test_the_fused_lookup_of_deeprec_is_refused(monkeypatch):
  engine = forms.Engine()
  monkeypatch.setattr(engine, 'uses', lambda form, binding: True)
  with pytest.raises(errors.UserError, match=(
      "FeatureSpec.columns, 'x': 'weights' must be None with DeepRec's fused "
      "lookup: leave 'fused_lookup' out of Engine.forms.")):
    look_up(hashed.HashEmbedding(), [column()], FIELDS, engine=engine)
