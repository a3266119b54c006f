"""Lists of one length: which places are left, and rows of other lengths."""

import numpy as np
import pyarrow as pa
import pytest
import roads
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import feature_spec
from ple_estimator.data import inputs
from ple_estimator.data import reading as reading_lib

ITEMS = {'name': 'items', 'kind': 'hashed_list', 'num_buckets': 97,
         'aligned': 'history'}
KINDS = dict(ITEMS, name='kinds', separator=';')
RATED = dict(ITEMS, name='rated', weights=':')


def spec(*columns, **arguments):
  return feature_spec.FeatureSpec(
      [dict(column, **arguments) for column in columns], dim=4)


def hashes(texts):
  with tf.Graph().as_default(), tf.Session() as sess:
    return sess.run(tf.strings.to_hash_bucket_fast(texts, 97)).tolist()


# Three of four places; empty items keep theirs; one empty item; none.
TEXTS = {'items': ['a|b|c|d', 'a||c|d|', '', ''],
         'kinds': ['x;y;z;', ';;;y;z', 'x', ''],
         'rated': ['a:1|b:2||d:4', ':3|b:2|c:3|d:4|a:5', 'a:2', '']}
LEFT = {
    (None, 'first'): {
        'items': ['abcd', 'acd', '', ''], 'kinds': ['xyz', 'yz', 'x', ''],
        'rated': ['abd', 'bcda', 'a', '']},
    (2, 'first'): {
        'items': ['ab', 'a', '', ''], 'kinds': ['xy', '', 'x', ''],
        'rated': ['ab', 'b', 'a', '']},
    (3, 'last'): {
        'items': ['bcd', 'cd', '', ''], 'kinds': ['yz', 'yz', 'x', ''],
        'rated': ['bd', 'cda', 'a', '']},
}
WEIGHTS = {(None, 'first'): [[1, 2, 4], [2, 3, 4, 5], [2], []],
           (2, 'first'): [[1, 2], [2], [2], []],
           (3, 'last'): [[2, 4], [3, 4, 5], [2], []]}


@pytest.mark.slow
@pytest.mark.parametrize('places', list(LEFT))
def test_all_lists_keep_the_same_places_on_every_road(tmp_path, places):
  max_items, keep = places
  ids = {name: [hashes(list(items)) if items else [] for items in rows]
         for name, rows in LEFT[places].items()}
  lists = {name: pa.array([
      text.split(mark) if text else None for text in TEXTS[name]])
           for name, mark in [('items', '|'), ('kinds', ';')]}
  for typed in (None, lists):
    roads.check(
        tmp_path, spec(ITEMS, KINDS, RATED, max_items=max_items, keep=keep),
        TEXTS, TEXTS, ids, typed, weights={'rated': WEIGHTS[places]})


def test_the_items_of_a_text_that_count():
  column, _ = spec(ITEMS, KINDS, max_items=3, keep='last').categories
  assert column.items(b'a|b||d') == [b'b', b'd']
  assert column.items(b'') == []


TROUBLE = {'items': ['a', 'a|b', 'a', 'a|b', ''],
           'kinds': ['x', 'x', '', '', 'x;y']}


@pytest.mark.parametrize('kind', [inputs.CsvInput, inputs.ParquetInput])
def test_a_row_with_lists_of_other_lengths_is_refused_or_counted(
    tmp_path, kind):
  of = spec(ITEMS, KINDS)
  path = str([source for source in roads.files(tmp_path, TROUBLE)
              if isinstance(source, kind)][0].paths()[0])
  read = reading_lib.Reading(of, with_labels=False)
  with pytest.raises(errors.UserError) as error:
    list(kind(path).tables(read))
  assert str(error.value) == (
      "%s row 2 column 'kinds' must have 2 items, as column 'items' has, with "
      "which it is aligned, got 'x'." % path)
  skips = kind(path, on_bad_row='skip')
  table, = skips.tables(read)
  assert table['items'].to_pylist() == [b'a', b'a']
  assert skips.bad_rows.skipped == 3


def test_lists_of_parquet_are_compared_too(tmp_path):
  source = roads.files(tmp_path, {'items': ['', ''], 'kinds': ['', '']}, {
      'items': pa.array([['a', None], ['a', 'b', 'c']]),
      'kinds': pa.array([[None, 'x'], ['x', 'y']])})[1]
  with pytest.raises(errors.UserError, match=(
      "row 2 column 'kinds' must have 3 items, as column 'items' has, with "
      'which it is aligned, got ')):
    list(source.tables(reading_lib.Reading(
        spec(ITEMS, KINDS), with_labels=False)))


@pytest.mark.parametrize('columns, message', [
    ([ITEMS, dict(KINDS, max_items=2)],
     "FeatureSpec.columns, 'items' and 'kinds': 'max_items' must be the same "
     "where 'aligned' is, 'history', got None and 2."),
    ([dict(ITEMS, max_items=2, keep='last'), dict(KINDS, max_items=2)],
     "FeatureSpec.columns, 'items' and 'kinds': 'keep' must be the same where "
     "'aligned' is, 'history', got 'last' and 'first'."),
    ([ITEMS, dict(KINDS, aligned='histories')],
     "FeatureSpec.columns, 'items': 'aligned' must be a name that two or more "
     "lists give, or None, got 'history', which no other list has."),
    ([ITEMS, dict(KINDS, default='x')],
     "FeatureSpec.columns, 'kinds': default must be '' with aligned, where each"
     " item has its place, got 'x'."),
    ([ITEMS, dict(KINDS, aligned=1)],
     "FeatureSpec.columns, 'kinds': aligned must be a text in quotes or None, "
     'got 1.'),
])
def test_what_is_not_aligned(columns, message):
  with pytest.raises(errors.UserError) as error:
    spec(*columns)
  assert str(error.value) == message


def test_lists_that_are_aligned_may_share_a_table():
  of = spec(ITEMS, RATED, table='item', max_items=2)
  assert {column.table for column in of.categories} == {'item'}
  assert [column.aligned for column in of.categories] == ['history'] * 2
  np.testing.assert_array_equal(
      of['rated'].places(pa.array([b'a:1||', b''])), [3, 0])
