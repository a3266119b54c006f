"""The kinds of columns: what each holds and how it becomes model input.

A column becomes model input in two steps. `parse` turns what a file holds (text
from CSV, typed arrays from Parquet) into an Arrow array of one type and says
which rows are bad. `encode` turns a tensor of that type into ids or numbers, by
TensorFlow ops alone, so that training, prediction and a served model agree.
"""

import collections
import copy
import inspect
import re
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import arrow_values
from ple_estimator.engine import native

NO_ID = -1  # the id of a missing value that has no default: a zero vector
_NUM_KEYS = 2**63 - 1  # hashes that an int64 holds without a sign
RAW = 'raw/'  # prefix of a feature that carries a column as the file has it
# The largest size of a standardised number. From here on float32 cannot tell x
# from x + 1, so that one such input wipes out what all others contribute.
LARGEST_INPUT = 2.0**24
# The largest size of a label that is not one of fixed values, and of a weight.
# A square of it, summed over 10^8 rows, is still finite in float32.
LARGEST_TARGET = 1e15


class Column:
  """One column of the data, in the order of the file.

  Attributes:
    name: str.
    arrow_type: pa.DataType of what `parse` returns.
    dtype: tf.DType of what `encode` takes; the same type in TensorFlow.
    missing: the value of that type by which a caller of a served model says
      that it has none; NaN of a number.
    is_category: bool, whether it becomes ids for an embedding.
    own_dim: int, how many dimensions at the end of a category's vectors only
      interactions read (interactions/combined.py).
    own_l2: tuple of (width, float), the penalty on each part of these.
    stddev: float, of a category: the standard deviation that its rows start
      with; None leaves it to the embedding.
    l2: float, of a category: the strength of the penalty on its rows; None
      leaves it to the embedding.
    wants: str, the types that `accepts` takes, for errors.
  """

  arrow_type = pa.binary()
  dtype = tf.string
  missing = ''
  is_category = False
  own_dim = 0
  own_l2 = ()
  stddev = None
  l2 = None
  wants = 'text, or a number that is whole'

  def __init__(self, name):
    self.name = name

  @property
  def scope(self):
    """The name as TensorFlow allows it for variables and placeholders."""
    legal = re.sub(r'[^A-Za-z0-9_.-]', '_', self.name)
    if legal == self.name and legal[0] not in '_-':
      return legal
    return 'column_%s_%08x' % (legal, zlib.crc32(self.name.encode()))

  def accepts(self, arrow_type):
    """Whether `parse` takes a Parquet column of this type."""
    return arrow_values.is_value(arrow_type)

  def parse(self, array):
    """Gives one column its type and finds its bad rows.

    Args:
      array: pa.Array, text (binary or string) or a type that `accepts` takes.

    Returns:
      (values, bad): pa.Array of arrow_type without nulls, and a [rows] bool
      numpy array that is true where a value cannot be used, or None if all can.
    """
    texts, bad = arrow_values.texts(array)
    return pc.fill_null(texts, b''), bad if bad.any() else None

  def requirement(self):
    """Returns what a value must be, for the error about a bad row."""
    return 'be text or a whole number of at most 2^53'

  def problem(self, value):
    """What is wrong with a bad value, e.g. "must be text, got 0.5".

    Args:
      value: as Python has it; bytes as text.
    """
    return 'must %s, got %r' % (self.requirement(), value)

  def ids(self, array):
    """Makes the same ids as `encode`, by the C++ kernels.

    Only a category has this method.

    Args:
      array: pa.Array as `parse` returns it.

    Returns:
      [rows] int64 numpy array, NO_ID where missing; for a list a pair of
      values [n] int64 and splits [rows + 1] int32.
    """
    raise NotImplementedError

  def keyed(self):
    """Returns the same column with a different id for every value.

    Its ids are keys of 63 bits, see packing.KeyedGroup. Only a category has
    this method.
    """
    raise NotImplementedError

  def _set_start_and_penalty(self, stddev, l2):
    """Checks and stores what a category says of its rows, see Hashed."""
    errors.check_number('stddev', stddev, least=0, or_none=True)
    errors.check_number('l2', l2, least=0, or_none=True)
    self.stddev = stddev
    self.l2 = l2


class Ignored(Column):
  """A column that the model does not see."""

  wants = 'one value per row'

  def accepts(self, arrow_type):
    return not pa.types.is_nested(arrow_type)

  def parse(self, array):
    """As Column; any value becomes the text that Arrow writes for it."""
    if pa.types.is_dictionary(array.type):
      array = array.dictionary_decode()
    if not arrow_values.is_text(array.type):
      array = array.cast(pa.string())
    return pc.fill_null(array.cast(pa.binary()), b''), None


class Hashed(Column):
  """A category hashed to num_buckets ids.

  The id of a value is that of
  tf.feature_column.categorical_column_with_hash_bucket.
  """

  is_category = True

  def __init__(self, name, num_buckets, dim, default='', stddev=None, l2=None):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      num_buckets: int, rows of the embedding table; a keyed embedding
        (keyed.py) has a row per value instead.
      dim: int, width of the embedding.
      default: str, what an empty field stands for; '' gives it no id, and so
        the zero vector.
      stddev: float, the standard deviation that the vectors of this column
        start with; None is that of the embedding, HashEmbedding.stddev.
      l2: float, the strength of the penalty on the rows of this column; None is
        that of the embedding, HashEmbedding.l2.
    """
    super().__init__(name)
    errors.check(isinstance(default, str), 'default must be a text, got %s.',
                 errors.written(default))
    self._set_start_and_penalty(stddev, l2)
    self.num_buckets = _positive('num_buckets', num_buckets)
    self.dim = _positive('dim', dim)
    self._default = default

  def encode(self, text):
    """[batch] string -> [batch] int64 ids, NO_ID where missing."""
    empty = tf.equal(text, '')
    if self._default:
      return self._hash(
          tf.where(empty, tf.fill(tf.shape(text), self._default), text))
    return tf.where(
        empty, tf.fill(tf.shape(text), np.int64(NO_ID)), self._hash(text))

  def _hash(self, text):
    return tf.strings.to_hash_bucket_fast(text, self.num_buckets)

  def ids(self, array):
    return native.hash_text(array, self.num_buckets, self._missing_id())

  def keyed(self):
    column = copy.copy(self)
    column.num_buckets = _NUM_KEYS
    return column

  def _missing_id(self):
    if not self._default:
      return NO_ID
    default = pa.array([self._default.encode()], pa.binary())
    return int(native.hash_text(default, self.num_buckets, NO_ID)[0])


class HashedList(Hashed):
  """Several hashed categories in one field, pooled into one vector."""

  wants = 'text, a number that is whole, or a list of them'

  def __init__(self, name, num_buckets, dim, default='', separator='|',
               combiner='mean', stddev=None, l2=None):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      num_buckets: int, rows of the embedding table.
      dim: int, width of the embedding.
      default: str, what an empty field stands for; '' gives it no id, and so
        the zero vector.
      separator: str, between the items of a field; empty items are dropped.
      combiner: 'mean', 'sum' or 'sqrtn', as in tf.nn.embedding_lookup_sparse.
      stddev: float, as Hashed.
      l2: float, as Hashed.
    """
    super().__init__(name, num_buckets, dim, default, stddev, l2)
    errors.check_text('separator', separator)
    errors.check_choice('combiner', combiner, ('mean', 'sum', 'sqrtn'))
    self._separator = separator
    self.combiner = combiner

  def accepts(self, arrow_type):
    if arrow_values.is_list(arrow_type):
      return super().accepts(arrow_type.value_type)
    return super().accepts(arrow_type)

  def parse(self, array):
    if not arrow_values.is_list(array.type):
      return super().parse(array)
    # A list is joined to the text that a file without lists would have.
    items, bad_items = super().parse(array.flatten())
    lengths = pc.list_value_length(array).fill_null(0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), items)
    holds = pc.match_substring(items, self._separator).to_numpy(
        zero_copy_only=False)
    if bad_items is not None:
      holds = holds | bad_items
    bad = None
    if holds.any():
      counts = np.concatenate([[0], np.cumsum(holds)])
      bad = counts[offsets[1:]] > counts[offsets[:-1]]
    return pc.binary_join(lists, self._separator.encode()), bad

  def requirement(self):
    return ('have items of text or whole numbers of at most 2^53, without the '
            'separator %r inside' % self._separator)

  def encode(self, text):
    """[batch] string -> SparseTensor [batch, items] of int64 ids."""
    if self._default:
      text = tf.where(tf.equal(text, ''),
                      tf.fill(tf.shape(text), self._default), text)
    items = tf.strings.split(
        text, sep=self._separator, result_type='RaggedTensor').to_sparse()
    items = tf.sparse.retain(items, tf.not_equal(items.values, ''))
    return tf.SparseTensor(
        items.indices, self._hash(items.values), items.dense_shape)

  def ids(self, array):
    if self._default:
      array = pc.if_else(pc.equal(array, pa.scalar(b'', pa.binary())),
                         pa.scalar(self._default.encode(), pa.binary()), array)
    return native.hash_lists(
        array, self._separator.encode(), self.num_buckets)

  def items(self, text):
    """The items of a field, a list of bytes; of an empty field none.

    Args:
      text: bytes.
    """
    return [item for item in text.split(self._separator.encode()) if item]


class _Numeric(Column):
  """Base class of columns that are parsed as numbers."""

  arrow_type = pa.float32()
  dtype = tf.float32
  missing = float('nan')
  wants = 'a number, or text that is one'

  def _parse(self, array, default, is_bad):
    """Parses numbers to arrow_type.

    Args:
      array: pa.Array, text or numbers.
      default: what an empty field or NaN stands for; None refuses both.
      is_bad: function of a numpy array of values to a bool array.

    Returns:
      As `parse`.
    """
    values, bad = arrow_values.numbers(array, self.arrow_type)
    empty = values.is_null().to_numpy(zero_copy_only=False) & ~bad
    fill = 0 if default is None else default
    values = pc.fill_null(values, pa.scalar(fill, self.arrow_type))
    found = values.to_numpy()
    nan = np.isnan(found)
    if default is not None and nan.any():
      empty |= nan
      found = np.where(nan, found.dtype.type(default), found)
      values = pa.array(found)
    with np.errstate(invalid='ignore'):  # comparisons of NaN
      bad |= is_bad(found) & ~empty
    if default is None:
      bad |= empty
    return values, bad if bad.any() else None

  def bounds(self):
    """The least and the largest number that is taken, or None."""
    return None

  def problem(self, value):
    """As Column; says the bounds of a number that lies outside."""
    # Subclasses have bounds.  pylint: disable=unsubscriptable-object
    bounds, number = self.bounds(), _as_float(value)
    if bounds is None or number is None or not np.isfinite(number) or (
        bounds[0] <= number <= bounds[1]):
      return super().problem(value)
    return 'must be from %.7g to %.7g%s, got %r' % (
        bounds + (self._remedy, value))

  _remedy = ''


class Integer(_Numeric):
  """A category whose value is its id already."""

  arrow_type = pa.int64()
  dtype = tf.int64
  missing = NO_ID
  is_category = True
  wants = 'an integer, or text or another number that is one'

  def __init__(self, name, num_buckets, dim, default=NO_ID, stddev=None,
               l2=None):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      num_buckets: int, rows of the embedding table; ids are 0 to
        num_buckets - 1.
      dim: int, width of the embedding.
      default: int, the id of an empty field; -1 gives it the zero vector.
      stddev: float, as Hashed.
      l2: float, as Hashed.
    """
    super().__init__(name)
    self._set_start_and_penalty(stddev, l2)
    self.num_buckets = _positive('num_buckets', num_buckets)
    self.dim = _positive('dim', dim)
    errors.check(
        isinstance(default, int) and not isinstance(default, bool) and
        NO_ID <= default < num_buckets,
        'default must be -1 or in [0, %d), got %s.', num_buckets,
        errors.written(default))
    self._default = default

  def parse(self, array):
    return self._parse(
        array, NO_ID, lambda x: (x < 0) | (x >= self.num_buckets))

  def requirement(self):
    return 'be an integer in [0, %d)' % self.num_buckets

  def encode(self, values):
    """[batch] int64 -> [batch] int64 ids, NO_ID where missing.

    A served model cannot refuse a row: what is out of range counts as missing.
    """
    valid = (values >= 0) & (values < self.num_buckets)
    return tf.where(
        valid, values, tf.fill(tf.shape(values), np.int64(self._default)))

  def keyed(self):
    return self  # every value has an id of its own already

  def ids(self, array):
    values = array.to_numpy()
    valid = (values >= 0) & (values < self.num_buckets)
    return np.where(valid, values, self._default)


class Number(_Numeric):
  """A number that the network reads as it is, or transformed.

  A number is refused if its standardised value, what the network reads, would
  be larger than 2^24 = 16,777,216 in size: from there on float32 cannot tell x
  from x + 1, so that one such input wipes out what all others contribute, and
  what is much larger overflows. `mean` and `std`, `log1p` or `clip` admit it.
  """

  _remedy = " ('mean' and 'std', 'log1p' or 'clip' admit others)"

  def __init__(self, name, log1p=False, mean=0.0, std=1.0, default=None,
               clip=None):
    """Checks the arguments; the input is (f(clipped x) - mean) / std.

    Args:
      name: str.
      log1p: bool, whether f is log(1 + x), which needs x > -1; else f(x) = x.
      mean: float, subtracted after log1p.
      std: float, positive, divided by.
      default: float, the x of an empty field and of NaN; None refuses both.
      clip: (low, high), numbers: a smaller x becomes low, a larger one high,
        and so do -inf and inf, which 1e39 is in float32. None clips nothing
        and refuses what is infinite or too large.
    """
    super().__init__(name)
    errors.check_bool('log1p', log1p)
    errors.check_number('mean', mean)
    errors.check_number('std', std, above=0)
    self._log1p = log1p
    self._mean = mean
    self._std = std
    self._least, self._most = _usable(log1p, mean, std)
    _check_clip(clip, self._least, self._most)
    self._clip = clip
    _check_default(default, *(clip or (self._least, self._most)))
    self._default = default

  def bounds(self):
    return (-np.inf, np.inf) if self._clip else (self._least, self._most)

  def parse(self, array):
    return self._parse(array, self._default, self._is_bad)

  def _is_bad(self, x):
    least, most = self.bounds()
    return ~((x >= least) & (x <= most))

  def requirement(self):
    above = self._log1p and not self._clip
    return 'be a number' + (' above -1' if above else '')

  def encode(self, values):
    """[batch] float32 -> [batch] float32.

    A served model cannot refuse a row: what a file may not have counts as
    missing. Where the column has no default, it becomes NaN, and so does the
    model's answer for this row, see Model.
    """
    default = np.float32(np.nan if self._default is None else self._default)
    least, most = self.bounds()
    usable = (values >= least) & (values <= most)  # not for NaN
    if self._clip:
      values = tf.clip_by_value(values, *map(float, self._clip))
    values = tf.where(usable, values, tf.fill(tf.shape(values), default))
    if self._log1p:
      values = tf.log1p(values)
    return (values - self._mean) / self._std


class Label(_Numeric):
  """A label: the value that a task predicts.

  Without fixed values it is at most 10^15 in size, so that squared errors of
  many rows can be summed in float32.
  """

  def __init__(self, name, values=None):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      values: numbers, the only ones allowed, e.g. (0, 1) of a binary task;
        None allows every number.
    """
    super().__init__(name)
    if values is not None:
      errors.check_list('values', values, errors.is_number,
                        'numbers, such as (0, 1)')
    self.values = values

  def bounds(self):
    return None if self.values else (-LARGEST_TARGET, LARGEST_TARGET)

  def parse(self, array):
    return self._parse(array, None, self._is_bad)

  def _is_bad(self, x):
    if self.values is None:
      return ~(np.abs(x) <= LARGEST_TARGET)
    return ~np.isin(x, np.asarray(self.values, np.float32))

  def requirement(self):
    if self.values is None:
      return 'be a number'
    return 'be one of %s' % ', '.join(map(str, self.values))


class Weight(_Numeric):
  """The weight of a row in losses and metrics, from 0 to 10^15."""

  def __init__(self, name, default=None):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      default: float, of an empty field and of NaN; None refuses both.
    """
    super().__init__(name)
    errors.check_number('default', default, least=0, most=LARGEST_TARGET,
                        or_none=True)
    self._default = default

  def bounds(self):
    return (0.0, LARGEST_TARGET)

  def parse(self, array):
    return self._parse(
        array, self._default, lambda x: ~((x >= 0) & (x <= LARGEST_TARGET)))

  def requirement(self):
    return 'be a number that is not negative'


KINDS = collections.OrderedDict([
    ('label', Label),
    ('hashed', Hashed),
    ('hashed_list', HashedList),
    ('integer', Integer),
    ('number', Number),
    ('weight', Weight),
    ('ignored', Ignored),
])


def register_kind(name):
  """Decorates a class of columns of your own, for 'kind': name.

  Args:
    name: str, not one of KINDS yet, unless by a class of the same name (a
      module may be loaded again).

  Returns:
    function that takes a subclass of Column and returns it.

  Raises:
    UserError: if the name is taken, or the class is no Column.
  """
  def register(kind):
    errors.check(inspect.isclass(kind) and issubclass(kind, Column),
                 'A kind of column must be a subclass of column_kinds.Column, '
                 'got %r for %r.', kind, name)
    taken = KINDS.get(name)
    errors.check(
        taken is None or (taken.__module__, taken.__qualname__) == (
            kind.__module__, kind.__qualname__),
        'A kind of column must have a name of its own, got %r, which is that '
        'of %r.', name, taken)
    KINDS[name] = kind
    return kind
  return register


def _usable(log1p, mean, std):
  """The least and largest number that a Number can standardise, in float32."""
  most = float(np.finfo(np.float32).max)
  ends = mean + np.array([-1, 1]) * LARGEST_INPUT * std
  if log1p:
    with np.errstate(over='ignore'):
      ends = np.expm1(ends)
    ends[0] = max(ends[0], np.nextafter(np.float32(-1), np.float32(0)))
  return tuple(float(np.float32(end)) for end in np.clip(ends, -most, most))


def _check_clip(clip, least, most):
  """Raises UserError unless clip is None or bounds that can be standardised."""
  errors.check(
      clip is None or isinstance(clip, (list, tuple)) and len(clip) == 2 and
      all(map(_is_finite, clip)) and clip[0] < clip[1],
      'clip must be two numbers, the lower one first, such as (0, 100), got '
      '%s.', errors.written(clip))
  errors.check(
      clip is None or least <= clip[0] and clip[1] <= most,
      'clip must have numbers from %.7g to %.7g, got %r: log1p needs numbers '
      'above -1, and a standardised value is at most 2^24 in size.', least,
      most, clip)


def _check_default(value, least, most):
  """Raises UserError unless a default is None or a number in [least, most]."""
  errors.check_number('default', value, or_none=True)
  errors.check(value is None or least <= value <= most,
               'default must be from %.7g to %.7g, as the values of this '
               'column, got %r.', least, most, value)


def _is_finite(value):
  """Whether a binding holds a number, no bool, that float32 can hold."""
  return (errors.is_number(value) and not isinstance(value, bool) and
          abs(value) <= float(np.finfo(np.float32).max))


def _as_float(value):
  """Returns what a file has as a float, or None if it is no number."""
  try:
    return float(value)
  except (TypeError, ValueError, OverflowError):
    return None


def _positive(name, value):
  errors.check_integer(name, value, 1, _NUM_KEYS)
  return value
