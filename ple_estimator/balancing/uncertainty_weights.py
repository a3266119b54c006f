"""Weights of losses from a variance per task, which is trained."""

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.balancing import balancing
from ple_estimator.network import losses


@gin.register
class UncertaintyWeights(balancing.Balancing):
  """Weighs a loss by the variance of its task, which is trained with the model.

  Kendall, Gal, Cipolla: "Multi-Task Learning Using Uncertainty to Weigh Losses
  for Scene Geometry and Semantics", CVPR 2018. With s_k = log(sigma_k^2), the
  loss of a step is the sum over the tasks k of

    w_k (L_k exp(-s_k) / 2 + s_k / 2)  for squared errors (eq. 5)
    w_k (L_k exp(-s_k) + s_k / 2)      for cross entropies (eq. 10), Tweedie

  where L_k is the loss of the task in the batch and w_k its Task.weight. For
  fixed L_k the best s_k is log(L_k), and log(2 L_k) for a cross entropy: then
  the first term is w_k / 2 for every task. All s_k start from 0.

  The optimizer of the model trains s_k, and clip_norm counts its gradient. A
  batch without a row of a task gives s_k no gradient. A checkpoint has
  s_k / scale as balancing/<task>/log_variance.
  """

  needs_positive_losses = True

  def __init__(self, scale=1.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      scale: float, s_k is this times its variable, so that it moves this many
        times as far in a step of Adam as a weight of the network, which is at
        most about scale times the learning rate. With optimizers without
        moments, such as @sgd, it moves scale^2 times as far.

    Raises:
      UserError: if scale is out of range.
    """
    errors.check_number('UncertaintyWeights.scale', scale, above=0)
    self._scale = scale

  def balanced(self, batch):
    variables = [balancing.variable(task, 'log_variance', trainable=True)
                 for task in batch.tasks]
    logs = [self._scale * variable for variable in variables]
    factors = [tf.exp(-log) / (2 if _is_squared(task) else 1)
               for task, log in zip(batch.tasks, logs)]
    balancing.summarize(batch.tasks, factors)
    found = batch.together([
        weight * factor for weight, factor in zip(batch.weights, factors)])
    gradients = dict(found.gradients)
    # Half of the weight, where the batch has a row of the task.
    halves = [weight / 2 * tf.cast(rows > 0, tf.float32)
              for weight, rows in zip(batch.weights, batch.rows)]
    for variable, half, term in zip(variables, halves, found.terms):
      gradients[variable.name] = self._scale * (half - term)
    return found._replace(gradients=gradients, terms=found.terms + [
        half * log for half, log in zip(halves, logs)])


def _is_squared(task):
  return isinstance(task.kind, losses.SquaredError)
