"""The folder that a run writes to: made, held by one run, and cleaned."""

import contextlib
import os
import re
import shutil
import tempfile

from absl import logging

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.training import checkpoints
from ple_estimator.training import lock

# What only a save that was broken off leaves.
_LEFTOVER = re.compile(
    r'model\.ckpt-\d+_temp|model\.ckpt-.*\.tempstate\d+$|'
    r'checkpoint\.tmp\w{32}$|warm_start-\w+$')


def prepare(model_dir):
  """Makes a model_dir, or sees that it can be used.

  Args:
    model_dir: str.

  Raises:
    UserError: if nothing can be written there.
  """
  try:
    os.makedirs(os.path.realpath(model_dir), exist_ok=True)
    with tempfile.TemporaryFile(dir=model_dir) as f:
      f.write(b'can be written')
  except OSError as error:
    raise errors.UserError(
        'Experiment.model_dir must be a folder that can be written to, got %r: '
        '%s.' % (files.shown(model_dir), error.strerror))


@contextlib.contextmanager
def owned(model_dir):
  """Is the one process that saves checkpoints in a model_dir.

  First it removes what is left of a save that was broken off, and sees to it
  that the newest whole checkpoint is the one to go on from.

  Args:
    model_dir: str, prepared.

  Raises:
    UserError: if another run is under way there, or all checkpoints are
      damaged.
  """
  with lock.held(model_dir):
    _remove_leftovers(model_dir)
    checkpoints.mend(model_dir)
    yield


def _remove_leftovers(model_dir):
  for name in os.listdir(model_dir):
    if _LEFTOVER.match(name):
      path = os.path.join(model_dir, name)
      logging.info('Removing %s: it was not saved to its end.',
                   files.shown(path))
      if os.path.isdir(path):
        shutil.rmtree(path)
      else:
        os.remove(path)
