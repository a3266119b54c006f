"""Runs that diverge, have nothing to train on, or are asked for the best."""

import glob
import json
import os
import re

import experiments
from experiments import SMALL
import gin
import numpy as np
import pyarrow.parquet as parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment

GIN = '''
include 'gin/base.gin'
FeatureSpec:
  dim = 2
  columns = [
      {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
      {'name': 'buy', 'kind': 'label', 'values': (0, 1)},
      {'name': 'w', 'kind': 'weight'},
      {'name': 'ad', 'kind': 'hashed', 'num_buckets': 5},
      {'name': 'price', 'kind': 'number'},
  ]
Experiment:
  train_input = @train/CsvInput()
  eval_input = @eval/CsvInput()
  exports = None
  early_stopping = None
CsvInput:
  data_dir = %DATA_DIR
  batch_size = %BATCH_SIZE
train/CsvInput:
  files = 'rows.csv'
  epochs = %EPOCHS
eval/CsvInput.files = 'rows.csv'
cvr/Task.sample_space = ('clk', 1)
ctr/Task.weight = 0.5
PLE.num_levels = 1
'''
ROWS = 23


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """A folder with few.gin and rows.csv of ROWS rows."""
  path, rng = tmp_path_factory.mktemp('few'), np.random.RandomState(5)
  (path / 'few.gin').write_text(GIN)
  (path / 'rows.csv').write_text(''.join('%d,%d,%d,a%d,%.2f\n' % (
      i % 3 == 0, i % 6 == 0, i % 4, rng.randint(4), rng.rand())
                                         for i in range(ROWS)))
  return path


@pytest.fixture
def load(data, tmp_path):
  def load(*bindings):
    gin.clear_config()
    config.load(str(data / 'few.gin'), SMALL + [
        'Experiment.model_dir = %r' % str(tmp_path / 'run'),
        'DATA_DIR = %r' % str(data), 'BATCH_SIZE = 10', 'EPOCHS = 1',
        'PLE.num_levels = 1'] + list(bindings))
    return experiment.Experiment()
  return load


@pytest.mark.slow
def test_loss_is_that_of_the_rows_whatever_the_batches(load):
  load('LEARNING_RATE = 0.1', 'Experiment.eval_input = None').train()
  found = [load('BATCH_SIZE = %d' % size).evaluate() for size in (1, 7, ROWS)]
  by_hand = .5 * found[0]['ctr/log_loss'] + found[0]['cvr/log_loss']
  for metrics in found:
    assert metrics['loss'] == pytest.approx(by_hand, rel=1e-5)
    assert metrics['ctr/log_loss'] == pytest.approx(
        found[0]['ctr/log_loss'], rel=1e-5)


def test_a_diverged_run_says_so_and_leaves_a_good_checkpoint(load, tmp_path):
  with pytest.raises(errors.UserError) as caught:
    load('LEARNING_RATE = 1e38', 'EPOCHS = 9', 'run_config.save_steps = 1',
         'Experiment.eval_input = None', 'Model.optimizer = @sgd',
         'sgd.learning_rate = 1e38', 'Experiment.max_steps = 20').train()
  text = str(caught.value)
  assert text.count('\n') == 0
  # Which of them overflows first depends on the engine.
  assert re.match(r'The (loss of task ctr is (nan|inf) at step \d\.|variable '
                  r'\S+ is not finite at step \d, which is not saved: training '
                  r'has diverged\.) Lower the learning rate, bind Model', text)
  path = tf.train.latest_checkpoint(str(tmp_path / 'run'))
  reader = tf.train.load_checkpoint(path)
  for name in reader.get_variable_to_shape_map():
    assert np.isfinite(reader.get_tensor(name)).all(), name


# Logits that start at 0 would leave the layers below them without gradients.
HUGE = ['Model.optimizer = @sgd', 'sgd.learning_rate = 1e30',
        "Tower.logit_initializer = 'glorot_uniform'",
        'run_config.save_steps = 1', 'EPOCHS = 9', 'Experiment.max_steps = 1']


@pytest.mark.slow
def test_a_checkpoint_of_huge_variables_is_not_gone_on_from(load, tmp_path):
  # They are finite, and so was the loss: only the evaluation sees it.
  with pytest.raises(errors.UserError) as caught:
    load(*HUGE).train()
  assert re.match(
      r'The predictions of task ctr are not finite in the evaluation at step 1 '
      r'.* This checkpoint is now in \S*run/damaged; the same command goes on '
      r'from that of step 0\.$', str(caught.value))
  path = str(tmp_path / 'run')
  assert tf.train.latest_checkpoint(path) == path + '/model.ckpt-0'
  kept, = glob.glob(path + '/damaged/model.ckpt-1/*.index')
  assert tf.train.load_checkpoint(kept[:-len('.index')]).get_tensor(
      'global_step') == 1
  load(*HUGE + ['sgd.learning_rate = 0.1', 'Experiment.max_steps = 2']).train()
  assert experiments.metrics_of(path)['global_step'] == 2


def test_the_only_checkpoint_stays_though_its_variables_are_huge(
    load, tmp_path):
  with pytest.raises(errors.UserError) as caught:
    load('run_config.keep_checkpoint_max = 1', *HUGE).train()
  assert str(caught.value).endswith('; or choose an earlier checkpoint.')
  path = str(tmp_path / 'run')
  assert tf.train.latest_checkpoint(path) == path + '/model.ckpt-1'


def test_a_run_without_a_batch_is_an_error(load):
  with pytest.raises(errors.UserError, match='No step was trained: Experiment.'
                     'train_input has no batch of 50 rows. Name files'):
    load('BATCH_SIZE = 50', 'train/CsvInput.drop_remainder = True').train()


def test_a_task_that_no_row_counts_for_is_named(load, caplog):
  load("cvr/Task.sample_space = ('clk', 7)").train()
  assert ('No row of the last 3 steps counted for task cvr: no row with a '
          "weight above 0 is in its sample space, ('clk', 7)") in caplog.text
  assert 'Evaluation at step 3: no row counts for task cvr' in caplog.text
  assert 'for task ctr' not in caplog.text


def predicted(made, checkpoint):
  written = made.predict(checkpoint)
  return parquet.read_table(written.path)['ctr'].to_numpy()


def test_the_best_checkpoint_is_kept_and_can_be_chosen(load, tmp_path):
  bindings = ['EPOCHS = 9', 'run_config.save_steps = 6',
              'run_config.keep_checkpoint_max = 1']
  load('Experiment.max_steps = 6', 'LEARNING_RATE = 0.01', *bindings).train()
  good = predicted(load(), 'last')
  load('Experiment.max_steps = 12', 'LEARNING_RATE = 30.0', *bindings).train()
  path = str(tmp_path / 'run')
  assert glob.glob(path + '/*.index') == [path + '/model.ckpt-12.index']
  made = load()
  np.testing.assert_allclose(predicted(made, 'best'), good, rtol=1e-5)
  assert abs(predicted(made, 'last') - good).max() > 0.01
  np.testing.assert_allclose(
      predicted(made, path + '/best/model.ckpt-6'), good, rtol=1e-5)
  with open(path + '/evaluations.json') as f:
    before = f.read()
  said = json.loads(before)
  assert said['kept']['global_step'] == 6
  assert said['ended']['global_step'] == 12
  metrics = made.evaluate('best')
  assert metrics['global_step'] == 6
  assert metrics['loss'] == pytest.approx(said['kept']['loss'], rel=1e-5)
  with open(path + '/evaluations.json') as f:
    assert f.read() == before
  assert glob.glob(path + '/eval_evaluate/*')
  assert os.path.exists(made.export('best'))
  with pytest.raises(errors.UserError, match="checkpoint must be 'last'"):
    made.predict(path + '/model.ckpt-6')
  # The model of what is trained next is held against the last again.
  made.train()


@pytest.mark.slow
def test_early_stopping_is_said_again_by_the_next_run(load, caplog, tmp_path):
  caplog.set_level('INFO')
  bindings = ['EPOCHS = 99', 'run_config.save_steps = 2',
              'PLE.batch_norm = False', 'Tower.batch_norm = False',
              'Model.optimizer = @sgd', 'sgd.learning_rate = 1e-30',
              'Experiment.early_stopping = @EarlyStopping()',
              "EarlyStopping.metric = 'loss'"]
  load('EarlyStopping.patience_steps = 2', *bindings).train()
  with open(str(tmp_path / 'run' / 'evaluations.json')) as f:
    said = json.load(f)
  step = said['ended']['global_step']
  assert step == 4 and len(said['evaluations']) == 2
  assert 'early stopping, loss has not improved' in said['ended']['reason']
  assert 'Training ended at step %d: early stopping, loss' % step in caplog.text
  caplog.clear()
  load('EarlyStopping.patience_steps = 2', *bindings).train()
  assert 'Training stopped early at step %d: loss has' % step in caplog.text
  assert 'raise EarlyStopping.patience_steps or bind' in caplog.text
  load('EarlyStopping.patience_steps = 2000',
       'Experiment.max_steps = %d' % (step + 2), *bindings).train()
  with open(str(tmp_path / 'run' / 'evaluations.json')) as f:
    assert json.load(f)['ended']['global_step'] == step + 2


def test_checkpoint_is_not_for_training(run_cli):
  done = run_cli('--gin_file=gin/base.gin', '--checkpoint=best')
  assert done.returncode == 1
  assert '--checkpoint is for the modes' in done.stderr


@pytest.mark.slow
def test_the_best_checkpoint_of_a_growing_table_restores(taobao, tmp_path):
  def load(*bindings):
    return experiments.experiment_of(
        'ev', tmp_path, taobao, 'PLE.num_levels = 1',
        'Experiment.early_stopping = None', 'Experiment.max_steps = 29',
        *(experiments.FEW_COLUMNS + list(bindings)))
  load('LEARNING_RATE = 0.01').train()
  load('Experiment.max_steps = 37', 'LEARNING_RATE = 9.0').train()
  with open(str(tmp_path / 'evaluations.json')) as f:
    step = json.load(f)['kept']['global_step']
  assert step in (20, 29)
  best = predicted(load(), 'best')
  assert np.isfinite(best).all()
  path = str(tmp_path / 'best' / ('model.ckpt-%d' % step))
  np.testing.assert_array_equal(predicted(load(), path), best)
  assert abs(predicted(load(), 'last') - best).max() > 0.01
  assert os.path.exists(load().export('best'))
