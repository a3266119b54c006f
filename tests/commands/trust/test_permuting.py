"""Permutation importance, of models that are functions of numpy arrays."""

import numpy as np
import pytest

from ple_estimator import errors
from ple_estimator.commands.trust import judged as judged_lib
from ple_estimator.commands.trust import permuting
from ple_estimator.metrics import ranking


def judged(columns, answer, label, weight=None, is_binary=False, user=None,
           aligned=(), crossed=()):
  weight = np.ones(len(label)) if weight is None else weight
  task = judged_lib.Task(
      'AUC' if is_binary else 'loss', label, weight,
      None if is_binary else lambda labels, found: (labels - found) ** 2)
  return judged_lib.Judged(
      lambda given: {'t': answer(given)}, columns, {'t': task}, user,
      list(aligned), list(crossed), ['a model', 'rows'])


def column(name):
  return permuting.Unit((name,), 'column')


def numbers(rows, *names):
  random = np.random.RandomState(3)
  return {name: random.randn(rows).astype(np.float32) for name in names}


def test_of_a_linear_model_it_is_twice_the_variance_of_the_term():
  # E (y - f)^2 rises by E (b x - b x')^2 = 2 b^2 Var(x), x' of another row.
  columns = numbers(20000, 'one', 'two', 'noise')
  noise = np.random.RandomState(5).randn(20000)
  answer = lambda given: 2 * given['one'] - 0.5 * given['two']
  permute = permuting.Permuting(
      judged(columns, answer, answer(columns) + noise), repeats=3, rounds=100)
  assert permute.scores['t'] == pytest.approx(1, abs=0.03)
  for name, expected in [('one', 8), ('two', 0.5)]:
    found = permute(column(name))['t']
    assert found.importance == pytest.approx(expected, rel=0.05)
    assert found.low < expected < found.high
    assert found.high - found.low < 0.2 * expected
    assert 0 < found.spread < 0.05 * expected
  found = permute(column('noise'))['t']
  assert found.importance == found.spread == found.low == found.high == 0


def test_the_interval_holds_the_importance_95_times_of_100():
  held = 0
  for seed in range(200):
    random = np.random.RandomState(seed)
    columns = {'x': random.randn(150), 'y': random.randn(150)}
    label = columns['x'] + columns['y'] + random.randn(150)
    found = permuting.Permuting(judged(
        columns, lambda given: given['x'] + given['y'], label), 3, seed,
                                100)(column('x'))['t']
    held += found.low < 2 < found.high  # 2 Var(x)
  assert 0.91 <= held / 200 <= 0.98


def test_auc_is_that_of_the_permuted_rows():
  columns = numbers(300, 'x', 'noise')
  label = (columns['x'] + numbers(300, 'e')['e'] > 0).astype(float)
  weight = np.where(np.arange(300) % 7 == 0, 0.0, 1.0 + np.arange(300) % 2)
  answer = lambda given: given['x'] + 0.3 * given['noise']
  permute = permuting.Permuting(
      judged(columns, answer, label, weight, is_binary=True), 2, seed=9)
  counts = weight > 0
  before = ranking.auc(label[counts], answer(columns)[counts], weight[counts])
  assert permute.scores['t'] == before
  drops = []
  for i in range(2):
    order = np.random.RandomState([9, i]).permutation(300)
    moved = dict(columns, x=columns['x'][order])
    drops.append(before - ranking.auc(
        label[counts], answer(moved)[counts], weight[counts]))
  found = permute(column('x'))['t']
  assert found.importance == pytest.approx(np.mean(drops))
  assert found.spread == pytest.approx(np.std(drops, ddof=1))
  assert found.low < found.importance < found.high
  one = permuting.Permuting(
      judged(columns, answer, label, weight, is_binary=True), 1, seed=9)
  assert one(column('x'))['t'].importance == pytest.approx(drops[0])
  assert np.isnan(one(column('x'))['t'].spread)


def test_users_that_are_alike_give_a_wider_interval():
  columns = {'x': np.repeat(numbers(50, 'x')['x'], 20)}
  label = columns['x'] + np.repeat(numbers(50, 'x', 'e')['e'], 20)
  widths = []
  for user in (None, np.repeat(np.arange(50), 20)):
    found = permuting.Permuting(judged(
        columns, lambda given: given['x'], label, user=user))(column('x'))['t']
    widths.append(found.high - found.low)
  assert widths[1] > 2 * widths[0]


def test_twins_share_and_their_group_does_not():
  # f = x + twin, both alike: one alone has 2 Var(x), the pair 2 Var(2 x).
  columns = numbers(5000, 'x', 'other')
  columns['twin'] = columns['x'].copy()
  answer = lambda given: given['x'] + given['twin']
  of = judged(columns, answer, answer(columns))
  found = permuting.units(of)
  assert [unit.columns for unit in found] == [
      ('x',), ('other',), ('twin',), ('x', 'twin')]
  assert found[-1].kind == 'correlated'
  permute = permuting.Permuting(of, 3)
  assert permute(found[0])['t'].importance == pytest.approx(2, rel=0.1)
  assert permute(found[-1])['t'].importance == pytest.approx(8, rel=0.1)


def lists(rows=400):
  random = np.random.RandomState(1)
  columns = {name: np.array([b'v%d' % i for i in random.randint(0, 9, rows)],
                            object) for name in ('a', 'b', 'items', 'days')}
  return judged(columns, lambda given: np.zeros(rows), np.zeros(rows),
                aligned=[['items', 'days']], crossed=[['a', 'b']])


def test_what_belongs_together_is_permuted_together():
  assert permuting.units(lists()) == [
      (('a',), 'column'), (('b',), 'column'), (('items', 'days'), 'aligned'),
      (('a', 'b'), 'crossed')]
  assert permuting.units(lists(), only=['days', 'a']) == [
      (('a',), 'column'), (('items', 'days'), 'aligned')]
  assert permuting.units(lists(), ['b'], [['b', 'items']]) == [
      (('b',), 'column'), (('b', 'items', 'days'), 'named')]
  assert permuting.units(lists(), ['b'], [['b']]) == [(('b',), 'column')]
  seen = []
  of = lists()
  permuting.Permuting(of._replace(answer=lambda given: seen.append(given) or {
      't': np.zeros(400)}), 1)(permuting.units(of)[2])
  order = np.random.RandomState([0, 0]).permutation(400)
  for name, values in of.columns.items():
    moved = values[order] if name in ('items', 'days') else values
    assert (seen[0][name] == values).all() and (seen[1][name] == moved).all()


@pytest.mark.parametrize('arguments, message', [
    ({'only': ['a', 'c']}, r"--only must name columns that the model reads "
     r"\(a, b, items, days\), got 'c'."),
    ({'groups': [['a', 'z']]}, "--groups must name .* got 'z'.")])
def test_a_column_that_is_not_there_is_said(arguments, message):
  with pytest.raises(errors.UserError, match=message):
    permuting.units(lists(), **arguments)


@pytest.mark.parametrize('label, weight, answer, message', [
    ([1, 1, 1], [1, 1, 1], 0, 'all 3 that count have the label 1'),
    ([1, 0, 1], [1, 0, 1], 0, 'all 2 that count have the label 1'),
    ([1, 0, 1], [0, 0, 0], 0, 'none of 3 has a label'),
    ([1, 0, 1], [1, 1, 1], np.nan, 'must be a number, got nan')])
def test_rows_that_cannot_be_measured_are_said(label, weight, answer, message):
  of = judged({'x': np.zeros(3)}, lambda given: np.full(3, answer),
              np.array(label, float), np.array(weight, float), is_binary=True)
  with pytest.raises(errors.UserError, match=message):
    permuting.Permuting(of)
