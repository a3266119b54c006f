"""How a case of the fuzzer ends, and what is the same for all kinds of cases.

A case is a function of a seed and an empty folder. It returns one of GOOD, or
raises Wrong, or anything else, which is a trace.
"""

RIGHT = 'right'  # the rows or values that the oracle expects
SKIPPED = 'skipped'  # the same, without bad rows or damage that were counted
REFUSED = 'refused'  # a UserError of one line
WRONG = 'wrong'
TRACE = 'trace'
CRASH = 'crash'
HANG = 'hang'
GOOD = (RIGHT, SKIPPED, REFUSED)
ALL = GOOD + (WRONG, TRACE, CRASH, HANG)


class Wrong(Exception):
  """Rows that are not those of the oracle, or a refusal without a reason."""


def check(condition, message, *args):
  """Raises Wrong(message % args) unless condition holds."""
  if not condition:
    raise Wrong(message % args if args else message)


def refused(error, *words):
  """Returns REFUSED for a UserError of one line that has some words."""
  text = str(error)
  check(text.strip() and '\n' not in text and '\r' not in text,
        'The message must be one line, got %r.', text)
  for word in words:
    check(word in text, 'The message must have %r, got %r.', word, text)
  return REFUSED


def table(outcomes):
  """Returns the table of kinds and outcomes as text.

  Args:
    outcomes: dict of kind to a list of outcomes.
  """
  lines = ['%-12s' % 'kind' + ''.join('%9s' % name for name in ALL)]
  for kind, found in outcomes.items():
    lines.append('%-12s' % kind + ''.join(
        '%9d' % found.count(name) for name in ALL))
  return '\n'.join(lines)
