#!/usr/bin/env python3
r"""Compares the training speed of experiments with that of the stock recipe.

  python tools/benchmark.py gin/base.gin gin/bf16.gin --data data --pairs 5

Runs tools/stock_recipe.py (the model zoo's recipe on community TensorFlow) and
each experiment in turn, `--pairs` times, each in a process of its own on the
same data and batch size, and prints steps/s and the ratio to the recipe's run
of the same round: median, least and greatest. Both leave out start-up and the
first 10 steps; an experiment trains as it always does (Parquet input, shuffled,
summaries, progress), without evaluation, exports and early stopping.

A machine that does something else at the time makes all figures smaller and
the ratios wider; compare ratios, not figures of different days.
"""

import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile

import tensorflow.compat.v1 as tf

from ple_estimator import engine  # noqa: F401, silences deprecations

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_WARM_UP_STEPS = 10  # as stock_recipe.py


def recipe(args):
  """Runs the stock recipe; returns its steps/s."""
  out = _run(args, [
      os.path.join(_ROOT, 'tools', 'stock_recipe.py'), '--data', args.data,
      '--steps', str(args.steps), '--batch_size', str(args.batch_size)])
  return json.loads(out.splitlines()[-1])['steps_per_second']


def experiment(args, gin_file):
  """Runs one experiment; returns its steps/s."""
  with tempfile.TemporaryDirectory() as model_dir:
    bindings = [
        'DATA_DIR = %r' % os.path.abspath(args.data),
        'BATCH_SIZE = %d' % args.batch_size,
        'Experiment.model_dir = %r' % model_dir,
        'Experiment.max_steps = %d' % (_WARM_UP_STEPS + args.steps),
        'Experiment.eval_input = None',
        'Experiment.early_stopping = None',
        'Experiment.exports = None',
        'run_config.save_steps = 1_000_000',
        'run_config.summary_steps = %d' % _WARM_UP_STEPS,
    ] + args.gin_bindings
    _run(args, ['-m', 'ple_estimator.run', '--gin_file', gin_file] +
         ['--gin_bindings=' + line for line in bindings])
    seen = sorted(
        (event.step, event.wall_time)
        for path in glob.glob(os.path.join(model_dir, '*.tfevents.*'))
        for event in tf.train.summary_iterator(path)
        for value in event.summary.value if value.tag == 'global_step/sec')
  (first, begin), (last, end) = seen[0], seen[-1]
  return (last - first) / (end - begin)


def _run(args, command):
  """Runs Python; returns what it prints, shows its errors if it fails."""
  done = subprocess.run(
      [args.python] + command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      universal_newlines=True, cwd=_ROOT)
  if done.returncode:
    sys.stderr.write(done.stderr)
    raise SystemExit('benchmark: %s failed' % ' '.join(command[:4]))
  return done.stdout


def report(names, rounds):
  """Yields the lines of a Markdown table.

  Args:
    names: what was run, the recipe first.
    rounds: list of lists of steps/s, in the order of names.
  """
  yield '| run | steps/s, median | ratio to the recipe: median (range) |'
  yield '|---|---|---|'
  for name, rates in zip(names, zip(*rounds)):
    ratios = [rate / row[0] for rate, row in zip(rates, rounds)]
    yield '| %s | %.1f | %.2f (%.2f to %.2f) |' % (
        name, statistics.median(rates), statistics.median(ratios),
        min(ratios), max(ratios))


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('gin_files', nargs='+')
  parser.add_argument('--data', default='data',
                      help='folder made by tools/make_data.py')
  parser.add_argument('--pairs', type=int, default=5, help='rounds')
  parser.add_argument('--steps', type=int, default=60, help='steps timed')
  parser.add_argument('--batch_size', type=int, default=512)
  parser.add_argument('--gin_bindings', action='append', default=[])
  parser.add_argument('--python', default=sys.executable,
                      help='interpreter, and so the TensorFlow')
  args = parser.parse_args()
  if args.pairs < 1 or args.steps < 2 * _WARM_UP_STEPS:
    parser.error('--pairs must be at least 1, --steps at least %d'
                 % (2 * _WARM_UP_STEPS))
  args.data = os.path.abspath(args.data)
  rounds = []
  for _ in range(args.pairs):
    rounds.append([recipe(args)] +
                  [experiment(args, name) for name in args.gin_files])
    print('steps/s: %s' % ', '.join('%.2f' % rate for rate in rounds[-1]),
          flush=True)
  print('\n'.join(report(['stock recipe'] + args.gin_files, rounds)))
  return 0


if __name__ == '__main__':
  sys.exit(main())
