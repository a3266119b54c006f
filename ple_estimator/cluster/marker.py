"""The file trained.json, by which the chief says that the training is over."""

import json
import os

import tensorflow.compat.v1 as tf


def mark_trained(model_dir, max_steps, global_step):
  """Notes in model_dir that the training to max_steps ended at global_step."""
  path = _marker(model_dir)
  with open(path + '.partial', 'w') as f:
    json.dump({'max_steps': max_steps, 'global_step': global_step}, f)
  os.replace(path + '.partial', path)


def trained_step(model_dir, max_steps):
  """The global step at which the training to max_steps ended, or None.

  What was noted of a training to another step, or of checkpoints that are gone,
  does not count.

  Args:
    model_dir: str.
    max_steps: int.
  """
  try:
    with open(_marker(model_dir)) as f:
      said = json.load(f)
  except (OSError, ValueError):
    return None
  step = latest_step(model_dir)
  if said['max_steps'] != max_steps or step is None:
    return None
  return said['global_step'] if said['global_step'] <= step else None


def latest_step(model_dir):
  """The global step of the newest full checkpoint of model_dir, or None."""
  path = tf.train.latest_checkpoint(model_dir)
  return int(path.rpartition('-')[2]) if path else None


def _marker(model_dir):
  return os.path.join(model_dir, 'trained.json')
