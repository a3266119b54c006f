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

The items of all lists of a batch stand one behind another (packing.py). There
is no padding to the longest list, and so nothing that a mask would have to
leave out.
"""

import collections

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.embeddings import hashed
from ple_estimator.network import mlp


@gin.register
class Attention:
  """Finds the weights of the items of lists with the combiner 'attention'.

  Each such list has a network of its own, attention/<column>, which ends in one
  linear unit. TensorFlow's own ops compute it, with and without fused kernels.
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
    return [self._combined(of, part, vectors, purpose) if part.attends else of
            for of, part in zip(found, parts)]

  def _combined(self, items, part, vectors, purpose):
    """The [batch, columns * dim] vectors of the lists of a part.

    Args:
      items: hashed.Items.
      part: packing.Part.
      vectors: dict of the name of a column to its [batch, part.dim] vectors.
      purpose: purpose.Purpose.
    """
    packed, combined = items.packed, []
    batch = (tf.size(packed.splits) - 1) // len(part.columns)
    for i, column in enumerate(part.columns):
      splits = packed.splits[i * batch:(i + 1) * batch + 1]
      row = tf.repeat(tf.range(batch), splits[1:] - splits[:-1])
      of_items = tf.gather(
          items.vectors, packed.index[splits[0]:splits[-1]])
      of_items.set_shape([None, part.dim])
      weights = self._weights(
          column, of_items, tf.gather(vectors[column.query], row), purpose)
      if self._normalize:
        weights = _softmax(weights, row, batch)
      combined.append(tf.math.unsorted_segment_sum(
          weights * of_items, row, batch))
    return tf.concat(combined, axis=1)

  def _weights(self, column, items, candidates, purpose):
    """What the network of a column gives for each item, [items, 1] float32.

    Args:
      column: column_kinds.Column.
      items: [items, column.dim] float32.
      candidates: [items, column.dim] float32, that of each item's row.
      purpose: purpose.Purpose.
    """
    width = column.dim - column.own_dim
    e, c = items[:, :width], candidates[:, :width]
    scope = 'attention/' + column.scope
    net = mlp.Net(tf.concat([e, c, e - c, e * c], axis=1), self._units,
                  linear=1, linear_bias=True)
    # The fused op runs each network in one thread, and this is one alone.
    return self._mlp(collections.OrderedDict([(scope, net)]),
                     purpose._replace(fused=False))[scope]


def check(attention, columns):
  """Raises UserError unless there is attention just where a list needs it.

  Args:
    attention: Attention or None, what Model.attention is bound to.
    columns: list of category columns, see column_kinds.
  """
  errors.check_is_a('Model.attention', attention, Attention, '@Attention()',
                    or_none=True)
  lists = [column.name for column in columns if column.query is not None]
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
