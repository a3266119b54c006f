"""One task: its loss, its metrics and its predictions."""

import collections
import copy
import functools
import math
import operator
import re

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.network import losses
from ple_estimator.network import metrics
from ple_estimator.network import towers

# What adds to the loss of a task how far its probability lies above that of the
# task before it: the name of that task, and a float, see Task.calibrated.
Calibrator = collections.namedtuple('Calibrator', 'before weight')

_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_-]*\Z')


@gin.register
class Task:
  """A task of the model, on one label column.

  Follows Tang et al., RecSys 2020, section 4.3. Tasks may have different sample
  spaces: the loss of task k is the mean over the rows i of its space,
  sum_i delta_k(i) loss_k(i) / sum_i delta_k(i) (eq. 8). The weight of task k in
  the total loss changes with the step t (eq. 9): w_k(t) = w_k(0) * gamma_k^t.

  Attributes:
    name: str.
    label: str, the name of its label column; None of a ProductTask.
    tower: towers.Tower or None.
    kind: losses.Loss.
    is_binary: bool, as of its loss.
    sample_space: (column, value) or None.
    weight_column: str or None.
    has_initial_bias: bool, whether the first step sets the bias of its logit.
    positive_weight: float, how many times a row of label 1 counts in training.
    negative_rate: float, the share of rows of label 0 that training has.
    of: tuple of str, the tasks that a ProductTask multiplies; else empty.
    calibrator: Calibrator, or None.
  """

  of = ()
  calibrator = None

  def __init__(self,
               name=gin.REQUIRED,
               label=gin.REQUIRED,
               tower=None,
               loss='binary',
               weight=1.0,
               gamma=1.0,
               sample_space=None,
               initial_bias='labels',
               label_smoothing=0.0,
               weight_column=None,
               positive_weight=1.0,
               negative_rate=1.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      name: str, names the task's variables, metrics and predictions.
      label: str, the name of a column of kind label.
      tower: towers.Tower; None where Model.network is None.
      loss: 'binary', the cross entropy of a label that is 0 or 1, with a
        probability as prediction; 'regression', the squared error; 'poisson'
        for counts; 'lognormal' for positive times and amounts; or an object:
        @Tweedie() for amounts that are often 0, @MultiClass() for classes, or a
        subclass of losses.Loss of your own.
      weight: float, w(0), the weight of the task in the total loss.
      gamma: float, positive, the factor by which the weight changes each step.
      sample_space: (column, value): only rows where the column has that value
        count in loss and metrics; None counts all rows. Outside of it the label
        may be missing.
      initial_bias: what the bias of the logit starts from: 'labels', what suits
        the labels of the first batch (for a binary task their log odds, for a
        regression their mean), so that the first predictions are of the right
        size; or a float.
      label_smoothing: float s in [0, 0.5): training has (1 - s) y + s / 2 in
        the place of a binary label y, which is label smoothing over two classes
        (Szegedy et al., CVPR 2016, section 7). Metrics, and the loss of an
        evaluation, go by y.
      weight_column: str, the name of a column of kind weight that only tasks
        which name it have, in loss and metrics; times the weight that all tasks
        have, if there is a column of kind weight that no task names.
      positive_weight: float, the rows of label 1 count so many times in the
        loss of training, and not in evaluations. The predictions are then so
        many times higher odds.
      negative_rate: float w in (0, 1]: training leaves out rows of label 0 but
        for this share of them, the same ones in each epoch. Predictions and
        metrics are corrected for it: p becomes p / (p + (1 - p) / w) (He et
        al., ADKDD 2014, section 6.3), which adds log(w) to the logit. Rows that
        another task needs are read, and have no weight in this one.

    Raises:
      UserError: if a value is out of range.
    """
    _check_common('Task', name, weight, gamma, sample_space)
    errors.check_text('Task.label', label)
    errors.check_is_a('Task.tower', tower, towers.Tower, '@Tower()',
                      own=('mlp', 'net'), or_none=True)
    self.kind = losses.of('Task.loss', loss)
    if initial_bias != 'labels':
      errors.check(errors.is_number(initial_bias), "Task.initial_bias must be "
                   "'labels' or a finite number, got %s.",
                   errors.written(initial_bias))
      errors.check(
          self.kind.num_logits == 1 or not initial_bias, 'Task.initial_bias '
          "must be 'labels' or 0 for a loss with %d logits, got %r in task %s.",
          self.kind.num_logits, initial_bias, name)
    errors.check_number('Task.label_smoothing', label_smoothing, least=0,
                        below=0.5)
    self.is_binary = self.kind.is_binary
    _check_binary(self.is_binary, name, 'label_smoothing', label_smoothing, 0)
    errors.check_text('Task.weight_column', weight_column, or_none=True)
    errors.check_number('Task.positive_weight', positive_weight, above=0)
    _check_binary(self.is_binary, name, 'positive_weight', positive_weight, 1)
    errors.check_number('Task.negative_rate', negative_rate, above=0, most=1)
    _check_binary(self.is_binary, name, 'negative_rate', negative_rate, 1)
    self.name = name
    self.label = label
    self.has_initial_bias = initial_bias != 0
    self._initial_bias = initial_bias
    self.sample_space = sample_space
    self.tower = tower
    self._weight = weight
    self._gamma = gamma
    self._smoothing = label_smoothing
    self.weight_column = weight_column
    self.positive_weight = positive_weight
    self.negative_rate = negative_rate

  def target(self, labels):
    """Returns the label of the task, [batch] float32.

    Args:
      labels: dict of column name to [batch] float32.
    """
    return labels[self.label]

  def predictions(self, logits):
    """Returns what the task predicts, [batch] or [batch, n] float32."""
    return self.kind.predictions(logits)

  def initial_bias(self, labels, weights):
    """What the bias of the logit starts from, see losses.Loss.first_bias.

    Args:
      labels: [batch] float32, of the first batch.
      weights: [batch] float32, 0 outside of the sample space.

    Returns:
      float32 scalar, or [num_logits].
    """
    if self._initial_bias != 'labels':
      count = self.kind.num_logits
      return tf.constant(self._initial_bias, tf.float32,
                         [count] if count > 1 else [])
    return self.kind.first_bias(labels, weights)

  def smoothed(self, labels):
    """Returns what training has in the place of labels, [batch] float32."""
    s = self._smoothing
    return (1 - s) * labels + s / 2 if s else labels

  def training_weights(self, labels, weights, chance=None):
    """Returns what training has in the place of weights, [batch] float32.

    Args:
      labels: [batch] float32.
      weights: [batch] float32.
      chance: [batch] float32, of the rows, see data/sampling.py; None if no
        task leaves out rows.
    """
    if self.negative_rate < 1:
      counts = tf.logical_or(labels > 0, chance < self.negative_rate)
      weights *= tf.cast(counts, tf.float32)
    by_class = self.kind.row_weights(labels)
    if by_class is not None:
      weights *= by_class
    if self.positive_weight == 1:
      return weights
    return weights * (1 + (self.positive_weight - 1) * labels)

  def corrected(self, logits):
    """Returns logits as they are without the sampling of training."""
    if self.negative_rate == 1:
      return logits
    return logits + math.log(self.negative_rate)

  def loss(self, labels, logits, weights, total_weight=None):
    """The mean loss over the sample space of the task.

    Args:
      labels: [batch] float32.
      logits: [batch] or [batch, num_logits] float32.
      weights: [batch] float32, 0 outside of the sample space.
      total_weight: float32 scalar, the number that the weighted sum of losses
        is divided by. For a slice of a batch it is the sum of the weights of
        the batch, so that the losses of all slices sum to that of the batch.
        None is the sum of `weights`.

    Returns:
      float32 scalar; 0 for a batch without a row of the sample space.
    """
    if total_weight is None:
      total_weight = tf.reduce_sum(weights)
    return tf.div_no_nan(tf.reduce_sum(
        weights * self.kind.of_rows(labels, logits)), total_weight)

  def calibrated(self, before, weight):
    """Returns the same task with a behavioural expectation calibrator.

    What follows an event cannot be more likely than the event. So the loss of
    training has the term L_lc of Xi et al., KDD 2021, in which p is the
    probability of this task and q that of the one before it:

      weight * sum_i delta(i) max(p(i) - q(i), 0) / sum_i delta(i)

    It is part of the loss of this task, so Task.weight multiplies it too. Its
    gradient moves both probabilities.

    Args:
      before: Task.
      weight: float.

    Raises:
      UserError: if one of the probabilities is not that of all rows.
    """
    for task in (before, self):
      errors.check(
          task.is_binary and not task.sample_space and
          task.negative_rate == task.positive_weight == 1,
          'AIT.calibrator_weight must be 0 where the probability of a task of '
          'AIT.order is not that of all rows, as in task %s: it must be '
          'binary, without sample_space, negative_rate and positive_weight.',
          task.name)
    found = copy.copy(self)
    found.calibrator = Calibrator(before.name, weight)
    return found

  def excess(self, logits, weights, total_weight=None):
    """The term that `calibrated` adds to the loss of training.

    Only a task with a calibrator has it.

    Args:
      logits: dict of task name to [batch] float32.
      weights: [batch] float32, as in `loss`.
      total_weight: float32 scalar, as in `loss`.

    Returns:
      float32 scalar.
    """
    if total_weight is None:
      total_weight = tf.reduce_sum(weights)
    above = tf.nn.relu(tf.sigmoid(logits[self.name]) -
                       tf.sigmoid(logits[self.calibrator.before]))
    return self.calibrator.weight * tf.div_no_nan(
        tf.reduce_sum(weights * above), total_weight)

  def loss_metric(self, labels, logits, weights):
    """The mean loss over all rows that are evaluated, 0 without any.

    Args:
      labels: [batch] float32.
      logits: [batch] or [batch, num_logits] float32.
      weights: [batch] float32, 0 outside of the sample space.

    Returns:
      (value, update_op): float32 scalar, and an operation.
    """
    return metrics.mean(self.kind.of_rows(labels, logits), weights, of_none=0)

  def loss_weight(self, step):
    """Returns the weight w_k(t) in the total loss, a float32 scalar.

    Args:
      step: int64 scalar, the global step t.
    """
    if self._gamma == 1:
      return tf.constant(self._weight, tf.float32)
    return self._weight * tf.pow(self._gamma, tf.cast(step, tf.float32))

  def metrics(self, labels, logits, weights):
    """Returns dict of metric name to (value, update_op).

    Args:
      labels: [batch] float32.
      logits: [batch] or [batch, num_logits] float32.
      weights: [batch] float32, 0 outside of the sample space.
    """
    return {'%s/%s' % (self.name, key): value for key, value in
            self.kind.metrics(labels, logits, weights).items()}


@gin.register
class ProductTask(Task):
  """A task whose probability is the product of those of other tasks.

  The loss over the entire space of ESMM (Ma et al., "Entire Space Multi-Task
  Model: An Effective Approach for Estimating Post-Click Conversion Rate",
  SIGIR 2018, section 2.3): pCTCVR = pCTR x pCVR, with the label click x
  conversion on all rows. So the task of the conversion is trained by all rows,
  without the bias of those that were clicked. Bind Task.weight = 0 for it to
  train it by the product alone, as the paper does, and its sample space for
  metrics among clicked rows.

  The label is the product of the labels of the tasks, so there is no column for
  it. The label of a task may be missing where that of the task before it is
  not 1. The task has no tower and adds no variables. For logits a and b its
  logit is -log(exp(-a) + exp(-b) + exp(-a - b)), the log odds of the product.
  """

  def __init__(self, name=gin.REQUIRED, of=gin.REQUIRED, weight=1.0, gamma=1.0,
               sample_space=None, weight_column=None):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      name: str, names the metrics and predictions of the task.
      of: list of at least two binary tasks.Task of Model.tasks, in the order in
        which one thing follows the other: [@ctr/Task(), @cvr/Task()].
      weight: float, as Task.
      gamma: float, as Task.
      sample_space: (column, value) or None, as Task.
      weight_column: str, as Task.

    Raises:
      UserError: if a value is out of range.
    """
    _check_common('ProductTask', name, weight, gamma, sample_space)
    errors.check_list(
        'ProductTask.of', of,
        lambda task: isinstance(task, Task) and task.is_binary and not task.of,
        'binary tasks, such as [@ctr/Task(), @cvr/Task()]')
    self.of = tuple(task.name for task in of)
    errors.check(
        len(set(self.of)) == len(self.of) > 1, 'ProductTask.of must be at '
        'least two different tasks, got %s.', ', '.join(self.of))
    errors.check_text('ProductTask.weight_column', weight_column, or_none=True)
    self.labels = tuple(task.label for task in of)
    self.label = self.tower = None
    self.name = name
    self.kind = losses.Binary()
    self.is_binary = True
    self.has_initial_bias = False
    self.sample_space = sample_space
    self.weight_column = weight_column
    self._weight = weight
    self._gamma = gamma
    self._smoothing = 0.0
    self.positive_weight = self.negative_rate = 1.0

  def target(self, labels):
    return functools.reduce(
        operator.mul, [labels[label] for label in self.labels])

  def logits(self, by_task):
    """Returns the log odds of the product, [batch] float32.

    Args:
      by_task: dict of task name to [batch] float32, logits.
    """
    odds = by_task[self.of[0]]
    for name in self.of[1:]:
      a, b = -odds, -by_task[name]
      odds = -tf.reduce_logsumexp(tf.stack([a, b, a + b]), axis=0)
    return odds


def with_products(tasks, logits, training=False):
  """Adds the logits of each ProductTask to those of the others.

  Args:
    tasks: list of Task.
    logits: dict of task name to [batch] or [batch, num_logits] float32, of the
      tasks that have logits of their own.
    training: bool, whether the loss of a task is that of the rows that its
      negative_rate leaves, so that its own logits are not corrected. Those of a
      product always are, since it counts all rows.

  Returns:
    the same with the logits of all tasks.
  """
  corrected = {task.name: task.corrected(logits[task.name])
               for task in tasks if not task.of}
  return dict(logits if training else corrected, **{
      task.name: task.logits(corrected) for task in tasks if task.of})


def _check_common(owner, name, weight, gamma, sample_space):
  """Checks what tasks of all classes have; owner is the name of the class."""
  errors.check(isinstance(name, str) and _NAME.match(name),
               '%s.name must be letters, digits, - and _, got %s.', owner,
               errors.written(name))
  errors.check(name != 'shared', "%s.name must not be 'shared', the name of "
               'the experts that all tasks see.', owner)
  errors.check_number(owner + '.weight', weight, least=0)
  errors.check_number(owner + '.gamma', gamma, above=0)
  errors.check(
      sample_space is None or
      isinstance(sample_space, (list, tuple)) and len(sample_space) == 2 and
      isinstance(sample_space[0], str),
      '%s.sample_space must be a pair (column, value) or None, got %s.', owner,
      errors.written(sample_space))


def _check_binary(is_binary, task, parameter, value, neutral):
  """Raises UserError for what only a binary task has, if it is not neutral."""
  errors.check(
      is_binary or value == neutral, 'Task.%s must be %r for a loss that is '
      'not binary, got %r in task %s.', parameter, neutral, value, task)
