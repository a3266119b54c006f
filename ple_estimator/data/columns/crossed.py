"""Categories that are combinations of the values of other columns."""

import functools

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data.columns import categories

_BETWEEN = '_'  # between keys, which are digits


class Crossed(categories.Hashed):
  """A category for each combination of the values of other columns.

  No file has such a column. Its value is a text, the keys of the values of its
  columns with '_' between them, which is hashed as Hashed does it. The key of a
  text is its 63-bit hash, and of another category its id. Where one of its
  columns is missing and has no default, the cross has no id, and so the zero
  vector.
  """

  can_be_crossed = False

  def __init__(self, name, columns, num_buckets, dim, stddev=None, l2=None,
               trainable=True):
    """Checks and stores the arguments of the column.

    Args:
      name: str, a name that no other column has.
      columns: list of str, names of two or more columns, each of a kind that
        has one category per row.
      num_buckets: int, rows of the embedding table; a keyed embedding
        (keyed.py) has a row per combination instead.
      dim: int, width of the embedding.
      stddev: float, as Hashed.
      l2: float, as Hashed.
      trainable: bool, as Hashed.
    """
    super().__init__(name, num_buckets, dim, '', stddev, l2, trainable)
    errors.check_list('columns', columns, lambda of: isinstance(of, str),
                      "two or more names, such as ('user', 'brand')")
    errors.check(
        len(columns) == len(set(columns)) >= 2, 'columns must be a list of two '
        "or more different names, such as ('user', 'brand'), got %s.",
        errors.written(columns))
    self.sources = tuple(columns)
    self._parts = ()

  def join(self, columns):
    """Looks up its columns; called once, before it makes ids.

    Args:
      columns: list of base.Column, all that files have.

    Raises:
      UserError: if one is missing or cannot be crossed.
    """
    by_name = {column.name: column for column in columns}
    possible = [column.name for column in columns if column.can_be_crossed]
    for name in self.sources:
      errors.check(
          name in possible, "FeatureSpec.columns, %r: columns must be names of "
          'columns with one category per row (%s), got %r.', self.name,
          ', '.join(possible) or 'there are none', name)
    self._parts = tuple(by_name[name].keyed() for name in self.sources)

  def encode(self, *values):
    """Tensors of its columns, [batch] each -> [batch] int64 ids."""
    keys = [column.encode(value)
            for column, value in zip(self._parts, values)]
    missing = functools.reduce(tf.logical_or, [key < 0 for key in keys])
    joined = tf.strings.join(list(map(tf.as_string, keys)), _BETWEEN)
    return super().encode(tf.where(
        missing, tf.fill(tf.shape(joined), ''), joined))

  def ids_by(self):
    return [[part.name, type(part).__name__, part.ids_by()]
            for part in self._parts]

  def ids(self, *arrays):
    keys = [column.ids(array) for column, array in zip(self._parts, arrays)]
    texts = [pa.array(key, mask=key < 0).cast(pa.string()) for key in keys]
    joined = pc.binary_join_element_wise(*(texts + [pa.scalar(_BETWEEN)]))
    return super().ids(pc.fill_null(joined, '').cast(pa.binary()))
