r"""The lines of CSV files: blocks of whole lines, and how many there are.

A line ends at LF (\n), CRLF (\r\n) or CR (\r), in any mixture. A line without
a character is blank and no row. A line of spaces is not blank.
"""

import contextlib
import io
import os
import re

import numpy as np
import pyarrow as pa

from ple_estimator import errors
from ple_estimator.storage import sources
from ple_estimator.storage import uris

_BLOCK_BYTES = 4 << 20
_LONGEST_LINE = 64 << 20  # in bytes, so that memory is bounded
_LONGEST_HEADER = 4 << 20
_USUAL_HEADER = 1 << 16

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
  return _CODECS.get(os.path.splitext(uris.name(path))[1].lower())


@contextlib.contextmanager
def opened(path, begin=0, end=None):
  """Opens the text of a file; a context manager.

  Arrow reads compressed files by its own means, in the thread that asks.

  Args:
    path: str.
    begin: int, the byte to start at.
    end: int, as sources.opened; of a compressed file it says nothing.

  Yields:
    an object with the methods read and readinto of a file.

  Raises:
    UserError: while it is open, if the file is damaged.
  """
  compression = codec(path)
  if not compression:
    with sources.opened(path, begin, end) as stream:
      yield stream
    return
  try:
    with sources.decompressed(path, compression) as stream:
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
    head = stream.read(_USUAL_HEADER)
    mark = _check_text(path, head)
    match = _FIRST_LINE.match(head, mark)
    if match.end() == len(head):  # more of the line, or its LF, may follow
      head += stream.read(_LONGEST_HEADER - len(head))
      match = _FIRST_LINE.match(head, mark)
  errors.check(match.end() < _LONGEST_HEADER, '%s must have a first line of '
               'less than %d bytes.', path, _LONGEST_HEADER)
  before = _with_line_feeds(head[mark:match.start(1)])
  return match.group(1), before.count(b'\n') + 1, match.end()


def first(path):
  """The byte at which the first line starts: behind a byte order mark.

  Raises:
    UserError: if the file is not text.
  """
  with opened(path, end=16) as stream:
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
  """Some whole lines, in memory that the next block takes.

  Attributes:
    buffer: pa.Buffer of Arrow's own memory, which its threads can free without
      Python: a LF, the lines, and the line that was asked for behind them. The
      LF is there because Arrow drops a byte order mark at the start.
    num_lines: int, blank lines included.
  """

  def __init__(self, buffer, text, num_lines):
    """Keeps the lines.

    Args:
      buffer: pa.Buffer, see above.
      text: [bytes] uint8 numpy array, the lines; each ends in LF.
      num_lines: int.
    """
    self.buffer = buffer
    self.num_lines = num_lines
    self._text = text

  def num_rows(self):
    """Returns the number of lines that are not blank."""
    text = self._text.tobytes()
    if text[:1] != b'\n' and b'\n\n' not in text:
      return self.num_lines
    return len(self._numbers())

  def line_of(self, row):
    """Returns the line of a row, both counted from 0 in the block."""
    return int(self._numbers()[row])

  def rows(self):
    """Returns the lines that are not blank as a list of bytes."""
    return [line for line in self._text.tobytes().split(b'\n') if line]

  def _numbers(self):
    """Returns the numbers of the lines that are not blank."""
    ends = np.flatnonzero(self._text == ord('\n'))
    return np.flatnonzero(np.diff(ends, prepend=-1) > 1)


class _Memory:
  """Where blocks are read to; used again, as new memory costs time."""

  def __init__(self, size, behind):
    """Takes the memory.

    Args:
      size: int, bytes of lines that it holds.
      behind: bytes, put behind each block, with a line break.
    """
    self.size = size
    self._behind = behind
    self._buffer = pa.allocate_buffer(size + len(behind) + 3)
    self._bytes = np.frombuffer(self._buffer, np.uint8)
    self._bytes[0] = ord('\n')
    self._lines = self._bytes[1:]
    self._flags = np.empty(size + 1, bool)

  def read(self, stream, rest, most):
    """Reads from a stream.

    Args:
      stream: as `opened` gives it.
      rest: bytes, put before what is read.
      most: int or inf, bytes to read at most.

    Returns:
      int, bytes read; 0 at the end of the stream.
    """
    self._put(0, rest)
    stop = min(self.size, len(rest) + most)
    return stream.readinto(memoryview(self._lines)[len(rest):stop])

  def last_end(self, stop):
    """Returns the byte behind the last line break before `stop`, or 0.

    A CR just before `stop` does not count: a LF may follow it.
    """
    span = 1 << 16
    while True:
      text = self.text(max(0, stop - span), stop)
      ends = len(text) - text.endswith(b'\r')
      end = max(text.rfind(b'\n', 0, ends), text.rfind(b'\r', 0, ends))
      if end >= 0:
        return stop - len(text) + end + 1
      if span >= stop:
        return 0
      span *= 4

  def text(self, begin, stop):
    """Returns bytes [begin, stop) of what was read."""
    return self._lines[begin:stop].tobytes()

  def block(self, stop):
    """Makes a Block of the bytes up to `stop`; changes what is behind."""
    if self._count(b'\r', stop) or self._lines[stop - 1] != ord('\n'):
      text = _with_line_feeds(self.text(0, stop))
      stop = len(text)
      self._put(0, text)
    self._put(stop, self._behind + b'\n')
    return Block(
        self._buffer.slice(0, stop + len(self._behind) + 2),
        self._lines[:stop], self._count(b'\n', stop))

  def _put(self, at, text):
    self._lines[at:at + len(text)] = np.frombuffer(text, np.uint8)

  def _count(self, character, stop):
    # Ten times faster than bytes.count.
    return int(np.count_nonzero(np.equal(
        self._lines[:stop], ord(character), out=self._flags[:stop])))


def block_of(lines, behind=b''):
  """Returns a Block of lines.

  Args:
    lines: list of bytes without line breaks.
    behind: bytes, as `blocks`.
  """
  text = b''.join(line + b'\n' for line in lines)
  memory = _Memory(len(text), behind)
  memory.read(io.BytesIO(text), b'', len(text))
  return memory.block(len(text))


def blocks(path, begin, end=None, behind=b''):
  """Yields the lines of bytes [begin, end) of a file as Block.

  Args:
    path: str.
    begin: int, where a line starts.
    end: int, where a line starts or the file ends; None is the end of the file.
    behind: bytes, a line to put behind those of each block in its `buffer`.

  Raises:
    UserError: if a line is longer than memory allows, or the file is damaged.
  """
  left = float('inf') if end is None else end - begin
  memory, rest = _Memory(_BLOCK_BYTES, behind), b''
  with opened(path, begin, end) as stream:
    while True:
      if len(rest) > memory.size // 2:
        errors.check(
            len(rest) < _LONGEST_LINE, '%s must have lines of less than %d '
            'bytes, got a longer one among those from byte %d.', path,
            _LONGEST_LINE, begin)
        memory = _Memory(2 * memory.size, behind)
      num_read = memory.read(stream, rest, left)
      left -= num_read
      stop = len(rest) + num_read
      end_of_lines = memory.last_end(stop) if num_read else stop
      rest = memory.text(end_of_lines, stop)
      if end_of_lines:
        yield memory.block(end_of_lines)
      if not num_read:
        return


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
    rows += block.num_rows()
  return lines, rows


def _with_line_feeds(data):
  """Returns lines with LF at the end of each, the last one included."""
  if b'\r' in data:
    data = data.replace(b'\r\n', b'\n').replace(b'\r', b'\n')
  if data and data[-1:] != b'\n':
    data += b'\n'
  return data
