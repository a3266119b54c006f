"""The fused ops: what they refuse, empty batches, NaN, memory, shapes."""

import collections
import subprocess
import sys

import conftest
import numpy as np
import pyarrow as pa
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import rewriter_config_pb2

from ple_estimator.data import packing
from ple_estimator.embeddings import hashed
from ple_estimator.engine import native
from ple_estimator.engine import purpose
from ple_estimator.network import mlp
from ple_estimator.network import precision

pytestmark = conftest.needs_kernels
NAN = float('nan')


def any_shape(value, dtype=np.float32):
  """A tensor of a value, whose shape is only known when it runs."""
  return tf.placeholder_with_default(np.asarray(value, dtype), None)


def zeros(*shape):
  return any_shape(np.zeros(shape))


def variable(name, value):
  return tf.get_variable(
      name, initializer=np.asarray(value, np.float32), use_resource=True)


def assert_refused(tensor, message, feeds=None):
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
      sess.run(tensor, feeds)


# ------------------------------------------------------ what does not fit

NETS = dict(net_input=[0], num_hidden=[1], linear=[0], batch_norm=True,
            epsilon=1e-3)


def params(kernel=(3, 4), bias=(4,), gamma=(4,), beta=(4,)):
  return [zeros(*shape) for shape in (kernel, bias, gamma, beta)]


def fused_nets(inputs=None, given=None, moving=None, training=True, seed=None,
               **changes):
  return native._ops().ple_nets(
      inputs or [zeros(2, 3)], given or params(),
      zeros(0) if moving is None else moving,
      tf.constant(0, tf.int64) if seed is None else seed, num_nets=1,
      training=training, **dict(NETS, **changes))


@pytest.mark.parametrize('kwargs, message', [
    (dict(inputs=(6,)), r'inputs must all be .batch, width.'),
    (dict(inputs=(2, 5)), r'params.0., a kernel, must have 5 rows'),
    (dict(given=dict(kernel=(12,))), r'params.0., a kernel, must have 3 rows'),
    (dict(given=dict(bias=(3,))), r'params.1. must have the shape .4.'),
    (dict(given=dict(gamma=(1, 4))), r'params.2. must have the shape .4.'),
    (dict(given=dict(beta=(0,))), r'params.3. must have the shape .4.'),
    (dict(moving=(8,)), r'moving must have the shape .0.'),
    (dict(moving=(7,), training=False), r'moving must have the shape .8.'),
    (dict(seed=(1,)), r'seed must be a scalar, got the shape .1.'),
])
def test_nets_refuse(kwargs, message):
  kwargs = dict(kwargs)
  for name in ('inputs', 'given', 'moving', 'seed'):
    if name in kwargs:
      kwargs[name] = {
          'inputs': lambda shape: [zeros(*shape)],
          'given': lambda shapes: params(**shapes),
          'moving': lambda shape: zeros(*shape),
          'seed': lambda shape: any_shape(np.zeros(shape), np.int64)}[name](
              kwargs[name])
  assert_refused(fused_nets(**kwargs).moments, message)


def test_nets_refuse_inputs_of_two_batches():
  assert_refused(native._ops().ple_nets(
      [zeros(2, 3), zeros(1, 3)], params(), zeros(0), 0, num_nets=1,
      training=True, **NETS).moments, r'inputs must all be .batch, width.')


@pytest.mark.parametrize('changes, message', [
    (dict(net_input=[1]), r'net_input must be in .0, 1., got 1'),
    (dict(net_input=[-1]), r'net_input must be in .0, 1., got -1'),
    (dict(num_hidden=[-1]), 'num_hidden must not be negative'),
    (dict(num_hidden=[0]), 'Net 0 must have a layer'),
    (dict(linear=[3]), 'linear must be 0, 1 or 2'),
    (dict(num_hidden=[1, 1]), 'must have num_nets = 1 elements'),
    (dict(num_hidden=[2]), 'These nets have 8 parameters, got 4'),
    (dict(batch_norm=False), 'These nets have 2 parameters, got 4'),
    (dict(dropout=1.0), r'dropout must be in .0, 1., got 1'),
    (dict(dropout=-0.1), r'dropout must be in .0, 1., got -0.1'),
    (dict(activation='gelu'), 'gelu'),
])
def test_nets_refuse_attributes(changes, message):
  with pytest.raises((ValueError, tf.errors.InvalidArgumentError),
                     match=message):
    with tf.Session() as sess:
      sess.run(fused_nets(**changes).moments)


@pytest.mark.parametrize('changes, message', [
    (dict(inputs=[(3, 3)]), r'd_outputs.0. must have the shape .3,4.'),
    (dict(d_outputs=[(2, 5)]), r'd_outputs.0. must have the shape .2,4.'),
    (dict(moments=(4,)), r'moments must have the shape .8.'),
    (dict(inputs=[(3, 3)], d_outputs=[(3, 4)]), 'saved must come from'),
    (dict(compute=tf.bfloat16), 'saved must come from'),
    (dict(activation='elu'), 'saved must come from'),
    (dict(dropout=0.5), 'saved must come from'),
    (dict(seed=1), 'saved must come from'),
    (dict(training=False), 'saved must come from'),
    (dict(saved=None), 'saved must come from PleNets'),
])
def test_the_gradient_of_nets_refuses(changes, message):
  changes = dict(changes)
  training = changes.pop('training', True)
  forward = fused_nets(training=training,
                       moving=None if training else zeros(8))
  given = dict(inputs=[(2, 3)], d_outputs=[(2, 4)], moments=(8,),
               saved=forward.saved, seed=0)
  given.update({k: v for k, v in changes.items() if k in given})
  if given['saved'] is None:  # a variant of something else
    given['saved'] = tf.raw_ops.EmptyTensorList(
        element_shape=[1], max_num_elements=1, element_dtype=tf.float32)
  gradient = native._ops().ple_nets_grad(
      [zeros(*shape) for shape in given['inputs']], params(),
      [zeros(*shape) for shape in given['d_outputs']],
      zeros(*given['moments']), given['saved'], given['seed'],
      compute=changes.get('compute', tf.float32),
      activation=changes.get('activation', 'relu'),
      dropout=changes.get('dropout', 0.0), **NETS)
  assert_refused(gradient.d_params, message)


MIX = dict(members=[0, 1, 0], sizes=[2, 1])


@pytest.mark.parametrize('logits, experts, message', [
    ([(5, 3), (5, 1)], [(5, 4)] * 2, r'logits.0. must have the shape .5,2.'),
    ([(4, 2), (5, 1)], [(5, 4)] * 2, r'logits.0. must have the shape .5,2.'),
    ([(5, 2), (5,)], [(5, 4)] * 2, r'logits.1. must have the shape .5,1.'),
    ([(5, 2), (5, 1)], [(5, 4), (5, 3)], r'experts must all be .batch, dim.'),
    ([(5, 2), (5, 1)], [(20,), (20,)], r'experts must all be .batch, dim.'),
])
def test_mix_refuses(logits, experts, message):
  assert_refused(native._ops().ple_mix(
      [zeros(*s) for s in logits], [zeros(*s) for s in experts],
      **MIX).mixtures, message)


@pytest.mark.parametrize('changes, message', [
    (dict(members=[0, 2, 0]), r'members must be in .0, 2., got 2'),
    (dict(members=[0, -1, 0]), r'members must be in .0, 2., got -1'),
    (dict(sizes=[2, 2]), 'sizes must be positive and add up'),
    (dict(sizes=[3, 0]), 'sizes must be positive and add up'),
    (dict(sizes=[1, 1]), 'sizes must add up'),
    (dict(sizes=[3]), 'sizes must have num_gates = 2 elements'),
])
def test_mix_refuses_attributes(changes, message):
  with pytest.raises((ValueError, tf.errors.InvalidArgumentError),
                     match=message):
    with tf.Session() as sess:
      sess.run(native._ops().ple_mix(
          [zeros(5, 2), zeros(5, 1)], [zeros(5, 4)] * 2,
          **dict(MIX, **changes)).mixtures)


@pytest.mark.parametrize('changes, message', [
    (dict(shares=[(5, 1)] * 2), r'shares.0. must have the shape .5,2.'),
    (dict(d_shares=[(5, 2)] * 2), r'd_shares.1. must have the shape .5,1.'),
    (dict(d_mixtures=[(5, 4), (4, 4)]),
     r'd_mixtures.1. must have the shape of the experts'),
    (dict(experts=[(5, 4), (4, 4)]), r'experts must all be .batch, dim.'),
])
def test_the_gradient_of_mix_refuses(changes, message):
  given = dict(shares=[(5, 2), (5, 1)], experts=[(5, 4)] * 2,
               d_mixtures=[(5, 4)] * 2, d_shares=[(5, 2), (5, 1)])
  given.update(changes)
  assert_refused(native._ops().ple_mix_grad(
      *[[zeros(*shape) for shape in given[name]] for name in (
          'shares', 'experts', 'd_mixtures', 'd_shares')], **MIX).d_logits,
      message)


@pytest.mark.parametrize('vectors, index, splits, message', [
    ((3,), [0], [0, 1, 1], r'vectors must be .n, dim.'),
    ((3, 2), [[0]], [0, 1, 1], 'index must be a vector'),
    ((3, 2), [0], [[0, 1, 1]], r'splits must be .2 . batch . 1.'),
    ((3, 2), [0], [], r'splits must be .2 . batch . 1.'),
    ((3, 2), [0], [0, 1], r'splits must be .2 . batch . 1.'),
    ((3, 2), [0], [0, 1, 2], 'end with the number of ids, 1, got 0 and 2'),
    ((3, 2), [0], [1, 1, 1], 'begin with 0 .* got 1 and 1'),
    ((3, 2), [0], [0, 2, 1], 'splits must not fall, got 2 before 1'),
    ((3, 2), [3], [0, 1, 1], r'index must be in .0, 3., got 3'),
    ((3, 2), [-1], [0, 1, 1], r'index must be in .0, 3., got -1'),
    ((0, 2), [0], [0, 1, 1], r'index must be in .0, 0., got 0'),
])
def test_pool_refuses(vectors, index, splits, message):
  given = [zeros(*vectors), any_shape(index, np.int32),
           any_shape(splits, np.int32), zeros(0)]
  attributes = dict(columns=2, combiner='sum')
  assert_refused(native._ops().ple_pool(*given, **attributes), message)
  assert_refused(
      native._ops().ple_pool_grad(*given, zeros(1, 4), **attributes), message)


@pytest.mark.parametrize('shape', [(2,), (1, 1), ()])
def test_pool_refuses_weights_of_other_ids(shape):
  given = [zeros(3, 2), any_shape([0], np.int32),
           any_shape([0, 1, 1], np.int32), zeros(*shape)]
  attributes = dict(columns=2, combiner='mean')
  message = r'weights must be .0. or .1., got '
  assert_refused(native._ops().ple_pool(*given, **attributes), message)
  assert_refused(
      native._ops().ple_pool_grad(*given, zeros(1, 4), **attributes), message)


def test_the_gradient_of_pool_refuses():
  assert_refused(native._ops().ple_pool_grad(
      zeros(3, 2), any_shape([0], np.int32), any_shape([0, 1, 1], np.int32),
      zeros(0), zeros(2, 2), columns=2, combiner='sum'),
                 r'd_pooled must have the shape .1,4., got .2,2.')


SCALARS = [0.1, 0.9, 0.99, 1e-8, 0.9, 0.99]


def adam_variables(var=(3, 2), m=(3, 2), v=(3, 2)):
  return [variable(name, np.zeros(shape)) for name, shape in (
      ('var', var), ('m', m), ('v', v))]


@pytest.mark.parametrize('shapes, gradient, message', [
    (dict(m=(2, 2)), (3, 2), 'The variable m must have the shape'),
    (dict(v=(6,)), (3, 2), 'The variable v must have the shape'),
    ({}, (2, 3), 'The variable var must have the shape of its gradient'),
    ({}, (), 'The variable var must have the shape of its gradient'),
])
def test_dense_adam_refuses(shapes, gradient, message):
  var, m, v = adam_variables(**shapes)
  assert_refused(native.dense_adam(
      [var], [m], [v], [zeros(*gradient)], SCALARS), message)


@pytest.mark.parametrize('shapes, rows, gradient, message', [
    (dict(m=(2, 2)), [0], (1, 2), 'The variable m must have the shape of var'),
    (dict(v=(3, 1)), [0], (1, 2), 'The variable v must have the shape of var'),
    ({}, [[0]], (1, 2), 'rows must be a vector'),
    ({}, [0], (2, 2), r'The gradient must have the shape .1,2.'),
    ({}, [0, 1], (4,), r'The gradient must have the shape .2,2.'),
    ({}, [3], (1, 2), r'rows must be in .0, 3., got 3'),
    ({}, [-1], (1, 2), r'rows must be in .0, 3., got -1'),
    (dict(var=(), m=(), v=()), [0], (1,), 'must have rows, got a scalar'),
])
def test_rows_adam_refuses(shapes, rows, gradient, message):
  var, m, v = adam_variables(**shapes)
  assert_refused(native.rows_adam(
      var, m, v, any_shape(rows, np.int64), zeros(*gradient), SCALARS),
                 message)


def test_adam_refuses_what_is_no_scalar():
  var, m, v = adam_variables()
  scalars = SCALARS[:2] + [zeros(0)] + SCALARS[3:]
  message = 'beta2 must be a scalar'
  assert_refused(
      native.dense_adam([var], [m], [v], [zeros(3, 2)], scalars), message)
  assert_refused(native.rows_adam(
      var, m, v, any_shape([0], np.int64), zeros(1, 2), scalars), message)


def test_updates_refuse_a_variable_given_twice():
  var, m, v = adam_variables()
  gradient, rows = zeros(3, 2), any_shape([0], np.int64)
  twice = 'The variable %s was given twice'
  assert_refused(native.dense_adam(
      [var, var], [m, m], [v, v], [gradient] * 2, SCALARS), twice % 'var')
  assert_refused(native.dense_adam(
      [var], [m], [m], [gradient], SCALARS), twice % 'm')
  assert_refused(native.rows_adam(
      var, var, v, rows, zeros(1, 2), SCALARS), twice % 'var')
  assert_refused(native.moving_averages(
      [m, m], [0, 6], zeros(12), 0.9), twice % 'm')


@pytest.mark.parametrize('moments, offset, message', [
    ((1, 12), 0, 'moments must be a vector'),
    ((12,), 7, 'has 6 elements, but moments has 12 and its part begins at 7'),
    ((5,), 0, 'has 6 elements, but moments has 5 and its part begins at 0'),
    ((12,), -1, 'begins at -1'),
])
def test_moving_averages_refuse(moments, offset, message):
  var = variable('var', np.zeros([3, 2]))
  assert_refused(native.moving_averages(
      [var], [offset], zeros(*moments), 0.9), message)


def test_an_update_that_is_refused_changes_nothing():
  var, other = variable('a', np.ones(3)), variable('b', np.ones(3))
  update = native.moving_averages([var, other], [0, 9], zeros(10), 0.9)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    with pytest.raises(tf.errors.InvalidArgumentError):
      sess.run(update)
    np.testing.assert_array_equal(sess.run(var), np.ones(3))


# ------------------------------------------------------------------- shapes


def test_shapes_are_known_when_the_graph_is_built():
  x = tf.placeholder(tf.float32, [None, 3])
  kernel, vector = tf.zeros([3, 4]), tf.zeros([4])
  forward = native._ops().ple_nets(
      [x], [kernel, vector, vector, vector], tf.zeros([0]), 0, num_nets=1,
      training=True, **NETS)
  assert forward.outputs[0].shape.as_list() == [None, 4]
  assert forward.moments.shape.as_list() == [8]
  assert forward.saved.shape.as_list() == []
  expert = tf.placeholder(tf.float32, [None, 7])
  logits = tf.placeholder(tf.float32, [5, None])
  mixtures, shares = native.mix([logits], [expert, expert], [[0, 1]])
  assert mixtures[0].shape.as_list() == [5, 7]
  assert shares[0].shape.as_list() == [5, 2]
  pooled = native.pool(tf.placeholder(tf.float32, [None, 7]), tf.zeros(
      [9], tf.int32), tf.zeros([21], tf.int32), 4, 'sum')
  assert pooled.shape.as_list() == [5, 28]


def test_shapes_that_cannot_fit_are_refused_when_the_graph_is_built():
  with pytest.raises(ValueError, match='PleNets'):
    native._ops().ple_nets(
        [tf.zeros([2, 5])], params(kernel=(3, 4))[:0] + [
            tf.zeros([3, 4])] + params()[1:], tf.zeros([0]), 0, num_nets=1,
        training=True, **NETS)
  with pytest.raises(ValueError, match='PleMix'):
    native.mix([tf.zeros([5, 3])], [tf.zeros([5, 4])] * 2, [[0, 1]])


# ------------------------------------------------------------ an empty batch


@pytest.mark.parametrize('compute', ['float32', 'bfloat16'])
@pytest.mark.parametrize('op_fusion', [False, True])
def test_nets_on_an_empty_batch_are_finite(op_fusion, compute):
  # The readable form sums over no rows: its moments and gradients are 0.
  x = tf.placeholder(tf.float32, [None, 3])
  y = mlp.Mlp('PLE', 'relu', True, 0.0, 0.0)(
      collections.OrderedDict(
          a=mlp.Net(x, (5, 4)), b=mlp.Net(x, (6,), 2, True)),
      purpose.Purpose(True, precision.Precision(compute), op_fusion))
  loss = tf.add_n([tf.reduce_sum(v) for v in y.values()])
  gradients = tf.gradients(loss, tf.trainable_variables() + [x])
  moving = [v for v in tf.global_variables() if 'moving' in v.name]
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    outputs, found, _ = sess.run(
        [y, gradients, tf.get_collection(tf.GraphKeys.UPDATE_OPS)],
        {x: np.zeros([0, 3])})
    assert outputs['a'].shape == (0, 4) and outputs['b'].shape == (0, 2)
    for value in found[:-1]:
      np.testing.assert_array_equal(value, np.zeros_like(value))
    assert found[-1].shape == (0, 3)
    # At step 0 the averages are the moments of the batch, which are 0.
    for value in sess.run(moving):
      np.testing.assert_allclose(value, np.zeros_like(value))


def test_other_ops_on_an_empty_batch():
  mixtures, shares = native.mix([zeros(0, 2)], [zeros(0, 3)] * 2, [[0, 1]])
  pooled = native.pool(zeros(0, 3), any_shape([], np.int32),
                       any_shape([0], np.int32), 2, 'mean')
  var, m, v = adam_variables()
  update = native.rows_adam(var, m, v, any_shape([], np.int64), zeros(0, 2),
                            SCALARS)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    mixture, share, rows, _ = sess.run([mixtures[0], shares[0], pooled, update])
    assert mixture.shape == (0, 3) and share.shape == (0, 2)
    assert rows.shape == (0, 6)
    np.testing.assert_array_equal(sess.run(var), np.zeros([3, 2]))


def test_rows_that_come_twice_are_summed_whatever_came_before():
  # What was noted of the rows of one call must not be there in the next.
  var, m, v = [variable(name, np.zeros([200, 2])) for name in 'xmv']
  rows = tf.placeholder(tf.int64, [None])
  gradient = tf.placeholder(tf.float32, [None, 2])
  update = native.rows_adam(var, m, v, rows, gradient, SCALARS)
  expected = np.zeros([200, 2])
  rng = np.random.RandomState(0)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    for numbers in ([3, 64, 199, 63], [3, 64, 3, 7, 3], [3, 64, 199, 63, 7],
                    [199, 199]):
      values = rng.randn(len(numbers), 2).astype('f')
      sess.run(update, {rows: numbers, gradient: values})
      for row in set(numbers):
        total = values[np.array(numbers) == row].sum(axis=0)
        expected[row] = 0.9 * expected[row] + 0.1 * total
      np.testing.assert_allclose(sess.run(m), expected, rtol=1e-5, atol=1e-7)


def test_a_layer_without_columns_is_its_bias():
  x = tf.placeholder(tf.float32, [None, 0])
  bias = np.array([2, -3], 'f')
  output = native._ops().ple_nets(
      [x], [tf.zeros([0, 2]), bias], tf.zeros([0]), 0, num_nets=1,
      net_input=[0], num_hidden=[0], linear=[2], batch_norm=False,
      training=True).outputs[0]
  with tf.Session() as sess:
    np.testing.assert_array_equal(
        sess.run(output, {x: np.zeros([3, 0])}), [bias] * 3)


# ---------------------------------------------------------------------- NaN


def nets_with_nan(op_fusion, batch_norm, compute, where, training,
                  activation='relu', dropout=0.0):
  """Where outputs and gradients are NaN: dict of name to bool array."""
  rng = np.random.RandomState(5)
  with tf.Graph().as_default():
    values = rng.randn(70, 3).astype('f')
    weights = rng.randn(70, 4).astype('f')
    kernel = rng.randn(5, 4).astype('f')
    {'input': values, 'gradient': weights, 'kernel': kernel}[where][2, 1] = NAN
    x = tf.constant(values)
    y = mlp.Mlp('PLE', activation, batch_norm, dropout, 0.0)(
        collections.OrderedDict(a=mlp.Net(x, (5, 4))), purpose.Purpose(
            training, precision.Precision(compute), op_fusion))['a']
    found = {'y': y}
    if training:
      variables = tf.trainable_variables() + [x]
      found.update(zip([v.op.name for v in variables],
                       tf.gradients(tf.reduce_sum(y * weights), variables)))
    config = tf.ConfigProto()
    # TensorFlow 2.15 puts product and relu together, into one op that makes 0
    # of NaN; tf.nn.relu alone passes it on.
    config.graph_options.rewrite_options.remapping = (
        rewriter_config_pb2.RewriterConfig.OFF)
    with tf.Session(config=config) as sess:
      sess.run(tf.global_variables_initializer())
      sess.run([v.assign(np.random.RandomState(1).randn(*v.shape.as_list()) + 1)
                for v in tf.trainable_variables()])
      sess.run([v.assign(kernel) for v in tf.trainable_variables()
                if v.op.name == 'a/dense_1/kernel'])
      return {name: np.isnan(value)
              for name, value in sess.run(found).items()}


@pytest.mark.parametrize('where', ['input', 'kernel', 'gradient'])
@pytest.mark.parametrize('compute', ['float32', 'bfloat16'])
@pytest.mark.parametrize('batch_norm', [True, False])
@pytest.mark.parametrize('training', [True, False])
def test_nets_pass_nan_on_as_tensorflow(training, batch_norm, compute, where):
  got = nets_with_nan(True, batch_norm, compute, where, training)
  wanted = nets_with_nan(False, batch_norm, compute, where, training)
  assert sorted(got) == sorted(wanted)
  for name in wanted:
    np.testing.assert_array_equal(got[name], wanted[name], name)
  if where != 'gradient':
    assert wanted['y'].any()
  elif training:
    assert wanted['a/dense_0/kernel'].any()


@pytest.mark.parametrize('where', ['input', 'kernel', 'gradient'])
@pytest.mark.parametrize('compute', ['float32', 'bfloat16'])
@pytest.mark.parametrize('activation', [
    name for name in sorted(mlp._ACTIVATIONS) if name != 'relu'])
def test_other_activations_pass_nan_on_as_tensorflow(
    activation, compute, where):
  got, wanted = [nets_with_nan(fused, False, compute, where, True, activation)
                 for fused in (True, False)]
  for name in wanted:
    np.testing.assert_array_equal(got[name], wanted[name], name)
  assert wanted['y'].any() or where == 'gradient'


@pytest.mark.parametrize('compute', ['float32', 'bfloat16'])
def test_dropout_passes_nan_on_whatever_it_drops(compute):
  # As TensorFlow 1.15, where it is a product. 2.15 drops a NaN too.
  found = nets_with_nan(True, False, compute, 'input', True, dropout=0.9)
  np.testing.assert_array_equal(found['y'], [[i == 2] * 4 for i in range(70)])
  found = nets_with_nan(True, False, compute, 'gradient', True, dropout=0.9)
  np.testing.assert_array_equal(found['a/dense_1/bias'], [0, 1, 0, 0])


@pytest.mark.parametrize('value', [NAN, float('inf'), -float('inf')])
@pytest.mark.parametrize('where', ['logits', 'experts', 'weights'])
def test_mix_passes_nan_on_as_tensorflow(where, value):
  rng = np.random.RandomState(6)
  given = {'logits': rng.randn(4, 3).astype('f'),
           'experts': rng.randn(4, 5).astype('f'),
           'weights': rng.randn(4, 5).astype('f')}
  given[where][1, 1] = value
  found = []
  for op_fusion in (True, False):
    logits, first, weights = [tf.constant(given[name]) for name in (
        'logits', 'experts', 'weights')]
    experts = [first, tf.ones([4, 5]), tf.zeros([4, 5])]
    mixtures, shares = mlp.mix([logits], experts, [[0, 1, 2]], op_fusion)
    found.append(mixtures + shares + tf.gradients(
        tf.reduce_sum(mixtures[0] * weights), [logits, first]))
  with tf.Session() as sess:
    got, wanted = sess.run(found)
  assert any(np.isnan(value).any() for value in wanted) or value == -np.inf
  for one, other in zip(got, wanted):
    np.testing.assert_array_equal(np.isnan(one), np.isnan(other))


WEIGHTED = [[1.0], [2, 0.5, 1], [], [0, 0], [1e-30, 0], [3, 0.25],
            [2.0**24] * 4]
DIVISORS = {'sum': lambda w: 1.0, 'mean': np.sum,
            'sqrtn': lambda w: np.sqrt(np.sum(np.square(w)))}


@pytest.mark.parametrize('sign', [1, -1])
@pytest.mark.parametrize('combiner', sorted(DIVISORS))
def test_pool_weighs_as_numpy(combiner, sign):
  fields = 500 * WEIGHTED  # more than one thread takes at a time
  rng = np.random.RandomState(7)
  vectors = rng.randn(50, 19).astype('f')
  weights = np.concatenate(fields)
  weights[1::3] *= 1 if combiner == 'mean' else sign
  splits = np.cumsum([0] + [len(field) for field in fields])
  index = rng.randint(0, 50, len(weights))
  factors = rng.randn(len(fields) // 2, 2 * 19).astype('f')
  shares = np.zeros([len(fields), 50])
  for f, (first, end) in enumerate(zip(splits, splits[1:])):
    divisor = DIVISORS[combiner](weights[first:end])
    for i in range(first, end):
      shares[f, index[i]] += weights[i] / divisor if divisor else 0
  by_field = shares.dot(vectors)
  wanted = by_field.reshape(2, -1, 19).transpose(1, 0, 2).reshape(-1, 2 * 19)
  v = tf.constant(vectors)
  pooled = native.pool(v, tf.constant(index, tf.int32),
                       tf.constant(splits, tf.int32), 2, combiner,
                       tf.constant(weights, tf.float32))
  gradient, = tf.gradients(tf.reduce_sum(pooled * factors), v)
  with tf.Session() as sess:
    found, gradient = sess.run([pooled, gradient])
  largest = np.abs(wanted).max()
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 * largest)
  np.testing.assert_allclose(
      gradient, shares.T.dot(factors.reshape(-1, 2, 19).transpose(
          1, 0, 2).reshape(-1, 19)), rtol=1e-4, atol=1e-5 * largest)


def test_lists_with_weights_are_cut_and_hashed():
  array = pa.array([b'left out', b'a:1|:2||b:x', b'', b'c:-1e0'], pa.binary())
  ids, weights, splits, bad = native.hash_weighted(
      array[1:], b'|', b':', (-2.0, 2.0), 97)
  with tf.Session() as sess:
    assert ids.tolist() == sess.run(tf.strings.to_hash_bucket_fast(
        ['a', 'b', 'c'], 97)).tolist()
  np.testing.assert_array_equal(weights, [1, NAN, -1])
  assert splits.tolist() == [0, 2, 2, 3]
  assert bad.tolist() == [True, False, False]
  ids, weights, splits, bad = native.hash_weighted(
      array[:0], b'|', b':', (0.0, 2.0))
  assert ids is None and not len(weights) and not len(bad)
  assert splits.tolist() == [0]


def test_lists_with_weights_beside_them_are_cut_and_hashed():
  items = pa.array([b'a||b', b'', b'a|b', b'c|', b'', b'a'], pa.binary())
  weights = pa.array([b'1;;.5', b'', b'1', b'x;', b';1', b'9'], pa.binary())
  ids, found, splits, problems = native.hash_beside(
      items, b'|', weights, b';', (0.0, 2.0), 97)
  with tf.Session() as sess:
    wanted = sess.run(tf.strings.to_hash_bucket_fast(['a', 'b', 'c'], 97))
  # Of rows that are bad, what comes does not matter.
  assert problems.tolist() == [0, 0, 1, 2, 1, 2]
  assert splits.tolist()[:3] == [0, 2, 2]
  assert ids[:2].tolist() == wanted[:2].tolist()
  assert found[:2].tolist() == [1, 0.5]
  nothing = pa.array([], pa.binary())
  assert [len(of) for of in native.hash_beside(
      nothing, b'|', nothing, b';', (0.0, 2.0), 97)] == [0, 0, 1, 0]


@pytest.mark.parametrize('separator', [b'|', b';;'])
def test_lists_say_at_which_place_an_item_stands(separator):
  array = pa.array([text.replace(b'|', separator) for text in (
      b'a||b|', b'', b'|', b'|c')], pa.binary())
  ids, splits, places = native.hash_lists(array, separator, 97, True)
  assert places.tolist() == [0, 2, 1]
  assert splits.tolist() == [0, 2, 2, 2, 3]
  again, _, none = native.hash_lists(array, separator, 97)
  assert again.tolist() == ids.tolist() and none is None


@pytest.mark.parametrize('combiner', ['mean', 'sum', 'sqrtn'])
def test_pool_passes_nan_on_as_tensorflow(combiner):
  vectors = np.ones([3, 2], 'f')
  vectors[1, 0] = NAN
  weights = np.ones([2, 2], 'f')
  weights[1, 1] = NAN
  packed = packing.Packed(rows=None, index=tf.constant([0, 1, 2, 2]),
                          splits=tf.constant([0, 2, 4]))
  Group = collections.namedtuple('Group', 'columns dim combiner weighted')
  found = []
  for op_fusion in (True, False):
    v = tf.constant(vectors)
    pooled = hashed.pool(v, packed, Group(
        ['a'], 2, combiner, False), op_fusion)
    gradient, = tf.gradients(tf.reduce_sum(pooled * weights), v)
    found.append((pooled, tf.convert_to_tensor(gradient)))
  with tf.Session() as sess:
    got, wanted = sess.run(found)
  assert np.isnan(wanted[0]).sum() == 2 - 1 and np.isnan(wanted[1]).any()
  for one, other in zip(got, wanted):
    np.testing.assert_array_equal(np.isnan(one), np.isnan(other))


def test_updates_pass_nan_on():
  gradient = np.ones([3, 2], 'f')
  gradient[1, 0] = NAN
  var, m, v = adam_variables()
  rows = [variable('rows_' + name, np.zeros([5, 2])) for name in 'xmv']
  moving = variable('moving', np.zeros([3, 2]))
  updates = [
      native.dense_adam([var], [m], [v], [gradient], SCALARS),
      native.rows_adam(*rows, tf.constant([0, 4, 2], tf.int64), gradient,
                       SCALARS),
      native.moving_averages([moving], [0], gradient.ravel(), 0.9)]
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    sess.run(updates)
    for value in sess.run([var, m, v, moving]):
      np.testing.assert_array_equal(np.isnan(value), np.isnan(gradient))
    for value in sess.run(rows):
      np.testing.assert_array_equal(np.argwhere(np.isnan(value)), [[4, 0]])


# ------------------------------------------------------------------- memory

_LITTLE_MEMORY = '''
import re, resource
import numpy as np
import tensorflow.compat.v1 as tf
from ple_estimator.engine import compat
from ple_estimator.engine import native

def net(rows, threads):
  with tf.Graph().as_default():
    x = tf.placeholder(tf.float32, [None, 1])
    given = [tf.ones([1, 4096]), tf.ones([4096]), tf.ones([4096, 1])]
    nets = dict(net_input=[0], num_hidden=[1], linear=[1], batch_norm=False)
    y = native._ops().ple_nets([x], given, tf.zeros([0]), 0, num_nets=1,
                               training=True, **nets)
    d = native._ops().ple_nets_grad([x], given, [tf.ones_like(y.outputs[0])],
                                    y.moments, y.saved, 0, **nets)
    config = tf.ConfigProto(intra_op_parallelism_threads=threads)
    with tf.Session(config=config) as sess:
      try:
        return sess.run(d.d_inputs[0], {x: np.ones([rows, 1])}).sum()
      except tf.errors.ResourceExhaustedError as error:
        return error.message.replace('\\n', ' ')

for threads in (1, 2):
  print(net(1000, threads))
with open('/proc/self/statm') as f:
  size = int(f.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30),) * 2)
for threads in (1, 2):
  # z alone is 1.2 GB; then z fits, but not with the gradient's 3 vectors.
  print(net(75000, threads))
  print(net(30000, threads))
  print(net(1000, threads))
'''


def test_no_memory_is_resource_exhausted():
  done = subprocess.run(
      [sys.executable, '-W', 'ignore', '-c', _LITTLE_MEMORY],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
      cwd=conftest.ROOT)
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  fits, full = str(4096.0 * 1000), 'there is no memory for a fused kernel'
  assert lines[:2] == [fits] * 2
  for at in (2, 5):
    assert full in lines[at] and full in lines[at + 1]
    assert lines[at + 2] == fits


# ------------------------------------------------- the bytes that passes move


def moved(fetches):
  """The bytes that ops move, by type, when one thread runs them."""
  with tf.Session(config=tf.ConfigProto(
      intra_op_parallelism_threads=1)) as sess:
    sess.run(tf.global_variables_initializer())
    with native.trace() as traced:
      sess.run(fetches)
  total = collections.Counter()
  for one in traced[0]:
    total[str(one['type'], 'ascii')] += one['bytes']
  return total


def has_bfloat16():
  with open('/proc/cpuinfo') as f:
    return 'avx512_bf16' in f.read()


# On processors without bfloat16 products the operands are floats.
@pytest.mark.parametrize('compute, size', [
    ('float32', 4), ('bfloat16', 2 if has_bfloat16() else 4)])
def test_nets_make_no_pass_more_than_these(compute, size):
  # Two nets of two layers on one input: which arrays are read and written.
  batch, wide, first, second = 512, 64, 96, 48
  x = tf.get_variable('x', [batch, wide])
  outputs = mlp.Mlp('PLE', 'relu', True, 0.0, 0.0)(
      collections.OrderedDict(
          (name, mlp.Net(x, (first, second))) for name in 'ab'),
      purpose.Purpose(training=True, fused=True,
                      precision=precision.Precision(compute)))
  loss = tf.add_n([tf.reduce_sum(y ** 2) for y in outputs.values()])
  found = moved(tf.gradients(loss, tf.trainable_variables()))
  inputs, z, y = batch * wide, batch * first, batch * second
  lower, upper = wide * first, first * second  # the kernels
  converted = compute != 'float32'
  forward = converted * inputs * (4 + size) + 2 * (
      converted * lower * (4 + size) +        # its kernel as an operand
      (inputs + lower + z) * size +           # product
      2 * z * size +                          # relu and moments
      upper * (4 + size) +                    # its kernel with the norm below
      (z + upper + y) * size +                # product
      2 * y * size +                          # relu and moments
      y * (size + 4))                         # norm of the output
  backward = 2 * inputs * (size + 4) + inputs * 4 + 2 * (  # sum of d_inputs
      y * (4 + size) +                        # sums of the norm's gradient
      y * (4 + size + size) +                 # norm and relu
      (y + upper + z) * size +                # product for the layer below
      (z + y) * size + upper * 4 +            # product for the kernel
      upper * 4 * 3 +                         # its kernel without the norm
      z * 3 * size +                          # norm and relu
      (z + lower + inputs) * size +           # product for the input
      (inputs + z) * size + lower * 4)        # product for the kernel
  # Vectors with an element per column add less than a hundredth.
  assert forward <= found['PleNets'] < 1.01 * forward
  assert backward <= found['PleNetsGrad'] < 1.01 * backward


def test_updates_make_no_pass_more_than_these():
  shapes = [[300, 40], [7]]
  elements = 300 * 40 + 7
  names = [[variable('%s%d' % (kind, i), np.ones(shape))
            for i, shape in enumerate(shapes)] for kind in 'xmva']
  adam = native.dense_adam(
      *names[:3], gradients=[tf.ones(shape) for shape in shapes],
      scalars=SCALARS)
  table, m, v = [variable('t' + kind, np.ones([50, 8])) for kind in 'xmv']
  rows = native.rows_adam(table, m, v, tf.constant([3, 1, 9], tf.int64),
                          tf.ones([3, 8]), SCALARS)
  with tf.control_dependencies([adam]):
    averages = native.move_averages(names[3], names[0], tf.constant(0.5))
  # Adam reads a gradient, a variable and two moments, and writes the last
  # three; an average is read with its variable and written.
  assert moved([adam, rows, averages]) == {
      'PleDenseAdam': 7 * 4 * elements, 'PleRowsAdam': 7 * 4 * 3 * 8,
      'PleMoveAverages': 3 * 4 * elements}


def test_nothing_is_counted_outside_of_a_trace():
  x, m, v = [variable(kind, np.ones([5])) for kind in 'xmv']
  update = native.dense_adam([x], [m], [v], [tf.ones([5])], SCALARS)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    sess.run(update)
    with native.trace() as traced:
      pass
    sess.run(update)
    with native.trace() as again:
      sess.run(update)
  assert not traced[0].size
  assert again[0]['bytes'].tolist() == [7 * 4 * 5]
