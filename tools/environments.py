"""Virtual environments of tools that need packages the project does not."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys

_PYTHONS = ('python3.11', 'python3.12', 'python3.13', 'python3.10')


def python():
  """The name of an interpreter that makes environments.

  Raises:
    ValueError: if none of them is there.
  """
  for name in _PYTHONS:
    if shutil.which(name):
      return name
  raise ValueError('needs one of %s: install one, or name an interpreter in '
                   '--python.' % ', '.join(_PYTHONS))


def interpreter(folder, packages, maker, hint=''):
  """The interpreter of an environment, which is made on its first use.

  It is made again when the packages are others than those it was made for. The
  packages come from where pip is told to look.

  Args:
    folder: str, where the environment is.
    packages: list of str, as pip takes them, e.g. 'numpy==2.2.6'.
    maker: str, the interpreter that makes it.
    hint: str, a sentence for the error, of what may help.

  Returns:
    str, a path.

  Raises:
    ValueError: if it cannot be made.
  """
  found = os.path.abspath(os.path.join(folder, 'bin', 'python'))
  with _alone(folder):
    installed = os.path.join(folder, 'installed')
    wanted = '\n'.join(packages) + '\n'
    if os.path.exists(installed):
      with open(installed) as f:
        if f.read() == wanted:
          return found
    sys.stderr.write('Installing %s into %s, with %s.\n' % (
        ', '.join(packages), folder, maker))
    _run([maker, '-m', 'venv', '--clear', folder], folder, hint)
    _run([found, '-m', 'pip', 'install', '--quiet'] + packages, folder, hint)
    with open(installed, 'w') as f:
      f.write(wanted)
  return found


@contextlib.contextmanager
def _alone(folder):
  """Has another process that wants the same environment wait."""
  os.makedirs(os.path.dirname(os.path.abspath(folder)), exist_ok=True)
  with open(os.path.abspath(folder) + '.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield


def _run(command, folder, hint):
  try:
    done = subprocess.run(command, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True)
  except OSError as error:
    raise ValueError('%s cannot be made: %s' % (folder, error))
  if not done.returncode:
    return
  errors = [line for line in done.stdout.splitlines()
            if line.startswith('ERROR')] or done.stdout.splitlines()
  raise ValueError(' '.join(['%s cannot be made: %s.' % (
      folder, (errors or ['%s failed' % command[0]])[-1].rstrip('.')),
                             hint]).rstrip())
