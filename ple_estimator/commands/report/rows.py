"""The rows that a run was evaluated on: labels, predictions and weights.

Training and --mode=evaluate write eval_rows.parquet, --mode=test writes
test_rows.parquet. Each has for each task the columns <task>/label,
<task>/prediction and <task>/weight (0 outside of the task's sample space), then
the user and the columns to slice by; what they are is in its metadata.
"""

import collections
import hashlib
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ple_estimator import errors
from ple_estimator.training import evaluated_rows

FILES = collections.OrderedDict([
    (of, os.path.basename(evaluated_rows.path_of('', name)))
    for of, name in [('test', 'test'), ('evaluation', 'eval')]])

Rows = collections.namedtuple(
    'Rows', 'path global_step seen kept user slices tasks')
Rows.__doc__ = """Evaluated rows.

Attributes:
  path: str, the file.
  global_step: int, of the checkpoint.
  seen: int, how many rows were evaluated.
  kept: int, how many the file has: the first ones.
  user: [rows] array of the user of each row, or None.
  slices: OrderedDict of a column's name to [rows] array.
  tasks: OrderedDict of a task's name to TaskRows.
"""

TaskRows = collections.namedtuple(
    'TaskRows', 'kind labels predictions weights digest')
TaskRows.__doc__ = """What a task has of evaluated rows.

Attributes:
  kind: str, 'binary', 'regression', 'poisson', 'multiclass', ...
  labels: [rows] float64; 0 where the weight is 0.
  predictions: [rows] float64, or [rows, classes]; 0 where the weight is 0.
  weights: [rows] float64, at least one of them above 0.
  digest: str, equal for two models only if labels and weights are those of the
    same rows in the same order.
"""


def read(model_dir, of):
  """Reads a file of rows.

  Args:
    model_dir: str.
    of: str, a key of FILES.

  Returns:
    Rows, or None if there is no such file.

  Raises:
    UserError: if the file cannot be read, or is of something else.
  """
  path = os.path.join(model_dir, FILES[of])
  if not os.path.exists(path):
    return None
  try:
    table = pq.read_table(path)
  except (pa.ArrowException, OSError) as error:
    raise errors.UserError('%s must be Parquet, got: %s. Write it anew with '
                           '--mode=%s.' % (path, ' '.join(str(error).split()),
                                           _mode(of)))
  about = (table.schema.metadata or {}).get(evaluated_rows.KEY)
  errors.check(about is not None, '%s must be written by ple-estimator, got a '
               'file without its metadata. Write it anew with --mode=%s.',
               path, _mode(of))
  about = json.loads(about.decode('utf-8'))
  tasks = collections.OrderedDict(
      (name, _task(table, name, kind))
      for name, kind in about['tasks'].items())
  user = about.get('user')
  return Rows(
      path, about['global_step'], about['rows_seen'], table.num_rows,
      None if user is None else _texts(table, user),
      collections.OrderedDict((name, _texts(table, name))
                              for name in about.get('slices') or ()),
      collections.OrderedDict((name, task) for name, task in tasks.items()
                              if task.weights.any()))


def _mode(of):
  return 'test' if of == 'test' else 'evaluate'


def _task(table, name, kind):
  labels, weights = [
      _numbers(table, '%s/%s' % (name, what)) for what in ('label', 'weight')]
  counts = weights > 0
  labels = np.where(counts, labels, 0.0)
  predictions = _numbers(table, name + '/prediction')
  predictions = np.where(
      counts if predictions.ndim == 1 else counts[:, None], predictions, 0.0)
  digest = hashlib.sha1(labels.tobytes() + weights.tobytes()).hexdigest()
  return TaskRows(kind, labels, predictions, weights, digest)


def _numbers(table, name):
  """[rows] float64 of a column, [rows, width] of one of lists; null is NaN."""
  column = table.column(name).combine_chunks()
  if pa.types.is_fixed_size_list(column.type):
    width = column.type.list_size
    return column.flatten().to_numpy(zero_copy_only=False).astype(
        np.float64).reshape([-1, width])
  return column.to_numpy(zero_copy_only=False).astype(np.float64)


def _texts(table, name):
  """[rows] array of what a column holds, as text; null is ''."""
  column = table.column(name).combine_chunks()
  if pa.types.is_binary(column.type):
    column = column.cast(pa.string())
  column = pa.DictionaryArray.from_arrays(
      *_encoded(column)) if not pa.types.is_dictionary(column.type) else column
  words = np.array(['' if v is None else str(v)
                    for v in column.dictionary.to_pylist()] + [''], object)
  at = column.indices.to_numpy(zero_copy_only=False)
  missing = np.isnan(at.astype(np.float64))
  return words[np.where(missing, len(words) - 1, at).astype(np.int64)]


def _encoded(column):
  found = column.dictionary_encode()
  return found.indices, found.dictionary
