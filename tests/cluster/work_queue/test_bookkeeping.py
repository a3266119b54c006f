"""When a slice may be acknowledged, with neither TensorFlow nor threads."""

import random

import pytest

from ple_estimator.cluster.work_queue import bookkeeping


def take(books, number, generation=7):
  return books.take(generation, number, 0, 'piece %d' % number)


def numbers(works):
  return sorted(work.number for work in works)


def test_a_slice_is_done_when_the_batch_with_its_last_row_was_trained():
  books = bookkeeping.Bookkeeping()
  first, second = take(books, 4), take(books, 9)
  assert first == (1, 7, 4, 0, 'piece 4') and second.lease == 2
  books.read_rows(first.lease, 3)
  books.read_rows(second.lease, 2)
  books.send(1, {first.lease: 2, second.lease: 1})
  books.train(1)
  assert books.trained() == []  # rows of both are left
  books.read_to_end(first.lease)
  books.read_to_end(second.lease)
  books.send(2, {first.lease: 1})
  books.send(3, {second.lease: 1})
  assert books.trained() == []
  books.train(2)
  assert books.trained() == [first]
  assert books.held() == [first, second]
  books.acknowledge(books.trained())
  assert books.trained() == [] and books.held() == [second]
  books.train(3)
  assert books.trained() == [second]


def test_all_rows_may_be_trained_before_the_end_is_seen():
  books = bookkeeping.Bookkeeping()
  work = take(books, 0)
  books.read_rows(work.lease, 5)
  books.send(1, {work.lease: 5})
  books.train(1)
  assert books.trained() == []  # there may be more rows
  books.read_to_end(work.lease)
  assert books.trained() == [work]


def test_a_slice_without_rows_is_done_with_what_was_sent_before_it():
  books = bookkeeping.Bookkeeping()
  full, empty = take(books, 0), take(books, 1)
  books.read_rows(full.lease, 1)
  books.send(1, {full.lease: 1})
  books.read_to_end(empty.lease)
  assert books.trained() == []
  books.train(1)
  assert books.trained() == [empty]
  lonely = bookkeeping.Bookkeeping()
  work = take(lonely, 0)
  lonely.read_to_end(work.lease)
  assert lonely.trained() == [work]


def test_a_later_batch_implies_those_before():
  books = bookkeeping.Bookkeeping()
  works = [take(books, i) for i in range(3)]
  for serial, work in enumerate(works, 1):
    books.read_rows(work.lease, 1)
    books.read_to_end(work.lease)
    books.send(serial, {work.lease: 1})
  books.train(2)
  books.train(1)  # the report of an earlier batch may come late
  assert books.trained() == works[:2]


def test_a_slice_that_is_taken_twice_has_two_leases():
  books = bookkeeping.Bookkeeping()
  old, new = take(books, 5, generation=1), take(books, 5, generation=2)
  for serial, work in enumerate((old, new), 1):
    books.read_rows(work.lease, 1)
    books.read_to_end(work.lease)
    books.send(serial, {work.lease: 1})
  books.train(1)
  assert books.trained() == [old]
  books.acknowledge([old])
  books.acknowledge([old])  # both threads may report it
  books.train(2)
  assert books.trained() == books.held() == [new]


def test_numbers_by_generation():
  books = bookkeeping.Bookkeeping()
  works = [take(books, n, g) for n, g in [(3, 1), (1, 2), (2, 1)]]
  assert bookkeeping.by_generation(works) == {1: [3, 2], 2: [1]}
  assert bookkeeping.by_generation([]) == {}


@pytest.mark.parametrize('seed', range(5))
def test_any_course_of_events(seed):
  """Compares with a list of all rows, each with the batch it was in."""
  rng = random.Random(seed)
  books, serial, trained = bookkeeping.Bookkeeping(), 0, 0
  rows, ended, done, buffer = {}, set(), set(), []
  for _ in range(800):
    event = rng.choice(['take', 'read', 'read', 'end', 'send', 'train', 'ack'])
    reading = sorted(set(rows) - ended)
    if event == 'take' and len(reading) < 3:
      work = take(books, len(rows))
      rows[work.lease] = []
    elif event == 'read' and reading:
      lease, count = rng.choice(reading), rng.randint(0, 4)
      books.read_rows(lease, count)
      buffer += [(lease, len(rows[lease]) + i) for i in range(count)]
      rows[lease] += [None] * count
    elif event == 'end' and reading and rng.random() < 0.5:
      lease = rng.choice(reading)
      if None not in rows[lease]:  # then it ends with what was sent so far
        rows[lease].append(serial)
      ended.add(lease)
      books.read_to_end(lease)
    elif event == 'send' and len(buffer) >= 5:
      rng.shuffle(buffer)
      serial, batch, buffer = serial + 1, buffer[:5], buffer[5:]
      counts = {}
      for lease, place in batch:
        rows[lease][place] = serial
        counts[lease] = counts.get(lease, 0) + 1
      books.send(serial, counts)
    elif event == 'train' and trained < serial:
      trained = rng.randint(trained, serial)
      books.train(trained)
    elif event == 'ack':
      done.update(work.lease for work in books.trained())
      books.acknowledge(books.trained())
    over = {lease for lease in ended
            if None not in rows[lease] and max(rows[lease]) <= trained}
    assert {w.lease for w in books.trained()} == over - done
    assert {w.lease for w in books.held()} == set(rows) - done
  assert len(done) > 10
