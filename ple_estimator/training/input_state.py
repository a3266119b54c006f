"""What a run has read of its files, saved with each checkpoint.

  model_dir/input/state-<step>.json

is written just before the variables of that step are saved, full or
incremental, and read when they are restored; see input_plan.py for what it
holds. With Experiment.work_queue the state of the queue takes its place.

One process goes on exactly. The rows that count are those of completed steps:
each batch carries a number past the model (feature read_plan.ROWS), which says
up to which row it reaches, and a hook keeps that of the last step. Batches that
were only made ahead are read again.

In a cluster each process reads a share of its own, and nobody knows the rows of
all of them at the step that a checkpoint has. So the state says how many rows
the global steps have trained, and each process goes on as far into its share:
rows of processes that were faster are repeated, those of slower ones skipped.
"""

import fractions
import math

from absl import logging
import tensorflow.compat.v1 as tf

from ple_estimator import files
from ple_estimator.cluster import roles
from ple_estimator.cluster.work_queue import states
from ple_estimator.data import read_plan
from ple_estimator.training import incremental
from ple_estimator.training import input_plan

_FOLDER = 'input'


class InputState:
  """What is read of the files of an input, and what is still to be read."""

  def __init__(self, source, config, on_changed_files):
    """Keeps the settings; opens nothing.

    Args:
      source: inputs.FileInput, what is trained on.
      config: tf.estimator.RunConfig.
      on_changed_files: 'error' or 'restart', see Experiment.
    """
    self._source = source
    self._config = config
    self._shard = roles.shard(config)
    # Only one process judges: on another machine a copy has another date.
    self._on_changed_files = on_changed_files if config.is_chief else 'ignore'
    self._reading = self._plan = self._progress = None
    self._step = self._saved_last_step = None
    self._number = 0  # that of the last batch that was trained
    self._counts = {}

  # ------------------------------------------------------ what is to be read

  def prepare(self, reading):
    """Plans what to read after the newest checkpoint of model_dir.

    Args:
      reading: reading.Reading, what is read of the files.

    Raises:
      UserError: if files are missing, or have changed.
    """
    self._reading, self._counts = reading, {}
    self._make_plan(incremental.newest_step(self._config.model_dir))

  def say(self):
    """Logs what is gone on with."""
    for line in self._plan.lines:
      logging.info('Input: %s.', line)
    if self._plan.lines and self._shard[1] > 1:
      logging.info(
          'Input: in a cluster without Experiment.work_queue each process goes '
          'on at about this row of its share; rows of faster processes are '
          'repeated, those of slower ones skipped.')

  def num_rows(self):
    """Returns the rows of one epoch of all files, bad ones included."""
    return self._count_rows(self._source.paths())

  def first_step(self):
    """Returns the global step, a Fraction, at which the epochs begin.

    It is counted back from the rows that are still to be read, so that the end
    of the last epoch is the end of the rows. Of new files it is the step at
    which the run goes on, and negative if the batch size has become smaller.
    """
    read = self.num_rows() * self._source.epochs - read_plan.num_rows(
        self._plan.parts, self._count_rows)
    return self._step - fractions.Fraction(read, self._source.batch_size)

  def last_step(self):
    """Returns the global step at which all rows will have been read.

    If none is left, it is the step at which the last of them was, or was to be.
    """
    rows = read_plan.num_rows(self._plan.parts, self._count_rows)
    if not rows:
      return min(self._step, self._saved_last_step or self._step)
    batches = rows / self._source.batch_size
    return self._step + max(1, int(
        batches if self._source.drop_remainder else math.ceil(batches)))

  def is_at_end(self):
    """Whether no row is left to read."""
    return not self._plan.parts

  def parts(self):
    """Returns the parts for an iteration over the data that starts now."""
    if not self._config.is_chief:  # which restores nothing
      self._make_plan(incremental.newest_step(self._config.model_dir))
    parts = list(self._plan.parts)
    if self._shard[1] > 1:
      # Who is faster than others goes through its share again.
      parts.append(self._source.part(
          self._source.paths(), self._source.epochs,
          self._config.tf_random_seed)._replace(stop=None))
    return parts

  # ---------------------------------------------------- what has been trained

  def follow(self, features):
    """Removes the number of a batch, which is not for the model."""
    tf.identity(features.pop(read_plan.ROWS), read_plan.ROWS)

  def iterate(self, parts):
    """Returns the read_plan.Progress of an iteration over parts."""
    self._progress = read_plan.Progress(parts)
    return self._progress

  def trained(self, number):
    """Notes the number of the batch that a step has trained."""
    self._number = number

  def hook(self):
    """Returns the hook of a process; it must precede those that save."""
    return _Hook(self)

  # ----------------------------------------------------------- as a Saver asks

  def save(self, step):
    """Writes the state of a checkpoint, before its variables are saved.

    Args:
      step: int, the global step of the checkpoint.
    """
    state = input_plan.state_at(self._plan, self._place(step))
    state['last_step'] = self.last_step()
    states.write(self._config.model_dir, step, state, _FOLDER)

  def clean(self):
    """Removes the states of full and incremental checkpoints that are gone."""
    states.remove_outdated(self._config.model_dir, _FOLDER)

  def load(self, step):
    """Reads the state of a checkpoint, after its variables were restored.

    Args:
      step: int, its global step.
    """
    if step == self._step and not self._progress:
      return  # as prepared
    self._make_plan(step)
    self.say()

  def keep(self, step):
    """As `load`, because parameter servers are ahead of the checkpoint."""
    del step  # what is read is the same
    self._make_plan(incremental.newest_step(self._config.model_dir))

  # ----------------------------------------------------------------- in detail

  def _make_plan(self, step):
    path = states.path(self._config.model_dir, step or 0, _FOLDER)
    state = files.read_json(path) if step is not None else None
    if not input_plan.is_state(state):
      state = None
    self._plan = (self._plan_by_step(step, path) if step and not state else
                  self._plan_of(state))
    self._saved_last_step = state and state['last_step']
    self._step = step or 0
    self._progress, self._number = None, 0

  def _plan_of(self, state):
    return input_plan.make(
        state, self._source, self._config.tf_random_seed,
        self._on_changed_files, self._count_rows)

  def _plan_by_step(self, step, path):
    """The Plan after a checkpoint without a state."""
    rows = step * self._source.batch_size
    whole = self._plan_of(None)
    place = read_plan.after(whole.parts, rows, self._count_rows)
    plan = self._plan_of(input_plan.state_at(whole, place))
    return plan._replace(lines=[
        'the checkpoint does not say what was read (nothing that can be used '
        'at %s): takes step * batch_size = %s rows of the files that are named '
        'now as read' % (path, '{:,}'.format(rows))] + plan.lines)

  def _place(self, step):
    """The read_plan.Place that training has come to at a global step."""
    parts = self._plan.parts
    if self._shard[1] > 1:
      rows = max(0, step - self._step) * self._source.batch_size
      return read_plan.after(parts, rows, self._count_rows)
    if not self._progress:
      return read_plan.start(parts)
    return self._progress.place(self._number)

  def _count_rows(self, paths):
    key = tuple(paths)
    if key not in self._counts:
      self._counts[key] = self._source.of(paths).count_rows(self._reading)
    return self._counts[key]


class _Hook(tf.train.SessionRunHook):
  """Tells an InputState which batch a step has trained."""

  def __init__(self, state):
    self._state = state

  def begin(self):
    self._number = tf.get_default_graph().get_tensor_by_name(
        read_plan.ROWS + ':0')

  def before_run(self, run_context):
    return tf.train.SessionRunArgs(self._number)

  def after_run(self, run_context, run_values):
    self._state.trained(int(run_values.results))
