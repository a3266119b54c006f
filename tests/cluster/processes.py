"""Python code that runs in a process of its own, and addresses for it."""

import os
import subprocess
import sys
import time

import conftest

from ple_estimator.commands import local_cluster

_SECS = 120  # for a process, on a machine that is busy
_HEAD = '''
import os, signal, sys, threading, time
from absl import logging
import tensorflow.compat.v1 as tf
from ple_estimator.cluster import parameter_servers, roles, watch
from ple_estimator.engine import compat
compat.quiet()
logging.use_absl_handler()
logging.set_verbosity(logging.INFO)
def blocked():
  """What a step without its parameter server is: no signal reaches Python."""
  with tf.Session() as session:
    empty = tf.FIFOQueue(1, tf.bool).dequeue()
    print('ready', flush=True)
    session.run(empty)
'''


def nowhere():
  """An address that nobody listens on."""
  return 'localhost:%d' % conftest.free_port()


class Process:
  """Python code in a process, with what it prints."""

  def __init__(self, code, *args, **kwargs):
    """Starts it, after the imports and `blocked` of _HEAD.

    Args:
      code: str.
      *args: what sys.argv has behind the first.
      **kwargs: of the environment.
    """
    self._process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', _HEAD + code] + [
            str(a) for a in args],
        cwd=conftest.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL='1', **kwargs))

  def wait_for(self, word):
    """Reads what is printed up to a line with a word."""
    for line in self._process.stdout:
      if word in line.decode():
        return
    raise AssertionError('no %r' % word)

  def send(self, number):
    self._process.send_signal(number)

  def end(self):
    """Returns (exit status, the rest of what it printed)."""
    try:
      text, _ = self._process.communicate(timeout=_SECS)
    finally:
      self._process.kill()
    return local_cluster.exit_status(self._process.returncode), text.decode()


def wait_until(condition, secs=20):
  """Waits until a function returns something true; fails after some time."""
  deadline = time.time() + secs
  while not condition():
    assert time.time() < deadline
    time.sleep(0.02)
