"""DeepRec's own forms of what a .gin file binds. They have not been run.

DeepRec is a fork of TensorFlow 1.15.5, so all of this package runs on it as on
any TensorFlow 1.15. Some bindings have a counterpart there; this module turns
them into it, feature by feature, where this TensorFlow has the feature under
the names and arguments that DeepRec's documents and sources give. No wheel of
it could be had: tests check the calls against those signatures, and no more.

  binding                         DeepRec's form             Engine.forms
  Model.embedding =
      @EmbeddingVariable()        tf.get_embedding_variable  embedding_variable
  EmbeddingVariable.filter =
      @CounterFilter()            tf.CounterFilter           counter_filter
      @CbfFilter()                tf.CBFFilter               cbf_filter
  EmbeddingVariable.eviction =
      @GlobalStepEviction()       tf.GlobalStepEvict         global_step_evict
      @L2Eviction()               tf.L2WeightEvict           l2_weight_evict
  Model.optimizer =
      @adam_async                 AdamAsyncOptimizer         adam_async
      @adagrad_decay              AdagradDecayOptimizerV2    adagrad_decay
      @adamw, decay_follows_rate
          = False, exclude = ()   AdamWOptimizer             adamw
  Model.op_fusion                 do_op_fusion               op_fusion
  prefetch of the training input  tf.staged                  staged
                                  do_smart_stage             smart_stage
  HashEmbedding.emb_fusion        tf.nn.fused_embedding_     fused_lookup *
                                      lookup_sparse
  Model.micro_batches             micro_batch_num            micro_batch *
  run_config.protocol             grpc++, star_server        (engine.py)

If the feature is missing, 'auto' runs this package's form and says so in the
line that training begins with, and 'deeprec' refuses the binding. What is
marked * is used only if Engine.forms names it:

- fused_lookup: an input of this package has one lookup and one pooling for all
  columns of a width, and has de-duplicated their ids before the step. DeepRec's
  op, made to fuse the ops of one column, finds them again.
- micro_batch: whether DeepRec divides the sum of the gradients by their number
  is not documented, so the learning rate may have to change.

What differs where DeepRec's form is used: a row of an embedding variable starts
from one of 4096 vectors, by its key; a key without a row has that vector in
evaluation and serving too, if there is no filter; `capacity` is no limit, as
the table grows; checkpoints are DeepRec's, and those of our form are not to be
gone on from. Older kernels count in evaluation too, and behind a CbfFilter
admit a key one occurrence later. DeepRec's AdamW decays rows of embedding
variables by another rule than other weights, so the two do not go together. Its
Adam leaves alone the rows of embedding variables that a batch does not touch:
there it is @lazy_adam, and @adam is refused.

What has a counterpart that is not used, as ours does more or theirs is wrong:

- AdaptiveEmbedding: DeepRec's is right only for one id per row.
- DynamicDimensionEmbedding: no feature column, and how many blocks a value uses
  is left to the user.
- MultiHashEmbedding: takes integers only, and divides by the rows of Q.
- IncrementalCheckpoint: DeepRec's does not load embedding variables under
  Estimator (its issue 999). Ours knows our tables alone, so with it
  EmbeddingVariable runs in our form.
- Precision.compute = 'bfloat16': keep_weights casts float32 variables for a
  product as Precision.matmul does, so DeepRec finds the same ops to fold.
- ParquetInput: ParquetDataset shuffles batches and not rows, does not say which
  row is bad, and fails on some encodings (issues 597 and 965).
- Groups of columns: group_embedding_lookup_sparse is made for GPUs; packing.py
  groups columns already.
- A queue of files: DeepRec's WorkQueue does not give out again what a worker
  took and did not finish.
"""

import inspect
import re

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.embeddings import admission
from ple_estimator.engine import compat

# What DeepRec documents, by form: a path in TensorFlow's API and the
# arguments that are passed, or the field of OptimizerOptions that is set.
_CALLS = {
    'embedding_variable': [
        ('get_embedding_variable',
         'name embedding_dim key_dtype initializer ev_option'),
        ('EmbeddingVariableOption', 'evict_option filter_option init_option'),
        ('InitializerOption', 'initializer default_value_dim')],
    'counter_filter': [('CounterFilter', 'filter_freq')],
    'cbf_filter': [
        ('CBFFilter', 'filter_freq max_element_size false_positive_probability '
         'counter_type')],
    'global_step_evict': [('GlobalStepEvict', 'steps_to_live')],
    'l2_weight_evict': [('L2WeightEvict', 'l2_weight_threshold')],
    'adam_async': [
        ('train.AdamAsyncOptimizer', 'learning_rate beta1 beta2 epsilon '
         'apply_sparse_rmsprop')],
    'adagrad_decay': [
        ('train.AdagradDecayOptimizerV2', 'learning_rate global_step '
         'initial_accumulator_value accumulator_decay_step '
         'accumulator_decay_rate')],
    'adamw': [
        ('train.AdamWOptimizer',
         'weight_decay learning_rate beta1 beta2 epsilon')],
    'staged': [('staged', 'features capacity num_threads'),
               ('make_prefetch_hook', '')],
    'fused_lookup': [
        ('nn.fused_embedding_lookup_sparse',
         'params sp_ids partition_strategy combiner')],
}
_FIELDS = {'op_fusion': 'do_op_fusion', 'smart_stage': 'do_smart_stage',
           'micro_batch': 'micro_batch_num'}
FORMS = tuple(_CALLS) + tuple(_FIELDS)
_ON_REQUEST = ('fused_lookup', 'micro_batch')

_PREFETCH = 'The prefetch of Experiment.train_input'
_START_VECTORS = 4096  # DeepRec's default
_STDDEV_OF_UNIFORM = 3 ** -0.5  # of numbers uniform in [-1, 1)
# Collections. Keys that are no text: TensorFlow does not try to export them.
_ENGINE, _VARIABLES = ('deeprec', 'engine'), ('deeprec', 'variables')
# The suffixes of an embedding variable's tensors in a checkpoint.
_SAVED = (r'-(keys|values|freqs|versions|(keys|freqs|versions)_filtered|'
          r'partition_offset|partition_filter_offset)$')


@gin.register
class Engine:
  """Whose forms a run uses: this package's, or DeepRec's where it has some."""

  def __init__(self, name='auto', forms=None):
    """Looks for DeepRec's features.

    Args:
      name: 'auto' uses DeepRec's forms as far as this TensorFlow has them;
        'stock' uses none, on DeepRec neither; 'deeprec' refuses what it would
        use and this TensorFlow lacks.
      forms: list of str, which of them to use, see the table of this module;
        None is all but those marked there.

    Raises:
      UserError: if a value is unknown, or if DeepRec is asked for and this is
        no DeepRec.
    """
    errors.check(name in ('auto', 'stock', 'deeprec'), "Engine.name must be "
                 "'auto', 'stock' or 'deeprec', got %r.", name)
    chosen = [f for f in FORMS if f not in _ON_REQUEST
              ] if forms is None else list(forms)
    for form in chosen:
      errors.check(form in FORMS, 'Engine.forms must be of %s, got %r.',
                   ', '.join(FORMS), form)
    self._name = name
    self._forms = forms
    self._chosen = chosen
    self._found = [f for f in FORMS if name != 'stock' and _is_there(f)]
    self._left = []
    errors.check(
        name != 'deeprec' or self._found, "Engine.name = 'deeprec' needs "
        'DeepRec, this is %s. Install a wheel of DeepRec, or set Engine.name '
        "= 'auto'.", compat.describe())

  def has(self, form):
    """Whether DeepRec's form is there and not ruled out by Engine.name."""
    return form in self._found

  def describe(self):
    """The engine in words, e.g. 'stock TensorFlow 1.15.5'."""
    if not self._found:
      return compat.describe()
    used = [f for f in self._chosen if f in self._found]
    missing = [f for f in self._chosen if f not in self._found] + self._left
    return '%s with DeepRec\'s %s%s' % (
        compat.describe(), ', '.join(used) or 'nothing',
        '; as on stock TensorFlow: %s' % ', '.join(missing) if missing else '')

  def uses(self, form, binding):
    """Whether a binding takes DeepRec's form.

    Args:
      form: str, of FORMS.
      binding: str, what is bound, for the message.

    Raises:
      UserError: if it should and cannot.
    """
    if form not in self._chosen or form in self._found:
      return form in self._chosen
    errors.check(
        self._name != 'deeprec', '%s needs %s of DeepRec, which %s lacks. '
        "Leave it out of Engine.forms, or set Engine.name = 'auto'.", binding,
        form, compat.version())
    return False

  def leave_out(self, form, because):
    """Uses this package's form after all, for another binding's sake.

    Args:
      form: str, of FORMS.
      because: str, the other binding.

    Raises:
      UserError: if Engine.forms asks for the form.
    """
    if form in self._chosen and form in self._found:
      errors.check(self._forms is None, 'Engine.forms must not have %r with %s,'
                   ' which does not know it.', form, because)
      self._chosen = [f for f in self._chosen if f != form]
      self._left.append('%s (for %s)' % (form, because))

  # ---------------------------------------------------------- the session

  def configure(self, session, op_fusion, prefetch, micro_batches):
    """Sets what DeepRec's graph optimizer is to do.

    Args:
      session: tf.ConfigProto, which is changed.
      op_fusion: bool, Model.op_fusion.
      prefetch: int, batches that the training input makes ahead.
      micro_batches: int, Model.micro_batches.
    """
    options = session.graph_options.optimizer_options
    if op_fusion and self.uses('op_fusion', 'Model.op_fusion'):
      options.do_op_fusion = True
    # It moves more of the graph into the stage; without one there is none.
    if self._stages(prefetch) and self.uses('smart_stage', _PREFETCH):
      options.do_smart_stage = True
    if self.slices(micro_batches):
      options.micro_batch_num = micro_batches

  def slices(self, micro_batches):
    """Whether DeepRec is to cut a batch: the input then makes the slices."""
    return micro_batches > 1 and self.uses('micro_batch', 'Model.micro_batches')

  def _stages(self, prefetch):
    return prefetch > 0 and self.uses('staged', _PREFETCH)

  # ------------------------------------------------------------ the graph

  def place_in_graph(self):
    """Makes this the engine of the default graph; see `of_graph`."""
    tf.get_collection_ref(_ENGINE)[:] = [self]

  def staged(self, tensors, capacity):
    """Makes batches ahead of the step that reads them.

    Args:
      tensors: structure (see tf.nest) of tensors.
      capacity: int, how many batches.

    Returns:
      (tensors, hooks): the same structure, and the tf.train.SessionRunHooks
      without which a run would wait for ever.
    """
    if not self._stages(capacity):
      return tensors, []
    # By one thread: several would change the order of the batches.
    found = compat.find('staged')(
        tf.nest.flatten(tensors), capacity=capacity, num_threads=1)
    return (tf.nest.pack_sequence_as(tensors, found),
            [compat.find('make_prefetch_hook')()])

  def mark(self, train_op):
    """Says which runs a stage is for, where DeepRec asks for it."""
    mark = compat.find('train.mark_target_node')
    if mark:
      mark([train_op])

  def embedding_variable(self, name, dim, stddev, filter, eviction):
    """Makes an embedding variable in the default graph, or finds none to use.

    Args:
      name: str, the variable scope.
      dim: int.
      stddev: float, of what rows start from, uniform around 0.
      filter: admission.CounterFilter or CbfFilter, or None.
      eviction: admission.GlobalStepEviction or L2Eviction, or None.

    Returns:
      EmbeddingVariable, or None if the caller is to have its own form.

    Raises:
      UserError: if it would be cut into parts.
    """
    parts = [part for part in (filter, eviction) if part]
    if not all(type(part) in _OPTION_OF for part in parts):
      return None  # somebody's own
    forms = ['embedding_variable'] + [_OPTION_OF[type(p)] for p in parts]
    if not all([self.uses(f, 'Model.embedding') for f in forms]):
      return None
    spread = stddev / _STDDEV_OF_UNIFORM
    start = tf.random_uniform_initializer(-spread, spread)
    with tf.variable_scope(name):
      made = compat.find('get_embedding_variable')(
          'embedding', embedding_dim=dim, key_dtype=tf.int64,
          initializer=start,
          ev_option=compat.find('EmbeddingVariableOption')(
              filter_option=filter and _filter_option(filter),
              evict_option=eviction and _evict_option(eviction),
              init_option=compat.find('InitializerOption')(
                  initializer=start, default_value_dim=_START_VECTORS)))
    errors.check(
        hasattr(made, 'sparse_read'), 'EmbeddingVariable must not be cut into '
        "parts where it is DeepRec's: bind no partitioner to embeddings, or "
        "leave 'embedding_variable' out of Engine.forms.")
    tf.add_to_collection(_VARIABLES, made)
    return made

  def optimizer(self, form, **numbers):
    """Makes an optimizer of DeepRec's kernels.

    Args:
      form: 'adam_async', 'adagrad_decay' or 'adamw'; or, whose classes DeepRec
        has taught to update embedding variables, 'lazy_adam' or 'adagrad'.
      **numbers: the arguments, by DeepRec's names.

    Returns:
      tf.train.Optimizer; None if the caller is to have its own.
    """
    if form in _TAUGHT:
      if not variables():
        return None
      kind = getattr(tf.train, _TAUGHT[form])
    elif self.uses(form, 'Model.optimizer = @%s' % form):
      kind = compat.find(_CALLS[form][0][0])
    else:
      return None
    made = kind(**numbers)
    made.knows_embedding_variables = form != 'adamw'
    return made

  def fused_lookup(self, table, packed, combiner):
    """Looks rows up and combines those of each field, in one op.

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


_OPTION_OF = {
    admission.CounterFilter: 'counter_filter',
    admission.CbfFilter: 'cbf_filter',
    admission.GlobalStepEviction: 'global_step_evict',
    admission.L2Eviction: 'l2_weight_evict',
}
_TAUGHT = {'lazy_adam': 'AdamOptimizer', 'adagrad': 'AdagradOptimizer'}


def of_graph():
  """The Engine of the default graph; one without DeepRec if none was placed."""
  found = tf.get_collection(_ENGINE)
  return found[0] if found else Engine('stock')


def variables():
  """DeepRec's embedding variables in the default graph, a list."""
  return tf.get_collection(_VARIABLES)


def is_variable(variable):
  """Whether a variable is one of `variables`."""
  return any(variable is v for v in variables())


def owns(name):
  """Whether one of `variables` saves a tensor, or has a slot, of this name."""
  return any(
      name == v.op.name or name.startswith(v.op.name + '/') or
      (name.startswith(v.op.name + '-') and re.search(_SAVED, name))
      for v in variables())


def look_up(variable, keys, counts=None):
  """The vectors of keys.

  Args:
    variable: an embedding variable.
    keys: [n] int64, different.
    counts: [n] int64, how often each comes in the batch; None counts nothing.

  Returns:
    [n, dim] float32.
  """
  with tf.device(variable.device):
    if counts is None:
      found = variable.sparse_read(keys)
    else:
      # int32, as tf.unique_with_counts has them.
      found = variable.sparse_read(keys, counts=tf.cast(counts, tf.int32))
  found.set_shape([None, variable.shape[-1]])
  return found


def check_optimizer(optimizer):
  """Refuses an optimizer that cannot update `variables`.

  Raises:
    UserError: if it cannot.
  """
  errors.check(
      not variables() or
      getattr(optimizer, 'knows_embedding_variables', False),
      'Model.optimizer must be @lazy_adam, @adam_async, @adagrad or '
      "@adagrad_decay for DeepRec's EmbeddingVariable, got %s. Or leave "
      "'embedding_variable' out of Engine.forms.", type(optimizer).__name__)


def _filter_option(filter):
  if isinstance(filter, admission.CounterFilter):
    return compat.find('CounterFilter')(filter_freq=filter.filter_freq)
  # A counter grows by all that a batch has of a key, past the threshold, and
  # wraps where its type is narrow.
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


def _is_there(form):
  """Whether this TensorFlow has all that a form calls or sets."""
  if form in _FIELDS:
    options = compat.find('OptimizerOptions')
    return (options is not None and
            _FIELDS[form] in options.DESCRIPTOR.fields_by_name)
  return all(_takes(compat.find(path), names.split())
             for path, names in _CALLS[form])


def _takes(function, names):
  """Whether there is a function, and it has arguments of these names."""
  if function is None:
    return False
  return set(names) <= set(inspect.signature(function).parameters)
