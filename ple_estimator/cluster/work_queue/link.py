"""The connection of a process to the ledger, opened again after a loss."""

import threading

import tensorflow.compat.v1 as tf

from ple_estimator.cluster.work_queue import ledger as ledger_lib

_CLOSE_SECS = 5.0  # how long the end of a process waits for a server
_LOST = (tf.errors.AbortedError, tf.errors.UnavailableError,
         tf.errors.CancelledError, tf.errors.InternalError,
         tf.errors.UnknownError, tf.errors.DeadlineExceededError)


class NotLoaded(tf.errors.AbortedError):
  """The ledger has no contents: nothing was loaded since its server started."""

  def __init__(self, message):
    super().__init__(None, None, message)


class Link:
  """The ledger and a session to it, which is opened again after a loss.

  Opening a session waits without a limit for a server that is down. Therefore
  only `connect`, and calls with `wait`, open one. The threads of the input must
  not: the session that trains does not close before they return.

  Attributes:
    ledger: ledger.Ledger, whose methods `call` calls.
  """

  def __init__(self, device, target, config):
    """Builds the ops of the ledger; opens nothing.

    Args:
      device: str, where the ledger is.
      target: str, the server that sessions connect to; '' is this process.
      config: tf.ConfigProto of sessions.
    """
    self.ledger = ledger_lib.Ledger(device)
    self._target = target
    self._config = config
    self._lock = threading.Lock()
    self._session = None

  def connect(self):
    """Returns the session; waits for the server if there is none."""
    session = self._session
    if session is None:
      session = tf.Session(self._target, self.ledger.graph, self._config)
      self._guarded(session, session.run, self.ledger.ready)
      with self._lock:
        self._session = self._session or session
    return self._session

  def call(self, method, *args, wait=False):
    """Calls a method of the ledger.

    Args:
      method: function of a session and args.
      *args: what it is called with.
      wait: bool, whether to wait for the server.

    Raises:
      tf.errors.AbortedError: if the server cannot be reached.
      NotLoaded: if the ledger was not loaded since the server started.
    """
    session = self.connect() if wait else self._session
    if session is None:
      raise tf.errors.AbortedError(None, None, 'The work queue is not there.')
    return self._guarded(session, method, session, *args)

  def close(self):
    """Closes the session."""
    closing = self._drop(self._session)
    if closing:
      closing.join(_CLOSE_SECS)

  def _guarded(self, session, function, *args):
    """Calls a function; raises AbortedError for every kind of loss."""
    try:
      return function(*args)
    except tf.errors.FailedPreconditionError as error:
      raise NotLoaded(error.message)
    except _LOST + (RuntimeError,) as error:  # RuntimeError: a closed session
      self._drop(session)
      raise tf.errors.AbortedError(None, None, str(error))

  def _drop(self, session):
    """Closes a session in a thread, since closing may wait for lost servers.

    Returns:
      threading.Thread or None.
    """
    with self._lock:
      if self._session is session:
        self._session = None
    if session is None:
      return None
    closing = threading.Thread(target=_close, args=[session], daemon=True)
    closing.start()
    return closing


def _close(session):
  try:
    session.close()
  except tf.errors.OpError:
    pass  # the server has ended, and the session with it
