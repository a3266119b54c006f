#!/usr/bin/env python3
r"""Makes rows that multi-task networks are compared on, with known noise.

  python tools/make_mtl_data.py regression --out data/regression
  ple-estimator --gin_file=data/regression/regression.gin
  python tools/make_mtl_data.py matching --out data/matching
  ple-estimator --gin_file=data/matching/matching.gin

Each writes train.parquet, validation.parquet and test.parquet (with --csv also
CSV without a header), ceiling.json with what the true functions reach on the
test rows and under "validation" on the others, and a .gin file: it includes
gin/mtl_regression.gin or gin/matching.gin and binds DATA_DIR and the sizes that
were asked for.

regression: two regressions on numbers alone, the synthetic data of Ma et al.,
"Modeling Task Relationships in Multi-task Learning with Multi-gate
Mixture-of-Experts", KDD 2018, section 3.2, which Tang et al. (PLE, RecSys 2020)
reuse:

  w1 = c u1,   w2 = c (p u1 + sqrt(1 - p^2) u2)
  y_k = w_k . x + sum over i of sin(alpha_i w_k . x + beta_i) + noise

with orthogonal unit vectors u1 and u2, x ~ N(0, I) of 100 numbers, and p, here
--correlation, the cosine of the two weight vectors. The paper gives neither c
nor alpha_i, beta_i and their number m. Here c is --scale, 1; m is --waves, 5;
alpha_i and beta_i are drawn from N(0, 1) with the seed. The paper's noise is
N(0, 0.01), of which the second number is taken for the variance, as it is
usually written: --noise, the standard deviation, is 0.1. So no model reaches an
RMSE below 0.1, an MSE below 0.01. ceiling.json has the Pearson correlation of
the labels, which is less than p: the sines are not linear.

matching: a user answers an item in three ways, click and like (0 or 1) and
rating (a number). Each answer is made of a product of hidden vectors of --rank
numbers:

  score_k = sqrt(0.9) product of u_k and v + sqrt(0.1) first order
  P(click) = sigmoid(1.6 score_1 + a),   P(like) = sigmoid(1.6 score_2 + b),
  rating = 3 + score_3 + noise of standard deviation 0.5

Product and first order have mean 0 and variance 1 over the rows. An item has
one vector v, a user one vector u_k for each answer, and the numbers of u_k and
u_l have the correlation --correlation. First order is the sum of an effect of
the user, of the item, of the age band and of the category; the effects on two
answers have the same correlation, and so the scores have it too. Users and
items come with heavy tails (the k-th of them in proportion to k^-0.6 and
k^-0.7). 30 % of the rows are clicks, 20 % likes. A model that has only effects
of single values explains about a tenth of the variance of the scores; the rest
is in products of the two ids.
"""

import argparse
import collections
import json
import os
import sys

import make_data
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

PARTS = ('train', 'validation', 'test')  # stream k of numbers is part k
_WORLD_STREAM = 9
CHUNK_ROWS = 50000


class Rows(collections.namedtuple('Rows', 'columns expected')):
  """Some rows.

  Attributes:
    columns: OrderedDict of name to [rows] array, labels included.
    expected: OrderedDict of label to [rows] float64: the probability that the
      label is 1, or the number that it is without noise.
  """

  __slots__ = ()


class Regression:
  """Two functions of the same numbers (Ma et al., KDD 2018, section 3.2).

  Attributes:
    weights: [2, dim] float64, w1 and w2.
    alpha: [waves] float64.
    beta: [waves] float64.
  """

  labels = ('y1', 'y2')
  binary = ()

  def __init__(self, args):
    """Draws the functions.

    Args:
      args: seed, dim, correlation, scale, waves, noise.
    """
    rng = np.random.RandomState([args.seed, _WORLD_STREAM])
    u = np.linalg.qr(rng.normal(0, 1, (args.dim, 2)))[0].T
    p = args.correlation
    self.weights = args.scale * np.array(
        [u[0], p * u[0] + np.sqrt(1 - p**2) * u[1]])
    self.alpha = rng.normal(0, 1, args.waves)
    self.beta = rng.normal(0, 1, args.waves)
    self._noise = args.noise

  def rows(self, rng, count):
    """Draws `count` rows; returns Rows of float32 columns y1, y2, x0, x1..."""
    x = rng.normal(0, 1, (count, self.weights.shape[1])).astype(np.float32)
    noise = rng.normal(0, self._noise, (2, count))
    expected = collections.OrderedDict(zip(self.labels, self.values(x)))
    columns = collections.OrderedDict(
        (label, (expected[label] + noise[k]).astype(np.float32))
        for k, label in enumerate(self.labels))
    columns.update(('x%d' % i, x[:, i]) for i in range(x.shape[1]))
    return Rows(columns, expected)

  def values(self, x):
    """The two labels of [rows, dim] numbers without noise, [2, rows]."""
    z = self.weights.dot(x.T.astype(np.float64))
    return z + np.sin(
        z[:, :, np.newaxis] * self.alpha + self.beta).sum(axis=2)

  def gin(self):
    """What the .gin file beside the data binds besides DATA_DIR."""
    names = ['y1', 'y2'] + ['x%d' % i for i in range(self.weights.shape[1])]
    return ['FeatureSpec.columns = [\n%s]' % ''.join(
        "    {'name': '%s', 'kind': '%s'},\n" % (
            name, 'label' if name in self.labels else 'number')
        for name in names)]


class Matching:
  """Answers of users to items, made of products of hidden vectors."""

  labels = ('click', 'like', 'rating')
  binary = ('click', 'like')
  _rates = {'click': 0.3, 'like': 0.2}
  _spread, _noise, _mean = 1.6, 0.5, 3.0
  _first_order = 0.1  # share of the variance of a score
  _ages, _categories = 8, 30

  def __init__(self, args):
    """Draws the users and the items.

    Args:
      args: seed, users, items, rank, correlation.
    """
    rng = np.random.RandomState([args.seed, _WORLD_STREAM])
    tasks = len(self.labels)
    self._sizes = {'user_id': args.users, 'item_id': args.items}
    alike = np.full((tasks, tasks), float(args.correlation))
    np.fill_diagonal(alike, 1)
    values, vectors = np.linalg.eigh(alike)
    mix = vectors * np.sqrt(np.maximum(0, values))  # mix mix^T = alike
    self._user = np.einsum('kl,lur->kur', mix, rng.normal(
        0, 1, (tasks, args.users, args.rank)))
    self._item = rng.normal(0, 1, (args.items, args.rank))
    self._age = rng.randint(0, self._ages, args.users)
    self._category = make_data.zipf(rng, args.items, self._categories, 0.5)
    self._effects = {
        name: mix.dot(rng.normal(0, 1, (tasks, size))) for name, size in [
            ('user_id', args.users), ('item_id', args.items),
            ('age_band', self._ages), ('category', self._categories)]}
    some = self._draw(np.random.RandomState([args.seed, _WORLD_STREAM + 1]),
                      CHUNK_ROWS)
    self._moments = [(part.mean(axis=1, keepdims=True),
                      part.std(axis=1, keepdims=True))
                     for part in self._parts(some)]
    score = self._scores(some)
    self._bias = {}
    for k, label in enumerate(self.labels):
      if label in self.binary:
        self._bias[label] = make_data.bias(
            self._spread * score[k], np.ones(CHUNK_ROWS), self._rates[label])

  def _draw(self, rng, count):
    """The features of rows, an OrderedDict of [count] int64."""
    user = make_data.zipf(rng, count, self._sizes['user_id'], 0.6)
    item = make_data.zipf(rng, count, self._sizes['item_id'], 0.7)
    return collections.OrderedDict([
        ('user_id', user), ('item_id', item),
        ('age_band', self._age[user]), ('category', self._category[item])])

  def _parts(self, features):
    """Products and first-order effects of rows, two [tasks, rows]."""
    product = (self._user[:, features['user_id']]
               * self._item[features['item_id']]).sum(axis=2)
    return product, sum(self._effects[name][:, values]
                        for name, values in features.items())

  def _scores(self, features):
    """[tasks, rows] float64, each row of the array of variance 1."""
    product, first_order = [
        (part - mean) / std for part, (mean, std) in zip(
            self._parts(features), self._moments)]
    return (np.sqrt(1 - self._first_order) * product
            + np.sqrt(self._first_order) * first_order)

  def rows(self, rng, count):
    """Draws `count` rows; returns Rows: the labels, then the features."""
    features = self._draw(rng, count)
    columns, expected = collections.OrderedDict(), collections.OrderedDict()
    for label, score in zip(self.labels, self._scores(features)):
      if label in self.binary:
        expected[label] = 1 / (1 + np.exp(
            -self._spread * score - self._bias[label]))
        columns[label] = (rng.random_sample(count) < expected[label]).astype(
            np.int64)
      else:
        expected[label] = self._mean + score
        columns[label] = (expected[label] + rng.normal(
            0, self._noise, count)).astype(np.float32)
    columns.update(features)
    return Rows(columns, expected)

  def gin(self):
    """What the .gin file beside the data binds besides DATA_DIR."""
    return ["FeatureSpec.overrides = {\n%s}" % ''.join(
        "    '%s': {'num_buckets': %d},\n" % item
        for item in sorted(self._sizes.items()))]


def write(world, rng, rows, path, csv):
  """Writes rows as path.parquet, and as path.csv if asked for.

  Args:
    world: Regression or Matching.
    rng: np.random.RandomState.
    rows: int, how many.
    path: str, without ending.
    csv: bool.

  Returns:
    {label: (expected, labels)}, [rows] arrays; see Rows.
  """
  truth = {label: ([], []) for label in world.labels}
  paths = [path + '.parquet'] + ([path + '.csv'] if csv else [])
  writers = []
  for start in range(0, rows, CHUNK_ROWS):
    found = world.rows(rng, min(CHUNK_ROWS, rows - start))
    table = pa.Table.from_arrays(
        [pa.array(values) for values in found.columns.values()],
        list(found.columns))
    if not writers:
      writers.append(make_data.parquet_writer(
          paths[0] + '.partial', table.schema))
      if csv:
        writers.append(pa.csv.CSVWriter(
            paths[1] + '.partial', table.schema,
            write_options=pa.csv.WriteOptions(
                include_header=False, quoting_style='none')))
    for writer in writers:
      writer.write_table(table)
    for label in world.labels:
      truth[label][0].append(found.expected[label])
      truth[label][1].append(found.columns[label])
  for name, writer in zip(paths, writers):
    writer.close()
    os.replace(name + '.partial', name)
  return {label: tuple(map(np.concatenate, parts))
          for label, parts in truth.items()}


def ceiling(world, truth):
  """What the expected labels reach, by label.

  Args:
    world: Regression or Matching.
    truth: as `write` returns it.

  Returns:
    {label: dict}: auc, log_loss and positives, or rmse and mse;
    label_correlation and expected_correlation, {other label: Pearson
    correlation} of the labels, and of what is expected of them (of a binary
    label its logit).
  """
  found, signal = {}, {}
  for name, (expected, label) in truth.items():
    binary = name in world.binary
    signal[name] = (np.log(expected) - np.log1p(-expected) if binary
                    else expected)
    if binary:
      found[name] = make_data.binary_ceiling(expected, label)
    else:
      mse = float(np.mean((label - expected)**2))
      found[name] = {'rmse': mse**0.5, 'mse': mse}
  for name in truth:
    others = [other for other in truth if other != name]
    found[name]['label_correlation'] = {
        other: make_data.correlation(truth[name][1], truth[other][1])
        for other in others}
    found[name]['expected_correlation'] = {
        other: make_data.correlation(signal[name], signal[other])
        for other in others}
  return found


def parse_args(arguments):
  """The arguments of the command line, checked."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  kinds = parser.add_subparsers(dest='kind', metavar='KIND')
  for kind, train, others, correlation in [
      ('regression', 20000, 10000, 0.5), ('matching', 100000, 20000, 0.8)]:
    one = kinds.add_parser(kind)
    one.add_argument('--out', default='data/' + kind, help='folder to write to')
    one.add_argument('--train', type=int, default=train, help='rows')
    one.add_argument('--validation', type=int, default=others, help='rows')
    one.add_argument('--test', type=int, default=others, help='rows')
    one.add_argument('--seed', type=int, default=2021,
                     help='the same seed makes the same rows')
    one.add_argument('--correlation', type=float, default=correlation,
                     help='of the tasks, see above; default: %s' % correlation)
    one.add_argument('--csv', action='store_true', help='write CSV files too')
    one.add_argument('--force', action='store_true',
                     help='overwrite data that is there')
    if kind == 'regression':
      one.add_argument('--dim', type=int, default=100, help='numbers of a row')
      one.add_argument('--scale', type=float, default=1.0, help='c')
      one.add_argument('--waves', type=int, default=5, help='m')
      one.add_argument('--noise', type=float, default=0.1,
                       help='standard deviation')
    else:
      one.add_argument('--users', type=int, default=2000, help='different ones')
      one.add_argument('--items', type=int, default=1500, help='different ones')
      one.add_argument('--rank', type=int, default=4,
                       help='numbers of a hidden vector')
  args = parser.parse_args(arguments)
  if not args.kind:
    parser.error('a kind must be given: regression or matching')
  _check(args, kinds.choices[args.kind])
  return args


def _check(args, parser):
  """Ends with a line about an option that is out of range."""
  counts = {'regression': ['dim'], 'matching': ['users', 'items', 'rank']}
  for name in ['train', 'validation', 'test'] + counts[args.kind]:
    least = 2 if name == 'dim' else 1
    if getattr(args, name) < least:
      parser.error('--%s must be at least %d' % (name, least))
  # Of three numbers that correlate pairwise alike, -0.5 is the least.
  least = -1 if args.kind == 'regression' else -0.5
  if not least <= args.correlation <= 1:
    parser.error('--correlation must be from %g to 1' % least)
  if args.kind == 'regression' and (
      args.waves < 0 or not 0 < args.scale < 1e6 or not 0 <= args.noise < 1e6):
    parser.error('--waves and --noise must be at least 0, --scale above 0')
  present = [name for name in sorted(os.listdir(args.out))
             if name.endswith(('.parquet', '.csv'))
             ] if os.path.isdir(args.out) else []
  if present and not args.force:
    parser.error('%s has %s already; --force overwrites them' % (
        args.out, ', '.join(present)))


def main(arguments=None):
  """Makes the files; returns the exit status.

  Args:
    arguments: list of str; None takes those of the process.
  """
  args = parse_args(arguments)
  os.makedirs(args.out, exist_ok=True)
  world = {'regression': Regression, 'matching': Matching}[args.kind](args)
  found = {}
  for stream, part in enumerate(PARTS):
    path, rows = os.path.join(args.out, part), getattr(args, part)
    truth = write(world, np.random.RandomState([args.seed, stream]), rows, path,
                  args.csv)
    found[part] = ceiling(world, truth)
    print('%s.parquet: %d rows' % (path, rows))
  best = found['test']
  for label in world.labels:
    best[label]['validation'] = found['validation'][label]
  path = os.path.join(args.out, 'ceiling.json')
  with open(path, 'w') as f:
    json.dump(best, f, indent=2, sort_keys=True)
    f.write('\n')
  print('%s: %s' % (path, json.dumps(best, sort_keys=True)))
  base = {'regression': 'mtl_regression', 'matching': 'matching'}[args.kind]
  path = os.path.join(args.out, args.kind + '.gin')
  with open(path, 'w') as f:
    f.write('\n'.join([
        '# The rows of tools/make_mtl_data.py in this folder.',
        "include 'gin/%s.gin'" % base, '',
        'DATA_DIR = %r' % args.out] + world.gin()) + '\n')
  print('ple-estimator --gin_file=' + path)
  return 0


if __name__ == '__main__':
  sys.exit(main())
