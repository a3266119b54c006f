"""Embeddings with tables of a fixed height, and their base class.

An embedding packs its columns in groups (packing.py) and has one lookup and one
pooling per group; the lists of groups with attention are pooled later, by
attention.py. `Embedding` is the base class; a subclass defines what the vectors
of packed rows are.
"""

import collections
import math

import gin
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import packing
from ple_estimator.embeddings import deeprec
from ple_estimator.engine import native

Items = collections.namedtuple('Items', 'vectors packed')
Items.__doc__ = """The items of a group of lists, not combined.

Attributes:
  vectors: [n, group.dim] float32, the vectors of packed.rows.
  packed: packing.Packed.
"""


class Embedding:
  """The base class of embeddings; a subclass defines `_vectors`."""

  _group_kind = packing.Group
  _has_rows = False  # whether the vector of an id is a row of its own

  def __init__(self, stddev, emb_fusion, l2=0.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      stddev: float, the standard deviation that vectors are drawn with; None
        is 1 / sqrt(dim). A column with a 'stddev' has its own.
      emb_fusion: bool, whether columns of one dim and combiner form one group;
        else each column is a group of its own.
      l2: float, the strength of the penalty: training adds l2 / 2 times the
        squared norm of each different row that a batch looks up to its loss. A
        column with an 'l2' has its own.

    Raises:
      UserError: if stddev or l2 is negative.
    """
    owner = type(self).__name__
    errors.check_number(owner + '.stddev', stddev, least=0, or_none=True)
    errors.check_bool(owner + '.emb_fusion', emb_fusion)
    errors.check_number(owner + '.l2', l2, least=0)
    self._stddev = stddev
    self._emb_fusion = emb_fusion
    self._l2 = l2

  def groups(self, columns):
    """Returns a list of packing.Group: how the input has to pack the ids.

    Raises:
      UserError: if a column is not to be trained, or is to start from a file,
        and the embedding has no rows for which that is possible.
    """
    for column in columns:
      errors.check(
          column.trainable or self._has_rows, "FeatureSpec.columns, %r: "
          "'trainable' must be True with %s: bind Model.embedding = "
          '@HashEmbedding() to leave vectors as they start.', column.name,
          type(self).__name__)
      errors.check(
          column.vectors is None or self._has_rows, "FeatureSpec.columns, %r: "
          "'vectors' must be None with %s: bind Model.embedding = "
          '@HashEmbedding() to start from the vectors of a file, got %r.',
          column.name, type(self).__name__, column.vectors)
    return packing.groups(
        columns, self._emb_fusion, kind=self._group_kind)

  def __call__(self, features, columns, purpose):
    """Looks up the vectors of all category columns.

    Args:
      features: dict of name to tensor from the input, with the packed ids of
        `groups`.
      columns: the category columns (column_kinds.Hashed, HashedList, Integer).
      purpose: purpose.Purpose of the graph. In training new values may get a
        row. Tables that grow lie on purpose.num_ps parameter servers; other
        tables are variables, which the partitioner of the current variable
        scope cuts.

    Returns:
      list with [batch, columns * dim] float32 for each part of `groups`, or
      Items of a part that attends. Concatenated, these combined, they are the
      vectors of all columns, [batch, sum of column.dim]. The vector is zero
      where a row has no id.
    """
    return [vectors for group in self.groups(columns)
            for vectors in self._pooled(group, group.take(features), purpose)]

  def _pooled(self, group, packed, purpose):
    """Looks up and pools the vectors of a group.

    Returns:
      list of [batch, columns * dim] float32, or Items of a part that attends,
      one for each of group.parts.
    """
    vectors, rows = self._vectors_and_rows(group, packed, purpose)
    if purpose.training and self._strength(group):
      # Only here: what is evaluated is the loss without this penalty, which
      # depends on the rows of a batch.
      tf.add_to_collection(
          tf.GraphKeys.REGULARIZATION_LOSSES,
          self._strength(group) * tf.add_n([tf.nn.l2_loss(x) for x in rows]))
    if purpose.training:
      _penalise_own(group, vectors)
    return [Items(vectors, part.take(packed)) if part.attends else
            pool(vectors, part.take(packed), part, purpose.fused)
            for part in group.parts]

  def _vectors_and_rows(self, group, packed, purpose):
    """Looks up the vectors of a batch and the rows that they consist of.

    A subclass whose vectors are not rows themselves defines it.

    Args:
      group: packing.Group.
      packed: packing.Packed, with [n] different rows.
      purpose: purpose.Purpose of the graph.

    Returns:
      (vectors, rows): `_vectors`; and a list of [m, width] float32, each row of
      a table that was looked up, once. What is 0 in place of a row does not
      matter: only the sum of squares is used, and only with l2.
    """
    vectors = self._vectors(group, packed, purpose)
    return vectors, [vectors]

  def _vectors(self, group, packed, purpose):
    """Looks up the vectors of the rows of a batch.

    Args:
      group: packing.Group.
      packed: packing.Packed, with [n] different rows.
      purpose: purpose.Purpose of the graph.

    Returns:
      [n, group.dim] float32.
    """
    raise NotImplementedError

  def _spread(self, group):
    """The standard deviation that the vectors of a group are drawn with."""
    stddev = self._stddev if group.stddev is None else group.stddev
    return group.dim ** -0.5 if stddev is None else stddev

  def _strength(self, group):
    """The strength of the penalty on the rows of a group, a float."""
    if not group.trainable:
      return 0.0
    return self._l2 if group.l2 is None else group.l2


def _penalise_own(group, vectors):
  """Adds the penalties on what interactions read to the training loss.

  Args:
    group: packing.Group.
    vectors: [n, group.dim] float32, of the different rows of a batch.
  """
  begin = group.dim - group.own_dim
  for width, strength in group.own_l2:
    if strength:
      tf.add_to_collection(
          tf.GraphKeys.REGULARIZATION_LOSSES,
          strength * tf.nn.l2_loss(vectors[:, begin:begin + width]))
    begin += width


def pool(vectors, packed, part, fused=False):
  """Combines the vectors of each field by the combiner of its columns.

  Args:
    vectors: [n, part.dim] float32, the vectors of packed.rows.
    packed: packing.Packed, the ids of a batch, that part.take returned.
    part: packing.Part.
    fused: bool, whether to use the fused op of native.py.

  Returns:
    [batch, columns * dim] float32, the columns in the order of the part. The
    vector is zero where a field has no id.
  """
  if fused:
    return native.pool(
        vectors, packed.index, packed.splits, len(part.columns), part.combiner,
        packed.weights if part.weighted else ())
  if part.weighted:
    return _by_row(_weighted_sums(vectors, packed, part.combiner), part)
  fields = tf.size(packed.splits) - 1
  field = tf.repeat(
      tf.range(fields), packed.splits[1:] - packed.splits[:-1])
  combine = {'mean': tf.sparse.segment_mean, 'sum': tf.sparse.segment_sum,
             'sqrtn': tf.sparse.segment_sqrt_n}[part.combiner]
  return _by_row(
      combine(vectors, packed.index, field, num_segments=fields), part)


def _weighted_sums(vectors, packed, combiner):
  """Combines the vectors e_i of each field, of weights w_i.

  As tf.nn.embedding_lookup_sparse with sp_weights: 'sum' is sum_i w_i e_i,
  'mean' divides it by sum_i w_i, and 'sqrtn' by sqrt(sum_i w_i^2). It is zero
  where the divisor is 0. The sums of weights are made in float64, in which no
  square of a float32 is too large or becomes 0.

  Args:
    vectors: [n, dim] float32, the vectors of packed.rows.
    packed: packing.Packed with weights.
    combiner: 'mean', 'sum' or 'sqrtn'.

  Returns:
    [fields, dim] float32.
  """
  fields = tf.size(packed.splits) - 1
  field = tf.repeat(
      tf.range(fields), packed.splits[1:] - packed.splits[:-1])
  weights = tf.cast(packed.weights, tf.float64)
  if combiner != 'sum':
    squared = combiner == 'sqrtn'
    divisor = tf.math.unsorted_segment_sum(
        weights ** 2 if squared else weights, field, fields)
    weights = tf.math.divide_no_nan(weights, tf.gather(
        tf.sqrt(divisor) if squared else divisor, field))
  # Each row of this matrix is a field, each column one of the vectors.
  places = tf.cast(tf.stack([field, packed.index], axis=1), tf.int64)
  matrix = tf.SparseTensor(
      places, tf.cast(weights, tf.float32),
      tf.cast(tf.stack([fields, tf.shape(vectors)[0]]), tf.int64))
  return tf.sparse.sparse_dense_matmul(matrix, vectors)


def _by_row(by_field, part):
  """[columns * batch, dim] -> [batch, columns * dim]."""
  count = len(part.columns)
  by_row = tf.transpose(
      tf.reshape(by_field, [count, -1, part.dim]), [1, 0, 2])
  return tf.reshape(by_row, [-1, count * part.dim])


@gin.register
class HashEmbedding(Embedding):
  """Tables whose rows are addressed by hash bucket.

  Values that hash to one bucket share a row. As
  tf.feature_column.embedding_column, table by table.
  """

  _has_rows = True

  def __init__(self, stddev=None, emb_fusion=True, l2=0.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      stddev: float, of the truncated normal that rows start from; None is
        1 / sqrt(dim).
      emb_fusion: bool, whether columns of one dim and combiner lie in one
        table, looked up at once (see packing.py); else each has its own.
        Another choice is another model to a checkpoint.
      l2: float, the strength of the penalty on rows, see Embedding.

    Raises:
      UserError: if stddev or l2 is negative.
    """
    super().__init__(stddev, emb_fusion, l2)

  def _is_composed(self, column):
    """Whether each vector of a column is composed of several rows."""
    del column
    return False

  def _pooled(self, group, packed, purpose):
    if (not self._emb_fusion or not group.trainable or any(
        part.attends for part in group.parts) or
        self._is_composed(group.columns[0]) or not purpose.engine.uses(
            'fused_lookup', 'HashEmbedding.emb_fusion')):
      return super()._pooled(group, packed, purpose)
    errors.check(
        not self._strength(group) and not any(l2 for _, l2 in group.own_l2),
        "HashEmbedding.l2, Wide.l2, FM.l2, FwFM.l2, and 'l2' of a column, "
        "must be 0 with DeepRec's fused lookup, got %g: leave 'fused_lookup' "
        'out of Engine.forms.', self._strength(group))
    errors.check(
        not group.weighted, "FeatureSpec.columns, %r: 'weights' must be None "
        "with DeepRec's fused lookup: leave 'fused_lookup' out of "
        'Engine.forms.', group.columns[0].name)
    errors.check(
        len(group.parts) == 1, "FeatureSpec.columns, %r: 'combiner' must be "
        "the same in all lists of the 'table' %r with DeepRec's fused lookup: "
        "leave 'fused_lookup' out of Engine.forms.", group.columns[0].name,
        group.table)
    return [_by_row(deeprec.fused_lookup(
        self._table(group), packed, group.combiner), group.parts[0])]

  def _vectors(self, group, packed, purpose):
    del purpose  # every bucket has its row
    if group.trainable:
      return _look_up(self._table(group), packed.rows)
    # What interactions read lies in a table of its own, which is trained.
    parts = [(width, name) for width, name in [
        (group.dim - group.own_dim, 'embedding'), (group.own_dim, 'own')]
             if width]
    return tf.concat([
        _look_up(table(group.name, name, group.num_rows, width,
                       self._spread(group), trainable=name == 'own'),
                 packed.rows) for width, name in parts], axis=1)

  def _table(self, group):
    return table(group.name, 'embedding', group.num_rows, group.dim,
                 self._spread(group))


# How two parts make one vector, and the standard deviation that the parts are
# drawn with so that the vector has a given one.
_OPERATIONS = {
    'add': (tf.add, lambda stddev: stddev / 2 ** 0.5),
    'mul': (tf.multiply, lambda stddev: stddev ** 0.5),
    'concat': (lambda quotient, remainder: tf.concat(
        [quotient, remainder], axis=1), lambda stddev: stddev),
}


@gin.register
class MultiHashEmbedding(HashEmbedding):
  """Two small tables in place of a large one: quotients and remainders.

  The vector of id i is composed of Q[i // b] and R[i % b], where b is the
  number of rows of the table of remainders R. Each id has its own pair of rows,
  so 2 * sqrt(num_buckets) rows are enough for num_buckets vectors (Shi et al.,
  "Compositional Embeddings Using Complementary Partitions", KDD 2020). In
  DeepRec's Multi-Hash Variable b is the number of rows of Q instead, which is
  the same if both tables have equally many.
  """

  def __init__(self, operation='mul', min_buckets=1000, rows=None,
               quotient_dim=None, stddev=None, emb_fusion=True, l2=0.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      operation: 'add', 'mul' or 'concat', what makes a vector of the two.
      min_buckets: int, the smallest num_buckets of a column that has two
        tables; where there is less to save it has its own rows, as in
        HashEmbedding (the paper's threshold).
      rows: dict of column name to the rows of its tables (Q, R); a column
        without has ceil(sqrt(num_buckets)) in both.
      quotient_dim: int, the width that Q has under 'concat', R the rest of the
        column's dim; None is half.
      stddev: float, of the vectors at the start; None is 1 / sqrt(dim). The
        tables start from truncated normals: of that deviation under 'concat',
        of stddev / sqrt(2) under 'add', of sqrt(stddev) under 'mul', whose
        product of two has a sharper peak and longer tails than a normal.
        Under 'mul' it must not be 0: a product of zeros does not learn.
      emb_fusion: bool, whether the columns of one dim and combiner lie in one
        pair of tables, looked up at once; else each has its own.
      l2: float, the strength of the penalty on the rows of both tables, see
        Embedding.

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__(stddev, emb_fusion, l2)
    errors.check_choice('MultiHashEmbedding.operation', operation,
                        ('add', 'mul', 'concat'))
    errors.check(stddev != 0 or operation != 'mul', 'MultiHashEmbedding.stddev '
                 "must be above 0 with the operation 'mul', got %r: a product "
                 'of zeros does not learn.', stddev)
    errors.check_integer('MultiHashEmbedding.min_buckets', min_buckets, 1)
    errors.check_integer('MultiHashEmbedding.quotient_dim', quotient_dim, 1,
                         or_none=True)
    errors.check(quotient_dim is None or operation == 'concat',
                 'MultiHashEmbedding.quotient_dim must be None without the '
                 "operation 'concat', got %r for %r.", quotient_dim, operation)
    errors.check(rows is None or isinstance(rows, dict) and all(
        isinstance(name, str) for name in rows),
                 "MultiHashEmbedding.rows must be a dict, such as {'brand': "
                 '(100, 100)}, or None, got %s.', errors.written(rows))
    self._rows = dict(rows or {})
    for name, pair in self._rows.items():
      errors.check(
          isinstance(pair, (list, tuple)) and len(pair) == 2 and
          all(map(errors.is_count, pair)),
          'MultiHashEmbedding.rows must have two positive integers for a '
          'column, got %s for %r.', errors.written(pair), name)
    self._operation = operation
    self._min_buckets = min_buckets
    self._quotient_dim = quotient_dim

  def groups(self, columns):
    """As HashEmbedding; columns with two tables have groups of their own.

    Raises:
      UserError: if two ids of a column would have one vector, if a part would
        have no width, or if `rows` are of no such column.
    """
    small = [c for c in columns if not self._is_composed(c)]
    large = [c for c in columns if self._is_composed(c)]
    names = [c.name for c in large]
    unknown = sorted(set(self._rows) - set(names))
    errors.check(not unknown, 'MultiHashEmbedding.rows must be of columns with '
                 'at least MultiHashEmbedding.min_buckets = %d buckets (%s), '
                 'got %s.', self._min_buckets, ', '.join(names),
                 ', '.join(unknown))
    for column in large:
      self._check(column)
    composed = packing.groups(large, self._emb_fusion, 'multi_hash_')
    for group in composed:
      self._check_shared(group)
    return packing.groups(small, self._emb_fusion) + composed

  def _is_composed(self, column):
    return column.num_buckets >= self._min_buckets

  def _check(self, column):
    errors.check(
        column.trainable, "FeatureSpec.columns, %r: 'trainable' must be True "
        'with num_buckets of at least MultiHashEmbedding.min_buckets = %d, '
        'where several values share rows.', column.name, self._min_buckets)
    errors.check(
        column.vectors is None, "FeatureSpec.columns, %r: 'vectors' must be "
        'None with num_buckets of at least MultiHashEmbedding.min_buckets = '
        '%d, where several values share rows, got %r: raise '
        'MultiHashEmbedding.min_buckets.', column.name, self._min_buckets,
        column.vectors)
    errors.check(
        self._operation != 'mul' or column.stddev != 0,
        "FeatureSpec.columns, %r: 'stddev' must be above 0 with "
        "MultiHashEmbedding.operation = 'mul', got %g: a product of zeros does "
        'not learn.', column.name, column.stddev or 0)
    quotients, remainders = self._heights(column)
    errors.check(
        quotients * remainders >= column.num_buckets,
        'MultiHashEmbedding.rows must have a product of at least num_buckets = '
        '%d for the column %r, got %r: some of its ids would have no pair of '
        'rows to themselves.', column.num_buckets, column.name,
        (quotients, remainders))
    quotient_dim, remainder_dim = self._widths(column.dim - column.own_dim)
    errors.check(
        quotient_dim > 0 and remainder_dim > 0,
        'MultiHashEmbedding.quotient_dim must leave both tables a part of dim '
        '= %d of the column %r, got %r.', column.dim - column.own_dim,
        column.name, quotient_dim)

  def _check_shared(self, group):
    """Raises UserError if columns of a table have other `rows`."""
    first = group.columns[0]
    for column in group.columns[1:] if group.table else ():
      errors.check(
          self._heights(column) == self._heights(first),
          'MultiHashEmbedding.rows must be the same for %r and %r, which have '
          'the table %r, got %r and %r.', first.name, column.name, group.table,
          self._heights(first), self._heights(column))

  def _heights(self, column):
    """The rows of Q and R that belong to a column."""
    side = math.ceil(math.sqrt(column.num_buckets))
    return tuple(self._rows.get(column.name, (side, side)))

  def _widths(self, dim):
    """The widths of Q and R."""
    if self._operation != 'concat':
      return dim, dim
    first = dim // 2 if self._quotient_dim is None else self._quotient_dim
    return first, dim - first

  def _vectors_and_rows(self, group, packed, purpose):
    if not self._is_composed(group.columns[0]):
      return super()._vectors_and_rows(group, packed, purpose)
    heights = np.array([self._heights(c) for c in group.owners])
    places = _split(group, packed.rows, heights)
    compose, spread = _OPERATIONS[self._operation]
    stddev = spread(self._spread(group))
    parts, different = [], []
    for name, rows, height, width in zip(
        ('quotient', 'remainder'), places, heights.sum(axis=0).tolist(),
        self._table_widths(group)):
      variable = table(group.name, name, height, width, stddev)
      if self._strength(group):  # several ids have a row of a table in common
        rows, position = tf.unique(rows)
        different.append(_look_up(variable, rows))
        parts.append(tf.gather(different[-1], position))
      else:
        parts.append(_look_up(variable, rows))
    if self._operation == 'concat' and group.own_dim:
      # What interactions read would be half a vector: it is a sum instead.
      return self._concatenated(group, parts[0], parts[1]), different
    return compose(*parts), different

  def _table_widths(self, group):
    """The widths of Q and R with what interactions read."""
    if self._operation != 'concat':
      return self._widths(group.dim)
    return [width + group.own_dim
            for width in self._widths(group.dim - group.own_dim)]

  def _concatenated(self, group, quotients, remainders):
    """[n, width] float32 rows of Q and of R -> [n, group.dim] vectors."""
    first, rest = self._widths(group.dim - group.own_dim)
    return tf.concat([quotients[:, :first], remainders[:, :rest],
                      quotients[:, first:] + remainders[:, rest:]], axis=1)


def _split(group, rows, heights):
  """Finds the rows of the two tables that make the vectors of ids.

  Args:
    group: packing.Group.
    rows: [n] int64, the ids, each with the offset of its column in the group.
    heights: [owners, 2] int array, the rows that each of group.owners has in Q
      and R.

  Returns:
    (quotients, remainders): [n] int64 rows of Q and of R.
  """
  firsts = np.cumsum(heights, axis=0) - heights  # the first row of each column
  by_column = tf.constant(np.column_stack(
      [group.offsets[:len(heights)], heights[:, 1], firsts]), tf.int64)
  column = tf.reduce_sum(tf.cast(
      rows[:, tf.newaxis] >= by_column[:, 0], tf.int32), axis=1) - 1
  offset, divisor, first_quotient, first_remainder = tf.unstack(
      tf.gather(by_column, column), num=4, axis=1)
  ids = rows - offset
  return first_quotient + ids // divisor, first_remainder + ids % divisor


def _look_up(variable, rows):
  """Returns the [n, dim] float32 rows of a [height, dim] variable."""
  vectors = tf.nn.embedding_lookup(variable, rows, partition_strategy='div')
  vectors.set_shape([None, variable.shape[-1]])
  return vectors


def table(scope, name, num_rows, dim, stddev, trainable=True):
  """Makes a [num_rows, dim] float32 variable, truncated normal.

  A partitioner of the current variable scope cuts it by rows. Look it up with
  partition_strategy='div', which gives the same rows for any number of parts.
  """
  with tf.variable_scope(scope):
    return tf.get_variable(
        name, [num_rows, dim],
        initializer=tf.truncated_normal_initializer(stddev=stddev),
        trainable=trainable)
