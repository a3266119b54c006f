"""Columns get their types, and bad rows are counted or refused."""

import pyarrow as pa
import pytest
import reader_cases

from ple_estimator import errors
from ple_estimator.data import row_checks

TABLE = pa.table({
    'word': [b'a', b'b', b'c', b'd'], 'id': [b'1', b'x', b'', b'4'],
    'y': [b'1', b'', b'0.5', b'nan']})
COLUMNS = reader_cases.SPEC.columns


def test_rows_are_typed_and_bad_ones_left_out():
  bad_rows = row_checks.BadRows(skip=True)
  asked = []

  def number_of(index):
    asked.append(index)
    return 100 + index

  typed = row_checks.typed(TABLE, COLUMNS, bad_rows, 'x.csv', number_of)
  assert typed.schema.names == ['y', 'id', 'word']
  assert [t for t in typed.schema.types] == [
      pa.float32(), pa.int64(), pa.binary()]
  assert typed.to_pydict() == {
      'y': [1.0, 0.5], 'id': [1, -1], 'word': [b'a', b'c']}
  assert bad_rows.skipped == 2 and asked == [1, 3]


def test_the_first_bad_row_is_named():
  with pytest.raises(errors.UserError) as raised:
    row_checks.typed(TABLE, COLUMNS, row_checks.BadRows(skip=False), 'x.csv',
                     lambda index: 100 + index)
  # Row 101 is bad in two columns; the first of them is named.
  assert str(raised.value) == (
      "x.csv row 101 column 'y' must be a number, got ''.")


def test_only_the_first_skipped_rows_are_shown(caplog):
  bad_rows = row_checks.BadRows(skip=True, shown=2)
  for row in range(1, 6):
    bad_rows.add('x.csv', row, 'must be good')
  assert bad_rows.skipped == 5
  assert [r.getMessage() for r in caplog.records] == [
      'Skipped: x.csv row 1 must be good.',
      'Skipped: x.csv row 2 must be good.',
      'Further skipped rows are only counted.']
