"""Gradients of a batch in slices against those that can be written down."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.network import gradients
from ple_estimator.network import objective
from ple_estimator.network import tasks
from ple_estimator.network import towers

X = np.array([[1.0], [2.0], [4.0]], 'f')
LABELS = np.array([0, 1, 3], 'f')


def of_network(slices):
  """The logit is 3 x, whose loss is weighted by 2; returns tensors."""
  tf.train.get_or_create_global_step()
  task = tasks.Task('stay', 'stay', towers.Tower(), 'regression', weight=2.0)

  def build(inputs):
    weight = tf.get_variable('w', initializer=3.0)
    return {'stay': weight * inputs[:, 0]}, {'gate': {'a': inputs[:, 0]}}

  inputs = tf.constant(X)
  return inputs, gradients.of_network(build, [task], inputs, objective.Targets(
      {'stay': tf.constant(LABELS)}, {'stay': tf.ones([3])}), slices,
      [tf.constant(2.0)])


@pytest.mark.parametrize('slices', [1, 2, 3, 9])
def test_slices_add_up_to_the_mean_over_the_batch(slices):
  _, found = of_network(slices)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    (losses, gates, by_name), d_inputs = session.run(found)
  error = 3 * X[:, 0] - LABELS  # 3, 5, 9
  assert losses['stay'] == pytest.approx(np.mean(error ** 2))
  assert gates['gate']['a'] == pytest.approx(7 / 3)
  assert by_name == {
      'w:0': pytest.approx(2 * np.mean(2 * error * X[:, 0]), rel=1e-6)}
  np.testing.assert_allclose(
      d_inputs[:, 0], 2 * 2 * error * 3 / 3, rtol=1e-6)


def test_complete_adds_embeddings_and_penalties():
  table, w, alone, unused = [
      tf.get_variable(name, initializer=value) for name, value in [
          ('table', 5.0), ('w', 3.0), ('alone', 7.0), ('unused', 1.0)]]
  for weight in (w, alone):
    tf.add_to_collection(
        tf.GraphKeys.REGULARIZATION_LOSSES, tf.square(weight))
  found = gradients.complete(
      [table, w, alone, unused], {w.name: tf.constant(10.0)},
      table * tf.constant([[1.0], [2.0]]), tf.constant([[3.0], [4.0]]))
  assert [v for _, v in found] == [table, w, alone, unused]
  assert found[3][0] is None
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    assert session.run([g for g, _ in found[:3]]) == [
        1 * 3 + 2 * 4, 10 + 2 * 3, 2 * 7]
