"""Whole runs that average weights, and what is read of their checkpoints."""

import logging
import shutil

from experiments import COUNTER
from experiments import FEW_COLUMNS
from experiments import FEW_NAMES
from experiments import broken_off
from experiments import load as load_experiment
from experiments import served
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.training import incremental

AVERAGING = ['Model.averaging = @Averaging()', 'Averaging.decay = 0.9']
CASES = {'base': [], 'ev': COUNTER, 'adaptive': []}


def load(case, model_dir, taobao, *bindings):
  return load_experiment(
      'gin/%s.gin' % case, model_dir, taobao, 'Experiment.exports = None',
      'run_config.save_steps = 10',
      *(FEW_COLUMNS + CASES[case] + list(bindings)))


@pytest.fixture(scope='module')
def trained(taobao, tmp_path_factory):
  """The model_dir of a case, trained once for 20 steps."""
  found = {}

  def of(case):
    if case not in found:
      found[case] = tmp_path_factory.mktemp(case)
      load(case, found[case], taobao, 'Experiment.max_steps = 20',
           *AVERAGING).train()
    return found[case]

  return of


def tensors_of(path):
  reader = tf.train.load_checkpoint(str(path))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


def by_hand(model_dir, folder):
  """Writes a checkpoint whose weights are the averages; returns its path."""
  found = tensors_of(model_dir / 'model.ckpt-20')
  for name in [n for n in found if '/average' in n and '_step' not in n]:
    raw = name.replace('/average-values', '-values').replace('/average', '')
    assert found[raw].shape == found[name].shape
    found[raw] = found.pop(name)
  found = {k: v for k, v in found.items() if 'averag' not in k}
  path = str(folder / 'model.ckpt-20')
  incremental.write(path, found)
  return path


def evaluated(case, model_dir, taobao, *bindings, checkpoint='last'):
  found = load(case, model_dir, taobao, *bindings).evaluate(checkpoint)
  return {k: v for k, v in found.items() if 'gate' not in k}


@pytest.mark.parametrize('case', [
    'ev', pytest.param('base', marks=pytest.mark.slow),
    pytest.param('adaptive', marks=pytest.mark.slow)])
def test_evaluation_is_that_of_the_averages(trained, taobao, tmp_path, case):
  model_dir = trained(case)
  with_averages = evaluated(case, model_dir, taobao, *AVERAGING)
  path = by_hand(model_dir, tmp_path)
  other = tmp_path / 'other'
  other.mkdir()
  assert evaluated(case, other, taobao, checkpoint=path) == pytest.approx(
      with_averages, rel=1e-5)
  raw = evaluated(case, model_dir, taobao)
  assert raw['loss'] != pytest.approx(with_averages['loss'], rel=1e-3)
  # Training has evaluated the averages too.
  seen = (model_dir / 'evaluations.json').read_text()
  assert repr(with_averages['ctr/log_loss'])[:7] in seen
  assert repr(raw['ctr/log_loss'])[:7] not in seen


@pytest.mark.slow
@pytest.mark.parametrize('case', ['ev', 'base'])
def test_a_saved_model_answers_as_predict(trained, taobao, tmp_path, case):
  model_dir = trained(case)
  made = load(case, model_dir, taobao, *AVERAGING)
  made.predict()
  wanted = pa.parquet.read_table(str(model_dir / 'predictions.parquet'))
  made.export()
  for answer in served(model_dir, taobao, tmp_path, FEW_NAMES):
    for task in ('ctr', 'cvr'):
      np.testing.assert_allclose(
          answer[task], wanted[task].to_numpy(), rtol=1e-4)
  load(case, model_dir, taobao).predict()
  raw = pa.parquet.read_table(str(model_dir / 'predictions.parquet'))
  assert np.abs(raw['ctr'].to_numpy() - wanted['ctr'].to_numpy()).max() > 1e-3


def test_weights_and_averages_may_change_places(trained, taobao, tmp_path,
                                                caplog):
  caplog.set_level(logging.INFO)
  model_dir = tmp_path / 'run'
  shutil.copytree(str(trained('ev')), str(model_dir))
  before = tensors_of(model_dir / 'model.ckpt-20')

  def go_on(steps, *bindings):
    load('ev', model_dir, taobao, 'Experiment.max_steps = %d' % steps,
         'Experiment.eval_input = None', 'Experiment.early_stopping = None',
         *bindings).train()
    return tensors_of(model_dir / ('model.ckpt-%d' % steps))

  # Without: the weights go on, and the averages are dropped.
  without = go_on(30)
  assert not [name for name in without if 'averag' in name]
  assert 'averaged weights of %s are not kept' % model_dir in caplog.text
  # Keys that are not used for five steps are evicted on the way.
  names = ['dim_16_mean/embedding-' + name for name in ('keys', 'values')]
  kept = np.isin(without[names[0]], before[names[0]])
  assert kept.sum() > 10
  assert without[names[1]].shape[1] == before[names[1]].shape[1]
  with pytest.raises(errors.UserError, match='%s has no averaged weights, '
                     'because it was trained without Model.averaging. Bind '
                     'Model.averaging = None to read' % model_dir):
    load('ev', model_dir, taobao, *AVERAGING).evaluate()
  # With: averaging begins at the step of the checkpoint.
  after = go_on(31, *AVERAGING)
  assert after['averaging/start'] == 30
  name = 'level_0/shared/expert_0/dense_0/kernel'
  np.testing.assert_array_equal(after[name + '/average'], after[name])
  np.testing.assert_array_equal(
      after['dim_16_mean/embedding/average-values'],
      after['dim_16_mean/embedding-values'])
  assert 'The weights are averaged from step 30 on' in caplog.text
  assert not list(model_dir.glob('averages-*'))


@pytest.mark.slow
@pytest.mark.parametrize('gin_file, bindings', [
    ('ev', COUNTER[:2]), ('base', [])])
def test_deltas_add_up_to_the_averages_of_a_full_checkpoint(
    taobao, tmp_path, gin_file, bindings):
  run = tmp_path / 'run'
  broken_off(gin_file, run, taobao, *(FEW_COLUMNS + bindings + AVERAGING))
  merged = tensors_of(incremental.merged(str(run / 'model.ckpt-20')))
  wanted = tensors_of(run / 'full' / 'ckpt-30')
  assert sorted(merged) == sorted(wanted) and wanted['global_step'] == 30
  for name, value in wanted.items():
    np.testing.assert_allclose(
        merged[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
