"""The ids of a batch in one piece per group of columns.

Columns of one width and combiner form a group: their rows lie one behind the
other, and a column's start at its offset. A batch holds each of its different
rows once, so the step reads and updates a row once, whoever asked for it:

  rows    [n] int64, the different rows of the group
  index   [ids] int32, where in `rows` each id is
  splits  [columns * batch + 1] int32: the ids of field (column c, row b) are
          index[splits[c * batch + b] to splits[c * batch + b + 1])

This is made in the input pipeline, not in the step. The rows of a KeyedGroup
are keys.
"""

import collections
import hashlib

import numpy as np
import pyarrow as pa
import tensorflow.compat.v1 as tf

from ple_estimator.engine import native

Packed = collections.namedtuple('Packed', 'rows index splits')
_SINGLE = 'mean'  # the combiner of a field with one id, whichever is at hand


def groups(columns, fused=True, prefix='', kind=None):
  """Cuts category columns into groups that are looked up at once.

  Args:
    columns: list of features.Column with is_category.
    fused: bool, whether columns of one dim and combiner form a group; else
      each forms one of its own, under its own name.
    prefix: str, of the names of fused groups, for two that differ in more.
    kind: Group, the default, or KeyedGroup.

  Returns:
    list of Group.
  """
  found = collections.OrderedDict()
  for column in columns:
    name = column.scope
    if fused:
      name = '%sdim_%d_%s' % (prefix, column.dim, _combiner(column))
    found.setdefault(name, []).append(column)
  return [(kind or Group)(name, members) for name, members in found.items()]


def _combiner(column):
  return getattr(column, 'combiner', _SINGLE)


class Group:
  """Columns whose rows are numbered together.

  Attributes:
    name: str, e.g. 'dim_16_mean'.
    columns: list of features.Column of one dim and combiner.
    dim: int, width of their vectors.
    combiner: 'mean', 'sum' or 'sqrtn'.
    offsets: list of int, the first row of each column.
    num_rows: int, the sum of num_buckets.
  """

  def __init__(self, name, columns):
    """Numbers the rows.

    Args:
      name: str.
      columns: list of features.Column of one dim and combiner.
    """
    self.name = name
    self.columns = columns
    self.dim = columns[0].dim
    self.combiner = _combiner(columns[0])
    ends = np.cumsum([0] + [c.num_buckets for c in columns])
    self.offsets = [int(end) for end in ends[:-1]]
    self.num_rows = int(ends[-1])

  def _rows(self, ids, i):
    """The rows of ids of column i, tensor or numpy array of int64."""
    return ids + self.offsets[i]

  def take(self, features):
    """Returns what `pack` put into `features` as a Packed."""
    return Packed(*[features[name] for name in self.keys()])

  def keys(self):
    """The names of a Packed's fields among features."""
    return ['%s/%s' % (self.name, field) for field in Packed._fields]

  def pack(self, features):
    """Packs ids by TensorFlow ops.

    Args:
      features: dict of column name to ids, as Column.encode makes them.

    Returns:
      dict of `keys` to tensors.
    """
    values, lengths = [], []
    for i, column in enumerate(self.columns):
      ids = features[column.name]
      if isinstance(ids, tf.SparseTensor):
        lengths.append(tf.math.unsorted_segment_sum(
            tf.ones_like(ids.values, tf.int32), ids.indices[:, 0],
            ids.dense_shape[0]))
        ids = ids.values
      else:
        known = ids >= 0
        lengths.append(tf.cast(known, tf.int32))
        ids = tf.boolean_mask(ids, known)
      values.append(self._rows(ids, i))
    rows, index = tf.unique(tf.concat(values, axis=0))
    splits = tf.concat(
        [[0], tf.cumsum(tf.concat(lengths, axis=0))], axis=0)
    return dict(zip(self.keys(), (rows, index, splits)))

  def pack_table(self, table):
    """As `pack`, without TensorFlow.

    Args:
      table: pa.Table that `to_ids` made.

    Returns:
      tuple of numpy arrays in the order of `keys`.
    """
    values, lengths = [], [np.zeros(1, np.int32)]
    for i, column in enumerate(self.columns):
      array = _one_chunk(table.column(column.name))
      if pa.types.is_list(array.type):
        lengths.append(np.diff(to_numpy(array.offsets)))
        ids = to_numpy(array.flatten())
      else:
        ids = to_numpy(array)
        known = ids >= 0
        lengths.append(known.astype(np.int32))
        if not known.all():
          ids = ids[known]
      values.append(self._rows(ids, i))
    rows, index = native.unique(np.concatenate(values))
    return rows, index, np.cumsum(np.concatenate(lengths), dtype=np.int32)


class KeyedGroup(Group):
  """A group whose rows are keys: every value has one of its own.

  A key has 63 bits: the hash of a text, or the integer itself. Where several
  columns form the group, each scrambles its keys in a way of its own, as a
  value in two columns must have two rows.
  """

  def __init__(self, name, columns):
    super().__init__(name, columns)
    self.columns = [column.keyed() for column in columns]
    self._salts = [np.int64(_salt(column.name) if len(columns) > 1 else 0)
                   for column in columns]

  def _rows(self, ids, i):
    if isinstance(ids, np.ndarray):
      return ids ^ self._salts[i]
    return tf.bitwise.bitwise_xor(ids, self._salts[i])


def _salt(name):
  """63 bits of a name."""
  return int.from_bytes(
      hashlib.sha256(name.encode()).digest()[:8], 'little') >> 1


def names(groups):
  """The names of the columns in groups."""
  return [column.name for group in groups for column in group.columns]


def pack(raw, groups):
  """Encodes and packs the columns of groups by TensorFlow ops.

  Args:
    raw: dict of column name to [batch] tensor, as FeatureSpec.encode takes.
    groups: list of Group.

  Returns:
    dict of all their `keys` to tensors.
  """
  features = {}
  for group in groups:
    features.update(group.pack({
        column.name: column.encode(raw[column.name])
        for column in group.columns}))
  return features


def counts(packed):
  """[n] int64, how often each of the rows of a Packed comes in its batch."""
  return tf.math.unsorted_segment_sum(
      tf.ones_like(packed.index, tf.int64), packed.index, tf.size(packed.rows))


def to_ids(table, columns):
  """Replaces the categories of a table by their ids.

  Args:
    table: pa.Table of columns as they were parsed.
    columns: list of features.Column with is_category.

  Returns:
    pa.Table, int64 or list<int64> in those columns.
  """
  for column in columns:
    found = column.ids(_one_chunk(table.column(column.name)))
    if isinstance(found, tuple):
      ids, splits = found
      array = pa.ListArray.from_arrays(pa.array(splits), pa.array(ids))
    else:
      array = pa.array(found)
    table = table.set_column(
        table.schema.get_field_index(column.name), column.name, array)
  return table


def to_numpy(array):
  """A pa.Array of numbers without nulls, or a ChunkedArray, as numpy has it.

  Where pandas is missing, pyarrow's own method looks for it at every call,
  which costs more than a batch.
  """
  if isinstance(array, pa.ChunkedArray):
    array = _one_chunk(array)
  kind = 'f' if pa.types.is_floating(array.type) else 'i'
  values = np.frombuffer(array.buffers()[1] or b'',
                         '%s%d' % (kind, array.type.bit_width // 8))
  return values[array.offset:array.offset + len(array)]


def _one_chunk(column):
  if column.num_chunks == 1:
    return column.chunk(0)
  found = column.combine_chunks()
  # Of one chunk or none, what combine_chunks returns differs by version.
  if isinstance(found, pa.ChunkedArray):
    return pa.concat_arrays(found.chunks) if found.num_chunks else pa.array(
        [], column.type)
  return found
