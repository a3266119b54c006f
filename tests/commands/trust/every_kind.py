"""A trained model with a column of every kind, and tasks of several losses."""

import os

import models
import numpy as np
import pyarrow as pa
import pyarrow.parquet

import ple_estimator as ple

_GIN = '''# Columns of every kind; tasks with one logit, several and none.
include 'gin/small.gin'

DATA_DIR = %(folder)r
train/ParquetInput.files = 'train.parquet'
eval/ParquetInput.files = 'eval.parquet'
test/ParquetInput.files = 'eval.parquet'
EPOCHS = 4
BATCH_SIZE = 100
Experiment.model_dir = %(model_dir)r
Experiment.eval_epochs = 4
Experiment.early_stopping = None
Experiment.exports = None

FeatureSpec.dim = 4
FeatureSpec.columns = [
    {'name': 'y', 'kind': 'label', 'values': (0, 1)},
    {'name': 'v', 'kind': 'label', 'values': (0, 1)},
    {'name': 'size', 'kind': 'label', 'values': (0, 1, 2)},
    {'name': 'count', 'kind': 'label'},
    {'name': 'w', 'kind': 'weight'},
    {'name': 'kind', 'kind': 'hashed', 'num_buckets': 100, 'table': 'kinds'},
    {'name': 'seen', 'kind': 'hashed_list', 'num_buckets': 100,
     'table': 'kinds'},
    {'name': 'noise', 'kind': 'vocabulary', 'values': ['n0', 'n1', 'n2', 'n3'],
     'num_oov_buckets': 2},
    {'name': 'x', 'kind': 'number', 'default': 0.0},
    {'name': 'amount', 'kind': 'bucketised', 'boundaries': (-1, 0, 1)},
    {'name': 'day', 'kind': 'integer', 'num_buckets': 8},
    {'name': 'point', 'kind': 'vector', 'width': 2},
    {'name': 'words', 'kind': 'hashed_list', 'num_buckets': 50,
     'aligned': 'history', 'combiner': 'attention', 'query': 'day'},
    {'name': 'places', 'kind': 'hashed_list', 'num_buckets': 50,
     'aligned': 'history', 'combiner': 'sum'},
    {'name': 'tags', 'kind': 'hashed_list', 'num_buckets': 50, 'weights': ':'},
    {'name': 'marks', 'kind': 'hashed_list', 'num_buckets': 50,
     'weights_column': 'scores'},
    {'name': 'scores', 'kind': 'weight_list'},
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
  tasks = [@y/Task(), @v/Task(), @size/Task(), @count/Task(), @yv/ProductTask()]
  attention = @Attention()
  averaging = @Averaging()
y/Task:
  name = 'y'
  label = 'y'
v/Task:
  name = 'v'
  label = 'v'
  sample_space = ('y', 1)
size/Task:
  name = 'size'
  label = 'size'
  loss = @MultiClass()
MultiClass.num_classes = 3
count/Task:
  name = 'count'
  label = 'count'
  loss = 'poisson'
yv/ProductTask:
  name = 'yv'
  of = [@y/Task(), @v/Task()]
lazy_adam.learning_rate = 0.02
%(more)s
'''


def table(count, seed):
  """Rows of models.table with further columns."""
  random = np.random.RandomState(seed + 100)
  found = models.table(count, seed).drop(['z'])
  kinds = [int(kind[1:]) for kind in found['kind'].to_pylist()]
  for name, values in [
      ('v', (random.rand(count) < np.array(kinds) / 5).astype('f')),
      ('size', (np.array(kinds) // 2).astype('f')),
      ('count', random.poisson(1 + np.array(kinds)).astype('f')),
      ('w', random.randint(0, 3, count).astype('f')),
      ('seen', [['k%d' % random.randint(5)] * (i % 3) for i in range(count)]),
      ('amount', random.randn(count)),
      ('tags', ['|'.join('t%d:%.2f' % (random.randint(9), random.rand())
                         for _ in range(i % 4)) for i in range(count)]),
      ('marks', [['m%d' % random.randint(9)] * (i % 3) for i in range(count)]),
      ('scores', [random.rand(i % 3).astype('f') for i in range(count)])]:
    found = found.append_column(name, pa.array(values))
  return found


def train(folder, *more):
  """Trains some steps in a folder; returns a models.Trained, export None."""
  folder = str(folder)
  pa.parquet.write_table(table(1000, 1), os.path.join(folder, 'train.parquet'))
  pa.parquet.write_table(table(300, 2), os.path.join(folder, 'eval.parquet'))
  model_dir = os.path.join(folder, 'run')
  gin_file = os.path.join(folder, 'every.gin')
  with open(gin_file, 'w') as f:
    f.write(_GIN % {'folder': folder, 'model_dir': model_dir,
                    'more': '\n'.join(more)})
  ple.load(gin_file).train()
  return models.Trained(gin_file, folder, model_dir, None)
