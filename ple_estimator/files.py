"""Files that are written whole, and the names of checkpoints.

Also the user's cache folder, for numbers that are computed once.
"""

import atexit
import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid

from absl import logging

from ple_estimator import errors

_URL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')
_NEEDS_DISK = (
    'what is written there is locked and renamed, which needs a disk or '
    'storage that is mounted; copy it to that place afterwards')
_FROM_DISK = 'it is read from a disk; copy it to one, or mount its storage'
_CHECKPOINT = re.compile(r'model\.ckpt-(\d+)$')
_PATTERN = re.compile(r'[*?[\\]')
_COUNT = 'count-'  # what the names of remembered numbers begin with
_MOST_REMEMBERED = 1000  # numbers, of which each is a file of 100 bytes
_warned = {}  # path to what was last said of it, in this process
_links = {}  # what `without_pattern` has made: link to folder


def check_local(binding, path, is_read=False):
  """Raises UserError if a path is a URL, such as s3://bucket/file.

  To Python it would be the name of a folder `s3:` here. A path with a NUL
  character, which no file system has, is refused too.

  Args:
    binding: str, what holds the path, e.g. 'Experiment.model_dir'.
    path: str.
    is_read: bool, whether the path is read; else it is written.
  """
  errors.check(
      not _URL.match(path), '%s must be a path, got the URL %r: %s.', binding,
      path, _FROM_DISK if is_read else _NEEDS_DISK)
  errors.check('\0' not in path, '%s must be a path, without a NUL '
               'character, got %r.', binding, path)


def write_json(path, value, indent=None, sync=False, mode=0o666):
  """Writes a JSON file that others see complete or not at all.

  Args:
    path: str; its folder must exist.
    value: what json.dump can write.
    indent: int, spaces per level, or None for one line.
    sync, mode: see write_text.

  Raises:
    OSError: if the file cannot be written.
  """
  write_text(path, json.dumps(value, indent=indent, sort_keys=True) + '\n',
             sync, mode)


def write_text(path, text, sync=False, mode=0o666):
  """Writes a file that others see complete or not at all.

  The text goes to a file with a name of its own beside `path`, which then takes
  the place of `path`. So a process that is killed leaves the file of before,
  and several processes may write the same path.

  Args:
    path: str; its folder must exist.
    text: str.
    sync: bool, whether to wait until the text is on the disk, so that it also
      survives a loss of power.
    mode: int, the permissions, of which the umask takes away.

  Raises:
    OSError: if the file cannot be written.
  """
  partial = '%s.%s.partial' % (path, uuid.uuid4().hex)
  try:
    with os.fdopen(os.open(
        partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), 'w') as f:
      f.write(text)
      if sync:
        f.flush()
        os.fsync(f.fileno())
    os.replace(partial, path)
  except BaseException:
    if os.path.exists(partial):
      os.remove(partial)
    raise


def read_json(path, default=None, keys=()):
  """Returns the value of a JSON file, or a default if there is none.

  A file that is there and cannot be used is named in the log, once.

  Args:
    path: str.
    default: what to return if the file is missing, cannot be read, is no JSON
      (it may have been cut), or has not the keys.
    keys: names that the value must have; with them it must be a dict. Or a
      dict of name to the type (or tuple of types) of its value; a bool is no
      int.
  """
  try:
    with open(path) as f:
      value = json.load(f)
  except (FileNotFoundError, NotADirectoryError):
    return default
  except (OSError, ValueError, RecursionError) as error:
    _warn_once('%s cannot be read and counts as missing: %s.', path, error)
    return default
  if keys and not has_keys(value, keys):
    _warn_once('%s counts as missing: it must hold %s, got %s.', path,
               ', '.join(sorted(keys)), json.dumps(value)[:60])
    return default
  _warned.pop(path, None)
  return value


def read_needed_json(path, remedy, keys=()):
  """Returns the value of a JSON file that must not be lost, or None.

  Args:
    path: str.
    remedy: str, a sentence: what to do about a file that cannot be used.
    keys: as read_json.

  Returns:
    what the file holds; None if there is no such file.

  Raises:
    UserError: if the file is there and cannot be read, is no JSON, or has not
      the keys.
  """
  try:
    with open(path) as f:
      value = json.load(f)
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (OSError, ValueError, RecursionError) as error:
    raise errors.UserError('%s cannot be read: %s. %s' % (
        path, ' '.join(str(error).split()), remedy))
  errors.check(not keys or has_keys(value, keys), '%s must hold %s, got %s. %s',
               path, ', '.join(sorted(keys)), json.dumps(value)[:60], remedy)
  return value


def has_keys(value, keys):
  """Whether a value of JSON has the keys that read_json asks for."""
  if not isinstance(value, dict) or not set(keys) <= set(value):
    return False
  return not isinstance(keys, dict) or all(
      isinstance(value[name], kinds) and not (
          kinds is int and isinstance(value[name], bool))
      for name, kinds in keys.items())


def _warn_once(message, *args):
  """Logs a warning about a path, the first of args, unless it was the last."""
  text = message % args
  if _warned.get(args[0]) != text:
    _warned[args[0]] = text
    logging.warning('%s', text)


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


def is_pattern(path):
  """Whether TensorFlow takes a path for a pattern: it has * ? [ or \\."""
  return bool(_PATTERN.search(path))


def without_pattern(folder):
  """A path of a folder that TensorFlow does not take for a pattern.

  TensorFlow writes to a folder such as run[1], but looks for what it has
  written in run1. So it is given a link to the folder, which lives as long as
  the process.

  Args:
    folder: str; may not exist yet.

  Returns:
    str, `folder` itself unless it is_pattern.
  """
  if not is_pattern(folder):
    return folder
  home = tempfile.mkdtemp(prefix='ple_estimator-')
  atexit.register(shutil.rmtree, home, ignore_errors=True)
  link = os.path.join(home, 'model_dir')
  logging.warning(
      'TensorFlow takes %s for a pattern. Training, evaluation and prediction '
      'work there; a SavedModel must be copied to another folder before it can '
      'be loaded.', folder)
  os.symlink(os.path.abspath(folder), link)
  _links[link] = folder
  return link


def shown(path):
  """A path as the user knows it, where it leads through without_pattern."""
  for link, folder in _links.items():
    if path == link or path.startswith(link + os.sep):
      return folder + path[len(link):]
  return path


def folder():
  """$XDG_CACHE_HOME/ple_estimator, by default in ~/.cache; may not exist."""
  home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  return os.path.join(home, 'ple_estimator')


def own_folder():
  """Makes `folder`, which nobody else can write to, mode 0700.

  Returns:
    str, its path.

  Raises:
    OSError: if it cannot be made, or belongs to somebody else.
  """
  path = folder()
  os.makedirs(path, mode=0o700, exist_ok=True)
  if {os.lstat(path).st_uid, os.stat(path).st_uid} != {os.getuid()}:
    raise PermissionError('%s belongs to another user' % path)
  if os.stat(path).st_mode & 0o077:
    os.chmod(path, 0o700)
  return path


def remembered(key, make):
  """Returns make(), a number, or what it returned before for this key.

  If the folder cannot be written to, or belongs to somebody else, the number is
  made every time. So it is if the file was changed, or somebody else could have
  written it. Of more than 1,000 numbers those are forgotten that were used
  longest ago.

  Args:
    key: a tuple with a repr that says all the number depends on.
    make: function without arguments to an int.
  """
  name = _COUNT + hashlib.sha256(repr(key).encode()).hexdigest()[:24]
  try:
    path = os.path.join(own_folder(), name)
  except OSError as error:
    _warn_once('What was counted is not remembered, in %s: %s.', folder(),
               error)
    return make()
  number = _remembered(path, key)
  if number is None:
    number = make()
    try:
      write_json(path, {'number': number, 'check': _check(key, number)},
                 mode=0o600)
      _forget(os.path.dirname(path))
    except OSError as error:
      _warn_once('What was counted is not remembered, in %s: %s.', folder(),
                 error)
  return number


def _forget(path):
  """Removes the numbers that were used longest ago from a folder, if many."""
  with os.scandir(path) as entries:
    counts = [entry.path for entry in entries if entry.name.startswith(_COUNT)]
  if len(counts) <= _MOST_REMEMBERED:
    return
  used = {}
  for count in counts:
    with contextlib.suppress(FileNotFoundError):  # another process was faster
      used[count] = os.stat(count).st_mtime_ns
  for count in sorted(used, key=used.get)[:len(used) - _MOST_REMEMBERED]:
    with contextlib.suppress(FileNotFoundError):
      os.remove(count)


def _remembered(path, key):
  """The number in a file that the user alone can have written, or None."""
  try:
    found = os.lstat(path)
  except OSError:
    return None
  if found.st_uid != os.getuid() or found.st_mode & 0o022:
    _warn_once('%s is not used: others can write to it.', path)
    return None
  said = read_json(path, keys={'number': int, 'check': str})
  if not said or said['check'] != _check(key, said['number']):
    return None
  with contextlib.suppress(OSError):
    os.utime(path)  # it was used now
  return said['number']


def _check(key, number):
  """What shows that a number was not changed, and belongs to a key."""
  return hashlib.sha256(repr((key, number)).encode()).hexdigest()
