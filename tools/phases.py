r"""Says what a run spends its time on, from process start to process end.

  python tools/phases.py --data /tmp/peerdata gin/base.gin
  python tools/phases.py --data /tmp/peerdata --rounds 3 --mode export \
      --model_dir result/base gin/base.gin

Each round is a process of its own that does what `python -m ple_estimator.run`
does, with clocks around the functions in `PHASES`. A phase has the seconds that
were spent in it and in no other phase that it has called; the seconds of the
table are medians over the rounds.
"""

import argparse
import collections
import functools
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

_TOOLS = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(_TOOLS)

_OTHER = 'the rest'
# (phase, module, function or Class.method).
PHASES = [
    ('start: .gin files', 'ple_estimator.config', 'load'),
    ('start: objects', 'ple_estimator.experiment', 'Experiment.__init__'),
    ('start: kernels', 'ple_estimator.engine.native', 'available'),
    ('start: look at the data', 'ple_estimator.training.trainer',
     'Trainer._check_data'),
    ('training: graph of the model', 'ple_estimator.training.estimator',
     'ModelFn._training_spec'),
    ('training: the rest', 'ple_estimator.training.trainer',
     'Trainer._train'),
    ('session: graph of the Saver', 'tensorflow.compat.v1',
     'train.Scaffold.finalize'),
    ('session: made, and given values', 'tensorflow.compat.v1',
     'train.SessionManager.prepare_session'),
    ('checkpoints', 'ple_estimator.engine.compat',
     'CheckpointSaverHook._save'),
    ('evaluation: graph', 'ple_estimator.training.evaluator',
     '_Graph.__init__'),
    ('evaluation: pass', 'ple_estimator.training.evaluator', '_Graph.run'),
    ('evaluation: file of rows', 'ple_estimator.training.evaluated_rows',
     'EvaluatedRows.finish'),
    ('evaluation: the rest', 'ple_estimator.training.evaluation',
     'Evaluation._run'),
    ('export', 'ple_estimator.training.exports', 'SavedModels.write'),
    ('mode export', 'ple_estimator.experiment', 'Experiment.export'),
]
_STEPS = ['training: first step', 'training: steps']


# ------------------------------------------------- one run, in its own process


class Clock:
  """Notes how long each phase takes, without the phases that it calls."""

  def __init__(self, begin):
    self.seconds = collections.OrderedDict()
    self._last = begin  # seconds since 1970
    self._inside = []

  def note(self, phase):
    """Adds the time since the last call to a phase."""
    now = time.time()
    self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
    self._last = now

  def timed(self, phase, function):
    """Returns a function that does the same and has its time noted."""

    @functools.wraps(function)
    def run(*args, **kwargs):
      self.note(self._inside[-1] if self._inside else _OTHER)
      self._inside.append(phase)
      try:
        return function(*args, **kwargs)
      finally:
        self.note(self._inside.pop())

    return run


def _child(gin_file, mode, bindings, begin):
  """Does one run and prints a JSON of its phases on the last line."""
  clock = Clock(begin)
  clock.note('start: Python')
  sys.path.insert(0, _ROOT)
  from ple_estimator import run
  run.import_all()
  import gin
  import tensorflow.compat.v1 as tf
  clock.note('start: imports')
  for phase, module, path in PHASES:
    holder = importlib.import_module(module)
    *parts, name = path.split('.')
    for part in parts:
      holder = getattr(holder, part)
    setattr(holder, name, clock.timed(phase, getattr(holder, name)))
  gin.external_configurable(lambda: _steps(clock, tf), 'Steps')
  sys.argv = ['run', '--gin_file=' + gin_file, '--mode=' + mode] + [
      '--gin_bindings=' + line for line in bindings + [
          'Experiment.hooks = [@Steps()]']]
  try:
    run.console()
  finally:
    clock.note(_OTHER)
    print(json.dumps({'tensorflow': tf.__version__, 'end': time.time(),
                      'phases': clock.seconds}))


def _steps(clock, tf):
  """A hook that tells the first step, which waits for the input."""

  class Steps(tf.train.SessionRunHook):
    """Notes when steps begin and end."""

    def __init__(self):
      self._phase = _STEPS[0]

    def before_run(self, run_context):
      clock.note(_STEPS[1] if self._phase == _STEPS[1] else
                 'training: the rest')

    def after_run(self, run_context, run_values):
      clock.note(self._phase)
      self._phase = _STEPS[1]

  return Steps()


# ------------------------------------------------------------------ the table


def run_once(args, model_dir):
  """Does one run; returns its seconds by phase, OrderedDict of str to float."""
  bindings = args.gin_bindings + [
      "DATA_DIR = '%s'" % os.path.abspath(args.data),
      "Experiment.model_dir = '%s'" % model_dir]
  begin = time.time()
  process = subprocess.run(
      [args.python, os.path.abspath(__file__), args.gin_file, '--child',
       '--mode', args.mode, '--begin', repr(begin)] + [
           '--gin_bindings=' + line for line in bindings],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=_ROOT, check=False)
  end = time.time()
  if process.returncode:
    sys.stderr.write(process.stderr.decode())
    raise SystemExit('phases: the run failed')
  found = json.loads(process.stdout.decode().splitlines()[-1])
  seconds = collections.OrderedDict(found['phases'])
  seconds['end of the process'] = end - found['end']
  seconds['in all'] = end - begin
  return seconds


def table(rounds):
  """Yields the lines of a table of medians over rounds, lists of run_once."""
  yield '| Phase | Seconds | Range |'
  yield '|---|---|---|'
  for phase in order(rounds):
    values = [seconds.get(phase, 0.0) for seconds in rounds]
    yield '| %s | %.2f | %.2f to %.2f |' % (
        phase, statistics.median(values), min(values), max(values))


def order(rounds):
  """The phases of rounds, in the order of a run."""
  listed = ['start: Python', 'start: imports'] + [
      phase for phase, _, _ in PHASES] + [_OTHER, 'end of the process',
                                          'in all']
  at = listed.index('checkpoints')
  listed[at:at] = _STEPS
  return [phase for phase in listed if any(phase in one for one in rounds)]


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('gin_file')
  parser.add_argument('--data', default='data', help='folder of the rows')
  parser.add_argument('--mode', default='train')
  parser.add_argument('--model_dir', help='of the other modes than train')
  parser.add_argument('--rounds', type=int, default=1)
  parser.add_argument('--python', default=sys.executable)
  parser.add_argument('--gin_bindings', action='append', default=[])
  parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
  parser.add_argument('--begin', type=float, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    _child(args.gin_file, args.mode, args.gin_bindings, args.begin)
    return
  rounds = []
  for _ in range(args.rounds):
    with tempfile.TemporaryDirectory() as folder:
      rounds.append(run_once(args, args.model_dir or folder))
  for line in table(rounds):
    print(line)


if __name__ == '__main__':
  main()
