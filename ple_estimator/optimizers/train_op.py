"""The training op: clipping, the update of all variables, batch norm."""

import collections

import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.embeddings import deeprec
from ple_estimator.embeddings import keyed_table
from ple_estimator.embeddings import table_slots
from ple_estimator.optimizers import averaging as averaging_lib
from ple_estimator.optimizers import deeprec_optimizers
from ple_estimator.optimizers import factories
from ple_estimator.optimizers import touched_rows
from ple_estimator.optimizers import update_rules


class _Gradients(collections.namedtuple(
    '_Gradients', 'dense variables keyed tables')):
  """The gradients of a step.

  Attributes:
    dense: list of the gradients of `variables`, [the variable's shape] float32
      or tf.IndexedSlices.
    variables: list of resource variables.
    keyed: list of the gradients of `tables`, [n, dim] float32 for the n keys
      that are admitted.
    tables: list of keyed_table.KeyedTable.
  """


def build(optimizer, gradients, purpose, clip_norm=None, averaging=None):
  """Builds one training step: clipping, update, batch norm statistics.

  Args:
    optimizer: function without arguments to a tf.train.Optimizer.
    gradients: list of (gradient of the loss, variable), as tf.gradients returns
      them: [the variable's shape] float32, or tf.IndexedSlices, or None. For a
      keyed table, its source stands in the place of the variable.
    purpose: purpose.Purpose: whether the optimizer uses its fused ops, which
      engine it is for, and whether to note the rows that are updated.
    clip_norm: float, the global norm that gradients are scaled down to if
      theirs is larger (Pascanu et al., ICML 2013); None does not clip.
    averaging: averaging.Averaging, which averages what is updated; None does
      not.

  Returns:
    tf.Operation.

  Raises:
    UserError: if rows are to be noted and the optimizer moves all of them, or
      if the optimizer cannot update the variables.
  """
  rule = deeprec_optimizers.choose(
      factories.make(optimizer), purpose.engine)
  if purpose.fused and isinstance(rule, update_rules.LazyAdam):
    rule.use_kernels()
  if purpose.track_rows:
    errors.check(
        not _moves_all_rows(rule), 'Experiment.incremental needs an optimizer '
        'that leaves untouched rows alone, such as @lazy_adam; @adam moves '
        'every row at every step.')
  gradients = _clip(_sort(gradients), clip_norm)
  averages = averaging and _averages(
      averaging.decay, gradients, purpose.fused)
  with factories.updating(optimizer):
    table_slots.make(rule, gradients.variables, gradients.tables)
  with tf.control_dependencies(_before_the_update(gradients.tables)):
    return _update(rule, gradients, purpose.track_rows, averages,
                   factories.updating(optimizer))


def _sort(gradients):
  """Separates the gradients of variables from those of keyed tables.

  Args:
    gradients: list of (gradient or None, variable or source of a table).

  Returns:
    _Gradients, without what has no gradient.
  """
  owners = {id(table.source): table for table in keyed_table.of_graph()}
  pairs = [(g, v) for g, v in gradients if g is not None]
  keyed = [(g, owners[id(v)]) for g, v in pairs if id(v) in owners]
  dense = [(g, v) for g, v in pairs if id(v) not in owners]
  return _Gradients(
      [g for g, _ in dense], [v for _, v in dense],
      [table.masked(g) for g, table in keyed], [table for _, table in keyed])


def _clip(gradients, clip_norm):
  """Scales _Gradients to clip_norm; TensorBoard shows their norm before."""
  # DeepRec finds the counts of keys by the very tensor that holds the keys, so
  # it must not be replaced. The keys of such a gradient are all different.
  summed = [g if deeprec.is_variable(v) else _sum_rows(g)
            for g, v in zip(gradients.dense, gradients.variables)]
  norm = tf.global_norm(summed + gradients.keyed)
  tf.summary.scalar('gradient_norm', norm)
  if clip_norm is None:
    return gradients
  clipped, _ = tf.clip_by_global_norm(
      summed + gradients.keyed, clip_norm, norm)
  return gradients._replace(
      dense=clipped[:len(summed)], keyed=clipped[len(summed):])


def _sum_rows(gradient):
  """Sums the slices of each row, because the norm is that of the sums."""
  if not isinstance(gradient, tf.IndexedSlices):
    return gradient
  rows, position = tf.unique(gradient.indices)
  return tf.IndexedSlices(
      tf.unsorted_segment_sum(gradient.values, position, tf.size(rows)),
      rows, gradient.dense_shape)


def _averages(decay, gradients, fused):
  """Makes the averaging.Averages of what _Gradients are of."""
  tables = [v for g, v in zip(gradients.dense, gradients.variables)
            if isinstance(g, tf.IndexedSlices)]
  return averaging_lib.Averages(decay, tables, gradients.tables, fused)


def _before_the_update(tables):
  """Lists the ops and tensors that the update of a step has to wait for."""
  # Hooks that read the global step in the same run must always see its value
  # before the update: one that sees it now before, now after the update takes
  # a fast run for one that is stuck.
  return (tf.get_collection(tf.GraphKeys.UPDATE_OPS) +
          tf.get_collection('global_step_read_op_cache') +
          [read for table in tables for read in table.reads])


def _update(optimizer, gradients, track_rows, averages, updating):
  """Gives new keys their rows and applies _Gradients; returns an op."""
  step = tf.train.get_global_step().read_value()
  rows = [table.own(step) for table in gradients.tables]
  updates = list(zip(gradients.dense, gradients.variables)) + [
      (tf.IndexedSlices(g, own), table.values)
      for g, own, table in zip(gradients.keyed, rows, gradients.tables)]
  noted = _note_rows(
      optimizer, gradients, step, averages) if track_rows else []
  # Adam reads the slots of all rows, so those of new rows come first.
  before = [step] + rows + noted
  if not averages:
    with tf.control_dependencies(before), updating:
      return optimizer.apply_gradients(updates, tf.train.get_global_step())
  with tf.control_dependencies(rows):
    before += [averages.catch_up_all] if _moves_all_rows(optimizer) else [
        averages.catch_up(v, tf.cast(g.indices, tf.int64))
        for g, v in updates if isinstance(g, tf.IndexedSlices)]
  with tf.control_dependencies(before), updating:
    updated = optimizer.apply_gradients(updates)
  with tf.control_dependencies([updated]):
    moved = averages.move()
  with tf.control_dependencies(moved):
    return tf.train.get_global_step().assign_add(1, read_value=False)


def _moves_all_rows(optimizer):
  """Whether a step moves rows of tables that its batch does not touch."""
  return type(optimizer) is tf.train.AdamOptimizer


def _note_rows(optimizer, gradients, step, averages):
  """Records the rows that sparse gradients touch; returns a list of ops."""
  noted = []
  for gradient, variable in zip(gradients.dense, gradients.variables):
    if isinstance(gradient, tf.IndexedSlices):
      slots = [optimizer.get_slot(variable, name)
               for name in optimizer.get_slot_names()]
      slots += averages.slots(variable) if averages else []
      noted.append(touched_rows.TouchedRows(variable, slots).note(
          tf.cast(gradient.indices, tf.int64), step))
  return noted
