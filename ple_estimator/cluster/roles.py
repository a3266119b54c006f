"""How one process takes part in a run: TF_CONFIG and session options.

TF_CONFIG is JSON, e.g. what Kubeflow's training operator sets for a TFJob:

  {"cluster": {"chief": ["job-chief-0:2222"], "worker": ["job-worker-0:2222"],
               "ps": ["job-ps-0:2222"], "evaluator": ["job-evaluator-0:2222"]},
   "task": {"type": "worker", "index": 0}}

Other forms are understood too: without a chief the first worker is the chief;
"master" is an older word for "chief"; the evaluator need not be listed; the
index may be text. tf.estimator.RunConfig understands one form only. Each
process makes that form by rules that depend on TF_CONFIG alone, so all
processes agree on the role of each.
"""

import collections
import contextlib
import json
import os
import re

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.engine import compat

_ENVIRONMENT = 'TF_CONFIG'
_SPARSE = 'sparseCluster'
_TYPES = ('chief', 'worker', 'ps', 'evaluator')
_ADDRESS = re.compile(r'[^\s/]+:\d+$')
_ELASTIC = (
    'TF_CONFIG must list all addresses of a job, got %s. That is the form of a '
    'job whose number of workers changes, where parameter servers do not know '
    'each other: set enableDynamicWorker to false. A worker that is listed may '
    'still come late, or die and come back.')


class Role(collections.namedtuple(
    'Role', ['type', 'index', 'addresses', 'has_evaluator'])):
  """The role of one process in a run.

  Attributes:
    type: 'chief', 'worker', 'ps' or 'evaluator'; in a local run 'chief'.
    index: int, the number of the process among those of its type.
    addresses: dict of 'chief', 'worker' and 'ps' to a list of 'host:port';
      empty where the training is one process.
    has_evaluator: bool, whether another process evaluates.
  """

  @property
  def is_local(self):
    """Whether one process does all of the training."""
    return not self.addresses

  @property
  def is_alone(self):
    """Whether one process does all of the training and evaluation."""
    return self.is_local and not self.has_evaluator

  def peers(self):
    """The processes that this one cannot train without.

    All need the parameter servers. Workers wait for the checkpoints of the
    chief, and parameter servers wait until the chief says that the training is
    over.

    Returns:
      list of (name, 'host:port').
    """
    types = {'chief': ['ps'], 'worker': ['ps', 'chief'], 'ps': ['chief'],
             'evaluator': ['chief']}[self.type]
    return [('%s %d' % (name, i), address) for name in types
            for i, address in enumerate(self.addresses.get(name, []))]


def role():
  """Reads TF_CONFIG; without it the run is local.

  Raises:
    UserError: if TF_CONFIG is malformed, or is of a kind that cannot work.
  """
  return parse(os.environ.get(_ENVIRONMENT) or '{}')


def parse(text):
  """Parses the text of TF_CONFIG.

  Args:
    text: str, JSON.

  Returns:
    Role.

  Raises:
    UserError: if it is malformed, or is of a kind that cannot work.
  """
  cluster, task = _parts(text)
  if not cluster and task.get('type') in (None, 'chief', 'master', 'worker'):
    return Role('chief', 0, {}, False)
  _check_cluster(cluster)
  kind, index = _task(task, cluster)
  # The first release of tf.estimator called the chief so.
  cluster, kind = _renamed(cluster, kind, 'master', 'chief')
  has_evaluator = bool(cluster.pop('evaluator', None)) or kind == 'evaluator'
  kind, index, cluster = _with_chief(kind, index, cluster)
  addresses = {name: listed for name, listed in cluster.items() if listed}
  if set(addresses) == {'chief'}:  # no process to share the training with
    return Role(kind, index, {} if kind == 'chief' else addresses,
                has_evaluator)
  errors.check(not addresses or addresses.get('ps'), 'TF_CONFIG must list a '
               'ps: without one every worker would train a model of its own. '
               'Got %s.', ', '.join(sorted(addresses)))
  return Role(kind, index, addresses, has_evaluator)


def _parts(text):
  """Returns the cluster and the task of a TF_CONFIG, two dicts."""
  try:
    config = json.loads(text)
    cluster = dict(config.get('cluster') or {})
    task = dict(config.get('task') or {})
  except (ValueError, TypeError, AttributeError):
    raise errors.UserError('TF_CONFIG must be JSON with a cluster and a task, '
                           'got %r.' % text)
  # What older operators call the cluster of a job with dynamic workers.
  errors.check(not config.get(_SPARSE), _ELASTIC, json.dumps(
      {_SPARSE: config.get(_SPARSE)}))
  return cluster, task


def _with_chief(kind, index, cluster):
  """Makes the first worker the chief of a cluster that has none.

  Args:
    kind: str, the type of this process.
    index: int, of this process among those of its type.
    cluster: dict of type to list of addresses.

  Returns:
    (kind, index, cluster).
  """
  if not cluster or cluster.get('chief'):
    return kind, index, cluster
  workers = cluster.get('worker')
  errors.check(workers, 'TF_CONFIG must list a chief or a worker, got %s.',
               ', '.join(sorted(cluster)))
  cluster = dict(cluster, chief=workers[:1], worker=workers[1:])
  if kind == 'worker':
    kind, index = ('chief', 0) if index == 0 else ('worker', index - 1)
  return kind, index, cluster


def _check_cluster(cluster):
  known = _TYPES + ('master',)
  for name, addresses in cluster.items():
    errors.check(name in known, 'TF_CONFIG must have a cluster of %s, got %r.',
                 ', '.join(_TYPES), name)
    errors.check(not isinstance(addresses, dict), _ELASTIC,
                 json.dumps({name: addresses}))
    errors.check(
        isinstance(addresses, list) and
        all(isinstance(a, str) and _ADDRESS.match(a) for a in addresses),
        "TF_CONFIG must have a list of 'host:port' for %s, got %r.", name,
        addresses)
  leads = cluster.get('chief', []) + cluster.get('master', [])
  errors.check(len(leads) <= 1, 'TF_CONFIG must have one chief, got %s.',
               ', '.join(leads))


def _task(task, cluster):
  """Returns (type, index) as TF_CONFIG has them."""
  kind, index = task.get('type'), task.get('index', 0)
  errors.check(kind in _TYPES + ('master',), 'TF_CONFIG must have a task of '
               'type %s, got %r.', ', '.join(_TYPES), kind)
  errors.check(re.match(r'\d+$', str(index)), 'TF_CONFIG must have a task '
               'index of at least 0, got %r.', index)
  index = int(index)
  if kind == 'evaluator' and kind not in cluster:
    return kind, index
  alike = cluster.get(kind, [])
  errors.check(not (kind == 'ps' and len(alike) == 1 and index), _ELASTIC,
               'the address of ps %d alone' % index)
  errors.check(index < len(alike), 'TF_CONFIG must list the process itself: '
               'got task %s %d of a cluster with %d.', kind, index, len(alike))
  return kind, index


def _renamed(cluster, kind, name, other):
  """Calls the processes of one name by another."""
  if name in cluster:
    cluster[other] = cluster.pop(name)
  return cluster, other if kind == name else kind


@gin.register(denylist=['model_dir'])
def run_config(model_dir=None,
               save_steps=1000,
               keep_checkpoint_max=5,
               seed=2021,
               summary_steps=100,
               inter_op_threads=0,
               intra_op_threads=0,
               protocol='grpc',
               xla=False):
  """Returns the tf.estimator.RunConfig of this process.

  The role in a cluster comes from the environment variable TF_CONFIG; without
  it the run is local.

  Args:
    model_dir: str, where checkpoints and event files go; Experiment says it.
    save_steps: int, global steps between checkpoints.
    keep_checkpoint_max: int, checkpoints kept; 0 keeps all.
    seed: int, of variables, dropout and the shuffle of rows.
    summary_steps: int, global steps between summaries.
    inter_op_threads: int, threads that run ops side by side; 0 lets
      TensorFlow choose.
    intra_op_threads: int, threads inside one op; 0 lets TensorFlow choose.
    protocol: 'grpc', how the processes of a cluster talk to each other;
      'grpc++' or 'star_server' where the engine has them.
    xla: bool, whether XLA compiles what it can. Where it was measured, on a
      processor, it made 0.96 (0.93 to 1.01) times as many steps per second and
      started 18 s later (tools/README.md).

  Raises:
    UserError: if a number is out of range, or TF_CONFIG is malformed.
  """
  for name, value, least in [
      ('save_steps', save_steps, 1),
      ('keep_checkpoint_max', keep_checkpoint_max, 0),
      ('summary_steps', summary_steps, 1),
      ('inter_op_threads', inter_op_threads, 0),
      ('intra_op_threads', intra_op_threads, 0),
  ]:
    errors.check_integer('run_config.' + name, value, least, most=2**31 - 1)
  errors.check_integer('run_config.seed', seed, 0, most=2**32 - 1)  # as numpy
  errors.check_bool('run_config.xla', xla)
  compat.check_protocol(protocol)
  mine = role()
  session = tf.ConfigProto(
      allow_soft_placement=True,
      inter_op_parallelism_threads=inter_op_threads,
      intra_op_parallelism_threads=intra_op_threads)
  session.graph_options.rewrite_options.meta_optimizer_iterations = 1
  session.device_filters.extend(_device_filters(mine))
  if xla:
    compat.use_xla(session)
  with _environment(mine):
    return tf.estimator.RunConfig(
        model_dir=model_dir,
        tf_random_seed=seed,
        session_config=session,
        save_checkpoints_steps=save_steps,
        keep_checkpoint_max=keep_checkpoint_max,
        save_summary_steps=summary_steps,
        log_step_count_steps=summary_steps,
        protocol=None if mine.is_local else protocol,
        experimental_max_worker_delay_secs=0)


@contextlib.contextmanager
def _environment(mine, **more):
  """Replaces TF_CONFIG, for a while, by the form that RunConfig understands.

  Args:
    mine: Role.
    **more: entries that are added to it.
  """
  before = os.environ.get(_ENVIRONMENT)
  os.environ[_ENVIRONMENT] = json.dumps(dict(_tf_config(mine), **more))
  try:
    yield
  finally:
    del os.environ[_ENVIRONMENT]
    if before is not None:
      os.environ[_ENVIRONMENT] = before


def _tf_config(mine):
  """A role as RunConfig reads it."""
  if mine.type == 'evaluator':  # RunConfig wants a chief, but never asks it
    return {'cluster': {'chief': ['localhost:0']},
            'task': {'type': 'evaluator', 'index': mine.index}}
  if mine.is_local:
    return {}
  return {'cluster': mine.addresses,
          'task': {'type': mine.type, 'index': mine.index}}


def _device_filters(mine):
  """The tasks that a process communicates with.

  Estimator sets them only for a RunConfig without a session_config; without
  them a session waits until every worker of the cluster is up.
  """
  if mine.is_local:
    return []
  return {
      'chief': ['/job:ps', '/job:chief'],
      'worker': ['/job:ps', '/job:worker/task:%d' % mine.index],
      'ps': ['/job:ps/task:%d' % mine.index],
  }.get(mine.type, [])


def server(config):
  """Starts the tf.train.Server of a chief, worker or parameter server.

  Estimator would start one without the session's numbers of threads.

  Args:
    config: tf.estimator.RunConfig of a cluster.

  Raises:
    UserError: if nothing can listen on the address of this process.
  """
  own = config.cluster_spec.task_address(config.task_type, config.task_id)
  threads = tf.ConfigProto(
      inter_op_parallelism_threads=(
          config.session_config.inter_op_parallelism_threads),
      intra_op_parallelism_threads=(
          config.session_config.intra_op_parallelism_threads))
  try:
    return tf.train.Server(
        config.cluster_spec, config.task_type, config.task_id,
        config=threads, protocol=config.protocol)
  except tf.errors.OpError as error:
    raise errors.UserError(
        'TF_CONFIG must have an address for %s %d that this machine can listen '
        'on, got %s: %s.' % (config.task_type, config.task_id, own,
                             error.message.rstrip('.')))


def shard(config):
  """Returns the share of the training rows of this process: (index, count).

  Args:
    config: tf.estimator.RunConfig.
  """
  if config.task_type == 'chief':
    return 0, config.num_worker_replicas
  if config.task_type == 'worker' and config.num_worker_replicas > 1:
    return config.task_id + 1, config.num_worker_replicas
  return 0, 1
