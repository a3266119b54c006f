"""Connections to remote stores, and how often something is tried again.

pyarrow's own file systems do the work. They take their credentials from where
the programs of the store do: AWS_ACCESS_KEY_ID, AWS_PROFILE, a role of the
machine and so on for s3://, GOOGLE_APPLICATION_CREDENTIALS for gs://, and
Kerberos for hdfs://.

What fails on the way is tried again, at most four times within about 8 seconds
of waiting, each time with a line in the log. What the store has answered, such
as that a file is missing or that access is denied, is final.
"""

import collections
import os
import re
import threading
from urllib import parse

from absl import logging
import pyarrow as pa
import pyarrow.fs

from ple_estimator import errors
from ple_estimator.storage import uris

_ATTEMPTS = 5
_FIRST_WAIT_SECS = 0.5  # which doubles with every attempt
_GS_RETRY_SECS = 5  # of the library itself, whose own limit is 15 minutes
_ENDPOINTS = ('AWS_ENDPOINT_URL_S3', 'AWS_ENDPOINT_URL')
_ENVIRONMENT = re.compile(r'(AWS|GOOGLE|CLOUDSDK|HADOOP)_')
# What only a store says, and no decoder of a file.
_OF_STORE = re.compile(
    r'AWS Error|google::cloud|HDFS|hdfs|libcurl|[Cc]onnection|timed? ?out|'
    r'only got')
# What another attempt does not change. The words are those of AWS and of gRPC.
_DENIED = re.compile(
    r'ACCESS_DENIED|AccessDenied|INVALID_ACCESS_KEY|InvalidAccessKey|SIGNATURE|'
    r'Signature|INVALID_CLIENT_TOKEN|UNRECOGNIZED_CLIENT|MISSING_AUTH|'
    r'EXPIRED_TOKEN|ExpiredToken|INVALID_TOKEN|InvalidToken|PERMISSION_DENIED|'
    r'UNAUTHENTICATED|OAuth2|(?:code|[Ss]tatus):? ?40[13]\b')
_FINAL = re.compile(
    r'NO_SUCH_|NoSuch|[Bb]ucket .* not found|NOT_FOUND|INVALID_ARGUMENT|'
    r'PermanentRedirect|(?:code|[Ss]tatus):? ?(?:30[0-9]|400|404)\b')
_CREDENTIALS = {
    's3': 'AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE',
    'gs': 'GOOGLE_APPLICATION_CREDENTIALS',
    'gcs': 'GOOGLE_APPLICATION_CREDENTIALS',
    'hdfs': 'a ticket of Kerberos',
}
_LACKING = {
    's3': 'install a pyarrow that is built with S3',
    'gs': 'install a pyarrow that is built with GCS',
    'gcs': 'install a pyarrow that is built with GCS',
    'hdfs': 'set JAVA_HOME, HADOOP_HOME and CLASSPATH (hadoop classpath '
            '--glob), so that pyarrow finds libjvm and libhdfs',
}

Stat = collections.namedtuple('Stat', ['size', 'mtime'])
Stat.__doc__ = """What is known of a file without reading it.

Attributes:
  size: int, in bytes.
  mtime: float, seconds since 1970; of a remote file whole seconds, which is
    what all answers of a store have, or 0.0 if it does not say them.
"""

_systems = {}  # what a connection depends on, to a pa.fs.FileSystem
_stats = {}  # Stat of remote files, as a listing or the store said last


def system(path):
  """Connects to the store of a remote file.

  Args:
    path: str, a URI that uris.check accepts.

  Returns:
    (pa.fs.FileSystem, str): the store, and the file's name there.

  Raises:
    UserError: if this pyarrow cannot connect to it.
  """
  parts = uris.split(path)
  key = parts._replace(name='') + tuple(sorted(
      item for item in os.environ.items() if _ENVIRONMENT.match(item[0])))
  if key not in _systems:
    _systems[key] = _connect(path, parts)
  return _systems[key], ('/' + parts.name if parts.scheme == 'hdfs' else
                         '/'.join(filter(None, [parts.authority.rpartition(
                             '@')[2], parts.name])))


def _connect(path, parts):
  """Returns a pa.fs.FileSystem; no store is asked before it is used."""
  try:
    if parts.scheme == 's3':
      return _s3(path, parts)
    query = parts.query
    if parts.scheme != 'hdfs' and 'retry_limit_seconds=' not in query:
      query += '%sretry_limit_seconds=%d' % ('&' if query else '?',
                                             _GS_RETRY_SECS)
    return pa.fs.FileSystem.from_uri('%s://%s/%s' % (
        parts.scheme, parts.authority, query))[0]
  except errors.UserError:
    raise
  except (ImportError, OSError, ValueError, pa.ArrowException) as error:
    raise errors.UserError(
        '%s cannot be read, since pyarrow %s does not connect to %s: %s. To '
        'read it, %s; or copy the files to a disk, or mount their storage.' % (
            path, pa.__version__, parts.scheme + '://',
            _one_line(error), _LACKING[parts.scheme])) from error


def _s3(path, parts):
  """Returns a pa.fs.S3FileSystem as the URI and the environment say."""
  found = uris.options(parts)
  said = found.pop('endpoint_override', None) or next(
      filter(None, map(os.environ.get, _ENDPOINTS)), None)
  if said:
    scheme, separator, endpoint = parse.unquote(said).rpartition('://')
    found['endpoint_override'] = endpoint.rstrip('/')
    if separator:
      found.setdefault('scheme', scheme)
  found.setdefault('region', os.environ.get('AWS_REGION') or os.environ.get(
      'AWS_DEFAULT_REGION'))
  if not found['region']:
    found['region'] = ('us-east-1' if 'endpoint_override' in found else
                       retried(path, lambda: pa.fs.resolve_s3_region(
                           parts.authority)))
  if hasattr(pa.fs, 'AwsStandardS3RetryStrategy'):  # `retried` counts, and says
    found['retry_strategy'] = pa.fs.AwsStandardS3RetryStrategy(max_attempts=1)
  return pa.fs.S3FileSystem(**found)


def is_of_store(error):
  """Whether an error comes from the store, not from what a file holds."""
  return bool(_OF_STORE.search(str(error)))


def retried(path, function, closing=None, is_known=None):
  """Calls a function of a store until it succeeds, a bounded number of times.

  Args:
    path: str, the URI, for messages.
    function: function without arguments, which raises OSError if it fails.
    closing: threading.Event; once it is set nothing is tried again.
    is_known: function of an OSError, whether it is of the store; others are
      raised as they are. None takes all for errors of the store.

  Returns:
    what the function returns.

  Raises:
    UserError: if the store refuses, or does not answer often enough.
  """
  closing, wait = closing or threading.Event(), _FIRST_WAIT_SECS
  for attempt in range(1, _ATTEMPTS + 1):
    try:
      return function()
    except FileNotFoundError as error:
      raise errors.UserError('%s cannot be read: there is nothing of this '
                             'name (%s).' % (path, _one_line(error))) from error
    except OSError as error:
      if is_known and not is_known(error):
        raise
      text = _one_line(error)
      _check_attempt(path, text, attempt, error)
    if closing.is_set():
      raise errors.UserError('%s is no longer read.' % path)
    logging.warning(
        '%s: attempt %d of %d to read it failed, the next follows in %g s: %s',
        path, attempt, _ATTEMPTS, wait, text)
    closing.wait(wait)
    wait *= 2


def _check_attempt(path, text, attempt, error):
  """Raises UserError if another attempt is of no use."""
  if _DENIED.search(text):
    scheme = uris.split(path).scheme
    raise errors.UserError(
        '%s cannot be read: access is denied (%s). Credentials come from the '
        'environment: see that %s are those of who may read it.' % (
            path, text, _CREDENTIALS[scheme])) from error
  if _FINAL.search(text) or attempt == _ATTEMPTS:
    tried = '' if attempt == 1 else ' after %d attempts' % attempt
    raise errors.UserError('%s cannot be read%s: %s' % (
        path, tried, text)) from error


def stat(path):
  """Returns the Stat of a remote file, as it was listed last.

  Raises:
    UserError: if it is missing or empty.
  """
  if path not in _stats:
    found, = infos([path])
    errors.check(found.is_file and found.size, '%s cannot be read: there is '
                 'nothing of this name, or it is empty.', path)
  return _stats[path]


def infos(paths):
  """Asks a store for some names at once.

  Args:
    paths: list of URIs of one store.

  Returns:
    list of pa.fs.FileInfo.

  Raises:
    UserError: if the store refuses, or does not answer.
  """
  store, _ = system(paths[0])
  found = retried(paths[0], lambda: store.get_file_info(
      [system(path)[1] for path in paths]))
  for path, info in zip(paths, found):
    _learn(path, info)
  return found


def listed(path, recursive):
  """Lists what lies in a folder of a store.

  Args:
    path: str, the URI of the folder.
    recursive: bool, whether to list all below it.

  Returns:
    dict of URI to pa.fs.FileInfo; empty if there is no such folder.

  Raises:
    UserError: if the store refuses, or does not answer.
  """
  store, folder = system(path)
  found = retried(path, lambda: store.get_file_info(pa.fs.FileSelector(
      folder, allow_not_found=True, recursive=recursive)))
  parts, names = uris.split(path), {}
  for info in found:
    at = len(folder.rstrip('/')) + 1
    uri = uris.joined(parts._replace(
        name='/'.join(filter(None, [parts.name, info.path[at:]]))))
    names[uri] = info
    _learn(uri, info)
  return names


def _learn(path, info):
  if info.is_file:
    _stats[path] = Stat(info.size, float((info.mtime_ns or 0) // 10**9))
  else:
    _stats.pop(path, None)


def _one_line(error):
  return ' '.join(str(error).split()).rstrip('.')
