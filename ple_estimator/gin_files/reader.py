"""Walks through .gin files and what they include, each of them once."""

import collections
import io
import os
import sys
import tokenize

from gin import config_parser

from ple_estimator import errors
from ple_estimator.gin_files import messages
from ple_estimator.gin_files import places
from ple_estimator.gin_files import statements


class Reader:
  """Walks through files and what they include, each once.

  Attributes:
    sources: OrderedDict of real path to statements.Source, the files.
    segments: list of (statements.Source, text), what gin parses, in this
      order: the lines of a file between two includes, each on its own line of
      the text.
    bindings: list of statements.Binding in the same order.
  """

  def __init__(self):
    self.sources = collections.OrderedDict()
    self.segments = []
    self.bindings = []
    self._unfinished = []

  def read_file(self, path):
    """Reads a file that the user asks for; returns its name without .gin."""
    found = places.find(
        path, [os.curdir, places.root()],
        '--gin_file must name an existing file, got %r' % path)
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
        self.bindings.append(statements.binding_of(source, statement))
    self._end_segment(source, begin, sys.maxsize, imports)
    self._unfinished.pop()

  def _end_segment(self, source, begin, end, imports):
    """Adds lines begin to end - 1, and what they may need: earlier imports."""
    self.segments.append((source, ''.join(
        text if begin <= line < end or line in imports else '\n'
        for line, text in enumerate(io.StringIO(source.text), 1))))

  def _include(self, source, line, path):
    beside = os.path.dirname(source.path) if source.path else os.curdir
    with messages.at(source, line):
      found = places.find(path, [beside, os.curdir, places.root()],
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
    name = places.displayed(path)
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
    source = statements.Source(name, path, text)
    self.sources[os.path.realpath(path)] = source
    return source


# The statements of texts of files that a process has read before: a sweep, or
# a notebook, loads gin/base.gin once for every run.
_known = {}


def _statements(source):
  """Yields gin's statements, each with the line on which the next may start.

  Raises:
    UserError: if gin cannot parse the text.
  """
  if source.text in _known:
    yield from _known[source.text]
    return
  line, found = 1, []
  try:
    parser = config_parser.ConfigParser(source.text, statements.Delegate())
    while True:
      line = parser.current_token.start[0]
      statement = parser.parse_statement()
      if statement is None:
        break
      found.append((statement, parser.current_token.start[0]))
      yield found[-1]
    if source.path:
      _known[source.text] = found
  except tokenize.TokenError as error:
    message, (line, _) = error.args
    if 'statement' in message:
      message, line = _open_bracket(source.text)
      message = message or 'The last line must not end in a backslash.'
    raise messages.located(source, line, message)
  except SyntaxError as error:
    line, message = messages.syntax(error)
    bracket, begin = _open_bracket(source.text)
    if bracket and begin <= line:  # and so took what follows for a value
      raise messages.located(source, begin, bracket)
    raise messages.located(source, line, message, quote=True)
  except StopIteration:
    raise messages.located(source, line, 'The statement has no end.')


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
