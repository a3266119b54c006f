"""Configuration: reads .gin files, puts them together and checks them.

Several files make one configuration. Each file is parsed once, where it is
named or included first, however often it is included after that; of two
bindings of one parameter the later one counts. So a file that is built on
gin/base.gin can be put after another one that is, and undoes nothing of it but
what it binds itself.

A file is read twice, both times by gin's own parser: first without looking
anything up, to find its includes and the place of every statement, and then by
gin.parse_config, which imports, registers and binds. What gin lets pass is
refused here: macros and bindings that nothing reads. A mistake is a UserError
of one line that names the file and the line.
"""

import collections
import contextlib
import os
import re
import sys

from absl import logging
import gin

# No warnings of TensorFlow's C++: lines about its build, and a stack of fifty
# lines for an error of the input, which is told in one.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

# pylint: disable=wrong-import-position
from ple_estimator import errors

# Whoever loads it has registered all that a .gin file can name.
from ple_estimator import experiment  # noqa: F401
from ple_estimator.gin_files import applying
from ple_estimator.gin_files import checks
from ple_estimator.gin_files import messages
from ple_estimator.gin_files import reader as reader_lib
from ple_estimator.gin_files import statements

# pylint: enable=wrong-import-position

# What a constructor may raise over a value that is bound to it.
_MISTAKES = (ValueError, TypeError, NameError, ImportError, SyntaxError,
             AttributeError, RuntimeError, OSError, LookupError,
             ArithmeticError)


class Config:
  """What `load` has read.

  Attributes:
    name: str, the names of the files that were asked for, e.g. 'shop-mmoe'.
    files: list of str, all files in the order they were started, as messages
      name them.
    overrides: list of str, a line for every binding that the log tells of.
  """

  def __init__(self, name, sources, bindings):
    self.name = name
    self.files = [source.name for source in sources]
    self.overrides = checks.overrides(bindings)
    self._in_force = collections.OrderedDict(
        (binding.key(), binding) for binding in bindings)

  def where(self, parameter):
    """The place of the one binding of a parameter, e.g. 'PLE.num_levels'.

    Returns:
      str, such as 'gin/mmoe.gin line 5', of the macro if the value is one; None
      if nothing binds the parameter, or several scopes do.
    """
    found = [b for b in self._in_force.values() if b.is_of(parameter)]
    if len(found) != 1:
      return None
    binding = found[0]
    if isinstance(binding.value, statements.Macro):
      binding = self._in_force.get(('', '', binding.value.name), binding)
    return binding.place()


_in_force = None  # the Config that gin holds, once one was loaded


def is_in_force(loaded):
  """Whether a Config is the one that was loaded last in this process."""
  return loaded is _in_force


def load(gin_files, bindings=(), roots=('Experiment',)):
  """Parses, checks and locks the configuration of one run.

  What was configured before is cleared first, so that a process can have one
  run after another.

  Args:
    gin_files: path of a .gin file or list of such paths, from the working
      directory or from where the package keeps its own.
    bindings: list of str, lines of gin that win over the files.
    roots: names of the classes that the caller builds.

  Returns:
    Config. Experiment.model_dir is bound to result/<Config.name> unless a file
    or a binding says otherwise.

  Raises:
    UserError: if a file does not exist or cannot be parsed, or something is
      bound that does not exist or that nothing reads.
  """
  global _in_force
  _in_force = None
  gin.clear_config()
  if os.getcwd() not in sys.path and '' not in sys.path:
    sys.path.append(os.getcwd())  # a script does not have it, python -m does
  gin_files = [gin_files] if isinstance(gin_files, str) else list(gin_files)
  errors.check(gin_files, '--gin_file must name a .gin file, got none.')
  reader = reader_lib.Reader()
  names = [reader.read_file(path) for path in gin_files]
  for binding in bindings:
    reader.read(statements.Source(None, None, binding))
  name = '-'.join(collections.OrderedDict.fromkeys(names))
  gin.bind_parameter('Experiment.model_dir', os.path.join('result', name))
  for segment in reader.segments:
    applying.apply(segment, reader.bindings)
  checks.check_macros(reader.bindings)
  checks.check_used(reader.bindings, roots)
  checks.check_circles(reader.bindings)
  config = Config(name, reader.sources.values(), reader.bindings)
  with explained(config):
    gin.finalize()
  for line in config.overrides:
    logging.info('%s', line)
  _in_force = config
  return config


@contextlib.contextmanager
def explained(config):
  """Turns what the building of objects raises into a UserError of one line.

  Args:
    config: Config.

  Raises:
    UserError: that names the place of the binding, if it can be told.
  """
  try:
    yield
  except RecursionError as error:
    raise errors.UserError(
        'Bindings must not refer to each other in a circle, as A = %B and B = '
        '%A do, or an object that is built from itself.') from error
  except _MISTAKES as error:
    logging.debug('Where it was raised:', exc_info=True)
    message = messages.plain(error)
    place = config.where(message.split(' ')[0])
    if not isinstance(error, errors.UserError):
      message = _of_building(message, str(error))
    raise errors.UserError(
        '%s: %s' % (place, message) if place else message) from error


def _of_building(message, text):
  """A message that is not ours, with the class that it is about.

  Args:
    message: str.
    text: str, the same with what gin adds.
  """
  missing = re.match(r'Required bindings for `(.*)` not provided in config: '
                     r'\[(.*)\]', message)
  if missing:
    name = missing.group(1)
    return '%s must be bound.%s' % (
        ', '.join('%s.%s' % (name, parameter.strip(" '"))
                  for parameter in missing.group(2).split(',')),
        " Does a file include 'gin/base.gin'?" if name == 'Experiment' else '')
  built = re.search(r"In call to configurable '([\w.]+)'", text)
  if built:
    return ('%s cannot be built: %s. Check what is bound to it: @name() is an '
            'object, @name the class or function itself.' % (
                built.group(1), message.rstrip('.')))
  return message
