"""What the commands of this folder share: a run by its .gin files, errors."""

import sys

from absl import logging

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment
from ple_estimator.engine import compat


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


def load(args):
  """The experiment.Experiment that the flags of `add_flags` name.

  Raises:
    UserError: if a file or a binding is wrong.
  """
  loaded = config.load(args.gin_file, args.gin_bindings)
  with config.explained(loaded):
    return experiment.Experiment()


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


def rows_in_words(taken, total, source):
  """Which rows a report is about, e.g. 'the first 10 of 50 rows of a.csv'.

  Args:
    taken: int, how many rows.
    total: int, how many there are.
    source: str, where they are from.
  """
  if taken >= total:
    return '%s rows of %s' % (format(taken, ','), source)
  return 'the first %s of %s rows of %s (--rows)' % (
      format(taken, ','), format(total, ','), source)
