"""What the commands of this folder share: a run, its rows, errors."""

import os
import sys

from absl import logging

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment
from ple_estimator.engine import compat
from ple_estimator.gin_files import operative
from ple_estimator.training import answering


def add_flags(parser):
  """Adds the flags of a run to an argparse.ArgumentParser."""
  parser.add_argument(
      '--gin_file', action='append', metavar='FILE.gin',
      help='the run, as for training; may be given several times')
  parser.add_argument(
      '--gin_bindings', action='append', default=[], metavar='LINE',
      help='one line of gin, applied after --gin_file')
  parser.add_argument(
      '--checkpoint', metavar='WHICH',
      help="'last', 'best' or the path of a checkpoint of the run")


def load(args, bindings=()):
  """The experiment.Experiment that the flags of `add_flags` name.

  Args:
    args: argparse.Namespace.
    bindings: list of str, further lines of gin.

  Raises:
    UserError: if a file or a binding is wrong.
  """
  loaded = config.load(args.gin_file, args.gin_bindings + list(bindings))
  with config.explained(loaded):
    return experiment.Experiment()


def is_export(path):
  """Whether a folder has a SavedModel, as answering.folder_of finds it.

  Args:
    path: str.
  """
  try:
    answering.folder_of(path)
  except errors.UserError:
    return False
  return True


def load_folder(args):
  """The experiment.Experiment whose results are in the folder args.model.

  Its configuration is that of the flags of `add_flags`, or else what the run
  has written there.

  Raises:
    UserError: if there is no such run.
  """
  folder = args.model
  errors.check(os.path.isdir(folder), 'MODEL must be the folder of a run, such '
               'as result/base, there is none at %r.', folder)
  if not args.gin_file:
    found = operative.newest(folder)
    errors.check(found, 'MODEL must be the folder of a run, which has '
                 'operative_config-<step>.gin, got %r. --gin_file names the '
                 'configuration of a run without it.', folder)
    args.gin_file = [found]
  return load(args, ['Experiment.model_dir = %r' % folder])


def add_rows_flags(parser):
  """Adds the flags that say which rows of a run, see `source_of`."""
  parser.add_argument(
      'file', metavar='FILE', nargs='?', help='rows, CSV or Parquet; without '
      'it those that --of names')
  parser.add_argument(
      '--of', choices=['eval', 'test'], default='eval', help='without FILE: '
      'the rows of Experiment.eval_input (eval) or of test_input')


def source_of(args, loaded):
  """The rows that are meant: (inputs.FileInput, str that names them).

  Args:
    args: argparse.Namespace.
    loaded: experiment.Experiment.

  Raises:
    UserError: if there are none.
  """
  if args.file:
    return loaded.rows_of(args.file), args.file
  return loaded.own_rows(args.of), 'Experiment.%s_input' % args.of


def status(word, work, mistake=1):
  """Runs a command, whose mistakes are told in one line.

  Args:
    word: str, of the command.
    work: function without arguments to the exit status.
    mistake: int, the exit status after a mistake of the user's.

  Returns:
    int, the exit status.
  """
  compat.quiet()
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.WARNING)
  try:
    return work()
  except (errors.UserError, OSError) as error:
    sys.stderr.write('ple-estimator %s: %s\n' % (word, error))
    return mistake
  finally:
    logging.set_verbosity(verbosity)


def count(text):
  """A whole number above 0, for argparse."""
  number = int(text.replace(',', '').replace('_', ''))
  if number < 1:
    raise ValueError(text)
  return number


def rows_in_words(taken, total, source, flag='--rows'):
  """Which rows a report is about, e.g. 'the first 10 of 50 rows of a.csv'.

  Args:
    taken: int, how many rows.
    total: int, how many there are.
    source: str, where they are from.
    flag: str, what says how many.
  """
  if taken >= total:
    return '%s rows of %s' % (format(taken, ','), source)
  return 'the first %s of %s rows of %s (%s)' % (
      format(taken, ','), format(total, ','), source, flag)
