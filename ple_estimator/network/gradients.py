"""The gradients of a batch, which goes through the network in slices.

Losses are sums over rows, so each slice gives its share of the gradients of
network and towers, and the gradient of its rows of the network's input. Then
`complete` goes on from the input into the embeddings, once per batch.
"""

import tensorflow.compat.v1 as tf

from ple_estimator.network import micro_batching
from ple_estimator.network import objective


def of_network(build, tasks, inputs, targets, slices, loss_weights):
  """Builds network and towers, and differentiates the losses by them.

  Args:
    build: function of [rows, in_dim] float32 to (logits, gates): a dict of task
      name to [rows] float32, and a dict of gate name to a dict of expert name
      to [rows] float32.
    tasks: list of tasks.Task.
    inputs: [batch, in_dim] float32.
    targets: objective.Targets of the batch.
    slices: int, the number of slices, see micro_batching.accumulate.
    loss_weights: list of float32 scalars, one per task.

  Returns:
    ((losses, gates, gradients), d_inputs): the loss of each task by name; gates
    with the mean weight of each expert in place of the weights; a dict of the
    name of each variable that `build` creates to its gradient of the weighted
    sum of losses, if it has one; and the gradient by inputs, [batch, in_dim]
    float32.
  """
  (losses, gates, (gradients,)), (d_inputs,) = _of_sums(
      build, tasks, inputs, targets, slices, loss_weights, [tasks])
  return (losses, gates, gradients), d_inputs


def of_each_task(build, tasks, inputs, targets, slices, loss_weights):
  """Differentiates the weighted loss of each task for itself.

  Args: see `of_network`.

  Returns:
    ((losses, gates, gradients), d_inputs): as `of_network`, but gradients is a
    list with a dict for each task, and d_inputs a list of [batch, in_dim]
    float32.
  """
  return _of_sums(build, tasks, inputs, targets, slices, loss_weights,
                  [[task] for task in tasks])


def _of_sums(build, tasks, inputs, targets, slices, loss_weights, sums):
  """As `of_each_task` for lists of tasks, whose weighted losses are summed."""
  weight_of = dict(zip((task.name for task in tasks), loss_weights))
  totals = {name: tf.reduce_sum(weights)
            for name, weights in targets.weights.items()}
  share = 1 / tf.cast(tf.shape(inputs)[0], tf.float32)
  before = len(tf.trainable_variables())

  def of_slice(rows):
    inputs, labels, weights = rows
    logits, gates = build(inputs)
    losses = objective.losses(
        tasks, objective.Targets(labels, weights, totals), logits,
        training=True)
    variables = tf.trainable_variables()[before:]
    found = []
    for of in sums:
      # One pass back after another: those of a fused op use the same memory.
      with tf.control_dependencies(
          [g for g in (found[-1] if found else []) if g is not None]):
        found.append(tf.gradients(
            [losses[task.name] for task in of], [inputs] + variables,
            [weight_of[task.name] for task in of]))
    gates = tf.nest.map_structure(lambda x: share * tf.reduce_sum(x), gates)
    by_name = [{v.name: _dense(g, v) for v, g in zip(variables, gradients)
                if g is not None} for _, *gradients in found]
    d_inputs = [tf.zeros_like(inputs) if d is None else d for d, *_ in found]
    return (losses, gates, by_name), tf.concat(d_inputs, axis=1)

  of_batch, d_inputs = micro_batching.accumulate(
      of_slice, (inputs, targets.labels, targets.weights), slices)
  return of_batch, tf.split(d_inputs, len(sums), axis=1)


def complete(variables, gradients, inputs, d_inputs):
  """Adds the gradients that are no sums over slices to those of `of_network`.

  These are the gradients of the embeddings, through the inputs of the network,
  and those of penalties such as L2.

  Args:
    variables: list of what is trained: variables and sources of keyed tables.
    gradients: dict of variable name to gradient, from `of_network`.
    inputs: [batch, in_dim] float32.
    d_inputs: [batch, in_dim] float32, the gradient by inputs.

  Returns:
    list of (gradient or None, variable).
  """
  penalties = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
  others = tf.gradients([inputs] + penalties, variables,
                        [d_inputs] + [None] * len(penalties))
  return [(_add(g, gradients.get(v.name)), v)
          for g, v in zip(others, variables)]


def _dense(gradient, variable):
  """A gradient as a tensor of the shape of its variable.

  What is looked up in a variable has a gradient of rows, of which TensorFlow
  1.15 does not know the shape as a tensor.
  """
  gradient = tf.convert_to_tensor(gradient)
  gradient.set_shape(variable.shape)
  return gradient


def _add(a, b):
  """The sum of two tensors, either or both of which may be None."""
  return b if a is None else a if b is None else a + b
