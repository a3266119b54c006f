"""Choices, bindings and ranges, and the trials that are made of them."""

import collections
import math

import pytest

from ple_estimator import errors
from ple_estimator.commands.sweep import space as space_lib
from ple_estimator.commands.sweep import sweep as sweep_lib
from ple_estimator.commands.sweep import trials


def points(choices, bindings):
  return [tuple(point.values())
          for point in space_lib.Space(choices, bindings).grid()]


def test_a_grid_has_every_combination():
  assert points({'network': ['gin/a.gin', 'gin/b.gin']},
                {'RATE': [1, 2], 'Tower.units': [(4,)]}) == [
                    ('a', '1', '(4,)'), ('a', '2', '(4,)'),
                    ('b', '1', '(4,)'), ('b', '2', '(4,)')]
  assert points(None, None) == [()]


def test_what_options_add_to_an_experiment():
  space = space_lib.Space(
      {'network': {'PLE': None, 'ours': [
          'my/net.gin', 'PLE.num_levels = 2', 'my/more.gin']}},
      {'Task.loss': ['binary', None], 'Tower.units': [(4,)],
       'PLE.dropout': {'low': 0.0, 'high': 1.0}})
  point = collections.OrderedDict([
      ('network', 'ours'), ('Task.loss', 'binary'), ('Tower.units', '(4,)'),
      ('PLE.dropout', 0.25)])
  assert space.parts(point) == (['my/net.gin', 'my/more.gin'], [
      'PLE.num_levels = 2', "Task.loss = 'binary'", 'Tower.units = (4,)',
      'PLE.dropout = 0.25'])
  point.update([('network', 'PLE'), ('Task.loss', 'None')])
  assert space.parts(point) == ([], [
      'Task.loss = None', 'Tower.units = (4,)', 'PLE.dropout = 0.25'])
  assert space.has(point)
  assert not space.has(dict(point, network='nope'))
  assert not space.has(collections.OrderedDict(reversed(point.items())))
  point['PLE.dropout'] = 1.5
  assert not space.has(point)


def test_an_option_without_a_name_is_called_by_what_it_is():
  of, = space_lib.Space({'x': [
      'gin/mmoe.gin', ['gin/sgd.gin', 'A.b = 1'], None]}, None).dimensions
  assert [option.label for option in of.options] == [
      'mmoe', 'sgd + A.b = 1', 'none']


def test_a_range_from_end_to_end():
  log = space_lib.Range('x', 1e-4, 1e-2, True)
  assert log.at(0) == 1e-4 and log.at(0.5) == 1e-3
  assert log.at(0.25) == 0.0003162  # 10^-3.5, four digits of it
  assert log.at(1 - 1e-12) == 1e-2
  assert space_lib.Range('x', 0.0, 0.5, False).at(0.5) == 0.25
  whole = space_lib.Range('x', 1, 3, False)
  assert [whole.at(share) for share in (0, 0.33, 0.34, 0.66, 0.67, 0.99)] == [
      1, 1, 2, 2, 3, 3]
  # Four digits of an end may lie beyond it.
  assert space_lib.Range('x', 1.00001, 2.0, False).at(0) == 1.00001


def test_corners_have_every_option_and_end_once():
  space = space_lib.Space({'n': ['a.gin', 'b.gin', 'c.gin']},
                          {'x': {'low': 1, 'high': 9}})
  assert [tuple(point.values()) for point in space.corners()] == [
      ('a', 1), ('b', 1), ('c', 1), ('a', 9)]
  assert space.size() == 27
  assert space_lib.Space(None, {'x': {'low': 1, 'high': 2.5}}).size() == (
      math.inf)


@pytest.mark.parametrize('choices, bindings, message', [
    ({'n': []}, None, "Sweep.choices must be a dict of lists .*got {'n': "),
    ({'': ['a.gin']}, None, 'Sweep.choices must be a dict'),
    ({'n': [3]}, None, r"Sweep.choices\['n'\] must have paths .*, got 3"),
    ({'n': [{'a': 1}]}, None, r"Sweep.choices\['n'\] must .*, got {'a': 1}"),
    ({'n': ['mmoe']}, None, r"Sweep.choices\['n'\] must .*, got 'mmoe'"),
    ({'n': {'a': [['x.gin']]}}, None, r"Sweep.choices\['n'\] must"),
    ({'n': {3: 'a.gin'}}, None, r"Sweep.choices\['n'\] must"),
    ({'n': ['x/a.gin', 'y/a.gin']}, None, 'different options, got a twice'),
    (None, {'PLE.dropout': 0.1}, 'Sweep.bindings must be a dict of lists or'),
    (None, {'PLE.dropout = 3': [1]}, 'must be of parameters or macros'),
    (None, {'run_config.seed': [1]}, 'must not have .*: bind Sweep.seeds'),
    (None, {'Experiment.model_dir': ['x']}, 'bind Sweep.out instead'),
    (None, {'x': [object()]}, r"Sweep.bindings\['x'\] must be numbers.*'Model."
     'optimizer = @sgd'),
    (None, {'x': [float('nan')]}, r"Sweep.bindings\['x'\] must be numbers"),
    (None, {'x': [0.1, 0.1]}, r"Sweep.bindings\['x'\] must .*got 0.1 twice"),
    (None, {'x': {'low': 1}}, r"Sweep.bindings\['x'\] must be a range"),
    (None, {'x': {'low': 2, 'high': 1}}, 'low below high'),
    (None, {'x': {'low': 0, 'high': 1, 'log': True}}, "above 0 with 'log'"),
    (None, {'x': {'low': 0, 'high': 1, 'lgo': True}}, "got {'low': 0,"),
    ({'x': ['a.gin']}, {'x': [1]}, 'must have different names, got x in both'),
])
def test_a_mistake_is_a_line(choices, bindings, message):
  with pytest.raises(errors.UserError, match=message) as raised:
    space_lib.Space(choices, bindings)
  assert '\n' not in str(raised.value)


def made(choices, bindings, **kwargs):
  sweep = sweep_lib.Sweep(['gin/base.gin'], choices, bindings, **kwargs)
  found = []
  for point in sweep.space.grid():
    found.append(trials.make(sweep, point, found))
  return found


def test_a_trial_has_a_name_files_and_lines():
  _, trial = made({'network': {'two experts': 'gin/cgc.gin'}},
                  {'A.rate': [0.1, 0.2], 'Task.loss': ['binary']},
                  lines=['EPOCHS = 1'])
  assert trial.name == 'two_experts-rate=0.2-binary'
  assert trials.shown(trials.command(trial, ['A.b = 1'], 'test')) == (
      "--gin_file=gin/base.gin --gin_file=gin/cgc.gin '--gin_bindings=EPOCHS = "
      "1' '--gin_bindings=A.rate = 0.2' '--gin_bindings=Task.loss = '\"'\"'"
      "binary'\"'\"'' '--gin_bindings=A.b = 1' --mode=test")


def test_names_of_trials_differ_and_are_names_of_folders():
  found = [trial.name for trial in made(
      {'n': {'a b': 'a.gin', 'a/b': 'b.gin', '..': 'c.gin'}}, None)]
  assert found[0] == 'a_b' and found[1].startswith('a_b-')
  assert len(found[1]) == len('a_b-') + 8 and found[2] == 'trial'
  long, = made({'n': {'x' * 300: 'a.gin'}}, None)
  assert len(long.name) == 80 + 9
  assert [trial.name for trial in made(None, None)] == ['trial']
