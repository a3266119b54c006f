"""Curves against scikit-learn, and figures' data against numpy."""

import made_runs
import numpy as np
import pytest

from ple_estimator.commands.report import curves
from ple_estimator.commands.report import facts as facts_lib
from ple_estimator.commands.report import quality
from ple_estimator.commands.report import rows


def _task(num=3000, seed=0, weights=None):
  truth, labels = made_runs.labels_of(num, seed)
  predictions = made_runs.predictions_of(truth, 0.5, seed).astype('d')
  return rows.TaskRows('binary', labels['ctr'].astype('d'), predictions,
                       np.ones(num) if weights is None else weights, '')


def test_roc_is_that_of_scikit_learn():
  metrics = pytest.importorskip('sklearn.metrics')
  weights = np.random.RandomState(1).randint(0, 3, 3000).astype('d')
  task = _task(weights=weights)
  x, y = curves.roc(task)
  of_x, of_y, _ = metrics.roc_curve(
      task.labels, task.predictions, sample_weight=weights,
      drop_intermediate=False)
  assert len(x) <= curves.POINTS
  assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
  # Each point that is kept is one of the curve.
  distance = np.abs(x[:, None] - of_x) + np.abs(y[:, None] - of_y)
  assert distance.min(axis=1).max() < 1e-12
  assert abs(metrics.auc(x, y) - metrics.auc(of_x, of_y)) < 0.002


def test_precision_and_recall_are_those_of_scikit_learn():
  metrics = pytest.importorskip('sklearn.metrics')
  task = _task()
  x, y = curves.precision_recall(task)
  precision, recall, _ = metrics.precision_recall_curve(
      task.labels, task.predictions)
  distance = np.abs(x[:, None] - recall) + np.abs(y[:, None] - precision)
  assert distance.min(axis=1).max() < 1e-12
  assert x[-1] == 1 and len(x) <= curves.POINTS and (np.diff(x) > 0).all()
  assert x[0] * task.labels.sum() == pytest.approx(10)


def test_a_class_that_is_absent_has_no_curve():
  task = _task()._replace(labels=np.zeros(3000))
  assert len(curves.roc(task)[0]) == len(curves.precision_recall(task)[0]) == 0


def test_a_histogram_counts_what_lies_beyond_in_the_outer_bins():
  found = curves.histogram(np.array([-5, 0.1, 0.9, 7]), np.array([1, 2, 3, 2]),
                           np.linspace(0, 1, 3))
  np.testing.assert_allclose(found.shares, [3 / 8, 5 / 8])


def test_log_odds_are_finite():
  np.testing.assert_allclose(
      curves.log_odds(np.array([0, 0.5, 0.9, 1])),
      [-16.118095, 0, np.log(9), 16.118095], rtol=1e-6)


def _facts(tmp_path):
  return facts_lib.gather([made_runs.make(tmp_path, 'a', 0.2, 1),
                           made_runs.make(tmp_path, 'b', 1.0, 2, levels=3)],
                          rounds=20)


def test_the_figure_of_calibration_shows_the_bins(tmp_path):
  facts = _facts(tmp_path)
  figure = quality.section(facts).sections[0].figures[0]
  data = figure.views[0].spec['data']['values']
  for run in facts.runs:
    own = [of for of in data if of['name'] == run.name]
    task = run.rows.tasks['ctr']
    order = np.argsort(task.predictions, kind='mergesort')
    parts = np.array_split(order, 20)  # 100 rows each, no two alike
    np.testing.assert_allclose(
        [of['x'] for of in own],
        [task.predictions[part].mean() for part in parts], rtol=1e-4)
    np.testing.assert_allclose(
        [of['y'] for of in own],
        [task.labels[part].mean() for part in parts], rtol=1e-4)
    bars = [of['share'] for of in figure.views[1].spec['data']['values']
            if of['name'] == run.name]
    assert sum(bars) == pytest.approx(1, abs=1e-3)


def test_the_figure_of_scores_has_a_histogram_per_label(tmp_path):
  facts = _facts(tmp_path)
  figure = [of for of in quality.section(facts).sections[1].figures
            if of.name == 'scores-cvr'][0]
  assert [view.title for view in figure.views] == ['a', 'b']
  data = figure.views[1].spec['data']['values']
  task = facts.runs[1].rows.tasks['cvr']
  chosen = [of for of in data if of['of'] == 'label 1']
  scores = np.log(task.predictions / (1 - task.predictions))
  every = np.concatenate([np.log(of / (1 - of)) for of in (
      run.rows.tasks['cvr'].predictions for run in facts.runs)])
  counts, edges = np.histogram(
      scores[task.labels == 1], curves.BINS, (every.min(), every.max()))
  np.testing.assert_allclose([of['x'] for of in chosen], edges[:-1], atol=1e-3)
  np.testing.assert_allclose([of['share'] for of in chosen],
                             counts / counts.sum(), atol=2e-3)
