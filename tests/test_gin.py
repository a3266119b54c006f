"""Every experiment builds, has a reason, binds only what it uses, and runs."""

import glob
import json
import os
import re

import conftest
import gin
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment

FILES = sorted(glob.glob(os.path.join(conftest.ROOT, 'gin', '*.gin')))
EXPERIMENTS = [path for path in FILES if not path.endswith(
    ('taobao.gin', 'sweep.gin'))]
each_file = pytest.mark.parametrize('path', FILES, ids=os.path.basename)
# Those on other rows are trained in tests/tools/test_make_mtl_data.py.
ON_TAOBAO = [path for path in EXPERIMENTS if os.path.basename(path) not in (
    'mtl_regression.gin', 'matching.gin')]
each_experiment = pytest.mark.parametrize(
    'path', EXPERIMENTS, ids=os.path.basename)
# What is trained in one run, that of base alone with averages: choices of
# different kinds combine, whichever they are (test_config.py), and so do files
# that add something to gin/base.gin.
TRAINED = [
    ['csv', 'mmoe', 'bf16', 'adagrad', 'ev_counter_filter'],
    ['multi_hash', 'ftrl', 'shared_bottom', 'grad_norm', 'tweedie'],
    ['dynamic_dim', 'csv', 'single_task', 'pcgrad'],
    ['cgc', 'ev', 'adamw', 'uncertainty_weights'],
    ['small', 'adagrad_decay', 'ev_cbf_filter', 'dynamic_weight_average'],
    ['hidden_gate', 'adam_async', 'ev_global_step_eviction', 'esmm'],
    ['linear', 'adaptive', 'poisson'],
    ['fm', 'ev_l2_eviction', 'sgd', 'multi_class'],
    ['micro_batch', 'work_queue', 'cvr_on_clicks', 'metrics'],
    ['daily', 'incremental_checkpoint'], ['ait', 'aitm'],
] + [[name] for name in ('base', 'zoo', 'din')]

# As narrow and shallow as the experiment allows, so that it starts fast.
SMALL_TABLES = {name: {'num_buckets': 100} for name in [
    'adgroup_id', 'cate_id', 'campaign_id', 'customer', 'brand', 'user_id',
    'tag_category_list', 'tag_brand_list']}
SMALL = ['FeatureSpec.overrides = %r' % SMALL_TABLES,
         'Tower.units = (4,)', 'PLE.expert_units = (5,)', 'PLE.num_levels = 1',
         'PLE.gate_units = (3,)',
         'Experiment.exports = None', 'Experiment.max_steps = 2',
         'BATCH_SIZE = 64']


def _code(path):
  """The file's lines without comments and blank ones."""
  with open(path) as f:
    return [line for line in f.read().splitlines()
            if line and not line.startswith('#')]


def _short(name):
  """Drops the module of a gin name: 'eval/tf.Foo' -> 'eval/Foo'."""
  return re.sub(r'[\w.]*\.', '', name)


@each_experiment
def test_binds_only_what_it_uses(path, tmp_path):
  config.load(path, ['Experiment.model_dir = %r' % str(tmp_path)])
  experiment.Experiment()
  used = set(map(_short, re.findall(
      r'^# Parameters for (.*):$', gin.operative_config_str(), re.M)))
  used |= {name.split('/')[-1] for name in used}
  # Called inside model_fn.
  used.add(_short(gin.query_parameter('Model.optimizer').selector))
  own = re.findall(
      r'^([\w./]+)(?::$|\.\w+ = )', '\n'.join(_code(path)), re.M)
  assert set(map(_short, own)) <= used


@each_file
def test_has_a_reason_and_one_parent(path):
  with open(path) as f:
    assert f.readline().startswith('# ')
  includes = [i for i, line in enumerate(_code(path))
              if line.startswith('include')]
  assert includes in ([], [0])


@each_file
def test_is_listed(path):
  with open(os.path.join(conftest.ROOT, 'gin', 'README.md')) as f:
    assert '`%s`' % os.path.basename(path) in f.read()


def _small_tables(paths):
  """What files say of columns, with SMALL_TABLES."""
  config.load(paths)
  bound = gin.config_str().count('FeatureSpec.overrides') and (
      gin.query_parameter('FeatureSpec.overrides'))
  gin.clear_config()
  found = {name: dict(entry) for name, entry in (bound or {}).items()}
  for name, entry in SMALL_TABLES.items():
    found.setdefault(name, {}).update(entry)
  return found


def test_every_file_on_taobao_is_trained():
  assert {name for names in TRAINED for name in names} == {
      os.path.basename(path)[:-4] for path in ON_TAOBAO}


@pytest.mark.slow
@pytest.mark.parametrize('names', TRAINED, ids='-'.join)
def test_trains_two_steps(names, taobao, tmp_path):
  paths = ['gin/%s.gin' % name for name in names]
  averaging = [] if names == ['base'] else ['Model.averaging = None']
  config.load(paths, SMALL + averaging + [
      'FeatureSpec.overrides = %r' % _small_tables(paths),
      'DATA_DIR = %r' % taobao, 'Experiment.model_dir = %r' % str(tmp_path),
      'Experiment.eval_input = None', 'Experiment.early_stopping = None'])
  experiment.Experiment().train()
  names = os.listdir(str(tmp_path))
  assert 'model.ckpt-2.index' in names and 'operative_config-0.gin' in names


def test_operative_config_alone_repeats_the_run(taobao, tmp_path):
  where = 'Experiment.model_dir = %r' % str(tmp_path / 'a')
  config.load('gin/shared_bottom.gin',
              SMALL + ['DATA_DIR = %r' % taobao, where])
  experiment.Experiment().train()
  gin.clear_config()
  again = 'Experiment.model_dir = %r' % str(tmp_path / 'b')
  config.load(str(tmp_path / 'a' / 'operative_config-0.gin'), [again])
  experiment.Experiment().train()
  a, b = [json.load(open(str(tmp_path / d / 'metrics.json'))) for d in 'ab']
  assert a == pytest.approx(b, rel=1e-3)


def test_refuses_a_misspelt_macro():
  with pytest.raises(errors.UserError, match='unread MODLE_DIR'):
    config.load('gin/base.gin', ["MODLE_DIR = '/x'"])


@pytest.mark.parametrize('binding, name', [
    ('crt/Task.weight = 7.0', 'crt/Task'),
    ('trian/ParquetInput.shuffle_rows = 5', 'trian/ParquetInput'),
    ('sgd.learning_rate = 5.0', 'sgd'),
    ('exponential_decay.rate = 0.5', 'exponential_decay'),
])
def test_refuses_a_binding_of_what_is_not_used(binding, name):
  with pytest.raises(errors.UserError, match='got unused %s; ' % name):
    config.load('gin/base.gin', [binding])


@pytest.mark.parametrize('bindings', [
    ['lazy_adam.learning_rate = @warmup_cosine', 'warmup_cosine.peak = 0.1'],
    ['train/ParquetInput.epochs = 3'], ['ParquetInput.batch_size = 3'],
    ['Model.optimizer = @sgd', 'sgd.learning_rate = 0.1'],
])
def test_an_override_may_leave_a_macro_of_base_unread(bindings):
  config.load('gin/base.gin', bindings)
  experiment.Experiment()


def test_names_the_missing_file():
  with pytest.raises(errors.UserError, match='nope.gin'):
    config.load('gin/nope.gin')


def test_zoo_is_the_model_of_the_model_zoo():
  config.load('gin/zoo.gin')
  spec = gin.get_configurable('FeatureSpec')()
  assert [c.name for c in spec.columns][:4] == [
      'clk', 'buy', 'pid', 'adgroup_id']
  assert len(spec.columns) == 20 and len(spec.categories) == 17
  assert sum(c.num_buckets for c in spec.categories) == 710310
  assert {c.dim for c in spec.categories} == {16}
  assert spec['final_gender_code'] not in spec.read(True)


@pytest.mark.slow
def test_a_step_does_not_grow(taobao, tmp_path):
  # What noise cannot move: the ops that one training step runs.
  config.load('gin/base.gin', [
      'DATA_DIR = %r' % taobao, 'Experiment.model_dir = %r' % str(tmp_path)])
  made = experiment.Experiment()
  tf.train.create_global_step()
  features, labels = tf.data.make_initializable_iterator(
      made.trainer.input_fn()).get_next()
  spec = made.model.model_fn(features, labels, tf.estimator.ModeKeys.TRAIN)
  step = tf.graph_util.extract_sub_graph(
      tf.get_default_graph().as_graph_def(), [spec.train_op.name])
  assert len(step.node) < 1.25 * 1718
