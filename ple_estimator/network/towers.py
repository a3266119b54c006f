"""Towers: what each task has of its own on top of the experts."""

import collections

import gin
import tensorflow.compat.v1 as tf

from ple_estimator.network import mlp


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
    mlp.check_units('Tower.units', units)
    self.mlp = mlp.Mlp('Tower', activation, batch_norm, dropout, l2)
    self._units = tuple(units)

  def net(self, x):
    """The network on x, [batch, in_dim] float32: a mlp.Net of width 1."""
    return mlp.Net(x, self._units, linear=1, linear_bias=True)


def logits(towers, inputs, training, precision, op_fusion=False):
  """Builds the towers of all tasks; those of one kind are one set of nets.

  Args:
    towers: collections.OrderedDict of task name to Tower.
    inputs: dict of task name to [batch, in_dim] float32.
    training: bool, whether batch norm and dropout are in training mode.
    precision: precision.Precision of the products.
    op_fusion: bool, whether to use the fused op.

  Returns:
    dict of task name to [batch] float32.
  """
  alike = collections.OrderedDict()
  for task, tower in towers.items():
    alike.setdefault(tower.mlp.settings, []).append((task, tower))
  found = {}
  for pairs in alike.values():
    outputs = pairs[0][1].mlp(
        collections.OrderedDict((task + '/tower', tower.net(inputs[task]))
                                for task, tower in pairs),
        training, precision, op_fusion)
    found.update((task, tf.squeeze(outputs[task + '/tower'], axis=1))
                 for task, _ in pairs)
  return found
