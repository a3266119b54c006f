"""What tasks share, and the products of their gradients by embeddings."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.balancing import batch as batch_lib
from ple_estimator.balancing import dynamic_weight_average
from ple_estimator.balancing import grad_norm
from ple_estimator.balancing import pcgrad
from ple_estimator.balancing import uncertainty_weights
from ple_estimator.embeddings import admission
from ple_estimator.embeddings import keyed_table
from ple_estimator.engine import purpose as purpose_lib
from ple_estimator.network import objective
from ple_estimator.network import ple
from ple_estimator.network import precision
from ple_estimator.network import tasks
from ple_estimator.network import towers

TOWER = towers.Tower((3,), batch_norm=False)
PURPOSE = purpose_lib.Purpose(
    training=True, precision=precision.Precision())


def made(build, names=('ctr', 'cvr'), inputs=None, is_beside=None, tables=()):
  inputs = tf.ones([4, 5]) if inputs is None else inputs
  return batch_lib.Batch(
      [tasks.Task(name, name, TOWER) for name in names], inputs,
      objective.Targets({name: tf.ones([4]) for name in names},
                        {name: tf.ones([4]) for name in names}),
      build, 1, build, is_beside or (lambda name: False), list(tables))


def of_ple(levels, own, shared, names=('ctr', 'cvr')):
  """What is shared in a PLE, without the names of the layers."""
  network = ple.PLE((4,), (), num_levels=levels, num_task_experts=own,
                    num_shared_experts=shared, batch_norm=False)

  def build(rows):
    of_task, gates = network(rows, names, PURPOSE)
    return towers.logits({name: TOWER for name in names}, of_task,
                         PURPOSE), gates

  return {name.rpartition('/')[0] for name in made(build, names).shared()}


@pytest.mark.parametrize('levels, own, shared, wanted', [
    (1, 0, 1, ['level_0/shared/expert_0/dense_0']),  # shared-bottom
    (1, 1, 0, []),  # single-task
    (1, 1, 1, ['level_0/shared/expert_0/dense_0']),  # CGC
    # The shared gate of a level mixes the experts of all tasks.
    (2, 1, 1, ['level_0/ctr/expert_0/dense_0', 'level_0/cvr/expert_0/dense_0',
               'level_0/shared/expert_0/dense_0', 'level_0/shared/gate/mix',
               'level_1/shared/expert_0/dense_0']),
])
def test_shared_is_what_several_tasks_depend_on(levels, own, shared, wanted):
  assert sorted(of_ple(levels, own, shared)) == wanted


def test_mmoe_shares_experts_and_no_gates():
  assert of_ple(1, 0, 3, ('a', 'b', 'c')) == {
      'level_0/shared/expert_%d/dense_0' % i for i in range(3)}


def test_what_two_of_three_tasks_share_is_shared_and_what_is_stopped_is_not():
  def build(rows):
    names = ('two', 'one', 'stopped')
    two, one, stopped = [tf.reduce_sum(rows * tf.get_variable(
        name, [5], initializer=tf.ones_initializer()), axis=1)
                         for name in names]
    return {'a': two + stopped, 'b': two,
            'c': one + tf.stop_gradient(stopped)}, {}
  found = made(build, 'abc', is_beside=lambda name: name == 'two:0')
  assert found.shared() == {'two:0'}
  assert found.shared(of_network=True) == frozenset()


@pytest.mark.parametrize('frequency', [1, 2])
def test_products_are_over_the_keys_that_have_or_get_a_row(frequency):
  tf.train.create_global_step()
  table = keyed_table.KeyedTable(
      't', 5, 100, 'x', 0.1, True,
      filter=admission.CounterFilter(frequency) if frequency > 1 else None)
  # 'c' and the last come once only, and have no row if two are needed.
  vectors = table.lookup(tf.constant([7, 8, 9], tf.int64),
                         tf.constant([2, 1, 2], tf.int64))
  which = np.array([0, 1, 2, 2])
  inputs = tf.gather(vectors, which)
  def build(rows):
    weight = tf.get_variable('w', initializer=np.arange(5, dtype='f'))
    return {'ctr': tf.reduce_sum(rows * weight, axis=1),
            'cvr': -2 * tf.reduce_sum(rows * weight[::-1], axis=1)}, {}
  found = made(build, inputs=inputs, tables=[table.source])
  apart = found.apart()
  products = found.products(apart)
  with tf.Session() as session:
    session.run([tf.global_variables_initializer(), tf.tables_initializer()])
    got, x, gradients, d = session.run(
        [products, inputs, apart.gradients, apart.d_inputs])
  w = np.arange(5)
  by_key, by_weight = np.zeros([2, 3, 5]), np.zeros([2, 5])
  for k, (sign, of) in enumerate([(1, w), (-2, w[::-1])]):
    slope = (1 / (1 + np.exp(-sign * x.dot(of))) - 1)[:, np.newaxis] / 4
    np.testing.assert_allclose(d[k], slope * sign * of, rtol=1e-4)
    np.add.at(by_key[k], which, slope * sign * of)
    by_weight[k] = (slope * sign * x).sum(axis=0)[::1 if sign == 1 else -1]
    np.testing.assert_allclose(gradients[k]['w:0'], by_weight[k], rtol=1e-3,
                               atol=1e-6)
  own = by_key[:, [0, 2] if frequency == 2 else [0, 1, 2]].reshape([2, -1])
  np.testing.assert_allclose(
      got, own.dot(own.T) + by_weight.dot(by_weight.T), rtol=1e-4)


def test_grad_norm_refuses_a_network_that_shares_nothing():
  def build(rows):
    return {name: tf.reduce_sum(rows * tf.get_variable(
        name, [5]), axis=1) for name in ('ctr', 'cvr')}, {}
  with pytest.raises(errors.UserError, match=(
      r'^Model.balancing = @GradNorm\(\) needs weights of Model.network that '
      'tasks share, .* bind another Model.balancing, or None.$')):
    grad_norm.GradNorm().balanced(made(build))


def test_pcgrad_refuses_tasks_that_share_nothing():
  def build(rows):
    return {name: tf.reduce_sum(rows * tf.get_variable(
        name, [5]), axis=1) for name in ('ctr', 'cvr')}, {}
  with pytest.raises(errors.UserError, match=(
      '^Model.balancing must be None or @UncertaintyWeights.* as here.$')):
    pcgrad.PCGrad().balanced(made(build))


@pytest.mark.parametrize('balancing', [
    pcgrad.PCGrad(), uncertainty_weights.UncertaintyWeights()])
def test_one_task_cannot_be_balanced(balancing):
  task = tasks.Task('ctr', 'clk', TOWER)
  balancing.check([task, tasks.Task('cvr', 'buy', TOWER)])
  with pytest.raises(errors.UserError, match=(
      '^Model.balancing must be None for a model of one task, got @%s' %
      type(balancing).__name__)):
    balancing.check([task])


@pytest.mark.parametrize('loss', ['poisson', 'lognormal'])
def test_losses_below_0_have_no_ratio_to_balance_by(loss):
  # y = 3 with the prediction 3: 3 - 3 log(3) = -0.3.
  both = [tasks.Task('ctr', 'clk', TOWER), tasks.Task('stay', 'n', TOWER, loss)]
  pcgrad.PCGrad().check(both)
  for balancing in (
      uncertainty_weights.UncertaintyWeights(), grad_norm.GradNorm(),
      dynamic_weight_average.DynamicWeightAverage(5)):
    with pytest.raises(errors.UserError, match=(
        r'^Model.balancing must be None or @PCGrad\(\) where a loss may be '
        r'below 0, as that of task stay \(\w+\), got @%s' % (
            type(balancing).__name__))):
      balancing.check(both)
