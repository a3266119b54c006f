"""What all columns have in common."""

import re
import zlib

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import arrow_values
from ple_estimator.storage import uris

NO_ID = -1  # the id of a missing value that has no default: a zero vector
RAW = 'raw/'  # prefix of a feature that carries a column as the file has it


def legal_scope(name):
  """A name as TensorFlow allows it for variables and placeholders."""
  legal = re.sub(r'[^A-Za-z0-9_.-]', '_', name)
  if legal == name and legal[0] not in '_-':
    return legal
  return 'column_%s_%08x' % (legal, zlib.crc32(name.encode()))


class Column:
  """One column of the data, in the order of the file.

  Attributes:
    name: str.
    arrow_type: pa.DataType of what `parse` returns.
    dtype: tf.DType of what `encode` takes; the same type in TensorFlow.
    missing: the value of that type by which a caller of a served model says
      that it has none; NaN of a number.
    shape: tuple of int, of the value of one row; () is a scalar.
    is_category: bool, whether it becomes ids for an embedding.
    can_be_crossed: bool, whether it is a category with one id per row, see
      crossed.py.
    weighted: bool, whether it is a list whose items have weights.
    is_source: bool, whether the model reads it only through other columns,
      which name it among their `sources`.
    attends: bool, whether it is a list whose items are weighed by attention.
    query: str, with attention: the category column by which it weighs the items
      of this list; None only in a list that is `joint`.
    joint: bool, with attention: whether one network weighs the items of all
      such lists of the same `aligned`.
    sources: tuple of str, the columns of the files that `encode` and `ids`
      take; its own name, unless it is made of others.
    own_dim: int, how many dimensions at the end of a category's vectors only
      interactions read (interactions/combined.py).
    own_l2: tuple of (width, float), the penalty on each part of these.
    stddev: float, of a category: the standard deviation that its rows start
      with; None leaves it to the embedding.
    l2: float, of a category: the strength of the penalty on its rows; None
      leaves it to the embedding.
    trainable: bool, of a category: whether training changes its vectors.
    vectors: str, of a category: the file that its vectors start from, or None.
    table: str, of a category: columns that name the same table share the rows
      of their values (tables.py); None is rows of its own.
    aligned: str, of a list: lists that give the same name have the same length
      in each row (aligned.py); None has any.
    wants: str, the types that `accepts` takes, for errors.
  """

  arrow_type = pa.binary()
  dtype = tf.string
  missing = ''
  shape = ()
  is_category = False
  can_be_crossed = False
  weighted = False
  is_source = False
  attends = False
  query = None
  joint = False
  own_dim = 0
  own_l2 = ()
  stddev = None
  l2 = None
  trainable = True
  vectors = None
  table = None
  aligned = None
  wants = 'text, or a number that is whole'

  def __init__(self, name):
    self.name = name
    self.sources = (name,)

  @property
  def scope(self):
    """The name as TensorFlow allows it for variables and placeholders."""
    return legal_scope(self.name)

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

  def unfit(self, columns):
    """Finds rows that can be parsed, but that do not suit other columns.

    Args:
      columns: dict of column name to pa.Array, as `parse` returns it, of all
        columns that are read.

    Returns:
      list of ([rows] bool numpy array, problem): the bad rows and what is asked
      of them, such as 'must be a number'.
    """
    del columns
    return []

  def stored(self):
    """Returns the column as it is to be written to another file."""
    return self

  def ids_by(self):
    """What decides the id of a value beside the kind and num_buckets.

    Returns:
      What JSON can hold, other for columns that give a value other ids; None
      where there is nothing else.
    """
    return None

  def encode(self, *values):
    """Makes what the model reads, by TensorFlow's ops.

    Only categories and numbers have this method.

    Args:
      *values: tensors of the columns that `sources` names, as `parse` returns
        them.

    Returns:
      [batch] int64 ids, or a SparseTensor of them; or float32 numbers.
    """
    raise NotImplementedError

  def item_ids(self, values):
    """Makes the ids of single values; other than `encode` of a list alone.

    Only a category has this method.

    Args:
      values: [n] tensor of dtype, one value or item each.

    Returns:
      [n] int64 ids, NO_ID where a value has none.
    """
    return self.encode(values)

  def ids(self, array):
    """Makes the same ids as `encode`, by the C++ kernels.

    Only a category has this method.

    Args:
      array: pa.Array as `parse` returns it.

    Returns:
      [rows] int64 numpy array, NO_ID where missing; for a list a pair of
      values [n] int64 and splits [rows + 1] int32, and of a weighted list
      also weights [n] float32, of a joint one places [n] int32.
    """
    raise NotImplementedError

  def keyed(self):
    """Returns the same column with a different id for every value.

    Its ids are keys of 63 bits, see packing.KeyedGroup. Only a category has
    this method.
    """
    raise NotImplementedError

  def _set_vectors(self, stddev, l2, trainable, vectors=None, table=None,
                   by_id=False):
    """Checks and stores what a category says of its vectors, as Hashed.

    Args:
      stddev, l2, trainable, vectors, table: as categories.Hashed.
      by_id: bool, whether the ids are no hashes, so that a file can have a
        vector per id.
    """
    errors.check_number('stddev', stddev, least=0, or_none=True)
    errors.check_number('l2', l2, least=0, or_none=True)
    errors.check_bool('trainable', trainable)
    errors.check(trainable or not l2, "l2 must be None with 'trainable': "
                 'False, got %s.', l2)
    self.stddev = stddev
    self.l2 = l2
    self.trainable = trainable
    errors.check_text('vectors', vectors, or_none=True)
    if vectors is not None:
      uris.check('vectors', [vectors])
      endings = ('.parquet', '.npy') if by_id else ('.parquet',)
      errors.check(vectors.endswith(endings), 'vectors must be a path that '
                   'ends in %s, got %r.', ' or '.join(endings), vectors)
    self.vectors = vectors
    errors.check_text('table', table, or_none=True)
    self.table = table


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
