"""A work queue in a job of several processes, some of which are killed."""

import glob
import json
import os
import signal
import subprocess
import sys
import time

import conftest
import pytest
from queue_data import fractions
from queue_data import numbered
from queue_data import states
import tensorflow.compat.v1 as tf

__all__ = ['numbered']  # a fixture
pytestmark = pytest.mark.cluster


class Cluster:
  """Processes of queue_task.py: 1 ps, a chief and 2 workers."""

  def __init__(self, data, folder, epochs):
    self._folder, self._args = folder, [data, str(folder / 'model')]
    self._epochs = epochs
    ports = ['localhost:%d' % conftest.free_port() for _ in range(4)]
    self._cluster = {'ps': ports[:1], 'chief': ports[1:2], 'worker': ports[2:]}
    self._starts = 0
    self.tasks = {}
    for job, index in [('ps', 0), ('chief', 0), ('worker', 0), ('worker', 1)]:
      self.start(job, index)

  def start(self, job, index=0):
    self._starts += 1
    name = '%s-%d-%d' % (job, index, self._starts)
    with open(str(self._folder / (name + '.err')), 'w') as err:
      self.tasks[job, index] = subprocess.Popen(
          [sys.executable,
           os.path.join(os.path.dirname(__file__), 'queue_task.py')] +
          self._args + [str(self._folder / (name + '.rows')),
                        str(self._epochs)],
          cwd=conftest.ROOT, stdout=err, stderr=err, env=dict(
              os.environ, PYTHONPATH=conftest.ROOT, TF_CONFIG=json.dumps({
                  'cluster': self._cluster,
                  'task': {'type': job, 'index': index}})))

  def kill(self, job, index=0):
    self.tasks[job, index].kill()
    self.tasks[job, index].wait()

  def rows(self, name='*'):
    """Lists of rows, as processes have trained them."""
    lines = []
    for path in glob.glob(str(self._folder / (name + '.rows'))):
      with open(path) as f:
        lines += [list(map(int, line.split())) for line in f
                  if line.endswith('\n')]
    return lines

  def wait_for(self, steps, name, secs=90):
    """Waits until processes have done steps."""
    end = time.time() + secs
    while len(self.rows(name)) < steps:
      assert time.time() < end, self.errors()
      time.sleep(0.1)

  def join(self, *tasks, secs=120):
    """Waits for the end of tasks."""
    end = time.time() + secs
    for task in tasks:
      try:
        assert self.tasks[task].wait(max(1, end - time.time())) == 0, (
            self.errors())
      except subprocess.TimeoutExpired:
        self.tasks[task].send_signal(signal.SIGUSR1)  # where it is
        time.sleep(1)
        raise AssertionError('%s hangs\n%s' % (task, self.errors()))

  def errors(self):
    text = ''
    for path in sorted(glob.glob(str(self._folder / '*.err'))):
      with open(path) as f:
        text += '== %s\n%s\n' % (path, ''.join(f.readlines()[-80:]))
    return text

  def seen(self):
    """[1000] how often each row is in the variables of the last checkpoint."""
    return tf.train.load_variable(self._args[1], 'seen')


@pytest.fixture
def cluster(numbered, tmp_path):
  made = []

  def start(epochs):
    made.append(Cluster(numbered, tmp_path, epochs))
    return made[0]
  yield start
  for task in made[0].tasks.values():
    task.kill()
    task.wait()


CHIEF, WORKERS = ('chief', 0), [('worker', 0), ('worker', 1)]


def check_end(made, tmp_path, epochs):
  state = states(tmp_path)
  assert state[max(state)]['epoch'] == epochs  # every slice acknowledged
  assert made.seen().min() >= epochs  # none lost
  return made.seen().sum() - 1000 * epochs


def test_a_job_outlives_its_processes(cluster, tmp_path):
  epochs = 8
  made = cluster(epochs)
  made.wait_for(10, 'worker-1*')
  made.kill('worker', 1)
  made.start('worker', 1)
  made.wait_for(3, 'worker-1-5')

  made.kill('chief')
  before = len(made.rows('worker*'))
  made.wait_for(before + 20, 'worker*')  # they go on without it
  made.start('chief')
  made.wait_for(3, 'chief-0-6')

  made.kill('ps')
  time.sleep(1)
  made.start('ps')
  before = len(made.rows())
  made.wait_for(before + 10, '*')

  made.kill('worker', 1)  # for good
  made.join(CHIEF, WORKERS[0])
  # What each killed process had in hand: a shuffle buffer, batches made ahead,
  # a slice or two. What the parameter server lost, the variables lost as well.
  assert 0 <= check_end(made, tmp_path, epochs) <= 4 * (64 + 6 * 16 + 2 * 25)


def test_all_are_killed_and_start_again(cluster, tmp_path):
  made = cluster(3)
  for name in ('chief*', 'worker-0*', 'worker-1*'):
    made.wait_for(1, name)
  made.wait_for(100, '*')
  tasks = [('ps', 0), CHIEF] + WORKERS
  for task in tasks:
    made.kill(*task)
  state = states(tmp_path)
  trained = made.seen().sum()
  acknowledged = 1000 * state[max(state)]['epoch'] + 25 * sum(
      map(len, state[max(state)]['acknowledged']))
  assert 0 < acknowledged <= trained
  for task in tasks:
    made.start(*task)
  made.join(CHIEF, *WORKERS)
  check_end(made, tmp_path, 3)
  # Without another fault what is acknowledged is neither repeated nor skipped.
  assert made.seen().sum() == trained + 3000 - acknowledged
  shares = fractions(tmp_path)
  assert shares[-1] == 1 and any(0 < share < 1 for share in shares)
