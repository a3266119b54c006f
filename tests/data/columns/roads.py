"""The roads on which a column gets to the model, and what arrives on each.

A test gives the values of the columns as text and says what the model must read
of them. They are written as CSV and as Parquet, read by TensorFlow's ops and by
the kernels, and sent to a served model as columns and as tf.train.Examples.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import tensorflow.compat.v1 as tf

from ple_estimator.data import inputs
from ple_estimator.data import packing
from ple_estimator.data import reading as reading_lib
from ple_estimator.data import serving
from ple_estimator.engine import native


def files(folder, texts, typed=None):
  """Writes the same rows as CSV and Parquet files.

  Args:
    folder: pathlib.Path.
    texts: dict of column name to list of str, in the order of the spec.
    typed: dict of column name to pa.Array, of those that are no text in
      Parquet.

  Returns:
    list of inputs.FileInput.
  """
  rows = zip(*texts.values())
  csv, parquet = folder / 'x.csv', folder / 'x.parquet'
  # In quotes, as a line of one empty field would be a blank one.
  csv.write_text(''.join(
      ','.join('"%s"' % field for field in row) + '\n' for row in rows))
  pa.parquet.write_table(pa.table(dict(
      {name: pa.array(column) for name, column in texts.items()},
      **(typed or {}))), str(parquet))
  return [inputs.CsvInput(str(csv)), inputs.ParquetInput(str(parquet))]


def read(source, spec, groups, fused):
  """The first batch as the model reads it: a dict of numpy arrays."""
  reading = reading_lib.Reading(spec, groups=tuple(groups), fused=fused,
                                with_labels=False)
  source.check(reading)
  batch = tf.data.make_one_shot_iterator(source.dataset(reading)).get_next()
  with tf.Session() as sess:
    return sess.run(batch)


def served(spec, groups, feeds):
  """What a served model makes of columns, and of Examples.

  Args:
    spec: feature_spec.FeatureSpec.
    groups: list of packing.Group.
    feeds: dict of column name to list of values; those of None are left out of
      the Example, and are the column's `missing` otherwise.
  """
  made = serving.input_receiver_fn(
      reading_lib.Reading(spec, groups=tuple(groups)))()
  placeholder, = made.receiver_tensors_alternatives['examples'].values()
  with tf.Session() as sess:
    return [
        sess.run(made.features, {
            made.receiver_tensors[name]: np.array([
                missing(spec[name]) if value is None else value
                for value in values], spec[name].dtype.as_numpy_dtype)
            for name, values in feeds.items()}),
        sess.run(made.features, {placeholder: examples(spec, feeds)})]


def examples(spec, feeds):
  """Serialized tf.train.Examples of the rows that `served` takes."""
  count = len(next(iter(feeds.values())))
  return [tf.train.Example(features=tf.train.Features(feature={
      name: _feature(values[i], spec[name].dtype)
      for name, values in feeds.items() if values[i] is not None
      })).SerializeToString() for i in range(count)]


def missing(column):
  """The value by which a caller says that a row has none."""
  return np.broadcast_to(column.missing, column.shape).tolist()


def _feature(value, dtype):
  if dtype == tf.string:
    return tf.train.Feature(bytes_list=tf.train.BytesList(
        value=[value.encode()]))
  values = np.ravel(value).tolist()
  if dtype == tf.int64:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
  return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def fields(group, batch):
  """The rows of a group in each field: dict of column name to lists of ids."""
  rows, index, splits = [batch[key] for key in group.keys()[:3]]
  count = (len(splits) - 1) // len(group.columns)
  found = {}
  for c, column in enumerate(group.columns):
    found[column.name] = [
        [int(row) - group.offsets[c]
         for row in rows[index[splits[c * count + b]:splits[c * count + b + 1]]]
         ] for b in range(count)]
  return found


def weights_of(groups, batch):
  """The weights in each field of weighted lists: dict of name to lists."""
  found = {}
  for group in groups:
    if group.weighted:
      _, _, splits, weights = [batch[key] for key in group.keys()]
      cut = np.split(weights, splits[1:-1])
      count = len(cut) // len(group.columns)
      found.update((column.name, [x.tolist() for x in cut[
          c * count:(c + 1) * count]]) for c, column in enumerate(
              group.columns))
  return found


def ids_of(groups, batch):
  """The ids of all columns of groups in a batch: dict of name to lists."""
  found = {}
  for group in groups:
    found.update(fields(group, batch))
  return found


def check(folder, spec, texts, feeds, ids, typed=None, numbers=None,
          weights=None):
  """Asserts that the model reads the same on every road.

  Args:
    folder: pathlib.Path for files.
    spec: feature_spec.FeatureSpec.
    texts, typed: as `files`.
    feeds: as `served`.
    ids: dict of name to a list of ids per row, of the categories.
    numbers: dict of name to a list of what the network reads, of the others.
    weights: dict of name to a list of weights per row, of weighted lists.
  """
  groups = packing.groups(spec.categories)
  arrived = []
  for source in files(folder, texts, typed):
    for fused in (False, True) if native.available() else (False,):
      arrived.append(read(source, spec, groups, fused))
  arrived += served(spec, groups, feeds)
  for batch in arrived:
    assert ids_of(groups, batch) == ids
    assert weights_of(groups, batch) == (weights or {})
    for name, expected in (numbers or {}).items():
      np.testing.assert_allclose(batch[name], expected, rtol=1e-6)
