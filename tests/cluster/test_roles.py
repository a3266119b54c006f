"""Roles, session options, and the server of a process."""

import json
import socket
import subprocess
import sys

import conftest
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.cluster import roles

OPERATOR = {'chief': ['a:1'], 'worker': ['b:1', 'c:1'], 'ps': ['d:1', 'e:1'],
            'evaluator': ['f:1']}
TRAINERS = {name: OPERATOR[name] for name in ('chief', 'worker', 'ps')}
LEGACY = {'worker': ['a:1', 'b:1', 'c:1'], 'ps': ['d:1', 'e:1']}
MASTER = {'master': ['a:1'], 'worker': ['b:1', 'c:1'], 'ps': ['d:1', 'e:1']}


@pytest.fixture
def tf_config(monkeypatch):
  """Sets TF_CONFIG; without arguments, removes it."""
  def set_to(addresses=None, kind=None, index=0, **more):
    monkeypatch.delenv('TF_CONFIG', raising=False)
    if addresses is not None:
      monkeypatch.setenv('TF_CONFIG', json.dumps(dict({
          'cluster': addresses, 'task': {'type': kind, 'index': index}},
                                                      **more)))
  set_to()
  return set_to


@pytest.mark.parametrize('addresses, kind, index, role', [
    (OPERATOR, 'chief', 0, ('chief', 0, TRAINERS, True)),
    (OPERATOR, 'worker', 1, ('worker', 1, TRAINERS, True)),
    (OPERATOR, 'worker', '1', ('worker', 1, TRAINERS, True)),
    (OPERATOR, 'ps', 1, ('ps', 1, TRAINERS, True)),
    (OPERATOR, 'evaluator', 0, ('evaluator', 0, TRAINERS, True)),
    (TRAINERS, 'chief', 0, ('chief', 0, TRAINERS, False)),
    (TRAINERS, 'evaluator', 0, ('evaluator', 0, TRAINERS, True)),
    (LEGACY, 'worker', 0, ('chief', 0, TRAINERS, False)),
    (LEGACY, 'worker', 2, ('worker', 1, TRAINERS, False)),
    (LEGACY, 'ps', 1, ('ps', 1, TRAINERS, False)),
    (MASTER, 'master', 0, ('chief', 0, TRAINERS, False)),
    (MASTER, 'worker', 0, ('worker', 0, TRAINERS, False)),
    ({'worker': ['a:1']}, 'worker', 0, ('chief', 0, {}, False)),
    ({'chief': ['a:1'], 'worker': []}, 'chief', 0, ('chief', 0, {}, False)),
    ({'chief': ['a:1'], 'evaluator': ['b:1']}, 'chief', 0,
     ('chief', 0, {}, True)),
    ({'chief': ['a:1'], 'evaluator': ['b:1']}, 'evaluator', 0,
     ('evaluator', 0, {'chief': ['a:1']}, True)),
    ({}, 'evaluator', 0, ('evaluator', 0, {}, True)),
    ({}, 'worker', 0, ('chief', 0, {}, False)),
])
def test_every_form_of_tf_config_has_one_meaning(
    tf_config, addresses, kind, index, role):
  tf_config(addresses, kind, index, environment='cloud')
  assert roles.role() == role
  config = roles.run_config('/tmp/x')
  kind, index, addresses, _ = role
  if addresses and kind != 'evaluator':
    assert (config.task_type, config.task_id) == (kind, index)
    assert config.cluster_spec.as_dict() == addresses
    assert config.num_ps_replicas == 2 and config.num_worker_replicas == 3
    assert config.protocol == 'grpc'
  else:
    assert not config.cluster_spec and config.master == ''
  assert config.is_chief == (kind == 'chief')


def test_run_config_leaves_the_environment_alone(tf_config, monkeypatch):
  roles.run_config('/tmp/x')
  assert 'TF_CONFIG' not in roles.os.environ
  tf_config(LEGACY, 'worker', 0)
  before = roles.os.environ['TF_CONFIG']
  roles.run_config('/tmp/x')
  assert roles.os.environ['TF_CONFIG'] == before


@pytest.mark.parametrize('kind, index, shard, filters', [
    ('chief', 0, (0, 3), ['/job:ps', '/job:chief']),
    ('worker', 1, (2, 3), ['/job:ps', '/job:worker/task:1']),
    ('evaluator', 0, (0, 1), []),
])
def test_shares_and_filters(tf_config, kind, index, shard, filters):
  tf_config(OPERATOR, kind, index)
  config = roles.run_config('/tmp/x')
  assert roles.shard(config) == shard
  assert list(config.session_config.device_filters) == filters


def test_peers_are_those_one_cannot_do_without(tf_config):
  found = {}
  for kind in OPERATOR:
    tf_config(OPERATOR, kind)
    found[kind] = roles.role().peers()
  servers = [('ps 0', 'd:1'), ('ps 1', 'e:1')]
  assert found == {
      'chief': servers, 'worker': servers + [('chief 0', 'a:1')],
      'ps': [('chief 0', 'a:1')], 'evaluator': [('chief 0', 'a:1')]}


@pytest.mark.parametrize('addresses, kind, index, message', [
    ({'chief': ['a:1', 'b:1'], 'ps': ['c:1']}, 'chief', 0, 'must have one '
     'chief, got a:1, b:1'),
    (dict(TRAINERS, master=['g:1']), 'chief', 0, 'must have one chief'),
    (TRAINERS, 'worker', 2, 'got task worker 2 of a cluster with 2'),
    (TRAINERS, 'wroker', 0, "must have a task of type chief, .*'wroker'"),
    (TRAINERS, None, 0, 'must have a task of type chief, .* got None'),
    (TRAINERS, 'worker', -1, 'must have a task index of at least 0, got -1'),
    (dict(TRAINERS, wroker=['g:1']), 'chief', 0, "got 'wroker'"),
    ({'chief': ['a:1'], 'worker': ['b:1']}, 'worker', 0, 'must list a ps'),
    ({'ps': ['a:1']}, 'ps', 0, 'must list a chief or a worker, got ps'),
    (dict(TRAINERS, worker={'1': 'b:1'}), 'chief', 0, 'set enableDynamicWorker '
     'to false'),
    (dict(TRAINERS, ps=['d:1']), 'ps', 1, 'the address of ps 1 alone'),
    (dict(TRAINERS, ps=['d']), 'ps', 0, "list of 'host:port' for ps"),
    (dict(TRAINERS, ps='d:1'), 'ps', 0, "list of 'host:port' for ps"),
])
def test_refuses_what_cannot_work(tf_config, addresses, kind, index, message):
  tf_config(addresses, kind, index)
  with pytest.raises(errors.UserError, match='TF_CONFIG .*' + message):
    roles.role()


@pytest.mark.parametrize('text', ['{', '[]', '3', '{"cluster": 3}'])
def test_refuses_what_is_no_tf_config(monkeypatch, text):
  monkeypatch.setenv('TF_CONFIG', text)
  with pytest.raises(errors.UserError, match='TF_CONFIG must be JSON with'):
    roles.role()


def test_the_dynamic_workers_of_older_operators_are_refused():
  # There every process would find no cluster, and train alone.
  for kind in ('worker', 'ps'):
    with pytest.raises(errors.UserError, match='set enableDynamicWorker to '
                       'false') as found:
      roles.parse(json.dumps({
          'sparseCluster': {'worker': {'1': 'a:1'}, 'ps': ['b:1']},
          'task': {'type': kind, 'index': 1}}))
    assert '"sparseCluster": {' in str(found.value)
    assert '\n' not in str(found.value)


def test_parse_does_not_look_at_the_environment(tf_config):
  tf_config(OPERATOR, 'ps', 1)
  assert roles.parse('{}') == ('chief', 0, {}, False)
  assert roles.parse(json.dumps(
      {'cluster': LEGACY, 'task': {'type': 'worker', 'index': 1}})) == (
          'worker', 0, TRAINERS, False)


def test_local_run_has_everything(tf_config):
  config = roles.run_config('/tmp/x', save_steps=7, keep_checkpoint_max=3,
                              seed=5, summary_steps=9, inter_op_threads=2,
                              intra_op_threads=1)
  assert roles.shard(config) == (0, 1) and config.is_chief
  assert config.session_config.inter_op_parallelism_threads == 2
  assert config.session_config.intra_op_parallelism_threads == 1
  assert (config.save_checkpoints_steps, config.keep_checkpoint_max,
          config.tf_random_seed, config.save_summary_steps) == (7, 3, 5, 9)
  with tf.Session(config=config.session_config) as sess:
    assert sess.run(tf.constant(1)) == 1


def test_refuses():
  with pytest.raises(errors.UserError,
                     match='run_config.save_steps must be an integer'):
    roles.run_config('/tmp/x', save_steps=0)
  with pytest.raises(errors.UserError, match='run_config.seed must be an'):
    roles.run_config('/tmp/x', seed=None)
  with pytest.raises(errors.UserError,
                     match=r"protocol = 'grpc\+\+' needs a server that stock"):
    roles.run_config('/tmp/x', protocol='grpc++')


_COMPILED = '''
import sys
import tensorflow.compat.v1 as tf
from ple_estimator.cluster import roles
x = tf.placeholder(tf.float32, [3, 5])
y = x
for _ in range(4):
  y = tf.tanh(tf.matmul(y, tf.ones([5, 5])) + 1.)
config = roles.run_config('/tmp/x', xla=sys.argv[1] == 'True')
found = tf.RunMetadata()
with tf.Session(config=config.session_config) as session:
  session.run(y, {x: [[1.] * 5] * 3},
              tf.RunOptions(output_partition_graphs=True), found)
print([n.op for g in found.partition_graphs for n in g.node])
'''


@pytest.mark.slow
@pytest.mark.parametrize('xla', [True, False])
def test_xla_compiles_if_told_to(tf_config, xla):
  if xla and tf.__version__.startswith('1.'):
    with pytest.raises(errors.UserError, match='run_config.xla = True needs '
                       'TensorFlow 2, this is stock TensorFlow 1'):
      roles.run_config('/tmp/x', xla=True)
    return
  ops = subprocess.check_output(
      [sys.executable, '-W', 'ignore', '-c', _COMPILED, str(xla)],
      cwd=conftest.ROOT, stderr=subprocess.DEVNULL)
  assert (b'_XlaCompile' in ops, b'MatMul' in ops) == (xla, not xla)


def test_server_says_whose_address_is_taken(tf_config):
  with socket.socket() as taken:
    taken.bind(('localhost', 0))
    taken.listen(1)
    port = taken.getsockname()[1]
    tf_config({'chief': ['localhost:%d' % conftest.free_port()],
               'ps': ['localhost:%d' % port]}, 'ps')
    with pytest.raises(errors.UserError, match='TF_CONFIG must have an address '
                       'for ps 0 .* got localhost:%d' % port):
      roles.server(roles.run_config('/tmp/x'))
