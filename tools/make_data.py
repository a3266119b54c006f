#!/usr/bin/env python3
r"""Makes Taobao-like rows whose best possible AUC is known.

  python tools/make_data.py --out data --train 200000 --validation 50000 \
      --test 50000 --seed 2021

Writes taobao_train_data, taobao_validation_data and taobao_test_data (CSV, no
header), the same rows as .parquet, and ceiling.json: per task the AUC and log
loss, on the test file, of the probabilities that the labels were drawn from,
and under "validation" those on the validation file. No model does better,
except by luck. Choose everything on the validation file and read the test file
once, when everything is chosen.

The rows have the columns of the model zoo's Taobao data and its shape: users
and ads with heavy tails, empty fields and NULL as often as in the real rows,
tag lists of up to 50 items. Users and ads are fewer than in the real data, so
that 200,000 rows are enough to learn from. Labels come from

  P(clk)       = sigmoid(common + click + conflict + a)
  P(buy | clk) = sigmoid(common + order - conflict + b)

where common, click, order and conflict are sums of effects of the row's values,
and a and b are such that 15 % of the rows are clicks and 30 % of these buy.
What both tasks share is in common; what draws clicks and repels buyers is in
conflict: a network that shares everything cannot serve both, one that shares
nothing learns common twice. That is what PLE is for.
"""

import argparse
import inspect
import json
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

COLUMNS = [
    'clk', 'buy', 'pid', 'adgroup_id', 'cate_id', 'campaign_id', 'customer',
    'brand', 'user_id', 'cms_segid', 'cms_group_id', 'final_gender_code',
    'age_level', 'pvalue_level', 'shopping_level', 'occupation',
    'new_user_class_level', 'tag_category_list', 'tag_brand_list', 'price']
CHUNK_ROWS = 50000
TASKS = ('clk', 'buy')
# The files and the stream of random numbers that each is drawn from. The test
# file had stream 1 before there was a validation file; so it stays the same.
PARTS = {'train': 0, 'validation': 2, 'test': 1}

_USERS, _ADS, _CATEGORIES, _BRANDS = 2000, 1000, 120, 360
_MOST_USERS, _MOST_ADS = 1000000, 250000  # there are no more names
_CLICK_RATE, _ORDER_RATE = 0.15, 0.30
_FAVOURITES = 6  # categories that a user looks at, at most
_MAX_TAGS = 50
# Rates of the 10,000 real rows.
_NO_PROFILE, _NO_PVALUE, _NO_CLASS, _NO_TAGS, _NO_BRAND = (
    0.0425, 0.5276, 0.2402, 0.4202, 0.3161)


def _zipf(rng, size, count, exponent):
  """Draws `size` of `count` ranks, the k-th as often as k^-exponent."""
  mass = np.cumsum(np.arange(1, count + 1) ** -float(exponent))
  return np.searchsorted(mass, rng.random_sample(size) * mass[-1])


def _names(rng, count, low, high):
  """Distinct numbers as text, like the ids of the real data."""
  return (low + rng.permutation(high - low)[:count]).astype(str)


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


def _bias(scores, weights, rate):
  """The b for which the weighted mean of sigmoid(scores + b) is rate."""
  low, high = -20.0, 20.0
  for _ in range(50):
    middle = (low + high) / 2
    if np.average(_sigmoid(scores + middle), weights=weights) < rate:
      low = middle
    else:
      high = middle
  return low


class World:
  """The users, the ads, and what makes them click and buy."""

  def __init__(self, seed, users=_USERS, ads=_ADS):
    """Draws them.

    Args:
      seed: int.
      users: int, how many.
      ads: int, how many.
    """
    self.users, self.ads = users, ads
    rng = np.random.RandomState(seed)
    self._make_ads(rng)
    self._make_users(rng)
    self._make_effects(rng)
    click, order = self._scores(*self._draw(rng, CHUNK_ROWS))
    self._click_bias = _bias(click, np.ones(CHUNK_ROWS), _CLICK_RATE)
    self._order_bias = _bias(
        order, _sigmoid(click + self._click_bias), _ORDER_RATE)

  def _make_ads(self, rng):
    self.ad_category = _zipf(rng, self.ads, _CATEGORIES, 1.0)
    self.ad_brand = (
        self.ad_category * 3 + _zipf(rng, self.ads, 12, 1.0)) % _BRANDS
    self.ad_price = rng.randint(0, 50, self.ads)
    campaign = np.where(rng.random_sample(self.ads) < 0.9, np.arange(self.ads),
                        rng.randint(0, self.ads, self.ads))
    customer = campaign * 3 // 4
    self.category_names = _names(rng, _CATEGORIES, 1, 12900)
    self.brand_names = _names(rng, _BRANDS, 1000, 460000)
    brand = np.where(rng.random_sample(self.ads) < _NO_BRAND, 'NULL',
                     self.brand_names[self.ad_brand])
    self.ad_columns = {
        'adgroup_id': _names(rng, self.ads, 1, 846000),
        'cate_id': self.category_names[self.ad_category],
        'campaign_id': _names(rng, self.ads, 1, 423000)[campaign],
        'customer': _names(rng, self.ads, 1, 255000)[customer],
        'brand': brand,
        'price': self.ad_price,
    }
    # Ads by category, to show a user what it looks at.
    self._by_category = np.argsort(self.ad_category, kind='stable')
    self._category_start = np.searchsorted(
        self.ad_category[self._by_category], np.arange(_CATEGORIES + 1))

  def _make_users(self, rng):
    known = rng.random_sample(self.users) >= _NO_PROFILE
    levels = {
        'cms_segid': np.where(rng.random_sample(self.users) < 0.56, 0,
                              _zipf(rng, self.users, 96, 0.6) + 1),
        'cms_group_id': rng.randint(0, 13, self.users),
        'final_gender_code': 1 + (rng.random_sample(self.users) < 0.71),
        'age_level': np.minimum(6, rng.poisson(3.4, self.users)),
        'pvalue_level': 1 + rng.binomial(2, 0.45, self.users),
        'shopping_level': 3 - rng.binomial(2, 0.07, self.users),
        'occupation': (rng.random_sample(self.users) < 0.045).astype(int),
        'new_user_class_level': 1 + rng.binomial(3, 0.45, self.users),
    }
    missing = {'pvalue_level': _NO_PVALUE, 'new_user_class_level': _NO_CLASS}
    self.user_levels, columns = {}, {}
    for name, level in levels.items():
      rate = (missing.get(name, _NO_PROFILE) - _NO_PROFILE) / (1 - _NO_PROFILE)
      here = known & (rng.random_sample(self.users) >= rate)
      self.user_levels[name] = np.where(here, level, -1)
      columns[name] = np.where(here, level.astype(str), '')
    self.favourites = _zipf(
        rng, (self.users, _FAVOURITES), _CATEGORIES, 1.0)  # [users, favourites]
    self._num_favourites = rng.randint(1, _FAVOURITES + 1, self.users)
    self.has_tags = rng.random_sample(self.users) >= _NO_TAGS
    columns['user_id'] = _names(rng, self.users, 1, 1140000)
    self.user_columns = columns
    self._make_tags(rng)

  def _make_tags(self, rng):
    """Lists of what a user looked at, in runs of one category and brand."""
    lengths = np.where(rng.random_sample(self.users) < 0.34, _MAX_TAGS,
                       rng.randint(1, 43, self.users)) * self.has_tags
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    owner = np.repeat(np.arange(self.users), lengths)
    position = np.arange(offsets[-1]) - offsets[owner]
    runs = self._num_favourites[owner]
    which = position * runs // np.maximum(1, lengths[owner])
    category = self.favourites[owner, which]
    for name, names, item in [
        ('tag_category_list', self.category_names, category),
        ('tag_brand_list', self.brand_names, (category * 3 + which) % _BRANDS)]:
      lists = pa.ListArray.from_arrays(
          pa.array(offsets, pa.int32()), pa.array(names).take(pa.array(item)))
      self.user_columns[name] = np.array(
          pc.binary_join(lists, '|').to_pylist(), object)

  def _make_effects(self, rng):
    def parts(scale, size):
      return {part: rng.normal(0, scale, size)
              for part in ('common', 'click', 'order', 'conflict')}
    self._effects = [  # (index of a row's value, effects of the values)
        ('category', parts(0.6, _CATEGORIES)),
        ('price', parts(0.5, 50)),
        ('ad', parts(0.1, self.ads)),
        ('user', parts(0.1, self.users)),
        ('pid', parts(0.2, 2)),
    ]
    self._effects += [
        (name, parts(0.35, 100)) for name in sorted(self.user_levels)]
    # Age and category together, on top of each alone.
    self._effects.append(('age x category', parts(0.2, 8 * 40)))

  def _draw(self, rng, count):
    """Returns who is shown which ad where: user, ad, pid, [count] int each."""
    user = _zipf(rng, count, self.users, 0.6)
    ad = _zipf(rng, count, self.ads, 0.7)
    # A third of the ads are of a category that the user looked at.
    wanted = self.favourites[user, rng.randint(0, 1 << 30, count)
                             % self._num_favourites[user]]
    start, stop = self._category_start[wanted], self._category_start[wanted + 1]
    targeted = (rng.random_sample(count) < 0.33) & (stop > start)
    pick = start + (rng.random_sample(count) * (stop - start)).astype(int)
    ad = np.where(
        targeted, self._by_category[np.minimum(pick, self.ads - 1)], ad)
    pid = (rng.random_sample(count) < 0.61).astype(int)
    return user, ad, pid

  def rows(self, rng, count):
    """Draws rows.

    Returns:
      (pa.Table, {task: [count] float64}): the rows in the order of COLUMNS,
      and the probability that each task's label is 1.
    """
    user, ad, pid = self._draw(rng, count)
    click, order = self._scores(user, ad, pid)
    click = _sigmoid(click + self._click_bias)
    order = _sigmoid(order + self._order_bias)
    clk = rng.random_sample(count) < click
    buy = clk & (rng.random_sample(count) < order)
    columns = {'clk': clk.astype(np.int64), 'buy': buy.astype(np.int64),
               'pid': np.array(['430539_1007', '430548_1007'])[pid]}
    columns.update({k: v[ad] for k, v in self.ad_columns.items()})
    columns.update({k: v[user] for k, v in self.user_columns.items()})
    table = pa.Table.from_arrays(
        [pa.array(columns[name]) for name in COLUMNS], COLUMNS)
    return table, {'clk': click, 'buy': click * order}

  def _scores(self, user, ad, pid):
    """The logits of P(clk) and P(buy | clk) without a and b, [rows] each."""
    values = {'user': user, 'ad': ad, 'pid': pid,
              'category': self.ad_category[ad], 'price': self.ad_price[ad]}
    values.update({k: v[user] for k, v in self.user_levels.items()})
    values['age x category'] = (
        (values['age_level'] + 1) * 40 + values['category'] % 40)
    total = {part: sum(effects[part][values[name]]
                       for name, effects in self._effects)
             for part in ('common', 'click', 'order', 'conflict')}
    looked = (self.favourites[user] == values['category'][:, None]).any(axis=1)
    total['common'] += 0.6 * (looked & self.has_tags[user])
    return (1.8 * total['common'] + 0.9 * total['click']
            + 1.0 * total['conflict'],
            1.8 * total['common'] + 0.9 * total['order']
            - 1.0 * total['conflict'])


def auc(scores, labels):
  """Exact area under the ROC curve, ties counted half."""
  _, tie, count = np.unique(scores, return_inverse=True, return_counts=True)
  rank = (np.cumsum(count) - (count - 1) / 2.0)[tie]
  positives = labels.sum()
  negatives = len(labels) - positives
  return ((rank[labels == 1].sum() - positives * (positives + 1) / 2.0) /
          (positives * negatives))


def write(world, rng, rows, path):
  """Writes rows as path and path.parquet, chunk by chunk, whole or not at all.

  Args:
    world: World.
    rng: np.random.RandomState.
    rows: int, how many.
    path: str, of the CSV file.

  Returns:
    {task: (probabilities, labels)}, [rows] arrays.
  """
  truth = {task: ([], []) for task in TASKS}
  options = pa.csv.WriteOptions(include_header=False, quoting_style='none')
  parquet = None
  with open(path + '.partial', 'wb') as csv:
    for start in range(0, rows, CHUNK_ROWS):
      table, chances = world.rows(rng, min(CHUNK_ROWS, rows - start))
      pa.csv.write_csv(table, csv, options)
      parquet = parquet or _parquet_writer(
          path + '.parquet.partial', table.schema)
      parquet.write_table(table)
      for task in TASKS:
        truth[task][0].append(chances[task])
        truth[task][1].append(table.column(task).to_numpy())
  parquet.close()
  for name in (path, path + '.parquet'):
    os.replace(name + '.partial', name)
  return {task: tuple(map(np.concatenate, found))
          for task, found in truth.items()}


def _parquet_writer(path, schema):
  """Returns a ParquetWriter that writes page checksums, if pyarrow can."""
  kind = pa.parquet.ParquetWriter
  name = 'write_page_checksum'
  known = name in inspect.signature(kind.__init__).parameters
  return kind(path, schema, **({name: True} if known else {}))


def ceiling(truth):
  """AUC and log loss per task of the true probabilities."""
  found = {}
  for task, (p, label) in truth.items():
    loss = -np.mean(label * np.log(p) + (1 - label) * np.log(1 - p))
    mixed = 0 < label.sum() < len(label)
    found[task] = {'auc': float(auc(p, label)) if mixed else None,
                   'log_loss': float(loss), 'positives': int(label.sum())}
  return found


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--out', default='data', help='folder to write to')
  parser.add_argument('--train', type=int, default=200000, help='rows')
  parser.add_argument('--validation', type=int, default=50000, help='rows')
  parser.add_argument('--test', type=int, default=50000, help='rows')
  parser.add_argument('--seed', type=int, default=2021,
                      help='the same seed makes the same rows')
  parser.add_argument('--users', type=int, default=_USERS,
                      help='different ones; more are more ids that come rarely')
  parser.add_argument('--ads', type=int, default=_ADS,
                      help='different ones, as --users')
  parser.add_argument('--force', action='store_true',
                      help='overwrite data that is there')
  args = parser.parse_args()
  if min(args.train, args.validation, args.test) < 1:
    parser.error('--train, --validation and --test must be at least 1')
  if not (0 < args.users <= _MOST_USERS and 0 < args.ads <= _MOST_ADS):
    parser.error('--users must be from 1 to %d, --ads to %d' % (
        _MOST_USERS, _MOST_ADS))
  os.makedirs(args.out, exist_ok=True)
  present = [name for name in sorted(os.listdir(args.out))
             if name.startswith('taobao_')]
  if present and not args.force:
    parser.error('%s has %s already; --force overwrites them' % (
        args.out, ', '.join(present)))
  world = World(args.seed, args.users, args.ads)
  best = {}
  for name, stream in PARTS.items():
    rng, rows = np.random.RandomState([args.seed, stream]), getattr(args, name)
    path = os.path.join(args.out, 'taobao_%s_data' % name)
    truth = write(world, rng, rows, path)
    best[name] = ceiling(truth)
    print('%s: %d rows, %s' % (path, rows, ', '.join(
        '%s %.2f%%' % (task, 100 * label.mean())
        for task, (_, label) in truth.items())))
  path = os.path.join(args.out, 'ceiling.json')
  best = {task: dict(best['test'][task], validation=best['validation'][task])
          for task in TASKS}
  with open(path, 'w') as f:
    json.dump(best, f, indent=2, sort_keys=True)
    f.write('\n')
  print('%s: %s' % (path, json.dumps(best, sort_keys=True)))
  return 0


if __name__ == '__main__':
  sys.exit(main())
