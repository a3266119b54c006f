"""Which columns go together."""

import numpy as np
import pytest

from ple_estimator.commands.trust import associations


def by_hand(one, other):
  """Bergsma 2013, equations 6 to 8, from the whole table."""
  n = len(one)
  table = np.zeros([max(one) + 1, max(other) + 1])
  for a, b in zip(one, other):
    table[a, b] += 1
  expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
  square = ((table - expected) ** 2 / expected).sum() / n
  r, c = table.shape
  square = max(0, square - (r - 1) * (c - 1) / (n - 1))
  r, c = r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)
  return (square / min(r - 1, c - 1)) ** 0.5


def test_it_is_what_the_table_of_counts_gives():
  random = np.random.RandomState(0)
  one = random.randint(0, 6, 500)
  other = np.where(random.rand(500) < 0.5, one % 4, random.randint(0, 4, 500))
  found = associations.cramers_v(one, other)
  assert found == pytest.approx(by_hand(one, other))
  assert 0.3 < found < 0.7
  assert found == pytest.approx(associations.cramers_v(other, one))
  assert found == pytest.approx(associations.cramers_v(one * 1000, other))


def test_what_is_determined_has_1_and_what_is_independent_0():
  random = np.random.RandomState(0)
  item = random.randint(0, 2000, 5000)
  few = item % 50
  assert associations.cramers_v(few, few // 10) == pytest.approx(1, abs=0.01)
  assert associations.cramers_v(item, item // 100) > 0.7  # 2.5 rows per item
  # Without the correction two columns of 2000 values would have 0.6 by chance.
  assert associations.cramers_v(item, random.randint(0, 2000, 5000)) < 0.2
  assert associations.cramers_v(np.arange(50), np.arange(50)) == 0  # says none
  assert associations.cramers_v(np.zeros(9, int), np.arange(9) % 2) == 0
  assert associations.cramers_v(np.zeros(1, int), np.zeros(1, int)) == 0


def test_numbers_are_tenths_and_vectors_are_whole():
  assert associations.codes(np.array([3., 1., 2., 1.])).tolist() == [2, 0, 1, 0]
  found = associations.codes(np.concatenate([np.arange(1000.), [np.nan]]))
  assert np.bincount(found).tolist() == [100] * 10 + [1]
  assert len(set(associations.codes(np.array([b'a', b'', b'a'], object)))) == 2
  assert associations.codes(np.array([[1., 2], [0, 2], [1, 2]])).tolist() == [
      1, 0, 1]
  assert associations.codes(np.arange(50)).tolist() == list(range(50))


def test_every_two_of_a_group_go_together():
  random = np.random.RandomState(0)
  a, c = random.randint(0, 4, [2, 4000])
  b = np.where(random.rand(4000) < 0.5, a, c)  # between the two
  columns = {'a': a, 'x': random.randint(0, 4, 4000), 'b': b, 'c': c,
             'copy': 7 - a}
  assert associations.together(columns, 0.9) == [['a', 'copy']]
  assert associations.together(columns, 0.3) in (
      [['a', 'b', 'copy']], [['a', 'copy'], ['b', 'c']])
  assert associations.together({'a': a}, 0.5) == []
  assert associations.together({}, 0.5) == []
