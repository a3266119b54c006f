"""Runs and ends parameter servers."""

import signal
import threading
import time

from absl import logging
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.cluster import roles
from ple_estimator.cluster import watch

_STOP_SECS = 20
_QUEUE = 'job_is_done'


def serve(config, peers, timeout_secs):
  """Runs a parameter server until the chief says that the job is done.

  Then the process ends with status 0. On SIGTERM it ends with status 143 when
  the process of the chief has ended, or after a minute. (Server.join() would
  never return and never let a signal handler run.)

  Args:
    config: tf.estimator.RunConfig of a parameter server.
    peers: list of (name, 'host:port'), with the chief alone.
    timeout_secs: number, seconds for which the chief may not answer.

  Raises:
    UserError: if the chief does not answer for longer, or the process cannot
      listen on its address.
  """
  server = roles.server(config)
  logging.info('Parameter server %d at %s.', config.task_id,
               config.cluster_spec.task_address('ps', config.task_id))
  done = threading.Event()
  threading.Thread(target=_wait_for_end, daemon=True,
                   args=(server.target, config, done)).start()
  terminated = []
  if watch.in_main_thread():
    signal.signal(
        signal.SIGTERM, lambda *unused: terminated.append(time.time()))
  last_seen = warned = time.time()
  while not done.wait(watch.LOOK_SECS):
    now = time.time()
    lost = watch.unreachable(peers)
    if not lost:
      last_seen = warned = now
    # When all processes of a job receive SIGTERM, the chief saves before it
    # ends, which needs this server.
    if terminated and (lost or now - terminated[0] > watch.SAVE_SECS):
      watch.leave('SIGTERM.', watch.TERMINATED)
    if now - warned > watch.WARN_SECS:
      warned = now
      logging.warning('Waiting for %s, %d s.', lost, now - last_seen)
    errors.check(now - last_seen < timeout_secs, 'Gave up: %s did not answer '
                 'for %d s (Experiment.peer_timeout_secs).', lost,
                 timeout_secs)
  time.sleep(watch.LOOK_SECS)  # until the chief has received the answer
  watch.leave('The job is done.', 0)


def _wait_for_end(target, config, done):
  with tf.Graph().as_default():
    end = _end_queue(config.task_id).dequeue()
    # This session needs no other process, so it waits for none.
    options = tf.ConfigProto(
        device_filters=['/job:ps/task:%d' % config.task_id])
    with tf.Session(target, config=options) as session:
      session.run(end)
  done.set()


def _end_queue(index):
  with tf.device('/job:ps/task:%d' % index):
    return tf.FIFOQueue(1, tf.bool, [[]], shared_name=_QUEUE)


def end_parameter_servers(config):
  """Tells all parameter servers that the job is done; for the chief.

  Args:
    config: tf.estimator.RunConfig of the chief.
  """
  threads = [threading.Thread(target=_end, args=(config, index), daemon=True)
             for index in range(config.num_ps_replicas)]
  for thread in threads:
    thread.start()
  deadline = time.time() + _STOP_SECS
  for thread in threads:
    thread.join(max(0, deadline - time.time()))
  left = [str(i) for i, thread in enumerate(threads) if thread.is_alive()]
  if left:
    logging.warning('Parameter server %s did not answer when told that the job '
                    'is done.', ', '.join(left))


def _end(config, index):
  with tf.Graph().as_default():
    end = _end_queue(index).enqueue(True)
    options = tf.ConfigProto(
        device_filters=['/job:ps/task:%d' % index, '/job:chief'])
    try:
      with tf.Session(config.master, config=options) as session:
        session.run(end)
    except tf.errors.OpError as error:
      logging.warning('Parameter server %d: %s', index, error.message)
