"""The slices of a run, their order in each epoch, and how far the run is."""

import hashlib
import json
import os

import numpy as np

from ple_estimator import files
from ple_estimator.cluster.work_queue import ledger
from ple_estimator.storage import sources
from ple_estimator.storage import uris

_STATE_KEYS = {'files': str, 'epoch': int, 'acknowledged': list}


class Plan:
  """All slices of all epochs, in the order in which they are handed out.

  The number of a slice is epoch * slices + its place in the order of the epoch.

  Attributes:
    epochs: int.
    digest: int, a hash of slices and order, on which all processes must agree.
  """

  def __init__(self, slices, epochs, seed, shuffle):
    """Stores the slices and computes their digest.

    Args:
      slices: list of reader.Slice.
      epochs: int.
      seed: int.
      shuffle: bool, whether every epoch has an order of its own; if not, the
        order is that of `slices`.
    """
    self._slices = slices
    self.epochs = epochs
    self._seed = seed
    self._shuffle = shuffle
    # Only the names of the files count: their folder may have another path on
    # another machine or in a later run.
    self._files = _md5([(
        os.path.basename(uris.name(piece.path)),
        sources.size(piece.path)) + piece[1:] for piece in slices])
    self.digest = int(_md5([self._files, seed, shuffle])[:15], 16)

  def __len__(self):
    return len(self._slices)

  def order(self, epoch):
    """[slices] int64, the index of the slice at each place of an epoch."""
    if not self._shuffle:
      return np.arange(len(self))
    return np.random.RandomState(
        [self._seed % 2**32, int(epoch)]).permutation(len(self))

  def find(self, number):
    """Returns the epoch and the reader.Slice of a number."""
    epoch, place = divmod(number, len(self))
    return epoch, self._slices[self.order(epoch)[place]]

  def progress(self, epoch, owner):
    """Computes how much of the run is acknowledged.

    Args:
      epoch: int, the first epoch of the ledger's window.
      owner: [2 slices] int64, of the ledger.

    Returns:
      (int, float): the number of epochs that are complete, and the fraction of
      all slices of all epochs that is acknowledged.
    """
    done = int(epoch) * len(self) + int(np.sum(owner == ledger.DONE))
    return int(epoch), min(1.0, done / (self.epochs * len(self)))

  def state(self, epoch, owner):
    """Converts the contents of the ledger to those of a state file.

    Args:
      epoch: int, the first epoch of the ledger's window.
      owner: [2 slices] int64, of the ledger.

    Returns:
      dict that JSON can hold.
    """
    halves = np.reshape(owner, [2, len(self)]) == ledger.DONE
    return {'files': self._files, 'slices': len(self), 'epoch': int(epoch),
            'acknowledged': [sorted(self.order(epoch + i)[half].tolist())
                             for i, half in enumerate(halves)]}

  def load(self, path):
    """Converts a state file to the contents of the ledger.

    Args:
      path: str, of a state file; None starts from the beginning, and so does a
        file that is missing or was written for other data.

    Returns:
      (epoch, owner, text): as `state` takes them, and a description for the
      log.
    """
    owner = np.full(2 * len(self), ledger.FREE, np.int64)
    text = '%d slices, %d epochs' % (len(self), self.epochs)
    if path is None:
      return 0, owner, 'begins: ' + text
    state = files.read_json(path, keys=_STATE_KEYS)
    if state is None or not _fits(state):
      return 0, owner, (
          'begins afresh, %s: the checkpoint has no state that can be read '
          '(%s)' % (text, path))
    if state['files'] != self._files:
      return 0, owner, ('begins afresh, %s: the files have changed since %s '
                        'was written, or their slices' % (text, path))
    epoch = state['epoch']
    for i, slices in enumerate(state['acknowledged']):
      half = owner[i * len(self):][:len(self)]
      half[np.isin(self.order(epoch + i), slices)] = ledger.DONE
    return epoch, owner, 'goes on: %s, %.1f %% done' % (
        text, 100 * self.progress(epoch, owner)[1])


def _fits(state):
  """Whether a state has the form that `Plan.state` gives it."""
  halves = state['acknowledged']
  return state['epoch'] >= 0 and len(halves) == 2 and all(
      isinstance(half, list) and all(type(x) is int for x in half)
      for half in halves)


def _md5(value):
  return hashlib.md5(json.dumps(value).encode()).hexdigest()
