"""Whether two models differ on the same rows."""

import collections
import math

import numpy as np

from ple_estimator.metrics import intervals

Difference = collections.namedtuple('Difference', 'value low high p')
Difference.__doc__ = """A metric of model b less that of model a, floats.

Attributes:
  value: the difference on all rows.
  low: the lower end of its interval.
  high: the upper end.
  p: the probability of a difference as large or larger, in either direction,
    if the two models were equally good; NaN where it is not defined.
"""


def delong(labels, a, b, level=intervals.LEVEL):
  """Compares two AUCs on the same rows.

  DeLong, DeLong and Clarke-Pearson, Biometrics 1988, by midranks as Sun and Xu,
  IEEE Signal Processing Letters 2014, in O(rows log rows). Rows are taken as
  independent; with users that have many rows `bootstrap` by users is the
  careful choice.

  Args:
    labels: [rows], 0 or 1.
    a: [rows] scores of one model.
    b: [rows] scores of the other.
    level: float, of the interval.

  Returns:
    Difference of the AUC of b less that of a; all NaN if either class has less
    than two rows. p is 1 where the two models order all rows alike.
  """
  labels = np.asarray(labels) > 0.5
  if min(labels.sum(), (~labels).sum()) < 2:
    return Difference(*[math.nan] * 4)
  parts = [_placements(labels, np.asarray(scores, np.float64))
           for scores in (a, b)]
  of_positives = parts[1][0] - parts[0][0]
  of_negatives = parts[1][1] - parts[0][1]
  value = float(of_positives.mean())
  error = math.sqrt(of_positives.var(ddof=1) / len(of_positives) +
                    of_negatives.var(ddof=1) / len(of_negatives))
  margin = normal_quantile(0.5 + level / 2) * error
  p = two_sided(value / error) if error > 0 else (
      1.0 if value == 0 else math.nan)
  return Difference(value, value - margin, value + margin, p)


def _placements(labels, scores):
  """Per positive, the share of negatives below it; per negative, above it."""
  positives, negatives = scores[labels], scores[~labels]
  everyone = _midranks(np.concatenate([positives, negatives]))
  m, n = len(positives), len(negatives)
  return ((everyone[:m] - _midranks(positives)) / n,
          1 - (everyone[m:] - _midranks(negatives)) / m)


def _midranks(values):
  """Ranks from 1; equal values share the mean of theirs."""
  order = np.argsort(values, kind='mergesort')
  ordered = values[order]
  starts = np.flatnonzero(
      np.concatenate([[True], ordered[1:] != ordered[:-1]]))
  ends = np.append(starts[1:], len(values))
  ranks = np.empty(len(values))
  ranks[order] = np.repeat((starts + ends + 1) / 2, ends - starts)
  return ranks


def bootstrap(metric_a, metric_b, draws, weights=None, level=intervals.LEVEL):
  """Compares a metric of two models on the same draws of the same rows.

  Args:
    metric_a: function of [rows] weights to a float, of one model.
    metric_b: the same of the other.
    draws: intervals.Draws.
    weights: [rows] or None, the weights of the rows themselves.
    level: float, of the interval.

  Returns:
    Difference of b less a. p is twice the share of draws on the other side of
    0, counting the sample itself (Davison and Hinkley, 1997, section 4.2), so
    it is at least 2 / (rounds + 1).
  """
  def difference(of):
    return metric_b(of) - metric_a(of)

  found, values = None, []
  for counts in draws:
    own = counts if weights is None else counts * np.asarray(weights)
    if found is None:
      found = difference(
          np.ones_like(counts) if weights is None else np.asarray(weights))
    values.append(difference(own))
  return of_draws(found, values, level)


def of_draws(value, values, level=intervals.LEVEL):
  """The Difference whose values on the draws of a bootstrap are known.

  Args:
    value: float, the difference on all rows.
    values: [rounds], the difference on each draw.
    level: float, of the interval.

  Returns:
    Difference, see `bootstrap`.
  """
  values = np.asarray(values, np.float64)
  low, high = intervals.percentiles(values, level)
  known = values[~np.isnan(values)]
  if math.isnan(low):
    return Difference(value, low, high, math.nan)
  sides = min((known <= 0).sum(), (known >= 0).sum())
  return Difference(value, low, high, float(
      min(1.0, 2 * (sides + 1) / (len(known) + 1))))


def holm(ps):
  """Adjusts p values for how many comparisons are looked at together.

  Holm, Scandinavian Journal of Statistics 1979: the chance that even one of the
  comparisons that call two equal models different stays below the level.

  Args:
    ps: list of float, NaN where there is none.

  Returns:
    list of float, as long.
  """
  known = [i for i, p in enumerate(ps) if not math.isnan(p)]
  adjusted, least = [math.nan] * len(ps), 0.0
  for rank, i in enumerate(sorted(known, key=lambda i: ps[i])):
    least = max(least, min(1.0, (len(known) - rank) * ps[i]))
    adjusted[i] = least
  return adjusted


def two_sided(z):
  """The probability of a standard normal number as far from 0 as z."""
  return math.erfc(abs(z) / math.sqrt(2))


def normal_quantile(share):
  """The number that a standard normal one is below with this probability."""
  low, high = -40.0, 40.0
  for _ in range(200):  # halving: far below the precision of a float64
    middle = (low + high) / 2
    if 0.5 * math.erfc(-middle / math.sqrt(2)) < share:
      low = middle
    else:
      high = middle
  return (low + high) / 2
