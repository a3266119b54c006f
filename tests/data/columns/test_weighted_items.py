"""Lists whose items have weights, on every road to the model."""

import conftest
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import roads
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.data import feature_spec
from ple_estimator.data import inputs
from ple_estimator.data import reading as reading_lib
from ple_estimator.data.columns import weighted_items
from ple_estimator.engine import native

COLUMN = column_kinds.HashedList('x', 97, 4, weights=':')
SUM = column_kinds.HashedList('x', 97, 4, weights=':', combiner='sum')


def ids_of(names):
  """The ids that a plain category of as many buckets has."""
  with tf.Session() as sess:
    return sess.run(column_kinds.Hashed('x', 97, 4).encode(
        tf.constant(names))).tolist()


def split(text):
  """What Python makes of a field: a list of (item, weight)."""
  pairs = [item.rpartition(':') for item in text.split('|') if item]
  return [(name, float(np.float32(weight))) for name, _, weight in pairs
          if name]


def encoded(column, texts):
  """What TensorFlow makes of fields: a list of (id, weight) for each."""
  with tf.Session() as sess:
    ids, weights = sess.run(column.encode(tf.constant(texts)))
  np.testing.assert_array_equal(ids.indices, weights.indices)
  found = [[] for _ in texts]
  for (row, _), *pair in zip(ids.indices, ids.values, weights.values):
    found[row].append(tuple(pair))
  return found


TEXTS = ['a:0.5|b:2', '', 'b:1', '||a:.5||', ':3|a:1', 'http://x:80:0.25',
         'ä: 1e-2 |a:+3.|a:1E+2', '|', 'a:0|b:0', 'a b:16777216|ö:0.1',
         'c:1e-60']


def test_fields_are_cut_at_the_last_separator():
  expected = [split(text) for text in TEXTS]
  known = {name: id_ for fields in expected for name, _ in fields
           for id_ in ids_of([name])}
  assert [[(id_, weight) for id_, weight in row]
          for row in encoded(COLUMN, TEXTS)] == [
              [(known[name], weight) for name, weight in row]
              for row in expected]
  values, bad = COLUMN.parse(pa.array(TEXTS))
  assert bad is None and values.to_pylist() == [t.encode() for t in TEXTS]


BAD = ['a', 'a:', 'a:x', 'a:nan', 'a:inf', 'a:-inf', 'a:1e39', 'a:16777218',
       'a:1_0', 'a:0x1', ':x', 'a:1:', 'a: ', 'a:1 2', 'a:--1']


@pytest.mark.parametrize('kernels', [False, True])
def test_a_row_with_a_bad_weight_is_bad_and_a_served_item_is_dropped(
    kernels, monkeypatch):
  monkeypatch.setattr(
      native, 'loaded', lambda: kernels and native.available())
  texts = ['%s|b:1' % text for text in BAD] + ['b:1|' + BAD[0], 'b:1']
  _, bad = COLUMN.parse(pa.array(texts))
  assert bad.tolist() == [True] * (len(BAD) + 1) + [False]
  b, = ids_of(['b'])
  assert encoded(COLUMN, texts) == [[(b, 1)]] * len(texts)
  # A mean is divided by the sum of the weights, a sum is not.
  assert COLUMN.parse(pa.array(['a:-1']))[1].tolist() == [True]
  assert SUM.parse(pa.array(['a:-1']))[1] is None
  assert encoded(COLUMN, ['a:-1']) == [[]]
  assert encoded(SUM, ['a:-1']) == [[(ids_of(['a'])[0], -1)]]


def numbers_of(seed, count):
  """Texts of numbers of all sizes and lengths, some of them none."""
  rng = np.random.RandomState(seed)
  forms = ['%d', '%.2f', '%.7f', '%.12f', '%.3e', '%r', ' %.1f ', '+%d.', '%dx']
  return [forms[rng.randint(len(forms))] % value for value in np.exp(
      rng.uniform(-40, 20, count))] + [
          '16777216.5', '1677721.65', '0.00000000001', '9' * 30, '.5e-3', '.',
          '1e', '1e+', '1' + '0' * 40 + 'e-40', '123456789012345678.', '-0',
          '\t1\v', '1.17549435e-38', '3.4028236e38', '8388608.5', '1e-400']


@conftest.needs_kernels
@pytest.mark.parametrize('separator, mark, combiner', [
    ('|', ':', 'mean'), ('|', ':', 'sum'), (';;', '§', 'mean')])
def test_the_kernels_read_what_arrow_reads(
    separator, mark, combiner, monkeypatch):
  texts = TEXTS + ['%s|b:1' % text for text in BAD] + [
      'a:%s|:%s|b:-%s' % (one, one, one) for one in numbers_of(3, 500)]
  texts = pa.array(
      [text.replace('|', separator).replace(':', mark).encode()
       for text in ['left out'] + texts], pa.binary())[1:]
  items = weighted_items.WeightedItems(separator, mark, combiner)
  wanted = items.split(texts)
  ids, weights, splits = items.ids(texts, 97)
  np.testing.assert_array_equal(splits, wanted.splits)
  good = ~wanted.bad
  np.testing.assert_array_equal(weights[good], wanted.weights[good])
  assert ids[good].tolist() == ids_of(
      wanted.names.filter(pa.array(good)).to_pylist())
  assert good.sum() > 500 and (~good).sum() > 50
  found = items.bad_rows(texts)
  monkeypatch.setattr(native, 'loaded', lambda: False)
  np.testing.assert_array_equal(found, items.bad_rows(texts))


MAPS = [[('a', 0.5), ('b', 2)], None, [], [('a', 0.1), ('a', 3)]]
MAP_TEXTS = ['a:0.5|b:2', '', '', 'a:0.1|a:3']


@pytest.mark.parametrize('maps', [
    pa.array(MAPS, pa.map_(pa.string(), pa.float32())),
    pa.array(MAPS, pa.map_(pa.binary(), pa.float64())),
    pa.array([[('c', 1)]] + MAPS + [[('d', 1)]],
             pa.map_(pa.string(), pa.float64())).slice(1, 4),
], ids=['float', 'double', 'slice'])
def test_maps_mean_what_their_text_does(maps):
  assert SUM.accepts(maps.type)
  values, bad = SUM.parse(maps)
  assert bad is None and [
      split(text.decode()) for text in values.to_pylist()] == [
          split(text) for text in MAP_TEXTS]


def test_maps_of_other_types():
  for given, text in [
      (pa.array([[(7, 2), (-8, 3)]], pa.map_(pa.int64(), pa.int32())),
       '7:2|-8:3'),
      (pa.array([[('x:y', '0.5'), ('', '2')]],
                pa.map_(pa.string(), pa.string())), 'x:y:0.5|:2')]:
    assert COLUMN.accepts(given.type)
    values, bad = COLUMN.parse(given)
    assert bad is None
    assert split(values[0].as_py().decode()) == split(text)
  lists = pa.array([['a:1', 'b:2'], ['a:1|b:2'], ['a']])
  values, bad = COLUMN.parse(lists)
  assert values[0].as_py() == b'a:1|b:2' and bad.tolist() == [
      False, True, True]
  for other in [pa.map_(pa.date32(), pa.float32()),
                pa.map_(pa.string(), pa.date32()), pa.date32()]:
    assert not COLUMN.accepts(other)
  assert not column_kinds.HashedList('x', 97, 4).accepts(
      pa.map_(pa.string(), pa.float32()))


@pytest.mark.parametrize('key, weight', [
    ('a', None), ('a', float('nan')), ('a', 1e300), ('a', -1.0), ('a|b', 1.0)])
def test_a_map_with_a_bad_entry_is_bad(key, weight):
  _, bad = COLUMN.parse(pa.array(
      [[('b', 1.0)], [('b', 1.0), (key, weight)], None],
      pa.map_(pa.string(), pa.float64())))
  assert bad.tolist() == [False, True, False]


@pytest.mark.parametrize('keep', ['first', 'last'])
def test_it_is_the_same_on_every_road(tmp_path, keep):
  spec = feature_spec.FeatureSpec([
      {'name': 'x', 'kind': 'hashed_list', 'num_buckets': 97, 'weights': ':',
       'max_items': 2, 'keep': keep, 'default': 'z:4'},
      {'name': 'y', 'kind': 'hashed_list', 'num_buckets': 97, 'weights': '=',
       'separator': ';;'},
      {'name': 'plain', 'kind': 'hashed_list', 'num_buckets': 97}], dim=4)
  a, b, c, z = ids_of(['a', 'b', 'c', 'z'])
  x = ['a:0.5||b:2|c:3', '', 'c:0', ':1|b:7']
  y = ['a=1', 'b=2;;b=3', '', 'c=0.5']
  kept = {'first': ([a, b], [0.5, 2]), 'last': ([b, c], [2, 3])}[keep]
  roads.check(
      tmp_path, spec, {'x': x, 'y': y, 'plain': ['a|b', '', 'c', 'a']},
      {'x': [text or None for text in x], 'y': [text or None for text in y],
       'plain': ['a|b', None, 'c', 'a']},
      {'x': [kept[0], [z], [c], [b]], 'y': [[a], [b, b], [], [c]],
       'plain': [[a, b], [], [c], [a]]},
      weights={'x': [kept[1], [4], [0], [7]], 'y': [[1], [2, 3], [], [0.5]]},
      typed={'x': pa.array(
          [[('a', 0.5), ('', 9), ('b', 2), ('c', 3)], None, [('c', 0)],
           [('', 1), ('b', 7)]], pa.map_(pa.string(), pa.float32()))})


def test_rows_keep_their_weights_when_they_are_shuffled(tmp_path):
  path = tmp_path / 'x.csv'
  path.write_text(''.join(
      '%d:%d|%d:%d,%d\n' % (i, i, i + 1, i + 1, i) for i in range(1000)))
  spec = feature_spec.FeatureSpec([
      {'name': 'x', 'kind': 'hashed_list', 'num_buckets': 97, 'weights': ':'},
      {'name': 'i', 'kind': 'integer', 'num_buckets': 1000}], dim=4)
  tables = list(inputs.CsvInput(
      str(path), batch_size=77, shuffle_rows=100).tables(
          reading_lib.Reading(spec, with_labels=False)))
  pairs = [pair for table in tables for pair in zip(
      table['i'].to_pylist(), table['x'].to_pylist())]
  assert sorted(pairs) == [
      (i, b'%d:%d|%d:%d' % (i, i, i + 1, i + 1)) for i in range(1000)]
  assert pairs != sorted(pairs)


def test_a_bad_row_is_told_with_file_and_number(tmp_path):
  spec = feature_spec.FeatureSpec([
      {'name': 'x', 'kind': 'hashed_list', 'num_buckets': 9, 'weights': ':'},
      {'name': 'i', 'kind': 'number'}], dim=4)
  csv, parquet = tmp_path / 'x.csv', tmp_path / 'x.parquet'
  csv.write_text('a:1,1\na:1|b:-2,1\n')
  pa.parquet.write_table(pa.table({
      'x': pa.array([[('a', 1)], [('b', -2)]],
                    pa.map_(pa.string(), pa.float32())),
      'i': pa.array([1.0, 2.0])}), str(parquet))
  wanted = (
      r"row 2 column 'x' must have items with a weight from 0 to 1\.67772e\+07 "
      r"each, such as 'a:0\.5\|b:2', of text without '\|' inside or of whole "
      r'numbers of at most 2\^53, got ')
  reading = reading_lib.Reading(spec, with_labels=False)
  for source, got in [(inputs.CsvInput(str(csv)), "'a:1|b:-2'"),
                      (inputs.ParquetInput(str(parquet)), "[('b', -2.0)]")]:
    with pytest.raises(errors.UserError, match=wanted) as raised:
      list(source.tables(reading))
    assert str(raised.value).endswith(got + '.')


@pytest.mark.parametrize('arguments, message', [
    ({'weights': '::'}, "weights must be one character that no number has, "
     "such as ':', got '::'."),
    ({'weights': '-'}, "such as ':', got '-'."),
    ({'weights': ' '}, "such as ':', got ' '."),
    ({'weights': ':', 'separator': '::'}, "separator must not have ':', nor a "
     "character that numbers have, with weights, got '::'."),
    ({'weights': ':', 'separator': '.'}, "with weights, got '.'."),
    ({'weights': ':', 'default': 'a'}, "got 'a'."),
    ({'weights': ':', 'default': 'a:-1'}, "default must have items with a "
     "weight"),
])
def test_wrong_arguments_are_told(arguments, message):
  with pytest.raises(errors.UserError) as raised:
    feature_spec.FeatureSpec([dict({
        'name': 'x', 'kind': 'hashed_list', 'num_buckets': 9}, **arguments)])
  said = str(raised.value)
  assert said.startswith("FeatureSpec.columns, 'x': ")
  assert message in said and '\n' not in said
