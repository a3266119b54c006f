"""Explains rows by a run: contributions of columns, and what experts do.

The parts of an input whose contributions shapley.py computes are what a model
has of each column once it is looked up: the vector, with what interactions read
of it, or the numbers.
"""

import collections

import numpy as np
import pyarrow as pa

from ple_estimator.commands.trust import rows
from ple_estimator.commands.trust import shapley

Explained = collections.namedtuple(
    'Explained', 'row values contributions errors baseline logits predictions '
    'gates experts')
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
  experts: OrderedDict of expert, with its level, to its output, list of float.
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
    found.update((('expert', name), output)
                 for name, output in opened.experts.items())
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
      _gates(answers, i), collections.OrderedDict(
          (key[1], of[i].tolist()) for key, of in answers.items()
          if key[0] == 'expert')) for i, number in enumerate(numbers)]


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
