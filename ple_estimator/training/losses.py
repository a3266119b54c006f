"""Losses that are not finite, and tasks that no row counts for."""

import math

from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.cluster import marker
from ple_estimator.training import metrics_file


def way_on(model_dir):
  """From where training goes on after a loss that is not finite, in words.

  Args:
    model_dir: str.
  """
  step = marker.latest_step(model_dir)
  return '%s; %s' % (metrics_file.ADVICE, (
      'the same command goes on from the checkpoint of step %s' % step)
                     if step else 'nothing has been saved yet')


def user_error(error):
  """The UserError of what TensorFlow's NanTensorHook raises; else None.

  LossesHook comes before the one that Estimator adds, but a user may have a
  hook, too.

  Args:
    error: an exception.
  """
  if not isinstance(error, tf.train.NanLossDuringTrainingError):
    return None
  return errors.UserError(
      'The loss is nan. %s; the same command goes on from the last checkpoint.'
      % metrics_file.ADVICE)


class LossesHook(tf.train.SessionRunHook):
  """Ends training at a loss that is not finite, before that step is saved.

  It has to come before the hook that saves. Estimator's own hook would end
  training too, if the loss is NaN, but says neither the task nor the step.

  Also warns of a task whose weights are 0 for all rows of an interval.
  """

  def __init__(self, tasks, model_dir, every_steps):
    """Keeps what to look at.

    Args:
      tasks: list of tasks.Task, in the order of objective.total.
      model_dir: str.
      every_steps: int, steps of this process in an interval.
    """
    self._tasks = tasks
    self._model_dir = model_dir
    self._every_steps = every_steps
    self._steps = 0  # in this interval
    self._weights = np.zeros(len(tasks))

  def begin(self):
    graph = tf.get_default_graph()
    self._step = tf.train.get_global_step()
    self._fetches = {'losses': graph.get_tensor_by_name('all_losses:0'),
                     'weights': graph.get_tensor_by_name('all_weights:0')}

  def before_run(self, run_context):
    return tf.train.SessionRunArgs(self._fetches)

  def after_run(self, run_context, run_values):
    found = run_values.results
    # The sum is not finite if one of them is not.
    if not math.isfinite(sum(found['losses'].tolist())):
      # Read now, since a step that is fetched may be that of before.
      self._refuse(int(run_context.session.run(self._step)), found['losses'])
    self._weights += found['weights']
    self._steps += 1
    if self._steps >= self._every_steps:
      self._look()

  def end(self, session):
    if self._steps:
      self._look()

  def _refuse(self, step, losses):
    names = ['The loss of task %s' % task.name for task in self._tasks]
    names.append('The total loss, with weights and penalties,')
    for name, loss in zip(names, losses):
      errors.check(
          math.isfinite(loss), '%s is %s at step %d. %s.', name, loss, step,
          way_on(self._model_dir))

  def _look(self):
    for task, weight in zip(self._tasks, self._weights):
      if not weight:
        logging.warning(
            'No row of the last %d steps counted for task %s: %s.',
            self._steps, task.name, metrics_file.no_row(task))
    self._steps = 0
    self._weights[:] = 0
