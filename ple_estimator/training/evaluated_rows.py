"""The rows of an evaluation: what is measured of them, and their file.

eval_rows.parquet has the rows of the last evaluation of a training or of
--mode=evaluate, and test_rows.parquet those of --mode=test, in the order in
which they were read: for each task <task>/label, <task>/prediction (a list for
several classes) and <task>/weight, all float32, and the columns of Metrics.user
and Metrics.slices. The metadata of the schema have, under `KEY`, a JSON of
  global_step, checkpoint, input (the paths), rows and rows_seen, user, slices,
  and tasks ({name: 'binary', 'multiclass' or 'regression'}).
"""

import json
import os

from absl import logging
import numpy as np

from ple_estimator import files
from ple_estimator.data import predictions

KEY = b'ple_estimator'
PARTS = ('label', 'prediction', 'weight')


class EvaluatedRows:
  """What is done with the rows of each evaluation of one kind."""

  def __init__(self, metrics, tasks, path=None, source=None):
    """Keeps the rule.

    Args:
      metrics: metrics.chosen.Metrics.
      tasks: list of tasks.Task.
      path: str, of the file; None writes none.
      source: inputs.FileInput, whose paths the file names.
    """
    self._metrics = metrics
    self._kinds = {task.name: _kind(task) for task in tasks}
    self._path = path if metrics.keep_rows else None
    self._source = source

  @property
  def columns(self):
    """tuple of str, the columns that an evaluation has to read."""
    return self._metrics.columns if self.is_needed else ()

  @property
  def is_needed(self):
    """bool, whether anything is done with the rows."""
    return bool(self._path or self._metrics.needs_all_rows)

  def chosen(self, predictions_of_rows):
    """Those of a dict by name that it keeps, see objective.evaluated."""
    names = ['%s/%s' % (task, part) for task in self._kinds for part in PARTS]
    return {name: predictions_of_rows[name]
            for name in names + list(self.columns)}

  def collected(self):
    """Returns a new Collected, for one evaluation."""
    return Collected(
        None if self._metrics.needs_all_rows else self._metrics.keep_rows)

  def finish(self, collected, global_step, checkpoint):
    """Measures the rows of an evaluation and writes their file.

    Args:
      collected: Collected.
      global_step: int.
      checkpoint: str, its path.

    Returns:
      dict of metric name to float.
    """
    rows = collected.rows()
    found = self._metrics.measure(rows, {
        name: kind == 'binary' for name, kind in self._kinds.items()
    }) if self._metrics.needs_all_rows and rows else {}
    if self._path:
      self._write(rows, collected.seen, {
          'global_step': global_step, 'checkpoint': checkpoint})
    return found

  def _write(self, rows, seen, about):
    most = self._metrics.keep_rows
    kept = {name: values[:most] for name, values in rows.items()}
    about = dict(
        about, input=self._source.paths(), rows=min(seen, most), rows_seen=seen,
        user=self._metrics.user, slices=list(self._metrics.slices),
        tasks=self._kinds)
    if seen > most:
      logging.info('%s has the first %d of %d rows (Metrics.keep_rows).',
                   files.shown(self._path), most, seen)
    if not kept and os.path.exists(self._path):
      os.remove(self._path)  # it has the rows of another evaluation
    predictions.write(
        self._path, [kept] if kept else [], {KEY: json.dumps(about).encode()},
        'Metrics.slices and Metrics.user')


class Collected:
  """The rows of one evaluation, batch by batch."""

  def __init__(self, most):
    """Starts without rows.

    Args:
      most: int, how many of the first rows are kept; None keeps all.
    """
    self._most = most
    self._batches = []
    self.seen = 0

  def add(self, batch):
    """Adds a batch, a dict of name to [batch, ...] array."""
    if self._most is None or self.seen < self._most:
      self._batches.append(batch)
    self.seen += len(next(iter(batch.values())))

  def rows(self):
    """Returns dict of name to [rows, ...] array; {} without a batch."""
    names = list(self._batches[0]) if self._batches else []
    return {name: np.concatenate([batch[name] for batch in self._batches])
            for name in names}


def path_of(model_dir, name):
  """The path of the file of a kind of evaluation, 'eval' or 'test'."""
  return os.path.join(model_dir, name + '_rows.parquet')


def _kind(task):
  if task.is_binary:
    return 'binary'
  return 'multiclass' if task.kind.num_predictions > 1 else 'regression'
