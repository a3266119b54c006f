"""The grid, points drawn at random, and points that Optuna suggests."""

import json
import math

import pytest

from ple_estimator import errors
from ple_estimator.commands.sweep import optuna_search
from ple_estimator.commands.sweep import search
from ple_estimator.commands.sweep import space as space_lib

SPACE = space_lib.Space({'network': ['a.gin', 'b.gin']},
                        {'x': {'low': -2.0, 'high': 2.0}})


def asked(made, space, count):
  return [tuple(made.ask(i, space, [], 'ctr/auc').values())
          for i in range(count)]


def test_a_grid_refuses_a_range():
  with pytest.raises(errors.UserError, match=r"Sweep.bindings\['x'\] must be a "
                     r'list for @Grid\(\)'):
    search.Grid().check(SPACE)
  space = space_lib.Space({'n': ['a.gin', 'b.gin']}, {'x': [1, 2, 3]})
  assert search.Grid().count(space) == 6
  assert len(set(asked(search.Grid(), space, 6))) == 6


def test_points_at_random_differ_and_more_of_them_begin_alike():
  found = asked(search.Random(50), SPACE, 50)
  assert len(set(found)) == 50
  assert {network for network, _ in found} == {'a', 'b'}
  assert all(-2 <= x <= 2 for _, x in found)
  # The mean of 50 even draws has a standard deviation of 0.16.
  assert abs(sum(x for _, x in found) / 50) < 0.6
  assert asked(search.Random(3), SPACE, 3) == found[:3]
  assert asked(search.Random(3, seed=1), SPACE, 3) != found[:3]


def test_a_small_space_is_drawn_to_its_end_and_not_beyond():
  space = space_lib.Space({'n': ['a.gin', 'b.gin']}, {'x': [1, 2, 3]})
  assert len(set(asked(search.Random(6), space, 6))) == 6
  search.Random(6).check(space)
  with pytest.raises(errors.UserError, match='Random.trials must be at most '
                     'the number of combinations, 6, got 7'):
    search.Random(7).check(space)


def test_a_range_of_few_numbers_ends_in_a_line():
  space = space_lib.Space(None, {'x': {'low': 1.0, 'high': 1.0005}})
  with pytest.raises(errors.UserError, match='Random.trials must be lower'):
    search.Random(9).ask(8, space, [], 'loss')


# ----------------------------------------------------------------- Optuna


def objective(point):
  """Has its largest value, 1, at network b and x = 1."""
  return (point['network'] == 'b') - (point['x'] - 1) ** 2


def grown(made, history, count):
  """Asks for trials one after another, each done before the next."""
  for number in range(len(history), count):
    point = made.ask(number, SPACE, history, 'ctr/auc')
    history.append(search.Past(
        point, 'done', objective(point), [objective(point)], {}))
  return history


def test_optuna_is_named_where_it_is_missing(monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'optuna', None)
  with pytest.raises(errors.UserError, match=r"pip install 'ple-estimator"
                     r"\[sweep\]'"):
    optuna_search.Optuna().check(SPACE)


def test_optuna_needs_something_to_search():
  pytest.importorskip('optuna', reason='optuna is of the extra `sweep`')
  with pytest.raises(errors.UserError, match='needs something to search'):
    optuna_search.Optuna().check(space_lib.Space(None, None))


def test_optuna_finds_better_points_than_chance():
  pytest.importorskip('optuna', reason='optuna is of the extra `sweep`')
  found = grown(optuna_search.Optuna(startup_trials=8), [], 24)
  early = sum(past.value for past in found[:8]) / 8
  late = sum(past.value for past in found[16:]) / 8
  assert late > early + 0.5
  assert max(past.value for past in found) > 0.95


def test_a_study_goes_on_as_if_it_had_not_been_broken_off():
  pytest.importorskip('optuna', reason='optuna is of the extra `sweep`')
  whole = grown(optuna_search.Optuna(startup_trials=3), [], 10)
  begun = grown(optuna_search.Optuna(startup_trials=3), [], 6)
  assert grown(optuna_search.Optuna(startup_trials=3), begun, 10) == whole
  assert grown(optuna_search.Optuna(startup_trials=3, seed=1), [], 2) != (
      whole[:2])


def test_optuna_knows_of_trials_that_are_under_way_or_failed():
  pytest.importorskip('optuna', reason='optuna is of the extra `sweep`')
  made = optuna_search.Optuna(startup_trials=2)
  history = grown(made, [], 5)
  point = made.ask(5, SPACE, history, 'ctr/auc')
  history += [search.Past(point, 'open', math.nan, [], {}),
              search.Past(point, 'failed', math.nan, [], {}),
              search.Past(point, 'stopped', math.nan, [0.5], {}),
              search.Past(point, 'done', math.nan, [math.nan], {})]
  assert SPACE.has(made.ask(9, SPACE, history, 'ctr/auc'))


def curves(*of):
  """Trials whose evaluations are given; the last one is under way."""
  point = SPACE.point(['a', 0.5])
  return [search.Past(point, 'done', curve[-1], curve, {})
          for curve in of[:-1]] + [
              search.Past(point, 'open', math.nan, of[-1], {})]


@pytest.mark.parametrize('metric, last, ends', [
    ('ctr/auc', [0.50], True), ('ctr/auc', [0.70], False),
    ('loss', [0.50], False), ('loss', [0.70], True)])
def test_optunas_median_by_hand(metric, last, ends):
  """The median of the first evaluations of five trials is 0.6."""
  pytest.importorskip('optuna', reason='optuna is of the extra `sweep`')
  made = optuna_search.Optuna(pruner='median')
  history = curves([0.4, 0.9], [0.5, 0.9], [0.6, 0.1], [0.7, 0.9], [0.8, 0.9],
                   last)
  assert made.stops(5, SPACE, history, metric) is ends


def test_successive_halving_keeps_its_rungs():
  """A trial below the best quarter of those at the first rung is ended."""
  pytest.importorskip('optuna', reason='optuna is of the extra `sweep`')
  made = optuna_search.Optuna(pruner='successive_halving')
  first, second = curves([0.9], [0.5])
  first = first._replace(state='open', value=math.nan)
  assert not made.stops(0, SPACE, [first], 'ctr/auc')  # it is the only one
  assert json.loads(json.dumps(first.notes)) == first.notes != {}
  again = first._replace(notes=json.loads(json.dumps(first.notes)))
  assert made.stops(1, SPACE, [again, second], 'ctr/auc')
  # Without the notes nothing is known of the rung that the first has reached.
  bare = [first._replace(notes={}), second._replace(notes={})]
  assert not made.stops(1, SPACE, bare, 'ctr/auc')
