"""Update rules against numpy."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import optimizers

START = np.array([1.0, -2.0, 3.0])
RATES = [0.1, 0.05, 0.025, 0.0125]  # exponential decay, halved each step


def adam(w, grad, rates):
  m = v = 0
  for t, rate in enumerate(rates, 1):
    g = grad(w)
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    w = w - rate * (1 - 0.999 ** t) ** .5 / (1 - 0.9 ** t) * m / (
        v ** .5 + 1e-8)
  return w


def adagrad(w, grad, rates):
  total = 0.1
  for rate in rates:
    g = grad(w)
    total = total + g * g
    w = w - rate * g / total ** .5
  return w


def sgd(w, grad, rates):
  for rate in rates:
    w = w - rate * grad(w)
  return w


def momentum(w, grad, rates):
  m = 0
  for rate in rates:
    m = 0.9 * m + grad(w)
    w = w - rate * m
  return w


TABLE = [
    (optimizers.adam, {}, adam),
    (optimizers.adagrad, {}, adagrad),
    (optimizers.sgd, {}, sgd),
    (optimizers.sgd, {'momentum': 0.9}, momentum),
]
every = pytest.mark.parametrize(
    'make, kwargs, rule', TABLE, ids=[rule.__name__ for _, _, rule in TABLE])


def trained(make, clip_norm=None, steps=4):
  """Minimises sum(w^2) from START; returns w."""
  tf.train.create_global_step()
  w = tf.get_variable('w', initializer=START.astype('f'))
  step = optimizers.train_op(make, tf.reduce_sum(w * w), clip_norm)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    for _ in range(steps):
      sess.run(step)
    assert sess.run(tf.train.get_global_step()) == steps
    return sess.run(w)


@every
def test_matches_numpy_with_a_constant_rate(make, kwargs, rule):
  got = trained(lambda: make(learning_rate=0.1, **kwargs))
  np.testing.assert_allclose(
      got, rule(START, lambda w: 2 * w, [0.1] * 4), rtol=1e-5)


@every
def test_matches_numpy_with_a_schedule(make, kwargs, rule):
  schedule = lambda step: optimizers.exponential_decay(step, 0.1, 1, 0.5)
  got = trained(lambda: make(learning_rate=schedule, **kwargs))
  np.testing.assert_allclose(
      got, rule(START, lambda w: 2 * w, RATES), rtol=1e-5)


@every
def test_matches_numpy_with_clipping(make, kwargs, rule):
  def clipped(w):
    return 2 * w * min(1, 0.5 / np.linalg.norm(2 * w))
  got = trained(lambda: make(learning_rate=0.1, **kwargs), clip_norm=0.5)
  np.testing.assert_allclose(got, rule(START, clipped, [0.1] * 4), rtol=1e-5)


def test_clipping_adds_up_the_slices_of_a_row_first():
  tf.train.create_global_step()
  table = tf.get_variable('table', initializer=tf.zeros([3, 2]))
  rows = tf.nn.embedding_lookup(table, tf.constant([1] * 100 + [2]))
  step = optimizers.train_op(
      lambda: optimizers.sgd(1.0), tf.reduce_sum(rows), clip_norm=1.0)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    sess.run(step)
    moved = -sess.run(table)
  gradient = np.array([[0, 0], [100, 100], [1, 1]])
  np.testing.assert_allclose(
      moved, gradient / np.linalg.norm(gradient), rtol=1e-5)


def test_warmup_cosine_has_three_parts():
  step = tf.placeholder(tf.int64, [])
  rate = optimizers.warmup_cosine(step, 1.0, 9, 100, 0.1)
  with tf.Session() as sess:
    got = [sess.run(rate, {step: s}) for s in (0, 4, 9, 59, 109, 500)]
  np.testing.assert_allclose(got, [0.1, 0.5, 1.0, 0.55, 0.1, 0.1], rtol=1e-5)


def test_batch_norm_statistics_move_with_the_step():
  tf.train.create_global_step()
  x = tf.constant([[1.0], [3.0]]) * tf.get_variable('w', initializer=1.0)
  y = tf.layers.batch_normalization(x, training=True, momentum=0.5)
  step = optimizers.train_op(optimizers.adam, tf.reduce_sum(y * y))
  mean, = [v for v in tf.global_variables() if 'moving_mean' in v.name]
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    sess.run(step)
    assert sess.run(mean) == pytest.approx(1.0)  # half of the batch mean


@pytest.mark.parametrize('make, message', [
    (lambda: optimizers.adam(0), 'adam.learning_rate must be positive, got 0'),
    (lambda: optimizers.sgd(0.1, 1.5), r'sgd.momentum must be in \[0, 1\)'),
    (lambda: optimizers.warmup_cosine(tf.constant(0), 0),
     'warmup_cosine.peak must be positive'),
])
def test_refuses(make, message):
  with pytest.raises(errors.UserError, match=message):
    make()
