#!/usr/bin/env python3
r"""Says what parameter servers a job needs: traffic, memory, processors.

  python tools/size_cluster.py gin/ev.gin --data data --workers 10 50 200 \
      --keys 1000000000

A step of one worker moves, between it and all parameter servers together,

  dense    every variable of the network, down; its gradient, up
  moments  the moving averages of batch norm, down and up
  rows     of each different id of the batch: the id up, its vector down; the
           id and the gradient of the vector up

and that times the steps per second of all workers has to go through the network
cards of the parameter servers. They also hold the rows with their slots, and
their processors serve and update what is moved. The number that a job needs is
the largest of the three. More of them help as long as variables can be spread:
see Model.dense_layer_partitioner and Model.input_layer_partitioner; the ceiling
is the worker itself, which moves all of its step through one card.

  python tools/size_cluster.py gin/ev.gin --data data --measure --workers 2 \
      --ps 2

runs such a cluster on this machine and compares its traffic, read from the
kernel's counters of its connections (`ss` of iproute2), with what is predicted.
"""

import argparse
import collections
import math
import os
import re
import subprocess
import sys
import tempfile
import time

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, _ROOT)
from ple_estimator.commands import local_cluster

_SAMPLED_BATCHES = 20
# Of a key in the hash table of an embedding variable, measured with ten million
# (benchmark.py --keys): memory of the process over that of the variables.
_KEY_BYTES = 64
_CARD_SHARE = 0.6  # of a network card's rate that many small messages reach
_MEMORY_SHARE = 0.7  # of memory for rows; the rest is for saving and growing
# Processor seconds of a parameter server per GB that it moves, updates
# included: 2.7 to 3.4 by --measure on an AMD EPYC.
_CPU_SECS_PER_GB = 3.0
_LEAST_STEPS = 60  # of all workers, to measure what one moves
_TABLE = re.compile(r'/(embedding|shared|quotient|remainder)(/part_\d+)?$')

Step = collections.namedtuple('Step', [
    'dense', 'moments', 'rows', 'row_traffic', 'row_memory', 'batch_size'])
Step.__doc__ = """What one training step of one worker asks for.

  dense: int, bytes of the variables of the network.
  moments: int, bytes of the moving averages of batch norm.
  rows: float, different ids of a batch.
  row_traffic: float, bytes that move for each of them.
  row_memory: float, bytes that a row takes with all of its slots.
  batch_size: int.
"""


def _product(shape):
  found = 1
  for size in shape:
    found *= size
  return found


def traffic(step):
  """Bytes that a step moves between a worker and all parameter servers."""
  return 2 * (step.dense + step.moments) + step.rows * step.row_traffic


def describe(gin_file, bindings):
  """Builds the training graph of an experiment, and reads some batches.

  Args:
    gin_file: str.
    bindings: list of str.

  Returns:
    Step.
  """
  import tensorflow.compat.v1 as tf

  import ple_estimator as ple

  made = ple.load(gin_file, bindings=bindings).experiment
  with tf.Graph().as_default(), tf.Session() as session:
    tf.train.create_global_step()
    features, labels = tf.data.make_one_shot_iterator(
        made.trainer.input_fn()).get_next()
    made.model.model_fn(features, labels, tf.estimator.ModeKeys.TRAIN)
    counts = {group.name: tf.size(features[group.keys()[0]])
              for group in made.model.groups}
    batch = tf.shape(next(iter(labels.values())))[0]
    samples = [session.run((counts, batch)) for _ in range(_SAMPLED_BATCHES)]
    variables = [(v.op.name, v.shape.as_list(), v.dtype.base_dtype.size,
                  v.trainable) for v in tf.global_variables()]
  return _step(variables, samples)


def _step(variables, samples):
  """See describe.

  Args:
    variables: list of (name, shape, bytes of a number, is trainable).
    samples: list of ({group name: different ids}, rows of the batch).
  """
  counts = {name: sum(c[name] for c, _ in samples) / len(samples)
            for name in samples[0][0]}
  heights = {shape[0] for name, shape, _, _ in variables if _TABLE.search(name)}
  dense = moments = 0
  memory = moved = 0.0
  for name, shape, size, trainable in variables:
    group = next((g for g in counts if name.startswith(g + '/')), None)
    if group:
      if shape and shape[0] in heights:
        width = size * _product(shape[1:])
        memory += counts[group] * width
        moved += counts[group] * 2 * (8 + width) * bool(_TABLE.search(name))
    elif trainable:
      dense += size * _product(shape)
    elif 'moving_' in name:
      moments += size * _product(shape)
  rows = sum(counts.values())
  return Step(dense, moments, rows, moved / rows, memory / rows,
              max(b for _, b in samples))


# ----------------------------------------------------------------- the plan


def plan(step, workers, steps_per_second, keys, memory_gb, gbit, cores):
  """How many parameter servers a job needs, and why.

  Args:
    step: Step.
    workers: int.
    steps_per_second: float, of one worker.
    keys: int, rows of all embeddings together.
    memory_gb: float, of one parameter server.
    gbit: float, gigabits per second of one network card.
    cores: int, of one parameter server.

  Returns:
    dict: 'network', 'memory' and 'processors' are the parameter servers that
    each would need, 'ps' is the number to take, 'gb_per_second' what they move
    together, 'memory_gb' what the rows take, 'worker_limit' the steps per
    second that the card of a worker allows.
  """
  card = gbit / 8 * 1e9 * _CARD_SHARE
  moved = traffic(step) * workers * steps_per_second
  held = keys * (step.row_memory + _KEY_BYTES)
  needs = {
      'network': math.ceil(moved / card),
      'memory': math.ceil(held / (memory_gb * 1e9 * _MEMORY_SHARE)),
      'processors': math.ceil(moved / 1e9 * _CPU_SECS_PER_GB / cores)}
  return dict(needs, ps=max(1, *needs.values()), gb_per_second=moved / 1e9,
              memory_gb=held / 1e9, worker_limit=card / traffic(step))


def _print_plan(args, step):
  print('A step of a worker moves %.2f MB: dense %.2f, moving averages %.2f, '
        'and %d rows of %d bytes, %.2f MB.' % (
            traffic(step) / 1e6, 2 * step.dense / 1e6, 2 * step.moments / 1e6,
            step.rows, step.row_traffic, step.rows * step.row_traffic / 1e6))
  print('| workers | examples/s | GB/s | rows, GB | ps for network '
        '| for memory | for processors | ps |\n' + '|---' * 8 + '|')
  for workers in args.workers:
    found = plan(step, workers, args.steps_per_second, args.keys,
                 args.memory_gb, args.gbit, args.cores)
    print('| %d | %d | %.2f | %.0f | %d | %d | %d | %d |' % (
        workers, workers * args.steps_per_second * step.batch_size,
        found['gb_per_second'], found['memory_gb'], found['network'],
        found['memory'], found['processors'], found['ps']))
  print('The card of a worker allows %.0f steps/s.' % found['worker_limit'])


# ------------------------------------------------------------- measuring it


def connection_bytes(pid):
  """Bytes that have gone through the TCP connections of a process, both ways.

  A parameter server sends what is asked for at its port, and fetches gradients
  at the ports of the workers.
  """
  text = subprocess.check_output(['ss', '-tinpOH'], universal_newlines=True)
  mine = [line for line in text.splitlines() if ',pid=%d,' % pid in line]
  return sum(int(n) for n in re.findall(
      r'bytes_(?:acked|received):(\d+)', '\n'.join(mine)))


def _cpu_seconds(pid):
  with open('/proc/%d/stat' % pid) as f:
    fields = f.read().rpartition(')')[2].split()
  return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


class _Step:
  """Reads the global step from the parameter servers of a running cluster."""

  def __init__(self, addresses):
    import tensorflow.compat.v1 as tf
    self._graph = tf.Graph()
    with self._graph.as_default(), tf.device('/job:ps/task:0'):
      handle = tf.raw_ops.VarHandleOp(
          dtype=tf.int64, shape=[], shared_name='global_step')
      self._value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.int64)
    self._session = tf.Session(
        'grpc://' + addresses['ps'][0], graph=self._graph,
        config=tf.ConfigProto(device_filters=['/job:ps/task:0']))

  def read(self):
    """The global step, 0 before there is one."""
    import tensorflow.compat.v1 as tf
    try:
      return int(self._session.run(self._value))
    except tf.errors.OpError:
      return 0


def measure(gin_file, bindings, workers, num_ps, secs):
  """Runs a cluster on this machine and reads what it moves.

  Args:
    gin_file: str.
    bindings: list of str.
    workers: int, the chief included.
    num_ps: int.
    secs: number, how long to look at it once it trains; longer if there are
      few steps in that time.

  Returns:
    dict: 'steps_per_second', 'bytes' per step of each parameter server (a
    list), 'cpu_seconds' of all per GB that they move.
  """
  with tempfile.TemporaryDirectory() as folder:
    more = ['Experiment.model_dir = %r' % os.path.join(folder, 'model'),
            'Experiment.eval_input = None', 'Experiment.early_stopping = None',
            'Experiment.exports = None', 'Experiment.max_steps = 1_000_000',
            'run_config.save_steps = 1_000_000']
    cluster = local_cluster.LocalCluster(
        {'chief': 1, 'worker': workers - 1, 'ps': num_ps},
        [sys.executable, '-m', 'ple_estimator.run', '--gin_file=' + gin_file] +
        ['--gin_bindings=' + b for b in bindings + more],
        os.path.join(folder, 'logs'))
    try:
      cluster.start()
      return _watch(cluster, secs)
    finally:
      cluster.stop(1)


def _watch(cluster, secs):
  servers = [cluster.processes[name].pid for name in cluster.names('ps')]
  while not all(map(local_cluster.is_listening, cluster.addresses['ps'])):
    _check(cluster)
    time.sleep(1)
  step = _Step(cluster.addresses)
  while step.read() < 20:  # all have started by then, or soon
    _check(cluster)
    time.sleep(1)

  def look():
    return (time.time(), step.read(), list(map(connection_bytes, servers)),
            sum(map(_cpu_seconds, servers)))

  time.sleep(secs / 2)
  begin = look()
  time.sleep(secs)
  end = look()
  # Step and bytes are not read at the same moment, and a step of each worker
  # is always under way: of many steps that is little.
  while end[1] - begin[1] < _LEAST_STEPS:
    _check(cluster)
    time.sleep(1)
    end = look()
  _check(cluster)
  steps = end[1] - begin[1]
  moved = [b - a for a, b in zip(begin[2], end[2])]
  return {'steps_per_second': steps / (end[0] - begin[0]),
          'bytes': [b / steps for b in moved],
          'cpu_seconds': (end[3] - begin[3]) / sum(moved) * 1e9}


def _check(cluster):
  for name in cluster.processes:
    if cluster.status(name) is not None:
      raise RuntimeError('%s ended:\n%s' % (name, cluster.log(name)[-2000:]))


def main():
  """Runs the command line; returns the exit status."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('gin_file')
  parser.add_argument('--data', default='data')
  parser.add_argument('--gin_bindings', action='append', default=[])
  parser.add_argument('--workers', type=int, nargs='+', default=[10, 50, 200])
  parser.add_argument('--steps_per_second', type=float, default=20,
                      help='of one worker')
  parser.add_argument('--keys', type=int, default=10**9)
  parser.add_argument('--memory_gb', type=float, default=64)
  parser.add_argument('--gbit', type=float, default=10)
  parser.add_argument('--cores', type=int, default=8)
  parser.add_argument('--measure', action='store_true')
  parser.add_argument('--ps', type=int, nargs='+', default=[1])
  parser.add_argument('--secs', type=float, default=20)
  args = parser.parse_args()
  if args.measure:  # before TensorFlow's threads: the system wants it so
    local_cluster.enter_own_network()
  bindings = ['DATA_DIR = %r' % args.data] + args.gin_bindings
  step = describe(args.gin_file, bindings)
  if not args.measure:
    _print_plan(args, step)
    return 0
  print('| workers | ps | steps/s | examples/s | MB per step: predicted | '
        'measured | by ps | CPU s per GB |\n|---|---|---|---|---|---|---|---|')
  for workers in args.workers:
    for num_ps in args.ps:
      found = measure(args.gin_file, bindings, workers, num_ps, args.secs)
      print('| %d | %d | %.1f | %d | %.2f | %.2f | %s | %.2f |' % (
          workers, num_ps, found['steps_per_second'],
          found['steps_per_second'] * step.batch_size, traffic(step) / 1e6,
          sum(found['bytes']) / 1e6, ', '.join(
              '%.2f' % (b / 1e6) for b in found['bytes']),
          found['cpu_seconds']), flush=True)
  return 0


if __name__ == '__main__':
  sys.exit(main())
