"""Random Parquet files, and what Arrow reads, taken value by value."""

import decimal
import inspect
import os

import csv_cases
import numpy as np
import oracle
import outcomes
import pyarrow as pa
import pyarrow.parquet

from ple_estimator import errors
from ple_estimator.data import feature_spec
from ple_estimator.data import inputs
from ple_estimator.data import reading as reading_lib

_INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(),
             pa.uint16(), pa.uint32(), pa.uint64()]
_PLAIN = _INTEGERS + [
    pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.binary(),
    pa.large_string(), pa.decimal128(12, 3), pa.decimal128(30, 10),
    pa.decimal128(9, 0), pa.null(), pa.dictionary(pa.int32(), pa.string())]
_FLOATS = [0.0, 1.0, -0.0, 0.5, 7.0, np.nan, np.inf, -np.inf, 2.0**53,
           2.0**53 + 2, 1e300, 2.0**24, 2.0**25, -1.0]
_WORDS = ['', 'a', 'x|y', ' 7 ', '1', '0', '0.5', '0x10', 'nan', '\u00e9',
          '1e3', '99', '100', '12345678901234567890', 'True']


def _value(arrow_type, rng, tame, width=None):
  """A random value of a type, or None; a tame list has `width` items."""
  if rng.rand() < (0.02 if tame else 0.1) or pa.types.is_null(arrow_type):
    return None
  if pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type):
    return [_value(arrow_type.value_type, rng, tame)
            for _ in range(width if width and tame else rng.randint(0, 4))]
  small = int(rng.randint(2))
  if pa.types.is_integer(arrow_type):
    sign = pa.types.is_signed_integer(arrow_type)
    most = 2**(arrow_type.bit_width - sign) - 1
    return small if tame else csv_cases.pick(
        rng, [small, small, 99, 100, most, -most if sign else 3, most - 1])
  if pa.types.is_floating(arrow_type):
    return float(small) if tame else csv_cases.pick(rng, _FLOATS)
  if pa.types.is_boolean(arrow_type):
    return bool(small)
  if pa.types.is_decimal(arrow_type):
    scale = arrow_type.scale
    digits = small * 10**scale if tame else csv_cases.pick(
        rng, [0, 10**scale, 1, -5 * 10**scale, 7 * 10**scale // 2])
    return decimal.Decimal(digits).scaleb(-scale)
  word = str(small) if tame else csv_cases.pick(rng, _WORDS)
  is_bytes = pa.types.is_binary(arrow_type)
  return csv_cases.pick(rng, [word.encode(), b'\xff' if not tame else b'1']
                        ) if is_bytes else word


def _type(kind, rng, tame):
  """A random type that a kind of column takes."""
  types = [t for t in _PLAIN if not (tame and pa.types.is_null(t))]
  plain = csv_cases.pick(rng, types)
  if kind == 'vector' or kind == 'hashed_list' and rng.rand() < 0.6:
    # A vector is never a plain number, and seldom text that is no vector.
    if kind == 'vector' and not tame and rng.rand() < 0.2:
      return csv_cases.pick(rng, [pa.string(), pa.binary(), pa.null()])
    if pa.types.is_dictionary(plain) or pa.types.is_null(plain):
      plain = pa.string()
    return csv_cases.pick(rng, [pa.list_, pa.large_list])(plain)
  return plain


def _table(columns, rng):
  """A table of random types, with a column that nobody asks for."""
  count, arrays = int(rng.randint(0, 40)), []
  tame = rng.rand() < 0.75
  for column in columns:
    arrow_type = _type(column['kind'], rng, tame)
    plain = arrow_type.value_type if pa.types.is_dictionary(
        arrow_type) else arrow_type
    array = pa.array([
        _value(plain, rng, tame and rng.rand() < 0.97, column.get('width'))
        for _ in range(count)], plain)
    arrays.append(array.dictionary_encode() if plain != arrow_type else array)
  names = [column['name'] for column in columns]
  order = rng.permutation(len(names) + 1)
  arrays.append(pa.array(list(range(count)), pa.int64()))
  names.append('more')
  return pa.Table.from_arrays([arrays[i] for i in order],
                              [names[i] for i in order])


def _write(table, path, rng):
  """Writes a file as some writer of Parquet might."""
  options = {'row_group_size': int(rng.randint(1, 30)),
             'compression': csv_cases.pick(rng, ['none', 'snappy', 'gzip',
                                                 'zstd']),
             'use_dictionary': bool(rng.randint(2)),
             'data_page_version': csv_cases.pick(rng, ['1.0', '2.0'])}
  known = inspect.signature(pa.parquet.ParquetWriter.__init__).parameters
  if 'write_page_checksum' in known:
    options['write_page_checksum'] = bool(rng.randint(2))
  pa.parquet.write_table(table, path, **options)


def _expected(path, columns):
  """The rows as tuples, None for a bad one."""
  table = pa.parquet.read_table(path, use_threads=False, columns=[
      column['name'] for column in columns])
  values = [table.column(column['name']).to_pylist() for column in columns]
  rows = []
  for row in zip(*values):
    row = [oracle.value_of(column, value)
           for column, value in zip(columns, row)]
    rows.append(None if oracle.BAD in row else tuple(row))
  return rows


def _damage(path, rng):
  with open(path, 'rb') as f:
    data = f.read()
  with open(path, 'wb') as f:
    f.write(csv_cases.spoilt(data, rng))


def case(rng, folder):
  """Reads a random Parquet file, whole and by several workers."""
  columns = csv_cases.columns(rng)
  path = os.path.join(folder, 'x.parquet')
  _write(_table(columns, rng), path, rng)
  expected, others = _expected(path, columns), None
  damaged = rng.rand() < 0.35
  if damaged:
    _damage(path, rng)
  on_bad_row = csv_cases.pick(rng, ['error', 'skip'])
  source = inputs.ParquetInput(path, batch_size=int(rng.randint(1, 9)),
                               on_bad_row=on_bad_row)
  reading = reading_lib.Reading(
      feature_spec.FeatureSpec(columns),
      keep=tuple(column['name'] for column in columns))
  try:
    source.check(reading)
    found, skipped, count = csv_cases.read(source, reading)
  except errors.UserError as error:
    return outcomes.refused(error) if damaged else _refusal(
        error, expected, on_bad_row)
  if damaged:
    others = _of_damaged(path, columns)
  for rows in [expected] + [others] * (others is not None):
    good = [row for row in rows if row is not None]
    difference = oracle.first_difference(found, good)
    if not difference:
      break
  outcomes.check(not difference, '%s', difference)
  num_bad = len(rows) - len(good)
  outcomes.check((skipped, count) == (num_bad, len(rows)),
                 'skipped %d of %d rows and must skip %d of %d', skipped,
                 count, num_bad, len(rows))
  outcomes.check(not num_bad or on_bad_row == 'skip',
                 'A bad row must be refused.')
  csv_cases.check_shares(source, reading, int(rng.randint(2, 5)), good)
  return outcomes.SKIPPED if num_bad else outcomes.RIGHT


def _of_damaged(path, columns):
  """What Arrow reads of a damaged file, which may have no checksums."""
  try:
    return _expected(path, columns)
  except (pa.ArrowException, OSError, ValueError, TypeError):
    return None


def _refusal(error, rows, on_bad_row):
  """Checks that there was a reason to refuse a file that is not damaged."""
  if not rows:
    return outcomes.refused(error, 'has no rows')
  outcomes.check(None in rows, 'All rows are good, but it says: %s', error)
  outcomes.check(on_bad_row == 'error', 'Bad rows are skipped, but it says: %s',
                 error)
  return outcomes.refused(error, ' row %d ' % (rows.index(None) + 1))
