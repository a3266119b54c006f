"""Reads a remote file from front to back, a few parts ahead of who asks.

A request to a store takes longer to be answered than a disk takes, so several
are under way at a time. They are made in threads of Python, which only call
pyarrow's own code, and end when the stream is closed or the process ends.
"""

import atexit
import collections
from concurrent import futures
import io
import threading
import weakref

from ple_estimator import errors
from ple_estimator.storage import remote

_FIRST_BYTES = 1 << 18  # of the first part, as some ask for no more
_PART_BYTES = 4 << 20
_PARTS = 4  # under way at most
_FOOTERS = 8  # small files, or ends of files, that are read at a time

_streams = weakref.WeakSet()  # which may be open
_pools = weakref.WeakSet()  # of threads, which may be at work


class Stream(io.RawIOBase):
  """The bytes of a remote file, as a file of Python that reads ahead."""

  def __init__(self, path, begin=0, end=None):
    """Opens the file.

    Args:
      path: str, the URI.
      begin: int, the byte to start at.
      end: int, the byte before which to end; None is the end of the file.

    Raises:
      UserError: if it cannot be opened, or has changed since it was listed.
    """
    super().__init__()
    self._path = path
    self._closing = threading.Event()
    self._pool = _pool(_PARTS)
    self._start(begin)
    _streams.add(self)
    self._file = opened(path)
    size = remote.stat(path).size
    self._end = size if end is None else min(end, size)

  def _start(self, begin):
    self._next = begin  # the first byte that nobody was asked for
    self._parts = 1  # under way at most, at present
    self._coming = collections.deque()  # futures of bytes
    self._part = memoryview(b'')  # what is left of the part in hand

  def readable(self):
    """Whether it can be read."""
    return True

  def seek(self, position, whence=0):
    """Goes on at a byte of the file."""
    errors.check(not whence, 'A stream of %s seeks from its start.', self._path)
    self._cancel()
    self._start(position)
    return position

  def readinto(self, buffer):
    """Fills a buffer, but for the end of the file; returns the bytes read.

    Raises:
      UserError: if they cannot be read.
    """
    view, filled = memoryview(buffer).cast('B'), 0
    while filled < len(view) and (self._part or self._advance()):
      part = self._part[:len(view) - filled]
      view[filled:filled + len(part)] = part
      self._part = self._part[len(part):]
      filled += len(part)
    return filled

  def close(self):
    """Asks for nothing more; what is under way is not waited for."""
    if not self.closed:
      self._closing.set()
      self._cancel()
      self._pool.shutdown(wait=False)
    super().close()

  def end(self):
    """Closes it and waits for what is under way."""
    self.close()
    self._pool.shutdown(wait=True)

  def _advance(self):
    """Takes the next part in hand; False at the end."""
    self._ask()
    if not self._coming:
      return False
    self._part = memoryview(self._coming.popleft().result())
    self._parts = min(_PARTS, self._parts + 1)
    self._ask()
    return True

  def _ask(self):
    while len(self._coming) < self._parts and self._next < self._end:
      size = _PART_BYTES if self._parts > 1 else _FIRST_BYTES
      stop = min(self._end, self._next + size)
      self._coming.append(self._pool.submit(self._read, self._next, stop))
      self._next = stop

  def _read(self, begin, stop):
    """Returns bytes [begin, stop)."""
    def attempt():
      found = self._file.read_at(stop - begin, begin)
      if len(found) != stop - begin:
        raise OSError('got %d bytes from byte %d on, not %d' % (
            len(found), begin, stop - begin))
      return found
    return remote.retried(self._path, attempt, self._closing)

  def _cancel(self):
    for part in self._coming:
      part.cancel()


def opened(path):
  """Opens a remote file as pa.NativeFile, to be read at any place.

  Raises:
    UserError: if it cannot be opened, or has changed since it was listed.
  """
  store, name = remote.system(path)
  known = remote.stat(path).size

  def attempt():
    found = store.open_input_file(name)
    if found.size() != known:  # or an answer that was cut
      raise OSError('it had %d bytes when it was listed, and has %d' % (
          known, found.size()))
    return found
  return remote.retried(path, attempt)


def each(function, paths):
  """Returns [function(path) for path in paths], several at a time."""
  with futures.ThreadPoolExecutor(_FOOTERS) as pool:
    return list(pool.map(function, paths))


def ahead(items):
  """Yields the items of an iterator, the next of which is made meanwhile."""
  items, end = iter(items), object()
  with _pool(1) as pool:
    coming = pool.submit(next, items, end)
    while True:
      item = coming.result()
      if item is end:
        return
      coming = pool.submit(next, items, end)
      yield item


def _pool(threads):
  made = futures.ThreadPoolExecutor(threads)
  _pools.add(made)
  return made


def _end_all():
  """Ends what is read, before pyarrow ends its connections."""
  for stream in list(_streams):
    stream.close()
  for pool in list(_pools):
    pool.shutdown(wait=True)


atexit.register(_end_all)
