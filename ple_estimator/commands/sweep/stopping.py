"""Ends trials that are worse than others early."""

import math
import statistics

import gin

from ple_estimator import errors
from ple_estimator.network import metrics


@gin.register
class MedianStopping:
  """The median stopping rule of Golovin et al. (Vizier, KDD 2017, 3.2.2).

  A trial is ended after its k-th evaluation if the best value that it has had
  so far is worse than the median, over all trials that were trained to their
  end, of the mean of their first k values.
  """

  def __init__(self, least_trials=5, least_evaluations=1):
    """Checks the bindings.

    Args:
      least_trials: int, how many trials have to be trained to their end before
        any other is ended early.
      least_evaluations: int, how many evaluations each trial has at least.

    Raises:
      UserError: if one is below 1.
    """
    errors.check_integer('MedianStopping.least_trials', least_trials, 1)
    errors.check_integer(
        'MedianStopping.least_evaluations', least_evaluations, 1)
    self._least_trials = least_trials
    self._least_evaluations = least_evaluations

  def stops(self, number, space, history, metric):
    """Whether to end a trial after the last evaluation of its curve.

    Args:
      number: int, the index of the trial in `history`.
      space: space.Space, which this rule does not look at.
      history: list of search.Past, all trials.
      metric: str, a metric that improves as the one that is compared.
    """
    del space
    curve = history[number].curve
    others = [past.curve for past in history if past.state == 'done' and
              past is not history[number]]
    if len(others) < self._least_trials or (
        len(curve) < self._least_evaluations):
      return False
    means = [_mean(other[:len(curve)]) for other in others]
    worst = -math.inf if metrics.grows(metric) else math.inf
    median = statistics.median(
        worst if math.isnan(mean) else mean for mean in means)
    return metrics.is_better(metric, median, best_of(curve, metric))


def best_of(values, metric):
  """The best of some values of a metric, a float; NaN if none is a number."""
  best = math.nan
  for value in values:
    best = value if metrics.is_better(metric, value, best) else best
  return best


def _mean(values):
  numbers = [value for value in values if not math.isnan(value)]
  return math.fsum(numbers) / len(numbers) if numbers else math.nan
