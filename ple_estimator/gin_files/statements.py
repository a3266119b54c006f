"""The statements of .gin files as data, before anything is looked up."""

import collections
import contextlib

import gin
from gin import config_parser

_LONGEST_VALUE = 60  # characters of a value in a line of the log


class Reference:
  """@name or @name(), not looked up."""

  def __init__(self, name, evaluate):
    self.name = name
    self.evaluate = evaluate

  def __repr__(self):
    return '@%s%s' % (self.name, '()' if self.evaluate else '')


class Macro:
  """%NAME, not looked up."""

  def __init__(self, name):
    self.name = name

  def __repr__(self):
    return '%' + self.name


class Delegate(config_parser.ParserDelegate):
  """Has gin's parser make the above, whether or not the names exist."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    return Reference(scoped_configurable_name, evaluate)

  def macro(self, macro_name):
    return Macro(macro_name)


class Source:
  """A file, or a line of the command line.

  Attributes:
    name: str, as messages name a file; None for a line.
    path: str; None for a line.
    text: str.
    includes: list of the Source that it includes.
  """

  def __init__(self, name, path, text):
    self.name = name
    self.path = path
    self.text = text
    self.includes = []

  def place(self, line):
    """A line of it in words."""
    if self.name is None:
      return 'binding %r' % self.text.strip()
    return '%s line %d' % (self.name, line)

  def has(self, other):
    """Whether it includes another one, or includes one that does."""
    return any(one is other or one.has(other) for one in self.includes)

  def quote(self, line):
    """What a line says."""
    lines = self.text.split('\n')
    return lines[line - 1].strip() if line <= len(lines) else ''


class Binding(collections.namedtuple(
    'Binding', ['source', 'line', 'scope', 'selector', 'arg', 'value'])):
  """One statement `scope/selector.arg = value`; a macro has an arg only."""

  def place(self):
    return self.source.place(self.line)

  def name(self):
    """What it binds, such as 'ctr/Task.weight', or the name of a macro."""
    owner = '/'.join(filter(None, [self.scope, self.selector]))
    return '.'.join(filter(None, [owner, self.arg]))

  def key(self):
    """Equal for two bindings of one parameter, whatever they call its class."""
    return self.scope, complete(self.selector), self.arg

  def is_of(self, parameter):
    """Whether it binds 'Class.parameter', in any scope unless it names one."""
    scope, _, parameter = parameter.rpartition('/')
    return (self.selector.rpartition('.')[2] + '.' + self.arg == parameter and
            scope in ('', self.scope))

  def __str__(self):
    value = repr(self.value)
    if len(value) > _LONGEST_VALUE:
      value = value[:_LONGEST_VALUE - 3] + '...'
    return '%s = %s' % (self.name(), value)

  def values(self, kind):
    """Yields all Reference or Macro in its value."""
    def search(value):
      if isinstance(value, kind):
        yield value
      elif isinstance(value, dict):
        for pair in value.items():
          yield from search(pair)
      elif isinstance(value, (list, tuple)):
        for item in value:
          yield from search(item)
    return search(self.value)


def binding_of(source, statement):
  """Returns the Binding of gin's BindingStatement."""
  scope, selector, arg, value, location = statement
  if not arg:  # NAME = value, or scope/NAME = value
    arg = '/'.join(filter(None, [scope, selector]))
    scope = selector = ''
  elif selector in ('macro', 'gin.macro') and arg == 'value':
    scope, selector, arg = '', '', scope  # NAME/macro.value = value
  return Binding(source, location.line_num, scope, selector, arg, value)


def complete(selector):
  """A name of the class of a selector, with or without its module."""
  if selector:
    with contextlib.suppress(Exception):  # known in its own file alone
      made = gin.get_configurable(selector)
      return '%s %s %s' % (made.__module__, made.__qualname__,
                           selector.rpartition('.')[2])
  return selector
