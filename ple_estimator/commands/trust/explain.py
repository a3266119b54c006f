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

A gate mixes the experts of its level by shares that sum to 1.

--out FILE.json has everything, a dict for each row. --out FILE.parquet has a
line for each number: `row`; `what`, which is contribution, error (the standard
error of a contribution), baseline, logit or gate; `of`, the logit or the gate;
`name`, the column or the expert; `value`.
"""

import argparse
import collections
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.commands.trust import rows
from ple_estimator.commands.trust import runs
from ple_estimator.commands.trust import shapley
from ple_estimator.commands.trust import text

_SHOWN = 40  # columns of a row
_VALUE = 24  # characters of a value

Explained = collections.namedtuple(
    'Explained', 'row values contributions errors baseline logits predictions '
    'gates')
Explained.__doc__ = """What is said of a row.

Attributes:
  row: int, from 1.
  values: dict of the name of a column that the files have to its value, text.
  contributions: OrderedDict of the name of a logit to an OrderedDict of the
    name of a column to float.
  errors: the same of their standard errors; NaN of a single pair of orders.
  baseline: OrderedDict of the name of a logit to float, that of the baseline.
  logits: the same of the row.
  predictions: the same of what is predicted, by task, or class of a task.
  gates: OrderedDict of gate to an OrderedDict of expert to its share.
"""


class Explainer:
  """A run that explains rows.

  Attributes:
    model: answering.Answering.
    logits: list of str, the names of all logits.
    columns: list of str, all that contribute.
  """

  def __init__(self, loaded, checkpoint):
    """Builds the graph on a checkpoint.

    Args:
      loaded: experiment.Experiment.
      checkpoint: str, see Experiment.evaluate.

    Raises:
      UserError: if there is no such checkpoint.
    """
    self._of = loaded.model
    self.model = loaded.opened(self._build, checkpoint)
    self.logits = [key[1] for key in self.model.outputs if key[0] == 'logit']
    self._inputs = {'inputs': self.model.outputs['inputs']}
    self._asked = {key: of for key, of in self.model.outputs.items()
                   if key[0] == 'logit'}
    self.columns, self._widths = zip(*loaded.model.widths())

  def _build(self, features, engine):
    """The tensors: 'inputs', and pairs and triples that say what they are."""
    opened = self._of.opened(features, engine)
    found = collections.OrderedDict(inputs=opened.inputs)
    for task in self._of.tasks:
      logits = opened.logits[task.name]
      for what, of in [('logit', logits),
                       ('prediction', task.predictions(logits))]:
        found.update(((what, name), part)
                     for name, part in _parts(task.name, of))
    for gate, shares in opened.gates.items():
      found.update((('gate', gate, expert), share)
                   for expert, share in shares.items())
    return found

  def mean(self, columns):
    """The mean input of rows, [width] float32.

    Args:
      columns: dict of column name to numpy array, see answering.Answering.
    """
    inputs = self.model.fed(self._inputs, self._feeds(columns))['inputs']
    return inputs.mean(axis=0, dtype=np.float64).astype(np.float32)

  def zero(self):
    """The input that has nothing, [width] float32."""
    return np.zeros(sum(self._widths), np.float32)

  def __call__(self, columns, baseline, orders, seed=0):
    """Explains rows.

    Args:
      columns: dict of column name to numpy array.
      baseline: [width] float32.
      orders: int, how many orders.
      seed: int, of the orders.

    Returns:
      (contributions, errors, baseline, answers): [rows, columns, logits] twice,
      [logits], and a dict of what `_build` names to [rows] arrays.
    """
    answers = self.model.fed(self.model.outputs, self._feeds(columns))
    found = shapley.values(
        self._ask, answers['inputs'], baseline, self._widths,
        shapley.orders(len(self._widths), orders, seed))
    return found + (self._ask(baseline[np.newaxis])[0], answers)

  def _ask(self, inputs):
    found = self.model.fed(self._asked, {
        self.model.outputs['inputs']: inputs})
    return np.stack([found['logit', name] for name in self.logits], axis=1)

  def _feeds(self, columns):
    return {tensor: columns[name]
            for name, tensor in self.model.inputs.items()}


def _parts(name, tensor):
  """Pairs of name and [batch] tensor of [batch] or [batch, n] logits."""
  if tensor.shape.ndims == 1:
    return [(name, tensor)]
  return [('%s/%d' % (name, i), tensor[:, i])
          for i in range(tensor.shape[1].value)]


def explained(explainer, table, numbers, baseline, args):
  """Explains some rows of a table.

  Args:
    explainer: Explainer.
    table: pa.Table of typed columns.
    numbers: list of int, the rows, from 1.
    baseline: [width] float32.
    args: argparse.Namespace with orders and seed.

  Returns:
    list of Explained.
  """
  chosen = table.take(pa.array([number - 1 for number in numbers]))
  columns = rows.fed(chosen, explainer.model.inputs)
  contributions, spreads, start, answers = explainer(
      columns, baseline, args.orders, args.seed)

  def by_logit(values):
    return collections.OrderedDict(
        (logit, collections.OrderedDict(zip(
            explainer.columns, values[:, i].tolist())))
        for i, logit in enumerate(explainer.logits))

  return [Explained(
      number, {name: _shown(values[i]) for name, values in columns.items()},
      by_logit(contributions[i]), by_logit(spreads[i]),
      collections.OrderedDict(zip(explainer.logits, start.tolist())),
      _named(answers, 'logit', i), _named(answers, 'prediction', i),
      _gates(answers, i)) for i, number in enumerate(numbers)]


def _named(answers, what, row):
  return collections.OrderedDict(
      (key[1], float(of[row])) for key, of in answers.items()
      if key[0] == what)


def _gates(answers, row):
  found = collections.OrderedDict()
  for key, of in answers.items():
    if key[0] == 'gate':
      found.setdefault(key[1], collections.OrderedDict())[key[2]] = float(
          of[row])
  return found


def _shown(value):
  """A value of a column as text."""
  if isinstance(value, bytes):
    return value.decode('utf-8', 'backslashreplace')
  return ' '.join('%.6g' % of for of in np.ravel(value))


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
  yield ''


def _records(found):
  """Yields (row, what, of, name, value) of a list of Explained."""
  for of in found:
    for what, by_name in [('contribution', of.contributions),
                          ('error', of.errors), ('gate', of.gates)]:
      for owner, values in by_name.items():
        for name, value in values.items():
          yield of.row, what, owner, name, value
    for what, values in [('baseline', of.baseline), ('logit', of.logits),
                         ('prediction', of.predictions)]:
      for owner, value in values.items():
        yield of.row, what, owner, None, value


def _write(path, about, found):
  os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
  if path.endswith('.json'):
    files.write_json(path, dict(about, rows=[
        _without_nan(of._asdict()) for of in found]), indent=2)
    return
  columns = zip(*_records(found))
  pa.parquet.write_table(pa.table(collections.OrderedDict(zip(
      ['row', 'what', 'of', 'name', 'value'], map(list, columns)))
                                 ).replace_schema_metadata(
      {b'ple_estimator': json.dumps(about).encode()}), path)


def _without_nan(value):
  if isinstance(value, dict):
    return {name: _without_nan(of) for name, of in value.items()}
  return None if isinstance(value, float) and np.isnan(value) else value


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
  errors.check(
      not args.out or args.out.endswith(('.json', '.parquet')), '--out must '
      'end in .json or .parquet, got %r.', args.out)
  files.check_local('--out', args.out or '')
  errors.check(
      runs.config_of(args.model) or args.gin_file or
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
  checkpoint = runs.checkpoint(args, loaded)
  explainer = Explainer(loaded, checkpoint)
  baseline = explainer.mean(rows.fed(
      reference, explainer.model.inputs)) if is_mean else explainer.zero()
  found = explained(explainer, table, numbers, baseline, args)
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
    _write(args.out, about, found)
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
