"""Networks against plain numpy."""

import collections

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.engine import purpose
from ple_estimator.network import ple
from ple_estimator.network import precision
from ple_estimator.network import towers

FLOAT32 = precision.Precision()
TRAINING = purpose.Purpose(training=True, precision=FLOAT32)
TASKS = ['ctr', 'cvr']
RNG = np.random.RandomState(5)
INPUTS = RNG.randn(6, 5).astype('f')


class Reference:
  """PLE as a loop over rows and experts, from the variables by their names."""

  def __init__(self, values, batch_norm, training):
    self.values = values
    self.batch_norm = batch_norm
    self.training = training

  def mlp(self, x, scope, depth):
    for i in range(depth):
      v = {k[len(scope) + 1:]: a for k, a in self.values.items()
           if k.startswith(scope + '/')}
      x = x.dot(v['dense_%d/kernel' % i]) + v['dense_%d/bias' % i]
      x = np.maximum(x, 0)
      if self.batch_norm:
        mean = v['norm_%d/moving_mean' % i]
        var = v['norm_%d/moving_variance' % i]
        if self.training:
          mean, var = x.mean(axis=0), x.var(axis=0)
        x = (v['norm_%d/gamma' % i] * (x - mean) / np.sqrt(var + 1e-3)
             + v['norm_%d/beta' % i])
    return x

  def mix(self, x, scope, experts, depth):
    score = np.exp(self.mlp(x, scope + '/gate', depth).dot(
        self.values[scope + '/gate/mix/kernel']))
    gate = score / score.sum(axis=1, keepdims=True)
    return np.stack([sum(g * e[row] for g, e in zip(gate[row], experts))
                     for row in range(len(x))])

  def __call__(self, x, levels, own, shared, depth, gate_depth):
    inputs, common = {t: x for t in TASKS}, x
    for level in range(levels):
      scope = 'level_%d/' % level
      experts = {t: [self.mlp(inputs[t], '%s%s/expert_%d' % (scope, t, i),
                              depth) for i in range(own)] for t in TASKS}
      shared_experts = [self.mlp(common, '%sshared/expert_%d' % (scope, i),
                                 depth) for i in range(shared)]
      inputs = {t: self.mix(inputs[t], scope + t, experts[t] + shared_experts,
                            gate_depth) for t in TASKS}
      if level < levels - 1:
        common = self.mix(
            common, scope + 'shared',
            experts['ctr'] + experts['cvr'] + shared_experts, gate_depth)
    return inputs


def build(training=False, compute=FLOAT32, **kwargs):
  """Builds a PLE, moves its variables off their start, and runs it."""
  rng = np.random.RandomState(8)
  with tf.Graph().as_default(), tf.Session() as sess:
    found = ple.PLE(**kwargs)(
        tf.constant(INPUTS), TASKS, purpose.Purpose(training, compute))
    values = {v.op.name: rng.rand(*v.shape.as_list()).astype('f') + 0.5
              - ('kernel' in v.name) for v in tf.global_variables()
              if v.dtype.is_floating}
    sess.run([v.assign(values[v.op.name]) for v in tf.global_variables()
              if v.op.name in values])
    return sess.run(found) + (values,)


@pytest.mark.parametrize('batch_norm', [True, False])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('gate_units', [(), (3,)])
def test_ple_matches_numpy(batch_norm, training, gate_units):
  found, _, values = build(
      training, expert_units=(7, 4), gate_units=gate_units, num_levels=3,
      num_task_experts=2, num_shared_experts=1, batch_norm=batch_norm)
  wanted = Reference(values, batch_norm, training)(
      INPUTS, 3, 2, 1, depth=2, gate_depth=len(gate_units))
  for task in TASKS:
    np.testing.assert_allclose(found[task], wanted[task], rtol=2e-4, atol=2e-4)


def test_gates_say_the_weight_of_each_expert():
  _, gates, _ = build(expert_units=(4,), gate_units=(), num_levels=2,
                      num_task_experts=2, num_shared_experts=1)
  assert sorted(gates) == ['level_0/ctr', 'level_0/cvr', 'level_0/shared',
                           'level_1/ctr', 'level_1/cvr']
  assert sorted(gates['level_1/ctr']) == [
      'ctr/expert_0', 'ctr/expert_1', 'shared/expert_0']
  assert len(gates['level_0/shared']) == 5
  for shares in gates.values():
    np.testing.assert_allclose(sum(shares.values()), np.ones(6), rtol=1e-6)


def test_shared_bottom_gives_every_task_the_same_input_and_has_no_gate():
  found, gates, values = build(
      expert_units=(4,), num_levels=1, num_task_experts=0)
  np.testing.assert_array_equal(found['ctr'], found['cvr'])
  assert not any('gate' in name for name in values)
  assert not any(gates.values())


def test_single_task_shares_nothing():
  _, _, values = build(expert_units=(4,), num_levels=2, num_task_experts=1,
                       num_shared_experts=0)
  assert {name.split('/')[1] for name in values} == {'ctr', 'cvr'}


def test_variables_have_the_names_that_checkpoints_rely_on():
  ple.PLE((4,), (3,), 2, 1, 1)(
      tf.constant(INPUTS), TASKS, TRAINING)
  names = [v.op.name for v in tf.global_variables()
           if not v.op.name.endswith('global_step')]
  own = ['dense_0/kernel', 'dense_0/bias', 'norm_0/gamma', 'norm_0/beta',
         'norm_0/moving_mean', 'norm_0/moving_variance']
  nets = ['%s/%s' % (who, net) for who in ('ctr', 'cvr', 'shared')
          for net in ('expert_0', 'gate')]
  wanted = {'level_0/%s/%s' % (n, v) for n in nets for v in own}
  wanted |= {'level_0/%s/gate/mix/kernel' % who
             for who in ('ctr', 'cvr', 'shared')}
  # The last level has no shared gate.
  wanted |= {n.replace('level_0', 'level_1') for n in wanted
             if 'shared/gate' not in n}
  assert sorted(names) == sorted(wanted)


def test_dropout_acts_in_training_alone():
  kwargs = dict(expert_units=(50,), gate_units=(), num_levels=1,
                num_task_experts=0, batch_norm=False, activation='sigmoid')
  plain = build(**kwargs)[0]['ctr']
  np.testing.assert_array_equal(build(dropout=0.5, **kwargs)[0]['ctr'], plain)
  dropped = build(training=True, dropout=0.5, **kwargs)[0]['ctr']
  kept = dropped != 0
  assert 0.35 < kept.mean() < 0.65
  np.testing.assert_allclose(dropped[kept], 2 * plain[kept], rtol=1e-5)


def test_l2_adds_half_the_squared_norm_of_kernels():
  ple.PLE((4, 3), (2,), num_levels=1, l2=0.3)(
      tf.constant(INPUTS), TASKS, TRAINING)
  kernels = [v for v in tf.trainable_variables() if 'kernel' in v.name]
  loss = tf.add_n(tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES))
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    got, values = sess.run([loss, kernels])
  assert got == pytest.approx(
      0.3 * sum((v ** 2).sum() / 2 for v in values), rel=1e-5)


@pytest.mark.parametrize('fused', [False, True])
def test_towers_are_hidden_layers_and_one_logit_each(fused):
  # One of another kind and one of another size among them.
  of_task = collections.OrderedDict([
      ('ctr', towers.Tower((7, 3))),
      ('cvr', towers.Tower((4,), batch_norm=False)),
      ('cart', towers.Tower((6,)))])
  inputs = {task: RNG.randn(6, 5).astype('f') for task in of_task}
  logits = towers.logits(
      of_task, {task: tf.constant(x) for task, x in inputs.items()},
      purpose.Purpose(False, FLOAT32, fused))
  ops = [op for op in tf.get_default_graph().get_operations()
         if op.type == 'PleNets']
  assert len(ops) == (2 if fused else 0)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    found = sess.run(logits)
    values = {v.op.name: sess.run(v) for v in tf.global_variables()}
  for task, depth in [('ctr', 2), ('cvr', 1), ('cart', 1)]:
    scope = task + '/tower'
    hidden = Reference(values, task != 'cvr', False).mlp(
        inputs[task], scope, depth)
    np.testing.assert_allclose(
        found[task], hidden.dot(values[scope + '/logit/kernel'])[:, 0] +
        values[scope + '/logit/bias'], rtol=1e-4, atol=1e-5, err_msg=task)


def test_bfloat16_products_are_close_and_not_equal():
  kwargs = dict(expert_units=(7, 4), gate_units=(3,), num_levels=2)
  exact = build(**kwargs)[0]['cvr']
  rounded = build(compute=precision.Precision('bfloat16'), **kwargs)[0]['cvr']
  np.testing.assert_allclose(rounded, exact, rtol=0.05, atol=0.05)
  assert np.abs(rounded - exact).max() > 1e-5
  assert rounded.dtype == np.float32


def test_bfloat16_rounds_the_operands():
  x = np.array([[1 + 2 ** -9, 3]], 'f')  # 1 in 8 bits of mantissa
  with tf.Session() as sess:
    got = sess.run(precision.Precision('bfloat16').matmul(
        tf.constant(x), tf.constant([[1.0], [0.0]])))
  assert got == 1


def test_bfloat16_variables_are_float32():
  ple.PLE((4,))(tf.constant(INPUTS), TASKS, purpose.Purpose(
      True, precision.Precision('bfloat16')))
  assert {v.dtype.base_dtype for v in tf.global_variables()
          if not v.op.name.endswith('global_step')} == {tf.float32}


@pytest.mark.parametrize('bad, message', [
    ({'num_levels': 0}, 'PLE.num_levels must be an integer of at least 1, got'),
    ({'num_levels': 1.5}, 'PLE.num_levels must be an integer .*, got 1.5'),
    ({'num_task_experts': 'a'}, "PLE.num_task_experts must be .*, got 'a'"),
    ({'num_task_experts': 0, 'num_shared_experts': 0},
     r'at least 1, got 0 \+ 0'),
    ({'expert_units': ()},
     r'PLE.expert_units must be a list of positive .*, got \(\)'),
    ({'expert_units': 64}, 'PLE.expert_units must be a list .*, got 64'),
    ({'gate_units': (0,)}, r'PLE.gate_units must be a list .*, got \(0,\)'),
    ({'activation': 'gelu2'}, "PLE.activation must be 'elu', .*'gelu2'"),
    ({'dropout': 'a'}, r"PLE.dropout must be a number in \[0, 1\), got 'a'"),
    ({'dropout': 1.0}, r'PLE.dropout must be .* in \[0, 1\), got 1.0'),
    ({'l2': -1}, 'PLE.l2 must be a finite number of at least 0, got -1'),
])
def test_refuses(bad, message):
  with pytest.raises(errors.UserError, match=message):
    ple.PLE(**bad)


def test_precision_refuses():
  with pytest.raises(errors.UserError, match="Precision.compute must be 'floa"):
    precision.Precision('float16')


def test_the_outputs_of_experts_are_given_to_who_asks():
  found = collections.OrderedDict()
  per_task, gates = ple.PLE((4,), (), 2, 1, 2, batch_norm=False)(
      tf.constant(INPUTS), TASKS, purpose.Purpose(
          precision=FLOAT32, experts=found))
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    experts, gates, per_task = session.run([dict(found), gates, per_task])
  assert sorted(experts) == sorted(
      'level_%d/%s' % (level, name) for level in range(2) for name in [
          'ctr/expert_0', 'cvr/expert_0', 'shared/expert_0', 'shared/expert_1'])
  for task in TASKS:  # what a tower reads is the mixture of the last level
    mixture = sum(share[:, None] * experts['level_1/' + name]
                  for name, share in gates['level_1/' + task].items())
    np.testing.assert_allclose(per_task[task], mixture, rtol=1e-5)
