"""Towers: the layers on top of the experts that belong to one task."""

import collections

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.network import mlp


@gin.register
class Tower:
  """The hidden layers and the logits of one task, on top of the experts.

  Attributes:
    mlp: mlp.Mlp.
    bias_scale: float, see __init__.
  """

  def __init__(self, units=(256, 128, 64), activation='relu', batch_norm=True,
               dropout=0.0, l2=0.0, logit_initializer='zeros', bias_scale=32.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      units: widths of the hidden layers; () is a linear tower.
      activation: str, as in PLE.
      batch_norm: bool, as in PLE.
      dropout: float, as in PLE.
      l2: float, as in PLE.
      logit_initializer: what the kernel of the logit starts from: 'zeros', so
        that the first predictions are those of its bias and not numbers drawn
        at random; or 'glorot_uniform'.
      bias_scale: float, the bias of the logit is this times its variable. Under
        Adam it then moves this many times as far in a step as a weight. A rare
        label needs that: as the logits spread, the mean of their sigmoids
        grows, and behind batch norm the bias alone can bring it down again.

    Raises:
      UserError: if a value is out of range.
    """
    mlp.check_units('Tower.units', units)
    self.mlp = mlp.Mlp('Tower', activation, batch_norm, dropout, l2)
    errors.check_choice('Tower.logit_initializer', logit_initializer,
                        ('zeros', 'glorot_uniform'))
    self._units = tuple(units)
    errors.check_number('Tower.bias_scale', bias_scale, above=0)
    self._logit_zeros = logit_initializer == 'zeros'
    self.bias_scale = bias_scale

  def net(self, x):
    """Describes the network on x [batch, in_dim] float32: an mlp.Net."""
    return mlp.Net(x, self._units, linear=1, linear_bias=True,
                   linear_zeros=self._logit_zeros,
                   bias_scale=self.bias_scale)


def bias(task, tower):
  """The bias of the logit of a task, which `logits` has made.

  Args:
    task: str.
    tower: Tower, or an object of the user's own.

  Returns:
    (variable, scale): the [num_logits] variable and what it is multiplied by;
    None for a tower without one.
  """
  name = task + '/tower/logit/bias'
  return next(((variable, getattr(tower, 'bias_scale', 1.0))
               for variable in tf.trainable_variables()
               if variable.op.name == name), None)


def logits(towers, inputs, purpose, widths=None):
  """Builds the towers of all tasks; those with equal settings form one set.

  Args:
    towers: collections.OrderedDict of task name to Tower.
    inputs: dict of task name to [batch, in_dim] float32.
    purpose: purpose.Purpose of the graph.
    widths: dict of task name to int, how many logits it has; None is 1 each.

  Returns:
    dict of task name to [batch] float32, or to [batch, width] of a task with
    several logits.
  """
  widths = widths or dict.fromkeys(towers, 1)
  alike = collections.OrderedDict()
  for task, tower in towers.items():
    alike.setdefault(tower.mlp.settings, []).append((task, tower))
  by_task = {}
  for pairs in alike.values():
    nets = collections.OrderedDict(
        (task + '/tower', _net(tower, inputs[task], widths[task]))
        for task, tower in pairs)
    outputs = pairs[0][1].mlp(nets, purpose)
    for task, _ in pairs:
      output = outputs[task + '/tower']
      by_task[task] = (output if widths[task] > 1
                       else tf.squeeze(output, axis=1))
  return by_task


def _net(tower, x, width):
  """The mlp.Net of a tower with so many logits."""
  net = tower.net(x)
  return net if width == 1 else net._replace(linear=width)
