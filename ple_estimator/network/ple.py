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

import collections

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.network import mlp


@gin.register
class PLE:
  """Levels of shared and per-task experts, mixed by gates.

  In level j, the gate g = softmax(W h) of task k (Tang et al., eq. 1 to 4)
  reads the task's own input h and mixes the task's experts with the shared
  experts. The shared gate reads the shared input and mixes all experts of the
  level. The mixtures are the inputs of level j + 1. The last level has no
  shared gate. A gate that would have only one expert to choose from is left
  out.
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
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      expert_units: widths of each expert's layers.
      gate_units: widths of the hidden layers of each gate; () is the gate of
        the paper, the model zoo has hidden layers.
      num_levels: int, extraction levels.
      num_task_experts: int, experts private to one task, per task and level.
      num_shared_experts: int, experts that every task sees, per level.
      activation: str: relu, elu, selu, swish, tanh, sigmoid or leaky_relu.
      batch_norm: batch_norm.BatchNorm after each hidden layer; True is one
        with its defaults, False is none.
      dropout: float in [0, 1), share of hidden activations dropped.
      l2: float, each kernel adds l2 * |kernel|^2 / 2 to the loss.

    Raises:
      UserError: if there is no level, or a level without experts, or a value
        is out of range.
    """
    errors.check_integer('PLE.num_levels', num_levels, 1)
    errors.check_integer('PLE.num_task_experts', num_task_experts, 0)
    errors.check_integer('PLE.num_shared_experts', num_shared_experts, 0)
    errors.check(
        num_task_experts + num_shared_experts >= 1,
        'PLE.num_task_experts + PLE.num_shared_experts must be at least 1, '
        'got %r + %r.', num_task_experts, num_shared_experts)
    mlp.check_units('PLE.expert_units', expert_units, may_be_empty=False)
    mlp.check_units('PLE.gate_units', gate_units)
    self._expert_units = tuple(expert_units)
    self._gate_units = tuple(gate_units)
    self._num_levels = num_levels
    self._num_task_experts = num_task_experts
    self._num_shared_experts = num_shared_experts
    self._mlp = mlp.Mlp('PLE', activation, batch_norm, dropout, l2)

  def __call__(self, inputs, tasks, purpose):
    """Builds experts and gates in the default graph.

    Args:
      inputs: [batch, in_dim] float32, the concatenated embeddings.
      tasks: names of the tasks.
      purpose: purpose.Purpose of the graph.

    Returns:
      (per_task, gates): a dict of task name to [batch, expert_units[-1]]
      float32, the input of the task's tower; and a dict of 'level_<j>/<owner>'
      to a dict of expert name to [batch] float32, the expert's weight in that
      gate.
    """
    per_task = collections.OrderedDict((task, inputs) for task in tasks)
    shared, gates = inputs, {}
    for level in range(self._num_levels):
      with tf.variable_scope('level_%d' % level) as scope:
        last = level == self._num_levels - 1
        members = self._members(tasks, last)
        selectors = collections.OrderedDict(per_task, shared=shared)
        outputs = self._mlp(self._nets(selectors, members), purpose)
        per_task, shares = _mix(outputs, members, purpose.fused)
        shared = per_task.pop('shared', None)
        gates.update({'%s/%s' % (scope.name, owner): weights
                      for owner, weights in shares.items()})
        if purpose.experts is not None:
          purpose.experts.update(
              ('%s/%s' % (scope.name, name), output)
              for name, output in outputs.items()
              if not name.endswith('/gate'))
    return per_task, gates

  def _members(self, tasks, last):
    """Returns an OrderedDict of gate owner to the experts that it mixes.

    Args:
      tasks: names of the tasks, each the owner of a gate.
      last: bool, whether this is the last level, which has no shared gate.
    """
    def own(owner, count):
      return ['%s/expert_%d' % (owner, i) for i in range(count)]
    common = own('shared', self._num_shared_experts)
    members = collections.OrderedDict(
        (task, own(task, self._num_task_experts) + common) for task in tasks)
    if not last and common:
      everyone = [name for task in tasks
                  for name in own(task, self._num_task_experts)]
      members['shared'] = everyone + common
    return members

  def _nets(self, selectors, members):
    """Describes the networks of a level: every expert once, then the gates.

    Args:
      selectors: dict of owner to [batch, in_dim] float32, the input of the
        owner's experts and gate.
      members: OrderedDict of owner to names of experts.

    Returns:
      OrderedDict of variable scope to mlp.Net.
    """
    nets = collections.OrderedDict()
    for name in sum(members.values(), []):
      owner = name.split('/')[0]
      nets[name] = mlp.Net(selectors[owner], self._expert_units)
    for owner, experts in members.items():
      if len(experts) > 1:
        nets[owner + '/gate'] = mlp.Net(
            selectors[owner], self._gate_units, linear=len(experts))
    return nets


def _mix(outputs, members, fused):
  """Mixes the experts of every owner; one expert alone needs no gate.

  Args:
    outputs: dict of net name to its output.
    members: OrderedDict of owner to names of experts.
    fused: bool, whether to use the fused op.

  Returns:
    (mixtures, shares): an OrderedDict of owner to its mixture, and a dict of
    owner to a dict of expert name to the expert's weight.
  """
  gated = [owner for owner in members if owner + '/gate' in outputs]
  names = [name for name in outputs if not name.endswith('/gate')]
  mixed, weights = mlp.mix(
      [outputs[owner + '/gate'] for owner in gated],
      [outputs[name] for name in names],
      [[names.index(name) for name in members[owner]] for owner in gated],
      fused)
  mixtures = collections.OrderedDict(
      (owner, outputs[experts[0]]) for owner, experts in members.items())
  mixtures.update(zip(gated, mixed))
  shares = {owner: {} for owner in members}
  for owner, share in zip(gated, weights):
    shares[owner] = dict(zip(members[owner], tf.unstack(share, axis=1)))
  return mixtures, shares
