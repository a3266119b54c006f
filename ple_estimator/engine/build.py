"""Building the library of the C++ kernels, and where it is kept.

It is compiled from `kernels/` once per TensorFlow, with the compiler that the
environment variable CXX names, g++ by default, and the packages
onednn-cpu-gomp and onednn-devel-cpu-gomp. A library runs as this user: it is
only taken from folders that nobody else can write to.
"""

import glob
import hashlib
import os
import platform
import shlex
import shutil
import site
import stat
import subprocess
import sys
import tempfile
import time

from absl import logging
import tensorflow.compat.v1 as tf

from ple_estimator import files

_SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'kernels')
_OPTIONS = [
    '-O3', '-fno-math-errno', '-fno-trapping-math', '-fPIC', '-fopenmp',
    '-Wall', '-Wextra',
    # Without NDEBUG, objects in TensorFlow 1.15's resource manager abort at
    # exit.
    '-DNDEBUG']


class Unavailable(Exception):
  """Why there is no library here, in one line."""


def path():
  """Returns the file of the library, which is built if it was not.

  Raises:
    Unavailable: if there is none and none can be built.
  """
  if sys.platform != 'linux' or platform.machine() != 'x86_64':
    raise Unavailable('they are for Linux on x86_64, this is %s on %s' % (
        sys.platform, platform.machine()))
  name = 'kernels-%s-%s.so' % (tf.__version__, _digest())
  folders = [folder for folder in _folders() if _is_safe(folder)]
  for folder in folders:
    library = os.path.join(folder, name)
    if os.path.exists(library) and _is_safe(library):
      return library
  for folder in folders:
    try:
      partial = _new_folder(folder)
    except OSError:
      continue
    try:
      return _build(partial, os.path.join(folder, name))
    finally:
      shutil.rmtree(partial)
  raise Unavailable('no folder can be written to of ' + ', '.join(_folders()))


# ------------------------------------------------------------ where it is kept


def _folders():
  """Where a library may be: beside its oneDNN, or in the user's cache."""
  return [os.path.join(sys.prefix, 'share', 'ple_estimator'),
          os.path.join(files.folder(), 'kernels')]


def _is_safe(path_):
  """Whether only this user and root can write a path; logs why if not.

  Args:
    path_: str, a folder or a file; one that does not exist is safe.
  """
  try:
    status = os.stat(path_)
  except OSError:
    return True
  if status.st_uid not in (0, os.geteuid()):
    why = 'it belongs to the user number %d' % status.st_uid
  elif stat.S_IMODE(status.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
    why = 'others may write to it (chmod go-w makes it safe)'
  else:
    return True
  logging.warning(
      'No kernels are loaded from %s: %s. Another place is looked for.',
      path_, why)
  return False


def _new_folder(parent):
  """Makes a folder that only this user can enter, in one that may not exist."""
  os.makedirs(os.path.dirname(parent), exist_ok=True)
  try:
    os.mkdir(parent, 0o755)  # not writable by others whatever the umask is
  except FileExistsError:
    pass
  return tempfile.mkdtemp(dir=parent)


def _digest():
  """A few letters that differ with the sources, the flags and the place."""
  found = hashlib.sha256()
  for source in sorted(glob.glob(os.path.join(_SOURCES, '*.[ch]*'))):
    with open(source, 'rb') as f:
      found.update(f.read())
  found.update(repr([_flags(), sys.prefix]).encode())
  return found.hexdigest()[:12]


# -------------------------------------------------------------- how it is made


def _compiler():
  """The compiler as a list of words, as CXX may be 'ccache g++-11'."""
  return shlex.split(os.environ.get('CXX') or 'g++')


def _flags():
  flags = []
  for flag in tf.sysconfig.get_compile_flags():
    # The headers of others are not ours to warn about.
    flags += ['-isystem', flag[2:]] if flag.startswith('-I') else [flag]
  # What TensorFlow 1.15 is compiled as; later ones say it themselves.
  standard = [] if any('-std=' in flag for flag in flags) else ['-std=c++14']
  return flags + standard + _OPTIONS


def _onednn():
  """Returns the folder that has oneDNN's include/ and lib/."""
  roots = [sys.prefix, site.getuserbase(), '/usr/local', '/usr']
  for root in roots:
    if (os.path.exists(os.path.join(root, 'include', 'dnnl.hpp')) and
        os.path.exists(os.path.join(root, 'lib', 'libdnnl.so'))):
      return root
  raise Unavailable(
      'oneDNN is not installed (pip install onednn-cpu-gomp==2023.2.0 '
      'onednn-devel-cpu-gomp==2023.2.0)')


def _build(folder, target):
  """Compiles the sources in `folder` and moves the library to `target`.

  Returns:
    target.
  """
  compiler = _compiler()
  if not shutil.which(compiler[0]):
    raise Unavailable(
        'there is no compiler %s (the environment variable CXX names another)' %
        compiler[0])
  onednn = _onednn()
  # GCC finds the headers in /usr by itself, and only so.
  include = [] if onednn == '/usr' else ['-isystem', onednn + '/include']
  logging.info('Building the fused kernels for TensorFlow %s, once ...',
               tf.__version__)
  begin = time.time()
  sources = sorted(glob.glob(os.path.join(_SOURCES, '*.cc')))
  objects = [os.path.join(folder, os.path.basename(s) + '.o') for s in sources]
  _run([compiler + ['-c', source, '-o', made] + include + _flags()
        for source, made in zip(sources, objects)])
  library = os.path.join(folder, 'library.so')
  # oneDNN stands before TensorFlow, which has symbols of a oneDNN inside.
  _run([compiler + _OPTIONS + ['-shared', '-o', library] + objects +
        ['-L' + onednn + '/lib', '-ldnnl', '-Wl,-rpath,' + onednn + '/lib'] +
        tf.sysconfig.get_link_flags()])
  os.chmod(library, 0o755)
  os.replace(library, target)
  logging.info('... done in %.0f s: %s', time.time() - begin, target)
  return target


def _run(commands):
  """Runs commands side by side; raises Unavailable if one fails."""
  running = [subprocess.Popen(
      command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
      universal_newlines=True) for command in commands]
  said = [process.communicate()[0] for process in running]
  for process, command, text in zip(running, commands, said):
    if process.returncode:
      logging.info('%s:\n%s', ' '.join(command), text)
      lines = text.strip().splitlines() or ['it says nothing']
      raise Unavailable('%s failed: %s' % (
          command[0], next((x for x in lines if 'error' in x), lines[0])))
