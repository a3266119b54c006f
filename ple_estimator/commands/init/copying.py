"""Writes rows to Parquet files, with each column as its kind reads it."""

import collections
import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ple_estimator import errors
from ple_estimator.commands import csv_to_parquet
from ple_estimator.commands.init import describing

_ROW_GROUP_SIZE = 50000


class Tally:
  """Counts rows and labels by part.

  Attributes:
    rows: collections.Counter of rows by part.
    left_out: int, rows without a label; `skipped` are those with another
      number of columns than the header.
  """

  def __init__(self, labels):
    """Starts at 0.

    Args:
      labels: list of labels.Label.
    """
    self._labels = labels
    self.rows = collections.Counter()
    self.left_out = self.skipped = 0
    self._positives = collections.Counter()

  def usable(self, texts):
    """Which rows have all labels, a [rows] bool array; counts the others."""
    found = np.ones(texts.num_rows, bool)
    for label in self._labels:
      targets = label.targets(texts.column(label.name).combine_chunks())
      found &= ~np.isnan(targets)
    self.left_out += int(np.sum(~found))
    return found

  def add(self, part, texts):
    """Counts rows of a part, a pa.Table of string columns."""
    self.rows[part] += texts.num_rows
    for label in self._labels:
      if label.is_binary:
        targets = label.targets(texts.column(label.name).combine_chunks())
        self._positives[part, label.name] += int(np.sum(targets == 1))

  def least_class(self, part, label):
    """The number of rows of a part with the rarer value of a binary label."""
    positives = self._positives[part, label.name]
    return min(positives, self.rows[part] - positives)


def copy(pieces, folder, cut, choices, described, tally):
  """Writes the parts of some rows.

  Args:
    pieces: iterable of rows.Piece.
    folder: str, which exists.
    cut: splitting.Cut.
    choices: list of choosing.Choice, the columns to write.
    described: dict of name to describing.Description.
    tally: Tally, which is told of what is written.

  Returns:
    list of str, the files.

  Raises:
    UserError: if a number cannot be read, or a part has no row. Then nothing
      is left behind.
  """
  outputs, done = collections.OrderedDict(), False
  try:
    for piece in pieces:
      usable = tally.usable(piece.text)
      parts = cut.choose(piece.text)
      table = storable(piece, choices, described)
      for i, name in enumerate(cut.parts):
        here = pa.array(usable & (parts == i))
        if name not in outputs:
          outputs[name] = csv_to_parquet.Output(
              os.path.join(folder, name + '.parquet'), table.schema,
              _ROW_GROUP_SIZE)
        outputs[name].write(table.filter(here))
        tally.add(name, piece.text.filter(here))
    empty = [name for name in cut.parts if not tally.rows[name]]
    errors.check(not empty, 'There are no %s rows: more rows are needed, or '
                 'another file for them.', ' and no '.join(empty))
    done = True
  finally:
    for output in outputs.values():
      output.close(keep=done)
  return [os.path.join(folder, name + '.parquet') for name in outputs]


def storable(piece, choices, described):
  """The columns of a table as they are written.

  Args:
    piece: rows.Piece.
    choices: list of choosing.Choice.
    described: dict of name to describing.Description.

  Returns:
    pa.Table. What is text in the file becomes a number where its kind is one,
    and null where it is a word for a missing value.
  """
  arrays = collections.OrderedDict()
  for choice in choices:
    stored = piece.stored.column(choice.name).combine_chunks()
    if pa.types.is_dictionary(stored.type):
      stored = stored.dictionary_decode()
    if pa.types.is_string(stored.type) or pa.types.is_large_string(stored.type):
      stored = _typed(piece.text.column(choice.name).combine_chunks(), choice,
                      described[choice.name])
    arrays[choice.name] = stored
  return pa.table(arrays)


def _typed(texts, choice, found):
  nulls = found.null_words()
  if nulls:
    texts = pc.if_else(pc.is_in(texts, pa.array(nulls)),
                       pa.scalar(None, pa.string()), texts)
  if choice.stored != 'number':
    return texts
  try:
    numbers = describing.from_commas(texts) if found.commas else (
        describing.as_numbers(texts))
  except pa.ArrowInvalid as error:
    raise errors.UserError(
        'Column %r is of numbers in the training rows, but not in all others: '
        '%s.' % (choice.name, ' '.join(str(error).split())))
  return pa.array(numbers, pa.float64(), mask=np.isnan(numbers))
