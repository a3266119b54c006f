"""One task: its loss, its metrics and its predictions."""

import re

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.network import metrics
from ple_estimator.network import towers

_LOSSES = ('binary', 'regression')
_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_-]*\Z')


@gin.register
class Task:
  """A task of the model, on one label column.

  Follows Tang et al., RecSys 2020, section 4.3. Tasks may have different sample
  spaces: the loss of task k is the mean over the rows i of its space,
  sum_i delta_k(i) loss_k(i) / sum_i delta_k(i) (eq. 8). The weight of task k in
  the total loss changes with the step t (eq. 9): w_k(t) = w_k(0) * gamma_k^t.
  """

  def __init__(self,
               name=gin.REQUIRED,
               label=gin.REQUIRED,
               tower=None,
               loss='binary',
               weight=1.0,
               gamma=1.0,
               sample_space=None,
               initial_bias='labels',
               label_smoothing=0.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      name: str, names the task's variables, metrics and predictions.
      label: str, the name of a column of kind label.
      tower: towers.Tower; None where Model.network is None.
      loss: 'binary', the cross entropy of a label that is 0 or 1, with a
        probability as prediction; or 'regression', the squared error.
      weight: float, w(0), the weight of the task in the total loss.
      gamma: float, positive, the factor by which the weight changes each step.
      sample_space: (column, value): only rows where the column has that value
        count in loss and metrics; None counts all rows.
      initial_bias: what the bias of the logit starts from: 'labels', the mean
        of the labels of the first batch (for a binary task its log odds), so
        that the first predictions are of the right size; or a float.
      label_smoothing: float s in [0, 0.5): training has (1 - s) y + s / 2 in
        the place of a binary label y, which is label smoothing over two classes
        (Szegedy et al., CVPR 2016, section 7). Metrics, and the loss of an
        evaluation, go by y.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check(isinstance(name, str) and _NAME.match(name),
                 'Task.name must be letters, digits, - and _, got %s.',
                 errors.written(name))
    errors.check(name != 'shared',
                 "Task.name must not be 'shared', the name of the experts "
                 'that all tasks see.')
    errors.check_text('Task.label', label)
    errors.check_is_a('Task.tower', tower, towers.Tower, '@Tower()',
                      own=('mlp', 'net'), or_none=True)
    errors.check_choice('Task.loss', loss, _LOSSES)
    errors.check_number('Task.weight', weight, least=0)
    errors.check_number('Task.gamma', gamma, above=0)
    errors.check(
        sample_space is None or
        isinstance(sample_space, (list, tuple)) and len(sample_space) == 2 and
        isinstance(sample_space[0], str),
        'Task.sample_space must be a pair (column, value) or None, got %s.',
        errors.written(sample_space))
    if initial_bias != 'labels':
      errors.check(errors.is_number(initial_bias), "Task.initial_bias must be "
                   "'labels' or a finite number, got %s.",
                   errors.written(initial_bias))
    errors.check_number('Task.label_smoothing', label_smoothing, least=0,
                        below=0.5)
    errors.check(loss == 'binary' or not label_smoothing,
                 'Task.label_smoothing must be 0 for a regression, got %r in '
                 'task %s.', label_smoothing, name)
    self.name = name
    self.label = label
    self.has_initial_bias = initial_bias != 0
    self._initial_bias = initial_bias
    self.sample_space = sample_space
    self.is_binary = loss == 'binary'
    self.tower = tower
    self._weight = weight
    self._gamma = gamma
    self._smoothing = label_smoothing

  def predictions(self, logits):
    """Returns [batch] float32: probabilities, or a regression's logits."""
    return tf.sigmoid(logits) if self.is_binary else logits

  def initial_bias(self, labels, weights):
    """What the bias of the logit starts from.

    A network whose bias has to learn the rate of a rare label is far off for
    hundreds of steps. Lin et al., "Focal Loss for Dense Object Detection", ICCV
    2017, section 3.3, start it from a prior; here it is that of a batch.

    Args:
      labels: [batch] float32, of the first batch.
      weights: [batch] float32, 0 outside of the sample space.

    Returns:
      float32 scalar.
    """
    if self._initial_bias != 'labels':
      return tf.constant(self._initial_bias, tf.float32)
    positive = tf.reduce_sum(weights * labels)
    total = tf.reduce_sum(weights)
    if not self.is_binary:
      return tf.div_no_nan(positive, total)
    # As if half a row more had either label, for a batch without one of them.
    half = 0.5 * tf.div_no_nan(total, tf.cast(tf.size(labels), tf.float32))
    odds = tf.div_no_nan(positive + half, total - positive + half)
    return tf.where(odds > 0, tf.log(odds), tf.zeros_like(odds))

  def smoothed(self, labels):
    """Returns what training has in the place of labels, [batch] float32."""
    s = self._smoothing
    return (1 - s) * labels + s / 2 if s else labels

  def loss(self, labels, logits, weights, total_weight=None):
    """The mean loss over the sample space of the task.

    Args:
      labels: [batch] float32.
      logits: [batch] float32.
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
    return tf.div_no_nan(
        tf.reduce_sum(weights * self._losses(labels, logits)), total_weight)

  def loss_metric(self, labels, logits, weights):
    """The mean loss over all rows that are evaluated, 0 without any.

    Args:
      labels: [batch] float32.
      logits: [batch] float32.
      weights: [batch] float32, 0 outside of the sample space.

    Returns:
      (value, update_op): float32 scalar, and an operation.
    """
    return metrics.mean(self._losses(labels, logits), weights, of_none=0)

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
      logits: [batch] float32.
      weights: [batch] float32, 0 outside of the sample space.
    """
    predictions = self.predictions(logits)
    error = predictions - labels
    if not self.is_binary:
      by_name = {
          'rmse': metrics.root(metrics.mean(tf.square(error), weights)),
          'mae': metrics.mean(tf.abs(error), weights),
      }
    else:
      hit = tf.equal(predictions > 0.5, labels > 0.5)
      by_name = {
          'auc': metrics.auc(labels, logits, weights),
          'log_loss': metrics.mean(self._losses(labels, logits), weights),
          'accuracy': metrics.mean(tf.cast(hit, tf.float32), weights),
      }
    by_name['calibration'] = metrics.ratio(
        predictions * weights, labels * weights)
    by_name['label/mean'] = metrics.mean(labels, weights)
    by_name['prediction/mean'] = metrics.mean(predictions, weights)
    return {'%s/%s' % (self.name, key): value for key, value in by_name.items()}

  def _losses(self, labels, logits):
    if self.is_binary:
      return tf.nn.sigmoid_cross_entropy_with_logits(
          labels=labels, logits=logits)
    return tf.square(logits - labels)
