"""Lines of files: where they start, and how many there are."""

import re

import numpy as np
import pytest

from ple_estimator import errors
from ple_estimator.data import csv_lines


def lines_of(data):
  """(byte at which it starts, line) by a regular expression."""
  return [(m.start(), m.group(1)) for m in re.finditer(
      rb'([^\r\n]*)(?:\r\n|\r|\n)|([^\r\n]+)\Z', data)] if data else []


def write(path, data):
  path.write_bytes(data)
  return str(path)


@pytest.mark.parametrize('block', [3, 4, 7, 1 << 20])
def test_random_lines_are_cut_and_counted(tmp_path, monkeypatch, block):
  monkeypatch.setattr(csv_lines, '_BLOCK_BYTES', block)
  rng = np.random.RandomState(7)
  for _ in range(60):
    data = bytes(rng.choice([97, 97, 98, 10, 13], rng.randint(1, 40)).tolist())
    path = write(tmp_path / 'x', data)
    starts = [at for at, _ in lines_of(data)] + [len(data)]
    texts = [re.match(rb'[^\r\n]*', data[at:]).group() for at in starts[:-1]]
    assert [csv_lines.start(path, at, 0) for at in range(len(data) + 1)] == [
        min(s for s in starts if s >= at) for at in range(len(data) + 1)]
    begin, end = sorted(rng.choice(len(starts), 2))
    wanted = texts[begin:end]
    assert [row for block in csv_lines.blocks(path, starts[begin], starts[end])
            for row in block.rows()] == [t for t in wanted if t]
    assert csv_lines.count(path, starts[begin], starts[end]) == (
        len(wanted), len([t for t in wanted if t]))


def test_a_block_knows_the_lines_of_its_rows(tmp_path):
  path = write(tmp_path / 'x', b'\r\n\na\n\n\nb\rc\r\n')
  block, = csv_lines.blocks(path, 0, behind=b',,')
  assert block.rows() == [b'a', b'b', b'c']
  assert [block.line_of(row) for row in range(3)] == [2, 5, 6]
  assert block.num_lines == 7 and block.num_rows() == 3
  assert block.buffer.to_pybytes() == b'\n\n\na\n\n\nb\nc\n,,\n'


def test_a_line_longer_than_a_block_is_one_line(tmp_path, monkeypatch):
  monkeypatch.setattr(csv_lines, '_BLOCK_BYTES', 10)
  path = write(tmp_path / 'x', b'a\n' + b'b' * 700 + b'\nc\n' + b'd' * 600)
  rows = [row for block in csv_lines.blocks(path, 0) for row in block.rows()]
  assert rows == [b'a', b'b' * 700, b'c', b'd' * 600]
  monkeypatch.setattr(csv_lines, '_LONGEST_LINE', 500)
  with pytest.raises(errors.UserError, match='must have lines of less than 5'):
    list(csv_lines.blocks(path, 0))


@pytest.mark.parametrize('data, found', [
    (b'a,b\n1,2\n', (b'a,b', 1, 4)),
    (b'a,b\r1,2\n', (b'a,b', 1, 4)),
    (b'\r\n\r\na,b\r\n1,2', (b'a,b', 3, 9)),
    (b'\xef\xbb\xbfa,b\n', (b'a,b', 1, 7)),
    (b'\xef\xbb\xbf\na,b\n', (b'a,b', 2, 8)),
    (b'a,b', (b'a,b', 1, 3)),
    (b'\n\n', (b'', 3, 2)),
])
def test_the_header_is_the_first_line_that_is_not_blank(tmp_path, data, found):
  assert csv_lines.header(write(tmp_path / 'x', data)) == found


@pytest.mark.parametrize('data, message', [
    (b'\x1f\x8b\x08', r'x is compressed by gzip: its name must end in \.gz'),
    (b'PK\x03\x04', 'x is a zip archive'),
    ('a,b'.encode('utf-16'), 'x is UTF-16: it must be UTF-8'),
])
def test_what_is_no_text_is_said(tmp_path, data, message):
  path = write(tmp_path / 'x', data)
  for find in (csv_lines.first, csv_lines.header):
    with pytest.raises(errors.UserError, match=message):
      find(path)
