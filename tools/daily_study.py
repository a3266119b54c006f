r"""Compares three ways to keep a model up to date, on days that drift.

  python tools/daily_study.py --out result/days --days 14

generates days of rows (make_data.World, whose effects change from day to day
and whose ads are replaced by new ones), and trains on them, one pass each:

  from scratch     every day a new model on all days up to it
  carried on       one model, by --mode=daily
  with eviction    the same, which frees the rows of ads that no step has
                   trained for --live days

Every model has a row per value (gin/ev.gin). Its AUC is that of the rows of the
next day, before it is trained on them; the ceiling is that of the probabilities
that the labels were drawn with. Writes days.json and prints a Markdown table.
What is there of a broken-off run is used: days.json has its options.
"""

import argparse
import json
import os
import sys

from absl import logging
import make_data
import numpy as np

import ple_estimator as ple
from ple_estimator.commands import inspect_embeddings

_DATE = 'dt=2024-05-%02d'
_BATCH = 256
_BINDINGS = [
    'BATCH_SIZE = %d' % _BATCH, 'PLE.num_levels = 2',
    'PLE.expert_units = (64, 32)', 'Tower.units = (32,)',
    'EmbeddingVariable.capacity = 200_000', 'Averaging.decay = 0.9',
    'run_config.save_steps = 1_000_000', 'run_config.keep_checkpoint_max = 1']
_WAYS = ('from scratch', 'carried on', 'with eviction')


def make_days(out, args):
  """Writes the rows of all days; returns the ceiling of each, mean AUC."""
  world = make_data.World(args.seed, args.users, args.ads)
  rng = np.random.RandomState([args.seed, 99])
  ceilings = []
  for day in range(args.days):
    if day:
      world.drift(rng, args.kept, args.new_ads)
    folder = os.path.join(out, _DATE % (day + 1))
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, 'part-0')
    truth = make_data.write(world, rng, args.rows, path)
    os.remove(path)  # the same rows as CSV
    ceilings.append(np.mean([
        make_data.auc(of.p, of.label) for of in truth.values()]))
  return ceilings


def load(args, gin_files, model_dir, *bindings):
  """Returns the Run of one model."""
  return ple.load(*gin_files, bindings=_BINDINGS + [
      'DATA_DIR = %r' % os.path.join(args.out, 'rows'),
      'Experiment.model_dir = %r' % model_dir] + list(bindings))


def from_scratch(args):
  """The mean AUC of a new model for each day but the first; its rows."""
  found, model_dir = [], None
  for day in range(1, args.days):
    model_dir = os.path.join(args.out, 'scratch', str(day))
    run = load(
        args, ['gin/ev.gin'], model_dir, 'EPOCHS = 1',
        'train/ParquetInput.files = %r' % [
            _DATE % (i + 1) for i in range(day)],
        'eval/ParquetInput.files = %r' % (_DATE % (day + 1)),
        'Experiment.early_stopping = None', 'Experiment.exports = None')
    run.train()
    found.append(mean_auc(run.evaluate()))
  return found, count_rows(model_dir)


def carried_on(args, name, *bindings):
  """The mean AUC of one model for each day but the first; its rows."""
  model_dir = os.path.join(args.out, name)
  days = load(
      args, ['gin/ev.gin', 'gin/daily.gin'], model_dir,
      "train/ParquetInput.files = 'dt=*'", 'Experiment.eval_input = None',
      'Daily.export = False', *bindings).daily()
  return [mean_auc(day['before']) for day in days[1:]], count_rows(model_dir)


def mean_auc(metrics):
  """The mean of the AUC of both tasks."""
  return (metrics['ctr/auc'] + metrics['cvr/auc']) / 2


def count_rows(model_dir):
  """How many rows the keyed tables of a checkpoint have."""
  return sum(of['rows'] for of in inspect_embeddings.tables(
      inspect_embeddings.find(model_dir)))


def table(found):
  """The lines of the Markdown table."""
  yield '| day | ceiling | %s |' % ' | '.join(_WAYS)
  yield '|---|---|---|---|---|'
  rows = list(zip(found['ceiling'][1:], *[found[way] for way in _WAYS]))
  for day, row in enumerate(rows):
    yield '| %d | %s |' % (day + 2, ' | '.join('%.4f' % x for x in row))
  yield '| mean | %s |' % ' | '.join('%.4f' % x for x in np.mean(rows, axis=0))
  yield '| rows of tables | | %s |' % ' | '.join(
      '{:,}'.format(found['rows'][way]) for way in _WAYS)


def parse_args(arguments):
  """The arguments of the command line, checked."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--out', default='result/days', help='folder to write to')
  parser.add_argument('--days', type=int, default=14, help='2 to 31')
  parser.add_argument('--rows', type=int, default=10000, help='of a day')
  parser.add_argument('--users', type=int, default=2000)
  parser.add_argument('--ads', type=int, default=2000)
  parser.add_argument('--kept', type=float, default=0.9,
                      help='correlation, 0 to 1, of the effects of a value on '
                      'a day and the next')
  parser.add_argument('--new_ads', type=float, default=0.1,
                      help='share of the ads that a day replaces, 0 to 1')
  parser.add_argument('--live', type=int, default=3,
                      help='days without training after which a row is freed')
  parser.add_argument('--seed', type=int, default=2021)
  args = parser.parse_args(arguments)
  if not 2 <= args.days <= 31:
    parser.error('--days must be from 2 to 31')
  for name in ('kept', 'new_ads'):
    if not 0 <= getattr(args, name) <= 1:
      parser.error('--%s must be from 0 to 1' % name)
  for name in ('rows', 'users', 'ads', 'live'):
    if getattr(args, name) < 1:
      parser.error('--%s must be at least 1' % name)
  return args


def main(arguments=None):
  """Generates, trains and prints; returns the exit status."""
  args = parse_args(arguments)
  logging.set_verbosity(logging.ERROR)
  os.makedirs(args.out, exist_ok=True)
  path, options = os.path.join(args.out, 'days.json'), vars(args)
  found = {'options': options, 'rows': {}}
  if os.path.exists(path):
    with open(path) as f:
      found = json.load(f)
    if found['options'] != options:
      sys.stderr.write('daily_study: %s is of other options; choose another '
                       '--out.\n' % path)
      return 1

  def save():
    with open(path + '.partial', 'w') as f:
      json.dump(found, f, indent=1, sort_keys=True)
    os.replace(path + '.partial', path)

  if 'ceiling' not in found:
    found['ceiling'] = make_days(os.path.join(args.out, 'rows'), args)
    save()
  steps = -(-args.rows // _BATCH)
  evicts = ['EmbeddingVariable.eviction = @GlobalStepEviction()',
            'GlobalStepEviction.steps_to_live = %d' % (args.live * steps)]
  for way, train in [
      ('carried on', lambda: carried_on(args, 'carried')),
      ('with eviction', lambda: carried_on(args, 'evicting', *evicts)),
      ('from scratch', lambda: from_scratch(args))]:
    if way not in found:
      found[way], found['rows'][way] = train()
      save()
  print('\n'.join(table(found)))
  return 0


if __name__ == '__main__':
  sys.exit(main())
