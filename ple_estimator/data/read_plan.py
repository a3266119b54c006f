"""What is still to be read of the files of an input, and how far it is read.

A plan is a list of parts. A part is a set of files that are read together, with
the epochs that are still to be read of them:

  Part(paths=['day1.csv'], epoch=1, row=1234, stop=2, seed=7, shuffle_rows=500)

reads epoch 1 (from 0) of day1.csv from its row 1234 on, in the order in which
rows leave the shuffle buffer. Seed and size of the buffer give this order, so
that an epoch can be gone on with although rows are shuffled.
"""

import bisect
import collections
import itertools
import threading

ROWS = 'input_rows_read'  # a feature, and the tensor's name in the graph
_MOST_ROWS = 1 << 44  # of one iteration over the data

Part = collections.namedtuple(
    'Part', ['paths', 'epoch', 'row', 'stop', 'seed', 'shuffle_rows'])
Part.__doc__ = """Files that are read together.

Attributes:
  paths: list of str.
  epoch: int, the first epoch to read, from 0.
  row: int, how many usable rows of that epoch have been read.
  stop: int, the epoch before which to stop; None goes on without end.
  seed: int, of the order of files and rows.
  shuffle_rows: int, size of the shuffle buffer; 0 keeps the order.
"""

# How far a plan is read: the first `row` usable rows of an epoch of a part, and
# all that is before them. The end of a plan is (number of parts, 0, 0).
Place = collections.namedtuple('Place', ['part', 'epoch', 'row'])
_numbers = itertools.count(1)


class Progress:
  """Follows the rows of one iteration over the data to the training step.

  A batch carries a number, which says how many rows were read up to its end and
  in which iteration. The thread that reads calls begins, ends and sent; the
  thread that trains calls place.

  Attributes:
    parts: list of Part, the plan that is read.
  """

  def __init__(self, parts):
    """Starts before the first row of the plan.

    Args:
      parts: list of Part.
    """
    self.parts = parts
    self._base = next(_numbers) * _MOST_ROWS
    self._lock = threading.Lock()
    # Ascending (rows of this iteration, Place behind them), where epochs begin.
    self._marks = [(0, start(parts))]
    self._read = self._sent = 0
    self._ended = False

  def begins(self, part, epoch, row):
    """Notes that the rows read from now on belong to an epoch of a part.

    Args:
      part: int, its index.
      epoch: int.
      row: int, how many rows of the epoch are left out.
    """
    with self._lock:
      self._marks.append((self._read, Place(part, epoch, row)))

  def counted(self, tables):
    """Yields tables of the plan and counts their rows."""
    for table in tables:
      self._read += table.num_rows
      yield table

  def sent(self, batches):
    """Yields pairs of a batch, a pa.Table, and its number, an int."""
    for table in batches:
      self._sent += table.num_rows
      yield table, self._base + self._sent
    with self._lock:
      self._ended = True

  def place(self, number):
    """Returns the Place behind the batch of a number.

    Args:
      number: int, from `sent`; 0 is before the first batch, and so is a number
        of another iteration.
    """
    rows = number - self._base
    if not 0 <= rows < _MOST_ROWS:
      return self._marks[0][1]
    with self._lock:
      if self._ended and rows == self._sent:
        return Place(len(self.parts), 0, 0)
      at = bisect.bisect_right([mark for mark, _ in self._marks], rows) - 1
      before, place = self._marks[at]
    return place._replace(row=place.row + rows - before)


def start(parts):
  """Returns the Place at which a plan starts."""
  if not parts:
    return Place(0, 0, 0)
  return Place(0, parts[0].epoch, parts[0].row)


def after(parts, rows, count_rows):
  """Returns the Place behind a number of rows of a plan.

  Args:
    parts: list of Part.
    rows: int.
    count_rows: function of a list of paths to the number of their rows, bad
      ones included.
  """
  for i, part in enumerate(parts):
    in_epoch = max(1, count_rows(part.paths))
    epochs, row = divmod(part.row + rows, in_epoch)
    if part.epoch + epochs < part.stop:
      return Place(i, part.epoch + epochs, row)
    rows -= (part.stop - part.epoch) * in_epoch - part.row
  return Place(len(parts), 0, 0)


def num_rows(parts, count_rows):
  """Returns how many rows a plan has, bad ones included; see `after`."""
  return sum(max(0, (part.stop - part.epoch) * count_rows(part.paths) -
                 part.row) for part in parts)
