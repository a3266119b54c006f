"""Early stopping: the rule, and the hook that follows it."""

import math

from absl import logging
import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.training import evaluations as evaluations_lib


@gin.register
class EarlyStopping:
  """Ends training when a metric of the evaluation no longer improves."""

  def __init__(self, metric='ctr/auc', patience_steps=10000):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      metric: str, as in metrics.json; auc and accuracy improve when they
        grow, all others when they fall. A metric that is not a number has not
        improved.
      patience_steps: int, global steps without improvement after which
        training ends.
    """
    errors.check_text('EarlyStopping.metric', metric)
    errors.check_integer('EarlyStopping.patience_steps', patience_steps, 1)
    self.metric = metric
    self._patience_steps = patience_steps

  def verdict(self, evaluations):
    """Why training is to end.

    Args:
      evaluations: evaluations.Evaluations.

    Returns:
      str, to be read after 'Training stopped at step ...: '; None to train on.
    """
    if evaluations.last is None or self._left(evaluations) > 0:
      return None
    best = evaluations.best(self.metric)
    return '%s %s (EarlyStopping.patience_steps = %d)' % (
        self.metric, 'has not been a number' if best is None else
        'has not improved since step %d' % best['global_step'],
        self._patience_steps)

  def describe(self, evaluations):
    """Logs how the last evaluation compares, and how long there is left.

    Args:
      evaluations: evaluations.Evaluations, with at least one evaluation.
    """
    last, best = evaluations.last, evaluations.best(self.metric)
    if math.isnan(evaluations_lib.value_of(last, self.metric)):
      logging.warning(
          '%s is not a number at step %d: for early stopping it has not '
          'improved.', self.metric, last['global_step'])
    if best is last:
      logging.info('%s %.4f is the best so far.', self.metric,
                   best[self.metric])
      return
    left = self._left(evaluations)
    logging.info(
        '%s. %s', 'No %s yet' % self.metric if best is None else
        'The best %s is %.4f, of step %d' % (
            self.metric, best[self.metric], best['global_step']),
        'Training stops unless it improves within %d steps.' % left
        if left > 0 else 'Training stops.')

  def _left(self, evaluations):
    """The steps for which training may go on without improvement."""
    since = evaluations.best(self.metric) or evaluations.first
    return (since['global_step'] + self._patience_steps -
            evaluations.last['global_step'])


class StopHook(tf.train.SessionRunHook):
  """Ends the training of this process once the rule says so.

  Every process of a cluster has one, and all look at the same file. So no
  variable of the graph is needed, which a checkpoint would carry into the next
  start.
  """

  def __init__(self, rule, evaluations):
    """Keeps the rule.

    Args:
      rule: EarlyStopping.
      evaluations: evaluations.Evaluations, which others write.
    """
    self._rule = rule
    self._evaluations = evaluations
    self._seen = None

  def after_run(self, run_context, run_values):
    del run_values
    self._evaluations.read()
    if self._evaluations.last is not self._seen:
      self._seen = self._evaluations.last
      if self._rule.verdict(self._evaluations):
        run_context.request_stop()
