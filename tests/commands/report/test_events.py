"""Event files that TensorFlow writes, read without it."""

import glob
import os

import tensorflow.compat.v1 as tf

from ple_estimator.commands.report import events


def _write(folder, values):
  with tf.summary.FileWriter(folder) as writer:
    writer.add_graph(tf.get_default_graph())
    for step, value in values:
      writer.add_summary(tf.Summary(value=[
          tf.Summary.Value(tag='loss', simple_value=value),
          tf.Summary.Value(tag='gate/level_0/ctr/shared/expert_0',
                           simple_value=0.5)]), step)


def test_scalars_are_read_by_step(tmp_path):
  tf.constant(1)
  _write(str(tmp_path), [(1, 3.0), (11, 2.0)])
  found = events.read(str(tmp_path))
  assert set(found) == {'loss', 'gate/level_0/ctr/shared/expert_0'}
  assert [(of.step, of.value) for of in found['loss']] == [(1, 3.0), (11, 2.0)]
  assert found['loss'][0].time <= found['loss'][1].time
  assert events.read(str(tmp_path / 'nope')) == {}


def test_a_file_that_is_cut_or_damaged_counts_as_far_as_it_goes(tmp_path):
  _write(str(tmp_path), [(1, 3.0), (11, 2.0)])
  path, = glob.glob(str(tmp_path / '*tfevents*'))
  with open(path, 'r+b') as f:
    f.truncate(os.path.getsize(path) - 5)
  assert [of.step for of in events.read(str(tmp_path))['loss']] == [1]
  with open(path, 'r+b') as f:
    f.seek(12)
    f.write(b'\xff' * 20)
  assert events.read(str(tmp_path)) == {}
