"""Runs that train, evaluate and predict from a store."""

import json
import os
import subprocess
import sys

import conftest
import experiments
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors


def _train(model_dir, data_dir, *bindings):
  with tf.Graph().as_default():
    experiments.load('gin/base.gin', model_dir, data_dir, *bindings).train()


def _state(model_dir, step, folder):
  with open(os.path.join(model_dir, 'input', 'state-%d.json' % step)) as f:
    state = json.loads(f.read().replace(folder, 'FOLDER'))
  for found in state['files']:
    del found['mtime']  # of another copy
  return state


@pytest.mark.slow
def test_a_run_goes_on_as_from_a_disk(store, taobao, tmp_path):
  folders = [taobao, store.put_folder('rows/taobao', taobao)]
  weights, states, predictions = [], [], []
  for folder in folders:
    model_dir = str(tmp_path / ('remote' if '://' in folder else 'local'))
    bindings = experiments.FEW_COLUMNS + [
        'Experiment.early_stopping = None', 'Experiment.exports = None',
        'Experiment.eval_epochs = None', 'BATCH_SIZE = 200']
    _train(model_dir, folder, 'Experiment.max_steps = 4', *bindings)
    states.append(_state(model_dir, 4, folder))
    assert states[-1]['part']['row'] == 800
    _train(model_dir, folder, 'Experiment.max_steps = 9', *bindings)
    made = tf.train.load_checkpoint(os.path.join(model_dir, 'model.ckpt-9'))
    weights.append({name: made.get_tensor(name)
                    for name in made.get_variable_to_shape_map()})
    with tf.Graph().as_default():
      experiments.load('gin/base.gin', model_dir, folder, *bindings).predict()
    predictions.append(pa.parquet.read_table(
        os.path.join(model_dir, 'predictions.parquet')).to_pydict())
  assert states[0] == states[1]
  assert set(weights[0]) == set(weights[1])
  for name, value in weights[0].items():
    np.testing.assert_allclose(
        value, weights[1][name], 1e-3, 1e-5, err_msg=name)
  assert list(predictions[0]) == list(predictions[1])
  for name, values in predictions[0].items():
    if isinstance(values[0], float):
      np.testing.assert_allclose(values, predictions[1][name], 1e-3, 1e-5)
    else:
      assert values == predictions[1][name]


@pytest.mark.parametrize('url', ['s3://rows/result', 'gs://rows/result'])
def test_a_model_dir_is_not_remote(url):
  with pytest.raises(errors.UserError, match=(
      "^Experiment.model_dir must be a path, got the URL '%s': what is written "
      'there is locked and renamed' % url)):
    experiments.load('gin/base.gin', url, '.')


def test_a_model_dir_may_be_a_file_uri(tmp_path):
  made = experiments.load('gin/base.gin', 'file://%s/run' % tmp_path, '.')
  assert made.model_dir == str(tmp_path / 'run')


_LEAVES = '''
import sys
from ple_estimator.data import inputs
from ple_estimator.data import reading
from ple_estimator.storage import streams
sys.path.append('tests')
import reader_cases
streams._FIRST_BYTES = streams._PART_BYTES = 5000
source = inputs.CsvInput(sys.argv[1], batch_size=10)
rows = source.tables(reading.Reading(reader_cases.SPEC))
print(next(rows).num_rows)  # and more is under way
'''


@pytest.mark.slow
def test_a_process_ends_while_something_is_read_ahead(store):
  uri = store.put('rows/leaves.csv', '\n'.join(['1,7,word'] * 200000))
  done = subprocess.run(
      [sys.executable, '-c', _LEAVES, uri], cwd=conftest.ROOT, timeout=120,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      env=dict(os.environ, PYTHONPATH=conftest.ROOT))
  assert (done.returncode, done.stdout) == (0, b'10\n'), done.stderr
