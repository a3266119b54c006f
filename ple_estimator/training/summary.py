"""What is said when a training ends: its metrics, and where to look next."""

import os

from ple_estimator import files
from ple_estimator.training import comparison

_CEILING = 'ceiling.json'  # what tools/make_data.py writes beside its rows
_OF_VALIDATION = 'validation'


def text(evaluations, tasks, source, model_dir, has_test):
  """The table of a training that has ended, and commands to look further.

  Args:
    evaluations: evaluations.Evaluations, read.
    tasks: list of tasks.Task.
    source: inputs.FileInput, the rows of the evaluations.
    model_dir: str.
    has_test: bool, whether there are test rows.

  Returns:
    str of several lines; '' without an evaluation.
  """
  if not evaluations.last:
    return ''
  ceilings = _ceilings(source, tasks)
  rows = [['metric', 'last', 'best', 'at step'] +
          ['ceiling'] * bool(ceilings)]
  for task in tasks:
    for measure in task.kind.measures:
      rows.append(_row(evaluations, '%s/%s' % (task.name, measure), ceilings))
  rows = [row for row in rows if row]
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  lines = ['  ' + '  '.join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths))) for row in rows]
  folder = files.shown(model_dir)
  lines.append('Next: %sple-estimator report %s; tensorboard --logdir=%s' % (
      'the same command with --mode=test measures the best checkpoint on the '
      'test rows; ' if has_test else '', folder, folder))
  return '\n'.join(lines)


def _row(evaluations, name, ceilings):
  """The cells of a metric; None if no evaluation has it as a number."""
  best = evaluations.best(name)
  if not best:
    return None
  row = [name, _number(comparison.value_of(evaluations.last, name)),
         _number(comparison.value_of(best, name)), '%d' % best['global_step']]
  return row + [_number(ceilings[name]) if name in ceilings else '-'
                ] if ceilings else row


def _number(value):
  return '%.4f' % value


def _ceilings(source, tasks):
  """What the true probabilities of generated validation rows reach.

  Returns:
    dict of metric name to float; empty for other rows.
  """
  paths = source.paths()
  path = os.path.join(os.path.dirname(paths[0]), _CEILING)
  if len(paths) > 1 or not os.path.isfile(path) or (
      _OF_VALIDATION not in os.path.basename(paths[0])):
    return {}
  found, known = files.read_json(path), {}
  for task in tasks:
    of_rows = found
    for name in (task.label, _OF_VALIDATION):
      of_rows = of_rows.get(name) if isinstance(of_rows, dict) else None
    known.update(('%s/%s' % (task.name, measure), of_rows[measure])
                 for measure in task.kind.measures if isinstance(
                     (of_rows or {}).get(measure), float))
  return known
