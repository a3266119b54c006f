"""A value means the same as text, as a Parquet type and in a served model."""

import decimal
import math

import numpy as np
import pyarrow as pa
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.data import column_kinds
from ple_estimator.engine import native

# What a field may hold, and the number that it is: NaN where it says so, None
# if it is missing, 'no' if it is no number.
FIELDS = [
    ('', None), (' ', None), ('0', 0.0), (' 7 ', 7.0), ('+2', 2.0),
    ('-5', -5.0), ('-1', -1.0), ('-0.5', -0.5), ('1.', 1.0), ('.5', 0.5),
    ('1e3', 1e3), ('1e20', 1e20), ('1e39', math.inf), ('1e400', math.inf),
    ('-1e39', -math.inf), ('1e-60', 0.0), ('inf', math.inf),
    ('-inf', -math.inf), ('Infinity', math.inf), ('nan', math.nan),
    ('NaN', math.nan), ('nan(1)', 'no'), ('1_000', 'no'), ('0x10', 'no'),
    ('0X1', 'no'), ('1,5', 'no'), ('true', 'no'), ('False', 'no'),
    ('x', 'no'), ('--1', 'no'), ('1 2', 'no'), ('9007199254740993', 2.0**53),
    ('16777216', 2.0**24), ('16777220', 2.0**24 + 4), ('-16777220', -2.0**24),
    ('100', 100.0), ('101', 101.0),
]
LOST = 'lost'  # what a served model makes of a row that a file may not have


def number_of(column, x):
  """What a Number or a Weight takes x for, by plain arithmetic: LOST if not."""
  default, log1p, clip = column
  if isinstance(x, str):
    return LOST
  if x is None or math.isnan(x):
    return LOST if default is None else default
  if clip:
    return min(max(x, clip[0]), clip[1])
  if log1p:  # The logarithm of any float32 is small.
    return x if -1 < x < math.inf else LOST
  return x if abs(x) <= 2.0**24 else LOST


NUMBERS = [(None, False, None), (7.0, False, None), (None, True, None),
           (0.5, True, None), (None, False, (-3, 100)), (2, True, (0.5, 100))]


def parsed(column, array):
  """The values that `parse` returns as numpy array, and where they are bad."""
  values, bad = column.parse(array)
  return values.to_numpy(zero_copy_only=False), (
      np.zeros(len(array), bool) if bad is None else bad)


def run(tensors):
  with tf.Session() as sess:
    return sess.run(tensors)


@pytest.mark.parametrize('settings', NUMBERS, ids=str)
def test_a_number_means_the_same_everywhere(settings):
  default, log1p, clip = settings
  column = column_kinds.Number('x', log1p, 1.0, 1.0, default, clip)
  # -16777220 becomes -16777221 standardised, 16777217 stays within 2^24.
  fields = [(text, x) for text, x in FIELDS if x != -2.0**24] + [
      ('-16777210', -16777210.0)]
  wanted = [number_of(settings, x) for _, x in fields]
  lost = np.array([w == LOST for w in wanted])
  transform = np.log1p if log1p else np.array
  exact = transform(np.array(
      [np.nan if w == LOST else w for w in wanted], np.float32)) - 1.0
  text = pa.array([text for text, _ in fields])
  values, bad = parsed(column, text)
  np.testing.assert_array_equal(bad, lost)
  # What rows are beside a row makes no difference.
  alone = [parsed(column, text.slice(i, 1)) for i in range(len(fields))]
  np.testing.assert_array_equal([b[0] for _, b in alone], bad)
  np.testing.assert_array_equal(
      np.array([v[0] for v, _ in alone])[~bad], values[~bad])
  # A served model: a field that is no number cannot be fed.
  fed = np.array([np.nan if x is None or x == 'no' else x for _, x in fields],
                 np.float32)
  from_file, served = run([column.encode(tf.constant(values)),
                           column.encode(tf.constant(fed))])
  np.testing.assert_allclose(from_file[~lost], exact[~lost], rtol=1e-6)
  known = np.array([x != 'no' for _, x in fields])
  expected = np.where(
      lost, np.nan if default is None else transform(np.float32(default)) - 1,
      exact)
  np.testing.assert_allclose(served[known], expected[known], rtol=1e-6)


def typed(values, arrow_type):
  return pa.array(values, arrow_type)


D = decimal.Decimal
NAN = float('nan')


@pytest.mark.parametrize('array, wanted', [
    (typed([None, 3], pa.int8()), [None, 3]),
    (typed([3, 2**63], pa.uint64()), [3, 2.0**63]),
    (typed([2**53 + 1], pa.int64()), [2.0**53]),
    (typed([1.5, None, NAN, 1e39], pa.float64()), [1.5, None, NAN, math.inf]),
    (typed(np.array([1.5, 2], np.float16), pa.float16()), [1.5, 2]),
    (typed([True, False, None], pa.bool_()), [1, 0, None]),
    (typed([D('1.50'), None, D('-3.00')], pa.decimal128(9, 2)),
     [1.5, None, -3]),
    (typed([D('12')], pa.decimal256(50, 0)), [12]),
    (typed(['1.5', None, ' '], pa.large_string()), [1.5, None, None]),
    (typed([b'7 ', b'10'], pa.binary(2)), [7, 10]),
    (typed(['4', None], pa.string()).dictionary_encode(), [4, None]),
    (typed([4.5, None], pa.float64()).dictionary_encode(), [4.5, None]),
    (pa.nulls(2), [None, None]),
], ids=lambda a: str(getattr(a, 'type', '')))
def test_numbers_of_all_types(array, wanted):
  for default in (None, 7.0):
    column = column_kinds.Number('x', std=1e15, default=default)
    assert column.accepts(array.type)
    values, bad = parsed(column, array)
    missing = np.array([w is None or w != w for w in wanted])
    infinite = np.array([w == math.inf for w in wanted])
    np.testing.assert_array_equal(
        bad, infinite | missing if default is None else infinite)
    expected = np.array([default or 0.0 if m else w
                         for m, w in zip(missing, wanted)], np.float32)
    np.testing.assert_array_equal(values[~bad], expected[~bad])
  values, bad = parsed(column_kinds.Label('x'), array)
  np.testing.assert_array_equal(bad, missing | np.array(
      [not m and abs(w) > 1e15 for m, w in zip(missing, wanted)]))


# What an integer or a category makes of values: 'no' is refused.
WHOLE = [
    (typed([5, None, -1, 2**63 - 1], pa.int64()),
     [5, -1, 'no', 'no'], [b'5', b'', b'-1', b'9223372036854775807']),
    (typed([5, 2**64 - 1], pa.uint64()),
     [5, 'no'], [b'5', b'18446744073709551615']),
    (typed([5.0, None, NAN, 5.5, math.inf, -math.inf, 2.0**53, 2.0**53 + 2],
           pa.float64()),
     [5, -1, -1, 'no', 'no', 'no', 'no', 'no'],
     [b'5', b'', b'', 'no', 'no', 'no', b'9007199254740992', 'no']),
    (typed([5.0, 1e20, -0.0], pa.float32()), [5, 'no', 0], [b'5', 'no', b'0']),
    (typed([D('5.00'), D('5.10'), None], pa.decimal128(9, 2)),
     [5, 'no', -1], [b'5', 'no', b'']),
    (typed([D('9' * 30)], pa.decimal128(30, 0)), ['no'], [b'9' * 30]),
    # Arrow writes these zeros as 0E-10, and the third number as -1E-10.
    (typed([D('0'), D('7'), D('-0.0000000001'), D('20'), D('0.1')],
           pa.decimal128(30, 10)),
     [0, 7, 'no', 20, 'no'], [b'0', b'7', 'no', b'20', 'no']),
    (typed([True, False, None], pa.bool_()), [1, 0, -1],
     [b'true', b'false', b'']),
    (typed(['5', None, '', ' 7 ', 'x', '0x5', '5.0', '1_0', '-1', 'nan'],
           pa.string()),
     [5, -1, -1, 7, 'no', 'no', 'no', 'no', 'no', 'no'],
     [b'5', b'', b'', b' 7 ', b'x', b'0x5', b'5.0', b'1_0', b'-1', b'nan']),
    (typed([b'5', b'\xff'], pa.binary()), [5, 'no'], [b'5', b'\xff']),
    (typed(['5', None], pa.string()).dictionary_encode(), [5, -1],
     [b'5', b'']),
    (pa.nulls(1), [-1], [b'']),
]
each_whole = pytest.mark.parametrize(
    'array, integers, words', WHOLE, ids=[str(row[0].type) for row in WHOLE])


@each_whole
def test_integers_of_all_types(array, integers, words):
  column = column_kinds.Integer('x', 100, 4, default=9)
  assert column.accepts(array.type)
  values, bad = parsed(column, array)
  assert bad.tolist() == [x == 'no' for x in integers]
  good = [x for x in integers if x != 'no']
  assert values[~bad].tolist() == good
  ids = [9 if x == -1 else x for x in good]
  kept = pa.array(values[~bad])
  assert column.ids(kept).tolist() == ids
  assert run(column.encode(tf.constant(values[~bad]))).tolist() == ids


@each_whole
def test_categories_of_all_types(array, integers, words):
  column = column_kinds.Hashed('x', 97, 4)
  assert column.accepts(array.type)
  values, bad = column.parse(array)
  bad = np.zeros(len(array), bool) if bad is None else bad
  assert bad.tolist() == [w == 'no' for w in words]
  good = values.filter(pa.array(~bad))
  assert good.to_pylist() == [w for w in words if w != 'no']
  listed = column_kinds.HashedList('x', 97, 4)
  items, bad_rows = listed.parse(pa.ListArray.from_arrays(
      pa.array([0, len(array)], pa.int32()), array))
  assert (bad_rows is None) == (not bad.any())
  if not bad.any():
    assert items.to_pylist() == [b'|'.join(words)]


@pytest.mark.skipif(not native.available(), reason='no compiler')
@pytest.mark.parametrize('default', ['', 'none'])
def test_text_has_the_same_ids_by_both_ways(default):
  words = [b'', b' ', b'a', b'\xff\xfe', b'a\x00b', b'|', b'||a|', b'a| |a',
           'zw\u00f6lf'.encode(), b'nan', b'0x10', b'x' * 300]
  array = pa.array(words, pa.binary())
  one = column_kinds.Hashed('x', 97, 4, default)
  many = column_kinds.HashedList('x', 97, 4, default)
  single, lists = run([one.encode(tf.constant(words)),
                       many.encode(tf.constant(words))])
  np.testing.assert_array_equal(one.ids(array), single)
  ids, splits = many.ids(array)
  np.testing.assert_array_equal(ids, lists.values)
  np.testing.assert_array_equal(
      np.diff(splits), np.bincount(lists.indices[:, 0], minlength=len(words)))


@pytest.mark.parametrize('kind, settings, message', [
    ('Number', {'default': -5, 'log1p': True}, 'default must be from -0.9+ to'),
    ('Number', {'default': math.inf}, 'default must be a finite number'),
    ('Number', {'default': 1e39}, 'default must be a finite number'),
    ('Number', {'default': True}, 'default must be a finite number or None'),
    ('Number', {'default': 2.0**25}, 'default must be from -1.677722e.07 to'),
    ('Number', {'default': -1, 'clip': (0, 9)}, 'default must be from 0 to 9'),
    ('Number', {'clip': 5}, r'clip must be two numbers, .* such as \(0, 100\)'),
    ('Number', {'clip': (2, 1)}, 'clip must be two numbers, the lower one fir'),
    ('Number', {'clip': (0, math.inf)}, 'clip must be two numbers'),
    ('Number', {'clip': (-1, 9), 'log1p': True}, 'clip must have numbers from'),
    ('Number', {'clip': (0, 1e9)}, 'clip must have numbers from -1.677722e.07'),
    ('Number', {'log1p': 'False'}, "log1p must be True or False, got 'False'"),
    ('Number', {'std': 1e-60}, 'std must be a finite number above 0'),
    ('Number', {'mean': math.nan}, 'mean must be a finite number, got nan'),
    ('Weight', {'default': -1}, r'a number in \[0, 1e.15\] or None, got -1'),
    ('Weight', {'default': 1e20}, r'a number in \[0, 1e.15\]'),
    ('Label', {'values': (0, math.nan)}, 'values must be a list of numbers'),
    ('Label', {'values': ()}, 'values must be a list of numbers'),
])
def test_what_a_column_would_refuse_is_refused_where_it_is_bound(
    kind, settings, message):
  with pytest.raises(ValueError, match=message):
    getattr(column_kinds, kind)('x', **settings)


@pytest.mark.parametrize('column, value, message', [
    (column_kinds.Number('x'), '1e20',
     "must be from -1.677722e+07 to 1.677722e+07 ('mean' and 'std', 'log1p' or "
     "'clip' admit others), got '1e20'"),
    (column_kinds.Number('x'), 'a', "must be a number, got 'a'"),
    (column_kinds.Number('x', log1p=True), None,
     'must be a number above -1, got None'),
    (column_kinds.Label('y'), 1e16, 'must be from -1e+15 to 1e+15, got 1e+16'),
    (column_kinds.Label('y', (0, 1)), '2', "must be one of 0, 1, got '2'"),
    (column_kinds.Weight('w'), -1.0, 'must be from 0 to 1e+15, got -1.0'),
    (column_kinds.Weight('w'), NAN, 'must be a number that is not negative, '
     'got nan'),
])
def test_a_bad_value_is_put_in_words(column, value, message):
  assert column.problem(value) == message
