"""The tasks of a model taken together, against numbers computed by hand."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.network import objective
from ple_estimator.network import tasks
from ple_estimator.network import towers

BUY = tasks.Task('buy', 'price', towers.Tower(), 'regression', weight=2.0,
                 gamma=0.5,
                 sample_space=('clk', 1))
CITY = tasks.Task('city', 'price', towers.Tower(), 'regression', weight=3.0,
                  sample_space=('town', 7))
BOTH = [BUY, CITY]
COLUMNS = {'clk': [1.0, 0.0, 1.0, 0.0], 'town': ['7', '7', '8', '9']}
PRICE = np.array([1, 2, 4, 8], 'f')
LOGITS = {'buy': np.array([1, 1, 1, 1], 'f'),
          'city': np.array([0, 0, 0, 0], 'f')}


def targets(rows=slice(None), totals=None):
  weights = objective.row_weights(
      BOTH, tf.constant([1.0, 2.0, 3.0, 4.0][rows]),
      {name: tf.constant(values[rows]) for name, values in COLUMNS.items()})
  return objective.Targets(
      {'price': tf.constant(PRICE[rows])}, weights, totals)


def losses(rows=slice(None), totals=None):
  return objective.losses(BOTH, targets(rows, totals), {
      name: tf.constant(values[rows]) for name, values in LOGITS.items()})


def run(tensors):
  with tf.Session() as session:
    session.run([tf.global_variables_initializer(),
                 tf.local_variables_initializer()])
    return session.run(tensors)


def test_rows_outside_of_a_sample_space_have_no_weight():
  got = run(targets().weights)
  assert got['buy'].tolist() == [1, 0, 3, 0]
  assert got['city'].tolist() == [1, 2, 0, 0]  # 7 is text in this column


def test_losses_are_weighted_means():
  got = run(losses())
  assert got['buy'] == pytest.approx((1 * 0 + 3 * 9) / 4)
  assert got['city'] == pytest.approx((1 * 1 + 2 * 4) / 3)


def test_losses_of_slices_add_up_to_those_of_the_batch():
  totals = {'buy': tf.constant(4.0), 'city': tf.constant(3.0)}
  whole, first, second = run([
      losses(), losses(slice(0, 1), totals), losses(slice(1, 4), totals)])
  for task in ('buy', 'city'):
    assert first[task] + second[task] == pytest.approx(whole[task])


def test_total_has_the_weights_of_the_step_and_penalties():
  tf.train.create_global_step()
  tf.add_to_collection(tf.GraphKeys.REGULARIZATION_LOSSES, tf.constant(100.0))
  loss = objective.total(
      BOTH, {'buy': tf.constant(5.0), 'city': tf.constant(7.0)})
  assert loss.name == 'total_loss:0'
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    session.run(tf.train.get_global_step().assign(3))
    got = session.run([loss, 'buy/loss:0', 'city/loss:0'])
  assert got == pytest.approx([2 * 0.5 ** 3 * 5 + 3 * 7 + 100, 5, 7])


def test_metrics_of_gates_are_means_over_rows():
  gates = {'level_0/buy': {'shared/expert_0': tf.constant([.1, .2, .3, .8])}}
  by_name = objective.metrics(BOTH, targets(), {
      name: tf.constant(values) for name, values in LOGITS.items()}, gates)
  assert {'buy/rmse', 'city/mae', 'city/label/mean'} <= set(by_name)
  value, update = by_name['gate/level_0/buy/shared/expert_0']
  with tf.Session() as session:
    session.run(tf.local_variables_initializer())
    session.run(update)
    assert session.run(value) == pytest.approx(0.35)


def test_rows_cannot_be_left_out_without_their_chances():
  task = tasks.Task('ctr', 'clk', towers.Tower(), negative_rate=0.5)
  targets_of = objective.Targets({'clk': tf.constant([0.0, 1.0, 0.0])},
                                 {'ctr': tf.constant([1.0, 2.0, 3.0])})
  found = objective.in_training(
      [task], targets_of, tf.constant([0.4, 0.9, 0.5]))
  assert run(found.weights['ctr']).tolist() == [1, 2, 0]
  with pytest.raises(errors.UserError, match='Task.negative_rate must be 1.0 '
                     'for an input that does not read by'):
    objective.in_training([task], targets_of)


def test_a_missing_label_is_0():
  found = objective.known({'y': tf.constant([1.0, float('nan'), -2.0])})
  assert run(found['y']).tolist() == [1, 0, -2]
