"""Clients of two processes, with real servers in this one."""

import json
import os
import threading
import time

import conftest
import pyarrow as pa
import pytest
from queue_data import slices
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.cluster.work_queue import plan
from ple_estimator.cluster.work_queue import work_queue

__all__ = ['slices']  # a fixture


class Source:
  """What a WorkQueue asks of an input."""

  epochs, shuffle_rows = 1, 0

  def __init__(self, slices):
    self._slices = slices

  def slices(self, spec, most_rows):
    return self._slices


@pytest.fixture
def two(slices, tmp_path):
  """Two started WorkQueues, of a chief and a worker, and the ledger's ps."""
  ports = ['localhost:%d' % conftest.free_port() for _ in range(3)]
  jobs = {'ps': ports[:1], 'chief': ports[1:2], 'worker': ports[2:]}
  servers = [tf.train.Server(jobs, job) for job in sorted(jobs)]
  made = []
  for job in ('chief', 'worker'):
    os.environ['TF_CONFIG'] = json.dumps(
        {'cluster': jobs, 'task': {'type': job, 'index': 0}})
    try:
      config = tf.estimator.RunConfig(
          str(tmp_path), session_config=tf.ConfigProto())
    finally:
      del os.environ['TF_CONFIG']
    made.append(work_queue.WorkQueue(lease_secs=1))
    made[-1].start(config, Source(slices), None)
  yield made
  for queue in made:
    queue.close()
  del servers


def train(client, work, rows=2):
  """Reads and sends a slice; returns the serial of its batch."""
  table = client.mark(pa.table({'x': list(range(rows))}), work)
  client.read(work)
  return client.sent(table)


def test_leases_of_two_processes(two, slices):
  chief, worker = two
  b = worker.client()
  assert b.take() is None  # not before the chief has loaded
  chief.begin(tf.train.Coordinator())
  worker.begin(tf.train.Coordinator())
  a = chief.client()
  works = [c.wait() for c in (a, b, a, b)]
  assert [w.piece for w in works] == slices[:4]
  worker.trained(train(b, works[1]))
  # The worker is back, as if it had been killed: its slice is free at once.
  again = worker.client()
  assert again.wait().piece == slices[3]
  # It is killed and does not come back; a lease that is renewed stays.
  again._closed.set()
  last = a.wait()
  assert last.piece == slices[4]
  begin = time.time()
  assert a.wait().piece == slices[3]
  assert 0.2 < time.time() - begin < 5
  for i, work in enumerate([works[0], works[2], last, a.take()]):
    if work:
      chief.trained(train(a, work))
  epoch, share = chief._progress()
  assert (epoch, share) == (0, 0.8)


def test_acknowledgements_from_before_a_restore_are_void(two, slices):
  chief, worker = two
  chief.begin(tf.train.Coordinator())
  client = worker.client()
  first, second = client.wait(), client.wait()
  worker.trained(train(client, first))
  assert chief._progress() == (0, 0.2)
  chief.save(10)
  chief.load(10)
  worker.trained(train(client, second))
  assert chief._progress() == (0, 0.2)
  assert client.wait().piece == slices[1]  # once more


def test_a_ledger_that_was_lost_is_loaded_though_variables_are_kept(
    two, slices):
  chief, worker = two
  chief.begin(tf.train.Coordinator())
  client = worker.client()
  worker.trained(train(client, client.wait()))
  chief.save(10)
  worker.trained(train(client, client.wait()))
  chief.keep(10)
  assert chief._progress() == (0, 0.4)  # as it was
  # The server is back without contents, after the variables were restored.
  chief._link.connect().run([
      tf.raw_ops.DestroyResourceOp(resource=v.handle)
      for v in chief._link.ledger._variables])
  with pytest.raises(tf.errors.AbortedError):
    chief.save(11)
  chief.keep(10)
  assert chief._progress() == (0, 0.2)  # that of the checkpoint
  assert client.wait().piece == slices[1]  # once more
  chief.begin(tf.train.Coordinator())
  assert chief._progress() == (0, 0.2)  # does not begin afresh


def test_a_process_with_other_files_is_told(two, slices):
  chief, worker = two
  chief.begin(tf.train.Coordinator())
  worker._plan = plan.Plan(slices[1:], 1, 0, False)
  with pytest.raises(errors.UserError, match='the same files, slices and seed'):
    worker.client().wait()


def test_nobody_waits_after_a_session_has_ended(two):
  chief, worker = two
  chief.begin(tf.train.Coordinator())
  coordinator = tf.train.Coordinator()
  worker.begin(coordinator)
  a, b = chief.client(), worker.client()
  while a.take():
    pass
  threading.Timer(0.5, coordinator.request_stop).start()
  assert b.wait() is None


def test_a_slice_without_good_rows_is_done(two):
  chief, _ = two
  chief.begin(tf.train.Coordinator())
  client = chief.client()
  first, second = client.take(), client.take()
  client.read(first)
  chief.trained(train(client, second))
  assert chief._progress() == (0, 0.4)
