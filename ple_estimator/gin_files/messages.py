"""What is said of a mistake in a .gin file: one line, its place, what to do."""

import ast
import collections
import contextlib
import re

from ple_estimator import errors

# Where gin starts what it adds to the message of an error.
_ADDED_BY_GIN = re.compile(
    r'\n  (In (file|bindings string|call to configurable)|No values supplied)| '
    r'in config string:')


_VALUES = ("a value is a number, a text in quotes, True, False, None, a list, "
           "a tuple, a dict, @name, @name() or %MACRO")


# What to do about an error of gin's, by how its message starts.
_ADVICE = collections.OrderedDict([
    ('No configurable matching',
     'check the spelling, or import the module that registers it'),
    ('No module named', 'modules are looked for in the current folder and in '
     'PYTHONPATH'),
    ('Ambiguous selector', 'give your own another name, or write more of it, '
     'with its module'),
    ('Unable to parse value', _VALUES),
    ('Failed to parse token', _VALUES),
    ("Couldn't parse statement", 'a line is NAME = value, Class.parameter = '
     'value, Class: before indented lines, include or import'),
    ('Unexpected token', 'a name is expected'),
    ('Expected newline', 'a line has one statement, and a value is no '
     'expression'),
    ('EOF in multi-line string', 'a text that three quotes begin ends with '
     'three quotes'),
    ('Malformatted scope or selector',
     'a name is scope/Class.parameter, without spaces'),
    ('Expected indentation',
     'the parameters of a block stand indented below it'),
])


def syntax(error):
  """Returns (line, message) of a SyntaxError of gin's or of tokenize's."""
  message, location = (tuple(error.args) + ('', None))[:2]
  message = joined(str(message))
  if 'Failed to parse token' in message:  # not what ast says of it
    message = message[message.index('Failed to parse token'):]
  return location[1] if location else 1, message


def located(source, line, message, quote=False):
  """Returns a UserError that names the place and what to do.

  Args:
    source: statements.Source.
    line: int.
    message: str.
    quote: bool, whether to say what stands in the line.
  """
  advice = next((advice for start, advice in _ADVICE.items()
                 if message.startswith(start)), None)
  message = message.rstrip('.')
  if quote and source.name:
    message += ' in %r' % source.quote(line)
  return errors.UserError('%s: %s%s' % (
      source.place(line), '; '.join(filter(None, [message, advice])),
      '' if message.endswith('?') else '.'))


@contextlib.contextmanager
def at(source, line):
  """Adds the place to a UserError."""
  try:
    yield
  except errors.UserError as error:
    raise errors.UserError('%s: %s' % (source.place(line), error)) from None


def joined(text):
  """The text on one line."""
  return ' '.join(text.split())


def plain(error):
  """The message of an error on one line, without what gin adds to it."""
  text = str(error)
  found = _ADDED_BY_GIN.search(text)
  text = text[:found.start()] if found else text
  if isinstance(error, KeyError):  # whose text is a literal
    with contextlib.suppress(ValueError, SyntaxError):
      text = str(ast.literal_eval(text))
  return joined(text) or type(error).__name__
