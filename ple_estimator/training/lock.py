"""One run at a time in a model_dir: a lock that dies with its process.

The process that saves checkpoints holds model_dir/.lock, by flock(2), as long
as it trains. Nobody else takes it: workers, evaluators and the modes evaluate,
predict and export only read checkpoints. The file stays when the run is over;
what counts is who holds it, and the system sees to that, however a process
ends. The text in it, which host and process, is only for the error.

On NFS flock reaches all hosts where the mount has neither nolock nor
local_lock=flock (or all); with those it holds on each host alone. A host that
is lost keeps its locks there until the server ends its lease (NFSv4, about 90
seconds) or hears that it is up again (NFSv3). So who finds the lock held, and
does not see its holder on this host, waits for a while. A file system without
flock trains without a lock, with a warning.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time

from absl import logging

from ple_estimator import errors
from ple_estimator import files

_NAME = '.lock'
_WAIT_SECS = 120
_POLL_SECS = 1
_held = set()  # the files that this process holds


@contextlib.contextmanager
def held(model_dir, wait_secs=_WAIT_SECS):
  """Holds the lock of a model_dir.

  Args:
    model_dir: str, a folder that can be written to.
    wait_secs: number, seconds to wait for a holder on another host, which may
      be lost.

  Raises:
    UserError: if another run holds it; the message says which.
  """
  path = os.path.realpath(os.path.join(model_dir, _NAME))
  with open(path, 'a+') as f:
    is_locked = _lock(f, path, model_dir, wait_secs)
    if is_locked:
      _held.add(path)
      f.seek(0)
      f.truncate()
      json.dump({'host': socket.gethostname(), 'pid': os.getpid()}, f)
      f.flush()
    try:
      yield
    finally:
      _held.discard(path)


def _lock(f, path, model_dir, wait_secs):
  """Locks a file; returns whether the file system can."""
  deadline, said = time.time() + wait_secs, False
  while True:
    try:
      fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return True
    except OSError as error:
      if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
        logging.warning('%s cannot be locked (%s): nothing keeps a second run '
                        'out.', files.shown(model_dir), error.strerror)
        return False
    f.seek(0)
    holder = _parsed(f.read())
    errors.check(
        time.time() < deadline and path not in _held and
        not _is_here(holder), 'Experiment.model_dir must be that of one run at '
        'a time: %s is in use by %s. Wait for its end, or choose another '
        'Experiment.model_dir.', files.shown(model_dir), _name(holder))
    if not said:
      said = True
      logging.info('Waiting up to %d s for %s, which is in use by %s.',
                   wait_secs, files.shown(model_dir), _name(holder))
    time.sleep(_POLL_SECS)


def _parsed(text):
  """The holder that a lock file names, {} if it was cut."""
  try:
    holder = json.loads(text)
  except ValueError:
    return {}
  return holder if isinstance(holder, dict) else {}


def _is_here(holder):
  """Whether the holder is another process of this host that is alive."""
  pid = holder.get('pid')
  return (holder.get('host') == socket.gethostname() and
          isinstance(pid, int) and pid != os.getpid() and
          os.path.exists('/proc/%d' % pid))


def _name(holder):
  return 'process %s of host %s' % (
      holder.get('pid', '?'), holder.get('host', '?'))
