"""Prepares the folder that a run writes to."""

import os
import re
import shutil
import tempfile

from absl import logging

from ple_estimator import errors

# What an interrupted save leaves, beside data without an index.
_LEFTOVER = re.compile(
    r'model\.ckpt-\d+_temp|model\.ckpt-.*\.tempstate\d+$|'
    r'checkpoint\.tmp\w{32}$')


_DATA = re.compile(r'(model\.ckpt-\d+)\.data-\d+-of-\d+$')


def prepare(model_dir, saves):
  """Creates a model_dir, or checks that the existing one can be used.

  Args:
    model_dir: str.
    saves: bool, whether this process is the one that saves checkpoints, and so
      may remove what is left of an interrupted save.

  Raises:
    UserError: if nothing can be written there.
  """
  try:
    os.makedirs(model_dir, exist_ok=True)
    if saves:
      _remove_leftovers(model_dir)
    with tempfile.TemporaryFile(dir=model_dir) as f:
      f.write(b'can be written')
  except OSError as error:
    raise errors.UserError(
        'Experiment.model_dir must be a folder that can be written to, got %r: '
        '%s.' % (model_dir, error.strerror))


def _remove_leftovers(model_dir):
  names = os.listdir(model_dir)
  for name in names:
    data = _DATA.match(name)
    if _LEFTOVER.match(name) or data and data.group(1) + '.index' not in names:
      path = os.path.join(model_dir, name)
      logging.info('Removing %s: it was not saved to its end.', path)
      if os.path.isdir(path):
        shutil.rmtree(path)
      else:
        os.remove(path)


