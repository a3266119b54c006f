"""A served model takes values for what they are in a file."""

import numpy as np
import pyarrow as pa
import tensorflow.compat.v1 as tf

from ple_estimator.data import feature_spec
from ple_estimator.data import packing
from ple_estimator.data import reading
from ple_estimator.data import row_checks
from ple_estimator.data import serving

SPEC = feature_spec.FeatureSpec([
    {'name': 'y', 'kind': 'label'},
    {'name': 'word', 'kind': 'hashed', 'num_buckets': 97},
    {'name': 'known', 'kind': 'hashed', 'num_buckets': 97, 'default': 'a'},
    {'name': 'many', 'kind': 'hashed_list', 'num_buckets': 97},
    {'name': 'id', 'kind': 'integer', 'num_buckets': 9},
    {'name': 'day', 'kind': 'integer', 'num_buckets': 9, 'default': 7},
    {'name': 'x', 'kind': 'number', 'log1p': True, 'mean': 1.0},
    {'name': 'z', 'kind': 'number', 'default': 2.5},
    {'name': 'c', 'kind': 'number', 'clip': (0, 10), 'default': 3},
], dim=4)
COLUMNS = ['word', 'known', 'many', 'id', 'day', 'x', 'z', 'c']
NAN = float('nan')
MISSING = ['', '', '', -1, -1, NAN, NAN, NAN]
ROWS = [
    ['a', 'b', 'a|b', 3, 4, 1.5, -0.5, 5.0],
    MISSING,
    # What a file may not have, and so counts as missing.
    ['', '', '|', 9, 10**10, -1.0, np.inf, NAN],
    ['', '', '', -5, -5, -np.inf, 1e20, 1e39],
    ['', '', '', 0, 0, 0.0, -1e20, -np.inf],
]


def example(row, leave_out):
  """A serialized tf.train.Example, without what is missing if told so."""
  features = {}
  for name, value, missing in zip(COLUMNS, row, MISSING):
    if leave_out and (value == missing or value != value):
      continue
    if isinstance(value, str):
      features[name] = tf.train.Feature(
          bytes_list=tf.train.BytesList(value=[value.encode()]))
    elif isinstance(value, int):
      features[name] = tf.train.Feature(
          int64_list=tf.train.Int64List(value=[value]))
    else:
      features[name] = tf.train.Feature(
          float_list=tf.train.FloatList(value=fed(name, [value])))
  return tf.train.Example(features=tf.train.Features(
      feature=features)).SerializeToString()


def fed(name, values):
  """What a caller sends: 1e39 is infinite in float32."""
  with np.errstate(over='ignore'):
    return np.array(values, SPEC[name].dtype.as_numpy_dtype)


def plain(features):
  return {name: (value.indices[:, 0].tolist(), value.values.tolist())
          if isinstance(value, tf.SparseTensorValue) else value
          for name, value in features.items()}


def answers(groups=()):
  """The features of ROWS: by columns, and by Examples of either form."""
  made = serving.input_receiver_fn(reading.Reading(SPEC, groups=groups))()
  inputs = made.receiver_tensors
  examples, = made.receiver_tensors_alternatives['examples'].values()
  with tf.Session() as sess:
    by_column = sess.run(made.features, {
        inputs[name]: fed(name, [row[i] for row in ROWS])
        for i, name in enumerate(COLUMNS)})
    return [plain(by_column)] + [
        plain(sess.run(made.features, {
            examples: [example(row, leave_out) for row in ROWS]}))
        for leave_out in (False, True)]


def test_both_signatures_make_the_same_of_everything():
  by_column, complete, left_out = answers()
  assert set(by_column) == set(COLUMNS)
  for name in COLUMNS:
    np.testing.assert_array_equal(by_column[name], complete[name])
    np.testing.assert_array_equal(by_column[name], left_out[name])
  np.testing.assert_array_equal(by_column['id'], [3, -1, -1, -1, 0])
  np.testing.assert_array_equal(by_column['day'], [4, 7, 7, 7, 0])
  np.testing.assert_allclose(
      by_column['x'], [np.log(2.5) - 1, NAN, NAN, NAN, -1], rtol=1e-6)
  np.testing.assert_array_equal(by_column['z'], [-0.5, 2.5, 2.5, 2.5, 2.5])
  np.testing.assert_array_equal(by_column['c'], [5, 3, 3, 10, 0])
  assert by_column['word'][1:].tolist() == [-1] * 4
  assert by_column['known'][1] == by_column['word'][0]  # that of 'a'
  assert by_column['many'][0] == [0, 0]  # only row 0 has items


def test_packed_ids_are_the_same_in_both_signatures():
  by_column, complete, left_out = answers(packing.groups(SPEC.categories))
  for name, value in by_column.items():
    np.testing.assert_array_equal(value, complete[name])
    np.testing.assert_array_equal(value, left_out[name])


def test_a_row_of_a_file_is_served_as_it_was_trained():
  texts = [['a', '', 'a||b', '3', '', '0.5', 'nan', '1e39'],
           ['', 'b', '', '', '8', ' 7 ', '', '-2'],
           ['x', '', '|', '0', '0', '1e20', '3', '']]
  table = pa.table([pa.array(column) for column in zip(*texts)], COLUMNS)
  read = row_checks.typed(
      table, SPEC.read(with_labels=False), row_checks.BadRows(skip=False), 'f',
      lambda index: index)
  arrays = {name: read[name].to_pylist() for name in COLUMNS}
  from_file, _ = SPEC.encode({
      name: tf.constant(values, SPEC[name].dtype)
      for name, values in arrays.items()})
  made = serving.input_receiver_fn(reading.Reading(SPEC))()
  rows = [[float(text) if kind == 'f' and text.strip() else
          NAN if kind == 'f' else int(text or -1) if kind == 'i' else text
          for text, kind in zip(row, 'tttiifff')] for row in texts]
  with tf.Session() as sess:
    trained = plain(sess.run(from_file))
    served = plain(sess.run(made.features, {
        made.receiver_tensors[name]: fed(name, [row[i] for row in rows])
        for i, name in enumerate(COLUMNS)}))
  for name in COLUMNS:
    np.testing.assert_array_equal(trained[name], served[name])
    assert name == 'many' or not np.isnan(served[name]).any()
