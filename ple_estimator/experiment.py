"""Experiment, the root of every .gin file: train, evaluate, predict, export."""

import contextlib
import json
import math
import os
import re

from absl import logging
import gin
import gin.tf
import tensorflow.compat.v1 as tf

from ple_estimator import checkpoints
from ple_estimator import cluster
from ple_estimator import engine
from ple_estimator import errors
from ple_estimator import heads
from ple_estimator import hooks
from ple_estimator import inputs
from ple_estimator import keyed_tables
from ple_estimator import predictions


@gin.register
class EarlyStopping:
  """Ends training when a metric of the evaluation no longer improves."""

  def __init__(self, metric='ctr/auc', patience_steps=10000):
    """Keeps the rule.

    Args:
      metric: str, as in metrics.json; auc and accuracy are to grow, all
        others to fall.
      patience_steps: int, global steps without improvement.
    """
    errors.check(patience_steps >= 1, 'EarlyStopping.patience_steps must be at '
                 'least 1, got %r.', patience_steps)
    self.metric = metric
    self._patience_steps = patience_steps

  def hook(self, estimator, every_steps):
    """Returns the hook for one process of a run."""
    make = (tf.estimator.experimental.stop_if_no_increase_hook
            if heads.is_better(self.metric, 1, than=0)
            else tf.estimator.experimental.stop_if_no_decrease_hook)
    return make(estimator, self.metric, self._patience_steps,
                run_every_secs=None, run_every_steps=every_steps)


@gin.register
class Exports:
  """Which SavedModels to write while training."""

  def __init__(self, best_metric='ctr/auc', best_to_keep=1, latest_to_keep=1):
    """Keeps the rule.

    Args:
      best_metric: str, as in metrics.json; auc and accuracy are best when
        large, all others when small.
      best_to_keep: int, SavedModels in model_dir/export/best; 0 writes none.
      latest_to_keep: int, SavedModels in model_dir/export/latest; 0 writes
        none.
    """
    for name, value in [('best_to_keep', best_to_keep),
                        ('latest_to_keep', latest_to_keep)]:
      errors.check(value >= 0, 'Exports.%s must not be negative, got %r.',
                   name, value)
    self.metric = best_metric
    self._best_to_keep = best_to_keep
    self._latest_to_keep = latest_to_keep

  def exporters(self, receiver_fn):
    """Returns a list of tf.estimator.Exporter."""
    found = []
    if self._best_to_keep:
      found.append(tf.estimator.BestExporter(
          'best', receiver_fn, exports_to_keep=self._best_to_keep,
          event_file_pattern='eval/*.tfevents.*', compare_fn=self._is_best))
    if self._latest_to_keep:
      found.append(tf.estimator.LatestExporter(
          'latest', receiver_fn, exports_to_keep=self._latest_to_keep))
    return found

  def _is_best(self, best_eval_result, current_eval_result):
    # BestExporter finds the best in the event files, where the current result
    # is already: a tie is the current result itself.
    return not heads.is_better(
        self.metric, float(best_eval_result[self.metric]),
        than=float(current_eval_result[self.metric]))


class _MetricsFile(tf.estimator.Exporter):
  """Writes metrics.json after every evaluation, whichever process it is in."""

  name = 'metrics'

  def export(self, estimator, export_path, checkpoint_path, eval_result,
             is_the_final_export):
    _write_metrics(estimator.model_dir, eval_result)


def _write_metrics(model_dir, metrics):
  """Writes metrics.json, NaN as null, and logs the metrics of the tasks."""
  flat = {name: float(value) for name, value in metrics.items()}
  flat = {name: value if math.isfinite(value) else None
          for name, value in flat.items()}
  flat['global_step'] = int(flat['global_step'])
  path = os.path.join(model_dir, 'metrics.json')
  with open(path + '.partial', 'w') as f:
    json.dump(flat, f, indent=2, sort_keys=True)
    f.write('\n')
  os.replace(path + '.partial', path)
  logging.info('evaluation at step %d: %s', flat['global_step'], ', '.join(
      '%s %.4f' % (name, value) for name, value in sorted(flat.items())
      if value is not None and name.count('/') == 1))


def _tuned(config, fused):
  """Gives a RunConfig the engine's number of threads if it has none.

  Args:
    config: tf.estimator.RunConfig.
    fused: bool, whether the kernels of native.py run.
  """
  session_config = config.session_config
  if not session_config.intra_op_parallelism_threads:
    session_config.intra_op_parallelism_threads = engine.intra_op_threads(fused)
  # Among kernels TensorFlow's graph optimizer finds nothing that a step gains
  # by, and searches for seconds before the first.
  session_config.graph_options.rewrite_options.disable_meta_optimizer = fused
  return config.replace(session_config=session_config)


@gin.configurable
class Experiment:
  """One run, from data to a served model; each method is a --mode of run.py.

  What it writes to model_dir: checkpoints, event files (training in model_dir
  itself, evaluation in eval/), operative_config-<step>.gin, metrics.json,
  predictions, export/ and, if asked for, timelines, incremental/ and
  work_queue/.
  """

  def __init__(self,
               model=gin.REQUIRED,
               train_input=gin.REQUIRED,
               eval_input=gin.REQUIRED,
               model_dir=gin.REQUIRED,
               run_config=gin.REQUIRED,
               predict_input=None,
               predict_columns=(),
               predictions_path='predictions.parquet',
               max_steps=0,
               eval_steps=None,
               eval_secs=0,
               early_stopping=None,
               exports=None,
               timeline_steps=0,
               hooks=(),
               incremental=None,
               work_queue=None):
    """Keeps the parts; reads no data and builds no graph.

    Args:
      model: model.Model.
      train_input: inputs.ParquetInput or inputs.CsvInput.
      eval_input: the same, for evaluation; None trains without evaluating.
      model_dir: str, where all results go; run.py sets result/<gin file name>.
      run_config: function of model_dir to a tf.estimator.RunConfig, e.g.
        cluster.run_config.
      predict_input: the same as train_input, for prediction; None predicts
        the rows of eval_input.
      predict_columns: names of input columns to copy to the predictions.
      predictions_path: str, ending in .parquet or .csv; relative to model_dir.
      max_steps: int, the global step to stop at; 0 is the number of batches
        in the epochs of train_input, or where work_queue ends.
      eval_steps: int, global steps between evaluations, a multiple of
        run_config.save_steps; None evaluates every checkpoint.
      eval_secs: int, least seconds between evaluations.
      early_stopping: EarlyStopping; None trains to max_steps.
      exports: Exports; None exports only in mode export.
      timeline_steps: int, global steps between profiles, written to
        model_dir/timeline-<step>.json for chrome://tracing; 0 writes none.
      hooks: list of tf.train.SessionRunHook of your own, for training.
      incremental: incremental.IncrementalCheckpoint, what to save between
        checkpoints; None saves nothing.
      work_queue: work_queue.WorkQueue, which hands out slices of train_input
        to whichever process is free; None gives each process its own share.

    Raises:
      UserError: if a value is out of range or names an unknown metric.
    """
    for name, value in [
        ('max_steps', max_steps), ('eval_steps', eval_steps or 0),
        ('eval_secs', eval_secs), ('timeline_steps', timeline_steps)]:
      errors.check(isinstance(value, int) and value >= 0,
                   'Experiment.%s must be an integer that is not negative, '
                   'got %r.', name, value)
    errors.check(not os.path.isfile(model_dir), 'Experiment.model_dir must be '
                 'a folder, got the file %r.', model_dir)
    errors.check(eval_input or not (early_stopping or exports),
                 'Experiment.eval_input must be given for '
                 'Experiment.early_stopping and Experiment.exports: both go by '
                 'evaluations. Set them to None to train without.')
    predictions.check_path(predictions_path)
    self._model = model
    self._train_input = train_input
    self._eval_input = eval_input
    self._predict_input = predict_input or eval_input
    self._predict_columns = tuple(predict_columns)
    self._predictions_path = os.path.join(model_dir, predictions_path)
    self._config = _tuned(
        run_config(model_dir=model_dir), model.is_fused())
    self._max_steps = max_steps
    self._eval_steps = eval_steps
    self._eval_secs = eval_secs
    self._early_stopping = early_stopping
    self._exports = exports
    self._timeline_steps = timeline_steps
    self._own_hooks = list(hooks)
    self._incremental = incremental
    self._work_queue = work_queue
    self._check()
    self._estimator = tf.estimator.Estimator(
        self._model_fn, model_dir, self._config)

  def _check(self):
    """Checks what concerns several parts."""
    save_steps = self._config.save_checkpoints_steps
    errors.check(
        not self._eval_steps or self._eval_steps % save_steps == 0,
        'Experiment.eval_steps must be a multiple of run_config.save_steps '
        '(%d): what is evaluated is a checkpoint. Got %r.',
        save_steps, self._eval_steps)
    tasks = {task.name: task for task in self._model.tasks}
    for owner, part in [('EarlyStopping.metric', self._early_stopping),
                        ('Exports.best_metric', self._exports)]:
      task, _, metric = (part.metric if part else 'loss').partition('/')
      known = [] if task not in tasks else (
          ['auc', 'log_loss', 'accuracy'] if tasks[task].is_binary
          else ['rmse', 'mae'])
      errors.check(
          (task, metric) == ('loss', '') or metric in known,
          "%s must be 'loss' or a task (%s) and a metric of it, such as "
          "'%s/auc', got %r.", owner, ', '.join(tasks), list(tasks)[0],
          part and part.metric)
    columns = [column.name for column in self._model.features.columns]
    for name in self._predict_columns:
      errors.check(
          name in columns, 'Experiment.predict_columns must be columns of '
          'FeatureSpec.columns (%s), got %r.', ', '.join(columns), name)
      errors.check(
          name not in tasks, 'Experiment.predict_columns must not have the '
          'name of a task, got %r.', name)

  def train(self):
    """Trains to max_steps, evaluating on the way and at the end.

    Continues from the last checkpoint of model_dir.

    Raises:
      UserError: if the data cannot be used, or model_dir holds another model.
    """
    spec = self._model.features
    self._train_input.check(spec, keep=self._model.keep)
    if self._eval_input:
      self._eval_input.check(spec, keep=self._model.keep)
    rows = self._train_input.count_rows(spec)
    max_steps = self._max_steps or math.ceil(
        rows * self._train_input.epochs / self._train_input.batch_size)
    logging.info('%s%s; %d training rows; to step %d; results in %s',
                 engine.describe(),
                 ', fused kernels' if self._model.is_fused() else '', rows,
                 max_steps, self._config.model_dir)
    train_spec = tf.estimator.TrainSpec(
        self.train_input_fn, self._last_step(max_steps), self._hooks(max_steps))
    with self._data_errors(), self._handing_out():
      if self._eval_input:
        self._train_and_evaluate(train_spec)
      else:
        errors.check(
            not self._config.cluster_spec, 'Experiment.eval_input must be '
            'given in a cluster: there Estimator trains and evaluates at once.')
        self._estimator.train(
            train_spec.input_fn, list(train_spec.hooks),
            max_steps=train_spec.max_steps)

  @contextlib.contextmanager
  def _handing_out(self):
    """Gives back, at the end, what the work queue has handed out."""
    try:
      yield
    finally:
      if self._work_queue:
        self._work_queue.close()

  def _last_step(self, max_steps):
    """Where training stops; None where the data end it.

    A work queue has more batches than rows / batch_size: the last of each
    process is not full, and what a lost process had in hand is done again.
    """
    return None if self._work_queue and not self._max_steps else max_steps

  def _train_and_evaluate(self, train_spec):
    receiver_fn = inputs.serving_input_receiver_fn(
        self._model.features, self._model.groups)
    # Without a throttle an evaluator looks for checkpoints in a busy loop.
    least_secs = 1 if self._config.cluster_spec else 0
    eval_spec = tf.estimator.EvalSpec(
        self._eval_input_fn, steps=None, start_delay_secs=0,
        throttle_secs=max(least_secs, self._eval_secs),
        exporters=[_MetricsFile()] + (
            self._exports.exporters(receiver_fn) if self._exports else []))
    result = tf.estimator.train_and_evaluate(
        self._estimator, train_spec, eval_spec)
    # Without a result max_steps had been reached before. In a cluster the
    # evaluator has it.
    if not self._config.cluster_spec and not (result and result[0]):
      self.evaluate()

  def evaluate(self):
    """Evaluates the last checkpoint and writes metrics.json.

    Raises:
      UserError: if there is no checkpoint, or the data cannot be used.
    """
    self._check_trained()
    errors.check(self._eval_input,
                 'Experiment.eval_input must be given to evaluate, got None.')
    self._eval_input.check(self._model.features, keep=self._model.keep)
    with self._data_errors():
      _write_metrics(self._config.model_dir,
                     self._estimator.evaluate(
                         self._eval_input_fn, checkpoint_path=self._latest()))

  def predict(self):
    """Writes one column of predictions per task, beside predict_columns.

    Raises:
      UserError: if there is no checkpoint, or the data cannot be used.
    """
    self._check_trained()
    errors.check(self._predict_input, 'Experiment.predict_input or eval_input '
                 'must be given to predict, got None.')
    self._predict_input.check(self._model.features, with_labels=False,
                              keep=self._predict_columns)
    with self._data_errors():
      rows = predictions.write(self._predictions_path, (
          {name: batch[name] for name in
           self._predict_columns + tuple(t.name for t in self._model.tasks)}
          for batch in self._estimator.predict(
              self._predict_input_fn, checkpoint_path=self._latest(),
              yield_single_examples=False)))
    logging.info('%d rows of predictions in %s', rows, self._predictions_path)

  def export(self):
    """Writes a SavedModel of the last checkpoint to export/saved_model.

    Raises:
      UserError: if there is no checkpoint.
    """
    self._check_trained()
    path = self._estimator.export_saved_model(
        os.path.join(self._config.model_dir, 'export', 'saved_model'),
        inputs.serving_input_receiver_fn(
            self._model.features, self._model.groups),
        checkpoint_path=self._latest())
    logging.info('SavedModel in %s', path.decode())

  def _model_fn(self, features, labels, mode, config):
    training = mode == tf.estimator.ModeKeys.TRAIN
    if training and self._work_queue:
      self._work_queue.follow(features)
    spec = self._model.model_fn(
        features, labels, mode, track_rows=bool(self._incremental))
    saver = checkpoints.Saver(config.keep_checkpoint_max, training,
                              self._work_queue if training else None)
    spec = spec._replace(scaffold=tf.train.Scaffold(saver=saver))
    if training:
      tf.add_to_collection(tf.GraphKeys.SAVERS, saver)  # for CheckpointHook
    if training and self._incremental:
      spec = spec._replace(training_chief_hooks=[
          self._incremental.hook(config.model_dir, saver)])
    checkpoints.check(config.model_dir, training)
    return spec

  def train_input_fn(self):
    """The input_fn of training: tf.data.Dataset of (features, labels)."""
    if self._work_queue:
      self._work_queue.start(
          self._config, self._train_input, self._model.features)
    # A run that continues goes on with the rows behind those it has seen.
    path = checkpoints.latest(self._config.model_dir)
    step = tf.train.load_variable(path, 'global_step') if path else 0
    index, count = cluster.shard(self._config)
    return self._train_input.dataset(
        self._model.features, keep=self._model.keep, shard=(index, count),
        seed=self._config.tf_random_seed,
        first_row=int(step) * self._train_input.batch_size // count,
        groups=self._model.groups,
        op_fusion=self._model.op_fusion,
        queue=self._work_queue)

  def _eval_input_fn(self):
    return self._eval_input.dataset(
        self._model.features, keep=self._model.keep,
        seed=self._config.tf_random_seed, groups=self._model.groups,
        op_fusion=self._model.op_fusion)

  def _predict_input_fn(self):
    return self._predict_input.dataset(
        self._model.features, with_labels=False, keep=self._predict_columns,
        seed=self._config.tf_random_seed, groups=self._model.groups,
        op_fusion=self._model.op_fusion)

  def _hooks(self, max_steps):
    config = self._config
    found = [hooks.ProgressHook(
        [task.name for task in self._model.tasks], max_steps,
        self._train_input.batch_size, config.save_summary_steps)]
    if self._work_queue:
      found.append(self._work_queue.hook(config.save_summary_steps))
    if self._early_stopping:
      found.append(self._early_stopping.hook(
          self._estimator, self._eval_steps or config.save_checkpoints_steps))
    if config.is_chief:
      found.append(gin.tf.GinConfigSaverHook(config.model_dir))
      # Estimator's own would save before the work queue knows of the step.
      if self._eval_steps or self._work_queue:
        found.append(hooks.CheckpointHook(
            config.model_dir, config.save_checkpoints_steps,
            self._eval_steps or config.save_checkpoints_steps))
      if self._timeline_steps:
        found.append(tf.train.ProfilerHook(
            save_steps=self._timeline_steps, output_dir=config.model_dir))
    return found + self._own_hooks

  def _latest(self):
    return checkpoints.latest(self._config.model_dir)

  def _check_trained(self):
    errors.check(
        tf.train.latest_checkpoint(self._config.model_dir),
        'Experiment.model_dir must hold a checkpoint: nothing at %s. Train '
        'first.', os.path.abspath(self._config.model_dir))

  @contextlib.contextmanager
  def _data_errors(self):
    """Raises the error of an input in place of what TensorFlow makes of it."""
    try:
      yield
    except tf.errors.OpError as error:
      for source in (self._train_input, self._eval_input, self._predict_input):
        if source and source.error:
          raise source.error from error
      # TensorFlow buries what an op says in where it stands.
      full = re.search(keyed_tables.FULL.replace('%s', r'[\w.]+').replace(
          '%d', r'\d+') + r'[\w ]+', error.message)
      if full:
        raise errors.UserError(
            full.group() + '. The last checkpoint restores into a larger '
            'capacity: train on with it.') from error
      raise
