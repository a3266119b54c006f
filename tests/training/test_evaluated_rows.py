"""Metrics of evaluations beside the usual, and the file of evaluated rows."""

import json
import math

from experiments import load
from experiments import metrics_of
import numpy as np
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.metrics import chosen
from ple_estimator.training import evaluated_rows

sklearn_metrics = pytest.importorskip('sklearn.metrics')

NAMES = ['gauc', 'pr_auc', 'normalised_entropy', 'lift@0.1', 'recall@5',
         'expected_calibration_error']
BINDINGS = [
    'PLE.num_task_experts = 1',  # so that there are gates
    'EPOCHS = 1', 'Experiment.metrics = @Metrics()',
    'Metrics.names = %r' % NAMES, "Metrics.user = 'cms_segid'",
    "Metrics.slices = ['pid', 'final_gender_code']",
    'Metrics.train_rows = 150', "EarlyStopping.metric = 'mean/gauc'",
    "Exports.best_metric = 'ctr/lift@0.1'", 'Experiment.max_steps = 20']


@pytest.fixture(scope='module')
def run(taobao, tmp_path_factory):
  """A trained run and its folder."""
  folder = tmp_path_factory.mktemp('run')
  made = load('gin/base.gin', folder, taobao, *BINDINGS)
  made.train()
  return made, folder


def rows_of(folder, name='eval'):
  table = pyarrow.parquet.read_table(evaluated_rows.path_of(str(folder), name))
  about = json.loads(table.schema.metadata[evaluated_rows.KEY].decode())
  return {
      column: np.asarray(table.column(column).to_pylist())
      for column in table.schema.names}, about


def test_the_file_has_every_row_of_the_evaluation(run, taobao):
  _, folder = run
  rows, about = rows_of(folder)
  assert sorted(about) == ['checkpoint', 'global_step', 'input', 'rows',
                           'rows_seen', 'slices', 'tasks', 'user']
  assert about['global_step'] == 20 and about['user'] == 'cms_segid'
  assert about['tasks'] == {'ctr': 'binary', 'cvr': 'binary'}
  source = pyarrow.parquet.read_table(about['input'][0])
  assert about['rows'] == about['rows_seen'] == source.num_rows
  # In the order of the file, with its labels and columns.
  assert rows['ctr/label'].tolist() == source.column('clk').to_pylist()
  assert rows['cvr/label'].tolist() == source.column('buy').to_pylist()
  assert rows['pid'].tolist() == source.column('pid').to_pylist()
  assert rows['ctr/weight'].tolist() == [1.0] * source.num_rows


def test_metrics_are_those_of_the_rows(run):
  _, folder = run
  rows, _ = rows_of(folder)
  found = metrics_of(folder)
  for task in ('ctr', 'cvr'):
    labels, scores = rows[task + '/label'], rows[task + '/prediction']
    # The streaming AUC takes rows of one bin of logits for ties.
    bins = np.floor(np.log(scores / (1 - scores)) * 2**14)
    assert found[task + '/auc'] == pytest.approx(
        sklearn_metrics.roc_auc_score(labels, bins), abs=1e-4)
    assert found[task + '/pr_auc'] == pytest.approx(
        sklearn_metrics.average_precision_score(labels, scores), abs=1e-6)
    rate = labels.mean()
    assert found[task + '/normalised_entropy'] == pytest.approx(
        sklearn_metrics.log_loss(labels, scores) /
        -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate)), rel=1e-4)
    for value in np.unique(rows['pid']):
      of = rows['pid'] == value
      assert found['%s/auc/pid=%s' % (task, value)] == pytest.approx(
          sklearn_metrics.roc_auc_score(labels[of], scores[of]), abs=1e-9)
    total = count = 0
    for user in np.unique(rows['cms_segid']):
      of = rows['cms_segid'] == user
      if 0 < labels[of].sum() < of.sum():
        total += of.sum() * sklearn_metrics.roc_auc_score(
            labels[of], scores[of])
        count += of.sum()
    assert found[task + '/gauc'] == pytest.approx(total / count, abs=1e-9)
    assert 0 < found[task + '/lift@0.1'] and 0 < found[task + '/recall@5'] < 1
    assert 0.4 < found[task + '/auc/train'] <= 1


def test_training_goes_by_them(run):
  _, folder = run
  with open(str(folder / 'evaluations.json')) as f:
    said = json.load(f)
  last = said['evaluations'][-1]
  assert said['best']['mean/gauc']['value'] == pytest.approx(
      (last['ctr/gauc'] + last['cvr/gauc']) / 2)
  assert said['kept']['ctr/lift@0.1'] == last['ctr/lift@0.1']
  assert any(name.startswith('gate/level_0/ctr/') for name in last)


def test_the_sample_of_training_rows_is_that_of_an_evaluation(
    run, taobao, tmp_path):
  """The first two batches: 150 rows are one and a half of 100."""
  made, folder = run
  source = pyarrow.parquet.read_table(
      made.trainer._train_input.paths()[0]).slice(0, 200)
  path = str(tmp_path / 'first.parquet')
  pyarrow.parquet.write_table(source, path)
  again = load('gin/base.gin', folder, taobao, *BINDINGS,
               'eval/ParquetInput.files = [%r]' % path,
               "eval/ParquetInput.data_dir = ''")
  before = metrics_of(folder)
  found = again.evaluate()
  for name in ('ctr/auc', 'cvr/log_loss'):
    assert found[name] == pytest.approx(before[name + '/train'], abs=1e-6)


@pytest.mark.slow
def test_only_the_first_rows_are_kept(taobao, tmp_path):
  made = load('gin/base.gin', tmp_path, taobao, 'Experiment.max_steps = 1',
              'Experiment.metrics = @Metrics()', 'Metrics.keep_rows = 150')
  made.train()
  rows, about = rows_of(tmp_path)
  assert len(rows['ctr/label']) == about['rows'] == 150 < about['rows_seen']


@pytest.mark.slow
def test_no_rows_are_kept_where_none_are_wanted(taobao, tmp_path):
  made = load('gin/base.gin', tmp_path, taobao, 'Experiment.max_steps = 1',
              'Experiment.metrics = @Metrics()', 'Metrics.keep_rows = 0')
  made.train()
  assert not (tmp_path / 'eval_rows.parquet').exists()


@pytest.mark.parametrize('bindings, message', [
    (["Metrics.names = ['auc']"], r"Metrics.names must be of gauc, .*'auc'"),
    (["Metrics.names = ['gauc']"], 'Metrics.user must name the column'),
    (["Metrics.names = ['recall@5']"], 'Metrics.user must name the column'),
    (["Metrics.names = ['lift@1.5']"], 'a share of the rows between 0 and 1'),
    (["Metrics.names = ['lift@0']"], 'a share of the rows between 0 and 1'),
    (["Metrics.names = ['lift@x']"], 'a share of the rows between 0 and 1'),
    (["Metrics.user = 'nobody'"], "Metrics.user must name columns .*'nobody'"),
    (["Metrics.slices = ['colour']"], 'Metrics.slices must name columns of'),
    (["Metrics.slices = ['v']", 'FeatureSpec.columns = %r' % [
        {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
        {'name': 'buy', 'kind': 'label', 'values': (0, 1)},
        {'name': 'price', 'kind': 'integer', 'num_buckets': 5},
        {'name': 'v', 'kind': 'vector', 'width': 3}],
      'FeatureSpec.overrides = {}'],
     "Metrics.slices must name columns with one .* got the vector 'v'"),
    (["EarlyStopping.metric = 'ctr/pr_auc'"],
     r"EarlyStopping.metric .* Bind Metrics.names = \['pr_auc'\]\."),
    (['Metrics.names = ["pr_auc"]', 'ctr/Task.loss = "regression"',
      'cvr/Task.loss = "regression"', "EarlyStopping.metric = 'loss'",
      "Exports.best_metric = 'loss'"], 'and there is none'),
])
def test_what_does_not_fit_is_told(taobao, tmp_path, bindings, message):
  with pytest.raises(errors.UserError, match=message):
    load('gin/base.gin', tmp_path, taobao, 'Experiment.metrics = @Metrics()',
         *bindings)


def test_values_beyond_the_most_frequent_are_measured_together():
  values = np.array([b'v%d' % (i % 25) for i in range(500)] + [b'v0'] * 3)
  found = chosen.slices(values)
  assert len(found) == chosen.MOST_SLICES + 1
  assert found[0][0] == 'v0' and found[-1][0] == chosen.OTHERS
  assert found[-1][1].sum() == 5 * 20
  assert sum(which.sum() for _, which in found) == len(values)


def test_rows_outside_of_the_sample_space_do_not_count():
  rows = {'cvr/label': np.array([1, 0, 1, 0]),
          'cvr/prediction': np.array([.9, .1, .2, .8]),
          'cvr/weight': np.array([1, 1, 0, 0])}
  found = chosen.Metrics(['pr_auc', 'lift@0.5']).measure(rows, {'cvr': True})
  assert found == {'cvr/pr_auc': 1, 'cvr/lift@0.5': 2}


def test_curves_of_the_training_sample_have_the_same_names(run):
  _, folder = run
  tags = {value.tag for path in folder.glob('eval_train/*.tfevents.*')
          for event in tf.train.summary_iterator(str(path))
          for value in event.summary.value}
  assert {'ctr/auc', 'cvr/log_loss', 'loss'} <= tags
