"""Evaluates and exports checkpoints, and ends training early."""

import math
import os
import time

from absl import logging
import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.cluster import marker
from ple_estimator.network import metrics


@gin.register
class EarlyStopping:
  """Ends training when a metric of the evaluation no longer improves."""

  def __init__(self, metric='ctr/auc', patience_steps=10000):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      metric: str, as in metrics.json; auc and accuracy improve when they
        grow, all others when they fall.
      patience_steps: int, global steps without improvement after which
        training ends.
    """
    errors.check_text('EarlyStopping.metric', metric)
    errors.check_integer('EarlyStopping.patience_steps', patience_steps, 1)
    self.metric = metric
    self._patience_steps = patience_steps

  def hook(self, estimator, every_steps):
    """Returns the hook for one process of a run."""
    make = (tf.estimator.experimental.stop_if_no_increase_hook
            if metrics.is_better(self.metric, 1, than=0)
            else tf.estimator.experimental.stop_if_no_decrease_hook)
    return make(estimator, self.metric, self._patience_steps,
                run_every_secs=None, run_every_steps=every_steps)


@gin.register
class Exports:
  """Which SavedModels to write while training."""

  def __init__(self, best_metric='ctr/auc', best_to_keep=1, latest_to_keep=1):
    """Checks and stores the hyperparameters; writes nothing.

    Args:
      best_metric: str, as in metrics.json; auc and accuracy are best when
        large, all others when small.
      best_to_keep: int, SavedModels in model_dir/export/best; 0 writes none.
      latest_to_keep: int, SavedModels in model_dir/export/latest; 0 writes
        none.
    """
    for name, value in [('best_to_keep', best_to_keep),
                        ('latest_to_keep', latest_to_keep)]:
      errors.check_integer('Exports.' + name, value, 0)
    errors.check_text('Exports.best_metric', best_metric)
    self.metric = best_metric
    self._best_to_keep = best_to_keep
    self._latest_to_keep = latest_to_keep

  def exporters(self, receiver_fn):
    """Returns a list of tf.estimator.Exporter."""
    exporters = []
    if self._best_to_keep:
      exporters.append(tf.estimator.BestExporter(
          'best', receiver_fn, exports_to_keep=self._best_to_keep,
          event_file_pattern='eval/*.tfevents.*', compare_fn=self._is_best))
    if self._latest_to_keep:
      exporters.append(tf.estimator.LatestExporter(
          'latest', receiver_fn, exports_to_keep=self._latest_to_keep))
    return exporters

  def _is_best(self, best_eval_result, current_eval_result):
    # BestExporter reads the best result from the event files, which have the
    # current result already. So a tie means that the current one is the best.
    return not metrics.is_better(
        self.metric, float(best_eval_result[self.metric]),
        than=float(current_eval_result[self.metric]))


class MetricsFile(tf.estimator.Exporter):
  """Writes metrics.json after every evaluation, whichever process it is in.

  Attributes:
    step: int, the global step of the last evaluation, or None.
  """

  name = 'metrics'
  step = None

  def export(self, estimator, export_path, checkpoint_path, eval_result,
             is_the_final_export):
    self.step = int(eval_result['global_step'])
    write_metrics(estimator.model_dir, eval_result)


def write_metrics(model_dir, values):
  """Writes metrics.json, NaN as null, and logs the metrics of the tasks.

  Args:
    model_dir: str.
    values: dict of metric name to number, 'global_step' among them.

  Returns:
    dict, what metrics.json holds.
  """
  flat = {name: float(value) for name, value in values.items()}
  flat = {name: value if math.isfinite(value) else None
          for name, value in flat.items()}
  flat['global_step'] = int(flat['global_step'])
  files.write_json(os.path.join(model_dir, 'metrics.json'), flat, indent=2)
  logging.info('evaluation at step %d: %s', flat['global_step'], ', '.join(
      '%s %.4f' % (name, value) for name, value in sorted(flat.items())
      if value is not None and name.count('/') == 1))
  return flat


def check_metric(binding, name, tasks):
  """Raises UserError unless a binding names the loss or a metric of a task.

  Args:
    binding: str, e.g. 'EarlyStopping.metric'.
    name: what it is bound to, e.g. 'ctr/auc'.
    tasks: list of tasks.Task.
  """
  by_name = {task.name: task for task in tasks}
  task, _, metric = str(name).partition('/')
  known = [] if task not in by_name else (
      ['auc', 'log_loss', 'accuracy'] if by_name[task].is_binary
      else ['rmse', 'mae'])
  errors.check(
      name == 'loss' or metric in known,
      "%s must be 'loss' or a task (%s) and a metric of it, such as "
      "'%s/auc', got %r.", binding, ', '.join(by_name), tasks[0].name, name)


def last_step(model_dir):
  """The global step of the last evaluation in model_dir, or None."""
  written = files.read_json(
      os.path.join(model_dir, 'metrics.json'), keys={'global_step': int})
  return written and written['global_step']


class Evaluation:
  """Evaluates and exports checkpoints in a process of a cluster.

  In a local run tf.estimator.train_and_evaluate does the same.
  """

  def __init__(self, estimator, input_fn, exporters, pause):
    """Stores the arguments; evaluates nothing.

    Args:
      estimator: tf.estimator.Estimator.
      input_fn: function without arguments that returns the tf.data.Dataset of
        the rows to evaluate.
      exporters: list of tf.estimator.Exporter.
      pause: function without arguments to a context manager, for work that may
        take any time.
    """
    self._estimator = estimator
    self._input_fn = input_fn
    self._exporters = exporters
    self._pause = pause

  def run(self, is_final=False):
    """Evaluates the newest checkpoint, then exports it.

    Args:
      is_final: bool, whether it is the last of the run.
    """
    path = marker.latest_checkpoint(self._estimator.model_dir)
    try:
      with self._pause():
        self._run(path, is_final)
    except (tf.errors.OpError, ValueError):
      if path is None or os.path.exists(path + '.index'):
        raise
      logging.warning('%s is gone: evaluations take longer than '
                      'run_config.keep_checkpoint_max checkpoints.', path)

  def _run(self, path, is_final):
    result = self._estimator.evaluate(self._input_fn, checkpoint_path=path)
    for exporter in self._exporters:
      exporter.export(
          self._estimator,
          os.path.join(self._estimator.model_dir, 'export', exporter.name),
          path, result, is_final)


class EvaluateSaved(tf.train.CheckpointSaverListener):
  """Evaluates what a chief saves, in a cluster without an evaluator.

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


def is_done_elsewhere(model_dir, step, timeout_secs, watch):
  """Waits until the evaluator of a cluster has evaluated the last step.

  Args:
    model_dir: str.
    step: int, the global step of the last checkpoint.
    timeout_secs: number, how long to wait.
    watch: watch.Watch.

  Returns:
    bool, whether the evaluator has evaluated that step.
  """
  deadline = time.time() + timeout_secs
  while time.time() < deadline:
    if last_step(model_dir) == step:
      return True
    watch.wait(1)
  logging.warning('The evaluator did not evaluate step %d within %d s '
                  '(Experiment.peer_timeout_secs): the chief does it.', step,
                  timeout_secs)
  return False


def until_trained(evaluation, model_dir, max_steps, least_steps, least_secs,
                  watch):
  """Evaluates checkpoints until the last one; for the evaluator of a cluster.

  Args:
    evaluation: Evaluation.
    model_dir: str.
    max_steps: int, the global step at which the training ends.
    least_steps: int, least global steps between two evaluations.
    least_secs: number, least seconds between two evaluations.
    watch: watch.Watch.
  """
  evaluated, last = None, 0
  while True:
    end = marker.trained_step(model_dir, max_steps)
    step = marker.latest_step(model_dir)  # after `end`: then it is the last
    if end is not None and step == evaluated:
      return
    is_due = step and step != evaluated and (
        end is not None or evaluated is None or
        step - evaluated >= least_steps and time.time() - last >= least_secs)
    if is_due:
      evaluated, last = step, time.time()
      evaluation.run(is_final=end is not None)
    else:
      watch.wait(1)
