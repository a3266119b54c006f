"""What lists hold in all rows: vectors of numbers, or items with weights.

Both are looked for in text and in what Parquet has as lists and maps, since one
row that does not fit would end a training.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ple_estimator.data import arrow_values
from ple_estimator.data.columns import weighted_items

SEPARATOR = '|'  # between the items of what Parquet has as lists and maps
WEIGHTS = ':'  # between an item of a map and its weight
_NUMBER = r'[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf)'
_SEPARATORS = '|; '  # of text; with commas 1,234 would be two numbers
_ITEM_SEPARATORS = '|;, '
_ITEM_WEIGHTS = ':='
_LOOKED_AT = 100  # values by which most columns are told at once


class Vectors:
  """Whether all rows have the same number of numbers.

  Attributes:
    separator: str, between the numbers.
    low: float, the least number; `high` is the largest, both without infinite
      ones.
    has_fraction: bool, whether some number is not whole.
  """

  def __init__(self):
    self.separator = None
    self.low, self.high = np.inf, -np.inf
    self.has_fraction = False
    self._widths = set()
    self._fits = True

  def width(self):
    """How many numbers each row has, an int; None if rows are no vectors."""
    return next(iter(self._widths)) if self._fits and len(
        self._widths) == 1 and self.low <= self.high else None

  def add(self, texts, stored=None):
    """Adds rows.

    Args:
      texts: pa.Array of different texts, without nulls.
      stored: pa.Array of these rows as a file of Parquet has them if these are
        lists; None of text.
    """
    if not self._fits or not len(texts):
      return
    first = texts[0].as_py()
    if stored is not None:
      self.separator = SEPARATOR
      lengths = pc.drop_null(pc.list_value_length(stored))
      self._widths |= set(pc.unique(lengths).to_pylist())
    else:
      self.separator = self.separator or next(
          (mark for mark in _SEPARATORS if mark in first), None)
    mark = self.separator and '[%s]' % self.separator
    self._fits = bool(mark) and len(self._widths) < 2 and pc.all(
        pc.match_substring_regex(texts, '^({0})?({1}({0})?)*$'.format(
            _NUMBER, mark))).as_py()
    if self._fits:
      self._add_numbers(texts, stored is None)

  def _add_numbers(self, texts, is_text):
    lists = pc.split_pattern(texts, self.separator)
    if is_text:
      self._widths |= set(pc.unique(pc.list_value_length(lists)).to_pylist())
    found = numbers_of(lists)
    found = found[np.isfinite(found)]
    if len(found):
      self.low = min(self.low, float(found.min()))
      self.high = max(self.high, float(found.max()))
      self.has_fraction |= bool(np.any(found != np.floor(found)))


def numbers_of(lists):
  """The numbers of lists of text, a float64 numpy array; NaN where empty."""
  items = lists.flatten()
  items = pc.if_else(pc.equal(items, ''), 'nan', pc.utf8_ltrim(items, '+'))
  return items.cast(pa.float64()).to_numpy(zero_copy_only=False)


class Weighted:
  """Whether all rows are lists of items with a weight each.

  Attributes:
    forms: list of (separator, weights, combiner), see WeightedItems, by which
      all rows can be read; the first one is the best.
  """

  def __init__(self):
    self.forms = None

  def add(self, texts, is_map=False):
    """Adds rows.

    Args:
      texts: pa.Array of different texts, without nulls.
      is_map: bool, whether Parquet has them as maps, see `texts_of_maps`.
    """
    if self.forms == [] or not len(texts):
      return
    if self.forms is None:
      pairs = [(SEPARATOR, WEIGHTS)] if is_map else [
          (separator, weights) for separator in _ITEM_SEPARATORS
          for weights in _ITEM_WEIGHTS]
      head = texts.slice(0, _LOOKED_AT)
      self.forms = [
          pair + (combiner,) for pair in pairs
          for combiner in ('mean', 'sqrtn') if _fit(head, *pair, combiner)]
    self.forms = [form for form in self.forms if _fit(texts, *form)]


def _fit(texts, separator, weights, combiner):
  """Whether all items of texts have a weight that can be used."""
  items = weighted_items.WeightedItems(separator, weights, combiner)
  return not items.bad_rows(texts.cast(pa.binary())).any()


def names_of(text, form):
  """The items of a row without their weights, a list of str.

  Args:
    text: str.
    form: (separator, weights, combiner).
  """
  separator, weights, _ = form
  return [item.rpartition(weights)[0] for item in text.split(separator) if item]


def is_map(arrow_type):
  """Whether a column of Parquet has items with a weight each as maps."""
  return (pa.types.is_map(arrow_type) and
          arrow_values.is_value(arrow_type.key_type) and
          not arrow_values.is_text(arrow_type.item_type) and
          arrow_values.is_value(arrow_type.item_type))


def is_vector(arrow_type):
  """Whether a column of Parquet has as many numbers in each row by its type."""
  return (pa.types.is_fixed_size_list(arrow_type) and
          arrow_values.is_value(arrow_type.value_type) and
          not arrow_values.is_text(arrow_type.value_type))


def texts_of_maps(array):
  """Writes maps as text.

  Args:
    array: pa.Array of a type that `is_map` takes.

  Returns:
    pa.Array of binary: a:0.5|b:2, null where there is no item.
  """
  items = weighted_items.WeightedItems(SEPARATOR, WEIGHTS, 'sqrtn')
  lists, _ = items.items_of_map(array)
  texts = pc.binary_join(lists, SEPARATOR.encode())
  return pc.if_else(pc.equal(texts, pa.scalar(b'', pa.binary())),
                    pa.scalar(None, pa.binary()), texts)


def plain(array):
  """Returns lists of a fixed size as lists; null stays null.

  Args:
    array: pa.Array of a type that `is_vector` takes.
  """
  valid = array.is_valid()
  lengths = np.where(valid.to_numpy(zero_copy_only=False),
                     array.type.list_size, 0)
  offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
  starts = pa.array(offsets, mask=np.append(lengths == 0, False))
  return pa.ListArray.from_arrays(starts, array.filter(valid).flatten())
