"""ple-estimator metrics: predictions in files, measured with intervals."""

import json
import os
import subprocess
import sys

import conftest
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from ple_estimator.commands import measure
from ple_estimator.training import evaluated_rows

sklearn_metrics = pytest.importorskip('sklearn.metrics')


def _columns(rows=600):
  random = np.random.RandomState(7)
  prediction = random.rand(rows)
  label = (random.rand(rows) < prediction).astype(np.float64)
  return {'clk': label, 'ctr': prediction, 'w': random.rand(rows) + 0.5,
          'user': np.array(['u%d' % u for u in random.randint(0, 50, rows)]),
          'dwell': random.normal(5, 2, rows), 'time': random.normal(5, 1, rows)}


def _file(tmp_path, columns, name='p.parquet', metadata=None):
  path = str(tmp_path / name)
  table = pa.table({key: pa.array(value) for key, value in columns.items()})
  if name.endswith('.csv'):
    pa.csv.write_csv(table, path)
  else:
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)
  return path


@pytest.mark.parametrize('name', ['p.parquet', 'p.csv'])
def test_a_file_of_predictions(tmp_path, command, name):
  columns = _columns()
  out = str(tmp_path / 'm.json')
  status, said, err = command(
      'metrics', _file(tmp_path, columns, name), '--labels',
      'ctr=clk,time=dwell', '--weight', 'w', '--names', 'gauc,lift@0.1',
      '--user', 'user', '--rounds', 20, '--json', out)
  assert status == 0, err
  assert 'ctr: 600 rows of 50 users' in said
  with open(out) as f:
    found = json.load(f)
  args = columns['clk'], columns['ctr']
  weights = {'sample_weight': columns['w']}
  for metric, value in [
      ('auc', sklearn_metrics.roc_auc_score(*args, **weights)),
      ('pr_auc', sklearn_metrics.average_precision_score(*args, **weights)),
      ('log_loss', sklearn_metrics.log_loss(*args, **weights))]:
    assert found['ctr'][metric]['value'] == pytest.approx(value, rel=1e-6)
    assert found['ctr'][metric]['low'] < value < found['ctr'][metric]['high']
  assert found['time']['mae']['value'] == pytest.approx(
      sklearn_metrics.mean_absolute_error(
          columns['dwell'], columns['time'], **weights))
  assert 'gauc' in found['ctr'] and 'gauc' not in found['time']


def test_a_file_of_evaluated_rows(tmp_path, command):
  columns = _columns()
  rows = {'ctr/label': columns['clk'], 'ctr/prediction': columns['ctr'],
          'ctr/weight': np.arange(600) % 3 > 0, 'user': columns['user'],
          'even': np.arange(600) % 2}
  rows['ctr/weight'] = rows['ctr/weight'].astype(np.float32)
  path = _file(tmp_path, rows, metadata={evaluated_rows.KEY: json.dumps({
      'tasks': {'ctr': 'binary'}, 'user': 'user', 'slices': ['even']})})
  status, said, _ = command('metrics', path, '--rounds', 5)
  counts = rows['ctr/weight'] > 0
  assert status == 0
  assert 'ctr: 400 rows of 50 users; 200 rows do not count' in said
  lines = {line.split()[0]: line.split()[1] for line in said.splitlines()[1:]}
  for even in (0, 1):
    of = counts & (rows['even'] == even)
    assert float(lines['auc/even=%d' % even]) == pytest.approx(
        sklearn_metrics.roc_auc_score(columns['clk'][of], columns['ctr'][of]),
        abs=1e-5)


def test_rows_without_a_label_are_counted(tmp_path, command):
  columns = _columns()
  columns['clk'][:10] = np.nan
  status, said, _ = command('metrics', _file(tmp_path, columns), '--labels',
                            'ctr=clk', '--rounds', 2)
  assert status == 0 and 'ctr: 590 rows; 10 rows do not count' in said


@pytest.mark.parametrize('args, message', [
    ([], 'is no file of evaluated rows: name the label of each column'),
    (['--labels', 'ctr'], '--labels must be pairs'),
    (['--labels', 'ctr=click'], "must have the column 'click', it has clk"),
    (['--labels', 'ctr=user'], "Column 'user' of .* must have numbers"),
    (['--labels', 'ctr=clk', '--names', 'gauc'], '--user must name the col'),
    (['--labels', 'ctr=clk', '--names', 'auroc'], "--names must be of gauc"),
    (['--labels', 'ctr=clk', '--rounds', '0'], '--rounds must be an integer'),
])
def test_mistakes_are_one_line(tmp_path, command, args, message):
  status, _, err = command('metrics', _file(tmp_path, _columns()), *args)
  assert status == 1 and err.count('\n') == 1
  with pytest.raises(AssertionError, match=message):
    raise AssertionError(err)


def test_a_file_that_is_cut_is_told(tmp_path, command):
  path = _file(tmp_path, _columns())
  os.truncate(path, 100)
  status, _, err = command('metrics', path, '--labels', 'ctr=clk')
  assert status == 1 and 'cannot be read' in err and err.count('\n') == 1


def test_a_prediction_that_is_missing_is_told(tmp_path, command):
  columns = _columns()
  columns['ctr'][3] = np.nan
  status, _, err = command('metrics', _file(tmp_path, columns), '--labels',
                           'ctr=clk')
  assert status == 1 and 'has a prediction that is missing' in err


def test_it_starts_without_tensorflow(tmp_path):
  path = _file(tmp_path, _columns())
  code = ('import sys; from ple_estimator.commands import words; '
          'status = words.run("metrics", sys.argv[1:]); '
          'assert "tensorflow" not in sys.modules; sys.exit(status)')
  done = subprocess.run(
      [sys.executable, '-c', code, path, '--labels', 'ctr=clk'],
      cwd=conftest.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  assert done.returncode == 0, done.stderr
  assert b'auc' in done.stdout


def test_intervals_by_users_are_wider_where_rows_repeat(tmp_path):
  """Each user has the same row 20 times, so 50 users say what 50 rows do."""
  columns = {name: np.repeat(value[:50], 20)
             for name, value in _columns().items()}
  columns['user'] = np.repeat(np.arange(50), 20)
  path = _file(tmp_path, columns)
  widths = []
  for user in (None, 'user'):
    task = measure.tasks_of(path, {'ctr': 'clk'}, user=user)['ctr']
    found = measure.measure(task)['log_loss']
    widths.append(found.high - found.low)
  assert 3 < widths[1] / widths[0] < 6  # the square root of 20 is 4.5
