"""TF_CONFIG and the processor: how one process takes part in a run."""

import json
import os

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors


@gin.register(denylist=['model_dir'])
def run_config(model_dir,
               save_steps=1000,
               keep_checkpoint_max=5,
               seed=2021,
               summary_steps=100,
               inter_op_threads=0,
               intra_op_threads=0):
  """Returns the tf.estimator.RunConfig of this process.

  The role in a cluster comes from the environment variable TF_CONFIG; without
  it the run is local.

  Args:
    model_dir: str, where checkpoints and event files go.
    save_steps: int, global steps between checkpoints.
    keep_checkpoint_max: int, checkpoints kept; 0 keeps all.
    seed: int, of variables, dropout and the shuffle of rows.
    summary_steps: int, global steps between summaries.
    inter_op_threads: int, threads that run ops side by side; 0 lets
      TensorFlow choose.
    intra_op_threads: int, threads inside one op; 0 lets TensorFlow choose.

  Raises:
    UserError: if a number is out of range.
  """
  for name, value, least in [
      ('save_steps', save_steps, 1),
      ('keep_checkpoint_max', keep_checkpoint_max, 0),
      ('seed', seed, 0),
      ('summary_steps', summary_steps, 1),
      ('inter_op_threads', inter_op_threads, 0),
      ('intra_op_threads', intra_op_threads, 0),
  ]:
    errors.check(isinstance(value, int) and value >= least,
                 'run_config.%s must be an integer of at least %d, got %r.',
                 name, least, value)
  session = tf.ConfigProto(
      allow_soft_placement=True,
      inter_op_parallelism_threads=inter_op_threads,
      intra_op_parallelism_threads=intra_op_threads)
  session.graph_options.rewrite_options.meta_optimizer_iterations = 1
  session.device_filters.extend(_device_filters())
  return tf.estimator.RunConfig(
      model_dir=model_dir,
      tf_random_seed=seed,
      session_config=session,
      save_checkpoints_steps=save_steps,
      keep_checkpoint_max=keep_checkpoint_max,
      save_summary_steps=summary_steps,
      log_step_count_steps=summary_steps)


def shard(config):
  """Returns (index, count): which share of the training rows is this one's.

  Args:
    config: tf.estimator.RunConfig.
  """
  if config.task_type == 'chief':
    return 0, config.num_worker_replicas
  if config.task_type == 'worker' and config.num_worker_replicas > 1:
    return config.task_id + 1, config.num_worker_replicas
  return 0, 1


def _device_filters():
  """The tasks that this one talks to.

  Estimator sets them only for a RunConfig without a session_config; without
  them a session waits until every worker of the cluster is up.
  """
  task = json.loads(os.environ.get('TF_CONFIG') or '{}').get('task', {})
  return {
      'chief': ['/job:ps', '/job:chief'],
      'worker': ['/job:ps', '/job:worker/task:%s' % task.get('index')],
  }.get(task.get('type'), [])
