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
conflict. gin/base.gin trains buy on all rows, though, and in
P(buy) = P(clk) P(buy | clk) the conflict cancels: the true logits of the two
labels have a correlation of 0.89. ceiling.json has it as "logit_correlation".

Tasks that do conflict are made by

  python tools/make_data.py --out data/conflict --correlation 0 --nonlinear 0.7

Users, ads and all columns but the labels stay the same rows. Each label is
drawn in every row from a logit of its own, whether there was a click or not
(so buy is better read as another answer of the user, such as a like):

  logit(clk) = 2.5 (sqrt((1 + r) / 2) common + sqrt((1 - r) / 2) conflict) + a
  logit(buy) = 2.5 (sqrt((1 + r) / 2) common - sqrt((1 - r) / 2) conflict) + b

Here common and conflict are uncorrelated functions of the row of variance 1, so
that r, --correlation, is the correlation of the two logits. 15 % of the labels
clk and 30 % of the labels buy are 1. Of the variance of both functions the
share --nonlinear comes from one random network, which reads products of hidden
factors of the user and of the ad:

  hidden_k = tanh(weights_k . (user factors * ad factors)),  k = 1 to 32
  common, conflict = sqrt(1 - s) effects + sqrt(s) outputs . hidden

The factors have mean 0, so that hardly any of the network's output depends on
the user alone or on the ad alone: of its variance one weight per value of every
column explains 1 to 3 % (measured with three seeds).

Why sharing everything should cost something there, which no training has shown
yet (tools/study.py --data conflict can): both labels need the same hidden
interactions, which is a reason to share, but each needs another function of
them, and at r = 0 knowing one function says nothing about the other. The layers
that all tasks share serve whichever gradient is larger: of the interactions
they keep what lowers the sum of the losses most, and clk, with fewer positive
rows, gives the smaller gradient. At a negative r the gradients of the two tasks
even point in opposite directions along conflict. Experts of its own give each
task a place for its function while shared experts learn the interactions from
the labels of both. With --nonlinear 0 a first-order weight per value and task
suffices, and there is little that a shared network could get in the way of.
"""

import argparse
import collections
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

_LABELS_STREAM, _BIAS_STREAM = 3, 4  # further streams of random numbers

_USERS, _ADS, _CATEGORIES, _BRANDS = 2000, 1000, 120, 360
_MOST_USERS, _MOST_ADS = 1000000, 250000  # there are no more names
_CLICK_RATE, _ORDER_RATE = 0.15, 0.30
_EFFECTS = ('common', 'click', 'order', 'conflict')
_CROSS = 'age x category'
# Of SeparateTasks: standard deviation of the logits, the numbers of hidden
# factors and hidden units, and the standard deviation of what tanh is taken of.
_SPREAD, _FACTORS, _HIDDEN, _GAIN = 2.5, 4, 32, 1.5
_FAVOURITES = 6  # categories that a user looks at, at most
_MAX_TAGS = 50
# Rates of the 10,000 real rows.
_NO_PROFILE, _NO_PVALUE, _NO_CLASS, _NO_TAGS, _NO_BRAND = (
    0.0425, 0.5276, 0.2402, 0.4202, 0.3161)


def zipf(rng, size, count, exponent):
  """Draws `size` of `count` ranks, the k-th as often as k^-exponent."""
  mass = np.cumsum(np.arange(1, count + 1) ** -float(exponent))
  return np.searchsorted(mass, rng.random_sample(size) * mass[-1])


def _names(rng, count, low, high):
  """Distinct numbers as text, like the ids of the real data."""
  return (low + rng.permutation(high - low)[:count]).astype(str)


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


def bias(scores, weights, rate):
  """The b for which the weighted mean of sigmoid(scores + b) is rate."""
  low, high = -20.0, 20.0
  for _ in range(50):
    middle = (low + high) / 2
    if np.average(_sigmoid(scores + middle), weights=weights) < rate:
      low = middle
    else:
      high = middle
  return low


class Truth(collections.namedtuple('Truth', 'p label nonlinear')):
  """What the labels of a task were drawn from, [rows] arrays.

  Attributes:
    p: float64, the probability that the label is 1.
    label: bool.
    nonlinear: float64, the part of the logit that the random network makes;
      None where there is none.
  """

  __slots__ = ()


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
    click, order = self._scores(*self.draw(rng, CHUNK_ROWS))
    self._click_bias = bias(click, np.ones(CHUNK_ROWS), _CLICK_RATE)
    self._order_bias = bias(
        order, _sigmoid(click + self._click_bias), _ORDER_RATE)
    self.labels = self._click_then_order

  def _make_ads(self, rng):
    self.ad_category = zipf(rng, self.ads, _CATEGORIES, 1.0)
    self.ad_brand = (
        self.ad_category * 3 + zipf(rng, self.ads, 12, 1.0)) % _BRANDS
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
                              zipf(rng, self.users, 96, 0.6) + 1),
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
    self.favourites = zipf(
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
      return {part: rng.normal(0, scale, size) for part in _EFFECTS}
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
    self._effects.append((_CROSS, parts(0.2, 8 * 40)))

  def drift(self, rng, kept, new_ads):
    """Lets a day pass: effects change, and ads are replaced by new ones.

    Args:
      rng: np.random.RandomState.
      kept: float from 0 to 1, the correlation of each effect with that of the
        day before; mean and spread of the effects stay as they are.
      new_ads: float from 0 to 1, the share of the ads that get a new id and
        effects of their own.
    """
    fresh = rng.random_sample(self.ads) < new_ads
    ids = self.ad_columns['adgroup_id']
    first = max(900000, ids.astype(int).max() + 1)  # above those of _make_ads
    ids = ids.astype('U8')
    ids[fresh] = np.arange(first, first + fresh.sum()).astype('U8')
    self.ad_columns['adgroup_id'] = ids
    for name, parts in self._effects:
      for part, effects in parts.items():
        if len(effects) < 10:  # too few to keep their spread
          continue
        mean = effects.mean()
        other = rng.normal(0, effects.std(), len(effects))
        moved = mean + kept * (effects - mean) + (1 - kept**2)**0.5 * other
        if name == 'ad':
          moved[fresh] = mean + other[fresh]
        parts[part] = moved

  def draw(self, rng, count):
    """Returns who is shown which ad where: user, ad, pid, [count] int each."""
    user = zipf(rng, count, self.users, 0.6)
    ad = zipf(rng, count, self.ads, 0.7)
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
      (pa.Table, {task: Truth}): the rows in the order of COLUMNS, and what
      their labels were drawn from.
    """
    user, ad, pid = self.draw(rng, count)
    truth = self.labels(rng, user, ad, pid)
    columns = {task: truth[task].label.astype(np.int64) for task in TASKS}
    columns['pid'] = np.array(['430539_1007', '430548_1007'])[pid]
    columns.update({k: v[ad] for k, v in self.ad_columns.items()})
    columns.update({k: v[user] for k, v in self.user_columns.items()})
    return pa.Table.from_arrays(
        [pa.array(columns[name]) for name in COLUMNS], COLUMNS), truth

  def _click_then_order(self, rng, user, ad, pid):
    """Draws the labels of rows; only what was clicked is bought."""
    click, order = self._scores(user, ad, pid)
    click = _sigmoid(click + self._click_bias)
    order = _sigmoid(order + self._order_bias)
    clk = rng.random_sample(len(user)) < click
    buy = clk & (rng.random_sample(len(user)) < order)
    return {'clk': Truth(click, clk, None),
            'buy': Truth(click * order, buy, None)}

  def values(self, user, ad, pid):
    """The values of rows that have effects, by name; [rows] int each."""
    values = {'user': user, 'ad': ad, 'pid': pid,
              'category': self.ad_category[ad], 'price': self.ad_price[ad]}
    values.update({k: v[user] for k, v in self.user_levels.items()})
    values[_CROSS] = (values['age_level'] + 1) * 40 + values['category'] % 40
    return values

  def effects(self, part, values, without=()):
    """The sum of the effects of values in one part, [rows] float64."""
    return sum(effects[part][values[name]]
               for name, effects in self._effects if name not in without)

  def _scores(self, user, ad, pid):
    """The logits of P(clk) and P(buy | clk) without a and b, [rows] each."""
    values = self.values(user, ad, pid)
    total = {part: self.effects(part, values) for part in _EFFECTS}
    looked = (self.favourites[user] == values['category'][:, None]).any(axis=1)
    total['common'] += 0.6 * (looked & self.has_tags[user])
    return (1.8 * total['common'] + 0.9 * total['click']
            + 1.0 * total['conflict'],
            1.8 * total['common'] + 0.9 * total['order']
            - 1.0 * total['conflict'])


class SeparateTasks:
  """Labels that are drawn in all rows, each from a logit of its own.

  The functions common and conflict are mixed from four: the first-order effects
  of both and the two outputs of the random network. On rows drawn for this
  purpose the four are made uncorrelated, of mean 0 and variance 1.
  """

  def __init__(self, world, seed, correlation, nonlinear):
    """Draws the network and finds the mix.

    Args:
      world: World, whose users and ads the rows are of.
      seed: int.
      correlation: float from -1 to 1, of the logits of the two labels.
      nonlinear: float from 0 to 1, the share of the variance of each logit that
        the network makes.
    """
    self._world = world
    rng = np.random.RandomState([seed, _LABELS_STREAM])
    self._user = {name: rng.normal(0, 1, (size, _FACTORS)) for name, size in [
        ('age_level', 100), ('cms_group_id', 100), ('pvalue_level', 100),
        ('user', world.users)]}
    self._ad = {name: rng.normal(0, 1, (size, _FACTORS)) for name, size in [
        ('category', _CATEGORIES), ('price', 50)]}
    self._hidden = rng.normal(0, _GAIN / _FACTORS**0.5, (_FACTORS, _HIDDEN))
    self._outputs = rng.normal(0, 1, (_HIDDEN, 2))
    rows = world.draw(np.random.RandomState([seed, _BIAS_STREAM]), CHUNK_ROWS)
    self._centres = [f.mean(axis=0) for f in self._factors(world.values(*rows))]
    functions = self._functions(*rows)
    self._means = functions.mean(axis=0)
    self._mix = np.linalg.inv(np.linalg.cholesky(np.cov(functions.T))).T
    share = np.sqrt([(1 + correlation) / 2, (1 - correlation) / 2])
    self._weights = {  # of common and conflict, in each task's logit
        'clk': _SPREAD * share, 'buy': _SPREAD * share * [1, -1]}
    self._nonlinear = nonlinear
    parts = (functions - self._means).dot(self._mix)
    self._bias = {
        task: bias(sum(self._logits(parts, task)), np.ones(CHUNK_ROWS), rate)
        for task, rate in zip(TASKS, (_CLICK_RATE, _ORDER_RATE))}

  def _factors(self, values):
    """The hidden factors of user and ad: two [rows, _FACTORS] arrays."""
    return [sum(table[values[name]] for name, table in of.items())
            / len(of)**0.5 for of in (self._user, self._ad)]

  def _functions(self, user, ad, pid):
    """[rows, 4]: first-order common and conflict, the network's two outputs."""
    values = self._world.values(user, ad, pid)
    of_user, of_ad = [factors - centre for factors, centre in zip(
        self._factors(values), self._centres)]
    hidden = np.tanh((of_user * of_ad).dot(self._hidden))
    first_order = [self._world.effects(part, values, without=[_CROSS])
                   for part in ('common', 'conflict')]
    return np.column_stack(first_order + [hidden.dot(self._outputs)])

  def _logits(self, parts, task):
    """The linear and the non-linear part of a logit without bias."""
    return ((1 - self._nonlinear)**0.5 * parts[:, :2].dot(self._weights[task]),
            self._nonlinear**0.5 * parts[:, 2:].dot(self._weights[task]))

  def __call__(self, rng, user, ad, pid):
    """Draws the labels of rows, as World.labels does: {task: Truth}."""
    parts = (self._functions(user, ad, pid) - self._means).dot(self._mix)
    found = {}
    for task in TASKS:
      linear, nonlinear = self._logits(parts, task)
      p = _sigmoid(linear + nonlinear + self._bias[task])
      found[task] = Truth(p, rng.random_sample(len(p)) < p, nonlinear)
    return found


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
    {task: Truth} of all rows.
  """
  truth = {task: [] for task in TASKS}
  options = pa.csv.WriteOptions(include_header=False, quoting_style='none')
  parquet = None
  with open(path + '.partial', 'wb') as csv:
    for start in range(0, rows, CHUNK_ROWS):
      table, found = world.rows(rng, min(CHUNK_ROWS, rows - start))
      pa.csv.write_csv(table, csv, options)
      parquet = parquet or parquet_writer(
          path + '.parquet.partial', table.schema)
      parquet.write_table(table)
      for task in TASKS:
        truth[task].append(found[task])
  parquet.close()
  for name in (path, path + '.parquet'):
    os.replace(name + '.partial', name)
  return {task: Truth(*(None if parts[0] is None else np.concatenate(parts)
                        for parts in zip(*found)))
          for task, found in truth.items()}


def parquet_writer(path, schema):
  """Returns a ParquetWriter that writes page checksums, if pyarrow can."""
  kind = pa.parquet.ParquetWriter
  name = 'write_page_checksum'
  known = name in inspect.signature(kind.__init__).parameters
  return kind(path, schema, **({name: True} if known else {}))


def ceiling(truth):
  """What the true probabilities of rows reach.

  Args:
    truth: {task: Truth}.

  Returns:
    {task: dict}: auc (None where all labels are alike), log_loss, positives;
    logit_correlation, {other task: Pearson correlation of the true logits}; and
    where a random network made a part of the logit, nonlinear, its share of the
    variance.
  """
  found = {}
  logits = {task: np.log(p) - np.log1p(-p) for task, (p, _, _) in truth.items()}
  for task, (p, label, nonlinear) in truth.items():
    found[task] = binary_ceiling(p, label)
    found[task]['logit_correlation'] = {
        other: correlation(logits[task], logits[other])
        for other in truth if other != task}
    if nonlinear is not None:
      found[task]['nonlinear'] = float(nonlinear.var() / logits[task].var())
  return found


def binary_ceiling(p, label):
  """AUC, log loss and number of positives of probabilities, as `ceiling`."""
  mixed = 0 < label.sum() < len(label)
  return {'auc': float(auc(p, label)) if mixed else None,
          'log_loss': float(-np.mean(np.where(
              label, np.log(p), np.log1p(-p)))),
          'positives': int(label.sum())}


def correlation(x, y):
  """The Pearson correlation of two [rows] arrays; None of fewer than 2 rows."""
  return float(np.corrcoef(x, y)[0, 1]) if len(x) > 1 else None


def parse_args(parser, arguments):
  """The arguments of the command line, checked."""
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
  parser.add_argument('--correlation', type=float, metavar='R',
                      help='draw both labels in all rows, from logits of this '
                      'correlation, -1 to 1 (see above); without it a purchase '
                      'needs a click')
  parser.add_argument('--nonlinear', type=float, metavar='S',
                      help='with --correlation: the share, 0 to 1, of the '
                      'variance of the logits that a random network of '
                      'interactions makes; default: 0')
  parser.add_argument('--only-validation', action='store_true',
                      help='for a folder that was made with the same options '
                      'before there was a validation file: write only that')
  parser.add_argument('--force', action='store_true',
                      help='overwrite data that is there')
  args = parser.parse_args(arguments)
  if min(args.train, args.validation, args.test) < 1:
    parser.error('--train, --validation and --test must be at least 1')
  if not (0 < args.users <= _MOST_USERS and 0 < args.ads <= _MOST_ADS):
    parser.error('--users must be from 1 to %d, --ads to %d' % (
        _MOST_USERS, _MOST_ADS))
  if args.nonlinear is None:
    args.nonlinear = 0.0
  elif args.correlation is None:
    parser.error('--nonlinear needs --correlation')
  if args.correlation is not None and not -1 <= args.correlation <= 1:
    parser.error('--correlation must be from -1 to 1')
  if not 0 <= args.nonlinear <= 1:
    parser.error('--nonlinear must be from 0 to 1')
  return args


def make(world, args, part):
  """Writes the files of one of PARTS and says so; returns their ceiling."""
  rng = np.random.RandomState([args.seed, PARTS[part]])
  rows = getattr(args, part)
  path = os.path.join(args.out, 'taobao_%s_data' % part)
  truth = write(world, rng, rows, path)
  print('%s: %d rows, %s' % (path, rows, ', '.join(
      '%s %.2f%%' % (task, 100 * found.label.mean())
      for task, found in truth.items())))
  return ceiling(truth)


def difference(world, folder, seed):
  """Says why a folder's train file is not of this world; None if it is."""
  path = os.path.join(folder, 'taobao_train_data.parquet')
  for needed in (path, os.path.join(folder, 'ceiling.json')):
    if not os.path.exists(needed):
      return 'there is no %s' % needed
  there = pa.parquet.ParquetFile(path)
  rows = min(CHUNK_ROWS, there.metadata.num_rows)
  rng = np.random.RandomState([seed, PARTS['train']])
  made, _ = world.rows(rng, rows)
  if (there.schema_arrow.names == COLUMNS
      and there.read_row_group(0).slice(0, rows).equals(made)):
    return None
  return ('%s was made with other options; give those, or --force to make all '
          'files anew' % path)


def main(arguments=None):
  """Makes the files; returns the exit status.

  Args:
    arguments: list of str; None takes those of the process.
  """
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  args = parse_args(parser, arguments)
  os.makedirs(args.out, exist_ok=True)
  present = [name for name in sorted(os.listdir(args.out))
             if name.startswith('taobao_')]
  if present and not (args.force or args.only_validation):
    parser.error('%s has %s already; --force overwrites them' % (
        args.out, ', '.join(present)))
  world = World(args.seed, args.users, args.ads)
  if args.correlation is not None:
    world.labels = SeparateTasks(
        world, args.seed, args.correlation, args.nonlinear)
  path, best = os.path.join(args.out, 'ceiling.json'), None
  if args.only_validation:
    different = difference(world, args.out, args.seed)
    if different:
      parser.error('--only-validation: ' + different)
    with open(path) as f:
      best = json.load(f)
  parts = ['validation'] if args.only_validation else list(PARTS)
  found = {part: make(world, args, part) for part in parts}
  best = found.get('test', best)
  for task in TASKS:
    best[task]['validation'] = found['validation'][task]
  with open(path, 'w') as f:
    json.dump(best, f, indent=2, sort_keys=True)
    f.write('\n')
  print('%s: %s' % (path, json.dumps(best, sort_keys=True)))
  return 0


if __name__ == '__main__':
  sys.exit(main())
