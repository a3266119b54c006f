"""Columns that training is told by: labels, and the weights of rows."""

import numpy as np

from ple_estimator import errors
from ple_estimator.data.columns import numbers

# The largest size of a label that is not one of fixed values, and of a weight.
# A square of it, summed over 10^8 rows, is still finite in float32.
LARGEST_TARGET = 1e15


class Label(numbers.Numeric):
  """A label: the value that a task predicts.

  Without fixed values it is at most 10^15 in size, so that squared errors of
  many rows can be summed in float32.
  """

  def __init__(self, name, values=None):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      values: numbers, the only ones allowed, e.g. (0, 1) of a binary task;
        None allows every number.
    """
    super().__init__(name)
    if values is not None:
      errors.check_list('values', values, errors.is_number,
                        'numbers, such as (0, 1)')
    self.values = values

  def bounds(self):
    return None if self.values else (-LARGEST_TARGET, LARGEST_TARGET)

  def parse(self, array):
    return self._parse(array, None, self._is_bad)

  def _is_bad(self, x):
    if self.values is None:
      return ~(np.abs(x) <= LARGEST_TARGET)
    return ~np.isin(x, np.asarray(self.values, np.float32))

  def requirement(self):
    if self.values is None:
      return 'be a number'
    return 'be one of %s' % ', '.join(map(str, self.values))


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
