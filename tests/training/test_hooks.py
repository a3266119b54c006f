"""What the progress of training looks like."""

import io
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.network import objective
from ple_estimator.network import tasks
from ple_estimator.network import towers
from ple_estimator.training import hooks
from ple_estimator.training import losses
from ple_estimator.training import metrics_file


def test_bar_is_drawn_on_a_terminal(monkeypatch):
  monkeypatch.setenv('COLUMNS', '120')
  stream = io.StringIO()
  step = tf.train.create_global_step()
  tf.constant(0.75, name='total_loss')
  with tf.name_scope('ctr'):
    tf.constant(0.5, name='loss')
  advance = tf.assign_add(step, 1)
  hook = hooks.ProgressHook(['ctr'], 8, 100, 2, stream)
  with tf.train.MonitoredSession(hooks=[hook]) as sess:
    for _ in range(8):
      sess.run(advance)
  frames = stream.getvalue().strip('\n').split('\r')[1:]
  assert len(frames) >= 3
  for frame in frames:
    assert re.match(r'\[#*-*\] step \d of 8 \| [\d.]+ steps/s \| \d+ examples/'
                    r's \| loss 0.7500 \(ctr 0.5000\) \| \d+:\d\d left', frame)
  done = [frame.count('#') for frame in frames]
  assert done == sorted(done) and done[-1] > done[0]


def test_a_bar_fits_a_narrow_terminal_and_memory_is_noted(
    monkeypatch, tmp_path):
  monkeypatch.setenv('COLUMNS', '40')
  stream = io.StringIO()
  tf.train.create_global_step()
  hook = hooks.ProgressHook(['ctr'], 8, 100, 2, stream, str(tmp_path))
  hook._show(4, 10.0, {'loss': 0.75, 'ctr': 0.5})
  line, = re.findall(r'\r(.*)\x1b\[K', stream.getvalue())
  assert line.startswith('[############------------] step 4') and len(
      line) == 39
  tf.summary.FileWriterCache.get(str(tmp_path)).flush()
  path, = tmp_path.glob('*tfevents*')
  peak, = [value.simple_value for event in tf.train.summary_iterator(str(path))
           for value in event.summary.value if value.tag == 'memory/peak_mb']
  assert 50 < peak < 100000  # of this process, in MB


def test_time_left_is_readable():
  assert hooks._duration(59) == '0:59'
  assert hooks._duration(3600 + 61) == '1:01:01'


CTR = tasks.Task('ctr', 'clk', towers.Tower())
CVR = tasks.Task('cvr', 'buy', towers.Tower(), 'regression',
                 sample_space=('clk', 1))


def run_losses(ctr, cvr, penalty=0.0, weight=1.0, steps=5, every_steps=2):
  """Steps with a cvr loss that is `cvr` at the fourth, 1 before."""
  step = tf.train.create_global_step()
  tf.add_to_collection(
      tf.GraphKeys.REGULARIZATION_LOSSES, tf.constant(penalty))
  objective.total([CTR, CVR], {
      'ctr': tf.constant(ctr), 'cvr': tf.where(step < 3, 1.0, cvr)})
  objective.name_weights([CTR, CVR], objective.Targets({}, {
      'ctr': tf.ones([3]), 'cvr': tf.ones([3]) * weight}))
  with tf.control_dependencies([tf.get_default_graph().get_tensor_by_name(
      'all_losses:0')]):
    advance = tf.assign_add(step, 1)
  hook = losses.LossesHook([CTR, CVR], '/nowhere', every_steps)
  with tf.train.MonitoredSession(hooks=[hook]) as session:
    for _ in range(steps):
      session.run(advance)


@pytest.mark.parametrize('value', ['nan', 'inf', '-inf'])
def test_the_task_of_a_loss_that_is_not_finite_is_named(value):
  with pytest.raises(errors.UserError) as caught:
    run_losses(2.0, float(value))
  assert ('The loss of task cvr is %s at step ' % value) in str(caught.value)
  assert 'Lower the learning rate, bind Model.clip_norm' in str(caught.value)
  assert '\n' not in str(caught.value)


def test_penalties_that_are_not_finite_are_named():
  with pytest.raises(errors.UserError, match='The total loss, with weights and '
                     'penalties, is inf at step'):
    run_losses(2.0, 3.0, penalty=float('inf'))


def test_a_task_without_weights_is_said_once_per_interval(caplog):
  run_losses(2.0, 0.0, weight=0.0)
  said = [r.message for r in caplog.records if 'counted' in r.message]
  assert [text.split(' steps')[0] for text in said] == [
      'No row of the last %d' % n for n in (2, 2, 1)]
  assert all('for task cvr: no row with a weight' in text for text in said)


def test_a_loss_of_zero_is_no_lack_of_weights(caplog):
  run_losses(0.0, 0.0)
  assert 'counted' not in caplog.text


GOOD = {'global_step': 7, 'loss': 1.0, 'ctr/auc': .5, 'ctr/log_loss': .6,
        'ctr/calibration': 1, 'ctr/label/mean': .1, 'ctr/prediction/mean': .1,
        'cvr/rmse': 2.0, 'cvr/label/mean': .3, 'cvr/prediction/mean': .4}
NAN = float('nan')


@pytest.mark.parametrize('more, text', [
    ({'ctr/prediction/mean': NAN}, 'The predictions of task ctr are not finite '
     r'in the evaluation at step 7 \(prediction/mean is nan\)'),
    ({'cvr/rmse': np.float32('inf')}, r'of task cvr are .*\(rmse is inf\)'),
    ({'loss': NAN}, 'The loss is nan in the evaluation at step 7'),
])
def test_evaluation_refuses_what_is_not_finite(more, text):
  with pytest.raises(errors.UserError, match=text):
    metrics_file.check_values(dict(GOOD, **more), [CTR, CVR])


@pytest.mark.parametrize('more, text', [
    ({}, None),
    ({'ctr/auc': NAN, 'ctr/calibration': float('inf'), 'ctr/label/mean': 0},
     'auc and calibration of task ctr cannot be computed'),
    ({'ctr/auc': NAN, 'ctr/label/mean': NAN}, 'no row counts for task ctr, so '
     'it has no metrics: the weights of all rows are 0'),
    ({'cvr/label/mean': NAN, 'cvr/rmse': NAN, 'cvr/prediction/mean': NAN},
     "is in its sample space, ('clk', 1)"),
])
def test_evaluation_warns_of_what_is_not_defined(caplog, more, text):
  metrics_file.check_values(dict(GOOD, **more), [CTR, CVR])
  assert text in caplog.text if text else not caplog.text
  assert 'for any task' not in caplog.text


def test_evaluation_of_no_row_at_all_is_said(caplog):
  metrics_file.check_values(dict(
      GOOD, loss=0, **{'ctr/label/mean': NAN, 'cvr/label/mean': NAN}),
                            [CTR, CVR])
  assert 'no row counts for any task. Has Experiment.eval_input' in caplog.text
