"""Intervals and tests of runs, against the package's own one-by-one forms."""

import math

import made_runs
import numpy as np
import pytest

from ple_estimator import errors
from ple_estimator.commands.report import comparisons
from ple_estimator.commands.report import facts as facts_lib
from ple_estimator.commands.report import quality
from ple_estimator.commands.report import resampling
from ple_estimator.metrics import intervals
from ple_estimator.metrics import paired
from ple_estimator.metrics import probabilities
from ple_estimator.metrics import ranking

_ROUNDS = 60


def _two(tmp_path, **kwargs):
  return [made_runs.make(tmp_path, 'good', 0.2, 1, **kwargs),
          made_runs.make(tmp_path, 'bad', 1.5, 2, levels=3, **kwargs)]


def test_intervals_are_those_of_the_bootstrap(tmp_path):
  facts = facts_lib.gather(_two(tmp_path), rounds=_ROUNDS)
  rows = facts.runs[1].rows.tasks['ctr']
  draws = intervals.Draws(len(rows.labels), rounds=_ROUNDS)
  for name, metric in (('auc', ranking.auc), ('pr_auc', ranking.pr_auc),
                       ('log_loss', probabilities.log_loss),
                       ('calibration', probabilities.calibration)):
    expected = intervals.bootstrap(
        lambda weights, of=metric: of(rows.labels, rows.predictions, weights),
        draws)
    np.testing.assert_allclose(facts_lib.interval(
        facts, facts.runs[1], 'ctr', name), expected, rtol=1e-9)


def test_pairs_are_tested_on_the_same_rows(tmp_path):
  facts = facts_lib.gather(_two(tmp_path), rounds=_ROUNDS)
  by_name = {(test.task, test.measure): test for test in facts.tests}
  assert set(by_name) == {(task, name) for task in ('ctr', 'cvr')
                          for name in ('auc', 'log_loss')}
  good, bad = [run.rows.tasks['cvr'] for run in facts.runs]
  auc = by_name['cvr', 'auc']
  assert (auc.a, auc.b, auc.method) == ('good', 'bad', 'DeLong')
  assert auc.difference == paired.delong(
      good.labels, good.predictions, bad.predictions)
  loss = by_name['cvr', 'log_loss']
  expected = paired.bootstrap(
      lambda w: probabilities.log_loss(good.labels, good.predictions, w),
      lambda w: probabilities.log_loss(bad.labels, bad.predictions, w),
      intervals.Draws(len(good.labels), rounds=_ROUNDS))
  np.testing.assert_allclose(loss.difference[:3], expected[:3], rtol=1e-9)
  assert loss.difference.p <= expected.p
  assert [test.p for test in facts.tests] == paired.holm(
      [test.difference.p for test in facts.tests])
  assert comparisons.verdict(auc) == 'worse'
  assert comparisons.verdict(loss) == 'worse'


def test_users_are_drawn_where_they_are_known(tmp_path):
  facts = facts_lib.gather(_two(tmp_path, user=True), rounds=_ROUNDS)
  assert {test.method for test in facts.tests} == {'bootstrap of users'}
  rows = facts.runs[0].rows
  expected = intervals.bootstrap(
      lambda w: ranking.auc(rows.tasks['ctr'].labels,
                            rows.tasks['ctr'].predictions, w),
      intervals.Draws(rows.kept, rows.user, _ROUNDS))
  np.testing.assert_allclose(facts_lib.interval(
      facts, facts.runs[0], 'ctr', 'auc'), expected, rtol=1e-9)


def test_other_rows_are_not_compared_and_said_to_be_others(tmp_path):
  paths = _two(tmp_path) + [made_runs.make(tmp_path, 'other', num=1500)]
  facts = facts_lib.gather(paths, rounds=_ROUNDS)
  assert {(test.a, test.b) for test in facts.tests} == {('good', 'bad')}
  assert facts.measured.unpaired == [
      (task, [['good', 'bad'], ['other']]) for task in ('ctr', 'cvr')]


def test_many_runs_are_compared_with_the_baseline(tmp_path):
  paths = [made_runs.make(tmp_path, 'run%d' % i, 0.2 + i / 10, i, num=300)
           for i in range(6)]
  facts = facts_lib.gather(paths, paths[2], rounds=20)
  assert {test.a for test in facts.tests} == {'run2'}
  assert len(facts.tests) == 5 * 2 * 2
  with pytest.raises(errors.UserError, match="--baseline must be one of the"):
    facts_lib.gather(paths, 'nope')


def test_groups_of_seeds_are_compared_by_their_means(tmp_path):
  stats = pytest.importorskip('scipy.stats')
  paths = [made_runs.make(tmp_path, '%s-%d' % (name, seed), noise, seed, levels)
           for name, noise, levels in (('a', 0.2, 2), ('b', 0.9, 3))
           for seed in (1, 2, 3)]
  facts = facts_lib.gather(paths, rounds=20)
  test = next(test for test in facts.seed_tests
              if (test.task, test.measure) == ('ctr', 'auc'))
  values = [[facts_lib.value(facts, run, 'ctr', 'auc') for run in group.runs]
            for group in facts.groups]
  assert test.difference.p == pytest.approx(
      stats.ttest_ind(*values, equal_var=False).pvalue)
  assert (test.a, test.b) == ('a (3 seeds)', 'b (3 seeds)')


def _test(low, high, p, measure='auc'):
  return comparisons.Test('ctr', measure, 'a', 'b', paired.Difference(
      (low + high) / 2, low, high, p), '', p)


def test_a_verdict_needs_the_interval_and_the_adjusted_p():
  assert comparisons.verdict(_test(0.1, 0.2, 0.01)) == 'better'
  assert comparisons.verdict(_test(0.1, 0.2, 0.01, 'log_loss')) == 'worse'
  assert comparisons.verdict(_test(-0.2, -0.1, 0.01)) == 'worse'
  for test in (_test(-0.1, 0.2, 0.01), _test(0.1, 0.2, 0.2),
               _test(0.1, 0.2, math.nan), _test(math.nan, math.nan, 0.01)):
    assert comparisons.verdict(test).startswith('not told apart')


def test_p_goes_below_what_draws_can_tell():
  draws = np.random.RandomState(0).normal(5, 1, 100)
  a = resampling.Sample(0.0, np.zeros(100))
  found = resampling.difference(a, resampling.Sample(5.0, draws))
  assert found.p < 1e-5
  assert resampling.difference(
      a, resampling.Sample(1.0, draws - 4)).p > 2 / 101


def test_metrics_by_slice_are_those_of_its_rows(tmp_path):
  facts = facts_lib.gather(_two(tmp_path), rounds=20)
  found = quality.slice_metrics(facts, 'age', 'ctr', 'auc')
  assert [(value, count) for value, count, _ in found] == [
      ('0', 667), ('1', 667), ('2', 666)]
  rows = facts.runs[1].rows.tasks['ctr']
  at = np.arange(2000) % 3 == 2
  assert found[2][2]['bad'].value == pytest.approx(
      ranking.auc(rows.labels[at], rows.predictions[at]))


def test_weights_leave_rows_out_of_delong(tmp_path):
  truth, labels = made_runs.labels_of(500)
  weights = (np.arange(500) % 2).astype('f')
  paths = []
  for name, noise in (('a', 0.2), ('b', 1.0)):
    paths.append(made_runs.make(tmp_path, name, rows=False))
    made_runs.write_rows(tmp_path / name / 'eval_rows.parquet', {
        'ctr': (labels['ctr'], made_runs.predictions_of(truth, noise, 3),
                weights)})
  facts = facts_lib.gather(paths, rounds=20)
  at = weights > 0
  a, b = [run.rows.tasks['ctr'] for run in facts.runs]
  auc = next(test for test in facts.tests if test.measure == 'auc')
  assert auc.method == 'DeLong'
  assert auc.difference == paired.delong(
      a.labels[at], a.predictions[at], b.predictions[at])
