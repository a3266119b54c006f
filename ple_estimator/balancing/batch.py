"""The losses of a batch and their gradients, as a balancing needs them."""

import collections

import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.embeddings import keyed_table
from ple_estimator.network import gradients as gradients_lib
from ple_estimator.network import objective

Balanced = collections.namedtuple('Balanced', [
    'losses', 'gates', 'gradients', 'd_inputs', 'terms'])
Balanced.__doc__ = """The losses of a batch and what its step goes by.

Attributes:
  losses: dict of task name to float32 scalar, not weighted.
  gates: dict of gate name to a dict of expert name to float32 scalar, the mean
    weight of that expert.
  gradients: dict of variable name to gradient, of the variables of network and
    towers and of those of the balancing that the optimizer trains.
  d_inputs: [batch, in_dim] float32, the gradient by the network's input.
  terms: list of float32 scalars whose sum is the loss that is trained, without
    penalties.
"""

Apart = collections.namedtuple('Apart', [
    'losses', 'gates', 'gradients', 'd_inputs'])
Apart.__doc__ = """The gradients of each task's weighted loss for itself.

Attributes:
  losses: as in Balanced.
  gates: as in Balanced.
  gradients: list, for each task a dict of variable name to gradient.
  d_inputs: list, for each task [batch, in_dim] float32.
"""


class Batch:
  """A batch in a training graph, as a balancing.Balancing sees it.

  Attributes:
    tasks: list of tasks.Task, in the order of all lists over tasks.
    step: int64 scalar, the global step before the update.
    weights: list of float32 scalars, Task.loss_weight of each task.
    rows: list of float32 scalars, for each task the sum of the weights of its
      rows; 0 without a row of its sample space.
  """

  def __init__(self, tasks, inputs, targets, build, slices, plain, is_beside,
               tables):
    """Builds nothing but the weights.

    Args:
      tasks: list of tasks.Task.
      inputs: [batch, in_dim] float32, what `build` reads.
      targets: objective.Targets.
      build: function of [rows, in_dim] float32 to (logits, gates), see
        gradients.of_network.
      slices: int, see gradients.of_network.
      plain: a function like `build`, for another graph, without fused ops.
      is_beside: function of a variable's name to whether the variable belongs
        to an interaction and not to the network.
      tables: list of what lies below the inputs: the variables of embeddings
        and attention, and sources of keyed tables.
    """
    self.tasks = tasks
    self.step = tf.train.get_or_create_global_step().read_value()
    self.weights = [task.loss_weight(self.step) for task in tasks]
    self.rows = [tf.reduce_sum(targets.weights[task.name]) for task in tasks]
    self._inputs = inputs
    self._targets = targets
    self._build = build
    self._slices = slices
    self._plain = plain
    self._is_beside = is_beside
    self._tables = tables

  def together(self, weights):
    """Differentiates the sum of the losses with some weights.

    Args:
      weights: list of float32 scalars, one per task.

    Returns:
      Balanced, whose terms are the weighted losses.
    """
    (losses, gates, gradients), d_inputs = gradients_lib.of_network(
        self._build, self.tasks, self._inputs, self._targets, self._slices,
        weights)
    return Balanced(losses, gates, gradients, d_inputs,
                    self._terms(losses, weights))

  def apart(self):
    """Differentiates the loss of each task, times its weight, for itself.

    The gradients by network and towers take one pass back per task; there is
    one pass forward for all.

    Returns:
      Apart.
    """
    (losses, gates, gradients), d_inputs = gradients_lib.of_each_task(
        self._build, self.tasks, self._inputs, self._targets, self._slices,
        self.weights)
    return Apart(losses, gates, gradients, d_inputs)

  def combined(self, apart, factors, shared_factors=None):
    """Sums up the gradients of all tasks with some factors.

    Args:
      apart: Apart.
      factors: list of float32 scalars, what the gradients of each task, and its
        loss in the terms, are multiplied by.
      shared_factors: list of float32 scalars, the same for the gradients of
        what several tasks share, embeddings included; None is `factors`.

    Returns:
      Balanced.
    """
    shared = self.shared() if shared_factors else frozenset()
    shared_factors = shared_factors or factors
    gradients = {}
    for name in sorted(set().union(*apart.gradients)):
      of = shared_factors if name in shared else factors
      gradients[name] = tf.add_n([
          factor * found[name]
          for factor, found in zip(of, apart.gradients) if name in found])
    d_inputs = tf.add_n([
        factor * d for factor, d in zip(shared_factors, apart.d_inputs)])
    weights = [f * weight for f, weight in zip(factors, self.weights)]
    return Balanced(apart.losses, apart.gates, gradients, d_inputs,
                    self._terms(apart.losses, weights))

  def shared(self, of_network=False):
    """The variables that the losses of two or more tasks depend on.

    They are found in a graph of their own without fused ops, since such an op
    computes several networks at once. A variable is shared or not as a whole.

    Args:
      of_network: bool, whether to leave out those of interactions.

    Returns:
      frozenset of names. Embedding tables and attention are not among them:
      they lie below the input of the network, and all tasks share them.
    """
    names = _shared(self._plain, self.tasks, self._inputs, self._targets)
    return frozenset(name for name in names
                     if not (of_network and self._is_beside(name)))

  def products(self, apart):
    """The dot products of the tasks' gradients over all that tasks share.

    Args:
      apart: Apart.

    Returns:
      [tasks, tasks] float32: over the variables of `shared`, over those of
      attention, and over the rows of embeddings that the batch looks up.

    Raises:
      UserError: if the tasks share nothing.
    """
    found = [_products([of.get(name) for of in apart.gradients])
             for name in sorted(self.shared())]
    by_task = [tf.gradients(self._inputs, self._tables, d)
               for d in apart.d_inputs]
    owners = {id(table.source): table for table in keyed_table.of_graph()}
    for source, *gradients in zip(self._tables, *by_task):
      if gradients[0] is not None:
        found.append(_products(
            [owners[id(source)].masked(g) for g in gradients]
            if id(source) in owners else _summed_rows(gradients)))
    errors.check(
        found, 'Model.balancing must be None or @UncertaintyWeights() where '
        'tasks share no embedding and no weights of the network, as here.')
    return tf.add_n(found)

  def _terms(self, losses, weights):
    return [weight * losses[task.name]
            for task, weight in zip(self.tasks, weights)]


def _products(gradients):
  """[tasks, tasks] float32 of one tensor, or None for zeros, per task."""
  some = next(g for g in gradients if g is not None)
  flat = tf.stack([
      tf.zeros([tf.size(some)]) if g is None else tf.reshape(g, [-1])
      for g in gradients])
  return tf.matmul(flat, flat, transpose_b=True)


def _summed_rows(gradients):
  """Gradients of one table as tensors, in which each row comes once.

  Args:
    gradients: list, for each task the gradient of the same lookups: tensors, or
      tf.IndexedSlices with the same indices.
  """
  if not isinstance(gradients[0], tf.IndexedSlices):
    return gradients
  rows, position = tf.unique(gradients[0].indices)
  return [tf.unsorted_segment_sum(g.values, position, tf.size(rows))
          for g in gradients]


def _shared(build, tasks, inputs, targets):
  """The names of the variables that several losses depend on, a set."""
  with tf.Graph().as_default():
    tf.train.get_or_create_global_step()
    inputs, labels, weights = tf.nest.map_structure(
        lambda x: tf.placeholder(x.dtype, x.shape),
        (inputs, targets.labels, targets.weights))
    logits, _ = build(inputs)
    losses = objective.losses(
        tasks, objective.Targets(labels, weights), logits, training=True)
    reached = collections.Counter()
    for loss in losses.values():
      reached.update(_below(loss))
    return {variable.name for variable in tf.trainable_variables()
            if reached[variable.op.name] > 1}


def _below(tensor):
  """The names of the ops that a tensor can be differentiated through, a set."""
  found, waiting = set(), [tensor.op]
  while waiting:
    op = waiting.pop()
    if op.name not in found and op.type != 'StopGradient':
      found.add(op.name)
      waiting.extend(x.op for x in op.inputs)
  return found
