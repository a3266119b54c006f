"""Experiment, the root of every .gin file: train, evaluate, predict, export."""

import contextlib
import errno
import math
import os
import re

from absl import logging
import gin
import gin.tf
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.cluster import marker
from ple_estimator.cluster import parameter_servers
from ple_estimator.cluster import roles
from ple_estimator.cluster import watch as watch_lib
from ple_estimator.data import predictions
from ple_estimator.data import serving
from ple_estimator.embeddings import keyed_table
from ple_estimator.engine import compat
from ple_estimator.engine import forms
from ple_estimator.training import compatibility
from ple_estimator.training import evaluation
from ple_estimator.training import hooks
from ple_estimator.training import model_dir as model_dir_lib
from ple_estimator.training import saver

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES,
                errno.EFBIG, errno.EIO)
# TensorFlow's words for them: the path, then the system's text.
_DISK = re.compile(r'(\S+); (%s)' % '|'.join(map(os.strerror, _DISK_ERRORS)))


def _tuned(config, fused):
  """Gives a RunConfig the engine's number of threads if it has none.

  Args:
    config: tf.estimator.RunConfig.
    fused: bool, whether the kernels of native.py run.
  """
  session_config = config.session_config
  if not session_config.intra_op_parallelism_threads:
    session_config.intra_op_parallelism_threads = compat.intra_op_threads(fused)
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

  Attributes:
    model: model.Model.
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
               peer_timeout_secs=1800,
               engine=None,
               work_queue=None):
    """Keeps the parts; reads no data and builds no graph.

    Args:
      model: model.Model.
      train_input: inputs.ParquetInput or inputs.CsvInput.
      eval_input: the same, for evaluation; None trains without evaluating.
      model_dir: str, where all results go; run.py sets result/<gin file name>.
      run_config: function of model_dir to a tf.estimator.RunConfig, e.g.
        roles.run_config.
      predict_input: the same as train_input, for prediction; None predicts
        the rows of eval_input.
      predict_columns: names of input columns to copy to the predictions.
      predictions_path: str, ending in .parquet or .csv; relative to model_dir.
      max_steps: int, the global step to stop at; 0 is the number of batches
        in the epochs of train_input, or where work_queue ends.
      eval_steps: int, global steps between evaluations, a multiple of
        run_config.save_steps; None evaluates every checkpoint.
      eval_secs: int, least seconds between evaluations.
      early_stopping: evaluation.EarlyStopping; None trains to max_steps.
      exports: evaluation.Exports; None exports only in mode export.
      timeline_steps: int, global steps between profiles, written to
        model_dir/timeline-<step>.json for chrome://tracing; 0 writes none.
      hooks: list of tf.train.SessionRunHook of your own, for training.
      incremental: incremental.IncrementalCheckpoint, what to save between
        checkpoints; None saves nothing.
      peer_timeout_secs: int, in a cluster, how long to get nothing done before
        the process gives up: parameter servers that never come, a chief that
        is gone for good. More than a checkpoint takes.
      engine: forms.Engine, whether DeepRec's forms are used; None is
        'auto'.
      work_queue: work_queue.WorkQueue, which hands out slices of train_input
        to whichever process is free; None gives each process its own share.

    Raises:
      UserError: if a value is out of range or names an unknown metric.
    """
    for name, value in [
        ('max_steps', max_steps), ('eval_steps', eval_steps or 0),
        ('eval_secs', eval_secs), ('timeline_steps', timeline_steps),
        ('peer_timeout_secs', peer_timeout_secs)]:
      errors.check_integer('Experiment.' + name, value, 0)
    errors.check(isinstance(model_dir, str), 'Experiment.model_dir must be '
                 'text, got %r.', model_dir)
    errors.check(not os.path.isfile(model_dir), 'Experiment.model_dir must be '
                 'a folder, got the file %r.', model_dir)
    errors.check(not isinstance(predict_columns, str), 'Experiment.'
                 'predict_columns must be a list of names, got %r.',
                 predict_columns)
    errors.check(eval_input or not (early_stopping or exports),
                 'Experiment.eval_input must be given for '
                 'Experiment.early_stopping and Experiment.exports: both go by '
                 'evaluations. Set them to None to train without.')
    predictions.check_path(predictions_path)
    self.model = model
    self._train_input = train_input
    self._eval_input = eval_input
    self._predict_input = predict_input or eval_input
    self._predict_columns = tuple(predict_columns)
    self._predictions_path = os.path.join(model_dir, predictions_path)
    self._engine = engine or forms.Engine()
    if incremental:
      self._engine.leave_out('embedding_variable', 'Experiment.incremental')
    self._config = _tuned(
        run_config(model_dir=model_dir), model.is_fused())
    self._engine.configure(
        self._config.session_config, model.op_fusion, train_input.prefetch,
        model.micro_batches)
    self._max_steps = max_steps
    self._eval_steps = eval_steps
    self._eval_secs = eval_secs
    self._early_stopping = early_stopping
    self._exports = exports
    self._timeline_steps = timeline_steps
    self._own_hooks = list(hooks)
    self._incremental = incremental
    self._peer_timeout_secs = peer_timeout_secs
    self._role = roles.role()
    self._metrics_file = evaluation.MetricsFile()
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
    tasks = {task.name: task for task in self.model.tasks}
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
    columns = [column.name for column in self.model.features.columns]
    for name in self._predict_columns:
      errors.check(
          name in columns, 'Experiment.predict_columns must be columns of '
          'FeatureSpec.columns (%s), got %r.', ', '.join(columns), name)
      errors.check(
          name not in tasks, 'Experiment.predict_columns must not have the '
          'name of a task, got %r.', name)

  def train(self):
    """Trains to max_steps, evaluating on the way and at the end.

    Continues from the last checkpoint of model_dir. In a cluster (TF_CONFIG)
    this is what each process calls, whatever its role; see job.py.

    Raises:
      UserError: if the data cannot be used, model_dir holds another model, or
        the other processes of a cluster cannot be reached.
    """
    if self._role.type == 'ps':
      model_dir_lib.prepare(self._config.model_dir, saves=False)
      self.model.is_fused()  # the chief may place its ops here
      parameter_servers.serve(
          self._config, self._role.peers(), self._peer_timeout_secs)
      return
    spec = self.model.features
    self._train_input.check(spec, keep=self.model.keep)
    if self._eval_input:
      self._eval_input.check(spec, keep=self.model.keep)
    rows = self._train_input.count_rows(spec)
    max_steps = self._max_steps or math.ceil(
        rows * self._train_input.epochs / self._train_input.batch_size)
    if self._role.type != 'worker':  # a worker writes nothing
      model_dir_lib.prepare(self._config.model_dir, self._config.is_chief)
    logging.info('%s%s; %d training rows; to step %d; results in %s',
                 self._engine.describe(),
                 ', fused kernels' if self.model.is_fused() else '', rows,
                 max_steps, self._config.model_dir)
    step = marker.latest_step(self._config.model_dir)
    last = self._last_step(max_steps)
    if last and step is not None and step >= last:
      logging.info('Trained to step %d before. To train on, raise '
                   'Experiment.max_steps or the epochs of the input.', step)
    with self._watch(max_steps) as watch, self._user_errors(), (
        self._handing_out()):
      if self._role.type == 'evaluator':
        if self._eval_input:  # else there is nothing to do
          evaluation.until_trained(
              self._evaluation(watch), self._config.model_dir, max_steps,
              self._eval_steps or 1, self._eval_secs, watch)
        return
      if not self._role.is_local:
        self._server = roles.server(self._config)  # lives as this process
      if marker.trained_step(self._config.model_dir, max_steps) is None:
        self._train(max_steps, watch)
      if self._role.type == 'chief':
        self._end(max_steps, watch)

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

  def _watch(self, max_steps):
    """What sees to SIGTERM and to processes that are lost."""
    model_dir = self._config.model_dir

    def is_over():
      return (self._role.type == 'worker' and
              marker.trained_step(model_dir, max_steps) is not None)

    return watch_lib.Watch(self._role.peers(), self._peer_timeout_secs, is_over,
                     self._save if self._config.is_chief else None)

  def _save(self, session):
    saver, = tf.get_collection(tf.GraphKeys.SAVERS)
    saver.save(session, os.path.join(self._config.model_dir, 'model.ckpt'),
               tf.train.get_global_step())

  def _train(self, max_steps, watch):
    """Is the chief or a worker until the training ends."""
    config = self._config
    found, last = self._hooks(max_steps, watch), self._last_step(max_steps)
    if not self._eval_input or (
        self._role.is_local and self._role.has_evaluator):
      self._estimator.train(self.train_input_fn, found, max_steps=last)
      return
    with roles.own_server(config):
      tf.estimator.train_and_evaluate(
          self._estimator,
          tf.estimator.TrainSpec(self.train_input_fn, last, found),
          tf.estimator.EvalSpec(
              self._eval_input_fn, steps=None, start_delay_secs=0,
              throttle_secs=self._eval_secs, hooks=[watch_lib.Paused(watch)],
              exporters=self._exporters()))

  def _exporters(self):
    receiver_fn = serving.serving_input_receiver_fn(
        self.model.features, self.model.groups)
    found = self._exports.exporters(receiver_fn) if self._exports else []
    return found + [self._metrics_file]  # last: it says that all is there

  def _evaluation(self, watch):
    return evaluation.Evaluation(
        self._estimator, self._eval_input_fn, self._exporters(), watch.pause)

  def _end(self, max_steps, watch):
    """Sees to the last evaluation, then lets the other processes go."""
    model_dir = self._config.model_dir
    step = marker.latest_step(model_dir)
    if not self._role.is_alone:
      marker.mark_trained(model_dir, max_steps, step)
    if self._eval_input and not (
        self._metrics_file.step == step or
        self._role.has_evaluator and evaluation.is_done_elsewhere(
            model_dir, step, self._peer_timeout_secs, watch)):
      self._evaluation(watch).run(is_final=True)
    if not self._role.is_local:
      parameter_servers.end_parameter_servers(self._config)

  def evaluate(self):
    """Evaluates the last checkpoint and writes metrics.json.

    Raises:
      UserError: if there is no checkpoint, or the data cannot be used.
    """
    self._check_trained()
    errors.check(self._eval_input,
                 'Experiment.eval_input must be given to evaluate, got None.')
    self._eval_input.check(self.model.features, keep=self.model.keep)
    with self._user_errors():
      evaluation.write_metrics(
          self._config.model_dir, self._estimator.evaluate(
              self._eval_input_fn, checkpoint_path=self._latest()))

  def predict(self):
    """Writes one column of predictions per task, beside predict_columns.

    Raises:
      UserError: if there is no checkpoint, or the data cannot be used.
    """
    self._check_trained()
    errors.check(self._predict_input, 'Experiment.predict_input or eval_input '
                 'must be given to predict, got None.')
    self._predict_input.check(self.model.features, with_labels=False,
                              keep=self._predict_columns)
    with self._user_errors():
      rows = predictions.write(self._predictions_path, (
          {name: batch[name] for name in
           self._predict_columns + tuple(t.name for t in self.model.tasks)}
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
    with self._user_errors():
      path = self._estimator.export_saved_model(
          os.path.join(self._config.model_dir, 'export', 'saved_model'),
          serving.serving_input_receiver_fn(
              self.model.features, self.model.groups),
          checkpoint_path=self._latest())
    logging.info('SavedModel in %s', path.decode())

  def _model_fn(self, features, labels, mode, config):
    training = mode == tf.estimator.ModeKeys.TRAIN
    if training and self._work_queue:
      self._work_queue.follow(features)
    stage = []
    if training:
      (features, labels), stage = self._engine.staged(
          (features, labels), self._train_input.prefetch)
    spec = self.model.model_fn(
        features, labels, mode, config.num_ps_replicas,
        bool(self._incremental), self._engine)
    if stage:
      self._engine.mark(spec.train_op)
      spec = spec._replace(training_hooks=stage)
    # Alone, a process need not look whether variables have values: that would
    # be a third of the ops of its graph.
    alone = self._role.is_local
    made = saver.Saver(
        config.keep_checkpoint_max, training,
        self._work_queue if training else None, outlived=not alone)
    ready = tf.constant([], tf.string) if alone else None
    spec = spec._replace(scaffold=tf.train.Scaffold(
        saver=made, ready_op=ready, ready_for_local_init_op=ready))
    if training:
      tf.add_to_collection(tf.GraphKeys.SAVERS, made)  # for CheckpointHook
    if training and self._incremental:
      spec = spec._replace(training_chief_hooks=[
          self._incremental.hook(config.model_dir, made)])
    compatibility.check(config.model_dir, training)
    return spec

  def train_input_fn(self):
    """The input_fn of training: tf.data.Dataset of (features, labels)."""
    if self._work_queue:
      self._work_queue.start(
          self._config, self._train_input, self.model.features)
    # A run that continues goes on with the rows behind those it has seen.
    path = model_dir_lib.latest(self._config.model_dir)
    step = tf.train.load_variable(path, 'global_step') if path else 0
    index, count = roles.shard(self._config)
    micro_batches = self.model.micro_batches
    rows = self._train_input.dataset(
        self.model.features, keep=self.model.keep, shard=(index, count),
        seed=self._config.tf_random_seed,
        first_row=int(step) * self._train_input.batch_size // count,
        groups=self.model.groups,
        op_fusion=self.model.op_fusion,
        micro_batches=(
            micro_batches if self._engine.slices(micro_batches) else 1),
        queue=self._work_queue)
    # Who is faster than others goes through its share again, to max_steps.
    return rows if count == 1 or self._work_queue else rows.repeat()

  def _eval_input_fn(self):
    return self._eval_input.dataset(
        self.model.features, keep=self.model.keep,
        seed=self._config.tf_random_seed, groups=self.model.groups,
        op_fusion=self.model.op_fusion)

  def _predict_input_fn(self):
    return self._predict_input.dataset(
        self.model.features, with_labels=False, keep=self._predict_columns,
        seed=self._config.tf_random_seed, groups=self.model.groups,
        op_fusion=self.model.op_fusion)

  def _hooks(self, max_steps, watch):
    config = self._config
    in_cluster = not self._role.is_local
    found = [hooks.ProgressHook(
        [task.name for task in self.model.tasks], max_steps,
        self._train_input.batch_size, config.save_summary_steps)]
    if self._work_queue:
      found.append(self._work_queue.hook(config.save_summary_steps))
    if self._early_stopping:
      found.append(self._early_stopping.hook(
          self._estimator, self._eval_steps or config.save_checkpoints_steps))
    if config.is_chief:
      found.append(gin.tf.GinConfigSaverHook(config.model_dir))
      evaluates = (in_cluster and self._eval_input and
                   not self._role.has_evaluator)
      # After the work queue's hook, which must know of a step before.
      found.append(hooks.CheckpointHook(
          config.model_dir, config.save_checkpoints_steps, self._eval_steps,
          [evaluation.EvaluateSaved(self._evaluation(watch), self._eval_secs)]
          if evaluates else []))
      if self._timeline_steps:
        found.append(tf.train.ProfilerHook(
            save_steps=self._timeline_steps, output_dir=config.model_dir))
    elif in_cluster:
      found.append(watch_lib.WaitForCheckpoint(
          config.model_dir, config.save_checkpoints_steps, watch))
    return found + self._own_hooks + [watch]

  def _latest(self):
    return model_dir_lib.latest(self._config.model_dir)

  def _check_trained(self):
    errors.check(
        tf.train.latest_checkpoint(self._config.model_dir),
        'Experiment.model_dir must hold a checkpoint: nothing at %s. Train '
        'first.', os.path.abspath(self._config.model_dir))

  @contextlib.contextmanager
  def _user_errors(self):
    """Raises what a user can mend in place of what TensorFlow makes of it."""
    try:
      yield
    except tf.errors.OpError as error:
      for source in (self._train_input, self._eval_input, self._predict_input):
        if source and source.error:
          raise source.error from error
      full = keyed_table.full_message(error.message)
      if full:
        raise errors.UserError(full) from error
      failed = _DISK.search(error.message)
      owner = failed and self._whose(failed.group(1))
      if owner:
        raise self._disk_error(owner, *failed.groups()) from error
      raise
    except OSError as error:  # a write to an open file does not say which
      path = str(error.filename or self._config.model_dir)
      owner = error.errno in _DISK_ERRORS and self._whose(path)
      if owner:
        raise self._disk_error(owner, path, error.strerror) from error
      raise

  def _whose(self, path):
    """The binding that a path to write to comes from, or None."""
    for name, own in [('model_dir', self._config.model_dir),
                      ('predictions_path', self._predictions_path)]:
      if os.path.abspath(path).startswith(os.path.abspath(own)):
        return 'Experiment.' + name
    return None

  def _disk_error(self, owner, path, text):
    step = marker.latest_step(self._config.model_dir)
    return errors.UserError(
        '%s must have room and be writable: %s: %s. %s' % (
            owner, path, text, 'There is no checkpoint yet.' if step is None
            else 'The checkpoint of step %d is whole: the same command goes on '
            'from it.' % step))
