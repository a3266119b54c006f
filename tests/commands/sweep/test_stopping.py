"""The median stopping rule, by numbers that are computed by hand."""

import math

import pytest

from ple_estimator import errors
from ple_estimator.commands.sweep import search
from ple_estimator.commands.sweep import stopping

NAN = float('nan')
# The means of the first one, two and three values:
#   0.2, 0.3, 0.4 | 0.5, 0.5, 0.5 | 0.9, 0.7, 0.6
# so their medians are 0.5, 0.5, 0.5; as of the last trial alone 0.9, 0.7, 0.6.
DONE = [[0.2, 0.4, 0.6], [0.5, 0.5, 0.5], [0.9, 0.5, 0.4]]


def ends(curve, done=DONE, metric='ctr/auc', **kwargs):
  kwargs.setdefault('least_trials', 1)
  history = [search.Past({}, 'done', of[-1], of, {}) for of in done]
  history.insert(0, search.Past({}, 'open', NAN, curve, {}))
  return stopping.MedianStopping(**kwargs).stops(0, None, history, metric)


@pytest.mark.parametrize('curve, expected', [
    ([0.49], True), ([0.5], False), ([0.51], False),
    ([0.3, 0.49], True),
    ([0.5, 0.1, 0.1], False),  # its best is what counts, 0.5
    ([0.49, 0.1, 0.1], True),
    ([NAN], True), ([NAN, 0.6], False)])
def test_the_best_so_far_against_the_median_of_means(curve, expected):
  assert ends(curve) is expected


def test_what_falls_is_compared_the_other_way():
  assert ends([0.51], metric='loss') and not ends([0.49], metric='loss')
  assert not ends([0.9, 0.49], metric='ctr/rmse')


def test_an_even_number_of_trials_has_a_median_between_two():
  # The means of the first values are 0.2 and 0.5: 0.35.
  assert ends([0.34], DONE[:2]) and not ends([0.36], DONE[:2])


def test_a_trial_that_ended_early_by_itself_counts_with_all_it_has():
  # The third evaluation: means 0.9 of one value and 0.5: 0.7.
  assert ends([0.1, 0.1, 0.69], [[0.9], [0.5, 0.5, 0.5]])
  assert not ends([0.1, 0.1, 0.71], [[0.9], [0.5, 0.5, 0.5]])


def test_a_trial_without_numbers_is_the_worst():
  # The first values are NaN, 0.4 and 0.6: the median is 0.4.
  done = [[NAN], [0.4], [0.6]]
  assert ends([0.39], done) and not ends([0.41], done)
  # As a loss the order is 0.4, 0.6, NaN: the median is 0.6.
  assert ends([0.61], done, 'loss') and not ends([0.59], done, 'loss')


def test_none_is_ended_before_there_is_something_to_compare_with():
  assert not ends([0.1], [])
  assert not ends([0.1], least_trials=4) and ends([0.1], least_trials=3)
  assert not ends([0.1], least_evaluations=2)
  assert ends([0.1, 0.1], least_evaluations=2)


def test_trials_that_were_ended_themselves_do_not_count():
  history = [search.Past({}, state, NAN, [0.9], {})
             for state in ('stopped', 'failed', 'open')]
  history.append(search.Past({}, 'open', NAN, [0.1], {}))
  assert not stopping.MedianStopping(1).stops(3, None, history, 'ctr/auc')


def test_the_best_of_values():
  assert stopping.best_of([0.2, NAN, 0.3, 0.1], 'ctr/auc') == 0.3
  assert stopping.best_of([0.2, NAN, 0.3, 0.1], 'loss') == 0.1
  assert math.isnan(stopping.best_of([NAN], 'loss'))


@pytest.mark.parametrize('name', ['least_trials', 'least_evaluations'])
def test_what_is_bound_is_checked(name):
  with pytest.raises(errors.UserError, match='MedianStopping.%s must' % name):
    stopping.MedianStopping(**{name: 0})
