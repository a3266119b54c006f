"""Ranking metrics against scikit-learn, loops and hand-computed numbers."""

import math

import numpy as np
import pytest

from ple_estimator.metrics import ranking

sklearn_metrics = pytest.importorskip('sklearn.metrics')


def _rows(seed, num=400, ties=False):
  random = np.random.RandomState(seed)
  labels = (random.rand(num) < 0.3).astype(np.float64)
  scores = random.rand(num) + 0.4 * labels
  if ties:
    scores = np.round(scores * 8) / 8
  return labels, scores, random.randint(0, 40, num), random.rand(num) + 0.1


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('weighted', [False, True])
def test_areas_are_scikit_learns(ties, weighted):
  labels, scores, _, weights = _rows(1, ties=ties)
  weights = weights if weighted else None
  assert ranking.auc(labels, scores, weights) == pytest.approx(
      sklearn_metrics.roc_auc_score(labels, scores, sample_weight=weights),
      abs=1e-12)
  assert ranking.pr_auc(labels, scores, weights) == pytest.approx(
      sklearn_metrics.average_precision_score(
          labels, scores, sample_weight=weights), abs=1e-12)


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('weighted', [False, True])
def test_gauc_is_the_weighted_mean_of_the_users(ties, weighted):
  labels, scores, users, weights = _rows(2, ties=ties)
  weights = weights if weighted else np.ones_like(labels)
  total, count = 0, 0
  for user in np.unique(users):
    of = users == user
    if 0 < labels[of].sum() < of.sum():
      total += weights[of].sum() * sklearn_metrics.roc_auc_score(
          labels[of], scores[of], sample_weight=weights[of])
      count += weights[of].sum()
  names = np.asarray(['user %d' % user for user in users])
  assert ranking.gauc(labels, scores, names, weights) == pytest.approx(
      total / count, abs=1e-12)


def test_gauc_leaves_out_users_of_one_class():
  # User 0 orders its two rows right; user 1 has positives only.
  assert ranking.gauc([0, 1, 1, 1], [.1, .2, .3, .9], [0, 0, 1, 1]) == 1
  assert math.isnan(ranking.gauc([1, 1], [.1, .2], [0, 1]))


def test_recall_and_lift_of_a_share():
  # The highest half holds 2 of the 3 positives.
  labels, scores = [1, 1, 0, 1, 0, 0, 0, 0], [8, 7, 6, 3, 5, 2, 1, 0]
  assert ranking.recall_at(labels, scores, 0.5) == pytest.approx(2 / 3)
  assert ranking.lift_at(labels, scores, 0.5) == pytest.approx(
      (2 / 4) / (3 / 8))


def test_of_ties_at_the_edge_a_part_is_taken():
  # Of four rows of one score, two are taken: half of each.
  assert ranking.recall_at([1, 0, 1, 0], [1, 1, 1, 1], 0.5) == 0.5
  assert ranking.lift_at([1, 0, 1, 0], [1, 1, 1, 1], 0.5) == 1


def test_recall_and_lift_per_user():
  users = [0, 0, 0, 1, 1, 2]
  labels = [1, 1, 0, 0, 1, 0]
  scores = [.9, .1, .5, .8, .2, .7]
  # One row of each: user 0 finds 1 of 2, user 1 none of 1; user 2 has none.
  # Users count by their rows: (1/2 * 3 + 0 * 2) / 5.
  assert ranking.recall_at(labels, scores, 1, users) == pytest.approx(0.3)
  assert ranking.lift_at(labels, scores, 1, users) == pytest.approx(
      (1 / 3) / (3 / 6))


@pytest.mark.parametrize('k', [1, 3, 5])
@pytest.mark.parametrize('ties', [False, True])
def test_recall_per_user_is_that_of_a_loop(k, ties):
  labels, scores, users, _ = _rows(3, ties=ties)
  total = []
  for user in np.unique(users):
    of = np.flatnonzero(users == user)
    if labels[of].sum():
      # The mean over random orders of the ties.
      random = np.random.RandomState(0)
      hits = []
      for _ in range(400 if ties else 1):
        order = np.lexsort([random.rand(len(of)), -scores[of]])
        hits.append(labels[of][order][:k].sum())
      total.append([np.mean(hits) / labels[of].sum(), len(of)])
  total = np.asarray(total)
  assert ranking.recall_at(labels, scores, k, users) == pytest.approx(
      np.average(total[:, 0], weights=total[:, 1]), abs=0.01 if ties else 1e-12)


@pytest.mark.parametrize('metric', [
    ranking.auc, ranking.pr_auc,
    lambda labels, scores: ranking.gauc(labels, scores, [0] * len(labels)),
    lambda labels, scores: ranking.recall_at(labels, scores, 0.5),
    lambda labels, scores: ranking.lift_at(labels, scores, 1, [0, 0])])
def test_a_score_that_is_nan_is_not_hidden(metric):
  assert math.isnan(metric([0, 1], [math.nan, 0.5]))


@pytest.mark.parametrize('k', [0.5, 2])
def test_without_rows(k):
  assert math.isnan(ranking.recall_at([], [], k, []))
  assert math.isnan(ranking.lift_at([], [], k, []))
  assert math.isnan(ranking.gauc([], [], []))


@pytest.mark.parametrize('labels', [[], [0, 0], [1, 1]])
def test_one_class_has_no_auc(labels):
  assert math.isnan(ranking.auc(labels, [0.5] * len(labels)))
