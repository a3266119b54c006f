"""Lists with attention against the equations of DIN in numpy."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import feature_spec
from ple_estimator.data import packing
from ple_estimator.embeddings import admission
from ple_estimator.embeddings import attention
from ple_estimator.embeddings import hashed
from ple_estimator.embeddings import keyed
from ple_estimator.engine import forms
from ple_estimator.engine import native
from ple_estimator.engine import purpose as purpose_lib
from ple_estimator.network import precision

ADS = ['a', 'b', '', 'c', 'a', 'b']
SEEN = ['x|y', '', 'y', 'x|x|z', 'z', '']
TAGS = ['', 'p', 'q|p|q', '', 'q', 'p|r']
COLUMNS = [
    {'name': 'ad', 'kind': 'hashed', 'num_buckets': 97},
    {'name': 'brands', 'kind': 'hashed_list', 'num_buckets': 97},
    {'name': 'seen', 'kind': 'hashed_list', 'num_buckets': 97,
     'combiner': 'attention', 'query': 'ad'},
    {'name': 'tags', 'kind': 'hashed_list', 'num_buckets': 97,
     'combiner': 'attention', 'query': 'brands'},
]
EMBEDDINGS = {
    'hashed': hashed.HashEmbedding,
    'unfused': lambda: hashed.HashEmbedding(emb_fusion=False),
    'multi': lambda: hashed.MultiHashEmbedding(min_buckets=10),
    'keyed': keyed.EmbeddingVariable,
    'adaptive': lambda: keyed.AdaptiveEmbedding(admission.CounterFilter(3)),
    'dynamic': lambda: keyed.DynamicDimensionEmbedding((1, 3)),
}


def columns(own=0, table=None, **arguments):
  """The category columns, with so many dimensions of interactions."""
  made = feature_spec.FeatureSpec(COLUMNS, dim=4, overrides={
      'ad': {'table': table}, 'seen': dict(arguments, table=table)}).categories
  for column in made:
    column.dim, column.own_dim = column.dim + own, own
  return made


class Built:
  """The vectors of a batch in the default graph.

  Attributes:
    vectors: dict of column name to [batch, dim] float32.
    items: dict of list with attention to the vectors of its items, [items,
      dim] float32, before attention.
  """

  def __init__(self, of, embedding, made, ads=ADS, seen=SEEN, tags=TAGS,
               fused=False, **kwargs):
    raw = {'ad': ads, 'brands': TAGS[:len(ads)], 'seen': seen, 'tags': tags}
    groups = embedding.groups(of)
    features = packing.pack(
        {name: tf.constant(texts, tf.string, [len(texts)])
         for name, texts in raw.items()}, groups)
    purpose = purpose_lib.Purpose(**dict(dict(
        training=True, precision=precision.Precision(),
        fused=fused and native.available()), **kwargs))
    found = embedding(features, of, purpose)
    parts = [part for group in groups for part in group.parts]
    self.items = {}
    for one, group in zip(found, parts):
      if group.attends:
        pieces = tf.split(tf.gather(one.vectors, one.packed.index), [
            sum(len(items_of(text)) for text in raw[c.name])
            for c in group.columns])
        self.items.update(zip([c.name for c in group.columns], pieces))
    self.vectors = {}
    for one, group in zip(made(found, parts, purpose), parts):
      self.vectors.update(zip([c.name for c in group.columns], tf.split(
          one, len(group.columns), axis=1)))


def items_of(text):
  return [item for item in text.split('|') if item]


def run(fetches, seed=3):
  """Fetches with weights of attention and biases drawn at random."""
  rng = np.random.RandomState(seed)
  with tf.Session() as session:
    session.run([tf.global_variables_initializer(), tf.tables_initializer()])
    for variable in sorted(weights_of_graph(), key=lambda v: v.op.name):
      variable.load(rng.randn(*variable.shape.as_list()), session)
    return session.run(fetches)


def weights_of_graph():
  return [v for v in tf.trainable_variables() if 'attention/' in v.op.name and
          'embedding' not in v.op.name and '_attention' not in v.op.name]


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def by_hand(texts, items, candidates, weights, name, normalize, own=0):
  """Equation 3, one item after another."""
  found, at = np.zeros_like(candidates), 0
  for row, text in enumerate(texts):
    vectors, scores = [], []
    for _ in items_of(text):
      vector, c = items[at], candidates[row]
      at += 1
      e, c = vector[:len(vector) - own], c[:len(c) - own]
      x = np.concatenate([e, c, e - c, e * c]).astype(np.float64)
      for layer in ('dense_0', 'dense_1'):
        where = 'attention/%s/%s/' % (name, layer)
        x = sigmoid(x.dot(weights[where + 'kernel']) + weights[where + 'bias'])
      where = 'attention/%s/logit/' % name
      scores.append((x.dot(weights[where + 'kernel']) +
                     weights[where + 'bias'])[0])
      vectors.append(vector)
    if normalize and scores:
      powers = np.exp(np.array(scores) - max(scores))
      scores = powers / powers.sum()
    for score, vector in zip(scores, vectors):
      found[row] += score * vector
  assert at == len(items)
  return found


# Every pair of values of these three, for each kind.
@pytest.mark.parametrize('table, normalize, fused', [
    (None, False, False), (None, True, True), ('item', False, True),
    ('item', True, False)])
@pytest.mark.parametrize('kind', sorted(EMBEDDINGS))
def test_vectors_match_numpy(kind, table, normalize, fused):
  own = 4 if kind == 'dynamic' else 3
  built = Built(columns(own, table), EMBEDDINGS[kind](), attention.Attention(
      (5, 3), normalize=normalize), fused=fused)
  weights = {v.op.name: v for v in weights_of_graph()}
  assert len(weights) == 2 * 6
  vectors, items, weights = run([built.vectors, built.items, weights])
  for name, query, texts in [('seen', 'ad', SEEN), ('tags', 'brands', TAGS)]:
    assert np.abs(items[name]).sum(axis=1).all()
    wanted = by_hand(texts, items[name], vectors[query], weights, name,
                     normalize, own)
    np.testing.assert_allclose(vectors[name], wanted, rtol=1e-4, atol=1e-6)
    empty = [not text for text in texts]
    assert sum(empty) == 2 and not vectors[name][empty].any()


def padded(table, candidates, ids, weights):
  """The same with padding to the longest list and a mask, in TensorFlow.

  Args:
    table: [rows, 4] float32.
    candidates: [batch, 4] float32.
    ids: SparseTensor of the items.
    weights: list of kernels and biases, layer by layer.
  """
  dense = tf.sparse.to_dense(ids, default_value=-1)
  mask = dense >= 0
  e = tf.nn.embedding_lookup(table, tf.maximum(dense, 0))
  c = tf.broadcast_to(candidates[:, tf.newaxis], tf.shape(e))
  x = tf.concat([e, c, e - c, e * c], axis=2)
  for i, (kernel, bias) in enumerate(zip(weights[::2], weights[1::2])):
    x = tf.tensordot(x, kernel, 1) + bias
    x = tf.sigmoid(x) if 2 * i + 2 < len(weights) else x
  score = tf.where(mask, x[:, :, 0], tf.zeros_like(x[:, :, 0]))
  return tf.reduce_sum(score[:, :, tf.newaxis] * e, axis=1)


@pytest.mark.parametrize('fused', [False, True])
def test_gradients_are_those_of_padded_lists_with_a_mask(fused):
  of = columns()
  built = Built(of, hashed.HashEmbedding(emb_fusion=False),
                attention.Attention((5, 3)), fused=fused)
  found = built.vectors['seen']
  variables = {v.op.name: v for v in tf.trainable_variables()}
  table, ads = variables['seen/embedding'], variables['ad/embedding']
  weights = [variables['attention/seen/%s/%s' % (layer, part)]
             for layer in ('dense_0', 'dense_1', 'logit')
             for part in ('kernel', 'bias')]
  by_name = {column.name: column for column in of}
  ids = by_name['ad'].encode(tf.constant(ADS))
  candidates = tf.nn.embedding_lookup(ads, tf.maximum(ids, 0))
  candidates *= tf.cast(ids >= 0, tf.float32)[:, tf.newaxis]
  wanted = padded(table, candidates,
                  by_name['seen'].encode(tf.constant(SEEN)), weights)
  factors = np.random.RandomState(3).randn(len(ADS), 4).astype(np.float32)
  gradients = [[tf.convert_to_tensor(g) for g in tf.gradients(
      tf.reduce_sum(x * factors), [table, ads] + weights)]
               for x in (found, wanted)]
  found, wanted, (got, reference) = run([found, wanted, gradients])
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
  for one, other in zip(got, reference):
    assert np.abs(other).sum() > 1e-3
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_padding_and_empty_rows_change_nothing():
  made = attention.Attention((5,), normalize=True)
  found = []
  for ads, seen, tags in [
      (ADS, SEEN, TAGS),
      (ADS, ['||x||y|', '||', '|y', 'x|x||z||||', 'z|', ''], TAGS),
      (ADS + ['a', ''], SEEN + ['', ''], TAGS + ['', ''])]:
    with tf.Graph().as_default():
      tf.set_random_seed(7)
      built = Built(columns(), hashed.HashEmbedding(), made, ads, seen, tags)
      found.append(run(built.vectors['seen']))
  assert np.abs(found[0]).sum() > 0.1
  np.testing.assert_array_equal(found[1], found[0])
  np.testing.assert_array_equal(found[2][:6], found[0])
  assert not found[2][6:].any()


@pytest.mark.parametrize('normalize', [False, True])
@pytest.mark.parametrize('rows', [0, 2])
def test_a_batch_without_items_has_zeros(rows, normalize):
  built = Built(columns(), hashed.HashEmbedding(), attention.Attention(
      (5,), normalize=normalize), ADS[:rows], [''] * rows, [''] * rows)
  gradients = tf.gradients(built.vectors['seen'], [
      v for v in weights_of_graph() if 'seen' in v.name])
  found, gradients = run([built.vectors['seen'], gradients])
  assert found.shape == (rows, 4) and not found.any()
  assert len(gradients) == 4 and not any(g.any() for g in gradients)


def test_a_softmax_of_large_scores_is_finite():
  row = tf.constant([0, 0, 2])
  found = run(attention._softmax(tf.constant([[1e4], [1e4 - 1], [-1e4]]), row,
                                 tf.constant(3)))
  np.testing.assert_allclose(found[:, 0], [sigmoid(1), sigmoid(-1), 1],
                             rtol=1e-5)


def test_bfloat16_is_close():
  found = []
  for compute in ('float32', 'bfloat16'):
    with tf.Graph().as_default():
      tf.set_random_seed(7)
      built = Built(columns(), hashed.HashEmbedding(), attention.Attention(),
                    precision=precision.Precision(compute))
      found.append(run(built.vectors['seen']))
  assert not np.array_equal(*found)
  assert np.abs(found[1] - found[0]).max() < 0.05 * np.abs(found[0]).max()


def test_items_are_kept_by_max_items():
  cut = Built(columns(max_items=1, keep='last'), hashed.HashEmbedding(),
              attention.Attention((5,)), seen=['q|x', '', 'y', 'x|x|z', 'z', '']
              ).vectors['seen']
  with tf.variable_scope(tf.get_variable_scope(), reuse=True):
    last = Built(columns(), hashed.HashEmbedding(), attention.Attention((5,)),
                 seen=['x', '', 'y', 'z', 'z', '']).vectors['seen']
  cut, last = run([cut, last])
  np.testing.assert_allclose(cut, last, rtol=1e-5)
  assert np.abs(cut).sum() > 0.1


def test_lists_with_attention_have_tables_of_their_own():
  assert [group.name for group in hashed.HashEmbedding().groups(columns())] == [
      'dim_4_mean', 'dim_4_attention']


def test_vectors_may_stay_as_they_start():
  built = Built(columns(trainable=False), hashed.HashEmbedding(),
                attention.Attention((5,)))
  assert {v.op.name for v in tf.trainable_variables()} >= {
      'attention/seen/dense_0/kernel', 'dim_4_attention/embedding'}
  assert 'dim_4_attention_frozen/embedding' not in {
      v.op.name for v in tf.trainable_variables()}
  assert np.abs(run(built.vectors['seen'])).sum() > 0.1


def test_the_fused_lookup_of_deeprec_is_for_other_groups(monkeypatch):
  engine = forms.Engine()
  monkeypatch.setattr(engine, 'uses', lambda form, binding: True)
  embedding = hashed.HashEmbedding()
  of = [c for c in columns() if c.query]
  group, = embedding.groups(of)
  features = group.pack({c.name: c.encode(tf.constant(SEEN)) for c in of})
  found, = embedding(features, of, purpose_lib.Purpose(engine=engine))
  assert isinstance(found, hashed.Items)


def test_an_own_embedding_has_to_hand_on_items():
  of = columns()
  groups = hashed.HashEmbedding().groups(of)
  with pytest.raises(errors.UserError, match='Model.embedding must return one '
                     'value per part of a group, and hashed.Items of one that'):
    attention.Attention()([tf.zeros([2, 8])] * 2, [
        part for group in groups for part in group.parts], None)


@pytest.mark.parametrize('arguments, message', [
    ({'combiner': 'attention'}, "'seen': query must be the name of a category "
     "column with the combiner 'attention', such as 'item_id', got None"),
    ({'query': 'ad'}, "'seen': query must be None with the combiner 'mean', "
     "got 'ad': items are weighed by another column with 'combiner': 'atten"),
    ({'combiner': 'attention', 'query': 3}, "'seen': query must be .*, got 3"),
    ({'combiner': 'attention', 'query': 'ad', 'weights': ':'},
     "'seen': weights must be None with the combiner 'attention', .*, got ':'"),
    ({'combiner': 'attention', 'query': 'seen'}, "'seen': query must be a "
     r"category column without attention \(ad, wide\), got 'seen'"),
    ({'combiner': 'attention', 'query': 'age'}, r"\(ad, wide\), got 'age'"),
    ({'combiner': 'attention', 'query': 'wide'},
     "'seen': dim must be that of the query 'wide', 7, got 16"),
])
def test_a_column_is_refused(arguments, message):
  with pytest.raises(errors.UserError, match=message) as raised:
    feature_spec.FeatureSpec([
        {'name': 'ad', 'kind': 'integer', 'num_buckets': 9},
        {'name': 'wide', 'kind': 'integer', 'num_buckets': 9, 'dim': 7},
        {'name': 'age', 'kind': 'number'},
        dict({'name': 'seen', 'kind': 'hashed_list', 'num_buckets': 9},
             **arguments)])
  assert '\n' not in str(raised.value)


def test_attention_and_its_lists_go_together():
  lists = columns()
  attention.check(attention.Attention(), lists)
  attention.check(None, lists[:2])
  with pytest.raises(errors.UserError, match='Model.attention must be given, '
                     r"such as @Attention\(\), for the combiner 'attention' of "
                     'seen, tags, got None'):
    attention.check(None, lists)
  with pytest.raises(errors.UserError, match='Model.attention must be None '
                     "where no column of FeatureSpec.columns has the combiner "
                     r"'attention', got @Attention\(\)"):
    attention.check(attention.Attention(), lists[:2])
