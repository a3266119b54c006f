"""The row of a run in the HPARAMS tab of TensorBoard, which sorts runs.

It is in event files of model_dir/hparams, which TensorBoard shows as a run of
its own. There is no summary of an experiment beside it, so TensorBoard takes
what all runs have for the columns: the union of the bindings of all, and the
metrics that are in these folders, and not every scalar of every curve.
"""

import glob
import math
import os

from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.plugins.hparams import summary as summaries
import tensorflow.compat.v1 as tf

from ple_estimator.gin_files import operative
from ple_estimator.training import comparison

_FOLDER = 'hparams'
_START, _END = '.start', '.end'  # how the names of event files end
_STEP = tf.GraphKeys.GLOBAL_STEP


class StartHook(tf.train.SessionRunHook):
  """Writes the bindings of a run, once its operative config is written."""

  def __init__(self, model_dir):
    """Stores the argument.

    Args:
      model_dir: str.
    """
    self._model_dir = model_dir

  def after_create_session(self, session, coord):
    start(self._model_dir)


def start(model_dir):
  """Writes the bindings of a run that starts, in place of any row there.

  Args:
    model_dir: str, with the operative config of the run.
  """
  for path in _event_files(model_dir, _START) + _event_files(model_dir, _END):
    os.remove(path)
  path = operative.newest(model_dir)
  bindings = operative.flat(operative.read(path)[1]) if path else {}
  _write(model_dir, _START, [(_with_booleans(
      summaries.session_start_pb(hparams=bindings), bindings), 0)])


def end(model_dir, results):
  """Writes the metrics of a run whose training has ended; once.

  They are those of the evaluation of the best checkpoint, and without a best
  one of the last evaluation.

  Args:
    model_dir: str.
    results: evaluation.Results, whose evaluations are read.
  """
  if _event_files(model_dir, _END):
    return
  if not _event_files(model_dir, _START):  # a training of an older version
    start(model_dir)
  evaluations = results.evaluations
  values = evaluations.marked('kept') or evaluations.last
  written = [(_metrics(values, results.best.metric), values[_STEP])
             ] if values else []
  _write(model_dir, _END, written + [(summaries.session_end_pb(
      api_pb2.STATUS_SUCCESS), values[_STEP] if values else 0)])


def _metrics(values, best):
  """The scalars of a run: metrics that runs can be compared by, and the step.

  Args:
    values: dict of metric name to number or None, 'global_step' among them.
    best: str or tuple of str, see comparison.stored, what the best goes by.

  Returns:
    tf.Summary.
  """
  numbers = {name: comparison.value_of(values, name)
             for name in values if comparison.is_known(name)}
  numbers[comparison.name_of(best)] = comparison.value_of(values, best)
  numbers[_STEP] = values[_STEP]
  found = tf.Summary()
  for name, number in sorted(numbers.items()):
    if math.isfinite(number):
      found.value.add(tag=name, simple_value=number)
  return found


def _with_booleans(summary, bindings):
  """Makes booleans of those bindings that TensorBoard 1.15 takes for numbers.

  Args:
    summary: tf.Summary, of session_start_pb.
    bindings: dict of str to bool, int, float or str.
  """
  of_plugin = summary.value[0].metadata.plugin_data
  data = plugin_data_pb2.HParamsPluginData.FromString(of_plugin.content)
  for name, value in bindings.items():
    if isinstance(value, bool):
      data.session_start_info.hparams[name].bool_value = value
  of_plugin.content = data.SerializeToString()
  return summary


def _event_files(model_dir, ending):
  return glob.glob(os.path.join(
      glob.escape(model_dir), _FOLDER, '*tfevents*' + ending))


def _write(model_dir, ending, written):
  """Writes one event file, of pairs of a summary and its global step."""
  writer = tf.summary.FileWriter(
      os.path.join(model_dir, _FOLDER), filename_suffix=ending)
  for summary, step in written:
    writer.add_summary(summary, step)
  writer.close()
