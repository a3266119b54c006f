"""One run of tools/study.py: its data, its bindings, its training.

A run trains a network of the package with the package's own input, optimizer,
early stopping and best checkpoint. Only how a checkpoint is evaluated is not
that of tf.estimator, which builds a graph anew for every evaluation: of a run
of some seconds that would be most of the time. See KeptEvaluation.
"""

import collections
import gc
import json
import math
import os
import shutil
import subprocess
import sys
import time

import study_report

from ple_estimator import files

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_EVAL_BATCH = 1000
_TUNING_SEED = 0  # seeds from 1 on are those that are tested

# The .gin file of each network, and what differs from it.
NETWORKS = collections.OrderedDict([
    ('single-task', ('single_task.gin', [])),
    ('shared-bottom', ('shared_bottom.gin', [])),
    ('MMoE', ('mmoe.gin', [])),
    ('CGC', ('cgc.gin', [])),
    ('PLE', ('base.gin', ['PLE.num_levels = 2'])),
])

Data = collections.namedtuple('Data', [
    'command', 'files', 'columns', 'tasks', 'loss', 'metric', 'falls'])
Data.__doc__ = """A kind of data that can be studied.

Attributes:
  command: list of str, the tool that makes it, with its arguments.
  files: str, the name of a Parquet file, with %s for train, validation or test.
  columns: list of dict for FeatureSpec.columns, or None for those of base.gin.
  tasks: OrderedDict of task name to label column.
  loss: 'regression' or 'binary', of all tasks.
  metric: 'MSE' or 'AUC'.
  falls: bool, whether a smaller metric is better.
"""

_NUMBERS = 100


def data_of(kind, nonlinear=0.0):
  """Returns the Data of a kind.

  Args:
    kind: 'regression', see make_mtl_data.py; or 'conflict', rows of
      make_data.py whose tasks have a chosen correlation.
    nonlinear: float, make_data.py --nonlinear; only for 'conflict'.
  """
  if kind == 'conflict':
    return Data(['make_data.py', '--nonlinear', nonlinear],
                'taobao_%s_data.parquet', None,
                collections.OrderedDict([('ctr', 'clk'), ('cvr', 'buy')]),
                'binary', 'AUC', False)
  tasks = collections.OrderedDict([('y1', 'y1'), ('y2', 'y2')])
  columns = [{'name': name, 'kind': 'label'} for name in tasks.values()]
  columns += [{'name': 'x%d' % i, 'kind': 'number'} for i in range(_NUMBERS)]
  return Data(['make_mtl_data.py', 'regression'], '%s.parquet', columns, tasks,
              'regression', 'MSE', True)


Settings = collections.namedtuple('Settings', [
    'data', 'nonlinear', 'train_rows', 'validation_rows', 'test_rows',
    'parameters', 'layers', 'tower', 'batch_size', 'epochs', 'patience'])
Settings.__doc__ = """What all runs of a study have in common.

Attributes:
  data: str, see data_of.
  nonlinear: float, see data_of.
  train_rows: int.
  validation_rows: int.
  test_rows: int.
  parameters: int, about how many a network has; see equal_widths.
  layers: int, hidden layers of an expert.
  tower: int, width of the one hidden layer of a tower.
  batch_size: int.
  epochs: int, at most.
  patience: int, epochs without a better validation loss that end a training.
"""

Job = collections.namedtuple('Job', [
    'correlation', 'network', 'learning_rate', 'seed', 'width', 'at_edge'])
Job.__doc__ = """One run.

Attributes:
  correlation: float, of the tasks.
  network: str, a key of NETWORKS.
  learning_rate: float.
  seed: int, of the rows, of their order and of the initial values.
  width: int, of the layers of experts.
  at_edge: bool, whether learning_rate is the least or the largest of the grid.
"""


def is_tuning(job):
  """Whether a run is for the choice of the learning rate: it is not tested."""
  return job.seed == _TUNING_SEED


def tuning_seed():
  """The seed by which learning rates are chosen."""
  return _TUNING_SEED


# ------------------------------------------------------------------- the data


def data_dir(out, correlation, seed):
  return os.path.join(out, 'data', '%g-seed%d' % (correlation, seed))


def make_data(out, settings, correlation, seed):
  """Makes the rows of a correlation and a seed, unless they are there.

  Args:
    out: str, the folder of the study.
    settings: Settings.
    correlation: float.
    seed: int.
  """
  folder = data_dir(out, correlation, seed)
  if os.path.isdir(folder):
    return
  partial = folder + '.partial'
  shutil.rmtree(partial, ignore_errors=True)
  tool, *arguments = data_of(settings.data, settings.nonlinear).command
  done = subprocess.run(
      [sys.executable, os.path.join(_ROOT, 'tools', tool)] + [
          str(a) for a in arguments + [
              '--out', partial, '--correlation', correlation, '--seed', seed,
              '--train', settings.train_rows, '--validation',
              settings.validation_rows, '--test', settings.test_rows]],
      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
      universal_newlines=True)
  if done.returncode:
    raise study_report.StudyError('%s has failed: %s' % (
        tool, done.stderr.strip().rpartition('\n')[2]))
  os.replace(partial, folder)


# --------------------------------------------------------------- the bindings


def load(settings, job, folder, model_dir):
  """Loads the experiment of a run: a ple_estimator Run.

  Args:
    settings: Settings.
    job: Job.
    folder: str, of the data.
    model_dir: str.
  """
  import ple_estimator as ple

  gin_file, own = NETWORKS[job.network]
  data = data_of(settings.data, settings.nonlinear)
  steps = math.ceil(settings.train_rows / settings.batch_size)
  return ple.load(os.path.join(_ROOT, 'gin', gin_file), bindings=own + _columns(
      data) + [
          'DATA_DIR = %r' % folder,
          'BATCH_SIZE = %d' % settings.batch_size,
          'EPOCHS = %d' % settings.epochs,
          'LEARNING_RATE = %r' % job.learning_rate,
          'PLE.expert_units = %r' % ((job.width,) * settings.layers,),
          'PLE.gate_units = ()',
          'Tower.units = (%d,)' % settings.tower,
          'PLE.dropout = 0.0', 'PLE.l2 = 0.0',
          'Tower.dropout = 0.0', 'Tower.l2 = 0.0',
          'Experiment.model_dir = %r' % model_dir,
          'Experiment.exports = None',
          'Experiment.eval_input = @validation/ParquetInput()',
          'train/ParquetInput.files = %r' % (data.files % 'train'),
          'train/ParquetInput.shuffle_rows = %d' % settings.train_rows,
          'validation/ParquetInput.files = %r' % (data.files % 'validation'),
          'validation/ParquetInput.batch_size = %d' % _EVAL_BATCH,
          "EarlyStopping.metric = 'loss'",
          'EarlyStopping.patience_epochs = %d' % settings.patience,
          'Model.interactions = []', 'Model.embedding_dropout = 0.0',
          'Model.averaging = @Averaging()', 'Averaging.decay = 0.99',
          'run_config.seed = %d' % (job.seed + 1),
          'run_config.save_steps = %d' % steps,
          'run_config.keep_checkpoint_max = 2',
          'run_config.summary_steps = 1_000_000_000',
          'run_config.inter_op_threads = 1',
          'run_config.intra_op_threads = 1',
      ])


def _columns(data):
  """The bindings of columns and tasks."""
  if not data.columns:
    return []
  lines = ['FeatureSpec.columns = %r' % data.columns,
           'Model.tasks = [%s]' % ', '.join('@%s/Task()' % t
                                            for t in data.tasks)]
  for task, label in data.tasks.items():
    lines += ['%s/Task.name = %r' % (task, task),
              '%s/Task.label = %r' % (task, label),
              '%s/Task.loss = %r' % (task, data.loss)]
  return lines


# ------------------------------------------------------------ the evaluations


class KeptEvaluation:
  """Evaluates checkpoints of a run in one graph, which is built once.

  Attributes:
    parameters: int, numbers that are trained, without embeddings.
  """

  def __init__(self, made, source):
    """Builds the graph.

    Args:
      made: experiment.Experiment.
      source: inputs.ParquetInput, the rows. They are encoded at the first
        evaluation and then kept in memory.
    """
    import tensorflow.compat.v1 as tf

    config = made.trainer.estimator.config
    self._graph = tf.Graph()
    with self._graph.as_default():
      tf.train.create_global_step()
      rows = tf.data.make_initializable_iterator(
          source.dataset(made.model.reading()).cache())
      spec = made.trainer.model_fn(
          *rows.get_next(), tf.estimator.ModeKeys.EVAL, config)
      found = spec.eval_metric_ops
      self._values = {name: tf.convert_to_tensor(value)
                      for name, (value, _) in found.items()}
      self._values['global_step'] = tf.train.get_global_step()
      self._updates = [update for _, update in found.values()]
      self._start = [rows.initializer, tf.local_variables_initializer(),
                     tf.tables_initializer()]
      self._saver = spec.scaffold.saver
      self._saver.build()
      self.parameters = num_parameters(tf.trainable_variables())
    self._session = tf.Session(graph=self._graph, config=config.session_config)
    self._end = tf.errors.OutOfRangeError

  def __call__(self, checkpoint_path):
    """Evaluates a checkpoint, as training/evaluator.Evaluator.

    Args:
      checkpoint_path: str.

    Returns:
      dict of metric name to number, of 'loss' and of 'global_step'.
    """
    self._saver.restore(self._session, checkpoint_path)
    self._session.run(self._start)
    try:
      while True:
        self._session.run(self._updates)
    except self._end:
      return self._session.run(self._values)

  def forget(self):
    """Keeps the graph: the files do not change in a run."""

  def close(self):
    self._session.close()


def num_parameters(variables):
  """The size of variables together, without the tables of embeddings."""
  return sum(v.shape.num_elements() for v in variables
             if '/embedding' not in v.op.name)


# -------------------------------------------------------------------- the run


def run(out, settings, job, folder):
  """Trains and evaluates; writes the result to a file.

  Args:
    out: str, the folder of the study.
    settings: Settings.
    job: Job.
    folder: str, of the data.

  Returns:
    dict: the fields of the Job; 'parameters'; 'step' and 'epoch' of the best
    checkpoint; 'last_epoch' that was trained; 'validation', its metrics;
    'test', that on the test rows by task, None for a tuning run; 'ceiling',
    what the true function of the features reaches on them; 'seconds'.
  """
  from ple_estimator.data import inputs
  from ple_estimator.training import exports

  started = time.time()
  model_dir = os.path.join(out, 'training', name_of(job))
  shutil.rmtree(model_dir, ignore_errors=True)
  made = load(settings, job, folder, model_dir).experiment
  data = data_of(settings.data, settings.nonlinear)
  paths = [os.path.join(folder, data.files % part)
           for part in ('validation', 'test')]
  validation = KeptEvaluation(made, inputs.ParquetInput(
      [paths[0]], batch_size=_EVAL_BATCH))
  made.trainer.evaluate_by(validation)
  made.train()
  best = exports.best_checkpoint(model_dir)
  found = {name: float(value)
           for name, value in validation(best).items()}
  validation.close()
  test = None
  if not is_tuning(job):
    kept = KeptEvaluation(made, inputs.ParquetInput(
        [paths[1]], batch_size=_EVAL_BATCH))
    test = of_tasks(data, kept(best))
    kept.close()
  steps = math.ceil(settings.train_rows / settings.batch_size)
  result = dict(
      job._asdict(), parameters=validation.parameters, validation=found,
      test=test, ceiling=_ceiling(data, folder),
      step=int(found['global_step']),
      epoch=found['global_step'] / steps, last_epoch=_last_step(
          model_dir) / steps, seconds=time.time() - started)
  write_json(result_path(out, job), result)
  shutil.rmtree(model_dir)
  gc.collect()  # graphs are rings of references
  return result


def of_tasks(data, metrics):
  """The metric of each task.

  Args:
    data: Data.
    metrics: dict, of an evaluation.
  """
  if data.metric == 'MSE':
    return {t: float(metrics[t + '/rmse']) ** 2 for t in data.tasks}
  return {t: float(metrics['%s/%s' % (t, data.metric.lower())])
          for t in data.tasks}


def _ceiling(data, folder):
  """What the true function of the features reaches on the test rows."""
  with open(os.path.join(folder, 'ceiling.json')) as f:
    by_label = json.load(f)
  return {task: by_label[label][data.metric.lower()]
          for task, label in data.tasks.items()}


def _last_step(model_dir):
  from ple_estimator.training import evaluations

  found = evaluations.Evaluations(model_dir)
  found.read()
  return found.last['global_step']  # pylint: disable=unsubscriptable-object


def name_of(job):
  return '%g-%s-%g-seed%d' % (
      job.correlation, job.network, job.learning_rate, job.seed)


def result_path(out, job):
  return os.path.join(out, 'runs', name_of(job) + '.json')


def write_json(path, value):
  """Writes a file, whole or not at all, and its folder."""
  os.makedirs(os.path.dirname(path), exist_ok=True)
  files.write_json(path, value, indent=2)


# ---------------------------------------------------------- equal parameters


def count(settings, network, width, folder):
  """The parameters of a network without embeddings, by building its graph.

  Args:
    settings: Settings.
    network: str.
    width: int, of the layers of experts.
    folder: str, of data.
  """
  import tensorflow.compat.v1 as tf

  made = load(settings, Job(0.0, network, 0.001, 0, width, False), folder,
              os.path.join(folder, 'none')).experiment
  with tf.Graph().as_default():
    tf.train.create_global_step()
    features, labels = tf.data.make_one_shot_iterator(
        made.trainer.input_fn()).get_next()
    made.model.model_fn(features, labels, tf.estimator.ModeKeys.EVAL)
    return num_parameters(tf.trainable_variables())


def equal_width(settings, network, folder):
  """The width of experts with which a network has settings.parameters.

  The number of parameters is a polynomial of degree 2 in the width. It is found
  from three widths, and what it gives is counted.

  Args:
    settings: Settings.
    network: str.
    folder: str, of data.

  Returns:
    (width, parameters).
  """
  import numpy as np

  tried = [4, 8, 16]
  counts = [count(settings, network, width, folder) for width in tried]
  polynomial = np.poly1d(np.polyfit(tried, counts, 2))
  width = 1
  while polynomial(width + 1) <= settings.parameters:
    width += 1
  width = min((width, width + 1),
              key=lambda w: abs(polynomial(w) - settings.parameters))
  return width, count(settings, network, width, folder)
