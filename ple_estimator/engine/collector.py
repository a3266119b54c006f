"""Python's garbage collector, which graphs give much to search and no garbage.

A graph and the modules of TensorFlow are some hundred thousand objects each,
nearly all of which live as long as the graph and the process. While many
objects are made, the collector searches all of them again and again.
"""

import contextlib
import gc


@contextlib.contextmanager
def paused():
  """Has no garbage collected while the block runs; also a decorator."""
  was_enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if was_enabled:
      gc.enable()


def leave_alone():
  """Has the collector search no more what exists by now, such as modules.

  What of it becomes garbage later is not found. Python 3.6 cannot do it.
  """
  if hasattr(gc, 'freeze'):
    gc.freeze()
