"""How the processes of a cluster wait for each other and end together.

The chief trains, and when the training is over it

  1. writes `trained.json` to model_dir, which ends the evaluator after the last
     checkpoint, and any worker that comes late;
  2. waits until that checkpoint is evaluated and exported, by the evaluator if
     there is one, or does it itself;
  3. tells the parameter servers to leave, through a queue on each, and leaves.

So whoever starts the processes has the results once the chief is gone. Nobody
waits for ever: a process that gets nothing done for `peer_timeout_secs` ends
with an error that names who does not answer.
"""

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
TERMINATED = 128 + signal.SIGTERM  # what a shell makes of SIGTERM
_STUCK_SECS = 10
SAVE_SECS = 60  # what a chief that is told to end may take for a checkpoint


def leave(text, status):
  """Ends the process whatever its threads are at, such as a TensorFlow call."""
  logging.info('%s', text)
  logging.flush()
  os._exit(status)


def unreachable(peers):
  """Whose address takes no connection.

  Args:
    peers: list of (name, 'host:port').

  Returns:
    str, e.g. 'ps 0 at host:2222'; '' if all answer.
  """
  found = []
  for name, address in peers:
    host, _, port = address.rpartition(':')
    try:
      socket.create_connection(
          (host.strip('[]'), int(port)), _PROBE_SECS).close()
    except OSError:
      found.append('%s at %s' % (name, address))
  return ', '.join(found)


class Watch(tf.train.SessionRunHook):
  """Ends a process that gets nothing done, or is told to end by SIGTERM.

  A lost parameter server leaves Session.run, or the making of a session,
  waiting in C++ without a bound and deaf to signals; so a thread watches.

  On SIGTERM the chief saves a checkpoint after the step at hand, and every
  process ends with status 143: to Kubernetes a pod that is to be started again.

  `with` this object, from the main thread; it is also a hook of the training.
  """

  def __init__(self, peers, timeout_secs, is_over=lambda: False, save=None):
    """Keeps whom to watch.

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

  def __enter__(self):
    self.beat()
    reader, self._writer = socket.socketpair()
    self._writer.setblocking(False)
    self._handler = signal.signal(signal.SIGTERM, self._on_sigterm)
    # Tells of a signal at once, while its handler may have to wait.
    self._wakeup = signal.set_wakeup_fd(self._writer.fileno())
    reader.settimeout(LOOK_SECS)
    threading.Thread(target=self._run, args=(reader,), daemon=True).start()
    return self

  def __exit__(self, kind, error, trace):
    self._closed.set()
    signal.set_wakeup_fd(self._wakeup)
    signal.signal(signal.SIGTERM, self._handler)
    self._writer.close()
    if kind is None:
      self.check()

  def _on_sigterm(self, signum, frame):
    del signum, frame
    self._terminated = self._terminated or time.time()
    if not self._in_step:
      self.check()

  def check(self):
    """Raises SystemExit if SIGTERM has come."""
    if self._terminated:
      raise SystemExit(TERMINATED)

  def beat(self):
    """Says that something was done."""
    self._last = time.time()

  @contextlib.contextmanager
  def pause(self):
    """A context of work that may take any time and be broken off by SIGTERM."""
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
    """Sleeps between two looks at what another process is to do.

    That takes as long as it takes, while all peers answer.
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
      status, text = self._verdict(now, now - last)
      is_idle_still = last == self._last and not self._closed.is_set()
      if status is not None and is_idle_still:
        leave(text, status)
      if text and now - last > WARN_SECS and now - warned > WARN_SECS:
        warned = now
        logging.warning('%s', text)

  def _verdict(self, now, idle):
    """Returns (exit status or None, what to say)."""
    if idle < _PROBE_SECS or self._pauses:
      return None, ''
    if self._is_over():
      return 0, 'The training is over.'
    lost = unreachable(self._peers)
    # The step at hand may wait for others, who do not know.
    patience = _STUCK_SECS if lost or not self._save else SAVE_SECS
    if self._terminated and min(idle, now - self._terminated) > patience:
      return TERMINATED, 'SIGTERM.'
    if self._peers and idle > self._timeout_secs:
      return 1, (
          'Gave up: no step for %d s (Experiment.peer_timeout_secs); %s.' % (
              idle, 'no answer from ' + lost if lost else
              'all others answer, so one of them may be stuck'))
    return None, 'Waiting for %s, %d s.' % (lost, idle) if lost else ''


class Paused(tf.train.SessionRunHook):
  """A hook of evaluations, during which a Watch is paused."""

  def __init__(self, watch):
    """Keeps the Watch."""
    self._watch = watch

  def begin(self):
    self._context = self._watch.pause()
    self._context.__enter__()

  def end(self, session):
    self._context.__exit__(None, None, None)


class WaitForCheckpoint(tf.train.SessionRunHook):
  """Lets a worker run no further ahead of the last checkpoint than is agreed.

  Without it, steps that workers make while the chief is away are lost if a
  parameter server goes too.
  """

  def __init__(self, model_dir, save_steps, watch):
    """Keeps the rule.

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
