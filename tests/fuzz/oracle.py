"""What a value of a file means for each kind of column, one value at a time.

Written from the documentation and not from the package: plain Python on what
`to_pylist` of Arrow or a parse of bytes by hand gives.
"""

import decimal
import re

import numpy as np

BAD = 'bad value'  # a str, which no column has: text is bytes
_NUMBER = re.compile(
    br'[+-]?(\d+\.?\d*(e[+-]?\d+)?|\.\d+(e[+-]?\d+)?|inf|infinity|nan)$', re.I)
_INTEGER = re.compile(br'[+-]?\d+$')


def value_of(column, value):
  """What a reader must make of a value.

  Args:
    column: dict, as FeatureSpec.columns has it.
    value: None, bytes, str, bool, int, float, Decimal or a list of these.

  Returns:
    bytes, int, np.float32 or a list of these, or BAD.
  """
  if isinstance(value, str):
    value = value.encode()
  kind = column['kind']
  if kind == 'hashed_list':
    return _list(value)
  if kind in ('hashed', 'vocabulary'):
    return _text(value)
  if kind == 'vector':
    return _vector(column, value)
  if kind == 'bucketised':
    number = _number(value)
    return np.float32(column.get('default', 'nan')) if number is None else (
        number)
  if kind == 'integer':
    number = _integer(value)
    if number is None:
      return -1
    return number if number is not BAD and (
        0 <= number < column['num_buckets']) else BAD
  return _of_number(column, _number(value))


def _text(value):
  if value is None or isinstance(value, float) and np.isnan(value):
    return b''
  if isinstance(value, bytes):
    return value
  if isinstance(value, bool):
    return b'true' if value else b'false'
  if isinstance(value, float):
    fits = abs(value) <= 2**53 and value == int(value)
    return b'%d' % int(value) if fits else BAD
  if isinstance(value, decimal.Decimal):
    return b'%d' % int(value) if value == int(value) else BAD
  return b'%d' % value


def _list(value):
  if not isinstance(value, list):
    return _text(value)
  items = [_text(item.encode() if isinstance(item, str) else item)
           for item in value]
  if any(item is BAD or b'|' in item for item in items):
    return BAD
  return b'|'.join(items)


def _vector(column, value):
  """A list of np.float32, or BAD."""
  if value is None or value == b'':
    value = [None] * column['width']
  if isinstance(value, bytes):
    value = value.split(b'|')
  if len(value) != column['width']:
    return BAD
  items = [_of_number(column, _number(
      item.encode() if isinstance(item, str) else item)) for item in value]
  return BAD if any(item is BAD for item in items) else items


def _integer(value):
  """An int, None if it is missing, or BAD."""
  if isinstance(value, bool):
    return int(value)
  text = _text(value)
  if text is BAD:
    return BAD
  text = text.strip(b' \t\n\r\x0b\x0c')
  if not text:
    return None
  return int(text) if _INTEGER.match(text) else BAD


def _number(value):
  """A np.float32, None if it is missing, or BAD."""
  if isinstance(value, bytes):
    value = value.strip(b' \t\n\r\x0b\x0c')
    if value and not _NUMBER.match(value):
      return BAD
    value = float(value) if value else None
  if value is None or value != value:
    return None
  with np.errstate(over='ignore'):
    return np.float32(float(value))


def _of_number(column, number):
  """Applies the default and the bounds of a number, label or weight."""
  if number is BAD:
    return BAD
  if number is None:
    default = column.get('default')
    return BAD if default is None else np.float32(default)
  if column.get('values'):
    fits = float(number) in column['values']
  elif column['kind'] == 'label':
    fits = abs(float(number)) <= 1e15
  elif column['kind'] == 'weight':
    fits = 0 <= float(number) <= 1e15
  else:
    fits = 'clip' in column or abs(float(number)) <= 2**24
  return number if fits else BAD


def same(found, expected):
  """Whether two values are equal; a float may be off by its last bit."""
  if isinstance(expected, list):
    return len(found) == len(expected) and all(map(same, found, expected))
  if isinstance(expected, np.floating):
    if np.isnan(expected):
      return bool(np.isnan(found))
    if np.isinf(expected) or np.isinf(found):
      return float(found) == float(expected)
    return abs(float(found) - float(expected)) <= np.spacing(abs(expected))
  return type(found) is type(expected) and found == expected


def first_difference(found, expected):
  """Returns None if rows are equal, or a str that says where they are not.

  Args:
    found: list of tuples.
    expected: the same.
  """
  for i, (row, right) in enumerate(zip(found, expected)):
    if len(row) != len(right) or not all(map(same, row, right)):
      return 'row %d of the result is %r and must be %r' % (i, row, right)
  if len(found) != len(expected):
    return 'there are %d rows and must be %d' % (len(found), len(expected))
  return None
