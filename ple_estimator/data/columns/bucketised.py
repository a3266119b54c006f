"""Numbers that become categories: which of some intervals a number lies in."""

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data.columns import base
from ple_estimator.data.columns import numbers

_SMALLEST = 2.0**-126  # TensorFlow takes what is smaller, denormal, for 0.


class Bucketised(numbers.Numeric):
  """A category of numbers: its id is how many boundaries a number reaches.

  The boundaries (0, 10) make three ids: 0 of numbers below 0, 1 of those from 0
  to below 10, and 2 of those from 10 on. It is the id that
  numpy.searchsorted(boundaries, x, side='right') has, and that
  tf.feature_column.bucketized_column gives. Numbers and boundaries are
  compared as float32, as a served model gets them; infinite ones are taken.
  """

  is_category = True
  can_be_crossed = True

  def __init__(self, name, boundaries, dim, default=None, stddev=None, l2=None,
               trainable=True, vectors=None, table=None):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      boundaries: list of numbers, ascending, also in float32.
      dim: int, width of the embedding.
      default: float, the number that an empty field and NaN stand for; None
        gives these no id, and so the zero vector.
      stddev: float, as categories.Hashed.
      l2: float, as categories.Hashed.
      trainable: bool, as categories.Hashed.
      vectors: str, as categories.Hashed; or the path of a .npy file
        [num_buckets, dim], which has a row for each id.
      table: str, as categories.Hashed.
    """
    super().__init__(name)
    errors.check_list('boundaries', boundaries, errors.is_number,
                      'ascending numbers, such as (0, 10)')
    self.boundaries = _normal(np.array(boundaries, np.float32))
    errors.check(
        np.all(np.diff(self.boundaries) > 0), 'boundaries must be a list of '
        'numbers that ascend in float32, such as (0, 10), got %s.',
        errors.written(boundaries))
    errors.check_number('default', default, or_none=True)
    errors.check_integer('dim', dim, 1)
    self._set_vectors(stddev, l2, trainable, vectors, table, by_id=True)
    self.num_buckets = len(boundaries) + 1
    self.dim = dim
    self._default = float('nan') if default is None else float(default)

  def parse(self, array):
    return self._parse(
        array, self._default, lambda x: np.zeros(len(x), bool))

  def requirement(self):
    return 'be a number'

  def encode(self, values):
    """[batch] float32 -> [batch] int64 ids, NO_ID where missing."""
    values = tf.where(
        tf.is_nan(values),
        tf.fill(tf.shape(values), np.float32(self._default)), values)
    ids = tf.cast(tf.raw_ops.Bucketize(
        input=values, boundaries=self.boundaries.tolist()), tf.int64)
    return tf.where(tf.is_nan(values),
                    tf.fill(tf.shape(ids), np.int64(base.NO_ID)), ids)

  def keyed(self):
    return self  # every interval has an id of its own already

  def ids_by(self):
    return self.boundaries.tolist()

  def ids(self, array):
    values = array.to_numpy()
    ids = np.searchsorted(self.boundaries, _normal(values), side='right')
    return np.where(np.isnan(values), base.NO_ID, ids)


def _normal(values):
  """Returns a float32 numpy array with 0 for denormal numbers."""
  with np.errstate(invalid='ignore'):  # comparisons of NaN
    return np.where(np.abs(values) < _SMALLEST, np.float32(0), values)
