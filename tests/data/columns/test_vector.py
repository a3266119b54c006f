"""Vectors of numbers, on every road to the model."""

import numpy as np
import pyarrow as pa
import pytest
import roads
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.data import feature_spec
from ple_estimator.data import inputs
from ple_estimator.data import predictions
from ple_estimator.data import reading as reading_lib

NAN = float('nan')
COLUMN = column_kinds.Vector('v', 3)
FILLED = column_kinds.Vector('v', 3, default=7.0)


def parsed(column, array):
  """The rows that `parse` returns as lists, None for a bad one."""
  assert column.accepts(array.type)
  values, bad = column.parse(array)
  assert values.type == pa.list_(pa.float32(), 3)
  bad = np.zeros(len(array), bool) if bad is None else bad
  return [None if is_bad else row
          for row, is_bad in zip(values.to_pylist(), bad)]


ROWS = [[1.0, -2.0, 0.5], [1.0, 2.0], [], None, [1.0, None, 3.0],
        [NAN, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0], [1e20, 2.0, 3.0]]
WANTED = [[1.0, -2.0, 0.5]] + [None] * 7
WANTED_FILLED = [[1.0, -2.0, 0.5], None, None, [7.0] * 3, [1.0, 7.0, 3.0],
                 [7.0, 2.0, 3.0], None, None]


@pytest.mark.parametrize('array', [
    pa.array(ROWS, pa.list_(pa.float64())),
    pa.array(ROWS, pa.large_list(pa.float32())),
    pa.array([[9.0] * 3] + ROWS, pa.list_(pa.float64())).slice(1),
], ids=['list', 'large', 'slice'])
def test_lists_of_any_length(array):
  assert parsed(COLUMN, array) == WANTED
  assert parsed(FILLED, array) == WANTED_FILLED


def test_lists_of_one_length_and_text():
  rows = [row for row in ROWS if row is None or len(row) == 3]
  for array in [
      pa.array(rows, pa.list_(pa.float64(), 3)),
      pa.array([[9.0] * 3] + rows, pa.list_(pa.float32(), 3)).slice(1),
      pa.array(['1|-2|0.5', None, '1||3', 'nan| 2 |3', '1e20|2|3']),
      pa.array([b'1|-2|.5', b'', b'1| |3', b'NaN|2|3', b'1e20|2|3']),
      pa.array(['1|-2|0.5', None, '1||3', 'nan| 2 |3', '1e20|2|3']
               ).dictionary_encode()]:
    assert parsed(COLUMN, array) == [[1.0, -2.0, 0.5]] + [None] * 4
    assert parsed(FILLED, array) == [
        [1.0, -2.0, 0.5], [7.0] * 3, [1.0, 7.0, 3.0], [7.0, 2.0, 3.0], None]
  assert parsed(COLUMN, pa.array(['1|2', '1|2|3|4', 'a|2|3'])) == [None] * 3
  assert parsed(COLUMN, pa.array([[1, 2, 3]], pa.list_(pa.int32()))) == [
      [1.0, 2.0, 3.0]]
  for other in [pa.float32(), pa.list_(pa.float32(), 2), pa.date32(),
                pa.list_(pa.date32())]:
    assert not COLUMN.accepts(other)


def test_the_network_reads_it_standardised():
  column = column_kinds.Vector('v', 2, log1p=True, mean=0.5, std=2.0,
                               clip=(0, 100))
  fed = np.array([[0, 9], [1e9, -5]], np.float32)
  with tf.Session() as sess:
    found = sess.run(column.encode(tf.constant(fed)))
  np.testing.assert_allclose(
      found, (np.log1p(np.clip(fed, 0, 100)) - 0.5) / 2, rtol=1e-6)


def test_it_is_the_same_on_every_road(tmp_path):
  spec = feature_spec.FeatureSpec([
      {'name': 'v', 'kind': 'vector', 'width': 2, 'mean': 1.0, 'std': 2.0,
       'default': 3.0, 'separator': ';'},
      {'name': 'x', 'kind': 'number'},
      {'name': 'word', 'kind': 'hashed', 'num_buckets': 5}], dim=4)
  assert spec.numbers == ['v', 'x'] and spec.num_numbers == 3
  expected = (np.array([[1, 2], [3, 3], [-1, 0.5]]) - 1) / 2
  # Not every pyarrow writes a null among lists of one length.
  for typed in (
      pa.array([[1, 2], None, [-1, 0.5]], pa.list_(pa.float64())),
      pa.array([[1, 2], [None, 3], [-1, 0.5]], pa.list_(pa.float32(), 2))):
    roads.check(
        tmp_path, spec, {'v': ['1;2', '', '-1;.5'], 'x': ['1', '2', '3'],
                         'word': [''] * 3},
        {'v': [[1, 2], None, [-1, 0.5]], 'x': [1, 2, 3], 'word': [None] * 3},
        {'word': [[]] * 3}, numbers={'v': expected, 'x': [1, 2, 3]},
        typed={'v': typed})


def test_rows_keep_their_vector_when_they_are_shuffled(tmp_path):
  spec = feature_spec.FeatureSpec([
      {'name': 'v', 'kind': 'vector', 'width': 3},
      {'name': 'i', 'kind': 'integer', 'num_buckets': 1000}], dim=4)
  rows = np.arange(3000.0).reshape(-1, 3)
  path = tmp_path / 'x.csv'
  path.write_text(''.join(
      '%g|%g|%g,%d\n' % (tuple(row) + (i,)) for i, row in enumerate(rows)))
  reading = reading_lib.Reading(spec, with_labels=False)
  tables = list(inputs.CsvInput(
      str(path), batch_size=77, shuffle_rows=100).tables(reading))
  found = {i: v for table in tables
           for i, v in zip(table['i'].to_pylist(), table['v'].to_pylist())}
  assert [found[i] for i in range(1000)] == rows.tolist()
  assert tables[0]['i'].to_pylist() != list(range(77))


@pytest.mark.parametrize('value, message', [
    ('1|2', "must be a list of 3 numbers, got '1|2'"),
    ([1.0, 2.0], 'must be a list of 3 numbers, got [1.0, 2.0]'),
    ('', "must be a list of 3 numbers, got ''"),
    (None, 'must be a list of 3 numbers, got None'),
    ('1|x|3', "must be a number, got 'x' as number 2 of 3"),
    ([True, 2**64 - 1, 5], "must be from -1.677722e+07 to 1.677722e+07 ('mean' "
     "and 'std', 'log1p' or 'clip' admit others), got 18446744073709551615 as "
     'number 2 of 3'),
    ([1.0, 2.0, 1e20], 'must be from -1.677722e+07 to 1.677722e+07 (\'mean\' '
     "and 'std', 'log1p' or 'clip' admit others), got 1e+20 as number 3 of 3"),
])
def test_a_bad_row_is_put_in_words(value, message):
  assert COLUMN.problem(value) == message


def test_predictions_have_a_vector_in_parquet_alone(tmp_path):
  batch = {'ctr': np.zeros(2, np.float32),
           'v': np.array([[1, 2, 3], [4, 5, 6]], np.float32)}
  written = predictions.write(str(tmp_path / 'p.parquet'), [batch])
  found, = written.batches()
  assert [row.tolist() for row in found['v']] == batch['v'].tolist()
  with pytest.raises(errors.UserError, match='must end in .parquet for the '
                     "vector 'v'"):
    predictions.write(str(tmp_path / 'p.csv'), [batch])
