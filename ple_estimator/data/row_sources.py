"""Where training rows come from: a share of the files, or a work queue.

Both sources yield the rows as a stream of pa.Table, shuffled if asked for, and
not yet cut into batches.
"""

from absl import logging
import numpy as np

from ple_estimator import errors
from ple_estimator.data import sampling
from ple_estimator.data import stream
from ple_estimator.storage import sources
from ple_estimator.storage import uris

_FEW_ROWS = 1000  # per process: below, slices may be without a row


class Tally:
  """Counts the rows of a stream that were used and those that were skipped."""

  def __init__(self, owner, files, bad_rows):
    """Starts at zero.

    Args:
      owner: str, the name of the input in a .gin file, for messages.
      files: what its `files` is bound to, for messages.
      bad_rows: row_checks.BadRows, the one that the reader tells.
    """
    self._owner = owner
    self._files = files
    self._bad_rows = bad_rows
    self.restart()

  def restart(self):
    """Counts from zero again."""
    self.rows = 0
    self._skipped_before = self._bad_rows.skipped

  def counted(self, tables):
    """Yields the tables and counts their rows."""
    for table in tables:
      self.rows += table.num_rows
      yield table

  def warn_of_skipped(self, when=''):
    """Logs how many rows were skipped, if there were any.

    Args:
      when: str, added to the message, such as ' in epoch 3'.
    """
    skipped = self._bad_rows.skipped - self._skipped_before
    if skipped:
      logging.warning('%s %r: skipped %d bad rows of %d%s.', self._owner,
                      self._files, skipped, skipped + self.rows, when)

  def warn_of_empty_share(self, index, count):
    """Logs that this process has nothing to train on."""
    logging.warning(
        '%s %r: there is no usable row for process %d of %d that share the '
        'rows, so it trains nothing.', self._owner, self._files, index + 1,
        count)

  def check_any(self):
    """Raises UserError if no row could be used.

    To iterate over nothing again and again would look like a slow input.
    """
    errors.check(self.rows, '%s.files must have rows that can be used, got '
                 'none in %r.', self._owner, self._files)


class _Rows:
  """Base class of both sources: a reader, and the shuffling of its rows."""

  def __init__(self, reader, tally, shuffle_rows=0, seed=0, convert=None,
               rules=()):
    """Stores the arguments; reads nothing.

    Args:
      reader: reader.Reader.
      tally: Tally of the rows that are read.
      shuffle_rows: int, size of the shuffle buffer; below 2 rows keep the
        order in which they are read.
      seed: int, of the order of files and rows.
      convert: function of pa.Table to pa.Table with the same rows, applied
        before rows are shuffled; None leaves them as they are.
      rules: tuple of sampling.Rule, which rows are left out.
    """
    self._reader = reader
    self._tally = tally
    self._shuffle_rows = shuffle_rows
    self._seed = seed % 2**32
    self._convert = convert
    self._rules = rules

  def _read(self, piece):
    """Returns an iterator over the rows of a slice that are read."""
    return sampling.sampled(self._reader.read(piece), piece, self._rules)

  def _converted(self, tables):
    """Returns an iterator over the converted tables."""
    return map(self._convert, tables) if self._convert else tables

  def _mixed(self, tables, rng):
    """Yields the rows, shuffled if asked for, and counts them."""
    if self._shuffle_rows > 1:
      tables = stream.shuffled(tables, self._shuffle_rows, rng)
    return self._tally.counted(tables)


class FileRows(_Rows):
  """Reads a share of the files, epoch after epoch."""

  def epochs(self, stop, shard=(0, 1), epoch=0, row=0, begins=None):
    """Yields the rows of some epochs as pa.Table.

    Args:
      stop: int, the epoch before which to stop; None goes on without end.
      shard: (index, count), the share of the rows to read. Shares do not
        overlap and together have all rows. A share is some of the slices, or
        where these are few or small, every count-th row of all slices. One
        that has no row all the same ends with a warning, but for the first.
      epoch: int, the first epoch to read, from 0.
      row: int, how many usable rows of this epoch to leave out. Of one share
        among several it is approximate, as shares differ in size.
      begins: function of (epoch, row), called before the rows of an epoch.

    Raises:
      UserError: if no row of all files, or of the first share, can be used.
    """
    index, count = shard
    slices, row_shard = self._share(index, count)
    while stop is None or epoch < stop:
      if begins:
        begins(epoch, row)
      for table in stream.without_first(
          self.epoch(slices, epoch, row_shard), row // count):
        yield table
      if index and not self._tally.rows:
        self._tally.warn_of_empty_share(index, count)
        return
      self._tally.check_any()
      epoch, row = epoch + 1, 0

  def _share(self, index, count):
    """Returns the slices of a share, and which of their rows it has.

    All processes see the same files, and so decide alike.
    """
    slices = self._reader.slices(at_least=count)
    if count > 1 and (len(slices) < count or
                      self._reader.count_rows() < _FEW_ROWS * count):
      return slices, (index, count)
    return slices[index::count], (0, 1)

  def epoch(self, slices, epoch, row_shard=(0, 1)):
    """Yields the rows of slices in the order of one epoch.

    Args:
      slices: list of reader.Slice.
      epoch: int, from 0; each has an order of its own.
      row_shard: (index, count), which of the rows to take: every count-th.
    """
    self._tally.restart()
    rng = np.random.RandomState([self._seed, epoch])
    if self._shuffle_rows:
      slices = _with_files_shuffled(slices, rng)
    read = (table for piece in slices for table in self._read(piece))
    tables = stream.every(
        sources.ahead(read, [piece.path for piece in slices]), *row_shard)
    for table in self._mixed(self._converted(tables), rng):
      yield table
    self._tally.warn_of_skipped(' in epoch %d' % epoch)


class QueueRows(_Rows):
  """Reads the slices that a work queue hands out; for one iteration."""

  def __init__(self, client, *args, **kwargs):
    """Stores the arguments; reads nothing.

    Args:
      client: work_queue.Client that has taken nothing yet.
      *args: as FileRows takes them, and so
      **kwargs.
    """
    super().__init__(*args, **kwargs)
    self._client = client
    self._work = None  # the slice that is read now or next
    self._num_taken = 0

  def until_done(self):
    """Yields the rows of slices as pa.Table until all slices are done.

    The tables also have the column client.LEASE. None among them says that the
    queue has no free slice at present. The rows that wait for a full
    batch have to be trained then, because another process may be waiting for
    the slices that they belong to.

    Raises:
      UserError: if no row can be used.
    """
    rng = np.random.RandomState(self._seed)
    self._work = self._client.take()
    while True:
      if not self._work:
        yield None
        self._work = self._client.wait()
      if not self._work:
        break
      for table in self._mixed(self._epoch(self._work.epoch), rng):
        yield table
      if self._num_taken >= self._client.slices:
        self._tally.check_any()
    self._tally.warn_of_skipped()

  def _epoch(self, epoch):
    """Yields the rows of slices until the next slice is of another epoch."""
    while self._work and self._work.epoch == epoch:
      self._num_taken += 1
      for table in self._converted(self._read(self._work.piece)):
        yield self._client.mark(table, self._work)
      self._client.read(self._work)
      self._work = self._client.take()


def _with_files_shuffled(slices, rng):
  """Puts files in random order; the slices of a file keep theirs."""
  paths = sorted({piece.path for piece in slices}, key=uris.absolute)
  rank = dict(zip(paths, rng.permutation(len(paths))))
  return sorted(slices, key=lambda piece: rank[piece.path])
