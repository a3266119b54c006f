"""Epochs in global steps, and the steps at which something is due."""

import fractions

import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.training import hooks
from ple_estimator.training import intervals


def due(interval, last_step):
  """The steps at which an interval is due, one step after the other."""
  found, last = [], 0
  for step in range(1, last_step + 1):
    if interval.is_due(last, step):
      found.append(step)
      last = step
  return found


@pytest.mark.parametrize('rows, batch, every, wanted', [
    (100, 10, 1, [10, 20, 30]),
    (100, 30, 1, [4, 7, 10, 14, 17, 20, 24, 27, 30]),  # 3.33 each
    (100, 10, 0.5, [5, 10, 15, 20, 25, 30]),
    (100, 10, 1.1, [11, 22]),
    (100, 10, 3, [30]),
    (3, 512, 1, list(range(1, 31))),  # less than a step
])
def test_is_due_at_the_first_step_behind_each_epoch(rows, batch, every, wanted):
  assert due(intervals.epochs(rows, batch).interval(every), 30) == wanted


def test_a_tenth_of_an_epoch_is_exact():
  # In binary, 3 * 0.1 is more than 0.3.
  epochs = intervals.epochs(1000, 10)
  assert due(epochs.interval(0.1), 30) == [10, 20, 30]
  assert epochs.steps_in(0.3) == 30


def test_counts_from_the_start_of_an_epoch():
  assert due(intervals.epochs(100, 10, 3).interval(1), 30) == [3, 13, 23]
  # As when the batch size has changed: 700 rows were 7 steps, and are 70.
  assert due(intervals.epochs(100, 10, fractions.Fraction(-127, 2)
                              ).interval(1), 30) == [7, 17, 27]


def test_steps_that_are_skipped_are_due_once():
  interval = intervals.epochs(100, 10).interval(1)
  assert interval.is_due(8, 35) and not interval.is_due(35, 39)
  assert not interval.is_due(35, 12)  # back at an older checkpoint


@pytest.mark.parametrize('rows, batch, epochs', [
    (rows, 7, epochs) for rows in (20, 21, 30, 3) for epochs in (1, 2, 2.5)])
def test_patience_ends_with_an_evaluation(rows, batch, epochs):
  """What is best at one evaluation ends that many epochs later, not more."""
  made = intervals.epochs(rows, batch)
  steps = due(made.interval(0.5), 60)
  wait = int(epochs / 0.5)
  for best, end in zip(steps, steps[wait:]):
    assert best + made.steps_in(epochs) <= end


def test_the_end_of_the_epochs():
  assert intervals.epochs(100, 30).end(3) == 10
  assert intervals.epochs(100, 30).end(2) == 7


def test_steps_are_told_in_epochs():
  epochs = intervals.epochs(200000, 512)
  assert epochs.describe(781) == '781 steps (2 epochs)'
  assert epochs.describe(1) == '1 step (0.00256 epochs)'
  assert intervals.epochs(10, 10).describe(1) == '1 step (1 epoch)'


class Saver:
  """Notes what a hook saves."""

  def __init__(self):
    self.saved = []
    self.saver_def = None

  def save(self, session, path, global_step=None, **kwargs):
    self.saved.append(int(global_step))


class Listener(tf.train.CheckpointSaverListener):

  def __init__(self):
    self.called = []

  def after_save(self, session, global_step_value):
    self.called.append(int(global_step_value))


@pytest.mark.parametrize('interval, saved, called', [
    (None, [0, 10, 20, 23], [0, 10, 20, 23]),
    (intervals.Interval(20, 0), [0, 10, 20, 23], [0, 20]),
    (intervals.Interval(7, 0), [0, 7, 14, 21, 23], [0, 7, 14, 21]),
    (intervals.Interval(15, 0), [0, 10, 15, 23], [0, 15]),
])
def test_an_evaluation_that_is_due_causes_a_checkpoint(
    tmp_path, interval, saved, called):
  saver, listener = Saver(), Listener()
  step = tf.train.create_global_step()
  advance = tf.assign_add(step, 1)
  hook = hooks.CheckpointHook(str(tmp_path), saver, 10, interval, [listener])
  with tf.train.MonitoredSession(hooks=[hook]) as session:
    for _ in range(23):
      session.run(advance)
  assert saver.saved == saved and listener.called == called
