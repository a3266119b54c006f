"""Several numbers in one field, such as an embedding made elsewhere."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import arrow_values
from ple_estimator.data.columns import base
from ple_estimator.data.columns import numbers

_MOST = 100_000  # numbers of one vector


class Vector(base.Column):
  """A vector of numbers that the network reads, each as a Number.

  A file has a list of numbers (Parquet) or text with separators. A row whose
  list is shorter or longer than `width` is a bad row. A served model takes
  [batch, width] numbers, and refuses a request that has other ones.
  """

  dtype = tf.float32
  missing = float('nan')

  def __init__(self, name, width, separator='|', log1p=False, mean=0.0, std=1.0,
               default=None, clip=None):
    """Checks and stores the arguments; those from log1p on are as of Number.

    Args:
      name: str.
      width: int, how many numbers each row has.
      separator: str, between the numbers where a field is text.
      log1p: bool.
      mean: float, of all numbers.
      std: float, of all numbers.
      default: float, what an empty field has in place of each number, and what
        an empty number in a field and NaN stand for; None refuses all of them.
      clip: (low, high), numbers.
    """
    super().__init__(name)
    errors.check_integer('width', width, 1, _MOST)
    errors.check_text('separator', separator)
    self._number = numbers.Number(name, log1p, mean, std, default, clip)
    self._separator = separator
    self._default = default
    self._width = width
    self.shape = (width,)
    self.arrow_type = pa.list_(pa.float32(), width)

  @property
  def wants(self):
    return 'a list of %d numbers, or text' % self._width

  def accepts(self, arrow_type):
    if pa.types.is_fixed_size_list(arrow_type):
      return (arrow_type.list_size == self._width and
              arrow_values.is_value(arrow_type.value_type))
    if arrow_values.is_list(arrow_type):
      return arrow_values.is_value(arrow_type.value_type)
    if pa.types.is_dictionary(arrow_type):
      arrow_type = arrow_type.value_type
    return arrow_values.is_text(arrow_type)

  def parse(self, array):
    lists = self._lists(array)
    missing = lists.is_null().to_numpy(zero_copy_only=False)
    complete = ~missing
    if not pa.types.is_fixed_size_list(lists.type):
      lengths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy()
      complete = lengths == self._width
    bad = ~complete & ~missing
    if self._default is None:
      bad |= missing
    values, bad_values = self._number.parse(
        lists.filter(pa.array(complete)).flatten())
    if bad_values is not None:
      bad[complete] |= bad_values.reshape(-1, self._width).any(axis=1)
    found = np.full((len(lists), self._width), self._default or 0, np.float32)
    found[complete] = values.to_numpy().reshape(-1, self._width)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(found.ravel()), self._width), bad if bad.any() else None

  def _lists(self, array):
    """Returns an array as lists, null where a field is empty."""
    if arrow_values.is_list(array.type) or pa.types.is_fixed_size_list(
        array.type):
      return array
    texts, _ = arrow_values.texts(array)
    texts = pc.if_else(pc.equal(texts, pa.scalar(b'', pa.binary())),
                       pa.scalar(None, pa.binary()), texts)
    return pc.split_pattern(texts, self._separator)

  def requirement(self):
    return 'be a list of %d numbers' % self._width

  def problem(self, value):
    """As Column; says which number of a list cannot be used."""
    items = value.split(self._separator) if isinstance(value, str) else value
    if not items or len(items) != self._width:
      return super().problem(value)
    for i, item in enumerate(items, 1):
      # An integer of Python may be too large for Arrow.
      _, bad = self._number.parse(pa.array(
          [float(item) if isinstance(item, int) else item]))
      if bad is not None:
        return '%s as number %d of %d' % (
            self._number.problem(item), i, self._width)
    return super().problem(value)

  def encode(self, values):
    """[batch, width] float32 -> [batch, width] float32, as Number does it."""
    return self._number.encode(values)
