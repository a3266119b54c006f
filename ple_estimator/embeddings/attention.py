"""Attention: a list is combined by how its items go with another column.

The local activation unit of DIN (Zhou et al., "Deep Interest Network for
Click-Through Rate Prediction", KDD 2018, section 4.3). Let e_1 ... e_n be the
vectors of the items of a list, such as what a user has looked at, and c the
vector of the candidate in the same row: of the column that the list calls its
query, such as the item that is shown. The vector of the list is

  sum over i of a(e_i, c) e_i            (equation 3)
  a(e, c) = mlp([e, c, e - c, e * c])

So it is another one for each candidate, and items that have nothing to do with
the candidate need not count. A list without items has the zero vector, and a
candidate that is missing is the zero vector.

Lists of one length, whose items at one place belong together, such as items and
their categories, may be looked at by one network, as in the paper, where an
item is the concatenation of its embeddings. Let e_i^l be the vector that the
joint list l has at place i, zero where its item is empty, and c^l that of its
query. With e_i = [e_i^1, e_i^2, ...] and c = [c^1, c^2, ...], in the order of
the names of the lists, all of them have one set of weights:

  vector of the list l = sum over i of a(e_i, c) e_i^l

A joint list without a query has no part in c, nor in e - c and e * c. A place
at which all of the lists are empty does not count.

The items of all lists of a batch stand one behind another (packing.py). There
is no padding to the longest list, and so nothing that a mask would have to
leave out.
"""

import collections

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data.columns import base
from ple_estimator.embeddings import hashed
from ple_estimator.network import mlp

# The items of one list of a batch: the column; their [items, column.dim]
# vectors; and [items] int32, the row of each, and its place, None in a list
# that is not joint. `batch` is the number of rows, an int32 scalar.
_List = collections.namedtuple('_List', 'column vectors row place batch')


@gin.register
class Attention:
  """Finds the weights of the items of lists with the combiner 'attention'.

  Each such list has a network of its own, attention/<column>, which ends in one
  linear unit; joint lists have one together, attention/aligned_<aligned>.
  TensorFlow's own ops compute it, with and without fused kernels.
  What interactions read of an item has the weight that the experts' vector has.
  """

  def __init__(self, units=(80, 40), activation='sigmoid', normalize=False,
               dropout=0.0, l2=0.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      units: widths of the hidden layers; () is a linear function. The paper
        draws one layer of 36.
      activation: str, as in PLE. The paper's PReLU is a leaky_relu with trained
        slopes. Its Dice needs means over the items of a batch, and averages of
        them for a served model, which the sigmoid does without.
      normalize: bool, whether the weights of a list are the softmax of what the
        network gives. The paper leaves this out, so that the sum of the weights
        says how much interest there is in the candidate.
      dropout: float, as in PLE.
      l2: float, as in PLE.

    Raises:
      UserError: if a value is out of range.
    """
    mlp.check_units('Attention.units', units)
    errors.check_bool('Attention.normalize', normalize)
    self._mlp = mlp.Mlp('Attention', activation, False, dropout, l2)
    self._units = tuple(units)
    self._normalize = normalize

  def __call__(self, found, parts, purpose):
    """Builds the networks in the default graph and combines the lists.

    Args:
      found: list, what the embedding returned for each of parts.
      parts: list of packing.Part, of all groups.
      purpose: purpose.Purpose of the graph.

    Returns:
      list of [batch, columns * dim] float32, one for each of parts. A vector
      is zero where a list has no items.
    """
    errors.check(
        len(found) == len(parts) and all(
            isinstance(of, hashed.Items) == part.attends
            for of, part in zip(found, parts)), 'Model.embedding must return '
        'one value per part of a group, and hashed.Items of one that attends, '
        "for lists with the combiner 'attention'.")
    vectors = {
        column.name: of[:, i * part.dim:(i + 1) * part.dim]
        for of, part in zip(found, parts) if not part.attends
        for i, column in enumerate(part.columns)}
    combined = {}
    for members in _sets([
        of_list for of, part in zip(found, parts) if part.attends
        for of_list in _lists(of, part)]):
      combined.update(self._combined(members, vectors, purpose))
    return [tf.concat([combined[column.name] for column in part.columns],
                      axis=1) if part.attends else of
            for of, part in zip(found, parts)]

  def _combined(self, members, vectors, purpose):
    """Combines the lists that one network looks at.

    Args:
      members: list of _List, whose vectors at one position belong together.
      vectors: dict of the name of a column to its [batch, dim] vectors.
      purpose: purpose.Purpose.

    Returns:
      dict of the name of each list to its [batch, dim] float32 vectors.
    """
    row, batch = members[0].row, members[0].batch
    weights = self._weights(members, vectors, purpose)
    if self._normalize:
      weights = _softmax(weights, row, batch)
    return {of.column.name: tf.math.unsorted_segment_sum(
        weights * of.vectors, row, batch) for of in members}

  def _weights(self, members, vectors, purpose):
    """What the network of some lists gives for each item, [items, 1] float32.

    Args:
      members, vectors, purpose: as `_combined`.
    """
    net = mlp.Net(
        _Comparison(
            [_of_experts(of.vectors, of.column) for of in members],
            [of.column.query and _of_experts(
                vectors[of.column.query], of.column) for of in members],
            members[0].row), self._units, linear=1, linear_bias=True)
    scope = 'attention/' + _scope(members[0].column)
    # The fused op is no faster for one network, and runs it in one thread.
    return self._mlp(collections.OrderedDict([(scope, net)]),
                     purpose._replace(fused=False))[scope]


class _Comparison(mlp.Input):
  """The input [e, c, e - c, e * c] of a network, which is never made.

  A kernel of the rows A, B, C and D gives e A + c B + (e - c) C + (e * c) D =
  [e, e * c] [A + C; D] + c (B - C). The last part is computed once for each row
  of the batch, not for each item, and the first is half as wide.
  """

  def __init__(self, e, c, row):
    """Stores the arguments.

    Args:
      e: list of [items, width] float32, of each list that is looked at.
      c: list of [batch, width] float32, of its query, or None.
      row: [items] int32.
    """
    self._e = e
    self._c = c
    self._row = row
    self._widths = [of.shape[1].value for of in e]
    self._with_query = [
        i for i, query in enumerate(c) if query is not None]
    compared = sum(self._widths[i] for i in self._with_query)
    self._split = [sum(self._widths)] + 3 * [compared]
    self.width = sum(self._split)

  def times(self, kernel, precision):
    of_e, of_c, of_difference, of_product = tf.split(kernel, self._split)
    c = _side_by_side([self._c[i] for i in self._with_query])
    compared = _side_by_side([self._e[i] for i in self._with_query])
    by_item = precision.matmul(
        tf.concat(self._e + [compared * tf.gather(c, self._row)], axis=1),
        tf.concat([of_e + self._of_all(of_difference), of_product], axis=0))
    return by_item + tf.gather(
        precision.matmul(c, of_c - of_difference), self._row)

  def _of_all(self, kernel):
    """Rows of the lists with a query -> rows of all lists, zeros of others."""
    pieces = iter(tf.split(
        kernel, [self._widths[i] for i in self._with_query]))
    return tf.concat([
        next(pieces) if i in self._with_query else
        tf.zeros([width, kernel.shape[1].value])
        for i, width in enumerate(self._widths)], axis=0)


def _scope(column):
  """The name of the network that looks at a list."""
  if column.joint:
    return 'aligned_' + base.legal_scope(column.aligned)
  return column.scope


def _of_experts(vectors, column):
  """What the experts read of vectors, without that of interactions."""
  return vectors[:, :column.dim - column.own_dim]


def _side_by_side(tensors):
  return tensors[0] if len(tensors) == 1 else tf.concat(tensors, axis=1)


def _lists(items, part):
  """The lists of a part.

  Args:
    items: hashed.Items, what the embedding returned for the part.
    part: packing.Part.

  Returns:
    list of _List.
  """
  packed, found = items.packed, []
  batch = (tf.size(packed.splits) - 1) // len(part.columns)
  for i, column in enumerate(part.columns):
    splits = packed.splits[i * batch:(i + 1) * batch + 1]
    first, end = splits[0], splits[-1]
    vectors = tf.gather(items.vectors, packed.index[first:end])
    vectors.set_shape([None, part.dim])
    found.append(_List(
        column, vectors, tf.repeat(tf.range(batch), splits[1:] - splits[:-1]),
        packed.places[first:end] if column.joint else None, batch))
  return found


def _sets(lists):
  """The lists that one network looks at, each a list of _List.

  Args:
    lists: list of _List, of all columns.
  """
  found = collections.OrderedDict()
  for of in lists:
    found.setdefault(_scope(of.column), []).append(of)
  # By name, so that the layout of a network does not depend on the groups.
  return [_beside(sorted(members, key=lambda of: of.column.name))
          if members[0].column.joint else members
          for members in found.values()]


def _beside(members):
  """Puts the items at one place of joint lists at one position.

  Args:
    members: list of _List.

  Returns:
    list of _List without places, whose rows are the same: of each place that an
    item of some list stands at. A list that has none there has a zero vector.
  """
  longest = 1 + tf.reduce_max(tf.concat(
      [[0]] + [of.place for of in members], axis=0))
  longest = tf.cast(longest, tf.int64)
  keys, at = tf.unique(tf.concat(
      [tf.cast(of.row, tf.int64) * longest + tf.cast(of.place, tf.int64)
       for of in members], axis=0))
  row = tf.cast(keys // longest, tf.int32)
  sizes = [tf.size(of.row) for of in members]
  return [of._replace(
      vectors=tf.math.unsorted_segment_sum(
          of.vectors, positions, tf.size(keys)), row=row, place=None)
          for of, positions in zip(members, tf.split(at, sizes))]


def check(attention, columns):
  """Raises UserError unless there is attention just where a list needs it.

  Args:
    attention: Attention or None, what Model.attention is bound to.
    columns: list of category columns, see column_kinds.
  """
  errors.check_is_a('Model.attention', attention, Attention, '@Attention()',
                    or_none=True)
  lists = [column.name for column in columns if column.attends]
  errors.check(
      attention is None or lists, 'Model.attention must be None where no '
      "column of FeatureSpec.columns has the combiner 'attention', got %s.",
      errors.written(attention))
  errors.check(
      attention is not None or not lists, 'Model.attention must be given, such '
      "as @Attention(), for the combiner 'attention' of %s, got None.",
      ', '.join(lists))


def _softmax(scores, row, batch):
  """The softmax of [items, 1] scores over the items of each row."""
  most = tf.stop_gradient(tf.math.unsorted_segment_max(scores, row, batch))
  powers = tf.exp(scores - tf.gather(most, row))
  return powers / tf.gather(
      tf.math.unsorted_segment_sum(powers, row, batch), row)
