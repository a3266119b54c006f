"""SavedModels that training writes of one checkpoint after another."""

import glob
import os
import re

import experiments
from google.protobuf import text_format
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import serving_client
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import saved_model_pb2

from ple_estimator.training import exports

STEPS = [2, 4, 6]


class Run:
  """A training with three checkpoints, and what Estimator exports of them."""

  def __init__(self, folder, taobao, gin_file, *bindings):
    self.built = 0
    self.made = experiments.load(
        gin_file, folder, taobao, *experiments.FEW_COLUMNS,
        'Experiment.max_steps = 6', 'run_config.save_steps = 2',
  'Exports.latest_to_keep = 10', *bindings)
    build = exports.SavedModels._built

    def counted(writer, *args):
      self.built += 1
      return build(writer, *args)

    exports.SavedModels._built = counted
    try:
      self.made.train()
    finally:
      exports.SavedModels._built = build
    self.written = _sorted(folder / 'export' / 'latest')
    self.best, = _sorted(folder / 'export' / 'best')
    self.expected = [
        self.made.export(str(folder / ('model.ckpt-%d' % step)))
        for step in STEPS]


@pytest.fixture(scope='module', params=['gin/base.gin', 'gin/ev.gin'])
def run(request, taobao, tmp_path_factory):
  bindings = ['Model.averaging = @Averaging()'] + (
      ['EmbeddingVariable.capacity = 4096']
      if request.param == 'gin/ev.gin' else [])
  with tf.Graph().as_default():
    return Run(tmp_path_factory.mktemp('run'), taobao, request.param, *bindings)


def _sorted(folder):
  return sorted(glob.glob(str(folder / '*')), key=lambda path: int(
      os.path.basename(path)))


def _meta_graph(folder):
  """(graph, signatures, names of collections) of a SavedModel.

  The name of the Saver's temporary folder is drawn at random, and TensorFlow
  1.15 writes the entries of a loop's context, in a collection, in any order.
  """
  found = saved_model_pb2.SavedModel()
  with open(os.path.join(folder, 'saved_model.pb'), 'rb') as f:
    found.ParseFromString(f.read())
  made, = found.meta_graphs
  graph = text_format.MessageToString(made.graph_def)
  return (re.sub('_temp_[0-9a-f]+', '_temp', graph),
          {name: text_format.MessageToString(signature)
           for name, signature in made.signature_def.items()},
          sorted(made.collection_def))


def _tensors(folder):
  reader = tf.train.load_checkpoint(
      os.path.join(folder, 'variables', 'variables'))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


def _answers(folder, taobao):
  """What it says of columns and of Examples, two dicts of task to list."""
  rows = pa.parquet.read_table(taobao + '/taobao_validation_data.parquet')
  rows = {name: rows[name].to_pylist() for name in experiments.FEW_NAMES}
  return serving_client.answers(folder, rows)


def test_a_training_builds_the_graph_of_a_saved_model_once(run):
  assert run.built == 1 and len(run.written) == len(STEPS)


def test_saved_models_are_those_of_estimator(run):
  for written, expected in zip(run.written, run.expected):
    assert sorted(os.listdir(written)) == sorted(os.listdir(expected))
    assert sorted(os.listdir(written + '/variables')) == sorted(
        os.listdir(expected + '/variables'))
    assert _meta_graph(written) == _meta_graph(expected)
    found, wanted = _tensors(written), _tensors(expected)
    assert set(found) == set(wanted)
    for name, values in wanted.items():
      np.testing.assert_array_equal(found[name], values, name)


def test_each_saved_model_has_the_weights_of_its_checkpoint(run, taobao):
  answers = [_answers(folder, taobao) for folder in run.written]
  for found, folder in zip(answers, run.expected):
    assert found == _answers(folder, taobao)
  for one, other in [(0, 1), (1, 2)]:
    assert np.abs(np.subtract(
        answers[one][0]['ctr'], answers[other][0]['ctr'])).max() > 1e-6


def test_the_best_is_one_of_them(run):
  at, = [i for i, folder in enumerate(run.written)
         if os.path.basename(folder) == os.path.basename(run.best)]
  found, wanted = _tensors(run.best), _tensors(run.expected[at])
  for name, values in wanted.items():
    np.testing.assert_array_equal(found[name], values, name)


def test_a_run_that_goes_on_builds_a_graph_of_its_own(
    run, tmp_path, monkeypatch):
  built = []
  build = exports.SavedModels._built
  monkeypatch.setattr(exports.SavedModels, '_built', lambda *args: (
      built.append(args[-1]), build(*args))[1])
  evaluation = run.made.trainer._evaluation
  writer = evaluation._results.exporters[0].writer

  def write(step):
    writer.write(run.made.trainer.estimator, str(tmp_path), os.path.join(
        run.made.model_dir, 'model.ckpt-%d' % step), 9)

  evaluation.start()  # as every run does
  for step in (2, 4):
    write(step)
  evaluation.start()
  write(6)
  assert [os.path.basename(path) for path in built] == [
      'model.ckpt-2', 'model.ckpt-6']
  assert len(os.listdir(str(tmp_path))) == 3
