"""Faults: real processes are killed, stopped and told to end.

After each the job goes on by itself once the process is back, and loses no more
than what was trained since the last checkpoint. `pytest -s` prints how long it
took and how many steps were lost.
"""

import contextlib
import glob
import os
import re
import signal
import subprocess
import sys
import time

import conftest
from experiments import FEW_COLUMNS
from experiments import SMALL
from experiments import metrics_of
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.commands import local_cluster

pytestmark = pytest.mark.cluster

_SAVE_STEPS = 20
_SECS = 240  # what a wait may take on a machine that is busy with other things
_AGES = 10**6  # max_steps of a job that is to be broken off
PACED = '''# Steps slowly and tells of each.
include 'gin/%s.gin'
import pace
Experiment.hooks = [@Pace()]
Pace.secs = %s
'''


class Job:
  """The processes of one command, and what they have said.

  Attributes:
    cluster: local_cluster.LocalCluster.
    model_dir: pathlib.Path.
    since: where the logs ended at the last `lose`.
  """

  def __init__(self, tmp_path, taobao, counts, *bindings, **kwargs):
    """Keeps what to run.

    Args:
      tmp_path: folder for everything.
      taobao: folder with the rows.
      counts: dict of role to number.
      *bindings: lines of gin.
      **kwargs: secs (number, after each step), gin_file (str), large (bool,
        whether it has all columns, and tables of their usual sizes).
    """
    paced = tmp_path / 'paced.gin'
    paced.write_text(PACED % (
        kwargs.get('gin_file', 'base'), kwargs.get('secs', 0.3)))
    self.model_dir = tmp_path / 'model'
    # A write that is to be caught has to take a while.
    tables = [] if kwargs.get('large') else FEW_COLUMNS
    self.arguments = ['--gin_file=%s' % paced] + [
        '--gin_bindings=' + line for line in SMALL + tables + [
            'PLE.num_levels = 1', 'DATA_DIR = %r' % taobao,
            'Experiment.model_dir = %r' % str(self.model_dir),
            'Experiment.exports = None', 'Experiment.early_stopping = None',
            'run_config.save_steps = %d' % _SAVE_STEPS] + list(bindings)]
    self.cluster = local_cluster.LocalCluster(
        counts, self.command(), str(tmp_path / ('logs-%.1f' % time.time())),
        env=self.env(), cwd=conftest.ROOT)
    self.trainers = self.cluster.names('chief', 'worker')
    self.since = {}
    self._gone = set()

  def command(self, *more):
    return [sys.executable, '-u', '-m', 'ple_estimator.run'] + (
        self.arguments + list(more))

  @staticmethod
  def env():
    return dict(os.environ, PYTHONPATH=os.pathsep.join(
        [conftest.ROOT, os.path.join(conftest.ROOT, 'tests', 'cluster')]))

  def start(self, *names):
    self._gone -= set(names or self.cluster.names())
    self.cluster.start(*names)

  def send(self, number, *names):
    self.cluster.send(number, *names)

  def kill(self, *names):
    """Ends processes with kill -9."""
    self._gone |= set(names)
    self.send(signal.SIGKILL, *names)
    for name in names:
      self.cluster.processes[name].wait()

  def mark(self):
    """Where the logs end now."""
    return {name: len(self.cluster.log(name)) for name in self.cluster.names()}

  def log(self, name, mark=None):
    return self.cluster.log(name)[(mark or {}).get(name, 0):]

  def steps(self, mark=None, *names):
    """The global steps in the logs of processes, of all trainers if none."""
    return [int(step) for name in names or self.trainers
            for step in re.findall(r'at step (\d+)\n', self.log(name, mark))]

  def wait(self, condition, what):
    """Waits until something holds, while no process ends on its own."""
    deadline = time.time() + _SECS
    while not condition():
      failed = [name for name in self.cluster.processes
                if name not in self._gone and self.cluster.status(name)]
      assert not failed and time.time() < deadline, '%s; %s\n%s' % (
          what, failed, self.tails())
      time.sleep(0.05)

  def wait_for_steps(self, mark, *names):
    """Waits until each of some trainers has made a few steps since a mark."""
    for name in names:
      self.wait(lambda: len(self.steps(mark, name)) > 3,
                'no steps of %s' % name)

  def wait_for_end(self, *names):
    """Waits for the ends of processes, of all if none; a list of statuses."""
    names = names or list(self.cluster.processes)
    self._gone |= set(names)
    self.wait(lambda: all(self.cluster.status(name) is not None
                          for name in names), 'no end of %s' % (names,))
    return [self.cluster.status(name) for name in names]

  def tails(self):
    return '\n'.join('--- %s: %s\n%s' % (
        name, self.cluster.status(name), self.log(name)[-2500:])
                     for name in self.cluster.processes)

  def saved(self):
    """The step of the newest checkpoint, or None."""
    path = tf.train.latest_checkpoint(str(self.model_dir))
    return int(path.rpartition('-')[2]) if path else None


@contextlib.contextmanager
def running(*args, **kwargs):
  """A Job all of whose processes run, to be ended whatever happens."""
  job = Job(*args, **kwargs)
  names = kwargs.get('names', job.cluster.names())
  try:
    job.start(*names)
    yield job
  finally:
    job.send(signal.SIGKILL)
    job.cluster.stop()


class Report:
  """The table of what faults cost."""

  def __init__(self):
    self._rows = []

  def add(self, fault, secs, lost):
    self._rows.append((fault, secs, lost))

  def show(self):
    print('\n| fault | seconds to recover | steps lost |\n|---|---|---|')
    for fault, secs, lost in self._rows:
      print('| %s | %s | %s |' % (
          fault, '' if secs is None else '%.1f' % secs, lost))


@pytest.fixture(scope='module')
def report():
  made = Report()
  yield made
  made.show()


def lose(job, *names):
  """kill -9, and a start three seconds later.

  Returns:
    (seconds until the processes, or all trainers for others than trainers,
    make steps again; steps lost).
  """
  job.kill(*names)
  time.sleep(3)
  before, begin = max(job.steps(job.since)), time.time()
  job.since = mark = job.mark()
  job.start(*names)
  own = [name for name in names if name in job.trainers] or job.trainers
  job.wait(lambda: all(job.steps(mark, name) for name in own),
           'no steps of %s' % own)
  secs = time.time() - begin
  job.wait_for_steps(mark, *own)
  return secs, max(0, before - min(job.steps(mark)))


def catch_in_write(job):
  """Stops all processes while a checkpoint is being written."""
  def is_writing():
    return glob.glob(str(job.model_dir / 'model.ckpt-*_temp*' / '*'))
  while True:
    job.wait(is_writing, 'no checkpoint is written')
    job.send(signal.SIGSTOP)
    time.sleep(0.1)
    if is_writing():
      return
    job.send(signal.SIGCONT)


def check_keys(model_dir):
  """Compares the tensors of the keyed tables of the newest checkpoint."""
  reader = tf.train.load_checkpoint(str(model_dir))
  tables = [name[:-len('-keys')] for name in reader.get_variable_to_shape_map()
            if name.endswith('-keys')]
  assert tables
  for name in reader.get_variable_to_shape_map():
    value = reader.get_tensor(name)
    assert value.dtype.kind != 'f' or np.isfinite(value).all(), name
    table = [t for t in tables if re.match(
        re.escape(t) + r'(/\w+)?-\w+$', name)]
    if table and not name.endswith('_filtered'):
      keys = reader.get_tensor(table[0] + '-keys')
      assert len(value) == len(keys) == len(set(keys)) > 0, name


def check_predictions(job, taobao):
  """Predicts with the newest checkpoint, and finds what its evaluation did."""
  done = subprocess.run(
      job.command('--mode=predict'), env=job.env(), cwd=conftest.ROOT,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_SECS)
  assert done.returncode == 0, done.stdout.decode()
  predicted = pa.parquet.read_table(str(job.model_dir / 'predictions.parquet'))
  rows = pa.parquet.read_table(taobao + '/taobao_validation_data.parquet')
  found = metrics_of(job.model_dir)
  assert found['global_step'] == job.saved()
  for task, label in [('ctr', 'clk'), ('cvr', 'buy')]:
    p, y = predicted[task].to_numpy(), np.array(rows[label].to_pylist())
    assert found[task + '/calibration'] == pytest.approx(
        p.mean(dtype='d') / y.mean(), rel=1e-4)
    assert found[task + '/accuracy'] == pytest.approx(
        ((p > 0.5) == y).mean(), abs=1e-6)


WHOLE = {'chief': 1, 'worker': 1, 'ps': 2, 'evaluator': 1}
# What a checkpoint may be behind: the interval, and a step of each trainer.
MOST_LOST = _SAVE_STEPS + 3


def test_a_job_outlives_its_processes(taobao, tmp_path, report):
  begin = time.time()
  with running(tmp_path, taobao, WHOLE, 'Experiment.max_steps = %d' % _AGES,
               gin_file='ev', large=True) as job:
    job.wait_for_steps(None, *job.trainers)
    report.add('(start)', time.time() - begin, 0)
    lose_one_by_one(job, report)
    for name in ('worker-0', 'ps-0'):
      hold(job, name, report)
    lose_the_evaluator(job, report)

    catch_in_write(job)
    saved = job.saved()
    secs, lost = lose(job, *job.cluster.names())
    assert lost <= MOST_LOST and min(job.steps(job.since)) >= saved
    report.add('kill -9 of all while a checkpoint is written', secs, lost)

    before = max(job.steps(job.since))
    job.send(signal.SIGTERM)
    assert set(job.wait_for_end()) == {143}
    assert job.saved() >= before
    check_keys(job.model_dir)
    # Leftovers of the save that was broken off.
    assert not glob.glob(str(job.model_dir / '*_temp*'))
  finish(taobao, tmp_path, before, job.saved(), report)


def lose_one_by_one(job, report):
  mark = job.mark()
  report.add('kill -9 of a worker', *lose(job, 'worker-0'))
  assert len(job.steps(mark, 'chief-0')) > 10  # went on

  secs, lost = lose(job, 'chief-0')
  assert 'which the parameter servers are at; the last checkpoint is of ' in (
      job.log('chief-0', job.since))
  assert lost <= 2  # the worker may log its step before the chief
  report.add('kill -9 of the chief', secs, 0)

  for name in job.cluster.names('ps'):
    secs, lost = lose(job, name)
    assert lost <= MOST_LOST
    report.add('kill -9 of %s of 2' % name, secs, lost)


def hold(job, name, report):
  """SIGSTOP for five seconds."""
  before = max(job.steps(job.since))
  job.send(signal.SIGSTOP, name)
  time.sleep(5)
  mark, begin = job.mark(), time.time()
  job.send(signal.SIGCONT, name)
  job.wait(lambda: all(job.steps(mark, n) for n in job.trainers), 'no steps')
  report.add('SIGSTOP of %s for 5 s' % name, time.time() - begin, 0)
  assert min(job.steps(mark)) >= before - 2


def lose_the_evaluator(job, report):
  job.kill('evaluator-0')
  evaluated, begin = metrics_of(job.model_dir)['global_step'], time.time()
  job.start('evaluator-0')
  job.wait(lambda: metrics_of(job.model_dir)['global_step'] > evaluated,
           'no evaluation')
  report.add('kill -9 of the evaluator', time.time() - begin, 0)


def finish(taobao, tmp_path, before, saved, report):
  """The second half: another start, another end, the chief alone."""
  last = saved + 60
  begin = time.time()
  with running(tmp_path, taobao, WHOLE, 'Experiment.max_steps = %d' % last,
               gin_file='ev', large=True) as job:
    job.wait_for_steps(None, *job.trainers)
    first = min(job.steps())
    assert first >= saved
    report.add('SIGTERM to all', time.time() - begin, max(0, before - first))
    job.kill('worker-0')
    assert set(job.wait_for_end(*[
        n for n in job.cluster.names() if n != 'worker-0'])) == {0}
    report.add('kill -9 of a worker that does not come back', None, 0)
    assert metrics_of(job.model_dir)['global_step'] >= last
    assert job.saved() >= last
    check_keys(job.model_dir)
    check_predictions(job, taobao)


def test_who_is_left_gives_up_and_says_for_whom(taobao, tmp_path):
  with running(tmp_path, taobao,
               {'chief': 1, 'worker': 1, 'ps': 2, 'evaluator': 1},
               'Experiment.max_steps = %d' % _AGES,
               'Experiment.peer_timeout_secs = 40') as job:
    job.wait_for_steps(None, *job.trainers)
    job.kill('ps-1')  # for good
    left = [name for name in job.cluster.names() if name != 'ps-1']
    assert set(job.wait_for_end(*left)) == {1}
    for name in job.trainers:
      assert re.search(r'Gave up: no step for 4\d s \(Experiment.peer_timeout_'
                       r'secs\); no answer from ps 1 at', job.log(name))
    assert re.search('Gave up: chief 0 at [^ ]* did not answer for 40 s',
                     job.log('ps-0'))
    assert re.search('Gave up.* no answer from chief 0', job.log('evaluator-0'))


def test_a_chief_killed_at_the_end_ends_the_job_when_it_is_back(
    taobao, tmp_path):
  # TF_CONFIG lists an evaluator that never comes: the chief waits, then
  # evaluates.
  with running(tmp_path, taobao,
               {'chief': 1, 'worker': 1, 'ps': 2, 'evaluator': 1},
               'Experiment.max_steps = 60', 'Experiment.peer_timeout_secs = 60',
               names=['chief-0', 'worker-0', 'ps-0', 'ps-1'], secs=0) as job:
    job.wait((job.model_dir / 'trained.json').exists, 'not trained')
    assert job.wait_for_end('worker-0') == [0]
    job.kill('chief-0')
    time.sleep(3)
    begin, mark = time.time(), job.mark()
    job.start('chief-0')
    assert job.wait_for_end() == [0] * 4
    assert time.time() - begin > 60
    assert 'The evaluator did not evaluate step' in job.log('chief-0', mark)
    assert not job.steps(mark)  # nothing was left to train
    assert metrics_of(job.model_dir)['global_step'] == job.saved() >= 60


def test_early_stopping_ends_all(taobao, tmp_path):
  with running(tmp_path, taobao,
               {'chief': 1, 'worker': 1, 'ps': 1, 'evaluator': 1},
               'Experiment.max_steps = %d' % _AGES,
               'Experiment.early_stopping = @EarlyStopping()',
                'EarlyStopping.patience_steps = 1', secs=0.1) as job:
    assert job.wait_for_end() == [0] * 4
    step = job.saved()
    assert metrics_of(job.model_dir)['global_step'] == step < _AGES
    mark = job.mark()
    job.start()
    assert job.wait_for_end() == [0] * 4
    assert job.saved() == step and not job.steps(mark)
    for name in ('chief-0', 'worker-0'):
      assert 'Training stopped early at step %d: ' % step in job.log(name, mark)


def test_a_local_run_goes_on_where_it_was(taobao, tmp_path, report):
  with running(tmp_path, taobao, {'chief': 1},
               'Experiment.max_steps = 200', secs=0.1, large=True) as job:
    job.wait_for_steps(None, 'chief-0')
    catch_in_write(job)
    saved = job.saved()
    secs, lost = lose(job, 'chief-0')
    assert lost <= _SAVE_STEPS and min(job.steps(job.since)) >= saved
    report.add('local run: kill -9 while a checkpoint is written', secs, lost)

    job.send(signal.SIGTERM)
    assert job.wait_for_end() == [143]
    # The step that is logged may be read before it is counted.
    assert job.saved() - max(job.steps(job.since)) in (0, 1)
    assert not glob.glob(str(job.model_dir / '*_temp*'))  # of the kill
    begin, mark, before = time.time(), job.mark(), job.saved()
    job.start()
    job.wait_for_steps(mark, 'chief-0')
    secs = time.time() - begin
    assert min(job.steps(mark)) in (before, before + 1)
    report.add('local run: SIGTERM', secs, 0)
    assert job.wait_for_end() == [0]
    assert metrics_of(job.model_dir)['global_step'] == job.saved() == 200


@pytest.fixture
def mount():
  """Returns a function that mounts something until the end of the test."""
  mounted = []

  def at(path, *args):
    done = subprocess.run(['mount'] + list(args) + [str(path)],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
      pytest.skip('needs the right to mount: ' + done.stdout.decode().strip())
    mounted.append(str(path))
  yield at
  for path in set(mounted):
    subprocess.check_call(['umount', '-l', path])


def one_line(text):
  """The message of a run that ended as what a user can mend should."""
  assert 'Traceback' not in text, text
  lines = [line for line in text.splitlines()
           if line.startswith('ple_estimator: ')]
  assert len(lines) == 1, text
  return lines[0]


@pytest.mark.parametrize('counts', [{'chief': 1}, {'chief': 1, 'ps': 1}],
                         ids=['local', 'cluster'])
def test_a_full_disk_is_said_and_the_last_checkpoint_is_whole(
    taobao, tmp_path, mount, counts):
  model_dir = tmp_path / 'model'
  model_dir.mkdir()
  mount(model_dir, '-t', 'tmpfs', '-o', 'size=64m', 'tmpfs')
  with running(tmp_path, taobao, counts, 'Experiment.max_steps = 150',
               'Experiment.eval_input = None', secs=0.1, gin_file='ev',
               large=True) as job:
    job.wait(job.saved, 'no checkpoint but the first')
    free = os.statvfs(str(model_dir))
    with open(str(model_dir / 'filler'), 'wb') as f:
      f.write(b'x' * (free.f_bavail * free.f_bsize - 100000))
    assert job.wait_for_end('chief-0') == [1]
    text = one_line(job.log('chief-0'))
    step = job.saved()
    assert re.search('Experiment.model_dir must have room and be writable: .*'
                     '%s.*: No space left on device' % model_dir, text)
    assert 'The checkpoint of step %d is whole' % step in text
    check_keys(model_dir)

    os.remove(str(model_dir / 'filler'))
    mark = job.mark()
    job.start('chief-0')
    assert job.wait_for_end() == [0] * len(job.cluster.names())
    assert min(job.steps(mark)) >= step and job.saved() >= 150


def test_a_folder_that_cannot_be_written_is_said(taobao, tmp_path, mount):
  with running(tmp_path, taobao, {'chief': 1}, 'Experiment.max_steps = 3',
               'Experiment.eval_input = None', secs=0) as job:
    assert job.wait_for_end() == [0]
    mount(job.model_dir, '--bind', str(job.model_dir))
    mount(job.model_dir, '-o', 'remount,ro,bind')
    mark = job.mark()
    job.start()
    assert job.wait_for_end() == [1]
    assert one_line(job.log('chief-0', mark)).endswith(
        'Experiment.model_dir must be a folder that can be written to, got '
        '%r: Read-only file system.' % str(job.model_dir))
    assert job.saved() == 3
