"""The engine of a run: TensorFlow, and the forms of DeepRec that are used.

The forms of DeepRec have never been run.

DeepRec is a fork of TensorFlow 1.15.5, so all of this package runs on it as on
any TensorFlow 1.15. For some bindings of a .gin file DeepRec has a form of its
own. It is used, feature by feature, where this TensorFlow has the feature under
the names and arguments that DeepRec's documents and sources give. No wheel of
DeepRec could be had: tests check the calls against those signatures, and no
more.

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
  run_config.protocol             grpc++, star_server        (compat.py)

If the feature is missing, Engine.name = 'auto' runs this package's form and
says so in the first line that training logs, and 'deeprec' refuses the binding.
A form that is marked * is used only if Engine.forms names it:

- fused_lookup: an input of this package has one lookup and one pooling for all
  columns of one width, and has removed duplicate ids before the step. DeepRec's
  op fuses the ops of one column and removes duplicates again.
- micro_batch: it is not documented whether DeepRec divides the sum of the
  gradients by the number of slices, so the learning rate may have to change.

The following differs where DeepRec's form is used:

- Embedding variables: a row starts from one of 4096 vectors, chosen by its key.
  Without a filter, a key without a row has that vector in evaluation and
  serving too. `capacity` is no limit, as the table grows. Checkpoints have
  DeepRec's format, and training cannot continue from those of our form. Older
  kernels also count keys in evaluation, and with a CbfFilter they admit a key
  one occurrence later.
- AdamW: DeepRec decays rows of embedding variables by another rule than other
  weights, so @adamw is refused with embedding variables.
- Adam: DeepRec's leaves alone the rows of embedding variables that a batch does
  not touch. This is @lazy_adam, so @adam is refused with embedding variables.

DeepRec also has counterparts of the following. They are not used, because ours
does more or theirs is wrong:

- AdaptiveEmbedding: DeepRec's is right only for one id per row.
- DynamicDimensionEmbedding: no feature column, and how many blocks a value uses
  is left to the user.
- MultiHashEmbedding: takes integers only, and divides by the rows of Q.
- IncrementalCheckpoint: DeepRec's does not load embedding variables under
  Estimator (its issue 999). Ours only knows the tables of this package, so
  EmbeddingVariable runs in our form with it.
- Precision.compute = 'bfloat16': keep_weights casts float32 variables for a
  product as Precision.matmul does, so DeepRec finds the same ops to fold.
- ParquetInput: ParquetDataset shuffles batches and not rows, does not say which
  row is bad, and fails on some encodings (issues 597 and 965).
- Groups of columns: group_embedding_lookup_sparse is made for GPUs; packing.py
  groups columns already.
- A queue of files: DeepRec's WorkQueue does not hand out again what a worker
  took and did not finish.
"""

import inspect

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.engine import compat

# The calls that DeepRec documents for each form: a path in TensorFlow's API and
# the arguments that are passed.
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
# The field of OptimizerOptions that is set for each form.
_FIELDS = {'op_fusion': 'do_op_fusion', 'smart_stage': 'do_smart_stage',
           'micro_batch': 'micro_batch_num'}
FORMS = tuple(_CALLS) + tuple(_FIELDS)
_ON_REQUEST = ('fused_lookup', 'micro_batch')
_PREFETCH = 'The prefetch of Experiment.train_input'


@gin.register
class Engine:
  """The TensorFlow that a run is on, and the forms of DeepRec that it uses."""

  def __init__(self, name='auto', forms=None):
    """Looks for DeepRec's features.

    Args:
      name: 'auto' uses the forms of DeepRec that this TensorFlow has; 'stock'
        uses none, not even on DeepRec; 'deeprec' refuses a binding whose form
        this TensorFlow lacks.
      forms: list of str, the forms to use, see the table of this module; None
        is all that are not marked there.

    Raises:
      UserError: if a value is unknown, or if name is 'deeprec' and this
        TensorFlow has no form of DeepRec.
    """
    errors.check_choice('Engine.name', name, ('auto', 'stock', 'deeprec'))
    if forms is not None:
      errors.check_list('Engine.forms', forms, lambda form: form in FORMS,
                        ', '.join(FORMS), may_be_empty=True)
    chosen = ([form for form in FORMS if form not in _ON_REQUEST]
              if forms is None else list(forms))
    self._name = name
    self._forms = forms
    self._chosen = chosen
    self._available = [
        form for form in FORMS if name != 'stock' and _is_there(form)]
    self._left_out = []  # in words, for `describe`
    errors.check(
        name != 'deeprec' or self._available, "Engine.name = 'deeprec' needs "
        'DeepRec, this is %s. Install a wheel of DeepRec, or set Engine.name '
        "= 'auto'.", compat.describe())

  def has(self, form):
    """Whether this TensorFlow has DeepRec's form and Engine.name permits it."""
    return form in self._available

  def describe(self):
    """The engine in words, e.g. 'stock TensorFlow 1.15.5'."""
    if not self._available:
      return compat.describe()
    used = [form for form in self._chosen if self.has(form)]
    missing = [form for form in self._chosen
               if not self.has(form)] + self._left_out
    return '%s with DeepRec\'s %s%s' % (
        compat.describe(), ', '.join(used) or 'nothing',
        '; as on stock TensorFlow: %s' % ', '.join(missing) if missing else '')

  def uses(self, form, binding):
    """Whether a binding takes DeepRec's form.

    Args:
      form: str, one of FORMS.
      binding: str, the binding that asks, for the message.

    Raises:
      UserError: if Engine.name is 'deeprec' and this TensorFlow lacks the form.
    """
    if form not in self._chosen or self.has(form):
      return form in self._chosen
    errors.check(
        self._name != 'deeprec', '%s needs %s of DeepRec, which %s lacks. '
        "Leave it out of Engine.forms, or set Engine.name = 'auto'.", binding,
        form, compat.version())
    return False

  def leave_out(self, form, because):
    """Uses this package's form after all, because another binding needs it.

    Args:
      form: str, one of FORMS.
      because: str, the other binding.

    Raises:
      UserError: if Engine.forms asks for the form.
    """
    if form in self._chosen and self.has(form):
      errors.check(self._forms is None, 'Engine.forms must not have %r with %s,'
                   ' which does not know it.', form, because)
      self._chosen = [f for f in self._chosen if f != form]
      self._left_out.append('%s (for %s)' % (form, because))

  def configure(self, session, op_fusion, prefetch, micro_batches):
    """Sets the options of DeepRec's graph optimizer.

    Args:
      session: tf.ConfigProto, which is changed.
      op_fusion: bool, Model.op_fusion.
      prefetch: int, the number of batches that the training input prepares
        ahead.
      micro_batches: int, Model.micro_batches.
    """
    options = session.graph_options.optimizer_options
    if op_fusion and self.uses('op_fusion', 'Model.op_fusion'):
      options.do_op_fusion = True
    # Smart stage moves more of the graph into the stage, so it needs one.
    if self._stages(prefetch) and self.uses('smart_stage', _PREFETCH):
      options.do_smart_stage = True
    if self.slices(micro_batches):
      options.micro_batch_num = micro_batches

  def slices(self, micro_batches):
    """Whether DeepRec sums over micro-batches; the input then makes slices."""
    return micro_batches > 1 and self.uses('micro_batch', 'Model.micro_batches')

  def _stages(self, prefetch):
    return prefetch > 0 and self.uses('staged', _PREFETCH)

  def staged(self, tensors, capacity):
    """Prepares batches ahead of the step that reads them.

    Args:
      tensors: structure (see tf.nest) of tensors.
      capacity: int, the number of batches to prepare.

    Returns:
      (tensors, hooks): the same structure, and a list of the
      tf.train.SessionRunHook that fill the stage: without them a run would
      wait without an end.
    """
    if not self._stages(capacity):
      return tensors, []
    # One thread, because several would change the order of the batches.
    batch = compat.find('staged')(
        tf.nest.flatten(tensors), capacity=capacity, num_threads=1)
    return (tf.nest.pack_sequence_as(tensors, batch),
            [compat.find('make_prefetch_hook')()])

  def mark(self, train_op):
    """Tells DeepRec which op the stage serves, in versions that need it."""
    mark = compat.find('train.mark_target_node')
    if mark:
      mark([train_op])


def function(form):
  """The first function, or class, that a form of DeepRec calls.

  Args:
    form: str, of FORMS, which this TensorFlow has; see Engine.uses.
  """
  return compat.find(_CALLS[form][0][0])


def _is_there(form):
  """Whether this TensorFlow has everything that a form calls or sets."""
  if form in _FIELDS:
    options = compat.find('OptimizerOptions')
    return (options is not None and
            _FIELDS[form] in options.DESCRIPTOR.fields_by_name)
  return all(_takes(compat.find(path), names.split())
             for path, names in _CALLS[form])


def _takes(function, names):
  """Whether a function is not None and has arguments of these names."""
  if function is None:
    return False
  return set(names) <= set(inspect.signature(function).parameters)
