r"""Measures how much the tasks of a model need each column.

  ple-estimator importance result/base
  ple-estimator importance result/base data/taobao_test_data.parquet \
      --out importance.parquet
  ple-estimator importance result/base/export/best rows.csv \
      --labels ctr=clk,cvr=buy

MODEL is the folder of a run, whose configuration is the one that it has written
there, or --gin_file; or the folder of a SavedModel. The rows are those of FILE,
or of Experiment.eval_input (of test_input with --of test). A SavedModel does
not know its labels: --gin_file names its run, or --labels the columns of FILE.

The values of a column are permuted among the rows, --repeats times, and the
importance is how much worse each task is then: by how much AUC falls for a
binary task, by how much the loss rises for others (with a SavedModel, which
has no logits: the squared error, or the log loss of classes). Labels, weights
and sample spaces stay as they are. A list moves as a whole, with its weights,
and lists that are aligned move together. A cross follows its columns.

Groups of columns are permuted together too: the columns of each cross, columns
of which every two go together (Cramer's V of --correlated or more, see
trust/associations.py), and those that --groups names. With a SavedModel and
without --gin_file nothing says which lists are aligned or columns crossed.

With --out RUN/importance.json, ple-estimator report shows them as a chart.

The spread is the standard deviation of the repeats. The interval holds the
importance for other rows of the same kind with a probability of 95 %, by the
bootstrap of rows, or of users where --user or Metrics.user names them.
"""

import argparse
import collections
import os
import textwrap

import pyarrow as pa

from ple_estimator import errors
from ple_estimator.commands.trust import judged as judged_lib
from ple_estimator.commands.trust import permuting
from ple_estimator.commands.trust import runs
from ple_estimator.commands.trust import saving
from ple_estimator.commands.trust import text
from ple_estimator.gin_files import operative

_SHOWN = 40  # lines of a table
_MEANING = (
    'The importance is how much worse a task is when the column has the values '
    'of other rows. It says what this model uses, and neither what a model '
    'without the column would lose nor what causes the label. Columns that say '
    'the same share their importance, and each alone may seem to have little: '
    'see the groups. Importances do not sum to that of a group, nor to a '
    'total. An interval around 0 shows none.')


def measure(judged, found, permute):
  """Permutes every unit.

  Args:
    judged: judged.Judged.
    found: list of permuting.Unit.
    permute: permuting.Permuting.

  Returns:
    OrderedDict of task name to a list of permuting.Importance, the most
    important first.
  """
  by_task = collections.OrderedDict((name, []) for name in judged.tasks)
  for unit in found:
    for name, importance in permute(unit).items():
      by_task[name].append(importance)
  for of_task in by_task.values():
    of_task.sort(key=lambda of: -of.importance)
  return by_task


def _show(judged, by_task, permute, args, is_export):
  """Yields the lines that are printed."""
  yield '%s: %d columns, %s.' % (
      judged.about[0], len(judged.columns), ', '.join(judged.tasks))
  yield 'Rows: %s, permuted %d times (seed %d).' % (
      judged.about[1], args.repeats, args.seed)
  for name, found in by_task.items():
    task = judged.tasks[name]
    yield ''
    yield '%s: %s %.4f of %s rows' % (
        name, task.metric, permute.scores[name],
        format(int((task.weight > 0).sum()), ','))
    for kinds, head in [(('column', 'aligned'), 'column'),
                        (('crossed', 'correlated', 'named'), 'group')]:
      rows = [of for of in found if of.unit.kind in kinds]
      if rows:
        yield ''
        for line in _table(rows, head, task):
          yield line
  yield ''
  yield textwrap.fill(_MEANING, 80)
  if not is_export and not args.out:
    yield '--out %s shows them in ple-estimator report.' % os.path.join(
        args.model, 'importance.json')


def _table(rows, head, task):
  """Yields the lines of a table of Importance."""
  change = '%s of %s' % ('drop' if task.losses is None else 'rise', task.metric)
  groups = head == 'group'
  for line in text.table(
      [head] + ['why'] * groups + [change, 'spread', '95 % interval'],
      [[' + '.join(of.unit.columns)] + [of.unit.kind] * groups + [
          '%.5f' % of.importance, '%.5f' % of.spread,
          '%.5f to %.5f' % (of.low, of.high)] for of in rows[:_SHOWN]],
      left=1 + groups):
    yield line
  if len(rows) > _SHOWN:
    yield '%d more, of which the most important has %.5f; --out has all.' % (
        len(rows) - _SHOWN, rows[_SHOWN].importance)


def _records(judged, by_task, permute):
  """Yields a dict for each task and unit."""
  for name, found in by_task.items():
    task = judged.tasks[name]
    for of in found:
      yield collections.OrderedDict([
          ('task', name), ('columns', list(of.unit.columns)),
          ('kind', of.unit.kind), ('metric', task.metric),
          ('value', permute.scores[name]), ('importance', of.importance),
          ('spread', of.spread), ('low', of.low), ('high', of.high),
          ('rows', int((task.weight > 0).sum()))])


def _names(written, between=','):
  return [name for name in (written or '').split(between) if name]


def _run(args):
  saving.check(args.out)
  errors.check(os.path.isdir(args.model), 'MODEL must be the folder of a run '
               'or of a SavedModel, there is none at %r.', args.model)
  errors.check_number('--correlated', args.correlated, above=0, most=1)
  is_export = not operative.newest(args.model) and runs.is_export(args.model)
  errors.check(
      is_export and not args.gin_file or not (
          args.labels or args.weight or args.columns), '--labels, --weight and '
      '--columns are for a SavedModel without --gin_file: a run knows them.')
  judged = (judged_lib.of_export if is_export else judged_lib.of_run)(args)
  found = permuting.units(
      judged, _names(args.only), [_names(of, '+') for of in _names(
          args.groups)], args.correlated)
  permute = permuting.Permuting(judged, args.repeats, args.seed, args.rounds)
  by_task = measure(judged, found, permute)
  print('\n'.join(_show(judged, by_task, permute, args, is_export)))
  if args.out:
    records = list(_records(judged, by_task, permute))
    saving.write(
        args.out, {'model': judged.about[0], 'rows': judged.about[1],
                   'repeats': args.repeats, 'seed': args.seed},
        lambda: {'importances': records},
        lambda: pa.table({name: [record[name] for record in records]
                          for name in records[0]}))
  return 0


def _parser():
  parser = argparse.ArgumentParser(
      prog='ple-estimator importance', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('model', metavar='MODEL',
                      help='the folder of a run or of a SavedModel')
  runs.add_rows_flags(parser)
  runs.add_flags(parser)
  for flag, default, words in [
      ('--rows', 10000, 'how many rows, from the first'),
      ('--repeats', 5, 'how often each column is permuted'),
      ('--rounds', 200, 'samples of the bootstrap')]:
    parser.add_argument(flag, type=runs.count, default=default, metavar='N',
                        help='%s (%d)' % (words, default))
  parser.add_argument('--seed', type=int, default=0, metavar='N',
                      help='of the permutations (0)')
  for flag, metavar, words in [
      ('--only', 'COLUMN,...', 'permute these columns alone'),
      ('--groups', 'COLUMN+COLUMN,...', 'further groups of columns'),
      ('--user', 'COLUMN', 'the user of a row; otherwise Metrics.user'),
      ('--labels', 'TASK=COLUMN,...', 'of a SavedModel: the label of each '
       'task; rows without one do not count'),
      ('--weight', 'COLUMN', 'of a SavedModel: the weights of rows'),
      ('--columns', 'NAMES', 'of a SavedModel: the columns of a CSV FILE '
       'without header, in their order, commas between them'),
      ('--out', 'FILE', 'also write the importances to a .json or .parquet')]:
    parser.add_argument(flag, metavar=metavar, help=words)
  parser.add_argument(
      '--correlated', type=float, default=0.5, metavar='V',
      help='columns of which every two have at least this Cramer\'s V are a '
      'group (0.5); 1 groups those that determine each other')
  return parser


def main(arguments=None):
  """Runs the command; returns the exit status.

  Args:
    arguments: list of str; None takes those of the process.
  """
  args = _parser().parse_args(arguments)
  return runs.status('importance', lambda: _run(args))
