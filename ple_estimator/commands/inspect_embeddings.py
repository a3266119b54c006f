r"""Shows what the embedding variables of a checkpoint hold.

  ple-estimator inspect-embeddings result/ev --picture embeddings.svg

CHECKPOINT is a model_dir, whose newest state is taken, incremental checkpoints
included, or the path of one checkpoint (model.ckpt-1000). Prints a row per
table as Markdown, then two histograms of each: of the frequencies of its keys,
by which a filter can be chosen, and of half the squared norm of its rows,
0.5 |v|^2, which L2Eviction compares with its threshold.

  keys      values with a row, and values that wait at a CounterFilter
  MB        of rows, slots, counters and of the hash table's entries, once in
            memory; a CbfFilter's counters beside
"""

import argparse
import os
import sys

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import files
from ple_estimator.embeddings import table_parts
from ple_estimator.training import checkpoints
from ple_estimator.training import incremental

_ENTRY_BYTES = 48  # of a MutableHashTable, measured with 10 million keys
_BAR = 40  # characters
_NORM_BINS = 12


def find(checkpoint):
  """Returns the path of the checkpoint that the user named."""
  if os.path.isdir(checkpoint):
    path = checkpoints.whole(files.without_pattern(checkpoint))
    path = path and incremental.merged(path)
  else:
    path = os.path.join(files.without_pattern(os.path.dirname(checkpoint)),
                        os.path.basename(checkpoint))
    if os.path.exists(path + '.index'):
      checkpoints.check(path)
  if not path or not os.path.exists(path + '.index'):
    raise ValueError('no checkpoint at %s' % checkpoint)
  return path


def tables(path):
  """Yields the figures of each table of a checkpoint, as dicts."""
  reader = tf.train.load_checkpoint(path)
  wholes = table_parts.joined(reader.get_variable_to_shape_map())
  read = lambda name: table_parts.read(reader, wholes[name])
  for name in sorted(wholes):
    if not name.endswith('-keys'):
      continue
    table = name[:-len('-keys')]
    get = lambda suffix, table=table: read(table + suffix)
    values, freqs = get('-values'), get('-freqs')
    own = [n for n in wholes if n.startswith(table) and
           n[len(table)] in '-/' and not n.endswith('_filtered')]
    waiting = get('-freqs_filtered')
    counters = os.path.dirname(table) + '/counters'
    yield {
        'name': table, 'rows': len(values), 'dim': values.shape[1],
        'waiting': len(waiting),
        'bytes': sum(read(n).nbytes for n in own) +
                 _ENTRY_BYTES * (len(values) + len(waiting)),
        'counter_bytes': read(counters).nbytes if counters in wholes else 0,
        'frequencies': by_power(np.concatenate([freqs, waiting])),
        'norms': by_norm(0.5 * np.sum(values.astype('d') ** 2, axis=1))}


def by_power(frequencies):
  """Histogram over 1, 2-3, 4-7, ...: list of (label, count)."""
  if not len(frequencies):
    return []
  power = np.floor(np.log2(np.maximum(frequencies, 1))).astype(int)
  return [('%d' % 2**p if p == 0 else '%d-%d' % (2**p, 2**(p + 1) - 1), int(n))
          for p, n in enumerate(np.bincount(power))]


def by_norm(halves):
  """Histogram over equal steps up to the largest: list of (label, count)."""
  if not len(halves):
    return []
  counts, edges = np.histogram(
      halves, _NORM_BINS, (0, max(float(halves.max()), 1e-9)))
  return [('%.3g-%.3g' % (low, high), int(n))
          for low, high, n in zip(edges, edges[1:], counts)]


def table_lines(shown):
  """Yields the lines of the Markdown table."""
  yield '| table | dim | keys with a row | keys waiting | MB | filter MB |'
  yield '|---|---|---|---|---|---|'
  for t in shown:
    yield '| %s | %d | %d | %d | %.1f | %.1f |' % (
        t['name'], t['dim'], t['rows'], t['waiting'], t['bytes'] / 1e6,
        t['counter_bytes'] / 1e6)


def bars(title, histogram):
  """Yields the lines of a histogram as text."""
  yield title
  most = max([n for _, n in histogram] or [1])
  for label, n in histogram:
    yield '  %15s %9d %s' % (label, n, '#' * int(round(_BAR * n / most)))


def picture(shown):
  """The histograms of all tables as the text of an SVG."""
  line, width, margin = 18, 900, 40
  parts, y = [], margin
  text = '<text x="%d" y="%d" text-anchor="%s">%s</text>'
  for t in shown:
    parts.append(text % (
        20, y, 'start', '%s: %d keys with a row, %d waiting' % (
            t['name'], t['rows'], t['waiting'])))
    top = y + line
    for x, title, histogram in [(20, 'frequency of keys', t['frequencies']),
                                (460, '0.5 |v|² of rows', t['norms'])]:
      parts.append(text % (x, top + line, 'start', title))
      most = max([n for _, n in histogram] or [1])
      for i, (label, n) in enumerate(histogram):
        at = top + line * (i + 2)
        parts.append(text % (x + 120, at, 'end', label))
        parts.append('<rect x="%d" y="%d" width="%.1f" height="%d"/>' % (
            x + 130, at - 11, max(1.0, 200.0 * n / most) if n else 0, 12))
        parts.append(text % (x + 410, at, 'end', n))
    y = top + line * (
        4 + max(len(t['frequencies']), len(t['norms']))) + margin // 2
  return (
      '<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" '
      'font-family="sans-serif" font-size="12" fill="#222">'
      '<rect width="100%%" height="100%%" fill="#fff"/>'
      '<style>rect[x] { fill: #4878a8 }</style>'
      '%s</svg>\n' % (width, y, ''.join(parts)))


def main(arguments=None):
  """Prints the tables of a checkpoint; returns the exit status.

  Args:
    arguments: list of str; None takes those of the process.
  """
  parser = argparse.ArgumentParser(
      prog='ple-estimator inspect-embeddings', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('checkpoint', help='a model_dir, or one checkpoint')
  parser.add_argument('--picture', help='an .svg file to write')
  args = parser.parse_args(arguments)
  try:
    shown = list(tables(find(args.checkpoint)))
    if not shown:
      raise ValueError('%s has no embedding variables; it is not of ev.gin or '
                       'the like' % args.checkpoint)
    print('\n'.join(table_lines(shown)))
    for t in shown:
      print()
      for title, key in [('frequency of keys', 'frequencies'),
                         ('0.5 |v|^2 of rows', 'norms')]:
        print('\n'.join(bars('%s, %s' % (t['name'], title), t[key])))
    if args.picture:
      with open(args.picture, 'w', encoding='utf-8') as f:
        f.write(picture(shown))
  except (OSError, ValueError, tf.errors.OpError) as error:
    sys.stderr.write('ple-estimator inspect-embeddings: %s\n' % error)
    return 1
  return 0

