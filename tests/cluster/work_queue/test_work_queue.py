"""Runs with a work queue in one process: every slice once per epoch."""

import collections
import glob
import importlib
import json
import os
import subprocess
import sys

import conftest
import experiments
import gin
import pytest
from queue_data import fractions
from queue_data import numbered
from queue_data import states
import tensorflow.compat.v1 as tf

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment
from ple_estimator import model
from ple_estimator.cluster.work_queue import work_queue

__all__ = ['numbered']  # a fixture
SMALL = experiments.SMALL + [
    experiments.SMALL_TABLES, 'PLE.num_levels = 1', 'PLE.expert_units = (4,)',
    'run_config.summary_steps = 1',
    'Experiment.early_stopping = None', 'Experiment.exports = None',
    "ctr/Task.sample_space = ('user_id', '-')"]


def test_refuses():
  for value in (0, -1, 2.5):
    with pytest.raises(errors.UserError, match='WorkQueue.slice_rows must be'):
      work_queue.WorkQueue(slice_rows=value)
  for value in (0, None):
    with pytest.raises(errors.UserError, match='WorkQueue.lease_secs must be'):
      work_queue.WorkQueue(lease_secs=value)


class Seen(tf.train.SessionRunHook):
  """Notes the user_id of every row that a step trains."""

  def __init__(self, stop_after=None):
    self.rows, self.sizes = [], []
    self._stop_after = stop_after

  def before_run(self, run_context):
    return tf.train.SessionRunArgs('user_ids:0')

  def after_run(self, run_context, run_values):
    self.rows += [int(x) for x in run_values.results]
    self.sizes.append(len(run_values.results))
    if len(self.sizes) == self._stop_after:
      raise KeyboardInterrupt


@pytest.fixture
def load(numbered, tmp_path, monkeypatch):
  """An Experiment on the numbered rows, with a hook of its own."""
  model_fn = model.Model.model_fn

  def naming(self, features, labels, mode, **kwargs):
    if mode == tf.estimator.ModeKeys.TRAIN:
      tf.identity(features['raw/user_id'], 'user_ids')
    return model_fn(self, features, labels, mode, **kwargs)

  monkeypatch.setattr(model.Model, 'model_fn', naming)

  def made(hook, *bindings):
    gin.clear_config()
    config.load('gin/work_queue.gin', SMALL + [
        'Experiment.model_dir = %r' % str(tmp_path / 'model'),
        'DATA_DIR = %r' % numbered] + list(bindings))
    return experiment.Experiment(hooks=[hook])
  return made


@pytest.mark.parametrize('kind, shuffle, slice_rows', [
    ('ParquetInput', 0, None), ('CsvInput', 250, 70),
    pytest.param('ParquetInput', 5000, 40, marks=pytest.mark.slow)])
def test_rows_are_trained_once_per_epoch(
    load, tmp_path, kind, shuffle, slice_rows):
  seen = Seen()
  more = experiments.FEW_COLUMNS if kind == 'ParquetInput' else [
      'Experiment.train_input = @train/CsvInput()',
      "CsvInput.data_dir = %DATA_DIR", "train/CsvInput.files = 'numbered.csv'",
      'CsvInput.batch_size = %BATCH_SIZE']
  load(seen, 'Experiment.eval_input = None', 'BATCH_SIZE = 64',
       'EPOCHS = 3', 'WorkQueue.slice_rows = %r' % slice_rows,
       'run_config.save_steps = 10',
       'train/%s.epochs = 3' % kind,
       'train/%s.shuffle_rows = %d' % (kind, shuffle), *more).train()
  assert len(seen.rows) == 3000
  for epoch in range(3):
    assert sorted(seen.rows[1000 * epoch:][:1000]) == list(range(1000))
  assert (seen.rows[:1000] == list(range(1000))) == (shuffle == 0)
  assert seen.rows[:1000] == seen.rows[1000:2000] or shuffle
  state = states(tmp_path)
  assert state[max(state)]['epoch'] == 3
  checkpoints = glob.glob(str(tmp_path / 'model/model.ckpt-*.index'))
  assert sorted(state) == sorted(
      int(p.rpartition('-')[2][:-6]) for p in checkpoints)


@pytest.mark.parametrize('stop_after', [
    23, pytest.param(30, marks=pytest.mark.slow)])
def test_continues_with_what_the_checkpoint_has_not_acknowledged(
    load, tmp_path, stop_after):
  bindings = experiments.FEW_COLUMNS + [
      'Experiment.eval_input = None', 'BATCH_SIZE = 64', 'EPOCHS = 3',
      'WorkQueue.slice_rows = 50', 'run_config.save_steps = 10',
      'train/ParquetInput.shuffle_rows = 150']
  first = Seen(stop_after)
  with pytest.raises(KeyboardInterrupt):
    load(first, *bindings).train()
  assert len(first.sizes) == stop_after
  saved = states(tmp_path)
  step = max(saved)
  # The hook that breaks off is called before the one that saves.
  assert step == (stop_after - 1) // 10 * 10
  state = saved[step]
  left = collections.Counter({row: 3 - state['epoch'] for row in range(1000)})
  for slices in state['acknowledged']:
    left.subtract(50 * i + j for i in slices for j in range(50))
  trained = collections.Counter(first.rows[:64 * step])
  trained.update(left)
  assert min(trained.values()) >= 3  # nothing is skipped
  # Rows of one slice may be kept in the buffer for long.
  assert 3000 - sum(left.values()) > 64 * step / 2
  second = Seen()
  load(second, *bindings).train()
  assert collections.Counter(second.rows) == +left
  third = Seen()
  load(third, *bindings).train()  # all is done
  assert not third.rows


@pytest.mark.slow
def test_says_that_all_is_trained_only_when_it_is(load, tmp_path, caplog):
  # What is done again after a loss makes more steps than rows / batch size, 47.
  bindings = experiments.FEW_COLUMNS + [
      'Experiment.eval_input = None', 'BATCH_SIZE = 64', 'EPOCHS = 3',
      'WorkQueue.slice_rows = 50', 'run_config.save_steps = 2',
      'train/ParquetInput.shuffle_rows = 150']
  for stop_after in (45, 5):
    with pytest.raises(KeyboardInterrupt):
      load(Seen(stop_after), *bindings).train()
  assert max(states(tmp_path)) == 48
  caplog.set_level('INFO')
  load(Seen(), *bindings).train()
  assert 'Trained to step' not in caplog.text
  assert 'step 50 of 50' in caplog.text
  assert '100.0 % done' not in caplog.text
  load(Seen(), *bindings).train()
  assert '100.0 % done' in caplog.text


def test_a_step_is_acknowledged_before_it_is_saved(load, tmp_path):
  # In order, a batch is a slice: after n steps n slices are done.
  load(Seen(), 'Experiment.eval_input = None', 'BATCH_SIZE = 50', 'EPOCHS = 2',
       'WorkQueue.slice_rows = 50', 'run_config.save_steps = 7',
       'train/ParquetInput.shuffle_rows = 0').train()
  assert {step: 20 * s['epoch'] + sum(map(len, s['acknowledged']))
          for step, s in states(tmp_path).items()} == {
              step: step for step in (14, 21, 28, 35, 40)}


@pytest.mark.slow
def test_evaluates_every_epoch_and_shows_progress(load, tmp_path):
  load(Seen(), 'BATCH_SIZE = 50', 'EPOCHS = 2', 'WorkQueue.slice_rows = 50',
       'run_config.save_steps = 13', 'Experiment.eval_steps = None').train()
  with open(str(tmp_path / 'model/evaluations.json')) as f:
    assert [of['global_step'] for of in json.load(f)['evaluations']] == [20, 40]
  with open(str(tmp_path / 'model/metrics.json')) as f:
    assert json.load(f)['global_step'] == 40
  shares = fractions(tmp_path)
  assert shares == sorted(shares) and len(shares) > 20
  assert shares[0] < 0.2 and shares[-1] == 1


def test_max_steps_still_ends_training(load):
  seen = Seen()
  load(seen, 'Experiment.eval_input = None', 'BATCH_SIZE = 50',
       'Experiment.max_steps = 7').train()
  assert len(seen.sizes) == 7


@pytest.mark.slow
def test_incremental_checkpoints_have_a_state_too(load, tmp_path):
  bindings = [
      'Experiment.eval_input = None', 'BATCH_SIZE = 50', 'EPOCHS = 2',
      'WorkQueue.slice_rows = 50', 'run_config.save_steps = 20',
      'run_config.keep_checkpoint_max = 1',
      'Model.embedding = @EmbeddingVariable()',
      'Experiment.incremental = @IncrementalCheckpoint()',
      'IncrementalCheckpoint.save_steps = 5',
      'train/ParquetInput.shuffle_rows = 0']
  importlib.import_module('ple_estimator.embeddings.keyed')
  importlib.import_module('ple_estimator.training.incremental')
  with pytest.raises(KeyboardInterrupt):
    load(Seen(33), *bindings).train()
  assert {20, 25, 30} <= set(states(tmp_path))
  second = Seen()
  load(second, *bindings).train()
  # Of 40 slices those are left that were not acknowledged by the delta.
  assert 40 - len(second.sizes) in (28, 29, 30)
  assert not {0, 5, 10, 15} & set(states(tmp_path))
  assert 40 in states(tmp_path)


def test_refuses_to_drop_rows(load):
  with pytest.raises(errors.UserError, match='drop_remainder must be False'):
    load(Seen(), 'ParquetInput.drop_remainder = True').train()


_ONE_RUN = '''
import sys
import gin
from ple_estimator import experiment
from ple_estimator import config
gin.clear_config()
config.load('gin/work_queue.gin', sys.argv[1:])
experiment.Experiment().train()
'''


@pytest.mark.parametrize('threads', [
    0, pytest.param(1, marks=pytest.mark.slow)])
def test_trains_on_one_processor(numbered, tmp_path, threads):
  # The client waits in the dataset for steps, which need a thread meanwhile:
  # on one processor, or with one thread on several, TensorFlow has only one.
  processors = {min(os.sched_getaffinity(0))} if not threads else (
      os.sched_getaffinity(0))
  done = subprocess.run(
      [sys.executable, '-W', 'ignore', '-c', _ONE_RUN] + SMALL + [
          'Experiment.model_dir = %r' % str(tmp_path / 'model'),
          'DATA_DIR = %r' % numbered, 'Experiment.eval_input = None',
          'BATCH_SIZE = 64', 'EPOCHS = 2', 'WorkQueue.slice_rows = 50',
          'run_config.inter_op_threads = %d' % threads],
      cwd=conftest.ROOT, env=dict(os.environ, PYTHONPATH=conftest.ROOT),
      preexec_fn=lambda: os.sched_setaffinity(0, processors),
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
  assert done.returncode == 0, done.stdout.decode()
  state = states(tmp_path)
  assert state[max(state)]['epoch'] == 2
