"""Training goes on where it left off, whatever the folder is called."""

import os

from experiments import load
import pytest

from ple_estimator import errors


def _train(run, taobao, steps):
  made = load('gin/base.gin', run, taobao, 'Experiment.exports = None',
              'Experiment.early_stopping = None',
              'Experiment.eval_input = None',
              'Experiment.max_steps = %d' % steps,
              'run_config.keep_checkpoint_max = 2')
  made.train()


@pytest.mark.slow
def test_a_folder_that_looks_like_a_pattern(taobao, tmp_path):
  run = tmp_path / 'run[1]'
  for steps in (2, 3, 3):
    _train(run, taobao, steps)
  names = os.listdir(str(run))
  # The hook writes it at the step that was restored.
  assert 'operative_config-2.gin' in names
  assert sorted(n for n in names if n.endswith('.index')) == [
      'model.ckpt-2.index', 'model.ckpt-3.index']  # older ones are removed
  data = run / 'model.ckpt-3.data-00000-of-00001'
  os.truncate(str(data), 1000)
  made = load('gin/base.gin', run, taobao)
  for act in (made.evaluate, made.predict, made.export):
    with pytest.raises(errors.UserError, match=r'run\[1\]/model.ckpt-3 is cut '
                       'or changed: .* goes on from step 2,'):
      act()
  _train(run, taobao, 3)
  assert data.stat().st_size > 1000


def test_a_cluster_refuses_such_a_folder(taobao, tmp_path, monkeypatch):
  monkeypatch.setenv('TF_CONFIG', (
      '{"cluster": {"chief": ["localhost:1"], "ps": ["localhost:2"]}, '
      '"task": {"type": "chief", "index": 0}}'))
  with pytest.raises(errors.UserError, match=r'Experiment.model_dir must not '
                     r'have one of \* \? \[ or a backslash in a cluster'):
    load('gin/base.gin', tmp_path / 'run[1]', taobao)
