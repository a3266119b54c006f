"""Session hooks: progress, and checkpoints with evaluation."""

import resource
import shutil
import sys

from absl import logging
import tensorflow.compat.v1 as tf

from ple_estimator.engine import compat

_BAR_WIDTH = 24


class ProgressHook(tf.train.SessionRunHook):
  """Shows how far training is: a bar on a terminal, log lines elsewhere.

  step 300 of 782 | 12.3 steps/s | 6298 examples/s | loss 0.62 (ctr 0.41, ...)

  A bar is cut to the width of the terminal. The largest memory that the process
  has had is written to event files, in MB, as 'memory/peak_mb'.
  """

  def __init__(self, tasks, max_steps, batch_size, every_steps, stream=None,
               folder=None):
    """Stores the arguments; builds no graph.

    Args:
      tasks: names of the tasks, whose losses are tensors '<name>/loss'.
      max_steps: int, the last global step; a run with a work queue may end a
        few steps later.
      batch_size: int, rows per global step.
      every_steps: int, global steps between two lines.
      stream: file of a terminal for the bar; None is standard error if that
        is one.
      folder: str, of the event files; None writes none.
    """
    self._folder = folder
    self._tasks = tasks
    self._max_steps = max_steps
    self._batch_size = batch_size
    self._timer = tf.train.SecondOrStepTimer(every_steps=every_steps)
    if stream is None and sys.stderr.isatty():
      stream = sys.stderr
    self._stream = stream
    self._next_step = None

  def begin(self):
    graph = tf.get_default_graph()
    self._fetches = {'step': tf.train.get_global_step(),
                     'loss': graph.get_tensor_by_name('total_loss:0')}
    for task in self._tasks:
      self._fetches[task] = graph.get_tensor_by_name('%s/loss:0' % task)

  def before_run(self, run_context):
    # Losses are fetched only for the steps that show them.
    due = (self._next_step is None or
           self._timer.should_trigger_for_step(self._next_step))
    return tf.train.SessionRunArgs(
        self._fetches if due else {'step': self._fetches['step']})

  def after_run(self, run_context, run_values):
    values = run_values.results
    step = int(values['step'])
    first = self._next_step is None
    self._next_step = step + 1
    if 'loss' not in values:
      return
    seconds, steps = self._timer.update_last_triggered_step(step)
    if not first and steps:
      self._show(step, steps / seconds, values)

  def end(self, session):
    if self._stream:
      self._stream.write('\n')

  def _show(self, step, rate, losses):
    last = max(self._max_steps, step)
    left = (last - step) / rate
    text = 'step %d of %d | %.1f steps/s | %d examples/s | loss %.4f (%s)' % (
        step, last, rate, rate * self._batch_size, losses['loss'],
        ', '.join('%s %.4f' % (task, losses[task]) for task in self._tasks))
    text += ' | %s left' % _duration(left)
    self._note_memory(step)
    if not self._stream:
      logging.info('%s', text)
      return
    done = int(_BAR_WIDTH * step / last)
    bar = '#' * done + '-' * (_BAR_WIDTH - done)
    # A line that is wider than the terminal would scroll it at every step.
    line = ('[%s] %s' % (bar, text))[:shutil.get_terminal_size().columns - 1]
    self._stream.write('\r%s\x1b[K' % line)
    self._stream.flush()

  def _note_memory(self, step):
    if self._folder:
      peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
      summary = tf.Summary()
      summary.value.add(tag='memory/peak_mb', simple_value=peak)
      tf.summary.FileWriterCache.get(self._folder).add_summary(summary, step)


def _duration(seconds):
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return '%d:%02d:%02d' % (hours, minutes, seconds)
  return '%d:%02d' % (minutes, seconds)


class CheckpointHook(compat.CheckpointSaverHook):
  """Saves every save_steps, and whenever an evaluation is due.

  Estimator evaluates through listeners, which it adds to the hook and which are
  called after every checkpoint. This hook calls them only when an evaluation is
  due.
  """

  def __init__(self, model_dir, saver, save_steps, evaluations=None,
               listeners=()):
    """Stores the arguments; builds no graph.

    Args:
      model_dir: str.
      saver: tf.train.Saver of the graph.
      save_steps: int, global steps between checkpoints.
      evaluations: intervals.Interval between evaluations; None evaluates every
        checkpoint, and saves none besides.
      listeners: tf.train.CheckpointSaverListeners that evaluate.
    """
    super().__init__(model_dir, saver, _SaveTimer(save_steps, evaluations),
                     list(listeners))
    self._evaluations = evaluations
    self._evaluated = None

  def calls_listeners(self, step):
    # The first checkpoint is that of the start, which listeners expect.
    due = (self._evaluated is None or self._evaluations is None or
           self._evaluations.is_due(self._evaluated, step))
    if due:
      self._evaluated = step
    return due


class _SaveTimer(tf.train.SecondOrStepTimer):
  """Says when to save: after save_steps, or for an evaluation."""

  def __init__(self, save_steps, evaluations):
    super().__init__(every_steps=save_steps)
    self._evaluations = evaluations

  def should_trigger_for_step(self, step):
    last = self.last_triggered_step()
    return super().should_trigger_for_step(step) or bool(
        self._evaluations and last is not None and
        self._evaluations.is_due(last, step))
