"""What is said when a training ends."""

import json

import pytest

from ple_estimator.network import tasks
from ple_estimator.network import towers
from ple_estimator.training import evaluations
from ple_estimator.training import summary


class Source:

  def __init__(self, *paths):
    self._paths = [str(path) for path in paths]

  def paths(self):
    return self._paths


TASKS = [tasks.Task('ctr', 'clk', towers.Tower()),
         tasks.Task('stay', 'secs', towers.Tower(), 'regression')]


@pytest.fixture
def evaluated(tmp_path):
  found = evaluations.Evaluations(str(tmp_path))
  for step, auc, rmse in [(10, .7, 3.0), (20, .8, 2.5), (30, .75, 2.75)]:
    found.add({'global_step': step, 'ctr/auc': auc, 'stay/rmse': rmse})
  return found


def _said(evaluated, source, has_test=True):
  return summary.text(evaluated, TASKS, source, 'result/x', has_test)


def test_the_table_of_generated_rows_has_the_ceiling(evaluated, tmp_path):
  (tmp_path / 'ceiling.json').write_text(json.dumps({
      'clk': {'auc': .99, 'validation': {'auc': .9}}}))
  said = _said(evaluated, Source(tmp_path / 'taobao_validation_data'))
  assert said.splitlines() == [
      '  metric       last    best  at step  ceiling',
      '  ctr/auc    0.7500  0.8000       20   0.9000',
      '  stay/rmse  2.7500  2.5000       20        -',
      'Next: the same command with --mode=test measures the best checkpoint on '
      'the test rows; ple-estimator report result/x; tensorboard '
      '--logdir=result/x']


def test_own_rows_have_no_ceiling(evaluated, tmp_path):
  said = _said(evaluated, Source(tmp_path / 'a', tmp_path / 'b'), False)
  assert said.splitlines()[0] == '  metric       last    best  at step'
  assert said.splitlines()[-1].startswith('Next: ple-estimator report')


def test_without_an_evaluation_nothing_is_said(tmp_path):
  assert _said(evaluations.Evaluations(str(tmp_path)), Source('a')) == ''


@pytest.mark.parametrize('text', ['[1]', '{"clk": 3}', '{"clk": {}}', '{'])
def test_another_ceiling_json_is_no_ceiling(evaluated, tmp_path, text):
  (tmp_path / 'ceiling.json').write_text(text)
  said = _said(evaluated, Source(tmp_path / 'taobao_validation_data'))
  assert 'ceiling' not in said
