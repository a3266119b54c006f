"""Expert networks: how the tasks share one input.

One class covers the family, so an ablation is a change of numbers in gin:

  shared-bottom  num_levels = 1, num_task_experts = 0, num_shared_experts = 1
  MMoE           num_levels = 1, num_task_experts = 0, num_shared_experts = k
  CGC            num_levels = 1, num_task_experts = m, num_shared_experts = k
  PLE            num_levels > 1, num_task_experts = m, num_shared_experts = k
  single-task    num_levels = 1, num_task_experts = 1, num_shared_experts = 0

References:
  Caruana, "Multitask Learning", Machine Learning 28, 1997.
  Ma et al., "Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts", KDD 2018.
  Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task
    Learning (MTL) Model for Personalized Recommendations", RecSys 2020.
"""

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors

_ACTIVATIONS = {
    'relu': tf.nn.relu,
    'elu': tf.nn.elu,
    'selu': tf.nn.selu,
    'swish': tf.nn.swish,
    'tanh': tf.nn.tanh,
    'sigmoid': tf.nn.sigmoid,
    'leaky_relu': tf.nn.leaky_relu,
}


class Mlp:
  """Dense layers, each followed by activation, batch norm and dropout.

  The order (dense, activation, batch norm) is that of the model zoo.
  """

  def __init__(self, owner, activation, batch_norm, dropout, l2):
    """Keeps the hyper-parameters.

    Args:
      owner: str, the class whose bindings these are, for errors.
      activation: str, a key of _ACTIVATIONS.
      batch_norm: bool.
      dropout: float in [0, 1), the share of activations dropped.
      l2: float, each kernel adds l2 * |kernel|^2 / 2 to the loss.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check(activation in _ACTIVATIONS,
                 '%s.activation must be one of %s, got %r.', owner,
                 ', '.join(sorted(_ACTIVATIONS)), activation)
    errors.check(0 <= dropout < 1,
                 '%s.dropout must be in [0, 1), got %r.', owner, dropout)
    errors.check(l2 >= 0, '%s.l2 must not be negative, got %r.', owner, l2)
    self._activation = _ACTIVATIONS[activation]
    self._batch_norm = batch_norm
    self._dropout = dropout
    self._l2 = l2

  def __call__(self, x, units, training, precision):
    """[batch, in_dim] float32 -> [batch, units[-1]] float32."""
    for i, width in enumerate(units):
      x = self._activation(self.dense(x, width, precision, 'dense_%d' % i))
      if self._batch_norm:
        x = tf.layers.batch_normalization(
            x, training=training, name='norm_%d' % i)
      if self._dropout:
        x = tf.layers.dropout(x, self._dropout, training=training)
    return x

  def dense(self, x, width, precision, name, use_bias=True):
    """[batch, in_dim] float32 -> [batch, width] float32, no activation."""
    regularizer = (lambda w: self._l2 * tf.nn.l2_loss(w)) if self._l2 else None
    with tf.variable_scope(name):
      kernel = tf.get_variable(
          'kernel', [x.shape[-1].value, width], tf.float32,
          tf.glorot_uniform_initializer(), regularizer)
      y = precision.matmul(x, kernel)
      if not use_bias:
        return y
      bias = tf.get_variable(
          'bias', [width], tf.float32, tf.zeros_initializer())
      return tf.nn.bias_add(y, bias)


def mix_experts(gate, experts):
  """Mixes experts by the weights of a gate.

  Args:
    gate: [batch, n] float32, rows sum to 1.
    experts: n tensors, each [batch, dim] float32.

  Returns:
    [batch, dim] float32, a convex combination of the experts.
  """
  return tf.reduce_sum(
      gate[:, :, tf.newaxis] * tf.stack(experts, axis=1), axis=1)


@gin.register
class PLE:
  """Levels of shared and per-task experts, mixed by gates.

  Level j, task k (Tang et al., eq. 1 to 4): the gate g = softmax(W h) looks
  at the task's own input h and mixes the task's experts with the shared ones;
  the shared gate looks at the shared input and mixes all experts of the
  level. Their mixtures are the inputs of level j + 1. The last level has no
  shared gate. Where a gate has one expert to choose from, there is none.
  """

  def __init__(self,
               expert_units=(256, 128, 64),
               gate_units=(256, 128, 64),
               num_levels=3,
               num_task_experts=2,
               num_shared_experts=1,
               activation='relu',
               batch_norm=True,
               dropout=0.0,
               l2=0.0):
    """Keeps the hyper-parameters; builds no graph.

    Args:
      expert_units: widths of each expert's layers.
      gate_units: widths of the hidden layers of each gate; () is the gate of
        the paper, the model zoo has hidden layers.
      num_levels: int, extraction levels.
      num_task_experts: int, experts private to one task, per task and level.
      num_shared_experts: int, experts that every task sees, per level.
      activation: str: relu, elu, selu, swish, tanh, sigmoid or leaky_relu.
      batch_norm: bool, whether to normalise after each hidden layer.
      dropout: float in [0, 1), share of hidden activations dropped.
      l2: float, each kernel adds l2 * |kernel|^2 / 2 to the loss.

    Raises:
      UserError: if there is no level, or a level without experts, or a value
        is out of range.
    """
    errors.check(num_levels >= 1,
                 'PLE.num_levels must be at least 1, got %r.', num_levels)
    errors.check(
        min(num_task_experts, num_shared_experts) >= 0 and
        num_task_experts + num_shared_experts >= 1,
        'PLE.num_task_experts + PLE.num_shared_experts must be at least 1, '
        'got %r + %r.', num_task_experts, num_shared_experts)
    errors.check(expert_units and min(expert_units) >= 1,
                 'PLE.expert_units must be positive, got %r.', expert_units)
    errors.check(not gate_units or min(gate_units) >= 1,
                 'PLE.gate_units must be positive, got %r.', gate_units)
    self._expert_units = tuple(expert_units)
    self._gate_units = tuple(gate_units)
    self._num_levels = num_levels
    self._num_task_experts = num_task_experts
    self._num_shared_experts = num_shared_experts
    self._mlp = Mlp('PLE', activation, batch_norm, dropout, l2)

  def __call__(self, inputs, tasks, training, precision):
    """Builds experts and gates in the default graph.

    Args:
      inputs: [batch, in_dim] float32, the concatenated embeddings.
      tasks: names of the tasks.
      training: bool, whether batch norm and dropout are in training mode.
      precision: precision.Precision of the products.

    Returns:
      (per_task, gates): dict of task name to [batch, expert_units[-1]]
      float32, what the task's tower reads; and dict of 'level_<j>/<owner>' to
      a dict of expert name to [batch] float32, its weight in that gate.
    """
    build = _Build(self._mlp, training, precision)
    per_task, shared, gates = {task: inputs for task in tasks}, inputs, {}
    for level in range(self._num_levels):
      with tf.variable_scope('level_%d' % level) as scope:
        last = level == self._num_levels - 1
        per_task, shared, mixed = self._extract(build, per_task, shared, last)
        gates.update({'%s/%s' % (scope.name, owner): weights
                      for owner, weights in mixed.items()})
    return per_task, gates

  def _extract(self, build, per_task, shared, last):
    """One level; returns the next level's (per_task, shared) and the gates."""
    common = self._experts(build, shared, self._num_shared_experts, 'shared')
    own = {task: self._experts(build, x, self._num_task_experts, task)
           for task, x in per_task.items()}
    outputs, gates = {}, {}
    for task, x in per_task.items():
      outputs[task], gates[task] = self._mix(
          build, x, own[task] + common, task)
    if last or not self._num_shared_experts:
      return outputs, None, gates
    everyone = [expert for task in per_task for expert in own[task]] + common
    shared, gates['shared'] = self._mix(build, shared, everyone, 'shared')
    return outputs, shared, gates

  def _experts(self, build, x, count, owner):
    """Returns count pairs (name, [batch, expert_units[-1]])."""
    experts = []
    for i in range(count):
      name = '%s/expert_%d' % (owner, i)
      with tf.variable_scope(name):
        experts.append((name, build.hidden(x, self._expert_units)))
    return experts

  def _mix(self, build, selector, experts, owner):
    """Returns the mixture of named experts, and the weight of each by name."""
    names, outputs = zip(*experts)
    if len(experts) == 1:
      return outputs[0], {}
    with tf.variable_scope('%s/gate' % owner):
      hidden = build.hidden(selector, self._gate_units)
      gate = tf.nn.softmax(build.linear(hidden, len(experts), 'mix'))
    return (mix_experts(gate, outputs),
            dict(zip(names, tf.unstack(gate, axis=1))))


@gin.register
class Tower:
  """What is a task's own on top of the experts: hidden layers and a logit."""

  def __init__(self, units=(256, 128, 64), activation='relu', batch_norm=True,
               dropout=0.0, l2=0.0):
    """Keeps the hyper-parameters; builds no graph.

    Args:
      units: widths of the hidden layers; () is a linear tower.
      activation: str, as in PLE.
      batch_norm: bool, as in PLE.
      dropout: float, as in PLE.
      l2: float, as in PLE.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check(not units or min(units) >= 1,
                 'Tower.units must be positive, got %r.', units)
    self._units = tuple(units)
    self._mlp = Mlp('Tower', activation, batch_norm, dropout, l2)

  def __call__(self, x, training, precision):
    """[batch, in_dim] float32 -> [batch] float32, the logit."""
    build = _Build(self._mlp, training, precision)
    hidden = build.hidden(x, self._units)
    return tf.squeeze(build.linear(hidden, 1, 'logit', use_bias=True), axis=1)


class _Build:
  """An Mlp with what is fixed for one graph."""

  def __init__(self, mlp, training, precision):
    self._mlp = mlp
    self._training = training
    self._precision = precision

  def hidden(self, x, units):
    return self._mlp(x, units, self._training, self._precision)

  def linear(self, x, width, name, use_bias=False):
    return self._mlp.dense(x, width, self._precision, name, use_bias)
