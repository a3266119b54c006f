"""The training op: clipping, the update of all variables, batch norm."""

import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.embeddings import deeprec
from ple_estimator.embeddings import keyed_table
from ple_estimator.engine import compat
from ple_estimator.optimizers import touched_rows


def build(optimizer, gradients, clip_norm=None, op_fusion=False,
             track_rows=False):
  """One training step: clipping, update, batch norm statistics.

  Args:
    optimizer: function without arguments to a tf.train.Optimizer.
    gradients: list of (gradient of the loss, variable), as tf.gradients has
      them: [the variable's shape] float32, or tf.IndexedSlices, or None. The
      source of a keyed table stands in the place of a variable.
    clip_norm: float, the global norm that gradients are scaled down to if
      theirs is larger (Pascanu et al., ICML 2013); None leaves them.
    op_fusion: bool, whether the optimizer may use its fused ops.
    track_rows: bool, whether to note the rows of tables that are updated.

  Returns:
    tf.Operation.

  Raises:
    UserError: if rows are to be noted and the optimizer moves all of them.
  """
  made = optimizer()
  made.op_fusion = op_fusion
  deeprec.check_optimizer(made)
  owners = {id(table.source): table for table in keyed_table.of_graph()}
  pairs = [(g, v) for g, v in gradients if g is not None]
  tables = [owners[id(v)] for _, v in pairs if id(v) in owners]
  keyed = [owners[id(v)].masked(g) for g, v in pairs if id(v) in owners]
  gradients, variables = zip(*[p for p in pairs if id(p[1]) not in owners])
  # DeepRec finds the counts of keys by the tensor that holds the keys, and
  # they are all different.
  summed = [g if deeprec.is_variable(v) else _sum_rows(g)
            for g, v in zip(gradients, variables)]
  norm = tf.global_norm(summed + keyed)
  if clip_norm is not None:
    clipped, _ = tf.clip_by_global_norm(summed + keyed, clip_norm, norm)
    gradients, keyed = clipped[:len(summed)], clipped[len(summed):]
  tf.summary.scalar('gradient_norm', norm)
  _make_slots(made, variables, tables)
  # Hooks that read the step in the same run must see it before the update; one
  # that reads it now before, now after takes a fast run for a stuck one.
  first = (tf.get_collection(tf.GraphKeys.UPDATE_OPS) +
           tf.get_collection('global_step_read_op_cache') +
           [read for table in tables for read in table.reads])
  with tf.control_dependencies(first):
    step = tf.train.get_global_step().read_value()
    rows = [table.own(step) for table in tables]
    updates = list(zip(gradients, variables)) + [
        (tf.IndexedSlices(g, own), table.values)
        for g, own, table in zip(keyed, rows, tables)]
    noted = _note_rows(made, gradients, variables, step) if track_rows else []
    # Adam reads the slots of all rows: not before new ones are written.
    with tf.control_dependencies([step] + rows + noted):
      return made.apply_gradients(updates, tf.train.get_global_step())


def _note_rows(optimizer, gradients, variables, step):
  """Notes the rows that sparse gradients touch; returns a list of ops."""
  errors.check(
      type(optimizer) is not tf.train.AdamOptimizer, 'Experiment.incremental '
      'needs an optimizer that leaves untouched rows alone, such as '
      '@lazy_adam; @adam moves every row at every step.')
  noted = []
  for gradient, variable in zip(gradients, variables):
    if isinstance(gradient, tf.IndexedSlices):
      slots = [optimizer.get_slot(variable, name)
               for name in optimizer.get_slot_names()]
      noted.append(touched_rows.TouchedRows(variable, slots).note(
          tf.cast(gradient.indices, tf.int64), step))
  return noted


def _make_slots(optimizer, variables, tables):
  """Makes the slots of an optimizer; those of keyed tables without rows.

  A variable may be a part of another.
  """
  for table in tables:
    with tf.variable_scope(
        tf.get_variable_scope(), custom_getter=table.state.slots.getter):
      compat.make_slots(optimizer, [table.values])
  compat.make_slots(optimizer, variables)
  for variable in variables:
    for name in optimizer.get_slot_names():
      compat.declare_slot(optimizer.get_slot(variable, name), variable)


def _sum_rows(gradient):
  """Adds up the slices of each row; a norm of parts would be another one."""
  if not isinstance(gradient, tf.IndexedSlices):
    return gradient
  rows, position = tf.unique(gradient.indices)
  return tf.IndexedSlices(
      tf.unsorted_segment_sum(gradient.values, position, tf.size(rows)),
      rows, gradient.dense_shape)
