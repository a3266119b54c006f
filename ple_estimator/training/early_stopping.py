"""Early stopping: the rule, and the hook that follows it."""

import math

from absl import logging
import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.training import comparison

_PATIENCE_EPOCHS = 2  # if nothing is bound


@gin.register
class EarlyStopping:
  """Ends training when a metric of the evaluation no longer improves.

  Attributes:
    metric: str or tuple of str, see comparison.stored.
    binding: str, the binding that says how long to wait.
  """

  def __init__(self, metric='mean/auc', patience_steps=None,
               patience_epochs=None):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      metric: str, as in metrics.json; auc and accuracy improve when they
        grow, all others when they fall. 'mean/auc' is the mean over all tasks
        that have an AUC, and so for other metrics; a list or tuple, such as
        ('ctr/auc', 'cvr/auc'), is the mean of those. A metric that is not a
        number has not improved; nor has a mean of which one is none.
      patience_steps: int, global steps without improvement after which
        training ends.
      patience_epochs: number above 0, the same in epochs, which need not be
        whole. With neither of the two it is 2.

    Raises:
      UserError: if a value is out of range, or both patiences are given.
    """
    comparison.check_form('EarlyStopping.metric', metric)
    errors.check_integer('EarlyStopping.patience_steps', patience_steps, 1,
                         or_none=True)
    errors.check_number('EarlyStopping.patience_epochs', patience_epochs,
                        above=0, or_none=True)
    errors.check(
        patience_steps is None or patience_epochs is None,
        'EarlyStopping.patience_steps and EarlyStopping.patience_epochs must '
        'not both be given, got %s and %s. Bind one of them to None, such as '
        'EarlyStopping.patience_epochs = None.', patience_steps,
        patience_epochs)
    if patience_steps is None and patience_epochs is None:
      patience_epochs = _PATIENCE_EPOCHS
    self.metric = comparison.stored(metric)
    self.binding = 'EarlyStopping.' + (
        'patience_steps' if patience_epochs is None else 'patience_epochs')
    self._patience_steps = patience_steps
    self._patience_epochs = patience_epochs
    self._rule = '%s, %s = %g' % (
        comparison.name_of(self.metric), self.binding,
        patience_steps if patience_epochs is None else patience_epochs)
    self._epochs = None  # set by `measure`

  def measure(self, epochs):
    """Takes in how long an epoch is, which the data say.

    Args:
      epochs: intervals.Epochs.
    """
    self._epochs = epochs
    if self._patience_epochs is not None:
      self._patience_steps = epochs.steps_in(self._patience_epochs)

  def decide(self, evaluations):
    """Keeps among the evaluations that training is to end, if it is.

    The processes of a cluster look at the evaluations at different times, and
    a last checkpoint may be better than all before. So the process that
    evaluates decides, and a later evaluation does not undo it.

    Args:
      evaluations: evaluations.Evaluations, with the newest; not written yet.
    """
    reason = self.verdict(evaluations)
    if reason and not self._decided(evaluations):
      evaluations.mark('stopped', {
          'global_step': evaluations.last['global_step'], 'reason': reason,
          'rule': self._rule})

  def verdict(self, evaluations):
    """Why training is to end.

    Args:
      evaluations: evaluations.Evaluations.

    Returns:
      str, to be read after 'Training stopped at step ...: '; None to train on.
    """
    decided = self._decided(evaluations)
    if decided:
      return decided['reason']
    if evaluations.last is None or self._left(evaluations) > 0:
      return None
    best = evaluations.best(self.metric)
    return '%s %s (%s = %s)' % (
        comparison.name_of(self.metric),
        'has not been a number' if best is None else
        'has not improved since step %d' % best['global_step'], self.binding,
        self._patience_steps if self._patience_epochs is None else
        '%g, %d steps' % (self._patience_epochs, self._patience_steps))

  def describe(self, evaluations):
    """Logs how the last evaluation compares, and how long there is left.

    Args:
      evaluations: evaluations.Evaluations, with at least one evaluation.
    """
    last, best = evaluations.last, evaluations.best(self.metric)
    name = comparison.name_of(self.metric)
    if math.isnan(comparison.value_of(last, self.metric)):
      logging.warning(
          '%s is not a number at step %d: for early stopping it has not '
          'improved.', name, last['global_step'])
    if best is last:
      logging.info('%s %.4f is the best so far.', name,
                   comparison.value_of(best, self.metric))
      return
    left = 0 if self._decided(evaluations) else self._left(evaluations)
    logging.info(
        '%s. %s', 'No %s yet' % name if best is None else
        'The best %s is %.4f, of step %d' % (
            name, comparison.value_of(best, self.metric), best['global_step']),
        'Training stops unless it improves within %s.' % (
            self._epochs.describe(left)) if left > 0 else 'Training stops.')

  def _decided(self, evaluations):
    """What `decide` has kept, if it was by this rule; or None."""
    kept = evaluations.marked('stopped')
    return kept if kept and kept['rule'] == self._rule else None

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
