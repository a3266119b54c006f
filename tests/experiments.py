"""Experiments that several tests train, and how they look at the results."""

import glob
import json
import os
import subprocess
import sys

import gin
import pyarrow as pa
import pyarrow.parquet
import pytest
import serving_client
import tensorflow.compat.v1 as tf

from ple_estimator import config
from ple_estimator import experiment
from ple_estimator.training import incremental

# A row of a table costs when tables are made and saved: 710,310 of base take
# 1.7 seconds of a processor for every training.
_SMALL_TABLES = {
    name: {'num_buckets': 1000} for name in [
        'adgroup_id', 'cate_id', 'campaign_id', 'customer', 'brand', 'user_id',
        'tag_category_list', 'tag_brand_list']}
SMALL_TABLES = 'FeatureSpec.overrides = %r' % _SMALL_TABLES
# The same, and the categories that a user looked at are those of the rows.
SHARED_TABLE = 'FeatureSpec.overrides = %r' % dict(_SMALL_TABLES, **{
    name: {'num_buckets': 1000, 'table': 'category'}
    for name in ('cate_id', 'tag_category_list')})
# The same for gin/din.gin, with lists that may be empty and are cut.
SMALL_DIN = 'FeatureSpec.overrides = %r' % dict(
    _SMALL_TABLES,
    tag_category_list={'num_buckets': 1000, 'combiner': 'attention',
                       'query': 'cate_id', 'default': '', 'max_items': 3},
    tag_brand_list={'num_buckets': 1000, 'combiner': 'attention',
                    'query': 'brand'})
# One column of each kind of gin/taobao.gin: a graph of six columns is built and
# compiled in a third of the time of one of seventeen.
FEW_NAMES = ['user_id', 'cate_id', 'age_level', 'tag_category_list',
             'tag_brand_list', 'price']
FEW_COLUMNS = ['FeatureSpec.overrides = None', 'FeatureSpec.columns = %r' % [
    {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
    {'name': 'buy', 'kind': 'label', 'values': (0, 1)},
    {'name': 'user_id', 'kind': 'hashed', 'num_buckets': 500, 'default': ' '},
    {'name': 'cate_id', 'kind': 'hashed', 'num_buckets': 500, 'default': ' '},
    {'name': 'age_level', 'kind': 'hashed', 'num_buckets': 30, 'default': ' '},
    {'name': 'tag_category_list', 'kind': 'hashed_list', 'num_buckets': 500,
     'default': ' '},
    {'name': 'tag_brand_list', 'kind': 'hashed_list', 'num_buckets': 400,
     'default': ' '},
    {'name': 'price', 'kind': 'integer', 'num_buckets': 50}]]
# One small expert that the tasks share, and nothing beside it, as most tests of
# runs do not depend on the network: to build the graph of two levels of PLE
# takes three times as long. Tests of interactions, averaged weights and dropout
# bind them again.
SMALL = [
    'Model.interactions = []', 'Model.averaging = None',
    'Model.embedding_dropout = 0.0',
    'PLE.num_levels = 1', 'PLE.num_task_experts = 0',
    'PLE.expert_units = (8,)', 'PLE.gate_units = ()', 'Tower.units = (4,)',
    'BATCH_SIZE = 100', 'run_config.summary_steps = 5',
    'Experiment.eval_steps = 0']  # evaluates every checkpoint
# After SMALL, for tests of what only a network with gates has.
TWO_LEVELS = ['PLE.num_levels = 2', 'PLE.num_task_experts = 2']


def load(gin_file, model_dir, data_dir, *bindings, hooks=()):
  gin.clear_config()
  config.load(gin_file, SMALL + [
      SMALL_TABLES, 'Experiment.model_dir = %r' % str(model_dir),
      'DATA_DIR = %r' % str(data_dir)] + list(bindings))
  return experiment.Experiment(hooks=list(hooks))


def metrics_of(model_dir):
  with open(os.path.join(str(model_dir), 'metrics.json')) as f:
    return json.load(f)


COUNTER = ['EmbeddingVariable.filter = @CounterFilter()',
           'CounterFilter.filter_freq = 3',
           'EmbeddingVariable.eviction = @GlobalStepEviction()',
           'GlobalStepEviction.steps_to_live = 5']
CBF = ['EmbeddingVariable.filter = @CbfFilter()', 'CbfFilter.filter_freq = 2',
       'CbfFilter.max_element_size = 10_000',
       'EmbeddingVariable.eviction = @L2Eviction()',
       'EmbeddingVariable.stddev = None',  # rows start above the threshold
       'L2Eviction.l2_weight_threshold = 0.2']


def served(model_dir, taobao, tmp_path, columns=None, apart=False):
  """What the SavedModel says of what is predicted, and as Examples.

  Args:
    model_dir: pathlib.Path, whose export/saved_model has it.
    taobao: str, the folder of the rows.
    tmp_path: pathlib.Path, for files.
    columns: names of the columns to send; None sends those of gin/taobao.gin.
    apart: bool, whether to load it in a process of its own, which takes
      some seconds to import TensorFlow.
  """
  rows = pa.parquet.read_table(taobao + '/taobao_validation_data.parquet')
  names = [n for n in columns or rows.column_names
           if n not in ('clk', 'buy', 'final_gender_code')]
  rows = {n: rows[n].to_pylist() for n in names}
  saved, = glob.glob(str(model_dir / 'export' / 'saved_model' / '*'))
  if not apart:
    return serving_client.answers(saved, rows)
  path = tmp_path / 'rows.json'
  path.write_text(json.dumps(rows))
  return json.loads(subprocess.check_output(
      [sys.executable, serving_client.__file__, saved, str(path)],
      cwd=str(tmp_path), stderr=subprocess.DEVNULL).decode())


def exact_auc(scores, labels, weights):
  """By counting pairs, one positive row at a time."""
  wins = 0.0
  for score, weight in zip(scores[labels == 1], weights[labels == 1]):
    rest = scores[labels == 0]
    won = (score > rest) + 0.5 * (score == rest)
    wins += weight * (won * weights[labels == 0]).sum()
  return wins / weights[labels == 1].sum() / weights[labels == 0].sum()


CRASH = 33  # deltas are due at 25 and 30, a full checkpoint was at 20


class Crash(Exception):
  """What ends a run."""


class _Crash(tf.train.SessionRunHook):
  """Ends a run as a kill would: without a last checkpoint."""

  def before_run(self, run_context):
    return tf.train.SessionRunArgs(tf.train.get_global_step())

  def after_run(self, run_context, run_values):
    if run_values.results >= CRASH:
      raise Crash()


def experiment_of(gin_file, model_dir, taobao, *bindings, hooks=()):
  return load(
      'gin/%s.gin' % gin_file, model_dir, taobao, 'Experiment.exports = None',
      'Experiment.incremental = @IncrementalCheckpoint()',
      'IncrementalCheckpoint.save_steps = 5', 'run_config.save_steps = 20',
      'Experiment.max_steps = 40', 'EPOCHS = 3', *bindings, hooks=hooks)


def broken_off(gin_file, model_dir, taobao, *bindings):
  """Trains until the crash; keeps a full checkpoint beside every delta."""
  made = experiment_of(
      gin_file, model_dir, taobao, 'Experiment.eval_input = None',
      'Experiment.early_stopping = None', *bindings, hooks=[_Crash()])
  write = incremental._Hook._write

  def write_both(self, session, step):
    write(self, session, step)
    self._saver.save(session, str(model_dir) + '/full/ckpt-%d' % step)

  os.makedirs(str(model_dir) + '/full')
  incremental._Hook._write = write_both
  try:
    with pytest.raises(Crash):
      made.train()
  finally:
    incremental._Hook._write = write
