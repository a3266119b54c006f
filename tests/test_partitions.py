"""Tables and layers in parts: real servers, whole runs, other numbers of them."""

import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

import conftest
from ple_estimator import checkpoints
from ple_estimator import errors
from ple_estimator import keyed_tables
from ple_estimator import model
from test_embedding_variables import CBF, COUNTER
from test_experiment import load

# Slices so small that the small model of the tests has them.
BYTES = 512
PARTS = ['Model.input_layer_partitioner = 1', 'Model.dense_layer_partitioner = 1']


@pytest.fixture
def cluster(monkeypatch):
  """Makes this process the chief of a cluster with n parameter servers."""
  servers = []

  def join(n):
    if not n:
      monkeypatch.delenv('TF_CONFIG', raising=False)
      return
    spec = {'chief': ['localhost:%d' % conftest.free_port()],
            'ps': ['localhost:%d' % conftest.free_port() for _ in range(n)]}
    servers.extend(tf.train.Server(spec, job_name='ps', task_index=i)
                   for i in range(n))
    monkeypatch.setenv('TF_CONFIG', json.dumps(
        {'cluster': spec, 'task': {'type': 'chief', 'index': 0}}))

  yield join
  monkeypatch.delenv('TF_CONFIG', raising=False)


def run(gin_file, model_dir, taobao, steps, *bindings):
  """Trains to a step."""
  made = load('gin/%s.gin' % gin_file, model_dir, taobao,
              'Experiment.exports = None', 'Experiment.early_stopping = None',
              'run_config.save_steps = 1000',
              'Experiment.max_steps = %d' % steps, *(PARTS + list(bindings)))
  made._model._input_part_bytes = made._model._dense_part_bytes = BYTES
  with tf.Graph().as_default():
    made.train()
  return made
