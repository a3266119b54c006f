"""Learning curves: training and evaluations on one chart."""

import math

import numpy as np

from ple_estimator.commands.report import charts
from ple_estimator.commands.report import document
from ple_estimator.commands.report import measures
from ple_estimator.commands.report import overview

_BLOCKS = 60  # points of a training curve, at most
_SHOWN = ('auc', 'gauc', 'log_loss', 'rmse')
# The metric of evaluations that the loss of batches can be laid beside: what
# training calls it, and how it becomes that metric.
_OF_TRAINING = {'log_loss': ('log_loss', lambda loss: loss),
                'rmse': ('loss', lambda loss: math.sqrt(max(loss, 0.0)))}
_OF_SAMPLE = '/train'  # ends the metrics of a sample of training rows
_TRAINING, _EVALUATION = 'training', 'evaluation'


def section(facts):
  """The section of learning curves.

  Args:
    facts: facts.Facts.
  """
  figures = [figure for figure in [_figure(facts, 'loss')] + [
      _figure(facts, '%s/%s' % (task, measure)) for task in facts.tasks
      for measure in _SHOWN] if figure]
  texts = ['Lines: evaluations of validation rows. Dashes: training, the mean '
           'of the batches logged between two points, with dropout in force '
           'and weights before averaging, so that it may lie above the '
           'evaluation at first; where Metrics.train_rows is bound, the '
           'evaluations of those training rows. A training loss that falls on '
           'while that of evaluations rises is overfitting.']
  if not figures:
    texts = ['No evaluations and no event files: training writes '
             'evaluations.json and events.out.tfevents.*.']
  return document.Section('Learning curves', texts, [_best(facts)], figures)


def _best(facts):
  """The table of each run's best evaluation and where training ended."""
  rows = []
  for run in facts.runs:
    for task in facts.tasks:
      for measure in _SHOWN:
        name = '%s/%s' % (task, measure)
        values = [(of['global_step'], of[name]) for of in run.evaluations
                  if of.get(name) is not None]
        if values:
          sign = measures.direction(measure)
          best = max(values, key=lambda of: sign * of[1])
          rows.append([
              run.name, name, document.number(best[1]), '%d' % best[0],
              document.number(values[-1][1]), '%d' % values[-1][0]])
  return document.Table('Best and last evaluation of training', [
      'run', 'metric', 'best', 'at step', 'last', 'at step'], rows)


def _figure(facts, name):
  """The chart of one metric of evaluations; None if there is nothing."""
  data, kinds = [], set()
  for run in facts.runs:
    for kind, values in ((_EVALUATION, evaluated(run, name)),
                         (_TRAINING, trained(run, name))):
      if values:
        kinds.add(kind)
        data += charts.points({
            'name': [run.name] * len(values), 'kind': [kind] * len(values),
            'step': [step for step, _ in values],
            'value': [value for _, value in values]})
  if not data or kinds == {_TRAINING} and name != 'loss':
    return None
  title = name if name == 'loss' else '%s of %s' % (
      overview.in_words(name.partition('/')[2]), name.partition('/')[0])
  spec = charts.lines(
      data, charts.axis('step', 'global step', zero=False),
      charts.axis('value', title, zero=False),
      charts.by('name', overview.run_names(facts)),
      {'field': 'kind', 'type': 'nominal', 'title': None, 'legend': None,
       'scale': {'domain': [_EVALUATION, _TRAINING],
                 'range': [[1, 0], [5, 4]]}},
      tips=charts.tooltip(name='run', step='step', value=title) + [
          {'field': 'kind', 'title': 'of'}])
  return document.Figure(
      'learning-%s' % name.replace('/', '-'), title, 'Over training%s.' % (
          '' if _TRAINING in kinds else '; evaluations only'),
      [charts.View('', spec)], _table(facts, name, title),
      overview.run_names(facts))


def _table(facts, name, title):
  steps = sorted({step for run in facts.runs
                  for step, _ in evaluated(run, name)})
  of_runs = [dict(evaluated(run, name)) for run in facts.runs]
  return document.Table(
      '%s at evaluations' % title, ['step'] + overview.run_names(facts),
      [['%d' % step] + [document.number(of.get(step)) for of in of_runs]
       for step in steps])


def evaluated(run, name):
  """A metric of the evaluations of a run, a list of (step, value)."""
  return [(of['global_step'], of[name]) for of in run.evaluations
          if of.get(name) is not None]


def trained(run, name):
  """The same of training rows: of the sample that evaluations measure, or of
  the batches in the event files, in at most _BLOCKS means.
  """
  of_sample = evaluated(run, name + _OF_SAMPLE)
  if of_sample:
    return of_sample
  task, _, measure = name.partition('/')
  tag, form = _OF_TRAINING.get(measure, (None, None))
  if name == 'loss':
    tag, form = 'loss', lambda loss: loss
  else:
    tag = '%s/%s' % (task, tag)
  found = [point for point in run.training.get(tag, [])
           if math.isfinite(point.value)]
  if not found:
    return []
  size = -(-len(found) // _BLOCKS)
  return [(block[-1].step, form(float(np.mean([of.value for of in block]))))
          for block in (found[i:i + size]
                        for i in range(0, len(found), size))]
