r"""Says of single rows what each column contributed, and what gates chose.

  ple-estimator explain result/base
  ple-estimator explain result/base data/taobao_test_data.parquet \
      --rows 1,7,100-120 --out explained.json

MODEL is the folder of a run, whose configuration is the one that it has written
there, or --gin_file. The rows are counted from 1 in FILE, or in the rows of
Experiment.eval_input (of test_input with --of test).

A contribution is how far a column moved the logit of a task away from that of
the baseline, where all columns have the vector and the number of the baseline:
the mean of the first --reference rows, or nothing (--baseline zero: the zero
vector, which a missing category has, and the number 0 behind mean and std). The
contributions of a row are Shapley values (trust/shapley.py), means over
--orders orders in which the columns take their own values. They add up to the
logit minus that of the baseline. A logit is that behind the prediction: log
odds of a binary task, the prediction of a regression, the logarithm of a count;
a task with several has several. What interactions such as Wide and FM read of a
column belongs to its contribution. A cross is a column of its own. A list whose
items attention weighs is taken as it is with its own query. Contributions are
of the averaged weights, as predictions are, and say what the model did, not
what causes the label.

A gate mixes the outputs of the experts of its level by shares that sum to 1.
The size of an expert's output, its Euclidean norm, says how much there is to
mix: a large share of a small output is little.

--out FILE.json has everything, a dict for each row. --out FILE.parquet has a
line for each number: `row`; `what`, which is contribution, error (the standard
error of a contribution), baseline, logit, prediction, gate (a share) or expert
(a size); `of`, the logit, gate or expert; `name`, the column, or the expert of
a gate; `value`.
"""

import argparse
import collections

import numpy as np
import pyarrow as pa

from ple_estimator import errors
from ple_estimator.commands.trust import explaining
from ple_estimator.commands.trust import rows
from ple_estimator.commands.trust import runs
from ple_estimator.commands.trust import saving
from ple_estimator.commands.trust import text
from ple_estimator.gin_files import operative

_SHOWN = 40  # columns of a row
_VALUE = 24  # characters of a value

def _lines(of):
  """Yields the lines about a row."""
  names = list(of.logits)
  columns = list(of.contributions[names[0]])
  columns.sort(key=lambda name: -max(
      abs(of.contributions[logit][name]) for logit in names))

  def line(word, value, numbers):
    return [word, value if len(value) <= _VALUE else value[:_VALUE - 3] +
            '...'] + ['%+.4f' % number for number in numbers]

  lines = [line(name, of.values.get(name, '(a cross)'), [
      of.contributions[logit][name] for logit in names])
           for name in columns[:_SHOWN]]
  if columns[_SHOWN:]:
    lines.append(line('(%d more)' % len(columns[_SHOWN:]), '', [
        sum(of.contributions[logit][name] for name in columns[_SHOWN:])
        for logit in names]))
  lines += [line('= contributions', '', [
      sum(of.contributions[logit].values()) for logit in names])]
  lines += [line('+ baseline', '', of.baseline.values()),
            line('= logit', '', of.logits.values())]
  for of_line in text.table(['row %d' % of.row, 'value'] + names, lines,
                            left=2):
    yield of_line
  yield 'Predicted: %s' % ', '.join(
      '%s %.6g' % pair for pair in of.predictions.items())
  if of.gates:
    yield ''
    for of_line in text.table(['gate', 'share of each expert'], [
        [gate, ', '.join('%s %.3f' % pair for pair in sorted(
            shares.items(), key=lambda pair: -pair[1]))]
        for gate, shares in of.gates.items() if shares], left=2):
      yield of_line
  if of.experts:
    yield ''
    for of_line in text.table(['expert', 'size of its output'], [
        [name, '%.3f' % size] for name, size in _sizes(of).items()]):
      yield of_line
  yield ''


def _sizes(of):
  """The size of the output of each expert of an Explained, a float."""
  return collections.OrderedDict(
      (name, float(np.linalg.norm(output)))
      for name, output in of.experts.items())


def _records(found):
  """Yields (row, what, of, name, value) of a list of Explained."""
  for of in found:
    for what, by_name in [('contribution', of.contributions),
                          ('error', of.errors), ('gate', of.gates)]:
      for owner, values in by_name.items():
        for name, value in values.items():
          yield of.row, what, owner, name, value
    for what, values in [('baseline', of.baseline), ('logit', of.logits),
                         ('prediction', of.predictions),
                         ('expert', _sizes(of))]:
      for owner, value in values.items():
        yield of.row, what, owner, None, value


def _table(found):
  """The pa.Table of a list of Explained, a line for each number."""
  return pa.table(collections.OrderedDict(zip(
      ['row', 'what', 'of', 'name', 'value'], map(
          list, zip(*_records(found))))))


def numbers_of(written):
  """Parses '1,7,100-120' to a list of int.

  Args:
    written: str.

  Raises:
    UserError: if it is something else.
  """
  found = []
  for item in written.split(','):
    first, dash, last = item.partition('-')
    errors.check(
        first.strip().isdigit() and (not dash or last.strip().isdigit()) and
        0 < int(first) <= int(last or first), '--rows must be numbers of rows '
        'from 1, such as 1,7,100-120, got %r.', written)
    found += range(int(first), int(last or first) + 1)
  return list(collections.OrderedDict.fromkeys(found))


def _check(args):
  saving.check(args.out)
  errors.check(
      operative.newest(args.model) or args.gin_file or
      not runs.is_export(args.model), 'MODEL must be the folder of a run, got '
      'the SavedModel %r, which answers and does not show what lies inside. '
      'Name the folder of the run that has exported it.', args.model)


def _run(args):
  numbers = numbers_of(args.rows)
  _check(args)
  loaded = runs.load_folder(args)
  source, name = runs.source_of(args, loaded)
  is_mean = args.baseline == 'mean'
  table, total = rows.read(
      loaded, source, max(numbers + [args.reference] * is_mean))
  errors.check(max(numbers) <= table.num_rows, '--rows must be rows of %s, '
               'which has %d that can be used, got %d.', name, table.num_rows,
               max(numbers))
  reference = table.slice(0, args.reference)
  errors.check(not is_mean or reference.num_rows > 1, '--baseline mean needs '
               'more than one row to compare with, got 1 of %s. Take a file '
               'with more rows, or --baseline zero.', name)
  checkpoint = args.checkpoint or loaded.best_or_last()
  explainer = explaining.Explainer(loaded, checkpoint)
  baseline = explainer.mean(rows.fed(
      reference, explainer.model.inputs)) if is_mean else explainer.zero()
  found = explaining.explained(
      explainer, table, numbers, baseline, args)
  about = collections.OrderedDict([
      ('model', 'Run %s, checkpoint %r of step %d' % (
          loaded.model_dir, checkpoint, explainer.model.global_step)),
      ('source', name),
      ('baseline', 'the mean of %s' % runs.rows_in_words(
          reference.num_rows, total, name, '--reference') if is_mean else
       'zero: no category has a vector, and each number is 0'),
      ('orders', args.orders), ('seed', args.seed)])
  print('%s.\nRows of %s. Baseline: %s.\n' % (
      about['model'], name, about['baseline']))
  for of in found:
    print('\n'.join(_lines(of)))
  print(_errors_in_words(found))
  if args.out:
    saving.write(args.out, about, lambda: {
        'rows': [of._asdict() for of in found]}, lambda: _table(found))
  return 0


def _errors_in_words(found):
  """How far the contributions may be off by the choice of orders."""
  largest = max(value for of in found for by_name in of.errors.values()
                for value in by_name.values())
  if not largest > 0:
    return ('The contributions are exact.' if largest == 0 else 'One pair of '
            'orders says nothing of the error of contributions: take more '
            '(--orders).')
  return ('The largest standard error of a contribution is %.4f; more --orders '
          'make it smaller.' % largest)


def _parser():
  parser = argparse.ArgumentParser(
      prog='ple-estimator explain', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('model', metavar='MODEL', help='the folder of a run')
  runs.add_rows_flags(parser)
  runs.add_flags(parser)
  parser.add_argument('--rows', default='1-3', metavar='ROWS',
                      help='which rows, such as 1,7,100-120 (1-3)')
  parser.add_argument(
      '--baseline', choices=['mean', 'zero'], default='mean',
      help='what columns are compared with (mean)')
  for flag, default, words in [
      ('--reference', 10000, 'how many rows, from the first, the mean is of'),
      ('--orders', 64, 'orders in which columns take their own values')]:
    parser.add_argument(flag, type=runs.count, default=default, metavar='N',
                        help='%s (%d)' % (words, default))
  parser.add_argument('--seed', type=int, default=0, metavar='N',
                      help='of the orders (0)')
  parser.add_argument('--out', metavar='FILE',
                      help='also write everything to a .json or .parquet')
  return parser


def main(arguments=None):
  """Runs the command; returns the exit status.

  Args:
    arguments: list of str; None takes those of the process.
  """
  args = _parser().parse_args(arguments)
  return runs.status('explain', lambda: _run(args))
