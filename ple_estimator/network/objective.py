"""The losses and metrics of all tasks of a model together.

`tasks` in this module is a list of tasks.Task.
"""

import collections

import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.network import gate_pictures
from ple_estimator.network import metrics as metrics_lib


class Targets(collections.namedtuple('Targets', 'labels weights totals')):
  """Labels and row weights of a batch or of a slice of one.

  Attributes:
    labels: dict of column name to [batch] float32.
    weights: dict of task name to [batch] float32, see `row_weights`.
    totals: dict of task name to the float32 scalar that the weighted sum of
      losses is divided by: for a slice, the sum of the weights of the whole
      batch. None is the sum of `weights`.
  """

  __slots__ = ()

  def __new__(cls, labels, weights, totals=None):
    return super().__new__(cls, labels, weights, totals)


def known(labels):
  """Gives labels that a row does not have the value 0.

  No task counts such a row, see column_kinds.Label; but its NaN times a weight
  of 0 would be NaN.

  Args:
    labels: dict of column name to [batch] float32.

  Returns:
    the same without NaN.
  """
  return {name: tf.where(tf.is_nan(label), tf.zeros_like(label), label)
          for name, label in labels.items()}


def row_weights(tasks, weights, columns, own=None):
  """Weighs the rows of a batch for each task.

  Args:
    tasks: list of tasks.Task.
    weights: [batch] float32, the weight that each row has for all tasks.
    columns: dict of column name to [batch] tensor, as the file has it; among
      them the columns of all sample spaces.
    own: dict of column name to [batch] float32, the weights that tasks have by
      their weight_column.

  Returns:
    dict of task name to [batch] float32, which is 0 for rows outside of the
    sample space of the task.
  """
  by_task = {}
  for task in tasks:
    by_task[task.name] = weights * own[
        task.weight_column] if task.weight_column else weights
    if task.sample_space:
      name, value = task.sample_space
      column = columns[name]
      if column.dtype == tf.string:
        value = str(value)
      inside = tf.equal(column, tf.constant(value, column.dtype))
      by_task[task.name] *= tf.cast(inside, tf.float32)
  return by_task


def in_training(tasks, targets, chance=None):
  """Returns Targets with the weights of rows that training has.

  Args:
    tasks: list of tasks.Task.
    targets: Targets.
    chance: [batch] float32, see Task.training_weights; or None.

  Raises:
    UserError: if a task leaves out rows, and there is no chance.
  """
  errors.check(
      chance is not None or all(task.negative_rate == 1 for task in tasks),
      'Task.negative_rate must be 1.0 for an input that does not read by '
      'Model.training_reading.')
  return targets._replace(weights={
      task.name: task.training_weights(
          task.target(targets.labels), targets.weights[task.name], chance)
      for task in tasks})


def losses(tasks, targets, logits, training=False):
  """Computes the loss of each task.

  Args:
    tasks: list of tasks.Task.
    targets: Targets.
    logits: dict of task name to [batch] or [batch, num_logits] float32.
    training: bool, whether the labels are smoothed, see Task.label_smoothing,
      and what lies above the task before is added, see Task.calibrated.

  Returns:
    dict of task name to float32 scalar, not yet weighted; see Task.loss.
  """
  def of(task):
    labels = task.target(targets.labels)
    weights = targets.weights[task.name]
    total_weight = targets.totals and targets.totals[task.name]
    if not training:
      return task.loss(labels, logits[task.name], weights, total_weight)
    found = task.loss(
        task.smoothed(labels), logits[task.name], weights, total_weight)
    return found + task.excess(
        logits, weights, total_weight) if task.calibrator else found

  return {task.name: of(task) for task in tasks}


def first_biases(tasks, targets, kept=()):
  """What the first step of a training adds to the logits of each task.

  Args:
    tasks: list of tasks.Task.
    targets: Targets of the batch.
    kept: names of tasks whose bias has a value before the first step.

  Returns:
    dict of task name to float32, a scalar or [num_logits]: Task.initial_bias in
    the first step, 0 in all others; of tasks that have a logit of their own.
  """
  is_first = _is_first()
  found = {}
  for task in [task for task in tasks if not task.of]:
    none = tf.zeros([task.kind.num_logits] if task.kind.num_logits > 1 else [])
    found[task.name] = none if task.name in kept else tf.where(
        is_first, task.initial_bias(
            task.target(targets.labels), targets.weights[task.name]), none)
  return found


def start_biases(first, biases, after):
  """Makes what the first step has added to the logits their biases.

  Of several workers that all take the first step, the last one's is kept.

  Args:
    first: dict of task name to float32, from `first_biases`.
    biases: dict of task name to a [num_logits] variable, and the number that
      it is multiplied by to give the bias.
    after: tensors that are to be evaluated before, since they read the biases.
  """
  with tf.control_dependencies(list(after)):
    for name, (bias, scale) in biases.items():
      # No assignment in later steps: it could undo what another worker does.
      tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.cond(
          _is_first(), lambda b=bias, start=first[name] / scale: tf.group(
              b.assign(tf.reshape(start, b.shape), read_value=False)),
          tf.no_op))


def _is_first():
  return tf.equal(tf.train.get_or_create_global_step().read_value(), 0)


def total(tasks, by_task, terms=None):
  """Sums up the loss that is trained: weighted losses and penalties.

  Names the losses '<task>/loss' and 'total_loss', which hooks.ProgressHook
  reads, and all of them, the total at the end, 'all_losses', which
  losses.LossesHook reads.

  Args:
    tasks: list of tasks.Task.
    by_task: dict of task name to float32 scalar, from `losses`.
    terms: list of float32 scalars whose sum has the place of that of the
      weighted losses, see batch.Balanced; None are the weighted losses.

  Returns:
    float32 scalar.
  """
  with tf.name_scope(None):
    for name, loss in by_task.items():
      tf.identity(loss, '%s/loss' % name)
  loss = _total(terms or _weighted(tasks, by_task), name='total_loss')
  with tf.name_scope(None):
    tf.stack([by_task[task.name] for task in tasks] + [loss],
             name='all_losses')
  return loss


def _weighted(tasks, by_task):
  step = tf.train.get_or_create_global_step()
  return [task.loss_weight(step) * by_task[task.name] for task in tasks]


def _total(terms, name):
  return tf.add_n(terms + tf.get_collection(
      tf.GraphKeys.REGULARIZATION_LOSSES), name=name)


def name_weights(tasks, targets):
  """Names the sums of the weights of a batch, [tasks] float32, 'all_weights'.

  Args:
    tasks: list of tasks.Task.
    targets: Targets.
  """
  sums = {id(weights): tf.reduce_sum(weights)  # most tasks share their weights
          for weights in targets.weights.values()}
  with tf.name_scope(None):
    tf.stack([sums[id(targets.weights[task.name])] for task in tasks],
             name='all_weights')


def loss_metric(tasks, targets, logits):
  """The total loss of all rows that are evaluated, whatever their batches are.

  Each task's part is its mean over its rows, as if all were one batch; it is 0
  for a task without a row. A mean of the losses of batches would weigh a last
  batch of few rows as much as a full one.

  Args:
    tasks: list of tasks.Task.
    targets: Targets.
    logits: dict of task name to [batch] or [batch, num_logits] float32.

  Returns:
    (value, update_op): float32 scalar, and an operation.
  """
  means = {task.name: task.loss_metric(
      task.target(targets.labels), logits[task.name],
      targets.weights[task.name]) for task in tasks}
  value = _total(_weighted(
      tasks, {name: of[0] for name, of in means.items()}), name='loss_metric')
  return value, tf.group(*[of[1] for of in means.values()])


def metrics(tasks, targets, logits, gates):
  """Collects the metrics of all tasks and the mean weight of each expert.

  Args:
    tasks: list of tasks.Task.
    targets: Targets.
    logits: dict of task name to [batch] or [batch, num_logits] float32.
    gates: dict of gate name to a dict of expert name to [batch] float32.

  Returns:
    dict of metric name to (value, update_op).
  """
  by_name = {}
  for task in tasks:
    by_name.update(task.metrics(
        task.target(targets.labels), logits[task.name],
        targets.weights[task.name]))
  by_name.update(metrics_lib.means(collections.OrderedDict(
      ('gate/%s/%s' % (gate, expert), share)
      for gate, shares in gates.items() for expert, share in shares.items())))
  return by_name


def evaluated(tasks, targets, logits):
  """What evaluations keep of each row, see training/evaluated_rows.py.

  Args:
    tasks: list of tasks.Task.
    targets: Targets.
    logits: dict of task name to [batch] or [batch, num_logits] float32.

  Returns:
    dict of '<task>/label', '<task>/prediction' and '<task>/weight' to [batch]
    float32; the prediction of a task with several classes is [batch, n].
  """
  by_name = collections.OrderedDict()
  for task in tasks:
    by_name[task.name + '/label'] = task.target(targets.labels)
    by_name[task.name + '/prediction'] = task.predictions(logits[task.name])
    by_name[task.name + '/weight'] = targets.weights[task.name]
  return by_name


def summarize(tasks, by_task, gates):
  """Shows the losses and gates of training in TensorBoard.

  A loss has the name of the metric of evaluations that it is, so that one chart
  shows both; see Loss.loss_measure.

  Args:
    tasks: list of tasks.Task.
    by_task: dict of task name to float32 scalar.
    gates: dict of gate name to a dict of expert name to float32 scalar.
  """
  for task in tasks:
    # tf.summary.scalar would take the name '<task>/loss' of the tensor itself.
    tf.add_to_collection(tf.GraphKeys.SUMMARIES, tf.raw_ops.ScalarSummary(
        tags='%s/%s' % (task.name, task.kind.loss_measure),
        values=by_task[task.name]))
  gate_pictures.show(gates)
