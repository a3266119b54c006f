r"""Runs the experiment that one .gin file describes.

  python -m ple_estimator.run --gin_file=gin/bf16.gin
  python -m ple_estimator.run --gin_file=gin/bf16.gin --mode=export
  python -m ple_estimator.run --gin_file=gin/bf16.gin \
      --gin_bindings='Experiment.max_steps = 100'
"""

import logging as stdlib_logging
import os
import re
import signal
import sys

from absl import app
from absl import flags
from absl import logging
import gin

# No warnings of TensorFlow's C++: lines about its build, and a stack of fifty
# lines for an error of the input, which main says in one.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

from ple_estimator import errors  # pylint: disable=wrong-import-position
from ple_estimator import experiment  # pylint: disable=wrong-import-position
from ple_estimator.commands import words  # pylint: disable=wrong-import-position
from ple_estimator.engine import compat  # pylint: disable=wrong-import-position

_GIN_FILE = flags.DEFINE_string(
    'gin_file', None, 'The experiment to run, e.g. gin/base.gin')
_GIN_BINDINGS = flags.DEFINE_multi_string(
    'gin_bindings', [],
    "One line of gin, applied after --gin_file, e.g. 'BATCH_SIZE = 1024'")
_MODE = flags.DEFINE_enum(
    'mode', 'train', ['train', 'evaluate', 'predict', 'export'],
    'train: trains to the last step and evaluates on the way; goes on from the '
    'last checkpoint. evaluate: writes metrics.json of the last checkpoint. '
    'predict: writes predictions of Experiment.predict_input. export: writes a '
    'SavedModel. All go to Experiment.model_dir, by default result/<gin file>')

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def root():
  """The folder that holds gin/: the checkout, or the installed package."""
  checkout = os.path.dirname(_PACKAGE)
  return next((path for path in (checkout, _PACKAGE)
               if os.path.exists(os.path.join(path, 'gin', 'base.gin'))),
              checkout)


def load_config(gin_file, gin_bindings=(), roots=('Experiment',)):
  """Parses and locks the configuration of one experiment.

  Args:
    gin_file: path of the experiment's .gin file, from the working directory
      or from where the package keeps its own.
    gin_bindings: lines of gin that win over the file.
    roots: names of the classes that the caller builds.

  Raises:
    UserError: if gin_file does not exist, or binds what nothing reads.
  """
  found = [path for path in (gin_file, os.path.join(root(), gin_file))
           if os.path.isfile(path)]
  errors.check(found, '--gin_file must name an existing file, got %r (from '
               '%s).', gin_file, os.getcwd())
  gin.add_config_file_search_path(root())
  name = os.path.splitext(os.path.basename(gin_file))[0]
  gin.bind_parameter('Experiment.model_dir', os.path.join('result', name))
  files = gin.parse_config_files_and_bindings(
      [found[0]], gin_bindings, finalize_config=False)
  _check_bindings(_texts(files) + list(gin_bindings), roots)
  gin.finalize()


def _texts(files):
  """The texts of parsed files and of what they include."""
  texts = []
  for parsed in files:
    path = next(p for p in (parsed.filename,
                            os.path.join(root(), parsed.filename))
                if os.path.isfile(p))
    with open(path) as f:
      texts.append(f.read())
    texts += _texts(parsed.includes)
  return texts


def _check_bindings(texts, roots):
  """Refuses what gin lets pass: bindings that nothing reads.

  Args:
    texts: list of str, the .gin files and the lines of the command line.
    roots: names of the classes that Python builds.

  Raises:
    UserError: if a macro is read nowhere, or a class or a scope of it is bound
      that nothing refers to.
  """
  code = re.sub(r'#.*', '', '\n'.join(texts))
  unread = (set(re.findall(r'^\s*([A-Z][A-Z0-9_]*)\s*=', code, re.M)) -
            set(re.findall(r'%([A-Z][A-Z0-9_]*)', code)))
  errors.check(not unread, 'Macros must be read somewhere, got unread %s; '
               'check the spelling.', ', '.join(sorted(unread)))
  # Overridden references count too: an override may leave bindings unused.
  used = {part for name in re.findall(r'@([\w./]+)', code)
          for part in _parts(name)} | set(roots)
  bound = re.findall(r'^([\w./]+?)(?:\.\w+\s*=|\s*:\s*$)', code, re.M)
  unused = sorted({name for name in bound if not _parts(name) <= used})
  errors.check(not unused, 'Bindings must be of something that is used, got '
               'unused %s; check the spelling, or bind it where it is meant to '
               'be used (@name).', ', '.join(unused))


def _parts(selector):
  """'eval/ple_estimator.inputs.CsvInput' -> {'eval/', 'CsvInput'}."""
  scopes = selector.split('/')
  name = scopes.pop().rpartition('.')[2]
  return {scope + '/' for scope in scopes} | {name}


def _load_experiment():
  """Returns the Experiment; any error up to here is one of configuration."""
  level = logging.get_verbosity()
  if level == logging.INFO:
    logging.set_verbosity(logging.WARNING)  # gin tells where it looks for files
  try:
    load_config(_GIN_FILE.value, _GIN_BINDINGS.value)
    return experiment.Experiment()
  except (ValueError, TypeError, NameError, ImportError, SyntaxError,
          AttributeError, RuntimeError, OSError) as error:
    logging.debug('Where it was raised:', exc_info=True)
    raise errors.UserError(str(error).strip())
  finally:
    logging.set_verbosity(level)


def _on_sigterm(signum, frame):
  # As process 1 of a container Python would not hear it otherwise.
  del frame
  sys.exit(128 + signum)


def main(argv):
  """Runs one mode; returns the exit status."""
  signal.signal(signal.SIGTERM, _on_sigterm)
  compat.quiet()
  logging.use_absl_handler()
  # On a terminal a line takes the place of the progress bar.
  start = '\r\x1b[K' if sys.stderr.isatty() else ''
  logging.get_absl_handler().setFormatter(stdlib_logging.Formatter(
      start + '%(asctime)s %(message)s', '%H:%M:%S'))
  try:
    errors.check(len(argv) < 2, 'Unknown arguments: %s.', ' '.join(argv[1:]))
    run = _load_experiment()
    getattr(run, _MODE.value)()
  except errors.UserError as error:
    logging.debug('Where it was raised:', exc_info=True)
    sys.stderr.write('ple_estimator: %s\n' % error)
    return 1
  except KeyboardInterrupt:
    sys.stderr.write('ple_estimator: interrupted; the same command goes on '
                     'from the last checkpoint.\n')
    return 128 + signal.SIGINT
  return 0


def console():
  """The command ple-estimator."""
  if len(sys.argv) > 1 and sys.argv[1] in words.MODULES:
    sys.exit(words.run(sys.argv[1], sys.argv[2:]))
  flags.mark_flag_as_required('gin_file')
  logging.set_verbosity(logging.INFO)
  app.run(main)


if __name__ == '__main__':
  console()
