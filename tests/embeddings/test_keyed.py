"""Whole runs with embeddings that grow."""

import os
import re
import signal
import subprocess
import sys
import time

import conftest
from experiments import CBF
from experiments import COUNTER
from experiments import FEW_COLUMNS
from experiments import FEW_NAMES
from experiments import SMALL
from experiments import exact_auc
from experiments import load
from experiments import metrics_of
from experiments import served
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors

UNFUSED = ['EmbeddingVariable.emb_fusion = False']
each_kind = pytest.mark.parametrize('kind', [
    pytest.param(UNFUSED, id='unfused', marks=pytest.mark.slow),
    pytest.param(COUNTER, id='counter'),
    pytest.param(CBF, id='cbf', marks=pytest.mark.slow)])


def ev(model_dir, taobao, *bindings):
  return load('gin/ev.gin', model_dir, taobao, 'Experiment.exports = None',
              'run_config.save_steps = 10', *bindings)


def embeddings_of(model_dir):
  """The tensors of all tables in the last checkpoint, by name."""
  reader = tf.train.load_checkpoint(str(model_dir))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()
          if '/embedding' in name}


def check_whole(model_dir):
  """Every key has its row, its counters and all its slots, finite."""
  found = embeddings_of(model_dir)
  for name, keys in found.items():
    if not name.endswith('-keys'):
      continue
    assert (np.diff(keys) > 0).all()  # ascending, so different
    own = [n for n in found if n.startswith(name[:-len('-keys')])
           and not n.endswith('_filtered')]
    assert len(own) == 6  # keys, values, freqs, versions, m, v
    for other in own:
      assert len(found[other]) == len(keys)
      if found[other].dtype == np.float32:
        assert np.abs(found[other]).max() < 1e3  # NaN is not either
  return found


@pytest.mark.slow
@pytest.mark.parametrize('gin_file', ['adaptive', 'dynamic_dim'])
def test_other_kinds_train_resume_and_predict(taobao, tmp_path, gin_file):
  for steps in (10, 20):
    made = load('gin/%s.gin' % gin_file, tmp_path, taobao,
                'Experiment.exports = None', 'PLE.num_levels = 1',
                'Experiment.max_steps = %d' % steps, *FEW_COLUMNS)
    made.train()
    check_whole(tmp_path)
  made.predict()
  found = pa.parquet.read_table(str(tmp_path / 'predictions.parquet'))
  rows = pa.parquet.read_table(taobao + '/taobao_validation_data.parquet')
  assert metrics_of(tmp_path)['ctr/auc'] == pytest.approx(exact_auc(
      found['ctr'].to_numpy(), rows['clk'].to_numpy(), np.ones(1000)), abs=1e-3)


@each_kind
def test_trains_resumes_predicts_and_serves(taobao, tmp_path, kind):
  kind = kind + FEW_COLUMNS
  ev(tmp_path, taobao, 'Experiment.max_steps = 20', *kind).train()
  before = check_whole(tmp_path)
  # A larger capacity, and whatever the checkpoint holds, goes on.
  ev(tmp_path, taobao, 'Experiment.max_steps = 30',
     'EmbeddingVariable.capacity = 2_000_000', *kind).train()
  after = check_whole(tmp_path)
  assert metrics_of(tmp_path)['global_step'] == 30
  if kind[:1] == UNFUSED:  # every row stays
    for name in before:
      assert not name.endswith('-keys') or set(before[name]) <= set(after[name])
    users = 'user_id/embedding-keys'
    assert set(before[users]) < set(after[users])
  made = ev(tmp_path, taobao, *kind)
  made.predict()
  made.export()
  wanted = pa.parquet.read_table(str(tmp_path / 'predictions.parquet'))
  for answer in served(tmp_path, taobao, tmp_path, FEW_NAMES):
    np.testing.assert_allclose(
        answer['ctr'], wanted['ctr'].to_numpy(), rtol=1e-4)


@pytest.mark.parametrize('op_fusion', [
    True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_value_has_one_key_per_column(taobao, tmp_path, op_fusion):
  # As many keys as different values of the rows trained, whoever hashes them.
  ev(tmp_path, taobao, 'Experiment.max_steps = 30',
     'Model.op_fusion = %r' % op_fusion).train()
  rows = pa.parquet.read_table(taobao + '/taobao_train_data.parquet')
  values = set()
  for name in rows.column_names:
    if name in ('clk', 'buy', 'final_gender_code'):
      continue
    for value in rows[name].to_pylist():
      items = str(value or ' ').split('|') if 'tag' in name else [value]
      values |= {(name, item) for item in items if item != ''}
  found = embeddings_of(tmp_path)
  assert found['dim_16_mean/embedding-freqs'].sum() > 3000 * 17
  # The default of an empty field is a value too.
  assert len(found['dim_16_mean/embedding-keys']) == pytest.approx(
      len(values), abs=20)


@pytest.mark.slow
def test_a_full_table_ends_training_with_one_line(taobao, tmp_path):
  with pytest.raises(
      errors.UserError, match='EmbeddingVariable.capacity must be raised: 500 '
      'rows are not enough for training. The last checkpoint'):
    ev(tmp_path, taobao, 'Experiment.max_steps = 20',
       'EmbeddingVariable.capacity = 500').train()
  ev(tmp_path, taobao, 'Experiment.max_steps = 20').train()
  with pytest.raises(
      errors.UserError, match='EmbeddingVariable.capacity must be raised: 500 '
      'rows are not enough for the checkpoint'):
    ev(tmp_path, taobao, 'EmbeddingVariable.capacity = 500').evaluate()


@pytest.mark.slow
def test_refuses_the_checkpoint_of_another_embedding(taobao, tmp_path):
  ev(tmp_path, taobao, 'Experiment.max_steps = 2').train()
  for bindings in (['Model.embedding = @HashEmbedding()'], UNFUSED,
                   ['FeatureSpec.dim = 8'], CBF):
    with pytest.raises(errors.UserError, match='holds another model'):
      ev(tmp_path, taobao, 'Experiment.max_steps = 4', *bindings).train()


@pytest.mark.slow
def test_kill_at_any_moment_loses_nothing_older(taobao, tmp_path):
  bindings = SMALL + FEW_COLUMNS + [
      'Experiment.model_dir = %r' % str(tmp_path / 'run'),
      'DATA_DIR = %r' % taobao, 'Experiment.exports = None',
      'EPOCHS = 100000', 'run_config.save_steps = 3',
      'Experiment.eval_steps = 300_000'] + COUNTER
  command = [sys.executable, '-m', 'ple_estimator.run', '--gin_file',
             'gin/ev.gin'] + ['--gin_bindings=' + line for line in bindings]
  rng = np.random.RandomState(0)
  reached = -1
  for _ in range(3):
    process = subprocess.Popen(command, cwd=conftest.ROOT,
                               stderr=subprocess.DEVNULL)
    try:
      deadline = time.time() + 180
      while _last_step(tmp_path / 'run') <= reached + 3:
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.05)
      time.sleep(rng.rand())  # at any moment, while saving too
    finally:
      process.send_signal(signal.SIGKILL)
      process.wait()
    assert _last_step(tmp_path / 'run') > reached
    reached = _last_step(tmp_path / 'run')
    found = check_whole(tmp_path / 'run')
    assert len(found['dim_16_mean/embedding-keys']) > 100


def _last_step(model_dir):
  path = os.path.join(str(model_dir), 'checkpoint')
  if not os.path.exists(path):
    return -1
  with open(path) as f:
    return int(re.search(r'ckpt-(\d+)', f.read()).group(1))
