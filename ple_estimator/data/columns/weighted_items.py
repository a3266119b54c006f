"""Items with a weight each in one field: 'a:0.5|b:2', or a map of Parquet.

A weight is a number behind the last separator of its item. What is said of
weights here is the same for files, which refuse a row with a bad weight, and
for a served model, which cannot refuse a row and drops such an item.
"""

import collections

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import arrow_values
from ple_estimator.data.columns import numbers
from ple_estimator.engine import native

IN_NUMBERS = '0123456789+-.eE'  # what the text of a weight may consist of
# What Python reads as a float, but for NaN and infinity, which no weight is.
_NUMBER = (r'[\t-\r ]*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?'
           r'[\t-\r ]*')

# The items of some fields: `names` pa.Array of binary and `weights` float32, of
# all items that are not empty; `bad`, bool, of those without a usable weight;
# field i has the items splits[i] to splits[i + 1).
Items = collections.namedtuple('Items', 'names weights bad splits')


def limits(combiner):
  """What the weights of a list must lie between: (least, most).

  Args:
    combiner: 'mean', 'sum' or 'sqrtn'. With 'mean', which divides by the sum of
      the weights, these must not be negative.
  """
  most = numbers.LARGEST_INPUT
  return (0.0 if combiner == 'mean' else -most, most)


def usable(texts, between):
  """Reads weights by TensorFlow's ops.

  Args:
    texts: [n] string tensor.
    between: (least, most), as `limits` returns them.

  Returns:
    (weights, good): [n] float32, and [n] bool, which of them can be used.
  """
  is_number = tf.strings.regex_full_match(texts, _NUMBER)
  weights = tf.strings.to_number(
      tf.where(is_number, texts, tf.fill(tf.shape(texts), '0')))
  return weights, (
      is_number & (weights >= between[0]) & (weights <= between[1]))


class WeightedItems:
  """Cuts fields into items and their weights."""

  def __init__(self, separator, weights, combiner):
    """Checks and stores the arguments.

    Args:
      separator: str, between the items of a field.
      weights: str, one character, between an item and its weight.
      combiner: 'mean', 'sum' or 'sqrtn', see `limits`.

    Raises:
      UserError: if a separator could be part of a number, or of the other one.
    """
    errors.check_text('weights', weights)
    errors.check(
        len(weights) == 1 and weights not in IN_NUMBERS and
        not weights.isspace(),
        "weights must be one character that no number has, such as ':', got "
        '%s.', errors.written(weights))
    errors.check(
        weights not in separator and
        not set(separator) & set(IN_NUMBERS), 'separator must not have %s, '
        'nor a character that numbers have, with weights, got %s.',
        errors.written(weights), errors.written(separator))
    self._separator = separator
    self._weights = weights
    self._limits = limits(combiner)

  def requirement(self):
    """What is asked of a field, for the error about a bad row."""
    return (
        'have items with a weight from %g to %g each, such as %r, of text '
        'without %r inside or of whole numbers of at most 2^53' % (
            self._limits + ('a{1}0.5{0}b{1}2'.format(
                self._separator, self._weights), self._separator)))

  def accepts(self, arrow_type):
    """Whether `texts_of_map` takes an array of this type."""
    return (pa.types.is_map(arrow_type) and
            arrow_values.is_value(arrow_type.key_type) and
            arrow_values.is_value(arrow_type.item_type))

  def items_of_map(self, array):
    """Writes the entries of maps as text.

    Args:
      array: pa.MapArray of a type that `accepts` takes.

    Returns:
      (lists, bad): pa.ListArray of binary, the entries of each map as
      'a:0.5'; and bool numpy array, which entries have a key that is no text.
      A weight that is missing or cannot be read is left empty, which `split`
      finds.
    """
    offsets = array.offsets.to_numpy()
    lengths = np.where(array.is_null().to_numpy(zero_copy_only=False), 0,
                       np.diff(offsets))
    splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    if len(array) and splits[-1] == offsets[-1] - offsets[0]:
      # No null has entries.
      entries = [of.slice(offsets[0], splits[-1])
                 for of in (array.keys, array.items)]
    else:
      places = pa.array(np.arange(splits[-1]) + np.repeat(
          offsets[:-1] - splits[:-1], lengths))
      entries = [of.take(places) for of in (array.keys, array.items)]
    keys, bad = arrow_values.texts(entries[0])
    weights, _ = arrow_values.as_text(entries[1])
    texts = pc.binary_join_element_wise(
        pc.fill_null(keys, b''), weights,
        pa.scalar(self._weights.encode(), pa.binary()))
    return pa.ListArray.from_arrays(pa.array(splits), texts), bad

  def bad_rows(self, texts):
    """Which fields have an item whose weight cannot be used.

    Args:
      texts: pa.Array of binary without nulls.

    Returns:
      [rows] bool numpy array.
    """
    if native.loaded():
      return self._native(texts)[3]
    items = self.split(texts)
    return arrow_values.any_in(items.bad, items.splits)

  def ids(self, texts, num_buckets):
    """Hashes the items of fields by the C++ kernels.

    Args:
      texts: pa.Array of binary without nulls.
      num_buckets: int.

    Returns:
      (ids, weights, splits): [n] int64, [n] float32 and [rows + 1] int32 numpy
      arrays, of the items that `split` returns.
    """
    return self._native(texts, num_buckets)[:3]

  def _native(self, texts, num_buckets=None):
    return native.hash_weighted(
        texts, self._separator.encode(), self._weights.encode(),
        self._limits, num_buckets)

  def split(self, texts):
    """Cuts fields into items; those whose text is empty are dropped.

    Args:
      texts: pa.Array of binary without nulls.

    Returns:
      Items.
    """
    lists = pc.split_pattern(texts, self._separator)
    items = lists.flatten()
    splits = lists.offsets.to_numpy() if len(lists) else np.zeros(1, np.int32)
    splits, items = _retain(
        splits, pc.not_equal(items, pa.scalar(b'', pa.binary())), items)
    pieces = pc.split_pattern(
        items, self._weights, max_splits=1, reverse=True)
    complete = pc.equal(pc.list_value_length(pieces), 2)
    pairs = pieces.filter(complete).flatten()
    complete = complete.to_numpy(zero_copy_only=False)
    weights = np.full(len(items), np.nan, np.float32)
    weights[complete] = self._numbers(_every_other(pairs, 1))
    with np.errstate(invalid='ignore'):  # comparisons of NaN
      bad = ~((weights >= self._limits[0]) & (weights <= self._limits[1]))
    names = items if not len(pairs) else pc.if_else(
        pa.array(complete), _every_other(pairs, 0).take(pa.array(
            np.maximum(np.cumsum(complete) - 1, 0))), items)
    return _without_empty(Items(names, weights, bad, splits))

  def _numbers(self, texts):
    """Reads texts as [n] float32, NaN where they are no numbers."""
    values, _ = arrow_values.numbers(texts, pa.float32())
    return values.to_numpy(zero_copy_only=False)  # null becomes NaN

  def encode(self, text):
    """Cuts fields into items; those without a usable weight are dropped.

    Args:
      text: [batch] string.

    Returns:
      (names, weights): SparseTensors [batch, items] of string and float32 with
      the same indices.
    """
    items = tf.strings.split(
        text, sep=self._separator, result_type='RaggedTensor').to_sparse()
    items = tf.sparse.retain(items, tf.not_equal(items.values, ''))
    pieces = tf.strings.split(
        items.values, sep=self._weights, result_type='RaggedTensor')
    last = tf.gather(pieces.values, pieces.row_splits[1:] - 1)
    length = (tf.strings.length(items.values) - tf.strings.length(last) -
              len(self._weights.encode()))
    names = tf.strings.substr(
        items.values, tf.zeros_like(length), tf.maximum(length, 0))
    weights, good = usable(last, self._limits)
    good &= length > 0
    return tuple(
        tf.sparse.retain(tf.SparseTensor(
            items.indices, values, items.dense_shape), good)
        for values in (names, weights))


def _every_other(array, first):
  return array.take(pa.array(np.arange(first, len(array), 2)))


def _retain(splits, kept, *arrays):
  """Leaves some items of fields; returns (splits, array, ...)."""
  counts = np.concatenate([[0], np.cumsum(
      kept.to_numpy(zero_copy_only=False))]).astype(np.int32)
  return (counts[splits],) + tuple(array.filter(kept) for array in arrays)


def _without_empty(items):
  """Drops the Items whose text is empty, as ':2' has it, but no bad ones."""
  filled = pc.not_equal(items.names, pa.scalar(b'', pa.binary()))
  kept = filled.to_numpy(zero_copy_only=False) | items.bad
  if kept.all():
    return items
  splits, names = _retain(items.splits, pa.array(kept), items.names)
  return Items(names, items.weights[kept], items.bad[kept], splits)
