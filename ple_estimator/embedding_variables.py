"""Embeddings that grow: a key gets a row of its own when it is first trained.

The classes take the place of embeddings.HashEmbedding in `Model.embedding`.
"""

import gin
from ple_estimator import embeddings
from ple_estimator import errors
from ple_estimator import keyed_tables
from ple_estimator import packing


@gin.register
class EmbeddingVariable(embeddings.Embedding):
  """One row per value, without collisions, as DeepRec's EmbeddingVariable.

  A value's key is the 63-bit hash of its text, or the integer itself. Keys that
  a training batch has for the first time get a row; in evaluation, prediction
  and serving a key without a row has the zero vector, as has a key in training
  that the filter has not admitted. A row starts from numbers uniform around 0
  that depend on its key, its table and run_config.seed alone.
  """

  _group_kind = packing.KeyedGroup

  def __init__(self, capacity=1_000_000, stddev=None, emb_fusion=True,
               filter=None, eviction=None):
    """Keeps the hyper-parameters; builds no graph.

    Args:
      capacity: int, the rows that a table can hold, those included that wait
        for reuse after the last eviction. Memory of rows that no key has had
        is never touched, so a large number costs nothing; training ends with
        an error when it is used up, and goes on with a larger one.
      stddev: float, of what rows start from; None is 1 / sqrt(dim).
      emb_fusion: bool, whether columns of one dim and combiner share a table
        and one lookup; else each has its own. Another choice is another model
        to a checkpoint.
      filter: which keys are admitted, admission.CounterFilter or CbfFilter;
        None admits all.
      eviction: which rows are taken back when a checkpoint is saved,
        admission.GlobalStepEviction or L2Eviction; None takes none.

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__(stddev, emb_fusion)
    errors.check(isinstance(capacity, int) and capacity >= 1,
                 'EmbeddingVariable.capacity must be an integer of at least 1, '
                 'got %r.', capacity)
    self._capacity = capacity
    self._filter = filter
    self._eviction = eviction

  def _vectors(self, group, packed, training):
    table = keyed_tables.KeyedTable(
        group.name, group.dim, self._capacity, 'EmbeddingVariable.capacity',
        self._spread(group.dim), training, self._filter, self._eviction)
    return table.lookup(packed.rows, packing.counts(packed))
