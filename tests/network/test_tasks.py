"""Losses and metrics of a task, by hand."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.network import metrics
from ple_estimator.network import objective
from ple_estimator.network import tasks
from ple_estimator.network import towers


def task(**kwargs):
  return tasks.Task('t', 'y', tower=towers.Tower(), **kwargs)


def run(tensors):
  with tf.Session() as sess:
    sess.run([tf.global_variables_initializer(),
              tf.local_variables_initializer()])
    return sess.run(tensors)


LABELS = np.array([1, 0, 0, 1, 1], 'f')
LOGITS = np.array([2, -1, 0.5, -3, 0], 'f')
WEIGHTS = np.array([1, 2, 0, 0.5, 1], 'f')
P = 1 / (1 + np.exp(-LOGITS))
CROSS_ENTROPY = -(LABELS * np.log(P) + (1 - LABELS) * np.log(1 - P))


def test_binary_loss_is_the_weighted_mean_cross_entropy():
  got = run(task().loss(*map(tf.constant, (LABELS, LOGITS, WEIGHTS))))
  assert got == pytest.approx(np.average(CROSS_ENTROPY, weights=WEIGHTS))


def test_training_goes_by_smoothed_labels_and_metrics_do_not():
  made = task(label_smoothing=0.2)
  labels = tf.constant(LABELS)
  np.testing.assert_allclose(
      run(made.smoothed(labels)), [0.9, 0.1, 0.1, 0.9, 0.9], rtol=1e-6)
  smooth = -(0.1 + 0.8 * LABELS) * np.log(P) - (0.9 - 0.8 * LABELS) * np.log(
      1 - P)
  targets = objective.Targets({'y': labels}, {'t': tf.constant(WEIGHTS)})
  logits = {'t': tf.constant(LOGITS)}
  for training, losses in [(True, smooth), (False, CROSS_ENTROPY)]:
    got = objective.losses([made], targets, logits, training)
    assert run(got['t']) == pytest.approx(np.average(losses, weights=WEIGHTS))
  assert measured(made) == pytest.approx(measured(task()))


def test_loss_without_a_row_of_the_sample_space_is_zero_with_its_gradient():
  logits = tf.constant(LOGITS)
  loss = task().loss(tf.constant(LABELS), logits, tf.zeros([5]))
  got, gradient = run([loss, tf.gradients(loss, logits)[0]])
  assert got == 0 and not gradient.any()


def test_regression_loss_is_the_mean_squared_error():
  got = run(task(loss='regression').loss(
      *map(tf.constant, (LABELS, LOGITS, WEIGHTS))))
  assert got == pytest.approx(
      np.average((LOGITS - LABELS) ** 2, weights=WEIGHTS))


def test_sampled_rows_do_not_count_and_predictions_are_corrected():
  made, w = task(negative_rate=0.25, positive_weight=2.0), 0.25
  chance = np.array([0.9, 0.2, 0.1, 0.3, 0.25], 'f')
  labels = np.array([1, 0, 0, 0, 0], 'f')
  weights = run(made.training_weights(*map(tf.constant, (
      labels, WEIGHTS, chance))))
  assert weights.tolist() == [2 * 1, 2, 0, 0, 0]  # WEIGHTS[2] is 0
  q = run(made.predictions(made.corrected(tf.constant(LOGITS))))
  np.testing.assert_allclose(q, P / (P + (1 - P) / w), rtol=1e-6)
  trained, answered = [run(tasks.with_products([made], {
      't': tf.constant(LOGITS)}, training)['t']) for training in (True, False)]
  np.testing.assert_array_equal(trained, LOGITS)
  np.testing.assert_allclose(answered, LOGITS + np.log(w), rtol=1e-6)


def test_a_product_is_of_corrected_logits_in_training_too():
  ctr = tasks.Task('ctr', 'clk', towers.Tower(), negative_rate=0.1)
  both = tasks.ProductTask('both', [ctr, CVR])
  logits = {'ctr': tf.constant(LOGITS), 'cvr': tf.constant(LOGITS)}
  found = [run(both.predictions(tasks.with_products(
      [ctr, CVR, both], logits, training)['both']))
           for training in (True, False)]
  q = P / (P + (1 - P) / 0.1)
  np.testing.assert_allclose(found, [q * P] * 2, rtol=1e-5)


def test_loss_weight_changes_with_the_step():
  step = tf.constant(3, tf.int64)
  assert run(task(weight=2.0, gamma=0.5).loss_weight(step)) == 2 * 0.125
  assert run(task(weight=2.0).loss_weight(step)) == 2


def measured(made):
  found = made.metrics(*map(tf.constant, (LABELS, LOGITS, WEIGHTS)))
  values = {k: v[0] for k, v in found.items()}
  with tf.Session() as sess:
    sess.run(tf.local_variables_initializer())
    sess.run([v[1] for v in found.values()])
    return sess.run(values)


def test_binary_metrics():
  got = measured(task())
  mean = lambda x: np.average(x, weights=WEIGHTS)
  assert got == {
      # Positive and negative rows of weight: 2 > -1 (1 * 2), -3 < -1, 0 > -1.
      't/auc': pytest.approx(4 / 5),
      't/log_loss': pytest.approx(mean(CROSS_ENTROPY)),
      't/accuracy': pytest.approx(3 / 4.5),
      't/calibration': pytest.approx(mean(P) / mean(LABELS)),
      't/label/mean': pytest.approx(mean(LABELS)),
      't/prediction/mean': pytest.approx(mean(P)),
  }


def test_regression_metrics():
  got = measured(task(loss='regression'))
  mean = lambda x: np.average(x, weights=WEIGHTS)
  assert got['t/rmse'] == pytest.approx(mean((LOGITS - LABELS) ** 2) ** .5)
  assert got['t/mae'] == pytest.approx(mean(abs(LOGITS - LABELS)))
  assert got['t/calibration'] == pytest.approx(mean(LOGITS) / mean(LABELS))
  assert 't/auc' not in got


def test_better_is_larger_for_auc_and_smaller_for_loss():
  nan = float('nan')
  assert metrics.is_better('ctr/auc', 0.7, than=0.6)
  assert not metrics.is_better('ctr/log_loss', 0.7, than=0.6)
  assert metrics.is_better('loss', 0.5, than=0.6)
  assert metrics.is_better('ctr/auc', 0.5, than=nan)
  assert not metrics.is_better('ctr/auc', nan, than=0.5)


@pytest.mark.parametrize('bad, message', [
    ({'name': 'a b'}, "Task.name must be letters, digits, - and _, got 'a b'"),
    ({'name': 'shared'}, "Task.name must not be 'shared'"),
    ({'loss': 'mse'}, "Task.loss must be 'binary', 'regression', 'poisson' or "
     r"'lognormal', or an object such as @Tweedie\(\) .*, got 'mse'"),
    ({'weight': -1}, 'Task.weight must be a finite number .*, got -1'),
    ({'weight': 'x'}, "Task.weight must be a finite number .*, got 'x'"),
    ({'gamma': 0}, 'Task.gamma must be a finite number above 0, got 0'),
    ({'weight_column': 3}, 'Task.weight_column must be a text .* or None'),
    ({'positive_weight': 0}, 'Task.positive_weight must be .* above 0, got 0'),
    ({'positive_weight': 2.0, 'loss': 'regression'},
     'Task.positive_weight must be 1 for a loss that is not binary, got 2.0'),
    ({'negative_rate': 0}, r'Task.negative_rate must be a number in \(0, 1\]'),
    ({'negative_rate': 0.5, 'loss': 'poisson'},
     'Task.negative_rate must be 1 for a loss that is not binary, got 0.5'),
    ({'sample_space': 'clk'}, 'Task.sample_space must be a pair'),
    ({'label_smoothing': 0.5},
     r'Task.label_smoothing must be a number in \[0, 0.5\), got 0.5'),
    ({'label_smoothing': 0.1, 'loss': 'regression'},
     'Task.label_smoothing must be 0 for a loss that is not binary, got 0.1 in '
     'task t'),
])
def test_refuses(bad, message):
  with pytest.raises(errors.UserError, match=message):
    tasks.Task(**dict(dict(name='t', label='y', tower=towers.Tower()), **bad))


def test_the_initial_bias_is_the_log_odds_of_the_first_batch():
  labels, weights = tf.constant(LABELS), tf.constant(WEIGHTS)
  # The weights of label 1 sum to 2.5 of 4.5, and half a row more on either
  # side weighs 0.5 * 4.5 / 5.
  half = 0.5 * 4.5 / 5
  assert run(task().initial_bias(labels, weights)) == pytest.approx(
      np.log((2.5 + half) / (2 + half)), rel=1e-5)
  assert run(task(loss='regression').initial_bias(
      labels, weights)) == pytest.approx(2.5 / 4.5)
  assert run(task(initial_bias=-3).initial_bias(labels, weights)) == -3


@pytest.mark.parametrize('labels, sign', [([0, 0, 0], -1), ([1, 1, 1], 1)])
def test_a_first_batch_of_one_label_gives_a_finite_bias(labels, sign):
  found = run(task().initial_bias(tf.constant(labels, tf.float32),
                                  tf.ones([3])))
  assert found == pytest.approx(sign * np.log(3.5 / 0.5))
  # No row counts for the task.
  assert run(task().initial_bias(tf.zeros([3]), tf.zeros([3]))) == 0
  assert run(task(loss='regression').initial_bias(
      tf.zeros([3]), tf.zeros([3]))) == 0


def test_refuses_an_initial_bias():
  with pytest.raises(errors.UserError, match="Task.initial_bias must be "
                     "'labels' or a finite number, got 'label'"):
    task(initial_bias='label')


CTR, CVR = [tasks.Task(name, label, towers.Tower()) for name, label in (
    ('ctr', 'clk'), ('cvr', 'buy'))]


def test_a_product_has_the_product_of_probabilities_and_labels():
  made = tasks.ProductTask('both', [CTR, CVR])
  a, b = np.array([-9, 0, 2, 40], 'f'), np.array([1, -30, 3, 60], 'f')
  logit, p = run([made.logits({'ctr': a, 'cvr': b}),
                  made.predictions(made.logits({'ctr': a, 'cvr': b}))])
  sigmoid = lambda x: 1 / (1 + np.exp(-x.astype(float)))
  product = sigmoid(a) * sigmoid(b)
  # The op of TensorFlow 1.15 is 0 below 10^-8.
  np.testing.assert_allclose(p, product, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(  # 1 - p q without the rounding of p q
      logit, np.log(product) - np.log(
          sigmoid(-a) + sigmoid(a) * sigmoid(-b)), rtol=1e-5)
  label = made.target({'clk': np.array([0, 1, 1]), 'buy': np.array([0, 0, 1])})
  assert label.tolist() == [0, 0, 1]


def test_the_product_of_three_is_that_of_two_and_one():
  third = tasks.Task('pay', 'paid', towers.Tower())
  logits = {'ctr': LOGITS, 'cvr': LOGITS[::-1].copy(), 'pay': LABELS}
  both, all_three = run([
      tasks.ProductTask('both', [CTR, CVR]).logits(logits),
      tasks.ProductTask('all', [CTR, CVR, third]).logits(logits)])
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  np.testing.assert_allclose(
      sigmoid(all_three), sigmoid(both) * sigmoid(LABELS), rtol=1e-5)


@pytest.mark.parametrize('of, message', [
    ([CTR], 'at least two different tasks, got ctr'),
    ([CTR, CTR], 'at least two different tasks, got ctr, ctr'),
    ([], 'must be a list of binary tasks'),
    ([CTR, tasks.Task('r', 'y', towers.Tower(), 'regression')],
     'must be a list of binary tasks'),
    ([CTR, tasks.ProductTask('p', [CTR, CVR])],
     'must be a list of binary tasks'),
])
def test_refuses_a_product(of, message):
  with pytest.raises(errors.UserError, match='ProductTask.of .*' + message):
    tasks.ProductTask('both', of)
