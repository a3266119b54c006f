"""A paragraph per run in words, which says no more than the figures do."""

import math

from ple_estimator.commands.report import comparisons
from ple_estimator.commands.report import costs
from ple_estimator.commands.report import document
from ple_estimator.commands.report import facts as facts_lib
from ple_estimator.commands.report import importances
from ple_estimator.commands.report import inside
from ple_estimator.commands.report import measures
from ple_estimator.commands.report import overview
from ple_estimator.commands.report import runs as runs_lib


def of(facts, run):
  """The paragraph of a run, a str.

  Args:
    facts: facts.Facts.
    run: runs.Run.
  """
  parts = [_training(facts, run)]
  for task in facts_lib.tasks_of(run):
    parts += [_metrics(facts, run, task), _calibration(facts, run, task),
              _best(run, task)]
  parts += [_tests(facts, run), _gates(run), _columns(run), _cost(run)]
  return ' '.join(part for part in parts if part)


def _training(facts, run):
  step = runs_lib.last_step(run)
  words = '%s has no metrics yet.' % run.name if step is None else (
      'The metrics of %s are of step %d%s.' % (
          run.name, step, ', on {:,} {}'.format(run.rows.kept,
                                                facts.source.words)
          if run.rows else ''))
  if run.ended and run.ended.get('reason'):
    words += ' Training ended at step %s: %s.' % (
        run.ended.get('global_step'), run.ended['reason'])
  else:
    words += ' It is not noted that training has ended.'
  return words


def _name(measure):
  return overview.in_words(measure).rstrip(' ↑↓')


def _metrics(facts, run, task):
  said = []
  for name in ('auc', 'log_loss', 'rmse', 'mae', 'accuracy'):
    value, low, high = facts_lib.interval(facts, run, task, name)
    if not math.isnan(value):
      said.append('%s %s' % (_name(name), document.with_interval(
          value, low, high)))
  return 'Task %s: %s.' % (task, ', '.join(said)) if said else ''


def _calibration(facts, run, task):
  value, low, high = facts_lib.interval(facts, run, task, 'calibration')
  if math.isnan(value):
    return ''
  if math.isnan(low):
    return 'Its predictions sum to %.4f times its labels.' % value
  if low <= 1 <= high:
    return ('Its predictions sum to %.4f times its labels; the interval '
            'includes 1, so no error of the whole sum can be told.' % value)
  return ('Its predictions are %.1f %% too %s on the whole (%s times the '
          'labels).' % (100 * abs(value - 1), 'high' if value > 1 else 'low',
                        document.with_interval(value, low, high)))


def _best(run, task):
  """Where the best evaluation was, of the metric that sums up the task."""
  for measure in measures.MAIN:
    name = '%s/%s' % (task, measure)
    values = [(found['global_step'], found[name]) for found in run.evaluations
              if found.get(name) is not None]
    if len(values) > 1:
      sign = measures.direction(measure)
      best = max(values, key=lambda found: sign * found[1])
      if best[0] == values[-1][0]:
        return ('Its best evaluation by %s was the last one, at step %d.' % (
            _name(measure), best[0]))
      return ('Its best evaluation by %s was at step %d (%s); the last had '
              '%s.' % (_name(measure), best[0], document.number(best[1]),
                       document.number(values[-1][1])))
  return ''


def _tests(facts, run):
  """What the paired tests with the baseline say."""
  if run is facts.baseline:
    return ('The other runs are compared with this one.'
            if len(facts.runs) > 1 else '')
  own = [test for test in facts.tests if run.name in (test.a, test.b) and
         facts.baseline.name in (test.a, test.b)]
  if not own:
    return ('It shares no evaluated rows with the baseline, %s, so that they '
            'are not compared.' % facts.baseline.name)
  said = []
  for test in own:
    test = test if test.b == run.name else _turned(test)
    said.append('%s of %s %s (%s to %s), %s' % (
        _name(test.measure), test.task, document.signed(test.difference.value),
        document.signed(test.difference.low),
        document.signed(test.difference.high), comparisons.verdict(test)))
  return 'Compared with %s on the same rows: %s.' % (
      facts.baseline.name, '; '.join(said))


def _turned(test):
  """The same test with its two runs exchanged."""
  of_b = test.difference
  return test._replace(a=test.b, b=test.a, difference=of_b._replace(
      value=-of_b.value, low=-of_b.high, high=-of_b.low))


def _gates(run):
  found = [(gate, inside.entropies(gate)[-1]) for gate in inside.gates(run)
           if gate.steps and len(gate.experts) > 1]
  if not found:
    return ''
  gate, entropy = min(found, key=lambda of: of[1])
  last = gate.shares[-1]
  return ('Of its gates, that of %s is the least even (entropy %.3f of 1): %s '
          'of its weight goes to %s.' % (
              gate.name.replace('level_', 'level ').replace('/', ', '),
              entropy, document.percent(float(last.max())),
              gate.experts[int(last.argmax())]))


def _columns(run):
  """The column that each task needs most."""
  said = []
  for task in run.importances.tasks if run.importances else ():
    of = importances.most(run.importances, task)
    if of and of['low'] > 0:
      said.append('of %s %s, %s %s' % (
          task, importances.columns_of(of), importances.change(of),
          document.with_interval(
              of['importance'], of['low'], of['high'], 5)))
  return ('Of the columns that were permuted alone, the one that each task '
          'needs most: %s.' % '; '.join(said)) if said else ''


def _cost(run):
  speed, seconds = costs.rate(run), costs.wall(run)
  if speed is None:
    return ''
  return ('It made %s steps/s (median) and took %s from its first event to '
          'its last.' % (document.general(speed), costs.duration(seconds)))
