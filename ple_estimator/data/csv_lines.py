r"""The lines of CSV files: blocks of whole lines, and how many there are.

A line ends at LF (\n), CRLF (\r\n) or CR (\r), in any mixture. A line without
a character is blank and no row. A line of spaces is not blank.
"""

import contextlib
import os
import re

import numpy as np
import pyarrow as pa

from ple_estimator import errors

_BLOCK_BYTES = 4 << 20
_LONGEST_LINE = 64 << 20  # in bytes, so that memory is bounded
_LONGEST_HEADER = 4 << 20

_CODECS = {'.gz': 'gzip', '.bz2': 'bz2', '.zst': 'zstd'}
# What the first bytes of files say that are not text in UTF-8.
_OTHER_CONTENT = [
    (b'\x1f\x8b', 'compressed by gzip: its name must end in .gz'),
    (b'\x28\xb5\x2f\xfd', 'compressed by zstd: its name must end in .zst'),
    (b'BZh91AY&SY', 'compressed by bzip2: its name must end in .bz2'),
    (b'PK\x03\x04', 'a zip archive, which cannot be read'),
    (b'\xfd7zXZ\x00', 'compressed by xz, which cannot be read'),
    (b'PAR1\x15', 'a Parquet file: use ParquetInput'),
    (b'\xff\xfe', 'UTF-16: it must be UTF-8'),
    (b'\xfe\xff', 'UTF-16: it must be UTF-8'),
]
_MARK = b'\xef\xbb\xbf'  # the byte order mark that may stand before UTF-8
_FIRST_LINE = re.compile(rb'[\r\n]*([^\r\n]*)(?:\r\n|\r|\n|\Z)')


def codec(path):
  """The compression of a file by its suffix: a name that Arrow knows, or None.

  Compressed files are read from their first byte only. All positions in them
  are those of the text that they hold.
  """
  return _CODECS.get(os.path.splitext(path)[1].lower())


@contextlib.contextmanager
def opened(path, begin=0):
  """Opens the text of a file; a context manager.

  Arrow reads compressed files by its own means, in the thread that asks.

  Args:
    path: str.
    begin: int, the byte to start at.

  Yields:
    an object with a method read(num_bytes) that returns bytes, b'' at the end.

  Raises:
    UserError: while it is open, if the file is damaged.
  """
  compression = codec(path)
  if not compression:
    with open(path, 'rb') as stream:
      stream.seek(begin)
      yield stream
    return
  try:
    with pa.input_stream(path, compression=compression) as stream:
      while begin:
        skipped = len(stream.read(min(begin, _BLOCK_BYTES)))
        begin = begin - skipped if skipped else 0
      yield stream
  except errors.UserError:
    raise
  except (OSError, pa.ArrowException) as error:
    raise errors.UserError('%s cannot be read as %s: %s' % (
        path, compression, ' '.join(str(error).split())))


def header(path):
  """Finds the first line that is not blank.

  Returns:
    (line, number, end): bytes without a line break, or b'' if all lines are
    blank; its number in the file, from 1; the byte at which the next line
    starts.

  Raises:
    UserError: if the file is not text or the line is too long.
  """
  with opened(path) as stream:
    head = stream.read(_LONGEST_HEADER)
  mark = _check_text(path, head)
  match = _FIRST_LINE.match(head, mark)
  errors.check(match.end() < _LONGEST_HEADER, '%s must have a first line of '
               'less than %d bytes.', path, _LONGEST_HEADER)
  before = Block(_with_line_feeds(head[mark:match.start(1)]))
  return match.group(1), before.num_lines + 1, match.end()


def first(path):
  """The byte at which the first line starts: behind a byte order mark.

  Raises:
    UserError: if the file is not text.
  """
  with opened(path) as stream:
    return _check_text(path, stream.read(16))


def _check_text(path, head):
  for magic, content in _OTHER_CONTENT:
    errors.check(not head.startswith(magic), '%s is %s.', path, content)
  return len(_MARK) if head.startswith(_MARK) else 0


def start(path, offset, least):
  """Returns where the first line at or after a byte starts.

  Args:
    path: str, not compressed.
    offset: int, in bytes.
    least: int, the byte at which the first row starts.
  """
  if offset <= least:
    return least
  at = offset - 1
  with opened(path, at) as stream:
    while True:
      text = stream.read(1 << 16)
      end = re.search(b'[\r\n]', text)
      if not end:
        at += len(text)
        if not text:
          return at
        continue
      at += end.end()
      if end.group() == b'\r':
        stream.seek(at)
        at += stream.read(1) == b'\n'
      return at


class Block:
  """Some whole lines.

  Attributes:
    data: bytes; each line ends in LF.
    num_lines: int, blank lines included.
    num_rows: int, of the lines that are not blank.
  """

  def __init__(self, data):
    """Counts the lines of bytes that each end in LF."""
    self.data = data
    self.num_lines = self.num_rows = data.count(b'\n')
    if data[:1] == b'\n' or b'\n\n' in data:
      self.num_rows = len(self._numbers())

  def line_of(self, row):
    """Returns the line of a row, both counted from 0 in the block."""
    if self.num_rows == self.num_lines:
      return row
    return int(self._numbers()[row])

  def rows(self):
    """Returns the lines that are not blank as a list of bytes."""
    return [line for line in self.data.split(b'\n') if line]

  def _numbers(self):
    """Returns the numbers of the lines that are not blank."""
    ends = np.flatnonzero(np.frombuffer(self.data, np.uint8) == ord('\n'))
    return np.flatnonzero(np.diff(ends, prepend=-1) > 1)


def blocks(path, begin, end=None):
  """Yields the lines of bytes [begin, end) of a file as Block.

  Args:
    path: str.
    begin: int, where a line starts.
    end: int, where a line starts or the file ends; None is the end of the file.

  Raises:
    UserError: if a line is longer than memory allows, or the file is damaged.
  """
  left = float('inf') if end is None else end - begin
  rest, number = b'', 1
  with opened(path, begin) as stream:
    while True:
      text = stream.read(min(left, _BLOCK_BYTES))
      left -= len(text)
      data = rest + text
      if not text:
        if data:
          yield Block(_with_line_feeds(data))
        return
      # A CR at the end may be the first half of a CRLF.
      stop = len(data) - data.endswith(b'\r')
      cut = 1 + max(data.rfind(b'\n', 0, stop), data.rfind(b'\r', 0, stop))
      rest = data[cut:]
      if cut:
        block = Block(_with_line_feeds(data[:cut]))
        yield block
        number += block.num_lines
      errors.check(
          len(rest) <= _LONGEST_LINE, '%s must have lines of at most %d bytes, '
          'got a longer one, line %d counted from byte %d.', path,
          _LONGEST_LINE, number, begin)


def count(path, begin, end=None):
  """Returns how many (lines, rows) start in bytes [begin, end) of a file.

  Args:
    path: str.
    begin: int, as `blocks`.
    end: int or None, as `blocks`.
  """
  lines = rows = 0
  for block in blocks(path, begin, end):
    lines += block.num_lines
    rows += block.num_rows
  return lines, rows


def _with_line_feeds(data):
  """Returns lines with LF at the end of each, the last one included."""
  if b'\r' in data:
    data = data.replace(b'\r\n', b'\n').replace(b'\r', b'\n')
  if data and data[-1:] != b'\n':
    data += b'\n'
  return data
