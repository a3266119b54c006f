"""Evaluations of one checkpoint after another on one graph."""

import gc
import json
import os
import shutil

import experiments
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.training import evaluator
from ple_estimator.training import exports

STEPS = [2, 4]


@pytest.fixture(scope='module')
def run(taobao, tmp_path_factory):
  """(Experiment with averaged weights, its evaluator, metrics by step)."""
  folder = tmp_path_factory.mktemp('run')
  with tf.Graph().as_default():
    made = experiments.load(
        'gin/base.gin', folder, taobao, *experiments.FEW_COLUMNS,
        'Experiment.max_steps = 4', 'run_config.save_steps = 2',
        'Model.averaging = @Averaging()', 'Experiment.exports = None')
    made.train()
    evaluate = made.trainer._evaluation.evaluators['']
    return made, evaluate, {
        step: evaluate(_path(made, step)) for step in STEPS}


def _path(made, step):
  return os.path.join(made.model_dir, 'model.ckpt-%d' % step)


def _check_equal(found, expected):
  assert set(expected) <= set(found)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, 1e-6, err_msg=name)


@pytest.mark.parametrize('step', STEPS)
def test_metrics_are_those_of_estimator(run, step):
  """Which builds a graph and a session for each evaluation."""
  made, _, found = run

  def model_fn(features, labels, mode, config):
    spec = made.trainer.model_fn(features, labels, mode, config)
    # Estimator has a loss of its own, which is of batches and not of rows.
    spec.eval_metric_ops.pop('loss')
    return spec

  expected = tf.estimator.Estimator(
      model_fn, made.model_dir, made.trainer.estimator.config).evaluate(
          lambda: made.trainer._eval_input.dataset(made.model.reading()),
          checkpoint_path=_path(made, step), name='expected')
  expected.pop('loss')
  assert expected['global_step'] == step
  _check_equal(found[step], expected)


def test_each_checkpoint_has_metrics_of_its_own(run):
  _, _, found = run
  assert abs(found[2]['ctr/log_loss'] - found[4]['ctr/log_loss']) > 1e-6


def test_a_checkpoint_is_known_by_the_step_of_its_name(run, taobao, tmp_path):
  """As of a cluster whose workers made a step while the chief saved."""
  made, _, found = run
  folder = tmp_path / 'behind'
  folder.mkdir()
  for part in ('.index', '.data-00000-of-00001'):
    shutil.copy(_path(made, 4) + part, str(folder / ('model.ckpt-3' + part)))
  (folder / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt-3"')
  experiments.load(
      'gin/base.gin', folder, taobao, *experiments.FEW_COLUMNS,
      'Model.averaging = @Averaging()', 'Experiment.exports = None',
      'Experiment.max_steps = 3').train()  # only evaluates
  with open(str(folder / 'evaluations.json')) as f:
    last, = json.load(f)['evaluations']
  assert last['global_step'] == 3
  assert last['ctr/log_loss'] == pytest.approx(found[4]['ctr/log_loss'])
  # It would have been removed as that of another evaluation.
  best = exports.best_checkpoint(str(folder))
  assert os.path.basename(best) == 'model.ckpt-3'


def test_a_metric_starts_anew_each_time(run):
  """Counts and sums of the evaluation before would shift every metric."""
  made, evaluate, found = run
  for step in (4, 2, 2):
    _check_equal(evaluate(_path(made, step)), found[step])


def test_averages_are_evaluated_and_not_the_weights(run, tmp_path):
  made, evaluate, found = run
  reader = tf.train.load_checkpoint(_path(made, 4))
  tensors = {name: reader.get_tensor(name)
             for name in reader.get_variable_to_shape_map()}
  averages = [name for name in tensors if name.endswith('/average')]
  assert averages

  def metrics(names, factor):
    changed = dict(tensors, **{
        name: tensors[name] * np.float32(factor) for name in names})
    return evaluate(_written(str(tmp_path / 'model.ckpt-4'), changed))

  _check_equal(metrics(
      [name[:-len('/average')] for name in averages], 2), found[4])
  assert abs(metrics(averages, 2)['ctr/log_loss'] -
             found[4]['ctr/log_loss']) > 1e-6


def _written(path, tensors):
  with tf.Graph().as_default(), tf.Session() as session:
    names = sorted(tensors)
    session.run(tf.raw_ops.SaveV2(
        prefix=path, tensor_names=names, shape_and_slices=[''] * len(names),
        tensors=[tf.constant(tensors[name]) for name in names]))
  return path


def test_evaluations_leave_nothing_behind(run):
  made, evaluate, _ = run
  graph = evaluate._graph._graph

  def left():
    gc.collect()
    return (len(graph.get_operations()), sum(
        isinstance(it, tf.Session) for it in gc.get_objects()), sum(
            isinstance(it, tf.Graph) for it in gc.get_objects()))

  before = left()
  for _ in range(3):
    evaluate(_path(made, 4))
  assert evaluate._graph._graph is graph and left() == before


def test_a_new_run_looks_for_files_again(run):
  made, evaluate, found = run
  before = evaluate._graph
  made.trainer._evaluation.start()
  _check_equal(evaluate(_path(made, 4)), found[4])
  assert isinstance(evaluate, evaluator.Evaluator)
  assert evaluate._graph is not before
