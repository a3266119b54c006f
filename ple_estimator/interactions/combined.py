"""All interactions of a model together."""

import collections
import copy

import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.interactions import interaction


class Interactions:
  """The interactions of a model: what they need and what they give.

  An interaction may want vectors of its own for the values of all category
  columns. They lie in the embedding's tables behind the vectors that the
  experts read, so that there is one lookup and one update for both.
  """

  def __init__(self, parts, columns, num_numbers, num_tasks, dropout=0.0):
    """Checks the parts; builds no graph.

    Args:
      parts: list of interaction.Interaction, what Model.interactions is bound
        to.
      columns: list of category columns, see column_kinds.
      num_numbers: int, how many numbers the network reads of a row.
      num_tasks: int, how many logits all tasks have.
      dropout: float, Model.embedding_dropout.

    Raises:
      UserError: if a part is none, or does not suit the columns.
    """
    errors.check_list(
        'Model.interactions', parts, _is_one,
        'interactions, such as [@Wide(), @FM()]', may_be_empty=True)
    for part in parts:
      part.check(columns, num_numbers)
    self._parts = _named(parts)
    self._num_numbers = num_numbers
    self._dropout = dropout
    self._widths = [part.own_width(num_tasks) if columns else 0
                    for part in parts]

  def check_alone(self):
    """Raises UserError unless the parts can be a model without a network."""
    parts = self._parts.values()
    errors.check(
        parts, 'Model.network must be given, such as @PLE(), or Model.'
        'interactions must have one that gives logits, such as @Wide(); got '
        'None and none.')
    for part in parts:
      errors.check(
          part.to == 'logits', 'Model.network must be given, such as @PLE(), '
          'for %s in Model.interactions, which gives to the experts; got None.',
          type(part).__name__)

  def owns(self, name):
    """Whether a variable of this name belongs to one of the parts."""
    return name.split('/')[0] in self._parts

  def own_names(self, tasks):
    """The names and widths of these vectors, and the scopes of all parts.

    Args:
      tasks: names of the logits, one or several of each task.

    Returns:
      (own, scopes): a list of (name, width) in the order in which the vectors
      lie behind each other, and a list of str.
    """
    return [pair for width, (scope, part) in zip(
        self._widths, self._parts.items()) if width
            for pair in part.own_names(scope, tasks)], list(self._parts)

  def widened(self, columns):
    """Copies of category columns with room for all vectors."""
    own = sum(self._widths)
    if not own:
      return columns
    copies = [copy.copy(column) for column in columns]
    for column in copies:
      column.dim += own
      column.own_dim = own
      column.own_l2 = tuple(
          (width, part.own_l2())
          for width, part in zip(self._widths, self._parts.values()) if width)
    return copies

  def __call__(self, inputs, groups, num_tasks, purpose):
    """Builds all parts in the default graph.

    Args:
      inputs: [batch, n] float32: the embedding's vectors of the groups, then
        the numbers.
      groups: list of packing.Group of the widened columns.
      num_tasks: int, how many logits all tasks have.
      purpose: purpose.Purpose of the graph.

    Returns:
      (x, logits): [batch, in_dim] float32, what the experts read; and
      [batch, tasks] float32, or None where no part gives logits.
    """
    width = inputs.shape[1].value - self._num_numbers
    dropout = self._dropout if purpose.training and width else 0
    embedded, numbers = tf.split(inputs, [width, self._num_numbers], axis=1)
    blocks, own = _split(embedded, groups) if self._parts else [], sum(
        self._widths)
    vectors, x = blocks, embedded
    of_parts = [[] for _ in self._parts]
    if own:
      vectors, of_parts = self._cut(blocks)
      x = tf.concat([_flat(block) for block in vectors], axis=1)
    if dropout:
      x = tf.nn.dropout(x, rate=dropout)
    x = tf.concat([x, numbers], axis=1)
    names = [[column.name for column in group.columns] for group in groups]
    found = []
    for (scope, part), of_part in zip(self._parts.items(), of_parts):
      with tf.variable_scope(scope):
        found.append(part(interaction.Fields(
            names, vectors, of_part, numbers, x), num_tasks, purpose))
    return _put_together(x, found)

  def _cut(self, blocks):
    """Cuts the vectors of interactions off those that the experts read.

    By one op per block, whose gradient is one op too: the gradient of a slice
    is as large as the block, and those of several slices are added up.

    Args:
      blocks: list of [batch, columns, dim] float32.

    Returns:
      (vectors, of_parts): a list of [batch, columns, dim - own] float32; and
      for each part a list of [batch, columns, n] float32, empty if it has no
      vectors of its own.
    """
    widths = [width for width in self._widths if width]
    cut = [tf.split(block, [block.shape[2].value - sum(widths)] + widths,
                    axis=2) for block in blocks]
    vectors, *own = [list(pieces) for pieces in zip(*cut)]
    own = iter(own)
    return vectors, [next(own) if width else [] for width in self._widths]


def _put_together(x, found):
  """(what the experts read, logits or None) of a list of Contribution."""
  crossed = [of.crossed for of in found if of.crossed is not None]
  inputs = [of.inputs for of in found if of.inputs is not None]
  logits = [of.logits for of in found if of.logits is not None]
  if crossed or inputs:
    x = tf.concat((crossed or [x]) + inputs, axis=1)
  return x, tf.add_n(logits) if logits else None


def _split(embedded, groups):
  """Cuts what an embedding gave into [batch, columns, dim] blocks."""
  if not groups:
    return []
  widths = [len(group.columns) * group.dim for group in groups]
  return [tf.reshape(block, [-1, len(group.columns), group.dim])
          for block, group in zip(tf.split(embedded, widths, axis=1), groups)]


def _flat(block):
  """[batch, columns, dim] -> [batch, columns * dim]."""
  return tf.reshape(block, [-1, block.shape[1].value * block.shape[2].value])


def _is_one(part):
  return isinstance(part, interaction.Interaction)


def _named(parts):
  """Returns the parts by variable scope, an OrderedDict."""
  named = collections.OrderedDict()
  for part in parts:
    scope, count = part.scope, 1
    while scope in named:
      count += 1
      scope = '%s_%d' % (part.scope, count)
    named[scope] = part
  return named
