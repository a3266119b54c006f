"""Categories that are listed: the id of a value is its place in the list."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.data.columns import base
from ple_estimator.data.columns import siphash
from ple_estimator.engine import native

_MARK = b'\xef\xbb\xbf'  # at the beginning of some files of UTF-8


class Vocabulary(base.Column):
  """A category whose values are listed; the id of one is its place, from 0.

  A value that is not listed, out of vocabulary, is hashed to one of
  num_oov_buckets ids behind those of the list; without such buckets it counts
  as missing and has the zero vector. A number is listed as the text that it
  has: 7 as '7'.

  The graph finds a text without a lookup table, which would have to be
  initialised: by a search for its hash among the sorted hashes of the list, and
  a comparison of the texts themselves.
  """

  is_category = True
  can_be_crossed = True

  def __init__(self, name, values, dim, num_oov_buckets=0, default='',
               stddev=None, l2=None, trainable=True, vectors=None, table=None):
    """Checks and stores the arguments of the column; reads a file.

    Args:
      name: str.
      values: list of different texts and integers; or str, the path of a file
        that has one value per line.
      dim: int, width of the embedding.
      num_oov_buckets: int, ids that values out of the vocabulary share.
      default: str, what an empty field stands for; '' gives it no id, and so
        the zero vector.
      stddev: float, as categories.Hashed.
      l2: float, as categories.Hashed.
      trainable: bool, as categories.Hashed.
      vectors: str, as categories.Hashed; or the path of a .npy file
        [num_buckets, dim], which has a row for each id, also for those that
        values out of the vocabulary share. Values of a Parquet file that are
        not listed are left out.
      table: str, as categories.Hashed.

    Raises:
      UserError: if an argument is wrong, or the file cannot be read.
    """
    super().__init__(name)
    errors.check_integer('dim', dim, 1)
    errors.check_integer('num_oov_buckets', num_oov_buckets, 0)
    errors.check(isinstance(default, str), 'default must be a text, got %s.',
                 errors.written(default))
    self._set_vectors(stddev, l2, trainable, vectors, table, by_id=True)
    self.file = values if isinstance(values, str) and values else None
    self._listed = _of_file(values) if self.file else _of_list(values)
    errors.check(
        not default or num_oov_buckets or default.encode() in self._listed,
        'default must be one of values, or num_oov_buckets at least 1, got %s: '
        'a value that is not listed has no id.', errors.written(default))
    self.dim = dim
    self.num_buckets = len(self._listed) + num_oov_buckets
    self._num_oov = num_oov_buckets
    self._default = default
    self._set_order()

  def _set_order(self):
    """Sorts the values by their hashes, for the search in the graph."""
    hashes = siphash.hashes(self._listed)
    self._order = np.argsort(hashes, kind='stable').astype(np.int64)
    self._hashes = hashes[self._order]
    errors.check(len(np.unique(hashes)) == len(hashes), 'values must be texts '
                 'of different hashes: leave one of two alike out of %s.',
                 self.file or errors.written(self._listed))

  def digest(self):
    """Returns a str that is another one for other values or another order."""
    return hashlib.sha256(b'\n'.join(self._listed)).hexdigest()

  def encode(self, text):
    """[batch] string -> [batch] int64 ids, NO_ID where missing."""
    if self._default:
      text = tf.where(tf.equal(text, ''),
                      tf.fill(tf.shape(text), self._default), text)
    at = tf.searchsorted(self._hashes, tf.strings.to_hash_bucket_strong(
        text, siphash.NUM_BUCKETS, siphash.KEY))
    at = tf.minimum(at, len(self._listed) - 1)
    words = tf.constant([self._listed[i] for i in self._order])
    listed = tf.equal(tf.gather(words, at), text)
    others = tf.fill(tf.shape(text), np.int64(base.NO_ID))
    if self._num_oov:
      others = tf.where(tf.equal(text, ''), others, self._oov(text))
    return tf.where(listed, tf.gather(self._order, at), others)

  def item_ids(self, values):
    """As Column; a value that is not listed has no id of its own."""
    ids = self.encode(values)
    return tf.where(ids < len(self._listed), ids,
                    tf.fill(tf.shape(ids), np.int64(base.NO_ID)))

  def _oov(self, text):
    return len(self._listed) + tf.strings.to_hash_bucket_fast(
        text, self._num_oov)

  def keyed(self):
    return self  # every value has an id of its own already

  def ids_by(self):
    return [self.digest(), self._num_oov]

  def ids(self, array):
    if self._default:
      array = pc.if_else(pc.equal(array, pa.scalar(b'', pa.binary())),
                         pa.scalar(self._default.encode(), pa.binary()), array)
    places = pc.index_in(array, value_set=pa.array(self._listed, pa.binary()))
    ids = pc.fill_null(places, base.NO_ID).to_numpy().astype(np.int64)
    if not self._num_oov:
      return ids
    first = len(self._listed)
    oov = native.hash_text(array, self._num_oov, base.NO_ID - first) + first
    return np.where(ids >= 0, ids, oov)


def _of_list(values):
  """Returns a list of bytes: what a list of texts and integers stands for."""
  errors.check_list(
      'values', values, _is_value, "texts and integers that are not empty, "
      "such as ('red', 'blue'), or a file with one value per line")
  listed = [str(value).encode() for value in values]
  twice = sorted({value for value in listed if listed.count(value) > 1}
                 ) if len(set(listed)) < len(listed) else []
  errors.check(not twice, 'values must be different, got %r twice.',
               (twice or [b''])[0].decode())
  return listed


def _is_value(value):
  return (isinstance(value, str) and value != '' or
          isinstance(value, int) and not isinstance(value, bool))


def _of_file(path):
  """Returns a list of bytes: the lines of a file."""
  files.check_local('values', path, is_read=True)
  try:
    with open(path, 'rb') as f:
      text = f.read()
  except OSError as error:
    raise errors.UserError(
        'values must be a list, or a file with one value per line that can be '
        'read, got %r: %s.' % (path, error.strerror))
  text = text[len(_MARK):] if text.startswith(_MARK) else text
  lines = [line[:-1] if line.endswith(b'\r') else line
           for line in text.split(b'\n')]
  if not lines[-1]:
    lines.pop()
  errors.check(lines, 'values must be a file with one value per line, got %r '
               'without any.', path)
  numbers = {}
  for number, line in enumerate(lines, 1):
    errors.check(line, 'values must be a file with one value per line, got '
                 'line %d of %r, which is empty.', number, path)
    errors.check(line not in numbers, 'values must be different, but lines %d '
                 'and %d of %r are alike.', numbers.get(line, 0), number, path)
    numbers[line] = number
  return lines
