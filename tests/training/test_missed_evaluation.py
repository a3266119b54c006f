"""A run that was killed between a checkpoint and its evaluation."""

import json

from experiments import load
import pytest


def evaluated(model_dir):
  found = json.loads((model_dir / 'evaluations.json').read_text())
  return [of['global_step'] for of in found['evaluations']]


@pytest.mark.slow
@pytest.mark.parametrize('step, expected', [
    (20, [10, 20, 25]),  # was due, and is made up for
    (15, [10, 20, 25])])  # is the end of a run; this run goes on
def test_an_evaluation_that_was_due_is_made_up_for(
    taobao, tmp_path, step, expected):
  def run(max_steps):
    load('gin/base.gin', tmp_path, taobao, 'Experiment.max_steps = %d' %
         max_steps, 'Experiment.eval_steps = 10', 'run_config.save_steps = 5',
         'Experiment.exports = None').train()

  run(step)
  path = tmp_path / 'evaluations.json'
  found = json.loads(path.read_text())
  assert found['evaluations'].pop()['global_step'] == step
  path.write_text(json.dumps(found))  # as it was before that evaluation
  run(25)
  assert evaluated(tmp_path) == expected
