"""How ids become vectors.

An embedding packs its columns in groups (packing.py) and has a lookup and a
pooling per group. What `Embedding` leaves to its kinds is what the vectors of
packed rows are.
"""

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import native
from ple_estimator import packing


class Embedding:
  """What all kinds of embeddings share; a kind has `_vectors`."""

  _group_kind = packing.Group

  def __init__(self, stddev, emb_fusion):
    """Keeps the hyper-parameters; builds no graph.

    Args:
      stddev: float, of what vectors start from; None is 1 / sqrt(dim).
      emb_fusion: bool, whether columns of one dim and combiner form one group;
        else each column is a group of its own.

    Raises:
      UserError: if stddev is negative.
    """
    errors.check(stddev is None or stddev >= 0, '%s.stddev must not be '
                 'negative, got %r.', type(self).__name__, stddev)
    self._stddev = stddev
    self._emb_fusion = emb_fusion

  def groups(self, columns):
    """What the input is to pack: list of packing.Group."""
    return packing.groups(columns, self._emb_fusion, self._group_kind)

  def __call__(self, features, columns, training, op_fusion=False):
    """Looks up the vectors of all category columns.

    Args:
      features: dict of what the input made, the packed ids of `groups`.
      columns: the category columns (features.Hashed, HashedList, Integer).
      training: bool, whether values that are new may get a row.
      op_fusion: bool, whether to use the fused op for pooling.

    Returns:
      list of [batch, n] float32; side by side they are the vectors of all
      columns, [batch, sum of column.dim]. The zero vector where a row has no
      id.
    """
    found = []
    for group in self.groups(columns):
      packed = group.take(features)
      vectors = self._vectors(group, packed, training)
      found.append(pool(vectors, packed, group, op_fusion))
    return found

  def _vectors(self, group, packed, training):
    """The vectors of the rows of a batch.

    Args:
      group: packing.Group.
      packed: packing.Packed, [n] different rows.
      training: bool.

    Returns:
      [n, group.dim] float32.
    """
    raise NotImplementedError

  def _spread(self, dim):
    """The deviation that vectors of a width start with."""
    return dim ** -0.5 if self._stddev is None else self._stddev


def pool(vectors, packed, group, op_fusion=False):
  """Combines the vectors of each field by the combiner of the group.

  Args:
    vectors: [n, group.dim] float32, of packed.rows.
    packed: packing.Packed, the ids of a batch.
    group: packing.Group that packed them.
    op_fusion: bool, whether to use the fused op.

  Returns:
    [batch, columns * dim] float32, the columns in the order of the group; the
    zero vector where a field has no id.
  """
  count = len(group.columns)
  if op_fusion and native.available():
    return native.pool(
        vectors, packed.index, packed.splits, count, group.combiner)
  fields = tf.size(packed.splits) - 1
  field = tf.repeat(
      tf.range(fields), packed.splits[1:] - packed.splits[:-1])
  combine = {'mean': tf.sparse.segment_mean, 'sum': tf.sparse.segment_sum,
             'sqrtn': tf.sparse.segment_sqrt_n}[group.combiner]
  by_field = combine(vectors, packed.index, field, num_segments=fields)
  by_row = tf.transpose(
      tf.reshape(by_field, [count, -1, group.dim]), [1, 0, 2])
  return tf.reshape(by_row, [-1, count * group.dim])


@gin.register
class HashEmbedding(Embedding):
  """Tables whose rows are addressed by hash bucket.

  Values that hash to one bucket share a row. As
  tf.feature_column.embedding_column, table by table.
  """

  def __init__(self, stddev=None, emb_fusion=True):
    """Keeps the hyper-parameters; builds no graph.

    Args:
      stddev: float, of the truncated normal that rows start from; None is
        1 / sqrt(dim).
      emb_fusion: bool, whether columns of one dim and combiner lie in one
        table, looked up at once (see packing.py); else each has its own.
        Another choice is another model to a checkpoint.

    Raises:
      UserError: if stddev is negative.
    """
    super().__init__(stddev, emb_fusion)

  def _vectors(self, group, packed, training):
    del training  # every bucket has its row
    return _look_up(group, 'embedding', packed.rows, group.num_rows, group.dim,
                    self._spread(group.dim))


def _look_up(group, name, rows, num_rows, dim, stddev):
  """[n, dim] float32 rows of a table, which it makes."""
  vectors = tf.nn.embedding_lookup(
      table(group.name, name, num_rows, dim, stddev), rows,
      partition_strategy='div')
  vectors.set_shape([None, dim])
  return vectors


def table(scope, name, num_rows, dim, stddev):
  """A trainable [num_rows, dim] float32 variable, truncated normal at first."""
  with tf.variable_scope(scope):
    return tf.get_variable(
        name, [num_rows, dim],
        initializer=tf.truncated_normal_initializer(stddev=stddev))
