"""Update rules against numpy, all of them in one table."""

import time

import conftest
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.engine import purpose
from ple_estimator.network import mlp
from ple_estimator.network import precision
from ple_estimator.optimizers import factories
from ple_estimator.optimizers import train_op

STARTS = [np.array(1.5), np.array([1.0, -2.0, 3.0]),
          np.array([[0.5, -1.0], [2.0, 0.1], [-3.0, 4.0]])]


class Rule:
  """One update rule in numpy, row by row of a [rows, dim] matrix, in place."""

  def __init__(self, w):
    self.w = w

  def dense(self, g, rate, t):
    self.rows(range(len(self.w)), g, rate, t)

  def rows(self, rows, g, rate, t):
    for row, g_row in zip(rows, g):
      self.row(row, g_row, rate, t)


class Sgd(Rule):

  def row(self, row, g, rate, t):
    self.w[row] -= rate * g


class Momentum(Rule):

  def __init__(self, w, momentum):
    self.w, self.momentum, self.m = w, momentum, 0 * w

  def row(self, row, g, rate, t):
    self.m[row] = self.momentum * self.m[row] + g
    self.w[row] -= rate * self.m[row]


class LazyAdam(Rule):

  def __init__(self, w):
    self.w, self.m, self.v = w, 0 * w, 0 * w

  def row(self, row, g, rate, t):
    self.m[row] = 0.9 * self.m[row] + 0.1 * g
    self.v[row] = 0.999 * self.v[row] + 0.001 * g * g
    mean, square = self.m[row] / (1 - 0.9 ** t), self.v[row] / (1 - 0.999 ** t)
    self.w[row] -= rate * mean / (square ** .5 + 1e-8)


class Adam(LazyAdam):

  def rows(self, rows, g, rate, t):
    everywhere = 0 * self.w
    everywhere[list(rows)] = np.reshape(g, (-1, self.w.shape[1]))
    super().rows(range(len(self.w)), everywhere, rate, t)


class AdamAsync(LazyAdam):

  def __init__(self, w, apply_sparse_rmsprop=False):
    super().__init__(w)
    self.rmsprop, self.steps = apply_sparse_rmsprop, 0

  def dense(self, g, rate, t):
    self.steps += 1
    super().rows(range(len(self.w)), g, rate, self.steps)

  def rows(self, rows, g, rate, t):
    if not self.rmsprop:
      self.steps += 1
      super().rows(rows, g, rate, self.steps)
      return
    for row, g_row in zip(rows, g):
      self.v[row] = 0.999 * self.v[row] + 0.001 * g_row ** 2
      self.m[row] = 0.9 * self.m[row] + rate * g_row / (
          self.v[row] + 1e-8) ** .5
      self.w[row] -= self.m[row]


class AdamW(LazyAdam):

  def __init__(self, w, weight_decay, decay_follows_rate=True):
    super().__init__(w)
    self.decay, self.follows = weight_decay, decay_follows_rate

  def row(self, row, g, rate, t):
    self.w[row] *= 1 - self.decay * (rate if self.follows else 1)
    super().row(row, g, rate, t)


class Adagrad(Rule):

  def __init__(self, w):
    self.w, self.total = w, 0 * w + 0.1

  def row(self, row, g, rate, t):
    self.total[row] += g * g
    self.w[row] -= rate * g / self.total[row] ** .5


class AdagradDecay(Adagrad):

  def __init__(self, w, decay_steps, decay_rate):
    super().__init__(w)
    self.decay_steps, self.decay_rate = decay_steps, decay_rate
    self.decays = [0] * len(w)

  def row(self, row, g, rate, t):
    if t // self.decay_steps > self.decays[row]:
      self.decays[row] += 1
      self.total[row] = np.maximum(self.total[row] * self.decay_rate, 0.1)
    super().row(row, g, rate, t)


class Ftrl(Rule):

  def __init__(self, w, learning_rate_power=-.5,
               initial_accumulator_value=1e-10, l1=0., l2=0.):
    self.w, self.z, self.n = w, 0 * w, 0 * w + initial_accumulator_value
    self.power, self.l1, self.l2 = -learning_rate_power, l1, l2

  def row(self, row, g, rate, t):
    old, self.n[row] = self.n[row].copy(), self.n[row] + g * g
    new = self.n[row]
    self.z[row] += g - (new ** self.power - old ** self.power) / rate * (
        self.w[row])
    z = self.z[row]
    self.w[row] = np.where(abs(z) <= self.l1, 0, -(
        z - np.sign(z) * self.l1) / (new ** self.power / rate + 2 * self.l2))


TABLE = [
    (factories.adam, {}, Adam),
    (factories.lazy_adam, {}, LazyAdam),
    (factories.adam_async, {}, AdamAsync),
    (factories.adam_async, {'apply_sparse_rmsprop': True}, AdamAsync),
    (factories.adamw, {'weight_decay': 0.1}, AdamW),
    (factories.adamw, {'weight_decay': 0.02, 'decay_follows_rate': False},
     AdamW),
    (factories.adagrad, {}, Adagrad),
    (factories.adagrad_decay, {'decay_steps': 4, 'decay_rate': 0.5},
     AdagradDecay),
    (factories.ftrl, {}, Ftrl),
    (factories.ftrl, {'learning_rate_power': -0.7, 'l1': 0.3, 'l2': 0.2,
                       'initial_accumulator_value': 0.1}, Ftrl),
    (factories.sgd, {}, Sgd),
    (factories.sgd, {'momentum': 0.9}, Momentum),
]
every = pytest.mark.parametrize(
    'make, kwargs, rule', TABLE,
    ids=['%s%d' % (make.__name__, len(kwargs)) for make, kwargs, _ in TABLE])
fused_or_not = pytest.mark.parametrize('fused', [False, True])


def check_dense(rule, kwargs, make, rates, clip_norm=None, fused=False):
  """Minimises the sum of squares of STARTS, here and in numpy."""
  tf.train.create_global_step()
  variables = [tf.get_variable('w%d' % i, initializer=start.astype('f'))
               for i, start in enumerate(STARTS)]
  step = conftest.train_op(
      make, tf.add_n([tf.reduce_sum(w * w) for w in variables]), clip_norm,
      fused)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    for _ in rates:
      sess.run(step)
    assert sess.run(tf.train.get_global_step()) == len(rates)
    got = sess.run(variables)
  wanted = [start.copy() for start in STARTS]
  made = [rule(w.reshape(w.shape[:1] + (-1,)), **kwargs) if w.ndim else
          rule(w.reshape(1, 1), **kwargs) for w in wanted]
  for t, rate in enumerate(rates, 1):
    gradients = [2 * each.w for each in made]
    if clip_norm:
      norm = np.sqrt(sum((g * g).sum() for g in gradients))
      gradients = [g * min(1, clip_norm / norm) for g in gradients]
    for each, g in zip(made, gradients):
      each.dense(g, rate, t)
  for w, found in zip(wanted, got):
    np.testing.assert_allclose(found, w, rtol=1e-4, atol=1e-5)


@fused_or_not
@every
def test_dense_matches_numpy_with_a_constant_rate(
    make, kwargs, rule, fused):
  check_dense(rule, kwargs, lambda: make(learning_rate=0.1, **kwargs),
              [0.1] * 30, fused=fused)


@every
def test_dense_matches_numpy_with_a_schedule(make, kwargs, rule):
  schedule = lambda step: factories.exponential_decay(step, 0.1, 1, 0.9)
  check_dense(rule, kwargs, lambda: make(learning_rate=schedule, **kwargs),
              [0.1 * 0.9 ** t for t in range(30)])


@every
def test_dense_matches_numpy_with_clipping(make, kwargs, rule):
  check_dense(rule, kwargs, lambda: make(learning_rate=0.1, **kwargs),
              [0.1] * 30, clip_norm=0.5)


@pytest.mark.parametrize('warmup', [0, 3])
@pytest.mark.parametrize('staircase', [False, True])
def test_exponential_decay_follows_a_warm_up(warmup, staircase):
  steps = tf.placeholder(tf.int64, [])
  rate = factories.exponential_decay(steps, 0.2, 2, 0.5, staircase, warmup)
  for step in range(10):
    past = (step - warmup) / 2
    wanted = 0.2 * (step + 1) / (warmup + 1) if step < warmup else (
        0.2 * 0.5 ** (past // 1 if staircase else past))
    with tf.Session() as session:
      assert session.run(rate, {steps: step}) == pytest.approx(wanted)


def stream(steps=80, height=9, width=2):
  """Random batches of (rows, targets); the last row is in none of them.

  Rows come several times in a batch, or stay away for many; a batch is empty.
  The last three have the first row only.
  """
  rng = np.random.RandomState(5)
  often = np.array([30, 20, 10, 5, 3, 2, 1, 1, 0]) / 72
  for step in range(steps):
    rows = rng.choice(height, 0 if step == 40 else rng.randint(1, 7), p=often)
    if step >= steps - 3:
      rows = np.zeros(2, int)
    yield rows, rng.randn(len(rows), width).astype('f')


@fused_or_not
@every
def test_rows_match_numpy(make, kwargs, rule, fused):
  start = np.random.RandomState(0).randn(9, 2).astype('f')
  tf.train.create_global_step()
  table = tf.get_variable('table', initializer=start)
  rows = tf.placeholder(tf.int64, [None])
  targets = tf.placeholder(tf.float32, [None, 2])
  made = make(learning_rate=0.05, **kwargs)
  step = conftest.train_op(lambda: made, tf.reduce_sum(tf.square(
      tf.nn.embedding_lookup(table, rows) - targets)), fused=fused)
  slots = [made.get_slot(table, name) for name in made.get_slot_names()]
  high = [slot for slot in slots if slot.shape[:1].as_list() == [9]]
  wanted = rule(start.astype('d'), **kwargs)
  batches = list(enumerate(stream(), 1))
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    slots_before = sess.run(high)
    for few in (batches[:-3], batches[-3:]):
      before, wanted_before = sess.run(table), wanted.w.copy()
      for t, (batch, wished) in few:
        sess.run(step, {rows: batch, targets: wished})
        touched = sorted(set(batch))
        wanted.rows(touched, [
            2 * (wanted.w[row] - wished[batch == row]).sum(axis=0)
            for row in touched], 0.05, t)
      after, slots_after = sess.run([table, high])
      np.testing.assert_allclose(after, wanted.w, rtol=1e-3, atol=1e-4)
      # Bit by bit: only stock Adam moves rows that the last batches lack.
      np.testing.assert_array_equal(after != before, wanted.w != wanted_before)
    if rule is AdamAsync:
      assert sess.run(made.get_slot(table, 'beta1_power')) == pytest.approx(
          0.9 ** (wanted.steps + 1), rel=1e-5)
  assert (rule is Adam) == (after != before)[1:].any()
  for slot_before, slot_after in zip(slots_before, slots_after):
    np.testing.assert_array_equal(slot_before[8], slot_after[8])
    assert np.any(slot_before != slot_after)


@every
def test_slots_are_made_by_initializers(make, kwargs, rule):
  # A table may intercept them, to leave unused memory alone.
  tf.train.create_global_step()
  made, seen = make(learning_rate=0.1, **kwargs), set()

  def record(getter, name, **more):
    assert callable(more['initializer']), name
    variable = getter(name, **more)
    seen.add(variable.op.name)
    return variable

  table = tf.get_variable('table', [9, 2])
  dense = tf.get_variable('dense', [9, 2])
  loss = tf.reduce_sum(tf.nn.embedding_lookup(table, [1])) + (
      tf.reduce_sum(dense))
  with tf.variable_scope('', custom_getter=record):
    conftest.train_op(lambda: made, loss)
  listed = {made.get_slot(variable, name).op.name
            for variable in (table, dense) for name in made.get_slot_names()}
  assert listed == seen
  assert {v.op.name for v in tf.global_variables()} == seen | {
      'table', 'dense', 'global_step'} | (
          {'beta1_power', 'beta2_power'}
          if issubclass(rule, LazyAdam) and rule is not AdamAsync else set())


def test_adam_async_counts_the_steps_of_each_variable():
  tf.train.create_global_step()
  made = factories.adam_async(0.1)
  w = [tf.get_variable('w%d' % i, initializer=STARTS[1].astype('f'))
       for i in range(2)]
  steps = [conftest.train_op(lambda: made, tf.reduce_sum(each * each))
           for each in w]
  powers = [[made.get_slot(each, name) for name in
             ('beta1_power', 'beta2_power')] for each in w]
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    for which in (0, 1, 1, 0, 1, 1, 1):
      sess.run(steps[which])
    got, powers = sess.run([w, powers])
  for each, found, count in zip(got, powers, (2, 5)):
    np.testing.assert_allclose(
        found, [0.9 ** (count + 1), 0.999 ** (count + 1)], rtol=1e-5)
    wanted = LazyAdam(STARTS[1].copy())
    for t in range(1, count + 1):
      wanted.dense(2 * wanted.w, 0.1, t)
    np.testing.assert_allclose(each, wanted.w, rtol=1e-5)


def test_adamw_excludes_parts_of_names():
  tf.train.create_global_step()
  w = {name: tf.get_variable(name, initializer=STARTS[1].astype('f'))
       for name in ('net/kernel', 'net/bias', 'net/gamma')}
  loss = tf.add_n([tf.reduce_sum(each * each) for each in w.values()])
  step = conftest.train_op(lambda: factories.adamw(
      0.1, weight_decay=0.5, exclude=('bias', 'gamma')), loss)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    sess.run(step)
    got = sess.run(w)
  # The first step of Adam is the learning rate.
  kept = STARTS[1] - 0.1 * np.sign(STARTS[1])
  for name, decay in [('net/kernel', 0.05), ('net/bias', 0), ('net/gamma', 0)]:
    np.testing.assert_allclose(got[name], kept - decay * STARTS[1], rtol=1e-5)
  with pytest.raises(errors.UserError, match="such as 'net/.*got 'biases'"):
    conftest.train_op(
        lambda: factories.adamw(0.1, exclude=('bias', 'biases')), loss)


@fused_or_not
def test_adamw_decays_what_has_been_used(fused):
  # Weights that are read late are read before they decay.
  def late(x):
    time.sleep(0.3)
    return x
  start = np.ones([3, 1], 'f')
  tf.train.create_global_step()
  table = tf.get_variable('table', initializer=start)
  dense = tf.get_variable('dense', initializer=start)
  with tf.control_dependencies([tf.py_func(late, [1.0], tf.float32)]):
    loss = tf.reduce_sum(tf.square(tf.gather(table, [0, 2]))) + (
        tf.reduce_sum(tf.square(dense.read_value())))
  step = conftest.train_op(
      lambda: factories.adamw(0.1, weight_decay=9.0), loss,
      fused=fused)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    assert sess.run([loss, step])[0] == 5


@fused_or_not
@every
def test_does_not_write_to_what_was_read(make, kwargs, rule, fused):
  # In one step: read, update in place. What was read must stay what it was.
  tf.train.create_global_step()
  start = STARTS[1]
  w = tf.get_variable('w', initializer=start.astype('f'))
  before = w.read_value()
  with tf.control_dependencies([before]):
    step = conftest.train_op(
        lambda: make(learning_rate=0.1, **kwargs),
        tf.reduce_sum(w * w), fused=fused)
  with tf.control_dependencies([step]):
    after = tf.identity(before)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    np.testing.assert_array_equal(sess.run(after), start)
    assert np.abs(sess.run(w) - start).min() > 0.05


def test_clipping_adds_up_the_slices_of_a_row_first():
  tf.train.create_global_step()
  table = tf.get_variable('table', initializer=tf.zeros([3, 2]))
  rows = tf.nn.embedding_lookup(table, tf.constant([1] * 100 + [2]))
  step = conftest.train_op(
      lambda: factories.sgd(1.0), tf.reduce_sum(rows), clip_norm=1.0)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    sess.run(step)
    moved = -sess.run(table)
  gradient = np.array([[0, 0], [100, 100], [1, 1]])
  np.testing.assert_allclose(
      moved, gradient / np.linalg.norm(gradient), rtol=1e-5)


def test_what_has_no_gradient_is_left_out():
  a, b, c = [tf.get_variable(name, [2]) for name in 'abc']
  sorted_out = train_op._sort([(None, a), (b + 1, b), (c + 1, c)])
  assert sorted_out.variables == [b, c] and not sorted_out.tables
  assert len(sorted_out.dense) == 2 and not sorted_out.keyed


@pytest.mark.parametrize('clip_norm, scale', [
    (None, 1), (13.0, 1), (6.5, 0.5)])
def test_all_gradients_are_scaled_by_their_common_norm(clip_norm, scale):
  # 13^2 = 3^2 + 4^2 + 12^2
  gradients = train_op._Gradients(
      [tf.constant([3.0, 4.0])], [None], [tf.constant([[12.0]])], [None])
  clipped = train_op._clip(gradients, clip_norm)
  with tf.Session() as sess:
    dense, keyed = sess.run([clipped.dense[0], clipped.keyed[0]])
  np.testing.assert_allclose(dense, np.array([3, 4]) * scale, rtol=1e-6)
  np.testing.assert_allclose(keyed, [[12 * scale]], rtol=1e-6)


@pytest.mark.parametrize('make, has_ops', [
    (factories.lazy_adam, True), (factories.adamw, True),
    (factories.adam, False), (factories.sgd, False)])
@fused_or_not
def test_optimizers_that_have_kernels_use_them_if_fused(make, has_ops, fused):
  tf.train.create_global_step()
  w = tf.get_variable('w', [2, 3])
  conftest.train_op(make, tf.reduce_sum(w), fused=fused)
  assert (has_ops and fused) == any(
      op.type.startswith('Ple')
      for op in tf.get_default_graph().get_operations())


@conftest.needs_kernels
@pytest.mark.parametrize('clip_norm', [None, 1e-3])
def test_a_level_is_updated_when_it_has_gone_backward(clip_norm):
  # Three sets of nets, each on the output of the one before.
  tf.train.create_global_step()
  x = tf.get_variable('x', [8, 4])
  y, fused = x, purpose.Purpose(
      training=True, precision=precision.Precision(), fused=True)
  for name in 'abc':
    y = mlp.Mlp('PLE', 'relu', False, 0.0, 0.0)(
        {name: mlp.Net(y, (3,))}, fused)[name]
  conftest.train_op(factories.lazy_adam, tf.reduce_sum(y), clip_norm,
                    fused=True)
  updates = [op for op in tf.get_default_graph().get_operations()
             if op.type == 'PleDenseAdam']
  backward = sorted(passes_back(op) for op in updates)
  # x is updated with the lowest; with clipping there is one update for all.
  assert backward == ([1, 2, 3] if clip_norm is None else [3])


def passes_back(op):
  """How many PleNetsGrad an op waits for."""
  found, to_do = set(), [op]
  while to_do:
    now = to_do.pop()
    if now not in found:
      found.add(now)
      to_do += [x.op for x in now.inputs] + list(now.control_inputs)
  return sum(each.type == 'PleNetsGrad' for each in found)


def test_notes_no_rows_of_an_optimizer_that_moves_all():
  tf.train.create_global_step()
  w = tf.get_variable('w', [2, 3])
  with pytest.raises(errors.UserError, match='@adam moves every row'):
    train_op.build(factories.adam, [(w + 1, w)],
                   purpose.Purpose(training=True, track_rows=True))


def test_warmup_cosine_has_three_parts():
  step = tf.placeholder(tf.int64, [])
  rate = factories.warmup_cosine(step, 1.0, 9, 100, 0.1)
  with tf.Session() as sess:
    got = [sess.run(rate, {step: s}) for s in (0, 4, 9, 59, 109, 500)]
  np.testing.assert_allclose(got, [0.1, 0.5, 1.0, 0.55, 0.1, 0.1], rtol=1e-5)


def test_batch_norm_statistics_move_with_the_step():
  tf.train.create_global_step()
  x = tf.constant([[1.0], [3.0]]) * tf.get_variable('w', initializer=1.0)
  y = tf.layers.batch_normalization(x, training=True, momentum=0.5)
  step = conftest.train_op(factories.adam, tf.reduce_sum(y * y))
  mean, = [v for v in tf.global_variables() if 'moving_mean' in v.name]
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    sess.run(step)
    assert sess.run(mean) == pytest.approx(1.0)  # half of the batch mean


@pytest.mark.parametrize('make, message', [
    (lambda: factories.adam(0),
     'adam.learning_rate must be a finite number above 0 .*, got 0'),
    (lambda: factories.adamw(weight_decay=-1),
     'adamw.weight_decay must be .* of at least 0, got -1'),
    (lambda: factories.adamw(exclude='bias'),
     "adamw.exclude must be a list of texts, .*, got 'bias'"),
    (lambda: factories.adagrad_decay(initial_accumulator_value=0),
     'adagrad_decay.initial_accumulator_value must be .* above 0, got 0'),
    (lambda: factories.adagrad_decay(decay_steps=0.5),
     'adagrad_decay.decay_steps must be an integer of at least 1, got 0.5'),
    (lambda: factories.adagrad_decay(decay_rate=1),
     r'adagrad_decay.decay_rate must be a number in \(0, 1\), got 1'),
    (lambda: factories.ftrl(learning_rate_power=0.5),
     'ftrl.learning_rate_power must be .* of at most 0, got 0.5'),
    (lambda: factories.ftrl(l1=-1), 'ftrl.l1 must be .* at least 0, got -1'),
    (lambda: factories.sgd(0.1, 1.5), r'sgd.momentum must be .* in \[0, 1\)'),
    (lambda: factories.warmup_cosine(tf.constant(0), 0),
     'warmup_cosine.peak must be a finite number above 0, got 0'),
])
def test_refuses(make, message):
  with pytest.raises(errors.UserError, match=message):
    make()
