"""Each loss against numpy, by its equation, and against scikit-learn."""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.network import losses
from ple_estimator.network import objective
from ple_estimator.network import tasks
from ple_estimator.network import towers

RNG = np.random.RandomState(4)
LABELS = np.array([0, 2, 1, 5, 0.5, 3], 'f')
WEIGHTS = np.array([1, 2, 0.5, 0, 1, 3], 'f')
LOGITS = RNG.randn(6).astype('f')
CLASSES = np.array([0, 2, 1, 2, 0, 2], 'f')


def run(tensors):
  with tf.Session() as sess:
    sess.run([tf.global_variables_initializer(),
              tf.local_variables_initializer()])
    return sess.run(tensors)


def rows(loss, labels, logits):
  return run(loss.of_rows(tf.constant(labels), tf.constant(logits)))


def measured(loss, labels, logits):
  """All metrics, by updates of two batches."""
  batch = tf.placeholder(tf.int32, [None])
  parts = [tf.gather(tf.constant(x), batch) for x in (labels, logits, WEIGHTS)]
  found = loss.metrics(*parts)
  with tf.Session() as sess:
    sess.run(tf.local_variables_initializer())
    for indices in ([0, 1, 2, 3], [4, 5]):
      sess.run([m[1] for m in found.values()], {batch: indices})
    return sess.run({name: m[0] for name, m in found.items()})


def mean(values):
  return np.average(values, weights=WEIGHTS)


def test_poisson_is_its_likelihood():
  counts = np.round(LABELS)
  loss = losses.Poisson()
  m = np.exp(LOGITS)
  likelihood = [m[i]**y * math.exp(-m[i]) / math.factorial(int(y))
                for i, y in enumerate(counts)]
  log_factorials = np.log([float(math.factorial(int(y))) for y in counts])
  np.testing.assert_allclose(
      rows(loss, counts, LOGITS) + log_factorials, -np.log(likelihood),
      rtol=1e-5)
  np.testing.assert_allclose(run(loss.predictions(LOGITS)), m, rtol=1e-6)


@pytest.mark.parametrize('power', [1.1, 1.5, 1.9])
def test_tweedie_is_its_equation(power):
  p, m = power, np.exp(LOGITS)
  np.testing.assert_allclose(
      rows(losses.Tweedie(power), LABELS, LOGITS),
      -LABELS * m**(1 - p) / (1 - p) + m**(2 - p) / (2 - p), rtol=1e-5)


@pytest.mark.parametrize('loss, power', [
    (losses.Poisson(), 1), (losses.Tweedie(1.3), 1.3)])
def test_deviance_is_that_of_scikit_learn(loss, power):
  metrics = pytest.importorskip('sklearn.metrics')
  got = measured(loss, LABELS, LOGITS)
  assert got['deviance'] == pytest.approx(metrics.mean_tweedie_deviance(
      LABELS, np.exp(LOGITS), sample_weight=WEIGHTS, power=power), rel=1e-5)
  assert got['rmse'] == pytest.approx(np.sqrt(mean(
      (np.exp(LOGITS) - LABELS)**2)), rel=1e-5)
  assert got['calibration'] == pytest.approx(
      mean(np.exp(LOGITS)) / mean(LABELS), rel=1e-5)


@pytest.mark.parametrize('loss', [losses.Poisson(), losses.Tweedie()])
def test_losses_of_a_log_link_are_least_at_the_mean(loss):
  """What the loss is for: its best constant is the mean of the labels."""
  at = tf.linspace(-2.0, 2.0, 4001)
  total = sum(float(w) * loss.of_rows(tf.fill([4001], float(y)), at)
              for w, y in zip(WEIGHTS, LABELS))
  best = run(tf.gather(at, tf.argmin(total)))
  assert best == pytest.approx(np.log(mean(LABELS)), abs=2e-3)
  assert run(loss.first_bias(LABELS, WEIGHTS)) == pytest.approx(
      np.log(mean(LABELS)), rel=1e-5)
  assert run(loss.first_bias(np.zeros(3, 'f'), np.ones(3, 'f'))) == 0
  # A row outside of the sample space may have any label.
  assert np.isfinite(run(loss.deviance(
      np.array([-1.0], 'f'), np.array([0.5], 'f')))).all()


def test_log_normal_is_its_likelihood():
  y, loss = LABELS + 0.25, losses.LogNormal()
  logits = RNG.randn(6, 2).astype('f')
  z, s = logits[:, 0], np.log1p(np.exp(logits[:, 1]))
  density = np.exp(-(np.log(y) - z)**2 / (2 * s**2)) / (
      y * s * np.sqrt(2 * np.pi))
  np.testing.assert_allclose(rows(loss, y, logits), -np.log(density), rtol=1e-4)
  got = measured(loss, y, logits)
  p = np.exp(z + s**2 / 2)
  np.testing.assert_allclose(run(loss.predictions(logits)), p, rtol=1e-5)
  assert got['nll'] == pytest.approx(mean(-np.log(density)), rel=1e-4)
  assert got['mae'] == pytest.approx(mean(abs(p - y)), rel=1e-5)
  assert np.isfinite(rows(loss, np.array([0, -1], 'f'), logits[:2])).all()


def test_log_normal_starts_from_mean_and_deviation_of_logarithms():
  y = LABELS + 0.25
  z, r = run(losses.LogNormal().first_bias(y, WEIGHTS))
  assert z == pytest.approx(mean(np.log(y)), rel=1e-5)
  assert np.log1p(np.exp(r)) == pytest.approx(
      np.sqrt(mean((np.log(y) - mean(np.log(y)))**2)), rel=1e-4)
  # The mean of many draws is what is predicted.
  draws = np.exp(np.random.RandomState(0).normal(1, 0.7, 400000)).astype('f')
  loss = losses.LogNormal()
  bias = loss.first_bias(draws, np.ones_like(draws))
  assert run(loss.predictions(bias[tf.newaxis]))[0] == pytest.approx(
      draws.mean(), rel=0.01)
  assert (run(loss.first_bias(y, np.zeros(6, 'f'))) == 0).all()
  assert np.isfinite(run(loss.first_bias(np.ones(6, 'f'), WEIGHTS))).all()


def test_multi_class_is_that_of_scikit_learn():
  metrics = pytest.importorskip('sklearn.metrics')
  loss, logits = losses.MultiClass(3), RNG.randn(6, 3).astype('f')
  p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  np.testing.assert_allclose(run(loss.predictions(logits)), p, rtol=1e-5)
  picked = p[np.arange(6), CLASSES.astype(int)]
  np.testing.assert_allclose(
      rows(loss, CLASSES, logits), -np.log(picked), rtol=1e-5)
  got = measured(loss, CLASSES, logits)
  assert got['log_loss'] == pytest.approx(metrics.log_loss(
      CLASSES, p, sample_weight=WEIGHTS, labels=[0, 1, 2]), rel=1e-5)
  assert got['accuracy'] == pytest.approx(metrics.accuracy_score(
      CLASSES, p.argmax(axis=1), sample_weight=WEIGHTS))
  for i in range(3):
    assert got['label/class_%d' % i] == pytest.approx(mean(CLASSES == i))
    assert got['prediction/class_%d' % i] == pytest.approx(
        mean(p[:, i]), rel=1e-5)


def test_class_weights_count_in_training_alone():
  weights, logits = (0.5, 3, 7.25), RNG.randn(6, 3).astype('f')
  loss = losses.MultiClass(3, weights)
  task = tasks.Task('t', 'y', towers.Tower((2,)), loss)
  p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  of_rows = -np.log(p[np.arange(6), CLASSES.astype(int)])
  by_class = np.choose(CLASSES.astype(int), weights)
  targets = objective.Targets(
      {'y': tf.constant(CLASSES)}, {'t': tf.constant(WEIGHTS)})
  trained = objective.in_training([task], targets)
  found = run([objective.losses([task], of, {'t': tf.constant(logits)})['t']
               for of in (trained, targets)])
  assert found[0] == pytest.approx(
      np.average(of_rows, weights=WEIGHTS * by_class), rel=1e-5)
  assert found[1] == pytest.approx(mean(of_rows), rel=1e-5)
  # The bias starts from the shares that the weights give.
  bias = run(task.initial_bias(CLASSES, trained.weights['t']))
  counts = np.array([(WEIGHTS * by_class)[CLASSES == i].sum()
                     for i in range(3)]) + (WEIGHTS * by_class).sum() / 12
  np.testing.assert_allclose(np.exp(bias) / np.exp(bias).sum(),
                             counts / counts.sum(), rtol=1e-5)


@pytest.mark.parametrize('weights', [(1, 2), (1, 2, 0), (1, -1, 2), 3, (1e-50,),
                                     [1, 2, float('nan')]])
def test_refuses_class_weights(weights):
  with pytest.raises(errors.UserError, match='^MultiClass.class_weights must'):
    losses.MultiClass(3, weights)


def test_multi_class_starts_from_the_shares_of_classes():
  bias = run(losses.MultiClass(4).first_bias(CLASSES, WEIGHTS))
  counts = np.array([WEIGHTS[CLASSES == i].sum() for i in range(4)])
  counts += 0.5 * WEIGHTS.sum() / 6
  assert bias.sum() == pytest.approx(0, abs=1e-5)
  np.testing.assert_allclose(np.exp(bias) / np.exp(bias).sum(),
                             counts / counts.sum(), rtol=1e-5)
  zeros = run(losses.MultiClass(4).first_bias(CLASSES, np.zeros(6, 'f')))
  np.testing.assert_allclose(zeros, 0, atol=1e-5)


def test_two_classes_are_the_binary_loss():
  two = np.stack([np.zeros(6, 'f'), LOGITS], axis=1)
  labels = (LABELS > 1).astype('f')
  np.testing.assert_allclose(
      rows(losses.MultiClass(2), labels, two),
      rows(losses.Binary(), labels, LOGITS), rtol=1e-5)


@pytest.mark.parametrize('loss, values, message', [
    (losses.Binary(), None, "binary task t must be 0 or 1: add 'values'"),
    (losses.Binary(), (0, 1, 2), 'must be 0 or 1'),
    (losses.Poisson(), (-2, -1), "must be at least 0 for its Task.loss, got "
     r"'values' \(-2, -1\)"),
    (losses.LogNormal(), (0,), 'must be above 0'),
    (losses.MultiClass(3), None, 'must be a class from 0 to 2'),
    (losses.MultiClass(3), (0, 3), 'must be a class from 0 to 2'),
])
def test_refuses_a_label(loss, values, message):
  with pytest.raises(errors.UserError, match=message):
    loss.check_label('t', 'y', values)


def test_takes_a_label():
  losses.Poisson().check_label('t', 'y', (0, 1, 2))
  losses.SquaredError().check_label('t', 'y', None)
  losses.MultiClass(3).check_label('t', 'y', (0, 1, 2))


def test_a_loss_of_ones_own_serves():
  class Absolute(losses.SquaredError):
    """The absolute error."""

    def of_rows(self, labels, logits):
      return tf.abs(labels - logits)

  made = Absolute()
  assert losses.of('Task.loss', made) is made
  assert losses.of('Task.loss', 'poisson').measures == (
      'deviance', 'rmse', 'mae')
  with pytest.raises(errors.UserError, match='Task.loss must be .*, got @Abs'):
    losses.of('Task.loss', Absolute)
