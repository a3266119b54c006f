"""Opens and writes Parquet files, for all that does so.

Importing this module makes the process safe against CVE-2023-47248: up to
version 14.0.0, pyarrow ran code that a Parquet, Feather or Arrow file brought
along as a pickled extension type. That type is refused, for every reader of
this process, before the first file is opened.

Pages are written with checksums, and checksums are verified on reading, where
pyarrow can: from version 14 and 15 on.
"""

import inspect

import pyarrow as pa
import pyarrow.parquet

from ple_estimator import errors
from ple_estimator.storage import sources
from ple_estimator.storage import uris

_RUNS_CODE = 'arrow.py_extension_type'
_footers = {}  # FileMetaData of remote files, by (path, size, date)


class _Refused(pa.ExtensionType):
  """Stands in the place of the extension type that runs code."""

  def __init__(self):
    super().__init__(pa.null(), _RUNS_CODE)

  def __arrow_ext_serialize__(self):
    return b''

  @classmethod
  def __arrow_ext_deserialize__(cls, storage_type, serialized):
    raise pa.ArrowInvalid(
        'a column has the extension type %r, which runs code of the file '
        '(CVE-2023-47248), and is refused' % _RUNS_CODE)


def _refuse_code():
  """Takes the place of pyarrow's own type, which would run the code."""
  try:
    pa.unregister_extension_type(_RUNS_CODE)
  except pa.ArrowKeyError:  # This version of pyarrow has no such type.
    pass
  pa.register_extension_type(_Refused())


_refuse_code()


def opened(path):
  """Opens a Parquet file, whose page checksums will be verified.

  Args:
    path: str, or the URI of a remote file.

  Returns:
    pa.parquet.ParquetFile.

  Raises:
    UserError: if it is damaged or no Parquet file, if a name in it is not
      UTF-8, if it would run code, or if a remote file cannot be read.
  """
  try:
    found = sources.retried(path, lambda: _open(path))
    found.schema_arrow.names  # pylint: disable=pointless-statement
    return found
  except UnicodeDecodeError:
    raise errors.UserError(
        '%s must have columns whose names are UTF-8, got another name.' % path)
  except errors.UserError:
    raise
  except (pa.ArrowException, OSError, ValueError) as error:
    raise errors.UserError('%s must be a whole Parquet file, got: %s' % (
        path, one_line(error)))


def metadata(path):
  """Returns the pa.parquet.FileMetaData of a remote file; see `opened`.

  It is read once, since each look at a store takes a while.
  """
  key = (path,) + sources.stat(path)
  return _footers[key] if key in _footers else opened(path).metadata


def _open(path):
  """Opens a file; the columns of a remote one are fetched together."""
  options = _if_known(pa.parquet.ParquetFile, page_checksum_verification=True)
  if not uris.is_remote(path):
    return pa.parquet.ParquetFile(path, **options)
  source = sources.native(path)
  key = (path,) + sources.stat(path)
  found = pa.parquet.ParquetFile(
      source, pre_buffer=True, metadata=_footers.get(key), **options)
  _footers[key] = found.metadata
  return found


def writer(path, schema):
  """Returns a pa.parquet.ParquetWriter that writes page checksums.

  Args:
    path: str.
    schema: pa.Schema.
  """
  return pa.parquet.ParquetWriter(path, schema, **_if_known(
      pa.parquet.ParquetWriter, write_page_checksum=True))


def one_line(error):
  """Returns the message of an error of Arrow, which may have several lines."""
  return ' '.join(str(error).split())


def _if_known(kind, **options):
  """Returns those options that a class of this version of pyarrow takes."""
  known = inspect.signature(kind.__init__).parameters
  return {name: value for name, value in options.items() if name in known}
