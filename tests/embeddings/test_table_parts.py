"""Names and arithmetic of the parts of a table."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.embeddings import table_parts


class Reader:
  """What tf.train.load_checkpoint returns, of arrays by name."""

  def __init__(self, arrays):
    self._arrays = arrays

  def get_tensor(self, name):
    return self._arrays[name]


def test_parts_are_joined_in_the_order_of_their_numbers():
  names = ['c/t/embedding/part_%d%s' % (i, suffix) for i in (10, 2, 0, 1)
           for suffix in ('-keys', '/Adam-values')]
  others = ['dense/kernel', 'level/part_1/kernel', 'u/embedding-keys',
            'tower/part_3']
  found = table_parts.joined(names + others)
  assert found.pop('c/t/embedding-keys') == [
      'c/t/embedding/part_%d-keys' % i for i in (0, 1, 2, 10)]
  assert found.pop('c/t/embedding/Adam-values') == [
      'c/t/embedding/part_%d/Adam-values' % i for i in (0, 1, 2, 10)]
  assert found == {name: [name] for name in others}


def test_parts_are_read_one_behind_the_other():
  first, second = np.arange(6).reshape(3, 2), np.arange(4).reshape(2, 2) + 9
  reader = Reader({'t/part_0-values': first, 't/part_1-values': second,
                   'bias': np.float32(3)})
  whole, = table_parts.joined(['t/part_1-values', 't/part_0-values']).values()
  np.testing.assert_array_equal(
      table_parts.read(reader, whole),
      [[0, 1], [2, 3], [4, 5], [9, 10], [11, 12]])
  assert table_parts.read(reader, ['bias']) == 3


@pytest.mark.parametrize('name, whole', [
    ('t/embedding/part_3-keys_filtered', 't/embedding-keys_filtered'),
    ('t/embedding/part_12/Adam_1-values', 't/embedding/Adam_1-values'),
    ('t/part_2/kernel', 't/part_2/kernel'),
    ('part_2-keys', 'part_2-keys')])
def test_the_whole_of_a_tensor(name, whole):
  assert table_parts.whole_name(name) == whole


def test_a_part_has_a_name_only_among_several():
  assert table_parts.name_of('t', 0, 1) == 't'
  assert table_parts.name_of('t', 2, 3) == 't/part_2'


@pytest.mark.parametrize('num_parts', range(1, 9))
@pytest.mark.parametrize('saved', range(1, 9))
def test_sources_are_the_parts_that_have_a_key_in_common(num_parts, saved):
  names = {table_parts.name_of('t', i, saved) + suffix
           for i in range(saved) for suffix in ('-keys', '-values')}
  needed = [set() for _ in range(num_parts)]
  for number in range(840):  # the least multiple of all numbers up to 8
    needed[number % num_parts].add(number % saved)
  for part in range(num_parts):
    assert table_parts.sources_in(names, 't', part, num_parts) == [
        table_parts.name_of('t', i, saved) for i in sorted(needed[part])]


def test_sources_of_a_table_that_is_not_there_are_its_own():
  names = {'u/part_0-keys', 'u/part_1-keys', 't/kernel'}
  assert table_parts.sources_in(names, 't', 2, 3) == ['t/part_2']
  assert table_parts.sources_in(names, 't', 0, 1) == ['t']


def splitmix64(x):
  mask = 2 ** 64 - 1
  x = (x + 0x9e3779b97f4a7c15) & mask
  x = ((x ^ (x >> 30)) * 0xbf58476d1ce4e5b9) & mask
  x = ((x ^ (x >> 27)) * 0x94d049bb133111eb) & mask
  return x ^ (x >> 31)


@pytest.mark.parametrize('num_parts', [1, 2, 3, 7])
def test_keys_are_dealt_out_evenly_by_their_bits(num_parts):
  keys = np.arange(3000) * 840
  with tf.Session() as session:
    part = session.run(table_parts.part_of(tf.constant(keys), num_parts))
  assert part.dtype == np.int32
  assert part.tolist() == [
      splitmix64(int(key)) % 2 ** 63 % num_parts for key in keys]
  share = 3000 / num_parts
  assert np.abs(np.bincount(part) - share).max() < 5 * share ** .5


@pytest.mark.parametrize('capacity, num_parts', [
    (10, 3), (1000, 2), (1000, 7), (100000, 5)])
def test_heights_hold_random_keys_with_little_to_spare(capacity, num_parts):
  height = table_parts.height(capacity, num_parts)
  drawn = np.random.RandomState(0).multinomial(
      capacity, [1 / num_parts] * num_parts, 2000)
  assert drawn.max() <= height <= capacity
  assert height <= 7 + capacity / num_parts + 6.1 * (
      capacity / num_parts + 1) ** .5


def test_one_part_has_all_rows():
  assert table_parts.height(12345, 1) == 12345


@pytest.mark.parametrize('device, following', [
    ('/job:ps/task:0', '/job:ps/task:1'),
    ('/job:ps/task:2', '/job:ps/task:0'),
    ('/job:ps', '/job:ps/task:1'),
    ('', ''), ('/cpu:0', '')])
def test_the_next_server_comes_after_the_last(device, following):
  assert table_parts.next_task(device, 3) == following
