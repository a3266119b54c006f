"""The file trained.json, in which the chief says that the training is over."""

import os

import tensorflow.compat.v1 as tf

from ple_estimator import files


def mark_trained(model_dir, max_steps, global_step, stopped=None):
  """Notes in model_dir that the training to max_steps ended at global_step.

  Args:
    model_dir: str.
    max_steps: int.
    global_step: int.
    stopped: str, why it ended before max_steps, by early stopping; or None.
  """
  files.write_json(_marker(model_dir), {
      'max_steps': max_steps, 'global_step': global_step, 'stopped': stopped})


def remove_mark(model_dir):
  """Takes back that the training ended: it goes on."""
  if os.path.exists(_marker(model_dir)):
    os.remove(_marker(model_dir))


def is_stopped(model_dir):
  """Whether the note is about a training that early stopping ended."""
  note = files.read_json(_marker(model_dir), keys=['stopped'])
  return bool(note and note['stopped'])


def trained_step(model_dir, max_steps):
  """The global step at which the training to max_steps ended, or None.

  A note about a training to another step does not count, nor does one about
  checkpoints that are gone.

  Args:
    model_dir: str.
    max_steps: int.
  """
  note = files.read_json(_marker(model_dir), keys=['max_steps', 'global_step'])
  step = latest_step(model_dir)
  if note is None or step is None or note['max_steps'] != max_steps:
    return None
  return note['global_step'] if note['global_step'] <= step else None


def latest_checkpoint(model_dir):
  """The path of the newest full checkpoint of model_dir, or None.

  tf.train.latest_checkpoint takes the path for a pattern, so it does not find
  the checkpoints of a folder such as run[1].
  """
  state = tf.train.get_checkpoint_state(model_dir)
  path = state.model_checkpoint_path if state else ''
  return path if path and os.path.exists(path + '.index') else None


def latest_step(model_dir):
  """The global step of the newest full checkpoint of model_dir, or None."""
  path = latest_checkpoint(model_dir)
  return files.checkpoint_step(path) if path else None


def _marker(model_dir):
  return os.path.join(model_dir, 'trained.json')
