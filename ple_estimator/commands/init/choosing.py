"""Chooses the kind of a column and its arguments, and says why."""

import collections
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow.compat.v1 as tf

from ple_estimator.commands.init import dates
from ple_estimator.commands.init import distinct
from ple_estimator.commands.init import lists
from ple_estimator.commands.init import rows

RULE = """\
A column of whole numbers is a category if its name says so (its last word is
id, code, level, user, item, brand, ...), if digits start with 0, if there are
at most 20 different ones, or if there are more than 1,000 and the middle half
of the rows covers a quarter of the range or more, as numbers do that only tell
things apart. Else it is a number: amounts and counts lie close together near
one end."""

SKEWED = 2.0  # the skewness of an exponential distribution
# Last words of the names of quantities.
AMOUNTS = frozenset(
    'num number count cnt n total sum mean avg price amount age size length '
    'score rating stars rate share pct percent hours minutes seconds days'
    .split())

_LISTED = 100  # different texts at most: a vocabulary
_LEAST_ROWS = 5  # of a text that is listed
_FEW = 20  # different whole numbers: each can have a vector of its own
_MANY = 1000
_SPREAD = 0.25
_BUCKETS = 20  # of a number, between quantiles
_LEAST_BOUNDARIES = 4  # without which a number is not bucketised by itself
_UNIQUE = 0.95  # of the rows: a key of the row, or free text
_SHARE = 20  # buckets per value: less than 1/20 of the values share one
_LIST_SHARE = 0.05  # of the rows have more than one item
_SEPARATORS = '|;,'
_WORDS_PER_TEXT = 3
_VECTORS = 20000  # by which mean and deviation of their numbers are found

_THINGS = frozenset(
    'user item customer client member visitor session device product sku brand '
    'category cate cat shop store seller merchant campaign ad adgroup creative '
    'advertiser publisher city region country state author video movie book '
    'song artist channel type class group level segment seg page query job '
    'news article person'.split())
_CODES = frozenset('id ids uid pid code zip zipcode postcode hash key'.split())
_USERS = ('user', 'userid', 'uid', 'member', 'visitor', 'customer', 'client',
          'person', 'session', 'device')


class Choice(collections.namedtuple(
    'Choice', 'name kind arguments reason stored')):
  """What is decided about one column.

  Attributes:
    name: str.
    kind: str, a key of column_kinds.KINDS.
    arguments: OrderedDict of what FeatureSpec.columns says besides.
    reason: str, for a comment.
    stored: 'text', 'number' or 'as it is', what a copy of the rows has.
  """

  __slots__ = ()

  @property
  def is_feature(self):
    """Whether the model reads it as an input."""
    return self.kind not in ('ignored', 'label', 'weight')


def choose(found, arrow_type, split_by=None, bucketise=False):
  """Chooses what a column is, unless it is a label.

  Args:
    found: describing.Description.
    arrow_type: pa.DataType, that of the file.
    split_by: None, or 'user' or 'time' if rows are cut by this column.
    bucketise: bool, whether numbers are to be categories.

  Returns:
    Choice.
  """
  filled, count = found.filled(), found.distinct()
  if split_by or not filled or count < 2:
    return _ignored(found, _why_ignored(found, split_by))
  if bucketise:
    return _bucketised(found, 'named by --bucketise')
  if rows.has_items(arrow_type):
    return _nested(found, arrow_type)
  if _is_time(found):
    return _ignored(found, (
        'days or times, such as %s' % found.sample[0] if found.dates else
        'seconds since 1970') + ', which do not come again; a weekday or an '
                    'hour would be a column of its own')
  if found.is_number() and not _why_code(found):
    return _number(found)
  if found.vectors.width() and found.vectors.has_fraction:
    return _vector(found)
  form = _weights(found)
  if form:
    return _weighted(found, form)
  separator = None if found.is_number() else _separator(found)
  if separator:
    return _list(found, separator, 'items with %r between them' % separator)
  if count > _UNIQUE * filled and filled > 100:
    return _ignored(found, 'nearly every row has a value of its own, which '
                    'says nothing of other rows')
  return _category(found)


def _nested(found, arrow_type):
  """Chooses what a column is that Parquet has as lists or maps."""
  if lists.is_map(arrow_type):
    return _weighted(found, found.weighted.forms[0]
                     ) if found.weighted.forms else _ignored(
                         found, 'maps with %r in an item, or with a weight '
                         'that is missing or not a number of at most 2^24' %
                         lists.SEPARATOR)
  vectors = found.vectors
  if vectors.width() and (vectors.has_fraction or lists.is_vector(arrow_type)):
    return _vector(found)
  if lists.is_vector(arrow_type) or not pa.types.is_integer(
      arrow_type.value_type) and all(
          _is_fraction(text) for text in found.sample[:1000]):
    return _ignored(found, 'lists of numbers that are not whole, and not as '
                    'many in each row')
  return _list(found, lists.SEPARATOR, 'a list')


def _is_fraction(text):
  """Whether a list, as text, has an item that is a number and not whole."""
  return any(re.match(r'[+-]?\d*\.\d*[1-9]|.*\de-', item)
             for item in text.split(lists.SEPARATOR))


def likely_user(described):
  """The column that says whose row it is, or None.

  Its name says so, it is a category, and its values occur again.

  Args:
    described: OrderedDict of name to describing.Description.
  """
  for word in _USERS:
    for name, found in described.items():
      words = words_of(name)
      named = words[-1:] == [word] or words in ([word, 'id'], [word, 'key'])
      repeated = 2 <= found.distinct() < 0.9 * found.filled()
      if named and repeated and found.distinct() > _FEW and not found.dates:
        return name
  return None


def buckets(found):
  """Returns how many buckets few values share, and a text about it.

  Args:
    found: number of different values, or the list of all of them.

  Returns:
    (num_buckets, collisions): int, and the number of values whose bucket
    another one has; None where there are too many to look at.
  """
  values = found if isinstance(found, list) else None
  least = max(10, _SHARE * (len(values) if values else found))
  sizes = [_round(least * factor) for factor in (1, 1.3, 1.7, 2, 2.5, 3, 4, 5)]
  if not values:
    return sizes[0], None
  with tf.Graph().as_default(), tf.Session() as session:
    texts = tf.constant([value.encode() for value in values])
    hashed = session.run([tf.strings.to_hash_bucket_fast(texts, size)
                          for size in sizes])
  shared = [len(values) - _alone(ids) for ids in hashed]
  best = shared.index(min(shared))
  return sizes[best], shared[best]


def skewness(sample):
  """The third standardised moment of a float array; 0 if all are equal."""
  deviation = sample.std()
  return float(np.mean(((sample - sample.mean()) / deviation) ** 3)
               ) if deviation else 0.0


def words_of(name):
  """The words of the name of a column, a list of str in lower case.

  Those of userId and of user_id are user and id, and so are those of userid.
  """
  apart = re.sub(r'([a-z])([A-Z])', r'\1_\2', name).lower()
  words = re.findall(r'[a-z]+', apart)
  if words and words[-1].endswith('id') and words[-1][:-2] in _THINGS:
    words[-1:] = [words[-1][:-2], 'id']
  return words


def short(value, low=-np.inf, high=np.inf):
  """Rounds a number to four digits, but not beyond bounds.

  Args:
    value: number.
    low: number, the lower bound; high is the upper one.

  Returns:
    float.
  """
  return min(max(float('%.4g' % value), float(low)), float(high))


def _alone(ids):
  return int(np.sum(np.unique(ids, return_counts=True)[1] == 1))


def _round(number):
  """The next number with two digits and zeros behind."""
  unit = 10 ** max(0, int(math.floor(math.log10(number))) - 1)
  return int(math.ceil(number / unit)) * unit


def _why_code(found):
  """Why numbers only tell things apart, see RULE; '' if they are amounts."""
  if not found.is_whole():
    return ''
  words = words_of(found.name)
  if words and (words[-1] in _CODES or words[-1] in _THINGS):
    return 'the name ends in %s' % words[-1]
  if found.zeros_led:
    return 'digits start with 0'
  if words and words[-1] in AMOUNTS:
    return ''
  if found.distinct() <= _FEW:
    return 'there are %d different ones only' % found.distinct()
  return '' if _middle(found) is None or _middle(found) < _SPREAD else (
      'the middle half of the rows covers %.0f %% of the range' %
      (100 * _middle(found)))


def _why_amount(found):
  """Why whole numbers that are no codes are amounts, see RULE."""
  words = words_of(found.name)
  if words and words[-1] in AMOUNTS:
    return 'the name ends in %s' % words[-1]
  return 'there are %d different ones' % found.distinct(
  ) if _middle(found) is None else (
      'the middle half of the rows covers %.1f %% of the range' %
      (100 * _middle(found)))


def _middle(found):
  """The share of the range of many different numbers that half of them need.

  None if there are at most 1,000 different ones.
  """
  if found.distinct() <= _MANY:
    return None
  low, quarter, most, high = np.percentile(
      found.sample_numbers(), [0, 25, 75, 100])
  return (most - quarter) / (high - low)


def _is_time(found):
  """Whether all values are days or times."""
  if found.dates == found.filled():
    return dates.form(sorted(set(found.sample))[:1000]) is not None
  named = set(words_of(found.name)) & {
      'time', 'timestamp', 'ts', 'date', 'datetime', 'at', 'unixtime'}
  return bool(found.is_whole() and named and
              dates.are_seconds(found.low, found.high))


def _why_ignored(found, split_by):
  if split_by == 'user':
    return ('the rows are cut by it, so that no value of the validation rows '
            'is trained; its kind is hashed where they are cut otherwise')
  if split_by == 'time':
    return 'the rows are cut by it'
  if not found.filled():
    return 'empty in all rows'
  return 'has one value only, %s' % _shown(next(iter(found.values())))


def _ignored(found, reason):
  return Choice(found.name, 'ignored', collections.OrderedDict(), reason,
                'as it is')


def _number(found):
  sample = found.sample_numbers()
  low, high = found.low, found.high
  skew, of_log = skewness(sample), None
  arguments = collections.OrderedDict()
  reason = '%s, %.7g to %.7g' % (
      'amounts, as %s' % _why_amount(found) if found.is_whole() else 'numbers',
      low, high)
  if found.commas:
    reason += ' with a decimal comma'
  if low >= 0 and abs(skew) > SKEWED:
    of_log = skewness(np.log1p(sample))
  if of_log is not None and abs(of_log) < abs(skew):
    arguments['log1p'] = True
    reason += '; skewness %.1f, of log(1 + x) %.1f' % (skew, of_log)
  seen = np.log1p(sample) if 'log1p' in arguments else sample
  if _is_heavy_tailed(seen) and len(_quantiles(sample)) >= _LEAST_BOUNDARIES:
    return _bucketised(found, 'a few are so large that 98 % of the rows lie '
                       'within one standard deviation')
  arguments['mean'] = short(seen.mean())
  arguments['std'] = short(seen.std()) or 1.0
  arguments['default'] = short(np.median(sample), low, high)
  arguments['clip'] = (_below(low), _above(high))
  return Choice(found.name, 'number', arguments, reason, 'number')


def _is_heavy_tailed(seen):
  """Whether a few numbers make all others nearly alike once standardised."""
  low, high = np.percentile(seen, [1, 99])
  return bool(high - low < seen.std())


def _quantiles(sample):
  """The different quantiles of numbers, but for the least one: a list."""
  ranked = np.sort(sample)
  places = len(ranked) * np.arange(1, _BUCKETS) // _BUCKETS
  found = [float('%.6g' % value) for value in ranked[places]]
  found = [value for value in found if value > ranked[0]]
  _, first = np.unique(np.array(found, np.float32), return_index=True)
  return [found[i] for i in first]


def _bucketised(found, why):
  """A category of numbers, whose buckets have as many rows each as they can."""
  boundaries = _quantiles(found.sample_numbers())
  return Choice(
      found.name, 'bucketised',
      collections.OrderedDict(boundaries=tuple(boundaries)),
      'numbers, %.7g to %.7g; %s; %d buckets between quantiles' % (
          found.low, found.high, why, len(boundaries) + 1), 'number')


def _category(found):
  values = found.values()
  code = found.is_number() and _why_code(found)
  top = '' if values is None else '; most often %s' % ', '.join(
      '%s (%.1f %%)' % (_shown(value), 100 * n / found.filled())
      for value, n in _most_common(values))
  what = ('ids, as %s' % code if code else 'text') + top
  common = sorted(value for value, n in (values or {}).items()
                  if n >= _LEAST_ROWS)
  # There will be other users than those of these rows.
  grows = set(words_of(found.name)[-1:]) & (_CODES | set(_USERS))
  if not (found.is_number() or grows) and len(common) > 1 and (
      len(values) <= _LISTED):
    return _vocabulary(found, common, len(values) - len(common), what)
  size, shared = buckets(
      sorted(values) if values is not None else found.distinct())
  return Choice(
      found.name, 'hashed', collections.OrderedDict(num_buckets=size),
      '%s; %s' % (what, collisions(found.distinct(), size, shared)), 'text')


def _vocabulary(found, common, num_rare, what):
  """Lists the texts of some rows each; rarer ones share ids with new ones."""
  arguments = collections.OrderedDict([
      ('values', tuple(common)), ('num_oov_buckets', max(1, num_rare))])
  rare = '%d of fewer than %d rows share the ids behind them with ' % (
      num_rare, _LEAST_ROWS) if num_rare else 'the id behind them is of '
  return Choice(
      found.name, 'vocabulary', arguments,
      '%s; %svalues that come later' % (what, rare), 'text')


def _list(found, separator, what):
  items = distinct.Counter()
  lengths = []
  for text in found.sample:
    parts = [part for part in text.split(separator) if part]
    items.add([part.encode() for part in set(parts)])
    lengths.append(len(parts))
  count = max(1, items.count())
  size, _ = buckets(count)
  arguments = collections.OrderedDict(num_buckets=size)
  if separator != '|':
    arguments['separator'] = separator
  return Choice(
      found.name, 'hashed_list', arguments,
      '%s, %.1f on average and %d at most, %s different ones; %s' % (
          what, np.mean(lengths), max(lengths), format(count, ','),
          collisions(count, size, None)), 'list')


def _vector(found):
  vectors = found.vectors
  sample = lists.numbers_of(pc.split_pattern(
      pa.array(found.sample[:_VECTORS]), vectors.separator))
  sample = sample[np.isfinite(sample)]
  arguments = collections.OrderedDict(width=vectors.width())
  if vectors.separator != lists.SEPARATOR:
    arguments['separator'] = vectors.separator
  arguments['mean'] = short(sample.mean())
  arguments['std'] = short(sample.std()) or 1.0
  arguments['default'] = short(np.median(sample), vectors.low, vectors.high)
  arguments['clip'] = (_below(vectors.low), _above(vectors.high))
  return Choice(
      found.name, 'vector', arguments, '%d numbers in each row, %.7g to %.7g' %
      (vectors.width(), vectors.low, vectors.high), 'as it is')


def _weights(found):
  """The form of items with weights, see lists.Weighted; None if there is none.

  As of lists without weights, some rows have several items, and items come
  again.
  """
  for form in found.weighted.forms or ():
    several = sum(form[0] in text for text in found.sample)
    named = [lists.names_of(text, form) for text in set(found.sample)]
    different = len({name for names in named for name in names})
    if several and several >= _LIST_SHARE * len(found.sample) and (
        2 * different <= sum(map(len, named))):
      return form
  return None


def _weighted(found, form):
  separator, weights, combiner = form
  items, lengths = distinct.Counter(), []
  for text in found.sample:
    names = lists.names_of(text, form)
    items.add([name.encode() for name in set(names)])
    lengths.append(len(names))
  count = max(1, items.count())
  arguments = collections.OrderedDict(num_buckets=buckets(count)[0])
  if separator != '|':
    arguments['separator'] = separator
  arguments['weights'] = weights
  if combiner != 'mean':
    arguments['combiner'] = combiner
  return Choice(
      found.name, 'hashed_list', arguments,
      'items with a weight each%s, %.1f on average and %d at most, %s '
      'different ones; %s' % (
          '' if combiner == 'mean' else ', some below 0', np.mean(lengths),
          max(lengths), format(count, ','),
          collisions(count, arguments['num_buckets'], None)), 'list')


def _separator(found):
  """The character between the items of a list, or None.

  Items of a list come again in other lists: in different texts each of them
  occurs twice on average.
  """
  texts = set(found.sample)
  for separator in _SEPARATORS + ' ':
    several = sum(separator in text for text in found.sample)
    if several < _LIST_SHARE * len(found.sample) or not several:
      continue
    split = [[part for part in text.split(separator) if part]
             for text in texts]
    if separator == ' ' and (
        len(texts) <= _MANY or
        sum(map(len, split)) < _WORDS_PER_TEXT * len(texts)):
      continue
    different = len({part for parts in split for part in parts})
    if 2 * different <= sum(map(len, split)):
      return separator
  return None


def collisions(count, size, shared):
  """What to say of the values that share a bucket.

  Args:
    count: int, different values.
    size: int, buckets.
    shared: int, values that share one, or None if they were not hashed.
  """
  if shared is None:
    return 'about %.1f %% of the values share a bucket' % (
        100 * (1 - math.exp(-(count - 1) / size)))
  return ('no two share a bucket' if not shared else
          '%d of them share a bucket' % shared)


def seen(found):
  """How many different values a column has and how many rows have none."""
  return '%s%s different, %.1f %% empty%s' % (
      '' if found.is_exact() else 'about ', format(found.distinct(), ','),
      100 * found.empty_share(), '' if not found.null_words() else
      ' (or %s)' % ', '.join(found.null_words()))


def _most_common(values):
  return sorted(values.items(), key=lambda item: (-item[1], item[0]))[:2]


def _shown(value):
  return value if len(value) <= 20 else value[:17] + '...'


def _below(value):
  """A bound with six digits that is not above a value."""
  return _rounded(value, -1)


def _above(value):
  return _rounded(value, 1)


def _rounded(value, direction):
  if float('%.6g' % value) == value:
    return float('%.6g' % value)
  unit = 10.0 ** (math.floor(math.log10(abs(value))) - 5)
  whole = value / unit
  return float('%.6g' % (unit * (
      math.ceil(whole) if direction > 0 else math.floor(whole))))
