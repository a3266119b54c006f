"""Which items of a list count."""

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors

_MOST_ITEMS = 2**31 - 1  # of one field


class ItemLimit:
  """The first or the last so many items of each field."""

  def __init__(self, max_items, keep):
    """Checks and stores the arguments of a column.

    Args:
      max_items: int, how many items count; None is all.
      keep: 'first' or 'last', which ones where there are more.

    Raises:
      UserError: if one of them cannot be used, or `keep` would do nothing.
    """
    errors.check_integer('max_items', max_items, 1, _MOST_ITEMS, or_none=True)
    errors.check_choice('keep', keep, ('first', 'last'))
    errors.check(keep == 'first' or max_items, "keep must be 'first' without "
                 'max_items, got %s.', errors.written(keep))
    self._max_items = max_items
    self._keep = keep

  def cuts(self, lengths):
    """Whether one of some fields has more items than count.

    Args:
      lengths: [rows] int, at least one. There must be a limit.
    """
    return lengths.max() > self._max_items

  def of_items(self, items):
    """Those of a list that count."""
    if not self._max_items:
      return items
    return (items[-self._max_items:] if self._keep == 'last' else
            items[:self._max_items])

  def of_splits(self, splits):
    """Those of fields whose items lie behind each other.

    Args:
      splits: [rows + 1] numpy array of int; field i has the items splits[i] to
        splits[i + 1]. There must be a limit.

    Returns:
      (kept, splits): [items] bool, which ones count, and the splits of these.
    """
    lengths = np.diff(splits)
    places = np.arange(splits[-1]) - np.repeat(splits[:-1], lengths)
    if self._keep == 'last':
      places = np.repeat(lengths, lengths) - 1 - places
    kept = np.minimum(lengths, self._max_items)
    return places < self._max_items, np.concatenate(
        [[0], np.cumsum(kept)]).astype(np.int32)

  def of_batch(self, items):
    """Those of a batch in a graph.

    Args:
      items: SparseTensor [batch, items] without gaps. There must be a limit.

    Returns:
      [items] bool, which ones count.
    """
    rows = items.indices[:, 0]
    lengths = tf.math.unsorted_segment_sum(
        tf.ones_like(rows), rows, items.dense_shape[0])
    places = tf.range(tf.size(rows, out_type=tf.int64)) - tf.gather(
        tf.cumsum(lengths, exclusive=True), rows)
    if self._keep == 'last':
      places = tf.gather(lengths, rows) - 1 - places  # counted from the end
    return places < self._max_items
