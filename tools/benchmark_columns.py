#!/usr/bin/env python3
r"""Compares what each kind of column costs in training.

  python tools/benchmark_columns.py --rounds 5

Makes rows that have the same values in many forms, and trains experiments that
differ only in the kind of their columns, in turn, `--rounds` times, each in a
process of its own: --columns columns with 1,000 different values, or as many
lists of 0 to 20 such values, each with vectors of 16 numbers. The network is
small (one level, experts of 64 and 32 units) and has no interactions, so that
the columns are what a step costs; --gin_file gin/base.gin takes another.

  steps/s   median
  ratio     of steps/s to those of the kind `hashed`, or of lists to those of
            `hashed_list`, in the same round: median (least to greatest)
  CPU ms    processor milliseconds per step, input included: median
  peak RSS  of the process, start-up included: median

Single kinds are named by --kinds. A `crossed` experiment has half as many
hashed columns and a cross for each; `attention`, `joint` and `table` of lists
have one hashed column more, which is the query, or shares the table.
`weights_column` reads as many further columns, and `map` the pairs of
`weighted` as maps.
"""

import argparse
import os
import statistics
import sys
import tempfile
import types

import benchmark
import numpy as np
import pyarrow as pa
import pyarrow.parquet

_VALUES = 1000
_ITEMS = 20
_WIDTH = 16
_SCALARS = ('hashed', 'integer', 'bucketised', 'vocabulary', 'crossed', 'table',
            'number', 'vector')
_LISTS = ('hashed_list', 'weighted', 'weights_column', 'map', 'aligned',
          'table of lists', 'attention', 'joint')
_SMALL = """
PLE:
  num_levels = 1
  num_task_experts = 1
  num_shared_experts = 1
  expert_units = (64, 32)
Tower.units = (32,)
Model.interactions = []
"""


def write_rows(path, rows, count, seed=0):
  """Writes the values of all kinds to a Parquet file.

  Args:
    path: str.
    rows: int.
    count: int, how many columns of each form.
    seed: int.
  """
  rng = np.random.RandomState(seed)
  columns = {'click': rng.randint(0, 2, rows),
             'query': [b'v%d' % v for v in rng.randint(0, _VALUES, rows)]}
  for i in range(count):
    ids = rng.randint(0, _VALUES, rows)
    columns['text%d' % i] = [b'v%d' % v for v in ids]
    columns['id%d' % i] = ids
    columns['real%d' % i] = (ids + 0.5).astype('float32')
    columns['reals%d' % i] = list(
        rng.standard_normal((rows, _WIDTH)).astype('float32'))
  # All lists of a row have one length, for the kind `aligned`.
  lengths = rng.randint(0, _ITEMS + 1, rows)
  for i in range(count):
    items = [rng.randint(0, _VALUES, length) for length in lengths]
    columns['list%d' % i] = [
        b'|'.join(b'v%d' % item for item in row) for row in items]
    weights = [rng.uniform(0.1, 1, length).round(2) for length in lengths]
    columns['weighted%d' % i] = [
        b'|'.join(b'v%d:%.2f' % pair for pair in zip(*of))
        for of in zip(items, weights)]
    columns['weights%d' % i] = pa.array(weights, pa.list_(pa.float32()))
    columns['map%d' % i] = pa.array(
        [[(b'v%d' % item, weight) for item, weight in zip(*of)]
         for of in zip(items, weights)], pa.map_(pa.binary(), pa.float32()))
  pa.parquet.write_table(pa.table(columns), path)


def columns_of(kind, count):
  """The columns of an experiment with one kind, a list of dict."""
  def each(form, **more):
    return [dict(name='%s%d' % (form, i), **more) for i in range(count)]

  hashed = {'kind': 'hashed', 'num_buckets': _VALUES}
  of_list = {'kind': 'hashed_list', 'num_buckets': _VALUES, 'separator': '|',
             'default': ''}
  query = [dict(hashed, name='query')]
  crossed = [{'name': 'cross%d' % i, 'kind': 'crossed', 'num_buckets': _VALUES,
              'columns': ('text%d' % i, 'text%d' % ((i + 1) % (count // 2)))}
             for i in range(count // 2)]
  return {
      'hashed': lambda: each('text', **hashed),
      'integer': lambda: each('id', kind='integer', num_buckets=_VALUES),
      'bucketised': lambda: each('real', kind='bucketised', boundaries=tuple(
          range(1, _VALUES))),
      'vocabulary': lambda: each('text', kind='vocabulary', values=tuple(
          'v%d' % v for v in range(_VALUES))),
      'crossed': lambda: each('text', **hashed)[:count // 2] + crossed,
      'table': lambda: each('text', table='all', **hashed),
      'number': lambda: each('real', kind='number', mean=500.0, std=300.0),
      'vector': lambda: each('reals', kind='vector', width=_WIDTH),
      'hashed_list': lambda: each('list', **of_list),
      'weighted': lambda: each('weighted', weights=':', **of_list),
      'map': lambda: each('map', weights=':', **of_list),
      'weights_column': lambda: [
          column for i, of in enumerate(each('list', **of_list)) for column in (
              dict(of, weights_column='weights%d' % i),
              {'name': 'weights%d' % i, 'kind': 'weight_list'})],
      'aligned': lambda: each('list', **dict(
          {name: of_list[name] for name in of_list if name != 'default'},
          aligned='all')),
      'table of lists': lambda: each('list', table='all', **of_list) + [
          dict(query[0], table='all')],
      'attention': lambda: each('list', **dict(
          of_list, combiner='attention', query='query')) + query,
      'joint': lambda: each('list', **dict(
          of_list, combiner='attention', query='query', aligned='all',
          joint=True)) + query,
  }[kind]()


def write_experiment(path, gin_file, kind, count):
  """Writes the .gin file of one kind.

  Args:
    path: str.
    gin_file: str, what it includes; None is base with a small network.
    kind: str.
    count: int, columns.
  """
  with open(path, 'w') as f:
    f.write('include %r\n' % os.path.abspath(gin_file or 'gin/base.gin'))
    f.write('' if gin_file else _SMALL)
    f.write("train/ParquetInput.files = 'rows.parquet'\n"
            "Model.tasks = [@click/Task()]\n"
            "click/Task:\n  name = 'click'\n  label = 'click'\n")
    if kind in ('attention', 'joint'):
      f.write('Model.attention = @Attention()\n')
    label = {'name': 'click', 'kind': 'label', 'values': (0, 1)}
    f.write('FeatureSpec.columns = %r\n' % (
        [label] + columns_of(kind, count),))


def row_of(kind, runs, base):
  """The line of the table of one kind.

  Args:
    kind: str.
    runs: list of dict, of benchmark.experiment, one per round.
    base: the same of the kind that it is compared with.
  """
  def median(name):
    return statistics.median(run[name] for run in runs)

  ratios = [run['steps_per_second'] / other['steps_per_second']
            for run, other in zip(runs, base)]
  return '| %s | %.0f | %.2f (%.2f to %.2f) | %.2f | %.0f MB |' % (
      kind, median('steps_per_second'), statistics.median(ratios), min(ratios),
      max(ratios), median('cpu_seconds_per_1000_steps'), median('peak_rss_mb'))


def main(arguments=None):
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  add('--kinds', nargs='+', choices=_SCALARS + _LISTS,
      default=list(_SCALARS + _LISTS), metavar='KIND', help='default all')
  add('--gin_file', help='the experiment whose network is taken')
  add('--columns', type=int, default=16)
  add('--rows', type=int, default=20000)
  add('--rounds', type=int, default=5)
  add('--steps', type=int, default=200, help='steps timed')
  args = parser.parse_args(arguments)
  if args.columns < 2 or min(args.rounds, args.rows, args.steps) < 1:
    parser.error('--columns must be at least 2, the other numbers at least 1')
  groups = [(base, [base] + [kind for kind in group[1:] if kind in args.kinds])
            for base, group in [('hashed', _SCALARS), ('hashed_list', _LISTS)]
            if set(group) & set(args.kinds)]
  with tempfile.TemporaryDirectory() as folder:
    write_rows(os.path.join(folder, 'rows.parquet'), args.rows, args.columns)
    options = types.SimpleNamespace(
        data=folder, batch_size=512, python=sys.executable, cpus=None,
        gin_bindings=['EPOCHS = 1000'])
    paths = {kind: os.path.join(folder, kind.replace(' ', '_') + '.gin')
             for _, kinds in groups for kind in kinds}
    for kind, path in paths.items():
      write_experiment(path, args.gin_file, kind, args.columns)
    found = {kind: [] for kind in paths}
    for _ in range(args.rounds):
      for kind, path in paths.items():
        found[kind].append(benchmark.experiment(options, path, args.steps))
  print('| kind | steps/s | ratio | CPU ms | peak RSS |\n|---|---|---|---|---|')
  for base, kinds in groups:
    for kind in kinds:
      print(row_of(kind, found[kind], found[base]))


if __name__ == '__main__':
  main()
