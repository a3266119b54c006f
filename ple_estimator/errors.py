"""The one kind of error that a user is expected to mend."""


class UserError(ValueError):
  """A mistake in a binding, a file or a model_dir, and the way out.

  The message is all a user needs: run.py prints it without a stack and exits
  with status 1.
  """


def check(condition, message, *args):
  """Raises UserError(message % args) unless condition holds."""
  if not condition:
    raise UserError(message % args if args else message)
