"""What each part of an input contributes to the outputs of a model.

The Shapley values of the game in which a part has either its own value or that
of a baseline (the baseline Shapley of Sundararajan and Najmi, "The Many Shapley
Values for Model Explanation", ICML 2020): the parts take their own values one
after another, and what the output changes by is the contribution of the part;
the mean over orders is the Shapley value. In each order the contributions add
up to output(own) - output(baseline), so that their means do, however many
orders there are. Nothing is asked of the function: it may have steps, as a
binned number or a product in bfloat16 has.

Of few parts all orders are taken, which is exact. Of more, some are drawn, each
with its reverse: the error of the mean is then much smaller (Mitchell et al.,
"Sampling Permutations for Shapley Value Estimation", JMLR 2022, section 4.1),
and there is none for a function that has products of at most two parts.
"""

import itertools
import math

import numpy as np

_POINTS = 1 << 22  # numbers of inputs that are asked at once


def orders(parts, count, seed=0):
  """Orders of parts, in pairs of one and its reverse, if not all.

  Args:
    parts: int, how many parts there are.
    count: int, how many orders, at least 2; an odd one is rounded up.
    seed: int, of the orders that are drawn.

  Returns:
    [orders, parts] int array.
  """
  if math.factorial(min(parts, 20)) <= count:
    return np.array(list(itertools.permutations(range(parts))))
  random = np.random.RandomState(seed)
  drawn = [random.permutation(parts) for _ in range((count + 1) // 2)]
  return np.array([of for one in drawn for of in (one, one[::-1])])


def values(ask, own, baseline, widths, taken):
  """The Shapley values of the parts of inputs, and their errors.

  Args:
    ask: function of [n, width] float32 inputs to [n, outputs] float.
    own: [rows, width] float32.
    baseline: [width] float32.
    widths: list of int, the widths of the parts, one behind another.
    taken: [orders, parts] int, as `orders` returns it.

  Returns:
    (values, errors): [rows, parts, outputs] float64 each; the error is the
    standard error of the mean of pairs of orders, 0 if `taken` is all orders.
  """
  at_once = max(1, _POINTS // (len(baseline) * (len(widths) + 1)))
  pairs = [np.concatenate(of) for of in zip(*[
      _of_rows(ask, own[begin:begin + at_once], baseline, widths, taken)
      for begin in range(0, len(own), at_once)])]
  return tuple(pairs)


def _of_rows(ask, own, baseline, widths, taken):
  ends = np.cumsum([0] + list(widths))
  total = squares = 0.0
  for one, other in taken.reshape(-1, 2, len(widths)) if len(taken) > 1 else [
      (taken[0], taken[0])]:
    found = (_of_order(ask, own, baseline, ends, one) +
             _of_order(ask, own, baseline, ends, other)) / 2
    total, squares = total + found, squares + found ** 2
  pairs = max(1, len(taken) // 2)
  mean = total / pairs
  is_exact = len(taken) == math.factorial(min(len(widths), 20))
  if is_exact or pairs < 2:
    return mean, np.full_like(mean, 0.0 if is_exact else np.nan)
  spread = np.maximum(squares / pairs - mean ** 2, 0) / (pairs - 1)
  return mean, np.sqrt(spread)


def _of_order(ask, own, baseline, ends, order):
  """The contributions if parts take their own values in this order."""
  point = np.repeat(baseline[np.newaxis], len(own), axis=0)
  points = [point]
  for part in order:
    point = point.copy()
    point[:, ends[part]:ends[part + 1]] = own[:, ends[part]:ends[part + 1]]
    points.append(point)
  found = np.asarray(ask(np.concatenate(points)), np.float64)
  found = found.reshape(len(points), len(own), -1)
  changes = np.empty([len(own), len(order), found.shape[2]])
  changes[:, order] = np.moveaxis(np.diff(found, axis=0), 0, 1)
  return changes
