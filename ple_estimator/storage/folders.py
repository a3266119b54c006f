"""What lies in folders, local or remote, and which names match a pattern."""

import fnmatch
import glob
import os
import posixpath

import pyarrow as pa
import pyarrow.fs

from ple_estimator.storage import remote
from ple_estimator.storage import streams
from ple_estimator.storage import uris


def of(path):
  """Returns a view of the folders where a path is, local or remote."""
  return _Remote() if uris.is_remote(path) else _Local()


class _Local:
  """The folders of this machine."""

  is_file = staticmethod(os.path.isfile)
  is_folder = staticmethod(os.path.isdir)
  exists = staticmethod(os.path.exists)
  names = staticmethod(os.listdir)
  size = staticmethod(os.path.getsize)

  def load(self, folders):
    """Nothing: a disk answers at once."""

  def matching(self, folder, entry):
    """Returns the files and folders that match a pattern.

    Args:
      folder: str, taken as it is, which relative patterns start from.
      entry: str, the pattern; ** stands for any number of folders.
    """
    pattern = entry if os.path.isabs(entry) else os.path.join(
        glob.escape(folder), entry)
    return glob.glob(pattern, recursive=True)


class _Remote:
  """The folders of a store; what it has said is not asked for again."""

  def __init__(self):
    """Asks nothing yet."""
    self._infos = {}  # URI to pa.fs.FileInfo
    self._names = {}  # URI of a folder to the set of names in it

  def is_file(self, path):
    """Whether there is a file."""
    return self._info(path).is_file

  def is_folder(self, path):
    """Whether there is a folder."""
    return self._info(path).type == pa.fs.FileType.Directory

  def exists(self, path):
    """Whether there is a file or a folder."""
    return self.is_file(path) or self.is_folder(path)

  def size(self, path):
    """Returns the size of a file in bytes."""
    return self._info(path).size

  def names(self, path):
    """Returns the names in a folder."""
    if path not in self._names:
      self._add(path, remote.listed(path, recursive=False))
    return self._names[path]

  def load(self, folders):
    """Lists folders and all that is below them, several at a time."""
    folders = [folder for folder in folders if folder not in self._names]
    for folder, found in zip(folders, streams.each(
        lambda folder: remote.listed(folder, recursive=True), folders)):
      self._add(folder, found)

  def matching(self, folder, entry):
    """As _Local.matching."""
    parts = uris.split(entry if uris.is_remote(entry) else folder)
    fixed, pattern = ('', parts.name) if uris.is_remote(entry) else (
        parts.name, entry)
    pattern = posixpath.normpath(pattern).split('/')
    while pattern and not glob.has_magic(pattern[0]):
      fixed = posixpath.join(fixed, pattern.pop(0))
    if not pattern:
      return []
    base = uris.joined(parts._replace(name=fixed))
    if len(pattern) > 1 or pattern == ['**']:
      self.load([base])
    else:
      self.names(base)
    return [path for names, path in self._below(base, ())
            if _is_match(names, pattern)]

  def _info(self, path):
    if path not in self._infos:
      self._infos[path], = remote.infos([path])
    return self._infos[path]

  def _add(self, folder, found):
    """Keeps what was listed in a folder, or below it."""
    self._names.setdefault(folder, set())
    for path, info in found.items():
      self._infos[path] = info
      while path != folder:
        parent, name = _cut(path)
        self._names.setdefault(parent, set()).add(name)
        path = parent
        if path != folder and path not in found:  # a key says its folders only
          self._infos[path] = pa.fs.FileInfo(path, pa.fs.FileType.Directory)

  def _below(self, folder, before):
    """Yields (names on the way, URI) of what is known below a folder."""
    for name in self._names.get(folder, ()):
      path = uris.join(folder, name)
      yield before + (name,), path
      for found in self._below(path, before + (name,)):
        yield found


def _cut(path):
  """Returns the URI of the folder of a URI, and the name in it."""
  parts = uris.split(path)
  folder, _, name = parts.name.rpartition('/')
  return uris.joined(parts._replace(name=folder)), name


def _is_match(names, pattern):
  """Whether names, one below the other, match those of a pattern, as in glob.

  A name that starts with a dot is matched only by one that does, too.
  """
  if not pattern or not names:
    return not names and pattern in ([], ['**'])
  if pattern[0] == '**':
    return _is_match(names, pattern[1:]) or (
        names[0][0] != '.' and _is_match(names[1:], pattern))
  return (fnmatch.fnmatchcase(names[0], pattern[0]) and
          (names[0][0] != '.' or pattern[0][0] == '.') and
          _is_match(names[1:], pattern[1:]))
