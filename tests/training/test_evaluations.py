"""What early stopping, the best checkpoint and `best` exports go by."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.cluster import marker
from ple_estimator.training import early_stopping
from ple_estimator.training import ending
from ple_estimator.training import evaluation
from ple_estimator.training import evaluations
from ple_estimator.training import exports
from ple_estimator.training import intervals

NAN = float('nan')


class Estimator:
  """As much of an Estimator as an exporter asks for."""

  def __init__(self):
    self.exported = []

  def export_saved_model(self, folder, *args, **kwargs):
    checkpoint = kwargs.get('checkpoint_path') or args[-1]
    self.exported.append(checkpoint)
    path = os.path.join(folder, '1000' + checkpoint.split('-')[-1])
    os.makedirs(path)
    with open(os.path.join(path, 'saved_model.pb'), 'w') as f:
      f.write(checkpoint)
    return path.encode()

  experimental_export_all_saved_models = export_saved_model


class Process:
  """One process that evaluates; it knows only what is in model_dir."""

  def __init__(self, model_dir, patience=100, metric='ctr/auc'):
    self.dir = str(model_dir)
    self.evaluations = evaluations.Evaluations(self.dir, [metric])
    self.rule = early_stopping.EarlyStopping(metric, patience)
    self.rule.measure(intervals.epochs(rows=1000, batch_size=50))
    self.best = exports.BestCheckpoint(self.dir, metric, self.evaluations)
    self.exporter, = exports.Exports(metric, latest_to_keep=0).exporters(
        lambda: None, self.evaluations)
    self.estimator = Estimator()

  def evaluate(self, step, value, metric='ctr/auc'):
    """Does with a made up result what evaluation.Evaluation does."""
    path = os.path.join(self.dir, 'model.ckpt-%d' % step)
    for suffix in ('.index', '.data-00000-of-00001'):
      with open(path + suffix, 'w') as f:
        f.write('%d %s' % (step, suffix))
    found = {metric: np.float32(value), 'loss': 1.0, 'global_step': step}
    self.evaluations.read()
    self.best.keep(path, self.evaluations.add(found))
    self.exporter.export(self.estimator, self.dir + '/export/best', path,
                         found, False)
    self.rule.decide(self.evaluations)
    self.evaluations.write()
    self.best.clean()
    for suffix in ('.index', '.data-00000-of-00001'):
      os.remove(path + suffix)  # as the Saver does, some time

  @property
  def exported(self):
    return [int(path.split('-')[-1]) for path in self.estimator.exported]

  def stopped(self):
    self.evaluations.read()
    return self.rule.verdict(self.evaluations)


def kept(model_dir):
  path = exports.best_checkpoint(str(model_dir))
  with open(path + '.data-00000-of-00001') as f:
    assert f.read().split()[0] == path.split('-')[-1]
  assert len(os.listdir(os.path.dirname(path))) == 2
  return int(path.split('-')[-1])


def test_the_best_is_that_of_all_runs(tmp_path):
  first = Process(tmp_path)
  for step, auc in [(10, .70), (20, .80), (30, .75)]:
    first.evaluate(step, auc)
  assert first.exported == [10, 20] and kept(tmp_path) == 20
  second = Process(tmp_path)
  for step, auc in [(40, .55), (50, .60), (60, .79)]:
    second.evaluate(step, auc)
  assert second.exported == [] and kept(tmp_path) == 20
  second.evaluate(70, .81)
  assert second.exported == [70] and kept(tmp_path) == 70
  third = Process(tmp_path)
  third.evaluate(80, .81)  # equal is no better
  assert third.exported == [] and kept(tmp_path) == 70


def test_what_is_best_and_latest_is_built_once(tmp_path):
  evaluated = evaluations.Evaluations(str(tmp_path), ['ctr/auc'])
  exporters = exports.Exports('ctr/auc', 2, 1).exporters(
      lambda: None, evaluated)
  estimator = Estimator()

  def at(step, auc):
    found = {'ctr/auc': np.float32(auc), 'global_step': step}
    evaluated.add(found)
    for exporter in exporters:
      exporter.export(estimator, str(tmp_path / exporter.name),
                      'model.ckpt-%d' % step, found, False)

  def names(of):
    return sorted(os.listdir(str(tmp_path / of)))

  at(1, .7)
  assert estimator.exported == ['model.ckpt-1']
  with open(str(tmp_path / 'latest' / '10001' / 'saved_model.pb')) as f:
    assert f.read() == 'model.ckpt-1'
  at(2, .6)
  assert names('best') == ['10001'] and names('latest') == ['10002']
  at(3, .8)
  at(4, .9)
  assert names('best') == ['10003', '10004'] and names('latest') == ['10004']
  assert estimator.exported == ['model.ckpt-%d' % step for step in (1, 2, 3, 4)]


def test_a_saved_model_that_is_gone_is_built_again(tmp_path):
  writer, estimator = exports.SavedModels(lambda: None), Estimator()
  for folder in ('a', 'b'):
    written = writer.write(estimator, str(tmp_path / folder), 'm.ckpt-1', 1)
    shutil.rmtree(written.decode())
  assert len(estimator.exported) == 2


def test_less_is_better_for_a_loss(tmp_path):
  process = Process(tmp_path, metric='cvr/log_loss')
  for step, loss in [(10, .5), (20, .6), (30, .4)]:
    process.evaluate(step, loss, 'cvr/log_loss')
  assert process.exported == [10, 30] and kept(tmp_path) == 30
  with open(str(tmp_path / 'evaluations.json')) as f:
    said = json.load(f)
  assert said['best']['cvr/log_loss'] == {
      'global_step': 30, 'value': pytest.approx(.4)}
  assert said['best']['loss']['global_step'] == 10
  assert [of['global_step'] for of in said['evaluations']] == [10, 20, 30]


def test_nan_is_never_best_and_anything_is_better(tmp_path):
  process = Process(tmp_path)
  process.evaluate(10, NAN)
  assert kept(tmp_path) == 10  # better than none at all
  process.evaluate(20, .5)
  process.evaluate(30, NAN)
  assert process.exported == [10, 20] and kept(tmp_path) == 20
  process.evaluations.read()
  assert process.evaluations.best('ctr/auc')['global_step'] == 20


@pytest.mark.parametrize('values, stops_at', [
    ([.5, .6, .6, .6, .6, .6], 50),      # no better than at 20, for 30 steps
    ([.5, .6, .7, .8, .9, .95], None),
    ([.5, NAN, NAN, NAN, .9, .9], 40),
    ([NAN, NAN, NAN, NAN, NAN, .9], 40),
    ([.9, .1, .1, .91, .1, .1], None),
])
def test_patience_is_counted_in_steps(tmp_path, values, stops_at):
  for i, value in enumerate(values):
    process = Process(tmp_path, patience=30)  # a new process each time
    assert process.stopped() is None
    process.evaluate(10 * (i + 1), value)
    if process.stopped():
      assert 10 * (i + 1) == stops_at
      assert 'EarlyStopping.patience_steps = 30' in process.stopped()
      assert Process(tmp_path, patience=300).stopped() is None
      return
  assert stops_at is None


def test_the_log_says_how_long_is_left(tmp_path, caplog):
  caplog.set_level('INFO')
  process = Process(tmp_path, patience=30)
  for step, value, text in [
      (10, .8, 'ctr/auc 0.8000 is the best so far'),
      (20, .7, 'The best ctr/auc is 0.8000, of step 10. Training stops unless '
       'it improves within 20 steps (1 epoch).'),
      (30, NAN, 'ctr/auc is not a number at step 30'),
      (40, .1, 'Training stops.')]:
    process.evaluate(step, value)
    process.evaluations.read()
    process.rule.describe(process.evaluations)
    assert text in caplog.text


def run_steps(process, evaluate_at):
  """Steps of a session with the hook, up to 20."""
  with tf.Graph().as_default():
    step = tf.train.create_global_step()
    advance, done = tf.assign_add(step, 1), 0
    hook = early_stopping.StopHook(process.rule, process.evaluations)
    with tf.train.MonitoredSession(hooks=[hook]) as session:
      while not session.should_stop() and done < 20:
        done = session.run(advance)
        if done in evaluate_at:
          # By another process, as in a cluster.
          Process(process.dir).evaluate(100 * done, evaluate_at[done])
    assert 'STOP' not in ' '.join(v.name for v in tf.global_variables())
  return done


def test_every_process_stops_and_goes_on_with_more_patience(tmp_path):
  worker = Process(tmp_path, patience=300)
  assert run_steps(worker, {2: .9, 4: .8, 6: .7}) == 7
  assert worker.stopped() == ('ctr/auc has not improved since step 200 '
                              '(EarlyStopping.patience_steps = 300)')
  assert run_steps(Process(tmp_path, patience=10**5), {}) == 20


def ending_of(process, is_chief=True):
  return ending.Ending(process.dir, evaluation.Results(
      process.evaluations, None, process.rule, []), is_chief)


def save(model_dir, step):
  """A checkpoint, as far as the end of a training looks at it."""
  (model_dir / ('model.ckpt-%d.index' % step)).write_text('')


def test_a_better_last_checkpoint_does_not_undo_the_end(tmp_path):
  # In a cluster steps are made until all have seen the decision.
  chief, evaluator = Process(tmp_path, 20), Process(tmp_path, 20)
  for step, auc in [(10, .8), (20, .7), (30, .6)]:
    evaluator.evaluate(step, auc)
  reason = ending_of(chief).stopped()
  assert 'has not improved since step 10' in reason
  evaluator.evaluate(33, .9)
  assert ending_of(chief).stopped() == ending_of(evaluator).stopped() == reason
  save(tmp_path, 33)
  marker.mark_trained(chief.dir, 1000, 33, reason)
  assert ending_of(evaluator, is_chief=False).trained_step(1000) == 33
  assert not ending_of(Process(tmp_path, 20)).is_to_train(1000)


def test_after_going_on_by_another_rule_the_old_decision_is_gone(tmp_path):
  for step, auc in [(10, .8), (20, .7), (30, .6)]:
    Process(tmp_path, 20).evaluate(step, auc)
  save(tmp_path, 30)
  assert not ending_of(Process(tmp_path, 20)).is_to_train(1000)
  assert ending_of(Process(tmp_path, 50)).is_to_train(1000)
  Process(tmp_path, 50).evaluate(40, .9)
  save(tmp_path, 40)
  assert ending_of(Process(tmp_path, 20)).is_to_train(1000)


def test_going_back_forgets_what_comes_later(tmp_path, caplog):
  process = Process(tmp_path)
  for step, auc in [(10, .8), (20, .7), (30, .9)]:
    process.evaluate(step, auc)
  process.evaluations.read()
  process.evaluations.forget(30)
  assert not caplog.text
  process.evaluations.mark('stopped', {
      'global_step': 30, 'reason': 'of the test', 'rule': 'of the test'})
  process.evaluations.forget(20)
  assert 'goes on from step 20' in caplog.text
  assert not process.evaluations.marked('stopped')
  process.evaluations.read()
  assert process.evaluations.last['global_step'] == 20
  assert kept(tmp_path) == 30  # is still there
  process.evaluations.forget(0)
  process.evaluations.read()
  assert process.evaluations.last is None
  assert exports.best_checkpoint(str(tmp_path)) is None


@pytest.mark.parametrize('text', [
    '{', '[]', '{"evaluations": 3}', '{"evaluations": [{"loss": 1}]}',
    '{"evaluations": [{"global_step": 1, "loss": "x"}]}',
    '{"evaluations": [], "kept": 3}', '{"evaluations": [], "stopped": {}}', ''])
def test_a_damaged_file_is_said_and_begun_anew(tmp_path, caplog, text):
  (tmp_path / 'evaluations.json').write_text(text)
  process = Process(tmp_path)
  assert process.stopped() is None
  assert 'evaluations.json cannot be read' in caplog.text
  process.evaluate(10, .5)
  assert kept(tmp_path) == 10


def test_a_checkpoint_that_is_gone_is_not_kept(tmp_path, caplog):
  process = Process(tmp_path)
  process.best.keep(str(tmp_path / 'model.ckpt-7'), {'global_step': 7})
  assert 'raise run_config.keep_checkpoint_max' in caplog.text
  assert process.evaluations.marked('kept') is None
