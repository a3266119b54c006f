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
from ple_estimator.engine import native

NO_ID = -1  # the id of a missing value that has no default: a zero vector
_NUM_KEYS = 2**63 - 1  # hashes that an int64 holds without a sign
RAW = 'raw/'  # prefix of a feature that carries a column as the file has it


class Column:
  """One column of the data, in the order of the file.

  Attributes:
    name: str.
    arrow_type: pa.DataType of what `parse` returns.
    dtype: tf.DType of what `encode` takes; the same type in TensorFlow.
    missing: the value of that type that stands for an empty field, or None if
      there is none.
    is_category: bool, whether it becomes ids for an embedding.
    wants: str, the types that `accepts` takes, for errors.
  """

  arrow_type = pa.binary()
  dtype = tf.string
  missing = ''
  is_category = False
  wants = 'text or integer'

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
    return _is_text(_plain(arrow_type)) or pa.types.is_integer(arrow_type)

  def parse(self, array):
    """Gives one column its type and finds its bad rows.

    Args:
      array: pa.Array, text (binary or string) or a type that `accepts` takes.

    Returns:
      (values, bad): pa.Array of arrow_type without nulls, and a [rows] bool
      numpy array that is true where a value cannot be used, or None if all can.
    """
    if pa.types.is_dictionary(array.type):
      array = array.dictionary_decode()
    if not _is_text(array.type):
      array = array.cast(pa.string())
    return pc.fill_null(array.cast(pa.binary()), b''), None

  def requirement(self):
    """Returns what a value must be, for the error about a bad row."""
    return 'be text'

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


class Ignored(Column):
  """A column that the model does not see."""

  def accepts(self, arrow_type):
    return True


class Hashed(Column):
  """A category hashed to num_buckets ids.

  The id of a value is that of
  tf.feature_column.categorical_column_with_hash_bucket.
  """

  is_category = True

  def __init__(self, name, num_buckets, dim, default=''):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      num_buckets: int, rows of the embedding table; a keyed embedding
        (keyed.py) has a row per value instead.
      dim: int, width of the embedding.
      default: str, what an empty field stands for; '' gives it no id, and so
        the zero vector.
    """
    super().__init__(name)
    errors.check(isinstance(default, str), 'default must be a text, got %s.',
                 errors.written(default))
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

  wants = 'text, integer or a list of them'

  def __init__(self, name, num_buckets, dim, default='', separator='|',
               combiner='mean'):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      num_buckets: int, rows of the embedding table.
      dim: int, width of the embedding.
      default: str, what an empty field stands for; '' gives it no id, and so
        the zero vector.
      separator: str, between the items of a field; empty items are dropped.
      combiner: 'mean', 'sum' or 'sqrtn', as in tf.nn.embedding_lookup_sparse.
    """
    super().__init__(name, num_buckets, dim, default)
    errors.check_text('separator', separator)
    errors.check_choice('combiner', combiner, ('mean', 'sum', 'sqrtn'))
    self._separator = separator
    self.combiner = combiner

  def accepts(self, arrow_type):
    if _is_list(arrow_type):
      return super().accepts(arrow_type.value_type)
    return super().accepts(arrow_type)

  def parse(self, array):
    if not _is_list(array.type):
      return super().parse(array)
    # A list is joined to the text that a file without lists would have.
    items, _ = super().parse(array.flatten())
    lengths = pc.list_value_length(array).fill_null(0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), items)
    holds = pc.match_substring(items, self._separator)
    bad = None
    if pc.any(holds).as_py():
      counts = np.concatenate(
          [[0], np.cumsum(holds.to_numpy(zero_copy_only=False))])
      bad = counts[offsets[1:]] > counts[offsets[:-1]]
    return pc.binary_join(lists, self._separator.encode()), bad

  def requirement(self):
    return 'have no separator %r inside an item' % self._separator

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


class _Numeric(Column):
  """Base class of columns that are parsed as numbers."""

  arrow_type = pa.float32()
  dtype = tf.float32
  missing = None
  wants = 'number'

  def accepts(self, arrow_type):
    return (pa.types.is_integer(arrow_type) or pa.types.is_boolean(arrow_type)
            or pa.types.is_floating(arrow_type))

  def _parse(self, array, default, is_bad):
    """Parses numbers to arrow_type.

    Args:
      array: pa.Array, text or numbers.
      default: what an empty field stands for; None refuses it.
      is_bad: function of a numpy array of values to a bool array.

    Returns:
      As `parse`.
    """
    values, bad = _numbers(array, self.arrow_type)
    empty = values.is_null().to_numpy(zero_copy_only=False) & ~bad
    fill = 0 if default is None else default
    values = pc.fill_null(values, pa.scalar(fill, self.arrow_type))
    bad |= is_bad(values.to_numpy()) & ~empty
    if default is None:
      bad |= empty
    return values, bad if bad.any() else None


class Integer(_Numeric):
  """A category whose value is its id already."""

  arrow_type = pa.int64()
  dtype = tf.int64
  missing = NO_ID
  is_category = True
  wants = 'integer'

  def __init__(self, name, num_buckets, dim, default=NO_ID):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      num_buckets: int, rows of the embedding table; ids are 0 to
        num_buckets - 1.
      dim: int, width of the embedding.
      default: int, the id of an empty field; -1 gives it the zero vector.
    """
    super().__init__(name)
    self.num_buckets = _positive('num_buckets', num_buckets)
    self.dim = _positive('dim', dim)
    errors.check(
        isinstance(default, int) and not isinstance(default, bool) and
        NO_ID <= default < num_buckets,
        'default must be -1 or in [0, %d), got %s.', num_buckets,
        errors.written(default))
    self._default = default

  def accepts(self, arrow_type):
    return pa.types.is_integer(arrow_type)

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
  """A number that the network reads as it is, or transformed."""

  def __init__(self, name, log1p=False, mean=0.0, std=1.0, default=None):
    """Checks and stores the arguments; the input is (f(x) - mean) / std.

    Args:
      name: str.
      log1p: bool, whether f is log(1 + x), which needs x > -1; else f(x) = x.
      mean: float, subtracted after log1p.
      std: float, positive, divided by.
      default: float, the x of an empty field; None refuses empty fields.
    """
    super().__init__(name)
    errors.check_bool('log1p', log1p)
    errors.check_number('mean', mean)
    errors.check_number('std', std, above=0)
    errors.check_number('default', default, above=-1 if log1p else None,
                        or_none=True)
    self._log1p = log1p
    self._mean = mean
    self._std = std
    self.missing = default

  def parse(self, array):
    return self._parse(array, self.missing, self._is_bad)

  def _is_bad(self, x):
    return ~np.isfinite(x) | (x <= -1 if self._log1p else False)

  def requirement(self):
    return 'be a number' + (' above -1' if self._log1p else '')

  def encode(self, values):
    """[batch] float32 -> [batch] float32."""
    if self._log1p:
      values = tf.log1p(values)
    return (values - self._mean) / self._std


class Label(_Numeric):
  """A label: the value that a task predicts."""

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

  def parse(self, array):
    return self._parse(array, None, self._is_bad)

  def _is_bad(self, x):
    if self.values is None:
      return ~np.isfinite(x)
    return ~np.isin(x, np.asarray(self.values, np.float32))

  def requirement(self):
    if self.values is None:
      return 'be a number'
    return 'be one of %s' % ', '.join(map(str, self.values))


class Weight(_Numeric):
  """The weight of a row in losses and metrics."""

  def __init__(self, name, default=None):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      default: float, of an empty field; None refuses empty fields.
    """
    super().__init__(name)
    errors.check_number('default', default, least=0, or_none=True)
    self._default = default

  def parse(self, array):
    return self._parse(
        array, self._default, lambda x: ~np.isfinite(x) | (x < 0))

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


def _positive(name, value):
  errors.check_integer(name, value, 1)
  return value


def _is_text(arrow_type):
  return (pa.types.is_string(arrow_type) or pa.types.is_binary(arrow_type) or
          pa.types.is_large_string(arrow_type) or
          pa.types.is_large_binary(arrow_type) or
          pa.types.is_null(arrow_type))


def _is_list(arrow_type):
  return pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type)


def _plain(arrow_type):
  """The value type of a dictionary-encoded type."""
  if pa.types.is_dictionary(arrow_type):
    return arrow_type.value_type
  return arrow_type


def _numbers(array, arrow_type):
  """Converts text or numbers to arrow_type.

  Args:
    array: pa.Array, text or numbers.
    arrow_type: pa.DataType, int64 or float32.

  Returns:
    (values, bad): pa.Array with null where the field was empty or unreadable,
    and a [rows] bool numpy array that is true where it was unreadable.
  """
  bad = np.zeros(len(array), bool)
  if not _is_text(array.type):
    return array.cast(arrow_type, safe=False), bad
  try:
    text = pc.ascii_trim_whitespace(array.cast(pa.string()))
    empty = pc.equal(text, '')
    return pc.if_else(
        empty, pa.scalar(None, pa.string()), text).cast(arrow_type), bad
  except pa.ArrowInvalid:  # Some row is bad: look for it one by one.
    values = []
    number = int if pa.types.is_integer(arrow_type) else float
    for i, field in enumerate(array.cast(pa.binary()).to_pylist()):
      field = (field or b'').strip()
      try:
        value = number(field) if field else None
        bad[i] = b'_' in field  # which Python takes and Arrow does not
        values.append(pa.scalar(value, arrow_type).as_py())
      except (ValueError, OverflowError):
        values.append(None)
        bad[i] = True
    return pa.array(values, arrow_type), bad
