"""Bucketised numbers against numpy, on every road to the model."""

import numpy as np
import pyarrow as pa
import pytest
import roads
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.data import feature_spec

BOUNDARIES = (-1.5, 0, 0.1, 10, 1e6)


def bucketised(default=None):
  return column_kinds.Bucketised('x', BOUNDARIES, 4, default)


def test_ids_are_those_of_numpy():
  values = np.concatenate([
      np.random.RandomState(1).normal(0, 9, 1000),
      BOUNDARIES, np.nextafter(np.float32(BOUNDARIES), np.float32(-np.inf)),
      [np.inf, -np.inf, 3e38]]).astype(np.float32)
  # The number next to 0 is denormal: TensorFlow takes it for 0.
  expected = np.searchsorted(np.float32(BOUNDARIES), np.where(
      np.abs(values) < 1e-40, 0, values), side='right').tolist()
  column = bucketised()
  assert column.num_buckets == 6 and set(expected) == set(range(6))
  assert column.ids(pa.array(values)).tolist() == expected
  with tf.Session() as sess:
    assert sess.run(column.encode(tf.constant(values))).tolist() == expected


@pytest.mark.parametrize('default, of_missing', [(None, []), (10, [4])])
def test_it_is_the_same_on_every_road(tmp_path, default, of_missing):
  spec = feature_spec.FeatureSpec([
      {'name': 'x', 'kind': 'bucketised', 'boundaries': BOUNDARIES,
       'default': default},
      {'name': 'word', 'kind': 'hashed', 'num_buckets': 5}], dim=4)
  fields = ['-2', '-1.5', '0', ' 0.1 ', '9.99', '', '1e39', '-inf', 'nan', '10']
  values = [-2.0, -1.5, 0.0, 0.1, 9.99, None, np.inf, -np.inf, None, 10.0]
  roads.check(
      tmp_path, spec, {'x': fields, 'word': [''] * 10},
      {'x': values, 'word': [None] * 10},
      {'x': [[0], [1], [2], [3], [3], of_missing, [5], [0], of_missing, [4]],
       'word': [[]] * 10},
      typed={'x': pa.array(values, pa.float64())})


def test_text_that_is_no_number_is_a_bad_row():
  column = bucketised()
  values, bad = column.parse(pa.array(['1', 'x', '', '1,5'], pa.string()))
  assert bad.tolist() == [False, True, False, True]
  assert column.problem('x') == "must be a number, got 'x'"
  assert column.accepts(pa.int32()) and not column.accepts(pa.date32())


@pytest.mark.parametrize('boundaries, message', [
    ([], r'boundaries must be a list of ascending numbers, .* got \[\]'),
    ([1, 1], r'ascend in float32, such as \(0, 10\), got \[1, 1\]'),
    ([2, 1], r'ascend in float32, such as \(0, 10\), got \[2, 1\]'),
    ([2**24, 2**24 + 1], 'ascend in float32'),
    ([0, float('nan')], 'boundaries must be a list of ascending numbers'),
    ([0, '1'], 'boundaries must be a list of ascending numbers'),
])
def test_boundaries_that_do_not_ascend_are_refused(boundaries, message):
  with pytest.raises(errors.UserError, match=message):
    column_kinds.Bucketised('x', boundaries, 4)
