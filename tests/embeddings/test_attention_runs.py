"""Whole runs of gin/din.gin: training, evaluation, prediction and serving."""

from experiments import SMALL_DIN
from experiments import broken_off
from experiments import load as load_experiment
from experiments import metrics_of
from experiments import served
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.training import incremental

# Vectors and weights that are of the size of numbers, so that they count.
BINDINGS = [SMALL_DIN, 'STDDEV = 1.0', 'Model.averaging = @Averaging()',
            'Model.interactions = [@Wide(), @FwFM()]', 'FwFM.dim = 4',
            'Attention.units = (6, 4)', 'Experiment.exports = None',
            'LEARNING_RATE = 0.02', 'PLE.num_levels = 1']


def load(model_dir, taobao, *bindings):
  return load_experiment('gin/din.gin', model_dir, taobao,
                         *(BINDINGS + list(bindings)))


@pytest.fixture(scope='module')
def trained(taobao, tmp_path_factory):
  """A model_dir with 10 steps of fused kernels, where there are some."""
  path = tmp_path_factory.mktemp('trained')
  load(path, taobao, 'Experiment.max_steps = 10',
       'Experiment.eval_input = None', 'Experiment.early_stopping = None'
       ).train()
  return path


def predicted(model_dir, taobao, *bindings):
  load(model_dir, taobao, *bindings).predict()
  return pa.parquet.read_table(str(model_dir / 'predictions.parquet'))


def check_close(got, wanted):
  for task in ('ctr', 'cvr'):
    np.testing.assert_allclose(
        got[task], np.asarray(wanted[task]), rtol=1e-3, atol=1e-6)


def test_attention_is_trained(trained):
  reader = tf.train.load_checkpoint(str(trained))
  names = {name for name in reader.get_variable_to_shape_map()
           if name.startswith('attention/tag_brand_list/')}
  assert {'attention/tag_brand_list/logit/bias',
          'attention/tag_brand_list/dense_0/kernel/average'} <= names
  # Biases start at 0.
  assert np.abs(reader.get_tensor(
      'attention/tag_category_list/logit/bias')).min() > 1e-3


@pytest.mark.slow
def test_evaluation_is_that_without_kernels(trained, taobao):
  load(trained, taobao).evaluate()
  found = metrics_of(trained)
  load(trained, taobao, 'Model.op_fusion = False').evaluate()
  assert metrics_of(trained) == pytest.approx(found, rel=1e-3, abs=1e-5)


def test_csv_files_and_served_models_give_the_same(trained, taobao, tmp_path):
  wanted = predicted(trained, taobao)
  assert np.std(wanted['ctr'].to_numpy()) > 0.01
  load(trained, taobao).export()
  for answer in served(trained, taobao, tmp_path):
    check_close(answer, wanted)
  of_csv = predicted(
      trained, taobao, 'Experiment.predict_input = @CsvInput()',
      "CsvInput.files = '%s/taobao_validation_data'" % taobao)
  check_close({task: of_csv[task].to_numpy() for task in ('ctr', 'cvr')},
              wanted)


@pytest.mark.parametrize('binding, word', [
    ('Attention.normalize = True', 'Attention.normalize = False, now True'),
    ("Attention.activation = 'relu'", "activation = 'sigmoid', now 'relu'"),
    (SMALL_DIN.replace("'query': 'brand'", "'query': 'cate_id'"),
     'FeatureSpec.overrides = '),
])
def test_attention_of_another_kind_is_another_model(trained, taobao, binding,
                                                    word):
  with pytest.raises(errors.UserError) as raised:
    load(trained, taobao, binding).evaluate()
  assert 'holds another model' in str(raised.value)
  assert word in str(raised.value)


@pytest.mark.parametrize('embedding', [
    pytest.param('EmbeddingVariable', marks=pytest.mark.slow),
    'HashEmbedding'])
def test_deltas_add_up_to_the_full_checkpoint(taobao, tmp_path, embedding):
  run = tmp_path / 'run'
  broken_off('din', run, taobao, *(BINDINGS + [
      'Model.embedding = @%s()' % embedding, 'Model.averaging = None']))
  path = incremental.merged(tf.train.latest_checkpoint(str(run)))
  got, wanted = [tf.train.load_checkpoint(at) for at in (
      path, str(run) + '/full/ckpt-30')]
  names = sorted(wanted.get_variable_to_shape_map())
  assert path.endswith('-30') and names == sorted(
      got.get_variable_to_shape_map())
  assert 'attention/tag_brand_list/dense_1/kernel' in names
  for name in names:
    np.testing.assert_array_equal(
        got.get_tensor(name), wanted.get_tensor(name), err_msg=name)
