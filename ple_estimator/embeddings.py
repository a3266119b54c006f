"""How ids become vectors."""

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import native
from ple_estimator import packing


@gin.register
class HashEmbedding:
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
    errors.check(stddev is None or stddev >= 0,
                 'HashEmbedding.stddev must not be negative, got %r.', stddev)
    self._stddev = stddev
    self._emb_fusion = emb_fusion

  def groups(self, columns):
    """What the input is to pack: list of packing.Group; none without fusion."""
    return packing.groups(columns) if self._emb_fusion else []

  def __call__(self, features, columns, op_fusion=False):
    """Looks up the vectors of all category columns.

    Args:
      features: dict of what the input made: packed ids of `groups`, or column
        name to ids as FeatureSpec.encode makes them.
      columns: the category columns (features.Hashed, HashedList, Integer).
      op_fusion: bool, whether to use the fused op for pooling.

    Returns:
      list of [batch, n] float32; side by side they are the vectors of all
      columns, [batch, sum of column.dim]. The zero vector where a row has no
      id.
    """
    if self._emb_fusion:
      return [self._pooled(features, group, op_fusion)
              for group in self.groups(columns)]
    return [self._lookup(features[column.name], column) for column in columns]

  def _pooled(self, features, group, op_fusion):
    packed = group.take(features)
    table = self._table(group.name, group.num_rows, group.dim)
    vectors = tf.nn.embedding_lookup(
        table, packed.rows, partition_strategy='div')
    vectors.set_shape([None, group.dim])
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

  def _lookup(self, ids, column):
    table = self._table(column.scope, column.num_buckets, column.dim)
    if isinstance(ids, tf.SparseTensor):
      return tf.nn.safe_embedding_lookup_sparse(
          [table], ids, combiner=column.combiner)
    vectors = tf.nn.embedding_lookup(table, tf.maximum(ids, 0))
    known = tf.cast(ids >= 0, tf.float32)
    return vectors * known[:, tf.newaxis]

  def _table(self, scope, num_rows, dim):
    stddev = dim ** -0.5 if self._stddev is None else self._stddev
    with tf.variable_scope(scope):
      return tf.get_variable(
          'embedding', [num_rows, dim],
          initializer=tf.truncated_normal_initializer(stddev=stddev))
