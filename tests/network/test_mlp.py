"""The fused nets against the readable ones, and those against numpy."""

import collections

import conftest
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.engine import native
from ple_estimator.engine import purpose
from ple_estimator.network import batch_norm
from ple_estimator.network import micro_batching
from ple_estimator.network import mlp
from ple_estimator.network import precision

RNG = np.random.RandomState(3)
FUSED = purpose.Purpose(
    training=True, precision=precision.Precision(), fused=True)
BATCH = 150  # three blocks of rows where four threads have one net


def built(fused, training, batch_norm=True, compute='float32', l2=0.0,
          names='abcd', activation='relu', dropout=0.0):
  """A set of four nets on two inputs; returns (loss, outputs, inputs)."""
  inputs = [tf.get_variable('x%d' % i, initializer=np.random.RandomState(i)
                            .randn(BATCH, 17).astype('f')) for i in range(2)]
  x = [tf.convert_to_tensor(v) for v in inputs]
  described = collections.OrderedDict(
      (name, net) for name, net in [
          ('a', mlp.Net(x[0], (33, 20))), ('b', mlp.Net(x[1], (16,))),
          ('c', mlp.Net(x[0], (9, 7), linear=3)),
          ('d', mlp.Net(x[1], (), linear=1, linear_bias=True))]
      if name in names)
  outputs = mlp.Mlp('PLE', activation, batch_norm, dropout, l2)(
      described,
      purpose.Purpose(training, precision.Precision(compute), fused))
  weights = np.random.RandomState(9)
  loss = tf.add_n([tf.reduce_sum(
      y * weights.randn(BATCH, y.shape[1].value).astype('f'))
                   for _, y in sorted(outputs.items())])
  return loss, outputs, inputs


def computed(fused, training, threads=2, **kwargs):
  """Outputs, gradients and moved averages by name."""
  with tf.Graph().as_default():
    loss, outputs, _ = built(fused, training, **kwargs)
    found = {'y/' + name: y for name, y in outputs.items()}
    if training:
      variables = tf.trainable_variables()
      found.update({'d/' + v.op.name: g for v, g in zip(
          variables, tf.gradients(loss, variables)) if g is not None})
    rng = np.random.RandomState(8)
    start = [v.assign(rng.rand(*v.shape.as_list()) + .5 - ('kernel' in v.name))
             for v in tf.global_variables()
             if v.dtype.is_floating and not v.op.name.startswith('x')]
    moving = {'moved/' + v.op.name: v for v in tf.global_variables()
              if 'moving' in v.name}
    ops = [op.type for op in tf.get_default_graph().get_operations()
           if op.type.startswith('Ple')]
    assert bool(ops) == fused
    config = tf.ConfigProto(intra_op_parallelism_threads=threads,
                            inter_op_parallelism_threads=2)
    with tf.Session(config=config) as sess:
      sess.run(tf.global_variables_initializer())
      sess.run(start)
      got = sess.run(found)
      sess.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
      got.update(sess.run(moving))
    return got


def assert_close(got, wanted, tolerance):
  assert sorted(got) == sorted(wanted)
  for name in wanted:
    scale = np.abs(wanted[name]).max()
    np.testing.assert_allclose(
        got[name], wanted[name], atol=tolerance * max(scale, 1e-3),
        err_msg=name)


@conftest.needs_kernels
@pytest.mark.parametrize('threads', [1, 2, 4, 16])
@pytest.mark.parametrize('names', ['abcd', 'a', 'd', 'bc'])
@pytest.mark.parametrize('batch_norm', [True, False])
def test_fused_training_equals_the_readable_form(threads, names, batch_norm):
  kwargs = dict(training=True, names=names, batch_norm=batch_norm)
  assert_close(computed(True, threads=threads, **kwargs),
               computed(False, **kwargs), 1e-5)


@conftest.needs_kernels
@pytest.mark.parametrize('dropout', [0.0, 0.3])
@pytest.mark.parametrize('count, threads', [
    (5, 2), (7, 2), (8, 3), (3, 4), (2, 64)])
def test_nets_that_threads_share_give_what_one_thread_gives(
    count, threads, dropout):
  # Of 5 equal nets on 2 threads, one is cut into blocks of rows.
  found = []
  for session_threads in (1, threads):
    with tf.Graph().as_default():
      x = tf.constant(np.random.RandomState(0).randn(BATCH, 17), tf.float32)
      tf.random.set_random_seed(5)
      outputs = mlp.Mlp('PLE', 'relu', True, dropout, 0.0)(
          collections.OrderedDict(
              ('net_%d' % i, mlp.Net(x, (33, 20))) for i in range(count)),
          FUSED)
      loss = tf.add_n([tf.reduce_sum(y ** 3) for y in outputs.values()])
      gradients = dict(zip(
          [v.op.name for v in tf.trainable_variables()],
          tf.gradients(loss, tf.trainable_variables())))
      rng = np.random.RandomState(8)
      start = [v.assign(rng.rand(*v.shape.as_list()) - .5)
               for v in tf.trainable_variables()]
      with tf.Session(config=tf.ConfigProto(
          intra_op_parallelism_threads=session_threads)) as sess:
        sess.run(tf.global_variables_initializer())
        sess.run(start)
        found.append(sess.run(dict(gradients, **outputs)))
  assert_close(found[1], found[0], 1e-5)


@conftest.needs_kernels
@pytest.mark.parametrize('batch_norm', [True, False])
def test_fused_evaluation_equals_the_readable_form(batch_norm):
  assert_close(computed(True, False, batch_norm=batch_norm),
               computed(False, False, batch_norm=batch_norm), 1e-5)


def assert_as_close(fused, readable, exact):
  """Asserts that bfloat16 fused is about as far from float32 as readable."""
  assert sorted(fused) == sorted(exact)

  def error(found):
    return np.mean([np.abs(found[name] - exact[name]).mean() /
                    np.abs(exact[name]).mean() for name in exact])
  assert 1e-4 < error(fused) < 1.5 * error(readable) < 0.1


@pytest.mark.slow
@conftest.needs_kernels
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('activation', sorted(mlp._ACTIVATIONS))
def test_fused_bfloat16_is_as_close_to_float32_as_the_readable_form(
    activation, training):
  # What a derivative is computed from is rounded, unlike in the readable form.
  assert_as_close(*[
      computed(fused, training, compute=compute, activation=activation)
      for fused, compute in [(True, 'bfloat16'), (False, 'bfloat16'),
                             (False, 'float32')]])


@pytest.mark.slow
@conftest.needs_kernels
@pytest.mark.parametrize('threads', [1, 4])
@pytest.mark.parametrize('batch_norm', [True, False])
@pytest.mark.parametrize('activation', sorted(mlp._ACTIVATIONS))
def test_fused_activations_equal_the_readable_form(
    activation, batch_norm, threads):
  kwargs = dict(activation=activation, batch_norm=batch_norm, names='ac')
  for training in (True, False):
    assert_close(computed(True, training, threads=threads, **kwargs),
                 computed(False, training, **kwargs), 1e-5)


def with_value(activation, fused, values):
  """(f(x), its derivative) of an activation, by a layer that only has it."""
  x = tf.constant(values[:, np.newaxis])
  with tf.variable_scope('fused' if fused else 'readable'):
    y = mlp.Mlp('PLE', activation, False, 0.0, 0.0)(
        collections.OrderedDict(a=mlp.Net(x, (1,))),
        FUSED._replace(fused=fused))['a']
    gradient, = tf.gradients(y, x)
    kernel, = [v for v in tf.trainable_variables(tf.get_variable_scope().name)
               if 'kernel' in v.name]
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    sess.run(kernel.assign([[1.0]]))
    return [found[:, 0] for found in sess.run([y, gradient])]


@conftest.needs_kernels
@pytest.mark.parametrize('activation', sorted(mlp._ACTIVATIONS))
def test_activations_far_from_zero_and_close_to_it(activation):
  values = np.float32(10.0) ** np.arange(-30, 30)
  values = np.concatenate(
      [values, -values, [0], np.linspace(-100, 100, 1001)]).astype('f')
  y, gradient = with_value(activation, True, values)
  wanted_y, wanted = with_value(activation, False, values)
  # The sigmoid of TensorFlow 1.15 has errors of 1e-7, times x in swish.
  for part, tolerance in ((np.abs(values) < 1, 2e-7), (slice(None), 3e-6)):
    np.testing.assert_allclose(
        y[part], wanted_y[part], rtol=1e-5, atol=tolerance)
  # TensorFlow takes selu of a number just below 0 for 0, with the slope above.
  clear = (values >= 0) | (values < -1e-6)
  np.testing.assert_allclose(
      gradient[clear], wanted[clear], rtol=1e-5, atol=3e-6)


@conftest.needs_kernels
def test_fused_op_runs_again_on_another_batch():
  # Its memory is kept from step to step and must not remember.
  x = tf.placeholder(tf.float32, [None, 5])
  described = collections.OrderedDict(a=mlp.Net(x, (8, 4)))
  made = mlp.Mlp('PLE', 'relu', True, 0.0, 0.0)
  y = made(described, FUSED)['a']
  gradient = tf.gradients(tf.reduce_sum(y * y * y), x)[0]
  batches = [RNG.randn(n, 5).astype('f') for n in (40, 7, 300, 40)]
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    found = [sess.run([y, gradient], {x: b}) for b in batches + batches]
  for first, again in zip(found[:4], found[4:]):
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


@conftest.needs_kernels
def test_fused_and_readable_variables_are_the_same():
  names = []
  for fused in (False, True):
    with tf.Graph().as_default():
      built(fused, True)
      names.append(sorted(
          (v.op.name, str(v.shape)) for v in tf.global_variables()))
  assert names[0] == names[1]


@conftest.needs_kernels
def test_l2_is_half_the_squared_kernels():
  built(True, True, l2=0.5)
  kernels = [v for v in tf.global_variables() if 'kernel' in v.name]
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    terms, values = sess.run([tf.losses.get_regularization_losses(), kernels])
  assert sum(terms) == pytest.approx(
      sum(0.25 * (k ** 2).sum() for k in values), rel=1e-5)


# -------------------------------------------------------------------- dropout

SEED = -5 << 40
NETS = {'a': 2, 'b': 1, 'c': 2, 'd': 0}  # the hidden layers of built's nets


def split_mix(x):
  """SplitMix64 of uint64, as the kernels call it."""
  x = x + np.uint64(0x9e3779b97f4a7c15)
  x = (x ^ x >> np.uint64(30)) * np.uint64(0xbf58476d1ce4e5b9)
  x = (x ^ x >> np.uint64(27)) * np.uint64(0x94d049bb133111eb)
  return x ^ x >> np.uint64(31)


def factors(seed, net, layer, rows, width, rate):
  """What the kernels multiply a layer's output by, [rows, width] float32."""
  with np.errstate(over='ignore'):
    key = split_mix(split_mix(np.array(seed).astype(np.uint64)) ^
                    np.uint64((net << 32) + layer))
    words = split_mix(key + np.arange(rows, dtype=np.uint64))[:, np.newaxis]
    x = np.arange(width, dtype=np.uint32) + words.astype(np.uint32)
    x = (x ^ x >> np.uint32(16)) * np.uint32(0x21f0aaad)
    x = x ^ (words >> np.uint64(32)).astype(np.uint32)
    x = (x ^ x >> np.uint32(15)) * np.uint32(0xd35a2d97)
    x = x ^ x >> np.uint32(15)
  return np.where(x / 2.0 ** 32 < rate, 0, 1 / (1 - rate)).astype('f')


@pytest.fixture
def same_masks(monkeypatch):
  """Makes the readable form of `built` drop what the fused one does.

  Yields a list of the (net, layer) that are yet to come, in their order.
  """
  coming = []

  def dropped(x, rate, training):
    rows, width = x.shape.as_list()
    return x * factors(SEED, *coming.pop(0), rows, width, rate) if (
        training) else x
  monkeypatch.setattr(tf.layers, 'dropout', dropped)
  monkeypatch.setattr(mlp.Mlp, '_seed',
                      lambda self, purpose: tf.constant(SEED, tf.int64))
  yield coming
  assert not coming


def computed_alike(coming, names='abcd', **kwargs):
  """`computed` in training by the fused and by the readable form."""
  fused = computed(True, True, names=names, **kwargs)
  coming.extend((net, layer) for net, name in enumerate(names)
                for layer in range(NETS[name]))
  kwargs.pop('threads', None)
  return fused, computed(False, True, names=names, **kwargs)


@conftest.needs_kernels
@pytest.mark.parametrize('threads, names', [
    (1, 'abcd'), (2, 'a'), (4, 'c'), (16, 'abcd')])
@pytest.mark.parametrize('batch_norm', [True, False])
def test_fused_dropout_equals_the_readable_form_with_its_mask(
    batch_norm, threads, names, same_masks):
  assert_close(*computed_alike(
      same_masks, names, threads=threads, batch_norm=batch_norm, dropout=0.3),
               1e-5)


@conftest.needs_kernels
@pytest.mark.parametrize('activation', ['swish', 'tanh'])
def test_fused_dropout_behind_other_activations(activation, same_masks):
  assert_close(*computed_alike(
      same_masks, 'ca', threads=8, activation=activation, dropout=0.6), 3e-5)


@pytest.mark.slow
@conftest.needs_kernels
@pytest.mark.parametrize('threads', [1, 16])
@pytest.mark.parametrize('batch_norm', [True, False])
def test_fused_dropout_in_bfloat16(batch_norm, threads, same_masks):
  # Where a derivative jumps, as relu's does, roundings make large errors.
  kwargs = dict(batch_norm=batch_norm, threads=threads, dropout=0.3,
                activation='tanh')
  assert_as_close(
      *computed_alike(same_masks, compute='bfloat16', **kwargs),
      computed_alike(same_masks, **kwargs)[1])


def shown(units=(64,), rate=0.25, rows=400, nets='a', training=True,
          x=None):
  """Outputs, in which only the masks are not 1, of nets that are identities."""
  if x is None:
    x = tf.ones([rows, units[0]])
  outputs = mlp.Mlp('PLE', 'relu', False, rate, 0.0)(
      collections.OrderedDict((name, mlp.Net(x, units)) for name in nets),
      FUSED._replace(training=training))
  start = [v.assign(np.eye(units[0])) for v in tf.trainable_variables()
           if 'kernel' in v.name]
  return [outputs[name] for name in nets], start


def run(sess, tensors, start):
  sess.run(tf.global_variables_initializer())
  sess.run(start)
  return sess.run(tensors)


@conftest.needs_kernels
@pytest.mark.parametrize('rate', [0.01, 0.1, 0.5, 0.9])
def test_dropout_drops_its_share_everywhere_alike(rate):
  tf.set_random_seed(2021)
  (y,), start = shown(rate=rate, rows=4000)
  with tf.Session() as sess:
    y = run(sess, y, start)
  assert np.unique(y).tolist() == pytest.approx([0, 1 / (1 - rate)], rel=1e-6)

  def assert_share(dropped, share, variance):  # five standard deviations
    assert np.mean(dropped) == pytest.approx(
        share, abs=5 * np.sqrt(variance / dropped.size))
  dropped = y == 0
  variance = rate * (1 - rate)
  assert_share(dropped, rate, variance)
  for column in range(64):
    assert_share(dropped[:, column], rate, variance)
  # Neighbours are independent. A value is in two pairs, which adds twice the
  # covariance of these to the variance of the share of pairs.
  variance = rate**2 * (1 - rate**2) + 2 * rate**3 * (1 - rate)
  for distance in (1, 2, 3, 16, 63):
    for one, other in [(dropped[:, distance:], dropped[:, :-distance]),
                       (dropped[distance:], dropped[:-distance])]:
      assert_share(one & other, rate**2, variance)


@conftest.needs_kernels
def test_each_net_layer_and_step_has_a_mask_of_its_own(monkeypatch):
  seeds = tf.placeholder(tf.int64, [])
  monkeypatch.setattr(mlp.Mlp, '_seed', lambda self, purpose: seeds)
  (a, b), start = shown((64, 64), nets='ab')
  with tf.Session() as sess:
    run(sess, [], start)
    masks = [sess.run([a, b], {seeds: seed}) for seed in (1, 2, 1)]
  for seed, step in zip((1, 2, 1), masks):
    for net, y in enumerate(step):
      np.testing.assert_allclose(
          y, factors(seed, net, 0, 400, 64, .25) *
          factors(seed, net, 1, 400, 64, .25), rtol=1e-6)
  different = [factors(seed, net, layer, 400, 64, .25) == 0
               for seed in (1, 2) for net in (0, 1) for layer in (0, 1)]
  for i, one in enumerate(different):
    for other in different[:i]:
      assert np.mean(one & other) == pytest.approx(1 / 16, abs=0.01)


@conftest.needs_kernels
def test_masks_differ_from_step_to_step_and_repeat_with_the_seed():
  found = []
  for seed in (7, 7, 8):
    with tf.Graph().as_default():
      tf.set_random_seed(seed)
      with tf.variable_scope('one'):
        (a,), start = shown()
      with tf.variable_scope('two'):
        (b,), more = shown()
      with tf.Session() as sess:
        run(sess, [], [start, more])
        found.append([sess.run([a, b]) for _ in range(2)])
  np.testing.assert_array_equal(found[0], found[1])
  masks = [y for of_seed in found[1:] for step in of_seed for y in step]
  for i, one in enumerate(masks):
    for other in masks[:i]:
      assert np.mean(one == other) == pytest.approx(10 / 16, abs=0.02)


@conftest.needs_kernels
def test_each_micro_batch_has_a_mask_of_its_own():
  made = []

  def of_slice(x):
    (y,), start = shown(x=x)
    made.append(start)
    return [tf.zeros([])], y
  with tf.variable_scope('', reuse=tf.AUTO_REUSE):
    _, y = micro_batching.accumulate(of_slice, tf.ones([400, 64]), 2)
    with tf.variable_scope('', reuse=True):
      kernel = tf.get_variable('a/dense_0/kernel')
  with tf.Session() as sess:
    y = run(sess, y, kernel.assign(np.eye(64)))
  assert np.mean(y[:200] == y[200:]) == pytest.approx(10 / 16, abs=0.03)


@conftest.needs_kernels
def test_nothing_is_dropped_in_evaluation():
  assert_close(computed(True, False, dropout=0.5), computed(True, False), 0)


@conftest.needs_kernels
def test_a_dead_column_has_no_nan():
  # relu cuts everything: variance 0.
  x = tf.constant(-np.ones((BATCH, 3), 'f'))
  for fused in (False, True):
    with tf.variable_scope('fused' if fused else 'readable'):
      y = mlp.Mlp('PLE', 'relu', True, 0.0, 0.0)(
          collections.OrderedDict(a=mlp.Net(x, (2,))),
          FUSED._replace(fused=fused))['a']
      kernel, = [v for v in tf.trainable_variables(tf.get_variable_scope().name)
                 if 'kernel' in v.name]
      gradient = tf.gradients(tf.reduce_sum(y), kernel)[0]
      with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        sess.run(kernel.assign(np.ones((3, 2))))
        got, d = sess.run([y, gradient])
      np.testing.assert_array_equal(got, np.zeros((BATCH, 2)))
      np.testing.assert_array_equal(d, np.zeros((3, 2)))


def test_the_gradient_of_batch_norm_matches_differences():
  x = RNG.randn(6, 3)
  weights = RNG.randn(6, 3)

  def loss(values):
    return (weights * (values - values.mean(0)) / np.sqrt(
        values.var(0) + 1e-3)).sum()

  gradient = np.zeros_like(x)
  for i in np.ndindex(*x.shape):
    step = np.zeros_like(x)
    step[i] = 1e-5
    gradient[i] = (loss(x + step) - loss(x - step)) / 2e-5
  value = tf.constant(x.astype('f'))
  mean, variance = batch_norm._moments(value)
  y = (value - mean) * tf.rsqrt(variance + 1e-3)
  got = tf.gradients(tf.reduce_sum(y * weights.astype('f')), value)[0]
  with tf.Session() as sess:
    np.testing.assert_allclose(sess.run(got), gradient, rtol=1e-3, atol=1e-4)


MEMBERS = [[0, 2], [1, 2], [0, 1, 2], [2]]


@pytest.mark.parametrize('fused', [
    False, pytest.param(True, marks=conftest.needs_kernels)])
def test_mixture_and_its_gradient(fused):
  experts = RNG.randn(4, 70, 6).astype('f')  # expert 3 is in no gate
  logits = [RNG.randn(70, len(of)).astype('f') for of in MEMBERS]
  e = [tf.constant(x) for x in experts]
  scores = [tf.constant(x) for x in logits]
  mixtures, shares = mlp.mix(scores, e, MEMBERS, fused)
  weights = [RNG.randn(70, 6).astype('f') for _ in MEMBERS]
  loss = tf.add_n([tf.reduce_sum(m * w) for m, w in zip(mixtures, weights)])
  loss += tf.reduce_sum(tf.square(shares[2]))
  with tf.Session() as sess:
    got, share = sess.run([mixtures, shares])
    d_logits, d_experts = sess.run([
        tf.gradients(loss, scores), tf.gradients(loss, e[:3])])
  wanted_d = np.zeros((3, 70, 6))
  for g, of in enumerate(MEMBERS):
    s = np.exp(logits[g]) / np.exp(logits[g]).sum(1, keepdims=True)
    np.testing.assert_allclose(share[g], s, rtol=1e-5)
    np.testing.assert_allclose(
        got[g], sum(s[:, [k]] * experts[i] for k, i in enumerate(of)),
        rtol=1e-4, atol=1e-5)
    d = np.stack([(weights[g] * experts[i]).sum(1) for i in of], 1)
    if g == 2:
      d += 2 * s
    np.testing.assert_allclose(
        d_logits[g], s * (d - (s * d).sum(1, keepdims=True)),
        rtol=1e-3, atol=1e-4)
    for k, i in enumerate(of):
      wanted_d[i] += s[:, [k]] * weights[g]
  np.testing.assert_allclose(d_experts, wanted_d, rtol=1e-4, atol=1e-5)


def test_an_input_of_several_nets_is_passed_once():
  x = [tf.zeros([2, 3]), tf.zeros([2, 4])]
  inputs, positions = mlp._inputs(
      [mlp.Net(x[i], (5,)) for i in (1, 0, 1, 1)])
  assert [each is x[i] for each, i in zip(inputs, (1, 0))] == [True, True]
  assert len(inputs) == 2 and positions == [0, 1, 0, 0]


def test_parameters_are_in_the_order_of_the_kernel():
  names = {name: tf.constant(float(i)) for i, name in enumerate(
      ['kernel_0', 'bias_0', 'gamma', 'beta', 'kernel_1'])}
  norm = batch_norm.Norm(names['gamma'], names['beta'], tf.constant(-1.0),
                         tf.constant(-2.0))
  found = mlp._parameters([
      mlp._Layer(names['kernel_0'], names['bias_0'], norm),
      mlp._Layer(names['kernel_1'], None, None)])
  with tf.Session() as sess:
    assert sess.run(found) == [0, 1, 2, 3, 4]


@conftest.needs_kernels
def test_the_ops_call_their_own_onednn():
  # TensorFlow 2.15 exports symbols of the oneDNN inside it, of version 3.1.
  assert native.onednn_version() // 100 == 302
