"""A new model starts from an older one."""

import json
import logging

import experiments
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.training import incremental
from ple_estimator.training import transfer
from ple_estimator.training import warm_start

BASE = ['Experiment.eval_input = None', 'Experiment.exports = None',
        'Experiment.early_stopping = None', 'run_config.save_steps = 100']
STARTS = ['Experiment.warm_start = @WarmStart()', 'Experiment.max_steps = 1',
          'lazy_adam.learning_rate = 1e-30']  # the first step moves nothing
INTERACTIONS = ['Model.interactions = [@Wide(), @FwFM()]', 'FwFM.dim = 3']


def train(gin_file, model_dir, taobao, *bindings):
  with tf.Graph().as_default():
    experiments.load('gin/%s.gin' % gin_file, model_dir, taobao,
                     *(BASE + list(bindings))).train()


def tensors(model_dir, step):
  reader = tf.train.load_checkpoint(
      str(model_dir / ('model.ckpt-%d' % step)))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


def report(model_dir):
  """The lines of warm_start.json by name."""
  with open(str(model_dir / 'warm_start.json')) as f:
    return {of['name']: of for of in json.load(f)['variables']}


@pytest.fixture(scope='module')
def older(taobao, tmp_path_factory):
  """The model_dir of a small model with averages, of 20 steps."""
  found = {}

  def of(gin_file, *bindings):
    key = (gin_file,) + bindings
    if key not in found:
      found[key] = tmp_path_factory.mktemp(gin_file)
      train(gin_file, found[key], taobao, 'Experiment.max_steps = 20',
            'Model.averaging = @Averaging()', *(
                INTERACTIONS + list(bindings)))
    return found[key]

  return of


def start(gin_file, model_dir, taobao, source, *bindings):
  """Starts a model from another; returns the tensors of step 0."""
  train(gin_file, model_dir, taobao, 'WarmStart.source = %r' % str(source),
        *(STARTS + INTERACTIONS + list(bindings)))
  return tensors(model_dir, 0)


def test_the_same_model_is_taken_whole(older, taobao, tmp_path):
  source = older('base')
  then = tensors(source, 20)
  now = start('base', tmp_path, taobao, source, 'WarmStart.averages = False')
  assert now['global_step'] == 0
  assert set(then) - set(now) == {
      name for name in then if 'averag' in name}
  for name, value in now.items():
    if name != 'global_step':
      np.testing.assert_array_equal(value, then[name], err_msg=name)
  assert {of['taken'] for of in report(tmp_path).values()} == {'taken'}
  # Nor does the first step set the biases of the logits again.
  after = tensors(tmp_path, 1)
  np.testing.assert_array_equal(
      after['ctr/tower/logit/bias'], then['ctr/tower/logit/bias'])


@pytest.mark.slow
def test_weights_start_from_averages_and_new_averages_from_weights(
    older, taobao, tmp_path):
  source = older('base')
  then = tensors(source, 20)
  now = start('base', tmp_path, taobao, source, 'WarmStart.slots = False',
              'Model.averaging = @Averaging()')
  for name in ('ctr/tower/dense_0/kernel', 'dim_21_mean/embedding'):
    for ending in ('', '/average'):
      np.testing.assert_array_equal(
          now[name + ending], then[name + '/average'])
    assert (then[name] != then[name + '/average']).any()
    assert not now[name + '/Adam'].any()
  assert now['averaging/start'] == 0
  assert now['beta1_power'] == pytest.approx(0.9)


# Another order, a column less and one more, one with twice the buckets, one
# with a number of buckets that is no multiple, one that has another name.
COLUMNS = '''FeatureSpec.columns = [
    {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
    {'name': 'buy', 'kind': 'label', 'values': (0, 1)},
    {'name': 'pid', 'kind': 'hashed', 'num_buckets': %d},
    {'name': '%s', 'kind': 'hashed', 'num_buckets': %d},
    {'name': '%s', 'kind': 'hashed', 'num_buckets': 50},
    {'name': 'price', 'kind': 'integer', 'num_buckets': %d}]'''
TASKS = ['Model.tasks = [@ctr/Task(), @cvr/Task(), @more/Task()]',
         "more/Task.name = 'more'", "more/Task.label = 'clk'"]


def columns(*args):
  # One line, as a binding; dicts of columns that are not there go.
  return ['FeatureSpec.overrides = {}', ' '.join((COLUMNS % args).split()),
          'PLE.num_levels = 2', 'PLE.num_task_experts = 1']


@pytest.mark.slow
def test_columns_and_a_task_are_added(older, taobao, tmp_path):
  source = older('base', *columns(10, 'adgroup_id', 30, 'user_id', 50))
  then = tensors(source, 20)
  now = start('base', tmp_path, taobao, source, 'WarmStart.averages = False',
              "WarmStart.columns = {'brand': 'user_id'}",
              "WarmStart.renames = {'^more/': 'ctr/'}",
              *(TASKS + columns(20, 'cate_id', 30, 'brand', 60)))
  # 16 numbers, a weight per task, 3 of FwFM: a new task comes before these.
  old, new = then['dim_21_mean/embedding'], now['dim_22_mean/embedding']
  assert old.shape == (10 + 30 + 50 + 50, 21)
  assert new.shape == (20 + 30 + 50 + 60, 22)
  kept, there = [*range(18), 19, 20, 21], [*range(18), 18, 19, 20]
  np.testing.assert_array_equal(new[:10][:, kept], old[:10][:, there])
  np.testing.assert_array_equal(new[10:20][:, kept], old[:10][:, there])
  np.testing.assert_array_equal(new[50:100][:, kept], old[40:90][:, there])
  np.testing.assert_array_equal(new[100:150][:, kept], old[90:140][:, there])
  assert not np.isin(new[20:50], old).any()  # cate_id
  slot = now['dim_22_mean/embedding/Adam']
  np.testing.assert_array_equal(
      slot[50:100][:, kept],
      then['dim_21_mean/embedding/Adam'][40:90][:, there])
  assert slot[50:100].any() and not slot[20:50].any()
  # The first layers read pid, a new column, brand and price.
  name = 'level_0/ctr/expert_0/dense_0/kernel'
  kernel, of = now[name], then[name]
  np.testing.assert_array_equal(kernel[:16], of[:16])
  np.testing.assert_array_equal(kernel[32:64], of[32:64])
  assert not np.isin(kernel[16:32], of).any()
  np.testing.assert_array_equal(
      now['more/tower/dense_0/kernel'], then['ctr/tower/dense_0/kernel'])
  said = report(tmp_path)
  table = 'dim_22_mean/embedding [%s]'
  assert said[table % 'cate_id']['why'] == 'a new column'
  assert said[table % 'pid']['why'].startswith('each of 10 buckets there')
  assert said[table % 'price']['why'].startswith('50 of 60 ids')
  assert said[name]['taken'] == 'in part'
  assert said['fwfm/weights']['taken'] == 'not'  # of other columns
  assert said['fwfm/matrices']['taken'] == 'not'
  assert said['level_0/shared/gate/mix/kernel']['taken'] == 'not'
  assert said['level_0/more/expert_0/dense_0/kernel']['taken'] == 'not'


@pytest.mark.slow
def test_another_number_of_buckets_is_explained(older, taobao, tmp_path):
  source = older('base', *columns(10, 'adgroup_id', 30, 'user_id', 50))
  start('base', tmp_path, taobao, source, 'Model.optimizer = @adagrad',
        "WarmStart.exclude = ['/tower/']", 'Tower.bias_scale = 1.0',
        *columns(15, 'adgroup_id', 30, 'user_id', 50))
  said = report(tmp_path)
  pid = said['dim_21_mean/embedding [pid]']
  assert pid['taken'] == 'not' and pid['why'] == (
      'num_buckets is 10 there and 15 here, and so the hash of a value is '
      'another: take a multiple of 10')
  user = said['dim_21_mean/embedding [user_id]']
  assert (user['taken'], user['slots']) == ('taken', 'new')
  assert said['ctr/tower/logit/bias']['why'] == 'WarmStart.exclude'
  # A bias that was not taken is that of the labels after the first step.
  assert tensors(tmp_path, 0)['ctr/tower/logit/bias'] == 0
  assert tensors(tmp_path, 1)['ctr/tower/logit/bias'] < -1


@pytest.mark.slow
def test_a_model_without_layout_is_taken_by_shape(older, taobao, tmp_path,
                                                  caplog):
  source = older('base')
  (source / 'layout.json').rename(source / 'hidden')
  try:
    with caplog.at_level(logging.INFO):
      now = start('base', tmp_path, taobao, source, 'Tower.units = (3,)')
  finally:
    (source / 'hidden').rename(source / 'layout.json')
  then = tensors(source, 20)
  np.testing.assert_array_equal(now['dim_21_mean/embedding'],
                                then['dim_21_mean/embedding/average'])
  assert 'There is no layout.json' in caplog.text
  assert report(tmp_path)['ctr/tower/dense_0/kernel']['why'].startswith(
      'has shape [8, 4], here [8, 3]')


def test_a_slot_that_counts_steps_starts_anew(tmp_path):
  # As adagrad_decay has one: a number of periods of the global step.
  path = str(tmp_path / 'model.ckpt-5')
  then = {'x': np.ones([2, 3], np.float32),
          'x/Adagrad': np.full([2, 3], 5, np.float32),
          'x/Adagrad_1': np.full([2], 7, np.int64)}
  incremental.write(path, then)
  now = {name: np.zeros_like(value) for name, value in then.items()}
  empty = {name: [] for name in (
      'groups', 'own', 'inputs', 'numbers', 'tasks', 'interactions')}
  line, = transfer.Transfer(
      transfer.Source(path, None, False), empty, lambda name: name,
      lambda name: '', True, None).run(now)
  assert (line.taken, line.slots) == ('taken', 'taken')
  np.testing.assert_array_equal(now['x/Adagrad'], then['x/Adagrad'])
  assert not now['x/Adagrad_1'].any()


# ---------------------------------------------------------------- keyed tables

EV = ['EmbeddingVariable.capacity = 20_000']


def by_key(found, table, ending='-values'):
  return dict(zip(found[table + '-keys'].tolist(), found[table + ending]))


@pytest.mark.slow
def test_a_keyed_table_is_taken_into_a_wider_one(older, taobao, tmp_path):
  source = older('ev', *EV)
  then = tensors(source, 20)
  now = start('ev', tmp_path, taobao, source, 'WarmStart.averages = False',
              'EmbeddingVariable.capacity = 50_000', *TASKS)
  old = by_key(then, 'dim_21_mean/embedding')
  new = by_key(now, 'dim_22_mean/embedding')
  assert sorted(old) == sorted(new) and len(old) > 1000
  rows = np.array([new[key] for key in sorted(new)])
  wanted = np.array([old[key] for key in sorted(old)])
  np.testing.assert_array_equal(rows[:, :18], wanted[:, :18])
  np.testing.assert_array_equal(rows[:, 19:], wanted[:, 18:])
  assert 0 < rows[:, 18].std() < 1  # as new rows start
  assert (rows[:, 18] != wanted[:, 18]).mean() > 0.9
  assert not now['dim_22_mean/embedding-versions'].any()
  np.testing.assert_array_equal(now['dim_22_mean/embedding-freqs'],
                                then['dim_21_mean/embedding-freqs'])
  slots = by_key(now, 'dim_22_mean/embedding', '/Adam-values')
  for key, slot in by_key(
      then, 'dim_21_mean/embedding', '/Adam-values').items():
    np.testing.assert_array_equal(slots[key][:18], slot[:18])


@pytest.mark.slow
def test_values_get_the_rows_of_their_buckets(older, taobao, tmp_path):
  source = older('base', *columns(10, 'adgroup_id', 30, 'user_id', 50))
  then = tensors(source, 20)
  now = start('ev', tmp_path, taobao, source, 'WarmStart.averages = False',
              *(EV + columns(10, 'adgroup_id', 30, 'user_id', 50)))
  table = 'dim_21_mean/embedding'
  new, old = by_key(now, table), then[table]
  # By another road: a model of the same layout says what each row is read as.
  assert report(tmp_path)[table + ' [pid]']['why'].startswith('2 values')
  rows = {row.tobytes() for row in old}
  assert {row.tobytes() for row in new.values()} <= rows
  used = [i for i, row in enumerate(old) if row.tobytes() in {
      of.tobytes() for of in new.values()}]
  assert len([i for i in used if i < 10]) == 2
  assert len([i for i in used if 10 <= i < 40]) == 30
  _check_equal_predictions(source, tmp_path, taobao)


def _check_equal_predictions(source, model_dir, taobao):
  """Both models predict the same for the training rows."""
  found = []
  for gin_file, folder, step in [('base', source, 20), ('ev', model_dir, 0)]:
    made = experiments.load(
        'gin/%s.gin' % gin_file, folder, taobao,
        'Experiment.predict_input = @train/ParquetInput()', 'EPOCHS = 1',
        'train/ParquetInput.shuffle_rows = 0', 'Experiment.exports = None',
        *(INTERACTIONS + EV * (gin_file == 'ev') + columns(
            10, 'adgroup_id', 30, 'user_id', 50)))
    written = made.predict(str(folder / ('model.ckpt-%d' % step)))
    found.append(np.concatenate([of['ctr'] for of in written.batches()]))
  np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-7)


# ------------------------------------------------------------------- the rest


@pytest.mark.slow
def test_a_run_that_goes_on_says_that_it_does_not_start(
    older, taobao, tmp_path, caplog):
  source = older('base')
  start('base', tmp_path, taobao, source)
  with caplog.at_level(logging.INFO):
    start('base', tmp_path, taobao, '/gone', 'Experiment.max_steps = 2')
  assert 'Experiment.warm_start is not used' in caplog.text
  assert tensors(tmp_path, 2)['global_step'] == 2


@pytest.mark.parametrize('arguments, message', [
    (dict(include=['(']), 'WarmStart.include must be a list of patterns'),
    (dict(exclude='x'), 'WarmStart.exclude must be a list of patterns'),
    (dict(renames={'[': 'x'}), 'WarmStart.renames must be a dict of texts'),
    (dict(columns={'x': 3}), 'WarmStart.columns must be a dict of texts'),
    (dict(checkpoint='x'), 'WarmStart.checkpoint must be'),
    (dict(source='s3://x/y'), 'WarmStart.source must be a path'),
])
def test_wrong_arguments_are_told_in_one_line(arguments, message):
  with pytest.raises(errors.UserError, match=message) as raised:
    warm_start.WarmStart(**dict({'source': 'x'}, **arguments))
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize('source, checkpoint, message', [
    ('%s/gone', None, 'WarmStart.source must be a model_dir or the path'),
    ('%s', None, 'WarmStart.source must hold a checkpoint'),
    ('%s/other', 'best', "WarmStart.checkpoint = 'best' needs a training"),
    ('%s/other/model.ckpt-5', 'last', 'WarmStart.checkpoint must be None'),
    ('%s/own', None, 'WarmStart.source must be another folder'),
    ('%s/own/model.ckpt-5', None, 'WarmStart.source must be another folder'),
])
def test_a_source_that_will_not_do_is_told_in_one_line(
    tmp_path, source, checkpoint, message):
  for name in ('own', 'other'):
    (tmp_path / name).mkdir()
    incremental.write(str(tmp_path / name / 'model.ckpt-5'),
                      {'global_step': np.int64(5)})
  made = warm_start.WarmStart(source.replace('%s', str(tmp_path)), checkpoint)
  with pytest.raises(errors.UserError, match=message) as raised:
    made.find(str(tmp_path / 'own'))
  assert '\n' not in str(raised.value)


def test_a_checkpoint_in_best_belongs_to_the_model_dir_above(tmp_path):
  (tmp_path / 'best').mkdir()
  path = str(tmp_path / 'best' / 'model.ckpt-5')
  incremental.write(path, {'global_step': np.int64(5)})
  assert warm_start.WarmStart(path).find('/other') == (path, str(tmp_path))


@pytest.mark.parametrize('here, there, buckets, why', [
    (('Hashed', 6), ('HashedList', 6), [0, 1, 2, 3, 4, 5], ''),
    (('Hashed', 6), ('Hashed', 3), [0, 1, 2, 0, 1, 2], 'each of 3 buckets'),
    (('Hashed', 6), ('Hashed', 4), None, 'take a multiple of 4'),
    (('Integer', 3), ('Integer', 2), [0, 1], '2 of 3 ids'),
    (('Integer', 2), ('Integer', 3), [0, 1], ''),
    (('Integer', 3), ('Hashed', 3), None, 'of kind Hashed there, Integer'),
    (('Own', 4), ('Own', 2), None, 'has 2 rows there, 4 here'),
])
def test_which_bucket_a_bucket_starts_from(here, there, buckets, why):
  found, said = transfer._buckets(*[
      {'kind': kind, 'num_buckets': count} for kind, count in (here, there)])
  assert (found if found is None else found.tolist()) == buckets
  assert why in said and bool(why) == bool(said)
