"""Means over tasks, and which evaluation is better by them."""

import json
import math

import pytest

from ple_estimator import errors
from ple_estimator.network import tasks
from ple_estimator.network import towers
from ple_estimator.training import comparison
from ple_estimator.training import evaluations

TASKS = [tasks.Task('ctr', 'clk', towers.Tower()),
         tasks.Task('cvr', 'buy', towers.Tower()),
         tasks.Task('minutes', 'minutes', towers.Tower(), 'regression')]
BOTH = ('ctr/auc', 'cvr/auc')


def of(step, ctr, cvr, rmse=1.0):
  return {'global_step': step, 'loss': 0.5, 'ctr/auc': ctr, 'cvr/auc': cvr,
          'ctr/log_loss': 0.1, 'minutes/rmse': rmse, 'minutes/label/mean': 9}


def test_a_mean_is_that_of_its_tasks():
  found = of(1, 0.5, 0.75)
  assert comparison.value_of(found, 'mean/auc') == 0.625
  assert comparison.value_of(found, BOTH) == 0.625
  assert comparison.value_of(found, ('ctr/auc',)) == 0.5
  assert comparison.value_of(found, 'mean/rmse') == 1.0
  assert comparison.value_of(found, 'loss') == 0.5
  assert math.isnan(comparison.value_of(found, 'mean/mae'))
  assert math.isnan(comparison.value_of(None, 'mean/auc'))


def test_a_task_that_is_called_mean_keeps_its_name():
  found = dict(of(1, 0.5, 0.75), **{'mean/auc': 0.9})
  assert comparison.value_of(found, 'mean/auc') == 0.9


@pytest.mark.parametrize('metric', ['mean/auc', BOTH])
def test_one_that_is_no_number_makes_the_mean_none(metric):
  for value in (None, math.nan):
    found = of(1, 0.5, value)
    assert math.isnan(comparison.value_of(found, metric))
    assert not comparison.is_better(metric, found, than=of(0, 0.1, 0.1))
    assert comparison.is_better(metric, of(0, 0.1, 0.1), than=found)


def test_means_grow_or_fall_as_their_metrics_do():
  better, worse = of(1, 0.5, 0.9, 1.0), of(2, 0.6, 0.7, 2.0)
  for metric in ('mean/auc', BOTH, 'mean/rmse', ('minutes/rmse', 'loss')):
    assert comparison.is_better(metric, better, than=worse)
    assert not comparison.is_better(metric, worse, than=better)
    assert not comparison.is_better(metric, better, than=better)


@pytest.mark.parametrize('metric', [
    'loss', 'ctr/auc', 'mean/auc', 'mean/mae', BOTH, ('ctr/accuracy',),
    ('loss', 'ctr/log_loss', 'minutes/rmse')])
def test_accepts(metric):
  comparison.check_form('A.metric', metric)
  comparison.check('A.metric', comparison.stored(metric), TASKS)


@pytest.mark.parametrize('metric, message', [
    ('auc', "got 'auc'"), ('mean', "got 'mean'"), ('mean/', "got 'mean/'"),
    ('mean/loss', "got 'mean/loss'"), ('ctr/rmse', "got 'ctr/rmse'"),
    ('mean/recall', "a mean of these, such as 'mean/auc', got 'mean/recall'"),
    (('ctr/auc', 'mean/auc'), "got 'mean/auc'"),
    (('ctr/auc', 'minutes/rmse'), r'must not mix .*grow \(ctr/auc\) with '
     r'others that improve when they fall \(minutes/rmse\)'),
    ([], r'A.metric must be a list of metrics, .*got \[\]'),
    (['ctr/auc', 3], 'A.metric must be a list of metrics'),
    (3, 'A.metric must be a text'),
])
def test_refuses_in_one_line(metric, message):
  with pytest.raises(errors.UserError, match=message) as caught:
    comparison.check_form('A.metric', metric)
    comparison.check('A.metric', comparison.stored(metric), TASKS)
  assert '\n' not in str(caught.value)


def test_a_mean_of_regressions_needs_one():
  with pytest.raises(errors.UserError, match='A.metric must be'):
    comparison.check('A.metric', 'mean/rmse', TASKS[:2])


def test_evaluations_name_the_best_mean(tmp_path):
  made = evaluations.Evaluations(str(tmp_path), ['mean/auc', BOTH])
  for step, ctr, cvr in [(10, 0.5, 0.9), (20, 0.6, 0.75), (30, 0.55, math.nan)]:
    made.read()
    made.add(of(step, ctr, cvr))
    made.write()
  with open(str(tmp_path / 'evaluations.json')) as f:
    best = json.load(f)['best']
  assert best['mean/auc'] == best['mean(ctr/auc, cvr/auc)'] == {
      'global_step': 10, 'value': pytest.approx(0.7)}
  assert best['ctr/auc'] == {'global_step': 20, 'value': 0.6}
  assert set(best) == {
      'loss', 'ctr/auc', 'cvr/auc', 'ctr/log_loss', 'minutes/rmse', 'mean/auc',
      'mean(ctr/auc, cvr/auc)'}
