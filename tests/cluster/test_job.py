"""What the processes of a cluster see of each other, and how they end."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import conftest
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.cluster import marker
from ple_estimator.cluster import watch

_SECS = 120  # for a process, on a machine that is busy


def save(model_dir, step):
  """Writes a checkpoint that holds a global step alone."""
  with tf.Graph().as_default(), tf.Session() as session:
    session.run(tf.train.create_global_step().assign(step))
    tf.train.Saver().save(session, str(model_dir / 'model.ckpt'), step)


@pytest.fixture
def listener():
  """A socket that takes connections."""
  with socket.socket() as s:
    s.bind(('localhost', 0))
    s.listen(8)
    yield s


def address(listening):
  return 'localhost:%d' % listening.getsockname()[1]


def nowhere():
  return 'localhost:%d' % conftest.free_port()


# ------------------------------------------------------------ trained.json


def test_trained_step_is_that_of_a_training_to_the_same_step(tmp_path):
  model_dir = str(tmp_path)
  assert marker.latest_step(model_dir) is None
  assert marker.trained_step(model_dir, 100) is None
  save(tmp_path, 101)
  assert marker.latest_step(model_dir) == 101
  assert marker.trained_step(model_dir, 100) is None
  marker.mark_trained(model_dir, 100, 101)
  assert marker.trained_step(model_dir, 100) == 101
  assert marker.trained_step(model_dir, 200) is None  # trains on
  assert os.listdir(model_dir).count('trained.json.partial') == 0


def test_what_was_trained_does_not_count_without_its_checkpoint(tmp_path):
  model_dir = str(tmp_path)
  marker.mark_trained(model_dir, 100, 101)
  assert marker.trained_step(model_dir, 100) is None
  save(tmp_path, 40)  # of another training, in a folder that was emptied
  assert marker.trained_step(model_dir, 100) is None


def test_a_torn_note_counts_as_none(tmp_path):
  save(tmp_path, 101)
  (tmp_path / 'trained.json').write_text('{"max_st')
  assert marker.trained_step(str(tmp_path), 100) is None


# ---------------------------------------------------------------- watching


def test_unreachable_names_who_takes_no_connection(listener):
  there, away = address(listener), nowhere()
  assert watch.unreachable([]) == ''
  assert watch.unreachable([('ps 0', there)]) == ''
  assert watch.unreachable([('ps 0', there), ('ps 1', away),
                          ('chief 0', 'no.such.host.invalid:1')]) == (
      'ps 1 at %s, chief 0 at no.such.host.invalid:1' % away)


class Process:
  """Python code in a process, with what it prints."""

  def __init__(self, code, *args, **kwargs):
    self.begin = time.time()
    self._process = subprocess.Popen(
        [sys.executable, '-c', HEAD + code] + [str(a) for a in args],
        cwd=conftest.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL='1', **kwargs))

  def wait_for(self, word):
    """Reads what is printed up to a line with a word."""
    for line in self._process.stdout:
      if word in line.decode():
        return
    raise AssertionError('no %r' % word)

  def send(self, number):
    self._process.send_signal(number)

  def end(self):
    """Returns (exit status, the rest of what it printed)."""
    try:
      text, _ = self._process.communicate(timeout=_SECS)
    finally:
      self._process.kill()
    return local_status(self._process.returncode), text.decode()


def local_status(code):
  return 128 - code if code < 0 else code


HEAD = '''
import os, signal, sys, threading, time
from absl import logging
import tensorflow.compat.v1 as tf
from ple_estimator.cluster import parameter_servers, roles, watch
from ple_estimator.engine import compat
compat.quiet()
logging.use_absl_handler()
logging.set_verbosity(logging.INFO)
def blocked():
  """What a step without its parameter server is: deaf to signals."""
  with tf.Session() as session:
    empty = tf.FIFOQueue(1, tf.bool).dequeue()
    print('ready', flush=True)
    session.run(empty)
'''
STUCK = '''
with watch.Watch([('ps 0', sys.argv[1]), ('ps 1', sys.argv[2])], 3):
  blocked()
'''


def test_watch_ends_a_stuck_process_and_names_who_does_not_answer(listener):
  away = nowhere()
  status, text = Process(STUCK, address(listener), away).end()
  assert status == 1
  assert 'Gave up: no step for 3 s (Experiment.peer_timeout_secs); ' in text
  assert 'no answer from ps 1 at %s.' % away in text


def test_watch_ends_a_process_that_is_stuck_though_all_answer(listener):
  status, text = Process(STUCK, address(listener), address(listener)).end()
  assert status == 1
  assert 'all others answer, so one of them may be stuck' in text


def test_watch_ends_a_worker_when_the_training_is_over():
  status, text = Process('''
with watch.Watch([('ps 0', sys.argv[1])], 1000, is_over=lambda: True):
  blocked()
''', nowhere()).end()
  assert status == 0 and 'The training is over.' in text


@pytest.mark.slow
def test_a_pause_may_take_any_time_and_beats_hold_off_the_end():
  status, text = Process('''
with watch.Watch([('ps 0', sys.argv[1])], 4) as watch:
  with watch.pause():
    time.sleep(8)
  print('paused')
  for _ in range(14):
    time.sleep(0.5)
    watch.beat()
  print('beat', flush=True)
  blocked()
''', nowhere()).end()
  assert status == 1 and 'paused\nbeat\nready\n' in text, text
  assert 'Gave up: no step for 4 s ' in text


@pytest.mark.slow
def test_a_wait_lasts_while_peers_answer_and_no_longer(listener):
  waits = '''
with watch.Watch([('chief 0', sys.argv[1])], 4) as watch:
  for i in range(10):
    watch.wait(0.7)
  print('waited')
'''
  status, text = Process(waits, address(listener)).end()
  assert status == 0 and 'waited' in text
  status, text = Process(waits, nowhere()).end()
  assert status == 1 and 'no answer from chief 0' in text


TRAINS = '''
model_dir, kind = sys.argv[1:]
step = tf.train.create_global_step()
add = tf.assign_add(step, 1)
saver = tf.train.Saver()
def save(session):
  saver.save(session, model_dir + '/model.ckpt', step)
with watch.Watch([], 1000, save=save) as watch:
  with tf.train.SingularMonitoredSession([watch]) as session:
    while True:
      done = session.run(add)
      if done == 3:
        print('ready', flush=True)
      if done >= 3:
        time.sleep(0.2)
      if kind == 'paused' and done == 3:
        with watch.pause():
          time.sleep(100)
'''


def test_sigterm_in_training_saves_after_the_step(tmp_path):
  process = Process(TRAINS, tmp_path, 'steps')
  process.wait_for('ready')
  process.send(signal.SIGTERM)
  status, text = process.end()
  assert status == 143, text
  assert 'SIGTERM: this step was the last.' in text
  assert marker.latest_step(str(tmp_path)) >= 4


def test_sigterm_breaks_off_a_pause(tmp_path):
  process = Process(TRAINS, tmp_path, 'paused')
  process.wait_for('ready')
  begin = time.time()
  process.send(signal.SIGTERM)
  status, text = process.end()
  assert status == 143, text
  assert time.time() - begin < 60
  assert marker.latest_step(str(tmp_path)) is None  # saved before evaluations


def test_sigterm_ends_a_process_that_is_deaf_for_a_lost_peer():
  process = Process('''
with watch.Watch([('ps 0', sys.argv[1])], 1000) as watch:
  blocked()
''', nowhere())
  process.wait_for('ready')
  process.send(signal.SIGTERM)
  status, text = process.end()
  assert status == 143, text


def test_the_handler_of_before_is_back_afterwards():
  before = signal.getsignal(signal.SIGTERM)
  with watch.Watch([], 1):
    assert signal.getsignal(signal.SIGTERM) != before
  assert signal.getsignal(signal.SIGTERM) == before


def test_workers_wait_for_the_checkpoint(tmp_path):
  save(tmp_path, 0)
  hook = watch.WaitForCheckpoint(str(tmp_path), 5, watch.Watch([], 1000))
  add = tf.assign_add(tf.train.create_global_step(), 1)
  found = []

  def work():
    with add.graph.as_default(), tf.train.SingularMonitoredSession(
        [hook]) as session:
      while not found or found[-1] < 12:
        found.append(int(session.run(add)))

  worker = threading.Thread(target=work, daemon=True)
  worker.start()
  # A step reads the global step before or after it has added to it.
  for saved, most in [(0, 6), (5, 11), (11, 13)]:
    if saved:
      save(tmp_path, saved)
    deadline = time.time() + 20
    while time.time() < deadline and worker.is_alive() and (
        not found or found[-1] < min(12, saved + 4)):
      time.sleep(0.1)
    time.sleep(1.5)
    assert min(12, saved + 4) <= found[-1] <= most
  worker.join(20)
  assert not worker.is_alive()


def test_workers_do_not_wait_behind_the_checkpoint(tmp_path):
  # As after the loss of a parameter server, until the restore.
  save(tmp_path, 100)
  hook = watch.WaitForCheckpoint(str(tmp_path), 5, watch.Watch([], 1000))
  add = tf.assign_add(tf.train.create_global_step(), 1)
  with tf.train.SingularMonitoredSession([hook]) as session:
    assert [session.run(add) for _ in range(20)][-1] == 20


# ------------------------------------------------------- parameter servers


SERVES = '''
config = roles.run_config(sys.argv[1])
parameter_servers.serve(config, roles.role().peers(), float(sys.argv[2]))
'''


@pytest.fixture
def tf_config():
  """Returns a function of type and index to TF_CONFIG, chief and two ps."""
  addresses = {'chief': [nowhere()], 'ps': [nowhere(), nowhere()]}
  return lambda kind, index=0: json.dumps({
      'cluster': addresses, 'task': {'type': kind, 'index': index}})


def test_parameter_servers_end_with_the_job(tmp_path, tf_config):
  servers = [Process(SERVES, tmp_path, 1000, TF_CONFIG=tf_config('ps', i))
             for i in range(2)]
  chief = Process('''
config = roles.run_config(sys.argv[1])
server = roles.server(config)
parameter_servers.end_parameter_servers(config)
''', tmp_path, TF_CONFIG=tf_config('chief'))
  for process in servers + [chief]:
    status, text = process.end()
    assert status == 0, text
    assert process is chief or 'The job is done.' in text


@pytest.mark.slow
def test_the_end_of_a_job_does_not_wait_for_a_lost_server(tmp_path, tf_config):
  chief = Process('''
config = roles.run_config(sys.argv[1])
server = roles.server(config)
parameter_servers.end_parameter_servers(config)
''', tmp_path, TF_CONFIG=tf_config('chief'))
  status, text = chief.end()
  assert status == 0
  assert 'Parameter server 0, 1 did not take the word that' in text


def test_parameter_servers_end_on_sigterm(tmp_path, tf_config):
  process = Process(SERVES, tmp_path, 1000, TF_CONFIG=tf_config('ps'))
  process.wait_for('Parameter server 0 at ')
  time.sleep(1)  # it says so before it listens to signals
  process.send(signal.SIGTERM)
  status, text = process.end()
  assert status == 143, text


def test_parameter_servers_give_up_without_a_chief(tmp_path, tf_config):
  status, text = Process(
      SERVES, tmp_path, 3, TF_CONFIG=tf_config('ps')).end()
  assert status == 1
  assert 'Gave up: chief 0 at localhost:' in text
  assert 'did not answer for 3 s (Experiment.peer_timeout_secs)' in text
