"""What the progress of training looks like."""

import io
import re

import tensorflow.compat.v1 as tf

from ple_estimator.training import hooks


def test_bar_is_drawn_on_a_terminal():
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


def test_time_left_is_readable():
  assert hooks._duration(59) == '0:59'
  assert hooks._duration(3600 + 61) == '1:01:01'
