"""Whole runs on real files: train, resume, evaluate, predict, export."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys

import conftest
from experiments import FEW_COLUMNS
from experiments import SMALL
from experiments import SMALL_TABLES
from experiments import TWO_LEVELS
from experiments import exact_auc
from experiments import load
from experiments import metrics_of
from experiments import served
import gin
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment
from ple_estimator import files


def eval_steps_of(model_dir):
  """The global steps of the evaluations in the event files."""
  return sorted({
      event.step
      for path in glob.glob(str(model_dir) + '/eval/*.tfevents.*')
      for event in tf.train.summary_iterator(path)
      for value in event.summary.value if value.tag == 'ctr/auc'})


@pytest.fixture(scope='module')
def trained(taobao, tmp_path_factory):
  """A model_dir after 40 steps; evaluated at 20 and 40."""
  path = tmp_path_factory.mktemp('trained')
  with tf.Graph().as_default():
    load('gin/base.gin', path, taobao, *TWO_LEVELS, 'Experiment.max_steps = 40',
         'run_config.save_steps = 10', 'Experiment.eval_steps = 20',
         'Experiment.timeline_steps = 15', 'LEARNING_RATE = 0.01').train()
  gin.clear_config()
  return path


def test_training_leaves_what_the_readme_says(trained):
  names = set(os.listdir(str(trained)))
  assert {'checkpoint', 'metrics.json', 'operative_config-0.gin', 'eval',
          'model.ckpt-40.index', 'model.ckpt-10.index', 'export'} <= names
  assert any(name.startswith('timeline-') for name in names)
  for kind in ('best', 'latest'):
    assert glob.glob(str(trained / 'export' / kind / '*/saved_model.pb'))
  assert eval_steps_of(trained) == [20, 40]


def test_curves_of_training_are_in_the_event_files(trained):
  events = [event for path in glob.glob(str(trained / '*.tfevents.*'))
            for event in tf.train.summary_iterator(path)]
  assert any(b'level_1/ctr/expert_0/dense_0/kernel' in event.graph_def
             for event in events)
  tags = {value.tag for event in events for value in event.summary.value}
  assert {'loss', 'ctr/log_loss', 'cvr/log_loss', 'learning_rate',
          'gradient_norm', 'global_step/sec'} | set(GATES) <= tags


GATES = [
    'gates/level_0 (rows: ctr, cvr, shared; columns: ctr/expert_0, '
    'ctr/expert_1, cvr/expert_0, cvr/expert_1, shared/expert_0)/image',
    'gates/level_1 (rows: ctr, cvr; columns: ctr/expert_0, ctr/expert_1, '
    'cvr/expert_0, cvr/expert_1, shared/expert_0)/image']


def test_curves_of_evaluations_have_the_names_of_those_of_training(trained):
  events = [event for path in glob.glob(str(trained / 'eval/*.tfevents.*'))
            for event in tf.train.summary_iterator(path)]
  by_step = {event.step: {v.tag: v for v in event.summary.value}
             for event in events if event.summary.value}
  assert sorted(by_step) == [20, 40]
  found = by_step[40]
  assert {'loss', 'ctr/log_loss', 'ctr/auc', 'cvr/calibration'} <= set(found)
  assert found['ctr/auc'].simple_value == pytest.approx(
      metrics_of(trained)['ctr/auc'])
  assert [name for name in found if name.startswith('gate')] == GATES
  image = found[GATES[1]].image
  assert (image.height, image.width) == (2 * 32, 5 * 32)


@pytest.mark.slow
@pytest.mark.skipif(tf.__version__.startswith('1.'),
                    reason='TensorFlow 1 is refused, see compat.use_xla')
def test_xla_trains_the_same(taobao, tmp_path):
  # In processes: whether XLA compiles for a processor is settled once in each.
  for xla in (False, True):
    bindings = SMALL + [
        'Experiment.model_dir = %r' % str(tmp_path / str(xla)),
        'DATA_DIR = %r' % taobao, 'run_config.xla = %r' % xla,
        'Experiment.max_steps = 5', SMALL_TABLES,
        'PLE.num_levels = 1', 'PLE.num_task_experts = 0',  # XLA takes minutes
        'train/ParquetInput.shuffle_rows = 0', 'Experiment.exports = None']
    subprocess.run(
        [sys.executable, '-m', 'ple_estimator.run', '--gin_file=gin/base.gin'] +
        ['--gin_bindings=' + line for line in bindings],
        check=True, cwd=conftest.ROOT)
  without, found = metrics_of(tmp_path / 'False'), metrics_of(tmp_path / 'True')
  # XLA draws other numbers to start from.
  assert found['loss'] == pytest.approx(without['loss'], rel=0.2)


def predicted(model_dir, taobao, *bindings):
  load('gin/base.gin', model_dir, taobao, *TWO_LEVELS, *bindings).predict()
  return pa.parquet.read_table(str(model_dir / 'predictions.parquet'))


def test_metrics_are_those_of_the_predictions(trained, taobao):
  load('gin/base.gin', trained, taobao, *TWO_LEVELS).evaluate()
  found = metrics_of(trained)
  table = predicted(trained, taobao)
  rows = pa.parquet.read_table(taobao + '/taobao_validation_data.parquet')
  assert found['global_step'] == 40
  for task, label in [('ctr', 'clk'), ('cvr', 'buy')]:
    p, y = table[task].to_numpy(), rows[label].to_numpy()
    assert found[task + '/auc'] == pytest.approx(
        exact_auc(p, y, np.ones(len(y))), abs=1e-3)
    assert found[task + '/log_loss'] == pytest.approx(
        -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)), rel=1e-4)
    assert found[task + '/calibration'] == pytest.approx(
        p.mean() / y.mean(), rel=1e-4)
  gates = {k: v for k, v in found.items() if k.startswith('gate/level_0/ctr/')}
  assert len(gates) == 3 and sum(gates.values()) == pytest.approx(1, rel=1e-4)


@pytest.mark.slow
def test_the_test_rows_decide_nothing(trained, taobao, tmp_path):
  path = tmp_path / 'run'
  shutil.copytree(str(trained), str(path))
  before = {name: (path / name).read_text()
            for name in ('metrics.json', 'evaluations.json')}
  made = load('gin/base.gin', path, taobao, *TWO_LEVELS)
  told = made.test()
  assert {name: (path / name).read_text() for name in before} == before
  with open(str(path / 'test.json')) as f:
    assert json.load(f) == told
  assert glob.glob(str(path / 'eval_test' / '*.tfevents.*'))
  kept = json.loads(before['evaluations.json'])['kept']
  assert told['global_step'] == kept['global_step']
  # Predicted apart, with the checkpoint that was chosen by default.
  made = load('gin/base.gin', path, taobao, *TWO_LEVELS,
              'Experiment.predict_input = @test/ParquetInput()')
  p = pa.parquet.read_table(made.predict('best').path)['ctr'].to_numpy()
  rows = pa.parquet.read_table(taobao + '/taobao_test_data.parquet')
  assert told['ctr/auc'] == pytest.approx(
      exact_auc(p, rows['clk'].to_numpy(), np.ones(len(p))), abs=1e-3)
  assert made.test('last')['global_step'] == 40
  shutil.rmtree(str(path / 'best'))
  made = load('gin/base.gin', path, taobao, *TWO_LEVELS)
  assert made.test()['global_step'] == 40


def test_a_run_without_test_rows_says_so(trained, taobao):
  with pytest.raises(errors.UserError, match='Experiment.test_input must be '
                     'given to test, got None'):
    load('gin/base.gin', trained, taobao, *TWO_LEVELS,
         'Experiment.test_input = None').test()


def test_missing_validation_rows_are_told_with_the_way_out(taobao, tmp_path):
  for name in ('train', 'test'):
    os.symlink('%s/taobao_%s_data.parquet' % (taobao, name),
               str(tmp_path / ('taobao_%s_data.parquet' % name)))
  with pytest.raises(errors.UserError) as caught:
    load('gin/base.gin', tmp_path / 'run', tmp_path).train()
  said = str(caught.value)
  assert "must name existing files, got 'taobao_validation_data.parquet'" in (
      said)
  assert 'tools/make_data.py' in said and '--validation' in said
  assert '\n' not in said


def test_a_row_is_predicted_alike_in_any_batch(trained, taobao):
  # Batch norm in evaluation mode; the model zoo leaves it in training mode.
  whole = predicted(trained, taobao, 'BATCH_SIZE = 1000')
  parts = predicted(trained, taobao, 'BATCH_SIZE = 7')
  np.testing.assert_allclose(
      whole['ctr'].to_numpy(), parts['ctr'].to_numpy(), rtol=1e-4)


def test_predictions_carry_columns_along(trained, taobao):
  bindings = [
      "Experiment.predict_columns = ('user_id', 'final_gender_code', 'price')",
      "Experiment.predict_input = @CsvInput()",
      "CsvInput.files = '%s/taobao_test_data'" % taobao]
  table = predicted(trained, taobao, *bindings)
  rows = pa.parquet.read_table(taobao + '/taobao_test_data.parquet')
  assert table.column_names == [
      'user_id', 'final_gender_code', 'price', 'ctr', 'cvr']
  for name in table.column_names[:3]:
    assert table[name].to_pylist() == rows[name].to_pylist()
  load('gin/base.gin', trained, taobao, *TWO_LEVELS,
       "Experiment.predictions_path = 'p.csv'", *bindings).predict()
  text = pa.csv.read_csv(str(trained / 'p.csv'))
  np.testing.assert_allclose(
      text['cvr'].to_numpy(), table['cvr'].to_numpy(), rtol=1e-5)




def test_served_model_answers_as_predict(trained, taobao, tmp_path):
  wanted = predicted(trained, taobao)
  load('gin/base.gin', trained, taobao, *TWO_LEVELS).export()
  for answer in served(trained, taobao, tmp_path, apart=True):
    for task in ('ctr', 'cvr'):
      np.testing.assert_allclose(
          answer[task], wanted[task].to_numpy(), rtol=1e-4)


def test_bfloat16_evaluates_within_three_thousandths(trained, taobao):
  load('gin/base.gin', trained, taobao, *TWO_LEVELS).evaluate()
  exact = metrics_of(trained)
  load('gin/bf16.gin', trained, taobao, *TWO_LEVELS).evaluate()
  rounded = metrics_of(trained)
  # (60 positive rows of cvr are too few to tell three thousandths.)
  assert rounded['ctr/auc'] == pytest.approx(exact['ctr/auc'], abs=0.003)
  assert rounded['ctr/log_loss'] != exact['ctr/log_loss']


@pytest.mark.slow
def test_training_continues_and_refuses_another_model(taobao, tmp_path):
  def train(*bindings):
    load('gin/cgc.gin', tmp_path, taobao, 'Experiment.exports = None',
         'PLE.num_task_experts = 1', *bindings).train()
  train('Experiment.max_steps = 3')
  train('Experiment.max_steps = 5')
  assert metrics_of(tmp_path)['global_step'] == 5
  os.remove(str(tmp_path / 'metrics.json'))
  train('Experiment.max_steps = 5')  # nothing left to train
  assert metrics_of(tmp_path)['global_step'] == 5
  with pytest.raises(errors.UserError) as caught:
    train('Experiment.max_steps = 9', 'PLE.num_levels = 2',
          'PLE.expert_units = (9,)')
  text = str(caught.value)
  assert 'holds another model: it lacks level_0/shared/gate/mix/kernel' in text
  assert 'has level_0/ctr/expert_0/dense_0/bias of shape [8], not [9]' in text
  assert 'it was trained with PLE.num_levels = 1, now 2' in text
  assert 'PLE.expert_units = (8,), now (9,)' in text
  for binding, word in [
      ('PLE.num_task_experts = 0', 'has level_0/ctr/expert_0/dense_0/bias, '),
      ("PLE.activation = 'tanh'", "PLE.activation = 'relu', now 'tanh'"),
      ("cvr/Task.label = 'clk'", "cvr/Task.label = 'buy', now 'clk'"),
      ('Model.optimizer = @sgd', 'Model.optimizer = @lazy_adam, now @sgd'),
      ('HashEmbedding.emb_fusion = False', 'dim_16_mean/embedding')]:
    with pytest.raises(errors.UserError) as caught:
      train('Experiment.max_steps = 9', binding)
    assert 'holds another model' in str(caught.value)
    assert word in str(caught.value)
  # Neither of them makes another model.
  train('Experiment.max_steps = 6', 'PLE.dropout = 0.1',
        'Model.op_fusion = False')
  assert metrics_of(tmp_path)['global_step'] == 6


def test_another_composition_of_like_tables_is_another_model(taobao, tmp_path):
  def train(*bindings):
    load('gin/multi_hash.gin', tmp_path, taobao, 'Experiment.exports = None',
         'PLE.num_levels = 1', *bindings).train()
  train('Experiment.max_steps = 1', "MultiHashEmbedding.operation = 'add'")
  with pytest.raises(errors.UserError) as caught:
    train('Experiment.max_steps = 2', "MultiHashEmbedding.operation = 'mul'")
  assert "MultiHashEmbedding.operation = 'add', now 'mul'" in str(
      caught.value)


@pytest.mark.slow
def test_interactions_that_read_a_table_otherwise_are_another_model(
    taobao, tmp_path):
  def made(*bindings):
    return load('gin/shared_bottom.gin', tmp_path, taobao,
                'Model.interactions = [@Wide(), @FwFM()]', *bindings)
  made('Experiment.exports = None', 'Experiment.max_steps = 1').train()
  for binding, word in [
      ('Wide.scale = 5.0', 'Wide.scale = 3.0, now 5.0'),
      ('FwFM.weight_scale = 5.0', 'FwFM.weight_scale = 10.0, now 5.0'),
      ('Model.interactions = [@FwFM(), @Wide()]', 'Model.interactions = ['),
      ('Tower.bias_scale = 1.0', 'Tower.bias_scale = 32.0, now 1.0')]:
    with pytest.raises(errors.UserError) as caught:
      made(binding).evaluate()
    assert 'holds another model' in str(caught.value)
    assert word in str(caught.value)
  made('Wide.l2 = 0.1').evaluate()  # is no other model


@pytest.mark.parametrize('name', ['adagrad_decay'] + [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ('adam_async', 'adagrad', 'adamw', 'ftrl', 'sgd')])
def test_every_optimizer_evaluates_and_continues(taobao, tmp_path, name):
  bindings = ['gin/%s.gin' % name, tmp_path, taobao, 'PLE.num_levels = 1',
              'Experiment.exports = None'] + FEW_COLUMNS
  load(*bindings + ['Experiment.max_steps = 2']).train()
  load(*bindings + ['Experiment.max_steps = 3']).train()
  load(*bindings).predict()
  assert metrics_of(tmp_path)['global_step'] == 3


def test_max_steps_come_from_rows_epochs_and_batch_size(taobao, tmp_path):
  load('gin/shared_bottom.gin', tmp_path, taobao, 'BATCH_SIZE = 700',
       'EPOCHS = 2', 'Experiment.exports = None', 'PLE.num_levels = 1').train()
  assert metrics_of(tmp_path)['global_step'] == 9  # 6000 / 700


def test_the_only_evaluation_is_the_best(taobao, tmp_path):
  load('gin/shared_bottom.gin', tmp_path, taobao, 'Experiment.max_steps = 2',
       'PLE.num_levels = 1').train()
  assert glob.glob(str(tmp_path / 'export' / 'best' / '*' / 'saved_model.pb'))


def test_training_without_evaluation(taobao, tmp_path):
  load('gin/shared_bottom.gin', tmp_path, taobao, 'Experiment.max_steps = 2',
       'PLE.num_levels = 1', 'Experiment.exports = None',
       'Experiment.early_stopping = None', 'Experiment.eval_input = None'
       ).train()
  names = os.listdir(str(tmp_path))
  assert 'model.ckpt-2.index' in names and 'metrics.json' not in names


def test_early_stopping_ends_training(taobao, tmp_path):
  load('gin/shared_bottom.gin', tmp_path, taobao, 'PLE.num_levels = 1',
       'Model.optimizer = @sgd', 'sgd.learning_rate = 1e-12',
       'PLE.batch_norm = False', 'Tower.batch_norm = False',
       'Experiment.exports = None', 'EarlyStopping.patience_steps = 10',
       "EarlyStopping.metric = 'ctr/log_loss'", 'Experiment.max_steps = 500',
       'run_config.save_steps = 5').train()
  assert 10 <= metrics_of(tmp_path)['global_step'] <= 30


def evaluated(model_dir):
  with open(str(model_dir / 'evaluations.json')) as f:
    return [of['global_step'] for of in json.load(f)['evaluations']]


@pytest.mark.slow
def test_evaluations_come_by_epochs_whatever_is_saved(taobao, tmp_path):
  # 3,000 rows in batches of 700: an epoch is 4.29 steps.
  train = ['gin/shared_bottom.gin', tmp_path, taobao, 'BATCH_SIZE = 700',
           'Experiment.exports = None', 'PLE.num_levels = 1',
           'Experiment.eval_steps = None', 'run_config.keep_checkpoint_max = 0',
           'EarlyStopping.patience_epochs = 9']
  load(*train, 'EPOCHS = 3', 'run_config.save_steps = 4',
       'Experiment.max_steps = 6').train()
  assert evaluated(tmp_path) == [5, 6]  # the last one always
  load(*train, 'EPOCHS = 3', 'run_config.save_steps = 4').train()
  assert evaluated(tmp_path) == [5, 6, 9, 13]
  assert {5, 6, 9, 13} <= set(files.checkpoint_steps(str(tmp_path)))
  # Another batch size: 8 steps of 375 rows; all end with the last row.
  load(*train, 'EPOCHS = 5', 'BATCH_SIZE = 375').train()
  assert evaluated(tmp_path) == [5, 6, 9, 13, 21, 29]


def test_patience_in_epochs_is_told_in_both(taobao, tmp_path, caplog):
  caplog.set_level('INFO')
  load('gin/shared_bottom.gin', tmp_path, taobao, 'PLE.num_levels = 1',
       'BATCH_SIZE = 700', 'Experiment.eval_steps = None',
       'Experiment.eval_epochs = 0.5',
       'Model.optimizer = @sgd', 'sgd.learning_rate = 1e-12',
       'PLE.batch_norm = False', 'Tower.batch_norm = False',
       'Experiment.exports = None', 'EarlyStopping.patience_epochs = 1.5',
       "EarlyStopping.metric = ('ctr/log_loss', 'cvr/log_loss')",
       'EPOCHS = 50').train()
  # 4.29 steps in an epoch: due at 2.14, 4.29, 6.43, 8.57; patience 6.43.
  assert evaluated(tmp_path) == [3, 5, 7, 9]
  assert 'The best mean(ctr/log_loss, cvr/log_loss) is 0.' in caplog.text
  assert ('Training stops unless it improves within 2 steps (0.467 epochs).'
          ) in caplog.text
  assert ('has not improved since step 3 (EarlyStopping.patience_epochs = 1.5, '
          '6 steps)') in caplog.text


def other_data():
  """The example of gin/README.md, which is to work as it stands."""
  with open(os.path.join(conftest.ROOT, 'gin', 'README.md')) as f:
    return re.search(r'```\n(.*?)```', f.read(), re.S).group(1)


@pytest.mark.slow
def test_another_data_set_needs_a_gin_file_only(tmp_path, run_here):
  rng = np.random.RandomState(1)
  (tmp_path / 'other.gin').write_text(other_data())
  for part in range(2):
    rows = ['weekday\tunused\tlike\tshare\tminutes\tpropensity\tviews\t'
            'temperature\ttopics']
    for _ in range(800):
      temperature, day = rng.normal(20, 5), rng.randint(7)
      topics = rng.choice(list('abcdef'), rng.randint(4))
      rows.append('%d\t?\t%d\t%d\t%.3f\t%s\t%s\t%.2f\t%s' % (
          day, temperature > 20, 'a' in topics, 0.3 * temperature + day,
          rng.choice(['', '0.5', '2']), rng.choice(['', '3', '100000']),
          temperature, ';'.join(topics)))
    (tmp_path / ('part-%d.tsv' % part)).write_text('\n'.join(rows) + '\n')
  args = ['--gin_file=other.gin']
  for binding in SMALL + ["DATA_DIR = '.'", 'EPOCHS = 20',
                          'LEARNING_RATE = 0.02',
                          'Experiment.exports = None']:
    args.append('--gin_bindings=' + binding)
  done = run_here(*args, cwd=str(tmp_path))
  assert done.returncode == 0, done.stderr
  found = metrics_of(tmp_path / 'result' / 'other')
  assert found['global_step'] == 320
  assert found['like/auc'] > 0.95 and found['share/auc'] > 0.8
  assert found['minutes/rmse'] < 1.5  # the label's deviation is 2.5
  done = run_here(
      '--mode=predict', "--gin_bindings=Experiment.predict_columns = "
      "('views', 'topics')", *args)
  assert done.returncode == 0, done.stderr
  table = pa.parquet.read_table(
      str(tmp_path / 'result' / 'other' / 'predictions.parquet'))
  assert table.num_rows == 800 and table.column_names == [
      'views', 'topics', 'like', 'share', 'minutes']


@pytest.mark.parametrize('binding, message', [
    ('Experiment.max_steps = -1', 'Experiment.max_steps must be an integer'),
    ('Experiment.eval_secs = None', 'Experiment.eval_secs must be an integer'),
    ('Experiment.eval_steps = -1000', 'Experiment.eval_steps must be an int'),
    ('Experiment.eval_epochs = 0', 'Experiment.eval_epochs must be a finite '
     'number above 0 or None, got 0'),
    ('Experiment.eval_input = None', 'Experiment.eval_input must be given'),
    ("EarlyStopping.metric = 'clk/auc'",
     r"EarlyStopping.metric must be 'loss' or a task \(ctr, cvr\) and a metric"
     " of it, such as 'ctr/auc', or a mean of these, such as 'mean/auc', got "
     "'clk/auc'"),
    ("EarlyStopping.metric = 'mean/rmse'", "EarlyStopping.metric must be .*"
     "got 'mean/rmse'"),
    ("EarlyStopping.metric = ('ctr/auc', 'cvr/log_loss')",
     'EarlyStopping.metric must not mix metrics that improve when they grow '
     r'\(ctr/auc\) with others that improve when they fall \(cvr/log_loss\)'),
    ("Exports.best_metric = ['ctr/auc', 'clk/auc']", "got 'clk/auc'"),
    ("Exports.best_metric = 'ctr/rmse'", 'Exports.best_metric must be'),
    ('Exports.best_to_keep = -1', 'Exports.best_to_keep must be an integer'),
    ("Experiment.predict_columns = ('user',)",
     r"Experiment.predict_columns must be columns .*got 'user'"),
    ("Experiment.predictions_path = 'x.json'", 'must end in .parquet or .csv'),
    ('EarlyStopping.patience_steps = 0', 'patience_steps must be an integer'),
])
def test_refuses(binding, message):
  config.load('gin/base.gin', [binding])
  with pytest.raises(ValueError, match=message):
    experiment.Experiment()


def test_refuses_steps_and_epochs_at_once():
  for name, first, second in [
      ('Experiment', 'eval_steps', 'eval_epochs'),
      ('EarlyStopping', 'patience_steps', 'patience_epochs')]:
    gin.clear_config()
    config.load('gin/base.gin', [
        '%s.%s = 9' % (name, first), '%s.%s = 1.5' % (name, second)])
    with pytest.raises(errors.UserError, match='%s.%s and %s.%s must not both '
                       'be given, got 9 and 1.5' % (name, first, name, second)):
      experiment.Experiment()


@pytest.mark.parametrize('mode', ['evaluate', 'test', 'predict', 'export'])
def test_nothing_to_use_before_training(taobao, tmp_path, mode):
  made = load('gin/base.gin', tmp_path / 'x', taobao, *TWO_LEVELS)
  with pytest.raises(errors.UserError, match='must hold a checkpoint: nothing'):
    getattr(made, mode)()
