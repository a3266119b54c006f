"""Configuration: reads .gin files, puts them together and checks them.

Several files make one configuration. Each file is parsed once, where it is
named or included first, however often it is included after that; of two
bindings of one parameter the later one counts. So a file that is built on
gin/base.gin can be put after another one that is, and undoes nothing of it but
what it binds itself.

A file is read twice, both times by gin's own parser: first without looking
anything up, to find its includes and the place of every statement, and then by
gin.parse_config, which imports, registers and binds. What gin lets pass is
refused here: macros and bindings that nothing reads. A mistake is a UserError
of one line that names the file and the line.
"""

import ast
import collections
import contextlib
import difflib
import inspect
import io
import os
import re
import sys
import tokenize

from absl import logging
import gin
from gin import config_parser

# No warnings of TensorFlow's C++: lines about its build, and a stack of fifty
# lines for an error of the input, which is told in one.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

# pylint: disable=wrong-import-position
from ple_estimator import errors

# Whoever loads it has registered all that a .gin file can name.
from ple_estimator import experiment  # noqa: F401

# pylint: enable=wrong-import-position

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_STARTS = ('base.gin', 'taobao.gin')  # of gin/, what all others change
_LONGEST_VALUE = 60  # characters of a value in a line of the log
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
# What a constructor may raise over a value that is bound to it.
_MISTAKES = (ValueError, TypeError, NameError, ImportError, SyntaxError,
             AttributeError, RuntimeError, OSError, LookupError,
             ArithmeticError)


def root():
  """The folder that holds gin/: the checkout, or the installed package."""
  checkout = os.path.dirname(_PACKAGE)
  return next((path for path in (checkout, _PACKAGE)
               if os.path.exists(os.path.join(path, 'gin', 'base.gin'))),
              checkout)


class Config:
  """What `load` has read.

  Attributes:
    name: str, the names of the files that were asked for, e.g. 'shop-mmoe'.
    files: list of str, all files in the order they were started, as messages
      name them.
    overrides: list of str, a line for every binding that the log tells of.
  """

  def __init__(self, name, sources, bindings):
    self.name = name
    self.files = [source.name for source in sources]
    self.overrides = _overrides(bindings)
    self._in_force = collections.OrderedDict(
        (binding.key(), binding) for binding in bindings)

  def where(self, parameter):
    """The place of the one binding of a parameter, e.g. 'PLE.num_levels'.

    Returns:
      str, such as 'gin/mmoe.gin line 5', of the macro if the value is one; None
      if nothing binds the parameter, or several scopes do.
    """
    found = [b for b in self._in_force.values() if b.is_of(parameter)]
    if len(found) != 1:
      return None
    binding = found[0]
    if isinstance(binding.value, _Macro):
      binding = self._in_force.get(('', '', binding.value.name), binding)
    return binding.place()


_in_force = None  # the Config that gin holds, once one was loaded


def is_in_force(loaded):
  """Whether a Config is the one that was loaded last in this process."""
  return loaded is _in_force


def load(gin_files, bindings=(), roots=('Experiment',)):
  """Parses, checks and locks the configuration of one run.

  What was configured before is cleared first, so that a process can have one
  run after another.

  Args:
    gin_files: path of a .gin file or list of such paths, from the working
      directory or from where the package keeps its own.
    bindings: list of str, lines of gin that win over the files.
    roots: names of the classes that the caller builds.

  Returns:
    Config. Experiment.model_dir is bound to result/<Config.name> unless a file
    or a binding says otherwise.

  Raises:
    UserError: if a file does not exist or cannot be parsed, or something is
      bound that does not exist or that nothing reads.
  """
  global _in_force
  _in_force = None
  gin.clear_config()
  if os.getcwd() not in sys.path and '' not in sys.path:
    sys.path.append(os.getcwd())  # a script does not have it, python -m does
  gin_files = [gin_files] if isinstance(gin_files, str) else list(gin_files)
  errors.check(gin_files, '--gin_file must name a .gin file, got none.')
  reader = _Reader()
  names = [reader.read_file(path) for path in gin_files]
  for binding in bindings:
    reader.read(_Source(None, None, binding))
  name = '-'.join(collections.OrderedDict.fromkeys(names))
  gin.bind_parameter('Experiment.model_dir', os.path.join('result', name))
  for segment in reader.segments:
    _apply(segment, reader.bindings)
  _check_macros(reader.bindings)
  _check_used(reader.bindings, roots)
  config = Config(name, reader.sources.values(), reader.bindings)
  with explained(config):
    gin.finalize()
  for line in config.overrides:
    logging.info('%s', line)
  _in_force = config
  return config


@contextlib.contextmanager
def explained(config):
  """Turns what the building of objects raises into a UserError of one line.

  Args:
    config: Config.

  Raises:
    UserError: that names the place of the binding, if it can be told.
  """
  try:
    yield
  except RecursionError as error:
    raise errors.UserError(
        'Bindings must not refer to each other in a circle, as A = %B and B = '
        '%A do, or an object that is built from itself.') from error
  except _MISTAKES as error:
    logging.debug('Where it was raised:', exc_info=True)
    message = _plain(error)
    place = config.where(message.split(' ')[0])
    if not isinstance(error, errors.UserError):
      message = _of_building(message, str(error))
    raise errors.UserError(
        '%s: %s' % (place, message) if place else message) from error


def _of_building(message, text):
  """A message that is not ours, with the class that it is about.

  Args:
    message: str.
    text: str, the same with what gin adds.
  """
  missing = re.match(r'Required bindings for `(.*)` not provided in config: '
                     r'\[(.*)\]', message)
  if missing:
    name = missing.group(1)
    return '%s must be bound.%s' % (
        ', '.join('%s.%s' % (name, parameter.strip(" '"))
                  for parameter in missing.group(2).split(',')),
        " Does a file include 'gin/base.gin'?" if name == 'Experiment' else '')
  built = re.search(r"In call to configurable '([\w.]+)'", text)
  if built:
    return ('%s cannot be built: %s. Check what is bound to it: @name() is an '
            'object, @name the class or function itself.' % (
                built.group(1), message.rstrip('.')))
  return message


# ------------------------------------------------------------ reading files


class _Reference:
  """@name or @name(), not looked up."""

  def __init__(self, name, evaluate):
    self.name = name
    self._evaluate = evaluate

  def __repr__(self):
    return '@%s%s' % (self.name, '()' if self._evaluate else '')


class _Macro:
  """%NAME, not looked up."""

  def __init__(self, name):
    self.name = name

  def __repr__(self):
    return '%' + self.name


class _Delegate(config_parser.ParserDelegate):
  """Has gin's parser make the above, whether or not the names exist."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    return _Reference(scoped_configurable_name, evaluate)

  def macro(self, macro_name):
    return _Macro(macro_name)


class _Source:
  """A file, or a line of the command line.

  Attributes:
    name: str, as messages name a file; None for a line.
    path: str; None for a line.
    text: str.
    includes: list of the _Source that it includes.
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


class _Binding(collections.namedtuple(
    '_Binding', ['source', 'line', 'scope', 'selector', 'arg', 'value'])):
  """One statement `scope/selector.arg = value`; a macro has an arg only."""

  def place(self):
    return self.source.place(self.line)

  def key(self):
    """Equal for two bindings of one parameter, whatever they call its class."""
    return self.scope, _complete(self.selector), self.arg

  def is_of(self, parameter):
    """Whether it binds 'Class.parameter', in any scope unless it names one."""
    scope, _, parameter = parameter.rpartition('/')
    return (self.selector.rpartition('.')[2] + '.' + self.arg == parameter and
            scope in ('', self.scope))

  def __str__(self):
    value = repr(self.value)
    if len(value) > _LONGEST_VALUE:
      value = value[:_LONGEST_VALUE - 3] + '...'
    owner = '/'.join(filter(None, [self.scope, self.selector]))
    return '%s = %s' % ('.'.join(filter(None, [owner, self.arg])), value)

  def values(self, kind):
    """Yields all _Reference or _Macro in its value."""
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


class _Reader:
  """Walks through files and what they include, each once.

  Attributes:
    sources: OrderedDict of real path to _Source, the files.
    segments: list of (_Source, text), what gin is to parse, in this order: the
      lines of a file between two includes, each on its own line of the text.
    bindings: list of _Binding in the same order.
  """

  def __init__(self):
    self.sources = collections.OrderedDict()
    self.segments = []
    self.bindings = []
    self._unfinished = []

  def read_file(self, path):
    """Reads a file that the user asks for; returns its name without .gin."""
    found = _find(path, [os.curdir, root()], '--gin_file must name an existing '
                  'file, got %r' % path)
    if os.path.realpath(found) not in self.sources:
      self.read(self._open(found))
    return os.path.splitext(os.path.basename(path))[0]

  def read(self, source):
    """Adds the statements of a source and of what it includes."""
    self._unfinished.append(source)
    begin, imports = 1, set()
    for statement, after in _statements(source):
      line = statement.location.line_num
      if isinstance(statement, config_parser.IncludeStatement):
        self._end_segment(source, begin, line, imports)
        self._include(source, line, statement.filename)
        begin = after
      elif isinstance(statement, config_parser.ImportStatement):
        imports.update(range(line, after))
      elif isinstance(statement, config_parser.BindingStatement):
        self.bindings.append(_binding(source, statement))
    self._end_segment(source, begin, sys.maxsize, imports)
    self._unfinished.pop()

  def _end_segment(self, source, begin, end, imports):
    """Adds lines begin to end - 1, and what they may need: earlier imports."""
    self.segments.append((source, ''.join(
        text if begin <= line < end or line in imports else '\n'
        for line, text in enumerate(io.StringIO(source.text), 1))))

  def _include(self, source, line, path):
    beside = os.path.dirname(source.path) if source.path else os.curdir
    with _at(source, line):
      found = _find(path, [beside, os.curdir, root()],
                    'include %r must name an existing file' % path)
      included = self.sources.get(os.path.realpath(found))
      errors.check(
          included is None or included not in self._unfinished,
          'include %r must not lead back to a file that includes this one.',
          path)
      is_new = included is None
      included = included or self._open(found)
    source.includes.append(included)
    if is_new:
      self.read(included)

  def _open(self, path):
    name = _displayed(path)
    try:
      with io.open(path, encoding='utf-8-sig') as f:
        text = f.read()
      errors.check('\0' not in text, '%s must be text, got a binary file.',
                   name)
    except UnicodeDecodeError:
      raise errors.UserError('%s must be text in UTF-8.' % name) from None
    except OSError as error:
      raise errors.UserError(
          '%s cannot be read: %s.' % (name, error.strerror)) from None
    source = self.sources[os.path.realpath(path)] = _Source(name, path, text)
    return source


def _find(path, folders, message):
  """Returns the first of folders/path that is a file, or raises UserError."""
  places = [os.path.normpath(os.path.join(folder, path)) for folder in folders]
  places = list(collections.OrderedDict.fromkeys(map(os.path.abspath, places)))
  found = [place for place in places
           if os.path.exists(place) and not os.path.isdir(place)]
  errors.check(found, '%s; looked for %s%s.', message, ', '.join(places),
               ' (a folder)' if any(map(os.path.isdir, places)) else '')
  return found[0]


def _displayed(path):
  """The path as messages have it: from here or from the root, if below."""
  for folder in (os.getcwd(), root()):
    relative = os.path.relpath(path, folder)
    if not relative.startswith(os.pardir):
      return relative
  return path


def _binding(source, statement):
  """Returns the _Binding of gin's BindingStatement."""
  scope, selector, arg, value, location = statement
  if not arg:  # NAME = value, or scope/NAME = value
    arg = '/'.join(filter(None, [scope, selector]))
    scope = selector = ''
  elif selector in ('macro', 'gin.macro') and arg == 'value':
    scope, selector, arg = '', '', scope  # NAME/macro.value = value
  return _Binding(source, location.line_num, scope, selector, arg, value)


def _statements(source):
  """Yields gin's statements, each with the line on which the next may start.

  Raises:
    UserError: if gin cannot parse the text.
  """
  line = 1
  try:
    parser = config_parser.ConfigParser(source.text, _Delegate())
    while True:
      line = parser.current_token.start[0]
      statement = parser.parse_statement()
      if statement is None:
        return
      yield statement, parser.current_token.start[0]
  except tokenize.TokenError as error:
    message, (line, _) = error.args
    if 'statement' in message:
      message, line = _open_bracket(source.text)
      message = message or 'The last line must not end in a backslash.'
    raise _located(source, line, message)
  except SyntaxError as error:
    line, message = _syntax(error)
    bracket, begin = _open_bracket(source.text)
    if bracket and begin <= line:  # and so took what follows for a value
      raise _located(source, begin, bracket)
    raise _located(source, line, message, quote=True)
  except StopIteration:
    raise _located(source, line, 'The statement has no end.')


def _open_bracket(text):
  """Returns (message, line) of the innermost bracket that is never closed.

  If there is none, message is None and line is the last.
  """
  brackets = []
  try:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
      if token.type == tokenize.OP and token.string in '([{':
        brackets.append(token)
      elif token.type == tokenize.OP and token.string in ')]}' and brackets:
        brackets.pop()
  except (tokenize.TokenError, SyntaxError):
    pass
  if not brackets:
    return None, text.count('\n') + 1
  return ('The bracket %s must be closed.' % brackets[-1].string,
          brackets[-1].start[0])


# ------------------------------------------------------------------- errors


def _syntax(error):
  """Returns (line, message) of a SyntaxError of gin's or of tokenize's."""
  message, location = (tuple(error.args) + ('', None))[:2]
  message = _joined(str(message))
  if 'Failed to parse token' in message:  # not what ast says of it
    message = message[message.index('Failed to parse token'):]
  return location[1] if location else 1, message


def _located(source, line, message, quote=False):
  """Returns a UserError that names the place and what to do.

  Args:
    source: _Source.
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
def _at(source, line):
  """Adds the place to a UserError."""
  try:
    yield
  except errors.UserError as error:
    raise errors.UserError('%s: %s' % (source.place(line), error)) from None


def _joined(text):
  """The text on one line."""
  return ' '.join(text.split())


def _plain(error):
  """The message of an error on one line, without what gin adds to it."""
  text = str(error)
  found = _ADDED_BY_GIN.search(text)
  text = text[:found.start()] if found else text
  if isinstance(error, KeyError):  # whose text is a literal
    with contextlib.suppress(ValueError, SyntaxError):
      text = str(ast.literal_eval(text))
  return _joined(text) or type(error).__name__


# ------------------------------------------------------- applying and checks


def _apply(segment, bindings):
  """Has gin import what a segment imports and bind what it binds.

  Args:
    segment: (_Source, text).
    bindings: list of _Binding, of all sources.

  Raises:
    UserError: if a name does not exist, or an import fails.
  """
  source, text = segment
  lines = io.StringIO(text)
  lines.name = source.name or ''
  try:
    gin.parse_config(lines)
  except SyntaxError as error:
    logging.debug('Where it was raised:', exc_info=True)
    line, message = _syntax(error)
    place = error.args[1][0] if len(error.args) > 1 else None
    if place != source.name:  # in a module that is imported
      raise errors.UserError('%s line %d: %s.' % (
          _displayed(place or '?'), line, message.rstrip('.'))) from error
    raise _located(source, line, message, quote=True) from error
  except Exception as error:  # pylint: disable=broad-except
    # A module of the user's may raise anything when it is imported.
    logging.debug('Where it was raised:', exc_info=True)
    places = re.findall(r'\n  In (?:file "[^\n]*",|bindings string) line (\d+)',
                        str(error))
    line = int(places[-1]) if places else 1
    message = _plain(error)
    is_import = source.quote(line).split(' ')[0] in ('import', 'from')
    if is_import and not isinstance(error, ImportError):
      message = 'The import failed with %s: %s' % (
          type(error).__name__, message)
    if message.startswith('Configurable') and "doesn't have" in message:
      message += _parameters([b for b in bindings if b.source is source
                              and b.line == line])
    raise _located(source, line, message) from error


def _parameters(bindings):
  """What the class of a binding that was refused can be bound, in words."""
  for binding in bindings:
    made = gin.get_configurable(binding.selector)
    known = list(inspect.signature(
        made.__init__ if inspect.isclass(made) else made).parameters)
    known = [name for name in known if name != 'self']
    close = difflib.get_close_matches(binding.arg, known, 1)
    if close:
      return ' Did you mean %s?' % close[0]
    return ' It has %s.' % (', '.join(known) or 'none')
  return ''


def _complete(selector):
  """A name of the class of a selector, with or without its module."""
  if selector:
    with contextlib.suppress(Exception):  # known in its own file alone
      made = gin.get_configurable(selector)
      return '%s %s %s' % (made.__module__, made.__qualname__,
                           selector.rpartition('.')[2])
  return selector


def _check_macros(bindings):
  """Refuses macros that nothing reads, and reading what is no macro."""
  bound = {b.arg: b for b in bindings if not b.selector}
  read = {m.name for b in bindings for m in b.values(_Macro)}
  for binding in bindings:  # @NAME/macro() is %NAME
    read |= {r.name.rpartition('/')[0] for r in binding.values(_Reference)
             if r.name.rpartition('/')[2] in ('macro', 'gin.macro')}
  for name, binding in bound.items():
    errors.check(name in read, '%s: Macros must be read somewhere (%%%s), got '
                 'unread %s; check the spelling%s.', binding.place(), name,
                 name, _similar(name, read))
  for binding in {b.key(): b for b in bindings}.values():
    for macro in binding.values(_Macro):
      errors.check(macro.name in bound or _is_constant(macro.name),
                   '%s: Macros must be bound (%s = ...), got unbound %r in %s'
                   '%s.', binding.place(), macro.name, macro, binding,
                   _similar(macro.name, bound))


def _is_constant(name):
  """Whether Python defines the value of %name, as that of %gin.REQUIRED."""
  return gin.config.ParserDelegate().macro(name).selector == 'gin.constant'


def _check_used(bindings, roots):
  """Refuses what gin lets pass: bindings of what nothing refers to.

  References in bindings that are overridden count too: an override may leave
  the bindings of what it replaces unused.
  """
  references = {r.name for b in bindings for r in b.values(_Reference)}
  used = set(roots)
  for reference in references:
    scopes = reference.split('/')
    name = scopes.pop()
    used |= {scope + '/' for scope in scopes} | set(name.split('.')[-2:])
  for binding in bindings:
    scopes = {scope + '/' for scope in binding.scope.split('/') if scope}
    name = '/'.join(filter(None, [binding.scope, binding.selector]))
    errors.check(
        not binding.selector or scopes <= used and
        not used.isdisjoint(binding.selector.split('.')[-2:]),
        '%s: Bindings must be of something that is used, got unused %s; check '
        'the spelling, or bind it where it is meant to be used (@%s)%s.',
        binding.place(), name, name, _similar(name, references))


def _similar(name, known):
  found = difflib.get_close_matches(name, sorted(known), 2)
  return ' (did you mean %s?)' % ' or '.join(found) if found else ''


def _overrides(bindings):
  """A line per binding that two files have that are no part of each other.

  What a file changes of gin/base.gin, or of a file that it includes, is what it
  is for, and a line of the command line is what the user has just typed: the
  log tells of neither.
  """
  starts = [os.path.join(root(), 'gin', name) for name in _STARTS]
  in_force, lines = collections.OrderedDict(), []
  for binding in bindings:
    before, source = in_force.get(binding.key()), binding.source
    in_force[binding.key()] = binding
    if (before and source.name and before.source is not source and
        not source.has(before.source) and before.source.path not in starts and
        repr(binding.value) != repr(before.value)):
      lines.append('%s: %s (was %s, %s)' % (
          binding.place(), binding, str(before).partition(' = ')[2],
          before.place()))
  return lines
