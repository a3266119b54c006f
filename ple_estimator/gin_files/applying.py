"""Has gin import and bind what the files say."""

import difflib
import inspect
import io
import re

from absl import logging
import gin

from ple_estimator import errors
from ple_estimator.gin_files import messages
from ple_estimator.gin_files import places


def apply(segment, bindings):
  """Has gin import what a segment imports and bind what it binds.

  Args:
    segment: (statements.Source, text).
    bindings: list of statements.Binding, of all sources.

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
    line, message = messages.syntax(error)
    place = error.args[1][0] if len(error.args) > 1 else None
    if place != source.name:  # in a module that is imported
      raise errors.UserError('%s line %d: %s.' % (
          places.displayed(place or '?'), line, message.rstrip('.'))) from error
    raise messages.located(source, line, message, quote=True) from error
  except Exception as error:  # pylint: disable=broad-except
    # A module of the user's may raise anything when it is imported.
    logging.debug('Where it was raised:', exc_info=True)
    lines_named = re.findall(
        r'\n  In (?:file "[^\n]*",|bindings string) line (\d+)', str(error))
    line = int(lines_named[-1]) if lines_named else 1
    message = messages.plain(error)
    is_import = source.quote(line).split(' ')[0] in ('import', 'from')
    if is_import and not isinstance(error, ImportError):
      message = 'The import failed with %s: %s' % (
          type(error).__name__, message)
    if message.startswith('Configurable') and "doesn't have" in message:
      message += _parameters([b for b in bindings if b.source is source
                              and b.line == line])
    raise messages.located(source, line, message) from error


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
