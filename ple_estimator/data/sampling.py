"""Leaves out a share of the rows of label 0, the same ones in each epoch.

He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD
2014, section 6.3: a model is trained on all rows of label 1 and a share w of
those of label 0, and its probability p is corrected to

  q = p / (p + (1 - p) / w)

Several tasks share the rows, and each has a w of its own. A row has one chance,
a number in [0, 1) that depends on its place in its file. A task whose label is
0 counts it if its chance is below w; a row that no task counts is not read on.
"""

import collections
import hashlib
import os

import numpy as np
import pyarrow as pa

from ple_estimator.data import packing
from ple_estimator.data.columns import targets

CHANCE = 'row_chance'  # the feature and column with the chance of each row

Rule = collections.namedtuple('Rule', 'label rate sample_space')
Rule.__doc__ = """Which rows a task counts.

Attributes:
  label: str, its label column; None where all rows of the space count.
  rate: float in (0, 1], the share of the rows of label 0 that count.
  sample_space: (column, value), or None.
"""


def sampled(tables, piece, rules):
  """Yields tables of the rows that count for any task, with their chance.

  Args:
    tables: iterable of pa.Table, the usable rows of a slice in their order.
    piece: reader.Slice, what they are of.
    rules: tuple of Rule, one per task; without any nothing is changed.
  """
  index = 0
  for table in tables:
    if rules:
      chance = chances(piece, index, table.num_rows)
      index += table.num_rows
      table = table.append_column(CHANCE, pa.array(chance)).filter(
          pa.array(_counts(table, chance, rules)))
    yield table


def chances(piece, index, count):
  """The chances of rows of a slice, [count] float32 in [0, 1).

  They depend on the name of the file without its folders, on where the slice
  starts and on the places of the rows in it, and on nothing else.

  Args:
    piece: reader.Slice.
    index: int, the place of the first row.
    count: int.
  """
  key = '%s %d %d' % (os.path.basename(piece.path), piece.group, piece.start)
  base = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], 'little')
  # splitmix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators",
  # OOPSLA 2014).
  with np.errstate(over='ignore'):
    x = np.uint64(base) + np.arange(
        index + 1, index + 1 + count, dtype=np.uint64) * np.uint64(
            0x9e3779b97f4a7c15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xbf58476d1ce4e5b9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94d049bb133111eb)
  x = x ^ (x >> np.uint64(31))
  return (x >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def _counts(table, chance, rules):
  """Which rows count for any task, a [rows] bool numpy array."""
  columns = {
      name: packing.one_chunk(table.column(name)) for rule in rules
      for name in (rule.label, (rule.sample_space or (None,))[0]) if name}
  found = np.zeros(table.num_rows, bool)
  for rule in rules:
    counts = np.ones(table.num_rows, bool)
    if rule.label:
      label = columns[rule.label].to_numpy()
      counts = (label != 0) | (chance < np.float32(rule.rate))
    if rule.sample_space:
      counts &= targets.inside(rule.sample_space, columns)
    found |= counts
  return found
