"""Finds the files that a binding names."""

import glob
import os

from ple_estimator import errors


def find(data_dir, entries, suffix, binding):
  """Lists the files that a binding names.

  Args:
    data_dir: str, what relative names start from.
    entries: str or list of str: files, directories or glob patterns.
    suffix: str, of the files to take from a directory; '' takes all.
    binding: str, the name of the binding, for errors.

  Returns:
    list of paths, sorted within each entry; a file that several entries name
    stands at the first.

  Raises:
    UserError: if an entry names no file, or a file is empty.
  """
  paths = []
  for entry in [entries] if isinstance(entries, str) else entries:
    path = os.path.join(data_dir, entry)
    matches = _matches(path, suffix)
    errors.check(
        matches, '%s must name existing files, got %r: nothing at %s.',
        binding, entry, os.path.abspath(path))
    paths += [match for match in matches if match not in paths]
  errors.check(paths, '%s must name at least one file, got %r.',
               binding, entries)
  for path in paths:
    errors.check(os.path.getsize(path), '%s is empty.', path)
  return paths


def _matches(path, suffix):
  """Returns the sorted files of a directory, or those of a glob pattern."""
  if os.path.isdir(path):
    matches = [os.path.join(path, name) for name in os.listdir(path)
               if name[0] not in '._' and name.endswith(suffix)]
  else:
    matches = glob.glob(path)
  return sorted(match for match in matches if os.path.isfile(match))
