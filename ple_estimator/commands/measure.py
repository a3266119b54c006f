r"""Measures predictions in a file, with intervals.

  ple-estimator metrics result/base/test_rows.parquet
  ple-estimator metrics result/base/predictions.parquet \
      --labels ctr=clk,cvr=buy --user user_id --slices pid

FILE is Parquet, or CSV with a header. A file of evaluated rows (eval_rows.
parquet and test_rows.parquet, which evaluations write) says itself which column
is what. Of any other file --labels names the label of each column of
predictions; Experiment.predict_columns copies labels to predictions.

Binary tasks have the metrics auc, pr_auc, log_loss, normalised_entropy,
calibration, expected_calibration_error and accuracy, all other tasks rmse, mae
and calibration; --names adds gauc, lift@0.1, recall@10 (see Metrics.names in
gin/README.md). Rows without a label do not count, and are counted.

The intervals hold the true value with a probability of 95 %, by the bootstrap.
Where the user of a row is known, whole users are drawn: the rows of one user
are alike, and intervals by rows would be too narrow.
"""

import argparse
import collections
import json
import math
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.metrics import chosen
from ple_estimator.metrics import intervals
from ple_estimator.metrics import probabilities
from ple_estimator.metrics import ranking
from ple_estimator.training import evaluated_rows

_ROUNDS = 200

Task = collections.namedtuple('Task', 'rows is_binary missing slices')
Task.__doc__ = """One task of a file.

Attributes:
  rows: chosen.Measured.
  is_binary: bool.
  missing: int, rows that do not count: without a label, or of weight 0.
  slices: list of (column, value, [rows] bool).
"""


def tasks_of(path, labels=None, weight=None, user=None, slices=()):
  """Reads a file.

  Args:
    path: str, ending in .parquet or .csv.
    labels: dict of column of predictions to column of labels; None is for a
      file of evaluated rows.
    weight: str, the column of the weights of rows, or None.
    user: str, the column of the user, or None: that which the file names.
    slices: list of str, columns.

  Returns:
    OrderedDict of task name to Task.

  Raises:
    UserError: if the file cannot be read or lacks a column.
  """
  table = _read(path)
  about = (table.schema.metadata or {}).get(evaluated_rows.KEY)
  about = json.loads(about.decode()) if about else {}
  errors.check(
      labels or about, '%s is no file of evaluated rows: name the label of '
      'each column of predictions, such as --labels ctr=clk, of its columns '
      '%s.', path, ', '.join(table.schema.names))
  errors.check(
      not (labels and about), '%s is a file of evaluated rows, which has its '
      'labels: leave out --labels.', path)
  user = user or about.get('user')
  slices = list(slices) or about.get('slices') or []
  found = collections.OrderedDict()
  kinds = about.get('tasks') or dict.fromkeys(labels)
  for task, kind in kinds.items():
    if kind == 'multiclass':
      continue
    if about:
      names = ['%s/%s' % (task, part) for part in evaluated_rows.PARTS]
    else:
      names = [labels[task], task, weight]
    found[task] = _task(path, table, names, kind, user, slices)
  errors.check(found, '%s has no task with one prediction per row.', path)
  return found


def _task(path, table, names, kind, user, slices):
  """The Task whose (label, prediction, weight) columns have these names."""
  label, prediction = (_numbers(path, table, name) for name in names[:2])
  weight = (_numbers(path, table, names[2]) if names[2]
            else np.ones(len(label)))
  errors.check(not np.isnan(prediction[weight > 0]).any(), 'Column %r of %s '
               'has a prediction that is missing or not a number.', names[1],
               path)
  counts = ~np.isnan(label) & (weight > 0)
  of_user = _values(path, table, user)[counts] if user else None
  rows = chosen.Measured(label[counts], prediction[counts], weight[counts],
                         of_user)
  parts = [(column, value, which) for column in slices for value, which in
           chosen.slices(_values(path, table, column)[counts])]
  is_binary = (kind == 'binary' if kind else
               set(np.unique(rows.label)) <= {0, 1})
  return Task(rows, is_binary, int((~counts).sum()), parts)


def measure(task, names=(), user=None, rounds=_ROUNDS):
  """Measures a task.

  Args:
    task: Task.
    names: list of further metrics of a binary task, see Metrics.names.
    user: str, the column of the user, for messages; or None.
    rounds: int, samples of the bootstrap.

  Returns:
    OrderedDict of metric name to intervals.Interval.
  """
  rows = task.rows
  metrics = _of_binary(rows) if task.is_binary else _of_numbers(rows)
  for name in names if task.is_binary else ():
    function = chosen.function(name, user, '--')
    metrics[name] = lambda weights, function=function: function(
        rows._replace(weight=weights))
  draws = intervals.Draws(len(rows.label), rows.user, rounds)
  found = collections.OrderedDict(
      (name, intervals.bootstrap(metric, draws, rows.weight))
      for name, metric in metrics.items())
  name, metric = next(iter(metrics.items()))
  for column, value, which in task.slices:
    found['%s/%s=%s' % (name, column, value)] = intervals.bootstrap(
        lambda weights, which=which: metric(weights * which), draws,
        rows.weight)
  return found


def _of_binary(rows):
  """The metrics of a binary task: functions of [rows] weights."""
  ordered = ranking.Ordered(rows.label, rows.prediction)
  metrics = collections.OrderedDict(
      [('auc', ordered.auc), ('pr_auc', ordered.pr_auc)])
  for name in ('log_loss', 'normalised_entropy', 'calibration',
               'expected_calibration_error', 'accuracy'):
    metrics[name] = _weighted(getattr(probabilities, name), rows)
  return metrics


def _of_numbers(rows):
  return collections.OrderedDict(
      (name, _weighted(getattr(probabilities, name), rows))
      for name in ('rmse', 'mae', 'calibration'))


def _weighted(metric, rows):
  return lambda weights: metric(rows.label, rows.prediction, weights)


def _read(path):
  files.check_local('FILE', path)
  errors.check(os.path.isfile(path), 'FILE must be a Parquet or CSV file, '
               'there is none at %r.', path)
  try:
    if path.endswith('.csv'):
      return pa.csv.read_csv(path)
    return pyarrow.parquet.read_table(path)
  except (pa.ArrowInvalid, OSError) as error:
    raise errors.UserError('%s cannot be read: %s' % (
        path, str(error).partition('\n')[0])) from error


def _values(path, table, name):
  """A column as [rows] array; what is missing is an empty text or NaN."""
  errors.check(name in table.schema.names, '%s must have the column %r, it has '
               '%s.', path, name, ', '.join(table.schema.names))
  column = table.column(name)
  if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
    return np.asarray(['' if value is None else value if isinstance(
        value, str) else value.decode('utf-8', 'backslashreplace')
                       for value in column.to_pylist()])
  return np.asarray(column.to_numpy())


def _numbers(path, table, name):
  values = _values(path, table, name)
  try:
    return values.astype(np.float64)
  except (TypeError, ValueError) as error:
    raise errors.UserError('Column %r of %s must have numbers: %s' % (
        name, path, error)) from error


def _pairs(text):
  """Parses ctr=clk,cvr=buy."""
  pairs = collections.OrderedDict()
  for item in filter(None, (text or '').split(',')):
    task, equals, label = item.partition('=')
    errors.check(equals and task and label, '--labels must be pairs of a '
                 'column of predictions and one of labels, such as '
                 'ctr=clk,cvr=buy, got %r.', text)
    pairs[task] = label
  return pairs


def show(found, tasks):
  """A table of all metrics as text.

  Args:
    found: dict of task name to a dict of metric name to intervals.Interval.
    tasks: dict of task name to Task.
  """
  width = max(len(name) for of in found.values() for name in of)
  lines = []
  for task, metrics in found.items():
    of = tasks[task]
    lines.append('%s: %s rows%s%s' % (
        task, '{:,}'.format(len(of.rows.label)), '' if of.rows.user is None
        else ' of {:,} users'.format(len(np.unique(of.rows.user))),
        '; {:,} rows do not count'.format(of.missing) if of.missing else ''))
    lines += ['  %-*s  %9.5f   (%.5f to %.5f)' % ((width, name) + value)
              for name, value in metrics.items()]
  return '\n'.join(lines)


def parse_args(arguments):
  """Returns the argparse.Namespace."""
  parser = argparse.ArgumentParser(
      prog='ple-estimator metrics', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('file', metavar='FILE')
  parser.add_argument('--labels', metavar='TASK=COLUMN,...',
                      help='the label of each column of predictions')
  parser.add_argument('--weight', metavar='COLUMN', help='weights of rows')
  parser.add_argument('--user', metavar='COLUMN', help='the user of a row')
  parser.add_argument('--slices', metavar='COLUMN,...', default='',
                      help='AUC (or RMSE) of the rows of each value')
  parser.add_argument('--names', metavar='METRIC,...', default='',
                      help='further metrics: gauc, lift@0.1, recall@10, ...')
  parser.add_argument('--rounds', type=int, default=_ROUNDS, metavar='N',
                      help='samples of the bootstrap (default: %(default)s)')
  parser.add_argument('--json', metavar='FILE', help='write the metrics there')
  return parser.parse_args(arguments)


def _run(args):
  errors.check_integer('--rounds', args.rounds, 1)
  tasks = tasks_of(args.file, _pairs(args.labels), args.weight, args.user,
                   list(filter(None, args.slices.split(','))))
  has_user = any(task.rows.user is not None for task in tasks.values())
  found = collections.OrderedDict(
      (name, measure(task, list(filter(None, args.names.split(','))),
                     has_user or None, args.rounds))
      for name, task in tasks.items())
  print(show(found, tasks))
  if args.json:
    files.write_json(args.json, {
        task: {name: {part: number if math.isfinite(number) else None
                      for part, number in value._asdict().items()}
               for name, value in of.items()}
        for task, of in found.items()}, indent=2)


def main(arguments):
  """Runs the command; returns the exit status."""
  args = parse_args(arguments)
  try:
    _run(args)
  except errors.UserError as error:
    sys.stderr.write('ple-estimator metrics: %s\n' % error)
    return 1
  return 0
