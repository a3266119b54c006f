"""The fused nets against the readable ones, and those against numpy."""

import collections

import conftest
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.engine import native
from ple_estimator.engine import purpose
from ple_estimator.network import mlp
from ple_estimator.network import precision

RNG = np.random.RandomState(3)
FUSED = purpose.Purpose(
    training=True, precision=precision.Precision(), fused=True)
BATCH = 150  # three blocks of rows where four threads have one net


def built(fused, training, batch_norm=True, compute='float32', l2=0.0,
          names='abcd'):
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
  outputs = mlp.Mlp('PLE', 'relu', batch_norm, 0.0, l2)(
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
             for v in tf.global_variables() if not v.op.name.startswith('x')]
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
@pytest.mark.parametrize('batch_norm', [True, False])
def test_fused_evaluation_equals_the_readable_form(batch_norm):
  assert_close(computed(True, False, batch_norm=batch_norm),
               computed(False, False, batch_norm=batch_norm), 1e-5)


@conftest.needs_kernels
@pytest.mark.parametrize('training', [True, False])
def test_fused_bfloat16_is_as_close_to_float32_as_the_readable_form(training):
  exact = computed(False, training)
  fused = computed(True, training, compute='bfloat16')
  readable = computed(False, training, compute='bfloat16')
  assert sorted(fused) == sorted(exact)

  def error(found):
    return np.mean([np.abs(found[name] - exact[name]).mean() /
                    np.abs(exact[name]).mean() for name in exact])
  assert 1e-4 < error(fused) < 1.5 * error(readable) < 0.1


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


@pytest.mark.parametrize('activation, dropout', [('tanh', 0.0), ('relu', 0.5)])
def test_what_the_fused_op_has_no_form_of_runs_readably(activation, dropout):
  x = tf.constant(RNG.randn(4, 3).astype('f'))
  mlp.Mlp('PLE', activation, True, dropout, 0.0)(
      collections.OrderedDict(a=mlp.Net(x, (5,))), FUSED)
  assert not [op for op in tf.get_default_graph().get_operations()
              if op.type.startswith('Ple')]


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
  mean, variance = mlp._moments(value)
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
  norm = mlp._Norm(names['gamma'], names['beta'], tf.constant(-1.0),
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
