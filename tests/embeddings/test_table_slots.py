"""Slots that are filled row by row."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.embeddings import table_slots
from ple_estimator.engine import compat
from ple_estimator.optimizers import update_rules


def slots_of(optimizer, num_parts=1):
  """A table of 5 rows whose slots an optimizer has made, and its other one."""
  name = 't/embedding' + ('/part_0' if num_parts > 1 else '')
  values = tf.get_variable(name, [5, 2], trainable=False)
  other = tf.get_variable('other', [5, 2])
  made = table_slots.TableSlots(values, 't/embedding', num_parts)
  with tf.variable_scope(tf.get_variable_scope(), custom_getter=made.getter):
    compat.make_slots(optimizer, [values, other])
  return values, other, made


def test_rows_get_their_initial_values_one_by_one():
  optimizer = tf.train.AdagradOptimizer(0.1, initial_accumulator_value=0.25)
  values, other, slots = slots_of(optimizer)
  slot, = slots.variables
  assert slot is optimizer.get_slot(values, 'accumulator')
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    np.testing.assert_array_equal(  # of a plain variable it is filled at once
        session.run(optimizer.get_slot(other, 'accumulator')), 0.25)
    session.run(slot.assign(tf.fill([5, 2], 7.0)))
    session.run(slots.initialize(tf.constant([3, 1], tf.int64)))
    np.testing.assert_array_equal(
        session.run(slot)[:, 0], [7, 0.25, 7, 0.25, 7])


@pytest.mark.parametrize('num_parts', [1, 2])
def test_scalar_slots_are_the_same_for_all_parts(num_parts):
  optimizer = update_rules.AdamAsync(0.1, 0.9, 0.99, 1e-8, False)
  values, other, slots = slots_of(optimizer, num_parts)
  assert [suffix for suffix, _ in slots.columns()] == [
      '/AdamAsync-values', '/AdamAsync_1-values']
  power = optimizer.get_slot(values, 'beta1_power')
  assert compat.is_copy(power) == (num_parts > 1)
  assert not compat.is_copy(optimizer.get_slot(other, 'beta1_power'))
  assert compat.whole(power)[0] == 't/embedding/AdamAsync_2'
  with tf.Session() as session:
    session.run(power.initializer)
    assert session.run(power) == np.float32(0.9)
