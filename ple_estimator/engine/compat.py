"""What differs between versions of TensorFlow, and what it keeps private.

Every call that differs between the versions stands here, and every use of a
private name of TensorFlow: of modules, functions, methods and attributes.

Importing this module puts TensorFlow 2 into graph mode with the defaults that
the package is written for. experiment.py imports it before any graph is built.
Code that builds graphs without experiment.py has to import it first.
"""

import os
import re
import warnings

import tensorflow
import tensorflow.compat.v1 as tf
from tensorflow.python.ops import gen_lookup_ops
from tensorflow.python.ops import lookup_ops
from tensorflow.python.ops import resource_variable_ops
from tensorflow.python.ops import variables
from tensorflow.python.training import saver
from tensorflow.python.training.saving import saveable_object
from tensorflow.python.util import deprecation

from ple_estimator import errors

# TensorFlow says at import and at every layer that tf.layers and tf.estimator
# are deprecated: some thirty lines that no user can act on. No public switch.
deprecation._PRINT_DEPRECATION_WARNINGS = False
# Estimator builds graphs.
tf.disable_v2_behavior()
# What TensorFlow 2 has by default, and what reads consistently from a parameter
# server on 1.15.
tf.enable_resource_variables()



def _recovers_soon(self, *args, **kwargs):
  kwargs.setdefault('recovery_wait_secs', 1)
  _init_session_manager(self, *args, **kwargs)


# A worker that finds the variables not initialized looks again 30 seconds
# later, at the start and after every loss of a parameter server. RunConfig
# cannot say another number.
_init_session_manager = tf.train.SessionManager.__init__
tf.train.SessionManager.__init__ = _recovers_soon

SaveableObject = saveable_object.SaveableObject
SaveSpec = saveable_object.SaveSpec


class SaverBuilder(saver.BulkSaverBuilder):
  """Lets saveables with `reads_itself` read the checkpoint themselves.

  Their `restore` gets the checkpoint's prefix, a string scalar, in the place of
  each tensor.
  """

  def bulk_restore(self, filename_tensor, saveables, preferred_shard,
                   restore_sequentially):
    others = [s for s in saveables if not hasattr(s, 'reads_itself')]
    tensors = iter(super().bulk_restore(
        filename_tensor, others, preferred_shard, restore_sequentially)
                   if others else ())
    return [filename_tensor if hasattr(s, 'reads_itself') else next(tensors)
            for s in saveables for _ in s.specs]


def whole(variable):
  """What a variable is called in a checkpoint, where it may be a part.

  Args:
    variable: resource variable; of a partitioned one, a part.

  Returns:
    (name, shape, first): of the whole, and the row of it that the variable
    begins with.
  """
  info = variable._get_save_slice_info()
  if info is None:
    return variable.op.name, variable.shape.as_list(), 0
  return info.full_name, list(info.full_shape), (list(info.var_offset) + [0])[0]


def is_copy(variable):
  """Whether a variable was declared one of several equal ones."""
  info = variable._get_save_slice_info()
  return info is not None and not info.full_shape


def is_whole(variable):
  """Whether it is a resource variable, and no part of a partitioned one."""
  return (resource_variable_ops.is_resource_variable(variable) and
          variable._get_save_slice_info() is None)


def declare_copy(variable, name):
  """Says that a scalar is one of several that a checkpoint has once.

  Args:
    variable: resource variable, a scalar.
    name: str, what the checkpoint calls it.
  """
  variable._set_save_slice_info(
      variables.Variable.SaveSliceInfo(name, [], [], []))


def declare_slot(slot, variable):
  """Says which part of a whole slot belongs to a part of a variable.

  TensorFlow 1.15 takes every slot to have the shape of its variable; and the
  slot of a part may also be a scalar, equal for all parts.

  Args:
    slot: resource variable, an optimizer's for `variable`.
    variable: resource variable; nothing is done unless it is a part.
  """
  info = variable._get_save_slice_info()
  if info is None:
    return
  name = info.full_name + slot.op.name[len(variable.op.name):]
  rank = len(slot.shape)
  slot._set_save_slice_info(variables.Variable.SaveSliceInfo(
      name, info.full_shape[:rank], info.var_offset[:rank],
      info.var_shape[:rank]))


def find(path):
  """Returns what TensorFlow has at a path, e.g. 'train.Server', or None."""
  # TensorFlow 1.15 warns of names that are looked up in the second module.
  for holder in (tf, tensorflow):
    for part in path.split('.'):
      holder = getattr(holder, part, None)
    if holder is not None:
      return holder
  return None


# What serves a protocol, by the name that TensorFlow has registered it under.
_SERVERS = {'grpc': ['GRPC_SERVER'], 'grpc++': ['SEASTAR_SERVER'],
            'star_server': ['SEASTAR_SERVER', 'STAR_SERVER']}  # workers, ps


def version():
  """The version that TensorFlow reports; for messages, not for decisions."""
  git = tf.GIT_VERSION
  git = git.decode() if isinstance(git, bytes) else git
  return tf.__version__ + (' (%s)' % git if 'deeprec' in git else '')


def describe():
  """Returns the engine in words, e.g. 'stock TensorFlow 1.15.5'."""
  kind = '' if 'deeprec' in version() else 'stock '
  return '%sTensorFlow %s' % (kind, version())


def check_protocol(name):
  """Checks that this TensorFlow has servers for run_config.protocol.

  Args:
    name: 'grpc', which all have; 'grpc++' or 'star_server', which DeepRec has.

  Raises:
    UserError: if it has none.
  """
  errors.check_choice('run_config.protocol', name, sorted(_SERVERS))
  registered = _registered_servers() if name != 'grpc' else _SERVERS[name]
  errors.check(
      set(_SERVERS[name]) <= set(registered),
      'run_config.protocol = %r needs a '
      "server that %s lacks (it has %s). Install a wheel of DeepRec, or bind "
      "'grpc'.", name, describe(), ', '.join(registered))


def _registered_servers():
  """The registered kinds of servers, from the error about an unknown kind."""
  try:
    tf.train.Server({'local': ['localhost:0']}, protocol='none', start=False)
  except tf.errors.NotFoundError as error:
    return re.search(r'factories are: \[ *([^\]]*)', error.message).group(
        1).replace(',', ' ').split()
  return []


def use_xla(session_config):
  """Lets XLA compile parts of a graph on the processor.

  TensorFlow reads the environment variable at the first session of a process.

  Args:
    session_config: tf.ConfigProto, which is changed.

  Raises:
    UserError: on TensorFlow 1. Its XLA may read the global step as it was when
      the session began, so that training neither saves nor stops.
  """
  errors.check(
      not tf.__version__.startswith('1.'), 'run_config.xla = True needs '
      'TensorFlow 2, this is %s, whose XLA may not see the global step change, '
      'so that training neither saves nor stops. Leave it False.', describe())
  flags = os.environ.get('TF_XLA_FLAGS', '')
  os.environ['TF_XLA_FLAGS'] = flags + ' --tf_xla_cpu_global_jit'
  session_config.graph_options.optimizer_options.global_jit_level = (
      tf.OptimizerOptions.ON_1)


def intra_op_threads(fused):
  """The threads of one op where the user leaves the choice; 0 is TensorFlow's.

  Args:
    fused: bool, whether the kernels of native.py run.
  """
  # Eigen's products in 1.15 gain nothing from a second thread at these sizes,
  # while the ops beside them do: on two cores 1.3 times the steps.
  return 1 if not fused and tf.__version__.startswith('1.') else 0


def quiet():
  """Reduces the log of TensorFlow to warnings and errors, once each."""
  tf.get_logger().handlers = []  # what remains goes to the root logger's
  warnings.filterwarnings('ignore', message=r'.*tf\.layers')
  tf.logging.set_verbosity(tf.logging.WARN)


class HashTable:
  """A mutable hash table of int64 to int64, which the graph does not save.

  TensorFlow 1.15 has it under no public name.
  """

  def __init__(self, name, default):
    """Makes the table in the default graph.

    Args:
      name: str; processes that share a device share the table of a name.
      default: int, what `lookup` returns for a key that is not there.
    """
    saved = tf.get_collection_ref(tf.GraphKeys.SAVEABLE_OBJECTS)
    before = list(saved)
    # Without "checkpoint" it would be shared with no other process; what that
    # adds to the Saver's list is taken back.
    with tf.control_dependencies(None):  # its users must not wait for other ops
      self._table = lookup_ops.MutableHashTable(
          tf.int64, tf.int64, default, name=name.replace('/', '_'),
          checkpoint=True)
    saved[:] = before

  def lookup(self, keys):
    """[n] int64 -> [n] int64."""
    return self._table.lookup(keys)

  def insert(self, keys, values):
    """Adds or overwrites; returns an op."""
    return self._table.insert(keys, values)

  def remove(self, keys):
    """Drops keys, those too that are not there; returns an op."""
    return self._table.remove(keys)

  def export(self):
    """Returns (keys, values), [n] int64 each, in no order."""
    pairs = self._table.export()
    for tensor in pairs:
      tensor.set_shape([None])  # TensorFlow 2 does not know it
    return tuple(pairs)

  def clear(self):
    """Drops all keys; returns an op."""
    nothing = tf.zeros([0], tf.int64)
    return gen_lookup_ops.lookup_table_import_v2(
        self._table.resource_handle, nothing, nothing)


def uninitialized(shape, dtype=tf.float32, partition_info=None):
  """An initializer that leaves memory as it is, and so untouched."""
  del partition_info
  return tf.raw_ops.Empty(shape=shape, dtype=dtype, init=False)


def is_initialized(variable):
  """Whether a resource variable has a value, a bool scalar tensor."""
  return tf.raw_ops.VarIsInitializedOp(resource=variable.handle)


class Lock:
  """A lock that all processes share which share the device it is on."""

  def __init__(self, name):
    """Makes the lock in the default graph, on the device in force.

    Args:
      name: str.
    """
    with tf.control_dependencies(None):
      self._section = tf.CriticalSection(
          name='lock', shared_name=name.replace('/', '_') + '_lock')

  def execute(self, fn):
    """Returns the tensors that fn makes, evaluated under the lock.

    The lock does not order ops inside of fn.
    """
    results = self._section.execute(fn)
    # Notes of what was executed; TensorFlow warns that it cannot export them.
    tf.get_default_graph().clear_collection('critical_section_executions')
    return results


# What follows is private to TensorFlow 1 and the same in 1.15 and 2.15: the
# classes and functions give names to it, so that no other module has to know.


def make_slots(optimizer, variables):
  """Makes the slots of an optimizer before apply_gradients would.

  Args:
    optimizer: tf.train.Optimizer.
    variables: list of the variables that it is going to train.
  """
  optimizer._create_slots(variables)


def make_slot(optimizer, variable, name, initializer, shape=None, dtype=None,
              op_name=None):
  """Makes one slot; for the _create_slots of an optimizer.

  The slot has an initializer rather than a tensor of initial values, so that
  whoever wraps variable creation can replace it.

  Args:
    optimizer: tf.train.Optimizer.
    variable: resource variable that the slot belongs to.
    name: str, of the slot.
    initializer: object like tf.zeros_initializer().
    shape: tf.TensorShape; None is that of the variable.
    dtype: tf.DType; None is that of the variable.
    op_name: str, what the name of the slot ends with; None is the name of the
      optimizer.
  """
  optimizer._get_or_make_slot_with_initializer(
      variable, initializer, variable.shape if shape is None else shape,
      dtype or variable.dtype.base_dtype, name,
      op_name or optimizer.get_name())


class AdamOptimizer(tf.train.AdamOptimizer):
  """tf.train.AdamOptimizer for subclasses that replace its update ops."""

  def hyperparameters(self):
    """(learning rate, beta1, beta2, epsilon), scalar tensors of this step.

    They exist as soon as apply_gradients has called _prepare.
    """
    return self._lr_t, self._beta1_t, self._beta2_t, self._epsilon_t

  def beta_powers(self):
    """(beta1, beta2) to the power of the step's number, float32 variables."""
    return self._get_beta_accumulators()


class Saver(tf.train.Saver):
  """A tf.train.Saver that asks for what it saves when it is built.

  With defer_build=True hooks can still add variables after the constructor.
  """

  def saveables(self):
    """What to save: a list of variables and SaveableObjects."""
    raise NotImplementedError

  def build(self):
    # pylint: disable=access-member-before-definition
    if self._var_list is None:
      self._var_list = self.saveables()
    super().build()


class CheckpointSaverHook(tf.train.CheckpointSaverHook):
  """A tf.train.CheckpointSaverHook that can save without telling listeners.

  That of TensorFlow also writes the graph as text, which takes seconds of every
  start; this one writes it into the event file only.
  """

  def __init__(self, model_dir, saver, timer, listeners):
    """Stores the arguments; builds no graph.

    Args:
      model_dir: str.
      saver: tf.train.Saver of the graph.
      timer: tf.train.SecondOrStepTimer, which says when to save.
      listeners: list of tf.train.CheckpointSaverListener.
    """
    super().__init__(model_dir, save_steps=1, saver=saver, listeners=listeners)
    self._timer = timer

  def calls_listeners(self, step):
    """Whether the listeners are told of the checkpoint of a global step.

    Called once for each checkpoint, just before it is written.

    Args:
      step: int, the global step.
    """
    del step
    return True

  def after_create_session(self, session, coord):
    self._summary_writer.add_graph(session.graph)
    step = session.run(self._global_step_tensor)
    self._save(session, step)
    self._timer.update_last_triggered_step(step)

  def _save(self, session, step):
    # pylint: disable=access-member-before-definition
    listeners = self._listeners
    if not self.calls_listeners(step):
      self._listeners = []
    try:
      return super()._save(session, step)
    finally:
      self._listeners = listeners


def with_own_threads(dataset, count):
  """Returns a tf.data.Dataset that runs in threads of its own.

  Args:
    dataset: tf.data.Dataset.
    count: int, the number of threads.
  """
  options = tf.data.Options()
  threading = getattr(options, 'threading' if hasattr(
      tf.data.Options, 'threading') else 'experimental_threading')
  threading.private_threadpool_size = count
  return dataset.with_options(options)
