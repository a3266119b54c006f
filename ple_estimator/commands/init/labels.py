"""Labels: what the user names, what they hold, and the task of each."""

import collections
import difflib
import re

import numpy as np

from ple_estimator import errors
from ple_estimator.commands.init import choosing
from ple_estimator.commands.init import describing

RULE = """\
A label that has two values is binary. --labels 'stars>3' makes a binary label
of numbers, 'grade=A' of one class out of several. Text of 3 to 100 different
values is classes. So are whole numbers, if there are 3 to 10 different ones,
each of them in at least 10 rows, and the name tells of no amount (price, count,
score, stars, ...). Whole numbers are counts if the name says so (count, num,
clicks, views, ...), or if they begin at 0 or 1, leave out few numbers, and few
of them are large. Other numbers are regressions."""

_POSITIVE = ('1', 'true', 't', 'yes', 'y', 'positive', 'pos', 'on')
_CLASSES = 8  # that a message lists
_BINARY = "'binary'"
_MOST_CLASSES = 100  # of text; more are hardly told apart
_FEW_NUMBERS = 10  # that may be classes
_LEAST_ROWS = 10  # of the rarest class, as numbers that are counts have a tail
_COUNTS = frozenset(
    'num number count cnt n total clicks views visits orders purchases sales '
    'impressions plays likes shares comments times quantity qty items'.split())
_COUNTS_SKEWED = 0.25  # a Poisson distribution with the mean 16 has that
_DENSE = 0.9  # of the whole numbers up to the 90th percentile occur
_LARGE = 10.0  # deviation of a label; Adam moves a weight by about 0.001 a step


class Wanted(collections.namedtuple('Wanted', 'text column sign value')):
  """One of --labels: `name`, `name=value` or `name>number`.

  Attributes:
    text: str, as the user has typed it.
    column: str, what stands before the sign.
    sign: '=', '>' or ''.
    value: str, what stands behind it.
  """

  __slots__ = ()


class Label(collections.namedtuple(
    'Label', 'name task entry loss measure weight reason classes num_classes')):
  """A label and its task.

  Attributes:
    name: str, the column.
    task: str, the name of the task, as gin allows it for a scope.
    entry: OrderedDict, the column in FeatureSpec.columns.
    loss: str, what Task.loss is bound to, as a .gin file has it.
    measure: str, the metric by which a checkpoint is judged.
    weight: float, Task.weight.
    reason: str, for comments.
    classes: dict of text to a class, 0 or 1 of a binary label; None of a
      number.
    num_classes: int of a label of more than two classes, else None.
  """

  __slots__ = ()

  @property
  def is_binary(self):
    """Whether it is 0 or 1; else it is a number, or one of several classes."""
    return self.loss == _BINARY

  def targets(self, texts):
    """The label of some rows.

    Args:
      texts: pa.Array of string.

    Returns:
      [rows] float64 array, NaN where there is none.
    """
    values = texts.to_pylist()
    if self.classes is not None:
      found = [self.classes.get(value, np.nan) for value in values]
    else:
      found = [_as_number(value) for value in values]
    return np.array(found, np.float64)


def wanted(texts):
  """Takes the argument --labels apart.

  Args:
    texts: list of str, each with names and commas between them.

  Returns:
    list of Wanted.
  """
  found = []
  for text in ','.join(texts).split(','):
    text = text.strip()
    if text:
      column, sign, value = re.match(r'([^=>]*)([=>]?)(.*)', text).groups()
      found.append(Wanted(text, column.strip(), sign, value.strip()))
  names = [label.text for label in found]
  errors.check(names, '--labels must name the columns to predict, got none.')
  twice = sorted({name for name in names if names.count(name) > 1})
  errors.check(not twice, '--labels must name each column once, got %s twice.',
               ', '.join(twice))
  return found


def resolve(labels, names, source):
  """Checks that labels are columns.

  Args:
    labels: list of Wanted.
    names: list of str, the columns.
    source: str, the file, for errors.

  Returns:
    list of Wanted; of a column whose name has a sign, the whole name counts.
  """
  found = []
  for label in labels:
    if label.text in names:
      label = Wanted(label.text, label.text, '', '')
    near = difflib.get_close_matches(label.column, names, 3) or [
        name for name in names if name.lower() == label.column.lower()]
    errors.check(
        label.column in names, '--labels must name columns of %s, got %r%s.',
        source, label.column, ': did you mean %s?' % ' or '.join(near)
        if near else ', and it has %s' % ', '.join(names))
    found.append(label)
  columns = [label.column for label in found]
  twice = sorted({name for name in columns if columns.count(name) > 1})
  errors.check(not twice, '--labels must name each column once, got %s twice.',
               ', '.join(twice))
  return found


def describe(label, found, is_bool=False):
  """Decides what a label is.

  Args:
    label: Wanted, resolved.
    found: describing.Description of its column.
    is_bool: bool, whether the file has it as true and false of a type of its
      own, which the input reads as 1 and 0.

  Returns:
    Label.

  Raises:
    UserError: if it is constant, or text of too many classes.
  """
  errors.check(found.filled(), '--labels: %r is empty in all rows.', found.name)
  values = found.values()
  if label.sign == '>':
    return _threshold(label, found)
  if label.sign:
    errors.check(values and label.value in values, '--labels %s must name a '
                 'value of %s, which has %s.', label.text, found.name,
                 _listed(values))
    classes = collections.OrderedDict(
        (value, int(value == label.value)) for value in sorted(values))
    return _binary(found, classes)
  errors.check(
      found.distinct() > 1, '--labels: %r is %s in all rows, so that there is '
      'nothing to learn.', found.name, next(iter(values or ['one value'])))
  if values and len(values) == 2:
    return _binary(found, _two(values), is_bool)
  if found.is_number():
    numbers = {_as_number(value) for value in values or ()}
    if len(numbers) == 2:  # such as 1 and 1.0
      return _binary(found, {v: _two(numbers)[_as_number(v)] for v in values})
    if _are_classes(found):
      return _multi_class(found)
    return _counts(found) if _are_counts(found) else _regression(found)
  errors.check(
      values and len(values) <= _MOST_CLASSES, '--labels: %r has %s different '
      'values (%s), and init makes classes of at most %d: name the one that '
      'counts as 1, such as --labels %r.', found.name,
      format(found.distinct(), ','), _listed(values), _MOST_CLASSES,
      '%s=%s' % (found.name, sorted(values or found.sample[:1])[0]))
  return _multi_class(found)


def task_name(column):
  """The name of a label as gin allows it for a scope."""
  name = re.sub(r'\W', '_', column, flags=re.ASCII)
  return name if re.match('[A-Za-z]', name) and name != 'shared' else (
      'task_' + name)


def _two(values):
  """Which of two values is 1: the one that says so, or else the rarer one."""
  by_name = sorted(values, key=_rank)
  known = [value for value in by_name if _rank(value) == 1]
  if len(known) == 1:
    positive = known[0]
  elif isinstance(values, collections.Counter):
    positive = min(values, key=lambda value: (values[value], value))
  else:
    positive = max(values)
  return collections.OrderedDict(
      (value, int(value == positive)) for value in sorted(
          values, key=lambda value: value == positive))


def _rank(value):
  number = _as_number(value)
  return 1 if number == 1 or str(value).lower() in _POSITIVE else 0


def _binary(found, classes, is_bool=False):
  values = found.values()
  positives = sum(n for value, n in values.items() if classes[value])
  entry = _entry(found)
  if is_bool or all(
      _as_number(value) == of for value, of in classes.items()):
    entry['values'] = (0, 1)
    what = 'binary'
  else:
    entry['values'] = dict(classes)
    what = 'binary, %s is 1' % ' or '.join(
        repr(value) for value, of in classes.items() if of)
  return Label(found.name, task_name(found.name), entry, _BINARY, 'auc', 1.0,
               '%s; %s' % (what, _rate(found, positives)), dict(classes), None)


def _threshold(label, found):
  number = _as_number(label.value)
  errors.check(found.is_number() and not np.isnan(number), '--labels %s must '
               'compare a column of numbers with a number.', label.text)
  entry = _entry(found)
  entry['above'] = int(number) if number == int(number) else number
  sample = found.sample_numbers()
  errors.check(
      found.low <= number < found.high, '--labels %s must have rows on both '
      'sides: %s goes from %g to %g.', label.text, found.name, found.low,
      found.high)
  reason = 'binary, more than %g is 1; 1 in %.2f %% of the rows%s' % (
      number, 100 * np.mean(sample > number), _empty(found))
  return Label(found.name, task_name(found.name), entry, _BINARY, 'auc', 1.0,
               reason, _Above(number), None)


class _Above:
  """What classes are of a label by threshold."""

  def __init__(self, number):
    self._number = number

  def get(self, text, default):
    """1 or 0 for the text of a number, or the default for None."""
    number = _as_number(text)
    return default if np.isnan(number) else float(number > self._number)


def _regression(found):
  """A label of numbers, with the loss that its distribution asks for."""
  sample = found.sample_numbers()
  mean, deviation = float(sample.mean()), float(sample.std())
  reason = '%.7g to %.7g, mean %.4g, standard deviation %.4g%s' % (
      found.low, found.high, mean, deviation, _empty(found))
  is_skewed = choosing.skewness(sample) > choosing.SKEWED
  if is_skewed and found.low > 0:
    loss, measure, weight = "'lognormal'", 'nll', 1.0
    what = 'skewed and positive'
  elif is_skewed and found.low >= 0:
    loss, measure = '@Tweedie()', 'deviance'
    weight = mean ** -0.5  # The loss grows as the root of the mean.
    what = 'skewed and 0 in some rows'
  else:
    loss, measure, weight = "'regression'", 'rmse', 1 / deviation ** 2
    what = 'a regression'
    if deviation > _LARGE:
      reason += ('; numbers as large as these are learned slowly: another '
                 'unit, in which the deviation is near 1, is learned faster')
  return Label(found.name, task_name(found.name), _entry(found), loss, measure,
               float('%.3g' % weight), '%s, %s' % (what, reason), None, None)


def _named(found, words):
  """Whether the last word of the name of a column is one of some."""
  return bool(set(choosing.words_of(found.name)[-1:]) & words)


def _are_classes(found):
  """Whether numbers are classes, see RULE."""
  values = found.values()
  return bool(
      values and found.is_whole() and 2 < len(values) <= _FEW_NUMBERS and
      min(values.values()) >= _LEAST_ROWS and
      not _named(found, _COUNTS | choosing.AMOUNTS))


def _multi_class(found):
  """A label of several classes: 0 to n - 1, or in the order of their values."""
  values = found.values()
  numbers = [_as_number(value) for value in values]
  order = sorted(set(numbers)) if found.is_number() else sorted(values)
  classes = collections.OrderedDict(
      (value, order.index(_as_number(value) if found.is_number() else value))
      for value in sorted(values, key=lambda value: (
          _as_number(value) if found.is_number() else 0, value)))
  entry = _entry(found)
  if found.is_number() and order == list(range(len(order))):
    entry['values'] = tuple(range(len(order)))
  else:
    entry['values'] = dict(classes)
  task = task_name(found.name)
  rarest = min(values, key=lambda value: (values[value], value))
  reason = '%d classes, the rarest is %s with %.2f %% of the rows%s' % (
      len(order), rarest, 100 * values[rarest] / found.filled(), _empty(found))
  return Label(found.name, task, entry, '@%s/MultiClass()' % task, 'log_loss',
               1.0, reason, dict(classes), len(order))


def _are_counts(found):
  """Whether numbers are counts, see RULE."""
  if not found.is_whole() or found.low < 0:
    return False
  if _named(found, _COUNTS):
    return True
  sample = found.sample_numbers()
  most = np.percentile(sample, 90)
  there = np.unique(sample[sample <= most])
  return bool(
      found.low <= 1 and not _named(found, choosing.AMOUNTS) and
      len(there) >= _DENSE * (most - found.low + 1) and
      choosing.skewness(sample) > _COUNTS_SKEWED)


def _counts(found):
  """A label of counts, whose loss grows as their mean where it is large."""
  mean = float(found.sample_numbers().mean())
  return Label(
      found.name, task_name(found.name), _entry(found), "'poisson'", 'deviance',
      float('%.3g' % (1 / max(1, mean))), 'counts, %d to %d, mean %.4g%s' % (
          found.low, found.high, mean, _empty(found)), None, None)


def _entry(found):
  return collections.OrderedDict([('name', found.name), ('kind', 'label')])


def _rate(found, positives):
  return '1 in %.2f %% of the rows (%s)%s' % (
      100 * positives / found.filled(), format(positives, ','), _empty(found))


def _empty(found):
  return '' if found.filled() == found.rows else (
      '; empty in %.1f %%: these rows are left out' %
      (100 * found.empty_share()))


def _listed(values):
  listed = sorted(values or ())
  return ', '.join(listed[:_CLASSES]) + (
      ', ...' if len(listed) > _CLASSES else '') if listed else 'more'


def _as_number(value):
  """The number of a text, NaN if it is none; a decimal comma will do."""
  if not isinstance(value, str):
    return np.nan if value is None else float(value)
  try:
    return float(value)
  except ValueError:
    try:
      return float(describing.from_commas_text(value))
    except ValueError:
      return np.nan
