"""Weights of losses from how fast each has fallen."""

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.balancing import balancing

# A window adds to one row of its sums, reads two others and clears the fourth,
# so no worker of a cluster has to wait for another one.
_ROWS = 4


@gin.register
class DynamicWeightAverage(balancing.Balancing):
  """Gives those tasks more weight whose loss has fallen less of late.

  Liu, Johns, Davison: "End-to-End Multi-Task Learning with Attention", CVPR
  2019, eq. 7. In window t the loss of task k of K is multiplied, besides by its
  Task.weight, by

    lambda_k(t) = K exp(r_k(t - 1) / T) / sum over i of exp(r_i(t - 1) / T)
    r_k(t - 1) = L_k(t - 1) / L_k(t - 2)

  where L_k(t) is the mean loss of the task over its rows in window t, and
  r_k = 1 in the first two windows and where one of the two has no row of the
  task. T is the temperature: the larger it is, the more equal are the weights.

  In the paper a window is an epoch, over which the losses are averaged. Here it
  is a number of global steps, since a stream of rows has no epochs: bind
  window_steps to the rows of an epoch divided by the batch size to have the
  paper's. In a cluster all workers add their losses to the window of the global
  step at which they read them. A checkpoint has the sums of the losses and of
  the weights of the rows as balancing/<task>/loss_sums.
  """

  needs_positive_losses = True

  def __init__(self, window_steps=400, temperature=2.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      window_steps: int, global steps of a window.
      temperature: float T, positive; the paper has 2.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check_integer('DynamicWeightAverage.window_steps', window_steps, 1)
    errors.check_number(
        'DynamicWeightAverage.temperature', temperature, above=0)
    self._window_steps = window_steps
    self._temperature = temperature

  def balanced(self, batch):
    window = batch.step // self._window_steps
    variables = [balancing.variable(task, 'loss_sums', (_ROWS, 2))
                 for task in batch.tasks]
    ratios = tf.stack([_ratio(variable.read_value(), window)
                       for variable in variables])
    factors = tf.unstack(
        len(variables) * tf.nn.softmax(ratios / self._temperature))
    balancing.summarize(batch.tasks, factors)
    found = batch.together([
        weight * factor for weight, factor in zip(batch.weights, factors)])
    for task, variable, rows in zip(batch.tasks, variables, batch.rows):
      tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, _add(
          variable, window, tf.stack([rows * found.losses[task.name], rows])))
    return found


def _ratio(sums, window):
  """r_k of a task, a float32 scalar.

  Args:
    sums: [_ROWS, 2] float32: in row t % _ROWS the sum of the losses of window t
      and the sum of the weights of its rows; zeros before the first window.
    window: int64 scalar.
  """
  last, before = [tf.gather(sums, (window - back) % _ROWS) for back in (1, 2)]
  known = (last[1] > 0) & (before[1] > 0) & (before[0] > 0)
  ratio = tf.div_no_nan(tf.div_no_nan(last[0], last[1]),
                        tf.div_no_nan(before[0], before[1]))
  return tf.where(known, ratio, tf.ones_like(ratio))


def _add(variable, window, sums):
  """Adds to the row of a window and clears that of the next; returns an op."""
  def at(row, values):
    return tf.IndexedSlices(values[tf.newaxis], (row % _ROWS)[tf.newaxis])
  return tf.group(
      variable.scatter_add(at(window, sums)),
      variable.scatter_update(at(window + 1, tf.zeros([2]))))
