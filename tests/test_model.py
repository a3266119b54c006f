"""model_fn: which fields each mode sets, and what its parts add up to."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import model
from ple_estimator.data import feature_spec
from ple_estimator.data import packing
from ple_estimator.embeddings import hashed
from ple_estimator.engine import forms
from ple_estimator.engine import native
from ple_estimator.interactions import wide
from ple_estimator.network import losses
from ple_estimator.network import ple
from ple_estimator.network import precision
from ple_estimator.network import tasks
from ple_estimator.network import towers
from ple_estimator.optimizers import averaging
from ple_estimator.optimizers import factories

COLUMNS = [
    {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
    {'name': 'stay', 'kind': 'label'},
    {'name': 'w', 'kind': 'weight'},
    {'name': 'ad', 'kind': 'hashed', 'num_buckets': 11},
    {'name': 'tags', 'kind': 'hashed_list', 'num_buckets': 13},
    {'name': 'age', 'kind': 'number', 'mean': 30.0, 'std': 10.0},
]
RAW = {
    'clk': np.array([1, 0, 1], 'f'), 'stay': np.array([5, 0, 2.5], 'f'),
    'w': np.array([1, 1, 2], 'f'), 'ad': ['a', 'b', ''],
    'tags': ['x|y', '', 'z'], 'age': np.array([20, 30, 45], 'f'),
}


TOWER = towers.Tower((3,), batch_norm=False)


def make(columns=COLUMNS, sample_space=None, **kwargs):
  both = [
      tasks.Task('ctr', 'clk', TOWER, weight=0.5),
      tasks.Task('dwell', 'stay', TOWER, 'regression', weight=2.0,
                 sample_space=sample_space)]
  parts = dict(
      features=feature_spec.FeatureSpec(columns, dim=4),
      embedding=hashed.HashEmbedding(),
      network=ple.PLE((5,), (), num_levels=2, batch_norm=False),
      tasks=both, precision=precision.Precision(),
      optimizer=factories.adam)
  return model.Model(**dict(parts, **kwargs))


def spec_of(made, mode):
  tf.train.create_global_step()
  raw = {name: tf.constant(value) for name, value in RAW.items()}
  found, labels = made.features.encode(
      raw, made.keep, without=packing.names(made.groups))
  found.update(packing.pack(raw, made.groups))
  if mode == 'infer':
    labels = None
  return made.model_fn(found, labels, mode)


def run(tensors):
  with tf.Session() as sess:
    sess.run([tf.global_variables_initializer(),
              tf.local_variables_initializer(), tf.tables_initializer()])
    return sess.run(tensors)


def test_train_spec_has_loss_and_train_op_only():
  spec = spec_of(make(), tf.estimator.ModeKeys.TRAIN)
  assert spec.loss is not None and spec.train_op is not None
  assert not spec.eval_metric_ops and not spec.export_outputs


def test_eval_spec_has_metrics_of_every_task_and_gate():
  spec = spec_of(make(), tf.estimator.ModeKeys.EVAL)
  names = set(spec.eval_metric_ops)
  assert spec.train_op is None and not spec.export_outputs
  assert {'ctr/auc', 'ctr/log_loss', 'ctr/calibration', 'ctr/accuracy',
          'dwell/rmse', 'dwell/mae', 'dwell/calibration',
          'gate/level_0/shared/ctr/expert_1',
          'gate/level_1/dwell/shared/expert_0'} <= names
  assert 'dwell/auc' not in names


def test_predict_spec_needs_no_labels():
  made = make()
  made.keep = ['ad']
  spec = spec_of(made, tf.estimator.ModeKeys.PREDICT)
  assert sorted(spec.predictions) == ['ad', 'ctr', 'dwell']
  output = spec.export_outputs['serving_default']
  assert sorted(output.outputs) == ['ctr', 'dwell']
  got = run(spec.predictions)
  assert list(got['ad']) == [b'a', b'b', b'']
  assert ((0 < got['ctr']) & (got['ctr'] < 1)).all()
  assert got['dwell'].shape == (3,)


@pytest.mark.parametrize('age', [np.nan, np.inf, -np.inf, 1e20])
def test_a_row_that_no_file_may_have_is_answered_by_nan_alone(age, monkeypatch):
  whole = run_predictions()
  monkeypatch.setitem(RAW, 'age', np.array([20, age, 45], 'f'))
  # A network that hides the number, as relu may hide its NaN.
  for hides in (False, True):
    got = run_predictions(hides)
    for task in ('ctr', 'dwell'):
      assert np.isnan(got[task]).tolist() == [False, True, False]
      if not hides:
        np.testing.assert_allclose(got[task][::2], whole[task][::2], rtol=1e-6)


def run_predictions(hides=False):
  with tf.Graph().as_default():
    tf.set_random_seed(3)
    made = make(network=lambda inputs, names, purpose: (
        {name: tf.ones([tf.shape(inputs)[0], 2]) for name in names}, {})
                ) if hides else make()
    spec = spec_of(made, tf.estimator.ModeKeys.PREDICT)
    return run({name: spec.predictions[name] for name in ('ctr', 'dwell')})


@pytest.mark.parametrize('space, inside', [
    (None, [1, 1, 1]), (('clk', 1), [1, 0, 1]), (('ad', 'b'), [0, 1, 0]),
    (('ad', 'c'), [0, 0, 0])])
def test_loss_is_the_weighted_sum_over_sample_spaces(space, inside):
  spec = spec_of(make(sample_space=space), tf.estimator.ModeKeys.EVAL)
  graph = tf.get_default_graph()
  ctr, dwell, loss = [graph.get_tensor_by_name(n + ':0') for n in (
      'ctr/loss', 'dwell/loss', 'total_loss')]
  with tf.Session() as sess:
    sess.run([tf.global_variables_initializer(),
              tf.local_variables_initializer()])
    sess.run([m[1] for m in spec.eval_metric_ops.values()])
    got, label_mean = sess.run(
        [[ctr, dwell, loss], spec.eval_metric_ops['dwell/label/mean'][0]])
  assert got[2] == pytest.approx(0.5 * got[0] + 2 * got[1], rel=1e-5)
  weights = RAW['w'] * inside
  if sum(inside):
    assert label_mean == pytest.approx(
        np.average(RAW['stay'], weights=weights))
  else:
    assert got[1] == 0


def test_a_task_may_have_a_weight_column_of_its_own(monkeypatch):
  monkeypatch.setitem(RAW, 'v', np.array([2, 0.5, 3], 'f'))
  both = [tasks.Task('ctr', 'clk', TOWER),
          tasks.Task('dwell', 'stay', TOWER, 'regression', weight_column='v')]
  spec = spec_of(make(COLUMNS + [{'name': 'v', 'kind': 'weight'}], tasks=both),
                 tf.estimator.ModeKeys.EVAL)
  with tf.Session() as sess:
    sess.run([tf.global_variables_initializer(),
              tf.local_variables_initializer()])
    sess.run([m[1] for m in spec.eval_metric_ops.values()])
    got = sess.run([spec.eval_metric_ops[name + '/label/mean'][0]
                    for name in ('ctr', 'dwell')])
  assert got == pytest.approx([
      np.average(RAW['clk'], weights=RAW['w']),
      np.average(RAW['stay'], weights=RAW['w'] * RAW['v'])])


def test_positive_weight_counts_in_training_alone():
  columns = {name: np.array(value) for name, value in RAW.items()}
  made = make(tasks=[tasks.Task('ctr', 'clk', TOWER, positive_weight=3.0)])
  clk = columns['clk']
  weights = columns['w'] * np.where(clk > 0, 3, 1)
  # The logits start from the log odds of the weighted labels.
  half = 0.5 * weights.sum() / 3
  p = (weights[clk > 0].sum() + half) / (weights.sum() + 2 * half)
  losses = -np.log(np.where(clk > 0, p, 1 - p))
  assert first_steps(made, 1)[0] == pytest.approx(
      [np.average(losses, weights=weights)], rel=1e-4)
  with tf.Graph().as_default():
    spec = spec_of(made, tf.estimator.ModeKeys.EVAL)
    # Logits are 0 before the first step, whatever the weights are.
    assert run(spec.loss) == pytest.approx(np.log(2), rel=1e-5)
    update = spec.eval_metric_ops['ctr/label/mean']
    with tf.Session() as sess:
      sess.run(tf.local_variables_initializer())
      sess.run(tf.global_variables_initializer())
      sess.run(update[1])
      assert sess.run(update[0]) == pytest.approx(
          np.average(clk, weights=columns['w']))


def test_numbers_and_embeddings_feed_the_network():
  seen = []

  def network(inputs, tasks, purpose):
    assert not purpose.training and purpose.fused == native.available()
    seen.append(inputs)
    return {task: inputs for task in tasks}, {}

  spec_of(make(network=network), tf.estimator.ModeKeys.EVAL)
  got = run(seen[0])
  assert got.shape == (3, 4 + 4 + 1)
  np.testing.assert_allclose(got[:, -1], [-1, 0, 1.5])
  assert not got[2, :4].any() and not got[1, 4:8].any()  # missing values


@pytest.mark.parametrize('mode, rate', [('train', 0.4), ('eval', 0.4),
                                        ('train', 0.0)])
def test_embeddings_are_dropped_in_training_and_numbers_are_not(mode, rate):
  seen = []

  class Embedding(hashed.HashEmbedding):

    def __call__(self, features, columns, purpose):
      return [tf.ones([3, 500]), tf.ones([3, 700])]

  def network(inputs, tasks, purpose):
    seen.append(inputs)
    tf.get_variable('trained', initializer=3.0,
                    regularizer=lambda w: 2 * tf.square(w))
    return {task: inputs for task in tasks}, {}

  def inputs():
    seen.clear()
    with tf.Graph().as_default():
      tf.set_random_seed(3)
      spec_of(make(embedding=Embedding(), network=network,
                   embedding_dropout=rate), mode)
      return run(seen[0])

  got = inputs()
  np.testing.assert_allclose(got[:, -1], [-1, 0, 1.5])
  dropped = mode == 'train' and rate
  np.testing.assert_allclose(
      np.unique(got[:, :-1]), [0, 1 / (1 - rate)] if dropped else [1])
  if dropped:
    assert (got[:, :-1] == 0).mean() == pytest.approx(rate, abs=0.03)
    np.testing.assert_array_equal(got, inputs())  # by run_config.seed


@pytest.mark.parametrize('mode, training, fused, num_ps, track_rows', [
    (tf.estimator.ModeKeys.TRAIN, True, True, 2, True),
    (tf.estimator.ModeKeys.EVAL, False, True, 0, False),
    # A SavedModel must load where there are no kernels.
    (tf.estimator.ModeKeys.PREDICT, False, False, 0, False)])
@pytest.mark.parametrize('has_kernels', [True, False])
def test_decides_once_what_a_graph_is_built_for(
    monkeypatch, mode, training, fused, num_ps, track_rows, has_kernels):
  monkeypatch.setattr(native, 'available', lambda: has_kernels)
  seen, engine = [], forms.Engine()

  class Stop(Exception):
    pass

  class Embedding(hashed.HashEmbedding):

    def __call__(self, features, columns, purpose):
      seen.append(purpose)
      raise Stop

  made = make(embedding=Embedding())
  with pytest.raises(Stop):
    made.model_fn({}, None, mode, num_ps=2, track_rows=True, engine=engine)
  assert seen == [(training, made._precision, fused and has_kernels, num_ps,
                   engine, track_rows, None)]
  assert seen[0].engine is engine


def test_op_fusion_false_is_not_fused():
  assert not make(op_fusion=False).is_fused()


def test_every_part_gets_the_same_purpose():
  seen = []

  class Embedding(hashed.HashEmbedding):

    def __call__(self, features, columns, purpose):
      seen.append(purpose)
      return super().__call__(features, columns, purpose)

  def network(inputs, tasks, purpose):
    seen.append(purpose)
    return {task: inputs for task in tasks}, {}

  spec_of(make(embedding=Embedding(), network=network),
          tf.estimator.ModeKeys.TRAIN)
  assert len(seen) == 2 and seen[0] is seen[1]


def test_penalties_alone_train_a_variable():
  # Its loss has no gradient by any slice.
  def network(inputs, tasks, purpose):
    tf.get_variable('alone', initializer=3.0,
                    regularizer=lambda w: 2 * tf.square(w))
    return {task: inputs for task in tasks}, {}

  spec = spec_of(make(network=network, optimizer=lambda: factories.sgd(0.1)),
                 tf.estimator.ModeKeys.TRAIN)
  alone, = [v for v in tf.trainable_variables() if v.op.name == 'alone']
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    sess.run(spec.train_op)
    assert sess.run(alone) == pytest.approx(3 - 0.1 * 2 * 2 * 3)


def test_one_step_lowers_the_loss():
  spec = spec_of(make(), tf.estimator.ModeKeys.TRAIN)
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    before = sess.run(spec.loss)
    for _ in range(20):
      sess.run(spec.train_op)
    assert sess.run(spec.loss) < before


@pytest.mark.parametrize('change, message', [
    ({'tasks': []}, 'Model.tasks must be a list of tasks'),
    ({'clip_norm': 0}, 'Model.clip_norm must be .* above 0 or None, got 0'),
    ({'tasks': [tasks.Task('a', 'click', TOWER)]},
     r"a column of kind label \(clk, stay\), got 'click' in task a"),
    ({'tasks': [tasks.Task('a', 'clk', TOWER),
               tasks.Task('a', 'stay', TOWER)]},
     'Model.tasks must have different names, got a, a'),
    ({'tasks': [tasks.Task('a', 'stay', TOWER)]},
     "label 'stay' of the binary task a must be 0 or 1: add 'values'"),
    ({'columns': COLUMNS + [{'name': 'v', 'kind': 'weight'}]},
     'at most one weight that no Task.weight_column names, got w, v'),
    ({'tasks': [tasks.Task('a', 'clk', TOWER, weight_column='age')]},
     r"Task.weight_column must be a column of kind weight \(w\), got 'age' in "
     'task a'),
    ({'tasks': [tasks.Task('a', 'clk', TOWER, sample_space=('x', 1))]},
     r"Task.sample_space must name a column \(clk, .*in task a"),
    ({'tasks': [tasks.Task('a', 'clk', TOWER, sample_space=('stay', 'x'))]},
     "Task.sample_space must have a number for the column 'stay', got 'x'"),
])
def test_refuses(change, message):
  with pytest.raises(errors.UserError, match=message):
    make(**change)


def first_steps(made, steps=2):
  """The losses of some steps, and after them the biases of the logits."""
  with tf.Graph().as_default():
    tf.set_random_seed(3)
    spec = spec_of(made, tf.estimator.ModeKeys.TRAIN)
    biases = {v.op.name: v for v in tf.trainable_variables()
              if v.op.name.endswith('logit/bias')}
    with tf.Session() as sess:
      sess.run([tf.global_variables_initializer(), tf.tables_initializer()])
      losses = [sess.run([spec.loss, spec.train_op])[0] for _ in range(steps)]
      return losses, sess.run(biases)


def test_the_first_predictions_are_the_mean_of_the_first_labels():
  """Logits start from 0, so the first loss is that of the labels' mean."""
  losses, biases = first_steps(make(micro_batches=2), 1)
  weights = RAW['w'] / RAW['w'].sum()
  half = 0.5 / 3
  odds = (0.75 + half) / (0.25 + half)
  p = odds / (1 + odds)
  clk = -(weights * np.log(np.where(RAW['clk'] > 0, p, 1 - p))).sum()
  mean = (weights * RAW['stay']).sum()
  stay = (weights * (RAW['stay'] - mean) ** 2).sum()
  assert losses[0] == pytest.approx(0.5 * clk + 2 * stay, rel=1e-4)
  # Adam has moved the variable by 0.001, and the bias is 32 times it.
  assert 32 * biases['ctr/tower/logit/bias'][0] == pytest.approx(
      np.log(odds), abs=0.033)
  assert 32 * biases['dwell/tower/logit/bias'][0] == pytest.approx(
      mean, abs=0.033)


def test_later_steps_leave_the_bias_to_the_optimizer():
  tower = towers.Tower((3,), batch_norm=False, bias_scale=1.0)
  both = [tasks.Task('ctr', 'clk', tower),
          tasks.Task('dwell', 'stay', tower, 'regression', initial_bias=2.0)]
  _, biases = first_steps(make(tasks=both), 4)
  assert biases['dwell/tower/logit/bias'][0] == pytest.approx(2, abs=0.005)


def test_a_tower_without_bias_cannot_start_from_the_labels():
  class Unbiased(towers.Tower):

    def net(self, x):
      return super().net(x)._replace(linear_bias=False)

  with pytest.raises(errors.UserError, match='Task.initial_bias must be 0.0 '
                     'for a tower without a bias, in task ctr'):
    first_steps(make(tasks=[tasks.Task('ctr', 'clk', Unbiased((3,)))]))


# ----------------------------------------------------------- other losses

MANY = [
    {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
    {'name': 'buy', 'kind': 'label', 'values': (0, 1)},
    {'name': 'stay', 'kind': 'label'},
    {'name': 'kind', 'kind': 'label', 'values': {'a': 0, 'b': 1, 'c': 2}},
] + COLUMNS[2:]


def heads(tower=TOWER, **kwargs):
  """A model of all losses, with a product, whose labels may be missing."""
  ctr = tasks.Task('ctr', 'clk', tower)
  cvr = tasks.Task('cvr', 'buy', tower, sample_space=('clk', 1), weight=0.0)
  return make(MANY, tasks=[
      ctr, tasks.Task('kind', 'kind', tower, losses.MultiClass(3)), cvr,
      tasks.Task('count', 'stay', tower, 'poisson'),
      tasks.Task('money', 'stay', tower, losses.Tweedie()),
      tasks.Task('time', 'stay', tower, 'lognormal', sample_space=('clk', 1)),
      tasks.ProductTask('ctcvr', [ctr, cvr])],
              interactions=[wide.Wide()],
              embedding=hashed.HashEmbedding(stddev=1e-8), **kwargs)


@pytest.fixture
def labelled(monkeypatch):
  monkeypatch.setitem(RAW, 'buy', np.array([1, np.nan, 0], 'f'))
  monkeypatch.setitem(RAW, 'kind', np.array([2, 0, 2], 'f'))


@pytest.mark.slow
@pytest.mark.parametrize('kwargs', [
    {'micro_batches': 2}, {'network': None, 'tower': None},
    {'precision': precision.Precision('bfloat16')},
    {'averaging': averaging.Averaging(), 'op_fusion': False}],
                         ids='_'.join)
def test_every_loss_starts_from_its_labels_and_trains(labelled, kwargs):
  made = heads(**kwargs)
  names = [task.name for task in made.tasks]
  with tf.Graph().as_default() as graph:
    tf.set_random_seed(3)
    spec = spec_of(made, tf.estimator.ModeKeys.TRAIN)
    with tf.Session() as sess:
      sess.run([tf.global_variables_initializer(), tf.tables_initializer()])
      of_tasks = [graph.get_tensor_by_name(name + '/loss:0') for name in names]
      first = dict(zip(names, sess.run([of_tasks, spec.train_op])[0]))
      for _ in range(30):
        last = dict(zip(names, sess.run([of_tasks, spec.train_op])[0]))
  weights = RAW['w'] / RAW['w'].sum()
  mean = (weights * RAW['stay']).sum()
  # What the first step adds is what Loss.first_bias says of the batch.
  half = 0.5 / 3
  p = np.array([0.25 + half, half, 0.75 + half]) / (1 + 3 * half)
  assert first['kind'] == pytest.approx(
      -(weights * np.log(p[[2, 0, 2]])).sum(), rel=1e-4)
  assert first['count'] == pytest.approx(
      mean - mean * np.log(mean), rel=1e-4)
  assert first['money'] == pytest.approx(4 * mean**0.5, rel=1e-4)
  odds = (0.75 + half) / (0.25 + half)
  clk = odds / (1 + odds)
  buy = (1 / 3 + 0.5 / 3) / (1 + 1 / 3)  # row 1 does not count
  product = clk * buy
  assert first['ctcvr'] == pytest.approx(-(weights * np.log([
      product, 1 - product, 1 - product])).sum(), rel=1e-4)
  assert all(np.isfinite(list(last.values())))
  for name in ('kind', 'ctcvr', 'ctr', 'time'):
    assert last[name] < first[name], name


def test_a_product_trains_its_tasks_and_has_no_variables(labelled):
  made = heads()
  with tf.Graph().as_default():
    spec_of(made, tf.estimator.ModeKeys.TRAIN)
    names = [v.op.name for v in tf.trainable_variables()]
    assert not any('ctcvr' in name for name in names)
    loss = tf.get_default_graph().get_tensor_by_name('ctcvr/loss:0')
    bias, = [v for v in tf.trainable_variables()
             if v.op.name == 'cvr/tower/logit/bias']
    assert tf.gradients(loss, bias)[0] is not None
    shapes = {v.op.name: v.shape.as_list() for v in tf.trainable_variables()}
    assert shapes['kind/tower/logit/bias'] == [3]
    assert shapes['time/tower/logit/kernel'] == [3, 2]
    assert shapes['money/tower/logit/bias'] == [1]


@pytest.mark.slow
def test_metrics_and_predictions_of_every_loss(labelled):
  made = heads()
  with tf.Graph().as_default():
    spec = spec_of(made, tf.estimator.ModeKeys.EVAL)
    with tf.Session() as sess:
      sess.run([tf.global_variables_initializer(),
                tf.local_variables_initializer()])
      sess.run([m[1] for m in spec.eval_metric_ops.values()])
      found = sess.run({n: m[0] for n, m in spec.eval_metric_ops.items()})
  for task in made.tasks:
    for measure in task.kind.measures:
      # All labels of cvr in its sample space are 1 and 0, none is missing.
      assert np.isfinite(found['%s/%s' % (task.name, measure)]), task.name
  assert found['cvr/label/mean'] == pytest.approx(1 / 3)
  assert found['ctcvr/label/mean'] == pytest.approx(1 / 4)
  with tf.Graph().as_default():
    spec = spec_of(made, tf.estimator.ModeKeys.PREDICT)
    got = run(spec.predictions)
  assert got['kind'].shape == (3, 3) and got['time'].shape == (3,)
  np.testing.assert_allclose(got['kind'].sum(axis=1), 1, rtol=1e-6)
  np.testing.assert_allclose(got['ctcvr'], got['ctr'] * got['cvr'], rtol=1e-5)
  assert (got['money'] > 0).all()


def test_fused_metrics_are_those_of_unfused_predictions(labelled):
  made = heads()

  def started():
    """A session where each variable has numbers that its name determines."""
    session = tf.Session()
    session.run([tf.global_variables_initializer(),
                 tf.local_variables_initializer()])
    session.run([v.assign(0.3 * np.random.RandomState(
        sum(map(ord, v.op.name))).randn(*v.shape.as_list()))
                 for v in tf.trainable_variables()])
    return session

  with tf.Graph().as_default():
    spec = spec_of(made, tf.estimator.ModeKeys.EVAL)
    with started() as sess:
      sess.run([m[1] for m in spec.eval_metric_ops.values()])
      found = sess.run({n: m[0] for n, m in spec.eval_metric_ops.items()})
  with tf.Graph().as_default():
    spec = spec_of(made, tf.estimator.ModeKeys.PREDICT)
    with started() as sess:
      p = sess.run(spec.predictions)
  assert p['kind'].std() > 0.01
  w, stay = RAW['w'], RAW['stay']
  assert found['kind/log_loss'] == pytest.approx(np.average(
      -np.log(p['kind'][np.arange(3), [2, 0, 2]]), weights=w), rel=1e-4)
  both = np.array([1, 0, 0])
  assert found['ctcvr/log_loss'] == pytest.approx(np.average(
      -np.log(np.where(both, p['ctcvr'], 1 - p['ctcvr'])), weights=w), rel=1e-4)
  for name in ('count', 'money'):
    assert found[name + '/rmse'] == pytest.approx(np.sqrt(np.average(
        (p[name] - stay)**2, weights=w)), rel=1e-4)
  inside = [0, 2]
  assert found['time/mae'] == pytest.approx(np.average(
      abs(p['time'] - stay)[inside], weights=w[inside]), rel=1e-4)


def test_a_row_that_no_file_may_have_has_no_class(labelled, monkeypatch):
  monkeypatch.setitem(RAW, 'age', np.array([20, np.nan, 45], 'f'))
  with tf.Graph().as_default():
    got = run(spec_of(heads(), tf.estimator.ModeKeys.PREDICT).predictions)
  assert np.isnan(got['kind']).all(axis=1).tolist() == [False, True, False]
  assert np.isfinite(got['kind'][[0, 2]]).all()


def test_a_product_is_of_tasks_of_the_model():
  with pytest.raises(errors.UserError, match=r'ProductTask.of must be tasks of '
                     r'Model.tasks \(both\), got ctr, cvr in task both'):
    ctr, cvr = tasks.Task('ctr', 'clk', TOWER), tasks.Task('cvr', 'clk', TOWER)
    make(tasks=[tasks.ProductTask('both', [ctr, cvr])])


def test_the_labels_of_a_product_are_needed_step_by_step():
  made = heads()
  uses = made.features['buy']._uses
  # Those of the task cvr and of the product.
  assert uses == ((('clk', 1), None), (('clk', 1), None))
  assert not made.features['clk']._uses
