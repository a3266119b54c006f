"""Lists of one length that one network of attention looks at, in numpy."""

import collections

import conftest
import numpy as np
import pyarrow as pa
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import encoders
from ple_estimator.data import feature_spec
from ple_estimator.data import packing
from ple_estimator.data import reading as reading_lib
from ple_estimator.data import row_checks
from ple_estimator.embeddings import attention
from ple_estimator.embeddings import hashed
from ple_estimator.embeddings import keyed
from ple_estimator.engine import purpose as purpose_lib
from ple_estimator.network import precision

JOINT = {'kind': 'hashed_list', 'num_buckets': 97, 'combiner': 'attention',
         'aligned': 'history', 'joint': True}
# The dims differ, so that the lists lie in groups of their own.
COLUMNS = [
    {'name': 'ad', 'kind': 'hashed', 'num_buckets': 97},
    {'name': 'shop', 'kind': 'hashed', 'num_buckets': 97, 'dim': 6},
    dict(JOINT, name='shops', query='shop', dim=6),
    dict(JOINT, name='ads', query='ad'),
    dict(JOINT, name='days', separator=',', dim=2),
    {'name': 'alone', 'kind': 'hashed_list', 'num_buckets': 97,
     'combiner': 'attention', 'query': 'ad'},
]
# Three places; no item in one list; none at all; no item at one place; none at
# the first; a query that is missing.
TEXTS = collections.OrderedDict([
    ('ad', ['a', 'b', 'c', 'a', 'b', '']),
    ('shop', ['s', 't', 's', '', 't', 's']),
    ('shops', ['s|t|u', '|', '', 's||t', '|s', 't']),
    ('ads', ['a|b|c', 'a|b', '', 'b||', '|a', 'c']),
    ('days', ['1,2,1', ',2', '', ',,3', ',', '3']),
    ('alone', ['a|b', '', 'b', 'c', '', 'a'])])
NAMES = ('ads', 'days', 'shops')  # in the order of the network


def columns(own=0, **arguments):
  made = feature_spec.FeatureSpec([
      dict(column, **(arguments if column.get('joint') else {}))
      for column in COLUMNS], dim=4).categories
  for column in made:
    column.dim, column.own_dim = column.dim + own, own
  return made


def places_of(column, text):
  """The items of a field by place: a list of str, '' where there is none."""
  return text.split(',' if column == 'days' else '|') if text else []


class Built:
  """`vectors` of the columns, and `items` of the lists: dicts by name."""

  def __init__(self, of, embedding, made, texts=None, **kwargs):
    texts = texts or TEXTS
    groups = embedding.groups(of)
    features = packing.pack(
        {name: tf.constant(fields, tf.string, [len(fields)])
         for name, fields in texts.items()}, groups)
    purpose = purpose_lib.Purpose(**dict(dict(
        training=True, precision=precision.Precision(), fused=False), **kwargs))
    found = embedding(features, of, purpose)
    parts = [part for group in groups for part in group.parts]
    self.items, self.vectors = {}, {}
    for one, combined, part in zip(found, made(found, parts, purpose), parts):
      names = [column.name for column in part.columns]
      self.vectors.update(zip(names, tf.split(combined, len(names), axis=1)))
      if part.attends:
        self.items.update(zip(names, tf.split(
            tf.gather(one.vectors, one.packed.index),
            [sum(map(bool, sum([places_of(name, text) for text in texts[name]],
                               []))) for name in names])))


def networks():
  return [v for v in tf.trainable_variables() if '/dense_0/' in v.op.name or
          '/logit/' in v.op.name]


def run(fetches, seed=3):
  rng = np.random.RandomState(seed)
  with tf.Session() as session:
    session.run([tf.global_variables_initializer(), tf.tables_initializer()])
    for variable in sorted(networks(), key=lambda v: v.op.name):
      variable.load(rng.randn(*variable.shape.as_list()), session)
    return session.run(fetches)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def by_hand(items, queries, weights, normalize, own):
  """The equations, place by place: dict of list to [batch, dim]."""
  width = {name: items[name].shape[1] for name in NAMES}
  left = {name: iter(items[name]) for name in NAMES}
  found = {name: np.zeros([6, width[name]]) for name in NAMES}
  for row in range(6):
    rows = {name: places_of(name, TEXTS[name][row]) for name in NAMES}
    scores, vectors = [], []
    for place in range(max(map(len, rows.values()))):
      at = {name: next(left[name]) if rows[name][place:place + 1] not in
            ([], ['']) else np.zeros(width[name]) for name in NAMES}
      if not any(vector.any() for vector in at.values()):
        continue
      e = np.concatenate([at[n][:width[n] - own] for n in NAMES])
      compared = np.concatenate([
          at[n][:width[n] - own] for n in ('ads', 'shops')])
      c = np.concatenate([queries[q][row][:width[n] - own] for n, q in [
          ('ads', 'ad'), ('shops', 'shop')]])
      x = np.concatenate([e, c, compared - c, compared * c])
      x = sigmoid(x.dot(weights['dense_0/kernel']) + weights['dense_0/bias'])
      scores.append((x.dot(weights['logit/kernel']) +
                     weights['logit/bias'])[0])
      vectors.append(at)
    if normalize and scores:
      powers = np.exp(np.array(scores) - max(scores))
      scores = powers / powers.sum()
    for score, at in zip(scores, vectors):
      for name in NAMES:
        found[name][row] += score * at[name]
  assert not any(list(rest) for rest in left.values())
  return found


@pytest.mark.parametrize('normalize', [False, True])
@pytest.mark.parametrize('make', [
    hashed.HashEmbedding, lambda: hashed.HashEmbedding(emb_fusion=False),
    keyed.EmbeddingVariable,
    lambda: keyed.DynamicDimensionEmbedding((1, 3))],
                         ids=['hashed', 'unfused', 'keyed', 'dynamic'])
def test_vectors_match_numpy(make, normalize):
  own = 2
  built = Built(columns(own), make(), attention.Attention(
      (5,), normalize=normalize))
  prefix = 'attention/aligned_history/'
  variables = {v.op.name: v for v in networks()}
  assert {name.rsplit('/', 2)[0] for name in variables} == {
      'attention/aligned_history', 'attention/alone'}
  vectors, items, weights = run([built.vectors, built.items, {
      name[len(prefix):]: v for name, v in variables.items()
      if name.startswith(prefix)}])
  # e of three lists, and three times that of those with a query.
  assert weights['dense_0/kernel'].shape == (4 + 2 + 6 + 3 * (4 + 6), 5)
  wanted = by_hand(items, vectors, weights, normalize, own)
  for name in NAMES:
    assert np.abs(items[name]).sum(axis=1).all()
    np.testing.assert_allclose(vectors[name], wanted[name], rtol=1e-4,
                               atol=1e-6)
    assert not vectors[name][2].any() and vectors[name][0].any()


def test_gradients_reach_every_table_and_network():
  built = Built(columns(), hashed.HashEmbedding(emb_fusion=False),
                attention.Attention((5,)))
  tables = [v for v in tf.trainable_variables()
            if v.op.name in ('ads/embedding', 'days/embedding', 'ad/embedding')]
  # A change of the vector of `days` alone changes the weights of `ads`.
  gradients = run([tf.convert_to_tensor(g) for g in tf.gradients(
      built.vectors['ads'], tables + networks()[:4])])
  assert len(gradients) == 7
  assert all(np.abs(of).sum() > 1e-3 for of in gradients)


@pytest.mark.parametrize('rows', [0, 2])
def test_a_batch_without_items_has_zeros(rows):
  built = Built(columns(), hashed.HashEmbedding(),
                attention.Attention((5,), normalize=True),
                collections.OrderedDict((name, [''] * rows) for name in TEXTS))
  found = run([built.vectors[name] for name in NAMES])
  for name, of in zip(NAMES, found):
    assert of.shape == (rows, {'ads': 4, 'days': 2, 'shops': 6}[name])
    assert not of.any()


def test_lists_of_other_lengths_in_a_served_model_keep_their_places():
  made = attention.Attention((5,))
  found = []
  for ads in (['b|b', '', 'c'], ['b|b||', '|', 'c']):
    with tf.Graph().as_default():
      tf.set_random_seed(7)
      texts = dict({name: of[:3] for name, of in TEXTS.items()}, ads=ads)
      built = Built(columns(), hashed.HashEmbedding(), made, texts)
      found.append(run([built.vectors[name] for name in NAMES]))
  for one, other in zip(*found):
    np.testing.assert_array_equal(one, other)


@conftest.needs_kernels
@pytest.mark.parametrize('keep', ['first', 'last'])
def test_the_kernels_pack_what_tensorflow_packs(keep):
  spec = feature_spec.FeatureSpec([
      dict(column, **({'max_items': 2, 'keep': keep} if 'joint' in column
                      else {})) for column in COLUMNS], dim=4)
  groups = packing.groups(spec.categories)
  table = row_checks.typed(
      pa.table({name: pa.array(fields) for name, fields in TEXTS.items()}),
      spec.columns, row_checks.BadRows(False), 'x', lambda row: row)
  kernels = encoders.create(reading_lib.Reading(
      spec, groups=groups, fused=True, with_labels=False))
  arrays = kernels.arrays(kernels.convert(table))
  keys = [key for group in groups for key in group.keys()]
  found = dict(zip(keys, arrays))
  packed = packing.pack({name: tf.constant(fields)
                         for name, fields in TEXTS.items()}, groups)
  with tf.Session() as session:
    wanted = session.run(packed)
  assert sorted(found) == sorted(wanted)
  for key in keys:
    np.testing.assert_array_equal(found[key], wanted[key], key)
  assert sum(key.endswith('/places') for key in keys) == 3
  assert found['dim_4_attention/places'].max() == 1


@pytest.mark.parametrize('changes, message', [
    ({'ads': {'aligned': None}}, "'ads': aligned must be a name with 'joint': "
     'True, which is for lists of one length, got None.'),
    ({'ads': {'combiner': 'mean', 'query': None}}, "'ads': joint must be False "
     "with the combiner 'mean', got True: it is for lists with 'combiner': "
     "'attention'."),
    ({'ads': {'joint': 1}}, "'ads': joint must be "),
    ({'ads': {'joint': False},
      'days': {'joint': False, 'query': 'ad', 'dim': 4}},
     "'shops': 'joint' must be True in two or more lists of the 'aligned' "
     "'history', got one."),
    ({'ads': {'query': None}, 'shops': {'query': None}}, "'shops', 'ads', "
     "'days': 'query' must be given in one or more of these lists, which are "
     "'joint', got none."),
    ({'ads': {'query': 'shop'}}, "'ads': dim must be that of the query 'shop', "
     '6, got 4.'),
])
def test_a_column_is_refused(changes, message):
  with pytest.raises(errors.UserError) as raised:
    feature_spec.FeatureSpec(COLUMNS, dim=4, overrides=changes)
  said = str(raised.value)
  assert said.startswith('FeatureSpec.columns, ' + message) and '\n' not in said
