"""A keyed table that is divided among all parameter servers."""

import tensorflow.compat.v1 as tf

from ple_estimator.embeddings import keyed_table
from ple_estimator.embeddings import table_parts


class PartitionedTable:
  """A table whose keys are distributed over KeyedTables, one per server.

  What is looked up does not depend on the number of parts: the vector that a
  row starts from depends on its key, not on its place.
  """

  def __init__(self, num_parts, *args, **kwargs):
    """Makes the parts in the default graph.

    Args:
      num_parts: int, how many parameter servers there are; 1 makes a table in
        one piece.
      *args: arguments of KeyedTable.
      **kwargs: arguments of KeyedTable, except part and num_parts.
    """
    self._parts = []
    device = ''
    for i in range(num_parts):
      with tf.device(device):
        self._parts.append(keyed_table.KeyedTable(
            *args, part=i, num_parts=num_parts, **kwargs))
      device = table_parts.next_task(self._parts[-1].values.device, num_parts)

  def lookup(self, keys, counts, shared=None, admitted=None):
    """As KeyedTable.lookup."""
    return self._ask(
        lambda part, keys, counts, *admitted: part.lookup(
            keys, counts, shared, *admitted),
        keys, counts, *([] if admitted is None else [admitted]))

  def seen(self, keys):
    """As KeyedTable.seen."""
    return self._ask(lambda part, keys: part.seen(keys), keys)

  def owned(self):
    """The rows of the looked up keys that have or get one, in training.

    Returns:
      list of [owned, dim] float32, one per part.
    """
    return [part.masked(part.source) for part in self._parts]

  def unowned(self):
    """The other keys of the lookup: a list of [others] int64, one per part."""
    return [part.unowned() for part in self._parts]

  def _ask(self, question, keys, *of_keys):
    """Asks each part about its own keys and merges the answers.

    Args:
      question: function of (KeyedTable, keys, *of_keys) to a tensor with one
        row per key. It gets only the keys of the part, and what belongs to
        these.
      keys: [n] int64.
      *of_keys: [n, ...] tensors, something for each key.

    Returns:
      [n, ...], one answer per key, in the order of keys.
    """
    count = len(self._parts)
    if count == 1:
      return question(self._parts[0], keys, *of_keys)
    owner = table_parts.part_of(keys, count)
    places, *shares = [tf.dynamic_partition(x, owner, count) for x in (
        tf.range(tf.size(keys)), keys) + of_keys]
    answers = [question(part, *share)
               for part, share in zip(self._parts, zip(*shares))]
    merged = tf.dynamic_stitch(places, answers)
    merged.set_shape(answers[0].shape)
    return merged
