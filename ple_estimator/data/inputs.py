"""Inputs: Parquet and CSV files as batches for a model."""

import copy
import functools
import math
import re

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.cluster.work_queue import work_queue
from ple_estimator.data import csv_dialect
from ple_estimator.data import csv_lines
from ple_estimator.data import csv_reader
from ple_estimator.data import encoders
from ple_estimator.data import input_files
from ple_estimator.data import parquet_reader
from ple_estimator.data import path_columns
from ple_estimator.data import read_plan
from ple_estimator.data import row_checks
from ple_estimator.data import row_sources
from ple_estimator.data import sampling
from ple_estimator.data import stream
from ple_estimator.storage import uris

_HEADER_BYTES = 1 << 16  # in which the first line of a file is looked for
_NUM_ENCODERS = 2  # batches that are encoded at a time; their order stays


class FileInput:
  """Batches of rows from files; a subclass knows the format.

  An own format is a subclass that sets `suffix` and has the method `reader`:

    @gin.register
    class JsonInput(inputs.FileInput):

      suffix = '.json'

      def reader(self, reading):
        return JsonReader(self.paths(), reading.columns(), self.bad_rows)

  Attributes:
    suffix: str, the ending of the files to take from a directory; '' takes
      all.
    batch_size: int, rows per batch.
    shuffle_rows: int, size of the shuffle buffer; 0 keeps the order.
    epochs: int, how often all rows are read.
    drop_remainder: bool, whether a last batch with fewer rows is dropped.
    prefetch: int, batches to prepare ahead.
    selection: list of str, the files to read; None reads all that are named.
    bad_rows: row_checks.BadRows, for the reader: what to do with a row that
      cannot be used.
    error: the UserError that ended reading of the last `dataset`, or None.
      TensorFlow raises an error of its own in its place, which does not help
      a user.
  """

  suffix = ''

  def __init__(self, files=gin.REQUIRED, data_dir='.', batch_size=512,
               shuffle_rows=0, epochs=1, drop_remainder=False, prefetch=2,
               on_bad_row='error'):
    """Stores the arguments; opens no file.

    Args:
      files: str or list of str: files, glob patterns (** stands for any
        number of folders) or directories, see input_files; paths or URIs such
        as s3://bucket/day1.csv, see storage.uris.
      data_dir: str, a path or URI, what relative names in `files` start from.
      batch_size: int, rows per batch.
      shuffle_rows: int, size of the buffer from which rows are drawn at
        random; 0 keeps the order of files and rows.
      epochs: int, how often to read all rows.
      drop_remainder: bool, whether to drop a last batch with fewer rows.
      prefetch: int, batches to prepare ahead.
      on_bad_row: 'error' to stop at a row that cannot be used, 'skip' to
        leave it out and count it.

    Raises:
      UserError: if a value is out of range.
    """
    self._name = type(self).__name__
    for parameter, value, least in [
        ('batch_size', batch_size, 1), ('shuffle_rows', shuffle_rows, 0),
        ('epochs', epochs, 1), ('prefetch', prefetch, 0)]:
      errors.check_integer('%s.%s' % (self._name, parameter), value, least)
    _check_files(self._name + '.files', files)
    errors.check(isinstance(data_dir, str), '%s.data_dir must be a text, got '
                 '%s.', self._name, errors.written(data_dir))
    errors.check_bool(self._name + '.drop_remainder', drop_remainder)
    errors.check_choice(self._name + '.on_bad_row', on_bad_row,
                        ('error', 'skip'))
    self._files = files
    self.selection = None
    self._data_dir = data_dir
    self.batch_size = batch_size
    self.shuffle_rows = shuffle_rows
    self.epochs = epochs
    self.drop_remainder = drop_remainder
    self.prefetch = prefetch
    self.bad_rows = row_checks.BadRows(on_bad_row == 'skip')
    self.error = None

  def reader(self, reading):
    """Returns the reader.Reader of the files; a subclass has this method.

    Args:
      reading: reading.Reading, whose columns() are read.

    Raises:
      UserError: if there are no files.
    """
    raise NotImplementedError

  def paths(self):
    """Lists the files; raises UserError if there are none."""
    for name, value in [('files', self._files), ('data_dir', self._data_dir)]:
      uris.check('%s.%s' % (self._name, name), value)
    return self.selection or input_files.find(
        self._data_dir, self._files, self.suffix, self._name + '.files')

  def as_it_is(self):
    """Returns an input that reads the same rows once, in the files' order."""
    part = copy.copy(self)
    part.epochs, part.shuffle_rows = 1, 0
    return part

  def of(self, paths):
    """Returns an input that reads some of the files, in a given order.

    Args:
      paths: list of str, of those that `paths` lists.
    """
    part = copy.copy(self)
    part.selection = paths
    return part

  def check(self, reading):
    """Looks at every file, so that training does not stop for it later.

    Args:
      reading: reading.Reading.

    Raises:
      UserError: if files are missing, empty or damaged, or lack a column.
    """
    self.reader(reading).check()

  def count_rows(self, reading):
    """Returns the number of rows of one epoch, bad ones included.

    Where the reading leaves rows out, all are read to count the rest.
    """
    reader = self.reader(reading)
    if not reading.rules:
      return reader.count_rows()
    return sum(table.num_rows for piece in reader.slices()
               for table in sampling.sampled(
                   reader.read(piece), piece, reading.rules))

  def slices(self, reading, most_rows=None):
    """Returns the rows of one epoch as a list of reader.Slice.

    Args:
      reading: reading.Reading.
      most_rows: int, rows in a slice (of CSV, about); None is no limit.
    """
    return self.reader(reading).slices(most_rows=most_rows)

  def tables(self, reading, shard=(0, 1), seed=0, parts=None, convert=None,
             micro_batches=1, progress=None):
    """Returns an iterator over the batches of all epochs as pa.Table.

    Args:
      reading: reading.Reading.
      shard: (index, count), the share of the rows to read. Shares do not
        overlap and together have all rows.
      seed: int, of the order of files and rows.
      parts: list of read_plan.Part, what to read, in place of all epochs of all
        files, e.g. what a run has not read before it was interrupted.
      convert: function of pa.Table to pa.Table with the same rows, applied
        before rows are shuffled and batched; None changes nothing.
      micro_batches: int, how many of the batches have batch_size rows.
      progress: read_plan.Progress, which is told of what is read, or None.
    """
    if parts is None:
      parts = [self.part(self.paths(), 0, seed)]
    tables = self._of_parts(reading, shard, parts, convert, progress)
    return stream.batched(
        progress.counted(tables) if progress else tables,
        math.ceil(self.batch_size / micro_batches), self.drop_remainder)

  def part(self, paths, epoch, seed):
    """Returns the read_plan.Part of files from an epoch to the last one."""
    return read_plan.Part(
        paths, epoch, 0, self.epochs, seed, self.shuffle_rows)

  def _of_parts(self, reading, shard, parts, convert, progress):
    """Yields the rows of parts as pa.Table, one part after the other."""
    for i, part in enumerate(parts):
      rows = row_sources.FileRows(
          self.of(part.paths).reader(reading), self._tally(),
          part.shuffle_rows, part.seed, convert, reading.rules)
      for table in rows.epochs(
          part.stop, shard, part.epoch, part.row,
          progress and functools.partial(progress.begins, i)):
        yield table

  def dataset(self, reading, shard=(0, 1), seed=0, parts=None,
              micro_batches=1, queue=None, follow=None):
    """Returns the tf.data.Dataset of what the model reads.

    Args:
      reading: reading.Reading.
      shard: (index, count), see `tables`.
      seed: int, see `tables`.
      parts: function without arguments to the parts that `tables` takes,
        called whenever an iteration over the data starts; None reads all.
      micro_batches: int, see `tables`.
      queue: work_queue.WorkQueue, started, which hands out slices in place of
        shard and parts. The reading must have labels.
      follow: function of the parts to a read_plan.Progress, called likewise,
        to follow the rows of an iteration; None follows none.

    Returns:
      tf.data.Dataset of (features, labels), or of features without labels;
      both are dicts as FeatureSpec.encode makes them, with the packed ids of
      groups. With a queue, features also have work_queue.BATCH; with
      `follow`, read_plan.ROWS.

    Raises:
      UserError: if there is a queue and drop_remainder.
    """
    errors.check(
        not (queue and self.drop_remainder), '%s.drop_remainder must be False '
        'with Experiment.work_queue: rows that are dropped are never trained, '
        'and their slices never done.', self._name)
    encoder = encoders.create(reading)
    if queue or follow:
      encoder = encoders.SerialEncoder(
          encoder, work_queue.BATCH if queue else read_plan.ROWS)
    self.error = None

    def batches():
      if queue:
        return self._from_queue(
            queue, reading, seed, encoder.convert, micro_batches)
      found = parts() if parts else None
      progress = follow(found) if follow else None
      tables = self.tables(reading, shard, seed, found, encoder.convert,
                           micro_batches, progress)
      return progress.sent(tables) if progress else tables

    def arrays():
      try:
        for batch in batches():
          yield encoder.arrays(batch)
      except errors.UserError as error:
        self.error = error
        raise

    # AutoGraph would translate every Python function that encodes, which takes
    # longer than building the graph, and they have no control flow on tensors.
    encode = tf.autograph.experimental.do_not_convert(encoder.encode)
    rows = tf.data.Dataset.from_generator(
        arrays, encoder.dtypes, encoder.shapes).map(
            encode, num_parallel_calls=_NUM_ENCODERS).prefetch(self.prefetch)
    return queue.with_own_threads(rows, _NUM_ENCODERS) if queue else rows

  def _from_queue(self, queue, reading, seed, convert, micro_batches):
    """As `tables`, of slices that a queue hands out: (pa.Table, serial)."""
    client = queue.client()
    rows = row_sources.QueueRows(
        client, self.reader(reading), self._tally(), self.shuffle_rows, seed,
        convert, reading.rules)
    for table in stream.batched(
        rows.until_done(), math.ceil(self.batch_size / micro_batches)):
      yield table, client.sent(table)

  def _tally(self):
    return row_sources.Tally(self._name, self._files, self.bad_rows)


def _check_files(binding, files):
  if not isinstance(files, str):
    errors.check_list(binding, files, lambda name: name and isinstance(
        name, str), "names, such as ['a.csv', 'b.csv']")
  else:
    errors.check_text(binding, files)


@gin.register
class ParquetInput(FileInput):
  """Reads Parquet files through pyarrow, one row group at a time.

  A multi-valued column may be text with separators or a list of text. Columns
  that the feature spec does not name are not read. A column that it names and
  that a file does not have may stand in the file's path: in all rows of
  dt=2024-01-01/part-0.parquet the column dt is '2024-01-01'. CsvInput does the
  same where the paths of all files name the column and the header of the first
  does not; files without header must not have it then.
  """

  suffix = '.parquet'

  def reader(self, reading):
    return parquet_reader.ParquetReader(
        self.paths(), reading.columns(), self.bad_rows)


@gin.register
class CsvInput(FileInput):
  """Reads CSV files through pyarrow, one block at a time.

  A line that is not blank is a row. A line break in quotes is not supported:
  the line on which the quote is not closed is a bad row. Files whose names end
  in .gz, .bz2 or .zst are decompressed while they are read; such a file is one
  slice, of which each of several workers has to read all to find its rows.
  """

  def __init__(self, files=gin.REQUIRED, data_dir='.', batch_size=512,
               shuffle_rows=0, epochs=1, drop_remainder=False, prefetch=2,
               on_bad_row='error', header=False, delimiter=',', quote='"',
               escape=None, null_values=()):
    """Stores the arguments; opens no file.

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
        the feature spec; a file to predict may leave out all labels and the
        weight.
      delimiter: str, one ASCII character between fields.
      quote: str, one ASCII character around fields that hold the delimiter; a
        doubled one inside stands for one. None takes quotes as text, which is
        what Hive and exports to TSV mean by them.
      escape: str, one ASCII character that makes text of the one behind it,
        such as '\\\\' of Spark; None if there is none.
      null_values: tuple of str, texts that count as empty fields, such as
        ('NULL', '\\\\N'), with quotes around them or without.

    Raises:
      UserError: if a value is out of range.
    """
    super().__init__(files, data_dir, batch_size, shuffle_rows, epochs,
                     drop_remainder, prefetch, on_bad_row)
    errors.check_bool('CsvInput.header', header)
    self._header = header
    self._dialect = csv_dialect.Dialect(delimiter, quote, escape, null_values)
    self._dialect.check('CsvInput.')

  def has_column(self, path, name):
    """Whether a file has a column that its path names, see path_columns.

    A file without header does not: Hive and Spark leave such columns out.
    """
    if not self._header:
      return False
    try:
      with csv_lines.opened(path, end=_HEADER_BYTES) as text:
        lines = text.read(_HEADER_BYTES).splitlines()
    except (errors.UserError, OSError):
      return True  # The reader says what is wrong.
    return bool(re.search(rb'(?<!\w)%s(?!\w)' % re.escape(name.encode()),
                          next(filter(None, lines), b'')))

  @path_columns.added
  def reader(self, reading):
    return csv_reader.CsvReader(
        self.paths(), reading.columns(), self.bad_rows,
        [column.name for column in reading.spec.columns], self._header,
        self._dialect,
        None if reading.with_labels else reading.spec.without_labels())
