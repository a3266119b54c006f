"""Whether predictions are right: calibration, ROC, PR, scores, slices."""

import collections
import math
import re

import numpy as np

from ple_estimator.commands.report import charts
from ple_estimator.commands.report import comparisons
from ple_estimator.commands.report import curves
from ple_estimator.commands.report import document
from ple_estimator.commands.report import facts as facts_lib
from ple_estimator.commands.report import overview
from ple_estimator.commands.report import resampling

_SLICES = 12  # values of a column, those of the most rows
_GRID = np.linspace(0, 1, 11)


def section(facts):
  """The section of calibration, ROC and PR curves and scores; by task.

  Args:
    facts: facts.Facts.
  """
  sections = []
  for task in facts.tasks:
    having = collections.OrderedDict(
        (run.name, run.rows.tasks[task]) for run in facts.runs
        if run.rows and task in run.rows.tasks)
    if not having:
      continue
    classes = any(of.predictions.ndim == 2 for of in having.values())
    if classes:
      sections.append(document.Section('Task %s' % task, [
          'A task of several classes has no curve; its accuracy and log loss '
          'are among the metrics above.']))
      continue
    binary = all(of.kind == 'binary' for of in having.values())
    figures = [_calibration(facts, task, having, binary)]
    if binary:
      figures += [_roc(facts, task, having), _precision(facts, task, having)]
    figures.append(_scores(task, having, binary))
    sections.append(document.Section('Task %s' % task, figures=figures))
  return document.Section('Predictions', [] if sections else [
      'No run has its rows, so that there are no curves; the section Metrics '
      'says how to write them.'], sections=sections)


def _calibration(facts, task, having, binary):
  """Observed over predicted, and below it a histogram on the same axis."""
  data, bars, rows = [], [], []
  edges = curves.edges(list(having.values()))
  if binary:
    edges = np.linspace(0, 1, curves.BINS + 1)**2  # even on a root's scale
  for name, of in having.items():
    bins = curves.calibration(of)
    data += charts.points({
        'name': [name] * len(bins.weight), 'x': bins.predicted,
        'y': bins.observed, 'rows': bins.weight})
    found = curves.histogram(of.predictions, of.weights, edges)
    bars += charts.points({
        'name': [name] * len(found.shares), 'x': found.edges[:-1],
        'share': found.shares})
    rows += [[name, document.general(predicted), document.general(observed),
              '%.0f' % weight] for predicted, observed, weight in zip(
                  bins.predicted, bins.observed, bins.weight)]
  least, most = [float(fold([fold(of) for of in (
      [point['x'] for point in data], [point['y'] for point in data])]))
                 for fold in (min, max)]
  scale = {'type': 'sqrt', 'domain': [0, most * 1.05], 'nice': False} if (
      binary) else {'domain': [least, most], 'nice': True}
  x = charts.axis('x', 'mean prediction of a bin', **scale)
  curve = charts.lines(
      data, x, charts.axis('y', 'mean label of a bin', **scale),
      charts.by('name', overview.run_names(facts)), tips=charts.tooltip(
          name='run', x='mean prediction', y='mean label',
          rows='rows'))
  curve['layer'].insert(0, {
      'data': {'values': [{'x': end, 'y': end} for end in (
          scale['domain'][0], scale['domain'][1])]},
      'mark': {'type': 'line', 'strokeDash': [4, 4], 'color': 'gray',
               'strokeWidth': 1},
      'encoding': {'x': x, 'y': charts.axis(
          'y', 'mean label of a bin', **scale)}})
  shares = charts.steps(
      [bar for bar in bars if bar['x'] <= scale['domain'][1]],
      dict(x, title='prediction'), charts.axis('share', 'share of rows', **(
          {'type': 'sqrt'})),
      charts.by('name', overview.run_names(facts)),
      charts.tooltip(name='run', x='prediction from', share='share of rows'))
  return document.Figure(
      'calibration-%s' % task, 'Calibration of %s' % task,
      'Rows in 20 bins of about equally many, by their prediction. On the '
      'dashes, what is predicted is what happens; below them, predictions are '
      'too high. Beneath: how many rows have each prediction. %s' % (
          'Axes are by the square root, since most predictions are small.'
          if binary else ''),
      [charts.View('', curve), charts.View('', shares)], document.Table(
          'Bins', ['run', 'mean prediction', 'mean label', 'rows'], rows),
      overview.run_names(facts))


def _roc(facts, task, having):
  data, columns = [], []
  for name, of in having.items():
    x, y = curves.roc(of)
    data += charts.points({'name': [name] * len(x), 'x': x, 'y': y})
    columns.append(np.interp(_GRID, x, y) if len(x) else
                   np.full(len(_GRID), math.nan))
  spec = charts.lines(
      data, charts.axis('x', 'false positive rate', domain=[0, 1]),
      charts.axis('y', 'true positive rate', domain=[0, 1]),
      charts.by('name', overview.run_names(facts)), diagonal=True, marks=False,
      tips=charts.tooltip(name='run', x='false positive rate',
                          y='true positive rate'), order='x')
  return document.Figure(
      'roc-%s' % task, 'ROC of %s' % task, 'The share of positives found, over '
      'the share of negatives taken with them. The dashes are a model that '
      'knows nothing.', [charts.View('', spec)], _grid(
          'True positive rate at false positive rates', 'false positive rate',
          having, columns), overview.run_names(facts))


def _precision(facts, task, having):
  data, columns = [], []
  for name, of in having.items():
    x, y = curves.precision_recall(of)
    data += charts.points({'name': [name] * len(x), 'x': x, 'y': y})
    columns.append(np.interp(_GRID, x, y) if len(x) else
                   np.full(len(_GRID), math.nan))
  spec = charts.lines(
      data, charts.axis('x', 'recall', domain=[0, 1]),
      charts.axis('y', 'precision', domain=[0, 1]),
      charts.by('name', overview.run_names(facts)), marks=False,
      tips=charts.tooltip(name='run', x='recall', y='precision'), order='x')
  return document.Figure(
      'pr-%s' % task, 'Precision and recall of %s' % task,
      'The share of positives among the rows taken, over the share of all '
      'positives found by them, from the tenth positive on.',
      [charts.View('', spec)], _grid(
          'Precision at recalls', 'recall', having, columns),
      overview.run_names(facts))


def _grid(title, of, having, columns):
  return document.Table(title, [of] + list(having), [
      ['%.1f' % at] + [document.number(column[i], 3) for column in columns]
      for i, at in enumerate(_GRID)])


def _scores(task, having, binary):
  """The distribution of predictions: by label, or beside that of labels."""
  of_tasks = list(having.values())
  edges = (curves.log_odds_edges if binary else curves.edges)(of_tasks)
  title = 'log odds of the prediction' if binary else 'value'
  views, rows = [], []
  for name, of in having.items():
    if binary:
      scores = curves.log_odds(of.predictions)
      parts = [('label %d' % label, scores, of.weights * (
          (of.labels > 0.5) == bool(label))) for label in (0, 1)]
    else:
      parts = [('predictions', of.predictions, of.weights),
               ('labels', of.labels, of.weights)]
    data = []
    for word, values, weights in parts:
      found = curves.histogram(values, weights, edges)
      data += charts.points({
          'of': [word] * len(found.shares), 'x': found.edges[:-1],
          'share': found.shares})
      rows.append([name, word] + [document.general(value) for value in (
          _quantiles(values, weights))])
    spec = charts.steps(
        data, charts.axis('x', title, zero=False),
        charts.axis('share', 'share of rows'),
        charts.by('of', [part[0] for part in parts]), charts.tooltip(
            of='rows', x=title + ' from', share='share of rows'))
    views.append(charts.View(name, spec))
  return document.Figure(
      'scores-%s' % task, 'Scores of %s' % task,
      'How predictions are distributed, %s.' % (
          'for rows of label 0 and of label 1, each adding to 1; the further '
          'apart, the better the order' if binary else 'beside labels'), views,
      document.Table('Quantiles of %s' % title, [
          'run', 'of', '5 %', '25 %', '50 %', '75 %', '95 %'], rows),
      [part[0] for part in parts])


def _quantiles(values, weights):
  values = values[weights > 0]
  return np.percentile(values, [5, 25, 50, 75, 95]) if len(values) else [
      math.nan] * 5


def slices(facts):
  """The section of metrics by slice; None if no run was asked for any."""
  columns = collections.OrderedDict(
      (name, None) for run in facts.runs if run.rows
      for name in run.rows.slices)
  if not columns:
    return document.Section('Slices', [
        'No run has columns to slice by. To have them, bind for example '
        "Metrics.slices = ('age_level',) and evaluate again."])
  text = ('Metrics of the rows that have one value of a column, the %d values '
          'of the most rows, with 95 %% intervals. Small slices have wide '
          'intervals: an outlier among many slices is what chance does.'
          % _SLICES)
  return document.Section('Slices', [text], sections=[
      document.Section('By %s' % name, figures=[
          figure for figure in (_slice_figure(facts, name, task)
                                for task in facts.tasks) if figure])
      for name in columns])


def _slice_figure(facts, column, task):
  measure = facts_lib.main_measure(facts, task)
  found = slice_metrics(facts, column, task, measure)
  if not found:
    return None
  values = [value for value, _, _ in found]
  names = overview.run_names(facts)
  data, rows = [], []
  for value, count, samples in found:
    cells = []
    for name in names:
      sample = samples.get(name)
      if sample is None or math.isnan(sample.value):
        cells.append('–')
        continue
      of = resampling.interval(sample)
      cells.append(document.with_interval(*of))
      ends = [of.value if math.isnan(end) else end for end in of[1:]]
      data += charts.points({'of': [value], 'name': [name],
                             'value': [of.value], 'low': [ends[0]],
                             'high': [ends[1]]})
    rows.append([value, '%d' % count] + cells)
  title = '%s of %s' % (overview.in_words(measure), task)
  spec = charts.intervals(data, title, names, sort=values, tips=charts.tooltip(
      of=column, name='run', value=title, low='from', high='to'))
  return document.Figure(
      'slices-%s-%s' % (column, task), '%s by %s' % (title, column),
      'A dot per run and value, with its 95 % interval.',
      [charts.View('', spec)], document.Table(
          title, [column, 'rows'] + names, rows), names)


def slice_metrics(facts, column, task, measure):
  """A metric of each run on the rows of each value of a column.

  Args:
    facts: facts.Facts.
    column: str, of rows.Rows.slices.
    task: str.
    measure: str.

  Returns:
    list of (value, how many rows count, dict of run name to
    resampling.Sample): the values of the most rows; in order, if they are
    numbers, else by the number of rows.
  """
  found = collections.OrderedDict()
  for of in comparisons.same_rows(facts.runs).get(task, []):
    having = [run for run in of if column in run.rows.slices]
    if not having:
      continue
    values = having[0].rows.slices[column]
    counted = having[0].rows.tasks[task].weights > 0
    kinds, counts = np.unique(values[counted].astype(str), return_counts=True)
    for at in np.argsort(-counts, kind='mergesort')[:_SLICES]:
      samples = resampling.samples(
          [run.rows.tasks[task] for run in having],
          comparisons.users_of(having), facts.rounds, values == kinds[at],
          [measure])
      entry = found.setdefault(kinds[at] or '(empty)', [int(counts[at]), {}])
      entry[1].update((run.name, of_run[measure])
                      for run, of_run in zip(having, samples)
                      if measure in of_run)
  found = [(value, count, samples)
           for value, (count, samples) in found.items()]
  return sorted(found, key=lambda of: float(of[0])) if all(
      re.match(r'-?\d+(\.\d+)?$', value) for value, _, _ in found) else found
