"""The names of files: paths of a disk, and URIs of remote stores. Text only.

A URI is s3://bucket/key, gs://bucket/key, hdfs://host:port/path or file:///path.
What stands behind the bucket or the host is the name of the file as its store
lists it: nothing in it is decoded. Options of the connection may follow, in the
form that pyarrow gives them:

  s3://bucket/day1.csv?endpoint_override=127.0.0.1:9000&scheme=http

Credentials are never part of a name, which is logged and saved in checkpoints.
"""

import collections
import os
import posixpath
import re

from ple_estimator import errors

_URI = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)(.*)\Z', re.DOTALL)
_BUCKETS = ('s3', 'gs', 'gcs')  # schemes whose URIs name a bucket
_OPTIONS = {
    's3': ('endpoint_override', 'region', 'scheme'),
    'gs': ('endpoint_override', 'retry_limit_seconds', 'scheme'),
    'gcs': ('endpoint_override', 'retry_limit_seconds', 'scheme'),
    'hdfs': ('kerb_ticket', 'user'),
}
# The options at the end of a URI; all else with ? is a pattern.
_QUERY = re.compile(r'\?((?:%s)=[^?]*)\Z' % '|'.join(
    sorted({option for found in _OPTIONS.values() for option in found})))
_KNOWN = 's3://, gs://, hdfs:// or file://'

Parts = collections.namedtuple('Parts', ['scheme', 'authority', 'name',
                                         'query'])
Parts.__doc__ = """What a URI consists of.

Attributes:
  scheme: str, in lower case, such as 's3'.
  authority: str, the bucket, or the host and its port.
  name: str, what stands behind it, without '/' at its start or end.
  query: str, the options, with their '?', or ''.
"""


def split(path):
  """Returns the Parts of a URI, or None of a path."""
  match = _URI.match(path)
  if not match:
    return None
  scheme, authority, rest = match.groups()
  query = _QUERY.search(rest)
  name = rest[:query.start()] if query else rest
  return Parts(scheme.lower(), authority, name.strip('/'),
               query.group() if query else '')


def joined(parts):
  """Returns the URI of Parts; each file has one only."""
  name = posixpath.normpath(parts.name) if parts.name else '.'
  return '%s://%s%s%s' % (parts.scheme, parts.authority,
                          '' if name == '.' else '/' + name, parts.query)


def options(parts):
  """Returns the options of Parts as a dict of str to str."""
  return dict(option.partition('=')[::2]
              for option in parts.query[1:].split('&') if option)


def is_remote(path):
  """Whether a path that `check` accepts is the URI of a remote file."""
  parts = split(path)
  return parts is not None and parts.scheme in _OPTIONS


def local(path):
  """Returns a path as the disk knows it: file:///data/a.csv is /data/a.csv."""
  match = _URI.match(path)
  return match.group(3) if match and match.group(1).lower() == 'file' else path


def name(path):
  """Returns a path without the options of a URI, so that it ends in its name.

  What os.path says of a path, such as its ending, holds for the result.
  """
  parts = split(path) if is_remote(path) else None
  return joined(parts._replace(query='')) if parts else path


def absolute(path):
  """Returns what stands for a file whatever the current folder is."""
  return path if is_remote(path) else os.path.abspath(path)


def join(folder, entry):
  """Joins as os.path.join does; either may be a URI.

  Args:
    folder: str, a path or URI.
    entry: str, what is named inside, or a path or URI that stands for itself.
  """
  folder, entry = local(folder), local(entry)
  if is_remote(entry):
    return joined(split(entry))
  if os.path.isabs(entry) or not is_remote(folder):
    return os.path.join(folder, entry)
  parts = split(folder)
  return joined(parts._replace(name=posixpath.join(parts.name, entry)))


def check(binding, paths):
  """Raises UserError unless files can be looked for where paths say.

  Args:
    binding: str, what holds the paths, e.g. 'CsvInput.files'.
    paths: str or list of str, each a path or a URI.
  """
  for path in [paths] if isinstance(paths, str) else paths:
    errors.check('\0' not in path, '%s must be a path, without a NUL '
                 'character, got %r.', binding, path)
    parts = split(path)
    if parts:
      _check_parts(binding, path, parts)


def _check_parts(binding, path, parts):
  scheme, authority = parts.scheme, parts.authority
  user, at, _ = authority.rpartition('@')
  errors.check(
      not at or ':' not in user and scheme != 's3', '%s must not hold '
      'credentials, got %s://***@%s: give them by the environment, and take '
      'them out of the URI.', binding, scheme, authority[len(user) + len(at):])
  if scheme == 'file':
    errors.check(authority in ('', 'localhost') and local(path), '%s must name '
                 'a file of this machine as file:///folder/name, got %r.',
                 binding, path)
    return
  errors.check(
      scheme in _OPTIONS, '%s must be a path or a URI that begins with %s, got '
      '%r: copy the files to a disk, or mount the storage that holds them.',
      binding, _KNOWN, path)
  errors.check(authority or scheme not in _BUCKETS, '%s must name a bucket as '
               '%s://bucket/name, got %r.', binding, scheme, path)
