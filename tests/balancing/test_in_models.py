"""Balancing in whole models: a step against the gradients of an evaluation."""

import collections
import functools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import model
from ple_estimator.balancing import dynamic_weight_average
from ple_estimator.balancing import grad_norm
from ple_estimator.balancing import pcgrad
from ple_estimator.balancing import uncertainty_weights
from ple_estimator.data import feature_spec
from ple_estimator.data import packing
from ple_estimator.embeddings import attention
from ple_estimator.embeddings import hashed
from ple_estimator.embeddings import keyed
from ple_estimator.engine import compat
from ple_estimator.interactions import wide
from ple_estimator.network import ple
from ple_estimator.network import precision
from ple_estimator.network import tasks
from ple_estimator.network import towers
from ple_estimator.network import transfer
from ple_estimator.optimizers import averaging
from ple_estimator.optimizers import factories

TRAIN, EVAL = tf.estimator.ModeKeys.TRAIN, tf.estimator.ModeKeys.EVAL
RNG = np.random.RandomState(11)
COLUMNS = [
    {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
    {'name': 'stay', 'kind': 'label'},
    {'name': 'ad', 'kind': 'hashed', 'num_buckets': 11},
    {'name': 'tags', 'kind': 'hashed_list', 'num_buckets': 13},
    {'name': 'seen', 'kind': 'hashed_list', 'num_buckets': 13,
     'combiner': 'attention', 'query': 'ad'},
    {'name': 'age', 'kind': 'number'},
]
RAW = {
    'clk': np.array([1, 0, 1, 1, 0, 0, 0, 0, 0, 0], 'f'),
    'stay': RNG.rand(10).astype('f') - 3,
    'ad': list('abcabcabaa'), 'age': RNG.randn(10).astype('f'),
    'tags': ['x|y', '', 'z', 'y', 'x', 'x|z', '', 'u|v|x', 'v', 'z|z'],
    'seen': ['', 'a', 'b|c', 'a|a', 'c', '', 'b', 'a|c|d', 'd', 'b|a'],
}
NAMES = ['ctr', 'dwell']
EACH = {'uncertainty': uncertainty_weights.UncertaintyWeights,
        'dynamic': lambda: dynamic_weight_average.DynamicWeightAverage(1),
        'grad_norm': grad_norm.GradNorm, 'pcgrad': pcgrad.PCGrad}


def built(mode, balancing=None, num_ps=0, **kwargs):
  tf.set_random_seed(5)
  tf.train.create_global_step()
  tower = towers.Tower((3,), batch_norm=False, l2=0.1, bias_scale=1.0)
  parts = dict(
      features=feature_spec.FeatureSpec(COLUMNS, dim=4),
      embedding=hashed.HashEmbedding(),
      network=ple.PLE((5,), (), num_levels=2, num_task_experts=1,
                      batch_norm=False, l2=0.1),
      tasks=[tasks.Task('ctr', 'clk', tower, weight=0.5, initial_bias=0.0),
             tasks.Task('dwell', 'stay', tower, 'regression', weight=2.0,
                        sample_space=('clk', 1), initial_bias=0.0)],
      precision=precision.Precision(), optimizer=lambda: factories.sgd(1.0),
      interactions=[wide.Wide()], attention=attention.Attention((3,), l2=0.1))
  made = model.Model(balancing=balancing, **dict(parts, **kwargs))
  raw = {name: tf.placeholder_with_default(value, [None])
         for name, value in RAW.items()}
  found, labels = made.features.encode(
      raw, made.keep, without=packing.names(made.groups))
  found.update(packing.pack(raw, made.groups))
  return made.model_fn(found, labels, mode, num_ps=num_ps)


def started(session, variables):
  """Gives each variable numbers that its name determines."""
  session.run([tf.global_variables_initializer(),
               tf.local_variables_initializer(), tf.tables_initializer()])
  assigned = []
  for v in variables:
    name, shape, first = compat.whole(v)
    value = 0.5 * np.random.RandomState(sum(map(ord, name))).randn(*shape)
    assigned.append(v.assign(value[first:first + v.shape.as_list()[0]]))
  session.run(assigned)


def stepped(kind, **kwargs):
  """What a step of sgd(1.0) takes from each variable, and the new state."""
  with tf.Graph().as_default():
    spec = built(TRAIN, EACH[kind](), **kwargs)
    state = [v for v in tf.global_variables()
             if v.op.name.startswith('balancing/')]
    variables = [v for v in tf.trainable_variables()
                 if v not in state]
    with tf.Session() as session:
      started(session, variables)
      before, loss = session.run([variables, spec.loss])
      session.run(spec.train_op)
      after, state = session.run([variables, {v.op.name: v for v in state}])
  found = {}
  for v, a, b in zip(variables, before, after):
    found.setdefault(compat.whole(v)[0], []).append(a - b)
  return {name: np.concatenate(of) for name, of in found.items()}, state, loss


# Losses of the tasks; gradients of each weighted loss, and of the penalties, by
# name; and the loss that is the sum of them all.
Evaluation = collections.namedtuple('Evaluation', 'losses gradients loss')


@functools.lru_cache(maxsize=None)
def of_evaluation():
  """The Evaluation of the model that `built` makes by default."""
  with tf.Graph().as_default() as graph:
    spec = built(EVAL, op_fusion=False)
    variables = tf.trainable_variables()
    losses = [graph.get_tensor_by_name(name + '/loss:0') for name in NAMES]
    found = [tf.gradients(weight * loss, variables)
             for weight, loss in zip((0.5, 2.0), losses)]
    found.append(tf.gradients(
        tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES), variables))
    fetches = [{v.op.name: tf.convert_to_tensor(g) for v, g in zip(
        variables, of) if g is not None} for of in found]
    with tf.Session() as session:
      started(session, variables)
      losses, fetches, loss = session.run([losses, fetches, spec.loss])
  return Evaluation(np.array(losses), fetches, loss)


def shared(of_network=False):
  ctr, dwell = of_evaluation().gradients[:2]
  return [name for name in sorted(ctr) if name in dwell and not (
      of_network and ('embedding' in name or name.startswith(
          ('wide', 'attention'))))]


def summed(factors, shared_factors=None):
  """The gradient of the losses with factors, and of the penalties."""
  ctr, dwell, penalties = of_evaluation().gradients
  both, found = shared(), {}
  for name in set(ctr) | set(dwell) | set(penalties):
    of = (shared_factors if shared_factors is not None and name in both
          else factors)
    found[name] = sum(factor * g[name] for factor, g in zip(
        list(of) + [1], (ctr, dwell, penalties)) if name in g)
  return found


def expected(kind):
  """The gradient of the first step, and the state of the balancing after it."""
  losses, gradients, _ = of_evaluation()
  if kind == 'uncertainty':
    factors = np.array([1, 0.5])
    return summed(factors), {
        'balancing/%s/log_variance' % name: -weight * (0.5 - factor * loss)
        for name, weight, factor, loss in zip(
            NAMES, (0.5, 2.0), factors, losses)}
  if kind == 'dynamic':
    rows = [10, 3]
    return summed([1, 1]), {
        'balancing/%s/loss_sums' % name: [[loss * n, n]] + [[0, 0]] * 3
        for name, loss, n in zip(NAMES, losses, rows)}
  if kind == 'grad_norm':
    norms = np.array([np.sqrt(sum(
        np.square(of[name]).sum() for name in shared(of_network=True)))
                      for of in gradients[:2]])
    weights = 1 - 0.025 * np.sign(norms - norms.mean()) * norms
    weights = 2 * weights / weights.sum()
    state = dict(('balancing/%s/weight' % name, weight)
                 for name, weight in zip(NAMES, weights))
    state.update(('balancing/%s/first_loss' % name, loss)
                 for name, loss in zip(NAMES, losses))
    return summed([1, 1]), state
  ctr, dwell = [np.concatenate([of[name].ravel() for name in shared()])
                for of in gradients[:2]]
  dot = ctr.dot(dwell)
  assert dot < 0  # they are in conflict
  return summed([1, 1], [1 - dot / ctr.dot(ctr), 1 - dot / dwell.dot(dwell)]
                ), {}


def assert_close(got, wanted, tolerance=1e-4):
  assert sorted(got) == sorted(wanted)
  for name in wanted:
    np.testing.assert_allclose(
        got[name], wanted[name], rtol=tolerance, atol=tolerance, err_msg=name)


# One slice with the kernels is that of clipping and bfloat16 below.
@pytest.mark.slow
@pytest.mark.parametrize('kind, op_fusion, slices', [
    (kind, op_fusion, slices) for op_fusion, slices in [(False, 1), (True, 3)]
    for kind in sorted(EACH)] + [('grad_norm', True, 1)])
def test_a_step_is_that_of_the_gradients_of_an_evaluation(
    kind, op_fusion, slices):
  got, state, _ = stepped(kind, op_fusion=op_fusion, micro_batches=slices)
  wanted, wanted_state = expected(kind)
  assert_close(got, wanted)
  assert_close(state, wanted_state)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['grad_norm', 'pcgrad'])
def test_products_in_bfloat16_give_about_the_same_step(kind):
  got, state, _ = stepped(kind, precision=precision.Precision('bfloat16'))
  wanted, wanted_state = expected(kind)
  assert_close(got, wanted, 0.1)
  assert_close(state, wanted_state, 0.1)


@pytest.mark.parametrize('kind', ['uncertainty', 'pcgrad'])
def test_clipping_comes_behind_the_balancing(kind):
  got, state, _ = stepped(kind, clip_norm=0.1)
  wanted, wanted_state = expected(kind)
  trained = list(wanted.values())
  if kind == 'uncertainty':  # the optimizer trains its state as well
    trained += list(wanted_state.values())
  share = 0.1 / np.sqrt(sum(np.square(g).sum() for g in trained))
  assert_close(got, {name: share * g for name, g in wanted.items()})
  assert_close(state, {name: share * value for name, value in
                       wanted_state.items()} if kind == 'uncertainty'
               else wanted_state)


# The others need no gradient of a variable.
@pytest.mark.slow
@pytest.mark.parametrize('kind', ['grad_norm', 'pcgrad'])
def test_variables_in_parts_take_the_same_step(kind):
  got, state, loss = stepped(
      kind, op_fusion=False, num_ps=2, input_layer_partitioner=1,
      dense_layer_partitioner=1)
  wanted, wanted_state = expected(kind)
  assert_close(got, wanted)
  assert_close(state, wanted_state)
  assert loss == pytest.approx(of_evaluation().loss, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['uncertainty', 'grad_norm', 'pcgrad'])
def test_averages_and_embedding_variables(kind):
  """Trains rows of its own for each key, and averages what is trained."""
  with tf.Graph().as_default():
    spec = built(TRAIN, EACH[kind](), embedding=keyed.EmbeddingVariable(),
                 averaging=averaging.Averaging(0.9),
                 network=ple.PLE((5,), (), num_levels=1, num_task_experts=1,
                                 batch_norm=False),
                 optimizer=lambda: factories.lazy_adam(0.05))
    names = {v.op.name for v in tf.global_variables()}
    of_balancing = {name for name in names if name.startswith('balancing/')}
    with tf.Session() as session:
      session.run([tf.global_variables_initializer(),
                   tf.local_variables_initializer(), tf.tables_initializer()])
      losses = [session.run([spec.loss, spec.train_op])[0] for _ in range(40)]
  assert np.isfinite(losses).all() and losses[-1] < 0.8 * losses[0]
  averaged = {name for name in of_balancing if name.endswith('/average')}
  assert bool(averaged) == (kind == 'uncertainty')
  assert bool(of_balancing) == (kind != 'pcgrad')


@functools.lru_cache(maxsize=None)
def losses_of_ait(kind, weight, slices):
  """The losses of two tasks in a row, the second far above the first one.

  Args:
    kind: a key of EACH, or None.
    weight: float, of the calibrator.
    slices: int, micro-batches.

  Returns:
    [2] float32.
  """
  tower = towers.Tower((3,), batch_norm=False)
  with tf.Graph().as_default() as graph, tf.Session() as sess:
    built(TRAIN, kind and EACH[kind](), micro_batches=slices,
          network=transfer.AIT(
              ple.PLE((5,), (), num_levels=1, num_task_experts=1,
                      batch_norm=False), None, weight),
          tasks=[tasks.Task('ctr', 'clk', tower, initial_bias=-2.0),
                 tasks.Task('cvr', 'clk', tower, initial_bias=2.0)])
    sess.run([tf.global_variables_initializer(), tf.tables_initializer()])
    return sess.run(graph.get_tensor_by_name('all_losses:0'))[:2]


@pytest.mark.slow
@pytest.mark.parametrize('kind, slices', [
    (None, 1)] + [(kind, 2) for kind in sorted(EACH)])
def test_the_calibrator_of_ait_is_part_of_what_is_balanced(kind, slices):
  # Logits are small beside their biases in the first step.
  above = 5 * (1 / (1 + np.exp(-2)) - 1 / (1 + np.exp(2)))
  np.testing.assert_allclose(
      losses_of_ait(kind, 5.0, slices) - losses_of_ait(None, 0.0, 1),
      [0, above], atol=0.8)


def test_the_calibrator_of_ait_is_the_same_in_slices():
  np.testing.assert_allclose(losses_of_ait('grad_norm', 5.0, 2),
                             losses_of_ait('grad_norm', 5.0, 1), rtol=1e-4)
