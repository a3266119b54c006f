#!/usr/bin/env python3
r"""Prints a Markdown table of finished runs.

  python tools/report.py result/base result/bf16 --ceiling data/ceiling.json

A row per run, from its metrics.json (or with --test from its test.json, which
--mode=test writes) and event files: the metrics named by --metrics, or else AUC
and log loss of every binary task and RMSE and MAE of every regression; and
steps/s, the median over training. With --ceiling (of make_data.py) the first
row is what no model can beat on the validation rows, or with --test on the test
rows. It is by label; --labels says which label a task has, if not as in
gin/base.gin.
"""

import argparse
import glob
import json
import os
import sys

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator.engine import compat  # noqa: F401, silences deprecations

_METRICS = ('auc', 'log_loss', 'rmse', 'mae')
_LABELS = ['ctr=clk', 'cvr=buy']  # of gin/base.gin


def steps_per_second(model_dir):
  """The median of global_step/sec in the event files; None without any."""
  rates = [value.simple_value
           for path in glob.glob(os.path.join(model_dir, '*.tfevents.*'))
           for event in tf.train.summary_iterator(path)
           for value in event.summary.value if value.tag == 'global_step/sec']
  return float(np.median(rates)) if rates else None


def cell(value, form='%.4f'):
  return '-' if value is None else form % value


def load(path):
  """Reads a JSON file that must hold a dict; ValueError names it otherwise."""
  with open(path) as f:
    try:
      found = json.load(f)
    except ValueError as error:
      raise ValueError('%s must be JSON, got: %s' % (path, error))
  if not isinstance(found, dict):
    raise ValueError('%s must hold a JSON object, got %r.' % (path, found))
  return found


def known_metrics(found):
  """The metrics of tasks that runs have, all tasks of one metric together.

  Args:
    found: list of dicts as metrics.json has them.
  """
  names = [name for metrics in found for name in sorted(metrics)
           if name.count('/') == 1]
  return sorted(
      {name for name in names if name.split('/')[1] in _METRICS},
      key=lambda name: (_METRICS.index(name.split('/')[1]), name))


def ceiling(path, labels, test):
  """What no model can beat, by the names of metrics.

  Args:
    path: str, of ceiling.json.
    labels: list of 'task=label'; a task without one has a label of its name.
    test: bool, whether on the test rows, or else on the validation rows; a file
      without "validation" has the same for both.
  """
  best = load(path)
  of_task = {label: label for label in best}
  for entry in labels:
    task, equals, label = entry.partition('=')
    if not (equals and task and label):
      raise ValueError('--labels must be task=label, got %r.' % entry)
    if label in best:
      of_task[task] = label
    elif entry not in _LABELS:
      raise ValueError('--labels must name a label of %s (%s), got %r.' % (
          path, ', '.join(sorted(best)), entry))
  return {'%s/%s' % (task, metric): value for task, label in of_task.items()
          for metric, value in (
              best[label] if test else best[label].get(
                  'validation', best[label])).items()}


def rows(args):
  """Yields the lines of the table."""
  found = [load(os.path.join(
      run, 'test.json' if args.test else 'metrics.json')) for run in args.runs]
  names = args.metrics or known_metrics(found)
  unknown = [name for name in names if not any(name in f for f in found)]
  if unknown:
    raise ValueError('--metrics must be of the runs (%s), got %s.' % (
        ', '.join(sorted(set().union(*found) - {'global_step'})),
        ', '.join(unknown)))
  yield ['run', 'step'] + names + ['steps/s']
  yield ['---'] * (len(names) + 3)
  if args.ceiling:
    known = ceiling(args.ceiling, args.labels, args.test)
    yield ['ceiling', ''] + [cell(known.get(name)) for name in names] + ['']
  for run, metrics in zip(args.runs, found):
    yield ([os.path.basename(os.path.normpath(run)),
            str(metrics.get('global_step', '-'))]
           + [cell(metrics.get(name)) for name in names]
           + [cell(steps_per_second(run), '%.1f')])


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('runs', nargs='+', help='model_dirs')
  parser.add_argument('--ceiling', help='ceiling.json of make_data.py')
  parser.add_argument('--test', action='store_true',
                      help='the figures of the test rows')
  parser.add_argument('--metrics', nargs='+', help='such as ctr/auc; default: '
                      'those of all tasks')
  parser.add_argument('--labels', nargs='+', default=_LABELS,
                      metavar='TASK=LABEL', help='for --ceiling; default: '
                      + ' '.join(_LABELS))
  args = parser.parse_args()
  try:
    for row in rows(args):
      print('| %s |' % ' | '.join(row))
  except (IOError, ValueError) as error:
    sys.stderr.write('report: %s\n' % error)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
