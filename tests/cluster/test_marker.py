"""The note that the training is over, and the newest checkpoint."""

import os

import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.cluster import marker


@pytest.fixture(params=['run', 'run[1]'])
def model_dir(tmp_path, request):
  """A folder, one of them with a name that is a pattern of other names."""
  path = tmp_path / request.param
  path.mkdir()
  return str(path)


def save(model_dir, step):
  """Writes a checkpoint that holds a global step alone."""
  with tf.Graph().as_default(), tf.Session() as session:
    session.run(tf.train.create_global_step().assign(step))
    tf.train.Saver(save_relative_paths=True).save(
        session, os.path.join(model_dir, 'model.ckpt'), step)


def test_trained_step_is_that_of_a_training_to_the_same_step(model_dir):
  assert marker.latest_step(model_dir) is None
  assert marker.latest_checkpoint(model_dir) is None
  assert marker.trained_step(model_dir, 100) is None
  save(model_dir, 101)
  assert marker.latest_step(model_dir) == 101
  assert marker.latest_checkpoint(model_dir) == os.path.join(
      model_dir, 'model.ckpt-101')
  assert marker.trained_step(model_dir, 100) is None
  marker.mark_trained(model_dir, 100, 101)
  assert marker.trained_step(model_dir, 100) == 101
  assert marker.trained_step(model_dir, 200) is None  # trains on
  assert not [n for n in os.listdir(model_dir) if n.endswith('.partial')]


def test_what_was_trained_does_not_count_without_its_checkpoint(model_dir):
  marker.mark_trained(model_dir, 100, 101)
  assert marker.trained_step(model_dir, 100) is None
  save(model_dir, 40)  # of another training, in a folder that was emptied
  assert marker.trained_step(model_dir, 100) is None


@pytest.mark.parametrize('text', [
    '{"max_st', '', '[100, 101]', '{"max_steps": 100}', '7'])
def test_a_note_that_was_cut_counts_as_none(model_dir, text):
  save(model_dir, 101)
  with open(os.path.join(model_dir, 'trained.json'), 'w') as f:
    f.write(text)
  assert marker.trained_step(model_dir, 100) is None


def test_a_checkpoint_that_was_deleted_is_none(model_dir):
  save(model_dir, 7)
  os.remove(os.path.join(model_dir, 'model.ckpt-7.index'))
  assert marker.latest_step(model_dir) is None
  assert tf.train.latest_checkpoint(model_dir) is None


def test_a_note_says_whether_training_was_stopped(model_dir):
  assert not marker.is_stopped(model_dir)
  marker.mark_trained(model_dir, 100, 101)
  assert not marker.is_stopped(model_dir)
  marker.mark_trained(model_dir, 100, 50, 'it no longer improved')
  assert marker.is_stopped(model_dir)
  for _ in range(2):
    marker.remove_mark(model_dir)
    assert not marker.is_stopped(model_dir)
