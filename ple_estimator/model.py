"""The model: features -> embeddings -> experts -> towers -> EstimatorSpec."""

import collections

import gin
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.balancing import balancing as balancing_lib
from ple_estimator.balancing import batch as batch_lib
from ple_estimator.data import column_kinds
from ple_estimator.data import feature_spec
from ple_estimator.data import reading
from ple_estimator.data import sampling
from ple_estimator.embeddings import attention as attention_lib
from ple_estimator.embeddings import hashed
from ple_estimator.embeddings import keyed_table
from ple_estimator.engine import native
from ple_estimator.engine import purpose as purpose_lib
from ple_estimator.interactions import combined
from ple_estimator.network import gradients as gradients_lib
from ple_estimator.network import objective
from ple_estimator.network import ple
from ple_estimator.network import precision as precision_lib
from ple_estimator.network import tasks as tasks_lib
from ple_estimator.network import towers
from ple_estimator.network import transfer
from ple_estimator.optimizers import averaging as averaging_lib
from ple_estimator.optimizers import factories
from ple_estimator.optimizers import train_op

_TRAIN = tf.estimator.ModeKeys.TRAIN
_PREDICT = tf.estimator.ModeKeys.PREDICT

Opened = collections.namedtuple('Opened', 'inputs logits gates experts')
Opened.__doc__ = """What lies inside of a graph of prediction.

Attributes:
  inputs: [batch, n] float32 that may be fed: the vectors of all columns, then
    the numbers, in the order and with the widths of Model.widths.
  logits: dict of the name of each task to [batch] or [batch, num_logits]
    float32, those of which the predictions are made.
  gates: dict of gate name to a dict of expert name to [batch] float32.
  experts: dict of the name of each expert, with its level, to its output,
    [batch, n] float32; empty where the network is none of this package.
"""


@gin.register
class Model:
  """A model: connects features, embedding, network, tasks and optimizer.

  Attributes:
    features: feature_spec.FeatureSpec.
    tasks: list of tasks.Task.
    op_fusion: bool, whether the fused ops are to be used where they can be.
    micro_batches: int, the slices of a training batch.
    groups: list of packing.Group, how the input has to pack the ids.
    keep: sorted list of the columns that tasks read as the file has them.
    weight: str, the column with the weight that rows have for all tasks, or
      None.
    averaging: averaging.Averaging, or None.
    balancing: balancing.Balancing, or None.
  """

  def __init__(self,
               features=gin.REQUIRED,
               embedding=gin.REQUIRED,
               network=gin.REQUIRED,
               tasks=gin.REQUIRED,
               precision=gin.REQUIRED,
               optimizer=gin.REQUIRED,
               clip_norm=None,
               op_fusion=True,
               micro_batches=1,
               input_layer_partitioner=0,
               dense_layer_partitioner=0,
               interactions=(),
               embedding_dropout=0.0,
               averaging=None,
               balancing=None,
               attention=None):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      features: feature_spec.FeatureSpec.
      embedding: hashed.HashEmbedding or another embedding: an object with
        `groups`, called with (features, category columns, purpose), which
        returns a list of [batch, n] float32.
      network: ple.PLE or another function of (inputs, task names, purpose),
        which returns the inputs of the towers and the gates; None for a model
        of interactions alone, whose tasks have no tower.
      tasks: list of tasks.Task.
      precision: precision.Precision.
      optimizer: function without arguments to a tf.train.Optimizer.
      clip_norm: float, the largest global norm of the gradients; None is no
        limit.
      op_fusion: bool, whether to train and evaluate by the fused C++ ops
        (native.py) where they can be used. Predictions and SavedModels never
        need them, and checkpoints are the same.
      micro_batches: int, the number of slices in which a training batch goes
        through network and towers, one after another, before the one update.
        1 is the whole batch at once; more slices need less memory and more
        time. Losses, summaries and gradients are those of the whole batch.
        Only batch norm differs: its statistics are those of a slice, and its
        moving averages are updated once per slice.
      input_layer_partitioner: int, MB. In a cluster, embedding tables are cut
        into parts of this size, each on one parameter server; if that would
        give more parts than servers, into one part per server. 0 cuts none.
        Embedding variables have no known size and are always cut, by key.
        Without parameter servers nothing is cut. The computation and what a
        checkpoint can restore do not depend on the number of parts.
      dense_layer_partitioner: int, kB; the same for the kernels of dense
        layers. Biases and batch norm are never cut.
      interactions: list of interaction.Interaction, such as Wide, FM,
        DotProducts and CrossNet, between the embeddings and the experts. They
        add to the logits of the tasks or to what the experts read.
      embedding_dropout: float in [0, 1), the share of the concatenated
        embeddings that training sets to 0 where the experts read them, drawn
        anew for each number of a batch; what is left is divided by 1 minus the
        share (Srivastava et al., JMLR 2014). Columns of kind number are not
        dropped, nor what Wide, FM, FwFM and DotProducts read.
      averaging: averaging.Averaging: evaluation, prediction and export use
        averages of the weights; None has none, and reads the weights of a
        checkpoint that has averages too.
      balancing: balancing.Balancing, such as UncertaintyWeights,
        DynamicWeightAverage, GradNorm or PCGrad: how much the losses of the
        tasks count in a step of training, besides Task.weight; None leaves it
        at Task.weight.
      attention: attention.Attention, how the items of lists with the combiner
        'attention' are weighed; None where there is no such list. It weighs
        those of a whole batch at once, also with micro_batches.

    Raises:
      UserError: if a value is out of range, or if tasks and columns do not fit
        together.
    """
    _check_parts(features, embedding, network, precision)
    errors.check_number('Model.clip_norm', clip_norm, above=0, or_none=True)
    errors.check_number('Model.embedding_dropout', embedding_dropout, least=0,
                        below=1)
    errors.check_bool('Model.op_fusion', op_fusion)
    for name, value, least in [
        ('micro_batches', micro_batches, 1),
        ('input_layer_partitioner', input_layer_partitioner, 0),
        ('dense_layer_partitioner', dense_layer_partitioner, 0)]:
      errors.check_integer('Model.' + name, value, least)
    _check_tasks(tasks, features)
    errors.check_is_a('Model.averaging', averaging, averaging_lib.Averaging,
                      '@Averaging()', or_none=True)
    errors.check_is_a(
        'Model.balancing', balancing, balancing_lib.Balancing,
        '@UncertaintyWeights()', or_none=True)
    if balancing:
      balancing.check(tasks)
    attention_lib.check(attention, features.categories)
    factories.check(optimizer)
    self._interactions = combined.Interactions(
        interactions, features.categories, features.num_numbers,
        sum(_widths(tasks).values()), embedding_dropout)
    _check_interactions(self._interactions, network, tasks)
    if isinstance(network, transfer.AIT):
      network.check_tasks(list(_widths(tasks)))
      tasks = network.calibrated(tasks)
    self._categories = self._interactions.widened(features.categories)
    self.features = features.used_by(_label_uses(tasks))
    self.tasks = list(tasks)
    self.weight = _common_weight(tasks, features)
    self.op_fusion = op_fusion
    self.micro_batches = micro_batches
    self.groups = embedding.groups(self._categories)
    self.keep = sorted({task.sample_space[0] for task in tasks
                        if task.sample_space})
    self._embedding = embedding
    self._attention = attention
    self._network = network
    self._precision = precision
    self._optimizer = optimizer
    self._clip_norm = clip_norm
    self.averaging = averaging
    self.balancing = balancing
    self._input_part_bytes = input_layer_partitioner << 20
    self._dense_part_bytes = dense_layer_partitioner << 10

  def is_fused(self):
    """Whether training uses the fused kernels; loads them at the first call.

    A parameter server builds no graph, but it has to load the kernels too.
    """
    return self.op_fusion and native.available()

  def reading(self, more=()):
    """Returns the reading.Reading of all rows: the columns that it needs.

    Args:
      more: names of columns that are to come along as the files have them.
    """
    keep = tuple(self.keep) + tuple(n for n in more if n not in self.keep)
    return reading.Reading(self.features, keep, self.groups, self.is_fused(),
                           with_labels=True)

  def training_reading(self):
    """Returns the same of the rows that training has."""
    rules = [sampling.Rule(
        None if task.of else task.label, task.negative_rate, task.sample_space)
             for task in self.tasks]
    samples = any(task.negative_rate < 1 for task in self.tasks)
    return self.reading()._replace(rules=tuple(rules) if samples else ())

  def model_fn(self, features, labels, mode, num_ps=0, track_rows=False,
               engine=None, kept_biases=()):
    """Builds the graph of one mode.

    Args:
      features: dict of column name to tensor, see FeatureSpec.encode.
      labels: dict of column name to [batch] float32; None when predicting.
      mode: tf.estimator.ModeKeys.
      num_ps: int, the number of parameter servers. Only training uses them: in
        the other modes one process has all tables whole.
      track_rows: bool, whether training notes which rows of tables it updates
        (touched_rows.py).
      engine: forms.Engine of the run; None uses no form of DeepRec.
      kept_biases: names of tasks whose logit has a bias before the first step
        of training, which Task.initial_bias is not to set.

    Returns:
      tf.estimator.EstimatorSpec. It predicts [batch] float32, or [batch, n] of
      a loss with n classes, under the name of each task, and has the kept
      columns under theirs.
    """
    training = mode == _TRAIN
    purpose = purpose_lib.Purpose(
        training=training,
        precision=self._precision,
        # A SavedModel must load where there are no kernels.
        fused=mode != _PREDICT and self.is_fused(),
        num_ps=num_ps if training else 0,
        engine=engine,
        track_rows=training and track_rows)
    inputs = self._inputs(features, purpose)
    if mode == _PREDICT:
      logits, _ = self._logits(inputs, purpose)
      return self._predict_spec(
          features, tasks_lib.with_products(self.tasks, logits))
    targets = self.targets(features, labels)
    if training:
      return self._train_spec(inputs, objective.in_training(
          self.tasks, targets, features.get(sampling.CHANCE)), purpose,
                              kept_biases)
    logits, gates = self._logits(inputs, purpose)
    logits = tasks_lib.with_products(self.tasks, logits)
    losses = objective.losses(self.tasks, targets, logits)
    return tf.estimator.EstimatorSpec(
        mode, loss=objective.total(self.tasks, losses),
        predictions=dict(_kept_columns(features), **objective.evaluated(
            self.tasks, targets, logits)),
        eval_metric_ops=dict(
            objective.metrics(self.tasks, targets, logits, gates),
            loss=objective.loss_metric(self.tasks, targets, logits)))

  def opened(self, features, engine=None):
    """Builds the graph of prediction and gives what lies inside of it.

    Args:
      features: dict of column name to tensor, see FeatureSpec.encode.
      engine: forms.Engine of the run; None uses no form of DeepRec.

    Returns:
      Opened.
    """
    purpose = purpose_lib.Purpose(
        precision=self._precision, engine=engine,
        experts=collections.OrderedDict())
    inputs = self._inputs(features, purpose)
    inputs = tf.placeholder_with_default(inputs, inputs.shape)
    logits, gates = self._logits(inputs, purpose)
    return Opened(inputs, tasks_lib.with_products(self.tasks, logits), gates,
                  purpose.experts)

  # ------------------------------------------------ from features to logits

  def _inputs(self, features, purpose):
    """Returns what interactions and network read, [batch, n] float32."""
    with _cut(purpose.num_ps, self._input_part_bytes):
      vectors = self._embedding(features, self._categories, purpose)
    if self._attention:
      with _cut(purpose.num_ps, self._dense_part_bytes):
        vectors = self._attention(
            vectors, [part for group in self.groups for part in group.parts],
            purpose)
    return tf.concat(vectors + self.features.numbers_of(features), axis=1)

  def input_names(self):
    """What `_inputs` concatenates for the experts: a list of (name, width)."""
    return [(column.name, group.dim - group.own_dim) for group in self.groups
            for column in group.columns] + self.features.number_widths()

  def widths(self):
    """What `_inputs` concatenates, for interactions too: as `input_names`."""
    return [(column.name, group.dim) for group in self.groups
            for column in group.columns] + self.features.number_widths()

  def own_names(self):
    """What interactions read, see combined.Interactions.own_names."""
    return self._interactions.own_names(self.logit_names())

  def logit_names(self):
    """The names of all logits: of tasks, or of the classes of a task."""
    return [name if count == 1 else '%s/%d' % (name, i)
            for name, count in _widths(self.tasks).items()
            for i in range(count)]

  def _logits(self, inputs, purpose):
    """Builds network and towers, of the tasks that have a logit of their own.

    Args:
      inputs: [batch, in_dim] float32.
      purpose: purpose.Purpose.

    Returns:
      (logits, gates): a dict of task name to [batch] float32, or to
      [batch, num_logits] of a loss with several, and a dict of gate name to a
      dict of expert name to [batch] float32.
    """
    widths = _widths(self.tasks)
    with _cut(purpose.num_ps, self._dense_part_bytes):
      inputs, added = self._interactions(
          inputs, self.groups, sum(widths.values()), purpose)
      if self._network is None:
        return _with_bias(added, widths), {}
      per_task, gates = self._network(inputs, list(widths), purpose)
      of_task = collections.OrderedDict(
          (task.name, task.tower) for task in self.tasks if not task.of)
      logits = towers.logits(of_task, per_task, purpose, widths)
    if added is not None:
      for name, part in _by_task(added, widths).items():
        logits[name] += part
    return logits, gates

  def _biases(self):
    """The biases of logits that the first step sets.

    Returns:
      dict of task name to ([num_logits] variable, what it is multiplied by).
    """
    found = {}
    for task in self.tasks:
      if task.has_initial_bias:
        found[task.name] = (
            towers.bias(task.name, task.tower) if self._network
            else (_bias(task.name, task.kind.num_logits), 1.0))
        errors.check(
            found[task.name], 'Task.initial_bias must be 0.0 for a tower '
            'without a bias, in task %s.', task.name)
    return found

  def targets(self, features, labels):
    """What the tasks of a batch are to predict, and how much its rows count.

    Args:
      features: dict of column name to tensor, see FeatureSpec.encode; only
        weights of rows and kept columns are read.
      labels: dict of column name to [batch] float32.

    Returns:
      objective.Targets.
    """
    weights = (features[self.weight] if self.weight
               else tf.ones_like(next(iter(labels.values()))))
    own = {name: features[name] for name in self.features.weights}
    return objective.Targets(objective.known(labels), objective.row_weights(
        self.tasks, weights, _kept_columns(features), own))

  # ------------------------------------------- from inputs to EstimatorSpecs

  def _train_spec(self, inputs, targets, purpose, kept_biases):
    """Builds the training graph from the output of the embeddings on."""
    embedded = tf.trainable_variables()
    sources = [table.source for table in keyed_table.of_graph()]
    # If DeepRec sums over micro-batches, the input has cut the batch already.
    slices = (1 if purpose.engine.slices(self.micro_batches)
              else self.micro_batches)
    first = objective.first_biases(self.tasks, targets, kept_biases)

    def build(rows):
      logits, gates = self._logits(rows, purpose)
      logits = {name: logits[name] + first[name] for name in logits}
      return tasks_lib.with_products(self.tasks, logits, training=True), gates

    balancing = self.balancing or balancing_lib.TaskWeights()
    of_batch = balancing.balanced(batch_lib.Batch(
        self.tasks, inputs, targets, build, slices,
        plain=lambda rows: self._logits(rows, purpose._replace(fused=False)),
        is_beside=self._interactions.owns, tables=embedded + sources))
    losses = of_batch.losses
    objective.start_biases(first, {
        name: bias for name, bias in self._biases().items()
        if name not in kept_biases}, losses.values())
    objective.summarize(self.tasks, losses, of_batch.gates)
    objective.name_weights(self.tasks, targets)
    trained = embedded + sources + tf.trainable_variables()[len(embedded):]
    return tf.estimator.EstimatorSpec(
        _TRAIN, loss=objective.total(self.tasks, losses, of_batch.terms),
        train_op=train_op.build(
            self._optimizer, gradients_lib.complete(
                trained, of_batch.gradients, inputs, of_batch.d_inputs),
            purpose, self._clip_norm, self.averaging))

  def _predict_spec(self, features, logits):
    """Builds the spec of prediction and of a SavedModel."""
    predictions = {task.name: self._answered(
        features, task.predictions(logits[task.name])) for task in self.tasks}
    # A SavedModel answers with one vector per task, and no other columns.
    output = tf.estimator.export.PredictOutput(dict(predictions))
    return tf.estimator.EstimatorSpec(
        _PREDICT, predictions=dict(predictions, **_kept_columns(features)),
        export_outputs={
            tf.saved_model.signature_constants
            .DEFAULT_SERVING_SIGNATURE_DEF_KEY: output})

  def _answered(self, features, predictions):
    """Returns predictions, with NaN in rows that a file could not have.

    A file with such a row is refused. A served model cannot refuse one row, and
    an activation such as relu may hide the NaN that stands for its number.
    """
    numbers = self.features.numbers_of(features)
    if not numbers:
      return predictions
    valid = tf.reduce_all(tf.is_finite(tf.concat(numbers, axis=1)), axis=1)
    return tf.where(
        valid, predictions, tf.fill(tf.shape(predictions), np.float32(np.nan)))


def _check_parts(features, embedding, network, precision):
  for name, value, kind, example, own in [
      ('features', features, feature_spec.FeatureSpec, '@FeatureSpec()', ()),
      ('embedding', embedding, hashed.Embedding, '@HashEmbedding()',
       ('__call__', 'groups')),
      ('network', network, (ple.PLE, transfer.AIT), '@PLE()', ('__call__',)),
      ('precision', precision, precision_lib.Precision, '@Precision()',
       ('dtype', 'matmul'))]:
    errors.check_is_a('Model.' + name, value, kind, example, own,
                      or_none=name == 'network')


def _check_interactions(interactions, network, tasks):
  """Raises UserError unless interactions suit the rest of a model."""
  if network is None:
    interactions.check_alone()
  for task in [task for task in tasks if not task.of]:
    errors.check(
        (task.tower is None) == (network is None), 'Task.tower must be %s, got '
        '%s in task %s.',
        'given, such as @Tower()' if network else 'None where Model.network is '
        'None', errors.written(task.tower), task.name)


def _check_tasks(tasks, features):
  """Raises UserError unless tasks fit together and to a FeatureSpec."""
  errors.check_list(
      'Model.tasks', tasks, lambda task: isinstance(task, tasks_lib.Task),
      'tasks, such as [@ctr/Task(), @cvr/Task()]')
  names = [task.name for task in tasks]
  errors.check(len(set(names)) == len(names),
               'Model.tasks must have different names, got %s.',
               ', '.join(names))
  for task in tasks:
    if task.of:
      errors.check(
          set(task.of) <= set(names), 'ProductTask.of must be tasks of '
          'Model.tasks (%s), got %s in task %s.', ', '.join(names),
          ', '.join(task.of), task.name)
    else:
      _check_label(task, features)
    if task.sample_space:
      _check_sample_space(task, features)


def _check_label(task, features):
  errors.check(
      task.label in features.labels,
      'Task.label must be a column of kind label (%s), got %r in task %s.',
      ', '.join(features.labels), task.label, task.name)
  task.kind.check_label(task.name, task.label, features[task.label].values)


def _common_weight(tasks, features):
  """The weight column that no task names, or None; checks those they name."""
  named = {task.weight_column: task for task in tasks if task.weight_column}
  for name, task in named.items():
    errors.check(
        name in features.weights, '%s.weight_column must be a column of kind '
        'weight (%s), got %r in task %s.', type(task).__name__,
        ', '.join(features.weights), name, task.name)
  others = [name for name in features.weights if name not in named]
  errors.check(len(others) < 2, 'FeatureSpec.columns must have at most one '
               'weight that no Task.weight_column names, got %s.',
               ', '.join(others))
  return others[0] if others else None


def _label_uses(tasks):
  """Returns {label: list of column_kinds.LabelUse} of tasks."""
  uses = collections.defaultdict(list)
  for task in tasks:
    if task.of:
      # What follows is asked of a row where that before it has happened.
      spaces = [task.sample_space] + [(name, 1) for name in task.labels]
      for name, space in zip(task.labels, spaces):
        uses[name].append(column_kinds.LabelUse(space, None))
    else:
      uses[task.label].append(column_kinds.LabelUse(
          task.sample_space, task.kind.least_label))
  return uses


def _widths(tasks):
  """OrderedDict of task to the number of its logits, if they are its own."""
  return collections.OrderedDict(
      (task.name, task.kind.num_logits) for task in tasks if not task.of)


def _check_sample_space(task, features):
  name, value = task.sample_space
  columns = [column.name for column in features.columns]
  errors.check(
      name in columns,
      'Task.sample_space must name a column (%s), got %r in task %s.',
      ', '.join(columns), task.sample_space, task.name)
  errors.check(
      not features[name].shape, 'Task.sample_space must be a column with one '
      'value per row, got the vector %r in task %s.', name, task.name)
  is_text = features[name].dtype == tf.string
  errors.check(
      errors.is_number(value) or is_text and isinstance(value, str),
      'Task.sample_space must have a %s for the column %r, got %s in task %s.',
      'text or number' if is_text else 'number', name, errors.written(value),
      task.name)


def _by_task(logits, widths):
  """Splits [batch, n] logits of all tasks; those of one logit are [batch].

  Args:
    logits: [batch, n] float32.
    widths: OrderedDict of task name to int, how many logits it has.
  """
  parts = tf.split(logits, list(widths.values()), axis=1)
  return {task: part if width > 1 else tf.squeeze(part, axis=1)
          for (task, width), part in zip(widths.items(), parts)}


def _with_bias(logits, widths):
  """Adds biases to logits; as `_by_task`."""
  return {task: part + _bias(task, widths[task])
          for task, part in _by_task(logits, widths).items()}


def _bias(task, width):
  """The bias of the logits of a task without tower, a [width] variable."""
  with tf.variable_scope(task, reuse=tf.AUTO_REUSE) as scope:
    scope.set_partitioner(None)
    return tf.get_variable('bias', [width], tf.float32, tf.zeros_initializer())


def _kept_columns(features):
  """Returns the columns that features has as the file has them, by name."""
  prefix = column_kinds.RAW
  return {name[len(prefix):]: value for name, value in features.items()
          if name.startswith(prefix)}


def _cut(num_ps, part_bytes):
  """A variable scope that cuts large variables into parts.

  Args:
    num_ps: int, the largest number of parts; 0 and 1 cut none.
    part_bytes: int, the least size of a part; 0 cuts none.
  """
  return tf.variable_scope(
      tf.get_variable_scope(), partitioner=tf.min_max_variable_partitioner(
          max_partitions=num_ps, min_slice_size=part_bytes)
      if num_ps > 1 and part_bytes else None)
