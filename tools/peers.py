#!/usr/bin/env python3
r"""Trains PLE of other frameworks on the rows of an experiment.

  python tools/peers.py gin/base.gin --seeds 2021 1 2

prints a table of the metrics on the test rows:

  DeepCTR       PLE of deepctr 0.9.4 on TensorFlow 2.15.1, trained by Keras
  torch-rechub  PLE of torch-rechub 0.9.0 on PyTorch 2.13.0, by its MTLTrainer

Each has the experts of gin/base.gin (3 levels, 2 experts per task and 1 shared,
256-128-64), its vectors of 16 numbers, and towers with one layer more
(256-128-64-32); batches of 512 shuffled rows, Adam with 0.001, and whatever
else the framework does by itself. The frameworks read no files of such rows:
they are handed arrays, in which every value of the train rows has an id of its
own, and values that only other rows have share one. Of a list the first 50
items are taken, and it is said how many lists have more. After each epoch the
mean AUC of the validation rows is looked at; the training stops after two
epochs without improvement, and the test rows are predicted by the model of the
best epoch.

`seconds` are those of the epochs until the best, without the validation, on
this machine, and tell little where other work goes on.

A framework is installed in an environment of its own, made by `python -m venv`
in --environments (by default .venv), with a Python 3.11 (--python).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import environments
import linear_reference
import numpy as np

import ple_estimator as ple
from ple_estimator.data import column_kinds
from ple_estimator.data import reading

_TOOLS = os.path.dirname(os.path.abspath(__file__))
_PACKAGES = {
    'DeepCTR': ['deepctr==0.9.4', 'tensorflow==2.15.1', 'numpy<2',
                'scikit-learn'],
    'torch-rechub': ['torch-rechub==0.9.0', 'torch==2.13.0', 'scikit-learn'],
}
_MOST_ITEMS = 50
_PARTS = ('train', 'eval', 'test')


class Ids:
  """Gives values ids; learns from train rows which values there are."""

  def __init__(self, categories, table):
    """Learns the values.

    Args:
      categories: list of the columns of an experiment, categories all.
      table: the train rows, as linear_reference.read returns them.
    """
    self._categories = categories
    self._known = {column.name: np.unique(linear_reference.as_bytes(
        self._values(column, table)[0])) for column in categories}

  def _values(self, column, table):
    """(values, row of each value) of a column."""
    values = table[column.name]
    if isinstance(column, column_kinds.HashedList):
      return linear_reference.items_of(values, column)
    return values, np.arange(len(values))

  def sizes(self):
    """{column name: number of ids}; 0 is no value, 1 one that is not known."""
    return {name: len(known) + 2 for name, known in self._known.items()}

  def of(self, table):
    """{column name: ids}, [rows] int64, or [rows, items] of a list."""
    found = {}
    for column in self._categories:
      values, rows = self._values(column, table)
      values = linear_reference.as_bytes(values)
      known = self._known[column.name]
      place = np.minimum(np.searchsorted(known, values), len(known) - 1)
      ids = np.where(known[place] == values, place + 2, 1)
      if isinstance(column, column_kinds.HashedList):
        cut = int((np.bincount(rows) > _MOST_ITEMS).sum()) if len(rows) else 0
        if cut:
          sys.stderr.write('peers: %d lists of %s are cut to %d items.\n' % (
              cut, column.name, _MOST_ITEMS))
        ids = padded(ids, rows, len(table[column.name]))
      found[column.name] = ids.astype(np.int64)
    return found


def padded(ids, rows, count):
  """Puts the items of lists beside each other: [count, items], 0 for none.

  Args:
    ids: [n] int, of all items.
    rows: [n] int, ascending, the row of each.
    count: int, rows.
  """
  first = np.searchsorted(rows, rows)
  place = np.arange(len(rows)) - first
  kept = place < _MOST_ITEMS
  found = np.zeros([count, max(1, place[kept].max() + 1 if len(ids) else 1)],
                   np.int64)
  found[rows[kept], place[kept]] = ids[kept]
  return found


def write_arrays(folder, args):
  """Writes the rows of an experiment as arrays.

  Args:
    folder: str, gets train.npz, eval.npz and test.npz, each with an array per
      column and [rows, tasks] 'labels', and sizes.json.
    args: the arguments of the command.

  Returns:
    list of str, the names of the tasks.

  Raises:
    ValueError: if the experiment has what the frameworks cannot train.
  """
  model = ple.load(*args.gin_files, bindings=args.gin_bindings).experiment.model
  for task in model.tasks:
    if not task.is_binary or task.sample_space or task.weight_column:
      raise ValueError('Task %s must be binary, of all rows and without '
                       'weights.' % task.name)
  if model.features.numbers or model.weight:
    raise ValueError('The columns must be categories and lists, without a '
                     'weight: leave the others out of FeatureSpec.columns.')
  for column in model.features.categories:
    if column.weighted or column.table is not None or isinstance(
        column, (column_kinds.Bucketised, column_kinds.Crossed)):
      raise ValueError(
          '%s must be a category or a list without weights and shared table: '
          'leave it out of FeatureSpec.columns.' % column.name)
  ids = None
  for part in _PARTS:
    rows = linear_reference.source(part + '_input')
    if rows is None:
      raise ValueError('Experiment.%s_input must be bound.' % part)
    rows.check(reading.Reading(model.features, tuple(model.keep)))
    table = linear_reference.read(rows, model)
    ids = ids or Ids(model.features.categories, table)
    targets = linear_reference.targets(table, model)
    np.savez(os.path.join(folder, part + '.npz'), labels=np.stack(
        [targets[task.name].label for task in model.tasks], axis=1),
             **ids.of(table))
  with open(os.path.join(folder, 'sizes.json'), 'w') as f:
    json.dump(ids.sizes(), f)
  return [task.name for task in model.tasks]


def environment(name, args):
  """Makes the environment of a framework; returns its interpreter."""
  return environments.interpreter(
      os.path.join(args.environments, 'peer-' + name.lower()), _PACKAGES[name],
      args.python)


def row_of(name, tasks, found):
  """The cells of a line of the table.

  Args:
    name: str, of the run.
    tasks: list of str.
    found: list of dict, of peer_models.py, one per seed.
  """
  def mean(key):
    return np.mean([one[key] for one in found], axis=0)

  cells = [name]
  for key in ('auc', 'log_loss'):
    cells += ['%.4f' % value for value in mean(key)[:len(tasks)]]
  return cells + ['/'.join('%d' % one['epoch'] for one in found),
                  '%.0f' % mean('seconds')]


def compare(args):
  """Yields the lines of the table, as lists of cells."""
  with tempfile.TemporaryDirectory() as folder:
    tasks = write_arrays(folder, args)
    titles = ['run'] + ['%s %s' % (metric, task) for metric in (
        'AUC', 'log loss') for task in tasks] + ['best epoch', 'seconds']
    yield titles
    yield ['---'] * len(titles)
    for name in args.peers:
      python = environment(name, args)
      found = []
      for seed in args.seeds:
        done = subprocess.run(
            [python, os.path.join(_TOOLS, 'peer_models.py'), name, folder,
             '--seed', str(seed), '--most_epochs', str(args.most_epochs)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True)
        if done.returncode:
          raise ValueError('%s failed:\n%s' % (name, done.stderr[-3000:]))
        found.append(json.loads(done.stdout.splitlines()[-1]))
        yield row_of('%s, seed %d' % (name, seed), tasks, found[-1:])
      if len(found) > 1:
        yield row_of('%s, mean' % name, tasks, found)


def main(arguments=None):
  """Prints the table; returns the exit status."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  add('gin_files', nargs='+', help='of the experiment')
  add('--gin_bindings', action='append', default=[])
  add('--peers', nargs='+', choices=sorted(_PACKAGES),
      default=sorted(_PACKAGES))
  add('--seeds', nargs='+', type=int, default=[2021])
  add('--most_epochs', type=int, default=20)
  add('--environments', default='.venv', help='where they are made')
  add('--python', default='python3.11', help='interpreter that makes them')
  args = parser.parse_args(arguments)
  try:
    for row in compare(args):
      print('| %s |' % ' | '.join(row), flush=True)
  except (OSError, ValueError, subprocess.CalledProcessError) as error:
    sys.stderr.write('peers: %s\n' % error)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
