"""The Saver of a run: keyed tables, incremental checkpoints, lost chiefs."""

import collections
import math
import os

from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.cluster import marker
from ple_estimator.embeddings import deeprec
from ple_estimator.embeddings import keyed_table
from ple_estimator.engine import collector
from ple_estimator.engine import compat
from ple_estimator.optimizers import averaging
from ple_estimator.training import checkpoints
from ple_estimator.training import incremental
from ple_estimator.training import late_averages
from ple_estimator.training import losses


class Saver(compat.Saver):
  """A Saver that saves each keyed table as a whole, not variable by variable.

  Its checkpoints restore on any number of parameter servers. In training it
  also restores incremental checkpoints. If a chief is started again and the
  parameter servers hold a newer state than the last checkpoint, it restores
  nothing, so that the loss of a chief loses no step.

  Attributes:
    last_step: int, the global step of the last checkpoint it saved, or None.
    input_state: what of the rows is saved with the variables, see __init__.
  """

  def __init__(self, keep_checkpoint_max, training, input_state=None,
               variables_remain=True, averages=False):
    """Makes the Saver of the default graph.

    Args:
      keep_checkpoint_max: int, checkpoints kept; 0 keeps all.
      training: bool; hooks may then add variables before the Saver is built.
      input_state: work_queue.WorkQueue or input_state.InputState, which says
        what rows were trained; it is saved and restored with the variables.
        None saves nothing.
      variables_remain: bool, whether the variables may still have values when
        this process is started again, as they do on parameter servers.
      averages: bool, outside of training: whether variables get the averages of
        a checkpoint (averaging.py), and not the weights.
    """
    self._training = training
    self._averages = averages and not training
    if self._averages:
      for table in keyed_table.of_graph():
        table.checkpoint.read_slot(averaging.SUFFIX)
    self.input_state = input_state
    self.last_step = None
    self._looks_for_live = training and variables_remain
    self._is_live = None
    self._check = None
    super().__init__(
        sharded=True, max_to_keep=keep_checkpoint_max,
        save_relative_paths=True, builder=compat.SaverBuilder(),
        defer_build=training)
    # As in keyed_table.of_graph, no str.
    tf.add_to_collection(Saver, self)

  def saveables(self):
    variables, copies = plain_variables(), collections.defaultdict(list)
    for variable in filter(compat.is_copy, variables):
      copies[compat.whole(variable)[0]].append(variable)
    return [self._saveable(v) for v in variables if not compat.is_copy(v)] + [
        _Copies(name, copies[name]) for name in sorted(copies)] + [
            table.checkpoint.saveable() for table in keyed_table.of_graph()]

  @collector.paused()
  def _saveable(self, variable):
    if self._averages and averaging.is_averaged(variable):
      return _Whole(variable, averaging.SUFFIX)
    is_plain = compat.is_whole(variable) and not deeprec.is_variable(variable)
    return _Whole(variable) if is_plain else variable

  def build(self):
    # When a session is created again it calls this method again, in the same
    # graph.
    if self._looks_for_live and self._is_live is None:
      self._is_live = tf.reduce_all(tf.stack([
          compat.is_initialized(v) for v in tf.global_variables()]))
      self._step = tf.train.get_global_step()
    super().build()
    if self._training and self._check is None:
      self._check = _Check()

  def check(self, sess, model_dir, step):
    """Raises UserError if a variable that is trained is not finite.

    So a step that has spoilt the model leaves no checkpoint, though its loss
    was that of the step before.

    Args:
      sess: tf.Session.
      model_dir: str.
      step: int, the global step.
    """
    self._check(sess, model_dir, step)

  def save(self, sess, save_path, global_step=None, **kwargs):
    # The graph is in the event file. Writing it beside every checkpoint would
    # take longer than the checkpoint of a small model.
    kwargs['write_meta_graph'] = False
    if global_step is not None:
      global_step = int(
          global_step if isinstance(global_step, (int, np.integer))
          else tf.train.global_step(sess, global_step))
    if self._training:
      self.check(sess, os.path.dirname(save_path), global_step)
      sess.run([a.catch_up_all for a in averaging.of_graph(sess.graph)])
    # Before the variables: they then include all rows that this state lists
    # as trained.
    if self.input_state and global_step is not None:
      self.input_state.save(global_step)
    saved = super().save(sess, save_path, global_step, **kwargs)
    if global_step is not None:
      self.last_step = global_step
    if self.input_state:
      self.input_state.clean()
    return saved

  def write(self, sess, path):
    """Writes the variables to a path of their own; no checkpoint of the run."""
    sess.run(self.saver_def.save_tensor_name,
             {self.saver_def.filename_tensor_name: path})

  def fill(self, sess, path):
    """Gives the variables the values of a file that `write` could have made."""
    self._read(sess, path)

  def restore(self, sess, save_path):
    if self._training:
      save_path = incremental.merged(save_path)
      step = files.checkpoint_step(save_path)
      if self._looks_for_live and self._is_newer(sess, step):
        if self.input_state:
          self.input_state.keep(step)
        return
    save_path = self._read(sess, save_path)
    # After the variables: what others trained until now may be lost, and what
    # they have acknowledged until now is forgotten.
    if self.input_state:
      self.input_state.load(files.checkpoint_step(save_path))

  def _read(self, sess, path):
    """Restores a checkpoint; in training an older one if it is damaged.

    Returns:
      str, the path of the one that was restored.
    """
    try:
      names = set(tf.train.load_checkpoint(path).get_variable_to_shape_map())
      tables = [table.checkpoint for table in keyed_table.of_graph(sess.graph)]
      feed = {table.sources: table.sources_in(names) for table in tables}
      with late_averages.added(path, sess.graph) as whole:
        feed[self.saver_def.filename_tensor_name] = whole
        sess.run(self.saver_def.restore_op_name, feed)
      return path
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
      model_dir = os.path.dirname(path)
      # A checkpoint that was merged is made again at the next start.
      if not self._training or path != marker.latest_checkpoint(model_dir):
        raise
      logging.warning('%s: %s', files.shown(path), error.message)
    older = checkpoints.mend(model_dir, unusable=path)
    if older is None:
      raise errors.UserError(
          'Checkpoint %s cannot be restored, and there is no other. Copy it '
          'back, or start the same command again to train from step 0.' %
          files.shown(path))
    return self._read(sess, incremental.merged(older))

  def _is_newer(self, sess, saved_step):
    """Whether the variables have values of a later step than a checkpoint."""
    step = int(sess.run(self._step)) if sess.run(self._is_live) else -1
    if step < saved_step:
      return False
    logging.info('Going on at step %d, which the parameter servers are at; the '
                 'last checkpoint is of step %d.', step, saved_step)
    return True


def of_graph(graph):
  """The Savers of a graph, a list."""
  return graph.get_collection(Saver)


class _Check:
  """Sums up the variables of a graph, which shows what is not finite.

  Those of keyed tables are not looked at: they have rows without values.
  """

  def __init__(self):
    plain = {id(v) for v in plain_variables()} - {
        id(v) for v in deeprec.variables()}
    self._sums, axes = collections.OrderedDict(), {}
    for variable in tf.trainable_variables():
      if id(variable) in plain and variable.dtype.is_floating:
        key = (variable.device, variable.shape.rank)
        with tf.device(variable.device):
          if key not in axes:
            axes[key] = tf.constant(list(range(variable.shape.rank)), tf.int32)
          self._sums[variable.op.name] = tf.reduce_sum(
              _value(variable), axes[key])

  def __call__(self, sess, model_dir, step):
    for name, total in sess.run(self._sums).items():
      errors.check(
          math.isfinite(total), 'The variable %s is not finite at step %s, '
          'which is not saved: training has diverged. %s.', name, step,
          losses.way_on(model_dir))


class _Copies(compat.SaveableObject):
  """Equal variables, one for each part of a partitioned one, saved once."""

  def __init__(self, name, variables):
    self._variables = variables
    value = variables[0].read_value()
    super().__init__(
        variables[0].handle,
        [compat.SaveSpec(value, '', name, value.dtype)], name)

  def restore(self, restored_tensors, restored_shapes):
    del restored_shapes
    value, = restored_tensors
    return tf.group(*[v.assign(tf.reshape(value, []), read_value=False)
                      for v in self._variables])


class _Whole(compat.SaveableObject):
  """A variable that is no part of another one, saved and restored by one op.

  TensorFlow restores each by two ops. A training has a thousand variables, and
  to build its Saver takes as long as many steps.
  """

  def __init__(self, variable, suffix=''):
    """Makes the ops that read it.

    Args:
      variable: resource variable.
      suffix: str, what its name ends with in a checkpoint: of a variable whose
        value is its average in training, that of averages.
    """
    self._variable = variable
    value = _value(variable)
    name = variable.op.name + suffix
    super().__init__(
        variable.handle, [compat.SaveSpec(
            value, '', name, value.dtype, variable.device)], name)

  def restore(self, restored_tensors, restored_shapes):
    del restored_shapes
    value, = restored_tensors
    with tf.device(self._variable.device):
      return tf.raw_ops.AssignVariableOp(
          resource=self._variable.handle, value=value)


def _value(variable):
  """The tensor that TensorFlow has made of a variable, and no further one."""
  return tf.get_default_graph().as_graph_element(variable)


def plain_variables():
  """The global variables that do not belong to a keyed table."""
  own = {id(v) for table in keyed_table.of_graph() for v in table.variables}
  return [v for v in tf.global_variables() if id(v) not in own]
