"""What is swept: the options of each choice and the values of each binding.

A dimension is a choice or a binding. A point has one value of each dimension:
an OrderedDict of the dimension's name to the label of an option, a str, or to a
number of a range. So a point is something that JSON can hold.
"""

import collections
import itertools
import math
import os
import re

from ple_estimator import errors

_DIGITS = 4  # significant digits of a number that is drawn from a range
_PARAMETER = re.compile(r'(\w+/)*\w+(\.\w+)*$')
_RANGE = ('low', 'high', 'log')
# What the sweep itself binds, and what says it instead.
_OWN = {'run_config.seed': 'Sweep.seeds', 'Experiment.model_dir': 'Sweep.out',
        'run_config.inter_op_threads': 'Sweep.threads',
        'run_config.intra_op_threads': 'Sweep.threads'}

Option = collections.namedtuple('Option', ['label', 'files', 'lines'])
Option.__doc__ = """One option of a dimension.

Attributes:
  label: str, what tables and folders call it.
  files: list of str, .gin files.
  lines: list of str, lines of gin.
"""

Options = collections.namedtuple('Options', ['name', 'options'])
Options.__doc__ = """A dimension with a list of options.

Attributes:
  name: str.
  options: list of Option.
"""


class Range(collections.namedtuple('Range', [
    'name', 'low', 'high', 'is_log'])):
  """A binding whose values are numbers from low to high, both included.

  Attributes:
    name: str, the parameter.
    low, high: int if all values are to be, else float.
    is_log: bool, whether the logarithm is what is drawn evenly.
  """

  @property
  def is_integer(self):
    """Whether the values are integers."""
    return isinstance(self.low, int) and isinstance(self.high, int)

  def at(self, share):
    """The value at a share of the range, which is in [0, 1)."""
    if self.is_integer and not self.is_log:
      return self.low + int(share * (self.high - self.low + 1))
    if self.is_log:
      value = math.exp(math.log(self.low) + share * (
          math.log(self.high) - math.log(self.low)))
    else:
      value = self.low + share * (self.high - self.low)
    return self.rounded(value)

  def rounded(self, value):
    """A value as it is trained: a whole number, or one of four digits."""
    value = int(round(value)) if self.is_integer else float(
        '%.*g' % (_DIGITS, value))
    return min(max(value, self.low), self.high)


class Space:
  """All dimensions of a sweep.

  Attributes:
    dimensions: list of Options and Range: choices first, as they are bound.
  """

  def __init__(self, choices, bindings):
    """Checks what is bound.

    Args:
      choices: dict, see sweep.Sweep; or None.
      bindings: the same.

    Raises:
      UserError: if they have another form.
    """
    self.dimensions = _choices(choices) + _bindings(bindings)
    twice = [name for name in choices or () if name in (bindings or ())]
    errors.check(not twice, 'Sweep.choices and Sweep.bindings must have '
                 'different names, got %s in both.', ', '.join(twice))

  def size(self):
    """How many points there are; math.inf with a range of real numbers."""
    size = 1
    for of in self.dimensions:
      size *= (len(of.options) if isinstance(of, Options) else
               of.high - of.low + 1 if of.is_integer else math.inf)
    return size

  def ranges(self):
    """The dimensions that are a Range."""
    return [of for of in self.dimensions if isinstance(of, Range)]

  def grid(self):
    """All points, a list; the last dimension changes first. Without ranges."""
    labels = [[option.label for option in of.options]
              for of in self.dimensions]
    return [self.point(values) for values in itertools.product(*labels)]

  def corners(self):
    """Points that have every option, and both ends of every range, once."""
    ends = [[option.label for option in of.options] if isinstance(of, Options)
            else [of.low, of.high] for of in self.dimensions]
    first = [values[0] for values in ends]
    found = [self.point(first)]
    for i, values in enumerate(ends):
      found += [self.point(first[:i] + [value] + first[i + 1:])
                for value in values[1:]]
    return found

  def point(self, values):
    """The point of some values, one for each dimension."""
    return collections.OrderedDict(
        (of.name, value) for of, value in zip(self.dimensions, values))

  def parts(self, point):
    """What a point adds to an experiment.

    Args:
      point: OrderedDict.

    Returns:
      (files, lines): .gin files and lines of gin, two lists of str.
    """
    files, lines = [], []
    for of in self.dimensions:
      if isinstance(of, Range):
        lines.append('%s = %r' % (of.name, point[of.name]))
        continue
      option, = [o for o in of.options if o.label == point[of.name]]
      files += option.files
      lines += option.lines
    return files, lines

  def has(self, point):
    """Whether a point, such as one that a file has kept, is of this space."""
    return list(point) == [of.name for of in self.dimensions] and all(
        any(o.label == point[of.name] for o in of.options)
        if isinstance(of, Options) else
        of.low <= point[of.name] <= of.high for of in self.dimensions)


def _choices(choices):
  errors.check(
      choices is None or isinstance(choices, dict) and all(
          isinstance(name, str) and name and isinstance(
              of, (list, tuple, dict)) and of for name, of in choices.items()),
      "Sweep.choices must be a dict of lists or dicts, such as {'network': "
      "['gin/mmoe.gin', 'gin/cgc.gin']}, got %s.", errors.written(choices))
  return [_choice(name, of) for name, of in (choices or {}).items()]


def _choice(name, of):
  named = of.items() if isinstance(of, dict) else [(None, o) for o in of]
  binding = 'Sweep.choices[%r]' % name
  options = []
  for label, option in named:
    texts = [option] if isinstance(option, str) else option or []
    errors.check(
        (label is None or isinstance(label, str) and label) and isinstance(
            texts, (list, tuple)) and all(
                isinstance(text, str) and (text.endswith('.gin') or '=' in text)
                for text in texts),
        "%s must have paths of .gin files, lines of gin such as "
        "'PLE.num_levels = 2', lists of these, or None, got %s.", binding,
        errors.written(option))
    options.append(Option(
        label or ' + '.join(map(_short, texts)) or 'none',
        [text for text in texts if text.endswith('.gin')],
        [text for text in texts if not text.endswith('.gin')]))
  return Options(name, _different(binding, options))


def _short(text):
  return os.path.splitext(os.path.basename(text))[0] if text.endswith(
      '.gin') else ' '.join(text.split())


def _bindings(bindings):
  errors.check(
      bindings is None or isinstance(bindings, dict) and all(
          isinstance(name, str) and isinstance(of, (list, tuple, dict)) and of
          for name, of in bindings.items()),
      "Sweep.bindings must be a dict of lists or ranges, such as "
      "{'LEARNING_RATE': [0.001, 0.003], 'PLE.dropout': {'low': 0.0, 'high': "
      "0.5}}, got %s.", errors.written(bindings))
  return [_binding(name, of) for name, of in (bindings or {}).items()]


def _binding(name, of):
  binding = 'Sweep.bindings[%r]' % name
  errors.check(
      _PARAMETER.match(name), "Sweep.bindings must be of parameters or macros, "
      "such as 'PLE.dropout' or 'LEARNING_RATE', got %r.", name)
  errors.check(name not in _OWN, 'Sweep.bindings must not have %s: bind %s '
               'instead.', name, _OWN.get(name))
  if isinstance(of, dict):
    return _range(binding, name, of)
  for value in of:
    errors.check(
        _is_literal(value), '%s must be numbers, texts, True, False, None, or '
        'lists and dicts of these, got %s. An object is an option of Sweep.'
        "choices: 'Model.optimizer = @sgd'.", binding, errors.written(value))
  return Options(name, _different(binding, [
      Option(value if isinstance(value, str) else repr(value), [],
             ['%s = %r' % (name, value)]) for value in of]))


def _range(binding, name, of):
  low, high, is_log = [of.get(key) for key in _RANGE]
  fits = errors.is_number(low) and errors.is_number(high) and low < high
  errors.check(
      fits and set(of) <= set(_RANGE) and is_log in (None, True, False) and
      (not is_log or low > 0),
      "%s must be a range such as {'low': 1e-4, 'high': 1e-2, 'log': True}, "
      "low below high, and above 0 with 'log': True, got %s.", binding,
      errors.written(of))
  found = Range(name, low, high, bool(is_log))
  return found if found.is_integer else found._replace(
      low=float(low), high=float(high))


def _is_literal(value):
  if isinstance(value, (list, tuple)):
    return all(map(_is_literal, value))
  if isinstance(value, dict):
    return all(map(_is_literal, list(value) + list(value.values())))
  return value is None or isinstance(
      value, (bool, str)) or errors.is_number(value)


def _different(binding, options):
  labels = [option.label for option in options]
  twice = sorted({label for label in labels if labels.count(label) > 1})
  errors.check(not twice, '%s must have different options, got %s twice.',
               binding, ', '.join(twice))
  return options
