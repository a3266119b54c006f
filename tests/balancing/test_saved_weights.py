"""Whole runs that balance losses: what a checkpoint has, and going on."""

from experiments import FEW_COLUMNS
from experiments import load as load_experiment
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.engine import forms


def load(name, model_dir, taobao, steps, *bindings):
  return load_experiment(
      'gin/%s.gin' % name, model_dir, taobao, 'PLE.num_levels = 1',
      'Experiment.exports = None', 'Experiment.early_stopping = None',
      'Experiment.eval_input = None', 'train/ParquetInput.shuffle_rows = 0',
      'Experiment.max_steps = %d' % steps, *bindings)


def state(model_dir, step):
  """The variables of the balancing in a checkpoint, by name."""
  reader = tf.train.load_checkpoint('%s/model.ckpt-%d' % (model_dir, step))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()
          if name.startswith('balancing/')}


@pytest.mark.slow
@pytest.mark.parametrize('name, bindings, variables', [
    ('grad_norm', [], ['first_loss', 'weight']),
    ('dynamic_weight_average', ['DynamicWeightAverage.window_steps = 2'],
     ['loss_sums']),
])
def test_a_run_that_is_broken_off_goes_on_with_its_weights(
    taobao, tmp_path, name, bindings, variables):
  for folder, ends in (('a', [7]), ('b', [4, 7])):
    for end in ends:
      load(name, tmp_path / folder, taobao, end,
           *(FEW_COLUMNS + bindings)).train()
  whole, resumed = [state(tmp_path / folder, 7) for folder in 'ab']
  assert sorted(whole) == [
      'balancing/%s/%s' % (task, variable)
      for task in ('ctr', 'cvr') for variable in variables]
  for key in whole:
    np.testing.assert_allclose(
        resumed[key], whole[key], rtol=1e-3, atol=1e-4, err_msg=key)


@pytest.mark.slow
def test_a_checkpoint_is_read_without_balancing_and_trained_with_its_own(
    taobao, tmp_path):
  def made(name, steps, *bindings):
    return load(name, tmp_path, taobao, steps, 'UncertaintyWeights.scale = 1.0'
                if name == 'uncertainty_weights' else 'PLE.l2 = 0.0',
                'Model.averaging = @Averaging()', *bindings)
  made('uncertainty_weights', 2).train()
  names = sorted(state(tmp_path, 2))
  assert names[0] == 'balancing/ctr/log_variance'
  assert 'balancing/cvr/log_variance/average' in names
  evaluated = 'Experiment.eval_input = @eval/ParquetInput()'
  both = [made(name, 2, evaluated).evaluate()
          for name in ('uncertainty_weights', 'base')]
  assert both[0]['loss'] == pytest.approx(both[1]['loss'], rel=1e-6)
  for other, word in [
      ('base', 'has balancing/ctr/log_variance'),
      ('grad_norm', 'lacks balancing/ctr/first_loss')]:
    with pytest.raises(errors.UserError, match=word):
      made(other, 3).train()
  with pytest.raises(errors.UserError, match=(
      'UncertaintyWeights.scale = 1.0, now 2.0')):
    load('uncertainty_weights', tmp_path, taobao, 3,
         'Model.averaging = @Averaging()',
         'UncertaintyWeights.scale = 2.0').train()


def test_deeprecs_sums_over_slices_are_refused(taobao, tmp_path, monkeypatch):
  """A balancing has to see the whole batch."""
  monkeypatch.setattr(forms.Engine, 'has', lambda self, form: True)
  with pytest.raises(errors.UserError, match=(
      "Engine.forms must not have 'micro_batch' with Model.balancing")):
    load('pcgrad', tmp_path, taobao, 2, "Engine.forms = ['micro_batch']")


def test_grad_norm_tells_that_nothing_is_shared(taobao, tmp_path):
  with pytest.raises(errors.UserError, match='@GradNorm.*bind another'):
    load('grad_norm', tmp_path, taobao, 2, 'PLE.num_shared_experts = 0',
         'PLE.num_task_experts = 1',
         'Model.interactions = [@Wide(), @FwFM()]').train()
