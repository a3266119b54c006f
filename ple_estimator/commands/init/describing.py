"""Describes a column: what its values are, in all rows that are read."""

import collections

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ple_estimator.commands.init import dates
from ple_estimator.commands.init import distinct
from ple_estimator.commands.init import lists

# Words that programs write for a missing value. Those of the second line are
# values of their own in some columns ("NA" is Namibia), so that they count as
# missing only where all else is a number or a date.
NULL_WORDS = ('NULL', 'null', '\\N', 'NaN', 'nan', '#N/A', '<NA>', 'N/A', 'n/a',
              '?')
NULL_WORDS_OF_NUMBERS = ('NA', 'na', 'None', 'none', '-', '.', '--')
_NUMBER = r'^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$'
_COMMA = r'^[+-]?(\d{1,3}(\.\d{3})+|\d+),\d+$'  # 1.234,5 or 0,5
_WHOLE = r'^[+-]?\d+(\.0*)?$'
_ZEROS_LED = r'^0\d+$'
_KEPT_VALUES = 1000
_SAMPLE_ROWS = 200000


class Description:
  """What the values of one column are.

  Attributes:
    name: str.
    rows: int.
    words: collections.Counter of the words for missing values.
    counts: collections.Counter of values, missing ones left out; None if there
      are more than 1,000 different ones.
    numbers: int, rows with a number; with a decimal comma they are in `commas`
      instead. `wholes` of them are whole.
    dates: int, rows that look like a day or time.
    zeros_led: int, rows with digits that start with 0, such as 007.
    vectors: lists.Vectors.
    weighted: lists.Weighted.
    low: float, the smallest number; `high` is the largest.
    sample: list of str, values of rows that lie at equal distances, missing
      ones left out; all rows if there are few. Set by Describer.finish.
  """

  def __init__(self, name):
    self.name = name
    self.rows = self._empty = 0
    self.words = collections.Counter()
    self.counts = collections.Counter()
    self.numbers = self.wholes = self.commas = self.dates = 0
    self.zeros_led = 0
    self.low, self.high = np.inf, -np.inf
    self.sample = []
    self.vectors, self.weighted = lists.Vectors(), lists.Weighted()
    self._distinct = distinct.Counter()

  def add(self, column, stored=None):
    """Adds rows.

    Args:
      column: pa.Array of string, null where empty.
      stored: pa.Array, what a file of Parquet has in these rows; None of CSV.
    """
    self.rows += len(column)
    self._empty += column.null_count
    found = pc.value_counts(column.drop_null())
    values, counts = found.field(0), found.field(1).to_numpy()
    words = pc.is_in(values, pa.array(NULL_WORDS + NULL_WORDS_OF_NUMBERS))
    words = words.to_numpy(zero_copy_only=False)
    for i in np.flatnonzero(words).tolist():
      self.words[values[i].as_py()] += int(counts[i])
    values, counts = values.filter(pa.array(~words)), counts[~words]
    texts = values.to_pylist()
    self._distinct.add([text.encode() for text in texts])
    if self.counts is not None:
      for text, count in zip(texts, counts.tolist()):
        self.counts[text] += count
      if len(self.counts) > _KEPT_VALUES:
        self.counts = None
    self._add_forms(values, counts)
    is_map = stored is not None and lists.is_map(stored.type)
    self.vectors.add(values, stored if stored is not None and not is_map and
                     pa.types.is_nested(stored.type) else None)
    self.weighted.add(values, is_map)

  def _add_forms(self, values, counts):
    def rows_of(pattern):
      matches = pc.match_substring_regex(values, pattern).to_numpy(
          zero_copy_only=False)
      return matches, int(counts[matches].sum())

    numbers, count = rows_of(_NUMBER)
    self.numbers += count
    commas, count = rows_of(_COMMA)
    self.commas += count
    for matches, of in [(numbers, as_numbers), (commas, from_commas)]:
      if matches.any():
        found = of(values.filter(pa.array(matches)))
        self.low = min(self.low, float(found.min()))
        self.high = max(self.high, float(found.max()))
    self.wholes += rows_of(_WHOLE)[1]
    self.zeros_led += rows_of(_ZEROS_LED)[1]
    self.dates += rows_of(dates.LOOKS)[1]

  def null_words(self):
    """The words that count as missing in this column, a sorted list."""
    others = self.rows - self._empty - sum(self.words.values())
    special = others and others in (
        self.numbers + self.commas, self.dates)
    return sorted(word for word in self.words
                  if word in NULL_WORDS or special)

  def filled(self):
    """The number of rows with a value."""
    return self.rows - self._empty - sum(
        self.words[word] for word in self.null_words())

  def empty_share(self):
    """The share of rows without a value, a float."""
    return 1 - self.filled() / self.rows if self.rows else 1.0

  def distinct(self):
    """The number of different values, an int, see distinct.Counter."""
    count = self._distinct.count() + len(
        set(self.words) - set(self.null_words()))
    return min(count, self.filled())

  def is_exact(self):
    """Whether `distinct` is no estimate."""
    return self._distinct.exact

  def values(self):
    """Counter of all values, or None if there are more than 1,000."""
    if self.counts is None:
      return None
    nulls = self.null_words()
    return self.counts + collections.Counter(
        {w: n for w, n in self.words.items() if w not in nulls})

  def is_number(self):
    """Whether all values are numbers, some with a decimal comma or none."""
    return 0 < self.filled() == self.numbers + self.commas

  def is_whole(self):
    """Whether all values are whole numbers."""
    return 0 < self.filled() == self.wholes

  def sample_numbers(self):
    """The numbers of the sample, a float64 array."""
    texts = pa.array(self.sample, pa.string())
    if not len(texts):
      return np.array([], np.float64)
    return from_commas(texts) if self.commas else as_numbers(texts)


class Describer:
  """Describes all columns of the rows that it is shown."""

  def __init__(self, names):
    """Starts without rows.

    Args:
      names: list of str.
    """
    self._found = collections.OrderedDict(
        (name, Description(name)) for name in names)
    self._kept, self._stride, self._seen = [], 1, 0

  def add(self, table, stored=None):
    """Adds rows.

    Args:
      table: pa.Table of string columns.
      stored: pa.Table, the same rows as the file has them; or None.
    """
    for name, found in self._found.items():
      found.add(table.column(name).combine_chunks(),
                stored and stored.column(name).combine_chunks())
    first = -self._seen % self._stride
    at = np.arange(first, table.num_rows, self._stride)
    self._kept.append(table.take(pa.array(at)))
    self._seen += table.num_rows
    while sum(kept.num_rows for kept in self._kept) > _SAMPLE_ROWS:
      whole = pa.concat_tables(self._kept)
      self._kept = [whole.take(pa.array(np.arange(0, whole.num_rows, 2)))]
      self._stride *= 2

  def finish(self):
    """Returns an OrderedDict of name to Description."""
    whole = pa.concat_tables(self._kept) if self._kept else None
    for name, found in self._found.items():
      nulls = set(found.null_words())
      found.sample = [] if whole is None else [
          text for text in whole.column(name).to_pylist()
          if text is not None and text not in nulls]
    return self._found


def as_numbers(texts):
  """Numbers of text, a float64 array; `texts` is a pa.Array of string."""
  # Arrow takes no plus sign.
  return pc.utf8_ltrim(texts, '+').cast(pa.float64()).to_numpy(
      zero_copy_only=False)


def from_commas(texts):
  """Numbers of text with a decimal comma: 1.234,5 is 1234.5, and 3 is 3.

  Args:
    texts: pa.Array of string.

  Returns:
    [texts] float64 array.
  """
  has_comma = pc.match_substring(texts, ',')
  without = pc.replace_substring(
      pc.replace_substring(texts, '.', ''), ',', '.')
  return as_numbers(pc.if_else(has_comma, without, texts))


def from_commas_text(text):
  """The digits of one number with a decimal comma, with a point instead."""
  return text.replace('.', '').replace(',', '.') if ',' in text else text
