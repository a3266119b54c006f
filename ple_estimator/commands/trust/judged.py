"""Rows with labels, and a model that answers them: a run or a SavedModel."""

import collections

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.commands.trust import rows
from ple_estimator.commands.trust import runs
from ple_estimator.data import column_kinds
from ple_estimator.training import answering

Judged = collections.namedtuple(
    'Judged', 'answer columns tasks user aligned crossed about')
Judged.__doc__ = """A model, and rows to judge it by.

Attributes:
  answer: function of a dict like `columns` to a dict of task name to [rows] or
    [rows, n] numpy array.
  columns: dict of column name to [rows] or [rows, width] numpy array, all that
    the model reads.
  tasks: OrderedDict of task name to Task.
  user: [rows] array of the user of each row, or None.
  aligned: list of lists of names: lists whose items at one place belong
    together.
  crossed: list of lists of names: columns that the model combines.
  about: list of two str: what model it is, and which rows.
"""

Task = collections.namedtuple('Task', 'metric label weight losses')
Task.__doc__ = """What a task has to answer.

Attributes:
  metric: str, 'AUC', or the name of a loss.
  label: [rows] float64.
  weight: [rows] float64, 0 for rows that do not count.
  losses: function of ([n] labels, [n, ...] answers) to [n] losses; None where
    the metric is AUC.
"""


def of_run(args):
  """A run and its rows, by the folder args.model and the flags of runs.

  Raises:
    UserError: if there is no such run or checkpoint, or a file cannot be read.
  """
  loaded = runs.load_folder(args)
  tasks = loaded.model.tasks
  table, targets, user, about = _rows_of_run(args, loaded)
  checkpoint = args.checkpoint or loaded.best_or_last()
  model = loaded.opened(
      lambda features, engine: loaded.model.opened(features, engine).logits,
      checkpoint)
  return Judged(
      model, rows.fed(table, model.inputs), collections.OrderedDict(
          (task.name, Task(
              'AUC' if task.is_binary else task.kind.loss_measure,
              *targets[task.name],
              losses=None if task.is_binary else losses_of(task.kind)))
          for task in tasks), user, *_joined(loaded.model.features),
      about=['Run %s, checkpoint %r of step %d' % (
          loaded.model_dir, checkpoint, model.global_step), about])


def of_export(args):
  """A SavedModel and rows of a file, as `of_run`.

  With --gin_file the run says what the tasks are; without, args.labels does.
  """
  model = answering.of_export(args.model)
  about = 'SavedModel %s of step %d' % (
      answering.folder_of(args.model), model.global_step)
  if args.gin_file:
    loaded = runs.load(args)
    table, targets, user, of_rows = _rows_of_run(args, loaded)
    joined = _joined(loaded.model.features)
    unknown = [name for name in model.outputs if name not in targets]
    errors.check(not unknown, 'The tasks of the SavedModel and the run must '
                 'have the same names: the run has no %s.', ', '.join(unknown))
  else:
    errors.check(args.file and args.labels, 'A SavedModel does not say what '
                 'its labels are: give --gin_file, the run, or FILE and '
                 '--labels, such as --labels ctr=clk,cvr=buy.')
    table, total = rows.of_file(
        args.file, model.inputs, args.rows,
        args.columns.split(',') if args.columns else None)
    targets = _named_targets(table, args, model.outputs)
    user = _users(table, args.user, args.file) if args.user else None
    joined = [], []
    of_rows = runs.rows_in_words(table.num_rows, total, args.file)
  columns = rows.fed(table, model.inputs)
  return Judged(
      model, columns, collections.OrderedDict(
          (name, _served(name, model.outputs[name], *target))
          for name, target in targets.items() if name in model.outputs),
      user, *joined, about=[about, of_rows])


def _rows_of_run(args, loaded):
  """Rows as a run reads them: (table, targets, user, in words)."""
  columns = [column.name for column in loaded.model.features.columns]
  user = args.user or loaded.metrics.user
  errors.check(user is None or user in columns, '--user must name a column of '
               'FeatureSpec.columns (%s), got %r.', ', '.join(columns), user)
  source, name = runs.source_of(args, loaded)
  table, total = rows.read(loaded, source, args.rows, True,
                           [user] if user else [])
  return (table, targets_of(loaded.model, table),
          _users(table, user, name) if user else None,
          runs.rows_in_words(table.num_rows, total, name))


def targets_of(model, table):
  """The labels of rows, and how much each row counts.

  Args:
    model: model.Model.
    table: pa.Table of typed columns, with labels, weights and kept columns.

  Returns:
    dict of task name to ([rows], [rows]) float64.
  """
  spec = model.features
  with tf.Graph().as_default(), tf.Session() as session:
    fed = {name: tf.placeholder(spec[name].dtype, (None,) + spec[name].shape)
           for name in spec.labels + spec.weights + list(model.keep)}
    features = {name: fed[name] for name in spec.weights}
    features.update((column_kinds.RAW + name, fed[name]) for name in model.keep)
    targets = model.targets(features, {name: fed[name] for name in spec.labels})
    found = session.run(
        {task.name: (task.target(targets.labels), targets.weights[task.name])
         for task in model.tasks},
        {fed[name]: values for name, values in rows.fed(table, fed).items()})
  return {name: tuple(np.asarray(of, np.float64) for of in pair)
          for name, pair in found.items()}


def losses_of(kind):
  """The function of labels and logits to the loss of each row.

  Args:
    kind: losses.Loss.
  """
  graph = tf.Graph()
  with graph.as_default():
    labels = tf.placeholder(tf.float32, [None])
    logits = tf.placeholder(tf.float32, [None] if kind.num_logits == 1 else
                            [None, kind.num_logits])
    losses = kind.of_rows(labels, logits)
  return tf.Session(graph=graph).make_callable(losses, [labels, logits])


def _joined(spec):
  """The aligned lists and the crossed columns of a FeatureSpec.

  A column of weights belongs to the lists that have them.
  """
  together = []  # names that are aligned, or lists and their weights
  for column in spec.categories:
    names = list(column.sources) if column.name in column.sources else []
    if column.aligned is not None:
      names += [c.name for c in spec.categories if c.aligned == column.aligned]
    if len(names) > 1:
      near = [of for of in together if set(of) & set(names)]
      together = [of for of in together if of not in near] + [
          list(collections.OrderedDict.fromkeys(sum(near, []) + names))]
  return together, [
      list(column.sources) for column in spec.categories
      if column.name not in column.sources]


def _served(name, output, label, weight):
  """The Task of an output of a SavedModel, which predicts and has no logits."""
  known = label[weight > 0]
  if output.shape.ndims == 2:
    return Task('log loss', label, weight, lambda labels, found: -np.log(
        np.maximum(found[np.arange(len(found)), labels.astype(int)], 1e-38)))
  if set(np.unique(known)) <= {0, 1}:
    return Task('AUC', label, weight, None)
  return Task('squared error', label, weight,
              lambda labels, found: (labels - found) ** 2)


def _named_targets(table, args, outputs):
  """The targets of the tasks that --labels names."""
  pairs, found = pairs_of(args.labels), collections.OrderedDict()
  for task, column in pairs.items():
    errors.check(task in outputs, '--labels must name outputs of the '
                 'SavedModel (%s), got %r.', ', '.join(outputs), task)
    label = _numbers(table, column, args.file)
    weight = (_numbers(table, args.weight, args.file) if args.weight
              else np.ones(len(label)))
    known = ~np.isnan(label)
    found[task] = np.where(known, label, 0), np.where(known, weight, 0)
  return found


def pairs_of(text):
  """Parses 'ctr=clk,cvr=buy' to an OrderedDict of task to column."""
  pairs = collections.OrderedDict()
  for item in text.split(','):
    task, equals, label = item.partition('=')
    errors.check(equals and task and label, '--labels must be pairs of a task '
                 'and the column of its label, such as ctr=clk,cvr=buy, got '
                 '%r.', text)
    pairs[task] = label
  return pairs


def _numbers(table, name, source):
  try:
    return np.array([np.nan if of in ('', None) else of
                     for of in _values(table, name, source)], np.float64)
  except (TypeError, ValueError) as error:
    raise errors.UserError('Column %r of %s must have numbers: %s.' % (
        name, source, error)) from error


def _users(table, name, source):
  """Who the rows are of, [rows] array of text."""
  return np.array([str(of) for of in _values(table, name, source)])


def _values(table, name, source):
  """A column as a list."""
  errors.check(name in table.schema.names, '%s must have the column %r, it has '
               '%s.', source, name, ', '.join(table.schema.names))
  return table.column(name).to_pylist()
