"""The free rows of a table against a model of queues."""

import collections

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.embeddings import row_allocator

HEIGHT = 23


class Reference:
  """The same semantics with a queue: freed rows wait for the next `free`."""

  def __init__(self):
    self.unused = 0
    self.ready, self.waiting = collections.deque(), []

  def allocate(self, count):
    again = [self.ready.popleft()
             for _ in range(min(count, len(self.ready)))]
    new = list(range(self.unused, self.unused + count - len(again)))
    self.unused += len(new)
    return again + new

  def free(self, rows):
    self.ready.extend(self.waiting)
    self.waiting = list(rows)


class Graph:
  """A RowAllocator in a session of its own."""

  def __init__(self, height=HEIGHT):
    self._number = tf.placeholder(tf.int64, [])
    self._rows = tf.placeholder(tf.int64, [None])
    made = row_allocator.RowAllocator(
        row_allocator.Capacity(height, 'Table.capacity'))
    self._allocate = made.allocate(self._number)
    self._free = made.free(self._rows)
    self._reset = made.reset(self._number)
    self._state = made.state
    self._session = tf.Session()
    self._session.run(tf.global_variables_initializer())

  def allocate(self, count):
    return self._session.run(self._allocate, {self._number: count}).tolist()

  def free(self, rows):
    self._session.run(self._free, {self._rows: rows})

  def reset(self, count):
    self._session.run(self._reset, {self._number: count})

  def state(self):
    return self._session.run(self._state).tolist()


def test_gives_out_and_takes_back_as_the_queue():
  rng = np.random.RandomState(0)
  table, reference, used = Graph(), Reference(), []
  most = wraps = 0
  for _ in range(300):
    room = HEIGHT - reference.unused + len(reference.ready)
    count = rng.randint(0, min(room, 6) + 1)
    rows = table.allocate(count)
    assert rows == reference.allocate(count)
    assert not set(rows) & set(used) and len(set(rows)) == count
    used += rows
    most = max(most, len(used))
    if rng.rand() < .4:
      gone = rng.permutation(used)[:rng.randint(0, len(used) + 1)].tolist()
      used = [row for row in used if row not in gone]
      table.free(gone)
      reference.free(gone)
      wraps = table.state()[-1] // HEIGHT
  assert most > HEIGHT / 2 and wraps >= 3  # the ring came round several times


def test_a_freed_row_waits_for_the_next_eviction():
  table = Graph()
  assert table.allocate(4) == [0, 1, 2, 3]
  table.free([2, 0])
  assert table.allocate(1) == [4]
  table.free([])
  assert table.allocate(3) == [2, 0, 5]


def test_all_rows_can_be_freed_at_once():
  table = Graph()
  every = table.allocate(HEIGHT)
  assert every == list(range(HEIGHT))
  for turn in range(3):
    table.free(every[turn:] + every[:turn])
    table.free([])
    assert table.allocate(HEIGHT) == every[turn:] + every[:turn]


def test_refuses_what_is_too_much_and_stays_as_it_was():
  table = Graph()
  table.allocate(HEIGHT - 2)
  table.free([5])
  table.free([])
  before = table.state()
  with pytest.raises(tf.errors.InvalidArgumentError,
                     match='Table.capacity must be raised: 23 rows are not '
                     'enough for training'):
    table.allocate(4)
  assert table.state() == before
  assert table.allocate(3) == [5, HEIGHT - 2, HEIGHT - 1]


def test_reset_forgets_the_ring():
  table = Graph()
  table.allocate(6)
  table.free([1, 3])
  table.free([2])
  table.reset(4)
  table.free([])
  assert table.allocate(2) == [4, 5]


def test_capacity_of_a_part_is_checked_by_its_height():
  capacity = row_allocator.Capacity(1000, 'Table.capacity', num_parts=4)
  assert 250 < capacity.height < 1000
  count = tf.placeholder(tf.int64, [])
  check = capacity.check(count, 'the checkpoint')
  with tf.Session() as session:
    session.run(check, {count: capacity.height})
    with pytest.raises(tf.errors.InvalidArgumentError,
                       match='1000 rows are not enough for the checkpoint'):
      session.run(check, {count: capacity.height + 1})
