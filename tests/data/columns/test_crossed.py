"""Crosses of columns, on every road to the model."""

import conftest
import numpy as np
import pyarrow as pa
import pytest
import roads
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import feature_spec
from ple_estimator.data import packing

COLUMNS = [
    {'name': 'word', 'kind': 'hashed', 'num_buckets': 3},
    {'name': 'known', 'kind': 'hashed', 'num_buckets': 3, 'default': 'none'},
    {'name': 'day', 'kind': 'integer', 'num_buckets': 7},
    {'name': 'age', 'kind': 'bucketised', 'boundaries': (18, 40)},
    {'name': 'colour', 'kind': 'vocabulary', 'values': ['red', 'blue']}]
WORDS = ['a', 'b', '', 'a', 'zw\u00f6lf', '1_2', 'a']
KNOWN = ['', 'x', 'y', '', 'x', 'x', 'y']
DAYS = ['0', '6', '3', '', '2', '2', '1']
AGES = ['17', '18', '39.5', '99', '', '0', '40']
COLOURS = ['red', 'blue', 'red', 'red', 'blue', 'green', '']


def cross(name, *columns):
  return {'name': name, 'kind': 'crossed', 'columns': columns,
          'num_buckets': 1000}


def hashed(texts, num_buckets):
  """What TensorFlow hashes texts to."""
  with tf.Session() as sess:
    return sess.run(tf.strings.to_hash_bucket_fast(
        tf.constant(texts, tf.string), num_buckets)).tolist()


def expected(*keys):
  """The ids of a cross of lists of keys; None is a missing value."""
  rows = list(zip(*keys))
  ids = hashed(['_'.join(map(str, row)) for row in rows], 1000)
  return [[] if None in row else [i] for row, i in zip(rows, ids)]


def test_it_is_the_same_on_every_road(tmp_path):
  spec = feature_spec.FeatureSpec(
      [cross('first', 'word', 'known')] + COLUMNS + [
          cross('text and number', 'day', 'word'),
          cross('all', 'word', 'known', 'day', 'age', 'colour')], dim=4)
  assert [c.name for c in spec.columns] == [c['name'] for c in COLUMNS]
  key = dict(zip(WORDS + KNOWN + ['none'],
                 hashed(WORDS + KNOWN + ['none'], 2**63 - 1)))
  key[''] = None
  word = [key[x] for x in WORDS]
  known = [key[x or 'none'] for x in KNOWN]
  day = [int(x) if x else None for x in DAYS]
  age = [0, 1, 1, 2, None, 0, 2]
  colour = [0, 1, 0, 0, 1, None, None]
  ids = {'first': expected(word, known),
         'text and number': expected(day, word),
         'all': expected(word, known, day, age, colour)}
  assert [len(row) for row in ids['all']] == [1, 1, 0, 0, 0, 0, 0]
  for name, texts, num in [('word', WORDS, 3),
                           ('known', [x or 'none' for x in KNOWN], 3)]:
    ids[name] = [[i] if x else [] for i, x in zip(hashed(texts, num), texts)]
  ids.update({'day': [[x] if x is not None else [] for x in day],
              'age': [[x] if x is not None else [] for x in age],
              'colour': [[x] if x is not None else [] for x in colour]})
  typed = {'day': pa.array(day, pa.int16()),
           'age': pa.array([float(x) if x else None for x in AGES])}
  roads.check(
      tmp_path, spec,
      {'word': WORDS, 'known': KNOWN, 'day': DAYS, 'age': AGES,
       'colour': COLOURS},
      {'word': [x or None for x in WORDS], 'known': [x or None for x in KNOWN],
       'day': day, 'age': [float(x) if x else None for x in AGES],
       'colour': [x or None for x in COLOURS]}, ids, typed)


@conftest.needs_kernels
def test_a_keyed_embedding_has_a_key_per_combination():
  spec = feature_spec.FeatureSpec(COLUMNS + [cross('x', 'word', 'day')], dim=4)
  words = ['w%d' % i for i in range(3000)]
  table = pa.table({'word': pa.array([w.encode() for w in words]),
                    'day': pa.array(np.arange(3000) % 7)})
  column, = [c for c in spec.categories if c.name == 'x']
  group = packing.KeyedGroup('g', [column])
  keys = packing.to_ids(table, group.columns)['x'].to_pylist()
  assert len(set(keys)) == 3000 and min(keys) >= 0
  with tf.Session() as sess:
    packed = sess.run(packing.pack(
        {'word': tf.constant(words),
         'day': tf.constant(np.arange(3000) % 7, tf.int64)}, [group]))
  assert packed['g/rows'].tolist() == keys


@pytest.mark.parametrize('columns, message', [
    (('word', 'nothing'), r"with one category per row \(word, known, day, age, "
     r"colour\), got 'nothing'"),
    (('word', 'tags'), "with one category per row .*, got 'tags'"),
    (('word', 'price'), "with one category per row .*, got 'price'"),
    (('word', 'y'), "with one category per row .*, got 'y'"),
    (('word', 'self'), "with one category per row .*, got 'self'"),
    (('word',), "must be a list of two or more different names, .* got"),
    (('word', 'word'), "must be a list of two or more different names, .* got"),
    ('word', "must be a list of two or more names, .* got 'word'"),
    ((), 'must be a list of two or more names'),
])
def test_what_cannot_be_crossed_is_refused(columns, message):
  with pytest.raises(errors.UserError, match=message) as raised:
    feature_spec.FeatureSpec(COLUMNS + [
        {'name': 'y', 'kind': 'label'}, {'name': 'price', 'kind': 'number'},
        {'name': 'tags', 'kind': 'hashed_list', 'num_buckets': 5},
        {'name': 'self', 'kind': 'crossed', 'columns': columns,
         'num_buckets': 9}])
  assert "FeatureSpec.columns, 'self': columns" in str(raised.value)
