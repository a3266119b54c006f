"""Cuts rows into train, validation and test rows."""

import collections

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ple_estimator import errors
from ple_estimator.commands import csv_to_parquet
from ple_estimator.commands.init import dates

PARTS = ('train', 'validation', 'test')
_SEED = 2021
_HELD_OUT = 0.1  # of the rows for each of validation and test


class Cut:
  """Says which part each row of the training files belongs to.

  Attributes:
    by: 'user', 'time' or 'random'; None if nothing is cut.
    column: str, of by 'user' and 'time'.
    parts: tuple of the parts that the training files are cut into.
  """

  def __init__(self, by, column, parts, times=None):
    """Settles the cut.

    Args:
      by: as the attribute.
      column: as the attribute.
      parts: as the attribute, ('train',) cuts nothing.
      times: collections.Counter of the texts of the column, of by 'time'.

    Raises:
      UserError: if the column is no time, or has too few different ones.
    """
    self.by = by if len(parts) > 1 else None
    self.column = column
    self.parts = parts
    self._rng = np.random.RandomState(_SEED)
    if self.by == 'time':
      self._part_of = _by_time(column, times, len(parts))

  def choose(self, texts):
    """The part of each row.

    Args:
      texts: pa.Table of string columns.

    Returns:
      [rows] int array, places in `parts`.
    """
    count = len(self.parts)
    if self.by is None:
      return np.zeros(texts.num_rows, int)
    if self.by == 'time':
      values = texts.column(self.column).to_pylist()
      return np.array([self._part_of[value] for value in values])
    chance = self._rng.random_sample(
        texts.num_rows) if self.by == 'random' else csv_to_parquet.hashes(
            pc.fill_null(texts.column(self.column).combine_chunks(), '').cast(
                pa.binary()))
    held_out = (_HELD_OUT * np.arange(count - 1, -1, -1))[:-1]
    # Below 0.1 test, below 0.2 validation, for three parts.
    return np.sum([chance < share for share in held_out], axis=0)

  def described(self):
    """What was done, for comments and messages."""
    held = '%d %% of ' % round(100 * _HELD_OUT)
    names = ' and '.join(self.parts[1:])
    each = ' each' if len(self.parts) > 2 else ''
    if self.by == 'user':
      return ('cut by a hash of %s: %sits values%s are for %s, so that all '
              'rows of one value are in one part' % (
                  self.column, held, each, names))
    if self.by == 'time':
      return 'cut by %s: the last %sthe rows%s are for %s' % (
          self.column, held, each, names)
    return 'cut at random (seed %d): %sthe rows%s are for %s' % (
        _SEED, held, each, names)


def _by_time(column, times, count):
  """Returns a dict of text to part: the latest are for the last part."""
  texts = sorted(text for text in times if text is not None)
  form = dates.form(texts)
  order = dates.numbers(texts, form)
  bad = [text for text, number in zip(texts, order) if np.isnan(number)]
  errors.check(
      texts and not bad, '--time must be a column of numbers or of days and '
      'times in one format, such as 2024-01-31 07:00; %s has %r.', column,
      bad[0] if bad else None)
  at = np.argsort(order, kind='stable')
  rows = np.array([times[texts[i]] for i in at], float)
  before = (np.cumsum(rows) - rows / 2) / rows.sum()
  ends = 1 - _HELD_OUT * np.arange(count - 1, 0, -1)
  found = collections.defaultdict(int)  # rows without a time are trained on
  # Times that are equal, however they are written, are in one part.
  first = {}
  for i, share in zip(at, before):
    part = first.setdefault(order[i], int(np.sum(share >= ends)))
    found[texts[i]] = part
  errors.check(len(set(found.values())) == count, '--time %s must have more '
               'different values to cut the rows by, got %d.', column,
               len(texts))
  return found
