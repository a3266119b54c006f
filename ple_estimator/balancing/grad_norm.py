"""Weights of losses from the norms of their gradients."""

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.balancing import balancing

_LEAST = 1e-3  # of a weight, which must stay positive


@gin.register
class GradNorm(balancing.Balancing):
  """Brings the norms of the tasks' gradients to sizes that let all learn alike.

  Chen, Badrinarayanan, Lee, Rabinovich: "GradNorm: Gradient Normalization for
  Adaptive Loss Balancing in Deep Multitask Networks", ICML 2018, algorithm 1.
  With a weight v_k per task, the loss of a step is the sum of v_k w_k L_k,
  where w_k is Task.weight, and

    G_k = |gradient of v_k w_k L_k by W|
    r_k = (L_k(t) / L_k(0)) / mean over i of L_i(t) / L_i(0)
    L_grad = sum over k of |G_k - mean(G) r_k^alpha|

  After each step v_k moves against the gradient of L_grad, in which the target
  mean(G) r_k^alpha counts as a constant, and all are divided so that their sum
  is the number of tasks:

    v_k = v_k - learning_rate sign(G_k - mean(G) r_k^alpha) G_k / v_k

  W are the weights of Model.network that two or more tasks depend on, such as
  shared experts; embeddings and interactions are not among them. L_k(0) is the
  loss of the first batch that has a row of the task. A task without a row in a
  batch, or with Task.weight 0, takes no part in the means, and its weight is
  only divided. No weight falls below 0.001.

  A step takes one pass back per task. A checkpoint has v_k as
  balancing/<task>/weight and L_k(0) as balancing/<task>/first_loss.
  """

  needs_positive_losses = True

  def __init__(self, alpha=1.5, learning_rate=0.025):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      alpha: float, not negative: how much larger the gradients of tasks that
        learn slowly are to be. 0 makes all norms equal.
      learning_rate: float, of the weights v_k, by plain gradient descent.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check_number('GradNorm.alpha', alpha, least=0)
    errors.check_number('GradNorm.learning_rate', learning_rate, above=0)
    self._alpha = alpha
    self._rate = learning_rate

  def balanced(self, batch):
    shared = sorted(batch.shared(of_network=True))
    errors.check(
        shared, 'Model.balancing = @GradNorm() needs weights of Model.network '
        'that tasks share, such as those of PLE.num_shared_experts = 1, and '
        'there are none: bind another Model.balancing, or None.')
    variables = [balancing.variable(task, 'weight', value=1.0)
                 for task in batch.tasks]
    weights = [variable.read_value() for variable in variables]
    balancing.summarize(batch.tasks, weights)
    apart = batch.apart()
    norms = tf.stack([
        tf.global_norm([of[name] for name in shared if name in of])
        for of in apart.gradients])
    losses = tf.stack([apart.losses[task.name] for task in batch.tasks])
    counts = (tf.stack(batch.rows) > 0) & (tf.stack(batch.weights) > 0)
    first = self._first_losses(batch, losses, counts)
    moved = self._moved(tf.stack(weights), norms, tf.div_no_nan(losses, first),
                        counts)
    for variable, weight in zip(variables, tf.unstack(moved)):
      tf.add_to_collection(tf.GraphKeys.UPDATE_OPS,
                           variable.assign(weight, read_value=False))
    return batch.combined(apart, weights)

  def _first_losses(self, batch, losses, counts):
    """Returns L_k(0), [tasks] float32, and has it kept."""
    variables = [balancing.variable(task, 'first_loss') for task in batch.tasks]
    kept = tf.stack([variable.read_value() for variable in variables])
    first = tf.where((kept <= 0) & counts, losses, kept)
    for variable, loss in zip(variables, tf.unstack(first)):
      tf.add_to_collection(tf.GraphKeys.UPDATE_OPS,
                           variable.assign(loss, read_value=False))
    return first

  def _moved(self, weights, norms, paces, counts):
    """The weights after a step, [tasks] float32.

    Args:
      weights: [tasks] float32, v_k.
      norms: [tasks] float32, G_k / v_k.
      paces: [tasks] float32, L_k(t) / L_k(0).
      counts: [tasks] bool, which tasks take part.
    """
    part = tf.cast(counts, tf.float32)
    number = tf.reduce_sum(part)
    def mean(x):
      return tf.div_no_nan(tf.reduce_sum(part * x), number)
    target = mean(weights * norms) * tf.pow(
        tf.div_no_nan(paces, mean(paces)), self._alpha)
    gradient = part * tf.sign(weights * norms - target) * norms
    moved = tf.maximum(weights - self._rate * gradient, _LEAST)
    return moved * (moved.shape[0].value / tf.reduce_sum(moved))
