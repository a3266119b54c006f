"""Shapley values of functions whose values are known."""

import itertools
import math

import numpy as np
import pytest

from ple_estimator.commands.trust import shapley

WIDTHS = [2, 1, 3]
RANDOM = np.random.RandomState(0)
OWN = RANDOM.randn(5, 6).astype(np.float32)
BASELINE = RANDOM.randn(6).astype(np.float32)


def by_subsets(function, row):
  """The definition: a sum over the subsets of the other parts."""
  parts, found = len(WIDTHS), []
  part_of = np.repeat(np.arange(parts), WIDTHS)

  def at(subset):
    return function(np.where(np.isin(part_of, subset), row, BASELINE)[None])[0]

  for part in range(parts):
    others = [i for i in range(parts) if i != part]
    found.append(sum(
        math.factorial(size) * math.factorial(parts - size - 1) /
        math.factorial(parts) * (at(subset + (part,)) - at(subset))
        for size in range(parts)
        for subset in itertools.combinations(others, size)))
  return np.array(found)


def test_of_few_parts_they_are_exact():
  def function(x):
    return np.stack([np.maximum(x @ np.arange(6) + x[:, 0] * x[:, 2] * x[:, 5],
                                0), np.floor(3 * x.sum(axis=1))], axis=1)

  taken = shapley.orders(3, 6)
  assert sorted(map(tuple, taken)) == list(itertools.permutations(range(3)))
  found, errors = shapley.values(function, OWN, BASELINE, WIDTHS, taken)
  assert found.shape == errors.shape == (5, 3, 2) and not errors.any()
  for row, values in zip(OWN, found):
    np.testing.assert_allclose(values, by_subsets(function, row), atol=1e-5)
  np.testing.assert_allclose(
      found.sum(axis=1), function(OWN) - function(BASELINE[None]), atol=1e-5)


def test_one_pair_of_orders_is_exact_for_products_of_two_parts():
  def function(x):
    return (x @ np.arange(6) + x[:, 0] * x[:, 2] - x[:, 2] * x[:, 4])[:, None]

  taken = shapley.orders(3, 2, seed=4)
  assert (taken[0] == taken[1][::-1]).all() and len(taken) == 2
  found, errors = shapley.values(function, OWN, BASELINE, WIDTHS, taken)
  for row, values in zip(OWN, found):
    np.testing.assert_allclose(values, by_subsets(function, row), atol=1e-5)
  assert np.isnan(errors).all()  # of one pair


def test_drawn_orders_add_up_and_their_error_is_known(monkeypatch):
  widths, own = [1] * 12, RANDOM.randn(3, 12)

  def function(x):
    return np.tanh(x.sum(axis=1, keepdims=True)) * 3

  def of(seed, count):
    return shapley.values(function, own, np.zeros(12), widths,
                          shapley.orders(12, count, seed))

  best, _ = of(0, 6000)
  found, errors = of(1, 41)  # rounded up to pairs
  assert len(shapley.orders(12, 41)) == 42
  np.testing.assert_allclose(found.sum(axis=1), function(own), atol=1e-9)
  away = np.abs(found - best) / errors
  assert 0.3 < np.sqrt((away ** 2).mean()) < 2 and away.max() < 5
  monkeypatch.setattr(shapley, '_POINTS', 1)  # one row at once
  np.testing.assert_allclose(of(1, 41)[0], found)


def test_one_part_has_all():
  found, errors = shapley.values(
      lambda x: x ** 3, np.array([[2.0]]), np.array([1.0]), [1],
      shapley.orders(1, 64))
  assert found == [[[7.0]]] and errors == [[[0.0]]]


@pytest.mark.parametrize('parts', [1, 2, 5, 30])
def test_every_order_has_every_part(parts):
  for taken in (shapley.orders(parts, 8), shapley.orders(parts, 200)):
    assert (np.sort(taken, axis=1) == np.arange(parts)).all()
