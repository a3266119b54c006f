"""A model that can be differentiated by hand, with three tasks.

The input x of a row is a row of a table. All tasks share h = x W, and task k
has the logit h . v_k. Tasks 'click' and 'buy' are binary, 'stay' is a
regression; 'buy' counts only some rows.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator.balancing import batch as batch_lib
from ple_estimator.network import gradients
from ple_estimator.network import objective
from ple_estimator.network import tasks
from ple_estimator.network import towers

NAMES = ['click', 'stay', 'buy']
TASKS = [tasks.Task('click', 'click', towers.Tower(), weight=0.5),
         tasks.Task('stay', 'stay', towers.Tower(), 'regression', weight=2.0),
         tasks.Task('buy', 'buy', towers.Tower())]
WEIGHTS = np.array([0.5, 2.0, 1.0])
RATE = 0.05
SHARED = ['table', 'shared']


def parameters():
  rng = np.random.RandomState(3)
  found = {'table': rng.randn(5, 3), 'shared': rng.randn(3, 2)}
  found.update((name, rng.randn(2, 1)) for name in NAMES)
  return found


def batches(count=5, rows=6):
  """Batches of different rows; the third has none that counts for 'buy'."""
  rng = np.random.RandomState(4)
  found = []
  for i in range(count):
    weights = {name: rng.rand(rows) for name in NAMES}
    weights['buy'] *= 0 if i == 2 else rng.rand(rows) < 0.7
    found.append({
        'ids': rng.randint(5, size=rows), 'weights': weights,
        'labels': {'click': rng.randint(2, size=rows),
                   'stay': rng.randn(rows) + 1,
                   'buy': rng.randint(2, size=rows)}})
  return found


def differentiated(params, batch):
  """Losses and gradients of each task, not weighted, by hand.

  Returns:
    (losses, gradients): [tasks] float64, and a list of dicts of arrays.
  """
  x = params['table'][batch['ids']]
  h = x.dot(params['shared'])
  losses, found = [], []
  for name in NAMES:
    logit, y = h.dot(params[name])[:, 0], batch['labels'][name]
    weights = batch['weights'][name] / max(batch['weights'][name].sum(), 1e-30)
    if name == 'stay':
      loss, d = (logit - y) ** 2, 2 * (logit - y)
    else:
      loss = np.log1p(np.exp(logit)) - y * logit
      d = 1 / (1 + np.exp(-logit)) - y
    d = (weights * d)[:, np.newaxis]
    table = np.zeros_like(params['table'])
    np.add.at(table, batch['ids'], d.dot(params[name].T).dot(
        params['shared'].T))
    found.append({'table': table, 'shared': x.T.dot(d.dot(params[name].T)),
                  name: h.T.dot(d)})
    losses.append((weights * loss).sum())
  return np.array(losses), found


def descended(params, gradients_of, factors, shared_factors=None):
  """A step of gradient descent with factors for each task, by hand."""
  after = dict(params)
  for k, of in enumerate(gradients_of):
    for name, gradient in of.items():
      factor = (shared_factors if name in SHARED and shared_factors is not None
                else factors)[k]
      after[name] = after[name] - RATE * WEIGHTS[k] * factor * gradient
  return after


def _build(rows):
  def variable(name, shape):
    return tf.get_variable(name, shape)
  hidden = tf.matmul(rows, variable('shared', [3, 2]))
  return {name: tf.matmul(hidden, variable(name, [2, 1]))[:, 0]
          for name in NAMES}, {}


def trained(balancing, feeds, slices=1, fetch=()):
  """Trains a step per batch.

  Args:
    balancing: balancing.Balancing.
    feeds: list of what `batches` makes.
    slices: int, micro-batches.
    fetch: names of tensors.

  Returns:
    (values, losses, fetched): lists over steps of a dict of variable name to
    its value after the step, of the trained loss, and of the fetched tensors.
  """
  step = tf.train.get_or_create_global_step()
  table = tf.get_variable('table', [5, 3])
  def placeholders(dtype):
    return {name: tf.placeholder(dtype, [None]) for name in NAMES}
  ids, labels = tf.placeholder(tf.int64, [None]), placeholders(tf.float32)
  weights = placeholders(tf.float32)
  inputs = tf.nn.embedding_lookup(table, ids)
  found = balancing.balanced(batch_lib.Batch(
      TASKS, inputs, objective.Targets(labels, weights), _build, slices,
      plain=_build, is_beside=lambda name: False, tables=[table]))
  loss = objective.total(TASKS, found.losses, found.terms)
  pairs = gradients.complete(
      tf.trainable_variables(), found.gradients, inputs, found.d_inputs)
  with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
    update = tf.train.GradientDescentOptimizer(RATE).apply_gradients(
        pairs, step)
  graph, after, losses, fetched = tf.get_default_graph(), [], [], []
  fetch = [graph.get_tensor_by_name(name) for name in fetch]
  values = {v.op.name: v for v in tf.global_variables()}
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    session.run([values[name].assign(value)
                 for name, value in parameters().items()])
    for batch in feeds:
      feed = {ids: batch['ids']}
      for name in NAMES:
        feed[labels[name]] = batch['labels'][name]
        feed[weights[name]] = batch['weights'][name]
      of_step, loss_of_step, _ = session.run([fetch, loss, update], feed)
      fetched.append(of_step)
      losses.append(loss_of_step)
      after.append(session.run(values))
  return after, losses, fetched


def assert_equal(got, wanted):
  """Compares the variables after each step with those found by hand."""
  assert len(got) == len(wanted)
  for step, (of_step, by_hand) in enumerate(zip(got, wanted)):
    for name, value in by_hand.items():
      np.testing.assert_allclose(
          of_step[name], value, rtol=2e-4, atol=2e-5,
          err_msg='%s after step %d' % (name, step))
