"""Time and memory: steps/s, wall time, and where the time of a step went."""

import collections
import glob
import json
import os
import re

import numpy as np

from ple_estimator.commands.report import charts
from ple_estimator.commands.report import document
from ple_estimator.commands.report import overview

_RATE = 'global_step/sec'
_OPS = 12  # kinds of ops that are shown
_MEMORY = ('peak_memory_mb', 'memory/peak_mb')  # tags or metrics

Profile = collections.namedtuple('Profile', 'step wall busy ops parts')
Profile.__doc__ = """Where the time of one step went.

Attributes:
  step: int.
  wall: float, milliseconds from the first op to the last.
  busy: float, milliseconds of all ops, which run at once on several threads.
  ops: OrderedDict of a kind of op to milliseconds, most first.
  parts: the same by the first part of an op's name, such as 'level_0'.
"""


def rate(run):
  """The median of steps per second over training; None without any."""
  points = run.training.get(_RATE)
  return float(np.median([point.value for point in points])) if points else None


def wall(run):
  """Seconds between the first event and the last; None without any.

  The evaluations of training are in it, and pauses of a run that was started
  again too.
  """
  times = [point.time for scalars in (run.training, run.evaluated)
           for points in scalars.values() for point in points]
  return max(times) - min(times) if times else None


def memory(run):
  """The largest peak of memory in MB that a run has noted; None without."""
  values = [point.value for tag in _MEMORY
            for point in run.training.get(tag, ())]
  values += [run.metrics[name] for name in _MEMORY if name in run.metrics]
  return max(values) if values else None


def section(facts):
  """The section of time and memory.

  Args:
    facts: facts.Facts.
  """
  rows, data = [], []
  for run in facts.runs:
    speed, seconds, peak = rate(run), wall(run), memory(run)
    batch = _batch_size(run)
    rows.append([
        run.name, document.general(speed),
        document.general(speed * batch if speed and batch else None),
        '–' if seconds is None else duration(seconds),
        document.general(peak), _size(run.path)])
    points = run.training.get(_RATE, ())
    data += charts.points({
        'name': [run.name] * len(points), 'step': [of.step for of in points],
        'value': [of.value for of in points]})
  table = document.Table(
      'Time and memory', ['run', 'steps/s, median', 'examples/s',
                          'time of training', 'peak memory, MB',
                          'newest checkpoint'], rows,
      'The time is that between the first and the last event, evaluations '
      'included.%s Runs that shared a machine with others are slower for it.'
      % ('' if any(memory(run) for run in facts.runs) else
         ' No run has noted its memory.'))
  figures = [document.Figure(
      'rate', 'Steps per second over training', 'As logged.', [charts.View(
          '', charts.lines(
              data, charts.axis('step', 'global step', zero=False),
              charts.axis('value', 'steps/s'),
              charts.by('name', overview.run_names(facts)),
              tips=charts.tooltip(name='run', step='step',
                                  value='steps/s')))], None,
      overview.run_names(facts))] if data else []
  return document.Section('Time and memory', [], [table], figures)


def _batch_size(run):
  """The rows of a batch by the config; None if it does not say."""
  if run.config is None:
    return None
  bindings = run.config.bindings
  for name in ('train/ParquetInput.batch_size', 'train/CsvInput.batch_size',
               'ParquetInput.batch_size', 'CsvInput.batch_size'):
    value = bindings.get(name, '')
    value = bindings.get(value[1:], '') if value.startswith('%') else value
    if value.isdigit():
      return int(value)
  return None


def duration(seconds):
  """Seconds as '1:23 min' or '1:02:03 h'."""
  minutes, seconds = divmod(int(round(seconds)), 60)
  hours, minutes = divmod(minutes, 60)
  return ('%d:%02d:%02d h' % (hours, minutes, seconds) if hours else
          '%d:%02d min' % (minutes, seconds))


def _size(path):
  """The size of the newest checkpoint of a folder."""
  stems = [name[:-len('.index')] for name in glob.glob(
      os.path.join(glob.escape(path), 'model.ckpt-*.index'))]
  if not stems:
    return '–'
  newest = max(stems, key=lambda stem: int(stem.rpartition('-')[2]))
  return '%.1f MB' % (sum(map(os.path.getsize, glob.glob(
      glob.escape(newest) + '.*'))) / 1e6)


def profile(model_dir):
  """Reads the newest timeline-<step>.json of a run.

  Args:
    model_dir: str.

  Returns:
    Profile, or None without one that can be read.
  """
  paths = [path for path in glob.glob(os.path.join(
      glob.escape(model_dir), 'timeline-*.json'))
           if re.search(r'-\d+\.json$', path)]
  if not paths:
    return None
  path = max(paths, key=_step)
  try:
    with open(path) as f:
      events = json.load(f)['traceEvents']
  except (OSError, ValueError, KeyError, TypeError):
    return None
  return of_events(_step(path), events)


def _step(path):
  return int(re.search(r'-(\d+)\.json$', path).group(1))


def of_events(step, events):
  """The Profile of the events of a trace.

  Args:
    step: int.
    events: list of dict, of Chrome's trace format; 'ts' and 'dur' are
      microseconds.
  """
  done = [event for event in events
          if event.get('ph') == 'X' and event.get('cat') == 'Op']
  if not done:
    return None
  ops, parts = collections.Counter(), collections.Counter()
  for event in done:
    ops[event['name']] += event['dur'] / 1e3
    name = event.get('args', {}).get('name', '')
    parts[_part(name)] += event['dur'] / 1e3
  return Profile(
      step, (max(event['ts'] + event['dur'] for event in done) -
             min(event['ts'] for event in done)) / 1e3,
      sum(ops.values()), collections.OrderedDict(ops.most_common()),
      collections.OrderedDict(parts.most_common()))


def _part(name):
  """The part of the model that an op is of, by its scopes."""
  scopes = [scope for scope in name.split('/')[:-1]]
  backward = scopes[:1] == ['gradients']
  scopes = scopes[1:] if backward else scopes
  part = re.sub('_grad$', '', scopes[0]) if scopes else '(no scope)'
  if not part.startswith('level_'):
    part = re.sub(r'_\d+$', '', part)  # of a name that was taken
  return part + (', backward' if backward else '')


def profile_figure(found, prefix):
  """A figure of a Profile, by kind of op and by part.

  Args:
    found: Profile.
    prefix: str, of the file's name.

  Returns:
    document.Figure.
  """
  views, rows = [], []
  for title, times in (('by kind of op', found.ops),
                       ('by scope of the model', found.parts)):
    names = list(times)[:_OPS]
    rest = sum(list(times.values())[_OPS:])
    shown = [(name, times[name]) for name in names] + (
        [('all others', rest)] if rest else [])
    views.append(charts.View(title, charts.bars(
        [{'of': name, 'value': charts.lean(value)} for name, value in shown],
        'milliseconds', [name for name, _ in shown])))
    rows += [[title, name, document.general(value),
              document.percent(value / found.busy)] for name, value in shown]
  return document.Figure(
      prefix + '-time', 'Where the time of step %d went' % found.step,
      'The step took %.1f ms from the first op to the last; its ops, which '
      'run on several threads at once, took %.1f ms together.' % (
          found.wall, found.busy), views, document.Table(
              'Time of ops', ['', 'op', 'ms', 'share'], rows))
