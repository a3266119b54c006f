r"""Asks whether a SavedModel answers as prediction does, and how fast.

  ple-estimator check result/base/export/best data/taobao_test_data.parquet \
      --gin_file=gin/base.gin
  ple-estimator check EXPORT rows.csv --predictions result/base/predictions.csv

EXPORT is the folder of a SavedModel, or the one above it, of which the largest
number is taken, as TensorFlow Serving does. It is loaded as there: by the tag
`serve`, with the signature serving_default, which takes the columns, and with
the other one, which takes serialized tf.train.Examples, if there is one.

The rows of FILE (CSV or Parquet) are asked of it and compared

  --gin_file       with what --mode=predict gives for these rows, by the
                   checkpoint of the step that was exported, or --checkpoint
  --predictions    with a file that has a column per task, in the order of FILE

A difference is |served - predicted|, divided by |predicted| where that is more
than 1. Then requests of 1, 32 and 512 rows are timed, in this process and
without a network: the median, the 99th percentile, and the rows per second.

The exit status is 0 if all differences are at most --tolerance, 1 if one is
larger, and 2 if something cannot be read.
"""

import argparse
import collections
import itertools
import time

import numpy as np

from ple_estimator import errors
from ple_estimator.commands.trust import rows
from ple_estimator.commands.trust import runs
from ple_estimator.commands.trust import text
from ple_estimator.data import predictions
from ple_estimator.training import answering

SIZES = (1, 32, 512)  # rows of a request
_LEAST_REQUESTS = 20
_WARM_UP = 3  # requests that are not timed

Difference = collections.namedtuple('Difference', 'task form largest row')
Difference.__doc__ = """How far answers are from predictions.

Attributes:
  task: str.
  form: str, 'columns' or 'Examples': what was sent.
  largest: float, infinite where one of the two is NaN.
  row: int, where it is, from 1.
"""
Latency = collections.namedtuple('Latency', 'size requests median p99 rate')
Latency.__doc__ = """How fast requests are answered.

Attributes:
  size: int, rows of a request.
  requests: int, how many were timed.
  median: float, seconds.
  p99: float, seconds.
  rate: float, rows per second, one request after the other.
"""


def largest(served, predicted):
  """The largest difference of two arrays: (float, row from 0).

  Args:
    served: [rows] or [rows, n] float32.
    predicted: the same.
  """
  served, predicted = [np.asarray(of, np.float64).reshape(len(of), -1)
                       for of in (served, predicted)]
  errors.check(served.shape == predicted.shape, 'Predictions must have the '
               'shape of the answers, %s, got %s.', served.shape,
               predicted.shape)
  with np.errstate(invalid='ignore'):
    away = np.abs(served - predicted) / np.maximum(np.abs(predicted), 1)
  away[np.isnan(served) & np.isnan(predicted) | (served == predicted)] = 0
  away[np.isnan(away)] = np.inf
  by_row = away.max(axis=1)
  return float(by_row.max()), int(by_row.argmax())


def differences(model, columns, predicted):
  """Compares both signatures of a SavedModel with predictions.

  Args:
    model: answering.Answering.
    columns: dict of column name to numpy array.
    predicted: dict of task name to numpy array.

  Returns:
    list of Difference.
  """
  answers = [('columns', model(columns))]
  if model.examples:
    answers.append(('Examples', model.of_examples(
        np.array(rows.examples(columns), object))))
  found = []
  for task in sorted(model.outputs):
    for form, answer in answers:
      away, row = largest(answer[task], predicted[task])
      found.append(Difference(task, form, away, row + 1))
  return found


def latency(model, columns, size, seconds):
  """Times requests of so many rows, which run through the rows in turn.

  Args:
    model: answering.Answering.
    columns: dict of column name to numpy array.
    size: int, rows of a request.
    seconds: float, how long to go on; at least 20 requests are made.

  Returns:
    Latency.
  """
  names = sorted(columns)
  ask = model.session.make_callable(
      list(model.outputs.values()), [model.inputs[name] for name in names])
  count = len(columns[names[0]])
  taken, begin = [], None
  for number in itertools.count():
    if number == _WARM_UP:
      begin = time.perf_counter()
    places = np.arange(number * size, (number + 1) * size) % count
    request = [columns[name][places] for name in names]
    started = time.perf_counter()
    ask(*request)
    if begin is None:
      continue
    taken.append(time.perf_counter() - started)
    if (time.perf_counter() - begin >= seconds and
        len(taken) >= _LEAST_REQUESTS):
      break
  return Latency(size, len(taken), float(np.median(taken)),
                 float(np.percentile(taken, 99)),
                 size * len(taken) / sum(taken))


def _of_run(args, model):
  """Reads rows and predicts them as a run does: (columns, predicted, what)."""
  experiment = runs.load(args)
  table, count = rows.of_run(experiment, args.file, args.rows)
  which = args.checkpoint or experiment.checkpoint_of(model.global_step)
  parts, left = collections.defaultdict(list), table.num_rows
  for batch in experiment.predictions_of(
      experiment.rows_of(args.file), which):
    for task, values in batch.items():
      parts[task].append(values[:left])
    left -= min(left, len(values))
    if not left:
      break
  predicted = {task: np.concatenate(of) for task, of in parts.items()}
  return (rows.fed(table, model.inputs), predicted, 'mode predict of %s, '
          'checkpoint %s' % (experiment.model_dir, which), count)


def _of_file(args, model):
  """Reads rows and the predictions of a file, as `_of_run`."""
  table, count = rows.of_file(
      args.file, model.inputs, args.rows,
      args.columns.split(',') if args.columns else None)
  parts, left = collections.defaultdict(list), table.num_rows
  for batch in predictions.Predictions(args.predictions, 1).batches():
    lacking = [task for task in model.outputs if task not in batch]
    errors.check(not lacking, '%s must have a column for each task, lacks %s.',
                 args.predictions, ', '.join(lacking))
    for task in model.outputs:
      parts[task].append(batch[task][:left])
    left -= min(left, len(batch[task]))
    if not left:
      break
  errors.check(not left, '%s must have the predictions of all rows, has %d of '
               '%d.', args.predictions, table.num_rows - left, table.num_rows)
  return (rows.fed(table, model.inputs),
          {task: np.concatenate(of) for task, of in parts.items()},
          args.predictions, count)


def _report(args, model, found, about):
  """Yields the lines that are printed, but for the latencies."""
  count, total, what = about
  yield 'SavedModel %s of step %d: %d columns in, %s out.' % (
      answering.folder_of(args.export), model.global_step, len(model.inputs),
      ', '.join(sorted(model.outputs)))
  yield 'Compared: %s, with %s.' % (
      runs.rows_in_words(count, total, args.file), what)
  if not model.examples:
    yield 'It has no signature for serialized tf.train.Examples.'
  yield ''
  for line in text.table(
      ['task', 'sent as', 'largest difference', 'in row'],
      [[of.task, of.form, '%.3g' % of.largest,
        format(of.row, ',') if of.largest else '-']
       for of in found], left=2):
    yield line
  yield ''


def _latencies(args, model, columns):
  """Yields the lines about speed."""
  found = [latency(model, columns, size, args.seconds) for size in SIZES]
  for line in text.table(
      ['rows in a request', 'requests', 'median, ms', 'p99, ms', 'rows/s'],
      [[str(of.size), str(of.requests), '%.2f' % (1e3 * of.median),
        '%.2f' % (1e3 * of.p99), '%d' % of.rate] for of in found], left=0):
    yield line


def _run(args):
  errors.check(
      bool(args.gin_file) != bool(args.predictions), 'Give --gin_file, whose '
      'run predicts, or --predictions, a file of predictions, and not both.')
  errors.check(not (args.columns and args.gin_file), '--columns is for '
               '--predictions: with --gin_file the run says how to read FILE.')
  with answering.of_export(args.export) as model:
    columns, predicted, what, total = (
        _of_run if args.gin_file else _of_file)(args, model)
    lacking = sorted(set(model.outputs) - set(predicted))
    errors.check(not lacking, 'The tasks of the SavedModel and the run must '
                 'have the same names: nothing predicts %s.',
                 ', '.join(lacking))
    found = differences(model, columns, predicted)
    count = len(next(iter(columns.values())))
    print('\n'.join(_report(args, model, found, (count, total, what))))
    if args.seconds:
      print('\n'.join(_latencies(args, model, columns)) + '\n')
  worst = max(of.largest for of in found)
  good = worst <= args.tolerance
  print('%s: the largest difference is %.3g, and --tolerance is %.3g.' % (
      'OK' if good else 'DIFFERENT', worst, args.tolerance))
  return 0 if good else 1


def _parser():
  parser = argparse.ArgumentParser(
      prog='ple-estimator check', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('export', metavar='EXPORT', help='of a SavedModel')
  parser.add_argument('file', metavar='FILE', help='rows, CSV or Parquet')
  runs.add_flags(parser)
  parser.add_argument('--predictions', metavar='FILE',
                      help='CSV with a header, or Parquet, in place of a run')
  parser.add_argument('--columns', metavar='NAMES',
                      help='the columns of a CSV FILE without header, in their '
                      'order, commas between them')
  parser.add_argument('--rows', type=runs.count, default=10000, metavar='N',
                      help='how many rows, from the first (10000)')
  parser.add_argument('--tolerance', type=float, default=1e-5,
                      help='the largest difference that counts as none (1e-5)')
  parser.add_argument('--seconds', type=float, default=2.0,
                      help='to time requests of each size (2); 0 times none')
  return parser


def main(arguments=None):
  """Runs the command; returns the exit status.

  Args:
    arguments: list of str; None takes those of the process.
  """
  args = _parser().parse_args(arguments)
  return runs.status('check', lambda: _run(args), mistake=2)
