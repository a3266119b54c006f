"""What a report consists of, before it is HTML or text."""

import collections
import math

Section = collections.namedtuple(
    'Section', 'title texts tables figures sections')
Section.__new__.__defaults__ = ((), (), (), ())
Section.__doc__ = """A part of a report.

Attributes:
  title: str.
  texts: list of str, paragraphs.
  tables: list of Table.
  figures: list of Figure.
  sections: list of Section, within it.
"""

Table = collections.namedtuple('Table', 'title header rows note')
Table.__new__.__defaults__ = ('',)
Table.__doc__ = """A table.

Attributes:
  title: str.
  header: list of str.
  rows: list of list of str, as long; the first is what the row is of.
  note: str, how to read it.
"""

Figure = collections.namedtuple(
    'Figure', 'name title note views table keys wide')
Figure.__new__.__defaults__ = ((), False)
Figure.__doc__ = """A figure of one or more views.

Attributes:
  name: str, of its file, without an ending.
  title: str.
  note: str, what it shows and how to read it.
  views: list of charts.View.
  table: Table, the same in numbers.
  keys: list of str, what the colors stand for, in the order of the palette;
    empty where each view says it itself.
  wide: bool, whether a view needs the whole width.
"""


def number(value, digits=4):
  """A number for a table: so many decimals; '–' if there is none.

  Args:
    value: float, or None.
    digits: int.
  """
  if value is None or math.isnan(value):
    return '–'
  if value and abs(value) < 10.0**-digits:
    return '%.1e' % value
  return '%.*f' % (digits, value)


def general(value):
  """A number of any size: four digits that count; '–' if there is none.

  Large numbers have all digits before the point.
  """
  if value is None or math.isnan(value):
    return '–'
  if abs(value) >= 1e4:
    return '{:,.0f}'.format(value)
  return '%.4g' % value


def with_interval(value, low, high, digits=4):
  """A number and its interval: '0.9182 (0.9150 to 0.9214)'."""
  if low is None or math.isnan(low):
    return number(value, digits)
  return '%s (%s to %s)' % tuple(
      number(of, digits) for of in (value, low, high))


def signed(value, digits=4):
  """A difference for a table, with its sign."""
  if value is None or math.isnan(value):
    return '–'
  return '%+.*f' % (digits, value)


def percent(share):
  """A share as '12.3 %'."""
  return '–' if share is None or math.isnan(share) else '%.1f %%' % (
      100 * share)


def p_value(p):
  """A p value for a table."""
  if math.isnan(p):
    return '–'
  return '< 0.0001' if p < 0.0001 else '%.4f' % p
