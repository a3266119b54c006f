"""Packs the ids of a batch: three tensors per group of columns.

Columns of one width and combiner form a group, whose embedding tables lie in
one table: the rows of the first column, then those of the second, and so on.
Columns that say how their rows start, how these are penalised, or that they are
not trained, form a group with those alone that say the same. So do lists whose
items have weights. Columns that share a table are a group of their own, in
which all have the same rows, and whose `parts` are pooled one by one.
The row of an id is the id plus the offset of its column. A packed batch lists
each row that occurs in it once, so that a training step reads and updates it
once, however many ids refer to it:

  rows    [n] int64, the different rows of the group that the batch refers to
  index   [ids] int32, the position in `rows` of each id
  splits  [columns * batch + 1] int32: the ids of field (column c, row b) are
          index[splits[c * batch + b] to splits[c * batch + b + 1])
  weights [ids] float32, of each id; only in a group with weighted lists, where
          an id of another column has the weight 1
  places  [ids] int32, at which place of its list the item of each id stands,
          empty items counted; only in a group with joint lists, which attention
          looks at together, where an id of another column has the place 0

Packing is done in the input pipeline, at the same time as the step before. The
"rows" of a KeyedGroup are keys.
"""

import collections
import hashlib

import numpy as np
import pyarrow as pa
import tensorflow.compat.v1 as tf

from ple_estimator.data.columns import tables
from ple_estimator.engine import native

Packed = collections.namedtuple('Packed', 'rows index splits weights places')
Packed.__new__.__defaults__ = ((), ())  # without weights and places
# Prefixes of columns of `to_ids` with what each id of a list has.
_WEIGHTS = 'weights/'
_PLACES = 'places/'
_SINGLE = 'mean'  # of a field with one id, where combiners do not differ
_ATTENTION = 'attention'  # which also differs where a field has one id


def groups(columns, fused=True, prefix='', kind=None):
  """Sorts category columns into groups, each looked up by one operation.

  Args:
    columns: list of column_kinds.Column with is_category.
    fused: bool, whether columns of one dim, combiner, stddev, l2 and trainable
      form a group; else each forms one of its own, under its own name.
      Columns that share a table form a group either way.
    prefix: str, before the names of fused groups; needed where two groups of
      one dim and combiner must be told apart.
    kind: Group, the default, or KeyedGroup.

  Returns:
    list of Group.
  """
  columns_of = collections.OrderedDict()
  for column in columns:
    name = column.scope
    if column.table is not None:
      name = tables.scope(column.table)
    elif fused:
      name = prefix + _name(column)
    columns_of.setdefault(name, []).append(column)
  return [(kind or Group)(*group) for group in columns_of.items()]


def _name(column):
  """The name of a fused group, the same for columns that can share it."""
  name = 'dim_%d_%s' % (column.dim, _combiner(column))
  if column.weighted:
    name += '_weighted'
  for key in ('stddev', 'l2'):
    value = getattr(column, key)
    if value is not None:
      # No name of a variable has a plus sign, which repr(1e+20) has.
      name += '_%s_%s' % (key, repr(float(value)).replace('+', ''))
  return name if column.trainable else name + '_frozen'


def _combiner(column):
  return getattr(column, 'combiner', _SINGLE)


class Part:
  """Columns of a group, next to each other, that are pooled alike.

  Attributes:
    columns: list of column_kinds.Column.
    dim: int, width of their vectors.
    combiner: 'mean', 'sum', 'sqrtn' or 'attention'.
    attends: bool, whether it is 'attention', for which an embedding returns the
      items of the lists as they are (hashed.Items).
    weighted: bool, whether the columns are lists whose items have weights.
    placed: bool, whether some of them are joint lists.
  """

  def __init__(self, columns, begin, count, how):
    """Stores the arguments.

    Args:
      columns: list of column_kinds.Column.
      begin: int, the place of the first one in the group.
      count: int, the number of all columns of the group.
      how: (combiner, weighted), or None where each field has one id.
    """
    self.columns = columns
    self.dim = columns[0].dim
    self.combiner, self.weighted = how or (_SINGLE, False)
    self.attends = self.combiner == _ATTENTION
    self.placed = any(column.joint for column in columns)
    self._begin = begin
    self._count = count

  def take(self, packed):
    """Returns the ids of these columns as a Packed with the rows of the group.

    Args:
      packed: Packed, the ids of the whole group.
    """
    if len(self.columns) == self._count:
      return packed
    batch = (tf.size(packed.splits) - 1) // self._count
    begin = self._begin * batch
    splits = packed.splits[begin:begin + len(self.columns) * batch + 1]
    first, end = splits[0], splits[-1]
    return Packed(packed.rows, packed.index[first:end], splits - first,
                  packed.weights[first:end] if self.weighted else (),
                  packed.places[first:end] if self.placed else ())


def _parts(columns):
  """Cuts the columns of a group into a list of Part.

  A column with one id per row joins the columns before or behind it: combiners
  do not differ there.
  """
  runs = []  # lists of columns, and how they are pooled
  for column in columns:
    how = ((column.combiner, column.weighted)
           if hasattr(column, 'combiner') else None)
    if not runs or not _alike(runs[-1][1], how):
      runs.append(([column], how))
    else:
      runs[-1] = runs[-1][0] + [column], how or runs[-1][1]
  begins = np.cumsum([0] + [len(run) for run, _ in runs]).tolist()
  return [Part(run, begin, len(columns), how)
          for (run, how), begin in zip(runs, begins)]


def _alike(one, other):
  """Whether two columns are pooled alike: how lists are, None is one id."""
  return one == other or None in (one, other) and (
      (_ATTENTION, False) not in (one, other))


class Group:
  """Columns whose rows are numbered together.

  Attributes:
    name: str, e.g. 'dim_16_mean'.
    columns: list of column_kinds.Column of one dim, stddev and l2, and of one
      combiner or one table.
    owners: list of those of them that have rows of their own: of columns that
      share a table the first, else all.
    parts: list of Part, the columns by how they are pooled; one, unless columns
      share a table.
    table: str, the table that the columns share, or None.
    dim: int, width of their vectors.
    own_dim: int, how many dimensions at the end only interactions read.
    own_l2: tuple of (width, float), the penalty on each part of these.
    combiner: 'mean', 'sum', 'sqrtn' or 'attention', of the first of parts.
    weighted: bool, whether some columns are lists whose items have weights.
    placed: bool, whether some columns are joint lists.
    stddev: float, what the columns say of the start of their rows, or None.
    l2: float, what the columns say of the penalty on their rows, or None.
    trainable: bool, whether training changes their vectors.
    offsets: list of int, the first row of each column.
    num_rows: int, the sum of num_buckets of the owners.
  """

  def __init__(self, name, columns):
    """Numbers the rows.

    Args:
      name: str.
      columns: list of column_kinds.Column, as in the attribute.
    """
    self.name = name
    self.columns = columns
    self.table = columns[0].table
    self.owners = columns if self.table is None else columns[:1]
    self.parts = _parts(columns)
    self.dim = columns[0].dim
    self.own_dim = columns[0].own_dim
    self.own_l2 = columns[0].own_l2
    self.combiner = self.parts[0].combiner
    self.weighted = any(part.weighted for part in self.parts)
    self.placed = any(part.placed for part in self.parts)
    self.stddev = columns[0].stddev
    self.l2 = columns[0].l2
    self.trainable = columns[0].trainable
    self.offsets, self.num_rows = firsts(
        [c.num_buckets for c in columns], self.table)

  def _rows(self, ids, i):
    """Returns the rows of ids of column i, a tensor or numpy array of int64."""
    return ids + self.offsets[i]

  def take(self, features):
    """Returns the group's packed ids among the features as a Packed."""
    return Packed(**{field: features[name] for field, name in zip(
        self._fields(), self.keys())})

  def keys(self):
    """Returns the names of the group's packed ids among the features."""
    return ['%s/%s' % (self.name, field) for field in self._fields()]

  def _fields(self):
    return (['rows', 'index', 'splits'] + ['weights'] * self.weighted +
            ['places'] * self.placed)

  def dtypes(self):
    """Returns the tuple of tf.DType of what `keys` names."""
    return (tf.int64, tf.int32, tf.int32) + (
        tf.float32,) * self.weighted + (tf.int32,) * self.placed

  def pack(self, features):
    """Packs ids by TensorFlow ops.

    Args:
      features: dict of column name to ids, as Column.encode makes them.

    Returns:
      dict of `keys` to tensors.
    """
    values, lengths, weights, places = [], [], [], []
    for i, column in enumerate(self.columns):
      ids, of_ids = features[column.name], None
      if column.weighted:
        ids, of_ids = ids
      if self.placed:
        places.append(tf.cast(ids.indices[:, 1], tf.int32) if column.joint else
                      None)
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
      if self.weighted:
        weights.append(tf.ones_like(ids, tf.float32) if of_ids is None else
                       of_ids.values)
      if self.placed and places[-1] is None:
        places[-1] = tf.zeros_like(ids, tf.int32)
    rows, index = tf.unique(tf.concat(values, axis=0))
    splits = tf.concat(
        [[0], tf.cumsum(tf.concat(lengths, axis=0))], axis=0)
    packed = (rows, index, splits)
    for more in (weights, places):
      if more:
        packed += (tf.concat(more, axis=0),)
    return dict(zip(self.keys(), packed))

  def pack_table(self, table):
    """As `pack`, without TensorFlow.

    Args:
      table: pa.Table that `to_ids` returned.

    Returns:
      tuple of numpy arrays in the order of `keys`.
    """
    values, lengths = [], [np.zeros(1, np.int32)]
    weights, places = [], []
    for i, column in enumerate(self.columns):
      array = one_chunk(table.column(column.name))
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
      if self.weighted:
        weights.append(to_numpy(one_chunk(
            table.column(_WEIGHTS + column.name)).flatten())
                       if column.weighted else np.ones(len(ids), np.float32))
      if self.placed:
        places.append(to_numpy(one_chunk(
            table.column(_PLACES + column.name)).flatten())
                      if column.joint else np.zeros(len(ids), np.int32))
    rows, index = native.unique(np.concatenate(values))
    packed = rows, index, np.cumsum(np.concatenate(lengths), dtype=np.int32)
    return packed + tuple(
        np.concatenate(more) for more in (weights, places) if more)


class KeyedGroup(Group):
  """A group with keys in place of rows: every value has a key of its own.

  A key has 63 bits: the hash of a text, or the integer itself. A value that
  occurs in two columns must have two rows, unless they share a table. So where
  a group has several columns, a salt of its column is combined with each key by
  exclusive or.
  """

  def __init__(self, name, columns):
    """As Group."""
    super().__init__(name, columns)
    self.columns = [column.keyed() for column in columns]
    self._salts = [np.int64(salt(column.name) if len(self.owners) > 1 else 0)
                   for column in columns]

  def _rows(self, ids, i):
    if isinstance(ids, np.ndarray):
      return ids ^ self._salts[i]
    return tf.bitwise.bitwise_xor(ids, self._salts[i])


def firsts(num_buckets, table=None):
  """Numbers the rows of the columns of a group, of a table of a fixed height.

  Args:
    num_buckets: list of int, of each column.
    table: str, the table that the columns share; None if each has own rows.

  Returns:
    (firsts, num_rows): list of int, the first row of each column; and int.
  """
  if table is not None:
    return [0] * len(num_buckets), num_buckets[0]
  ends = np.cumsum([0] + list(num_buckets))
  return [int(end) for end in ends[:-1]], int(ends[-1])


def salt(name):
  """Returns what the keys of a column are combined with in a KeyedGroup.

  Args:
    name: str, of the column.

  Returns:
    int of 63 bits that depends on the name alone.
  """
  return int.from_bytes(
      hashlib.sha256(name.encode()).digest()[:8], 'little') >> 1


def names(groups):
  """The names of the columns in groups."""
  return [column.name for group in groups for column in group.columns]


def pack(raw, groups):
  """Encodes and packs the columns of groups by TensorFlow ops.

  Args:
    raw: dict of column name to [batch] tensor, as FeatureSpec.encode takes,
      of the sources of all columns.
    groups: list of Group.

  Returns:
    dict of all their `keys` to tensors.
  """
  features = {}
  for group in groups:
    features.update(group.pack({
        column.name: column.encode(*[raw[name] for name in column.sources])
        for column in group.columns}))
  return features


def counts(packed):
  """Returns [n] int64, how often each row of a Packed occurs in its batch."""
  return tf.math.unsorted_segment_sum(
      tf.ones_like(packed.index, tf.int64), packed.index, tf.size(packed.rows))


def to_ids(table, columns):
  """Replaces the categories of a table by their ids, and adds crosses.

  Args:
    table: pa.Table of columns as they were parsed.
    columns: list of column_kinds.Column with is_category.

  Returns:
    pa.Table, int64 or list<int64> in those columns, with further columns of
    list<float> for the weights of weighted lists, and of list<int32> for the
    places of joint ones.
  """
  # All of them first: a column may be the source of another one too.
  arrays = [named for column in columns for named in _ids(table, column)]
  for name, array in arrays:
    at = table.schema.get_field_index(name)
    table = (table.append_column(name, array) if at < 0 else
             table.set_column(at, name, array))
  return table


def _ids(table, column):
  """The ids of a column, and the weights or places if it has some.

  Returns:
    list of (name, pa.Array): int64, or list<int64>, and list<float> or
    list<int32>.
  """
  ids = column.ids(*[one_chunk(table.column(name)) for name in column.sources])
  if not isinstance(ids, tuple):
    return [(column.name, pa.array(ids))]
  splits = pa.array(ids[1])
  lists = [(column.name, ids[0])] + [
      ((_WEIGHTS if column.weighted else _PLACES) + column.name, more)
      for more in ids[2:]]
  return [(name, pa.ListArray.from_arrays(splits, pa.array(values)))
          for name, values in lists]


def to_numpy(array):
  """Returns a pa.Array or ChunkedArray of numbers without nulls as numpy array.

  Not by pyarrow's own method: it tries to import pandas at every call, which
  takes longer than a batch where pandas is not installed.
  """
  if isinstance(array, pa.ChunkedArray):
    array = one_chunk(array)
  kind = 'f' if pa.types.is_floating(array.type) else 'i'
  values = np.frombuffer(array.buffers()[1] or b'',
                         '%s%d' % (kind, array.type.bit_width // 8))
  return values[array.offset:array.offset + len(array)]


def one_chunk(column):
  """Returns a pa.ChunkedArray as one pa.Array."""
  if column.num_chunks == 1:
    return column.chunk(0)
  array = column.combine_chunks()
  # Some versions of pyarrow return a ChunkedArray of one chunk or none.
  if isinstance(array, pa.ChunkedArray):
    return pa.concat_arrays(array.chunks) if array.num_chunks else pa.array(
        [], column.type)
  return array
