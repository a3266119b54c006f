"""A linear model of the columns, added to the logits."""

import gin
import tensorflow.compat.v1 as tf

from ple_estimator.interactions import interaction


@gin.register
class Wide(interaction.Interaction):
  """A first-order weight per value and task, the sum of which is a logit.

  Cheng et al., "Wide & Deep Learning for Recommender Systems", 2016, without
  crossed columns: task k gets

    logit_k = sum_c w_k(value of column c) + sum_i u_ki x_i

  for the category columns c and the numbers x_i. A list has the combination,
  by the column's combiner, of its values' weights. So the model is at least a
  logistic regression on one-hot columns. The weights lie in the table of the
  embedding, beside the vectors, and start as small as these (stddev).
  """

  scope = 'wide'

  def __init__(self, scale=1.0, l2=0.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      scale: float, w_k is this times what the table holds. Under Adam a weight
        then moves this many times as far in a step as a vector does.
      l2: float, adds l2 |w|^2 / 2 for the weights of each different value of a
        batch to the training loss, so that rare values stay near 0.

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__('logits', scale, l2)

  def own_width(self, num_tasks):
    return num_tasks

  def own_names(self, scope, tasks):
    return [('%s/%s' % (scope, task), 1) for task in tasks]

  def __call__(self, fields, num_tasks, purpose):
    parts = []
    if fields.own:
      parts.append(self._scale * interaction.sum_columns(fields.own))
    if fields.num_numbers():
      kernel = tf.get_variable(
          'numbers', [fields.num_numbers(), num_tasks], tf.float32,
          tf.zeros_initializer())
      parts.append(tf.matmul(fields.numbers, kernel))
    return interaction.Contribution(logits=tf.add_n(parts))
