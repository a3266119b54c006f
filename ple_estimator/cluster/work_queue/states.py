"""The files model_dir/work_queue/state-<step>.json, one for each checkpoint.

The states of training without a work queue are in model_dir/input and are
written and removed alike.
"""

import glob
import os
import re

from ple_estimator import files

_FOLDER = 'work_queue'
_NAME = re.compile(r'state-(\d+)\.json$')


def path(model_dir, step, folder=_FOLDER):
  """Returns the path of the state that belongs to a global step."""
  return os.path.join(model_dir, folder, 'state-%d.json' % step)


def write(model_dir, step, state, folder=_FOLDER):
  """Writes the state of the checkpoint of a global step.

  Args:
    model_dir: str.
    step: int.
    state: dict, see plan.Plan.state.
    folder: str, in model_dir.
  """
  os.makedirs(os.path.join(model_dir, folder), exist_ok=True)
  files.write_json(path(model_dir, step, folder), state)


def remove_outdated(model_dir, folder=_FOLDER):
  """Removes the states of checkpoints that were deleted, also incremental."""
  deltas = glob.glob(os.path.join(
      glob.escape(model_dir), 'incremental', '*', 'delta-*.json'))
  kept = set(files.checkpoint_steps(model_dir)) | {
      int(re.findall(r'\d+', os.path.basename(delta))[0]) for delta in deltas}
  folder = os.path.join(model_dir, folder)
  for name in os.listdir(folder) if os.path.isdir(folder) else ():
    match = _NAME.match(name)
    if match and int(match.group(1)) not in kept:
      os.remove(os.path.join(folder, name))
