"""Projected gradients, against numpy on whole vectors."""

import numpy as np
import problem
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.balancing import pcgrad


def projected(vectors, orders):
  """The sum of the projected vectors: algorithm 1 as the paper writes it."""
  total = np.zeros_like(vectors[0])
  for i, vector in enumerate(vectors):
    p = vector.copy()
    for j in orders[i]:
      if j != i and p.dot(vectors[j]) < 0:
        p -= p.dot(vectors[j]) / vectors[j].dot(vectors[j]) * vectors[j]
    total += p
  return total


def by_hand(feeds, orders):
  """The variables after each step, and how many pairs were in conflict."""
  params, after, conflicts = problem.parameters(), [], 0
  for batch, of_step in zip(feeds, orders):
    _, gradients = problem.differentiated(params, batch)
    vectors = [weight * np.concatenate([
        of[name].ravel() for name in problem.SHARED])
               for weight, of in zip(problem.WEIGHTS, gradients)]
    conflicts += sum(a.dot(b) < 0 for a in vectors for b in vectors) // 2
    found = projected(vectors, of_step)
    after_step = problem.descended(params, gradients, np.ones(3))
    begin = 0
    for name in problem.SHARED:
      size = params[name].size
      after_step[name] = params[name] - problem.RATE * found[
          begin:begin + size].reshape(params[name].shape)
      begin += size
    params = after_step
    after.append(params)
  return after, conflicts


def orders_of(seed, steps):
  """[steps, tasks, tasks], by TensorFlow's own function of seed and step."""
  with tf.Graph().as_default(), tf.Session() as session:
    return [session.run(tf.argsort(tf.random.stateless_uniform(
        [3, 3], tf.constant([seed, step], tf.int64)), axis=1))
            for step in range(steps)]


@pytest.mark.parametrize('seed, slices', [(0, 1), (7, 3)])
def test_gradients_are_projected_as_by_numpy(seed, slices):
  feeds = problem.batches(8)
  orders = orders_of(seed, 8)
  got, _, _ = problem.trained(pcgrad.PCGrad(seed), feeds, slices)
  wanted, conflicts = by_hand(feeds, orders)
  assert conflicts > 5
  problem.assert_equal(got, wanted)


def test_the_order_depends_on_seed_and_step_and_matters():
  orders = orders_of(0, 8)
  assert len({str(order) for order in orders}) > 4
  assert str(orders) != str(orders_of(7, 8))
  for order in orders:
    assert np.sort(order, axis=1).tolist() == [[0, 1, 2]] * 3
  feeds = problem.batches(8)
  tables = [by_hand(feeds, of)[0][-1]['table']
            for of in (orders, orders_of(7, 8))]
  assert np.abs(tables[0] - tables[1]).max() > 1e-3


@pytest.mark.parametrize('count', [2, 3, 5])
def test_factors_are_those_of_the_vectors(count):
  rng = np.random.RandomState(count)
  for _ in range(5):
    vectors = rng.randn(count, 4)
    orders = np.array([rng.permutation(count) for _ in range(count)])
    with tf.Graph().as_default(), tf.Session() as session:
      factors = session.run(pcgrad.factors(
          tf.constant(vectors.dot(vectors.T), tf.float32),
          tf.constant(orders, tf.int32)))
    np.testing.assert_allclose(
        factors.dot(vectors), projected(list(vectors), orders), rtol=1e-3,
        atol=1e-4)


def test_gradients_that_agree_or_vanish_stay_as_they_are():
  products = np.array([[2, 1, 0], [1, 3, 0], [0, 0, 0]], 'f')
  with tf.Session() as session:
    assert session.run(pcgrad.factors(
        tf.constant(products), tf.constant([[0, 1, 2]] * 3))).tolist() == [
            1, 1, 1]


def test_tensorboard_shows_cosines_and_conflicts():
  feeds = problem.batches(1)
  names = ['balancing/conflicts', 'balancing/cosine/click/stay',
           'balancing/cosine/click/buy', 'balancing/cosine/stay/buy']
  _, gradients = problem.differentiated(problem.parameters(), feeds[0])
  vectors = [np.concatenate([of[name].ravel() for name in problem.SHARED])
             for of in gradients]
  problem.trained(pcgrad.PCGrad(), feeds[:0])
  found = {op.name: op for op in tf.get_default_graph().get_operations()
           if op.type == 'ScalarSummary'}
  assert set(names) <= set(found)
  with tf.Graph().as_default():
    _, _, fetched = problem.trained(
        pcgrad.PCGrad(), feeds,
        fetch=[found[name].inputs[1].name for name in names])
  cosines = [a.dot(b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in [
      (vectors[0], vectors[1]), (vectors[0], vectors[2]),
      (vectors[1], vectors[2])]]
  assert fetched[0] == pytest.approx(
      [np.mean(np.array(cosines) < 0)] + cosines, rel=1e-3)
