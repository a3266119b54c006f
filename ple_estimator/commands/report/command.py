r"""Writes a report of runs: one HTML page, and its figures as files.

  ple-estimator report result/base result/base-mmoe --out report
  ple-estimator report result/* --baseline result/shared_bottom --out report \
      --images png

RESULT_DIR is the folder of a run, several of which are compared: final metrics
with intervals, what differs between their configs, paired tests on the same
rows, runs that differ by their seed alone, gains over single-task runs (the
seesaw), learning curves, calibration, ROC and PR curves, scores, metrics by
slice, gates, embeddings, time; and a section per run.

Intervals, tests, curves and slices need the rows that a run was evaluated on,
which --mode=test writes to test_rows.parquet and training and --mode=evaluate
write to eval_rows.parquet; the test rows are taken where all runs have them.
With Metrics.user bound, users are drawn for the intervals, not rows;
Metrics.slices says which columns to slice by.

What each column is worth is shown of runs whose folder has importance.json or
importance.parquet, which ple-estimator importance RESULT_DIR
--out RESULT_DIR/importance.json writes.

Needs the optional libraries: pip install 'ple-estimator[report]'.
"""

import argparse
import sys

from ple_estimator import errors
from ple_estimator.commands.report import contents
from ple_estimator.commands.report import facts as facts_lib
from ple_estimator.commands.report import page


def main(arguments=None):
  """Writes the report; returns the exit status.

  Args:
    arguments: list of str; None takes those of the process.
  """
  args = _parser().parse_args(arguments)
  try:
    errors.check_integer('--rounds', args.rounds, 20)
    page.check_libraries()
    contents.say('reading %d run%s and drawing %d samples of their rows' % (
        len(args.runs), 's' if len(args.runs) > 1 else '', args.rounds))
    facts = facts_lib.gather(args.runs, args.baseline, args.rounds)
    sections = contents.sections(facts)
    of_runs = contents.of_runs(facts, contents.say)
    contents.say('drawing')
    path = page.write(args.out, facts, sections, of_runs, args.images)
  except errors.UserError as error:
    sys.stderr.write('ple-estimator report: %s\n' % error)
    return 1
  print(path)
  return 0


def _parser():
  parser = argparse.ArgumentParser(
      prog='ple-estimator report', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('runs', nargs='+', metavar='RESULT_DIR',
                      help='the folder of a run')
  parser.add_argument('--out', default='report', metavar='FOLDER',
                      help='where the page goes, as index.html, with figures/ '
                      'and configs/; default: report')
  parser.add_argument('--baseline', metavar='RESULT_DIR',
                      help='the run that others are compared with; default: '
                      'the first')
  parser.add_argument('--rounds', type=int, default=500,
                      help='of the bootstrap; default: 500')
  parser.add_argument('--images', choices=['svg', 'png', 'none'],
                      default='svg', help='the kind of the figures\' files; '
                      'default: svg')
  return parser
