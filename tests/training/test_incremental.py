"""Incremental checkpoints: real runs that break off, and what is left."""

import glob
import os
import shutil

from experiments import CBF
from experiments import COUNTER
from experiments import FEW_COLUMNS
from experiments import broken_off
from experiments import experiment_of
from experiments import metrics_of
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.training import incremental

CASES = [
    ('base', []), ('base', ['HashEmbedding.emb_fusion = False',
                            'Model.op_fusion = False']),
    ('multi_hash', []), ('ev', COUNTER[:2]), ('ev', CBF[:3]),
    ('adaptive', []), ('dynamic_dim', []),
    ('ev', ['Model.optimizer = @adagrad'])]


def tensors(path):
  reader = tf.train.load_checkpoint(path)
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


def check_merged(model_dir, step):
  path = incremental.merged(tf.train.latest_checkpoint(str(model_dir)))
  assert path.endswith('ckpt-%d' % step)
  wanted = tensors(str(model_dir) + '/full/ckpt-%d' % step)
  got = tensors(path)
  assert sorted(got) == sorted(wanted)
  for name, value in wanted.items():
    np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.fixture(scope='module')
def broken(taobao, tmp_path_factory):
  """A model_dir of ev.gin that broke off; copy it before use."""
  path = tmp_path_factory.mktemp('broken') / 'run'
  with tf.Graph().as_default():
    broken_off('ev', path, taobao, *COUNTER[:2])
  return path


@pytest.mark.parametrize('gin_file, bindings', [
    # The first and a filtered one at once, the others among the slow tests.
    pytest.param(*case, id='%s%d' % (case[0], i),
                 marks=[] if i in (0, 3) else [pytest.mark.slow])
    for i, case in enumerate(CASES)])
def test_deltas_add_up_to_the_full_checkpoint(taobao, tmp_path, gin_file,
                                              bindings):
  run = tmp_path / 'run'
  columns = FEW_COLUMNS
  if gin_file == 'base':  # tables much higher than what batches touch
    columns = [line.replace("'num_buckets': 500", "'num_buckets': 20_000")
               for line in FEW_COLUMNS]
  broken_off(gin_file, run, taobao, *(columns + bindings))
  folder = run / 'incremental' / '20'
  assert sorted(p.name for p in folder.glob('*.json')) == [
      'delta-25.json', 'delta-30.json']
  check_merged(run, 30)
  if gin_file == 'base':  # the rows of five batches, not of all tables
    full = (run / 'model.ckpt-20.data-00000-of-00001').stat().st_size
    delta = (folder / 'delta-30.data-00000-of-00001').stat().st_size
    assert delta < full / 5


@pytest.mark.slow
def test_all_modes_go_on_from_the_deltas(taobao, tmp_path, broken):
  run = str(tmp_path / 'run')
  shutil.copytree(str(broken), run)
  made = experiment_of('ev', run, taobao, *COUNTER[:2])
  made.evaluate()
  assert metrics_of(run)['global_step'] == 30
  made.predict()
  made.export()
  made.train()
  assert metrics_of(run)['global_step'] == 40
  # Where the second run began, a full checkpoint was saved.
  assert os.path.exists(run + '/model.ckpt-30.index')


@pytest.mark.parametrize('spoil, step, message', [
    (lambda d: os.truncate(d + 'delta-30.data-00000-of-00001', 1000), 25,
     'step 30 is torn'),
    (lambda d: os.remove(d + 'delta-30.index'), 25, 'step 30 cannot be read'),
    (lambda d: os.remove(d + 'delta-30.json'), 25, 'step 30 cannot be read'),
    (lambda d: [os.remove(path) for path in glob.glob(d + 'delta-25.*')], 20,
     'step 30 follows that of step 25, which is missing'),
    (lambda d: _flip(d + 'delta-25.data-00000-of-00001'), 20,
     'step 25 cannot be read'),
    (lambda d: _write(d + 'delta-30.json', '{"previous": "25", "sizes": {}}'),
     25, 'step 30 cannot be read'),
    (lambda d: _write(d + 'delta-30.json', '{"previous": 25, "sizes": {}}'),
     25, 'step 30 cannot be read'),
    (lambda d: _write(d + 'delta-30.json', '{"previous": 25, "sizes": [1]}'),
     25, 'step 30 cannot be read'),
])
def test_restoring_stops_before_a_bad_delta(tmp_path, broken, caplog, spoil,
                                            step, message):
  run = str(tmp_path / 'run')
  shutil.copytree(str(broken), run)
  spoil(run + '/incremental/20/')
  if step > 20:
    check_merged(run, step)
  else:
    path = tf.train.latest_checkpoint(run)
    assert incremental.merged(path) == path
  assert message in caplog.text
  assert 'what was trained after step %d is lost' % step in caplog.text


def _write(path, text):
  with open(path, 'w') as f:
    f.write(text)


@pytest.mark.parametrize('spoil', [
    lambda path: _flip(path + '.data-00000-of-00001'),
    lambda path: os.remove(path + '.data-00000-of-00001'),
    lambda path: os.remove(path + '.index'),
    lambda path: _write(path + '.index', '')])
def test_what_was_merged_and_is_damaged_is_merged_again(
    tmp_path, broken, spoil):
  run = str(tmp_path / 'run')
  shutil.copytree(str(broken), run)
  check_merged(run, 30)
  spoil(run + '/incremental/20/merged/model.ckpt-30')
  check_merged(run, 30)


def _flip(path):
  with open(path, 'r+b') as f:
    f.seek(os.path.getsize(path) // 2)
    byte = f.read(1)
    f.seek(-1, os.SEEK_CUR)
    f.write(bytes([byte[0] ^ 255]))


@pytest.mark.slow
def test_deltas_go_with_their_full_checkpoint(taobao, tmp_path):
  experiment_of('ev', tmp_path, taobao, 'run_config.keep_checkpoint_max = 1',
                'Experiment.max_steps = 49').train()
  assert sorted(os.listdir(str(tmp_path / 'incremental'))) == ['40']


def test_old_rows_are_not_in_a_delta(taobao, tmp_path):
  run = tmp_path / 'run'
  broken_off('ev', run, taobao)
  first, second = [tensors(str(run / 'incremental/20' / ('delta-%d' % step)))
                   for step in (25, 30)]
  assert first['dim_16_mean/embedding-versions'].min() >= 20
  assert second['dim_16_mean/embedding-versions'].min() >= 25
  assert second['global_step'] == 30


@pytest.mark.parametrize('kwargs, message', [
    ({}, 'IncrementalCheckpoint.save_secs or IncrementalCheckpoint.save_steps '
     'must be given, and not both, got None and None'),
    ({'save_steps': 0}, 'IncrementalCheckpoint.save_steps must be an integer'),
])
def test_refuses(kwargs, message):
  with pytest.raises(errors.UserError, match=message):
    incremental.IncrementalCheckpoint(**kwargs)


def test_refuses_an_optimizer_that_moves_every_row(taobao, tmp_path):
  with pytest.raises(errors.UserError, match='Experiment.incremental needs an '
                     'optimizer that leaves untouched rows alone, such as '
                     '@lazy_adam'):
    experiment_of('base', tmp_path, taobao, 'Model.optimizer = @adam').train()
