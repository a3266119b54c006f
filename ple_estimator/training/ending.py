"""Whether the training of a run has ended, and why."""

from absl import logging

from ple_estimator import errors
from ple_estimator.cluster import marker
from ple_estimator.training import evaluations as evaluations_lib


class Ending:
  """Knows where the training of a model_dir ends, for any of its processes."""

  def __init__(self, model_dir, results, is_chief):
    """Stores the arguments; reads nothing.

    Args:
      model_dir: str.
      results: evaluation.Results, with the rule of early stopping.
      is_chief: bool, whether this process saves the checkpoints.
    """
    self._model_dir = model_dir
    self._evaluations = results.evaluations
    self._rule = results.early_stopping
    self._is_chief = is_chief

  def is_to_train(self, max_steps):
    """Whether there is something left to train; says so if not.

    Args:
      max_steps: int, the global step at which the training is to end.
    """
    step = marker.latest_step(self._model_dir)
    self._evaluations.read()
    if self._is_chief:
      self._evaluations.forget(step or 0)
    stopped = self._verdict(self._evaluations)
    if step and stopped:
      logging.warning(
          'Training stopped early at step %d: %s. To train on, raise %s or '
          'bind Experiment.early_stopping = None.', step, stopped,
          self._rule.binding)
      return False
    if self.trained_step(max_steps) is not None:
      return False
    if self._is_chief and self._evaluations.marked('stopped'):
      self._evaluations.mark('stopped', None)  # by another rule than today's
      self._evaluations.write()
    return True

  def stopped(self):
    """Why early stopping ends the training, a str, or None."""
    self._evaluations.read()
    return self._verdict(self._evaluations)

  def trained_step(self, max_steps):
    """The global step at which the training has ended, or None.

    Args:
      max_steps: int, the global step at which the training is to end.
    """
    step = marker.trained_step(self._model_dir, max_steps)
    if step is not None and marker.is_stopped(self._model_dir):
      # By another rule the training goes on. The evaluations are read apart,
      # since the thread of the Watch calls this too.
      apart = evaluations_lib.Evaluations(self._model_dir)
      apart.read()
      return step if self._verdict(apart) else None
    return step

  def check_trained(self, before, after, last, batch_size):
    """Says it if a training that was to make steps has made none.

    Args:
      before: int, the global step at which it began.
      after: int, the global step at which it ended.
      last: int, the global step at which it was to end; None if the data end
        it.
      batch_size: int, rows per batch.

    Raises:
      UserError: if no step has ever been trained.
    """
    if after > before or last is not None and before >= last or (
        self._verdict(self._evaluations)):
      return
    errors.check(
        before, 'No step was trained: Experiment.train_input has no batch of '
        '%d rows. Name files with more rows, lower its batch_size, or leave '
        'drop_remainder False.', batch_size)
    logging.warning(
        'No step was trained: all rows of Experiment.train_input had been '
        'trained by step %d. To train on, raise its epochs or name other '
        'files.', before)

  def note(self, step, max_steps, stopped):
    """Logs why the training has ended, and keeps it in evaluations.json.

    Args:
      step: int, the global step at which it has ended.
      max_steps: int, the global step at which it was to end.
      stopped: str, why early stopping has ended it, or None.
    """
    reason = ('early stopping, %s' % stopped if stopped else
              'that was the last step (Experiment.max_steps, or the epochs of '
              'Experiment.train_input)' if step >= max_steps else
              'Experiment.train_input has no more rows')
    logging.info('Training ended at step %d: %s.', step, reason)
    self._evaluations.read()
    self._evaluations.mark('ended', {'global_step': step, 'reason': reason})
    self._evaluations.write()

  def _verdict(self, evaluations):
    return self._rule.verdict(evaluations) if self._rule else None
