#!/usr/bin/env python3
r"""Compares experiments with the stock recipe, tuned peers and limits.

  python tools/benchmark.py gin/base.gin gin/bf16.gin --data data --pairs 5

Runs tools/stock_recipe.py (the model zoo's recipe on community TensorFlow) and
each experiment in turn, `--pairs` times, each in a process of its own on the
same data and batch size, and prints the table of the model zoo's README with a
few columns more. Both leave out start-up and the first 10 steps; an experiment
trains as it always does (shuffled Parquet, summaries every 100 steps,
progress), without checkpoints, evaluation and early stopping.

  ratio      of steps/s to the recipe's of the same round: median (least to
             greatest)
  roofline   share of what the step's products alone reach (tools/roofline.py)
  limit      the same by oneDNN (tools/limit.py)
  CPU s      processor seconds per 1000 steps, input included
  peak RSS   of the process, start-up included
  start-up   seconds from the start of the process to the end of the first step

--no_recipe leaves the recipe out; ratios are then to the first row.

  python tools/benchmark.py gin/zoo.gin --peers torch torch-bfloat16

adds rows of tools/torch_recipe.py, the network of gin/zoo.gin in compiled
PyTorch, behind that of the recipe; bfloat16 needs a processor that has it. The
peer has no input in its clock, its rows have no start-up, and its memory is
that of its training process. On first use it installs PyTorch into .venv/torch.

--epochs N trains each once more for N epochs and adds the accuracy and AUC of
the first task on the test file.

  python tools/benchmark.py gin/bf16.gin --profile

prints where the time of a training step goes, and writes a timeline to open in
chrome://tracing: the share of the processors that stands idle; the busy and
idle time of each thread; the largest gaps, in which fewer threads run than
there are processors, with the ops before, in and after them; and by type of op
the time of all threads and, of nets and updates, the bytes that their passes
read and write. It is the shortest of ten steps that are traced, and so not the
one that other programs disturbed most. The trace itself makes ops of TensorFlow
slower. tools/step_profile.py says what is not seen.

  python tools/benchmark.py gin/base.gin gin/csv.gin --input --cpus 0

prints the batches per second of the input alone, here on one processor.

  python tools/benchmark.py --keys 10_000_000

saves an embedding variable of so many keys (dim 16, lazy Adam) whole, and what
100 batches of 5,000 keys have changed, as an incremental checkpoint does.

A machine that does something else at the time makes all figures smaller and the
ratios wider; compare ratios, not figures of different days.
"""

import argparse
import glob
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

import benchmark_table
import step_profile

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_TOOLS = os.path.join(_ROOT, 'tools')
_WARM_UP_STEPS = 10  # as stock_recipe.py
_PEERS = {'torch': 'float32', 'torch-bfloat16': 'bfloat16'}


# ------------------------------------------------- one run, in its own process


def _child(gin_file, bindings):
  """Trains an experiment and prints what a clock in its session saw."""
  sys.path.insert(0, _ROOT)
  from absl import logging
  import gin
  import tensorflow.compat.v1 as tf

  import ple_estimator as ple

  class Clock(tf.train.SessionRunHook):
    """Notes time and processor time when steps end."""

    def __init__(self):
      self.marks = []

    def after_run(self, run_context, run_values):
      self.marks.append((time.time(), time.process_time()))

  clock = Clock()
  gin.external_configurable(lambda: clock, 'Clock')
  logging.use_absl_handler()
  logging.set_verbosity(logging.INFO)
  run = ple.load(
      gin_file, bindings=bindings + ['Experiment.hooks = [@Clock()]'])
  run.train()
  marks = clock.marks[_WARM_UP_STEPS - 1:]
  steps = len(marks) - 1
  (begin, cpu_begin), (end, cpu_end) = marks[0], marks[-1]
  print(json.dumps({
      'tensorflow': tf.__version__,
      'steps_per_second': steps / (end - begin),
      'cpu_seconds_per_1000_steps': 1000 * (cpu_end - cpu_begin) / steps,
      'first_step': clock.marks[0][0]}))


def _child_input(gin_file, bindings, steps):
  """Draws batches without a model and prints how many a second."""
  sys.path.insert(0, _ROOT)
  import tensorflow.compat.v1 as tf

  import ple_estimator as ple

  run = ple.load(gin_file, bindings=bindings)
  batch = tf.nest.flatten(tf.data.make_one_shot_iterator(
      run.experiment.trainer.input_fn()).get_next())
  with tf.Session() as session:
    draw = tf.group(*batch)
    for _ in range(_WARM_UP_STEPS):
      session.run(draw)
    begin, cpu_begin = time.time(), time.process_time()
    for _ in range(steps):
      session.run(draw)
    seconds = time.time() - begin
    cpu = time.process_time() - cpu_begin
  print(json.dumps({'steps_per_second': steps / seconds,
                    'cpu_seconds_per_1000_steps': 1000 * cpu / steps}))


def _child_checkpoint(keys):
  """Saves a full and an incremental checkpoint of a table; prints both."""
  sys.path.insert(0, _ROOT)
  import numpy as np
  import tensorflow.compat.v1 as tf

  from ple_estimator.embeddings import keyed_table
  from ple_estimator.engine import compat
  from ple_estimator.engine import purpose
  from ple_estimator.optimizers import factories
  from ple_estimator.optimizers import train_op
  from ple_estimator.training import incremental
  from ple_estimator.training import saver

  compat.quiet()
  tf.train.create_global_step()
  bias = tf.get_variable('bias', initializer=0.0)
  table = keyed_table.KeyedTable(
      'table', 16, keys, '--keys', 0.25, training=True)
  batch = tf.placeholder(tf.int64, [None])
  vectors = table.lookup(batch, tf.ones_like(batch))
  trained = [bias, table.source]
  step = train_op.build(factories.lazy_adam, list(zip(
      tf.gradients(tf.reduce_sum(vectors) + bias, trained), trained)),
                        purpose.Purpose(training=True))
  rng = np.random.RandomState(0)
  found = {}
  with tempfile.TemporaryDirectory() as folder, tf.Session() as session:
    saver = saver.Saver(1, training=False)
    hook = incremental.IncrementalCheckpoint(save_steps=1).hook(folder, saver)
    hook.begin()
    session.run(tf.global_variables_initializer())
    for first in range(0, keys, 100000):
      session.run(step, {batch: _scattered(
          np.arange(first, min(keys, first + 100000)))})
    full = session.run(tf.train.get_global_step())
    for name, save in [
        ('full', lambda: saver.save(session, folder + '/model.ckpt', full)),
        ('incremental', lambda: hook.save(session, folder + '/delta', full))]:
      begin = time.time()
      save()
      found[name + '_seconds'] = time.time() - begin
      found[name + '_mb'] = sum(
          os.path.getsize(path) for path in glob.glob(folder + '/*.data*')
          ) / 1e6 - found.get('full_mb', 0)
      for _ in range(100):
        session.run(step, {batch: _scattered(rng.randint(0, keys, 5000))})
  print(json.dumps(found))


def _scattered(numbers):
  """Different keys of 63 bits."""
  import numpy as np
  return np.unique(numbers) * 0x9e3779b97f4a7 % 2**62


def _run(args, command, cpus=None):
  """Runs Python; returns its last line as JSON, and its peak memory in MB."""
  with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
    process = subprocess.Popen(
        [args.python] + command, stdout=out, stderr=err, cwd=_ROOT,
        preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status  # it has been waited for
    out.seek(0)
    err.seek(0)
    if status:
      sys.stderr.write(err.read())
      raise SystemExit('benchmark: %s failed' % ' '.join(command[:4]))
    lines = out.read().splitlines()
  found = json.loads(lines[-1]) if lines and lines[-1][:1] == '{' else {}
  return found, usage.ru_maxrss / 1024


def recipe(args, steps):
  """Runs the stock recipe; returns its figures."""
  found, rss = _run(args, [
      os.path.join(_TOOLS, 'stock_recipe.py'), '--data', args.data,
      '--steps', str(steps), '--batch_size', str(args.batch_size)], args.cpus)
  return {'tensorflow': found['tensorflow'], 'auc': found['auc'][0],
          'steps_per_second': found['steps_per_second'],
          'cpu_seconds_per_1000_steps': found['cpu_seconds_per_1000_steps'],
          'peak_rss_mb': rss}


def peer(args, name):
  """Runs a tuned peer, one of _PEERS; returns its figures."""
  return _run(args, [
      os.path.join(_TOOLS, 'torch_recipe.py'), '--data', args.data,
      '--steps', str(args.steps), '--batch_size', str(args.batch_size),
      '--dtype', _PEERS[name]], args.cpus)[0]


def check_peers(names):
  """Has the environment of the peers made, and checks that they can run.

  Args:
    names: list of str, some of _PEERS.

  Raises:
    ValueError: if they cannot.
  """
  import torch_recipe
  for name in names:
    torch_recipe.check_dtype(_PEERS[name])
  torch_recipe.interpreter(torch_recipe.parser().parse_args([]))


def experiment(args, gin_file, steps):
  """Runs one experiment; returns its figures."""
  with tempfile.TemporaryDirectory() as model_dir:
    bindings = _bindings(args, model_dir) + [
        'Experiment.max_steps = %d' % (_WARM_UP_STEPS + steps),
        'Experiment.eval_input = None',
        'run_config.summary_steps = 100']
    begin = time.time()
    found, rss = _run(args, [
        os.path.abspath(__file__), '--child', gin_file] +
                         ['--gin_bindings=' + line for line in bindings],
                         args.cpus)
  found['start_up_seconds'] = found.pop('first_step') - begin
  return dict(found, peak_rss_mb=rss)


def input_alone(args, gin_file):
  """Times the input of one experiment; returns its figures."""
  with tempfile.TemporaryDirectory() as model_dir:
    found, _ = _run(args, [
        os.path.abspath(__file__), '--child', gin_file, '--input', '--steps',
        str(args.steps)] + [
            '--gin_bindings=' + line for line in _bindings(args, model_dir)],
                       args.cpus)
  return found


def quality(args, gin_file, epochs):
  """Trains for some epochs, then tests the last checkpoint.

  Returns:
    dict, accuracy and AUC of the first task on the test rows.
  """
  with tempfile.TemporaryDirectory() as model_dir:
    for mode in (['--mode=train'], ['--mode=test', '--checkpoint=last']):
      _run(args, ['-m', 'ple_estimator.run', '--gin_file', gin_file] + mode + [
          '--gin_bindings=' + line for line in _bindings(args, model_dir) + [
              'EPOCHS = %d' % epochs]])
    with open(os.path.join(model_dir, 'test.json')) as f:
      metrics = json.load(f)
  task = sorted(name for name in metrics if name.endswith('/auc'))[0]
  return {'auc': metrics[task],
          'accuracy': metrics[task.replace('/auc', '/accuracy')]}


def _bindings(args, model_dir):
  return ['DATA_DIR = %r' % args.data, 'BATCH_SIZE = %d' % args.batch_size,
          'Experiment.model_dir = %r' % model_dir,
          'Experiment.early_stopping = None', 'Experiment.exports = None',
          'run_config.save_steps = 1_000_000'] + args.gin_bindings


def dtype(gin_file, bindings):
  """The dtype of an experiment's products."""
  sys.path.insert(0, _ROOT)
  import gin

  from ple_estimator import config
  config.load(gin_file, bindings)
  found = gin.query_parameter('Precision.compute')
  gin.clear_config()
  return found


# ------------------------------------------------------------------ the table


def compare(args):
  """Runs everything; returns the rows of the table."""
  programs = [('stock recipe', 'float32',
               lambda: recipe(args, args.steps))] * args.recipe
  programs += [(name, _PEERS[name], lambda name=name: peer(args, name))
               for name in args.peers]
  programs += [(name, dtype(name, args.gin_bindings),
                lambda name=name: experiment(args, name, args.steps))
               for name in args.gin_files]
  limits = most(args, [kind for _, kind, _ in programs])
  rounds = []
  for _ in range(args.pairs):
    rounds.append([run() for _, _, run in programs])
    print('steps/s: %s' % ', '.join(
        '%.2f' % one['steps_per_second'] for one in rounds[-1]), flush=True)
  base = [found[0]['steps_per_second'] for found in rounds]
  rows = [benchmark_table.summary(name, list(runs), base)
          for (name, _, _), runs in zip(programs, zip(*rounds))]
  for row, (_, kind, _) in zip(rows, programs):
    row.update({name: row['steps_per_second'] / reached
                for name, reached in limits[kind].items()})
    one = row['runs'][0]
    row.update(dtype=kind, framework='PyTorch ' + one['torch']
               if 'torch' in one else 'TensorFlow ' + one['tensorflow'],
               examples_per_second=row['steps_per_second'] * args.batch_size)
  if args.epochs:
    _add_quality(args, rows)
  return rows


def most(args, dtypes):
  """Returns {dtype: {'roofline' or 'limit': steps/s}}, as far as asked for."""
  found = {kind: {} for kind in dtypes}
  batch_size = ['--batch_size', str(args.batch_size)]
  for kind in found if args.roofline else ():
    found[kind]['roofline'] = _run(args, [
        os.path.join(_TOOLS, 'roofline.py'), '--dtype', kind] + batch_size,
                                   args.cpus)[0]['steps_per_second']
  if args.limit:
    cores = len(args.cpus or os.sched_getaffinity(0))
    limits, _ = _run(args, [
        os.path.join(_TOOLS, 'limit.py'), '--cores', str(cores)] + batch_size)
    for kind in found:
      if limits[kind]:
        found[kind]['limit'] = limits[kind]['steps_per_second']
  for kind, reached in sorted(found.items()):
    for name, steps in sorted(reached.items()):
      print('%s, %s: %.1f steps/s' % (name, kind, steps), flush=True)
  return found


def _add_quality(args, rows):
  import pyarrow.parquet
  count = pyarrow.parquet.read_metadata(
      os.path.join(args.data, 'taobao_train_data.parquet')).num_rows
  steps = math.ceil(count * args.epochs / args.batch_size) - _WARM_UP_STEPS
  if args.recipe:
    rows[0]['auc'] = recipe(args, steps)['auc']
  for row, gin_file in zip(rows[-len(args.gin_files):], args.gin_files):
    row.update(quality(args, gin_file, args.epochs))


# ------------------------------------------------------------------ a profile


def _child_profile(gin_file, bindings):
  """Trains, traces the last steps, and prints a profile of one of them."""
  sys.path.insert(0, _ROOT)
  import gin
  import tensorflow.compat.v1 as tf

  import ple_estimator as ple
  from ple_estimator.engine import native

  class Tracer(tf.train.SessionRunHook):
    """Times steps, and traces those after the first ones."""

    def __init__(self):
      self.plain, self.traced = [], []
      self._calls, self._spans = 0, []

    def before_run(self, run_context):
      self._calls += 1
      self._is_traced = self._calls > 3 * _WARM_UP_STEPS
      options = None
      if self._is_traced:
        self._trace = native.trace()
        self._spans = self._trace.__enter__()
        options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
      self._begin = time.time(), time.process_time()
      return tf.train.SessionRunArgs(None, options=options)

    def after_run(self, run_context, run_values):
      times = self._begin + (time.time(), time.process_time())
      if not self._is_traced:
        self.plain.append(times)
        return
      self._trace.__exit__(None, None, None)
      self.traced.append(times + (
          self._spans[0], run_values.run_metadata))

  tracer = Tracer()
  gin.external_configurable(lambda: tracer, 'Tracer')
  ple.load(gin_file, bindings=bindings + [
      'Experiment.hooks = [@Tracer()]']).train()
  print(json.dumps(_profiled(gin_file, tracer.plain, tracer.traced)))


def profile(args, gin_file):
  """Prints where the time of a step goes."""
  with tempfile.TemporaryDirectory() as model_dir:
    bindings = _bindings(args, model_dir) + [
        'Experiment.max_steps = %d' % (4 * _WARM_UP_STEPS),
        'Experiment.eval_input = None']
    found, _ = _run(args, [
        os.path.abspath(__file__), '--child', gin_file, '--profile'] +
                       ['--gin_bindings=' + line for line in bindings],
                       args.cpus)
  target = os.path.abspath('timeline-%s.json' % os.path.splitext(
      os.path.basename(gin_file))[0])
  with open(target, 'w') as f:
    json.dump(found['timeline'], f)
  print('\n'.join(found['lines']))
  print('Timeline for chrome://tracing: %s' % target)


def _profiled(gin_file, plain, traced):
  """Describes the shortest traced step.

  Args:
    gin_file: str.
    plain: list of (begin, processor seconds then, end, processor seconds then)
      of the session calls that were not traced.
    traced: list of the same with the array of native.trace and the
      tf.RunMetadata behind.

  Returns:
    dict of 'lines' and 'timeline'.
  """
  plain = plain[_WARM_UP_STEPS:]
  between = [after[0] - before[2] for before, after in zip(plain, plain[1:])]
  steps = [after[2] - before[2] for before, after in zip(plain, plain[1:])]
  cpu = [after[3] - before[3] for before, after in zip(plain, plain[1:])]
  begin, _, _, _, kernels, metadata = min(
      traced, key=lambda times: times[2] - times[0])
  spans, waited = step_profile.spans_of(metadata, kernels, int(1e9 * begin))
  processors = len(os.sched_getaffinity(0))
  found = step_profile.Profile(
      spans, max(span.end for span in spans), processors)
  lines = [
      '%s on %d processors, milliseconds' % (gin_file, processors), '',
      'Without a trace, medians: %.2f per step, of which %.2f between two '
      'session calls; %.2f of processor time.' % tuple(
          1e3 * statistics.median(x) for x in (steps, between, cpu)),
      'Traced, the shortest step: %.2f; it waited %.2f for its input.' % (
          1e3 * found.wall, 1e3 * waited)]
  return {'lines': lines + list(step_profile.report(
      found, step_profile.moved(kernels))),
          'timeline': step_profile.timeline(spans)}


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('gin_files', nargs='*')
  parser.add_argument('--data', default='data',
                      help='folder made by tools/make_data.py')
  parser.add_argument('--pairs', type=int, default=5, help='rounds')
  parser.add_argument('--steps', type=int, default=200, help='steps timed')
  parser.add_argument('--batch_size', type=int, default=512)
  parser.add_argument('--epochs', type=int, default=0,
                      help='train for so many and add accuracy and AUC')
  parser.add_argument('--no_recipe', dest='recipe', action='store_false',
                      help='compare with the first row instead')
  parser.add_argument('--peers', nargs='+', choices=sorted(_PEERS), default=[],
                      help='add rows of tools/torch_recipe.py')
  parser.add_argument('--roofline', action='store_true',
                      help='add shares of tools/roofline.py')
  parser.add_argument('--limit', action='store_true',
                      help='add shares of tools/limit.py')
  parser.add_argument('--cpus', type=lambda x: set(map(int, x.split(','))),
                      help='processors to run on, e.g. 0')
  parser.add_argument('--gin_bindings', action='append', default=[])
  parser.add_argument('--python', default=sys.executable,
                      help='interpreter, and so the TensorFlow')
  parser.add_argument('--json', help='file to write all figures to')
  parser.add_argument('--profile', action='store_true',
                      help='print where the time of a step goes instead')
  parser.add_argument('--input', action='store_true',
                      help='time the input alone instead')
  parser.add_argument('--keys', type=int, default=0,
                      help='time checkpoints of so many keys instead')
  parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.keys:
    return _child_checkpoint(args.keys)
  if not args.gin_files:
    parser.error('name a .gin file, or --keys')
  if args.child and args.profile:
    return _child_profile(args.gin_files[0], args.gin_bindings)
  if args.child and args.input:
    return _child_input(args.gin_files[0], args.gin_bindings, args.steps)
  if args.child:
    return _child(args.gin_files[0], args.gin_bindings)
  if args.pairs < 1 or args.steps < 2 * _WARM_UP_STEPS:
    parser.error('--pairs must be at least 1, --steps at least %d'
                 % (2 * _WARM_UP_STEPS))
  args.data = os.path.abspath(args.data)
  if args.profile:
    for name in args.gin_files:
      profile(args, name)
    return 0
  if args.input:
    for name in args.gin_files:
      found = input_alone(args, name)
      print('%s: %d batches/s, %d examples/s, %.1f CPU s per 1000 batches' % (
          name, found['steps_per_second'],
          found['steps_per_second'] * args.batch_size,
          found['cpu_seconds_per_1000_steps']))
    return 0
  if args.peers:
    try:
      check_peers(args.peers)
    except ValueError as error:
      parser.error('--peers: %s' % error)
  rows = compare(args)
  print('\n'.join(benchmark_table.markdown(rows)))
  if args.json:
    with open(args.json, 'w') as f:
      json.dump(rows, f, indent=2)
  return 0


if __name__ == '__main__':
  sys.exit(main())
