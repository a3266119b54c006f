"""UserError, the one kind of error that a user can correct."""

import contextlib


class UserError(ValueError):
  """A mistake in a binding, a file or a model_dir, and the way out.

  The message is all a user needs: run.py prints it without a stack and exits
  with status 1.
  """


def check(condition, message, *args):
  """Raises UserError(message % args) unless condition holds."""
  if not condition:
    raise UserError(message % args if args else message)


def check_integer(binding, value, least):
  """Raises UserError unless a binding holds an int of at least `least`.

  Args:
    binding: str, e.g. 'PLE.num_levels'.
    value: what it is bound to.
    least: int.
  """
  check(isinstance(value, int) and value >= least,
        '%s must be an integer of at least %d, got %r.', binding, least, value)


def is_number(value):
  """Whether a binding holds a number, which can be compared."""
  return isinstance(value, (int, float))


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
