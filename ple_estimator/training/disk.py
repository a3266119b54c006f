"""Errors of a disk that is full or cannot be written to, as UserErrors."""

import errno
import os
import re

import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.cluster import marker

_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG,
           errno.EIO)
# How TensorFlow words them: the path, then the text of the system.
_TEXT = re.compile(r'(\S+); (%s)' % '|'.join(map(os.strerror, _ERRORS)))


def translator(model_dir, places):
  """Makes the function that turns an error of the disk into a UserError.

  Args:
    model_dir: str, where the checkpoints are.
    places: list of (binding, path): the paths that a run writes to, each with
      the binding that sets it.

  Returns:
    function of an exception to a UserError, or to None if the exception is not
    about the disk, or about a path that no binding sets.
  """
  def translate(error):
    path, text = _failed(error, model_dir)
    binding = path and _binding(path, places)
    if not binding:
      return None
    step = marker.latest_step(model_dir)
    return errors.UserError(
        '%s must have room and be writable: %s: %s. %s' % (
            binding, path, text, 'There is no checkpoint yet.' if step is None
            else 'The checkpoint of step %s is whole: the same command goes on '
            'from it.' % step))
  return translate


def _failed(error, model_dir):
  """Returns (path, system's text) of a disk error, else (None, None)."""
  if isinstance(error, tf.errors.OpError):
    match = _TEXT.search(error.message)
    return match.groups() if match else (None, None)
  if isinstance(error, OSError) and error.errno in _ERRORS:
    # A write to a file that is open does not say which file it is.
    return str(error.filename or model_dir), error.strerror
  return None, None


def _binding(path, places):
  """Returns the binding of the place that a path is in, or None."""
  parts = os.path.abspath(path).split(os.sep)
  for binding, place in places:
    own = os.path.abspath(place).split(os.sep)
    # A checkpoint is written under its final name and a suffix.
    if parts[:len(own)] == own or (
        parts[:-1] == own[:-1] and parts[-1].startswith(own[-1] + '.')):
      return binding
  return None
