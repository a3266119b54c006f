"""Lists whose weights stand in a column of their own, on every road."""

import conftest
import numpy as np
import pyarrow as pa
import pytest
import roads
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import feature_spec
from ple_estimator.data import inputs
from ple_estimator.data import reading as reading_lib
from ple_estimator.data.columns import weight_list
from ple_estimator.engine import native

ITEMS = {'name': 'items', 'kind': 'hashed_list', 'num_buckets': 97,
         'weights_column': 'scores'}
KINDS = dict(ITEMS, name='kinds', separator=';')
SCORES = {'name': 'scores', 'kind': 'weight_list', 'separator': ','}


def spec(*columns):
  return feature_spec.FeatureSpec(list(columns), dim=4)


def hashes(texts):
  with tf.Graph().as_default(), tf.Session() as sess:
    return sess.run(tf.strings.to_hash_bucket_fast(texts, 97)).tolist()


# Two items, none, an empty item with and without a weight, four items.
TEXTS = {'items': ['a|b', '', 'a||c', '|b', '', 'a|b|c|d'],
         'scores': ['0.5,2', '', '1,7,0', ',1e-1', '3', '1,2,3, 4 ']}
LEFT = {
    (None, None, 'first'): (['ab', '', 'ac', 'b', '', 'abcd'],
                            [[.5, 2], [], [1, 0], [.1], [], [1, 2, 3, 4]]),
    (None, 2, 'first'): (['ab', '', 'ac', 'b', '', 'ab'],
                         [[.5, 2], [], [1, 0], [.1], [], [1, 2]]),
    (None, 1, 'last'): (['b', '', 'c', 'b', '', 'd'],
                        [[2], [], [0], [.1], [], [4]]),
    # Here places count, those of empty items too.
    ('all', 2, 'first'): (['ab', '', 'a', 'b', '', 'ab'],
                          [[.5, 2], [], [1], [.1], [], [1, 2]]),
    ('all', 2, 'last'): (['ab', '', 'c', 'b', '', 'cd'],
                         [[.5, 2], [], [0], [.1], [], [3, 4]]),
}


@pytest.mark.parametrize('how', list(LEFT), ids=str)
def test_it_is_the_same_on_every_road(tmp_path, how):
  aligned, max_items, keep = how
  names, weights = LEFT[how]
  more = {'aligned': aligned, 'max_items': max_items, 'keep': keep}
  ids = [hashes(list(of)) if of else [] for of in names]
  weights = [np.float32(of).tolist() for of in weights]
  texts = dict(TEXTS, kinds=[t.replace('|', ';') for t in TEXTS['items']])
  of = spec(SCORES, dict(ITEMS, **more), dict(KINDS, **more))
  texts = {name: texts[name] for name in ('scores', 'items', 'kinds')}
  lists = {
      'items': pa.array([t.split('|') if t else None for t in texts['items']]),
      'scores': pa.array([[float(x) if x else None for x in t.split(',')]
                          if t else None for t in texts['scores']],
                         pa.list_(pa.float32()))}
  for typed in (None, lists):
    roads.check(tmp_path, of, texts,
                {name: [t or None for t in of] for name, of in texts.items()},
                {'items': ids, 'kinds': ids}, typed,
                weights={'items': weights, 'kinds': weights})


@pytest.mark.parametrize('scores', [
    pa.array([[1, 2], [3]], pa.list_(pa.int32())),
    pa.array([[1.0, 2.0], [3.0]], pa.large_list(pa.float64())),
    pa.array([['1', '2'], [' 3']]), pa.array([b'1,2', b'3'])], ids=str)
def test_types_of_parquet(scores):
  of = spec(SCORES, ITEMS)['scores']
  assert of.accepts(scores.type)
  values, bad = of.parse(scores)
  assert bad is None and [
      [float(x) for x in text.split(b',')] for text in values.to_pylist()
      ] == [[1, 2], [3]]
  for other in (pa.date32(), pa.list_(pa.date32()),
                pa.map_(pa.string(), pa.float32())):
    assert not of.accepts(other)
  values, bad = of.parse(pa.array([['1'], ['x'], None]))
  assert bad.tolist() == [False, True, False]
  assert of.parse(pa.array([1.5, None]))[0].to_pylist() == [b'1.5', b'']


# items, scores, and what is asked of a bad row.
ROWS = [
    ('a|b', '1,2', None), ('', '', None), ('', '3', None), ('|b', ',1', None),
    ('a|b', '1', 'must have 2 weights, one for each item of column \'items\''),
    ('a', '1,2', 'must have 1 weight, one for each item of column \'items\''),
    ('', '1,2', 'must have 1 weight, one for each item of column \'items\''),
] + [(items, weights, "must have a number from 0 to 1.67772e+07 for each item "
      "of column 'items'") for items, weights in [
          ('a', ''), ('a|b', '1,'), ('a|b', ',1'), ('a|b', '1,x'),
          ('|b', 'x,1'), ('a', '-1'), ('a', 'nan'), ('a', '1e39'),
          ('a', '0x1'), ('|b', '-1,1'), ('a|b', '1, ')]]


@pytest.mark.parametrize('kernels', [False, True])
def test_which_rows_are_bad(kernels, monkeypatch):
  monkeypatch.setattr(
      native, 'loaded', lambda: kernels and native.available())
  items, scores, wanted = zip(*ROWS)
  of = spec(SCORES, ITEMS)['scores']
  found = [None] * len(ROWS)
  for bad, problem in of.unfit({
      name: pa.array([text.encode() for text in texts])
      for name, texts in [('items', items), ('scores', scores)]}):
    for i in np.flatnonzero(bad):
      assert found[i] is None
      found[i] = problem
  assert found == list(wanted)


@conftest.needs_kernels
def test_the_kernels_find_what_arrow_finds():
  rng = np.random.RandomState(3)
  fields = [[mark.join(parts[i] for i in rng.randint(len(parts), size=n))
             for n in rng.randint(0, 4, 2000)]
            for parts, mark in [(['', 'a', 'bc'], '|'),
                                (['', '1', '.5', '-1', 'x', ' '], ',')]]
  fields = [pa.array([t.encode() for t in of], pa.binary()) for of in fields]
  beside = weight_list.BesideItems('items', '|', 'mean')
  beside.join(spec(SCORES, ITEMS)['scores'])
  wanted = beside._problems(*fields)
  np.testing.assert_array_equal(beside._native(*fields)[3], wanted)
  assert np.bincount(wanted).min() > 100


@pytest.mark.parametrize('kind', [inputs.CsvInput, inputs.ParquetInput])
def test_a_bad_row_is_refused_or_counted(tmp_path, kind):
  items, scores, wanted = zip(*ROWS)
  path = str([source for source in roads.files(
      tmp_path, {'items': items, 'scores': scores})
              if isinstance(source, kind)][0].paths()[0])
  reading = reading_lib.Reading(spec(ITEMS, SCORES), with_labels=False)
  with pytest.raises(errors.UserError) as error:
    list(kind(path).tables(reading))
  assert str(error.value) == (
      "%s row 5 column 'scores' must have 2 weights, one for each item of "
      "column 'items', got '1'." % path)
  skips = kind(path, on_bad_row='skip')
  table, = skips.tables(reading)
  assert table.num_rows == wanted.count(None)
  assert skips.bad_rows.skipped == len(ROWS) - wanted.count(None)


def test_a_served_model_drops_items_without_a_usable_weight():
  column, = spec(dict(ITEMS, combiner='sum'), SCORES).categories
  with tf.Session() as sess:
    ids, weights = sess.run(column.encode(
        tf.constant(['a|b|c', 'a|b', 'a', '', 'a']),
        tf.constant(['1,x,-3', '2', '', '5', '1,2'])))
  assert ids.indices[:, 0].tolist() == [0, 0, 1, 4]
  assert ids.values.tolist() == hashes(['a', 'c', 'a', 'a'])
  assert weights.values.tolist() == [1, -3, 2, 1]


@pytest.mark.parametrize('columns, message', [
    ([ITEMS], "'items': weights_column must be a column of kind weight_list "
     "(there are none), got 'scores'."),
    ([dict(ITEMS, weights_column='items'), dict(ITEMS, name='x'), SCORES],
     "'items': weights_column must be a column of kind weight_list (scores), "
     "got 'items'."),
    ([dict(ITEMS, weights_column=1), SCORES],
     "'items': weights_column must be"),
    ([dict(ITEMS, weights=':'), SCORES], "'items': weights must be None with "
     "weights_column, got ':': the weights are behind the items or in a column "
     'of their own.'),
    ([dict(ITEMS, default='a'), SCORES], "'items': default must be '' with "
     "weights_column, where each item has a weight, got 'a'."),
    ([dict(ITEMS, combiner='attention', query='x'), SCORES],
     "'items': weights_column must be None with the combiner 'attention', "
     "which finds a weight for each item, got 'scores': with 'mean', 'sum' or "
     "'sqrtn' the items have these weights."),
    ([dict(ITEMS, weights_column=None), SCORES], "'scores': a weight_list must "
     "be the 'weights_column' of a hashed_list, and no list names it: name it, "
     "or give it the kind 'ignored'."),
    ([ITEMS, dict(SCORES, separator='.')], "'scores': separator must not have "
     "a character that numbers have, got '.'."),
])
def test_wrong_arguments_are_told(columns, message):
  with pytest.raises(errors.UserError) as raised:
    spec(*columns)
  said = str(raised.value)
  assert said.startswith('FeatureSpec.columns, ' + message) and '\n' not in said
