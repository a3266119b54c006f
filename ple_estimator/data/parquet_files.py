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

_RUNS_CODE = 'arrow.py_extension_type'


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
    path: str.

  Returns:
    pa.parquet.ParquetFile.

  Raises:
    UserError: if it is damaged or no Parquet file, if a name in it is not
      UTF-8, or if it would run code.
  """
  try:
    found = pa.parquet.ParquetFile(path, **_if_known(
        pa.parquet.ParquetFile, page_checksum_verification=True))
    found.schema_arrow.names  # pylint: disable=pointless-statement
    return found
  except UnicodeDecodeError:
    raise errors.UserError(
        '%s must have columns whose names are UTF-8, got another name.' % path)
  except (pa.ArrowException, OSError, ValueError) as error:
    raise errors.UserError('%s must be a whole Parquet file, got: %s' % (
        path, one_line(error)))


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
