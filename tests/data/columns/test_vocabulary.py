"""Listed categories: places in the list, on every road to the model."""

import conftest
import numpy as np
import pyarrow as pa
import pytest
import roads
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.data import feature_spec

WORDS = ['red', 'gr\u00fcn', 7, ' ', 'a|b']


def of_tensorflow(column, texts):
  with tf.Session() as sess:
    return sess.run(column.encode(tf.constant(texts))).tolist()


def of_kernels(column, texts):
  return column.ids(pa.array(texts, pa.binary())).tolist()


@conftest.needs_kernels
def test_ids_are_places_and_others_are_hashed():
  rng = np.random.RandomState(2)
  listed = sorted({'w%d' % x for x in rng.randint(0, 10**6, 3000)})
  rng.shuffle(listed)
  texts = listed[::7] + ['', 'w', 'x1', 'W5'] + ['o%d' % i for i in range(99)]
  buckets = tf.strings.to_hash_bucket_fast(texts, 11)
  with tf.Session() as sess:
    oov = (len(listed) + sess.run(buckets)).tolist()
  texts = [text.encode() for text in texts]
  for num_oov, others in [(0, [-1] * len(texts)), (11, oov)]:
    column = column_kinds.Vocabulary('x', listed, 4, num_oov)
    assert column.num_buckets == len(listed) + num_oov
    expected = [-1 if not text else listed.index(text.decode())
                if text.decode() in listed else other
                for text, other in zip(texts, others)]
    assert of_tensorflow(column, texts) == expected
    assert of_kernels(column, texts) == expected


@pytest.mark.parametrize('default, of_missing', [('', []), ('7', [2])])
def test_it_is_the_same_on_every_road(tmp_path, default, of_missing):
  spec = feature_spec.FeatureSpec([
      {'name': 'x', 'kind': 'vocabulary', 'values': WORDS, 'default': default},
      {'name': 'n', 'kind': 'vocabulary', 'values': [5, 3],
       'num_oov_buckets': 1}], dim=4)
  words = ['red', '', 'gr\u00fcn', '7', ' ', 'a|b', 'RED', 'red ']
  numbers = ['3', '5', '', '05', '4', 'x', '-3', '3']
  ids = [[0], of_missing, [1], [2], [3], [4], [], []]
  roads.check(
      tmp_path, spec, {'x': words, 'n': numbers},
      {'x': [word or None for word in words],
       'n': [number or None for number in numbers]},
      {'x': ids, 'n': [[1], [0], [], [2], [2], [2], [2], [1]]})
  # Whole numbers of Parquet are what their text is in CSV.
  roads.check(
      tmp_path, spec, {'x': ['7'] * 4, 'n': ['3', '', '5', '12']},
      {'x': ['7'] * 4, 'n': ['3', None, '5', '12']},
      {'x': [[2]] * 4, 'n': [[1], [], [0], [2]]},
      typed={'n': pa.array([3, None, 5, 12], pa.float64()),
             'x': pa.array([7] * 4, pa.int8())})


@pytest.mark.parametrize('text', [
    b'red\nblue\n7\n', b'red\r\nblue\r\n7', b'\xef\xbb\xbfred\nblue\n7'])
def test_a_file_has_a_value_per_line(tmp_path, text):
  path = tmp_path / 'words.txt'
  path.write_bytes(text)
  column = column_kinds.Vocabulary('x', str(path), 4)
  assert column.num_buckets == 3
  assert of_tensorflow(column, ['7', 'red', 'blue', 'red\r']) == [2, 0, 1, -1]
  listed = column_kinds.Vocabulary('x', ['red', 'blue', 7], 4)
  assert listed.digest() == column.digest()
  assert column_kinds.Vocabulary(
      'x', ['blue', 'red', 7], 4).digest() != column.digest()


@pytest.mark.parametrize('values, more, message', [
    ([], {}, r"values must be a list of texts and integers .* got \[\]"),
    (['a', ''], {}, 'values must be a list of texts and integers'),
    ([True], {}, 'values must be a list of texts and integers'),
    ([1.5], {}, 'values must be a list of texts and integers'),
    (['a', 7, '7'], {}, "values must be different, got '7' twice"),
    (['a'], {'default': 'b'}, 'default must be one of values, or num_oov_buc'),
    (['a'], {'default': 3}, 'default must be a text, got 3'),
    (['a'], {'num_oov_buckets': -1}, 'num_oov_buckets must be an integer of'),
    ('nowhere.txt', {}, "can be read, got 'nowhere.txt': No such file"),
])
def test_what_is_no_vocabulary_is_refused(values, more, message):
  with pytest.raises(errors.UserError, match=message):
    column_kinds.Vocabulary('x', values, 4, **more)


@pytest.mark.parametrize('text, message', [
    (b'', 'must be a file with one value per line, got .* without any'),
    (b'a\n\nb\n', 'line 2 of .*, which is empty'),
    (b'a\nb\na\n', 'lines 1 and 3 of .* are alike'),
])
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path, text, message):
  (tmp_path / 'words.txt').write_bytes(text)
  with pytest.raises(errors.UserError, match=message) as raised:
    column_kinds.Vocabulary('x', str(tmp_path / 'words.txt'), 4)
  assert '\n' not in str(raised.value)
