"""model_fn: features -> embeddings -> experts -> tasks -> EstimatorSpec."""

import collections

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.data import reading
from ple_estimator.embeddings import deeprec
from ple_estimator.embeddings import keyed_table
from ple_estimator.engine import native
from ple_estimator.network import metrics
from ple_estimator.network import micro_batching
from ple_estimator.network import towers
from ple_estimator.optimizers import train_op


@gin.register
class Model:
  """What is trained, and how; the wiring of its parts and no more."""

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
               dense_layer_partitioner=0):
    """Keeps the parts; builds no graph.

    Args:
      features: features.FeatureSpec.
      embedding: function of (features, category columns) to vectors, e.g.
        embeddings.HashEmbedding.
      network: function of (inputs, task names, training, precision) to the
        inputs of the towers and the gates, e.g. ple.PLE.
      tasks: list of heads.Task.
      precision: precision.Precision.
      optimizer: function without arguments to a tf.train.Optimizer.
      clip_norm: float, largest global norm of the gradients; None is no limit.
      op_fusion: bool, whether to train and evaluate by the fused C++ ops
        where they can be had (native.py); predictions and SavedModels need no
        more than TensorFlow either way, and checkpoints are the same.
      micro_batches: int, slices in which a training batch goes through network
        and towers, one after another, before the one update: 1 is the whole
        batch at once. More need less memory and more time. Losses, summaries
        and gradients are those of the whole batch, but for batch norm, whose
        statistics are those of a slice and whose moving averages move once
        per slice.
      input_layer_partitioner: int, MB. In a cluster embedding tables are cut
        into parts of this size, of one parameter server each; into as many as
        there are servers where the size would give more. 0 cuts none.
        Embedding variables, whose size is not known, are always cut, by key.
        A run without parameter servers has everything in one part. The
        mathematics and what a checkpoint restores are the same for any number.
      dense_layer_partitioner: int, kB; the same for the kernels of dense
        layers. Biases and batch norm stay whole.

    Raises:
      UserError: if tasks and columns do not fit together.
    """
    errors.check(tasks, 'Model.tasks must have a task.')
    errors.check(
        clip_norm is None or errors.is_number(clip_norm) and clip_norm > 0,
        'Model.clip_norm must be positive, got %r.', clip_norm)
    for name, value, least in [
        ('micro_batches', micro_batches, 1),
        ('input_layer_partitioner', input_layer_partitioner, 0),
        ('dense_layer_partitioner', dense_layer_partitioner, 0)]:
      errors.check_integer('Model.' + name, value, least)
    self.features = features
    self.tasks = list(tasks)
    self._embedding = embedding
    self._network = network
    self._precision = precision
    self._optimizer = optimizer
    self._clip_norm = clip_norm
    self.op_fusion = op_fusion
    self.micro_batches = micro_batches
    self._input_part_bytes = input_layer_partitioner << 20
    self._dense_part_bytes = dense_layer_partitioner << 10
    self._check_tasks()
    self.groups = embedding.groups(features.categories)
    # Columns that the tasks read as they stand in the file.
    self.keep = sorted({task.sample_space[0] for task in tasks
                        if task.sample_space})

  def is_fused(self):
    """Whether training uses the fused kernels; loads them at the first call.

    A parameter server, which builds no graph, must load them too.
    """
    return self.op_fusion and native.available()

  def reading(self):
    """Returns the reading.Reading of training: what the model has to be fed."""
    return reading.Reading(self.features, tuple(self.keep), self.groups,
                           self.is_fused(), with_labels=True)

  def _check_tasks(self):
    names = [task.name for task in self.tasks]
    errors.check(len(set(names)) == len(names),
                 'Model.tasks must have different names, got %s.',
                 ', '.join(names))
    columns = [column.name for column in self.features.columns]
    for task in self.tasks:
      errors.check(
          task.label in self.features.labels,
          'Task.label must be a column of kind label (%s), got %r in task %s.',
          ', '.join(self.features.labels), task.label, task.name)
      errors.check(
          task.sample_space is None or task.sample_space[0] in columns,
          'Task.sample_space must name a column (%s), got %r in task %s.',
          ', '.join(columns), task.sample_space, task.name)
      if task.sample_space:
        column, value = task.sample_space
        errors.check(
            self.features[column].dtype == tf.string or
            isinstance(value, (int, float)),
            'Task.sample_space must have a number for the column %r, got %r in '
            'task %s.', column, value, task.name)
      values = self.features[task.label].values
      errors.check(
          not task.is_binary or (values and set(values) <= {0, 1}),
          "The label %r of the binary task %s must be 0 or 1: add 'values': "
          '(0, 1) to its column, or set Task.loss.', task.label, task.name)

  def model_fn(self, features, labels, mode, track_rows=False, num_ps=0,
               engine=None):
    """Builds the graph of one mode.

    Args:
      features: dict of column name to tensor, see FeatureSpec.encode.
      labels: dict of column name to [batch] float32; None when predicting.
      mode: tf.estimator.ModeKeys.
      track_rows: bool, whether training notes which rows of tables it
        touches (touched_rows.py).
      num_ps: int, parameter servers. Only training is done on them: in all
        other modes one process has all tables whole.

    Returns:
      tf.estimator.EstimatorSpec. It predicts one [batch] float32 per task,
      under the task's name, and the kept columns under theirs.
    """
    if engine:
      engine.place_in_graph()
    training = mode == tf.estimator.ModeKeys.TRAIN
    # A SavedModel must load where these ops are not.
    op_fusion = self.op_fusion and mode != tf.estimator.ModeKeys.PREDICT
    num_ps = num_ps if training else 0
    inputs = self._inputs(features, training, op_fusion, num_ps)
    if training:
      sources = tf.trainable_variables() + [
          table.source for table in keyed_table.of_graph()]
      return self._train_spec(
          inputs, sources, labels, self._weights(features, labels), op_fusion,
          track_rows, num_ps)
    logits, gates = self._logits(inputs, training, op_fusion)
    if mode == tf.estimator.ModeKeys.PREDICT:
      return self._predict_spec(features, {
          task.name: task.predictions(logits[task.name])
          for task in self.tasks})
    weights = self._weights(features, labels)
    return tf.estimator.EstimatorSpec(
        mode, loss=self._total(self._losses(labels, logits, weights)),
        eval_metric_ops=self._metrics(labels, logits, weights, gates))

  def _inputs(self, features, training, op_fusion, num_ps):
    """Returns what the network reads, [batch, in_dim] float32."""
    with _parts(num_ps, self._input_part_bytes):
      vectors = self._embedding(features, self.features.categories, training,
                                op_fusion, num_ps)
    numbers = [features[name][:, tf.newaxis] for name in self.features.numbers]
    return tf.concat(vectors + numbers, axis=1)

  def _logits(self, inputs, training, op_fusion, num_ps=0):
    """Returns ({task name: [batch] float32}, gates)."""
    with _parts(num_ps, self._dense_part_bytes):
      per_task, gates = self._network(
          inputs, [task.name for task in self.tasks], training,
          self._precision, op_fusion)
      of_task = collections.OrderedDict(
          (task.name, task.tower) for task in self.tasks)
      return towers.logits(of_task, per_task, training, self._precision,
                             op_fusion), gates

  def _train_spec(self, inputs, sources, labels, weights, op_fusion,
                  track_rows, num_ps):
    """The spec of training, whose inputs are made from sources."""
    before = len(tf.trainable_variables())
    step = tf.train.get_or_create_global_step()
    scales = [task.loss_weight(step) for task in self.tasks]
    total_weights = {name: tf.reduce_sum(of) for name, of in weights.items()}
    share = 1 / tf.cast(tf.shape(inputs)[0], tf.float32)

    def of_rows(rows):
      inputs, labels, weights = rows
      logits, gates = self._logits(inputs, True, op_fusion, num_ps)
      losses = self._losses(labels, logits, weights, total_weights)
      gates = tf.nest.map_structure(lambda x: share * tf.reduce_sum(x), gates)
      variables = tf.trainable_variables()[before:]
      d_inputs, *found = tf.gradients(
          [losses[task.name] for task in self.tasks], [inputs] + variables,
          scales, gate_gradients=True)  # as tf.train.Optimizer has them
      gradients = {v.name: tf.convert_to_tensor(g)
                   for v, g in zip(variables, found) if g is not None}
      return (losses, gates, gradients), d_inputs

    (losses, gates, gradients), d_inputs = micro_batching.accumulate(
        of_rows, (inputs, labels, weights),
        1 if deeprec.of_graph().slices(self.micro_batches)
        else self.micro_batches)
    self._summarize(losses, gates)
    # On into the embedding; and what is no sum over rows comes in once.
    trained = sources + tf.trainable_variables()[before:]
    penalties = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    rest = tf.gradients([inputs] + penalties, trained,
                        [d_inputs] + [None] * len(penalties))
    found = [_add(g, gradients.get(v.name)) for g, v in zip(rest, trained)]
    return tf.estimator.EstimatorSpec(
        tf.estimator.ModeKeys.TRAIN, loss=self._total(losses),
        train_op=train_op.build(
            self._optimizer, list(zip(found, trained)), self._clip_norm,
            op_fusion, track_rows))

  def _weights(self, features, labels):
    """Returns {task name: [batch] float32}, 0 outside of its sample space."""
    row = (features[self.features.weight] if self.features.weight
           else tf.ones_like(next(iter(labels.values()))))
    weights = {}
    for task in self.tasks:
      weights[task.name] = row
      if task.sample_space:
        column, value = task.sample_space
        found = features[column_kinds.RAW + column]
        if found.dtype == tf.string:
          value = str(value)
        inside = tf.equal(found, tf.constant(value, found.dtype))
        weights[task.name] = row * tf.cast(inside, tf.float32)
    return weights

  def _losses(self, labels, logits, weights, total_weights=None):
    """Returns {task name: float32 scalar}, not weighted; see Task.loss."""
    return {task.name: task.loss(
        labels[task.label], logits[task.name], weights[task.name],
        total_weights and total_weights[task.name]) for task in self.tasks}

  def _total(self, losses):
    """Returns the loss that is trained, and names all for ProgressHook."""
    step = tf.train.get_or_create_global_step()
    with tf.name_scope(None):
      for name, loss in losses.items():
        tf.identity(loss, '%s/loss' % name)
    terms = [task.loss_weight(step) * losses[task.name] for task in self.tasks]
    return tf.add_n(terms + tf.get_collection(
        tf.GraphKeys.REGULARIZATION_LOSSES), name='total_loss')

  def _metrics(self, labels, logits, weights, gates):
    found = {}
    for task in self.tasks:
      found.update(task.metrics(
          labels[task.label], logits[task.name], weights[task.name]))
    for gate, shares in gates.items():
      for expert, share in shares.items():
        found['gate/%s/%s' % (gate, expert)] = metrics.mean(
            share, tf.ones_like(share))
    return found

  def _summarize(self, losses, gates):
    for name, loss in losses.items():
      tf.summary.scalar('%s/train_loss' % name, loss)
    for gate, shares in gates.items():
      for expert, share in shares.items():
        tf.summary.scalar('gate/%s/%s' % (gate, expert), share)

  def _predict_spec(self, features, predictions):
    kept = {name[len(column_kinds.RAW):]: value
            for name, value in features.items()
            if name.startswith(column_kinds.RAW)}
    # A served model answers with vectors of rows, by task.
    output = tf.estimator.export.PredictOutput(dict(predictions))
    return tf.estimator.EstimatorSpec(
        tf.estimator.ModeKeys.PREDICT,
        predictions=dict(predictions, **kept),
        export_outputs={
            tf.saved_model.signature_constants
            .DEFAULT_SERVING_SIGNATURE_DEF_KEY: output})


def _parts(num_ps, part_bytes):
  """A variable scope that cuts variables into num_ps parts, or fewer of a size.

  Args:
    num_ps: int; 0 and 1 cut none.
    part_bytes: int; 0 cuts none.
  """
  return tf.variable_scope(
      tf.get_variable_scope(), partitioner=tf.min_max_variable_partitioner(
          max_partitions=num_ps, min_slice_size=part_bytes)
      if num_ps > 1 and part_bytes else None)


def _add(a, b):
  """The sum of two tensors, either or both of which may be None."""
  return b if a is None else a if b is None else a + b
