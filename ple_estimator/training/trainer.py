"""Trains a run in one process: its role, its training loop, and its end.

In a cluster the chief trains, and when the training is over it

  1. writes `trained.json` to model_dir, which tells the evaluator to end after
     the last checkpoint, and a worker that starts late to end at once;
  2. waits until that checkpoint is evaluated and exported by the evaluator, or
     does both itself if there is no evaluator;
  3. tells the parameter servers to end, and ends.

So all results are there when the process of the chief has ended.
"""

import collections
import contextlib
import functools
import os

from absl import logging
import gin.tf
import tensorflow.compat.v1 as tf

from ple_estimator import files
from ple_estimator.cluster import marker
from ple_estimator.cluster import parameter_servers
from ple_estimator.cluster import roles
from ple_estimator.cluster import watch as watch_lib
from ple_estimator.metrics import chosen
from ple_estimator.training import early_stopping
from ple_estimator.training import ending
from ple_estimator.training import estimator as estimator_lib
from ple_estimator.training import evaluated_rows
from ple_estimator.training import evaluation
from ple_estimator.training import evaluator
from ple_estimator.training import hooks
from ple_estimator.training import hparams
from ple_estimator.training import input_state
from ple_estimator.training import intervals
from ple_estimator.training import losses
from ple_estimator.training import model_dir as model_dir_lib
from ple_estimator.training import starting_vectors
from ple_estimator.training import summary

Schedule = collections.namedtuple('Schedule', [
    'max_steps', 'eval_steps', 'eval_epochs', 'eval_secs', 'results',
    'timeline_steps', 'hooks', 'incremental', 'peer_timeout_secs',
    'on_changed_files', 'warm_start', 'metrics', 'has_test'])
Schedule.__doc__ = """When what happens in a run; see Experiment.

Attributes:
  max_steps: int, the global step to stop at; 0 is the end of the rows.
  eval_steps: int, global steps between evaluations, or None.
  eval_epochs: number, epochs between evaluations, or None.
  eval_secs: number, least seconds between evaluations.
  results: evaluation.Results, what is done with the metrics.
  timeline_steps: int, global steps between profiles; 0 makes none.
  hooks: list of tf.train.SessionRunHook, the user's own.
  incremental: incremental.IncrementalCheckpoint or None.
  peer_timeout_secs: number, seconds without progress before giving up.
  on_changed_files: 'error' or 'restart'.
  warm_start: warm_start.WarmStart or None.
  metrics: metrics.chosen.Metrics.
  has_test: bool, whether there are rows for mode test.
"""


class Trainer:
  """Trains one run in this process, whatever its role in a cluster is."""

  def __init__(self, model, train_input, eval_input, config, role, engine,
               schedule, work_queue=None):
    """Reads no data and builds no graph.

    Args:
      model: model.Model.
      train_input: inputs.ParquetInput or inputs.CsvInput.
      eval_input: the same, or None to train without evaluations.
      config: tf.estimator.RunConfig.
      role: roles.Role of this process.
      engine: forms.Engine.
      schedule: Schedule.
      work_queue: work_queue.WorkQueue, or None.
    """
    self._model = model
    self._train_input = train_input
    self._eval_input = eval_input
    self._config = config
    self._role = role
    self._engine = engine
    self._schedule = schedule
    self._work_queue = work_queue
    self._vectors = starting_vectors.of(model)
    self._input_state = None if work_queue else input_state.InputState(
        train_input, config, schedule.on_changed_files)
    # Set by `run`.
    self._watch = self._rows = None
    self._max_steps = self._epochs = self._evaluations = None
    self.model_fn = estimator_lib.ModelFn(
        model, engine, role.is_local, train_input.prefetch,
        work_queue or self._input_state, bool(schedule.incremental),
        self._saver_hooks, schedule.warm_start, train_input, self._vectors)
    self.estimator = tf.estimator.Estimator(
        self.model_fn, config.model_dir, config)
    # TensorFlow's own answer is None if the file `checkpoint` was lost.
    self.estimator.latest_checkpoint = functools.partial(
        marker.latest_checkpoint, config.model_dir)
    self._ending = ending.Ending(
        config.model_dir, schedule.results, config.is_chief)
    self._evaluation = evaluation.Evaluation(
        self.estimator, self._evaluators(), model.tasks, schedule.results,
        lambda: self._watch.pause())

  # ------------------------------------------------------------- the role

  def run(self):
    """Runs the role of this process until the role has ended.

    Raises:
      UserError: if the data cannot be used, model_dir holds another model, or
        the other processes of a cluster cannot be reached.
    """
    if self._role.type == 'ps':
      self._serve()
      return
    self._evaluation.start()
    with self._prepared(), self._watching(), self._handing_out():
      if self._role.type == 'evaluator':
        self._evaluate_checkpoints()
        return
      if not self._role.is_local:
        self._server = roles.server(self._config)  # until this process ends
      if self._ending.is_to_train(self._max_steps):
        self._train()
      if self._role.type == 'chief':
        self._end()

  def _serve(self):
    """Runs a parameter server until the job is done."""
    model_dir_lib.prepare(self._config.model_dir)
    self._model.is_fused()  # loads the kernels: the chief may place them here
    parameter_servers.serve(
        self._config, self._role.peers(), self._schedule.peer_timeout_secs)

  @contextlib.contextmanager
  def _prepared(self):
    """Looks at the data and at model_dir, which is this run's until it ends."""
    self._check_data()
    if self._role.type != 'worker':  # a worker writes nothing
      model_dir_lib.prepare(self._config.model_dir)
    with contextlib.ExitStack() as stack:
      if self._config.is_chief:
        stack.enter_context(model_dir_lib.owned(self._config.model_dir))
      self._look_at_warm_start()
      self._look_at_vectors()
      self._say_what_is_to_be_done()
      yield

  def _look_at_warm_start(self):
    """Finds what the training starts from, or says that it goes on."""
    model_dir, warm_start = self._config.model_dir, self._schedule.warm_start
    if not warm_start:
      return
    step = marker.latest_step(model_dir)
    if step is None:
      warm_start.find(model_dir)
    elif self._config.is_chief:
      logging.info('Experiment.warm_start is not used: %s holds a checkpoint '
                   'of step %d, and training goes on from it.',
                   files.shown(model_dir), step)

  def _look_at_vectors(self):
    """Reads the vectors that the training starts from, or says why not."""
    if not self._vectors or not self._config.is_chief:
      return
    if marker.latest_step(self._config.model_dir) is None:
      self._vectors.read()
      if self._schedule.warm_start:
        logging.info('Experiment.warm_start goes before the vectors of files: '
                     'rows that it takes start from the older model.')
    else:
      logging.info('The vectors of files are not read (%s): training goes on '
                   'from a checkpoint.', ', '.join(self._vectors.columns))

  def _check_data(self):
    """Looks at the data, which say where the training ends."""
    reading = self._model.training_reading()
    self._train_input.check(reading)
    if self._eval_input:
      self._eval_input.check(self._model.reading())
    state, source = self._input_state, self._train_input
    if state:
      state.prepare(reading)
    self._rows = state.num_rows() if state else source.count_rows(reading)
    self._epochs = intervals.epochs(
        self._rows, source.batch_size, state.first_step() if state else 0)
    self._max_steps = self._schedule.max_steps or (
        state.last_step() if state else self._epochs.end(source.epochs))
    self._plan_evaluations()

  def _plan_evaluations(self):
    """Settles how often to evaluate, which the length of an epoch says."""
    schedule, rule = self._schedule, self._schedule.results.early_stopping
    if rule:
      rule.measure(self._epochs)
    if self._eval_input and schedule.eval_epochs:
      self._evaluations = self._epochs.interval(schedule.eval_epochs)
    elif self._eval_input and schedule.eval_steps:
      self._evaluations = intervals.Interval(schedule.eval_steps, 0)

  def _say_what_is_to_be_done(self):
    model_dir = self._config.model_dir
    logging.info('%s%s; %d training rows; to step %d; results in %s',
                 self._engine.describe(),
                 ', fused kernels' if self._model.is_fused() else '',
                 self._rows, self._max_steps, files.shown(model_dir))
    if self._input_state:
      self._input_state.say()
    step, last = marker.latest_step(model_dir), self._last_step()
    if last and step is not None and step >= last:
      logging.info('Trained to step %d before. To train on, raise '
                   'Experiment.max_steps or the epochs of the input, or name '
                   'new files.', step)
    elif self._input_state and self._role.is_local and (
        self._input_state.is_at_end()):
      logging.warning('No row is left to read, so nothing is trained: all '
                      'epochs of all files were read by step %s. Raise the '
                      'epochs of the input, or name new files.', step)

  def _last_step(self):
    """The global step at which training stops; None if the data end it.

    A work queue has more batches than rows / batch_size: the last batch of each
    process is not full, and the slices of a lost process are trained again.
    """
    by_data = self._work_queue and not self._schedule.max_steps
    return None if by_data else self._max_steps

  @contextlib.contextmanager
  def _watching(self):
    """Handles SIGTERM, and ends this process if it waits for lost ones."""
    def is_over():
      return self._role.type == 'worker' and self._trained_step() is not None

    with watch_lib.Watch(
        self._role.peers(), self._schedule.peer_timeout_secs, is_over,
        self._save if self._config.is_chief else None) as self._watch:
      yield

  @contextlib.contextmanager
  def _handing_out(self):
    """Gives slices back to the work queue when the training ends."""
    try:
      yield
    finally:
      if self._work_queue:
        self._work_queue.close()

  # ------------------------------------------------------------- the loop

  def _train(self):
    """Trains, as the chief or a worker, until the training ends."""
    model_dir, is_chief = self._config.model_dir, self._config.is_chief
    before = marker.latest_step(model_dir) or 0
    if is_chief:
      marker.remove_mark(model_dir)
    if self._has_missed(before):
      self._evaluation.run()
      if self._ending.stopped():
        return
    self.estimator.train(
        self._training_input_fn, self._hooks(), max_steps=self._last_step())
    if is_chief:
      self._ending.check_trained(
          before, marker.latest_step(model_dir) or 0, self._last_step(),
          self._train_input.batch_size)

  def _has_missed(self, step):
    """Whether a run was killed when the evaluation of a checkpoint was due.

    Args:
      step: int, the global step of the checkpoint that training goes on from.
    """
    if not (step and self._eval_input and self._config.is_chief) or (
        self._role.has_evaluator or self._schedule.eval_secs):
      return False
    last = self._schedule.results.evaluations.last
    if last and last['global_step'] >= step:
      return False
    return (self._evaluations.is_due(step - 1, step) if self._evaluations else
            step % self._config.save_checkpoints_steps == 0)

  def input_fn(self):
    """What a training that starts now reads, to be looked at.

    Returns:
      tf.data.Dataset of (features, labels). A run that continues goes on behind
      the rows that its checkpoint was trained on.
    """
    if self._input_state:
      self._input_state.prepare(self._model.training_reading())
    return self._dataset()

  def _training_input_fn(self):
    """As `input_fn`, with the numbers by which batches are followed."""
    return self._dataset(self._input_state and self._input_state.iterate)

  def _dataset(self, follow=None):
    model, config = self._model, self._config
    reading = model.training_reading()
    if self._work_queue:
      self._work_queue.start(config, self._train_input, reading)
    slices = self._engine.slices(model.micro_batches)
    return self._train_input.dataset(
        reading, shard=roles.shard(config), seed=config.tf_random_seed,
        parts=self._input_state and self._input_state.parts,
        micro_batches=model.micro_batches if slices else 1,
        queue=self._work_queue, follow=follow)

  def evaluate_by(self, evaluate):
    """Evaluates checkpoints in another way than by Estimator's graph.

    Args:
      evaluate: like evaluator.Evaluator; it gives the metrics that decide.
    """
    self._evaluation.evaluators = {'': evaluate}

  def _evaluators(self):
    """What evaluates a checkpoint, see Evaluation."""
    metrics, tasks = self._schedule.metrics, self._model.tasks
    rows = evaluated_rows.EvaluatedRows(
        metrics, tasks, evaluated_rows.path_of(self._config.model_dir, 'eval'),
        self._eval_input)
    found = {'': evaluator.Evaluator(
        self.estimator, lambda: self._eval_input.dataset(
            self._model.reading(rows.columns),
            seed=self._config.tf_random_seed), rows)}
    if metrics.train_rows:
      found['/train'] = evaluator.Evaluator(
          self.estimator, self._training_sample, evaluated_rows.EvaluatedRows(
              chosen.Metrics(keep_rows=0), tasks), 'train')
    return found

  def _training_sample(self):
    """The first training rows, as evaluations read rows."""
    source = self._train_input.as_it_is()
    batches = -(-self._schedule.metrics.train_rows // source.batch_size)
    return source.dataset(
        self._model.reading(), seed=self._config.tf_random_seed).take(batches)

  def _hooks(self):
    """The hooks that need no Saver, in the order in which they are called."""
    config, schedule = self._config, self._schedule
    added = [
        losses.LossesHook(
            self._model.tasks, config.model_dir, max(
                config.save_checkpoints_steps,
                self._evaluations.steps if self._evaluations else 0)),
        hooks.ProgressHook(
            [task.name for task in self._model.tasks], self._max_steps,
            self._train_input.batch_size, config.save_summary_steps,
            folder=config.model_dir if config.is_chief else None)]
    if self._work_queue:
      added.append(self._work_queue.hook(config.save_summary_steps))
    else:
      added.append(self._input_state.hook())
    if config.is_chief:
      added += [gin.tf.GinConfigSaverHook(config.model_dir),
                hparams.StartHook(config.model_dir)]
      if schedule.timeline_steps:
        added.append(tf.train.ProfilerHook(
            save_steps=schedule.timeline_steps, output_dir=config.model_dir))
    elif not self._role.is_local:
      added.append(watch_lib.WaitForCheckpoint(
          config.model_dir, config.save_checkpoints_steps, self._watch))
      if schedule.warm_start or self._vectors:
        added.append(watch_lib.WaitForStart(config.model_dir, self._watch))
    return added + schedule.hooks + [self._watch]

  def _saver_hooks(self, saver):
    """The hooks that need the Saver of a graph; called as it is built.

    They are called after those of `_hooks`. So what is known of the rows that
    were trained includes a step before a checkpoint of it is saved. Early
    stopping comes after the evaluation, so that no step is made in between.
    """
    self._saver = saver
    config, results = self._config, self._schedule.results
    stops = [early_stopping.StopHook(
        results.early_stopping, results.evaluations)
            ] if results.early_stopping else []
    if not config.is_chief:
      return stops
    deltas = [self._schedule.incremental.hook(config.model_dir, saver)
              ] if self._schedule.incremental else []
    evaluates = self._eval_input and not self._role.has_evaluator
    listeners = [evaluation.EvaluateSaved(
        self._evaluation, self._schedule.eval_secs)] if evaluates else []
    return deltas + [hooks.CheckpointHook(
        config.model_dir, saver, config.save_checkpoints_steps,
        self._evaluations, listeners)] + stops

  def _save(self, session):
    self._saver.save(session, os.path.join(self._config.model_dir,
                                           'model.ckpt'),
                     tf.train.get_global_step())

  # -------------------------------------------------------------- the end

  def _trained_step(self):
    return self._ending.trained_step(self._max_steps)

  def _evaluate_checkpoints(self):
    """Evaluates checkpoints, as the evaluator, until the last is evaluated."""
    if self._eval_input:  # else there is nothing to do
      evaluation.until_trained(
          self._evaluation, self._config.model_dir, self._trained_step,
          self._evaluations or intervals.Interval(1, 0),
          self._schedule.eval_secs, self._watch)

  def _end(self):
    """Ensures the last evaluation, then tells the other processes to end."""
    model_dir = self._config.model_dir
    step, stopped = marker.latest_step(model_dir), self._ending.stopped()
    if not self._role.is_alone:
      marker.mark_trained(model_dir, self._max_steps, step, stopped)
    if self._eval_input and not self._is_evaluated(step):
      self._evaluation.run(is_final=True)
    self._ending.note(step, self._max_steps, stopped)
    hparams.end(model_dir, self._schedule.results)
    self._say_what_was_reached()
    if not self._role.is_local:
      parameter_servers.end_parameter_servers(self._config)

  def _say_what_was_reached(self):
    said = self._eval_input and summary.text(
        self._schedule.results.evaluations, self._model.tasks,
        self._eval_input, self._config.model_dir, self._schedule.has_test)
    if said:
      logging.info('Of the rows of Experiment.eval_input:\n%s', said)

  def _is_evaluated(self, step):
    """Whether the checkpoint of a step is evaluated; waits for an evaluator."""
    return self._evaluation.step == step or (
        self._role.has_evaluator and evaluation.is_done_elsewhere(
            self._schedule.results.evaluations, step,
            self._schedule.peer_timeout_secs, self._watch))
