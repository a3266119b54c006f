"""One process's part of the work queue: takes slices and acknowledges them."""

import threading

import numpy as np
import pyarrow as pa
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.cluster.work_queue import bookkeeping
from ple_estimator.cluster.work_queue import ledger

LEASE = 'work_queue_lease'
_POLL_SECS = 0.1  # between two questions of a client that has nothing to do
_BEAT_SECS = 1.0  # between two attempts to send what could not be sent


class Client:
  """Takes and acknowledges the slices for one iteration over the data.

  The iteration calls take, wait, mark, read and sent; the thread that trains
  calls trained; a thread of the client keeps the connection and the leases.

  Attributes:
    slices: int, the number of slices in an epoch.
  """

  def __init__(self, plan, link, who, lease_secs, coordinator, serials):
    """Starts the thread.

    Args:
      plan: plan.Plan.
      link: link.Link.
      who: int, above 0, the number of this process.
      lease_secs: number, seconds that a lease lasts unless it is renewed.
      coordinator: tf.train.Coordinator whose stop ends the client, or None.
      serials: iterator over increasing integers above 0.
    """
    self.slices = len(plan)
    self._plan = plan
    self._link = link
    self._who = who
    self._lease_secs = lease_secs
    self._coordinator = coordinator
    self._serials = serials
    self._has_released = False
    self._closed = threading.Event()
    self._lock = threading.Lock()
    self._books = bookkeeping.Bookkeeping()  # only under the lock
    threading.Thread(target=self._beat, daemon=True).start()

  def take(self):
    """Returns the next Work, or None if none is free at present."""
    answer = self._ask()
    return answer if isinstance(answer, bookkeeping.Work) else None

  def wait(self):
    """Returns the next Work as soon as one is free; None if all are done."""
    while True:
      answer = self._ask()
      if answer == ledger.END:
        return None
      if answer != ledger.WAIT:
        return answer
      self._closed.wait(_POLL_SECS)

  def mark(self, table, work):
    """Returns the rows of a Work, a pa.Table, with its lease as a column."""
    with self._lock:
      self._books.read_rows(work.lease, table.num_rows)
    return table.append_column(
        LEASE, pa.array(np.full(table.num_rows, work.lease, np.int64)))

  def read(self, work):
    """Notes that a Work was read to its end."""
    with self._lock:
      self._books.read_to_end(work.lease)

  def sent(self, table):
    """Notes that marked rows go to training as a batch; returns its serial."""
    leases, counts = np.unique(
        table.column(LEASE).to_numpy(), return_counts=True)
    with self._lock:
      serial = next(self._serials)
      self._books.send(serial, dict(zip(leases.tolist(), counts.tolist())))
      return serial

  def trained(self, serial):
    """Notes that a batch was trained, and all that were sent before it."""
    with self._lock:
      self._books.train(serial)
    self._attempt(self._acknowledge)

  def stop(self):
    """Ends waiting, and the thread."""
    self._attempt(self._acknowledge)
    self._closed.set()

  def close(self):
    """Stops, and gives back all slices that are not done."""
    self.stop()
    self._attempt(self._release)

  def _is_over(self):
    return self._closed.is_set() or bool(
        self._coordinator and self._coordinator.should_stop())

  def _ask(self):
    """A Work, ledger.WAIT or ledger.END."""
    if self._is_over():
      return ledger.END
    try:
      if not self._has_released:  # leases of a process that died
        self._release()
        self._has_released = True
      generation, digest, number = self._link.call(
          self._link.ledger.take, self._who, self._plan.digest,
          self._plan.epochs, self._lease_secs)
    except tf.errors.AbortedError:
      return ledger.WAIT
    errors.check(
        digest == self._plan.digest, 'Experiment.work_queue must see the same '
        'files, slices and seed in every process; the chief has others. Has a '
        'file changed, or is there another at the same path?')
    if number < 0:
      return number
    with self._lock:
      return self._books.take(generation, number, *self._plan.find(number))

  def _release(self):
    self._link.call(self._link.ledger.release, self._who)

  def _acknowledge(self):
    """Tells the ledger which slices were trained."""
    with self._lock:
      done = self._books.trained()
    for generation, numbers in bookkeeping.by_generation(done).items():
      self._link.call(self._link.ledger.ack, generation, numbers)
    with self._lock:
      self._books.acknowledge(done)

  def _renew(self):
    """Renews the leases of all slices that are not acknowledged."""
    with self._lock:
      held = self._books.held()
    for generation, numbers in bookkeeping.by_generation(held).items():
      self._link.call(self._link.ledger.renew, generation, self._who, numbers,
                      self._lease_secs)

  def _attempt(self, action):
    """Calls a function; if the connection is lost, the thread tries later."""
    try:
      action()
    except tf.errors.AbortedError:
      pass

  def _beat(self):
    """Restores a lost connection and renews the leases, until stopped."""
    timer = tf.train.SecondOrStepTimer(every_secs=self._lease_secs / 4)
    timer.update_last_triggered_step(0)
    beats = 0
    while not self._is_over():
      beats += 1
      self._attempt(self._link.connect)
      self._attempt(self._acknowledge)
      if timer.should_trigger_for_step(beats):
        timer.update_last_triggered_step(beats)
        self._attempt(self._renew)
      self._closed.wait(min(_BEAT_SECS, self._lease_secs / 8))
