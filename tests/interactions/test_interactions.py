"""Each interaction against its equation in numpy, and all in a model."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import model
from ple_estimator.data import feature_spec
from ple_estimator.data import packing
from ple_estimator.embeddings import hashed
from ple_estimator.embeddings import keyed
from ple_estimator.engine import purpose
from ple_estimator.interactions import binned
from ple_estimator.interactions import combined
from ple_estimator.interactions import cross_net
from ple_estimator.interactions import dot_products
from ple_estimator.interactions import factorization_machine
from ple_estimator.interactions import field_weighted
from ple_estimator.interactions import periodic
from ple_estimator.interactions import wide
from ple_estimator.network import ple
from ple_estimator.network import precision
from ple_estimator.network import tasks
from ple_estimator.network import towers
from ple_estimator.optimizers import factories

COLUMNS = [
    {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
    {'name': 'buy', 'kind': 'label', 'values': (0, 1)},
    {'name': 'ad', 'kind': 'hashed', 'num_buckets': 11},
    {'name': 'user', 'kind': 'hashed', 'num_buckets': 7},
    {'name': 'tags', 'kind': 'hashed_list', 'num_buckets': 13,
     'combiner': 'sum'},
    {'name': 'age', 'kind': 'number', 'mean': 30.0, 'std': 10.0},
    {'name': 'price', 'kind': 'number'},
]
DIM, BATCH, TASKS = 4, 5, 2
FOR = purpose.Purpose(training=True, precision=precision.Precision())


def built(*parts, columns=COLUMNS):
  """Interactions on random inputs.

  Returns:
    (x, logits, vectors, own, numbers, variables): what the experts read and
    the logits, then as numpy arrays [batch, columns, DIM], [batch, columns, own
    width], [batch, numbers], and a dict of variable name to value.
  """
  categories = feature_spec.FeatureSpec(columns, dim=DIM).categories
  numbers = sum(c['kind'] == 'number' for c in columns)
  rng = np.random.RandomState(5)
  with tf.Graph().as_default():
    made = combined.Interactions(
        list(parts), categories, numbers, TASKS)
    widened = made.widened(categories)
    groups = packing.groups(widened)
    width = widened[0].dim
    given = rng.randn(BATCH, len(categories) * width + numbers).astype('f')
    x, logits = made(tf.constant(given), groups, TASKS, FOR)
    variables = tf.trainable_variables()
    start = [v.assign(rng.randn(*v.shape.as_list())) for v in variables]
    with tf.Session() as sess:
      sess.run(tf.global_variables_initializer())
      sess.run(start)
      x, *logits = sess.run([x] + ([] if logits is None else [logits]))
      values = {v.op.name: sess.run(v) for v in variables}
  cut = given[:, :len(categories) * width].reshape(BATCH, -1, width)
  return (x, logits[0] if logits else None, cut[..., :DIM], cut[..., DIM:],
          given[:, len(categories) * width:], values)


def plain(vectors, numbers):
  return np.concatenate([vectors.reshape(BATCH, -1), numbers], axis=1)


def pairs_by_loops(vectors):
  """sum_{i<j} v_i * v_j for [batch, n, dim], one pair after the other."""
  count = vectors.shape[1]
  return sum(vectors[:, i] * vectors[:, j]
             for i in range(count) for j in range(i))


def test_wide_is_the_sum_of_a_weight_per_value():
  x, logits, vectors, own, numbers, values = built(wide.Wide(scale=3.0))
  assert own.shape == (BATCH, 3, 2)
  np.testing.assert_allclose(
      logits, 3 * own.sum(axis=1) + numbers.dot(values['wide/numbers']),
      rtol=1e-5)
  np.testing.assert_array_equal(x, plain(vectors, numbers))


def test_wide_of_numbers_alone():
  columns = [c for c in COLUMNS if c['kind'] in ('label', 'number')]
  with tf.Graph().as_default(), tf.Session() as sess:
    made = combined.Interactions([wide.Wide()], [], 2, 2)
    _, logits = made(tf.constant([[2.0, 3.0]]), [], TASKS, FOR)
    kernel, = tf.trainable_variables()
    sess.run(kernel.assign([[1, 2], [10, 20]]))
    np.testing.assert_allclose(sess.run(logits), [[32, 64]])
  assert len(columns) == 4


def test_fm_with_vectors_of_its_own_has_a_machine_per_task():
  _, logits, vectors, own, numbers, values = built(
      factorization_machine.FM(3, per_task=True))
  assert own.shape == (BATCH, 3, 6)
  # A number takes part as x_i v_i, a column among the others.
  of_numbers = numbers[:, :, None] * values['fm/numbers']
  every = np.concatenate([own, of_numbers], axis=1)
  wanted = np.stack([pairs_by_loops(every[..., 3 * k:3 * k + 3]).sum(axis=1)
                     for k in range(2)], axis=1)
  np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)


def test_fm_of_numbers_alone():
  with tf.Graph().as_default(), tf.Session() as sess:
    made = combined.Interactions([factorization_machine.FM(2)], [], 3, 2)
    _, logits = made(tf.constant([[2.0, 3.0, 1.0]]), [], TASKS, FOR)
    vectors, weights = tf.trainable_variables()
    sess.run([vectors.assign([[1, 2], [3, 4], [5, 6]]),
              weights.assign([[1, 0], [0, 1]])])
    # 6 * 1 * 3 + 2 * 1 * 5 + 3 * 3 * 5, and so for the second dimension.
    np.testing.assert_allclose(
        sess.run(logits), [[18 + 10 + 45, 48 + 24 + 72]])


def test_fm_on_the_vectors_of_the_experts_weighs_dimensions_by_task():
  x, logits, vectors, own, numbers, values = built(factorization_machine.FM())
  assert own.shape[2] == 0
  every = np.concatenate(
      [vectors, numbers[:, :, None] * values['fm/numbers']], axis=1)
  np.testing.assert_allclose(
      logits, pairs_by_loops(every).dot(values['fm/weights']), rtol=1e-4,
      atol=1e-4)
  np.testing.assert_array_equal(x, plain(vectors, numbers))


def test_fm_with_vectors_of_its_own_scales_them_and_weighs_them_by_task():
  _, logits, vectors, own, numbers, values = built(
      factorization_machine.FM(3, scale=2.0))
  assert own.shape == (BATCH, 3, 3)
  every = np.concatenate(
      [2 * own, numbers[:, :, None] * values['fm/numbers']], axis=1)
  np.testing.assert_allclose(
      logits, pairs_by_loops(every).dot(values['fm/weights']), rtol=1e-4,
      atol=1e-4)


@pytest.mark.parametrize('dim', [None, 3])
def test_experts_read_the_products_of_fm(dim):
  x, logits, vectors, own, numbers, values = built(
      factorization_machine.FM(dim, to='experts'))
  assert logits is None
  every = np.concatenate([vectors if dim is None else own,
                          numbers[:, :, None] * values['fm/numbers']], axis=1)
  np.testing.assert_allclose(x, np.concatenate(
      [plain(vectors, numbers), pairs_by_loops(every)], axis=1), rtol=1e-4,
                             atol=1e-4)


def test_fwfm_weighs_each_pair_of_columns_by_task():
  x, logits, vectors, own, numbers, values = built(
      field_weighted.FwFM(3, scale=2.0, weight_scale=5.0))
  assert own.shape == (BATCH, 3, 3)
  every = np.concatenate(
      [2 * own, numbers[:, :, None] * values['fwfm/numbers']], axis=1)
  wanted = np.zeros((BATCH, 2))
  for i in range(5):
    for j in range(i + 1, 5):
      product = (every[:, i] * every[:, j]).sum(axis=1)
      for k in range(2):
        wanted[:, k] += (1 + 5 * values['fwfm/weights'][i, j, k]) * product
  np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-3)
  np.testing.assert_array_equal(x, plain(vectors, numbers))


def test_matrices_of_fwfm_give_each_pair_a_bilinear_form_by_task():
  _, logits, _, own, numbers, values = built(
      field_weighted.FwFM(3, scale=2.0, weight_scale=5.0, matrix_scale=0.5))
  assert own.shape == (BATCH, 3, 3)  # as many as without matrices
  every = np.concatenate(
      [2 * own, numbers[:, :, None] * values['fwfm/numbers']], axis=1)
  wanted = np.zeros((BATCH, 2))
  for k in range(2):
    for i in range(5):
      for j in range(i + 1, 5):
        # A vector is a row here, so the matrices stand on its right.
        form = (np.eye(3) + 0.5 * values['fwfm/matrices'][i, :, :, k]).dot(
            (np.eye(3) + 0.5 * values['fwfm/matrices'][j, :, :, k]).T)
        wanted[:, k] += (1 + 5 * values['fwfm/weights'][i, j, k]) * np.einsum(
            'bd,de,be->b', every[:, i], form, every[:, j])
  np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-3)


def test_matrices_of_fwfm_change_nothing_at_the_start():
  parts = [field_weighted.FwFM(3), field_weighted.FwFM(3, matrix_scale=3.0)]
  with tf.Graph().as_default(), tf.Session() as sess:
    categories = feature_spec.FeatureSpec(COLUMNS, dim=DIM).categories
    logits = []
    for number, part in enumerate(parts):
      made = combined.Interactions([part], categories, 2, TASKS)
      groups = packing.groups(made.widened(categories))
      x = np.random.RandomState(5).randn(BATCH, 3 * (DIM + 3) + 2)
      with tf.variable_scope(str(number)):
        logits.append(made(
            tf.constant(x, tf.float32), groups, TASKS, FOR)[1])
    numbers = [v for v in tf.trainable_variables() if 'numbers' in v.op.name]
    sess.run(tf.global_variables_initializer())
    sess.run([v.assign(np.ones([2, 3])) for v in numbers])
    without, with_matrices = sess.run(logits)
  np.testing.assert_allclose(with_matrices, without, rtol=1e-4, atol=1e-5)
  assert np.abs(without).max() > 0.1


@pytest.mark.parametrize('to', ['experts', 'logits'])
def test_dot_products_of_chosen_columns(to):
  names = ['tags', 'ad', 'user']
  x, logits, vectors, _, numbers, values = built(
      dot_products.DotProducts(names, to))
  # The blocks are ad and user (mean), then tags (sum).
  of = dict(zip(['ad', 'user', 'tags'], np.moveaxis(vectors, 1, 0)))
  wanted = np.stack([(of[a] * of[b]).sum(axis=1) for a, b in [
      ('tags', 'ad'), ('tags', 'user'), ('ad', 'user')]], axis=1)
  if to == 'experts':
    np.testing.assert_allclose(x, np.concatenate(
        [plain(vectors, numbers), wanted], axis=1), rtol=1e-4, atol=1e-5)
  else:
    np.testing.assert_allclose(
        logits, wanted.dot(values['dot_products/weights']), rtol=1e-4,
        atol=1e-4)


@pytest.mark.parametrize('rank', [None, 2])
@pytest.mark.parametrize('to', ['experts', 'logits'])
def test_cross_net_follows_equation_1(to, rank):
  x, logits, vectors, _, numbers, values = built(
      cross_net.CrossNet(2, rank, to))
  x_0 = wanted = plain(vectors, numbers)
  for i in range(2):
    of = {name.split('/')[-1]: value for name, value in values.items()
          if 'layer_%d/' % i in name}
    kernel = of['kernel'] if rank is None else of['kernel_v'].dot(
        of['kernel_u'])
    wanted = x_0 * (wanted.dot(kernel) + of['bias']) + wanted
  if to == 'logits':
    wanted, x = wanted.dot(values['cross_net/logits']), logits
  np.testing.assert_allclose(x, wanted, rtol=1e-3, atol=1e-3)


def test_periodic_makes_a_vector_of_each_number():
  x, logits, vectors, _, numbers, values = built(periodic.Periodic(3, 4))
  assert logits is None
  wanted = [plain(vectors, numbers)]
  for i in range(2):
    angle = 2 * np.pi * numbers[:, i:i + 1] * values['periodic/frequencies'][i]
    waves = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    wanted.append(np.maximum(0, waves.dot(
        values['periodic/kernel'][i]) / np.sqrt(8) + values[
            'periodic/bias'][i]))
  np.testing.assert_allclose(
      x, np.concatenate(wanted, axis=1), rtol=1e-3, atol=1e-4)


def test_binned_looks_up_the_bin_of_each_number():
  with tf.Graph().as_default(), tf.Session() as sess:
    made = combined.Interactions(
        [binned.Binned(0.5, 6, dim=1, scale=2.0)], [], 2, 2)
    x, logits = made(tf.constant([[0.0, -0.01], [-9.0, 0.99], [9.0, 0.5]]), [],
                     TASKS, FOR)
    table, = tf.trainable_variables()
    sess.run(table.assign(np.arange(12 * 3).reshape(12, 3)))
    # Bins of the first column: 3, 0, 5; of the second: 2, 4, 4 behind them.
    rows = [(3, 8), (0, 10), (5, 10)]
    np.testing.assert_allclose(
        sess.run(x)[:, 2:], [[3 * a, 3 * b] for a, b in rows])
    np.testing.assert_allclose(sess.run(logits), [
        [2 * (3 * a + 1 + 3 * b + 1), 2 * (3 * a + 2 + 3 * b + 2)]
        for a, b in rows])


@pytest.mark.parametrize('part', [
    wide.Wide(), factorization_machine.FM(2), field_weighted.FwFM(2),
    field_weighted.FwFM(2, matrix_scale=1.0), binned.Binned(),
    periodic.Periodic(), cross_net.CrossNet()])
def test_a_missing_number_spoils_its_own_row_alone(part):
  with tf.Graph().as_default(), tf.Session() as sess:
    made = combined.Interactions([part], [], 2, 2)
    x, logits = made(tf.constant([[np.nan, 1], [2, 3]], tf.float32), [], TASKS,
                     FOR)
    sess.run(tf.global_variables_initializer())
    for found in sess.run([x] + ([] if logits is None else [logits])):
      assert np.isfinite(found[1]).all()


@pytest.mark.parametrize('part', [binned.Binned(), periodic.Periodic()])
def test_without_numbers_nothing_is_added(part):
  columns = [c for c in COLUMNS if c['kind'] != 'number']
  x, logits, vectors, _, numbers, values = built(part, columns=columns)
  assert logits is None and not values
  np.testing.assert_array_equal(x, plain(vectors, numbers))


def test_several_interactions_add_up():
  both = wide.Wide(), factorization_machine.FM(2, True)
  _, logits, _, own, numbers, values = built(*both)
  assert own.shape == (BATCH, 3, 2 + 4)
  of_wide = own[..., :2].sum(axis=1) + numbers.dot(values['wide/numbers'])
  every = np.concatenate([
      own[..., 2:], numbers[:, :, None] * values['fm/numbers']], axis=1)
  products = pairs_by_loops(every)
  np.testing.assert_allclose(
      logits, of_wide + products.reshape(BATCH, 2, 2).sum(axis=2), rtol=1e-4,
      atol=1e-4)


def test_two_of_a_kind_train_apart():
  *_, values = built(factorization_machine.FM(),
                     factorization_machine.FM(to='experts'))
  assert sorted(values) == ['fm/numbers', 'fm/weights', 'fm_2/numbers']


def test_the_experts_read_what_was_crossed_and_what_was_added():
  x, _, vectors, _, numbers, _ = built(
      cross_net.CrossNet(1), factorization_machine.FM(to='experts'))
  width = plain(vectors, numbers).shape[1]
  assert x.shape == (BATCH, width + DIM)


# ------------------------------------------------------------------ in a model

TOWER = towers.Tower((3,), batch_norm=False)


def make(interactions, network=True, embedding=None, columns=COLUMNS,
         tower=TOWER, **kwargs):
  return model.Model(
      features=feature_spec.FeatureSpec(columns, dim=DIM),
      embedding=embedding or hashed.HashEmbedding(),
      network=ple.PLE((5,), (), num_levels=2, batch_norm=False)
      if network else None,
      tasks=[tasks.Task('ctr', 'clk', tower), tasks.Task('cvr', 'buy', tower)],
      precision=precision.Precision(), optimizer=factories.lazy_adam,
      interactions=interactions, **kwargs)


RAW = {
    'clk': np.array([1, 0, 1, 0], 'f'), 'buy': np.array([0, 0, 1, 1], 'f'),
    'ad': ['a', 'b', '', 'a'], 'user': ['u', 'v', 'w', 'u'],
    'tags': ['x|y', '', 'z', 'x'], 'age': np.array([20, 30, 45, 33], 'f'),
    'price': np.array([0, 1, 2, 0.5], 'f'),
}


def trained(made, steps=3, by_name=False):
  """Losses of some steps, and the variables after them by name.

  Args:
    made: model.Model.
    steps: int.
    by_name: bool, whether a variable starts from numbers that its name
      determines, and not from those of its initializer.
  """
  with tf.Graph().as_default():
    tf.set_random_seed(3)
    tf.train.create_global_step()
    raw = {name: tf.constant(value) for name, value in RAW.items()}
    features, labels = made.features.encode(
        raw, made.keep, without=packing.names(made.groups))
    features.update(packing.pack(raw, made.groups))
    spec = made.model_fn(features, labels, tf.estimator.ModeKeys.TRAIN)
    with tf.Session() as sess:
      sess.run([tf.global_variables_initializer(), tf.tables_initializer()])
      if by_name:
        sess.run([v.assign(0.1 * np.random.RandomState(sum(map(
            ord, v.op.name))).randn(*v.shape.as_list()))
                  for v in tf.trainable_variables()])
      losses = []
      for _ in range(steps):
        losses.append(sess.run([spec.train_op, spec.loss])[1])
      return losses, {v.op.name: sess.run(v) for v in tf.trainable_variables()}


EVERY = [wide.Wide(), factorization_machine.FM(2),
         factorization_machine.FM(to='experts'),
         dot_products.DotProducts(['ad', 'tags']), cross_net.CrossNet(1, 2),
         periodic.Periodic(2, 3), field_weighted.FwFM(2), binned.Binned(),
         field_weighted.FwFM(2, matrix_scale=3.0)]


@pytest.mark.slow
@pytest.mark.parametrize('embedding', [
    hashed.HashEmbedding, lambda: hashed.HashEmbedding(emb_fusion=False),
    lambda: hashed.MultiHashEmbedding('mul', min_buckets=12),
    lambda: hashed.MultiHashEmbedding('add', min_buckets=12),
    lambda: hashed.MultiHashEmbedding('concat', min_buckets=12),
    lambda: keyed.EmbeddingVariable(100),
    lambda: keyed.DynamicDimensionEmbedding((1, 2), 100)])
def test_a_model_learns_with_all_of_them(embedding):
  losses, values = trained(make(EVERY, embedding=embedding()), steps=120)
  assert losses[-1] < 0.9 * losses[0]
  assert {'wide/numbers', 'fm/numbers', 'fm_2/numbers',
          'cross_net/layer_0/bias'} <= set(values)


@pytest.mark.slow
def test_micro_batches_train_the_same():
  # Without batch norm a batch in slices has the same gradients.
  whole, wanted = trained(make(EVERY), by_name=True)
  cut, got = trained(make(EVERY, micro_batches=2), by_name=True)
  np.testing.assert_allclose(cut, whole, rtol=1e-5)
  for name in wanted:
    np.testing.assert_allclose(
        got[name], wanted[name], atol=2e-5, err_msg=name)


def test_a_model_without_experts_is_a_logistic_regression():
  """The gradient of Wide alone is that of the log loss by a bag of values."""
  made = make([wide.Wide()], network=False, tower=None,
              embedding=hashed.HashEmbedding(stddev=0))
  _, values = trained(made, steps=1)
  # Adam's first step moves each number that has a gradient by the learning
  # rate, against the sign of its gradient: sum over rows of (p - y) x.
  age = (RAW['age'] - 30) / 10
  for task, label in enumerate(['clk', 'buy']):
    slope = (0.5 - RAW[label]).dot(age)
    assert values['wide/numbers'][0, task] == pytest.approx(
        -0.001 * np.sign(slope), rel=0.01)
  assert sorted(name.split('/')[0] for name in values) == [
      'ctr', 'cvr', 'dim_6_mean', 'dim_6_sum', 'wide']


@pytest.mark.parametrize('change, message', [
    (dict(interactions=[3]), 'Model.interactions must'),
    (dict(interactions=[], network=False, tower=None),
     'Model.network must be given'),
    (dict(interactions=[cross_net.CrossNet()], network=False, tower=None),
     'Model.network must be given, .* for CrossNet in Model.interactions'),
    # It would be accepted and ignored.
    (dict(interactions=[wide.Wide(), factorization_machine.FM(to='experts')],
          network=False, tower=None),
     'Model.network must be given, .* for FM in Model.interactions'),
    (dict(interactions=[wide.Wide()], network=False),
     'Task.tower must be None where Model.network is None, got'),
    (dict(interactions=[wide.Wide()], tower=None),
     r'Task.tower must be given, such as @Tower\(\), got None in task ctr'),
    (dict(interactions=[dot_products.DotProducts(['ad', 'age'])]),
     r"columns with vectors \(ad, user, tags\), got 'age'"),
    (dict(interactions=[factorization_machine.FM()],
          columns=COLUMNS + [{'name': 'x', 'kind': 'hashed', 'num_buckets': 2,
                              'dim': 3}]),
     r'FM needs columns whose vectors have one dim, got 4 \(tags\) and 3'),
    (dict(interactions=[factorization_machine.FM()],
          columns=[c for c in COLUMNS if c['kind'] in ('label', 'number')]),
     'FM without FM.dim needs columns with vectors'),
])
def test_refuses_what_does_not_fit(change, message):
  with pytest.raises(errors.UserError, match=message):
    make(**change)


@pytest.mark.parametrize('call, message', [
    (lambda: wide.Wide(0), 'Wide.scale must be'),
    (lambda: wide.Wide(l2=-1), 'Wide.l2 must be'),
    (lambda: factorization_machine.FM(2, l2=-1), 'FM.l2 must be'),
    (lambda: factorization_machine.FM(l2=1), 'FM.l2 must be 0 without FM.dim'),
    (lambda: factorization_machine.FM(0), 'FM.dim must be'),
    (lambda: factorization_machine.FM(to='tower'), 'FM.to must be'),
    (lambda: factorization_machine.FM(per_task=True), 'FM.per_task must be'),
    (lambda: factorization_machine.FM(2, True, to='experts'), 'FM.per_task'),
    (lambda: factorization_machine.FM(scale=-1), 'FM.scale must be'),
    (lambda: dot_products.DotProducts(['a']), 'at least two different names'),
    (lambda: dot_products.DotProducts(['a', 'a']), 'at least two different'),
    (lambda: dot_products.DotProducts('ab'), 'DotProducts.columns must'),
    (lambda: binned.Binned(0), 'Binned.width must be'),
    (lambda: binned.Binned(num_bins=1), 'Binned.num_bins must be'),
    (lambda: binned.Binned(dim=0), 'Binned.dim must be'),
    (lambda: binned.Binned(scale=0), 'Binned.scale must be'),
    (lambda: field_weighted.FwFM(0), 'FwFM.dim must be'),
    (lambda: field_weighted.FwFM(scale=0), 'FwFM.scale must be'),
    (lambda: field_weighted.FwFM(weight_scale=0), 'FwFM.weight_scale must be'),
    (lambda: field_weighted.FwFM(matrix_scale=0), 'FwFM.matrix_scale must be'),
    (lambda: field_weighted.FwFM(l2=-1), 'FwFM.l2 must be'),
    (lambda: periodic.Periodic(0), 'Periodic.dim must be'),
    (lambda: periodic.Periodic(num_frequencies=0), 'Periodic.num_frequencies'),
    (lambda: periodic.Periodic(stddev=0), 'Periodic.stddev must be'),
    (lambda: cross_net.CrossNet(0), 'CrossNet.num_layers must be'),
    (lambda: cross_net.CrossNet(rank=0), 'CrossNet.rank must be'),
])
def test_refuses_wrong_bindings(call, message):
  with pytest.raises(errors.UserError, match=message):
    call()


def test_own_vectors_of_a_batch_are_penalised_once():
  """The penalty of Wide and FM in numpy, of each different row once."""
  made = make([wide.Wide(2.0, l2=0.1), factorization_machine.FM(3, l2=0.01)])
  with tf.Graph().as_default(), tf.Session() as sess:
    tf.train.create_global_step()
    raw = {name: tf.constant(value) for name, value in RAW.items()}
    features, labels = made.features.encode(
        raw, made.keep, without=packing.names(made.groups))
    features.update(packing.pack(raw, made.groups))
    made.model_fn(features, labels, tf.estimator.ModeKeys.TRAIN)
    penalty = tf.add_n(tf.get_collection(
        tf.GraphKeys.REGULARIZATION_LOSSES))
    sess.run(tf.global_variables_initializer())
    wanted = 0
    for group in made.groups:
      name, = [v for v in tf.trainable_variables() if v.op.name == (
          group.name + '/embedding')]
      rows = sess.run(name)[sess.run(group.take(features).rows)]
      own = rows[:, DIM:]
      wanted += 0.1 / 2 * (2 * own[:, :2] ** 2 * 2).sum() + (
          0.01 / 2 * (own[:, 2:] ** 2).sum())
    assert sess.run(penalty) == pytest.approx(wanted, rel=1e-5)
