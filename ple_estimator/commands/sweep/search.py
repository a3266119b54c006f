"""Which trials a sweep has: a grid, or points that are drawn."""

import collections
import random

import gin

from ple_estimator import errors

_TRIES = 1000  # to draw a point that was not drawn before

Past = collections.namedtuple('Past', [
    'point', 'state', 'value', 'curve', 'notes'])
Past.__doc__ = """A trial up to now.

Attributes:
  point: OrderedDict, see space.
  state: 'done', 'stopped' by a rule, 'failed', or 'open': not yet any of these.
  value: float, the mean over the seeds of what trials are compared by; NaN
    unless it is done.
  curve: list of float, that of the evaluations of its first seed, in order.
  notes: dict of what a search or rule wants to keep of the trial, for JSON.
"""


class Search:
  """How the points of a sweep are found.

  Attributes:
    knows_all: bool, whether the points do not depend on what others gave.
    prunes: bool, whether it has a rule, `stops`, that ends trials early.
  """

  knows_all = True
  prunes = False

  def check(self, space):
    """Raises UserError if this search cannot be made in a Space."""

  def count(self, space):
    """The number of trials, an int."""
    raise NotImplementedError

  def ask(self, number, space, history, metric):
    """The point of a trial.

    Args:
      number: int, of the trial, from 0 on.
      space: space.Space.
      history: list of Past, the trials before it.
      metric: str, a metric that improves as the one that is compared.

    Returns:
      OrderedDict.
    """
    raise NotImplementedError


@gin.register
class Grid(Search):
  """Every combination of all options and values."""

  def __init__(self):
    """Has nothing to bind."""

  def check(self, space):
    """Raises UserError if there are ranges."""
    for of in space.ranges():
      raise errors.UserError(
          'Sweep.bindings[%r] must be a list for @Grid(), got a range. List '
          'its values, or bind Sweep.search = @Random() or @Optuna().' %
          of.name)

  def count(self, space):
    return space.size()

  def ask(self, number, space, history, metric):
    return space.grid()[number]


@gin.register
class Random(Search):
  """Points that are drawn at random, each one once."""

  def __init__(self, trials=20, seed=0):
    """Checks the bindings.

    Args:
      trials: int, how many. With more of them the first stay the same.
      seed: int, of the draws; not of the trainings.

    Raises:
      UserError: if one is out of range.
    """
    errors.check_integer('Random.trials', trials, 1)
    errors.check_integer('Random.seed', seed, 0)
    self._trials = trials
    self._seed = seed

  def check(self, space):
    """Raises UserError if there are too few points."""
    errors.check(
        self._trials <= space.size(), 'Random.trials must be at most the '
        'number of combinations, %s, got %d. @Grid() trains all of them.',
        space.size(), self._trials)

  def count(self, space):
    return self._trials

  def ask(self, number, space, history, metric):
    draws, found = random.Random(self._seed), []
    while len(found) <= number:
      for _ in range(_TRIES):
        point = space.point([_drawn(of, draws.random())
                             for of in space.dimensions])
        if point not in found:
          break
      else:
        raise errors.UserError(
            'Random.trials must be lower than %d: %d draws in a row gave a '
            'combination that was drawn before.' % (self._trials, _TRIES))
      found.append(point)
    return found[number]


def _drawn(of, share):
  """The value of a dimension at a share of it, in [0, 1)."""
  if hasattr(of, 'options'):
    return of.options[int(share * len(of.options))].label
  return of.at(share)
