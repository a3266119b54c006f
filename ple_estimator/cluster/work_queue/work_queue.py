"""A work queue: slices of the training data for whoever is free.

Every epoch each slice is handed out once, in an order of its own. A client
(a process that trains) has a lease of what it was handed until the step is done
that trained the slice's last row; then it acknowledges the slice. If the client
dies, the lease ends, after lease_secs or when the client is back, and the slice
is handed out again. So every slice is trained at least once per epoch, and once
unless a process is lost.

The state (ledger.py) is on the first parameter server, or in the process if
there is none, and is saved with every checkpoint, just before its variables:

  model_dir/work_queue/state-<step>.json

So a checkpoint has in it all that its state says is acknowledged. When the
chief restores the variables it loads that state too, and what was trained since
is handed out again.

How a row is followed: the number of its lease travels with it through the
shuffle buffer (column LEASE). A batch carries a serial number past the model
(feature BATCH); when a step has trained it, the hook tells the client, which
knows which slices have ended by then.
"""

import collections
import glob
import hashlib
import itertools
import json
import os
import re
import threading

from absl import logging
import gin
import numpy as np
import pyarrow as pa
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.cluster import roles
from ple_estimator.cluster.work_queue import ledger as ledger_lib

BATCH = 'work_queue_batch'  # a feature, and the tensor's name in the graph
LEASE = 'work_queue_lease'
_FOLDER = 'work_queue'
_POLL_SECS = 0.1  # between two questions of a client that has nothing to do
_BEAT_SECS = 1.0  # between two attempts to say what could not be said
_CLOSE_SECS = 5.0  # how long the end waits for a server
_LOST = (tf.errors.AbortedError, tf.errors.UnavailableError,
         tf.errors.CancelledError, tf.errors.InternalError,
         tf.errors.UnknownError, tf.errors.DeadlineExceededError)

# `lease` tells leases of one client apart, also those of one slice; `number` is
# epoch * slices + the place in the order of the epoch; `piece` a reader.Slice.
Work = collections.namedtuple('Work', 'lease generation number epoch piece')


@gin.register
class WorkQueue:
  """Hands out the slices of what is trained on; one per process.

  Attributes:
    slice_rows: int or None, see __init__.
    is_chief: bool, whether this process loads and saves the state.
  """

  def __init__(self, slice_rows=None, lease_secs=300):
    """Keeps the rules; opens nothing.

    Args:
      slice_rows: int, largest number of rows in a slice (of CSV, about); None
        takes row groups of Parquet, and 64 MB of CSV, as they are. To read a
        part of a row group costs as much as to read all of it.
      lease_secs: number, seconds after which a slice is handed out again whose
        client was not heard of. A client that is back gives its slices back
        at once.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check(
        slice_rows is None or isinstance(slice_rows, int) and slice_rows > 0,
        'WorkQueue.slice_rows must be a positive integer or None, got %r.',
        slice_rows)
    errors.check(
        isinstance(lease_secs, (int, float)) and lease_secs > 0,
        'WorkQueue.lease_secs must be positive, got %r.', lease_secs)
    self.slice_rows = slice_rows
    self._lease_secs = lease_secs
    self._plan = self._link = self._client = self._coordinator = None
    self._serials = itertools.count(1)
    self._loaded = self.is_chief = False

  def start(self, config, source, reading):
    """Takes up a run; once per input_fn.

    Args:
      config: tf.estimator.RunConfig.
      source: inputs.ParquetInput or CsvInput, what is trained on.
      reading: reading.Reading, what is read of it.

    Raises:
      UserError: if files are missing, or the cluster has no ps.
    """
    self.close()
    jobs = config.cluster_spec.jobs if config.cluster_spec else []
    errors.check(not jobs or 'ps' in jobs, 'Experiment.work_queue must have a '
                 'ps in a cluster, where its state is; got only %s.',
                 ', '.join(sorted(jobs)))
    index, count = roles.shard(config)
    self._who = index + 1
    self.is_chief = config.is_chief
    self._model_dir = config.model_dir
    self._plan = Plan(
        source.slices(reading, self.slice_rows), source.epochs,
        config.tf_random_seed or 0, shuffle=source.shuffle_rows > 0)
    self._link = _Link('/job:ps/task:0/cpu:0' if jobs else '', config.master,
                       config.session_config)
    self._loaded = False
    if len(self._plan) < count:
      logging.warning(
          'Work queue: %d slices for %d processes; some have nothing to do. '
          'Set WorkQueue.slice_rows.', len(self._plan), count)

  def client(self):
    """Returns a new Client in place of the one before.

    One iteration over the data has one: after a parameter server was lost
    TensorFlow iterates anew, and rows that were on their way are lost.
    """
    if self._client:
      self._client.stop()
    self._client = Client(self._plan, self._link, self._who, self._lease_secs,
                          self._coordinator, self._serials)
    return self._client

  def hook(self, summary_steps):
    """Returns the hook of a process, to come before the one that saves.

    Args:
      summary_steps: int, global steps between two looks at the progress.
    """
    return _Hook(self, summary_steps)

  def follow(self, features):
    """Takes what the model must not see out of the features of a batch."""
    tf.identity(features.pop(BATCH), BATCH)

  def begin(self, coordinator):
    """Takes note of a session whose variables have been made or restored.

    Args:
      coordinator: tf.train.Coordinator, which stops before the session closes.
    """
    self._coordinator = coordinator
    if self.is_chief and not self._loaded:
      self.load(None)
    self._loaded = False  # by the next session

  def trained(self, serial):
    """Takes note that a step has trained a batch."""
    if self._client:
      self._client.trained(serial)

  def save(self, step):
    """Writes the state; before variables are saved, whose step it is named by.

    Raises:
      tf.errors.AbortedError: if the ledger has been lost; a session then
        restores it with the variables.
    """
    meta, owner = self._link.call(self._link.ledger.read, wait=True)
    path = self._path(step)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + '.partial', 'w') as f:
      json.dump(self._plan.state(meta[2], owner), f)
      f.write('\n')
    os.replace(path + '.partial', path)

  def clean(self):
    """Removes the states of full and incremental checkpoints that are gone."""
    for path in glob.glob(self._path('*')):
      step = re.findall(r'\d+', os.path.basename(path))[0]
      if not any(glob.glob(os.path.join(self._model_dir, name % step)) for name
                 in ('model.ckpt-%s.index', 'incremental/*/delta-%s.json')):
        os.remove(path)

  def load(self, step):
    """Loads the state of a checkpoint; after its variables were restored.

    Args:
      step: int, its global step; None begins afresh.
    """
    epoch, owner, how = self._plan.load(
        None if step is None else self._path(step))
    # A number that no earlier load has used, in whichever process.
    generation = int.from_bytes(os.urandom(7), 'little')
    self._link.call(self._link.ledger.load, generation, self._plan.digest,
                    epoch, owner, wait=True)
    self._loaded = True
    logging.info('Work queue %s.', how)

  def keep(self):
    """Leaves the state as it is: the variables are left as they are, too."""
    self._loaded = True

  def report(self, step, epoch):
    """Tells how far the epochs are, in the log and in TensorBoard.

    Args:
      step: int, the global step.
      epoch: int, what the report before returned, or None.

    Returns:
      int, the number of epochs that are done.
    """
    progress = self._progress()
    if not progress:
      return epoch
    done, share = progress
    if epoch is not None and done > epoch:
      logging.info('Work queue: epoch %d of %d done at step %d.',
                   done, self._plan.epochs, step)
    tf.summary.FileWriterCache.get(self._model_dir).add_summary(
        tf.Summary(value=[tf.Summary.Value(
            tag='work_queue/fraction_done', simple_value=share)]), step)
    return done

  def end(self):
    """Gives back what was handed out and is not done."""
    if self._client:
      self._client.close()
      self._client = None

  def close(self):
    """Ends what `start` began."""
    self.end()
    if self._link:
      self._link.close()
      self._link = None

  def _progress(self):
    """(epochs done, share done) or None if the ledger cannot be asked now."""
    try:
      meta, owner = self._link.call(self._link.ledger.read)
    except tf.errors.AbortedError:
      return None
    return self._plan.progress(meta[2], owner)

  def _path(self, step):
    return os.path.join(self._model_dir, _FOLDER, 'state-%s.json' % step)


class Plan:
  """The slices of a run, their order in each epoch, and the file of a state.

  Attributes:
    epochs: int.
    digest: int, of slices and order, which all processes must agree on.
  """

  def __init__(self, slices, epochs, seed, shuffle):
    """Keeps what is to be done.

    Args:
      slices: list of reader.Slice.
      epochs: int.
      seed: int.
      shuffle: bool, whether every epoch has an order of its own, else that of
        `slices`.
    """
    self._slices = slices
    self.epochs = epochs
    self._seed = seed
    self._shuffle = shuffle
    # A folder may have another name on another machine, or the next day.
    self._files = _md5([(
        os.path.basename(piece.path), os.path.getsize(piece.path)) + piece[1:]
        for piece in slices])
    self.digest = int(_md5([self._files, seed, shuffle])[:15], 16)

  def __len__(self):
    return len(self._slices)

  def order(self, epoch):
    """[slices] int64, which slice comes when in an epoch."""
    if not self._shuffle:
      return np.arange(len(self))
    return np.random.RandomState(
        [self._seed % 2**32, int(epoch)]).permutation(len(self))

  def find(self, number):
    """Returns the epoch and the reader.Slice of a number."""
    epoch, place = divmod(number, len(self))
    return epoch, self._slices[self.order(epoch)[place]]

  def progress(self, epoch, owner):
    """(epochs done, share of all slices of all epochs that is done)."""
    done = int(epoch) * len(self) + int(np.sum(owner == ledger_lib.DONE))
    return int(epoch), min(1.0, done / (self.epochs * len(self)))

  def state(self, epoch, owner):
    """What a file has, from what a ledger has."""
    halves = np.reshape(owner, [2, len(self)]) == ledger_lib.DONE
    return {'files': self._files, 'slices': len(self), 'epoch': int(epoch),
            'acknowledged': [sorted(self.order(epoch + i)[half].tolist())
                             for i, half in enumerate(halves)]}

  def load(self, path):
    """What a ledger is to have, from a file.

    Args:
      path: str; None, or one that is missing or of other files, begins afresh.

    Returns:
      epoch, owner and in words what was found.
    """
    owner = np.full(2 * len(self), ledger_lib.FREE, np.int64)
    text = '%d slices, %d epochs' % (len(self), self.epochs)
    if path is None:
      return 0, owner, 'begins: ' + text
    try:
      with open(path) as f:
        state = json.load(f)
    except (OSError, ValueError) as error:
      return 0, owner, 'begins afresh, %s: the checkpoint has no state (%s)' % (
          text, error)
    if state['files'] != self._files:
      return 0, owner, ('begins afresh, %s: the files have changed since %s '
                        'was written, or their slices' % (text, path))
    epoch = state['epoch']
    for i, slices in enumerate(state['acknowledged']):
      half = owner[i * len(self):][:len(self)]
      half[np.isin(self.order(epoch + i), slices)] = ledger_lib.DONE
    return epoch, owner, 'goes on: %s, %.1f %% done' % (
        text, 100 * self.progress(epoch, owner)[1])


class Client:
  """What one iteration over the data has taken, read, sent and trained.

  take, wait, mark, read and sent are called by the iteration, trained by the
  process that trains; a thread renews the leases.

  Attributes:
    slices: int, in an epoch.
  """

  def __init__(self, plan, link, who, lease_secs, coordinator, serials):
    """Starts the thread.

    Args:
      plan: Plan.
      link: _Link.
      who: int, above 0, which process this is.
      lease_secs: number.
      coordinator: tf.train.Coordinator whose stop ends the client, or None.
      serials: iterator over increasing integers above 0.
    """
    self.slices = len(plan)
    self._plan = plan
    self._link = link
    self._ledger = link.ledger
    self._who = who
    self._lease_secs = lease_secs
    self._coordinator = coordinator
    self._serials = serials
    self._greeted = False
    self._closed = threading.Event()
    self._lock = threading.Lock()  # of all below
    self._leases = 0  # how many there were
    self._held = {}  # lease: Work
    self._rows = {}  # lease: rows that were read and not sent
    self._read = set()  # leases that were read to the end
    self._ends = []  # (serial, Work), in which batch they end
    self._done = []  # Works to acknowledge
    self._sent = self._trained = 0  # last serials
    threading.Thread(target=self._beat, daemon=True).start()

  def take(self):
    """Returns the next Work, or None if none is free at present."""
    found = self._ask()
    return found if isinstance(found, Work) else None

  def wait(self):
    """Returns the next Work when one is free; None if all are done."""
    while True:
      found = self._ask()
      if found == ledger_lib.END:
        return None
      if found != ledger_lib.WAIT:
        return found
      self._closed.wait(_POLL_SECS)

  def mark(self, table, work):
    """Returns rows of a Work with its lease as a column."""
    with self._lock:
      self._rows[work.lease] += table.num_rows
    return table.append_column(
        LEASE, pa.array(np.full(table.num_rows, work.lease, np.int64)))

  def read(self, work):
    """Takes note that a Work was read to its end."""
    with self._lock:
      self._read.add(work.lease)
      self._check_end(work.lease, self._sent)
      self._settle()

  def sent(self, table):
    """Takes note that rows go to training as a batch; returns its serial."""
    leases, counts = np.unique(
        table.column(LEASE).to_numpy(), return_counts=True)
    with self._lock:
      self._sent = next(self._serials)
      for lease, count in zip(leases.tolist(), counts.tolist()):
        self._rows[lease] -= count
        self._check_end(lease, self._sent)
      return self._sent

  def trained(self, serial):
    """Takes note that a batch was trained, and all sent before it."""
    with self._lock:
      self._trained = max(self._trained, serial)
      self._settle()
      done = bool(self._done)
    if done:
      self._attempt(self._acknowledge)

  def stop(self):
    """Ends waiting and the thread."""
    self._attempt(self._acknowledge)
    self._closed.set()

  def close(self):
    """Stops, and gives back what is not done."""
    self.stop()
    self._attempt(lambda: self._link.call(self._ledger.release, self._who))

  def _ask(self):
    """A Work, WAIT or END."""
    if self._closed.is_set() or (
        self._coordinator and self._coordinator.should_stop()):
      return ledger_lib.END
    try:
      if not self._greeted:  # what the one before of this name has left
        self._link.call(self._ledger.release, self._who)
        self._greeted = True
      generation, digest, number = self._link.call(
          self._ledger.take, self._who, self._plan.digest, self._plan.epochs,
          self._lease_secs)
    except tf.errors.AbortedError:
      return ledger_lib.WAIT
    errors.check(
        digest == self._plan.digest, 'Experiment.work_queue must see the same '
        'files, slices and seed in every process; the chief has others. Has a '
        'file changed, or is there another at the same path?')
    if number < 0:
      return number
    with self._lock:
      self._leases += 1
      work = Work(self._leases, generation, number, *self._plan.find(number))
      self._held[work.lease] = work
      self._rows[work.lease] = 0
    return work

  def _check_end(self, lease, serial):
    """Notes a Work as ended by a batch, if it is."""
    if lease in self._read and not self._rows[lease]:
      self._ends.append((serial, self._held[lease]))
      self._read.remove(lease)
      del self._rows[lease]

  def _settle(self):
    """Moves Works whose batches have been trained to those to acknowledge."""
    self._done += [w for serial, w in self._ends if serial <= self._trained]
    self._ends = [end for end in self._ends if end[0] > self._trained]

  def _acknowledge(self):
    with self._lock:
      done = list(self._done)
    for generation, numbers in _by_generation(done):
      self._link.call(self._ledger.ack, generation, numbers)
    with self._lock:
      self._done = [work for work in self._done if work not in done]
      for work in done:
        self._held.pop(work.lease, None)

  def _renew(self):
    with self._lock:
      held = list(self._held.values())
    for generation, numbers in _by_generation(held):
      self._link.call(self._ledger.renew, generation, self._who, numbers,
                      self._lease_secs)

  def _attempt(self, action):
    """Acts unless the link is down; the next beat tries again."""
    try:
      action()
    except tf.errors.AbortedError:
      pass

  def _beat(self):
    """Keeps the link up and the leases alive."""
    timer = tf.train.SecondOrStepTimer(every_secs=self._lease_secs / 4)
    timer.update_last_triggered_step(0)
    beats = 0
    while not self._closed.is_set() and not (
        self._coordinator and self._coordinator.should_stop()):
      beats += 1
      self._attempt(self._link.connect)
      self._attempt(self._acknowledge)
      if timer.should_trigger_for_step(beats):
        timer.update_last_triggered_step(beats)
        self._attempt(self._renew)
      self._closed.wait(min(_BEAT_SECS, self._lease_secs / 8))


def _by_generation(works):
  """Yields (generation, numbers)."""
  for generation in {work.generation for work in works}:
    yield generation, [
        w.number for w in works if w.generation == generation]


class _Link:
  """The ledger, and a session to it that is opened anew when it was lost.

  A session waits without end for a server that is down. So only `connect` and
  calls that wait open one; the threads of the input never do, as no session
  closes before they return.
  """

  def __init__(self, device, target, config):
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
      tf.errors.AbortedError: if the server cannot be reached, or the ledger
        was not loaded since it is up.
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
    try:
      return function(*args)
    except tf.errors.FailedPreconditionError as error:
      raise tf.errors.AbortedError(None, None, error.message)
    except _LOST + (RuntimeError,) as error:  # a closed session is the latter
      self._drop(session)
      raise tf.errors.AbortedError(None, None, str(error))

  def _drop(self, session):
    """Closes a session; in a thread, as that waits for servers that are gone.

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
    pass


class _Hook(tf.train.SessionRunHook):
  """Tells the queue which batch a step has trained, and shows the progress."""

  def __init__(self, queue, summary_steps):
    self._queue = queue
    self._timer = tf.train.SecondOrStepTimer(every_steps=summary_steps)
    self._epoch = None
    self._step = 0

  def begin(self):
    graph = tf.get_default_graph()
    self._fetches = [graph.get_tensor_by_name(BATCH + ':0'),
                     tf.train.get_global_step()]
    self._timer.reset()

  def after_create_session(self, session, coord):
    self._queue.begin(coord)

  def before_run(self, run_context):
    return tf.train.SessionRunArgs(self._fetches)

  def after_run(self, run_context, run_values):
    serial, self._step = [int(x) for x in run_values.results]
    self._queue.trained(serial)
    if self._queue.is_chief and self._timer.should_trigger_for_step(self._step):
      self._timer.update_last_triggered_step(self._step)
      self._epoch = self._queue.report(self._step, self._epoch)

  def end(self, session):
    if self._queue.is_chief:
      self._queue.report(self._step, self._epoch)
    self._queue.end()


def _md5(value):
  return hashlib.md5(json.dumps(value).encode()).hexdigest()
