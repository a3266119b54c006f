"""Columns that training is told by: labels, and the weights of rows."""

import collections
import copy
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ple_estimator import errors
from ple_estimator.data import arrow_values
from ple_estimator.data.columns import base
from ple_estimator.data.columns import numbers

# The largest size of a label that is not one of fixed values, and of a weight.
# A square of it, summed over 10^8 rows, is still finite in float32.
LARGEST_TARGET = 1e15
# What may be an integer with blanks around it, such as b' -1'.
_INTEGER = re.compile(rb'\s*-?[0-9]+\s*\Z')

# Which rows a task takes a label of, and what it asks of them: sample_space is
# (column, value) or None, all rows; least is a float or None.
LabelUse = collections.namedtuple('LabelUse', 'sample_space least')


class Label(numbers.Numeric):
  """A label: the value that a task predicts.

  Without fixed values it is at most 10^15 in size, so that squared errors of
  many rows can be summed in float32.

  A label is NaN in a row that does not have it. That is allowed where no task
  needs it: outside of the sample spaces of all tasks of this label. Elsewhere
  such a row is a bad one.
  """

  def __init__(self, name, values=None, above=None):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      values: numbers, the only ones allowed, e.g. (0, 1) of a binary task; or
        a dict of what the file holds, texts, integers or booleans, to the
        numbers that these mean, e.g. {'<=50K': 0, '>50K': 1}. Texts are to be
        as the file has them, blanks included. True and False also stand for the
        texts true, True and TRUE, and so on. None allows every number.
      above: float: the label is 1 where the number in the file is greater than
        this, else 0; None takes the number itself.
    """
    super().__init__(name)
    errors.check_number('above', above, or_none=True)
    errors.check(above is None or values is None, "above must be None where "
                 "'values' are given, got %s.", errors.written(above))
    self._codes = None
    if isinstance(values, dict):
      self._codes = _codes(values)
      self._keys = list(values)
      values = tuple(sorted(set(values.values())))
      self.wants = 'text, a boolean, or a number that is whole'
    elif values is not None:
      errors.check_list('values', values, errors.is_number,
                        'numbers, such as (0, 1)')
    self.values = values if above is None else (0, 1)
    self._above = above
    self._may_lack, self._uses, self._is_stored = False, (), False

  def used_by(self, uses):
    """Returns the same column with the rows that tasks need it in.

    Args:
      uses: list of LabelUse; without any, all rows need it.
    """
    may_lack = bool(uses) and all(use.sample_space for use in uses)
    return self._with(_may_lack=may_lack, _uses=tuple(
        use for use in uses if may_lack or use.least is not None))

  def unneeded(self):
    """Returns the same column for rows that are only predicted."""
    return self._with(_uses=())

  def stored(self):
    """As Column: what the file holds, which `values` and `above` go by."""
    text = dict(arrow_type=base.Column.arrow_type, dtype=base.Column.dtype)
    return self._with(_uses=(), _may_lack=True, _is_stored=True,
                      **(text if self._codes else {}))

  def _with(self, **changes):
    column = copy.copy(self)
    vars(column).update(changes)
    return column

  def bounds(self):
    return None if self.values and self._above is None else (
        -LARGEST_TARGET, LARGEST_TARGET)

  def parse(self, array):
    if self._codes:
      held, found, bad = self._decoded(array)
    else:
      held, bad = self._parse(array, np.nan, self._is_bad)
      found = held.to_numpy()
      bad = np.zeros(len(found), bool) if bad is None else bad
      if self._above is not None:
        with np.errstate(invalid='ignore'):  # comparisons of NaN
          is_above = (found > np.float32(self._above)).astype(np.float32)
        found = np.where(np.isnan(found), found, is_above)
    if not self._may_lack:
      bad = bad | np.isnan(found)
    if not self._is_stored:
      held = pa.array(found)
    return held, bad if bad.any() else None

  def _decoded(self, array):
    """Looks up what a file holds in `values`.

    Returns:
      (texts, found, bad): pa.Array of binary, [rows] float32 and bool numpy
      arrays; numbers have NaN where nothing is held.
    """
    texts, bad = arrow_values.texts(array)
    texts = pc.fill_null(texts, b'')
    coded = texts.dictionary_encode()
    found = [self._code(text) for text in coded.dictionary.to_pylist()]
    places = coded.indices.to_numpy()
    unknown = np.array([number is None for number in found], bool)[places]
    return texts, np.array([np.nan if number is None else number
                            for number in found], np.float32)[places], (
                                bad | unknown)

  def _code(self, text):
    """The number of a text; NaN if it is empty, None if it is unknown."""
    number = self._codes.get(text, self._codes.get(text.strip())
                             if _INTEGER.match(text) else None)
    return np.nan if number is None and not text.strip() else number

  def _is_bad(self, x):
    if self.values is None or self._above is not None:
      return ~(np.abs(x) <= LARGEST_TARGET)
    return ~np.isin(x, np.asarray(self.values, np.float32))

  def requirement(self):
    if self._codes:
      return 'be one of %s' % ', '.join(map(repr, self._keys))
    if self.values is None or self._above is not None:
      return 'be a number'
    return 'be one of %s' % ', '.join(map(str, self.values))

  def unfit(self, columns):
    """As Column: rows that lack the label, or whose task cannot use it."""
    if not self._uses:
      return []
    labels, found = columns[self.name].to_numpy(), []
    for use in self._uses:
      counts, where = True, ''
      if use.sample_space:
        counts = inside(use.sample_space, columns)
        where = ' in the sample space %r' % (tuple(use.sample_space),)
      found.append((np.isnan(labels) & counts, 'must %s%s' % (
          self.requirement(), where)))
      if use.least is not None:
        with np.errstate(invalid='ignore'):  # comparisons of NaN
          found.append(((labels < np.float32(use.least)) & counts,
                        'must be %s%s for the loss of its task' % (
                            'above 0' if use.least else 'at least 0', where)))
    return found


class Weight(numbers.Numeric):
  """The weight of a row in losses and metrics, from 0 to 10^15."""

  def __init__(self, name, default=None):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      default: float, of an empty field and of NaN; None refuses both.
    """
    super().__init__(name)
    errors.check_number('default', default, least=0, most=LARGEST_TARGET,
                        or_none=True)
    self._default = default

  def bounds(self):
    return (0.0, LARGEST_TARGET)

  def parse(self, array):
    return self._parse(
        array, self._default, lambda x: ~((x >= 0) & (x <= LARGEST_TARGET)))

  def requirement(self):
    return 'be a number that is not negative'


def _codes(values):
  """Returns {bytes: number} of a dict that 'values' of a label is bound to."""
  errors.check(
      values and all(isinstance(key, (str, int)) for key in values) and
      all(errors.is_number(number) and abs(number) <= LARGEST_TARGET
          for number in values.values()), 'values must be a dict of texts, '
      "integers or booleans to numbers, such as {'no': 0, 'yes': 1}, got %s.",
      errors.written(values))
  codes = {}
  for key, number in values.items():
    word = str(key)
    for text in ([word.lower(), word, word.upper()] if isinstance(key, bool)
                 else [word]):
      errors.check(
          codes.setdefault(text.encode(), number) == number, 'values must have '
          'one number for %r, got %s.', text, errors.written(values))
  return codes


def inside(sample_space, columns):
  """Which rows are in a sample space, a [rows] bool numpy array.

  All rows count as inside if its column is not among those that are read here,
  as one that paths say (path_columns.py).
  """
  name, value = sample_space
  if name not in columns:
    return True
  array = columns[name]
  if pa.types.is_binary(array.type):
    return pc.equal(array, pa.scalar(str(value).encode(), pa.binary())
                    ).to_numpy(zero_copy_only=False)
  values = array.to_numpy()
  return values == np.asarray(value, values.dtype)
