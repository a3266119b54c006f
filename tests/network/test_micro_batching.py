"""k slices against the whole batch."""

import functools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import model
from ple_estimator.data import feature_spec
from ple_estimator.data import packing
from ple_estimator.embeddings import hashed
from ple_estimator.network import micro_batching
from ple_estimator.network import ple
from ple_estimator.network import precision
from ple_estimator.network import tasks
from ple_estimator.network import towers
from ple_estimator.optimizers import averaging
from ple_estimator.optimizers import factories

TRAIN, EVAL = tf.estimator.ModeKeys.TRAIN, tf.estimator.ModeKeys.EVAL
RNG = np.random.RandomState(11)
COLUMNS = [
    {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
    {'name': 'stay', 'kind': 'label'},
    {'name': 'w', 'kind': 'weight'},
    {'name': 'ad', 'kind': 'hashed', 'num_buckets': 11},
    {'name': 'tags', 'kind': 'hashed_list', 'num_buckets': 13},
    {'name': 'age', 'kind': 'number'},
]
# Ten rows; those of the sample space, clk = 1, are in the first slices only.
RAW = {
    'clk': np.array([1, 0, 1, 1, 0, 0, 0, 0, 0, 0], 'f'),
    'stay': RNG.rand(10).astype('f'), 'w': RNG.rand(10).astype('f'),
    'ad': list('abcabcabaa'), 'age': RNG.randn(10).astype('f'),
    'tags': ['x|y', '', 'z', 'y', 'x', 'x|z', '', 'u|v|x', 'v', 'z|z'],
}


def built(mode, k=1, rows=RAW, **kwargs):
  """The spec of a model with two tasks, on a batch of unknown size."""
  tf.set_random_seed(5)
  tf.train.create_global_step()
  # The bias of a logit is its variable, and the first step adds nothing to it,
  # as in the graph of an evaluation.
  tower = towers.Tower((3,), batch_norm=False, l2=0.1, bias_scale=1.0)
  parts = dict(
      features=feature_spec.FeatureSpec(COLUMNS, dim=4),
      embedding=hashed.HashEmbedding(),
      network=ple.PLE((5,), (4,), num_levels=2, batch_norm=False, l2=0.1),
      tasks=[tasks.Task('ctr', 'clk', tower, weight=0.5, initial_bias=0.0),
             tasks.Task('dwell', 'stay', tower, 'regression', weight=2.0,
                        sample_space=('clk', 1), initial_bias=0.0)],
      precision=precision.Precision(),
      optimizer=lambda: factories.sgd(1.0))
  made = model.Model(micro_batches=k, **dict(parts, **kwargs))
  raw = {name: tf.placeholder_with_default(value, [None])
         for name, value in rows.items()}
  found, labels = made.features.encode(
      raw, made.keep, without=packing.names(made.groups))
  found.update(packing.pack(raw, made.groups))
  return made.model_fn(found, labels, mode)


def started(variables):
  """A session where each variable has numbers that its name determines."""
  session = tf.Session()
  session.run(tf.global_variables_initializer())
  session.run(tf.local_variables_initializer())
  session.run([v.assign(np.random.RandomState(sum(map(ord, v.op.name))).randn(
      *v.shape.as_list()) * 0.5) for v in variables])
  return session


def stepped(k, **kwargs):
  """Gradients, by a step of sgd(1.0), losses and summaries by name."""
  with tf.Graph().as_default() as graph:
    spec = built(TRAIN, k, **kwargs)
    variables = tf.trainable_variables()
    names = ['total_loss', 'ctr/loss', 'dwell/loss']
    names += ['gates/level_%d' % level for level in range(2)]
    fetches = [graph.get_tensor_by_name(name + ':0') for name in names]
    with started(variables) as session:
      before = session.run(variables)
      losses, text = session.run([fetches, tf.summary.merge_all()])
      session.run(spec.train_op)
      after = session.run(variables)
    assert spec.loss is fetches[0]
  found = {'d/' + v.op.name: a - b for v, a, b in zip(variables, before, after)}
  found.update(zip(names, losses))
  found.update((value.tag, value.simple_value) for value in
               tf.Summary.FromString(text).value if not value.image.height)
  return found


def cells(gates, level):
  """The shares of a level, gates by experts, both with the shared ones last."""
  def ordered(names):
    return sorted(sorted(set(names)), key=lambda name: 'shared' in name)

  names = [name.split('/', 3)[2:] for name in gates
           if name.startswith('gate/level_%d/' % level)]
  return [[gates.get('gate/level_%d/%s/%s' % (level, gate, expert), 0.0)
           for expert in ordered(expert for _, expert in names)]
          for gate in ordered(gate for gate, _ in names)]


@functools.lru_cache(maxsize=None)
def expected():
  """The same from the graph of an evaluation, which knows no slices."""
  with tf.Graph().as_default() as graph:
    spec = built(EVAL, op_fusion=False)
    variables = tf.trainable_variables()
    found = {name: graph.get_tensor_by_name(name + ':0')
             for name in ('total_loss', 'ctr/loss', 'dwell/loss')}
    for v, g in zip(variables, tf.gradients(spec.loss, variables)):
      found['d/' + v.op.name] = tf.convert_to_tensor(g)
    metrics = {name: metric for name, metric in spec.eval_metric_ops.items()
               if name.startswith('gate/')}
    with started(variables) as session:
      session.run([update for _, update in metrics.values()])
      found, gates = session.run([found, {
          name: value for name, (value, _) in metrics.items()}])
  for level in range(2):
    found['gates/level_%d' % level] = cells(gates, level)
  found['ctr/log_loss'] = found['ctr/loss']
  gradients = [g for name, g in found.items() if name.startswith('d/')]
  found['gradient_norm'] = np.sqrt(sum((g ** 2).sum() for g in gradients))
  found['learning_rate'] = 1.0
  return found


def assert_close(got, wanted, tolerance):
  assert sorted(got) == sorted(wanted)
  for name in wanted:
    np.testing.assert_allclose(
        got[name], wanted[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize('op_fusion', [False, True])
@pytest.mark.parametrize('k', [1, 3, 4, 16])
def test_a_step_is_that_of_the_whole_batch(k, op_fusion):
  assert_close(stepped(k, op_fusion=op_fusion), expected(), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('op_fusion', [False, True])
def test_a_step_in_bfloat16_is_that_of_the_whole_batch(op_fusion):
  kwargs = dict(precision=precision.Precision('bfloat16'), op_fusion=op_fusion)
  sliced, whole, exact = stepped(3, **kwargs), stepped(1, **kwargs), expected()
  assert_close(sliced, exact, 0.1)
  # Sums of slices are rounded once more, products are the same.
  assert_close(sliced, whole, 0.02)


def test_each_slice_drops_embeddings_of_its_own():
  # Equal rows have equal gradients, unless what they dropped differs.
  rows = {name: np.repeat(value[:1], 6) for name, value in RAW.items()}
  name = 'd/dim_4_mean/embedding'
  found = [stepped(6, rows=rows, embedding_dropout=rate)[name]
           for rate in (0.0, 0.5)]
  assert np.abs(found[0] - found[1]).max() > 1e-4
  used = found[1][np.abs(found[0]).max(axis=1) > 0]
  assert (np.abs(used) > 0).mean() > 0.9  # some slice has kept each number


@pytest.mark.slow
@pytest.mark.parametrize('op_fusion', [False, True])
def test_averages_move_once_per_batch(op_fusion):
  found = []
  for k in (1, 3):
    with tf.Graph().as_default():
      spec = built(TRAIN, k, op_fusion=op_fusion,
                   averaging=averaging.Averaging(0.5))
      weights = tf.trainable_variables()
      averages = {v.op.name: v for v in tf.global_variables()}
      averages = [averages[v.op.name + '/average'] for v in weights]
      with started(weights) as session:
        session.run(spec.train_op)
        first = session.run(weights)
        session.run(spec.train_op)
        session.run(averaging.of_graph()[0].catch_up_all)
        second, got = session.run([weights, averages])
    for of_first, of_second, average in zip(first, second, got):
      np.testing.assert_allclose(
          average, of_first / 6 + 5 * of_second / 6, rtol=1e-4, atol=1e-6)
    found.append(got)
  for whole, sliced in zip(*found):
    np.testing.assert_allclose(sliced, whole, rtol=1e-3, atol=1e-4)


def test_clipping_sees_the_whole_batch():
  got, wanted = stepped(4, clip_norm=0.5), expected()
  name = 'd/ctr/tower/logit/kernel'
  np.testing.assert_allclose(
      got[name], wanted[name] * 0.5 / wanted['gradient_norm'], rtol=1e-4)


@pytest.mark.parametrize('op_fusion', [
    True, pytest.param(False, marks=pytest.mark.slow)])
def test_equal_slices_have_the_gradient_of_batch_norm_of_the_whole(op_fusion):
  # Three times the same rows: the statistics of a slice are the batch's.
  rows = {name: np.tile(value, 3) for name, value in RAW.items()}
  kwargs = dict(
      rows=rows, op_fusion=op_fusion,
      network=ple.PLE((5,), (4,), num_levels=2, batch_norm=True))
  assert_close(stepped(3, **kwargs), stepped(1, **kwargs), 1e-4)


@pytest.mark.parametrize('op_fusion', [False, True])
@pytest.mark.parametrize('k, cuts', [
    (1, []), (3, [3, 6]), (4, [2, 5, 7]), (16, range(1, 10))])
def test_moving_averages_move_once_per_slice(k, cuts, op_fusion):
  def network(inputs, tasks, *unused):
    return {task: inputs for task in tasks}, {}
  spec = built(
      TRAIN, k, network=network, op_fusion=op_fusion,
      features=feature_spec.FeatureSpec([COLUMNS[0], COLUMNS[5]], dim=4),
      tasks=[tasks.Task('ctr', 'clk', towers.Tower((3,)))])
  variables = {v.op.name[len('ctr/tower/'):]: v for v in tf.global_variables()
               if v.op.name.startswith('ctr/tower/')}
  with started(list(variables.values())) as session:
    # From here on the momentum is what BatchNorm.momentum says.
    session.run(tf.train.get_global_step().assign(10**6))
    before = session.run(variables)
    session.run(spec.train_op)
    after = session.run(variables)
  x = np.maximum(0, RAW['age'][:, np.newaxis].dot(before['dense_0/kernel']) +
                 before['dense_0/bias'])
  mean, variance = [before['norm_0/moving_' + name]
                    for name in ('mean', 'variance')]
  for rows in np.split(x, cuts):
    mean = 0.9 * mean + 0.1 * rows.mean(axis=0)
    variance = 0.9 * variance + 0.1 * rows.var(axis=0)
  np.testing.assert_allclose(
      after['norm_0/moving_mean'], mean, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(
      after['norm_0/moving_variance'], variance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('k', [1, 2, 3, 5, 100])
def test_slices_differ_by_a_row_and_come_in_order(k):
  size = tf.placeholder(tf.int32, [])
  past = tf.get_variable('past', initializer=0, trainable=False)

  def of_rows(rows):
    x = rows['x']
    seen = tf.cast(past.read_value(), tf.float32)
    with tf.control_dependencies([seen]):
      tf.add_to_collection(
          tf.GraphKeys.UPDATE_OPS, past.assign_add(tf.shape(x)[0]))
    count = tf.cast(tf.shape(x)[0], tf.float32)
    # A slice that ran ahead would see a `past` other than its first row.
    return {'total': tf.reduce_sum(x, axis=0), 'squares': count ** 2,
            'late': tf.square(x[0, 0] - 2 * seen)}, 10 * x

  x = tf.reshape(tf.cast(tf.range(2 * size), tf.float32), [-1, 2])
  sums, rows = micro_batching.accumulate(of_rows, {'x': x}, k)
  assert rows.shape.as_list() == [None, 2]
  moves = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
  assert len(moves) == (k == 1)
  for n in (1, 3, 4, 10, 37):
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      got, joined, _ = session.run([sums, rows, moves], {size: n})
      assert session.run(past) == n
    wanted = np.arange(2 * n).reshape([n, 2])
    np.testing.assert_array_equal(joined, 10 * wanted)
    np.testing.assert_array_equal(got['total'], wanted.sum(axis=0))
    parts = np.array_split(wanted, min(k, n))
    assert got['squares'] == sum(len(part) ** 2 for part in parts)
    assert got['late'] == 0


def test_the_graph_does_not_grow_with_the_slices():
  sizes = []
  for k in (2, 64):
    with tf.Graph().as_default() as graph:
      built(TRAIN, k)
      sizes.append(len(graph.get_operations()))
  assert sizes[0] == sizes[1]


def test_refuses_no_slices():
  with pytest.raises(errors.UserError, match=(
      'Model.micro_batches must be an integer of at least 1')):
    built(TRAIN, 0)
