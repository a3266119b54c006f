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
    (optimizers.lazy_adam, {}, adam),
    (optimizers.adagrad, {}, adagrad),
    (optimizers.sgd, {}, sgd),
    (optimizers.sgd, {'momentum': 0.9}, momentum),
]
every = pytest.mark.parametrize(
    'make, kwargs, rule', TABLE,
    ids=['%s%d' % (make.__name__, len(kwargs)) for make, kwargs, _ in TABLE])


def trained(make, clip_norm=None, steps=4, op_fusion=False):
  """Minimises sum(w^2) from START; returns w."""
  tf.train.create_global_step()
  w = tf.get_variable('w', initializer=START.astype('f'))
  step = optimizers.train_op(
      make, tf.reduce_sum(w * w), clip_norm, op_fusion)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    for _ in range(steps):
      sess.run(step)
    assert sess.run(tf.train.get_global_step()) == steps
    return sess.run(w)


@pytest.mark.parametrize('op_fusion', [False, True])
@every
def test_matches_numpy_with_a_constant_rate(make, kwargs, rule, op_fusion):
  got = trained(lambda: make(learning_rate=0.1, **kwargs), op_fusion=op_fusion)
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


@pytest.mark.parametrize('op_fusion', [False, True])
def test_lazy_adam_leaves_untouched_rows_alone(op_fusion):
  # The rows of each step; a row that comes twice gets its gradients' sum.
  batches = [[1, 1, 3], [3], [1, 0], [3, 3, 3], [1]]
  start = np.random.RandomState(0).rand(5, 2).astype('f')
  tf.train.create_global_step()
  table = tf.get_variable('table', initializer=start)
  dense = tf.get_variable('dense', initializer=START.astype('f'))
  rows = tf.placeholder(tf.int64, [None])
  loss = tf.reduce_sum(tf.square(tf.nn.embedding_lookup(table, rows))) + (
      tf.reduce_sum(dense * dense))
  step = optimizers.train_op(
      lambda: optimizers.lazy_adam(0.1), loss, op_fusion=op_fusion)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    for batch in batches:
      sess.run(step, {rows: batch})
    got_table, got_dense = sess.run([table, dense])
  wanted, m, v = start.astype('d'), np.zeros((5, 2)), np.zeros((5, 2))
  for t, batch in enumerate(batches, 1):
    for row in set(batch):
      g = 2 * wanted[row] * batch.count(row)
      m[row] = 0.9 * m[row] + 0.1 * g
      v[row] = 0.999 * v[row] + 0.001 * g * g
      wanted[row] -= 0.1 * (1 - 0.999 ** t) ** .5 / (1 - 0.9 ** t) * m[row] / (
          v[row] ** .5 + 1e-8)
  np.testing.assert_allclose(got_table, wanted, rtol=1e-5)
  np.testing.assert_array_equal(got_table[[2, 4]], start[[2, 4]])
  np.testing.assert_allclose(
      got_dense, adam(START, lambda w: 2 * w, [0.1] * 5), rtol=1e-5)


@pytest.mark.parametrize('op_fusion', [False, True])
def test_lazy_adam_does_not_write_to_what_was_read(op_fusion):
  # In one step: read, update in place. What was read must stay what it was.
  tf.train.create_global_step()
  w = tf.get_variable('w', initializer=START.astype('f'))
  before = w.read_value()
  with tf.control_dependencies([before]):
    step = optimizers.train_op(lambda: optimizers.lazy_adam(0.1),
                               tf.reduce_sum(w * w), op_fusion=op_fusion)
  with tf.control_dependencies([step]):
    after = tf.identity(before)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    np.testing.assert_array_equal(sess.run(after), START)
    assert np.abs(sess.run(w) - START).min() > 0.05


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
