"""What a model_dir must be, and what is left in it of broken-off saves."""

import os

import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.training import checkpoints
from ple_estimator.training import model_dir as model_dir_lib
from ple_estimator.training import saver


def save(saver, model_dir, step):
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    saver.save(session, str(model_dir / 'model.ckpt'), step)


def test_what_a_broken_off_save_left_is_removed(tmp_path):
  tf.train.create_global_step()
  save(tf.train.Saver(), tmp_path, 20)
  whole = set(os.listdir(str(tmp_path)))
  for folder in ('model.ckpt-40_temp_0f1e2d', 'model.ckpt-60_temp'):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / 'part-00000-of-00002.index').write_text('x')
  for name in ('model.ckpt-40.data-00000-of-00002',
               'model.ckpt-20.index.tempstate123', 'checkpoint.tmp' + 32 * 'f'):
    (tmp_path / name).write_text('x')
  (tmp_path / 'notes.txt').write_text('mine')
  there = set(os.listdir(str(tmp_path)))
  model_dir_lib.prepare(str(tmp_path))  # as another process does
  assert set(os.listdir(str(tmp_path))) == there
  with model_dir_lib.owned(str(tmp_path)):
    pass
  assert set(os.listdir(str(tmp_path))) == whole | {
      'notes.txt', '.lock', 'damaged'}
  # Data without an index may be mended.
  assert (tmp_path / 'damaged' / 'model.ckpt-40' /
          'model.ckpt-40.data-00000-of-00002').read_text() == 'x'


def test_a_model_dir_is_made_or_named(tmp_path):
  model_dir_lib.prepare(str(tmp_path / 'a' / 'b'))
  assert os.listdir(str(tmp_path / 'a' / 'b')) == []
  (tmp_path / 'file').write_text('x')
  with pytest.raises(errors.UserError, match='Experiment.model_dir must be a '
                     "folder that can be written to, got '.*/file/x': Not a "):
    model_dir_lib.prepare(str(tmp_path / 'file' / 'x'))


def test_a_session_may_be_made_again():
  # As after the loss of a parameter server, when the graph is finalized.
  tf.train.create_global_step()
  made = saver.Saver(5, training=True)
  made.build()
  tf.get_default_graph().finalize()
  made.build()


def test_a_newer_state_is_left_alone_and_an_older_one_is_not(tmp_path):
  step = tf.train.create_global_step()
  made = saver.Saver(5, training=True)
  made.build()
  path = str(tmp_path / 'model.ckpt-7')
  with tf.Session() as session:
    session.run(step.assign(7))
    made.save(session, str(tmp_path / 'model.ckpt'), 7)
    for live, after in [(9, 9), (7, 7), (3, 7)]:
      session.run(step.assign(live))
      made.restore(session, path)
      assert session.run(step) == after
  with tf.Session() as session:  # nothing is live
    made.restore(session, path)
    assert session.run(step) == 7


@pytest.mark.parametrize('large', [0, 1 << 30])
def test_what_cannot_be_restored_is_put_aside(tmp_path, monkeypatch, caplog,
                                              large):
  # With 0 every variable is left to the restore, as very large ones are.
  monkeypatch.setattr(checkpoints, '_LARGE', large)
  step = tf.train.create_global_step()
  made = saver.Saver(5, training=True)
  made.build()
  with tf.Session() as session:
    for value in (3, 7):
      session.run(step.assign(value))
      made.save(session, str(tmp_path / 'model.ckpt'), value)
  data = tmp_path / 'model.ckpt-7.data-00000-of-00001'
  data.write_bytes(bytes(len(data.read_bytes())))
  with tf.Session() as session:
    made.restore(session, str(tmp_path / 'model.ckpt-7'))
    assert session.run(step) == 3
  assert 'what was trained from there up to step 7 is lost' in caplog.text
  assert (tmp_path / 'damaged' / 'model.ckpt-7' / data.name).exists()
  (tmp_path / 'model.ckpt-3.data-00000-of-00001').write_bytes(b'')
  with tf.Session() as session:
    with pytest.raises(errors.UserError, match='model.ckpt-3 '):
      made.restore(session, str(tmp_path / 'model.ckpt-3'))


def test_a_variable_that_is_not_finite_is_not_saved(tmp_path):
  tf.train.create_global_step()
  tf.get_variable('fine', [2, 3])
  bad = tf.get_variable('bad', [5], initializer=tf.ones_initializer())
  made = saver.Saver(5, training=True)
  made.build()
  initialize = tf.global_variables_initializer()
  tf.get_default_graph().finalize()
  made.build()  # as a session does that is made again
  with tf.Session() as session:
    session.run(initialize)
    made.save(session, str(tmp_path / 'model.ckpt'), 1)
    saved = set(os.listdir(str(tmp_path)))
    for value in ('nan', 'inf'):
      bad.load([1, 2, float(value), 4, 5], session)
      with pytest.raises(errors.UserError, match='The variable bad is not '
                         'finite at step 2, which is not saved: .* Lower the '
                         r'learning rate.* from the checkpoint of step 1\.$'):
        made.save(session, str(tmp_path / 'model.ckpt'), 2)
      assert set(os.listdir(str(tmp_path))) == saved
