"""A work queue: slices of the training data go to whichever process is free.

In every epoch each slice is handed out once, in an order of that epoch. A
client (the part of a process that reads the data, client.py) has a lease of a
slice until the step is done that trained the last row of the slice; then it
acknowledges the slice. If the process dies, its leases end, after lease_secs or
as soon as the process is back, and the slices are handed out again. So every
slice is trained at least once per epoch, and exactly once unless a process is
lost.

The ledger (ledger.py) records which client has which slice. It is on the first
parameter server, or in the process if there is none. Its state is saved with
every checkpoint, just before the variables:

  model_dir/work_queue/state-<step>.json

So a checkpoint includes all that its state says is acknowledged. When the chief
restores the variables it also loads that state, and the slices that were
trained since then are handed out again.

How a row is followed: the number of its lease travels with it through the
shuffle buffer (column client.LEASE). A batch carries a serial number past the
model (feature BATCH). When a step has trained the batch, the hook tells the
client, whose bookkeeping (bookkeeping.py) knows which slices have ended by
then.
"""

import itertools
import os

from absl import logging
import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.cluster import roles
from ple_estimator.cluster.work_queue import client as client_lib
from ple_estimator.cluster.work_queue import link
from ple_estimator.cluster.work_queue import plan
from ple_estimator.cluster.work_queue import states
from ple_estimator.engine import compat

BATCH = 'work_queue_batch'  # a feature, and the tensor's name in the graph


@gin.register
class WorkQueue:
  """Hands out the slices of the training data; each process has one.

  Attributes:
    slice_rows: int or None, see __init__.
    is_chief: bool, whether this process loads and saves the state.
  """

  def __init__(self, slice_rows=None, lease_secs=300):
    """Checks and stores the hyperparameters; opens nothing.

    Args:
      slice_rows: int, largest number of rows in a slice (of CSV, about); None
        makes a slice of each row group of Parquet, and of 64 MB of CSV. To
        read a part of a row group costs as much as to read all of it.
      lease_secs: number, seconds after which the slices of a process that does
        not answer are handed out again. A process that is started again gives
        its slices back at once.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check_integer('WorkQueue.slice_rows', slice_rows, 1, or_none=True)
    errors.check_number('WorkQueue.lease_secs', lease_secs, above=0)
    self.slice_rows = slice_rows
    self._lease_secs = lease_secs
    self._plan = self._link = self._client = self._coordinator = None
    self._serials = itertools.count(1)
    self._loaded = self.is_chief = False

  def start(self, config, source, reading):
    """Starts a run; to be called once per input_fn.

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
    self._plan = plan.Plan(
        source.slices(reading, self.slice_rows), source.epochs,
        config.tf_random_seed or 0, shuffle=source.shuffle_rows > 0)
    self._link = link.Link('/job:ps/task:0/cpu:0' if jobs else '',
                           config.master, config.session_config)
    self._loaded = False
    if len(self._plan) < count:
      logging.warning(
          'Work queue: %d slices for %d processes; some have nothing to do. '
          'Set WorkQueue.slice_rows.', len(self._plan), count)

  def client(self):
    """Returns a new client.Client in place of the one before.

    Each iteration over the data has its own: after the loss of a parameter
    server TensorFlow starts another iteration, and the rows that were on their
    way to a step are lost.
    """
    if self._client:
      self._client.stop()
    self._client = client_lib.Client(
        self._plan, self._link, self._who, self._lease_secs, self._coordinator,
        self._serials)
    return self._client

  def with_own_threads(self, dataset, workers):
    """Returns a tf.data.Dataset that runs in threads of its own.

    A client waits inside of the dataset for slices that steps have to finish
    first. TensorFlow's common threads may be a single one, on a machine with
    one processor; if the client waited in it no step could run.

    Args:
      dataset: tf.data.Dataset.
      workers: int, how many threads it needs besides the one that waits.
    """
    return compat.with_own_threads(dataset, 1 + workers)

  def hook(self, summary_steps):
    """Returns the hook of a process; it must precede the one that saves.

    Args:
      summary_steps: int, global steps between two reports of the progress.
    """
    return _Hook(self, summary_steps)

  def follow(self, features):
    """Removes the serial number, which is not for the model, from features."""
    tf.identity(features.pop(BATCH), BATCH)

  def begin(self, coordinator):
    """Starts to use a session after variables were initialized or restored.

    Args:
      coordinator: tf.train.Coordinator, which stops before the session closes.
    """
    self._coordinator = coordinator
    if self.is_chief and not self._loaded:
      self.load(None)
    self._loaded = False  # by the next session

  def trained(self, serial):
    """Notes that a step has trained the batch of a serial number."""
    if self._client:
      self._client.trained(serial)

  def save(self, step):
    """Writes the state of a checkpoint, before its variables are saved.

    Args:
      step: int, the global step of the checkpoint.

    Raises:
      tf.errors.AbortedError: if the ledger has been lost; TensorFlow then opens
        another session, which restores ledger and variables.
    """
    meta, owner = self._link.call(self._link.ledger.read, wait=True)
    states.write(self._model_dir, step, self._plan.state(meta[2], owner))

  def clean(self):
    """Removes the states of checkpoints that were deleted, also incremental."""
    states.remove_outdated(self._model_dir)

  def load(self, step):
    """Loads the state of a checkpoint, after its variables were restored.

    Args:
      step: int, its global step; None starts from the beginning.
    """
    epoch, owner, text = self._plan.load(
        None if step is None else states.path(self._model_dir, step))
    # A random number, which no earlier load of any process has used.
    generation = int.from_bytes(os.urandom(7), 'little')
    self._link.call(self._link.ledger.load, generation, self._plan.digest,
                    epoch, owner, wait=True)
    self._loaded = True
    logging.info('Work queue %s.', text)

  def keep(self, step):
    """Leaves the ledger unchanged, because no variables were restored.

    If the ledger was lost it is loaded all the same: the chief may have
    restored the variables of parameter servers that were started again, and
    then have failed to reach the ledger, or have been killed. What was trained
    since the checkpoint is then handed out again.

    Args:
      step: int, the global step of the newest checkpoint.

    Raises:
      tf.errors.AbortedError: if the ledger cannot be reached; TensorFlow then
        opens another session.
    """
    try:
      self._link.call(self._link.ledger.read, wait=True)
      self._loaded = True
    except link.NotLoaded:
      self.load(step)

  def report(self, step, epoch):
    """Reports the progress, in the log and in TensorBoard.

    Args:
      step: int, the global step.
      epoch: int, what the last report returned, or None.

    Returns:
      int, the number of epochs that are complete.
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
    """Gives back the slices that were taken and are not done."""
    if self._client:
      self._client.close()
      self._client = None

  def close(self):
    """Gives slices back and closes the connection; ends what `start` began."""
    self.end()
    if self._link:
      self._link.close()
      self._link = None

  def _progress(self):
    """See plan.Plan.progress; None if the ledger cannot be reached now."""
    try:
      meta, owner = self._link.call(self._link.ledger.read)
    except tf.errors.AbortedError:
      return None
    return self._plan.progress(meta[2], owner)


class _Hook(tf.train.SessionRunHook):
  """Tells the queue which batch a step has trained; reports the progress."""

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
