"""Embeddings that grow: a key gets its own row when it is first trained.

Bind one of the classes to `Model.embedding`, instead of hashed.HashEmbedding.
"""

import gin
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import packing
from ple_estimator.embeddings import admission
from ple_estimator.embeddings import deeprec
from ple_estimator.embeddings import hashed
from ple_estimator.embeddings import partitioned_table


@gin.register
class EmbeddingVariable(hashed.Embedding):
  """One row per value, without collisions, as DeepRec's EmbeddingVariable.

  A value's key is the 63-bit hash of its text, or the integer itself. A key
  gets a row when a training batch has it for the first time. A key without a
  row has the zero vector: in evaluation, prediction and serving, and in
  training if the filter has not admitted it. A row starts from numbers uniform
  around 0 that only depend on its key, its table and run_config.seed.

  In a cluster each parameter server has a part of every table, divided by key.
  A table that grows cannot be cut by the size that it has at the start.
  """

  _group_kind = packing.KeyedGroup

  def __init__(self, capacity=1_000_000, stddev=None, emb_fusion=True,
               filter=None, eviction=None, l2=0.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      capacity: int, the number of rows that a table can hold, including those
        that wait for reuse after the last eviction. The memory of rows that
        were never used is not touched, so a large number costs nothing.
        Training ends with an error when the capacity is used up, and can be
        continued with a larger one. In a cluster the keys are divided among the
        parameter servers, and the part of each has room for a little more than
        an equal share.
      stddev: float, the standard deviation that rows are drawn with; None is
        1 / sqrt(dim).
      emb_fusion: bool, whether columns of one dim and combiner share a table
        and one lookup; otherwise each has its own. A checkpoint does not
        restore into the other choice.
      filter: which keys get a row, admission.CounterFilter or CbfFilter; None
        admits all.
      eviction: which rows are freed when a checkpoint is saved,
        admission.GlobalStepEviction or L2Eviction; None frees none.
      l2: float, the strength of the penalty on rows, see hashed.Embedding; a
        key that the filter has not admitted has no row.

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__(stddev, emb_fusion, l2)
    owner = type(self).__name__
    errors.check_integer(owner + '.capacity', capacity, 1)
    errors.check_is_a(
        owner + '.filter', filter,
        (admission.CounterFilter, admission.CbfFilter), '@CounterFilter()',
        own=('build',), or_none=True)
    errors.check_is_a(
        owner + '.eviction', eviction,
        (admission.GlobalStepEviction, admission.L2Eviction),
        '@GlobalStepEviction()', own=('evicts', 'is_stale'), or_none=True)
    self._capacity = capacity
    self._filter = filter
    self._eviction = eviction

  def _vectors(self, group, packed, purpose):
    variable = deeprec.embedding_variable(
        purpose.engine, group.name, group.dim, self._spread(group),
        self._filter, self._eviction)
    if variable is not None:
      errors.check(
          not self._strength(group), "EmbeddingVariable.l2, and 'l2' of a "
          "column, must be 0 with DeepRec's EmbeddingVariable, got %g: leave "
          "'embedding_variable' out of Engine.forms.", self._strength(group))
      counted = purpose.training and self._filter
      return deeprec.look_up(
          variable, packed.rows, packing.counts(packed) if counted else None)
    table = self._table(group.name, group.dim, group, purpose)
    return table.lookup(packed.rows, packing.counts(packed))

  def _table(self, name, dim, group, purpose, **kwargs):
    return partitioned_table.PartitionedTable(
        max(1, purpose.num_ps), name, dim, self._capacity,
        type(self).__name__ + '.capacity', self._spread(group),
        purpose.training,
        **dict(dict(filter=self._filter, eviction=self._eviction), **kwargs))


@gin.register
class AdaptiveEmbedding(EmbeddingVariable):
  """Rare values share a small hashed table, frequent ones own a row.

  As DeepRec's adaptive embedding. The row of a value starts from the vector
  that the value has in the shared table, and is used in its place from then on.
  The filter decides for each value whether it is frequent, so columns of
  several values and short batches are possible. A value without a row has its
  shared vector, in evaluation, prediction and serving too.
  """

  def __init__(self, filter=gin.REQUIRED, shared_rows=10_000,
               capacity=1_000_000, stddev=None, emb_fusion=True, eviction=None,
               l2=0.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      filter: which values own a row, admission.CounterFilter or CbfFilter.
      shared_rows: int, rows of the shared table; a group of columns, see
        emb_fusion, has one.
      capacity: int, as EmbeddingVariable, and so what follows.
      stddev: float.
      emb_fusion: bool.
      eviction: admission.GlobalStepEviction or L2Eviction.
      l2: float, the strength of the penalty on own and on shared rows.

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__(capacity, stddev, emb_fusion, filter, eviction, l2)
    errors.check(filter is not None, 'AdaptiveEmbedding.filter must be given: '
                 'without one no value is rare, got None.')
    errors.check_integer('AdaptiveEmbedding.shared_rows', shared_rows, 1)
    self._shared_rows = shared_rows

  def _vectors_and_rows(self, group, packed, purpose):
    shared = hashed.table(group.name, 'shared', self._shared_rows, group.dim,
                          self._spread(group))
    table = self._table(group.name, group.dim, group, purpose)

    def of_shared(rows):
      return tf.nn.embedding_lookup(shared, rows, partition_strategy='div')

    vectors = table.lookup(
        packed.rows, packing.counts(packed),
        lambda keys: of_shared(self._shared_row(keys)))
    if not (purpose.training and self._strength(group)):
      return vectors, [vectors]
    used, _ = tf.unique(self._shared_row(tf.concat(table.unowned(), axis=0)))
    return vectors, table.owned() + [of_shared(used)]

  def _shared_row(self, keys):
    """The row of each key in the shared table: [n] int64 -> [n] int64."""
    return tf.mod(keys, np.int64(self._shared_rows))


@gin.register
class DynamicDimensionEmbedding(EmbeddingVariable):
  """Values use more of a vector's dimensions as they become frequent.

  As DeepRec's dynamic-dimension embedding: the vector consists of blocks of one
  width, each an embedding variable. A block that a value does not use is 0 and
  has no row. In DeepRec the user says how many blocks a value uses. Here its
  count in training decides, including the current batch: a value uses block i
  from frequencies[i] occurrences on, and keeps it until the value is evicted.
  The first block counts the values, at the memory cost of a CounterFilter.
  """

  def __init__(self, frequencies=(1, 4, 16, 64), capacity=1_000_000,
               stddev=None, emb_fusion=True, eviction=None, l2=0.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      frequencies: list of int, not falling, one per block: how often a value
        must have come to use it. Their number must divide the dim of every
        column.
      capacity: int, rows of each block, as EmbeddingVariable, and so what
        follows.
      stddev: float, None is 1 / sqrt(dim), of the whole vector.
      emb_fusion: bool.
      eviction: admission.GlobalStepEviction; None evicts nothing.
      l2: float, the strength of the penalty on the blocks that a value uses.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check_list(
        'DynamicDimensionEmbedding.frequencies', frequencies, errors.is_count,
        'positive integers that do not fall, such as (1, 4)')
    errors.check(
        list(frequencies) == sorted(frequencies), 'DynamicDimensionEmbedding.'
        'frequencies must be integers that do not fall, got %r.', frequencies)
    # A block alone may be small while the vector is not.
    errors.check_is_a('DynamicDimensionEmbedding.eviction', eviction,
                      admission.GlobalStepEviction, '@GlobalStepEviction()',
                      or_none=True)
    first = frequencies[0]
    super().__init__(capacity, stddev, emb_fusion,
                     admission.CounterFilter(first) if first > 1 else None,
                     eviction, l2)
    self._frequencies = list(frequencies)

  def _vectors(self, group, packed, purpose):
    counts = packing.counts(packed)
    vectors, first = [], None
    for i, (frequency, width) in enumerate(zip(
        self._frequencies, self._widths(group))):
      table = self._table('%s/block_%d' % (group.name, i), width, group,
                          purpose, **({'filter': None} if first else {}))
      first = first or table
      is_used = (first.seen(packed.rows) + counts >= frequency
                 if purpose.training and i else None)
      vectors.append(table.lookup(packed.rows, counts, admitted=is_used))
    # What interactions read comes last, but is in the first block, so that
    # values have it from the start.
    used = vectors[0].shape[1].value - group.own_dim
    return tf.concat([vectors[0][:, :used]] + vectors[1:] + [
        vectors[0][:, used:]], axis=1)

  def _widths(self, group):
    """The widths of the blocks; what interactions read is in the first."""
    blocks, dim = len(self._frequencies), group.dim - group.own_dim
    errors.check(
        dim % blocks == 0, 'DynamicDimensionEmbedding.frequencies must '
        'have a number of blocks that divides the dim of every column, got %d '
        'blocks for dim %d of %s.', blocks, dim, group.columns[0].name)
    return [dim // blocks + group.own_dim] + [dim // blocks] * (blocks - 1)
