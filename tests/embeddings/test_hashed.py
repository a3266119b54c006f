"""Embeddings against numpy lookups."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.embeddings import hashed
from ple_estimator.engine import purpose

# A table per column or per group; pooled by TensorFlow's ops or the kernels.
FORMS = [(False, False), (False, True), (True, False), (True, True)]
each_form = pytest.mark.parametrize('emb_fusion, fused', FORMS)


def look_up(embedding, columns, ids, fused):
  """Returns the [batch, sum of dims] vectors."""
  found = {name: tf.SparseTensor(*value) if isinstance(value, tuple)
           else tf.constant(value, tf.int64) for name, value in ids.items()}
  for group in embedding.groups(columns):
    found.update(group.pack(found))
  return tf.concat(embedding(
      found, columns, purpose.Purpose(training=True, fused=fused)), axis=1)


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
def test_lookup_matches_numpy(combiner, scale, emb_fusion, fused):
  columns = [column_kinds.Integer('a', 5, 4),
             column_kinds.HashedList('b', 7, 4, combiner=combiner),
             column_kinds.Integer('c', 3, 4)]
  rows = [[2, 2, 6], [], [0]]
  embedding = hashed.HashEmbedding(emb_fusion=emb_fusion)
  vectors = look_up(embedding, columns, {
      'a': [4, -1, 0], 'c': [0, 2, 2],
      'b': ([[0, 0], [0, 1], [0, 2], [2, 0]],
            tf.constant([2, 2, 6, 0], tf.int64), [3, 3])}, fused)
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
      got, np.concatenate([wanted[name] for name in order], axis=1), rtol=1e-5,
      atol=1e-7)

  # Column c lies behind its neighbours and is touched twice in one place.
  dense = np.zeros_like(found[2])
  np.add.at(dense, slices[2].indices, slices[2].values)
  at = 4 * order.index('c')
  first = where['c'][1]
  np.testing.assert_allclose(
      dense[first:first + 3],
      [WEIGHTS[0, at:at + 4], np.zeros(4),
       WEIGHTS[1, at:at + 4] + WEIGHTS[2, at:at + 4]], rtol=1e-5, atol=1e-7)


WEIGHTS = np.random.RandomState(2).rand(3, 12).astype('f')


def run(tensors):
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    return sess.run(tensors)


@each_form
def test_missing_id_has_no_gradient(emb_fusion, fused):
  vectors = look_up(hashed.HashEmbedding(emb_fusion=emb_fusion),
                    [column_kinds.Integer('a', 5, 3)], {'a': [4, -1]},
                    fused)
  slices = tf.gradients(tf.reduce_sum(vectors), tf.global_variables())[0]
  wanted = np.zeros((5, 3))
  wanted[4] = 1
  np.testing.assert_array_equal(run(tf.convert_to_tensor(slices)), wanted)


@each_form
@pytest.mark.parametrize('stddev, wanted', [(None, 0.25), (0.02, 0.02)])
def test_rows_start_small(stddev, wanted, emb_fusion, fused):
  look_up(hashed.HashEmbedding(stddev, emb_fusion),
          [column_kinds.Integer('a', 5000, 16)], {'a': [0]}, fused)
  table, = run(tf.global_variables())
  # A normal cut at two deviations has 0.88 of the deviation.
  assert table.std() == pytest.approx(0.88 * wanted, rel=0.02)
  assert np.abs(table).max() <= 2 * wanted


def test_columns_of_one_dim_and_combiner_share_a_table():
  columns = [column_kinds.Integer('a', 5, 4), column_kinds.Integer('b', 6, 8),
             column_kinds.HashedList('c', 7, 4, combiner='sum'),
             column_kinds.HashedList('d', 8, 4)]
  groups = hashed.HashEmbedding().groups(columns)
  assert [(g.name, g.num_rows, [c.name for c in g.columns])
          for g in groups] == [('dim_4_mean', 13, ['a', 'd']),
                               ('dim_8_mean', 6, ['b']),
                               ('dim_4_sum', 7, ['c'])]
  groups = hashed.HashEmbedding(emb_fusion=False).groups(columns)
  assert [(g.name, g.num_rows, g.dim, g.combiner) for g in groups] == [
      ('a', 5, 4, 'mean'), ('b', 6, 8, 'mean'), ('c', 7, 4, 'sum'),
      ('d', 8, 4, 'mean')]


# A plain column, then composed ones: c has too few buckets for two tables.
COMPOSED = [
    column_kinds.Integer('c', 7, 4), column_kinds.Integer('a', 50, 4),
    column_kinds.HashedList('b', 70, 4), column_kinds.Integer('d', 30, 4)]
SIDES = {'a': (8, 8), 'b': (9, 9), 'd': (4, 9)}
IDS = {'c': [[6], [0], []], 'a': [[49], [], [0]], 'b': [[2, 2, 69], [], [13]],
       'd': [[29], [8], [8]]}
COMPOSE = {'add': np.add, 'mul': np.multiply,
           'concat': lambda *parts: np.concatenate(parts)}
each_operation = pytest.mark.parametrize('operation', sorted(COMPOSE))


def multi_hash(operation, emb_fusion=True):
  return hashed.MultiHashEmbedding(
      operation, min_buckets=10, rows={'d': (4, 9)}, emb_fusion=emb_fusion,
      quotient_dim=1 if operation == 'concat' else None)


def multi_hash_by_loops(values, operation):
  """The wanted [3, 16] vectors, given the variables by name."""
  found = np.zeros((3, 16))
  for c, column in enumerate(COMPOSED):
    for row, ids in enumerate(IDS[column.name]):
      for i in ids:
        if column.name == 'c':
          name = 'c' if 'c/embedding' in values else 'dim_4_mean'
          vector = values[name + '/embedding'][i]
        else:
          at = divmod(i, SIDES[column.name][1])
          if 'a/quotient' in values:
            name = column.name
          else:  # one behind the other
            name = 'multi_hash_dim_4_mean'
            before = [SIDES[n] for n in 'abd'[:'abd'.index(column.name)]]
            at = np.sum([at] + before, axis=0)
          vector = COMPOSE[operation](values[name + '/quotient'][at[0]],
                                      values[name + '/remainder'][at[1]])
        found[row, 4 * c:4 * c + 4] += vector / len(ids)
  return found


@each_form
@each_operation
def test_multi_hash_matches_loops(operation, emb_fusion, fused):
  vectors = look_up(multi_hash(operation, emb_fusion), COMPOSED, {
      'a': [49, -1, 0], 'c': [6, 0, -1], 'd': [29, 8, 8],
      'b': ([[0, 0], [0, 1], [0, 2], [2, 0]],
            tf.constant([2, 2, 69, 13], tf.int64), [3, 3])}, fused)
  weights = np.random.RandomState(3).rand(3, 16)
  variables = {v.op.name: v for v in tf.global_variables()}
  names = sorted(variables)
  gradients = tf.gradients(
      tf.reduce_sum(vectors * weights), [variables[name] for name in names])
  got, gradients, values = run(
      [vectors, [tf.convert_to_tensor(g) for g in gradients], variables])
  wanted = multi_hash_by_loops(values, operation)
  assert (wanted[1, 4:12] == 0).all() and (wanted[2, :4] == 0).all()
  np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)

  # Central differences: exact, as the vectors are linear in each entry.
  for name, gradient in zip(names, gradients):
    assert gradient.any()
    values[name] = values[name].astype('d')
    for place in np.ndindex(gradient.shape):
      start = values[name][place]
      sums = []
      for value in (start + 0.5, start - 0.5):
        values[name][place] = value
        sums.append((multi_hash_by_loops(values, operation) * weights).sum())
      values[name][place] = start
      assert gradient[place] == pytest.approx(sums[0] - sums[1], abs=1e-5)


@pytest.mark.parametrize('rows', [
    None, {'x': (25, 40)}, {'x': (40, 25)}, {'x': (1, 1000)}, {'x': (7, 143)}])
def test_every_id_has_a_pair_of_rows_to_itself(rows):
  embedding = hashed.MultiHashEmbedding('concat', rows=rows)
  vectors = look_up(embedding, [column_kinds.Integer('x', 1000, 2)],
                    {'x': np.arange(1000)}, False)
  # Each row says its own number.
  numbered = [tf.assign(v, tf.range(tf.cast(v.shape[0], tf.float32))[:, None])
              for v in tf.global_variables()]
  with tf.Session() as sess:
    sess.run(numbered)
    pairs = sess.run(vectors)
    heights = [v.shape[0] for v in sess.run(tf.global_variables())]
  assert len(set(map(tuple, pairs))) == 1000
  assert tuple(heights) == (rows['x'] if rows else (32, 32))


@each_operation
def test_composed_vectors_start_as_small_as_others(operation):
  tf.set_random_seed(2021)
  embedding = hashed.MultiHashEmbedding(operation)
  vectors = run(look_up(embedding, [column_kinds.Integer('x', 250000, 16)],
                        {'x': np.arange(0, 250000, 7)}, False))
  # Where two cut normals multiply, their cuts do.
  cut = {'add': 0.88, 'concat': 0.88, 'mul': 0.88 ** 2}[operation]
  assert vectors.std() == pytest.approx(cut * 0.25, rel=0.03)
  assert abs(vectors.mean()) < 0.02


@each_form
def test_a_batch_without_ids_is_zero(emb_fusion, fused):
  vectors = look_up(multi_hash('add', emb_fusion), COMPOSED, {
      'a': [-1, -1], 'c': [-1, -1], 'd': [-1, -1],
      'b': (np.zeros((0, 2), np.int64), tf.constant([], tf.int64), [2, 0])},
                    fused)
  np.testing.assert_array_equal(run(vectors), np.zeros((2, 16)))


@pytest.mark.parametrize('make, message', [
    (lambda: hashed.HashEmbedding(-1), 'HashEmbedding.stddev must be'),
    (lambda: hashed.MultiHashEmbedding(stddev=-1),
     'MultiHashEmbedding.stddev must be .* or None, got -1'),
    (lambda: hashed.MultiHashEmbedding('mult'),
     "operation must be 'add', 'mul' or 'concat', got 'mult'"),
    (lambda: hashed.MultiHashEmbedding(min_buckets=0),
     'MultiHashEmbedding.min_buckets must be an integer of at least 1, got 0'),
    (lambda: hashed.MultiHashEmbedding('add', quotient_dim=1),
     "quotient_dim must be None without .*'concat', got 1 for 'add'"),
    (lambda: hashed.MultiHashEmbedding(rows={'x': (40,)}),
     r"rows must have two positive integers .* got \(40,\) for 'x'"),
    (lambda: hashed.MultiHashEmbedding(rows={'x': (40, 0)}),
     r"rows must have two positive integers .* got \(40, 0\) for 'x'"),
    (lambda: hashed.MultiHashEmbedding(rows={'x': (31, 32)}).groups(LARGE),
     r"at least num_buckets = 1000 for the column 'x', got \(31, 32\)"),
    (lambda: hashed.MultiHashEmbedding(rows={'y': (40, 40)}).groups(LARGE),
     r'MultiHashEmbedding.min_buckets = 1000 buckets \(x\), got y'),
    (lambda: hashed.MultiHashEmbedding(
        'concat', quotient_dim=4).groups(LARGE),
     "quotient_dim must leave .* dim = 4 of the column 'x', got 4"),
])
def test_refuses(make, message):
  with pytest.raises(errors.UserError, match=message):
    make()


LARGE = [column_kinds.Integer('x', 1000, 4), column_kinds.Integer('y', 999, 4)]
