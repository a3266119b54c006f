"""What tools/study.py says of its runs: statistics, tables and the figure.

A gain is that of a network over the single-task network that was trained on the
same rows in the same order, in percent of the single-task network's metric. It
is positive where the network is better: where the metric has fallen, if it is
an error, or grown, if it is an AUC.
"""

import collections
import math

import numpy as np

from ple_estimator import colors

BEGIN, END = '<!-- study: begin -->', '<!-- study: end -->'
BASELINE = 'single-task'

# The 97.5 % quantiles of Student's t by degrees of freedom, 1 to 30; e.g.
# Abramowitz and Stegun, Handbook of Mathematical Functions, table 26.10.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
      2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
      2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


class StudyError(Exception):
  """What the user of tools/study.py can correct; a line that says how."""


class Estimate(collections.namedtuple('Estimate', 'mean low high')):
  """A mean over seeds with its 95 % interval.

  Attributes:
    mean: float.
    low: float, None for a single seed, which has no interval.
    high: likewise.
  """

  __slots__ = ()


def estimate(values):
  """The mean of values and its 95 % interval by Student's t.

  Args:
    values: list of float, one per seed. Of paired runs, the differences.

  Returns:
    Estimate. Beyond 31 values the quantile for 31 is used, which makes the
    interval at most 4 % too wide.
  """
  mean, count = float(np.mean(values)), len(values)
  if count < 2:
    return Estimate(mean, None, None)
  half = (_T[min(count - 1, len(_T)) - 1] * float(np.std(values, ddof=1))
          / math.sqrt(count))
  return Estimate(mean, mean - half, mean + half)


def gains(values, baseline, falls):
  """The gain of each seed in percent of the baseline.

  Args:
    values: [seeds] floats, the metric of a network.
    baseline: [seeds] floats, that of the single-task network by the same seeds.
    falls: bool, whether a smaller metric is better.

  Returns:
    [seeds] float64.
  """
  values, baseline = np.array(values), np.array(baseline)
  return 100 * (baseline - values if falls else values - baseline) / baseline


def summary(runs, tasks, falls):
  """Statistics of the runs that were tested.

  Args:
    runs: list of dict, as study.py writes them, of several networks on the same
      seeds at one or more correlations.
    tasks: names of the tasks.
    falls: bool, whether a smaller metric is better.

  Returns:
    list of dict, one per correlation and network, in the order of the runs:
    'correlation', 'network', 'width', 'parameters', 'learning_rate', 'at_edge',
    'seeds', 'ceiling', 'metric' and 'gain'. The last three map every task, and
    'mean' for the mean over tasks: 'ceiling' to what the true function of the
    features reaches, a mean over seeds; 'metric' to a dict of 'mean' and 'std';
    'gain' to one of 'mean', 'low' and 'high', the last two None for one seed.
    'gain' is None where the single-task network has not run on the same seeds.
  """
  by_row = collections.OrderedDict()
  for run in runs:
    by_row.setdefault((run['correlation'], run['network']), {})[
        run['seed']] = run
  rows = []
  for (correlation, network), by_seed in by_row.items():
    seeds = sorted(by_seed)
    own = [by_seed[seed] for seed in seeds]
    values = _values(own, tasks)
    row = {name: by_seed[seeds[0]][name] for name in (
        'correlation', 'network', 'width', 'parameters', 'learning_rate',
        'at_edge')}
    row['ceiling'] = {name: float(np.mean(of)) for name, of in _values(
        own, tasks, 'ceiling').items()}
    row.update(seeds=seeds, gain=None, metric={
        name: {'mean': float(np.mean(of)), 'std': float(
            np.std(of, ddof=1)) if len(of) > 1 else None}
        for name, of in values.items()})
    base = by_row.get((correlation, BASELINE), {})
    if sorted(base) == seeds:
      base = _values([base[seed] for seed in seeds], tasks)
      row['gain'] = _gain(values, base, tasks, falls)
    rows.append(row)
  return rows


def _values(runs, tasks, key='test'):
  """The metric of runs by task, and under 'mean' the mean over tasks."""
  values = collections.OrderedDict(
      (task, [run[key][task] for run in runs]) for task in tasks)
  values['mean'] = list(np.mean([values[task] for task in tasks], axis=0))
  return values


def _gain(values, base, tasks, falls):
  """See `summary`; a seed's gain 'mean' is the mean of its tasks' gains."""
  found = collections.OrderedDict(
      (task, gains(values[task], base[task], falls)) for task in tasks)
  found['mean'] = np.mean([found[task] for task in tasks], axis=0)
  return {name: dict(estimate(list(of))._asdict())
          for name, of in found.items()}


def tables(rows, tasks, metric):
  """A Markdown table per correlation.

  Args:
    rows: list of dict, see `summary`.
    tasks: names of the tasks.
    metric: str, the name of the metric, such as 'MSE'.

  Returns:
    str.
  """
  parts = []
  for correlation in collections.OrderedDict.fromkeys(
      row['correlation'] for row in rows):
    own = [row for row in rows if row['correlation'] == correlation]
    parts.append('Correlation %g, %d %s:\n' % (
        correlation, len(own[0]['seeds']),
        'seed' if len(own[0]['seeds']) == 1 else 'seeds'))
    columns = ['network', 'parameters', 'learning rate',
               'mean %s' % metric] + ['%s %s' % (metric, t) for t in tasks] + [
                   'gain, %'] + ['gain %s, %%' % t for t in tasks]
    parts.append('| %s |' % ' | '.join(columns))
    parts.append('|%s' % ('---|' * len(columns)))
    best = own[0]['ceiling']
    parts.append('| (ceiling) |  |  | %s |%s' % (' | '.join(
        '%.5f' % best[name] for name in ['mean'] + list(tasks)),
                                             '  |' * (len(tasks) + 1)))
    parts += [_row(row, tasks) for row in own]
    parts.append('')
  return '\n'.join(parts)


def _row(row, tasks):
  cells = [row['network'], '%d' % row['parameters'], '%g%s' % (
      row['learning_rate'], ' (edge)' if row['at_edge'] else '')]
  for name in ['mean'] + list(tasks):
    of = row['metric'][name]
    cells.append('%.5f' % of['mean'] + (
        '' if of['std'] is None else ' ± %.5f' % of['std']))
  for name in ['mean'] + list(tasks):
    of = row['gain'] and row['gain'][name]
    if row['network'] == BASELINE or not of:
      cells.append('')
    else:
      cells.append('%.1f' % of['mean'] + ('' if of['low'] is None else (
          ' (%.1f to %.1f)' % (of['low'], of['high']))))
  return '| %s |' % ' | '.join(cells)


def into_readme(path, text):
  """Puts text between the two marks of a Markdown file, BEGIN and END.

  Args:
    path: str.
    text: str.

  Raises:
    StudyError: if the file lacks a mark.
  """
  with open(path, encoding='utf-8') as f:
    before, begin, rest = f.read().partition(BEGIN)
  _, end, after = rest.partition(END)
  if not (begin and end):
    raise StudyError('%s must have a line %s and after it a line %s.' % (
        path, BEGIN, END))
  with open(path, 'w', encoding='utf-8') as f:
    f.write('%s%s\n%s\n%s%s' % (before, BEGIN, text.rstrip('\n'), END, after))


def draw(rows, tasks, path):
  """Draws the gain of each task over single-task, with intervals.

  A panel per task and a point per network and correlation; see `summary` for
  the rows.

  Args:
    rows: list of dict.
    tasks: names of the tasks.
    path: str, ending in .svg or .png.
  """
  from matplotlib import pyplot

  pyplot.rcParams['svg.hashsalt'] = 'study'  # the same figure, the same file
  palette = colors.PALETTES['light']
  names = [name for name in collections.OrderedDict.fromkeys(
      row['network'] for row in rows) if name != BASELINE]
  correlations = sorted({row['correlation'] for row in rows})
  figure, axes = pyplot.subplots(
      1, len(tasks) + 1, sharey=True, figsize=(4 * (len(tasks) + 1), 3.8),
      squeeze=False)
  for axis, task in zip(axes[0], ['mean'] + list(tasks)):
    axis.axhline(0, color='0.4', linewidth=1)
    for i, name in enumerate(names):
      own = [row for row in rows if row['network'] == name and row['gain']]
      shift = (i - (len(names) - 1) / 2.0) * 0.8 / max(1, len(names))
      x = [correlations.index(row['correlation']) + shift for row in own]
      of = [row['gain'][task] for row in own]
      low = [0 if g['low'] is None else g['mean'] - g['low'] for g in of]
      high = [0 if g['high'] is None else g['high'] - g['mean'] for g in of]
      axis.errorbar(x, [g['mean'] for g in of], yerr=[low, high], label=name,
                    fmt='osD^v'[i % 5], markersize=5, capsize=3,
                    color=palette[i % len(palette)])
    axis.set_xticks(range(len(correlations)))
    axis.set_xticklabels(['%g' % c for c in correlations])
    axis.set_xlabel('correlation of the tasks')
    axis.set_title('mean of both tasks' if task == 'mean' and len(tasks) == 2
                   else 'mean of the tasks' if task == 'mean' else task)
    axis.grid(axis='y', color='0.9')
    axis.set_axisbelow(True)
  axes[0][0].set_ylabel('gain over %s, %%' % BASELINE)
  figure.legend(*axes[0][0].get_legend_handles_labels(), loc='lower center',
                ncol=len(names), frameon=False)
  figure.tight_layout(rect=(0, 0.08, 1, 1))
  figure.savefig(path, dpi=110, metadata=(
      {'Date': None} if path.endswith('.svg') else None))
  pyplot.close(figure)
