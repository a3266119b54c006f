"""One process of a cluster whose model counts how often it has seen a row.

  python queue_task.py data model_dir log epochs

TF_CONFIG says which process. What a step has trained goes to `log` too, a line
of row numbers per step; the variable `seen` is what has not been rolled back.
"""

import faulthandler
import os
import signal
import sys
import time

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import config
from ple_estimator.cluster import roles
from ple_estimator.cluster.work_queue import work_queue
from ple_estimator.data import inputs
from ple_estimator.data import reading
from ple_estimator.training import hooks
from ple_estimator.training import saver

STEP_SECS = 0.1


class Log(tf.train.SessionRunHook):
  """Writes down what was trained, and takes its time."""

  def __init__(self, path):
    self._file = open(path, 'a')

  def before_run(self, run_context):
    return tf.train.SessionRunArgs('rows:0')

  def after_run(self, run_context, run_values):
    self._file.write(' '.join(map(str, run_values.results)) + '\n')
    self._file.flush()
    time.sleep(STEP_SECS)


def main(data, model_dir, log, epochs):
  """Trains until all is acknowledged."""
  config.load('gin/taobao.gin', roots=['FeatureSpec'])
  read = reading.Reading(
      gin.get_configurable('FeatureSpec')(), keep=('user_id',))
  source = inputs.ParquetInput(
      'taobao_train_data.parquet', data, 16, 64, int(epochs))
  queue = work_queue.WorkQueue(slice_rows=25, lease_secs=4)
  run_config = roles.run_config(model_dir, save_steps=20, seed=3)

  def input_fn():
    queue.start(run_config, source, read)
    return source.dataset(read, seed=3, queue=queue)

  def model_fn(features, labels, mode):
    queue.follow(features)
    rows = tf.strings.to_number(
        features['raw/user_id'], tf.int64, name='rows')
    seen = tf.get_variable('seen', [1000], tf.int64, tf.zeros_initializer())
    made = saver.Saver(5, True, queue)
    with tf.control_dependencies(
        [seen.scatter_add(tf.IndexedSlices(tf.ones_like(rows), rows))]):
      step = tf.assign_add(tf.train.get_global_step(), 1)
    saving = [hooks.CheckpointHook(model_dir, made, 20)]
    return tf.estimator.EstimatorSpec(
        mode, loss=tf.reduce_mean(labels['clk']), train_op=step,
        training_hooks=saving if run_config.is_chief else [],
        scaffold=tf.train.Scaffold(saver=made))

  tf.estimator.train_and_evaluate(
      tf.estimator.Estimator(model_fn, config=run_config),
      tf.estimator.TrainSpec(input_fn, hooks=[queue.hook(20), Log(log)]),
      tf.estimator.EvalSpec(input_fn))
  queue.close()


if __name__ == '__main__':
  faulthandler.register(signal.SIGUSR1)
  assert os.environ['TF_CONFIG']
  main(*sys.argv[1:])
