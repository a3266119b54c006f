"""The file trained.json, in which the chief says that the training is over."""

import os

import tensorflow.compat.v1 as tf

from ple_estimator import files


def mark_trained(model_dir, max_steps, global_step, stopped=None):
  """Writes to model_dir that the training to max_steps ended at global_step.

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

  A file about a training to another max_steps does not count, nor does one
  about checkpoints that were deleted.

  Args:
    model_dir: str.
    max_steps: int.
  """
  note = files.read_json(
      _marker(model_dir), keys={'max_steps': int, 'global_step': int})
  step = latest_step(model_dir)
  if note is None or step is None or note['max_steps'] != max_steps:
    return None
  return note['global_step'] if note['global_step'] <= step else None


def named_checkpoint(model_dir):
  """The path that the file `checkpoint` of model_dir names, or None.

  None too if that file is missing or damaged. Whether the checkpoint is there
  is another question.
  """
  try:
    state = tf.train.get_checkpoint_state(model_dir)
  except (ValueError, tf.errors.OpError):
    return None
  return state.model_checkpoint_path or None if state else None


def latest_checkpoint(model_dir):
  """The path of the newest full checkpoint of model_dir, or None.

  The one that the file `checkpoint` names, or else the last that is there.
  training.checkpoints looks whether it is whole.

  tf.train.latest_checkpoint takes the path for a pattern, so it does not find
  the checkpoints of a folder such as run[1].
  """
  path = named_checkpoint(model_dir)
  if path and os.path.exists(path + '.index'):
    return path
  steps = files.checkpoint_steps(model_dir)
  return files.checkpoint_path(model_dir, steps[-1]) if steps else None


def latest_step(model_dir):
  """The global step of the newest full checkpoint of model_dir, or None."""
  path = latest_checkpoint(model_dir)
  return files.checkpoint_step(path) if path else None


def _marker(model_dir):
  return os.path.join(model_dir, 'trained.json')
