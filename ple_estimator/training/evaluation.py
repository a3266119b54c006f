"""Evaluates and exports checkpoints, and ends training early."""

import collections
import os
import time

from absl import logging
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.cluster import marker
from ple_estimator.training import checkpoints
from ple_estimator.training import metrics_file

Results = collections.namedtuple('Results', [
    'evaluations', 'best', 'early_stopping', 'exporters'])
Results.__doc__ = """What is done with the metrics of an evaluation.

Attributes:
  evaluations: evaluations.Evaluations, which takes them in.
  best: exports.BestCheckpoint.
  early_stopping: early_stopping.EarlyStopping or None.
  exporters: list of tf.estimator.Exporter, of exports.Exports.
"""


class Evaluation:
  """Evaluates checkpoints, the same in every process that does.

  Attributes:
    evaluators: dict, see __init__.
    step: int, the global step of the last evaluation, or None.
  """

  def __init__(self, estimator, evaluators, tasks, results, pause):
    """Keeps the parts.

    Args:
      estimator: tf.estimator.Estimator.
      evaluators: dict of what the names of metrics end with to the
        evaluator.Evaluator of their rows: '' of those that decide, and
        '/train' of a sample of the training rows.
      tasks: list of tasks.Task.
      results: Results.
      pause: function without arguments to a context manager, for work that may
        take any time.
    """
    self._estimator = estimator
    self.evaluators = evaluators
    self._tasks = tasks
    self._results = results
    self._pause = pause
    self.step = None

  def start(self):
    """Is to be called at the start of a run: its files may be new ones."""
    for of_rows in self.evaluators.values():
      of_rows.forget()
    for exporter in self._results.exporters:
      exporter.writer.forget()

  def run(self, is_final=False):
    """Evaluates the newest checkpoint, then exports it.

    Args:
      is_final: bool, whether it is the last of the run.

    Raises:
      UserError: if a prediction is not finite. Where this process saves, that
        checkpoint is then no longer the one that training goes on from.
    """
    path = marker.latest_checkpoint(self._estimator.model_dir)
    try:
      with self._pause():
        self._run(path, is_final)
    except errors.UserError:
      raise
    except (tf.errors.OpError, ValueError):
      if path is None or os.path.exists(path + '.index'):
        raise
      logging.warning('%s is gone: evaluations take longer than '
                      'run_config.keep_checkpoint_max checkpoints.', path)

  def _run(self, path, is_final):
    found = self.evaluators[''](path)
    for ending, of_rows in self.evaluators.items():
      if ending:
        found.update({name + ending: value
                      for name, value in of_rows(path).items()
                      if name.count('/') == 1})
    self._check(found, path)
    model_dir, results = self._estimator.model_dir, self._results
    results.evaluations.read()
    results.best.keep(path, results.evaluations.add(found))
    for exporter in results.exporters:
      exporter.export(
          self._estimator, os.path.join(model_dir, 'export', exporter.name),
          path, found, is_final)
    metrics_file.write(model_dir, found)
    if results.early_stopping:
      results.early_stopping.decide(results.evaluations)
      results.early_stopping.describe(results.evaluations)
    # Last: it says to other processes that all of the above is there.
    results.evaluations.write()
    results.best.clean()
    self.step = int(found['global_step'])

  def _check(self, found, path):
    """Raises UserError if a model has diverged; leaves its checkpoint out."""
    try:
      metrics_file.check_values(found, self._tasks)
    except errors.UserError as error:
      if not self._estimator.config.is_chief:  # another process saves
        raise
      raise errors.UserError(
          '%s%s' % (error, checkpoints.leave_out(path))) from error


class EvaluateSaved(tf.train.CheckpointSaverListener):
  """Evaluates what a chief saves, where no other process evaluates.

  The checkpoint of the start is not evaluated, and that of the end is evaluated
  by training.trainer.
  """

  def __init__(self, evaluation, least_secs):
    """Stores the arguments.

    Args:
      evaluation: Evaluation.
      least_secs: number, least seconds between two evaluations.
    """
    self._evaluation = evaluation
    self._least_secs = least_secs
    self._last = None

  def after_save(self, session, global_step_value):
    now = time.time()
    if self._last is None:
      self._last = 0
    elif now - self._last >= self._least_secs:
      self._last = now
      self._evaluation.run()


def is_done_elsewhere(evaluations, step, timeout_secs, watch):
  """Waits for the evaluator of a cluster.

  Args:
    evaluations: evaluations.Evaluations.
    step: int, the global step of the last checkpoint.
    timeout_secs: number, how long to wait.
    watch: watch.Watch.

  Returns:
    bool, whether the evaluator has evaluated that step.
  """
  deadline = time.time() + timeout_secs
  while time.time() < deadline:
    evaluations.read()
    if evaluations.last and evaluations.last['global_step'] == step:
      return True
    watch.wait(1)
  logging.warning('The evaluator did not evaluate step %d within %d s '
                  '(Experiment.peer_timeout_secs): the chief does it.', step,
                  timeout_secs)
  return False


def until_trained(evaluation, model_dir, trained_step, interval, least_secs,
                  watch):
  """Evaluates checkpoints until the last one; for the evaluator of a cluster.

  Args:
    evaluation: Evaluation.
    model_dir: str.
    trained_step: function without arguments to the global step at which the
      training has ended, or to None.
    interval: intervals.Interval between two evaluations.
    least_secs: number, seconds between two evaluations.
    watch: watch.Watch.
  """
  evaluated, last = None, 0
  while True:
    end = trained_step()
    step = marker.latest_step(model_dir)  # after `end`: then it is the last
    if end is not None and step == evaluated:
      return
    is_due = step and step != evaluated and (
        end is not None or interval.is_due(evaluated or 0, step) and
        time.time() - last >= least_secs)
    if is_due:
      evaluated, last = step, time.time()
      evaluation.run(is_final=end is not None)
    else:
      watch.wait(1)
