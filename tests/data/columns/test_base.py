"""What all columns have in common: which text is bad, and a legal name."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.data import column_kinds


@pytest.mark.parametrize('column, fields, bad', [
    (column_kinds.Integer('x', 50, 4),
     ['50', '-1', '1.5', 'x', '9' * 30, '1_0'], 6),
    (column_kinds.Label('x', (0, 1)), ['0', '1.0', '', '2', 'x', 'nan'], 4),
    (column_kinds.Label('x'), ['-3.5', '1e3', '', 'inf', '+2'], 2),
    (column_kinds.Number('x'), ['3', '', '1,5'], 2),
    (column_kinds.Number('x', default=7.0), ['3', '', '1,5'], 1),
    (column_kinds.Number('x', log1p=True), ['-0.5', '-1', '-2'], 2),
    (column_kinds.Weight('x'), ['0', '0.5', '-1', ''], 2),
])
def test_bad_text_is_found(column, fields, bad):
  array = pa.array([f.encode() for f in fields], pa.binary())
  _, found = column.parse(array)
  assert found.sum() == bad
  # Row by row it is the same rows.
  alone = [column.parse(array.slice(i, 1))[1] is not None
           for i in range(len(fields))]
  np.testing.assert_array_equal(found, alone)


def test_text_that_is_no_utf8_is_bad_only_as_a_number():
  array = pa.array([b'\xff', b'1'], pa.binary())
  assert column_kinds.Label('x').parse(array)[1].tolist() == [True, False]
  assert column_kinds.Hashed('x', 9, 4).parse(array)[1] is None


@pytest.mark.parametrize('name, scope', [
    ('user_id', 'user_id'), ('user id', 'column_user_id_'),
    ('_id', 'column__id_'), ('gr\u00f6\u00dfe', 'column_gr__e_')])
def test_any_name_has_a_legal_scope(name, scope):
  column = column_kinds.Hashed(name, 7, 4)
  assert column.scope.startswith(scope)
  assert column.scope != column_kinds.Hashed(name + ' ', 7, 4).scope
  with tf.variable_scope(column.scope):
    tf.placeholder(tf.string, name=column.scope)
