"""Whole runs on rows that have a label only in the sample space of its task."""

import json

import conftest
import gin
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment
from ple_estimator.data import inputs

GIN = '''
include 'gin/base.gin'
FeatureSpec.columns = [
    {'name': 'income', 'kind': 'label', 'values': {'<=50K': 0, ' >50K': 1}},
    {'name': 'buy', 'kind': 'label', 'values': {True: 1, False: 0}},
    {'name': 'stay', 'kind': 'label', 'above': 3},
    {'name': 'spent', 'kind': 'label'},
    {'name': 'ad', 'kind': 'hashed', 'num_buckets': 20},
    {'name': 'x', 'kind': 'number'},
]
Model.tasks = [@ctr/Task(), @cvr/Task(), @stay/Task(), @spent/Task()]
ctr/Task.label = 'income'
cvr/Task.sample_space = ('income', 1)
stay/Task:
  name = 'stay'
  label = 'stay'
spent/Task:
  name = 'spent'
  label = 'spent'
  loss = 'regression'
  sample_space = ('buy', 1)
'''
SMALL = ['PLE.num_levels = 1', 'PLE.expert_units = (4,)', 'Tower.units = ()',
         'BATCH_SIZE = 40', 'EPOCHS = 1', 'Experiment.test_input = None',
         'Experiment.exports = None', 'Experiment.early_stopping = None',
         'Model.averaging = None']
CSV = ['Experiment.train_input = @train/CsvInput()',
       'Experiment.eval_input = @eval/CsvInput()', 'CsvInput.header = True',
       'CsvInput.batch_size = 40', 'CsvInput.data_dir = %DATA_DIR',
       "train/CsvInput.files = 'rows.csv'",
       "eval/CsvInput.files = 'rows.csv'"]
PARQUET = ["train/ParquetInput.files = 'rows.parquet'",
           "eval/ParquetInput.files = 'rows.parquet'",
           'train/ParquetInput.shuffle_rows = 0']


def rows(count=200):
  rng = np.random.RandomState(3)
  rich = rng.rand(count) < 0.4
  buys = rng.rand(count) < 0.5
  spent = np.round(rng.rand(count), 2)
  return pa.table({
      'income': np.where(rich, ' >50K', '<=50K'),
      'buy': pa.array(buys, mask=~rich),
      'stay': rng.randint(0, 7, count),
      'spent': pa.array(spent, mask=~(rich & buys)),
      'ad': rng.randint(0, 9, count).astype(str),
      'x': np.round(rng.randn(count), 3)})


def written(folder, table):
  pa.parquet.write_table(table, str(folder / 'rows.parquet'))
  buy = pa.array([None if x is None else str(x).lower()
                  for x in table['buy'].to_pylist()])
  with pa.csv.CSVWriter(str(folder / 'rows.csv'), pa.schema(
      [(f.name, pa.string() if f.name == 'buy' else f.type)
       for f in table.schema])) as writer:
    writer.write_table(table.set_column(1, 'buy', buy))
  (folder / 'x.gin').write_text(GIN)


def load(folder, *bindings):
  gin.clear_config()
  config.load(str(folder / 'x.gin'), SMALL + [
      'Experiment.model_dir = %r' % str(folder / 'model'),
      'DATA_DIR = %r' % str(folder)] + list(bindings))
  return experiment.Experiment()


def log_loss(label, p):
  return -np.mean(np.where(label, np.log(p), np.log(1 - p)))


@pytest.mark.slow
@pytest.mark.parametrize('source, fused', [
    pytest.param(CSV, True, marks=conftest.needs_kernels), (PARQUET, False)],
                         ids=['csv', 'parquet'])
def test_metrics_are_those_of_the_rows_that_have_a_label(
    source, fused, tmp_path):
  table = rows()
  written(tmp_path, table)
  made = load(tmp_path, 'Model.op_fusion = %s' % fused, *source)
  made.train()
  found = made.evaluate()
  written_rows = pa.parquet.read_table(made.predict().path)
  p = {n: np.array(written_rows[n]) for n in written_rows.column_names}
  rich = np.array(table['income'].to_pylist()) == ' >50K'
  buys = np.array([x is True for x in table['buy'].to_pylist()])
  stays = np.array(table['stay']) > 3
  assert found['ctr/log_loss'] == pytest.approx(
      log_loss(rich, p['ctr']), rel=1e-4)
  assert found['cvr/log_loss'] == pytest.approx(
      log_loss(buys[rich], p['cvr'][rich]), rel=1e-4)
  assert found['cvr/label/mean'] == pytest.approx(buys[rich].mean())
  assert found['stay/log_loss'] == pytest.approx(
      log_loss(stays, p['stay']), rel=1e-4)
  spent = np.array([x or 0.0 for x in table['spent'].to_pylist()])[buys]
  assert found['spent/rmse'] == pytest.approx(np.sqrt(np.mean(
      (spent - p['spent'][buys]) ** 2)), rel=1e-4)
  assert json.dumps(found, allow_nan=False)  # no metric is NaN
  assert None not in found.values()


def test_a_row_that_lacks_a_label_in_its_sample_space_is_told(tmp_path):
  table = rows()
  rich = table['income'].to_pylist().index(' >50K', 7)
  buy = table['buy'].to_pylist()
  buy[rich] = None
  written(tmp_path, table.set_column(1, 'buy', pa.array(buy)))
  for source, path, row in [(CSV, 'rows.csv', rich + 2),
                            (PARQUET, 'rows.parquet', rich + 1)]:
    with pytest.raises(errors.UserError) as raised:
      load(tmp_path, *source).train()
    assert str(raised.value).startswith(
        "%s row %d column 'buy' must be one of True, False in the sample space "
        "('income', 1), got" % (tmp_path / path, row))


@pytest.mark.slow
def test_a_label_that_is_missing_can_be_copied_to_predictions(tmp_path):
  written(tmp_path, rows())
  made = load(tmp_path, "Experiment.predict_columns = ['buy']", *PARQUET)
  made.train()
  found = pa.parquet.read_table(made.predict().path)['buy'].to_pylist()
  wanted = rows()['buy'].to_pylist()
  assert [None if np.isnan(x) else bool(x) for x in found] == wanted


def test_what_csv_to_parquet_writes_has_the_same_labels(
    command, tmp_path):
  written(tmp_path, rows())
  gin.clear_config()
  out = tmp_path / 'rows.parquet'
  status, _, error = command(
      'csv-to-parquet', tmp_path / 'rows.csv', '--out', out, '--header',
      '--gin_file', tmp_path / 'x.gin')
  assert status == 0, error
  found = pa.parquet.read_table(str(out))
  assert found['income'].to_pylist() == rows()['income'].to_pylist()
  assert found['stay'].to_pylist() == rows()['stay'].to_pylist()
  assert set(found['buy'].to_pylist()) == {'true', 'false', ''}
  read = load(tmp_path, *PARQUET).model.reading()
  both = [pa.concat_tables(source.tables(read)) for source in (
      inputs.CsvInput('rows.csv', str(tmp_path), header=True),
      inputs.ParquetInput('rows.parquet', str(tmp_path)))]
  assert both[0].column_names == both[1].column_names
  for name in both[0].column_names:
    np.testing.assert_array_equal(*[table[name].to_numpy() for table in both])


def test_the_linear_reference_takes_the_rows_of_the_sample_space(tmp_path):
  pytest.importorskip('sklearn')
  import linear_reference  # pylint: disable=import-outside-toplevel
  written(tmp_path, rows())
  model = load(tmp_path, *PARQUET).model
  table = linear_reference.read(linear_reference.source('train_input'), model)
  found = linear_reference.targets(table, model)
  rich = np.array(rows()['income'].to_pylist()) == ' >50K'
  buys = np.array([x is True for x in rows()['buy'].to_pylist()])
  np.testing.assert_array_equal(found['cvr'].here, rich)
  np.testing.assert_array_equal(found['cvr'].label, buys)
  np.testing.assert_array_equal(found['spent'].here, buys)
  assert np.isfinite(found['spent'].label).all()


CLASSES = '''
include 'gin/base.gin'
FeatureSpec.columns = [
    {'name': 'ad', 'kind': 'label', 'values': {0: 0, 1: 1, 2: 2, 3: 2, 4: 2,
                                               5: 1, 6: 1, 7: 0, 8: 0}},
    {'name': 'x', 'kind': 'number'},
]
Model.tasks = [@ctr/Task()]
Model.interactions = [@Wide()]
ctr/Task.loss = @MultiClass()
ctr/Task.label = 'ad'
MultiClass.num_classes = 3
lazy_adam.learning_rate = 0.02
'''


@pytest.mark.slow
def test_classes_are_predicted_and_served(tmp_path):
  table = rows()
  numbers = np.array([int(ad) for ad in table['ad'].to_pylist()])
  kind = np.array([0, 1, 2, 2, 2, 1, 1, 0, 0])[numbers]
  x = kind + 0.1 * np.random.RandomState(1).randn(len(kind))
  written(tmp_path, table.set_column(5, 'x', pa.array(x)))
  (tmp_path / 'x.gin').write_text(CLASSES)
  made = load(tmp_path, 'EPOCHS = 30', 'Experiment.eval_epochs = 30', *PARQUET)
  made.train()
  found = made.evaluate()
  p = np.concatenate([batch['ctr'] for batch in made.predict().batches()])
  assert p.shape == (200, 3)
  assert found['ctr/log_loss'] == pytest.approx(
      -np.log(p[np.arange(200), kind]).mean(), rel=1e-4)
  assert found['ctr/accuracy'] == pytest.approx(
      (p.argmax(axis=1) == kind).mean()) and found['ctr/accuracy'] > 0.6
  with tf.Session(graph=tf.Graph()) as sess:
    signature = tf.saved_model.loader.load(
        sess, ['serve'], made.export()).signature_def['serving_default']
    served = sess.run(signature.outputs['ctr'].name, {
        signature.inputs['x'].name: x.astype('f')})
  np.testing.assert_allclose(served, p, rtol=1e-4, atol=1e-6)
  with pytest.raises(errors.UserError, match='Experiment.predictions_path must '
                     r"end in .parquet for predictions that are lists \(ctr\)"):
    load(tmp_path, "Experiment.predictions_path = 'p.csv'", *PARQUET)
