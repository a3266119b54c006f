"""A trained model whose labels depend on some of its columns only."""

import collections
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet

import ple_estimator as ple

_GIN = '''# Two tasks on a category, a number, and columns that say nothing.
include 'gin/small.gin'

DATA_DIR = %(folder)r
train/ParquetInput.files = 'train.parquet'
eval/ParquetInput.files = 'eval.parquet'
test/ParquetInput.files = 'eval.parquet'
train/ParquetInput.shuffle_rows = 2000
EPOCHS = 5
Experiment.eval_epochs = 5
BATCH_SIZE = 100
Experiment.model_dir = %(model_dir)r
Experiment.predictions_path = 'predictions.csv'
Experiment.early_stopping = None
run_config.seed = 7

FeatureSpec.dim = 4
FeatureSpec.columns = [
    {'name': 'y', 'kind': 'label', 'values': (0, 1)},
    {'name': 'z', 'kind': 'label'},
    {'name': 'kind', 'kind': 'hashed', 'num_buckets': 100},
    {'name': 'noise', 'kind': 'hashed', 'num_buckets': 100},
    {'name': 'x', 'kind': 'number', 'default': 0.0},
    {'name': 'day', 'kind': 'integer', 'num_buckets': 8},
    {'name': 'point', 'kind': 'vector', 'width': 2},
    {'name': 'words', 'kind': 'hashed_list', 'num_buckets': 50},
    {'name': 'places', 'kind': 'hashed_list', 'num_buckets': 50},
    {'name': 'kind_day', 'kind': 'crossed', 'columns': ('kind', 'day'),
     'num_buckets': 1000},
]

PLE:
  num_levels = 2
  expert_units = (8,)
  num_task_experts = 1
  num_shared_experts = 2
Tower.units = (4,)
Model:
  embedding_dropout = 0.0
  interactions = [@Wide()]
  averaging = None
  tasks = [@y/Task(), @z/Task()]
y/Task:
  name = 'y'
  label = 'y'
z/Task:
  name = 'z'
  label = 'z'
  loss = 'regression'
  sample_space = ('y', 1)
'''

Trained = collections.namedtuple('Trained', 'gin_file folder model_dir export')


def table(count, seed):
  """Rows whose labels depend on `kind` and `x` alone."""
  random = np.random.RandomState(seed)
  kind, x = random.randint(0, 5, count), random.randn(count)
  logit = 1.5 * (kind - 2) + 1.5 * x
  items = random.randint(0, 4, count)
  lists = [['w%d' % random.randint(20) for _ in range(n)] for n in items]
  places = [['p%d' % random.randint(20) for _ in range(n)] for n in items]
  return pa.table({
      'y': (random.rand(count) < 1 / (1 + np.exp(-logit))).astype('f'),
      'z': (kind + 0.1 * random.randn(count)).astype('f'),
      'kind': ['k%d' % k for k in kind],
      'noise': ['n%d' % n for n in random.randint(0, 30, count)],
      'x': pa.array([None if i % 50 == 3 else v for i, v in enumerate(x)]),
      'day': pa.array([None if i % 40 == 7 else i * 7 % 8
                       for i in range(count)]),
      'point': random.randn(count, 2).astype('f').tolist(),
      'words': lists, 'places': ['|'.join(of) for of in places]})


def train(folder):
  """Trains 150 steps in a folder; returns a Trained with a SavedModel."""
  pa.parquet.write_table(table(3000, 1), os.path.join(folder, 'train.parquet'))
  pa.parquet.write_table(table(1500, 2), os.path.join(folder, 'eval.parquet'))
  model_dir = os.path.join(folder, 'run')
  gin_file = os.path.join(folder, 'trust.gin')
  with open(gin_file, 'w') as f:
    f.write(_GIN % {'folder': folder, 'model_dir': model_dir})
  ple.load(gin_file).train()
  return Trained(gin_file, folder, model_dir,
                 os.path.join(model_dir, 'export', 'latest'))
