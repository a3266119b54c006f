r"""Compares two runs in the terminal.

  ple-estimator compare result/base result/base-mmoe

Prints what differs between their configs, the metrics of both with intervals,
paired tests on the rows that both were evaluated on, best evaluations,
calibration, metrics by slice, gates, time and a paragraph per run: the tables
of `ple-estimator report`, which shows the same as pictures and takes any number
of runs.
"""

import argparse
import sys

from ple_estimator import errors
from ple_estimator.commands.report import contents
from ple_estimator.commands.report import document
from ple_estimator.commands.report import facts as facts_lib
from ple_estimator.commands.report import summaries
from ple_estimator.commands.report import terminal


def main(arguments=None):
  """Prints the comparison; returns the exit status.

  Args:
    arguments: list of str; None takes those of the process.
  """
  parser = argparse.ArgumentParser(
      prog='ple-estimator compare', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('a', metavar='A', help='the folder of a run')
  parser.add_argument('b', metavar='B', help='of another one')
  parser.add_argument('--rounds', type=int, default=500,
                      help='of the bootstrap; default: 500')
  args = parser.parse_args(arguments)
  try:
    errors.check_integer('--rounds', args.rounds, 20)
    facts = facts_lib.gather([args.a, args.b], rounds=args.rounds)
  except errors.UserError as error:
    sys.stderr.write('ple-estimator compare: %s\n' % error)
    return 1
  sections = contents.sections(facts) + [document.Section(
      'In words', [summaries.of(facts, run) for run in facts.runs])]
  print('\n'.join(terminal.text(sections)).strip())
  return 0
