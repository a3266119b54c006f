"""Tables and layers in parts: real servers and whole runs."""

import contextlib
import json
import os
import re
import shutil

import conftest
import experiments
from experiments import CBF
from experiments import COUNTER
from experiments import FEW_COLUMNS
from experiments import broken_off
from experiments import experiment_of
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import model
from ple_estimator.embeddings import admission
from ple_estimator.embeddings import partitioned_table
from ple_estimator.embeddings import table_parts
from ple_estimator.training import incremental

# What a test costs here is the building of graphs.
NETWORK = ['PLE.num_levels = 1', 'PLE.num_task_experts = 1']
PARTS = ['Model.input_layer_partitioner = 1',
         'Model.dense_layer_partitioner = 1']


@contextlib.contextmanager
def small_parts():
  """Takes MB and kB for half a kB, which the small model of tests has."""
  cut = model._cut
  model._cut = lambda num_ps, part_bytes: cut(num_ps, 512)
  try:
    yield
  finally:
    model._cut = cut


@pytest.fixture
def cluster(monkeypatch):
  """Makes this process the chief of a cluster with n parameter servers."""
  servers = []

  def join(n):
    if not n:
      monkeypatch.delenv('TF_CONFIG', raising=False)
      return
    spec = {'chief': ['localhost:%d' % conftest.free_port()],
            'ps': ['localhost:%d' % conftest.free_port() for _ in range(n)]}
    servers.extend(tf.train.Server(spec, job_name='ps', task_index=i)
                   for i in range(n))
    monkeypatch.setenv('TF_CONFIG', json.dumps(
        {'cluster': spec, 'task': {'type': 'chief', 'index': 0}}))

  yield join
  monkeypatch.delenv('TF_CONFIG', raising=False)


def load(gin_file, model_dir, taobao, *bindings):
  return experiments.load('gin/%s.gin' % gin_file, model_dir, taobao,
                          *(FEW_COLUMNS + NETWORK + list(bindings)))


def run(gin_file, model_dir, taobao, steps, *bindings):
  """Trains to a step."""
  made = load(gin_file, model_dir, taobao, 'Experiment.eval_input = None',
              'Experiment.exports = None', 'Experiment.early_stopping = None',
              'run_config.save_steps = 5',
              'Experiment.max_steps = %d' % steps,
              # Adam makes steps of one size out of gradients that are nothing
              # but rounding, unless epsilon is more than that.
              'lazy_adam.epsilon = 1e-3', *(PARTS + list(bindings)))
  with small_parts(), tf.Graph().as_default():
    made.train()


# The columns of a list and of a single value, in one table.
SHARED = 'FeatureSpec.overrides = %r' % {
    name: {'num_buckets': 500, 'table': 'category'}
    for name in ('cate_id', 'tag_category_list')}
AVERAGING = ['Model.averaging = @Averaging()', 'Averaging.decay = 0.9']


def contents(path):
  """All tensors of a checkpoint; keyed tables in one piece, keys ascending."""
  reader = tf.train.load_checkpoint(str(path))
  wholes = table_parts.joined(reader.get_variable_to_shape_map())
  found = {name: table_parts.read(reader, of) for name, of in wholes.items()}
  for name in [n for n in found if re.search(r'-keys(_filtered)?$', n)]:
    table, waits = re.match(r'(.*)-keys(_filtered)?$', name).groups()
    order = np.argsort(found[name])
    for other in found:
      if re.match(re.escape(table) + r'(/\w+)?-[a-z]+%s$' % (waits or ''),
                  other):
        found[other] = found[other][order]
  return found


def check_close(got, wanted):
  assert sorted(got) == sorted(wanted)
  for name, value in wanted.items():
    if value.dtype == np.float32:
      np.testing.assert_allclose(
          got[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    else:
      np.testing.assert_array_equal(got[name], value, err_msg=name)


def predictions(gin_file, model_dir, taobao, *bindings):
  load(gin_file, model_dir, taobao, *bindings).predict()
  table = pa.parquet.read_table(str(model_dir / 'predictions.parquet'))
  return table['ctr'].to_numpy()


CASES = {
    'base': ('base', []),
    'base_unfused': ('base', ['Model.op_fusion = False', 'PLE.l2 = 0.01',
                              'HashEmbedding.emb_fusion = False']),
    'base_clipped': ('base', ['Model.clip_norm = 0.1',
                              'Model.micro_batches = 3']),
    'base_decay': ('base', ['Model.optimizer = @adagrad_decay',
                            'adagrad_decay.decay_steps = 3']),
    'base_async': ('base', ['Model.optimizer = @adam_async',
                            'adam_async.epsilon = 1e-3']),
    'base_shared': ('base', [SHARED]),
    'multi_hash': ('multi_hash', []),
    'ev': ('ev', COUNTER),
    'ev_cbf': ('ev', CBF + ['Model.optimizer = @adam_async',
                            'adam_async.epsilon = 1e-3']),
    'ev_shared': ('ev', [SHARED]),
    'ev_adagrad': ('ev', ['Model.optimizer = @adagrad']),
    'base_averaging': ('base', AVERAGING + ['HashEmbedding.l2 = 0.001']),
    'ev_averaging': ('ev', COUNTER + AVERAGING + [
        'EmbeddingVariable.l2 = 0.001']),
    'adaptive': ('adaptive', []),
    'dynamic_dim': ('dynamic_dim', ['Model.clip_norm = 0.1']),
    'din': ('din', ['FeatureSpec.overrides = %r' % {
        'tag_category_list': {'combiner': 'attention', 'query': 'cate_id'}},
                    'Attention.l2 = 0.01'])}


def start_from(model_dir, step, other):
  """Copies a model_dir as it was when it had saved a step."""
  shutil.copytree(
      str(model_dir), str(other),
      ignore=shutil.ignore_patterns('trained.json', 'evaluations.json'))
  (other / 'checkpoint').write_text(
      'model_checkpoint_path: "model.ckpt-%d"\n' % step)


@pytest.mark.cluster
@pytest.mark.parametrize('case', CASES)
def test_parts_change_nothing(cluster, taobao, tmp_path, case):
  gin_file, bindings = CASES[case]
  counts = (1, 2) if case == 'base' else (2,)  # and three below
  whole = tmp_path / 'local'
  run(gin_file, whole, taobao, 20, *bindings)
  for n in counts:
    start_from(whole, 5, tmp_path / ('%d' % n))
    cluster(n)
    run(gin_file, tmp_path / ('%d' % n), taobao, 15, *bindings)
    check_close(contents(tmp_path / ('%d' % n)),
                contents(whole / 'model.ckpt-15'))
    # Each server writes what it has.
    assert len(list((tmp_path / ('%d' % n)).glob('model.ckpt-15.data-*'))) >= n
  # On one machine, and on with other servers, from what two have saved.
  run_on = tmp_path / '2'
  cluster(0)
  found = predictions(gin_file, run_on, taobao, *bindings)
  check_predictions_of_whole(found, gin_file, run_on, taobao, *bindings)
  cluster(3)
  run(gin_file, run_on, taobao, 20, *bindings)
  check_close(contents(run_on), contents(whole))


@pytest.mark.cluster
@pytest.mark.parametrize('gin_file', ['base', 'ev'])
def test_a_warm_start_is_the_same_in_parts(cluster, taobao, tmp_path, gin_file):
  older = tmp_path / 'older'
  cluster(2)
  run(gin_file, older, taobao, 5)
  wanted = {name: value for name, value in contents(older).items()
            if name != 'global_step' and not name.endswith('-versions')}
  for n in (0, 3):
    cluster(n)
    run(gin_file, tmp_path / ('%d' % n), taobao, 1,
        'Experiment.warm_start = @WarmStart()',
        'WarmStart.source = %r' % str(older))
    found = contents(tmp_path / ('%d' % n) / 'model.ckpt-0')
    assert found['global_step'] == 0
    for name, value in wanted.items():
      np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert len(found) == len(contents(older))
    assert not list((tmp_path / ('%d' % n)).glob('warm_start-*'))


def check_predictions_of_whole(found, gin_file, model_dir, taobao, *bindings):
  """Predicts from the same tensors, laid together by numpy: the same bits."""
  other = model_dir.parent / 'whole'
  os.makedirs(str(other))
  incremental.write(str(other / 'model.ckpt-15'), contents(model_dir))
  for suffix in incremental._FILES:
    assert os.path.exists(str(other / 'model.ckpt-15') + suffix)
  (other / 'checkpoint').write_text(
      'model_checkpoint_path: "model.ckpt-15"\n')
  np.testing.assert_array_equal(
      predictions(gin_file, other, taobao, *bindings), found)


@pytest.mark.parametrize('gin_file, bindings', [
    pytest.param('ev', COUNTER[:2], marks=pytest.mark.slow),
    pytest.param('base', [], marks=pytest.mark.cluster),
    pytest.param('base', ['Model.optimizer = @adam_async'],
                 marks=pytest.mark.cluster)])
def test_deltas_of_parts_add_up_to_the_full_checkpoint(
    cluster, taobao, tmp_path, gin_file, bindings):
  cluster(2)
  where = tmp_path / 'run'
  bindings = (PARTS + ['Experiment.early_stopping = None'] +
              FEW_COLUMNS + NETWORK + bindings)
  with small_parts():
    broken_off(gin_file, where, taobao, *bindings)
  merged = incremental.merged(tf.train.latest_checkpoint(str(where)))
  assert merged.endswith('ckpt-30')
  got, wanted = contents(merged), contents(where / 'full' / 'ckpt-30')
  assert sorted(got) == sorted(wanted)
  for name, value in wanted.items():
    np.testing.assert_array_equal(got[name], value, err_msg=name)
  cluster(3)
  with small_parts(), tf.Graph().as_default():
    experiment_of(gin_file, where, taobao, *bindings).train()
  assert int(contents(where)['global_step']) == 40


def devices_of(kind):
  """Where the resources of a kind are, by the name that processes share."""
  return {op.get_attr('shared_name').decode() or op.name: op.device
          for op in tf.get_default_graph().get_operations() if op.type == kind}


def test_parts_lie_on_all_servers_with_what_belongs_to_them():
  with tf.device(tf.train.replica_device_setter(
      ps_tasks=3, worker_device='/job:worker')):
    tf.train.create_global_step()
    for name in 'abcd':
      partitioned_table.PartitionedTable(
          3, name, 4, 1000, 'capacity', 1.0, True, admission.CounterFilter(2))
  for name in 'abcd':
    places = {}
    for kind in ('VarHandleOp', 'MutableHashTableV2', 'MutexV2'):
      for op, device in devices_of(kind).items():
        part = re.match(name + r'[/_].*part_(\d)', op)
        if part:
          places.setdefault(part.group(1), []).append(device)
    assert sorted(places) == ['0', '1', '2']
    # Rows, counters, versions, free rows, state, two hash tables, the lock.
    assert [len(of) for of in places.values()] == [8] * 3
    tasks = [set(of) for of in places.values()]
    assert all(len(of) == 1 for of in tasks)
    assert set.union(*tasks) == {'/job:ps/task:%d' % i for i in range(3)}


def test_bloom_filters_lie_on_all_servers():
  with tf.device(tf.train.replica_device_setter(
      ps_tasks=3, worker_device='/job:worker')):
    tf.train.create_global_step()
    partitioned_table.PartitionedTable(
        3, 't', 4, 1000, 'capacity', 1.0, True, admission.CbfFilter(2, 1000))
  found = devices_of('VarHandleOp')
  assert {found['t/counters/part_%d' % i] for i in range(3)} == {
      '/job:ps/task:%d' % i for i in range(3)}


@pytest.mark.parametrize('name', [
    'input_layer_partitioner', 'dense_layer_partitioner'])
def test_refuses(name):
  with pytest.raises(errors.UserError, match='Model.%s must be an integer '
                     'of at least 0, got -1' % name):
    load('base', '/tmp/x', '/tmp/x', 'Model.%s = -1' % name)


@pytest.mark.parametrize('input_mb, dense_kb, cut', [
    (0, 0, set()), (10, 0, {'dim_16_mean/embedding'}),
    (0, 8, {'level_0/ctr/expert_0/dense_0/kernel'}), (100, 100, set())])
def test_parts_are_as_large_as_the_bindings_say(
    taobao, tmp_path, input_mb, dense_kb, cut):
  # 710,310 rows of 64 bytes are 43.4 MB: a part for each of four servers.
  # 272 * 16 weights are 17 kB: two parts of 8 kB and one of what is over.
  made = experiments.load(
      'gin/base.gin', tmp_path, taobao, *experiments.TWO_LEVELS,
      'PLE.expert_units = (16,)',
      'FeatureSpec.overrides = None',
      'Model.input_layer_partitioner = %d' % input_mb,
      'Model.dense_layer_partitioner = %d' % dense_kb)
  tf.train.create_global_step()
  features, labels = tf.data.make_initializable_iterator(
      made.trainer.input_fn()).get_next()
  made.model.model_fn(
      features, labels, tf.estimator.ModeKeys.TRAIN, num_ps=4)
  parts = {}
  for variable in tf.trainable_variables():
    name = re.sub(r'/part_\d$', '', variable.op.name)
    parts[name] = parts.get(name, 0) + 1
  several = {name: n for name, n in parts.items() if n > 1}
  assert cut <= set(several) and bool(cut) == bool(several)
  assert set(several.values()) <= ({4} if input_mb else {3})
