"""Metrics of all runs on one bootstrap of the rows that they share.

Every run is measured on the same draws. So one pass gives the interval of each
metric and, by the difference of two runs in each draw, every paired test.
"""

import collections

import numpy as np

from ple_estimator.commands.report import measures
from ple_estimator.metrics import intervals
from ple_estimator.metrics import paired

Sample = collections.namedtuple('Sample', 'value draws')
Sample.__doc__ = """A metric of one run on all rows, and on each draw of them.

Attributes:
  value: float.
  draws: [rounds] float64.
"""


def interval(sample):
  """The interval of a Sample, an intervals.Interval."""
  return intervals.Interval(
      sample.value, *intervals.percentiles(sample.draws))


def difference(a, b):
  """The difference of two Samples of the same draws, a paired.Difference.

  Its p is the share of draws on the other side of 0, doubled. That cannot be
  below 2 / (rounds + 1), which an adjustment for many tests would take for
  chance. Where no draw lies on the other side, p is therefore that of a normal
  distribution with the standard deviation of the draws, if it is smaller.
  """
  found = paired.of_draws(b.value - a.value, b.draws - a.draws)
  least = 2.0 / (len(a.draws) + 1)
  error = float(np.std(b.draws - a.draws, ddof=1))
  if found.p <= least and error > 0:
    return found._replace(p=min(
        found.p, paired.two_sided(found.value / error)))
  return found


def samples(of_runs, users, rounds, kept=None, names=None):
  """Measures runs on the same draws.

  Args:
    of_runs: list of rows.TaskRows of one digest.
    users: [rows] array of the user of each row, who is drawn with all rows; or
      None, which draws rows.
    rounds: int.
    kept: [rows] bool, the rows that count, those of a slice; None counts all.
    names: the metrics to compute; None is all.

  Returns:
    list of dict of metric to Sample, one per run.
  """
  first = of_runs[0]
  counts_at = first.weights > 0
  if kept is not None:
    counts_at = counts_at & kept
  # Rows that never count cost time only, but users are drawn of all rows.
  at = np.flatnonzero(counts_at)
  weights = first.weights[at]
  functions = [_chosen(measures.of(_only(task, at)), names)
               for task in of_runs]
  values = [{name: function(weights) for name, function in of.items()}
            for of in functions]
  drawn = [{name: np.empty(rounds) for name in of} for of in functions]
  draws = intervals.Draws(
      len(at), None if users is None else users[at], rounds)
  for i, times in enumerate(draws):
    for run, of in enumerate(functions):
      for name, function in of.items():
        drawn[run][name][i] = function(weights * times)
  return [{name: Sample(value, drawn[run][name])
           for name, value in of.items()} for run, of in enumerate(values)]


def _only(task, at):
  return task._replace(labels=task.labels[at], weights=task.weights[at],
                       predictions=task.predictions[at])


def _chosen(functions, names):
  return collections.OrderedDict(
      (name, function) for name, function in functions.items()
      if names is None or name in names)
