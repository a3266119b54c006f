"""What test_faults.py binds to watch a run step by step."""

import time

from absl import logging
import gin
import tensorflow.compat.v1 as tf


@gin.register
class Pace(tf.train.SessionRunHook):
  """Logs every global step, and makes a process take its time for it.

  So how far a job comes meanwhile does not depend on the machine.
  """

  def __init__(self, secs=0.0):
    """Keeps the pace.

    Args:
      secs: number, after each step.
    """
    self._secs = secs

  def before_run(self, run_context):
    return tf.train.SessionRunArgs(tf.train.get_global_step())

  def after_run(self, run_context, run_values):
    logging.info('at step %d', run_values.results)
    time.sleep(self._secs)
