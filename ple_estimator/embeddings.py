"""How ids become vectors."""

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors


@gin.register
class HashEmbedding:
  """One table per column, its rows addressed by hash bucket.

  Values that hash to one bucket share a row. As
  tf.feature_column.embedding_column, table by table.
  """

  def __init__(self, stddev=None):
    """Keeps the hyper-parameters; builds no graph.

    Args:
      stddev: float, of the truncated normal that rows start from; None is
        1 / sqrt(dim).

    Raises:
      UserError: if stddev is negative.
    """
    errors.check(stddev is None or stddev >= 0,
                 'HashEmbedding.stddev must not be negative, got %r.', stddev)
    self._stddev = stddev

  def __call__(self, features, columns):
    """Looks up the vectors of all category columns.

    Args:
      features: dict of column name to ids, as FeatureSpec.encode makes them.
      columns: the category columns (features.Hashed, HashedList, Integer).

    Returns:
      list of [batch, column.dim] float32, in the order of columns; the zero
      vector where a row has no id.
    """
    return [self._lookup(features[column.name], column) for column in columns]

  def _lookup(self, ids, column):
    stddev = column.dim ** -0.5 if self._stddev is None else self._stddev
    with tf.variable_scope(column.scope):
      table = tf.get_variable(
          'embedding', [column.num_buckets, column.dim],
          initializer=tf.truncated_normal_initializer(stddev=stddev))
      if isinstance(ids, tf.SparseTensor):
        return tf.nn.safe_embedding_lookup_sparse(
            [table], ids, combiner=column.combiner)
      vectors = tf.nn.embedding_lookup(table, tf.maximum(ids, 0))
      known = tf.cast(ids >= 0, tf.float32)
      return vectors * known[:, tf.newaxis]
