"""Gates, embedding tables, time, learning curves and words of runs."""

import json
import os

import made_runs
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.commands.report import costs
from ple_estimator.commands.report import events
from ple_estimator.commands.report import facts as facts_lib
from ple_estimator.commands.report import inside
from ple_estimator.commands.report import learning
from ple_estimator.commands.report import overview
from ple_estimator.commands.report import runs as runs_lib
from ple_estimator.commands.report import summaries
from ple_estimator.commands.report import tables

_SHARES = {10: [0.5, 0.5], 20: [0.9, 0.1]}


def _summaries(folder, by_step):
  with tf.summary.FileWriter(folder) as writer:
    for step, values in by_step.items():
      writer.add_summary(tf.Summary(value=[
          tf.Summary.Value(tag=tag, simple_value=value)
          for tag, value in values.items()]), step)


def _run_with_gates(tmp_path, name='a'):
  path = made_runs.make(tmp_path, name, num=300)
  made = os.path.join(path, 'evaluations.json')
  with open(made) as f:
    found = json.load(f)
  for of, step in zip(found['evaluations'], _SHARES):
    of.update({'gate/level_0/ctr/ctr/expert_0': _SHARES[step][0],
               'gate/level_0/ctr/shared/expert_0': _SHARES[step][1],
               'gate/level_0/cvr/cvr/expert_0': 1.0})
  with open(made, 'w') as f:
    json.dump(found, f)
  _summaries(path, {step: {'ctr/log_loss': 1.0 / step, 'loss': 2.0 / step,
                           'global_step/sec': step} for step in range(1, 151)})
  return path


def test_gates_and_the_entropy_of_their_use(tmp_path):
  stats = pytest.importorskip('scipy.stats')
  run = runs_lib.read([_run_with_gates(tmp_path)])[0][0]
  of_ctr, of_cvr = inside.gates(run)
  assert (of_ctr.name, of_ctr.steps) == ('level_0/ctr', [10, 20])
  assert of_ctr.experts == ['ctr/expert_0', 'shared/expert_0']
  np.testing.assert_allclose(of_ctr.shares, list(_SHARES.values()), rtol=1e-6)
  np.testing.assert_allclose(inside.entropies(of_ctr), [
      stats.entropy(shares, base=2) for shares in _SHARES.values()], rtol=1e-6)
  assert np.isnan(inside.entropies(of_cvr)).all()  # of one expert
  maps, entropy = inside.gate_figures(run, 'a')
  assert [view.title for view in maps.views] == ['level 0, ctr']
  assert maps.views[0].spec['data']['values'][2:] == [
      {'step': 20, 'of': 'ctr/expert_0', 'share': 0.9},
      {'step': 20, 'of': 'shared/expert_0', 'share': 0.1}]
  assert entropy.table.rows[1] == ['20', '0.469']


def test_gates_and_samples_of_training_rows_are_read_from_evaluations():
  run = runs_lib.Run('', 'a', None, [
      {'global_step': step, 'ctr/auc': 0.7, 'ctr/auc/train': 0.75 + step / 4,
       'gate/level_0/ctr/ctr/expert_0': 0.25,
       'gate/level_0/ctr/shared/expert_0': 0.75} for step in (1, 2)], None, {},
                     None, {}, {})
  gate, = inside.gates(run)
  assert gate.steps == [1, 2] and gate.shares.tolist() == [[.25, .75]] * 2
  assert learning.trained(run, 'ctr/auc') == [(1, 1.0), (2, 1.25)]


def test_training_and_evaluation_are_on_one_chart(tmp_path):
  facts = facts_lib.gather([_run_with_gates(tmp_path)], rounds=20)
  found = {figure.name: figure for figure in learning.section(facts).figures}
  assert set(found) == {'learning-loss', 'learning-ctr-auc',
                        'learning-ctr-log_loss', 'learning-cvr-auc',
                        'learning-cvr-log_loss'}
  data = found['learning-ctr-log_loss'].views[0].spec['data']['values']
  evaluations = [(of['step'], of['value']) for of in data
                 if of['kind'] == 'evaluation']
  assert evaluations == [(10, 0.4), (20, 0.3), (30, 0.2)]
  training = [(of['step'], of['value']) for of in data
              if of['kind'] == 'training']
  assert len(training) == 50  # means of three batches each
  assert training[1][0] == 6
  assert training[1][1] == pytest.approx(
      np.mean([1 / 4, 1 / 5, 1 / 6]), rel=1e-4)
  auc = found['learning-ctr-auc'].views[0].spec['data']['values']
  assert {of['kind'] for of in auc} == {'evaluation'}
  assert costs.rate(facts.runs[0]) == np.median(np.arange(1, 151))


def test_a_loss_of_squares_is_laid_beside_the_rmse(tmp_path):
  _summaries(str(tmp_path), {1: {'t/loss': 4.0}})
  run = runs_lib.Run('', 'a', None, [], None, {}, None,
                     events.read(str(tmp_path)), {})
  assert learning.trained(run, 't/rmse') == [(1, 2.0)]
  assert learning.trained(run, 't/auc') == []


def test_live_rows_are_those_whose_slots_have_moved():
  values = np.array([[3, 4], [0, 1], [6, 8], [0, 0], [1, 0]], 'f')
  moments = np.array([[1, 0], [0, 0], [0, 2], [0, 0], [0, 0]], 'f')
  first, second = tables.of_columns(
      values, [moments], [('a', 2), ('b', 3)], 'table')
  assert (first.name, first.rows, first.live) == ('a', 2, 1)
  np.testing.assert_allclose(first.norms, [5])
  assert (second.name, second.rows, second.live) == ('b', 3, 1)
  np.testing.assert_allclose(second.norms, [10])
  accumulators = moments + 0.1  # as Adagrad's begin
  assert tables.of_columns(
      values, [accumulators], [('a', 2), ('b', 3)], 'table')[1].live == 1
  whole, = tables.of_columns(values, [], [('a', 4)], 'table')
  assert (whole.name, whole.rows, whole.live) == ('table', 5, None)


def test_a_checkpoint_without_layout_or_none_at_all(tmp_path):
  assert tables.read(str(tmp_path)) == []
  tf.get_variable('x', [3])
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    tf.train.Saver().save(session, str(tmp_path / 'model.ckpt'), 5)
  assert tables.read(str(tmp_path)) == []
  assert tables.section([], 'a', 'a') is None


def test_a_checkpoint_of_tables(tmp_path):
  names = {'t/embedding-keys': np.array([3, 5]),
           't/embedding-values': np.array([[3, 4], [0, 2]], 'f'),
           't/embedding-freqs': np.array([1, 9]),
           't/embedding-freqs_filtered': np.array([1]),
           't/embedding-keys_filtered': np.array([4]),
           'dim_2_mean/embedding': np.array([[1, 0], [3, 4], [0, 0]], 'f'),
           'dim_2_mean/embedding/Adam': np.array([[0, 0], [1, 1], [0, 0]], 'f'),
           'dim_2_mean/embedding/average': np.ones([3, 2], 'f')}
  path = str(tmp_path / 'model.ckpt-7')
  save = tf.raw_ops.SaveV2(
      prefix=path, tensor_names=list(names),
      shape_and_slices=[''] * len(names), tensors=list(names.values()))
  with tf.Session() as session:
    session.run(save)
  (tmp_path / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt-7"')
  (tmp_path / 'layout.json').write_text(json.dumps({'groups': [{
      'name': 'dim_2_mean', 'columns': [
          {'name': 'a', 'num_buckets': 2}, {'name': 'b', 'num_buckets': 1}]}]}))
  found = tables.read(str(tmp_path))
  assert [(of.name, of.rows, of.live, of.waiting) for of in found] == [
      ('t/embedding', 2, 2, 1), ('a', 2, 1, 0), ('b', 1, 0, 0)]
  np.testing.assert_allclose(found[0].norms, [5, 2])
  table = tables.section(found, 'run', 'run').tables[0]
  assert table.rows[0] == ['t/embedding', '2', '2', '2 (100.0 %)', '3.500',
                           '4.850', '5.000', '5', '9', '50.0 %', '1']
  assert table.rows[2][3:5] == ['0 (0.0 %)', '–']


def test_where_the_time_of_a_step_went(tmp_path):
  events_of = [
      {'ph': 'M', 'name': 'process_name'},
      {'ph': 'X', 'cat': 'Op', 'name': 'MatMul', 'ts': 1000, 'dur': 3000,
       'args': {'name': 'level_0/ctr/dense/MatMul'}},
      {'ph': 'X', 'cat': 'Op', 'name': 'MatMul', 'ts': 2000, 'dur': 4000,
       'args': {'name': 'gradients/level_0_grad/MatMul'}},
      {'ph': 'X', 'cat': 'Op', 'name': 'Mul', 'ts': 1000, 'dur': 1000,
       'args': {'name': 'Mul'}}]
  for step in (9, 10):
    (tmp_path / ('timeline-%d.json' % step)).write_text(
        json.dumps({'traceEvents': events_of}))
  found = costs.profile(str(tmp_path))
  assert (found.step, found.wall, found.busy) == (10, 5.0, 8.0)
  assert dict(found.ops) == {'MatMul': 7.0, 'Mul': 1.0}
  assert dict(found.parts) == {
      'level_0': 3.0, 'level_0, backward': 4.0, '(no scope)': 1.0}
  assert costs.profile_figure(found, 'a').table.rows[0] == [
      'by kind of op', 'MatMul', '7', '87.5 %']


def test_words_say_no_more_than_the_figures(tmp_path):
  paths = [_run_with_gates(tmp_path),
           made_runs.make(tmp_path, 'same', 0.3, 5, num=300),
           made_runs.make(tmp_path, 'bad', 3.0, 2, levels=3, num=300)]
  facts = facts_lib.gather(paths, rounds=100)
  first, same, bad = [summaries.of(facts, run) for run in facts.runs]
  assert 'The other runs are compared with this one.' in first
  assert ('Of its gates, that of level 0, ctr is the least even (entropy 0.469 '
          'of 1): 90.0 % of its weight goes to ctr/expert_0.') in first
  assert 'Training ended at step 30: no more rows.' in first
  for test in facts.tests:
    if (test.a, test.b) == ('a', 'same'):
      assert test.difference.low < 0 < test.difference.high or test.p > 0.05
  assert 'better' not in same and 'worse' not in same
  assert 'not told apart' in same
  assert 'AUC of ctr -' in bad and ', worse' in bad and 'better' not in bad


def _seesaw(tmp_path, *alone):
  paths = [made_runs.make(tmp_path, 'both-%d' % i, 0.3 * i, i, levels=i + 2)
           for i in (1, 2)] + [
               made_runs.make(tmp_path, 'only-%s' % task, 0.6, 4, tasks=[task])
               for task in alone]
  return overview.seesaw(facts_lib.gather(paths, rounds=50))


def test_the_seesaw_is_over_single_task_runs(tmp_path):
  metrics = pytest.importorskip('sklearn.metrics')
  section = _seesaw(tmp_path, 'ctr', 'cvr')
  data = section.figures[0].views[0].spec['data']['values']
  assert [of['name'] for of in data] == ['both-1', 'both-2']
  truth, labels = made_runs.labels_of(2000)
  for of, seed in zip(data, (1, 2)):
    for way, task in (('x', 'ctr'), ('y', 'cvr')):
      aucs = [metrics.roc_auc_score(
          labels[task], made_runs.predictions_of(truth, noise, at))
              for noise, at in ((0.3 * seed, seed), (0.6, 4))]
      assert of[way] == pytest.approx(aucs[0] - aucs[1], abs=1e-5)
      assert of[way + '_low'] < of[way] < of[way + '_high']
  assert 'only-ctr, only-cvr' in section.texts[0]


def test_the_seesaw_is_over_the_baseline_where_a_single_task_is_missing(
    tmp_path):
  section = _seesaw(tmp_path, 'ctr')
  assert 'over both-1, as there is no run of each task alone' in (
      section.texts[0])
  figure, = section.figures
  assert [of['name'] for of in figure.views[0].spec['data']['values']] == [
      'both-2']
  layer = figure.views[0].spec['layer'][-1]
  assert layer['encoding']['x']['title'] == 'gain of ctr over both-1 (AUC)'
