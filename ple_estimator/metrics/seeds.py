"""Whether two configurations differ by more than their seeds."""

import math

import numpy as np

from ple_estimator.metrics import intervals
from ple_estimator.metrics import paired

_TERMS = 500  # of a continued fraction, at most
_PRECISION = 1e-14


def welch(a, b, level=intervals.LEVEL):
  """Compares the means of runs of two configurations.

  Welch, Biometrika 1947: the runs are independent, and the spread over seeds
  may differ between the two. It says nothing about other rows; that is what
  paired tests of two runs are for.

  Args:
    a: numbers, a metric of each run of one configuration.
    b: the same of the other one.
    level: float, of the interval.

  Returns:
    paired.Difference of the mean of b less that of a; its ends and p are NaN
    if either has less than two runs, or no run differs from another.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  value = float(b.mean() - a.mean())
  if min(len(a), len(b)) < 2:
    return paired.Difference(value, *[math.nan] * 3)
  parts = [of.var(ddof=1) / len(of) for of in (a, b)]
  error = math.sqrt(sum(parts))
  if not error > 0:
    return paired.Difference(value, *[math.nan] * 3)
  freedom = sum(parts)**2 / sum(
      part**2 / (len(of) - 1) for part, of in zip(parts, (a, b)))
  margin = t_quantile(0.5 + level / 2, freedom) * error
  return paired.Difference(value, value - margin, value + margin,
                           t_two_sided(value / error, freedom))


def t_two_sided(t, freedom):
  """The probability of a Student's t as far from 0.

  Args:
    t: float.
    freedom: float, above 0, the degrees of freedom.
  """
  return _beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def t_quantile(share, freedom):
  """The t that Student's t is below with a probability of 0.5 or more."""
  low, high = 0.0, 1.0
  while 1 - t_two_sided(high, freedom) / 2 < share:
    high *= 2
  for _ in range(100):
    middle = (low + high) / 2
    if 1 - t_two_sided(middle, freedom) / 2 < share:
      low = middle
    else:
      high = middle
  return (low + high) / 2


def _beta(x, a, b):
  """The regularised incomplete beta function (Abramowitz and Stegun, 26.5)."""
  if x <= 0 or x >= 1:
    return float(x >= 1)
  if x > (a + 1) / (a + b + 2):
    return 1 - _beta(1 - x, b, a)
  front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
                   + a * math.log(x) + b * math.log1p(-x)) / a
  # Lentz's method for the continued fraction 26.5.8.
  value, c, d = 1.0, 1.0, 0.0
  for i in range(_TERMS):
    m = i // 2
    if i == 0:
      term = 1.0
    elif i % 2:
      term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    else:
      term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    d = 1 / (1 + term * d)
    c = 1 + term / c
    value *= c * d
    if i and abs(c * d - 1) < _PRECISION:
      break
  return front * (value - 1)
