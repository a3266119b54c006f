"""The Python API as a notebook uses it: several runs, threads, results."""

import json
import os
import re
import threading

import conftest
from experiments import SMALL
from experiments import SMALL_TABLES
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import ple_estimator as ple
from ple_estimator import errors

QUICK = SMALL + [
    SMALL_TABLES, 'Experiment.max_steps = 3', 'Experiment.exports = None',
    'Experiment.early_stopping = None']


@pytest.fixture
def folder(tmp_path, monkeypatch, taobao):
  """A current folder to write results to; returns the bindings of a run."""
  monkeypatch.chdir(str(tmp_path))
  return QUICK + ['DATA_DIR = %r' % taobao]


@pytest.mark.slow
def test_a_run_trains_evaluates_predicts_and_exports(folder):
  run = ple.load('gin/base.gin', 'gin/mmoe.gin', bindings=folder)
  assert run.name == 'base-mmoe' and run.model_dir == 'result/base-mmoe'
  assert run.train() is None
  metrics = run.evaluate()
  with open('result/base-mmoe/metrics.json') as f:
    assert json.load(f) == metrics
  tested = run.test()
  with open('result/base-mmoe/test.json') as f:
    assert json.load(f) == tested != metrics
  assert metrics['global_step'] == 3 and 0 < metrics['ctr/log_loss'] < 3
  written = run.predict()
  assert written.path == 'result/base-mmoe/predictions.parquet'
  batches = list(written.batches())
  rows = np.concatenate([batch['ctr'] for batch in batches])
  assert written.num_rows == len(rows) == 1000
  assert ((rows > 0) & (rows < 1)).all()
  # The mean prediction is what evaluation says of the same rows.
  assert abs(rows.mean() - metrics['ctr/prediction/mean']) < 1e-4
  assert os.path.exists(os.path.join(run.export(), 'saved_model.pb'))


def test_the_example_of_the_readme_runs(folder, taobao, capsys):
  with open(os.path.join(conftest.ROOT, 'README.md')) as f:
    section = f.read().partition('\n## Python\n')[2].partition('\n## ')[0]
  code, told = re.findall(r'```python\n(.*?)```', section, re.S), re.findall(
      r'^    (.+)$', section.partition('and prints')[2], re.M)
  assert len(code) == 1 and 'max_steps = 300' in code[0]
  os.symlink(taobao, 'data')
  small = ', '.join(map(repr, folder))
  exec(code[0].replace("'Experiment.max_steps = 300'", small), {})
  # The output that the README shows, but for the numbers of smaller data.
  pattern = '\n'.join(re.sub(r'\d+', 'N', line) for line in told)
  assert re.sub(r'\d+', 'N', capsys.readouterr().out.strip()) == pattern


@pytest.mark.slow
def test_runs_keep_their_own_configuration(folder):
  # What is bound to an optimizer is asked for only when the graph is built.
  slow = ple.load('gin/base.gin', bindings=folder + [
      'LEARNING_RATE = 1e-12', "Experiment.model_dir = 'slow'"])
  fast = ple.load('gin/base.gin', bindings=folder + [
      'LEARNING_RATE = 0.5', "Experiment.model_dir = 'fast'"])
  slow.train()
  fast.train()
  slow.evaluate()

  def moved(model_dir):
    first, last = [tf.train.load_variable(
        '%s/model.ckpt-%d' % (model_dir, step), 'ctr/tower/logit/kernel')
                   for step in (0, 3)]
    return np.abs(last - first).max()

  assert moved('slow') < 1e-9 < 0.1 < moved('fast')
  for name, rate in [('slow', '1e-12'), ('fast', '0.5')]:
    with open(name + '/operative_config-0.gin') as f:
      assert 'LEARNING_RATE = %s\n' % rate in f.read()


def test_a_run_trains_in_a_thread_that_is_not_the_main_one(folder):
  failed = []

  def work():
    try:
      ple.load('gin/base.gin', bindings=folder).train()
    except BaseException as error:  # to be seen by the main thread
      failed.append(error)

  thread = threading.Thread(target=work)
  thread.start()
  thread.join(300)
  assert not thread.is_alive() and failed == []
  assert os.path.exists('result/base/model.ckpt-3.index')


def test_a_mistake_is_a_user_error(folder):
  with pytest.raises(errors.UserError, match='PLE.num_levels must be'):
    ple.load('gin/base.gin', bindings=folder + ['PLE.num_levels = 0'])
  with pytest.raises(errors.UserError, match='must hold a checkpoint'):
    ple.load('gin/base.gin', bindings=folder).evaluate()


def test_the_version_is_that_of_the_package():
  import pkg_resources
  assert ple.__version__ == pkg_resources.get_distribution(
      'ple-estimator').version
