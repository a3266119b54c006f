"""Evaluates one checkpoint after another on one graph."""

import tensorflow.compat.v1 as tf

from ple_estimator import files
from ple_estimator.network import gate_pictures

_MODE = tf.estimator.ModeKeys.EVAL


class Evaluator:
  """What Estimator.evaluate does, with a graph that is built only once.

  Estimator builds the graph anew for every evaluation, which takes longer than
  an evaluation of some ten thousand rows. Each evaluation here has a session of
  its own, which takes no memory between two of them.
  """

  def __init__(self, estimator, input_fn, rows, name=None):
    """Builds no graph.

    Args:
      estimator: tf.estimator.Estimator.
      input_fn: function without arguments to a tf.data.Dataset of
        (features, labels).
      rows: evaluated_rows.EvaluatedRows, what is done with the rows.
      name: str, what its event files are called, model_dir/eval_<name>; None
        is model_dir/eval.
    """
    self._estimator = estimator
    self._input_fn = input_fn
    self._rows = rows
    self._name = name
    self._graph = None

  def forget(self):
    """Drops the graph, so that the next evaluation looks for files again."""
    self._graph = None

  def __call__(self, checkpoint_path):
    """Evaluates a checkpoint, and writes its metrics to the event files.

    Args:
      checkpoint_path: str.

    Returns:
      dict of metric name to number, 'global_step' among them: that of the
      checkpoint's name, if it has one.
    """
    if self._graph is None:
      self._graph = _Graph(self._estimator, self._input_fn, self._rows)
    collected = self._rows.collected() if self._rows.is_needed else None
    values = self._graph.run(
        checkpoint_path, self._estimator.config.session_config, collected)
    # The workers of a cluster go on while the chief saves, so the variable may
    # be some steps ahead of the step that the checkpoint is named by. All else
    # that knows a checkpoint by its step has that of the name.
    named = files.checkpoint_step(checkpoint_path)
    if named is not None:
      values[tf.GraphKeys.GLOBAL_STEP] = named
    if collected:
      values.update(self._rows.finish(
          collected, int(values[tf.GraphKeys.GLOBAL_STEP]), checkpoint_path))
    _write_summary(self._estimator.eval_dir(self._name), values)
    return values


class _Graph:
  """The graph of an evaluation."""

  def __init__(self, estimator, input_fn, rows):
    """Builds it.

    Args:
      estimator: tf.estimator.Estimator.
      input_fn: function without arguments to a tf.data.Dataset.
      rows: evaluated_rows.EvaluatedRows.
    """
    self._graph = tf.Graph()
    with self._graph.as_default():
      tf.set_random_seed(estimator.config.tf_random_seed)
      step = tf.train.create_global_step()
      iterator = tf.data.make_initializable_iterator(input_fn())
      tf.add_to_collection(
          tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
      features, labels = iterator.get_next()
      spec = estimator.model_fn(features, labels, _MODE, estimator.config)
      metrics = spec.eval_metric_ops
      self._updates = [update for _, update in metrics.values()]
      self._values = {name: value for name, (value, _) in metrics.items()}
      self._values[tf.GraphKeys.GLOBAL_STEP] = step
      self._rows = rows.chosen(spec.predictions)
      self._scaffold = spec.scaffold.finalize()
      self._hooks = list(spec.evaluation_hooks)

  def run(self, checkpoint_path, session_config, collected=None):
    """Evaluates a checkpoint.

    Args:
      checkpoint_path: str.
      session_config: tf.ConfigProto.
      collected: evaluated_rows.Collected, which gets the rows; or None.

    Returns:
      dict of metric name to number.
    """
    last = tf.train.FinalOpsHook(self._values)
    with self._graph.as_default(), tf.train.MonitoredSession(
        tf.train.ChiefSessionCreator(
            self._scaffold, config=session_config,
            checkpoint_filename_with_path=checkpoint_path),
        hooks=self._hooks + [last]) as session:
      while not session.should_stop():
        if collected:
          collected.add(session.run([self._rows, self._updates])[0])
        else:
          session.run(self._updates)
    return dict(last.final_ops_values)


def _write_summary(folder, values):
  """Writes metrics to the event files of a folder, as Estimator does.

  Args:
    folder: str.
    values: dict of metric name to a number, 'global_step' among them. The
      shares of experts in gates become one picture per level.
  """
  summary = gate_pictures.summary(values)
  for name, value in sorted(values.items()):
    if name != tf.GraphKeys.GLOBAL_STEP and not name.startswith(
        gate_pictures.PREFIX):
      summary.value.add(tag=name, simple_value=float(value))
  writer = tf.summary.FileWriterCache.get(folder)
  writer.add_summary(summary, int(values[tf.GraphKeys.GLOBAL_STEP]))
  writer.flush()
