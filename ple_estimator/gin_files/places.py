"""Where .gin files are looked for, and how messages name them."""

import collections
import os

from ple_estimator import errors

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def root():
  """The folder that holds gin/: the checkout, or the installed package."""
  checkout = os.path.dirname(_PACKAGE)
  return next((path for path in (checkout, _PACKAGE)
               if os.path.exists(os.path.join(path, 'gin', 'base.gin'))),
              checkout)


def find(path, folders, message):
  """Returns the first of folders/path that is a file, or raises UserError."""
  tried = list(collections.OrderedDict.fromkeys(
      os.path.abspath(os.path.join(folder, path)) for folder in folders))
  files = [place for place in tried
           if os.path.exists(place) and not os.path.isdir(place)]
  errors.check(files, '%s; looked for %s%s.', message, ', '.join(tried),
               ' (a folder)' if any(map(os.path.isdir, tried)) else '')
  return files[0]


def displayed(path):
  """The path as messages have it: from here or from the root, if below."""
  for folder in (os.getcwd(), root()):
    relative = os.path.relpath(path, folder)
    if not relative.startswith(os.pardir):
      return relative
  return path
