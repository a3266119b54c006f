"""The folders of runs, and all that a report reads of them."""

import collections
import os
import re

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.commands.report import configs
from ple_estimator.commands.report import events
from ple_estimator.commands.report import importances
from ple_estimator.commands.report import rows as rows_lib

_GATE = re.compile(r'gate/')
_JSON = {'test': 'test.json', 'evaluation': 'metrics.json'}
# What every task has one of, by which tasks are known.
_MEASURES = ('auc', 'accuracy', 'rmse', 'log_loss', 'calibration')
_WORDS = {'test': 'test rows', 'evaluation': 'validation rows'}

Run = collections.namedtuple(
    'Run', 'path name config evaluations ended metrics rows training evaluated '
    'importances')
Run.__new__.__defaults__ = (None,)
Run.__doc__ = """What a run has written.

Attributes:
  path: str, its folder.
  name: str, unlike that of the other runs.
  config: configs.Config or None.
  evaluations: list of dict of metric name to number or None, by step.
  ended: dict of 'reason' and 'global_step', or None while a run goes on.
  metrics: dict of metric name to number, of `Source`; {} without any.
  rows: rows.Rows of the same source, or None.
  training: dict of tag to list of events.Point.
  evaluated: the same of the evaluations of training.
  importances: importances.Importances, or None.
"""

Source = collections.namedtuple('Source', 'kind words advice')
Source.__doc__ = """Which rows the metrics are of.

Attributes:
  kind: str, 'test' or 'evaluation'.
  words: str, 'test rows' or 'validation rows'.
  advice: list of str, what is missing and how to get it, a line each.
"""


def read(paths):
  """Reads the folders of runs.

  Args:
    paths: list of str.

  Returns:
    (list of Run, Source).

  Raises:
    UserError: if a folder is not one, or holds no run, or is named twice.
  """
  real = [os.path.realpath(path) for path in paths]
  for path, of in zip(paths, real):
    errors.check(os.path.isdir(path), 'RESULT_DIR must be the folder of a run, '
                 'got %r, which is no folder.', path)
    errors.check(real.count(of) == 1, 'RESULT_DIR must be given once per run, '
                 'got %r twice.', path)
    errors.check(_is_run(path), 'RESULT_DIR must be the folder of a run, got '
                 '%r, which has neither metrics.json nor evaluations.json nor '
                 'an operative config.', path)
  names = _names(real)
  source = _source(paths, names)
  return [_read(path, name, source.kind)
          for path, name in zip(paths, names)], source


def _is_run(path):
  return bool(configs.read(path)) or any(
      os.path.exists(os.path.join(path, name)) for name in (
          'metrics.json', 'evaluations.json', 'test.json'))


def _names(paths):
  """The last parts of paths, as many as tell them apart."""
  parts = [path.strip(os.sep).split(os.sep) for path in paths]
  for depth in range(1, max(map(len, parts)) + 1):
    names = ['/'.join(part[-depth:]) for part in parts]
    if len(set(names)) == len(names):
      return names
  return paths


def _source(paths, names):
  """Chooses one kind of rows for all runs: test rows, if all have them."""
  have = {(kind, what): [os.path.exists(os.path.join(path, name))
                         for path in paths]
          for kind in _JSON for what, name in (
              ('metrics', _JSON[kind]), ('rows', rows_lib.FILES[kind]))}
  counts = {kind: (sum(have[kind, 'metrics']), sum(have[kind, 'rows']))
            for kind in _JSON}
  kind = 'test' if counts['test'][0] and (
      counts['test'] >= counts['evaluation']) else 'evaluation'
  mode = 'test' if kind == 'test' else 'evaluate'
  advice = []
  for what, file, lost in (
      ('metrics', _JSON[kind], 'final metrics'),
      ('rows', rows_lib.FILES[kind], 'intervals, tests, curves and slices')):
    lacking = [name for name, has in zip(names, have[kind, what]) if not has]
    if lacking:
      advice.append('No %s of %s: %s missing. To write it: ple-estimator '
                    '--gin_file=<folder>/operative_config-<step>.gin --mode=%s.'
                    % (lost, ', '.join(lacking), file + ' is', mode))
  if kind == 'evaluation' and counts['test'][0]:
    advice.append('Not all runs have test.json, so that the metrics here are '
                  'of the validation rows, by which training chose its '
                  'checkpoint; --mode=test measures the test rows.')
  return Source(kind, _WORDS[kind], advice)


def _read(path, name, kind):
  found = files.read_json(
      os.path.join(path, 'evaluations.json'), {}, keys=['evaluations'])
  return Run(
      path, name, configs.read(path),
      sorted([of for of in found.get('evaluations', [])
              if isinstance(of, dict) and 'global_step' in of],
             key=lambda of: of['global_step']),
      found.get('ended'), _metrics(path, kind), rows_lib.read(path, kind),
      events.read(path), events.read(os.path.join(path, 'eval')),
      importances.read(path))


def _metrics(path, kind):
  found = files.read_json(os.path.join(path, _JSON[kind]), {})
  return {name: value for name, value in found.items()
          if isinstance(value, (int, float)) and not _GATE.search(name)
          } if isinstance(found, dict) else {}


def tasks(of_runs):
  """The names of the tasks of runs, in the order they appear.

  Args:
    of_runs: list of Run.
  """
  found = collections.OrderedDict()
  for run in of_runs:
    for task in run.rows.tasks if run.rows else ():
      found[task] = None
    for name in sorted(set(run.metrics).union(*run.evaluations)):
      task, _, measure = name.partition('/')
      if measure in _MEASURES:
        found[task] = None
  return list(found)


def last_step(run):
  """The global step that a run's rows or metrics are of; None without any.

  Args:
    run: Run.
  """
  steps = ([run.rows.global_step] if run.rows else
           [run.metrics['global_step']] if 'global_step' in run.metrics else
           [of['global_step'] for of in run.evaluations[-1:]])
  return int(steps[0]) if steps else None
