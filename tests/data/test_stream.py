"""Shuffling rows and cutting them into batches."""

import numpy as np
import pyarrow as pa
import pytest

from ple_estimator.data import stream


def tables(count, size):
  for start in range(0, count, size):
    yield pa.table({'id': list(range(start, min(count, start + size)))})


def test_shuffle_is_a_permutation_that_mixes():
  out = [x for t in stream.shuffled(
      tables(1000, 77), 200, np.random.RandomState(1))
         for x in t['id'].to_pylist()]
  assert sorted(out) == list(range(1000)) and out != sorted(out)
  # Neighbours end up apart, and the buffer bounds how early a row can come.
  assert np.abs(np.diff(out)).mean() > 40
  assert all(x < 100 * (i // 100) + 200 for i, x in enumerate(out))


def test_shuffle_depends_on_the_seed_alone():
  def order(size, seed):
    return [x for t in stream.shuffled(
        tables(1000, size), 300, np.random.RandomState(seed))
            for x in t['id'].to_pylist()]
  assert order(77, 1) == order(500, 1) != order(77, 2)


@pytest.mark.parametrize('drop, sizes', [(False, [32] * 31 + [8]),
                                         (True, [32] * 31)])
def test_batches_have_one_size(drop, sizes):
  got = list(stream.batched(tables(1000, 77), 32, drop))
  assert [t.num_rows for t in got] == sizes
  assert [x for t in got for x in t['id'].to_pylist()] == list(
      range(sum(sizes)))


@pytest.mark.parametrize('size', [1, 3, 77, 2000])
@pytest.mark.parametrize('index, count', [(0, 1), (0, 4), (3, 4), (2, 1500)])
def test_every_takes_the_rows_of_one_in_count(size, index, count):
  got = [x for t in stream.every(tables(1000, size), index, count)
         for x in t['id'].to_pylist()]
  assert got == list(range(1000))[index::count]
