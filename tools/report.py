#!/usr/bin/env python3
r"""Prints a Markdown table of finished runs.

  python tools/report.py result/base result/bf16 --ceiling data/ceiling.json

A row per run, from its metrics.json and event files: the metrics named by
--metrics, and steps/s, the median over training. With --ceiling (of
make_data.py, tasks ctr and cvr on labels clk and buy) the first row has the
metrics of the true probabilities, which no model can be expected to exceed.
"""

import argparse
import glob
import json
import os
import sys

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator.engine import compat  # noqa: F401, silences deprecations

_CEILING_TASKS = {'ctr': 'clk', 'cvr': 'buy'}


def steps_per_second(model_dir):
  """The median of global_step/sec in the event files; None without any."""
  rates = [value.simple_value
           for path in glob.glob(os.path.join(model_dir, '*.tfevents.*'))
           for event in tf.train.summary_iterator(path)
           for value in event.summary.value if value.tag == 'global_step/sec']
  return float(np.median(rates)) if rates else None


def cell(value, form='%.4f'):
  return '-' if value is None else form % value


def rows(args):
  """Yields the lines of the table."""
  yield ['run', 'step'] + args.metrics + ['steps/s']
  yield ['---'] * (len(args.metrics) + 3)
  if args.ceiling:
    with open(args.ceiling) as f:
      best = json.load(f)
    known = {'%s/%s' % (task, metric): best[label][metric]
             for task, label in _CEILING_TASKS.items()
             for metric in ('auc', 'log_loss')}
    yield ['ceiling', ''] + [cell(known.get(m)) for m in args.metrics] + ['']
  for run in args.runs:
    with open(os.path.join(run, 'metrics.json')) as f:
      found = json.load(f)
    yield ([os.path.basename(os.path.normpath(run)),
            str(found['global_step'])]
           + [cell(found.get(m)) for m in args.metrics]
           + [cell(steps_per_second(run), '%.1f')])


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('runs', nargs='+', help='model_dirs')
  parser.add_argument('--ceiling', help='ceiling.json of make_data.py')
  parser.add_argument('--metrics', nargs='+', default=[
      'ctr/auc', 'cvr/auc', 'ctr/log_loss', 'cvr/log_loss'])
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
