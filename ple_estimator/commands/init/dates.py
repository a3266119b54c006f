"""Days and times that are written as text or as seconds."""

import datetime
import re

import numpy as np

LOOKS = r'^\d{1,4}[-./]\d{1,2}[-./]\d{1,4}([T ]\d{1,2}:\d{2}.*)?$'
_DAYS = ('%Y-%m-%d', '%Y/%m/%d', '%d.%m.%Y', '%m/%d/%Y', '%d/%m/%Y', '%d-%m-%Y',
         '%Y.%m.%d', '%m/%d/%y', '%d.%m.%y')
_TIMES = ('', ' %H:%M', ' %H:%M:%S', ' %H:%M:%S.%f')
_FORMATS = [day + time for day in _DAYS for time in _TIMES]
_EPOCH = datetime.datetime(1970, 1, 1)
# Whole numbers that are seconds or milliseconds from 1989 to 2036.
_SECONDS = (6e8, 2.1e9)


def form(texts):
  """The format, as strptime has it, that all of some texts have.

  Args:
    texts: list of str.

  Returns:
    str, or None if they are no days or times. Where month and day cannot be
    told apart, that of '%m/%d/%Y'.
  """
  if not texts or not re.match(LOOKS, texts[0]):
    return None
  for candidate in _FORMATS:
    if all(_parsed(text, candidate) is not None for text in texts):
      return candidate
  return None


def are_seconds(low, high):
  """Whether numbers between two bounds can be times since 1970."""
  return any(_SECONDS[0] <= low / unit and high / unit <= _SECONDS[1]
             for unit in (1, 1000))


def numbers(texts, candidate):
  """Numbers in whose order the times are.

  Args:
    texts: list of str or None.
    candidate: str, a format, or None if the texts are numbers.

  Returns:
    [texts] float64 numpy array, seconds since 1970, or the numbers; NaN of
    None and of what is not of the format.
  """
  return np.array([np.nan if text is None else _number(text, candidate)
                   for text in texts], np.float64)


def _number(text, candidate):
  if candidate is None:
    try:
      return float(text)
    except ValueError:
      return np.nan
  found = _parsed(text, candidate)
  return np.nan if found is None else (found - _EPOCH).total_seconds()


def _parsed(text, candidate):
  """The datetime of a text, whose time zone is left out; None if it has none.
  """
  text = re.sub(r'(Z|[+-]\d\d:?\d\d)$', '', text.strip().replace('T', ' ', 1)
                ) if len(text) > 10 else text.strip()
  # strptime knows microseconds at most.
  text = re.sub(r'(\.\d{6})\d+$', r'\1', text)
  try:
    return datetime.datetime.strptime(text, candidate)
  except ValueError:
    return None
