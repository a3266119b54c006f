"""Tracks each slice that a process has taken until it can be acknowledged.

A slice is taken, its rows are read, they leave the shuffle buffer in batches,
and each batch is trained. The rows of a slice may be spread over many batches
and a batch has rows of many slices. A slice may be acknowledged when it was
read to its end and the batch with its last row was trained.
"""

import collections

# One slice that was handed out. Each has another `lease`, even if a client gets
# the same slice twice; `generation` and `number` are those of the ledger;
# `piece` is the reader.Slice of `epoch`.
Work = collections.namedtuple('Work', 'lease generation number epoch piece')


class Bookkeeping:
  """The slices that one client has taken. The caller has to hold a lock."""

  def __init__(self):
    """Starts without slices."""
    self._leases = 0  # how many slices were ever taken
    self._held = {}  # lease: Work that is not acknowledged
    self._unsent = {}  # lease: number of rows that were read and not sent
    self._read = set()  # leases read to their end, with rows not yet sent
    self._ends = []  # (serial of the batch with the last row, Work)
    self._sent = self._trained = 0  # serials of the last batches

  def take(self, generation, number, epoch, piece):
    """Notes a slice as taken.

    Args:
      generation: int, of the ledger.
      number: int, of the slice in the run.
      epoch: int.
      piece: reader.Slice.

    Returns:
      Work.
    """
    self._leases += 1
    work = Work(self._leases, generation, number, epoch, piece)
    self._held[work.lease] = work
    self._unsent[work.lease] = 0
    return work

  def read_rows(self, lease, rows):
    """Notes that a number of rows of a slice were read."""
    self._unsent[lease] += rows

  def read_to_end(self, lease):
    """Notes that a slice has no more rows to read."""
    self._read.add(lease)
    self._close(lease)

  def send(self, serial, rows):
    """Notes that a batch goes to training.

    Args:
      serial: int, larger than that of any batch before.
      rows: dict of lease to the number of its rows in the batch.
    """
    self._sent = serial
    for lease, count in rows.items():
      self._unsent[lease] -= count
      self._close(lease)

  def train(self, serial):
    """Notes that a batch was trained, and all that were sent before it."""
    self._trained = max(self._trained, serial)

  def held(self):
    """Returns the Works that are taken and not acknowledged."""
    return list(self._held.values())

  def trained(self):
    """Returns the Works that can be acknowledged and are not yet."""
    return [work for serial, work in self._ends if serial <= self._trained]

  def acknowledge(self, works):
    """Notes Works as acknowledged, which ends their leases."""
    leases = {work.lease for work in works}
    self._ends = [end for end in self._ends if end[1].lease not in leases]
    for lease in leases:
      self._held.pop(lease, None)

  def _close(self, lease):
    """Notes in which batch a slice ends, once all of its rows are sent."""
    if lease in self._read and not self._unsent[lease]:
      self._ends.append((self._sent, self._held[lease]))
      self._read.remove(lease)
      del self._unsent[lease]


def by_generation(works):
  """Groups the numbers of Works.

  Args:
    works: list of Work.

  Returns:
    dict of generation to list of numbers.
  """
  numbers = {}
  for work in works:
    numbers.setdefault(work.generation, []).append(work.number)
  return numbers
