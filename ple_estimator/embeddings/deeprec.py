"""DeepRec's embedding variables, in place of this package's keyed tables.

engine/forms.py says when they are used and what then differs.
"""

import re

import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.embeddings import admission
from ple_estimator.engine import compat

# DeepRec's default number of vectors that new rows are copied from.
_START_VECTORS = 4096
_STDDEV_OF_UNIFORM = 3 ** -0.5  # the deviation of numbers uniform in [-1, 1)
# The collection of a graph's embedding variables. Its key is no text, so that
# TensorFlow does not try to export it.
_VARIABLES = ('deeprec', 'variables')
# The suffixes of an embedding variable's tensors in a checkpoint.
_SAVED = (r'-(keys|values|freqs|versions|(keys|freqs|versions)_filtered|'
          r'partition_offset|partition_filter_offset)$')

# The form of DeepRec for each filter and eviction of this package.
_OPTION_OF = {
    admission.CounterFilter: 'counter_filter',
    admission.CbfFilter: 'cbf_filter',
    admission.GlobalStepEviction: 'global_step_evict',
    admission.L2Eviction: 'l2_weight_evict',
}


def embedding_variable(engine, name, dim, stddev, filter, eviction):
  """Makes an embedding variable in the default graph if the engine uses them.

  Args:
    engine: forms.Engine.
    name: str, the variable scope.
    dim: int, the width of a row.
    stddev: float, the standard deviation of the uniform distribution around 0
      that new rows are drawn from.
    filter: admission.CounterFilter or CbfFilter, or None.
    eviction: admission.GlobalStepEviction or L2Eviction, or None.

  Returns:
    DeepRec's EmbeddingVariable, or None if the caller has to make its own
    table.

  Raises:
    UserError: if the variable would be cut into parts.
  """
  parts = [part for part in (filter, eviction) if part]
  if not all(type(part) in _OPTION_OF for part in parts):
    return None  # DeepRec has no form of a filter or eviction of the user's own
  needed = ['embedding_variable'] + [_OPTION_OF[type(p)] for p in parts]
  if not all([engine.uses(form, 'Model.embedding') for form in needed]):
    return None
  bound = stddev / _STDDEV_OF_UNIFORM
  start = tf.random_uniform_initializer(-bound, bound)
  with tf.variable_scope(name):
    variable = compat.find('get_embedding_variable')(
        'embedding', embedding_dim=dim, key_dtype=tf.int64, initializer=start,
        ev_option=_options(start, filter, eviction))
  errors.check(
      hasattr(variable, 'sparse_read'), 'EmbeddingVariable must not be cut '
      "into parts where it is DeepRec's: bind no partitioner to embeddings, or "
      "leave 'embedding_variable' out of Engine.forms.")
  tf.add_to_collection(_VARIABLES, variable)
  return variable


def fused_lookup(table, packed, combiner):
  """Looks up the rows of each field and combines them, in one op of DeepRec.

  Args:
    table: [rows, dim] float32 variable.
    packed: packing.Packed, the ids of a batch.
    combiner: 'mean', 'sum' or 'sqrtn'.

  Returns:
    [fields, dim] float32, 0 where a field has no id.
  """
  ids = tf.RaggedTensor.from_row_splits(
      tf.gather(packed.rows, packed.index), tf.cast(packed.splits, tf.int64),
      validate=False)
  return compat.find('nn.fused_embedding_lookup_sparse')(
      table, ids.to_sparse(), partition_strategy='div', combiner=combiner)


def look_up(variable, keys, counts=None):
  """Reads the vectors of keys.

  Args:
    variable: one of `variables`.
    keys: [n] int64, all different.
    counts: [n] int64, how often each key comes in the batch; None counts
      nothing.

  Returns:
    [n, dim] float32.
  """
  with tf.device(variable.device):
    if counts is None:
      vectors = variable.sparse_read(keys)
    else:
      # int32, the dtype of the counts of tf.unique_with_counts.
      vectors = variable.sparse_read(keys, counts=tf.cast(counts, tf.int32))
  vectors.set_shape([None, variable.shape[-1]])
  return vectors


def variables():
  """DeepRec's embedding variables in the default graph, a list."""
  return tf.get_collection(_VARIABLES)


def is_variable(variable):
  """Whether a variable is one of `variables`."""
  return any(variable is v for v in variables())


def owns(name):
  """Whether a name is that of one of `variables`, a slot or a saved tensor."""
  return any(
      name == v.op.name or name.startswith(v.op.name + '/') or
      (name.startswith(v.op.name + '-') and re.search(_SAVED, name))
      for v in variables())


def _options(start, filter, eviction):
  """The options of an embedding variable with a filter and an eviction."""
  return compat.find('EmbeddingVariableOption')(
      filter_option=filter and _filter_option(filter),
      evict_option=eviction and _evict_option(eviction),
      init_option=compat.find('InitializerOption')(
          initializer=start, default_value_dim=_START_VECTORS))


def _filter_option(filter):
  if isinstance(filter, admission.CounterFilter):
    return compat.find('CounterFilter')(filter_freq=filter.filter_freq)
  # DeepRec adds all occurrences of a key in a batch to its counter, even past
  # the threshold, so a counter of a narrow type would overflow.
  return compat.find('CBFFilter')(
      filter_freq=filter.filter_freq,
      max_element_size=filter.max_element_size,
      false_positive_probability=filter.false_positive_probability,
      counter_type=tf.uint32)


def _evict_option(eviction):
  if isinstance(eviction, admission.GlobalStepEviction):
    return compat.find('GlobalStepEvict')(
        steps_to_live=eviction.steps_to_live)
  return compat.find('L2WeightEvict')(
      l2_weight_threshold=eviction.l2_weight_threshold)
