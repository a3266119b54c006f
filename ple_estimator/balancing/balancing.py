"""What all ways to balance the losses of tasks have in common."""

import tensorflow.compat.v1 as tf

from ple_estimator import errors


class Balancing:
  """Finds how much the loss of each task counts in a step of training.

  A balancing of your own is a subclass. Task.weight and Task.gamma come on top
  of it. Evaluations know nothing of it: their loss goes by Task.weight, so that
  it can be compared from one step to another.

  Attributes:
    needs_positive_losses: bool, whether it goes by the size or the ratio of
      losses, which mean nothing where a loss may be below 0.
  """

  needs_positive_losses = False

  def check(self, tasks):
    """Raises UserError unless the losses of these tasks can be balanced.

    Args:
      tasks: list of tasks.Task.
    """
    errors.check(
        len(tasks) > 1, 'Model.balancing must be None for a model of one task, '
        'got %s.', errors.written(self))
    for task in tasks:
      errors.check(
          not (self.needs_positive_losses and task.kind.may_be_negative),
          'Model.balancing must be None or @PCGrad() where a loss may be below '
          '0, as that of task %s (%s), got %s.', task.name,
          type(task.kind).__name__, errors.written(self))

  def balanced(self, batch):
    """Builds the gradients of a step in the training graph.

    Args:
      batch: batch.Batch.

    Returns:
      batch.Balanced.
    """
    raise NotImplementedError


class TaskWeights(Balancing):
  """The losses with the weights of Task alone: Model.balancing = None."""

  def balanced(self, batch):
    return batch.together(batch.weights)


def variable(task, name, shape=(), value=0.0, trainable=False):
  """A float32 variable of a balancing, which is saved in checkpoints.

  Args:
    task: tasks.Task that it belongs to.
    name: str.
    shape: tuple of int.
    value: float, what it starts from.
    trainable: bool, whether the optimizer of the model trains it.
  """
  return tf.get_variable(
      'balancing/%s/%s' % (task.name, name), shape, tf.float32,
      tf.constant_initializer(value), trainable=trainable)


def summarize(tasks, factors):
  """Shows in TensorBoard what the loss of each task is multiplied by.

  Args:
    tasks: list of tasks.Task.
    factors: list of float32 scalars, without Task.weight.
  """
  for task, factor in zip(tasks, factors):
    tf.summary.scalar('%s/balancing' % task.name, factor)
