"""The gradients of a batch, which goes through the network in slices.

Losses are sums over rows, so each slice gives its share of the gradients of
network and towers, and the gradient of its rows of the network's input. Then
`complete` goes on from the input into the embeddings, once per batch.
"""

import tensorflow.compat.v1 as tf

from ple_estimator.network import micro_batching
from ple_estimator.network import objective


def of_network(build, tasks, inputs, targets, slices):
  """Builds network and towers, and differentiates the losses by them.

  Args:
    build: function of [rows, in_dim] float32 to (logits, gates): a dict of task
      name to [rows] float32, and a dict of gate name to a dict of expert name
      to [rows] float32.
    tasks: list of tasks.Task.
    inputs: [batch, in_dim] float32.
    targets: objective.Targets of the batch.
    slices: int, the number of slices, see micro_batching.accumulate.

  Returns:
    ((losses, gates, gradients), d_inputs): the loss of each task by name; gates
    with the mean weight of each expert in place of the weights; a dict of the
    name of each variable that `build` creates to its gradient of the weighted
    sum of losses, if it has one; and the gradient by inputs, [batch, in_dim]
    float32.
  """
  step = tf.train.get_or_create_global_step()
  loss_weights = [task.loss_weight(step) for task in tasks]
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
    d_inputs, *gradients = tf.gradients(
        [losses[task.name] for task in tasks], [inputs] + variables,
        loss_weights, gate_gradients=True)  # as tf.train.Optimizer does
    gates = tf.nest.map_structure(lambda x: share * tf.reduce_sum(x), gates)
    return (losses, gates, {
        v.name: _dense(g, v)
        for v, g in zip(variables, gradients) if g is not None}), d_inputs

  return micro_batching.accumulate(
      of_slice, (inputs, targets.labels, targets.weights), slices)


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
