"""Averaged weights: moving averages of all weights, for use in evaluation.

After update t = 1, 2, ... of a training the average of a variable moves towards
the weights w(t) by

  average(t) = average(t - 1) + a(t) * (w(t) - average(t - 1))
  a(t) = max(1 - d, 5 / (t + 4))

with the decay d. At first, while 5 / (t + 4) is the larger, this is the
polynomial-decay average of Shamir and Zhang ("Stochastic Gradient Descent for
Non-smooth Optimization", ICML 2013, section 4, with eta = 4): a(1) is 1, so
that the weights before the first update count nothing, and then an average is
over the last sixth of all updates or so, since a young network changes fast.
After update T = floor(5 / (1 - d) - 4) it is the exponential moving average.

An average that is exponential from the start, without the bias of its start as
Adam has it for its moments, is over more than half of the first 1 / (1 - d)
updates. With it the predictions after 100 steps of base.gin were 5 to 20 % too
low, those of the weights themselves 2 % too low to 7 % too high.

Of an embedding table a step only updates the rows that its batch touches. While
the weights w of a row stay as they are, from update a to update b, its average
becomes

  average(b) = D * average(a) + (1 - D) * w
  D = p(min(a, T)) / p(min(b, T)) * d^(max(b, T) - max(a, T))
  p(t) = t (t + 1) (t + 2) (t + 3) (t + 4)

where D is the product of 1 - a(t) for t from a + 1 to b. So the average of a
row has to be brought up to date only before the optimizer updates the row, and
before a checkpoint is saved. Then a tensor of a checkpoint, <variable>/average,
is the average at the step of the checkpoint, for all rows.

The averages of a variable are stored as an optimizer's slots are, so parts of
tables, keyed tables and parameter servers need nothing else. The row of a keyed
table counts its updates from the step at which its key got it.

Only what is trained is averaged. The moving statistics of batch norm are
averages over steps already: to average them again would let them lag behind the
averaged weights, by which calibration suffers in the first thousand steps.

Asynchronous workers update averages as they update everything else, without
locks: two of them that touch a row at once may lose a part of one update of its
average. A row is never brought back to an older update than it has reached.
"""

import math

import gin
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.embeddings import deeprec
from ple_estimator.embeddings import keyed_table
from ple_estimator.embeddings import table_columns
from ple_estimator.embeddings import table_slots
from ple_estimator.engine import compat
from ple_estimator.engine import native

SUFFIX = '/average'  # of the name of a variable in a checkpoint
START = 'averaging/start'
DECAY = 'averaging/decay'  # in incremental checkpoints
STEP = '/average_step'
_RAMP = 5.0  # a(t) is at least _RAMP / (t + _RAMP - 1)


@gin.register
class Averaging:
  """Averages the weights; evaluation, prediction and export use the averages.

  Training goes on from the weights themselves. A checkpoint has both.
  """

  def __init__(self, decay=0.999):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      decay: float d in (0, 1): an average is over about 1 / (1 - d) steps, and
        at global step t over about t / 6 while that is less.

    Raises:
      UserError: if decay is out of range.
    """
    errors.check_number('Averaging.decay', decay, above=0, below=1)
    self.decay = decay


def of_graph(graph=None):
  """The Averages of a graph, by default the default one; at most one."""
  return (graph or tf.get_default_graph()).get_collection(Averages)


def is_averaged(variable):
  """Whether a variable of the model has an average: whether it is trained."""
  return variable.trainable and variable.dtype.is_floating


def caught_up(tensors, decay):
  """Brings the averages of all rows of a checkpoint up to its step.

  Args:
    tensors: dict of name to numpy array, a whole checkpoint.
    decay: float.

  Returns:
    dict of name to numpy array, the tensors that change.
  """
  found = {}
  done = tensors[tf.GraphKeys.GLOBAL_STEP] - tensors[START]
  for name, last in tensors.items():
    table, _, ending = name.rpartition(STEP)
    if not table or ending not in ('', '-values'):
      continue
    first, of = (0, last) if last.ndim == 1 else last.T
    now = np.maximum(of, done)
    since, until = of - first, now - first
    with np.errstate(invalid='ignore'):
      kept = _kept(np, since.astype(float), until.astype(float), decay)
    kept = np.where(since > 0, kept, 0).astype(np.float32)[:, np.newaxis]
    average = table + SUFFIX + ending
    found[average] = (kept * tensors[average] +
                      (1 - kept) * tensors[table + ending])
    found[name] = now if last.ndim == 1 else np.stack([first, now], axis=1)
  return found


def _kept(xp, since, until, decay):
  """The share D of an average after `since` updates that it has after `until`.

  Args:
    xp: tf.math or np, whose functions are used.
    since: [n] float64.
    until: [n] float64, not less; where it is 0, the result is not a number.
    decay: float.

  Returns:
    [n] float64.
  """
  turn = max(1, math.floor(_RAMP / (1 - decay) - _RAMP + 1))  # T
  share = decay ** (xp.maximum(until, turn) - xp.maximum(since, turn))
  since, until = xp.minimum(since, turn), xp.minimum(until, turn)
  for i in range(int(_RAMP)):
    share *= (since + i) / (until + i)
  return share


class Averages:
  """The averages of a training graph and the ops that update them.

  Attributes:
    decay: float.
    variables: list of the averages, and of the numbers of updates of rows, but
      those of keyed tables.
    catch_up_all: tf.Operation that brings all rows up to date, to be run before
      a checkpoint is saved, and before a step that moves all rows.
  """

  def __init__(self, decay, tables, keyed, fused):
    """Makes the averages; before the optimizer makes its slots.

    Args:
      decay: float, see Averaging.
      tables: list of resource variables [height, width] of which steps update
        only rows.
      keyed: list of keyed_table.KeyedTable, likewise.
      fused: bool, whether to use the op of native.py for all other variables.
    """
    self.decay = decay
    self._fused = fused
    apart = {id(v) for v in tables} | {
        id(v) for table in keyed_table.of_graph() for v in table.variables}
    self._dense = [
        v for v in tf.global_variables() if is_averaged(v) and
        id(v) not in apart and not deeprec.is_variable(v)]
    start = tf.get_variable(
        START, [], tf.int64, tf.zeros_initializer(), trainable=False)
    # The number of updates before that of this step.
    self._done = (tf.train.get_global_step().read_value() -
                  start.read_value())
    self._of_dense, self._of_rows = _Slots(), _RowSlots(self._done)
    table_slots.make(self._of_dense, self._dense, [])
    table_slots.make(self._of_rows, tables, keyed)
    self.variables = [
        self._of_dense.get_slot(v, SUFFIX) for v in self._dense] + [
            slot for table in tables for slot in self.slots(table)]
    self.catch_up_all = tf.group(
        [self._catch_up_table(table) for table in tables] +
        [self._catch_up_keyed(table) for table in keyed])
    tf.add_to_collection(Averages, self)

  def catch_up(self, variable, rows):
    """Brings rows up to date, before the optimizer updates them.

    Args:
      variable: one of `tables`, or the values of a keyed table.
      rows: [n] int64.

    Returns:
      tf.Operation.
    """
    average, last = self.slots(variable)
    with tf.device(variable.device):
      new, steps = self._moved(*[
          table_columns.gather(x, rows) for x in (variable, average, last)])
      return tf.group(table_columns.update(average, rows, new),
                      table_columns.update(last, rows, steps))

  def move(self):
    """Moves the averages of all other variables, after their update.

    Returns:
      list of tf.Operation.
    """
    done = tf.cast(self._done, tf.float64)
    share = tf.cast(tf.maximum(_RAMP / (done + _RAMP), tf.cast(
        1 - self.decay, tf.float64)), tf.float32)
    by_device = {}
    for variable in self._dense:
      by_device.setdefault(variable.device, []).append(variable)
    moved = []
    for device, variables in sorted(by_device.items()):
      averages = [self._of_dense.get_slot(v, SUFFIX) for v in variables]
      with tf.device(device or None):
        if self._fused:
          moved.append(native.move_averages(averages, variables, share))
          continue
        for average, variable in zip(averages, variables):
          moved.append(average.assign_add(
              share * (variable.read_value() - average.read_value())).op)
    return moved

  def slots(self, variable):
    """The average and the last updates of a table, a list of variables."""
    return [self._of_rows.get_slot(variable, name) for name in (SUFFIX, STEP)]

  def _moved(self, weights, average, last):
    """Averages of rows whose weights have not changed since their last update.

    Args:
      weights: [n, width] float32.
      average: [n, width] float32.
      last: [n] int64, the update that an average is of; or [n, 2], before it
        the update after which the row began.

    Returns:
      (average, last), of the newest update.
    """
    first, of = (0, last) if last.shape.rank == 1 else tf.unstack(
        last, num=2, axis=1)
    # Another worker may have brought a row further than this one's step.
    now = tf.maximum(of, self._done)
    since, until = of - first, now - first
    kept = _kept(tf.math, tf.cast(since, tf.float64),
                 tf.cast(until, tf.float64), self.decay)
    # A row that was never averaged has 0 / 0 at the very first step.
    kept = tf.cast(tf.where(since > 0, kept, tf.zeros_like(kept)), tf.float32)
    kept = kept[:, tf.newaxis]
    return kept * average + (1 - kept) * weights, (
        now if last.shape.rank == 1 else tf.stack([first, now], axis=1))

  def _catch_up_table(self, variable):
    average, last = self.slots(variable)
    with tf.device(variable.device):
      new, steps = self._moved(*[
          x.read_value() for x in (variable, average, last)])
      with tf.control_dependencies([new, steps]):
        return tf.group(average.assign(new, read_value=False),
                        last.assign(steps, read_value=False))

  def _catch_up_keyed(self, table):
    def locked():
      rows = table.state.rows.export()[1]
      with tf.control_dependencies([self.catch_up(table.values, rows)]):
        return tf.size(rows)

    with tf.device(table.state.device):
      return table.state.locked(locked).op


class _Slots(tf.train.Optimizer):
  """Averages as slots of an optimizer, which never updates anything."""

  def __init__(self):
    super().__init__(use_locking=False, name=SUFFIX[1:])

  def get_slot_names(self):
    return [SUFFIX]

  def _create_slots(self, var_list):
    for var in var_list:
      compat.make_slot(self, var, SUFFIX, tf.zeros_initializer())


class _RowSlots(_Slots):
  """As _Slots, and for each row the updates of _moved."""

  def __init__(self, done):
    super().__init__()
    self._done = done

  def get_slot_names(self):
    return [SUFFIX, STEP]

  def _create_slots(self, var_list):
    super()._create_slots(var_list)
    keyed = {id(table.values) for table in keyed_table.of_graph()}
    for var in var_list:
      height = var.shape.as_list()[:1]
      if id(var) in keyed:  # a row begins when its key gets it
        compat.make_slot(self, var, STEP, self._begins, tf.TensorShape(
            height + [2]), tf.int64, op_name=STEP[1:])
      else:
        compat.make_slot(self, var, STEP, tf.zeros_initializer(),
                         tf.TensorShape(height), tf.int64, op_name=STEP[1:])

  def _begins(self, shape, dtype=tf.int64, partition_info=None):
    del partition_info
    return tf.fill(shape, tf.cast(self._done, dtype))
