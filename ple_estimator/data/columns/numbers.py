"""Columns that are parsed as numbers; those that the network reads so."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import arrow_values
from ple_estimator.data.columns import base

# The largest size of a standardised number. From here on float32 cannot tell x
# from x + 1, so that one such input wipes out what all others contribute.
LARGEST_INPUT = 2.0**24


class Numeric(base.Column):
  """Base class of columns that are parsed as numbers."""

  arrow_type = pa.float32()
  dtype = tf.float32
  missing = float('nan')
  wants = 'a number, or text that is one'

  def _parse(self, array, default, is_bad):
    """Parses numbers to arrow_type.

    Args:
      array: pa.Array, text or numbers.
      default: what an empty field or NaN stands for; None refuses both.
      is_bad: function of a numpy array of values to a bool array.

    Returns:
      As `parse`.
    """
    values, bad = arrow_values.numbers(array, self.arrow_type)
    empty = values.is_null().to_numpy(zero_copy_only=False) & ~bad
    fill = 0 if default is None else default
    values = pc.fill_null(values, pa.scalar(fill, self.arrow_type))
    found = values.to_numpy()
    nan = np.isnan(found)
    if default is not None and nan.any():
      empty |= nan
      found = np.where(nan, found.dtype.type(default), found)
      values = pa.array(found)
    with np.errstate(invalid='ignore'):  # comparisons of NaN
      bad |= is_bad(found) & ~empty
    if default is None:
      bad |= empty
    return values, bad if bad.any() else None

  def bounds(self):
    """The least and the largest number that is taken, or None."""
    return None

  def problem(self, value):
    """As Column; says the bounds of a number that lies outside."""
    # Subclasses have bounds.  pylint: disable=unsubscriptable-object
    bounds, number = self.bounds(), _as_float(value)
    if bounds is None or number is None or not np.isfinite(number) or (
        bounds[0] <= number <= bounds[1]):
      return super().problem(value)
    return 'must be from %.7g to %.7g%s, got %r' % (
        bounds + (self._remedy, value))

  _remedy = ''


class Number(Numeric):
  """A number that the network reads as it is, or transformed.

  A number is refused if its standardised value, what the network reads, would
  be larger than 2^24 = 16,777,216 in size: from there on float32 cannot tell x
  from x + 1, so that one such input wipes out what all others contribute, and
  what is much larger overflows. `mean` and `std`, `log1p` or `clip` admit it.
  """

  _remedy = " ('mean' and 'std', 'log1p' or 'clip' admit others)"

  def __init__(self, name, log1p=False, mean=0.0, std=1.0, default=None,
               clip=None):
    """Checks the arguments; the input is (f(clipped x) - mean) / std.

    Args:
      name: str.
      log1p: bool, whether f is log(1 + x), which needs x > -1; else f(x) = x.
      mean: float, subtracted after log1p.
      std: float, positive, divided by.
      default: float, the x of an empty field and of NaN; None refuses both.
      clip: (low, high), numbers: a smaller x becomes low, a larger one high,
        and so do -inf and inf, which 1e39 is in float32. None clips nothing
        and refuses what is infinite or too large.
    """
    super().__init__(name)
    errors.check_bool('log1p', log1p)
    errors.check_number('mean', mean)
    errors.check_number('std', std, above=0)
    self._log1p = log1p
    self._mean = mean
    self._std = std
    self._least, self._most = _usable(log1p, mean, std)
    _check_clip(clip, self._least, self._most)
    self._clip = clip
    _check_default(default, *(clip or (self._least, self._most)))
    self._default = default

  def bounds(self):
    return (-np.inf, np.inf) if self._clip else (self._least, self._most)

  def parse(self, array):
    return self._parse(array, self._default, self._is_bad)

  def _is_bad(self, x):
    least, most = self.bounds()
    return ~((x >= least) & (x <= most))

  def requirement(self):
    above = self._log1p and not self._clip
    return 'be a number' + (' above -1' if above else '')

  def encode(self, values):
    """[batch] float32 -> [batch] float32.

    A served model cannot refuse a row: what a file may not have counts as
    missing. Where the column has no default, it becomes NaN, and so does the
    model's answer for this row, see Model.
    """
    default = np.float32(np.nan if self._default is None else self._default)
    least, most = self.bounds()
    usable = (values >= least) & (values <= most)  # not for NaN
    if self._clip:
      values = tf.clip_by_value(values, *map(float, self._clip))
    values = tf.where(usable, values, tf.fill(tf.shape(values), default))
    if self._log1p:
      values = tf.log1p(values)
    return (values - self._mean) / self._std


def _usable(log1p, mean, std):
  """The least and largest number that a Number can standardise, in float32."""
  most = float(np.finfo(np.float32).max)
  ends = mean + np.array([-1, 1]) * LARGEST_INPUT * std
  if log1p:
    with np.errstate(over='ignore'):
      ends = np.expm1(ends)
    ends[0] = max(ends[0], np.nextafter(np.float32(-1), np.float32(0)))
  return tuple(float(np.float32(end)) for end in np.clip(ends, -most, most))


def _check_clip(clip, least, most):
  """Raises UserError unless clip is None or bounds that can be standardised."""
  errors.check(
      clip is None or isinstance(clip, (list, tuple)) and len(clip) == 2 and
      all(map(_is_finite, clip)) and clip[0] < clip[1],
      'clip must be two numbers, the lower one first, such as (0, 100), got '
      '%s.', errors.written(clip))
  errors.check(
      clip is None or least <= clip[0] and clip[1] <= most,
      'clip must have numbers from %.7g to %.7g, got %r: log1p needs numbers '
      'above -1, and a standardised value is at most 2^24 in size.', least,
      most, clip)


def _check_default(value, least, most):
  """Raises UserError unless a default is None or a number in [least, most]."""
  errors.check_number('default', value, or_none=True)
  errors.check(value is None or least <= value <= most,
               'default must be from %.7g to %.7g, as the values of this '
               'column, got %r.', least, most, value)


def _is_finite(value):
  """Whether a binding holds a number, no bool, that float32 can hold."""
  return (errors.is_number(value) and not isinstance(value, bool) and
          abs(value) <= float(np.finfo(np.float32).max))


def _as_float(value):
  """Returns what a file has as a float, or None if it is no number."""
  try:
    return float(value)
  except (TypeError, ValueError, OverflowError):
    return None
