"""Categories: the ids of their values, and lists as files hold them."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.data import column_kinds

WORDS = ['a', 'NULL', '430548_1007', ' ', 'zwölf', '2']


def run(tensors):
  with tf.Session() as sess:
    return sess.run(tensors)


def test_ids_are_those_of_the_feature_column():
  reference = tf.feature_column.input_layer({'x': WORDS}, [
      tf.feature_column.indicator_column(
          tf.feature_column.categorical_column_with_hash_bucket('x', 97))])
  ids, one_hot = run([
      column_kinds.Hashed('x', 97, 4).encode(tf.constant(WORDS)), reference])
  np.testing.assert_array_equal(ids, one_hot.argmax(axis=1))


def test_list_ids_are_those_of_single_values():
  column = column_kinds.HashedList('x', 97, 4, separator=';')
  single = column_kinds.Hashed('x', 97, 4)
  lists, a, b, c = run([
      column.encode(tf.constant(['b;a', '', ';c;;'])),
      single.encode(tf.constant(['a'])), single.encode(tf.constant(['b'])),
      single.encode(tf.constant(['c']))])
  np.testing.assert_array_equal(lists.values, [b[0], a[0], c[0]])
  np.testing.assert_array_equal(lists.indices[:, 0], [0, 0, 2])
  assert lists.dense_shape[0] == 3


@pytest.mark.parametrize('default', ['', ' '])
def test_empty_field_has_no_id_or_that_of_the_default(default):
  column = column_kinds.Hashed('x', 97, 4, default)
  listed = column_kinds.HashedList('x', 97, 4, default)
  ids, space, lists = run([
      column.encode(tf.constant(['', 'a'])),
      column_kinds.Hashed('x', 97, 4).encode(tf.constant([' ']))[0],
      listed.encode(tf.constant(['']))])
  if default:
    assert ids[0] == space and list(lists.values) == [space]
  else:
    assert ids[0] == column_kinds.NO_ID and not len(lists.values)
  assert ids[1] >= 0


def test_integers_are_their_own_ids():
  values, bad = column_kinds.Integer('x', 50, 4).parse(
      pa.array([b'0', b' 49 ', b'', b'07'], pa.binary()))
  assert values.to_pylist() == [0, 49, -1, 7] and bad is None
  ids, replaced = run([
      column_kinds.Integer('x', 50, 4).encode(
          tf.constant([3, -1, 50], tf.int64)),
      column_kinds.Integer('x', 50, 4, default=8).encode(
          tf.constant([3, -1, 50], tf.int64))])
  assert list(ids) == [3, -1, -1] and list(replaced) == [3, 8, 8]


@pytest.mark.parametrize('array', [
    pa.array([['a', 'b'], None, [], ['c']], pa.list_(pa.string())),
    pa.array([['a', 'b'], None, [], ['c']], pa.large_list(pa.string())),
    pa.array([[b'a', b'b'], None, [], [b'c']], pa.list_(pa.binary())),
    pa.array([['a', None, 'b'], None, [], ['c']], pa.list_(pa.string())),
    pa.array(['a|b', None, '', 'c'], pa.string()),
], ids=lambda a: str(a.type))
def test_lists_and_text_are_one_form(array):
  column = column_kinds.HashedList('x', 97, 4)
  assert column.accepts(array.type)
  values, bad = column.parse(array)
  # Empty items, here from null, mean nothing.
  assert [v.replace(b'||', b'|') for v in values.to_pylist()] == [
      b'a|b', b'', b'', b'c'] and bad is None
  assert values.type == pa.binary()


def test_separator_inside_an_item_is_refused():
  _, bad = column_kinds.HashedList('x', 97, 4).parse(
      pa.array([['a'], ['b|c']], pa.list_(pa.string())))
  assert bad.tolist() == [False, True]


def test_other_types_become_text():
  column = column_kinds.Hashed('x', 97, 4)
  for array in [pa.array([12, None], pa.int32()),
                pa.array(['12', None]).dictionary_encode(),
                pa.array(['12', None], pa.large_string())]:
    assert column.accepts(array.type)
    assert column.parse(array)[0].to_pylist() == [b'12', b'']
  for accepts in [column.accepts, column_kinds.Integer('x', 9, 4).accepts,
                  column_kinds.Label('x').accepts]:
    assert accepts(pa.float64()) and accepts(pa.string())
    assert not accepts(pa.date32()) and not accepts(pa.list_(pa.string()))
