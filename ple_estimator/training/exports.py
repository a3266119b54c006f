"""What is kept of the best evaluation: a checkpoint, and SavedModels."""

import glob
import os
import shutil

from absl import logging
import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.training import comparison
from ple_estimator.training import evaluations as evaluations_lib

_FOLDER = 'best'


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
    found = []
    if self._best_to_keep:
      found.append(BestExporter(
          receiver_fn, self.metric, self._best_to_keep, evaluations))
    if self._latest_to_keep:
      found.append(tf.estimator.LatestExporter(
          'latest', receiver_fn, exports_to_keep=self._latest_to_keep))
    return found


class BestExporter(tf.estimator.Exporter):
  """Exports what is better than all it has exported, in earlier runs too.

  tf.estimator.BestExporter reads the event files of all evaluations, and in
  TensorFlow 2.15 finds none of an earlier run.
  """

  name = 'best'

  def __init__(self, receiver_fn, metric, to_keep, evaluations):
    """Keeps the rule.

    Args:
      receiver_fn: function without arguments to a ServingInputReceiver.
      metric: str or tuple of str, see comparison.stored.
      to_keep: int, at least 1.
      evaluations: evaluations.Evaluations.
    """
    self._metric = metric
    self._evaluations = evaluations
    self._writer = tf.estimator.LatestExporter(
        self.name, receiver_fn, exports_to_keep=to_keep)

  def export(self, estimator, export_path, checkpoint_path, eval_result,
             is_the_final_export):
    exported = self._evaluations.marked('exported')
    if not _beats(self._metric, eval_result, exported):
      return None
    written = self._writer.export(
        estimator, export_path, checkpoint_path, eval_result,
        is_the_final_export)
    self._evaluations.mark('exported', self._evaluations.last)
    return written


class BestCheckpoint:
  """Keeps the best checkpoint in model_dir/best, whatever the Saver removes."""

  def __init__(self, model_dir, metric, evaluations):
    """Keeps the rule.

    Args:
      model_dir: str.
      metric: str or tuple of str, see comparison.stored.
      evaluations: evaluations.Evaluations.
    """
    self._folder = os.path.join(model_dir, _FOLDER)
    self._metric = metric
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
    if not _beats(self._metric, evaluation, kept):
      return
    try:
      _copy(path, self._folder)
    except FileNotFoundError:
      logging.warning(
          '%s has the best %s, but was removed before it could be kept: raise '
          'run_config.keep_checkpoint_max.', path,
          comparison.name_of(self._metric))
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


def _copy(path, folder):
  """Copies a checkpoint to a folder, by hard links where there are such."""
  os.makedirs(folder, exist_ok=True)
  for source in _files(path):
    target = os.path.join(folder, os.path.basename(source))
    partial = target + '.partial'
    if os.path.exists(partial):
      os.remove(partial)
    try:
      os.link(source, partial)
    except FileNotFoundError:
      raise
    except OSError:  # a file system without links
      shutil.copyfile(source, partial)
    os.replace(partial, target)
    if os.path.exists(partial):  # where both were links to one file
      os.remove(partial)
