"""Roles and session options."""

import json

import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import cluster
from ple_estimator import errors

CLUSTER = {'chief': ['a:1'], 'worker': ['b:1', 'c:1'], 'ps': ['d:1']}


@pytest.mark.parametrize('task, shard, filters', [
    (('chief', 0), (0, 3), ['/job:ps', '/job:chief']),
    (('worker', 1), (2, 3), ['/job:ps', '/job:worker/task:1']),
    (('evaluator', 0), (0, 1), []),
])
def test_roles_of_a_cluster(monkeypatch, task, shard, filters):
  monkeypatch.setenv('TF_CONFIG', json.dumps({
      'cluster': CLUSTER, 'task': {'type': task[0], 'index': task[1]}}))
  config = cluster.run_config('/tmp/x')
  assert cluster.shard(config) == shard
  assert list(config.session_config.device_filters) == filters


def test_local_run_has_everything(monkeypatch):
  monkeypatch.delenv('TF_CONFIG', raising=False)
  config = cluster.run_config('/tmp/x', save_steps=7, keep_checkpoint_max=3,
                              seed=5, summary_steps=9, inter_op_threads=2,
                              intra_op_threads=1)
  assert cluster.shard(config) == (0, 1) and config.is_chief
  assert config.session_config.inter_op_parallelism_threads == 2
  assert config.session_config.intra_op_parallelism_threads == 1
  assert (config.save_checkpoints_steps, config.keep_checkpoint_max,
          config.tf_random_seed, config.save_summary_steps) == (7, 3, 5, 9)
  with tf.Session(config=config.session_config) as sess:
    assert sess.run(tf.constant(1)) == 1


def test_refuses():
  with pytest.raises(errors.UserError,
                     match='run_config.save_steps must be an integer'):
    cluster.run_config('/tmp/x', save_steps=0)
  with pytest.raises(errors.UserError, match='run_config.seed must be an'):
    cluster.run_config('/tmp/x', seed=None)
