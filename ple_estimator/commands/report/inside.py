"""What experts, gates and embeddings do."""

import collections
import math
import re

import numpy as np

from ple_estimator.commands.report import charts
from ple_estimator.commands.report import document

# gate/level_0/ctr/shared/expert_1: the gate, then the expert.
_GATE = re.compile(r'(?:.*/)?gate/(?P<gate>.+)/(?P<expert>[^/]+/[^/]+)$')

Gate = collections.namedtuple('Gate', 'name experts steps shares')
Gate.__doc__ = """The mean weights of a gate over training.

Attributes:
  name: str, such as 'level_0/ctr'.
  experts: list of str, such as 'shared/expert_0'.
  steps: list of int.
  shares: [steps, experts] float64; each row adds to 1 but for rounding.
"""


def gates(run):
  """The gates of a run, from its evaluations.

  Args:
    run: runs.Run.

  Returns:
    list of Gate, by name.
  """
  found = collections.OrderedDict()
  for of in run.evaluations:
    for name, share in sorted(of.items()):
      match = _GATE.match(name)
      if match and share is not None:
        found.setdefault(match.group('gate'), collections.OrderedDict(
            )).setdefault(match.group('expert'), {})[of['global_step']] = share
  return [_gate(name, found[name]) for name in sorted(found)]


def _gate(name, experts):
  steps = sorted(set.intersection(*[set(of) for of in experts.values()]))
  return Gate(name, list(experts), steps, np.array(
      [[of[step] for of in experts.values()] for step in steps]).reshape(
          [len(steps), len(experts)]))


def entropies(gate):
  """How evenly a gate uses its experts, over training.

  Args:
    gate: Gate.

  Returns:
    [steps] float64, the entropy of the mean weights divided by that of equal
    weights: 1 is all alike, 0 is one expert alone; NaN of one expert.
  """
  if len(gate.experts) < 2:
    return np.full(len(gate.steps), math.nan)
  shares = gate.shares / gate.shares.sum(axis=1, keepdims=True)
  logs = np.log(np.where(shares > 0, shares, 1.0))
  return -(shares * logs).sum(axis=1) / math.log(len(gate.experts))


def experts(facts):
  """The section that compares how runs use their experts.

  Args:
    facts: facts.Facts.
  """
  rows = []
  for run in facts.runs:
    for gate in gates(run):
      if gate.steps:
        last = gate.shares[-1]
        most = int(last.argmax())
        rows.append([
            run.name, gate.name, '%d' % len(gate.experts),
            document.number(entropies(gate)[-1], 3),
            '%s (%s)' % (gate.experts[most], document.percent(last[most])),
            document.percent(sum(
                share for name, share in zip(gate.experts, last)
                if name.startswith('shared/')))])
  if not rows:
    return document.Section('Experts and gates', [
        'No run has gates with several experts.'])
  return document.Section('Experts and gates', [
      'Shares are means over the rows of the last evaluation. An entropy of 1 '
      'uses all experts alike, of 0 one alone. That a gate leans on an expert '
      'does not say that the expert helps; each run below has its gates over '
      'training.'], [document.Table('Gates at the last evaluation', [
          'run', 'gate', 'experts', 'entropy', 'most used', 'shared experts'],
                                    rows)])


def gate_figures(run, prefix):
  """Heat maps of a run's gates over training, and their entropies.

  Args:
    run: runs.Run.
    prefix: str, of the names of files.

  Returns:
    list of document.Figure.
  """
  found = [gate for gate in gates(run)
           if gate.steps and len(gate.experts) > 1]
  if not found:
    return []
  most = max(float(gate.shares.max()) for gate in found)
  views, rows, data = [], [], []
  for gate in found:
    flat = [{'step': step, 'of': name, 'share': charts.lean(share)}
            for step, shares in zip(*_thinned(gate))
            for name, share in zip(gate.experts, shares)]
    views.append(charts.View(_in_words(gate.name), charts.heat(
        flat, 'global step', 'share', gate.experts, charts.lean(most))))
    for i, name in enumerate(gate.experts):
      rows.append([_in_words(gate.name), name] + [
          document.percent(gate.shares[at, i]) for at in (0, -1)])
    data += charts.points({
        'name': [_in_words(gate.name)] * len(gate.steps), 'step': gate.steps,
        'value': entropies(gate)})
  names = [_in_words(gate.name) for gate in found]
  return [
      document.Figure(
          prefix + '-gates', 'Gates over training',
          'Each map is a gate, each row an expert, each column an evaluation; '
          'the color is the mean weight.', views, document.Table(
              'First and last', ['gate', 'expert', 'step %d' %
                                 found[0].steps[0],
                                 'step %d' % found[0].steps[-1]], rows)),
      document.Figure(
          prefix + '-entropy', 'Entropy of expert use',
          '1 uses all experts alike, 0 one alone.', [charts.View(
              '', charts.lines(
                  data, charts.axis('step', 'global step', zero=False),
                  charts.axis('value', 'entropy, of equal use', domain=[
                      min(0.9, _least(data)), 1]),
                  charts.by('name', names), tips=charts.tooltip(
                      name='gate', step='step', value='entropy')))],
          document.Table('Entropies', ['step'] + names, [
              ['%d' % step] + [document.number(entropies(gate)[i], 3)
                               for gate in found]
              for i, step in enumerate(found[0].steps)
              if all(len(gate.steps) > i for gate in found)]), names)]


def _least(data):
  return math.floor(20 * min(point['value'] for point in data)) / 20


def _thinned(gate, most=30):
  """At most so many steps of a gate, and their shares."""
  at = np.unique(np.linspace(0, len(gate.steps) - 1, most).astype(int)) if (
      len(gate.steps) > most) else np.arange(len(gate.steps))
  return [gate.steps[i] for i in at], gate.shares[at]


def _in_words(gate):
  return gate.replace('level_', 'level ').replace('/', ', ')
