"""Turns Arrow arrays of any type that files have into text or numbers.

A CSV file has text alone, and its meaning does not depend on the rows beside
it. A Parquet file has types; a value means here what its text would mean in a
CSV file:

  integer, decimal   its digits; a decimal whose fraction is zero is whole
  float              as a category: the digits of a whole number of at most
                     2^53, up to which all whole numbers are exact; NaN is
                     missing, as pandas writes a missing integer
  boolean            as a number 0 or 1, as a category 'true' or 'false'
  null               a missing value
  dictionary         the values that it stands for
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_EXACT = 2**53  # up to which a double holds every whole number


def is_text(arrow_type):
  """Whether an array of this type is text, or has nothing but nulls."""
  return (pa.types.is_string(arrow_type) or pa.types.is_binary(arrow_type) or
          pa.types.is_large_string(arrow_type) or
          pa.types.is_large_binary(arrow_type) or
          pa.types.is_fixed_size_binary(arrow_type) or
          pa.types.is_null(arrow_type))


def is_value(arrow_type):
  """Whether `texts` and `numbers` take an array of this type."""
  arrow_type = _plain(arrow_type)
  return (is_text(arrow_type) or pa.types.is_integer(arrow_type) or
          pa.types.is_floating(arrow_type) or pa.types.is_decimal(arrow_type) or
          pa.types.is_boolean(arrow_type))


def is_list(arrow_type):
  """Whether an array of this type has lists."""
  return pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type)


def texts(array):
  """Returns values as text.

  Args:
    array: pa.Array of a type that `is_value` takes.

  Returns:
    (texts, bad): pa.Array of binary, null where missing or bad, and a [rows]
    bool numpy array that is true where the value is no text, such as 0.5.
  """
  array = _decoded(array)
  bad = np.zeros(len(array), bool)
  if pa.types.is_floating(array.type):
    array, bad = _whole(array)
  elif pa.types.is_decimal(array.type):
    # Arrow writes a decimal below 10^-6 with an exponent: zero is 0E-10, or
    # 0.E-10 in old versions, if the type has ten digits behind the point.
    digits = pc.replace_substring_regex(
        array.cast(pa.string()), r'^(0)\.?E.*|\.0+$', r'\1')
    bad = _true(pc.match_substring_regex(digits, '[.E]'))
    array = _without(digits, bad)
  if not is_text(array.type):
    array = array.cast(pa.string())
  return array.cast(pa.binary()), bad


def numbers(array, arrow_type):
  """Returns values as numbers.

  Args:
    array: pa.Array of a type that `is_value` takes.
    arrow_type: pa.DataType, int64 or float32.

  Returns:
    (values, bad): pa.Array with null where the value was missing or unreadable,
    and a [rows] bool numpy array that is true where it was unreadable. A float
    may be NaN or infinite.
  """
  array = _decoded(array)
  whole = pa.types.is_integer(arrow_type)
  if whole and pa.types.is_floating(array.type):
    return _whole(array)
  bad = np.zeros(len(array), bool)
  if whole and pa.types.is_decimal(array.type):
    array, bad = texts(array)
  if not is_text(array.type):
    # What an int64 cannot hold becomes negative, which no id is.
    return array.cast(arrow_type, safe=False), bad
  values, unreadable = _parsed(array, arrow_type)
  return values, bad | unreadable


def as_text(array):
  """Writes numbers as text.

  Args:
    array: pa.Array of a type that `is_value` takes.

  Returns:
    (texts, bad): pa.Array of binary, empty where there is no number, and bad as
    `numbers` has it for float32.
  """
  values, bad = numbers(array, pa.float32())
  return pc.fill_null(values.cast(pa.string()), '').cast(pa.binary()), bad


def splits(array):
  """Where the lists of an array begin and end among its flattened items.

  Args:
    array: pa.Array of lists; null has no items.

  Returns:
    [rows + 1] int32 numpy array.
  """
  lengths = pc.list_value_length(array).fill_null(0).to_numpy()
  return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def any_in(found, begins):
  """Which lists have an item of which something is true.

  Args:
    found: [items] bool numpy array.
    begins: [rows + 1] int, the splits of the lists.

  Returns:
    [rows] bool numpy array.
  """
  counts = np.concatenate([[0], np.cumsum(found)])
  return counts[begins[1:]] > counts[begins[:-1]]


def _plain(arrow_type):
  """The value type of a dictionary-encoded type."""
  if pa.types.is_dictionary(arrow_type):
    return arrow_type.value_type
  return arrow_type


def _decoded(array):
  """Returns an array without dictionary, and floats of 32 or 64 bits."""
  if pa.types.is_dictionary(array.type):
    array = array.dictionary_decode()
  if pa.types.is_fixed_size_binary(array.type):
    return array.cast(pa.binary())
  if pa.types.is_float16(array.type):  # Not every pyarrow can cast it.
    return pa.array([None if x is None else float(x)
                     for x in array.to_pylist()], pa.float32())
  return array


def _whole(array):
  """Returns floats as int64, as `numbers` does."""
  values = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
  missing = np.isnan(values)  # null has become NaN
  with np.errstate(invalid='ignore'):  # comparisons of NaN
    bad = ~missing & ~((np.abs(values) <= _EXACT) &
                       (np.floor(values) == values))
  none = missing | bad
  return pa.array(np.where(none, 0, values).astype(np.int64), mask=none), bad


def _parsed(array, arrow_type):
  """Reads text as numbers, as `numbers` does."""
  try:
    text = pc.ascii_trim_whitespace(array.cast(pa.string()))
    if not _is_odd(text):
      text = pc.if_else(pc.equal(text, ''), pa.scalar(None, pa.string()), text)
      return text.cast(arrow_type), np.zeros(len(array), bool)
  except pa.ArrowInvalid:  # Some row is bad: look for it one by one.
    pass
  return _parsed_one_by_one(array, arrow_type)


def _is_odd(text):
  """Whether text may have what Arrow reads and Python does not.

  That is 0x10 and nan(1). What the rows beside it are must make no difference.
  """
  data = text.buffers()[2]
  data = data.to_pybytes() if data else b''
  return b'x' in data or b'X' in data or b'(' in data


def _parsed_one_by_one(array, arrow_type):
  """Reads text as Python does, as `numbers` does."""
  bad, found = np.zeros(len(array), bool), []
  read = _integer if pa.types.is_integer(arrow_type) else float
  for i, field in enumerate(array.cast(pa.binary()).to_pylist()):
    field = (field or b'').strip()
    try:
      found.append(read(field) if field else None)
      bad[i] = b'_' in field  # which Python takes and Arrow does not
    except ValueError:
      found.append(None)
      bad[i] = True
  with np.errstate(over='ignore'):
    return _without(pa.array(
        [x if x is None or read is _integer else np.float32(x) for x in found],
        arrow_type), bad), bad


def _integer(field):
  """Reads an int that int64 holds."""
  value = int(field)
  if not -2**63 <= value < 2**63:
    raise ValueError(value)
  return value


def _true(array):
  """Returns a pa.BooleanArray as numpy array, null as False."""
  return pc.fill_null(array, False).to_numpy(zero_copy_only=False)


def _without(array, none):
  """Returns an array with null where `none` is true."""
  if not none.any():
    return array
  return pc.if_else(pa.array(none), pa.scalar(None, array.type), array)
