"""What a checkpoint holds, and whether a model_dir belongs to this model."""

import collections
import glob
import os
import re
import shutil
import tempfile

from absl import logging
import gin
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import deeprec
from ple_estimator import engine
from ple_estimator import errors
from ple_estimator import incremental
from ple_estimator import keyed_tables

_SHOWN = 4
_SHOWN_VALUE = 60
_BINDING = re.compile(r'^([\w./]+\.\w+) = (.*(?:\n .*)*)$', re.M)
# What a model is, beyond the shapes of its variables.
_IDENTITY = re.compile(
    r'(\w+/)*((PLE|Tower)\.(?!dropout$|l2$)|FeatureSpec\.|'
    r'Task\.(label|loss)$|MultiHashEmbedding\.(operation|rows)$)')
# What may explain another shape or name.
_RELATED = re.compile(r'(\w+/)*(Model|\w*Embedding\w*)\.')
# What a save that was broken off leaves, beside data without an index.
_LEFTOVER = re.compile(
    r'model\.ckpt-\d+_temp|model\.ckpt-.*\.tempstate\d+$|'
    r'checkpoint\.tmp\w{32}$')
_DATA = re.compile(r'(model\.ckpt-\d+)\.data-\d+-of-\d+$')
# What only training needs.
_KEYED_TRAINING_ONLY = re.compile(
    r'-(freqs|versions|(keys|freqs|versions)_filtered)$|/counters$')
_TRAINING_ONLY = ('signal_early_stopping/STOP', 'beta1_power', 'beta2_power')


class Saver(tf.train.Saver):
  """A Saver to which a keyed table is one thing, not a set of variables.

  What it saves restores on any number of parameter servers. In training it also
  goes on from incremental checkpoints; and a chief that comes back to parameter
  servers with a newer state leaves that alone, so that the loss of a chief
  loses no step.

  Attributes:
    last_step: int, the global step of the last checkpoint it saved, or None.
    work_queue: work_queue.WorkQueue or None.
  """

  def __init__(self, keep_checkpoint_max, training, work_queue=None,
               outlived=True):
    """Makes the Saver of the default graph.

    Args:
      keep_checkpoint_max: int, checkpoints kept; 0 keeps all.
      training: bool; hooks may then add variables before the Saver is built.
      work_queue: work_queue.WorkQueue, whose state is saved and restored with
        the variables, or None.
      outlived: bool, whether the variables of training may outlive a process,
        as they do on parameter servers.
    """
    self._training = training
    self.work_queue = work_queue
    self.last_step = None
    self._looks_for_live = training and outlived
    self._is_live = None
    super().__init__(
        sharded=True, max_to_keep=keep_checkpoint_max,
        save_relative_paths=True, builder=engine.SaverBuilder(),
        defer_build=training)

  def build(self):
    if self._var_list is None:  # not before hooks have made their variables
      variables, copies = _plain_variables(), collections.defaultdict(list)
      for variable in filter(engine.is_copy, variables):
        copies[engine.whole(variable)[0]].append(variable)
      self._var_list = [v for v in variables if not engine.is_copy(v)] + [
          _Copies(name, copies[name]) for name in sorted(copies)] + [
              table.saveable() for table in keyed_tables.of_graph()]
    # A session that is made again builds the Saver again, in the same graph.
    if self._looks_for_live and self._is_live is None:
      self._is_live = tf.reduce_all(tf.stack([
          engine.is_initialized(v) for v in tf.global_variables()]))
      self._step = tf.train.get_global_step()
    super().build()

  def save(self, sess, save_path, global_step=None, **kwargs):
    # The graph is in the event file; to write it beside every checkpoint again
    # takes longer than the checkpoint of a small model.
    kwargs['write_meta_graph'] = False
    if global_step is not None:
      global_step = int(
          global_step if isinstance(global_step, (int, np.integer))
          else tf.train.global_step(sess, global_step))
    # Before the variables: what is acknowledged by now will be in them.
    if self.work_queue and global_step is not None:
      self.work_queue.save(global_step)
    saved = super().save(sess, save_path, global_step, **kwargs)
    if global_step is not None:
      self.last_step = global_step
    if self.work_queue:
      self.work_queue.clean()
    return saved

  def restore(self, sess, save_path):
    if self._training:
      save_path = incremental.merged(save_path)
      if self._looks_for_live and self._is_newer(
          sess, int(save_path.rpartition('-')[2])):
        if self.work_queue:
          self.work_queue.keep()
        return
    names = set(tf.train.load_checkpoint(save_path).get_variable_to_shape_map())
    feed = {table.sources: table.sources_in(names)
            for table in keyed_tables.of_graph(sess.graph)}
    feed[self.saver_def.filename_tensor_name] = save_path
    sess.run(self.saver_def.restore_op_name, feed)
    # After the variables: what others trained until now may be lost, and what
    # they have acknowledged until now is forgotten.
    if self.work_queue:
      self.work_queue.load(int(save_path.rpartition('-')[2]))

  def _is_newer(self, sess, saved_step):
    """Whether the variables have values, of a later step than a checkpoint."""
    step = int(sess.run(self._step)) if sess.run(self._is_live) else -1
    if step < saved_step:
      return False
    logging.info('Going on at step %d, which the parameter servers are at; the '
                 'last checkpoint is of step %d.', step, saved_step)
    return True


class _Copies(engine.SaveableObject):
  """Variables that are equal, one for each part of another, saved once."""

  def __init__(self, name, variables):
    self._variables = variables
    value = variables[0].read_value()
    super().__init__(
        variables[0].handle,
        [engine.SaveSpec(value, '', name, value.dtype)], name)

  def restore(self, restored_tensors, restored_shapes):
    del restored_shapes
    value, = restored_tensors
    return tf.group(*[v.assign(tf.reshape(value, []), read_value=False)
                      for v in self._variables])


def prepare(model_dir, saves):
  """Makes a model_dir, or sees that it can be used.

  Args:
    model_dir: str.
    saves: bool, whether this process is the one that saves checkpoints, and so
      may remove what is left of a save that was broken off.

  Raises:
    UserError: if nothing can be written there.
  """
  try:
    os.makedirs(model_dir, exist_ok=True)
    if saves:
      _remove_leftovers(model_dir)
    with tempfile.TemporaryFile(dir=model_dir) as f:
      f.write(b'can be written')
  except OSError as error:
    raise errors.UserError(
        'Experiment.model_dir must be a folder that can be written to, got %r: '
        '%s.' % (model_dir, error.strerror))


def _remove_leftovers(model_dir):
  names = os.listdir(model_dir)
  for name in names:
    data = _DATA.match(name)
    if _LEFTOVER.match(name) or data and data.group(1) + '.index' not in names:
      path = os.path.join(model_dir, name)
      logging.info('Removing %s: it was not saved to its end.', path)
      if os.path.isdir(path):
        shutil.rmtree(path)
      else:
        os.remove(path)


def latest(model_dir):
  """The path of the newest state of a model_dir, or None; see incremental."""
  path = tf.train.latest_checkpoint(model_dir)
  return path and incremental.merged(path)


def _plain_variables():
  """The global variables that do not belong to a keyed table."""
  own = {id(v) for table in keyed_tables.of_graph() for v in table.variables}
  return [v for v in tf.global_variables() if id(v) not in own]


def check(model_dir, training):
  """Compares the model of a graph with that of a checkpoint.

  Args:
    model_dir: str; one without a checkpoint passes.
    training: bool, whether the graph has the variables of the optimizer.

  Raises:
    UserError: if the checkpoint lacks a variable, has another, or has one in
      another shape, or if a binding that makes the model what it is differs;
      the message names variables and bindings.
  """
  path = tf.train.latest_checkpoint(model_dir)
  if path is None:
    return
  saved = dict(tf.train.list_variables(path))
  saved = {whole: saved[parts[0]]
           for whole, parts in keyed_tables.joined(saved).items()}
  # The network's own variables before the optimizer's.
  variables = sorted(
      _plain_variables(), key=lambda v: (not v.trainable, v.op.name))
  wanted = collections.OrderedDict(
      engine.whole(v)[:2] for v in variables if not deeprec.owns(v.op.name))
  for table in keyed_tables.of_graph():
    wanted.update(table.checkpoint_shapes())
  for variable in deeprec.variables():
    wanted[variable.op.name + '-keys'] = [None]
    wanted[variable.op.name + '-values'] = [None] + variable.shape.as_list()
  lacking = [name for name in wanted if name not in saved]
  shapes = [name for name in wanted
            if name in saved and not _fits(saved[name], wanted[name])]
  more = [name for name in sorted(saved) if name not in wanted and
          name not in _TRAINING_ONLY and not deeprec.owns(name) and
          (training or not _is_training_only(name, saved))]
  changed = _changed_bindings(model_dir)
  if not (lacking or shapes or more or
          any(_IDENTITY.match(name) for name, _ in changed)):
    return
  problems = ['lacks %s' % _some(lacking)] if lacking else []
  problems += ['has %s of shape %s, not %s' % (
      name, saved[name], wanted[name]) for name in shapes[:_SHOWN]]
  own = [name for name in more if not _is_slot(name, saved)]
  problems += ['has %s besides' % _some(own or more)] if more else []
  problems += ['was trained with %s' % text for _, text in changed]
  raise errors.UserError(
      '%s holds another model: it %s. Choose another Experiment.model_dir, '
      'delete this one, or go back to its bindings.' % (
          model_dir, '; it '.join(problems)))


def _is_training_only(name, saved):
  """Whether a tensor is a keyed table's or an optimizer's for training."""
  return bool(_KEYED_TRAINING_ONLY.search(name)) or _is_slot(name, saved)


def _is_slot(name, saved):
  """Whether a variable is an optimizer's, named after the one it belongs to."""
  owner = name.rpartition('/')[0]
  return owner in saved or owner + '-keys' in saved


def _fits(shape, wanted):
  return len(shape) == len(wanted) and all(
      size in (None, found) for found, size in zip(shape, wanted))


def _some(names):
  text = ', '.join(names[:_SHOWN])
  rest = len(names) - _SHOWN
  return text + (' and %d more' % rest if rest > 0 else '')


def _changed_bindings(model_dir):
  """Compares with the last operative config there.

  Returns:
    list of (name, text) such as ('PLE.num_levels', 'PLE.num_levels = 3, now
    2'), of the bindings that have to do with the model.
  """
  configs = sorted(
      glob.glob(os.path.join(model_dir, 'operative_config-*.gin')),
      key=lambda path: int(re.findall(r'\d+', os.path.basename(path))[0]))
  if not configs:
    return []
  with open(configs[-1]) as f:
    then = dict(_BINDING.findall(f.read()))
  now = dict(_BINDING.findall(gin.operative_config_str()))
  return [(name, '%s = %s, now %s' % (
      name, _short(then[name]), _short(now[name])))
          for name in sorted(set(then) & set(now))
          if then[name] != now[name] and (
              _IDENTITY.match(name) or _RELATED.match(name))]


def _short(value):
  value = ' '.join(value.replace('\\\n', ' ').split())
  if len(value) <= _SHOWN_VALUE:
    return value
  return value[:_SHOWN_VALUE] + '...'
