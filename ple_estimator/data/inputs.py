"""input_fns: files to batches of ids, and what a served model is fed."""

import math

from absl import logging
import gin
import numpy as np
import pyarrow as pa
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.cluster.work_queue import work_queue
from ple_estimator.data import column_kinds
from ple_estimator.data import packing
from ple_estimator.data import readers
from ple_estimator.data import stream
from ple_estimator.engine import native

_ENCODERS = 2  # batches made at a time; their order stays


class _FileInput:
  """Batches of rows from files; a subclass knows the format.

  Attributes:
    error: the UserError that ended reading, or None. TensorFlow wraps it in
      one of its own, whose text no user wants to read.
  """

  suffix = ''

  def __init__(self, files, data_dir, batch_size, shuffle_rows, epochs,
               drop_remainder, prefetch, on_bad_row):
    name = type(self).__name__
    for parameter, value, least in [
        ('batch_size', batch_size, 1), ('shuffle_rows', shuffle_rows, 0),
        ('epochs', epochs, 1), ('prefetch', prefetch, 0)]:
      errors.check_integer('%s.%s' % (name, parameter), value, least)
    errors.check(on_bad_row in ('error', 'skip'),
                 "%s.on_bad_row must be 'error' or 'skip', got %r.",
                 name, on_bad_row)
    self._files = files
    self._data_dir = data_dir
    self.batch_size = batch_size
    self.shuffle_rows = shuffle_rows
    self.epochs = epochs
    self._drop_remainder = drop_remainder
    self.prefetch = prefetch
    self._bad_rows = readers.BadRows(on_bad_row == 'skip')
    self.error = None

  def paths(self):
    """Lists the files; raises UserError if there are none."""
    return readers.find_files(self._data_dir, self._files, self.suffix,
                              '%s.files' % type(self).__name__)

  def check(self, spec, with_labels=True, keep=()):
    """Looks at every file, so that training does not stop for it later.

    Args:
      spec: features.FeatureSpec.
      with_labels: bool, whether labels and weight are needed.
      keep: names of columns needed besides.

    Raises:
      UserError: if files are missing, empty or damaged, or lack a column.
    """
    self._reader(spec, spec.read(with_labels, keep)).check()

  def count_rows(self, spec):
    """Returns the number of rows of one epoch, bad ones included."""
    return self._reader(spec, spec.read(with_labels=False)).count_rows()

  def slices(self, spec, most_rows=None):
    """Returns the rows of one epoch as a list of readers.Slice.

    Args:
      spec: features.FeatureSpec.
      most_rows: int, rows in a slice (of CSV, about); None is no limit.
    """
    return self._reader(spec, spec.read(with_labels=False)).slices(
        most_rows=most_rows)

  def tables(self, spec, with_labels=True, keep=(), shard=(0, 1), seed=0,
             first_row=0, convert=None, micro_batches=1):
    """Yields the batches of all epochs as pa.Table of typed columns.

    Args:
      spec: features.FeatureSpec.
      with_labels: bool, whether to read labels and weight.
      keep: names of columns to read besides.
      shard: (index, count), the share of the rows to read. Shares do not
        overlap and leave nothing out.
      seed: int, of the order of files and rows.
      first_row: int, how many rows, over all epochs, to leave out at the
        start: what a run saw before it was interrupted. Of one share among
        several it is approximate, as shares differ in size.
      convert: function of pa.Table to pa.Table with the same rows, applied
        before rows are shuffled and batched.
      micro_batches: int, how many of the batches have batch_size rows.
    """
    reader = self._reader(spec, spec.read(with_labels, keep))
    index, count = shard
    slices = reader.slices(at_least=count)[index::count]
    epoch, rest = 0, 0
    if first_row:
      epoch, rest = divmod(first_row, max(1, reader.count_rows() // count))
    rows = self._epochs(reader, slices, seed, epoch, convert)
    return stream.batched(
        stream.without_first(rows, rest),
        math.ceil(self.batch_size / micro_batches), self._drop_remainder)

  def _epochs(self, reader, slices, seed, first_epoch, convert):
    """Yields the rows of every epoch; an epoch ends before the next begins."""
    for epoch in range(first_epoch, self.epochs):
      order, rows, skipped = slices, 0, self._bad_rows.skipped
      rng = np.random.RandomState([seed % 2**32, epoch])
      if self.shuffle_rows:
        order = _by_file(slices, rng)
      tables = (table for piece in order for table in reader.read(piece))
      if convert:
        tables = map(convert, tables)
      if self.shuffle_rows > 1:
        tables = stream.shuffled(tables, self.shuffle_rows, rng)
      for table in tables:
        rows += table.num_rows
        yield table
      name = type(self).__name__
      skipped = self._bad_rows.skipped - skipped
      if skipped:
        logging.warning('%s %r: skipped %d bad rows of %d in epoch %d.', name,
                        self._files, skipped, skipped + rows, epoch)
      self._check_rows(rows)

  def _tables_of(self, queue, spec, keep, seed, convert, micro_batches):
    """As `tables`, of what a work queue hands out: (pa.Table, serial)."""
    reader = self._reader(spec, spec.read(True, keep))
    client = queue.client()
    rows = self._handed_out(
        reader, client, np.random.RandomState(seed % 2**32), convert)
    for table in stream.batched(
        rows, math.ceil(self.batch_size / micro_batches)):
      yield table, client.sent(table)

  def _handed_out(self, reader, client, rng, convert):
    """Yields the rows of slices; None where it has to wait for the next.

    Rows that wait for a full batch have to be trained then: others may be
    waiting for the slices that they belong to.
    """
    work, taken, rows = client.take(), 0, 0

    def of_epoch(epoch):
      nonlocal work, taken
      while work and work.epoch == epoch:
        taken += 1
        for table in reader.read(work.piece):
          yield client.mark(convert(table) if convert else table, work)
        client.read(work)
        work = client.take()

    while True:
      if not work:
        yield None
        work = client.wait()
        if not work:
          break
      tables = of_epoch(work.epoch)
      if self.shuffle_rows > 1:
        tables = stream.shuffled(tables, self.shuffle_rows, rng)
      for table in tables:
        rows += table.num_rows
        yield table
      self._check_rows(rows or taken < client.slices)
    if self._bad_rows.skipped:
      logging.warning('%s %r: skipped %d bad rows of %d.', type(self).__name__,
                      self._files, self._bad_rows.skipped,
                      self._bad_rows.skipped + rows)

  def _check_rows(self, rows):
    # An endless loop over nothing would look like a slow input.
    errors.check(rows, '%s.files must have rows that can be used, got none '
                 'in %r.', type(self).__name__, self._files)

  def dataset(self, spec, with_labels=True, keep=(), shard=(0, 1), seed=0,
              first_row=0, groups=(), op_fusion=False, micro_batches=1,
              queue=None):
    """Returns the tf.data.Dataset of what the model reads.

    Args:
      spec: features.FeatureSpec.
      with_labels: bool, whether to read labels and weight.
      keep: names of columns to carry along, see FeatureSpec.encode.
      shard: (index, count), see `tables`.
      seed: int, see `tables`.
      first_row: int, see `tables`.
      groups: list of packing.Group, which take the place of their columns.
      op_fusion: bool, whether to make their ids by the kernels of native.py,
        without text on the way: the same ids, several times faster.
      micro_batches: int, see `tables`.
      queue: work_queue.WorkQueue, started, which hands out slices in place of
        shard and first_row. Needs labels.

    Returns:
      tf.data.Dataset of (features, labels), or of features without labels;
      both are dicts as FeatureSpec.encode makes them. With a queue, features
      have work_queue.BATCH besides.

    Raises:
      UserError: if there is a queue and drop_remainder.
    """
    errors.check(
        not (queue and self._drop_remainder), '%s.drop_remainder must be False '
        'with Experiment.work_queue: rows that are dropped are never trained, '
        'and their slices never done.', type(self).__name__)
    encoder = _Encoder(spec, with_labels, keep, groups, op_fusion)

    def batches():
      if not queue:
        for table in self.tables(spec, with_labels, keep, shard, seed,
                                 first_row, encoder.convert, micro_batches):
          yield encoder.arrays(table)
        return
      for table, serial in self._tables_of(
          queue, spec, keep, seed, encoder.convert, micro_batches):
        yield encoder.arrays(table) + (serial,)

    def encode(*values):
      if not queue:
        return encoder.encode(*values)
      features, labels = encoder.encode(*values[:-1])
      features[work_queue.BATCH] = values[-1]
      return features, labels

    dtypes, shapes = encoder.dtypes, ([None],) * len(encoder.dtypes)
    if queue:
      dtypes, shapes = dtypes + (tf.int64,), shapes + ([],)
    rows = tf.data.Dataset.from_generator(
        lambda: self._or_error(batches()), dtypes,
        tuple(map(tf.TensorShape, shapes)))
    rows = rows.map(encode, num_parallel_calls=_ENCODERS).prefetch(
        self.prefetch)
    return queue.with_own_threads(rows, _ENCODERS) if queue else rows

  def _or_error(self, elements):
    """Passes elements on; keeps the error that TensorFlow would bury."""
    try:
      for element in elements:
        yield element
    except errors.UserError as error:
      self.error = error
      raise


class _Encoder:
  """From tables of typed columns to what the model reads.

  With the kernels, `convert` puts ids in the place of text before rows are
  shuffled, and `arrays` packs them; else `encode` does both by TensorFlow ops.

  Attributes:
    convert: function of pa.Table to pa.Table, or None.
    dtypes: tuple of tf.DType, of what `arrays` returns.
  """

  def __init__(self, spec, with_labels, keep, groups, op_fusion):
    self._spec = spec
    self._with_labels = with_labels
    self._keep = keep
    self._groups = groups
    self._packed = groups if op_fusion and native.available() else []
    self._categories = [c for group in self._packed for c in group.columns]
    self._hashed = [column.name for column in self._categories]
    # Columns as they are read, and those of them that ids would replace.
    self._plain = [c for c in spec.read(with_labels, keep)
                   if c.name not in self._hashed]
    self._copied = [spec[name] for name in keep if name in self._hashed]
    self._grouped = packing.names(groups)
    self._keys = [key for group in self._packed for key in group.keys()]
    self.convert = self._to_ids if self._packed else None
    self.dtypes = (tf.int64, tf.int32, tf.int32) * len(self._packed) + tuple(
        column.dtype for column in self._plain + self._copied)

  def _to_ids(self, table):
    for column in self._copied:
      table = table.append_column(
          column_kinds.RAW + column.name, table.column(column.name))
    return packing.to_ids(table, self._categories)

  def arrays(self, table):
    """A tuple of numpy arrays: packed ids, then columns."""
    found = []
    for group in self._packed:
      found.extend(group.pack_table(table))
    for column in self._plain:
      found.append(_array(table.column(column.name)))
    for column in self._copied:
      found.append(_array(table.column(column_kinds.RAW + column.name)))
    return tuple(found)

  def encode(self, *values):
    """The tensors of `arrays` -> features, with labels where they are read."""
    raw = dict(zip([c.name for c in self._plain + self._copied],
                   values[len(self._keys):]))
    features, labels = self._spec.encode(
        raw, self._keep, without=self._grouped)
    features.update(
        zip(self._keys, values) if self._packed
        else packing.pack(raw, self._groups))
    return (features, labels) if self._with_labels else features


def _array(column):
  """A column as numpy has it."""
  if pa.types.is_binary(column.type):
    return column.to_numpy()
  return packing.to_numpy(column)


@gin.register
class ParquetInput(_FileInput):
  """Reads Parquet files through pyarrow, one row group at a time.

  A multi-valued column may be text with separators or a list of text. Columns
  that the feature spec does not name are not read.
  """

  suffix = '.parquet'

  def __init__(self, files=gin.REQUIRED, data_dir='.', batch_size=512,
               shuffle_rows=0, epochs=1, drop_remainder=False, prefetch=2,
               on_bad_row='error'):
    """Keeps what to read; opens nothing.

    Args:
      files: str or list of str: files, glob patterns or directories.
      data_dir: str, what relative names in `files` start from.
      batch_size: int, rows per batch.
      shuffle_rows: int, size of the buffer from which rows are drawn at
        random; 0 keeps the order of files and rows.
      epochs: int, how often to read all rows.
      drop_remainder: bool, whether to drop a last batch with fewer rows.
      prefetch: int, batches to make ahead.
      on_bad_row: 'error' to stop at a row that cannot be used, 'skip' to
        leave it out and count it.

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__(files, data_dir, batch_size, shuffle_rows, epochs,
                     drop_remainder, prefetch, on_bad_row)

  def _reader(self, spec, columns):
    return readers.ParquetReader(self.paths(), columns, self._bad_rows)


@gin.register
class CsvInput(_FileInput):
  """Reads CSV files through pyarrow, one block at a time."""

  def __init__(self, files=gin.REQUIRED, data_dir='.', batch_size=512,
               shuffle_rows=0, epochs=1, drop_remainder=False, prefetch=2,
               on_bad_row='error', header=False, delimiter=','):
    """Keeps what to read; opens nothing.

    Args:
      files: as ParquetInput, and so all up to on_bad_row.
      data_dir: str.
      batch_size: int.
      shuffle_rows: int.
      epochs: int.
      drop_remainder: bool.
      prefetch: int.
      on_bad_row: 'error' or 'skip'.
      header: bool, whether the first line of each file names its columns;
        they may then come in any order. Without it the columns are those of
        the feature spec.
      delimiter: str, one character between fields.

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__(files, data_dir, batch_size, shuffle_rows, epochs,
                     drop_remainder, prefetch, on_bad_row)
    errors.check(len(delimiter) == 1, 'CsvInput.delimiter must be one '
                 'character, got %r.', delimiter)
    self._header = header
    self._delimiter = delimiter

  def _reader(self, spec, columns):
    return readers.CsvReader(self.paths(), spec, columns, self._bad_rows,
                             self._header, self._delimiter)


def _by_file(slices, rng):
  """Reorders slices: files in random order, the rows of a file in theirs."""
  paths = sorted({piece.path for piece in slices})
  rank = dict(zip(paths, rng.permutation(len(paths))))
  return sorted(slices, key=lambda piece: rank[piece.path])
