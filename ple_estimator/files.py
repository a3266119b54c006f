"""What is made once and found again: a folder of the user's."""

import hashlib
import os


def folder():
  """$XDG_CACHE_HOME/ple_estimator, by default in ~/.cache; may not exist."""
  home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  return os.path.join(home, 'ple_estimator')


def remembered(key, make):
  """Returns make(), a number, or what it returned before for this key.

  Without a folder to write to it is made every time.

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
    partial = '%s.%d' % (path, os.getpid())
    with open(partial, 'w') as f:
      f.write(str(number))
    os.replace(partial, path)
  except OSError:
    pass
  return number
