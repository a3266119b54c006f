"""How well scores order rows: AUC, PR-AUC, GAUC, lift and recall.

In this module `labels` is [rows], 0 or 1; `scores` [rows], higher where a
positive is likelier; `weights` [rows], not negative, or None for 1 each. All
are converted to float64. A metric that is not defined, for example because all
labels are alike, is NaN.
"""

import math

import numpy as np


def auc(labels, scores, weights=None):
  """The area under the ROC curve; rows of one score count as ties.

  Args:
    labels: [rows], 0 or 1.
    scores: [rows].
    weights: [rows] or None.

  Returns:
    float, NaN if either class is absent or a score is NaN.
  """
  return Ordered(labels, scores).auc(weights)


def pr_auc(labels, scores, weights=None):
  """The area under the precision-recall curve as average precision.

  The sum over all thresholds of (recall there - recall before) times the
  precision there, without interpolation (Davis and Goadrich, ICML 2006), as
  sklearn.metrics.average_precision_score. A model that knows nothing has the
  rate of positives.

  Args:
    labels: [rows], 0 or 1.
    scores: [rows].
    weights: [rows] or None.

  Returns:
    float, NaN without a positive or if a score is NaN.
  """
  return Ordered(labels, scores).pr_auc(weights)


class Ordered:
  """Rows in the order of their scores, so that metrics need no more sorting.

  A bootstrap asks for the same metric with many weights of the same rows.
  """

  def __init__(self, labels, scores):
    """Sorts the rows.

    Args:
      labels: [rows], 0 or 1.
      scores: [rows].
    """
    scores = np.asarray(scores, np.float64)
    self._valid = not np.isnan(scores).any()
    self._order = np.argsort(-scores, kind='mergesort')
    ordered = scores[self._order]
    self._labels = np.asarray(labels, np.float64)[self._order]
    # The first row of each run of equal scores.
    self._starts = np.flatnonzero(
        np.concatenate([[True], ordered[1:] != ordered[:-1]])
    ) if scores.size else np.zeros([0], np.int64)

  def mass(self, weights=None):
    """Weights of positives and negatives per score, highest score first.

    Args:
      weights: [rows] in the order that the rows were given, or None.

    Returns:
      two [scores] float64.
    """
    if not self._labels.size:
      return np.zeros([0]), np.zeros([0])
    weights = (np.ones_like(self._labels) if weights is None else
               np.asarray(weights, np.float64)[self._order])
    positives = weights * self._labels
    return (np.add.reduceat(positives, self._starts),
            np.add.reduceat(weights - positives, self._starts))

  def auc(self, weights=None):
    """See `auc`; weights as in `mass`."""
    positives, negatives = self.mass(weights)
    pairs = positives.sum() * negatives.sum()
    if not self._valid or not pairs > 0:
      return math.nan
    below = negatives.sum() - np.cumsum(negatives)
    return float((positives * (below + 0.5 * negatives)).sum() / pairs)

  def pr_auc(self, weights=None):
    """See `pr_auc`; weights as in `mass`."""
    positives, negatives = self.mass(weights)
    if not self._valid or not positives.sum() > 0:
      return math.nan
    hits = np.cumsum(positives)
    taken = hits + np.cumsum(negatives)
    precision = np.divide(hits, taken, out=np.zeros_like(hits),
                          where=taken > 0)
    return float((positives * precision).sum() / hits[-1])


def gauc(labels, scores, groups, weights=None):
  """The mean of the AUC of each user, weighted by the user's impressions.

  Zhu et al., Optimized Cost per Click in Taobao Display Advertising, KDD 2017,
  section 4.1. A user whose rows are all positive or all negative has no AUC and
  does not count.

  Args:
    labels: [rows], 0 or 1.
    scores: [rows].
    groups: [rows] of any type that sorts, the user of each row.
    weights: [rows] or None; a user counts by the sum of the weights.

  Returns:
    float, NaN if no user has both classes or a score is NaN.
  """
  total, count = 0.0, 0.0
  if np.isnan(np.asarray(scores, np.float64)).any():
    return math.nan
  for value, size in _of_users(labels, scores, groups, weights):
    total += value * size
    count += size
  return total / count if count else math.nan


def _of_users(labels, scores, groups, weights):
  """Yields (AUC, sum of weights) of each user that has both classes.

  One sort for all users: the wins of a positive are the negatives of its user
  with a lower score, and half of those with the same.
  """
  labels, scores, weights, users = _sorted_by_user(
      labels, scores, groups, weights)
  if not labels.size:
    return
  new_user = np.concatenate([[True], users[1:] != users[:-1]])
  new_tie = new_user | np.concatenate([[True], scores[1:] != scores[:-1]])
  positives, negatives = weights * labels, weights * (1 - labels)
  ties = np.cumsum(new_tie) - 1
  tied = np.bincount(ties, negatives)
  at = np.flatnonzero(new_user)
  before_user = (np.cumsum(negatives) - negatives)[at][np.cumsum(new_user) - 1]
  before_tie = (np.cumsum(negatives) - negatives)[
      np.flatnonzero(new_tie)][ties]
  wins = np.add.reduceat(
      positives * (before_tie - before_user + 0.5 * tied[ties]), at)
  pairs = np.add.reduceat(positives, at) * np.add.reduceat(negatives, at)
  sizes = np.add.reduceat(weights, at)
  for i in np.flatnonzero(pairs > 0):
    yield wins[i] / pairs[i], sizes[i]


def _sorted_by_user(labels, scores, groups, weights, highest_first=False):
  """Rows by user and score: labels, scores, weights, numbers of users."""
  users = np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
  scores = np.asarray(scores, np.float64)
  order = np.lexsort([-scores if highest_first else scores, users])
  labels = np.asarray(labels, np.float64)[order]
  weights = np.ones_like(labels) if weights is None else np.asarray(
      weights, np.float64)[order]
  return labels, scores[order], weights, users[order]


def recall_at(labels, scores, k, groups=None, weights=None):
  """The share of the positives among the rows of the highest scores.

  Args:
    labels: [rows], 0 or 1.
    scores: [rows].
    k: float below 1, the share of all rows (by weight) that is taken; or int
      from 1, the number of rows that is taken of each user, and the recall is
      the mean over the users that have a positive, each counted by the sum of
      the weights of its rows as in `gauc`.
    groups: [rows], the user of each row; needed for an int k.
    weights: [rows] or None.

  Returns:
    float, NaN without a positive or if a score is NaN. Of rows with one score
    at the edge a part is taken, as the mean over all their orders.
  """
  if not len(scores) or np.isnan(np.asarray(scores, np.float64)).any():
    return math.nan
  if k < 1:
    taken, positives, _ = _at_share(labels, scores, k, weights)
    return taken / positives if positives > 0 else math.nan
  hits, positives, _, _, sizes = _at_rows(labels, scores, k, groups, weights)
  have = positives > 0
  return float((hits[have] / positives[have] * sizes[have]).sum() /
               sizes[have].sum()) if have.any() else math.nan


def lift_at(labels, scores, k, groups=None, weights=None):
  """How many times the overall rate of positives the highest scores have.

  Args:
    labels: [rows], 0 or 1.
    scores: [rows].
    k: as in `recall_at`; of an int k the rate is that of the k rows of each
      user, all users together.
    groups: as in `recall_at`.
    weights: [rows] or None.

  Returns:
    float, NaN without a positive or if a score is NaN; 1 of a model that knows
    nothing.
  """
  if not len(scores) or np.isnan(np.asarray(scores, np.float64)).any():
    return math.nan
  if k < 1:
    taken, positives, _ = _at_share(labels, scores, k, weights)
    return taken / positives / k if positives > 0 else math.nan
  hits, positives, chosen, rows, _ = _at_rows(
      labels, scores, k, groups, weights)
  if not positives.sum() > 0:
    return math.nan
  return float(hits.sum() / chosen.sum() / (positives.sum() / rows.sum()))


def _at_share(labels, scores, share, weights):
  """Weights of the positives taken, of all positives, and of all rows."""
  positives, negatives = Ordered(labels, scores).mass(weights)
  both = positives + negatives
  total = both.sum()
  before = np.cumsum(both) - both
  part = np.clip(np.divide(share * total - before, both,
                           out=np.zeros_like(both), where=both > 0), 0, 1)
  return float((positives * part).sum()), float(positives.sum()), total


def _at_rows(labels, scores, k, groups, weights):
  """Per user: positives among k rows, positives, k rows, rows, and weight.

  All are sums of weights; of rows with one score a part is taken.
  """
  labels, scores, weights, users = _sorted_by_user(
      labels, scores, groups, weights, highest_first=True)
  new_user = np.concatenate([[True], users[1:] != users[:-1]])
  new_tie = new_user | np.concatenate([[True], scores[1:] != scores[:-1]])
  ties = np.cumsum(new_tie) - 1
  first = np.flatnonzero(new_tie)
  in_user = np.arange(len(users)) - np.flatnonzero(new_user)[
      np.cumsum(new_user) - 1]
  part = np.clip((k - in_user[first]) / np.bincount(ties), 0, 1)[ties]
  sums = [np.bincount(users, values) for values in (
      weights * labels * part, weights * labels, weights * part, weights)]
  return sums + [sums[3]]
