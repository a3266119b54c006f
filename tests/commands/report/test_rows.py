"""Files of evaluated rows."""

import made_runs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ple_estimator import errors
from ple_estimator.commands.report import measures
from ple_estimator.commands.report import rows


def _two_tasks(tmp_path, **kwargs):
  labels = np.array([1, 0, 1, np.nan])
  weights = np.array([1, 1, 1, 0])
  made_runs.write_rows(
      tmp_path / 'test_rows.parquet', {
          'ctr': ([1, 0, 1, 0], [.9, .2, .4, .1], [1, 1, 2, 1]),
          'cvr': (labels, [.5, .5, .5, np.nan], weights),
          'none': ([0, 0, 0, 0], [.5] * 4, [0, 0, 0, 0]),
          'kind': ([0, 2, 1, 0], np.eye(3)[[0, 2, 0, 0]], [1, 1, 1, 1])},
      {'user': pa.array(['a', None, 'b', 'a']), 'age': pa.array([3, 3, 4, 5])},
      'user', ['age'], {'kind': 'multiclass'}, **kwargs)
  return rows.read(str(tmp_path), 'test')


def test_what_does_not_count_is_0_and_a_task_without_rows_is_left_out(tmp_path):
  found = _two_tasks(tmp_path, seen=9, step=12)
  assert (found.global_step, found.seen, found.kept) == (12, 9, 4)
  assert list(found.tasks) == ['ctr', 'cvr', 'kind']
  cvr = found.tasks['cvr']
  np.testing.assert_array_equal(cvr.labels, [1, 0, 1, 0])
  np.testing.assert_array_equal(cvr.predictions, [.5, .5, .5, 0])
  assert list(found.user) == ['a', '', 'b', 'a']
  assert list(found.slices['age']) == ['3', '3', '4', '5']
  assert found.tasks['kind'].predictions.shape == (4, 3)


def test_the_digest_is_of_labels_and_weights(tmp_path):
  def digest(labels, predictions, weights):
    made_runs.write_rows(tmp_path / 'eval_rows.parquet', {
        'ctr': (labels, predictions, weights)})
    return rows.read(str(tmp_path), 'evaluation').tasks['ctr'].digest
  one = digest([1, 0, 1], [.1, .2, .3], [1, 1, 1])
  assert digest([1, 0, 1], [.3, .2, .1], [1, 1, 1]) == one
  assert digest([0, 1, 1], [.1, .2, .3], [1, 1, 1]) != one
  assert digest([1, 0, 1], [.1, .2, .3], [1, 0, 1]) != one


def test_the_metrics_of_classes(tmp_path):
  found = measures.of(_two_tasks(tmp_path).tasks['kind'])
  assert list(found) == ['accuracy', 'log_loss']
  assert found['accuracy'](np.ones(4)) == 0.75
  assert found['accuracy'](np.array([1, 1, 0, 1])) == 1


def test_other_files_are_refused_in_one_line(tmp_path):
  path = tmp_path / 'eval_rows.parquet'
  path.write_text('no Parquet')
  with pytest.raises(errors.UserError, match='must be Parquet.*--mode=eval'):
    rows.read(str(tmp_path), 'evaluation')
  pq.write_table(pa.table({'a': [1]}), str(path))
  with pytest.raises(errors.UserError, match='without its metadata'):
    rows.read(str(tmp_path), 'evaluation')
  assert rows.read(str(tmp_path), 'test') is None
