"""From tables of typed columns to the tensors that the model reads.

An encoder works in three steps, each called with what the one before returned:

  convert   pa.Table -> pa.Table, before rows are shuffled; may be None
  arrays    pa.Table of one batch -> tuple of numpy arrays
  encode    tensors of these arrays -> features, and labels where they are read
"""

import pyarrow as pa
import tensorflow.compat.v1 as tf

from ple_estimator.data import column_kinds
from ple_estimator.data import packing
from ple_estimator.data import sampling


def create(reading):
  """Returns the encoder for a reading.Reading."""
  if reading.fused and reading.groups:
    return KernelEncoder(reading)
  return TensorFlowEncoder(reading)


class _Encoder:
  """Base class of both encoders.

  Attributes:
    convert: function of pa.Table to pa.Table with the same rows, or None.
    dtypes: tuple of tf.DType, of what `arrays` returns.
    shapes: tuple of tf.TensorShape, of what `arrays` returns.
  """

  convert = None

  def __init__(self, reading, packed, columns):
    """Stores the reading, and what `arrays` returns.

    Args:
      reading: reading.Reading.
      packed: sequence of packing.Group, of which there are the arrays of packed
        ids.
      columns: list of base.Column, of which there is one array behind these.
    """
    self._reading = reading
    self._grouped = packing.names(reading.groups)
    # What a row has besides its columns.
    self._added = [sampling.CHANCE] if reading.rules else []
    dtypes = tuple(dtype for group in packed for dtype in group.dtypes())
    self.dtypes = dtypes + tuple(
        column.dtype for column in columns) + (tf.float32,) * len(self._added)
    self.shapes = (tf.TensorShape([None]),) * len(dtypes) + tuple(
        tf.TensorShape((None,) + column.shape) for column in columns) + (
            tf.TensorShape([None]),) * len(self._added)

  def _encoded(self, raw, packed):
    """Returns features, and labels where they are read.

    Args:
      raw: dict of column name to [batch] tensor, as FeatureSpec.encode takes.
      packed: dict of the packed ids of the groups, as packing.pack returns.
    """
    features, labels = self._reading.spec.encode(
        raw, self._reading.keep, without=self._grouped)
    features.update(packed)
    features.update((name, raw[name]) for name in self._added)
    return (features, labels) if self._reading.with_labels else features


class TensorFlowEncoder(_Encoder):
  """Makes and packs the ids by TensorFlow's ops, in `encode`."""

  def __init__(self, reading):
    """Stores the reading; builds no graph.

    Args:
      reading: reading.Reading.
    """
    self._columns = reading.columns()
    super().__init__(reading, (), self._columns)

  def arrays(self, table):
    """Returns one numpy array per column, [batch] or [batch, width]."""
    return tuple(_array(table.column(name)) for name in self._names())

  def encode(self, *values):
    """Returns features, and labels where they are read."""
    raw = dict(zip(self._names(), values))
    return self._encoded(raw, packing.pack(raw, self._reading.groups))

  def _names(self):
    return [column.name for column in self._columns] + self._added


class KernelEncoder(_Encoder):
  """Makes and packs the ids of groups by the C++ kernels of native.py.

  `convert` replaces categories by their ids before rows are shuffled, because
  ids are moved faster than text; `arrays` packs the ids of a batch.
  """

  def __init__(self, reading):
    """Stores the reading; builds no graph.

    Args:
      reading: reading.Reading.
    """
    grouped = packing.names(reading.groups)
    # Of a column in `keep` that is also in a group, both the ids and the values
    # are needed.
    self._kept = [reading.spec[n] for n in reading.keep if n in grouped]
    # The ids of other columns are made of these; nothing else reads them.
    self._sources = [c.name for c in reading.columns()
                     if c.is_source and c.name not in reading.keep]
    self._others = [c for c in reading.columns()
                    if c.name not in grouped + self._sources]
    self._keys = [key for group in reading.groups for key in group.keys()]
    super().__init__(reading, reading.groups, self._others + self._kept)

  def convert(self, table):
    """Returns the table with ids in the place of categories."""
    for column in self._kept:
      table = table.append_column(
          column_kinds.RAW + column.name, table.column(column.name))
    table = packing.to_ids(table, [
        column for group in self._reading.groups for column in group.columns])
    return table.drop(self._sources) if self._sources else table

  def arrays(self, table):
    """Returns the arrays of groups, see packing.Packed, then the columns."""
    packed = [array for group in self._reading.groups
              for array in group.pack_table(table)]
    names = [column.name for column in self._others] + [
        column_kinds.RAW + column.name for column in self._kept] + self._added
    return tuple(packed + [_array(table.column(name)) for name in names])

  def encode(self, *values):
    """Returns features, and labels where they are read."""
    names = [column.name for column in self._others + self._kept
             ] + self._added
    raw = dict(zip(names, values[len(self._keys):]))
    return self._encoded(raw, dict(zip(self._keys, values)))


class SerialEncoder:
  """An encoder of batches that are numbered, so that they can be followed.

  It takes pairs of (pa.Table, number) in `arrays`; the number becomes a
  feature, a scalar int64.
  """

  def __init__(self, encoder, feature):
    """Wraps an encoder that returns features and labels.

    Args:
      encoder: TensorFlowEncoder or KernelEncoder.
      feature: str, the name of the feature.
    """
    self._encoder = encoder
    self._feature = feature
    self.convert = encoder.convert
    self.dtypes = encoder.dtypes + (tf.int64,)
    self.shapes = encoder.shapes + (tf.TensorShape([]),)

  def arrays(self, batch):
    """Returns the arrays of the table, then the number."""
    table, serial = batch
    return self._encoder.arrays(table) + (serial,)

  def encode(self, *values):
    """Returns features, with the number among them, and labels."""
    features, labels = self._encoder.encode(*values[:-1])
    features[self._feature] = values[-1]
    return features, labels


def _array(column):
  """Returns a pa.ChunkedArray without nulls as a numpy array."""
  if pa.types.is_binary(column.type):
    return column.to_numpy()
  if pa.types.is_fixed_size_list(column.type):
    values = packing.to_numpy(packing.one_chunk(column).flatten())
    return values.reshape(-1, column.type.list_size)
  return packing.to_numpy(column)
