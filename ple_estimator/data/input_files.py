"""Finds the files that a binding names, and what their paths say.

A directory stands for the files in it whose names end as those of its format
do. Where no file ends so, as Hive writes 000000_0, it stands for the files
whose names have no ending at all. Folders inside that are called name=value, as
Hive and Spark call partitions, are read too; other folders inside are not, and
a warning says so. Names that start with '_' or '.', such as _SUCCESS, are not
data, unless they are named.
"""

import os
from urllib import parse

from absl import logging

from ple_estimator import errors
from ple_estimator.storage import folders
from ple_estimator.storage import uris

_said = set()  # warnings, as files are looked for several times in a run
# The way to a file that data of earlier releases lack.
_VALIDATION = (
    ' Generated rows: tools/make_data.py makes it together with the others. '
    'Rows of your own: ple-estimator csv-to-parquet --validation 0.1 cuts it '
    'from the training rows.')
_NO_VALUE = '__HIVE_DEFAULT_PARTITION__'  # Hive's name for a missing value


def check_entries(binding, entries):
  """Raises UserError unless a binding may name files, see `find`."""
  listed = [entries] if isinstance(entries, str) else entries
  errors.check(
      isinstance(listed, (list, tuple)) and listed and
      all(isinstance(entry, str) and entry for entry in listed),
      '%s must be a file, a folder, a pattern or a list of these, got %r.',
      binding, entries)
  return listed


def find(data_dir, entries, suffix, binding):
  """Lists the files that a binding names.

  Args:
    data_dir: str, a path or URI, what relative names start from.
    entries: str or list of str: files, directories or glob patterns, paths or
      URIs; ** stands for any number of folders. A pattern may match
      directories.
    suffix: str, of the files to take from a directory; '' takes all.
    binding: str, the name of the binding, for errors.

  Returns:
    list of paths and URIs, sorted within each entry; a file that several
    entries name stands at the first. Files of 0 bytes, which some programs
    write for a part without rows, are left out with a warning, but for one that
    is named itself.

  Raises:
    UserError: if an entry names no file, a named file is empty, or all are; or
      if a remote store refuses, or does not answer.
  """
  paths, seen, empty = [], set(), []
  for entry in check_entries(binding, entries):
    path = uris.join(data_dir, entry)
    view = folders.of(path)
    matches = _matches(view, data_dir, entry, suffix, binding)
    errors.check(
        matches, '%s must name existing files, got %r: nothing%s at %s.%s',
        binding, entry, ' that ends in %s' % suffix
        if suffix and view.is_folder(path) else '', uris.absolute(path),
        _VALIDATION if 'validation' in os.path.basename(entry) else '')
    for match in matches:
      if uris.absolute(match) in seen:
        continue
      seen.add(uris.absolute(match))
      if view.size(match):
        paths.append(match)
      else:
        errors.check(match != path, '%s is empty.', match)
        empty.append(match)
  errors.check(paths, '%s must name a file that is not empty, got %r: all %d '
               'files, such as %s, have 0 bytes.', binding, entries,
               len(empty), (empty or [''])[0])
  if empty:
    _warn('%s %r: left out %d files of 0 bytes, such as %s.',
          binding, entries, len(empty), empty[0])
  return paths


def partitions(path):
  """Returns what the folders of a path say about all rows of its file.

  Args:
    path: str, e.g. 'data/dt=2024-01-01/hour=07/part-0.parquet'.

  Returns:
    dict of str to str, e.g. {'dt': '2024-01-01', 'hour': '07'}; None for Hive's
    missing value. The innermost folder of a name counts. %3A is ':'.
  """
  found = {}
  for folder in os.path.dirname(uris.name(path)).split(os.sep):
    name, equals, value = folder.partition('=')
    if equals and name:
      found[parse.unquote(name)] = (
          None if value == _NO_VALUE else parse.unquote(value))
  return found


def _matches(view, data_dir, entry, suffix, binding):
  """Returns the sorted files of an entry."""
  path = uris.join(data_dir, entry)
  if view.is_file(path):
    return [path]
  if view.is_folder(path):
    return _chosen(_in_folder(view, path, binding), suffix, binding, entry)
  found = [match for match in view.matching(
      uris.local(data_dir), uris.local(entry))
           if not _is_hidden(uris.name(match), uris.name(path))]
  files = sorted(match for match in found if view.is_file(match))
  if os.path.basename(uris.name(entry)) == '**':  # all folders and their files
    return _chosen(files, suffix, binding, entry)
  inside = sorted(match for match in found if view.is_folder(match))
  view.load(inside)
  inside = [name for match in inside
            for name in _in_folder(view, match, binding)]
  return files + _chosen(inside, suffix, binding, entry)


def _in_folder(view, path, binding):
  """Returns the sorted files of a folder and of its partitions."""
  files, partition_folders, others = [], [], []
  for name in sorted(view.names(path)):
    inside = uris.join(path, name)
    if name[0] in '._':
      continue
    if not view.is_folder(inside):
      errors.check(view.exists(inside), '%s: %s is a link to nothing.',
                   binding, inside)
      files.append(inside)
    else:
      (partition_folders if '=' in name[1:] else others).append(inside)
  if others:
    _warn('%s: left out %d folders in %s, such as %r; %r would read the files '
          'in them.', binding, len(others), path,
          os.path.basename(uris.name(others[0])), uris.join(path, '**'))
  view.load(partition_folders)
  return files + [name for folder in partition_folders
                  for name in _in_folder(view, folder, binding)]


def _chosen(files, suffix, binding, entry):
  """Returns the files in folders that are of the format."""
  ending = [name for name in files if uris.name(name).endswith(suffix)]
  if not ending:
    ending = [name for name in files
              if '.' not in os.path.basename(uris.name(name))]
  left_out = set(files) - set(ending)
  if left_out and ending:
    _warn('%s %r: left out %d files without the ending %s, such as %s.',
          binding, entry, len(left_out), suffix, min(left_out))
  return sorted(ending)


def _is_hidden(match, pattern):
  """Whether a match has a part that is no data and that nobody named."""
  named = pattern.split(os.sep)
  return named[-1][:1] not in ('_', '.') and any(
      part[:1] in ('_', '.') and part not in named
      for part in match.split(os.sep))


def _warn(*message):
  """Logs a warning, but not twice."""
  text = message[0] % message[1:]
  if text not in _said:
    _said.add(text)
    logging.warning('%s', text)
