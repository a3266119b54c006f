"""Damaged model_dirs, and the values that their checkpoints once had."""

import os
import re
import shutil

import csv_cases
import numpy as np
import outcomes
import tensorflow.compat.v1 as tf

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment
from ple_estimator.training import checkpoints

_GIN = '''
include 'gin/base.gin'
FeatureSpec:
  dim = 2
  columns = [
      {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
      {'name': 'buy', 'kind': 'label', 'values': (0, 1)},
      {'name': 'ad', 'kind': 'hashed', 'num_buckets': 5},
      {'name': 'price', 'kind': 'number'},
  ]
Experiment:
  train_input = @CsvInput()
  eval_input = @CsvInput()
  exports = None
  early_stopping = None
  max_steps = 4
CsvInput:
  data_dir = %DATA_DIR
  batch_size = %BATCH_SIZE
  files = 'rows.csv'
  epochs = %EPOCHS
BATCH_SIZE = 10
EPOCHS = 2
PLE:
  num_levels = 1
  expert_units = (3,)
  gate_units = ()
Tower.units = (2,)
run_config.save_steps = 2
'''
_ROWS = 23


def _experiment(home, model_dir):
  config.load(os.path.join(home, 'x.gin'), [
      'DATA_DIR = %r' % home, 'Experiment.model_dir = %r' % model_dir])
  return experiment.Experiment()


def prepare(home):
  """Trains a tiny model in a folder, for all cases."""
  rng = np.random.RandomState(5)
  with open(os.path.join(home, 'x.gin'), 'w') as f:
    f.write(_GIN)
  with open(os.path.join(home, 'rows.csv'), 'w') as f:
    for i in range(_ROWS):
      f.write('%d,%d,a%d,%.2f\n' % (
          i % 3 == 0, i % 6 == 0, rng.randint(4), rng.rand()))
  _experiment(home, os.path.join(home, 'model')).train()
  found = sorted(os.listdir(os.path.join(home, 'model')))
  outcomes.check({'model.ckpt-2.index', 'model.ckpt-4.index'} <= set(found),
                 'No checkpoints among %s', found)


def _damage(model_dir, rng):
  """Spoils some files of the checkpoints; returns their names."""
  names = sorted(name for name in os.listdir(model_dir)
                 if name == 'checkpoint' or
                 re.match(r'model\.ckpt-\d+\.(index|data-.*)$', name))
  spoilt = []
  for _ in range(rng.randint(1, 5)):
    name = csv_cases.pick(rng, names)
    path = os.path.join(model_dir, name)
    how = rng.randint(4)
    if how == 0 or not os.path.exists(path) or not os.path.getsize(path):
      if os.path.exists(path):
        os.remove(path)
    elif how == 1:
      open(path, 'wb').close()
    else:
      with open(path, 'rb') as f:
        data = f.read()
      with open(path, 'wb') as f:
        f.write(csv_cases.spoilt(data, rng))
    spoilt.append(name)
  return spoilt


def _same_values(path, home):
  """Whether a checkpoint has the values that it was saved with."""
  found = tf.train.load_checkpoint(path)
  saved = tf.train.load_checkpoint(
      os.path.join(home, 'model', os.path.basename(path)))
  names = saved.get_variable_to_shape_map()
  return set(names) == set(found.get_variable_to_shape_map()) and all(
      np.array_equal(saved.get_tensor(name), found.get_tensor(name))
      for name in names)


def case(rng, folder, home):
  """Damages a model_dir, and asks for what to read and to go on from."""
  model_dir = os.path.join(folder, 'model')
  shutil.copytree(os.path.join(home, 'model'), model_dir)
  spoilt, evaluate = _damage(model_dir, rng), rng.rand() < 0.1
  outcome = outcomes.RIGHT
  try:
    if evaluate:
      _evaluate(home, model_dir)
    path = checkpoints.whole(model_dir)
    outcomes.check(path is None or _same_values(path, home),
                   '%s is damaged and is read', path)
    outcomes.check(path is not None or _nothing_left(model_dir),
                   'No checkpoint is found in spite of %s', os.listdir(
                       model_dir))
  except errors.UserError as error:
    outcome = outcomes.refused(error, 'heckpoint')
  try:
    path = checkpoints.mend(model_dir)
  except errors.UserError as error:
    outcomes.check('model.ckpt-2' in str(spoilt) and 'model.ckpt-4' in str(
        spoilt), 'One checkpoint is whole, but it says: %s', error)
    return outcomes.refused(error, 'model.ckpt-')
  outcomes.check(path is not None, 'Training would start anew')
  outcomes.check(_same_values(path, home), '%s is damaged and taken', path)
  outcomes.check(checkpoints.whole(model_dir) == path,
                 'What was mended is not what is read')
  return outcomes.SKIPPED if outcome == outcomes.REFUSED else outcome


def _nothing_left(model_dir):
  return not any(name.endswith('.index') for name in os.listdir(model_dir))


def _evaluate(home, model_dir):
  """Checks the metrics of a damaged model_dir, unless it is refused."""
  with tf.Graph().as_default():
    found = _experiment(home, model_dir).evaluate()
  with tf.Graph().as_default():
    right = _experiment(home, os.path.join(home, 'model')).evaluate(
        os.path.join(home, 'model', 'model.ckpt-%d' % found['global_step']))
  outcomes.check(found == right, 'metrics are %s and must be %s', found, right)
