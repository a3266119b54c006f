"""Processes of which a few run at a time, and which end with this one."""

import collections
import os
import signal
import subprocess
import sys
import threading
import time

from ple_estimator.commands import local_cluster

_POLL_SECS = 0.1
_GRACE_SECS = 60  # a training saves a checkpoint on SIGTERM

# What a process of the pool runs; its parent's id and its arguments follow.
_BEGIN = ('import sys; from ple_estimator.commands.sweep import pool; '
          'pool.end_with(int(sys.argv.pop(1))); '
          'from ple_estimator import run; run.console()')

Child = collections.namedtuple('Child', ['command', 'env', 'log'])
Child.__doc__ = """A process that is to be started.

Attributes:
  command: list of str.
  env: dict, its environment.
  log: str, the file to which its output is added.
"""


def child(arguments, threads, log):
  """A process that runs `ple-estimator` and ends with this one.

  Args:
    arguments: list of str, what follows the word.
    threads: int, for OpenMP.
    log: str, the file to which its output is added.

  Returns:
    Child.
  """
  return Child(
      [sys.executable, '-u', '-c', _BEGIN, str(os.getpid())] + arguments,
      dict(os.environ, OMP_NUM_THREADS=str(threads)), log)


def end_with(parent):
  """Ends this process, at once, when its parent has died.

  What a run has trained since its last checkpoint is then lost, as if it had
  been killed itself.

  Args:
    parent: int, the id of the parent.
  """
  def watch():
    while os.getppid() == parent:
      time.sleep(_POLL_SECS)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


class Task:
  """Something that one process does, perhaps at several starts."""

  def child(self):
    """The Child to start."""
    raise NotImplementedError

  def look(self):
    """Looks at what it has done so far; whether it is to be ended."""
    return False

  def ended(self, status):
    """Takes in its end; whether it is to be started again.

    Args:
      status: int, the exit status as in a shell; None if `look` has ended it.
    """
    raise NotImplementedError


class Pool:
  """Runs tasks, up to a number of processes at a time."""

  def __init__(self, processes, next_task):
    """Starts nothing.

    Args:
      processes: int.
      next_task: function without arguments to the next Task, or to None if
        there is none to start now.
    """
    self._processes = processes
    self._next_task = next_task
    self._running = []  # of [task, Popen, is to be ended]

  def run(self):
    """Runs all tasks; on an exception ends those that run, and waits for it."""
    try:
      while self._fill():
        time.sleep(_POLL_SECS)
        for entry in list(self._running):
          self._look(entry)
    finally:
      self._end_all()

  def _fill(self):
    """Starts what can be started; whether anything runs."""
    while len(self._running) < self._processes:
      task = self._next_task()
      if task is None:
        break
      self._running.append([task, _start(task.child()), False])
    return bool(self._running)

  def _look(self, entry):
    task, process, is_ending = entry
    status = process.poll()  # before what it has done is looked at
    if not is_ending and task.look():
      entry[2] = is_ending = True
      if status is None:
        process.send_signal(signal.SIGTERM)
        timer = threading.Timer(_GRACE_SECS, process.kill)
        timer.daemon = True
        timer.start()
    if status is None:
      return
    self._running.remove(entry)
    if task.ended(None if is_ending else local_cluster.exit_status(status)):
      self._running.append([task, _start(task.child()), False])

  def _end_all(self):
    """SIGTERM, and SIGKILL after some time."""
    processes = [process for _, process, _ in self._running]
    for process in processes:
      process.send_signal(signal.SIGTERM)
    deadline = time.time() + _GRACE_SECS
    try:
      while time.time() < deadline and any(
          process.poll() is None for process in processes):
        time.sleep(_POLL_SECS)
    finally:
      for process in processes:
        process.kill()
        process.wait()
    self._running = []


def _start(of):
  """Starts a Child, in a session of its own: a terminal's Ctrl-C is ours."""
  os.makedirs(os.path.dirname(of.log), exist_ok=True)
  with open(of.log, 'ab') as log:
    return subprocess.Popen(
        of.command, stdin=subprocess.DEVNULL, stdout=log,
        stderr=subprocess.STDOUT, env=of.env, start_new_session=True)
