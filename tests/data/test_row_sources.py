"""Rows of a share of the files, and rows that a work queue hands out."""

import collections

import pyarrow as pa
import pytest

from ple_estimator import errors
from ple_estimator.data import reader
from ple_estimator.data import row_checks
from ple_estimator.data import row_sources

FILES = [('a', 30), ('b', 20), ('c', 10)]
ROWS = 60
Work = collections.namedtuple('Work', 'epoch piece')


class Numbers(reader.Reader):
  """Rows 0 to 59 in three files; a slice has ten."""

  def __init__(self, skip=()):
    super().__init__([name for name, _ in FILES], [],
                     row_checks.BadRows(skip=True))
    self._skip = skip

  def count_rows(self):
    return ROWS

  def slices(self, at_least=1, most_rows=None):
    firsts = dict(a=0, b=30, c=50)
    return [reader.Slice(name, 0, firsts[name] + i, firsts[name] + i + 10)
            for name, rows in FILES for i in range(0, rows, 10)]

  def read(self, piece):
    rows = []
    for row in range(piece.start, piece.stop):
      if row in self._skip:
        self._bad_rows.add(piece.path, row + 1, 'is bad')
      else:
        rows.append(row)
    yield pa.table({'id': pa.array(rows, pa.int64())})


class Client:
  """Hands out slices in a given order; None in it makes the reader wait."""

  def __init__(self, works, slices):
    self._works = list(works)
    self.slices = slices
    self.log = []

  def take(self):
    return self._works.pop(0) if self._works else None

  def wait(self):
    self.log.append('wait')
    return self.take()

  def mark(self, table, work):
    self.log.append(('mark', work.epoch, work.piece.start))
    return table

  def read(self, work):
    self.log.append(('read', work.epoch, work.piece.start))


def tally(numbers):
  return row_sources.Tally('NumberInput', 'abc', numbers._bad_rows)


def of_files(skip=(), epochs=1, shard=(0, 1), epoch=0, row=0, **kwargs):
  numbers = Numbers(skip)
  rows = row_sources.FileRows(numbers, tally(numbers), **kwargs)
  return [x for table in rows.epochs(epochs, shard, epoch, row)
          for x in table['id'].to_pylist()]


def test_files_are_read_in_order_unless_shuffled():
  assert of_files(epochs=2) == list(range(ROWS)) * 2
  # A buffer of one row puts only the files in random order.
  seen = of_files(shuffle_rows=1, seed=5, epochs=2)
  assert sorted(seen[:ROWS]) == sorted(seen[ROWS:]) == list(range(ROWS))
  whole = [list(range(30)), list(range(30, 50)), list(range(50, 60))]
  starts = [seen.index(part[0]) for part in whole]
  assert [seen[start:start + len(part)]
          for start, part in zip(starts, whole)] == whole
  assert len({tuple(of_files(shuffle_rows=1, seed=i)) for i in range(20)}) > 3


def test_shuffled_epochs_have_orders_of_their_own():
  seen = of_files(shuffle_rows=25, seed=5, epochs=2)
  assert sorted(seen[:ROWS]) == sorted(seen[ROWS:]) == list(range(ROWS))
  assert seen[:ROWS] != seen[ROWS:] and seen[:ROWS] != list(range(ROWS))
  assert of_files(shuffle_rows=25, seed=5 + 2**32, epochs=2) == seen


@pytest.mark.parametrize('few_rows', [1, 1000])  # as slices, by rows
@pytest.mark.parametrize('kwargs', [{}, {'shuffle_rows': 25, 'seed': 3}])
def test_shares_have_all_rows_once(few_rows, kwargs, monkeypatch):
  monkeypatch.setattr(row_sources, '_FEW_ROWS', few_rows)
  shares = [of_files(shard=(i, 4), **kwargs) for i in range(4)]
  assert sorted(sum(shares, [])) == list(range(ROWS)) and all(shares)


@pytest.mark.parametrize('count', [7, 60])
def test_shares_have_all_rows_once_where_there_are_fewer_slices(count):
  shares = [of_files(shard=(i, count), skip=(3,)) for i in range(count)]
  assert sorted(sum(shares, [])) == [i for i in range(ROWS) if i != 3]
  assert all(shares[:-1])


def test_a_share_without_rows_ends_and_says_so(caplog):
  assert of_files(shard=(ROWS, ROWS + 1), epochs=None) == []
  assert ("NumberInput 'abc': there is no usable row for process 61 of 61 that "
          'share the rows, so it trains nothing.') in caplog.text
  with pytest.raises(errors.UserError, match='must have rows that can be used'):
    of_files(shard=(0, 4), epochs=None, skip=range(ROWS))


@pytest.mark.parametrize('epoch, row', [(0, 1), (1, 0), (0, 58), (1, 7)])
def test_rows_are_left_out_before_a_place(epoch, row):
  # Rows 3 and 4 are skipped, so an epoch has 58 that count.
  whole = of_files(skip=(3, 4), shuffle_rows=25, epochs=2)
  assert of_files(skip=(3, 4), shuffle_rows=25, epochs=2, epoch=epoch,
                  row=row) == whole[58 * epoch + row:]


def test_rows_are_converted_before_they_are_shuffled():
  seen = of_files(shuffle_rows=25, convert=lambda table: pa.table(
      {'id': [-x for x in table['id'].to_pylist()]}))
  assert sorted(seen) == list(range(-ROWS + 1, 1))


def test_skipped_rows_are_told_per_epoch(caplog):
  assert of_files(skip=(3, 4), epochs=2) == [
      i for i in range(ROWS) if i not in (3, 4)] * 2
  assert [r.getMessage() for r in caplog.records
          if 'epoch' in r.getMessage()] == [
              "NumberInput 'abc': skipped 2 bad rows of 60 in epoch %d." % i
              for i in range(2)]


def test_files_without_a_usable_row_are_refused():
  with pytest.raises(errors.UserError, match="NumberInput.files must have rows "
                     "that can be used, got none in 'abc'."):
    of_files(skip=range(ROWS), epochs=1000)


def of_queue(client, skip=(), **kwargs):
  numbers = Numbers(skip)
  rows = row_sources.QueueRows(client, numbers, tally(numbers), **kwargs)
  return [None if table is None else table['id'].to_pylist()
          for table in rows.until_done()]


def test_a_queue_s_slices_are_read_marked_and_reported():
  first, second, third = Numbers().slices()[:3]
  client = Client([Work(0, second), Work(0, first), None, Work(1, third)], 2)
  assert of_queue(client) == [
      list(range(10, 20)), list(range(10)), None, list(range(20, 30)), None]
  assert client.log == [
      ('mark', 0, 10), ('read', 0, 10), ('mark', 0, 0), ('read', 0, 0), 'wait',
      ('mark', 1, 20), ('read', 1, 20), 'wait']


def test_a_queue_s_epochs_are_not_mixed():
  pieces = Numbers().slices()[:3]
  client = Client([Work(epoch, p) for epoch in (0, 1) for p in pieces], 3)
  seen = sum(of_queue(client, shuffle_rows=100, seed=1)[:-1], [])
  assert sorted(seen[:30]) == sorted(seen[30:]) == list(range(30))
  assert seen[:30] != list(range(30)) and seen[:30] != seen[30:]


def test_a_queue_without_a_usable_row_is_refused(caplog):
  pieces = Numbers().slices()
  with pytest.raises(errors.UserError, match='NumberInput.files must have row'):
    of_queue(Client([Work(0, p) for p in pieces], 6), skip=range(ROWS))
  # A process that has seen only some slices cannot tell.
  client = Client([Work(0, p) for p in pieces[:5]], 6)
  assert of_queue(client, skip=range(ROWS)) == [[]] * 5 + [None]
  assert "NumberInput 'abc': skipped 50 bad rows of 50." in caplog.text
