"""Experiment, the root of every .gin file: train, evaluate, predict, export."""

import os

from absl import logging
import gin
import tensorflow.compat.v1 as tf

from ple_estimator import components  # noqa: F401, all that can be bound
from ple_estimator import errors
from ple_estimator import files
from ple_estimator import model as model_lib
from ple_estimator.cluster import marker
from ple_estimator.cluster import roles
from ple_estimator.cluster.work_queue import work_queue as work_queue_lib
from ple_estimator.data import input_files
from ple_estimator.data import inputs
from ple_estimator.data import predictions
from ple_estimator.data import serving
from ple_estimator.embeddings import keyed_table
from ple_estimator.engine import forms
from ple_estimator.metrics import chosen
from ple_estimator.storage import uris
from ple_estimator.training import answering
from ple_estimator.training import checkpoints
from ple_estimator.training import comparison
from ple_estimator.training import daily as daily_lib
from ple_estimator.training import disk
from ple_estimator.training import early_stopping as early_stopping_lib
from ple_estimator.training import estimator
from ple_estimator.training import evaluated_rows
from ple_estimator.training import evaluation
from ple_estimator.training import evaluations as evaluations_lib
from ple_estimator.training import evaluator
from ple_estimator.training import exports as exports_lib
from ple_estimator.training import incremental as incremental_lib
from ple_estimator.training import metrics_file
from ple_estimator.training import model_dir as model_dir_lib
from ple_estimator.training import trainer
from ple_estimator.training import warm_start as warm_start_lib

_NUM_INPUTS = 4  # those that are bound
_EVAL_EPOCHS = 1  # between evaluations, if nothing is bound


@gin.configurable
class Experiment:
  """One run, from data to a served model; each method is a --mode of run.py.

  What it writes to model_dir: checkpoints, the best of them in best/, event
  files (training in model_dir itself, its evaluations in eval/, those of modes
  evaluate and test in eval_evaluate/ and eval_test/, what TensorBoard's table
  of runs has in hparams/), metrics.json, test.json,
  operative_config-<step>.gin, evaluations.json, predictions, export/, input/
  and, if asked for, timelines, incremental/ and work_queue/.

  Attributes:
    model: model.Model.
    model_dir: str.
    metrics: chosen.Metrics.
    trainer: training.trainer.Trainer.
  """

  def __init__(self,
               model=gin.REQUIRED,
               train_input=gin.REQUIRED,
               eval_input=gin.REQUIRED,
               model_dir=gin.REQUIRED,
               run_config=gin.REQUIRED,
               test_input=None,
               predict_input=None,
               predict_columns=(),
               predictions_path='predictions.parquet',
               max_steps=0,
               eval_steps=None,
               eval_epochs=None,
               eval_secs=0,
               early_stopping=None,
               exports=None,
               timeline_steps=0,
               hooks=(),
               incremental=None,
               peer_timeout_secs=1800,
               engine=None,
               work_queue=None,
               on_changed_files='error',
               warm_start=None,
               daily=None,
               metrics=None):
    """Checks the bindings; reads no data and builds no graph.

    Args:
      model: model.Model.
      train_input: inputs.ParquetInput or inputs.CsvInput.
      eval_input: the same, for evaluation: the validation rows, by which
        early stopping and the best checkpoint go; None trains without
        evaluating.
      model_dir: str, where all results go; run.py sets result/<gin file name>.
      run_config: function of model_dir to a tf.estimator.RunConfig, e.g.
        roles.run_config.
      test_input: the same, for mode test: rows that decide nothing. No other
        mode reads them. None has no mode test.
      predict_input: the same as train_input, for prediction; None predicts
        the rows of eval_input.
      predict_columns: names of input columns to copy to the predictions.
      predictions_path: str, ending in .parquet or .csv; relative to model_dir.
      max_steps: int, the global step to stop at; 0 is where all epochs of all
        rows of train_input are read, or where work_queue ends.
      eval_steps: int, global steps between evaluations: at its multiples a
        checkpoint is saved and evaluated; 0 evaluates every checkpoint that
        run_config.save_steps saves.
      eval_epochs: number above 0, the same in epochs of train_input, which need
        not be whole. With neither of the two it is 1.
      eval_secs: int, least seconds between evaluations.
      early_stopping: early_stopping.EarlyStopping; None trains to max_steps.
      exports: exports.Exports; None exports only in mode export. The best
        checkpoint is that by Exports.best_metric, without exports by
        EarlyStopping.metric, and without both by the loss.
      timeline_steps: int, global steps between profiles, written to
        model_dir/timeline-<step>.json for chrome://tracing; 0 writes none.
      hooks: list of tf.train.SessionRunHook of your own, for training.
      incremental: incremental.IncrementalCheckpoint, what to save between
        checkpoints; None saves nothing.
      peer_timeout_secs: int, in a cluster, seconds without any progress after
        which the process gives up, because the parameter servers or the chief
        do not answer. It must be more than saving a checkpoint takes.
      engine: forms.Engine, which of DeepRec's forms are used; None is
        Engine('auto').
      work_queue: work_queue.WorkQueue, which hands out slices of train_input
        to whichever process is free; None gives each process its own share.
      on_changed_files: what to do, when training continues, with a file of
        train_input that has other bytes than when it was read: 'error' refuses
        it, 'restart' reads it from its first row as a new file.
      warm_start: warm_start.WarmStart, the older model whose variables a
        training starts from where model_dir has no checkpoint; None starts
        from initial values.
      daily: daily.Daily, what a day is and when its model is exported, for mode
        daily.
      metrics: chosen.Metrics, what evaluations measure beside the usual, and
        the rows that they keep; None is Metrics().

    Raises:
      UserError: if a value is out of range or names an unknown metric.
    """
    for name, value in [
        ('max_steps', max_steps), ('eval_secs', eval_secs),
        ('timeline_steps', timeline_steps),
        ('peer_timeout_secs', peer_timeout_secs)]:
      errors.check_integer('Experiment.' + name, value, 0)
    _check_intervals(eval_steps, eval_epochs)
    if eval_steps is None and eval_epochs is None:
      eval_epochs = _EVAL_EPOCHS
    _check_parts(model, early_stopping, exports, incremental, engine,
                 work_queue, hooks, warm_start, daily, metrics)
    _check_inputs(train_input, eval_input, test_input, predict_input)
    errors.check_choice('Experiment.on_changed_files', on_changed_files,
                        ('error', 'restart'))
    model_dir = _checked_folder(model_dir)
    _check_predictions(predict_columns, predictions_path, model)
    self.metrics = metrics or chosen.Metrics()
    _check_evaluations(eval_input, early_stopping, exports, daily, model,
                       self.metrics)
    self.model = model
    self.model_dir = model_dir
    self._inputs = [train_input, eval_input, test_input, predict_input]
    self._train_input = train_input
    self._eval_input = eval_input
    self._test_input = test_input
    self._predict_input = predict_input or eval_input
    self._predict_columns = tuple(predict_columns)
    self._predictions_path = os.path.join(model_dir, predictions_path)
    self._engine = engine = engine or forms.Engine()
    _leave_out(engine, model, incremental, warm_start)
    role = roles.role()
    self._daily = daily
    self._no_daily = _no_daily(
        role, max_steps, early_stopping, work_queue) if daily else None
    _check_cluster(model_dir, role)
    self._config = estimator.config_for(
        _configured(run_config, files.without_pattern(model_dir)),
        model.is_fused())
    engine.configure(
        self._config.session_config, model.op_fusion, train_input.prefetch,
        model.micro_batches)
    self.trainer = trainer.Trainer(
        model, train_input, eval_input, self._config, role, engine,
        trainer.Schedule(
            max_steps, eval_steps, eval_epochs, eval_secs,
            self._results(early_stopping, exports), timeline_steps,
            list(hooks), incremental, peer_timeout_secs, on_changed_files,
            warm_start, self.metrics, bool(test_input)),
        work_queue)
    self._estimator = self.trainer.estimator

  def train(self):
    """Trains to max_steps, evaluating on the way and at the end.

    Continues from the last checkpoint of model_dir. In a cluster (TF_CONFIG)
    this is what each process calls, whatever its role; see trainer.Trainer.

    Raises:
      UserError: if the data cannot be used, model_dir holds another model, or
        the other processes of a cluster cannot be reached.
    """
    self.trainer.model_fn.reads = None
    with self._user_errors():
      self.trainer.run()

  def _results(self, early_stopping, exports):
    """What is done with the metrics of an evaluation of training."""
    rule = exports or early_stopping
    found = evaluations_lib.Evaluations(self.model_dir, [
        of.metric for of in (early_stopping, exports) if of])
    return evaluation.Results(
        found, exports_lib.BestCheckpoint(
            self.model_dir, rule.metric if rule else 'loss', found),
        early_stopping,
        exports.exporters(self._receiver_fn(), found) if exports else [])

  def evaluate(self, checkpoint='last'):
    """Evaluates a checkpoint and writes metrics.json.

    What is trained later, and which checkpoint is best, do not go by it.

    Args:
      checkpoint: 'last'; 'best', see `exports`; or the path of a checkpoint,
        such as 'result/base/model.ckpt-20'.

    Returns:
      dict of metric name to float, None where it is not a number, and of
      'global_step' to int: what metrics.json holds.

    Raises:
      UserError: if there is no such checkpoint, the data cannot be used, or a
        prediction is not finite.
    """
    path = self._checkpoint(checkpoint)
    errors.check(self._eval_input,
                 'Experiment.eval_input must be given to evaluate, got None.')
    found = self._measured(path, self._eval_input, 'evaluate',
                           'Experiment.eval_input')
    return metrics_file.write(self.model_dir, found)

  def test(self, checkpoint=None):
    """Evaluates a checkpoint on the rows of test_input, into test.json.

    Nothing goes by it: choose by evaluations, then test once.

    Args:
      checkpoint: see `evaluate`; None is the best one if training has kept
        one, and the last otherwise.

    Returns:
      dict, what test.json holds: as `evaluate`.

    Raises:
      UserError: as `evaluate`.
    """
    path = self._checkpoint(checkpoint or self.best_or_last())
    errors.check(self._test_input,
                 'Experiment.test_input must be given to test, got None.')
    found = self._measured(path, self._test_input, 'test',
                           'Experiment.test_input')
    return metrics_file.write(self.model_dir, found, 'test.json', 'test')

  def _measured(self, path, source, name, binding):
    """The metrics of a checkpoint on the rows of an input; see `evaluate`."""
    rows = evaluated_rows.EvaluatedRows(
        self.metrics, self.model.tasks, {
            'evaluate': evaluated_rows.path_of(self.model_dir, 'eval'),
            'test': evaluated_rows.path_of(self.model_dir, 'test'),
        }.get(name), source)
    reading = self.model.reading(rows.columns)
    source.check(reading)
    with self._user_errors():
      found = evaluator.Evaluator(
          self._estimator, lambda: self._dataset(source, reading), rows,
          name)(path)
      metrics_file.check_values(found, self.model.tasks, binding)
    return found

  def daily(self):
    """Evaluates, trains and exports each new day of train_input.

    See training/daily.py. A day that is done is not done again; one that was
    begun goes on.

    Returns:
      list of dict, one per day, as daily.json has them.

    Raises:
      UserError: as `train`, or if the files are not of days.
    """
    errors.check(self._daily, 'Experiment.daily must be given for mode daily, '
                 'such as @Daily() (gin/daily.gin), got None.')
    errors.check(not self._no_daily, '%s', self._no_daily)
    source, paths = self._train_input, self._train_input.paths()
    model_dir_lib.prepare(self._config.model_dir)

    def train(of_day):
      source.selection = of_day
      self.train()

    try:
      return self._daily.run(self.model_dir, paths, daily_lib.Actions(
          self._evaluated_on, train, self._gate, self.export,
          lambda: marker.latest_step(self._config.model_dir)))
    finally:
      source.selection = None

  def _evaluated_on(self, paths):
    """The metrics of the last checkpoint on training files, for Daily."""
    source = self._train_input.of(paths).as_it_is()
    self._inputs = self._inputs[:_NUM_INPUTS] + [source]
    found = metrics_file.as_json(self._measured(
        self._checkpoint('last'), source, 'daily', 'Experiment.train_input'))
    return {name: value for name, value in found.items()
            if not name.startswith('gate/')}

  def _gate(self):
    """The metrics of the last checkpoint on eval_input, for Daily, or None."""
    if not self._eval_input:
      return None
    evaluations = evaluations_lib.Evaluations(self.model_dir)
    evaluations.read()
    last = evaluations.last or {}
    if last and last['global_step'] == marker.latest_step(
        self._config.model_dir):
      return last
    return metrics_file.as_json(self._measured(
        self._checkpoint('last'), self._eval_input, 'evaluate',
        'Experiment.eval_input'))

  def predict(self, checkpoint='last'):
    """Writes one column of predictions per task, beside predict_columns.

    Args:
      checkpoint: see `evaluate`.

    Returns:
      predictions.Predictions: the path of the file and the number of its rows;
      its method `batches` reads the rows back.

    Raises:
      UserError: if there is no such checkpoint, the data cannot be used, or a
        prediction is not finite; then there is no file.
    """
    path = self._checkpoint(checkpoint)
    errors.check(self._predict_input, 'Experiment.predict_input or eval_input '
                 'must be given to predict, got None.')
    reading = self.model.reading()._replace(
        keep=self._predict_columns, with_labels=False)
    self._predict_input.check(reading)
    names = self._predict_columns + tuple(t.name for t in self.model.tasks)
    with self._user_errors():
      batches = predictions.finite(
          self._predicted(path, self._predict_input, reading),
          [task.name for task in self.model.tasks])
      written = predictions.write(self._predictions_path, (
          {name: batch[name] for name in names} for batch in batches))
    logging.info('%d rows of predictions in %s', written.num_rows, written.path)
    return written

  def _predicted(self, path, source, reading):
    return self._estimator.predict(
        lambda: self._dataset(source, reading), checkpoint_path=path,
        yield_single_examples=False)

  def predictions_of(self, source, checkpoint='last'):
    """Yields what mode predict would write of an input, and writes nothing.

    Args:
      source: inputs.FileInput, such as `rows_of` returns.
      checkpoint: see `evaluate`.

    Yields:
      dict of task name to [batch] or [batch, n] float32 numpy array.

    Raises:
      UserError: if there is no such checkpoint, or the data cannot be used.
    """
    path = self._checkpoint(checkpoint)
    reading = self.model.reading()._replace(keep=(), with_labels=False)
    source.check(reading)
    with self._user_errors():
      for batch in self._predicted(path, source, reading):
        yield {task.name: batch[task.name] for task in self.model.tasks}

  def opened(self, build, checkpoint='last'):
    """Builds a graph on the columns of rows, with the values of a checkpoint.

    Args:
      build: function of (features, engine), see Model.opened, to a dict of name
        to [batch, ...] tensor, which builds the graph.
      checkpoint: see `evaluate`.

    Returns:
      answering.Answering, whose outputs are what `build` returns. Like
      predictions it has the averaged weights, if there are some.

    Raises:
      UserError: if there is no such checkpoint.
    """
    path = self._checkpoint(checkpoint)
    with self._user_errors():
      return answering.of_checkpoint(
          path, self._receiver_fn(),
          lambda features: build(features, self._engine),
          lambda: self.trainer.model_fn.scaffold(self._config),
          self._config.session_config)

  def own_rows(self, name):
    """The rows of an input of this run, once and in their order.

    Args:
      name: 'eval' or 'test'.

    Returns:
      inputs.FileInput.

    Raises:
      UserError: if there is no such input.
    """
    source = {'eval': self._eval_input, 'test': self._test_input}[name]
    errors.check(source, 'Experiment.%s_input must be given to read its rows, '
                 'got None. Name a file of rows.', name)
    return self._once(source)

  def _once(self, source):
    """An input that reads the rows of another one once and in their order."""
    source = source.as_it_is()
    source.drop_remainder = False
    self._inputs = self._inputs[:_NUM_INPUTS] + [source]
    return source

  def rows_of(self, entry):
    """An input that reads files once and in order, as this run reads its own.

    Args:
      entry: str, a file, folder or pattern. CSV files of a run that reads
        Parquet must have a header.

    Returns:
      inputs.FileInput.

    Raises:
      UserError: if there are no such files.
    """
    own = self._eval_input or self._train_input
    if isinstance(own, inputs.ParquetInput) == entry.endswith('.parquet'):
      source = own.of(input_files.find('.', entry, own.suffix, 'FILE'))
    elif entry.endswith('.parquet'):
      source = inputs.ParquetInput(entry)
    else:
      source = inputs.CsvInput(entry, header=True)
    return self._once(source)

  def best_or_last(self):
    """'best' if training has kept a best checkpoint, otherwise 'last'."""
    return 'best' if exports_lib.best_checkpoint(
        self._config.model_dir) else 'last'

  def checkpoint_of(self, step):
    """What `checkpoint` of the other methods is for a global step.

    Args:
      step: int.

    Returns:
      str, 'last' or the path of a checkpoint.

    Raises:
      UserError: if no checkpoint of that step is left.
    """
    folder = self._config.model_dir
    for path in [files.checkpoint_path(folder, step),
                 exports_lib.best_checkpoint(folder)]:
      if path and path.endswith('-%d' % step) and os.path.isfile(
          path + '.index'):
        return path
    newest = incremental_lib.merged(checkpoints.whole(folder)) if (
        checkpoints.whole(folder)) else None
    errors.check(
        newest and tf.train.load_checkpoint(newest).get_tensor(
            'global_step') == step, '%s has no checkpoint of step %d any more. '
        'Name one with --checkpoint, or export again.', self.model_dir, step)
    return 'last'

  def export(self, checkpoint='last'):
    """Writes a SavedModel of a checkpoint to export/saved_model.

    Args:
      checkpoint: see `evaluate`.

    Returns:
      str, the folder of the SavedModel.

    Raises:
      UserError: if there is no such checkpoint.
    """
    checkpoint = self._checkpoint(checkpoint)
    with self._user_errors():
      path = self._estimator.export_saved_model(
          os.path.join(self.model_dir, 'export', 'saved_model'),
          self._receiver_fn(), checkpoint_path=checkpoint).decode()
    logging.info('SavedModel in %s', path)
    return path

  def _receiver_fn(self):
    return serving.input_receiver_fn(self.model.reading())

  def _dataset(self, source, reading):
    return source.dataset(reading, seed=self._config.tf_random_seed)

  def _checkpoint(self, which):
    """The path of the checkpoint that is asked for; UserError without it."""
    path, self.trainer.model_fn.reads = which, None
    if which == 'last':
      path = checkpoints.whole(self._config.model_dir)
      errors.check(
          path, 'Experiment.model_dir must hold a checkpoint: nothing at %s. '
          'Train first.', os.path.abspath(self.model_dir))
      path = incremental_lib.merged(path)
    elif which == 'best':
      path = exports_lib.best_checkpoint(self._config.model_dir)
      errors.check(
          path, "checkpoint = 'best' needs a training with Experiment."
          "eval_input, which keeps it in %s. Choose 'last' or a path.",
          os.path.join(os.path.abspath(self.model_dir), 'best'))
    else:
      errors.check(
          isinstance(which, str) and os.path.isfile(which + '.index'),
          "checkpoint must be 'last', 'best' or the path of a checkpoint "
          "without an ending, such as '%s', got %r.", files.checkpoint_path(
              self.model_dir, 20), which)
    if which != 'last':
      self.trainer.model_fn.reads = path
      logging.info('Reading the checkpoint %s', path)
    return path

  def _user_errors(self):
    """Raises UserErrors in place of TensorFlow's, where a user can help."""
    return errors.translated(
        self._of_input, keyed_table.full_error,
        checkpoints.translator(self._config.model_dir), disk.translator(
            self._config.model_dir, [
                ('Experiment.model_dir', self.model_dir),
                ('Experiment.model_dir', self._config.model_dir),
                ('Experiment.predictions_path', self._predictions_path)]))

  def _of_input(self, error):
    """The UserError of an input, if TensorFlow has raised its own instead."""
    if not isinstance(error, tf.errors.OpError):
      return None
    return next((source.error for source in self._inputs
                 if source and source.error), None)


def _check_parts(model, early_stopping, exports, incremental, engine,
                 work_queue, hooks, warm_start, daily, metrics):
  errors.check_is_a('Experiment.model', model, model_lib.Model, '@Model()')
  for name, value, kind in [
      ('early_stopping', early_stopping, early_stopping_lib.EarlyStopping),
      ('exports', exports, exports_lib.Exports),
      ('incremental', incremental, incremental_lib.IncrementalCheckpoint),
      ('engine', engine, forms.Engine),
      ('work_queue', work_queue, work_queue_lib.WorkQueue),
      ('warm_start', warm_start, warm_start_lib.WarmStart),
      ('daily', daily, daily_lib.Daily),
      ('metrics', metrics, chosen.Metrics)]:
    errors.check_is_a('Experiment.' + name, value, kind,
                      '@%s()' % kind.__name__, or_none=True)
  errors.check_list(
      'Experiment.hooks', hooks,
      lambda hook: isinstance(hook, tf.train.SessionRunHook),
      'tf.train.SessionRunHook, such as [@MyHook()]', may_be_empty=True)


def _check_inputs(train_input, eval_input, test_input, predict_input):
  for name, value in [('train_input', train_input), ('eval_input', eval_input),
                      ('test_input', test_input),
                      ('predict_input', predict_input)]:
    errors.check_is_a('Experiment.' + name, value, inputs.FileInput,
                      '@ParquetInput()', or_none=name != 'train_input')


def _check_intervals(eval_steps, eval_epochs):
  errors.check_integer('Experiment.eval_steps', eval_steps, 0, or_none=True)
  errors.check_number('Experiment.eval_epochs', eval_epochs, above=0,
                      or_none=True)
  errors.check(
      eval_steps is None or eval_epochs is None,
      'Experiment.eval_steps and Experiment.eval_epochs must not both be '
      'given, got %s and %s. Bind one of them to None, such as '
      'Experiment.eval_epochs = None.', eval_steps, eval_epochs)


def _configured(run_config, model_dir):
  """The tf.estimator.RunConfig that Experiment.run_config makes."""
  errors.check_function('Experiment.run_config', run_config,
                        tf.estimator.RunConfig, '@run_config')
  try:
    made = run_config(model_dir=model_dir)
  except TypeError as error:
    raise errors.UserError(
        'Experiment.run_config must be a function of model_dir, such as '
        '@run_config, got %s: %s' % (
            errors.written(run_config), str(error).partition('\n')[0])
    ) from error
  errors.check(isinstance(made, tf.estimator.RunConfig),
               'Experiment.run_config must be a function to a RunConfig, such '
               'as @run_config, got %s.', errors.written(run_config))
  return made


def _leave_out(engine, model, incremental, warm_start):
  """Tells an engine which forms the bindings do not allow."""
  for is_bound, name in [(incremental, 'Experiment.incremental'),
                         (warm_start, 'Experiment.warm_start'),
                         (model.averaging, 'Model.averaging')]:
    if is_bound:
      engine.leave_out('embedding_variable', name)
  if model.balancing:
    engine.leave_out('micro_batch', 'Model.balancing')
  if any(l2 for group in model.groups for _, l2 in group.own_l2):
    engine.leave_out('fused_lookup', 'the l2 of Model.interactions')


def _checked_folder(model_dir):
  """Returns model_dir as a path; file:///a is /a."""
  errors.check_text('Experiment.model_dir', model_dir)
  if model_dir.startswith('file://'):
    uris.check('Experiment.model_dir', model_dir)
    model_dir = uris.local(model_dir)
  files.check_local('Experiment.model_dir', model_dir)
  errors.check(not os.path.isfile(model_dir), 'Experiment.model_dir must be '
               'a folder, got the file %r.', model_dir)
  return model_dir


def _check_cluster(model_dir, role):
  errors.check(
      role.is_local or not files.is_pattern(model_dir),
      'Experiment.model_dir must not have one of * ? [ or a backslash in a '
      'cluster, where TensorFlow takes it for a pattern, got %r.', model_dir)


def _no_daily(role, max_steps, early_stopping, work_queue):
  """Why bindings do not allow mode daily, or None."""
  if not role.is_local:
    return ('Mode daily runs in one process: TF_CONFIG must not be set. In a '
            'cluster, name the files of the next day and run --mode=train.')
  for name, is_wrong, wanted, got in [
      ('max_steps', max_steps, '0', max_steps),
      ('early_stopping', early_stopping, 'None', early_stopping),
      ('work_queue', work_queue, 'None', work_queue)]:
    if is_wrong:
      return 'Experiment.%s must be %s for mode daily, got %s.' % (
          name, wanted, errors.written(got))
  return None


def _check_predictions(predict_columns, predictions_path, model):
  errors.check_list(
      'Experiment.predict_columns', predict_columns,
      lambda name: isinstance(name, str), "names, such as ['user']",
      may_be_empty=True)
  predictions.check_path(predictions_path)
  lists = [task.name for task in model.tasks if task.kind.num_predictions > 1]
  errors.check(
      not lists or predictions_path.endswith('.parquet'),
      'Experiment.predictions_path must end in .parquet for predictions that '
      'are lists (%s), got %r.', ', '.join(lists), predictions_path)
  columns = [column.name for column in model.features.columns]
  for name in predict_columns:
    errors.check(
        name in columns, 'Experiment.predict_columns must be columns of '
        'FeatureSpec.columns (%s), got %r.', ', '.join(columns), name)
    errors.check(
        name not in [task.name for task in model.tasks],
        'Experiment.predict_columns must not have the name of a task, got %r.',
        name)


def _check_evaluations(eval_input, early_stopping, exports, daily, model,
                       metrics):
  metrics.check({of.name: of.shape for of in model.features.columns},
                {task.name: task.is_binary for task in model.tasks})
  errors.check(eval_input or not (early_stopping or exports),
               'Experiment.eval_input must be given for '
               'Experiment.early_stopping and Experiment.exports: both go by '
               'evaluations. Set them to None to train without.')
  for binding, rule in [('EarlyStopping.metric', early_stopping),
                        ('Exports.best_metric', exports),
                        ('Daily.metric', daily)]:
    if rule:
      comparison.check(binding, rule.metric, model.tasks, metrics.names)
