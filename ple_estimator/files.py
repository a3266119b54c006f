"""Files that are written whole, and the names of checkpoints.

Also the user's cache folder, for numbers that are computed once.
"""

import glob
import hashlib
import json
import os
import re
import uuid

from ple_estimator import errors

_URL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')
_CHECKPOINT = re.compile(r'model\.ckpt-(\d+)$')


def check_local(binding, paths):
  """Raises UserError if a path is a URL, such as s3://bucket/file.

  To Python it would be the name of a folder `s3:` here.

  Args:
    binding: str, what holds the paths, e.g. 'CsvInput.files'.
    paths: str or list of str.
  """
  for path in [paths] if isinstance(paths, str) else paths:
    errors.check(
        not _URL.match(path), '%s must be a path, got the URL %r: copy the '
        'files to a disk, or mount the storage that holds them.', binding, path)


def write_json(path, value, indent=None, sync=False):
  """Writes a JSON file that others see complete or not at all.

  The text goes to a temporary file beside `path`, which then replaces `path`.
  So a process that is killed leaves the previous file, and several processes
  may write the same path.

  Args:
    path: str; its folder must exist.
    value: what json.dump can write.
    indent: int, spaces per level, or None for one line.
    sync: bool, whether to wait until the text is on the disk, so that it also
      survives a loss of power.

  Raises:
    OSError: if the file cannot be written.
  """
  _write(path, json.dumps(value, indent=indent, sort_keys=True) + '\n', sync)


def read_json(path, default=None, keys=()):
  """Returns the value of a JSON file, or a default if there is none.

  Args:
    path: str.
    default: what to return if the file is missing, cannot be read, is no JSON
      (it may have been cut), or has not the keys.
    keys: names that the value must have; with them it must be a dict.
  """
  try:
    with open(path) as f:
      value = json.load(f)
  except (OSError, ValueError):
    return default
  if keys and not (isinstance(value, dict) and set(keys) <= set(value)):
    return default
  return value


def _write(path, text, sync=False):
  partial = '%s.%s.partial' % (path, uuid.uuid4().hex)
  try:
    with open(partial, 'w') as f:
      f.write(text)
      if sync:
        f.flush()
        os.fsync(f.fileno())
    os.replace(partial, path)
  except BaseException:
    if os.path.exists(partial):
      os.remove(partial)
    raise


def checkpoint_path(model_dir, step):
  """Returns the path of a checkpoint: model_dir/model.ckpt-<step>.

  The files of the checkpoint have this name and further endings.

  Args:
    model_dir: str.
    step: int.
  """
  return os.path.join(model_dir, 'model.ckpt-%d' % step)


def checkpoint_step(path):
  """The global step in the path of a checkpoint.

  Args:
    path: str, e.g. 'result/base/model.ckpt-20'.

  Returns:
    int, or None if the path has another form.
  """
  match = _CHECKPOINT.match(os.path.basename(path))
  return int(match.group(1)) if match else None


def checkpoint_steps(model_dir):
  """The global steps of the complete checkpoints of a model_dir.

  Args:
    model_dir: str; may be missing.

  Returns:
    list of int, ascending.
  """
  paths = glob.glob(os.path.join(glob.escape(model_dir), 'model.ckpt-*.index'))
  steps = [checkpoint_step(path[:-len('.index')]) for path in paths]
  return sorted(step for step in steps if step is not None)


def folder():
  """$XDG_CACHE_HOME/ple_estimator, by default in ~/.cache; may not exist."""
  home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  return os.path.join(home, 'ple_estimator')


def remembered(key, make):
  """Returns make(), a number, or what it returned before for this key.

  If the folder cannot be written to, the number is computed every time.

  Args:
    key: a tuple with a repr that says all the number depends on.
    make: function without arguments to an int.
  """
  path = os.path.join(folder(), 'number-' + hashlib.sha256(
      repr(key).encode()).hexdigest()[:24])
  try:
    with open(path) as f:
      return int(f.read())
  except (OSError, ValueError):
    pass
  number = make()
  try:
    os.makedirs(folder(), exist_ok=True)
    _write(path, str(number))
  except OSError:
    pass
  return number
