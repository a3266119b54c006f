"""Columns of all kinds in one model: trained, predicted and served."""

import experiments
import gin
import numpy as np
import pytest
import roads
import tensorflow.compat.v1 as tf

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment

GIN = '''
include 'gin/base.gin'
FeatureSpec:
  dim = 2
  columns = [
      {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
      {'name': 'buy', 'kind': 'label', 'values': (0, 1)},
      {'name': 'ad', 'kind': 'hashed', 'num_buckets': 5, 'trainable': False},
      {'names': 'I1:I3', 'kind': 'number'},
      {'name': 'age', 'kind': 'bucketised', 'boundaries': (20, 40, 60)},
      {'name': 'colour', 'kind': 'vocabulary', 'values': 'COLOURS',
       'num_oov_buckets': 2},
      {'name': 'v', 'kind': 'vector', 'width': 3},
      {'name': 'tags', 'kind': 'hashed_list', 'num_buckets': 9, 'max_items': 2},
      {'name': 'liked', 'kind': 'hashed_list', 'num_buckets': 9,
       'weights': ':', 'max_items': 2},
      {'name': 'both', 'kind': 'crossed', 'columns': ('age', 'colour'),
       'num_buckets': 11},
  ]
Experiment:
  train_input = @train/CsvInput()
  eval_input = @eval/CsvInput()
  exports = None
  early_stopping = None
  max_steps = 6
CsvInput:
  data_dir = %DATA_DIR
  batch_size = %BATCH_SIZE
  files = 'rows.csv'
train/CsvInput.epochs = %EPOCHS
run_config.save_steps = 3
PLE.num_levels = 1
'''
NAMES = ['ad', 'I1', 'I2', 'I3', 'age', 'colour', 'v', 'tags', 'liked']


def rows(count):
  """Random rows as CSV has them, without the labels."""
  rng = np.random.RandomState(4)
  pick = lambda words: words[rng.randint(len(words))]
  return [[
      'a%d' % rng.randint(4), '%.2f' % rng.rand(), '%.2f' % rng.rand(), '1',
      pick(['', '10', '20', '39.5', '70']), pick(['red', 'blue', 'x', 'y', '']),
      '%.2f|%.2f|0' % (rng.rand(), rng.rand()), pick(['', 'p', 'p|q|r', 'r|p']),
      pick(['', 'p:2', 'p:%.2f|q:3|r:1' % rng.rand(), 'q:1|p:0'])]
          for _ in range(count)]


@pytest.fixture
def load(tmp_path):
  """A function of bindings to the Experiment on random rows in tmp_path."""
  (tmp_path / 'colours.txt').write_text('red\nblue\ngreen\n')
  (tmp_path / 'own.gin').write_text(
      GIN.replace('COLOURS', str(tmp_path / 'colours.txt')))
  (tmp_path / 'rows.csv').write_text(''.join(
      ','.join([str(i % 2), str(i % 4 // 3)] + row) + '\n'
      for i, row in enumerate(rows(60))))

  def loaded(*bindings):
    gin.clear_config()
    config.load(str(tmp_path / 'own.gin'), [
        b for b in experiments.SMALL if not b.startswith('Model.inter')] + [
            'BATCH_SIZE = 20', 'EPOCHS = 5', 'DATA_DIR = %r' % str(tmp_path),
            'Experiment.model_dir = %r' % str(tmp_path / 'model')] +
                list(bindings))
    return experiment.Experiment()
  return loaded


def feeds():
  """The rows as a caller of a served model has them, None where missing."""
  read = {'age': float, 'I1': float, 'I2': float, 'I3': float,
          'v': lambda text: [float(x) for x in text.split('|')]}
  return {name: [read.get(name, str)(row[i]) if row[i] else None
                 for row in rows(60)] for i, name in enumerate(NAMES)}


def answers(folder, spec):
  """What a SavedModel says of the rows, by each of its signatures."""
  fed = feeds()
  with tf.Session(graph=tf.Graph()) as sess:
    made = tf.saved_model.loader.load(sess, ['serve'], folder)
    for name, signature in sorted(made.signature_def.items()):
      values = {key: np.array([
          roads.missing(spec[key]) if x is None else x for x in fed[key]],
                              spec[key].dtype.as_numpy_dtype) for key in fed}
      if name.startswith('examples'):
        values = dict.fromkeys(signature.inputs, roads.examples(spec, fed))
      yield sess.run(
          {key: out.name for key, out in signature.outputs.items()},
          {signature.inputs[key].name: x for key, x in values.items()})


@pytest.mark.slow
@pytest.mark.parametrize('op_fusion', [True, False])
def test_it_trains_predicts_and_serves_alike(load, tmp_path, op_fusion):
  made = load('Model.op_fusion = %s' % op_fusion)
  made.train()
  found = [tf.train.load_checkpoint(
      str(tmp_path / ('model/model.ckpt-%d' % step))) for step in (3, 6)]
  table, = [name for name in found[0].get_variable_to_shape_map()
            if name.endswith('_frozen/embedding')]
  own = table.replace('/embedding', '/own')  # what Wide and FwFM read
  before, after = [{name: of.get_tensor(name) for name in (table, own)}
                   for of in found]
  np.testing.assert_array_equal(before[table], after[table])
  assert before[table].shape == (5, 2) and not np.array_equal(
      before[own], after[own])
  predicted, = load().predict().batches()
  assert len(np.unique(predicted['ctr'])) > 20
  folder = load().export()
  said = list(answers(folder, made.model.features))
  assert len(said) == 2
  for answer in said:
    for task in ('ctr', 'cvr'):
      np.testing.assert_allclose(answer[task], predicted[task], rtol=1e-5)


@pytest.mark.slow
def test_other_ids_are_another_model(load, tmp_path):
  load('Experiment.max_steps = 1').train()
  for column, change in [
      ('age', {'boundaries': (20, 40, 50)}), ('both', {'columns': (
          'ad', 'colour')}), ('tags', {'keep': 'last'})]:
    with pytest.raises(errors.UserError, match='holds another model') as raised:
      load('FeatureSpec.overrides = {%r: %r}' % (column, change)).evaluate()
    assert list(change)[0] in str(raised.value)
  (tmp_path / 'colours.txt').write_text('blue\nred\ngreen\n')
  for run in ('train', 'evaluate', 'predict', 'export'):
    with pytest.raises(errors.UserError, match="holds another model: it was "
                       "trained with other values of the column 'colour'"):
      getattr(load(), run)()
