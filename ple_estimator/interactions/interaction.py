"""The base class of interactions, what they read and what they give."""

import collections

import tensorflow.compat.v1 as tf

from ple_estimator import errors

TARGETS = ('experts', 'logits')


class Fields(collections.namedtuple(
    'Fields', 'names vectors own numbers inputs')):
  """The columns of a batch, as an interaction reads them.

  Category columns of one width form a block. A column's vector is what the
  embedding and the combiner of the column make of its values.

  Attributes:
    names: list of lists, the names of the category columns, block by block.
    vectors: list of [batch, columns, dim] float32, one per block: the vectors
      that the experts read too.
    own: list of [batch, columns, n] float32, one per block: vectors that only
      this interaction reads, of the width that its `own_width` asked for.
    numbers: [batch, m] float32, the number columns; m may be 0.
    inputs: [batch, in_dim] float32, the vectors of all columns and the numbers,
      concatenated.
  """

  __slots__ = ()

  def num_numbers(self):
    return self.numbers.shape[1].value


class Contribution(collections.namedtuple(
    'Contribution', 'logits inputs crossed')):
  """What an interaction gives; what it does not give is None.

  Attributes:
    logits: [batch, tasks] float32, added to the logits of the tasks.
    inputs: [batch, n] float32, read by the experts beside the vectors.
    crossed: [batch, in_dim] float32, read by the experts in place of them.
  """

  __slots__ = ()

  def __new__(cls, logits=None, inputs=None, crossed=None):
    return super().__new__(cls, logits, inputs, crossed)


class Interaction:
  """The base class; a subclass defines `__call__`.

  Attributes:
    scope: str, the variable scope of what it trains.
  """

  scope = None

  def __init__(self, to='logits', scale=1.0, l2=0.0):
    """Checks and stores what several interactions have.

    Args:
      to: 'logits' or 'experts', where the result goes.
      scale: float, what the interaction reads of its own is this times what the
        table holds.
      l2: float, adds l2 / 2 times the squared norm of what it so reads, once
        for each different value of a batch, to the training loss.

    Raises:
      UserError: if a value is out of range.
    """
    owner = type(self).__name__
    errors.check_choice(owner + '.to', to, TARGETS)
    errors.check_number(owner + '.scale', scale, above=0)
    errors.check_number(owner + '.l2', l2, least=0)
    self.to = to
    self._scale = scale
    self._l2 = l2

  def own_width(self, num_tasks):
    """The width of the vectors that a value has for this interaction alone."""
    del num_tasks
    return 0

  def own_names(self, scope, tasks):
    """What the vectors of `own_width` consist of, for layout.json.

    Args:
      scope: str, the variable scope of this interaction.
      tasks: names of the logits, one or several of each task.

    Returns:
      list of (name, width).
    """
    return [(scope, self.own_width(len(tasks)))]

  def own_l2(self):
    """The strength of the penalty on these vectors, as the table holds them."""
    return self._l2 * self._scale ** 2

  def check(self, columns, num_numbers):
    """Raises UserError if these columns do not suit the interaction.

    Args:
      columns: list of category columns, see column_kinds.
      num_numbers: int, how many numbers the network reads of a row.
    """

  def __call__(self, fields, num_tasks, purpose):
    """Builds the interaction in the default graph and variable scope.

    Args:
      fields: Fields.
      num_tasks: int.
      purpose: purpose.Purpose of the graph.

    Returns:
      Contribution.
    """
    raise NotImplementedError

  def _check_one_dim(self, columns):
    """Raises UserError unless all columns have vectors of one width."""
    dims = collections.OrderedDict((c.dim, c.name) for c in columns)
    errors.check(
        len(dims) < 2, '%s needs columns whose vectors have one dim, got %s.',
        type(self).__name__, ' and '.join(
            '%d (%s)' % pair for pair in dims.items()))


def number_vectors(fields, width):
  """Makes a trained vector for each number column: [numbers, width] float32."""
  return tf.get_variable(
      'numbers', [fields.num_numbers(), width], tf.float32,
      tf.random_normal_initializer(stddev=0.01))


def sum_columns(blocks):
  """Sums [batch, columns, n] blocks over all columns: [batch, n]."""
  return tf.add_n([tf.reduce_sum(block, axis=1) for block in blocks])
