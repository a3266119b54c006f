"""Which runs differ: paired tests on the same rows, and tests over seeds."""

import collections
import itertools
import math

import numpy as np

from ple_estimator.commands.report import measures
from ple_estimator.commands.report import resampling
from ple_estimator.metrics import paired
from ple_estimator.metrics import seeds

ALL_PAIRS = 4  # runs; of more, each is compared with the baseline only
LEVEL = 0.05

Test = collections.namedtuple('Test', 'task measure a b difference method p')
Test.__doc__ = """A comparison of two runs, or of two groups of runs.

Attributes:
  task: str.
  measure: str, a metric.
  a: str, the name of the first.
  b: str, the name of the second.
  difference: paired.Difference of b less a.
  method: str, 'DeLong', 'bootstrap of rows', 'bootstrap of users', or 'Welch'.
  p: float, adjusted for all tests that are looked at together (Holm).
"""

Measured = collections.namedtuple('Measured', 'samples unpaired users')
Measured.__doc__ = """The metrics of all runs by the bootstrap.

Attributes:
  samples: dict of (run name, task) to dict of metric to resampling.Sample.
  unpaired: list of (task, list of list of run names), tasks whose rows are not
    the same in all runs: the runs of each list share theirs.
  users: bool, whether users were drawn, not rows.
"""


def measure(of_runs, rounds):
  """Measures all runs that have rows.

  Args:
    of_runs: list of runs.Run.
    rounds: int, of the bootstrap.

  Returns:
    Measured.
  """
  samples, unpaired = {}, []
  having = [run for run in of_runs if run.rows]
  users = any(run.rows.user is not None for run in having)
  for task, sets in same_rows(of_runs).items():
    if len(sets) > 1:
      unpaired.append((task, [[run.name for run in of] for of in sets]))
    for of in sets:
      found = resampling.samples(
          [run.rows.tasks[task] for run in of], users_of(of), rounds)
      samples.update(((run.name, task), of_run)
                     for run, of_run in zip(of, found))
  return Measured(samples, unpaired, users)


def users_of(of_runs):
  """The users of runs of the same rows, [rows] or None."""
  return next((run.rows.user for run in of_runs
               if run.rows.user is not None), None)


def same_rows(of_runs):
  """Which runs were evaluated on the same rows in the same order, by task.

  Args:
    of_runs: list of runs.Run; those without rows are left out.

  Returns:
    OrderedDict of task to list of list of runs.Run.
  """
  found = collections.OrderedDict()
  for run in of_runs:
    for task, rows in run.rows.tasks.items() if run.rows else ():
      found.setdefault(task, collections.OrderedDict()).setdefault(
          (rows.digest, len(rows.labels)), []).append(run)
  return collections.OrderedDict(
      (task, list(sets.values())) for task, sets in found.items())


def tests(of_runs, measured, baseline):
  """Compares pairs of runs on the rows that they share.

  Args:
    of_runs: list of runs.Run.
    measured: Measured.
    baseline: runs.Run, with which each is compared if they are many.

  Returns:
    list of Test.
  """
  found = []
  for task, sets in same_rows(of_runs).items():
    for of in sets:
      for a, b in _pairs(of, len(of_runs), baseline):
        found += _of_pair(task, a, b, measured)
  adjusted = paired.holm([test.difference.p for test in found])
  return [test._replace(p=p) for test, p in zip(found, adjusted)]


def _pairs(of, num_runs, baseline):
  if num_runs <= ALL_PAIRS:
    return list(itertools.combinations(of, 2))
  return [(baseline, run) for run in of if run is not baseline] if any(
      run is baseline for run in of) else []


def _of_pair(task, a, b, measured):
  """Yields the tests of two runs on a task."""
  own = [measured.samples[run.name, task] for run in (a, b)]
  rows = [run.rows.tasks[task] for run in (a, b)]
  for name in measures.COMPARED:
    if name not in own[0]:
      continue
    if name == 'auc' and not measured.users and _is_alike(rows[0].weights):
      kept = rows[0].weights > 0
      difference = paired.delong(
          rows[0].labels[kept], *[of.predictions[kept] for of in rows])
      method = 'DeLong'
    else:
      difference = resampling.difference(own[0][name], own[1][name])
      method = 'bootstrap of ' + ('users' if measured.users else 'rows')
    yield Test(task, name, a.name, b.name, difference, method, math.nan)


def _is_alike(weights):
  """Whether all rows that count have one weight, as DeLong's test needs."""
  kept = weights[weights > 0]
  return kept.min() == kept.max()


def of_seeds(groups, value, names):
  """Compares groups of runs by their spread over seeds.

  Args:
    groups: list of configs.Group.
    value: function of (runs.Run, metric) to float, NaN where there is none.
    names: list of metrics, such as 'ctr/auc'.

  Returns:
    list of Test between groups of two runs or more.
  """
  several = [group for group in groups if len(group.runs) > 1]
  found = []
  for a, b in itertools.combinations(several, 2):
    for name in names:
      values = [[value(run, name) for run in group.runs] for group in (a, b)]
      if not np.isnan(sum(values, [])).any():
        task, _, metric = name.partition('/')
        found.append(Test(task, metric, a.name, b.name,
                          seeds.welch(*values), 'Welch', math.nan))
  adjusted = paired.holm([test.difference.p for test in found])
  return [test._replace(p=p) for test, p in zip(found, adjusted)]


def verdict(test):
  """What a Test says of its second run, in words.

  A difference counts if its interval is without 0 and if its p, adjusted for
  all tests, is below LEVEL.

  Args:
    test: Test.
  """
  low, high = test.difference.low, test.difference.high
  if math.isnan(low) or low <= 0 <= high:
    return 'not told apart'
  if not test.p < LEVEL:
    return 'not told apart, with all tests in view'
  sign = measures.direction(test.measure)
  return 'better' if (low > 0) == (sign > 0) else 'worse'
