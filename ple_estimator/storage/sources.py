"""A file to read, local or remote: how large it is, and what stands in it.

A local file is read as ever, by the calls of the operating system.
"""

import contextlib
import os

import pyarrow as pa

from ple_estimator.storage import remote
from ple_estimator.storage import streams
from ple_estimator.storage import uris


def stat(path):
  """Returns the remote.Stat of a file: its size in bytes, and its date.

  Of a remote file it is what the store said when it was listed last.

  Raises:
    OSError, UserError: if it is missing, by whether it is local.
  """
  if uris.is_remote(path):
    return remote.stat(path)
  found = os.stat(path)
  return remote.Stat(found.st_size, found.st_mtime)


def size(path):
  """Returns the size of a file in bytes; see `stat`."""
  return stat(path).size


@contextlib.contextmanager
def opened(path, begin=0, end=None):
  """Opens a file from a byte on; a context manager.

  Args:
    path: str.
    begin: int, the byte to start at.
    end: int, the byte behind the last that is of use, so that no more of a
      remote file is fetched; of a local file more may be read. None is the end
      of the file.

  Yields:
    an object with the methods read, readinto and seek of a file.
  """
  if uris.is_remote(path):
    with streams.Stream(path, begin, end) as stream:
      yield stream
    return
  with open(path, 'rb', buffering=0) as stream:
    stream.seek(begin)
    yield stream


def decompressed(path, compression):
  """Opens a compressed file as a pa.NativeFile of what it holds.

  It is to be read in the thread that asks, as pyarrow calls Python for what is
  remote.

  Args:
    path: str.
    compression: str, as pyarrow calls it.
  """
  if uris.is_remote(path):
    return pa.CompressedInputStream(
        pa.PythonFile(streams.Stream(path), 'r'), compression)
  return pa.input_stream(path, compression=compression)


def native(path):
  """Returns what pyarrow opens at a path: a str, or pa.NativeFile if remote."""
  return streams.opened(path) if uris.is_remote(path) else path


def retried(path, function):
  """Calls a function that reads a file; of a remote file, as remote.retried.

  Errors of what the file holds are raised as they are.
  """
  if uris.is_remote(path):
    return remote.retried(path, function, is_known=remote.is_of_store)
  return function()


def each(function, paths):
  """Returns [function(path) for path in paths], of remote files in threads."""
  if len(paths) > 1 and any(map(uris.is_remote, paths)):
    return streams.each(function, paths)
  return [function(path) for path in paths]


def ahead(items, paths):
  """Yields items that are made of files; of remote ones the next meanwhile."""
  return streams.ahead(items) if any(map(uris.is_remote, paths)) else items
