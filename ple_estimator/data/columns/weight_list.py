"""The weights of the items of lists, in a column of their own.

  {'name': 'items', 'kind': 'hashed_list', 'weights_column': 'scores', ...}
  {'name': 'scores', 'kind': 'weight_list'}

The weight at one place is that of the item at the same place. An item that is
empty is dropped with its weight. A row of a file whose lists have other
lengths, or in which an item has no usable weight, is a bad row. A served model,
which cannot refuse a row, drops an item without a usable weight.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import arrow_values
from ple_estimator.data.columns import aligned
from ple_estimator.data.columns import base
from ple_estimator.data.columns import weighted_items
from ple_estimator.engine import native


class WeightList(base.Column):
  """The weights of the items of the lists that name it as weights_column.

  A file has a list of numbers (Parquet) or text with separators.
  """

  is_source = True
  wants = 'text, a number, or a list of them'

  def __init__(self, name, separator='|'):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      separator: str, between the weights where a field is text.

    Raises:
      UserError: if the separator could be part of a number.
    """
    super().__init__(name)
    errors.check_text('separator', separator)
    errors.check(
        not set(separator) & set(weighted_items.IN_NUMBERS), 'separator must '
        'not have a character that numbers have, got %s.',
        errors.written(separator))
    self.separator = separator
    self._lists = []  # BesideItems of each list that it weighs

  def weigh(self, beside):
    """Notes that these are the weights of a list.

    Args:
      beside: BesideItems.
    """
    self._lists.append(beside)

  def check_used(self):
    """Raises UserError unless a list has these weights."""
    errors.check(
        self._lists, "FeatureSpec.columns, %r: a weight_list must be the "
        "'weights_column' of a hashed_list, and no list names it: name it, or "
        "give it the kind 'ignored'.", self.name)

  def accepts(self, arrow_type):
    if arrow_values.is_list(arrow_type):
      arrow_type = arrow_type.value_type
    return arrow_values.is_value(arrow_type)

  def parse(self, array):
    """As Column; lists become text. `unfit` looks at the weights in it."""
    if not arrow_values.is_list(array.type):
      if not arrow_values.is_text(array.type):
        array = arrow_values.as_text(array)[0]
      return super().parse(array)
    texts, bad = arrow_values.as_text(array.flatten())
    splits = arrow_values.splits(array)
    bad = arrow_values.any_in(bad, splits)
    return pc.binary_join(
        pa.ListArray.from_arrays(pa.array(splits), texts),
        self.separator.encode()), bad if bad.any() else None

  def requirement(self):
    return 'have numbers, with %r between them where it is text' % (
        self.separator)

  def unfit(self, columns):
    """As Column: rows in which an item of a list has no usable weight."""
    return [found for beside in self._lists for found in beside.unfit(
        columns[beside.name], columns[self.name])]


class BesideItems:
  """Reads the items of a list with the weights of a WeightList beside them.

  Attributes:
    name: str, of the list.
  """

  def __init__(self, name, separator, combiner):
    """Stores the arguments.

    Args:
      name: str, of the list.
      separator: str, between the items of the list.
      combiner: 'mean', 'sum' or 'sqrtn', see weighted_items.limits.
    """
    self.name = name
    self._separator = separator
    self._limits = weighted_items.limits(combiner)
    self._weights_separator = None

  def join(self, weights):
    """Sets the WeightList; called once, before it reads."""
    self._weights_separator = weights.separator
    weights.weigh(self)

  def unfit(self, items, weights):
    """Which rows have another number of weights, or one of no use.

    Args:
      items, weights: pa.Array of binary without nulls, as they were parsed.

    Returns:
      list of ([rows] bool, problem), see Column.unfit; it is asked of the
      weights.
    """
    if native.loaded():
      problems = self._native(items, weights)[3]
    else:
      problems = self._problems(items, weights)
    if not problems.any():
      return []
    lengths = _lengths(pc.split_pattern(items, self._separator))
    found = [
        ((problems == 1) & (lengths == length), 'must have %d weight%s, one '
         'for each item of column %r' % (length, 's'[:length > 1], self.name))
        for length in np.unique(lengths[problems == 1]).tolist()]
    return found + [
        (problems == 2, 'must have a number from %g to %g for each item of '
         'column %r' % (self._limits + (self.name,)))]

  def _problems(self, items, weights):
    """What is wrong with each row: 1 the length, 2 a weight, 0 nothing."""
    items = pc.split_pattern(items, self._separator)
    weights = pc.split_pattern(weights, self._weights_separator)
    lengths = _lengths(items)
    same = lengths == _lengths(weights)
    kept = pa.array(same)
    items, weights = [of.filter(kept).flatten() for of in (items, weights)]
    numbers = arrow_values.numbers(weights, pa.float32())[0].to_numpy(
        zero_copy_only=False)  # null becomes NaN
    with np.errstate(invalid='ignore'):  # comparisons of NaN
      good = (numbers >= self._limits[0]) & (numbers <= self._limits[1])
    good |= aligned.is_empty(items) & aligned.is_empty(weights)
    splits = np.concatenate([[0], np.cumsum(lengths[same])])
    problems = np.ones(len(lengths), np.uint8)
    problems[same] = np.where(arrow_values.any_in(~good, splits), 2, 0)
    return problems

  def cut(self, weights, limit):
    """Leaves some places of each field of weights, as aligned.cut."""
    return aligned.cut(weights, self._weights_separator, limit)

  def ids(self, items, weights, num_buckets):
    """Hashes the items by the C++ kernels.

    Args:
      items, weights: pa.Array of binary without nulls, of good rows.
      num_buckets: int.

    Returns:
      (ids, weights, splits): [n] int64, [n] float32 and [rows + 1] int32 numpy
      arrays, of items that are not empty.
    """
    return self._native(items, weights, num_buckets)[:3]

  def _native(self, items, weights, num_buckets=None):
    return native.hash_beside(
        items, self._separator.encode(), weights,
        self._weights_separator.encode(), self._limits, num_buckets)

  def encode(self, text, weights, max_places=None, last=False):
    """Cuts fields into items; those without a usable weight are dropped.

    Args:
      text: [batch] string, the items.
      weights: [batch] string.
      max_places: int, how many places of each field count, empty items
        included; None counts all.
      last: bool, whether these are the last ones.

    Returns:
      (names, weights): SparseTensors [batch, places] of string and float32
      with the same indices.
    """
    items = tf.strings.split(
        text, sep=self._separator, result_type='RaggedTensor')
    beside = tf.strings.split(
        weights, sep=self._weights_separator, result_type='RaggedTensor')
    row = items.value_rowids()
    place = tf.range(tf.size(row, out_type=tf.int64)) - tf.gather(
        items.row_starts(), row)
    # Behind the weights stands an empty one, for items that have none.
    at = tf.where(
        place < tf.gather(beside.row_lengths(), row),
        place + tf.gather(beside.row_starts(), row),
        tf.fill(tf.shape(row), tf.size(beside.values, out_type=tf.int64)))
    numbers, good = weighted_items.usable(
        tf.gather(tf.concat([beside.values, ['']], axis=0), at), self._limits)
    good &= tf.not_equal(items.values, '')
    if max_places:
      behind = tf.gather(items.row_lengths(), row) - 1 - place
      good &= (behind if last else place) < max_places
    shape = items.bounding_shape(out_type=tf.int64)
    return tuple(
        tf.sparse.retain(tf.SparseTensor(
            tf.stack([row, place], axis=1), values, shape), good)
        for values in (items.values, numbers))


def _lengths(lists):
  return pc.list_value_length(lists).to_numpy(zero_copy_only=False)
