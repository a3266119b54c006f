"""All that sections of a report are made of, gathered once."""

import collections
import math

from ple_estimator import errors
from ple_estimator.commands.report import comparisons
from ple_estimator.commands.report import configs
from ple_estimator.commands.report import measures
from ple_estimator.commands.report import resampling
from ple_estimator.commands.report import runs as runs_lib

Facts = collections.namedtuple(
    'Facts', 'runs source groups tasks baseline rounds measured tests '
    'seed_tests')
Facts.__doc__ = """What a report knows.

Attributes:
  runs: list of runs.Run.
  source: runs.Source.
  groups: list of configs.Group.
  tasks: list of str.
  baseline: runs.Run, with which others are compared.
  rounds: int, of the bootstrap.
  measured: comparisons.Measured.
  tests: list of comparisons.Test of runs.
  seed_tests: list of comparisons.Test of groups.
"""

# What tables name first, and the order of it; other metrics follow.
_FIRST = ('auc', 'gauc', 'pr_auc', 'log_loss', 'normalised_entropy', 'rmse',
          'mae', 'accuracy', 'calibration', 'expected_calibration_error')


def gather(paths, baseline=None, rounds=500):
  """Reads runs and measures them.

  Args:
    paths: list of str, their folders.
    baseline: str, one of them; None is the first.
    rounds: int, of the bootstrap.

  Returns:
    Facts.

  Raises:
    UserError: if a folder is no run, or baseline none of them.
  """
  of_runs, source = runs_lib.read(paths)
  chosen = of_runs[0] if baseline is None else next(
      (run for run in of_runs if baseline.rstrip('/') in (
          run.path.rstrip('/'), run.name)), None)
  errors.check(chosen is not None, '--baseline must be one of the runs (%s), '
               'got %r.', ', '.join(run.name for run in of_runs), baseline)
  groups = configs.groups(of_runs)
  measured = comparisons.measure(of_runs, rounds)
  found = Facts(of_runs, source, groups, runs_lib.tasks(of_runs), chosen,
                rounds, measured, comparisons.tests(of_runs, measured, chosen),
                [])
  names = [name for name in metric_names(found)
           if name.partition('/')[2] in measures.COMPARED and (
               name.partition('/')[2] != 'accuracy' or
               'auc' not in measures_of(found, name.partition('/')[0]))]
  return found._replace(seed_tests=comparisons.of_seeds(
      groups, lambda run, name: value(found, run, *name.split('/', 1)), names))


def value(facts, run, task, measure):
  """A metric of a run, float; NaN where it has none.

  Args:
    facts: Facts.
    run: runs.Run.
    task: str.
    measure: str.
  """
  sample = facts.measured.samples.get((run.name, task), {}).get(measure)
  return sample.value if sample else float(
      run.metrics.get('%s/%s' % (task, measure), math.nan))


def interval(facts, run, task, measure):
  """The same with the ends of its interval, (value, low, high).

  The ends are NaN where the run has no rows.
  """
  sample = facts.measured.samples.get((run.name, task), {}).get(measure)
  if sample:
    return tuple(resampling.interval(sample))
  return value(facts, run, task, measure), math.nan, math.nan


def measures_of(facts, task):
  """The metrics of a task that any run has, in the order of tables.

  Args:
    facts: Facts.
    task: str.
  """
  found = set()
  for run in facts.runs:
    found |= set(facts.measured.samples.get((run.name, task), ()))
    found |= {name[len(task) + 1:] for name in run.metrics
              if name.startswith(task + '/') and name.count('/') == 1}
  found -= {'loss'}
  return sorted(found, key=lambda name: (
      _FIRST.index(name) if name in _FIRST else len(_FIRST), name))


def metric_names(facts):
  """The metrics of all tasks, as '<task>/<metric>'."""
  return ['%s/%s' % (task, measure) for task in facts.tasks
          for measure in measures_of(facts, task)]


def main_measure(facts, task):
  """The metric that a task is summed up by, such as 'auc'; None without any.

  Args:
    facts: Facts.
    task: str.
  """
  known = measures_of(facts, task)
  return next((name for name in measures.MAIN if name in known), None)


def tasks_of(run):
  """The tasks that a run has metrics or rows of."""
  return runs_lib.tasks([run])


def singles(facts):
  """The runs of one task alone, of reports of several tasks.

  Args:
    facts: Facts.

  Returns:
    OrderedDict of task to list of runs.Run.
  """
  found = collections.OrderedDict()
  if len(facts.tasks) > 1:
    for run in facts.runs:
      own = tasks_of(run)
      if len(own) == 1:
        found.setdefault(own[0], []).append(run)
  return found
