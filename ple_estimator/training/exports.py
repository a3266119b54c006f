"""What is kept of the best evaluation: a checkpoint, and SavedModels."""

import glob
import os
import shutil
import time

from absl import logging
import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.training import comparison
from ple_estimator.training import evaluations as evaluations_lib
from ple_estimator.training import saver as saver_lib

_FOLDER = 'best'
_VARIABLES = 'variables'  # of a SavedModel, a folder and the files in it


@gin.register
class Exports:
  """Which SavedModels to write while training, and what is best."""

  def __init__(self, best_metric='mean/auc', best_to_keep=1, latest_to_keep=1):
    """Checks and stores the hyperparameters; writes nothing.

    Args:
      best_metric: str, as in metrics.json; auc and accuracy are best when
        large, all others when small. 'mean/auc' and a list or tuple of
        metrics are means, see EarlyStopping.metric. By it the best checkpoint
        is kept, too, and not by EarlyStopping.metric, where the two differ.
      best_to_keep: int, SavedModels in model_dir/export/best; 0 writes none.
      latest_to_keep: int, SavedModels in model_dir/export/latest; 0 writes
        none.
    """
    for name, value in [('best_to_keep', best_to_keep),
                        ('latest_to_keep', latest_to_keep)]:
      errors.check_integer('Exports.' + name, value, 0)
    comparison.check_form('Exports.best_metric', best_metric)
    self.metric = comparison.stored(best_metric)
    self._best_to_keep = best_to_keep
    self._latest_to_keep = latest_to_keep

  def exporters(self, receiver_fn, evaluations):
    """Returns a list of tf.estimator.Exporter.

    Args:
      receiver_fn: function without arguments to a ServingInputReceiver.
      evaluations: evaluations.Evaluations, which has what is to be exported.
    """
    found, writer = [], SavedModels(receiver_fn)
    if self._best_to_keep:
      found.append(BestExporter(
          writer, self.metric, self._best_to_keep, evaluations))
    if self._latest_to_keep:
      found.append(LatestExporter(writer, self._latest_to_keep))
    return found


class SavedModels:
  """Writes SavedModels of checkpoints, whose graph is built only once.

  To build the graph of a SavedModel takes as long as to evaluate it. Estimator
  builds it for the first one. The later ones of a run have the same graph and
  the variables of other checkpoints; and what is the best as well as the latest
  is a copy.
  """

  def __init__(self, receiver_fn):
    """Keeps the inputs.

    Args:
      receiver_fn: function without arguments to a ServingInputReceiver.
    """
    self._receiver_fn = receiver_fn
    self._checkpoint, self._folder = None, None
    self._graph = None

  def forget(self):
    """Drops the graph, so that the next SavedModel looks for files again."""
    self._graph = None

  def write(self, estimator, folder, checkpoint, to_keep):
    """Writes folder/<seconds since 1970>, and removes the oldest there.

    Args:
      estimator: tf.estimator.Estimator.
      folder: str.
      checkpoint: str, the path of a checkpoint.
      to_keep: int, how many are left in the folder.

    Returns:
      bytes, the folder of the SavedModel, as Estimator has it.
    """
    is_there = self._folder is not None and os.path.isdir(self._folder)
    if is_there and self._checkpoint == checkpoint:
      written = _copy_folder(self._folder, folder)
    else:
      write = self._with_variables if is_there and self._graph else self._built
      written = write(estimator, folder, checkpoint)
      self._checkpoint, self._folder = checkpoint, written.decode()
    for number in sorted(_numbers(folder))[:-to_keep]:
      shutil.rmtree(os.path.join(folder, str(number)), ignore_errors=True)
    return written


  def _built(self, estimator, folder, checkpoint):
    """Writes a SavedModel by Estimator, and keeps its graph."""

    def receiver():
      self._graph = tf.get_default_graph()
      return self._receiver_fn()

    return estimator.export_saved_model(
        folder, receiver, checkpoint_path=checkpoint)

  def _with_variables(self, estimator, folder, checkpoint):
    """Writes the last SavedModel with the variables of another checkpoint."""
    os.makedirs(folder, exist_ok=True)
    number = str(max(int(time.time()),
                     int(os.path.basename(self._folder)) + 1))
    partial = os.path.join(folder, 'temp-' + number)
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(
        self._folder, partial, copy_function=_link,
        ignore=lambda path, _: [_VARIABLES] if path == self._folder else [])
    os.makedirs(os.path.join(partial, _VARIABLES))
    saver, = saver_lib.of_graph(self._graph)
    with tf.Session(graph=self._graph,
                    config=estimator.config.session_config) as session:
      saver.restore(session, checkpoint)
      saver.write(session, os.path.join(partial, _VARIABLES, _VARIABLES))
    target = os.path.join(folder, number)
    os.rename(partial, target)
    return target.encode()


class LatestExporter(tf.estimator.Exporter):
  """Exports every checkpoint that is evaluated, and keeps the newest.

  Attributes:
    writer: SavedModels.
  """

  name = 'latest'

  def __init__(self, writer, to_keep):
    """Keeps the rule.

    Args:
      writer: SavedModels.
      to_keep: int, at least 1.
    """
    self.writer = writer
    self._to_keep = to_keep

  def export(self, estimator, export_path, checkpoint_path, eval_result,
             is_the_final_export):
    return self.writer.write(
        estimator, export_path, checkpoint_path, self._to_keep)


class BestExporter(tf.estimator.Exporter):
  """Exports what is better than all it has exported, in earlier runs too.

  tf.estimator.BestExporter reads the event files of all evaluations, and in
  TensorFlow 2.15 finds none of an earlier run.

  Attributes:
    writer: SavedModels.
  """

  name = 'best'

  def __init__(self, writer, metric, to_keep, evaluations):
    """Keeps the rule.

    Args:
      writer: SavedModels.
      metric: str or tuple of str, see comparison.stored.
      to_keep: int, at least 1.
      evaluations: evaluations.Evaluations.
    """
    self.writer = writer
    self._metric = metric
    self._to_keep = to_keep
    self._evaluations = evaluations

  def export(self, estimator, export_path, checkpoint_path, eval_result,
             is_the_final_export):
    exported = self._evaluations.marked('exported')
    if not _beats(self._metric, eval_result, exported):
      return None
    written = self.writer.write(
        estimator, export_path, checkpoint_path, self._to_keep)
    self._evaluations.mark('exported', self._evaluations.last)
    return written


class BestCheckpoint:
  """Keeps the best checkpoint in model_dir/best, whatever the Saver removes.

  Attributes:
    metric: str or tuple of str, what the best goes by.
  """

  def __init__(self, model_dir, metric, evaluations):
    """Keeps the rule.

    Args:
      model_dir: str.
      metric: str or tuple of str, see comparison.stored.
      evaluations: evaluations.Evaluations.
    """
    self._folder = os.path.join(model_dir, _FOLDER)
    self.metric = metric
    self._evaluations = evaluations

  def keep(self, path, evaluation):
    """Copies a checkpoint if it is better than the one that is there.

    Args:
      path: str, of a full checkpoint, model_dir/model.ckpt-<step>.
      evaluation: dict, what it was evaluated to.
    """
    kept = self._evaluations.marked('kept')
    if not (kept and os.path.exists(self._path(kept) + '.index')):
      kept = None
    if not _beats(self.metric, evaluation, kept):
      return
    try:
      _copy(path, self._folder)
    except FileNotFoundError:
      logging.warning(
          '%s has the best %s, but was removed before it could be kept: raise '
          'run_config.keep_checkpoint_max.', path,
          comparison.name_of(self.metric))
      return
    self._evaluations.mark('kept', evaluation)

  def clean(self):
    """Removes the copies that have been bettered."""
    kept = self._evaluations.marked('kept')
    for step in files.checkpoint_steps(self._folder):
      if kept and step != kept['global_step']:
        for path in _files(files.checkpoint_path(self._folder, step)):
          os.remove(path)

  def _path(self, evaluation):
    return files.checkpoint_path(self._folder, evaluation['global_step'])


def best_checkpoint(model_dir):
  """The path of the best checkpoint of a model_dir, or None.

  Args:
    model_dir: str.
  """
  found = evaluations_lib.Evaluations(model_dir)
  found.read()
  kept = found.marked('kept')
  path = kept and files.checkpoint_path(
      os.path.join(model_dir, _FOLDER), kept['global_step'])
  return path if path and os.path.exists(path + '.index') else None


def _beats(metric, evaluation, other):
  """Whether an evaluation is better; any is better than none at all."""
  return other is None or comparison.is_better(metric, evaluation, than=other)


def _files(path):
  """The files of a checkpoint; its index is the last."""
  return glob.glob(glob.escape(path) + '.data-*') + [path + '.index']


def _numbers(folder):
  """The names of the SavedModels in a folder, as int."""
  return [int(name) for name in os.listdir(folder) if name.isdigit()]


def _copy_folder(source, folder):
  """Copies a SavedModel to folder/<its number>; returns that path, bytes.

  Whoever serves the newest number of a folder sees it complete: it gets its
  name at the end.
  """
  os.makedirs(folder, exist_ok=True)
  target = os.path.join(folder, os.path.basename(source))
  partial = os.path.join(folder, 'temp-' + os.path.basename(source))
  shutil.rmtree(partial, ignore_errors=True)
  shutil.copytree(source, partial, copy_function=_link)
  shutil.rmtree(target, ignore_errors=True)
  os.rename(partial, target)
  return target.encode()


def _link(source, target):
  """Makes a hard link to a file, or a copy where there are none."""
  try:
    os.link(source, target)
  except FileNotFoundError:
    raise
  except OSError:  # a file system without links
    shutil.copyfile(source, target)


def _copy(path, folder):
  """Copies a checkpoint to a folder, by hard links where there are such."""
  os.makedirs(folder, exist_ok=True)
  for source in _files(path):
    target = os.path.join(folder, os.path.basename(source))
    partial = target + '.partial'
    if os.path.exists(partial):
      os.remove(partial)
    _link(source, partial)
    os.replace(partial, target)
    if os.path.exists(partial):  # where both were links to one file
      os.remove(partial)
