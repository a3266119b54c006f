"""Intervals by the bootstrap: how far a metric may lie off by chance.

Rows of one user are alike, so that they tell less than as many rows of
different users. Where users are known, whole users are drawn (the cluster
bootstrap, Field and Welsh, JRSS B 2007).
"""

import collections
import math

import numpy as np

LEVEL = 0.95  # the share of intervals that hold the true value
ROUNDS = 500

Interval = collections.namedtuple('Interval', 'value low high')
Interval.__doc__ = """A metric and its interval, floats.

Attributes:
  value: of all rows.
  low: the lower end.
  high: the upper end.
"""


class Draws:
  """How often each row is drawn, in each round of a bootstrap.

  The draws depend on the seed, the number of rows and the groups alone: two
  models on the same rows are measured on the same draws, so that their
  differences are paired.
  """

  def __init__(self, num_rows, groups=None, rounds=ROUNDS, seed=0):
    """Stores the arguments.

    Args:
      num_rows: int.
      groups: [rows] of any type that sorts, e.g. the user of each row; None
        draws rows.
      rounds: int, how many samples are drawn.
      seed: int.
    """
    self.rounds = rounds
    self._seed = seed
    self._groups = None if groups is None else np.unique(
        np.asarray(groups), return_inverse=True)[1].ravel()
    self._num = num_rows if groups is None else (
        int(self._groups.max()) + 1 if num_rows else 0)

  def __iter__(self):
    """Yields [rows] float64, how often each row is in a sample."""
    random = np.random.RandomState(self._seed)
    for _ in range(self.rounds):
      drawn = random.randint(0, max(self._num, 1), self._num)
      counts = np.bincount(drawn, minlength=self._num).astype(np.float64)
      yield counts if self._groups is None else counts[self._groups]


def bootstrap(metric, draws, weights=None, level=LEVEL):
  """The percentile interval of a metric (Efron and Tibshirani, 1993, ch. 13).

  Args:
    metric: function of [rows] float64 weights to a float.
    draws: Draws.
    weights: [rows] or None, the weights of the rows themselves.
    level: float in (0, 1).

  Returns:
    Interval; its ends are NaN if the metric is NaN in more than a tenth of the
    rounds, for example because positives are too few.
  """
  num_rows = None if weights is None else np.asarray(weights, np.float64)
  values, value = [], None
  for counts in draws:
    own = counts if num_rows is None else counts * num_rows
    if value is None:
      value = metric(np.ones_like(counts) if num_rows is None else num_rows)
    values.append(metric(own))
  return Interval(value, *percentiles(values, level))


def percentiles(values, level=LEVEL):
  """The two ends of the middle `level` of values, NaN if a tenth is NaN."""
  values = np.asarray(values, np.float64)
  known = values[~np.isnan(values)]
  if len(known) < 0.9 * len(values) or not len(known):
    return math.nan, math.nan
  ends = np.percentile(known, [50 * (1 - level), 50 * (1 + level)])
  return float(ends[0]), float(ends[1])
