"""The tf.estimator.Estimator of a run: its model_fn and its scaffold."""

import tensorflow.compat.v1 as tf

from ple_estimator.engine import collector
from ple_estimator.engine import compat
from ple_estimator.training import compatibility
from ple_estimator.training import layout
from ple_estimator.training import saver as saver_lib


def config_for(config, fused):
  """Gives a RunConfig the session options that suit the kernels.

  Args:
    config: tf.estimator.RunConfig.
    fused: bool, whether training uses the fused kernels.

  Returns:
    tf.estimator.RunConfig. It has a number of threads inside an op that suits
    the kernels, unless the user has bound one.
  """
  session_config = config.session_config
  if not session_config.intra_op_parallelism_threads:
    session_config.intra_op_parallelism_threads = compat.intra_op_threads(fused)
  # Between fused kernels TensorFlow's graph optimizer finds nothing to improve,
  # and searches for seconds before the first step.
  session_config.graph_options.rewrite_options.disable_meta_optimizer = fused
  return config.replace(session_config=session_config)


class ModelFn:
  """The model_fn of an Estimator: the graph of a model, saved and restored.

  Attributes:
    reads: str, the checkpoint that is read when not training; None, the newest.
  """

  def __init__(self, model, engine, is_alone, prefetch=0, input_state=None,
               incremental=False, training_hooks=None, warm_start=None,
               train_input=None, vectors=None):
    """Builds no graph.

    Args:
      model: model.Model.
      engine: forms.Engine, whose forms the graph uses.
      is_alone: bool, whether one process does all of the training; there are
        then no parameter servers that keep the variables when it ends.
      prefetch: int, batches that the training input prepares ahead.
      input_state: work_queue.WorkQueue or input_state.InputState of the
        training input, whose batches carry numbers, or None.
      incremental: bool, whether incremental checkpoints are saved.
      training_hooks: function of the saver_lib.Saver of a training graph to a
        list of tf.train.SessionRunHook; None adds none.
      warm_start: warm_start.WarmStart, what a training without a checkpoint
        starts from; None is the initial values.
      train_input: inputs.FileInput, whose values warm_start may read.
      vectors: starting_vectors.StartingVectors, what tables start from in a
        training without a checkpoint, or None. What warm_start takes takes
        their place.
    """
    self._model = model
    self._engine = engine
    self._is_alone = is_alone
    self._prefetch = prefetch
    self._input_state = input_state
    self._incremental = incremental
    self._training_hooks = training_hooks
    self._warm_start = warm_start
    self._train_input = train_input
    self._vectors = vectors
    self.reads = None

  def __call__(self, features, labels, mode, config):
    """Builds the EstimatorSpec of one mode; called by Estimator.

    See Model.model_fn for the arguments.

    Raises:
      UserError: if model_dir holds the checkpoint of another model.
    """
    with collector.paused():
      if mode == tf.estimator.ModeKeys.TRAIN:
        return self._training_spec(features, labels, mode, config)
      spec = self._model.model_fn(features, labels, mode, engine=self._engine)
      return spec._replace(scaffold=self.scaffold(config))

  def scaffold(self, config):
    """What reads a checkpoint into the variables of the default graph.

    Args:
      config: tf.estimator.RunConfig.

    Returns:
      tf.train.Scaffold, for a graph that does not train.

    Raises:
      UserError: as `__call__`.
    """
    averages = self._model.averaging is not None
    saver = saver_lib.Saver(
        config.keep_checkpoint_max, training=False, averages=averages)
    compatibility.check(config.model_dir, False, self.reads, averages)
    compatibility.check_vocabularies(
        config.model_dir, self._model.features.categories, self.reads)
    return self._scaffold(saver)

  def _training_spec(self, features, labels, mode, config):
    (features, labels), hooks = self._engine.staged(
        (features, labels), self._prefetch)
    # Behind the stage, so that the number is that of the batch of the step.
    if self._input_state:
      self._input_state.follow(features)
    kept = self._warm_start.kept_biases(
        config.model_dir, [task.name for task in self._model.tasks]
        ) if self._warm_start else ()
    spec = self._model.model_fn(
        features, labels, mode, num_ps=config.num_ps_replicas,
        track_rows=self._incremental, engine=self._engine, kept_biases=kept)
    if hooks:
      self._engine.mark(spec.train_op)
    saver = saver_lib.Saver(
        config.keep_checkpoint_max, True, self._input_state,
        variables_remain=not self._is_alone)
    if self._training_hooks:
      hooks = hooks + self._training_hooks(saver)
    compatibility.check(config.model_dir, training=True,
                        averages=self._model.averaging is not None)
    compatibility.check_vocabularies(
        config.model_dir, self._model.features.categories,
        write=config.is_chief)
    start = None
    if config.is_chief:
      layout.write(config.model_dir, layout.of(self._model))
      start = self._init_fn(saver, config.model_dir)
    return spec._replace(
        training_hooks=hooks, scaffold=self._scaffold(saver, start))

  def _init_fn(self, saver, model_dir):
    """What a Scaffold calls if there was no checkpoint to restore, or None."""
    warm = self._warm_start and self._warm_start.init_fn(
        saver, self._model, self._train_input, model_dir)
    if not self._vectors:
      return warm

    def start(scaffold, session):
      self._vectors.fill(session)
      if warm:
        warm(scaffold, session)

    return start

  def _scaffold(self, saver, init_fn=None):
    """A Scaffold with a Saver and the check that variables have values."""
    # A process that is alone need not check whether variables have values. The
    # check would be a third of the ops of its graph.
    ready = tf.constant([], tf.string) if self._is_alone else None
    return tf.train.Scaffold(saver=saver, init_fn=init_fn, ready_op=ready,
                             ready_for_local_init_op=ready)
