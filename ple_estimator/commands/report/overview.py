"""The first sections: metrics with intervals, what differs, tests, seesaw."""

import math

import numpy as np

from ple_estimator.commands.report import charts
from ple_estimator.commands.report import comparisons
from ple_estimator.commands.report import document
from ple_estimator.commands.report import facts as facts_lib
from ple_estimator.commands.report import measures
from ple_estimator.commands.report import resampling
from ple_estimator.commands.report import runs as runs_lib

_SEED_SPREAD = ('auc', 'gauc', 'log_loss', 'rmse', 'mae', 'accuracy',
                'calibration')


def metrics(facts):
  """The section of final metrics, a table and a figure per task."""
  having = [run.name for run in facts.runs if run.rows]
  texts = list(facts.source.advice)
  if having:
    rows = next(run.rows for run in facts.runs if run.rows)
    texts.insert(0, (
        'Metrics of the %s; ↑: more is better, ↓: less is. In brackets: 95 %% '
        'intervals by a bootstrap of %d rounds over %s. They say how far the '
        'metric of this one model may lie off because the rows are few, not '
        'what another seed would give.') % (
            facts.source.words, facts.rounds,
            'whole users' if facts.measured.users else 'rows'))
    if rows.seen > rows.kept:
      texts.append('Intervals, tests and curves are of the first %s of %s '
                   'rows, which the file keeps (Metrics.keep_rows); so are '
                   'the metrics that have an interval.' % tuple(
                       '{:,}'.format(n) for n in (rows.kept, rows.seen)))
  else:
    texts.insert(0, 'Metrics of the %s.' % facts.source.words)
  return document.Section(
      'Metrics', texts, [_table(facts, task) for task in facts.tasks],
      [figure for figure in (_dots(facts, task) for task in facts.tasks)
       if figure])


def _table(facts, task):
  names = facts_lib.measures_of(facts, task)
  rows = []
  for run in facts.runs:
    if task not in facts_lib.tasks_of(run):
      continue
    step = runs_lib.last_step(run)
    rows.append([run.name, '–' if step is None else '%d' % step] + [
        document.with_interval(*facts_lib.interval(facts, run, task, name))
        for name in names])
  return document.Table(
      'Task %s' % task, ['run', 'step'] + [in_words(name) for name in names],
      rows)


def in_words(measure):
  """A metric's name for a reader, with the direction in which it is better."""
  word = {'auc': 'AUC', 'gauc': 'GAUC', 'pr_auc': 'PR-AUC', 'rmse': 'RMSE',
          'mae': 'MAE'}.get(measure, measure.replace('_', ' '))
  return word + {1: ' ↑', -1: ' ↓', 0: ''}[measures.direction(measure)]


def _dots(facts, task):
  name = facts_lib.main_measure(facts, task)
  data = {'of': [], 'name': [], 'value': [], 'low': [], 'high': []}
  for run in facts.runs:
    value, low, high = facts_lib.interval(facts, run, task, name) if name else (
        math.nan,) * 3
    if not math.isnan(value):
      for key, item in zip(('of', 'name', 'value', 'low', 'high'), (
          run.name, run.name, value, value if math.isnan(low) else low,
          value if math.isnan(high) else high)):
        data[key].append(item)
  if len(data['of']) < 2:
    return None
  title = '%s of %s' % (in_words(name), task)
  return document.Figure(
      'metric-%s' % task, title, 'A dot per run with its 95 % interval.',
      [charts.View('', charts.intervals(
          charts.points(data), title, run_names(facts), sort=data['of'],
          tips=charts.tooltip(name='run', value=title, low='from',
                              high='to')))], None, run_names(facts))


def run_names(facts):
  """The names of all runs, which colors stand for."""
  return [run.name for run in facts.runs]


def differences(facts, found):
  """The section of what differs between configurations.

  Args:
    facts: facts.Facts.
    found: list of (binding, list of value per group).
  """
  texts = []
  without = [run.name for run in facts.runs if run.config is None]
  if without:
    texts.append('Without operative_config-<step>.gin, so that nothing is '
                 'known of its bindings: %s.' % ', '.join(without))
  if len(facts.groups) == 1:
    texts.append('The configurations are equal%s.' % (
        ' but for the seed (run_config.seed)'
        if len(facts.runs) > 1 else ': there is one run'))
    return document.Section('What differs', texts)
  texts.append('All other bindings are equal, the seed and the folder of '
               'results aside. – stands for no binding in that config, and '
               'a line such as ctr/Task.* for a part that only some of them '
               'have, with the same bindings wherever it is.')
  table = document.Table(
      'Bindings that differ', ['binding'] + [of.name for of in facts.groups],
      [[name] + ['–' if value is None else value for value in values]
       for name, values in found])
  return document.Section('What differs', texts, [table] if found else [])


def seeds(facts):
  """The section of runs that differ by their seed; None without any."""
  if all(len(group.runs) == 1 for group in facts.groups):
    return None
  names = [name for name in facts_lib.metric_names(facts)
           if name.partition('/')[2] in _SEED_SPREAD]
  rows = []
  for group in facts.groups:
    for name in names:
      values = [facts_lib.value(facts, run, *name.split('/', 1))
                for run in group.runs]
      values = [value for value in values if not math.isnan(value)]
      if len(values) > 1:
        rows.append([group.name, name] + [document.number(of) for of in (
            np.mean(values), np.std(values, ddof=1), min(values),
            max(values))])
  members = ['%s: %s.' % (group.name, ', '.join(
      '%s (seed %s)' % (run.name, run.config.seed or 'not bound')
      for run in group.runs)) for group in facts.groups if len(group.runs) > 1]
  tables = [document.Table('Mean and spread over seeds', [
      'configuration', 'metric', 'mean', 'standard deviation', 'least', 'most'],
                           rows)]
  if facts.seed_tests:
    tables.append(_tests(
        facts.seed_tests, 'Differences of configurations, over seeds',
        'Welch\'s t test of the means of two configurations: is the '
        'difference larger than what seeds make? With two or three seeds '
        'each, only large differences can be told.'))
  return document.Section(
      'Runs that differ by their seed alone', members, tables)


def tests(facts):
  """The section of paired tests of runs; None if there are none."""
  if len(facts.runs) < 2:
    return None
  texts = []
  for task, sets in facts.measured.unpaired:
    texts.append('Task %s was not evaluated on the same rows in the same order '
                 'by all runs, so only runs of the same rows are compared: %s.'
                 % (task, '; '.join(', '.join(names) for names in sets)))
  if not facts.tests:
    return document.Section('Paired tests', texts + [
        'No two runs have the same rows, so that there is nothing to test.'])
  texts.insert(0, _caveat(facts))
  return document.Section('Paired tests', texts, [_tests(
      facts.tests, 'Second run less first run, on the same rows',
      'A difference counts, as better or worse, if its interval is without 0 '
      'and its adjusted p is below 0.05.')], _differences(facts))


def _caveat(facts):
  pairs = ('all pairs of runs' if len(facts.runs) <= 4 else
           'each run with the baseline, %s' % facts.baseline.name)
  return (
      '%d comparisons: %s. Whoever looks at many comparisons finds some that '
      'look large by chance alone, so p is adjusted for all of this table '
      '(Holm): the chance that even one of two equal models is called '
      'different stays below 5 %%. The intervals are not adjusted. All of it '
      'is of these trained models; whether another seed would repeat it, '
      'only more seeds can tell.' % (len(facts.tests), pairs))


def _tests(found, title, note):
  rows = [[test.task, in_words(test.measure), test.a, test.b,
           document.signed(test.difference.value),
           '–' if math.isnan(test.difference.low) else '%s to %s' % (
               document.signed(test.difference.low),
               document.signed(test.difference.high)),
           document.p_value(test.difference.p), document.p_value(test.p),
           test.method, verdict_in_words(test)] for test in found]
  return document.Table(title, [
      'task', 'metric', 'first', 'second', 'difference', '95 % interval', 'p',
      'p adjusted', 'test', 'the second is'], rows, note)


def verdict_in_words(test):
  """The verdict of a test, '–' where it has no interval."""
  return '–' if math.isnan(test.difference.low) else comparisons.verdict(test)


def _differences(facts):
  """A figure per task: each run less the baseline."""
  figures = []
  for task in facts.tasks:
    name = facts_lib.main_measure(facts, task)
    own = [test for test in facts.tests
           if (test.task, test.measure) == (task, name) and
           test.a == facts.baseline.name and
           not math.isnan(test.difference.low)]
    if len(own) < 2:
      continue
    title = '%s of %s: difference from %s' % (
        in_words(name), task, facts.baseline.name)
    data = charts.points({
        'of': [test.b for test in own], 'name': [test.b for test in own],
        'value': [test.difference.value for test in own],
        'low': [test.difference.low for test in own],
        'high': [test.difference.high for test in own]})
    figures.append(document.Figure(
        'difference-%s' % task, title, 'A dot per run with its 95 % interval, '
        'not adjusted. An interval that crosses the line at 0 does not tell '
        'the two apart.', [charts.View('', charts.intervals(
            data, 'difference', run_names(facts), 0,
            [test.b for test in own], charts.tooltip(
                name='run', value='difference', low='from', high='to')))],
        None, run_names(facts)))
  return figures


def seesaw(facts):
  """The section of gains over single-task runs; None for one task or run."""
  tasks = [task for task in facts.tasks if facts_lib.main_measure(facts, task)]
  if len(tasks) < 2 or len(facts.runs) < 2:
    return None
  singles = facts_lib.singles(facts)
  alone = all(task in singles for task in tasks)
  bases = {task: singles[task] if alone else [facts.baseline]
           for task in tasks}
  shown = [run for run in facts.runs
           if set(tasks) <= set(facts_lib.tasks_of(run)) and
           (alone or run is not facts.baseline)]
  if not shown:
    return None
  gains = {(run.name, task): _gain(facts, run, task, bases[task])
           for run in shown for task in tasks}
  zero = ('the single-task run%s of each task (%s)' % (
      's' if len(facts.runs) > 3 else '', ', '.join(
          run.name for task in tasks for run in bases[task])) if alone else
      '%s, as there is no run of each task alone (a run whose Model.tasks is '
      'one task)' % facts.baseline.name)
  text = ('What each task gains over %s. To the upper right, all tasks gain; '
          'a run that lies right and below pays for one task with another, '
          'the seesaw of Tang et al. (RecSys 2020). A gain is the difference '
          'of the metric, its sign turned where less is better.' % zero)
  table = document.Table(
      'Gains', ['run'] + ['%s of %s' % (in_words(facts_lib.main_measure(
          facts, task))[:-2], task) for task in tasks],
      [[run.name] + ['%s%s' % (document.signed(gain[0]), '' if math.isnan(
          gain[1]) else ' (%s to %s)' % tuple(map(document.signed, gain[1:])))
                     for gain in (gains[run.name, task] for task in tasks)]
       for run in shown],
      'In brackets: 95 % intervals on the same rows, where there is one run '
      'to compare with.')
  return document.Section('Seesaw', [text], [table], [_seesaw_figure(
      facts, tasks, shown, gains, alone)])


def _gain(facts, run, task, bases):
  """(gain, low, high) of a run over the mean of others in a task."""
  name = facts_lib.main_measure(facts, task)
  sign = measures.direction(name) or 1
  value = facts_lib.value(facts, run, task, name) - np.mean(
      [facts_lib.value(facts, base, task, name) for base in bases])
  ends = [math.nan, math.nan]
  own, other = [facts.measured.samples.get((of.name, task), {}).get(name)
                for of in (run, bases[0])]
  if len(bases) == 1 and own and other and (
      run.rows.tasks[task].digest == bases[0].rows.tasks[task].digest):
    found = resampling.difference(other, own)
    ends = sorted([sign * found.low, sign * found.high])
  return (sign * float(value),) + tuple(ends)


def _seesaw_figure(facts, tasks, shown, gains, alone):
  zero = 'single-task' if alone else facts.baseline.name
  titles = ['gain of %s over %s (%s)' % (
      task, zero, in_words(facts_lib.main_measure(facts, task))[:-2])
            for task in tasks]
  if len(tasks) == 2:
    columns = {'name': [run.name for run in shown]}
    for way, task in zip(('x', 'y'), tasks):
      for i, end in enumerate(('', '_low', '_high')):
        columns[way + end] = [gains[run.name, task][i or 0] for run in shown]
    spec = charts.scatter(charts.points(columns), charts.axis('x', titles[0]),
                          charts.axis('y', titles[1]), run_names(facts))
  else:
    data = [{'of': task, 'name': run.name, 'value': charts.lean(gain[0]),
             'low': charts.lean(gain[0] if math.isnan(gain[1]) else gain[1]),
             'high': charts.lean(gain[0] if math.isnan(gain[2]) else gain[2])}
            for task in tasks for run in shown
            for gain in [gains[run.name, task]]]
    spec = charts.intervals(data, 'gain over %s' % zero, run_names(facts), 0,
                            tasks, charts.tooltip(
                                name='run', of='task', value='gain'))
  return document.Figure(
      'seesaw', 'Gain of each task, one point per run',
      'Lines through a point: its 95 % intervals.',
      [charts.View('', spec)], None, run_names(facts), True)
