"""Gradients of tasks without what is against the other tasks' gradients."""

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.balancing import balancing


@gin.register
class PCGrad(balancing.Balancing):
  """Projects the gradients of tasks that are in conflict with each other.

  Yu, Kumar, Gupta, Levine, Hausman, Finn: "Gradient Surgery for Multi-Task
  Learning", NeurIPS 2020, algorithm 1. The gradient g_i of the loss of task i,
  times its Task.weight, by the parameters that tasks share is projected onto
  the normal plane of each other g_j that it is in conflict with, one after
  another in a random order:

    p_i = g_i
    for j in a random order, j != i: if p_i . g_j < 0:
      p_i = p_i - (p_i . g_j) / |g_j|^2 g_j

  and the step takes the sum of all p_i. The gradients of what belongs to one
  task stay as they are.

  Shared is what two or more tasks depend on: variables of network and
  interactions, and all embedding tables, with the rows that the batch looks up.
  A variable or table counts as a whole, so the weights per task of Wide, which
  lie in the rows, and of FwFM are projected too. Penalties (l2) are not of any
  task and are added behind, and Model.clip_norm clips what is then there.

  All p_i are sums of the g_j, so it is enough to know the dot products of the
  g_j, and the embeddings get one gradient, as without this class. A step takes
  one pass back per task, through the embeddings one more.
  """

  def __init__(self, seed=0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      seed: int of at least 0. It determines the order of the tasks at each
        global step, also if a training goes on from a checkpoint. With two
        tasks there is only one order.

    Raises:
      UserError: if seed is out of range.
    """
    errors.check_integer('PCGrad.seed', seed, 0)
    self._seed = seed

  def balanced(self, batch):
    apart = batch.apart()
    products = batch.products(apart)
    _summarize(batch.tasks, products)
    count = len(batch.tasks)
    numbers = tf.random.stateless_uniform(
        [count, count], tf.stack([self._seed, batch.step]))
    shared_factors = tf.unstack(
        factors(products, tf.argsort(numbers, axis=1)), num=count)
    balancing.summarize(batch.tasks, shared_factors)
    return batch.combined(apart, [tf.ones([])] * count, shared_factors)


def factors(products, orders):
  """What each gradient is multiplied by in the sum of the projected ones.

  Args:
    products: [tasks, tasks] float32, the dot products of the gradients.
    orders: [tasks, tasks] int32, in row i the order of the tasks that the
      gradient of task i is projected by; i itself is passed over.

  Returns:
    [tasks] float32.
  """
  count = products.shape[0].value
  squares = tf.diag_part(products)
  projected = tf.eye(count)  # row i: what p_i has of each gradient
  for others in tf.unstack(orders, num=count, axis=1):
    of_others = tf.gather(products, others)
    dots = tf.reduce_sum(projected * of_others, axis=1)
    in_conflict = (dots < 0) & tf.not_equal(others, tf.range(count))
    share = tf.where(
        in_conflict, tf.div_no_nan(dots, tf.gather(squares, others)),
        tf.zeros_like(dots))
    projected -= share[:, tf.newaxis] * tf.one_hot(others, count)
  return tf.reduce_sum(projected, axis=0)


def _summarize(tasks, products):
  """Shows the cosines of all pairs of tasks and the share in conflict."""
  norms = tf.sqrt(tf.diag_part(products))
  cosines = tf.div_no_nan(
      products, norms[:, tf.newaxis] * norms[tf.newaxis, :])
  conflicts = []
  for i, one in enumerate(tasks):
    for j, other in enumerate(tasks[:i]):
      tf.summary.scalar(
          'balancing/cosine/%s/%s' % (other.name, one.name), cosines[i, j])
      conflicts.append(tf.cast(cosines[i, j] < 0, tf.float32))
  tf.summary.scalar('balancing/conflicts', tf.add_n(conflicts) / len(conflicts))
