"""Labels: which values are theirs, and which rows need one."""

import numpy as np
import pyarrow as pa
import pytest

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.data import row_checks


def test_label_values_need_not_be_exact_in_float32():
  allowed = [i / 10 for i in range(30)]
  array = pa.array([str(x).encode() for x in allowed], pa.binary())
  assert column_kinds.Label('x', allowed).parse(array)[1] is None


CODES = {'<=50K': 0, ' >50K': 1, 3: 2, True: 4}


@pytest.mark.parametrize('array, wanted', [
    (pa.array([b'<=50K', b' >50K', b'3', b' 3 ', b'true', b'True', b'TRUE'],
              pa.binary()), [0, 1, 2, 2, 4, 4, 4]),
    (pa.array(['<=50K', ' >50K']).dictionary_encode(), [0, 1]),
    (pa.array([3, 3], pa.int8()), [2, 2]),
    (pa.array([3.0], pa.float64()), [2]),
    (pa.array([True]), [4]),
])
def test_what_a_file_holds_is_looked_up(array, wanted):
  column = column_kinds.Label('x', CODES)
  assert column.accepts(array.type) and set(column.values) == {0, 1, 2, 4}
  values, bad = column.parse(array)
  assert bad is None and values.type == pa.float32()
  assert values.to_pylist() == wanted


def test_what_is_not_in_the_dict_is_bad():
  column = column_kinds.Label('x', CODES)
  _, bad = column.parse(pa.array(
      [b'<=50K', b'>50K', b' <=50K', b'', b'  ', b'4', b'\xff'], pa.binary()))
  assert bad.tolist() == [False] + 6 * [True]
  assert column.problem('>50K') == (
      "must be one of '<=50K', ' >50K', 3, True, got '>50K'")
  _, bad = column.parse(pa.array([3.5, None, 3.0]))
  assert bad.tolist() == [True, True, False]
  # What a dict says of an empty field is no missing label.
  values, bad = column_kinds.Label('x', {'': 0, 'y': 1}).parse(
      pa.array(['y', None, '']))
  assert bad is None and values.to_pylist() == [1, 0, 0]


def test_a_label_may_say_on_which_side_of_a_number_it_is():
  column = column_kinds.Label('x', above=0.1)  # which float32 cannot hold
  values, bad = column.parse(pa.array(
      [b'0.1', b'0.10001', b'-5', b'7', b'x', b'', b'inf', b'nan'],
      pa.binary()))
  assert values.to_pylist()[:4] == [0, 1, 0, 1] and column.values == (0, 1)
  assert bad.tolist() == 4 * [False] + 4 * [True]
  assert column.parse(pa.array([3, 4], pa.int64()))[0].to_pylist() == [1, 1]


@pytest.mark.parametrize('values, message', [
    ({}, 'values must be a dict of texts, integers or booleans'),
    ({0.5: 1}, 'values must be a dict .*, got {0.5: 1}'),
    ({'a': 'b'}, 'values must be a dict .* to numbers'),
    ({'a': 1e16}, 'values must be a dict'),
    ({1: 0, '1': 1}, "values must have one number for '1', got"),
    ({True: 0, 'true': 1}, "values must have one number for 'true'"),
])
def test_refuses_a_dict(values, message):
  with pytest.raises(errors.UserError, match=message):
    column_kinds.Label('x', values)


def test_refuses_values_and_above_at_once():
  with pytest.raises(errors.UserError, match="above must be None where 'values'"
                     ' are given, got 3'):
    column_kinds.Label('x', (0, 1), 3)


def use(space=None, least=None):
  return column_kinds.LabelUse(space, least)


TABLE = pa.table({
    'clk': pa.array([b'1', b'1', b'0', b'0', b''], pa.binary()),
    'town': pa.array(['a', 'b', 'a', 'b', 'a']),
    'buy': pa.array([b'1', b'', b'', b'nan', b''], pa.binary())})


def bad_rows_of(uses, table=TABLE, columns=None):
  """The problems that row_checks.typed finds, by row."""
  click = column_kinds.Label('clk', (0, 1)).used_by([use(('town', 'a'))])
  columns = columns or [
      click, column_kinds.Ignored('town'),
      column_kinds.Label('buy', (0, 1)).used_by(uses)]
  bad = {}

  class BadRows:

    def add(self, path, row, problem):
      bad[row] = problem

  found = row_checks.typed(
      table, columns, BadRows(), 'x', lambda index: index)
  return bad, found


@pytest.mark.parametrize('uses, bad', [
    ([use(('clk', 1))], [1, 4]), ([use(('town', 'b'))], [1, 3, 4]),
    ([use(('clk', 1)), use(('town', 'b'))], [1, 3, 4]),
    # A task without sample space needs it everywhere, and so does no task.
    ([use(('clk', 1)), use()], [1, 2, 3, 4]), ([], [1, 2, 3, 4]),
    # A column that is not read here cannot say that the label is not needed.
    ([use(('country', 'de'))], [1, 2, 3, 4]),
])
def test_a_label_may_be_missing_where_no_task_needs_it(uses, bad):
  # Row 4 has no click either, which the task of the town needs.
  problems, found = bad_rows_of(uses)
  assert sorted(problems) == sorted(bad)
  if uses and all(one.sample_space for one in uses):
    assert problems[4] == ("column 'clk' must be one of 0, 1 in the sample "
                           "space ('town', 'a'), got ''")
  assert np.isnan(found['buy'].to_numpy()[1:]).all() and (
      found['buy'].to_pylist()[0] == 1)


def test_a_missing_label_is_told_with_the_sample_space():
  problems, _ = bad_rows_of([use(('clk', 1))])
  assert problems[1] == ("column 'buy' must be one of 0, 1 in the sample space "
                         "('clk', 1), got ''")


def test_the_least_label_of_a_loss_holds_in_its_sample_space():
  table = pa.table({'clk': ['1', '1', '0', '1'], 'y': ['-1', '0', '-1', '2']})
  columns = [column_kinds.Label('clk', (0, 1)), column_kinds.Label('y')]
  for least, space, bad in [(0.0, ('clk', 1), [0]), (0.0, None, [0, 2]),
                            (1e-30, ('clk', 1), [0, 1])]:
    problems, _ = bad_rows_of(None, table, [
        columns[0], columns[1].used_by([use(space, least)])])
    assert sorted(problems) == bad
    assert problems[0] == "column 'y' must be %s%s for the loss of its task, " \
        "got '-1'" % ('above 0' if least else 'at least 0',
                      " in the sample space ('clk', 1)" if space else '')


def test_a_stored_label_is_what_the_file_held():
  for column, array, wanted in [
      (column_kinds.Label('x', CODES), ['3', ' >50K', None], [
          b'3', b' >50K', b'']),
      (column_kinds.Label('x', above=3), [3.5, 2.0], [3.5, 2.0]),
      (column_kinds.Label('x', (0, 1)), ['0', '1'], [0, 1])]:
    stored = column.stored()
    values, bad = stored.parse(pa.array(array))
    assert bad is None and values.to_pylist() == wanted
    assert values.type == stored.arrow_type
    assert column.parse(pa.array(array[:2]))[0] == column.parse(values[:2])[0]
  assert column_kinds.Label('x', CODES).stored().parse(
      pa.array(['z']))[1].tolist() == [True]
