#!/usr/bin/env python3
r"""Compares single-task, shared-bottom, MMoE, CGC and PLE on generated rows.

  python tools/study.py --out result/study --processes 2

For every correlation of the tasks and every network it chooses a learning rate
by the validation loss of one training per learning rate of the grid, on rows of
seed 0. With it it trains the network on the rows of seeds 1, 2, ... All
networks see the same rows of a seed in the same order. A training ends when the
validation loss has not fallen for --patience epochs, and the checkpoint with
the least loss is evaluated on the test rows, once. The experts of a network are
as wide as it needs to have --parameters trained numbers.

Every run that is done is a file in OUT/runs and is not done again: after an
interruption, or with more seeds or correlations, the same command goes on. It
prints the tables at the end and writes OUT/study.json. See tools/README.md.

`ple-estimator sweep` compares networks on rows of your own. This program has
runs of its own because it makes the rows of each seed, chooses learning rates
with another seed than it tests with, and trains in processes that stay: its
runs take some seconds, of which a process for each would be most.
"""

import argparse
import concurrent.futures
import fcntl
import itertools
import json
import math
import multiprocessing
import os
import shutil
import sys
import time

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [_ROOT, os.path.dirname(os.path.abspath(__file__))]

import study_report
import study_runs

from ple_estimator.commands.sweep import pool as pool_lib

# What a kind of data needs; see study_runs.Settings.
_DEFAULTS = {
    'regression': study_runs.Settings(
        data='regression', nonlinear=0.0, train_rows=20000,
        validation_rows=5000, test_rows=10000, parameters=17000, layers=1,
        tower=16, batch_size=128, epochs=60, patience=8),
    'conflict': study_runs.Settings(
        data='conflict', nonlinear=0.5, train_rows=50000,
        validation_rows=20000, test_rows=20000, parameters=60000, layers=1,
        tower=32, batch_size=512, epochs=20, patience=3),
}
_QUICK = dict(train_rows=600, validation_rows=200, test_rows=300,
              parameters=2000, tower=4, batch_size=200, epochs=3, patience=3)


class Study:
  """The runs of a study in a folder, done by several processes."""

  def __init__(self, out, settings, args):
    """Checks that the folder is of the same study.

    Args:
      out: str, the folder.
      settings: study_runs.Settings.
      args: argparse.Namespace with correlations, networks, seeds,
        learning_rates and processes.

    Raises:
      StudyError: if the folder has runs with other settings, or is in use.
    """
    os.makedirs(out, exist_ok=True)
    self._lock = open(os.path.join(out, 'lock'), 'w')  # until this process ends
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise study_report.StudyError(
          '--out %s is in use by another study; wait for it, or choose another '
          'folder.' % out) from error
    self._out = out
    self._settings = settings
    self._args = args
    path = os.path.join(out, 'settings.json')
    wanted = json.loads(json.dumps(settings._asdict()))
    if os.path.exists(path):
      there = _read(path)
      differ = [name for name in wanted if wanted[name] != there.get(name)]
      if differ:
        raise study_report.StudyError(
            '--out %s has runs with other settings (%s); choose another folder.'
            % (out, ', '.join('%s %r, now %r' % (
                name, there.get(name), wanted[name]) for name in differ)))
    else:
      study_runs.write_json(path, wanted)
    shutil.rmtree(os.path.join(out, 'training'), ignore_errors=True)

  def run(self):
    """Does all runs that are not done.

    Returns:
      list of dict, the runs that were tested, see study_runs.run.
    """
    args = self._args
    with concurrent.futures.ProcessPoolExecutor(
        args.processes, multiprocessing.get_context('spawn'),
        _begin_worker, (os.getpid(),)) as pool:
      self._pool = pool
      self._make_data()
      widths = self._widths()
      pairs = list(itertools.product(args.correlations, args.networks))
      self._do('tuning', [
          study_runs.Job(correlation, network, rate, study_runs.tuning_seed(),
                         widths[network], False)
          for correlation, network in pairs for rate in args.learning_rates])
      rates = {pair: self._best_rate(*pair) for pair in pairs}
      return self._do('study', [
          study_runs.Job(correlation, network, rate, seed, widths[network],
                         len(args.learning_rates) > 1 and rate in (
                             min(args.learning_rates),
                             max(args.learning_rates)))
          for (correlation, network), rate in rates.items()
          for seed in range(1, args.seeds + 1)])

  def _make_data(self):
    made = [self._pool.submit(
        study_runs.make_data, self._out, self._settings, correlation, seed)
            for correlation in self._args.correlations
            for seed in [study_runs.tuning_seed()] + list(
                range(1, self._args.seeds + 1))]
    for future in made:
      future.result()

  def _widths(self):
    """The width of experts by network; says how many parameters each has."""
    path = os.path.join(self._out, 'networks.json')
    known = _read(path) if os.path.exists(path) else {}
    folder = study_runs.data_dir(
        self._out, self._args.correlations[0], study_runs.tuning_seed())
    found = {network: self._pool.submit(
        study_runs.equal_width, self._settings, network, folder)
             for network in self._args.networks if network not in known}
    for network, future in found.items():
      known[network] = dict(zip(('width', 'parameters'), future.result()))
    study_runs.write_json(path, known)
    for network in self._args.networks:
      width, parameters = [known[network][k] for k in ('width', 'parameters')]
      off = abs(parameters / self._settings.parameters - 1)
      print('%s: experts of width %d, %d parameters%s' % (
          network, width, parameters, ', more than 2 % off --parameters'
          if off > 0.02 else ''), flush=True)
    return {network: of['width'] for network, of in known.items()}

  def _do(self, name, jobs):
    """Does the jobs that have no result yet; returns the results of all."""
    left = [job for job in jobs if not os.path.exists(
        study_runs.result_path(self._out, job))]
    futures = [self._pool.submit(
        study_runs.run, self._out, self._settings, job, study_runs.data_dir(
            self._out, job.correlation, job.seed)) for job in left]
    started = time.time()
    print('%s: %d runs, %d of them done before' % (
        name, len(jobs), len(jobs) - len(left)), flush=True)
    try:
      for i, future in enumerate(concurrent.futures.as_completed(futures), 1):
        _say(future.result(), i, len(left), started)
    finally:
      for future in futures:
        future.cancel()  # after a failure; else they are done
    return [_read(study_runs.result_path(self._out, job)) for job in jobs]

  def _best_rate(self, correlation, network):
    """The learning rate with the least validation loss."""
    def loss(rate):
      found = _read(study_runs.result_path(self._out, study_runs.Job(
          correlation, network, rate, study_runs.tuning_seed(), 0, False)))
      value = found['validation']['loss']
      return math.inf if math.isnan(value) else value
    return min(self._args.learning_rates, key=loss)


def _say(run, i, count, started):
  """Prints a line about a run."""
  passed = time.time() - started
  print('%d of %d | correlation %g, %s, learning rate %g, seed %d: validation '
        'loss %.5f at epoch %d of %d | %.0f s | %d min left' % (
            i, count, run['correlation'], run['network'], run['learning_rate'],
            run['seed'], run['validation']['loss'], run['epoch'],
            run['last_epoch'], run['seconds'],
            passed / i * (count - i) / 60), flush=True)


def _read(path):
  with open(path) as f:
    return json.load(f)


def _begin_worker(parent):
  """Quiets a process of the pool, and ends it when its parent has died."""
  pool_lib.end_with(parent)
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  from absl import logging

  logging.set_verbosity(logging.ERROR)


def write(out, settings, args, runs):
  """Writes study.json, study.md and what --figure and --readme name.

  Args:
    out: str.
    settings: study_runs.Settings.
    args: argparse.Namespace with figure and readme, str or None.
    runs: list of dict.
  """
  data = study_runs.data_of(settings.data, settings.nonlinear)
  tasks = list(data.tasks)
  rows = study_report.summary(runs, tasks, data.falls)
  text = study_report.tables(rows, tasks, data.metric)
  study_runs.write_json(os.path.join(out, 'study.json'), {
      'settings': settings._asdict(), 'metric': data.metric, 'runs': runs,
      'learning_rates': args.learning_rates, 'summary': rows})
  with open(os.path.join(out, 'study.md'), 'w', encoding='utf-8') as f:
    f.write(text)
  if args.figure:
    study_report.draw(rows, tasks, args.figure)
  if args.readme:
    study_report.into_readme(args.readme, text)
  print(text)


def parse_args(arguments=None):
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  add('--out', required=True, help='folder of the runs')
  add('--data', choices=sorted(_DEFAULTS), default='regression',
      help='regression: make_mtl_data.py, two regressions on 100 numbers; '
      'conflict: make_data.py, two binary tasks')
  add('--correlations', type=float, nargs='+', default=[0.0, 0.5, 0.9, -0.5])
  add('--networks', nargs='+', choices=list(study_runs.NETWORKS),
      default=list(study_runs.NETWORKS))
  add('--seeds', type=int, default=5, help='tested runs per network')
  add('--learning_rates', type=float, nargs='+',
      default=[0.001, 0.003, 0.01, 0.03])
  add('--processes', type=int, default=2, help='runs at a time')
  add('--figure', help='.svg or .png to draw, which needs matplotlib')
  add('--readme', help='Markdown file that has the lines %s and %s, between '
      'which the tables are put' % (study_report.BEGIN, study_report.END))
  add('--quick', action='store_true',
      help='a few steps on a few rows, to see that it works')
  for name in study_runs.Settings._fields[1:]:
    add('--' + name, type=type(getattr(_DEFAULTS['regression'], name)),
        help='default: ' + ', '.join(
            '%s of %s' % (getattr(of, name), kind)
            for kind, of in sorted(_DEFAULTS.items())))
  args = parser.parse_args(arguments)
  for name in ('seeds', 'processes') + study_runs.Settings._fields[2:]:
    value = getattr(args, name)
    if value is not None and value < 1:
      parser.error('--%s must be at least 1, got %d' % (name, value))
  if min(args.learning_rates) <= 0:
    parser.error('--learning_rates must be above 0, got %g' % min(
        args.learning_rates))
  if args.nonlinear is not None and args.data != 'conflict':
    parser.error('--nonlinear is for --data conflict')
  if args.figure:
    _check_figure(parser, args.figure)
  return args, parser


def _check_figure(parser, path):
  if os.path.splitext(path)[1] not in ('.svg', '.png'):
    parser.error('--figure must end in .svg or .png, got %s' % path)
  try:
    import matplotlib
  except ImportError:
    parser.error("--figure needs matplotlib: pip install -e '.[plots]'")
  matplotlib.use('Agg')


def settings_of(args):
  """The Settings that the command line asks for."""
  settings = _DEFAULTS[args.data]
  if args.quick:
    settings = settings._replace(**_QUICK)
  return settings._replace(**{
      name: getattr(args, name) for name in study_runs.Settings._fields[1:]
      if getattr(args, name) is not None})


def main():
  args, parser = parse_args()
  settings = settings_of(args)
  try:
    runs = Study(args.out, settings, args).run()
    write(args.out, settings, args, runs)
  except study_report.StudyError as error:
    parser.error(str(error))
  return 0


if __name__ == '__main__':
  sys.exit(main())
