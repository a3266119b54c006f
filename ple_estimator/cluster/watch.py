"""How the processes of a cluster wait for each other and end together.

When the training is over the chief

  1. writes `trained.json` to model_dir, which tells the evaluator to end after
     the last checkpoint, and a worker that starts late to end at once;
  2. waits until that checkpoint is evaluated and exported, by the evaluator if
     there is one, or does it itself;
  3. tells the parameter servers to end, through a queue on each, and ends.

So the results are complete when the chief has ended. No process waits without a
limit: one that makes no progress for `peer_timeout_secs` ends with an error
that names the processes that do not answer.
"""

import collections
import contextlib
import os
import signal
import socket
import threading
import time

from absl import logging
import tensorflow.compat.v1 as tf

from ple_estimator.cluster import marker

LOOK_SECS = 0.5
WARN_SECS = 30
_PROBE_SECS = 2
TERMINATED = 128 + signal.SIGTERM  # the exit status for SIGTERM, as in a shell
_STUCK_SECS = 10
SAVE_SECS = 60  # seconds that a chief has for a checkpoint after SIGTERM


def leave(text, status):
  """Ends the process at once, even if a thread is in a TensorFlow call."""
  logging.info('%s', text)
  logging.flush()
  os._exit(status)


def unreachable(peers):
  """The processes whose addresses accept no connection.

  Args:
    peers: list of (name, 'host:port').

  Returns:
    str, e.g. 'ps 0 at host:2222'; '' if all answer.
  """
  silent = []
  for name, address in peers:
    host, _, port = address.rpartition(':')
    try:
      socket.create_connection(
          (host.strip('[]'), int(port)), _PROBE_SECS).close()
    except OSError:
      silent.append('%s at %s' % (name, address))
  return ', '.join(silent)


def in_main_thread():
  """Whether this thread may set signal handlers."""
  return threading.current_thread() is threading.main_thread()


class Facts(collections.namedtuple('Facts', [
    'idle', 'terminated', 'is_over', 'lost', 'has_peers', 'saves',
    'timeout_secs'])):
  """The state of a process that has made no progress for a while.

  Attributes:
    idle: float, seconds without progress.
    terminated: float, seconds since SIGTERM, or None if there was none.
    is_over: bool, whether the training is over.
    lost: str, the peers that do not answer; '' if all do.
    has_peers: bool, whether there are other processes to wait for.
    saves: bool, whether this process saves a checkpoint on SIGTERM.
    timeout_secs: number, seconds without progress before it gives up.
  """


def verdict(facts):
  """Decides whether a process that makes no progress has to end.

  Args:
    facts: Facts.

  Returns:
    (status, text): the exit status, or None to go on, and what to log.
  """
  if facts.is_over:
    return 0, 'The training is over.'
  # The current step may wait for processes that have ended.
  patience = SAVE_SECS if facts.saves and not facts.lost else _STUCK_SECS
  if facts.terminated is not None and (
      min(facts.idle, facts.terminated) > patience):
    return TERMINATED, 'SIGTERM.'
  if facts.has_peers and facts.idle > facts.timeout_secs:
    return 1, (
        'Gave up: no step for %d s (Experiment.peer_timeout_secs); %s.' % (
            facts.idle, 'no answer from ' + facts.lost if facts.lost else
            'all others answer, so one of them may be stuck'))
  if facts.lost:
    return None, 'Waiting for %s, %d s.' % (facts.lost, facts.idle)
  return None, ''


class Watch(tf.train.SessionRunHook):
  """Ends a process that makes no progress, or that receives SIGTERM.

  When a parameter server is lost, Session.run and the creation of a session
  wait in C++ without a limit, and meanwhile Python handles no signal. So a
  thread watches.

  On SIGTERM the chief saves a checkpoint after the current step, and every
  process ends with status 143, which tells Kubernetes to start the pod again.
  Python lets only the main thread set a signal handler: in any other thread
  SIGTERM does what it did before, and the rest works as in the main thread.

  Use this object as a context manager around the training, and as a hook of it.
  """

  def __init__(self, peers, timeout_secs, is_over=lambda: False, save=None):
    """Stores the arguments; starts no thread.

    Args:
      peers: list of (name, 'host:port').
      timeout_secs: number, seconds without a step before the process gives up;
        must be more than a checkpoint takes.
      is_over: function without arguments to bool, whether the training is over,
        so that lost peers are no error.
      save: function of a session, called before the end on SIGTERM; None
        does nothing.
    """
    self._peers = peers
    self._timeout_secs = timeout_secs
    self._is_over = is_over
    self._save = save
    self._last = time.time()
    self._in_step = False
    self._pauses = 0
    self._terminated = None
    self._closed = threading.Event()
    self._restore_signals = None

  def __enter__(self):
    self.beat()
    reader, self._writer = socket.socketpair()
    reader.settimeout(LOOK_SECS)
    if in_main_thread():
      self._handle_signals()
    threading.Thread(target=self._run, args=(reader,), daemon=True).start()
    return self

  def _handle_signals(self):
    handler = signal.signal(signal.SIGTERM, self._on_sigterm)
    self._writer.setblocking(False)
    # Reports a signal at once, while the handler waits for Python's turn.
    wakeup = signal.set_wakeup_fd(self._writer.fileno())

    def restore():
      signal.set_wakeup_fd(wakeup)
      signal.signal(signal.SIGTERM, handler)

    self._restore_signals = restore

  def __exit__(self, kind, error, trace):
    self._closed.set()
    if self._restore_signals:
      self._restore_signals()
    self._writer.close()
    if kind is None:
      self.check()

  def _on_sigterm(self, signum, frame):
    del signum, frame
    self._terminated = self._terminated or time.time()
    if not self._in_step:
      self.check()

  def check(self):
    """Raises SystemExit if SIGTERM was received."""
    if self._terminated:
      raise SystemExit(TERMINATED)

  def beat(self):
    """Records that there was progress."""
    self._last = time.time()

  @contextlib.contextmanager
  def pause(self):
    """A context for work that may take any time; SIGTERM ends it at once."""
    in_step, self._in_step = self._in_step, False
    self._pauses += 1
    self.check()
    try:
      yield
    finally:
      self._pauses -= 1
      self._in_step = in_step
      self.beat()

  def wait(self, secs):
    """Sleeps, while this process waits for what another has to do.

    Such a wait may take any time as long as all peers answer.

    Args:
      secs: number.
    """
    in_step, self._in_step = self._in_step, False
    self.check()
    time.sleep(secs)
    self._in_step = in_step
    if not unreachable(self._peers):
      self.beat()

  def begin(self):  # the graph is built
    self.beat()

  def after_create_session(self, session, coord):
    self.beat()

  def before_run(self, run_context):
    self._in_step = True

  def after_run(self, run_context, run_values):
    self.beat()
    if self._terminated:
      logging.info('SIGTERM: this step was the last.')
      if self._save:
        self._save(run_context.session)
      self.check()

  def _run(self, reader):
    warned = 0
    while not self._closed.is_set():
      try:
        if signal.SIGTERM in reader.recv(64):
          self._terminated = self._terminated or time.time()
      except socket.timeout:
        pass
      last, now = self._last, time.time()
      status, text = self._look(now, now - last)
      is_idle_still = last == self._last and not self._closed.is_set()
      if status is not None and is_idle_still:
        leave(text, status)
      if text and now - last > WARN_SECS and now - warned > WARN_SECS:
        warned = now
        logging.warning('%s', text)
    reader.close()

  def _look(self, now, idle):
    """Returns (exit status or None, what to log)."""
    # To look further takes time: up to two seconds for each peer.
    if idle < _PROBE_SECS or self._pauses:
      return None, ''
    is_over = self._is_over()
    return verdict(Facts(
        idle=idle,
        terminated=self._terminated and now - self._terminated,
        is_over=is_over,
        lost='' if is_over else unreachable(self._peers),
        has_peers=bool(self._peers),
        saves=bool(self._save),
        timeout_secs=self._timeout_secs))


class WaitForCheckpoint(tf.train.SessionRunHook):
  """Makes a worker wait when it is save_steps ahead of the last checkpoint.

  While the chief is away no checkpoint is saved. Without this hook, all steps
  that workers make meanwhile would be lost if a parameter server is lost too.
  """

  def __init__(self, model_dir, save_steps, watch):
    """Stores the arguments; starts no thread.

    Args:
      model_dir: str.
      save_steps: int, global steps between checkpoints.
      watch: Watch.
    """
    self._model_dir = model_dir
    self._save_steps = save_steps
    self._watch = watch
    self._saved = None

  def before_run(self, run_context):
    return tf.train.SessionRunArgs(tf.train.get_global_step())

  def after_run(self, run_context, run_values):
    step = int(run_values.results)
    waiting_since = None
    while self._saved is None or step - self._saved >= self._save_steps:
      saved = marker.latest_step(self._model_dir)
      # After a loss of parameter servers the step is behind the checkpoint.
      self._saved = step if saved is None else saved
      if step - self._saved < self._save_steps:
        break
      if waiting_since is None:
        waiting_since = time.time()
      elif waiting_since and time.time() - waiting_since > WARN_SECS:
        logging.warning('Waiting at step %d for a checkpoint; the last is of '
                        'step %d.', step, self._saved)
        waiting_since = 0
      self._watch.wait(LOOK_SECS)


class WaitForStart(tf.train.SessionRunHook):
  """Makes a worker wait until the chief has saved its first checkpoint.

  With Experiment.warm_start, or columns that start from vectors of a file, the
  variables have initial values before they have those to start from, and a
  worker that trained then would lose its steps.
  """

  def __init__(self, model_dir, watch):
    """Stores the arguments; starts no thread.

    Args:
      model_dir: str.
      watch: Watch.
    """
    self._model_dir = model_dir
    self._watch = watch

  def after_create_session(self, session, coord):
    del session, coord
    while marker.latest_step(self._model_dir) is None:
      self._watch.wait(LOOK_SECS)
