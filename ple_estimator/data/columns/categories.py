"""Columns whose values become ids, each with a vector of its own."""

import copy

import numpy as np
import pyarrow as pa
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data.columns import base
from ple_estimator.data.columns import numbers
from ple_estimator.engine import native

_NUM_KEYS = 2**63 - 1  # hashes that an int64 holds without a sign


class Hashed(base.Column):
  """A category hashed to num_buckets ids.

  The id of a value is that of
  tf.feature_column.categorical_column_with_hash_bucket.
  """

  is_category = True
  can_be_crossed = True

  def __init__(self, name, num_buckets, dim, default='', stddev=None, l2=None,
               trainable=True, vectors=None, table=None):
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
      trainable: bool; False leaves the vectors that the experts read as they
        start. Those of interactions, such as Wide, are trained all the same.
      vectors: str, the path of a Parquet file with a column of values and one
        of lists of dim numbers: where training starts, the vectors that the
        experts read are those of the file. A bucket of several of its values
        starts from their mean. None, and other values, start at random.
      table: str, a name: columns that name the same table share its rows, so
        that a value has one vector in all of them. What they must agree in is
        in tables.py. None is rows of its own.
    """
    super().__init__(name)
    errors.check(isinstance(default, str), 'default must be a text, got %s.',
                 errors.written(default))
    self._set_vectors(stddev, l2, trainable, vectors, table)
    self.num_buckets = _positive('num_buckets', num_buckets)
    self.dim = _positive('dim', dim)
    self._default = default

  def encode(self, text):
    """[batch] string -> [batch] int64 ids, base.NO_ID where missing."""
    empty = tf.equal(text, '')
    if self._default:
      return self._hash(
          tf.where(empty, tf.fill(tf.shape(text), self._default), text))
    return tf.where(
        empty, tf.fill(tf.shape(text), np.int64(base.NO_ID)), self._hash(text))

  def _hash(self, text):
    return tf.strings.to_hash_bucket_fast(text, self.num_buckets)

  def ids(self, array):
    return native.hash_text(array, self.num_buckets, self._missing_id())

  def keyed(self):
    keyed = copy.copy(self)
    keyed.num_buckets = _NUM_KEYS
    return keyed

  def _missing_id(self):
    if not self._default:
      return base.NO_ID
    default = pa.array([self._default.encode()], pa.binary())
    return int(native.hash_text(default, self.num_buckets, base.NO_ID)[0])


class Integer(numbers.Numeric):
  """A category whose value is its id already."""

  arrow_type = pa.int64()
  dtype = tf.int64
  missing = base.NO_ID
  is_category = True
  can_be_crossed = True
  wants = 'an integer, or text or another number that is one'

  def __init__(self, name, num_buckets, dim, default=base.NO_ID, stddev=None,
               l2=None, trainable=True, vectors=None, table=None):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      num_buckets: int, rows of the embedding table; ids are 0 to
        num_buckets - 1.
      dim: int, width of the embedding.
      default: int, the id of an empty field; -1 gives it the zero vector.
      stddev: float, as Hashed.
      l2: float, as Hashed.
      trainable: bool, as Hashed.
      vectors: str, as Hashed; or the path of a .npy file [num_buckets, dim],
        which has a row for each id.
      table: str, as Hashed.
    """
    super().__init__(name)
    self._set_vectors(stddev, l2, trainable, vectors, table, by_id=True)
    self.num_buckets = _positive('num_buckets', num_buckets)
    self.dim = _positive('dim', dim)
    errors.check(
        isinstance(default, int) and not isinstance(default, bool) and
        base.NO_ID <= default < num_buckets,
        'default must be -1 or in [0, %d), got %s.', num_buckets,
        errors.written(default))
    self._default = default

  def parse(self, array):
    return self._parse(
        array, base.NO_ID, lambda x: (x < 0) | (x >= self.num_buckets))

  def requirement(self):
    return 'be an integer in [0, %d)' % self.num_buckets

  def encode(self, values):
    """[batch] int64 -> [batch] int64 ids, base.NO_ID where missing.

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


def _positive(name, value):
  errors.check_integer(name, value, 1, _NUM_KEYS)
  return value
