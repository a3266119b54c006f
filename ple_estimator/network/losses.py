"""The losses of tasks: what logits mean, and how far they are from a label.

A loss is bound by its name or, where it has parameters, as an object:

  Task.loss = 'poisson'
  Task.loss = @Tweedie()

A loss of your own is a subclass of Loss, registered in gin.
"""

import collections

import gin
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.network import metrics

_TINY = float(np.finfo(np.float32).tiny)
_LOG_2_PI = float(np.log(2 * np.pi))


class Loss:
  """The base class; a subclass defines `predictions` and `of_rows`.

  Logits are [batch] float32 where num_logits is 1, else [batch, num_logits].

  Attributes:
    num_logits: int, how many numbers the network gives for a row.
    num_predictions: int, how many numbers are predicted for a row.
    is_binary: bool, whether labels are 0 or 1 and there is one logit, the log
      odds of 1.
    measures: tuple of str, the metrics that evaluations are compared by, each
      one of MEASURES.
    loss_measure: str, the name that the loss has in TensorBoard: that of the
      measure that it is the mean of rows of, else 'loss'.
    least_label: float, labels of rows that count have to be at least this; None
      is no bound.
    may_be_negative: bool, whether the loss of a good prediction may be below 0,
      as the negative log likelihood of a density is.
  """

  num_logits = 1
  num_predictions = 1
  is_binary = False
  measures = ('rmse', 'mae')
  loss_measure = 'loss'
  least_label = None
  may_be_negative = False

  def check_label(self, task, label, values):
    """Raises UserError unless a label column suits the loss.

    Of a column of several numbers, each row is looked at when it is read.

    Args:
      task: str, the name of the task.
      label: str, the name of the column.
      values: the numbers that it holds, or None if that can be any.
    """
    errors.check(
        self.least_label is None or values is None or
        max(values) >= self.least_label, 'The label %r of task %s must be %s '
        "for its Task.loss, got 'values' %s.", label, task,
        'above 0' if self.least_label else 'at least 0',
        errors.written(values))

  def predictions(self, logits):
    """What a task predicts: [batch] or [batch, n] float32."""
    raise NotImplementedError

  def of_rows(self, labels, logits):
    """The loss of each row, [batch] float32.

    Args:
      labels: [batch] float32.
      logits: [batch] or [batch, num_logits] float32.
    """
    raise NotImplementedError

  def row_weights(self, labels):
    """What training multiplies the weights of rows by, besides Task.

    Args:
      labels: [batch] float32.

    Returns:
      [batch] float32, or None for 1.
    """
    del labels

  def first_bias(self, labels, weights):
    """What the bias of the logits starts from, given the first batch.

    Args:
      labels: [batch] float32.
      weights: [batch] float32, 0 for rows that do not count.

    Returns:
      float32, a scalar or [num_logits]; 0 where no row counts.
    """
    return _mean(labels, weights)

  def metrics(self, labels, logits, weights):
    """Returns dict of metric name, without that of the task, to a metric.

    Args:
      labels: [batch] float32.
      logits: as `of_rows`.
      weights: [batch] float32.

    Returns:
      dict of str to (value, update_op), see metrics.py.
    """
    predictions = self.predictions(logits)
    error = predictions - labels
    return dict({
        'rmse': metrics.root(metrics.mean(tf.square(error), weights)),
        'mae': metrics.mean(tf.abs(error), weights),
    }, **_means(labels, predictions, weights))


class Binary(Loss):
  """The cross entropy of a label that is 0 or 1.

  The prediction is the probability p = sigmoid(logit) of 1; the loss of a row
  is -y log(p) - (1 - y) log(1 - p).
  """

  is_binary = True
  measures = ('auc', 'log_loss', 'accuracy')
  loss_measure = 'log_loss'

  def check_label(self, task, label, values):
    errors.check(
        values and set(values) <= {0, 1},
        "The label %r of the binary task %s must be 0 or 1: add 'values': "
        '(0, 1) to its column, or set Task.loss.', label, task)

  def predictions(self, logits):
    return tf.sigmoid(logits)

  def of_rows(self, labels, logits):
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)

  def first_bias(self, labels, weights):
    """As Loss: the log odds of the labels.

    A network whose bias has to learn the rate of a rare label is far off for
    hundreds of steps. Lin et al., "Focal Loss for Dense Object Detection", ICCV
    2017, section 3.3, start it from a prior; here it is that of a batch.
    """
    positive = tf.reduce_sum(weights * labels)
    total = tf.reduce_sum(weights)
    # As if half a row more had either label, for a batch without one of them.
    half = 0.5 * tf.div_no_nan(total, tf.cast(tf.size(labels), tf.float32))
    odds = tf.div_no_nan(positive + half, total - positive + half)
    return tf.where(odds > 0, tf.log(odds), tf.zeros_like(odds))

  def metrics(self, labels, logits, weights):
    predictions = self.predictions(logits)
    hit = tf.equal(predictions > 0.5, labels > 0.5)
    return dict({
        'auc': metrics.auc(labels, logits, weights),
        'log_loss': metrics.mean(self.of_rows(labels, logits), weights),
        'accuracy': metrics.mean(tf.cast(hit, tf.float32), weights),
    }, **_means(labels, predictions, weights))


class SquaredError(Loss):
  """The squared error (logit - y)^2; the prediction is the logit."""

  def predictions(self, logits):
    return logits

  def of_rows(self, labels, logits):
    return tf.square(logits - labels)


class _LogLink(Loss):
  """Base class of losses whose prediction is m = exp(logit)."""

  measures = ('deviance', 'rmse', 'mae')
  least_label = 0.0

  def predictions(self, logits):
    return tf.exp(logits)

  def first_bias(self, labels, weights):
    """As Loss: the logarithm of the mean label."""
    mean = _mean(labels, weights)
    return tf.where(mean > 0, tf.log(tf.maximum(mean, _TINY)),
                    tf.zeros_like(mean))

  def deviance(self, labels, logits):
    """Twice the loss less that of a perfect prediction, [batch] float32."""
    raise NotImplementedError

  def metrics(self, labels, logits, weights):
    return dict(super().metrics(labels, logits, weights), deviance=metrics.mean(
        self.deviance(labels, logits), weights))


class Poisson(_LogLink):
  """The likelihood of counts: of a Poisson distribution with mean m.

  The prediction is m = exp(z) for the logit z, and the loss of a row is the
  negative log likelihood without the term log(y!), which no weight changes:
  m - y z (McCullagh and Nelder, "Generalized Linear Models", 1989, chapter 6).
  The metric deviance is the mean of 2 (y log(y / m) - y + m).
  """

  may_be_negative = True

  def of_rows(self, labels, logits):
    return tf.exp(logits) - labels * logits

  def deviance(self, labels, logits):
    log_label = tf.log(tf.maximum(labels, _TINY))  # times y, 0 where y is 0
    return 2 * (labels * (log_label - logits) - labels + tf.exp(logits))


@gin.register
class Tweedie(_LogLink):
  """The likelihood of amounts that are often 0: a compound Poisson-gamma.

  For instance the money that is spent, most of the time none. The prediction is
  m = exp(z) for the logit z; the variance grows as m^p. The loss of a row is
  the negative log likelihood without the terms that no weight changes
  (Joergensen, "The Theory of Dispersion Models", 1997, chapter 4):

    -y m^(1 - p) / (1 - p) + m^(2 - p) / (2 - p)

  The metric deviance is the mean of twice the sum of this and
  y^(2 - p) / ((1 - p) (2 - p)).
  """

  def __init__(self, power=1.5):
    """Checks and stores the power.

    Args:
      power: float p in (1, 2): near 1 counts, near 2 amounts that are seldom 0.

    Raises:
      UserError: if it is out of range.
    """
    errors.check_number('Tweedie.power', power, above=1, below=2)
    self._power = power

  def of_rows(self, labels, logits):
    p = self._power
    return (tf.exp((2 - p) * logits) / (2 - p) -
            labels * tf.exp((1 - p) * logits) / (1 - p))

  def deviance(self, labels, logits):
    p = self._power
    return 2 * (self.of_rows(labels, logits) +
                tf.pow(tf.maximum(labels, 0), 2 - p) / ((1 - p) * (2 - p)))


class LogNormal(Loss):
  """The likelihood of positive labels whose logarithm is normal: times, money.

  There are two logits, z and r. log(y) has the mean z and the standard
  deviation s = softplus(r) = log(1 + exp(r)). The loss of a row is the negative
  log likelihood

    log(y) + log(s) + log(2 pi) / 2 + (log(y) - z)^2 / (2 s^2)

  and the prediction is the mean exp(z + s^2 / 2) (Wang et al., "A Deep
  Probabilistic Model for Customer Lifetime Value Prediction", 2019, without
  its part for labels of 0: bind the sample space of the task for that).
  The metric nll is the mean loss.
  """

  num_logits = 2
  measures = ('nll', 'rmse', 'mae')
  loss_measure = 'nll'
  least_label = _TINY
  may_be_negative = True

  def predictions(self, logits):
    mean, deviation = self._parameters(logits)
    return tf.exp(mean + tf.square(deviation) / 2)

  def of_rows(self, labels, logits):
    mean, deviation = self._parameters(logits)
    # A row that does not count may have the label 0.
    log_label = tf.log(tf.maximum(labels, _TINY))
    return (log_label + tf.log(deviation) + _LOG_2_PI / 2 +
            tf.square((log_label - mean) / deviation) / 2)

  def first_bias(self, labels, weights):
    """As Loss: mean and deviation of the labels' logarithms."""
    log_labels = tf.log(tf.maximum(labels, _TINY))
    mean = _mean(log_labels, weights)
    deviation = tf.sqrt(_mean(tf.square(log_labels - mean), weights))
    # Labels that are all alike would start from a deviation of 0.
    inverse = tf.log(tf.expm1(tf.maximum(deviation, 0.01)))
    return tf.stack([mean, tf.where(
        deviation > 0, inverse, tf.zeros_like(inverse))])

  def metrics(self, labels, logits, weights):
    return dict(super().metrics(labels, logits, weights), nll=metrics.mean(
        self.of_rows(labels, logits), weights))

  def _parameters(self, logits):
    """Mean and standard deviation of the logarithm, [batch] float32 each."""
    mean, raw = tf.unstack(logits, axis=1)
    return mean, tf.maximum(tf.nn.softplus(raw), 1e-4)


@gin.register
class MultiClass(Loss):
  """The cross entropy of a label that is one of n classes, 0 to n - 1.

  There are n logits z. The prediction is a probability for each class, p =
  softmax(z), [batch, n] float32, and the loss of a row is -log(p_y).

  With class weights w the loss that is trained, the mean over a batch, is
  sum_i w_y(i) loss(i) / sum_i w_y(i), so that rare classes can count as much as
  frequent ones (King and Zeng, "Logistic Regression in Rare Events Data",
  Political Analysis 2001, section 4.2). The probability of class c is then
  w_c p_c / sum_k w_k p_k for the shares p that the rows have. Evaluations do
  not weigh classes.
  """

  measures = ('log_loss', 'accuracy')
  loss_measure = 'log_loss'

  def __init__(self, num_classes=gin.REQUIRED, class_weights=None):
    """Checks and stores the number of classes and their weights.

    Args:
      num_classes: int n, at least 2.
      class_weights: n positive numbers w, how many times a row of each class
        counts in the loss of training; None are ones.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check_integer('MultiClass.num_classes', num_classes, 2, 10**6)
    if class_weights is not None:
      what = 'one positive number for each class, such as (1.0, 5.0)'
      errors.check_list(
          'MultiClass.class_weights', class_weights,
          lambda weight: errors.is_number(weight) and np.float32(weight) > 0,
          what)
      errors.check(
          len(class_weights) == num_classes, 'MultiClass.class_weights must be '
          '%s, so %d of them, got %s.', what, num_classes,
          errors.written(class_weights))
    self.num_logits = self.num_predictions = num_classes
    self._class_weights = class_weights

  def check_label(self, task, label, values):
    classes = set(range(self.num_logits))
    errors.check(
        values and set(values) <= classes, 'The label %r of task %s must be a '
        "class from 0 to %d: add 'values': (0, 1, ...), or a dict to classes, "
        'to its column, or bind MultiClass.num_classes.', label, task,
        self.num_logits - 1)

  def predictions(self, logits):
    return tf.nn.softmax(logits)

  def of_rows(self, labels, logits):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.cast(labels, tf.int32), logits=logits)

  def row_weights(self, labels):
    """As Loss: the weight of the class of each row."""
    if self._class_weights is None:
      return None
    return tf.gather(tf.constant(self._class_weights, tf.float32),
                     tf.cast(labels, tf.int32))

  def first_bias(self, labels, weights):
    """As Loss: the logarithms of the shares of the classes.

    As if half a row more had each class, for a batch without one of them. Their
    mean is subtracted, which changes no prediction.
    """
    is_class = tf.one_hot(tf.cast(labels, tf.int32), self.num_logits)
    total = tf.reduce_sum(weights)
    half = 0.5 * tf.div_no_nan(total, tf.cast(tf.size(labels), tf.float32))
    counts = half + tf.reduce_sum(weights[:, tf.newaxis] * is_class, axis=0)
    logs = tf.log(tf.maximum(counts, _TINY))
    return logs - tf.reduce_mean(logs)

  def metrics(self, labels, logits, weights):
    predictions = self.predictions(logits)
    hit = tf.equal(tf.argmax(logits, axis=1), tf.cast(labels, tf.int64))
    found = {'log_loss': metrics.mean(self.of_rows(labels, logits), weights),
             'accuracy': metrics.mean(tf.cast(hit, tf.float32), weights)}
    for i in range(self.num_logits):
      is_class = tf.cast(tf.equal(labels, float(i)), tf.float32)
      found['label/class_%d' % i] = metrics.mean(is_class, weights)
      found['prediction/class_%d' % i] = metrics.mean(
          predictions[:, i], weights)
    return found


NAMED = collections.OrderedDict([
    ('binary', Binary), ('regression', SquaredError), ('poisson', Poisson),
    ('lognormal', LogNormal)])
# Every metric that evaluations can be compared by.
MEASURES = tuple(sorted({measure for kind in list(NAMED.values()) + [
    Tweedie, MultiClass] for measure in kind.measures}))


def of(binding, value):
  """Returns the Loss that a binding holds, by its name or as an object.

  Args:
    binding: str, such as 'Task.loss'.
    value: what it is bound to.

  Raises:
    UserError: if it is neither.
  """
  if isinstance(value, Loss):
    return value
  names = ' or '.join(filter(None, [
      ', '.join(map(repr, list(NAMED)[:-1])), repr(list(NAMED)[-1])]))
  errors.check(
      isinstance(value, str) and value in NAMED, '%s must be %s, or an object '
      'such as @Tweedie() or @MultiClass(), got %s.', binding, names,
      errors.written(value))
  return NAMED[value]()


def _mean(values, weights):
  """The weighted mean, a float32 scalar; 0 where all weights are 0."""
  return tf.div_no_nan(tf.reduce_sum(weights * values), tf.reduce_sum(weights))


def _means(labels, predictions, weights):
  """The metrics of how large predictions are, beside labels."""
  return {
      'calibration': metrics.ratio(predictions * weights, labels * weights),
      'label/mean': metrics.mean(labels, weights),
      'prediction/mean': metrics.mean(predictions, weights),
  }
