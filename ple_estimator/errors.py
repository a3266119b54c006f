"""UserError, the one kind of error that a user can correct.

Also the checks of what a user binds. Each raises that error with a line such as
`PLE.dropout must be a number in [0, 1), got 'x'.`
"""

import contextlib
import inspect
import re
import struct

# The largest int64 and float32, and the smallest positive float32 that is not
# denormal: TensorFlow takes denormal numbers for 0.
_LARGEST_INT = 2**63 - 1
_LARGEST = (2 - 2**-23) * 2.0**127
_SMALLEST = 2.0**-126
_LONGEST = 200  # characters of a value in a message


class UserError(ValueError):
  """A mistake in a binding, a file or a model_dir, and the way out.

  The message is all a user needs: run.py prints it without a stack and exits
  with status 1.
  """


def check(condition, message, *args):
  """Raises UserError(message % args) unless condition holds."""
  if not condition:
    raise UserError(message % args if args else message)


def check_integer(binding, value, least, most=_LARGEST_INT, or_none=False):
  """Raises UserError unless a binding holds an int of at least `least`.

  True and False are no integers here, although Python takes them for 1 and 0.

  Args:
    binding: str, e.g. 'PLE.num_levels'.
    value: what it is bound to.
    least: int.
    most: int, by default the largest that TensorFlow knows.
    or_none: bool, whether it may also be None.
  """
  if value is None and or_none:
    return
  fits = isinstance(value, int) and not isinstance(value, bool)
  bounds = ('of at least %d' % least if most == _LARGEST_INT and not (
      fits and value > most) else 'from %d to %d' % (least, most))
  _check_value(fits and least <= value <= most, binding,
               'an integer ' + bounds, value, or_none)


def is_count(value):
  """Whether a binding holds a positive int, and no bool."""
  return isinstance(value, int) and value > 0 and not isinstance(value, bool)


def is_number(value):
  """Whether a binding holds a number that TensorFlow can hold, and no bool."""
  if isinstance(value, int):
    return abs(value) <= _LARGEST_INT and not isinstance(value, bool)
  return isinstance(value, float) and abs(value) <= _LARGEST


def check_number(binding, value, least=None, above=None, most=None, below=None,
                 or_none=False):
  """Raises UserError unless a binding holds a finite number in some bounds.

  What counts is the number that the network computes with, a float32: 1e39 is
  infinite, 1e-46 is 0, and 0.99999999 is 1.

  Args:
    binding: str, e.g. 'PLE.dropout'.
    value: what it is bound to.
    least: the smallest number allowed; None is no bound, as in what follows.
    above: a number that the value must be larger than.
    most: the largest number allowed.
    below: a number that the value must be smaller than.
    or_none: bool, whether it may also be None.
  """
  if value is None and or_none:
    return
  fits = is_number(value)
  if fits:
    single = _float32(value)
    fits = ((least is None or single >= least) and
            (above is None or single > above) and
            (most is None or single <= most) and
            (below is None or single < below))
  _check_value(fits, binding, _number_in_words(least, above, most, below),
               value, or_none)


def check_bool(binding, value):
  """Raises UserError unless a binding holds True or False."""
  _check_value(isinstance(value, bool), binding, 'True or False', value)


def check_text(binding, value, or_none=False):
  """Raises UserError unless a binding holds a text that is not empty."""
  if value is not None or not or_none:
    _check_value(isinstance(value, str) and value, binding,
                 'a text in quotes', value, or_none)


def check_choice(binding, value, choices):
  """Raises UserError unless a binding holds one of some texts.

  Args:
    binding: str, e.g. 'Precision.compute'.
    value: what it is bound to.
    choices: list of str, as the message names them.
  """
  words = [repr(choice) for choice in choices]
  _check_value(
      isinstance(value, str) and value in choices, binding,
      ' or '.join(filter(None, [', '.join(words[:-1]), words[-1]])), value)


def check_list(binding, value, is_item, items, may_be_empty=False):
  """Raises UserError unless a binding holds a list or tuple of some items.

  Args:
    binding: str, e.g. 'Tower.units'.
    value: what it is bound to.
    is_item: function of an item to bool, whether it is allowed.
    items: str, what they must be and an example, for the message: 'positive
      integers, such as (64,)'.
    may_be_empty: bool, whether there may be none.
  """
  _check_value(
      isinstance(value, (list, tuple)) and (value or may_be_empty) and
      all(map(is_item, value)), binding, 'a list of ' + items, value)


def check_is_a(binding, value, kind, example, own=(), or_none=False):
  """Raises UserError unless a binding holds an object of a kind.

  Args:
    binding: str, e.g. 'Model.network'.
    value: what it is bound to.
    kind: the class that it must be of, or a tuple of classes.
    example: str, how a .gin file writes it: '@PLE()'.
    own: names, such as ('__call__', 'groups'), if an object or function of the
      user's own will do that has them; an object of this package has to be of
      the kind.
    or_none: bool, whether it may also be None.
  """
  if value is None and or_none:
    return
  # A class has the methods of its objects too, but it is not one of them.
  fits = isinstance(value, kind) or bool(own) and not (
      inspect.isclass(value) or _is_of_this_package(value)) and all(
          hasattr(value, name) for name in own)
  _check_value(fits, binding, 'an object such as %s' % example, value, or_none)


def _is_of_this_package(value):
  made = value if inspect.isroutine(value) else type(value)
  return (made.__module__ or '').startswith(__name__.partition('.')[0] + '.')


def check_function(binding, value, result, example):
  """Raises UserError unless a binding holds something that can be called.

  Args:
    binding: str, e.g. 'Model.optimizer'.
    value: what it is bound to.
    result: the class of what it is to return; itself such a function, as are
      its subclasses, but no other class is.
    example: str, how a .gin file writes it: '@adam'.
  """
  _check_value(
      issubclass(value, result) if inspect.isclass(value) else callable(value),
      binding, 'a function that is not called yet, such as %s' % example, value)


def written(value):
  """What a binding holds, on one line, as a .gin file would have it."""
  if inspect.isclass(value) or inspect.isroutine(value):
    return '@' + getattr(value, '__name__', 'a function')
  text = ' '.join(repr(value).split())
  if re.match(r'<.* at 0x[0-9a-f]+>$', text):  # says nothing to a user
    return '@%s()' % type(value).__name__
  return text if len(text) <= _LONGEST else text[:_LONGEST - 3] + '...'


def _check_value(holds, binding, wanted, value, or_none=False):
  if not holds:
    raise UserError('%s must be %s%s, got %s.' % (
        binding, wanted, ' or None' if or_none else '', written(value)))


def _number_in_words(least, above, most, below):
  """The bounds of check_number, e.g. 'a number in [0, 1)'."""
  low = least if above is None else above
  high = most if below is None else below
  if low is None and high is None:
    return 'a finite number'
  if low is not None and high is not None:
    return 'a number in %s%g, %g%s' % (
        '[' if above is None else '(', low, high, ']' if below is None else ')')
  if high is None:
    return ('a finite number of at least %g' % low if above is None else
            'a finite number above %g' % low)
  return ('a finite number of at most %g' % high if below is None else
          'a finite number below %g' % high)


def _float32(value):
  """The float32 next to a number; 0 for those that kernels take for 0."""
  single, = struct.unpack('f', struct.pack('f', value))
  return single if abs(single) >= _SMALLEST else 0.0


@contextlib.contextmanager
def translated(*translators):
  """Raises a UserError in place of an error that a translator knows.

  Args:
    *translators: functions of an exception to a UserError, or to None if they
      do not know it; the first that knows it counts.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    for translate in translators:
      known = translate(error)
      if known is not None:
        raise known from error
    raise
