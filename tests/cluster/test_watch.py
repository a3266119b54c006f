"""How a process ends that makes no progress or receives SIGTERM."""

import os
import signal
import socket
import threading
import time

from processes import Process
from processes import nowhere
from processes import wait_until
import pytest
import tensorflow.compat.v1 as tf
from test_marker import save

from ple_estimator.cluster import marker
from ple_estimator.cluster import watch


@pytest.fixture
def listener():
  """A socket that takes connections."""
  with socket.socket() as s:
    s.bind(('localhost', 0))
    s.listen(8)
    yield s


def address(listening):
  return 'localhost:%d' % listening.getsockname()[1]


def test_unreachable_names_who_takes_no_connection(listener):
  there, away = address(listener), nowhere()
  assert watch.unreachable([]) == ''
  assert watch.unreachable([('ps 0', there)]) == ''
  assert watch.unreachable([('ps 0', there), ('ps 1', away),
                            ('chief 0', 'no.such.host.invalid:1')]) == (
      'ps 1 at %s, chief 0 at no.such.host.invalid:1' % away)


# ----------------------------------------------------------------- verdict


def facts(**known):
  """Facts of a worker that waits for peers which all answer."""
  return watch.Facts(**dict(dict(
      idle=3.0, terminated=None, is_over=False, lost='', has_peers=True,
      saves=False, timeout_secs=100), **known))


WAITS = 'Waiting for ps 1 at b:1, %d s.'
GAVE_UP = 'Gave up: no step for %d s (Experiment.peer_timeout_secs); %s.'


@pytest.mark.parametrize('known, status, text', [
    ({}, None, ''),
    ({'lost': 'ps 1 at b:1'}, None, WAITS % 3),
    ({'idle': 100.0, 'lost': 'ps 1 at b:1'}, None, WAITS % 100),
    ({'idle': 101.5, 'lost': 'ps 1 at b:1'}, 1,
     GAVE_UP % (101, 'no answer from ps 1 at b:1')),
    ({'idle': 101.0}, 1, GAVE_UP % (
        101, 'all others answer, so one of them may be stuck')),
    # A local run, however long a step takes.
    ({'idle': 1e6, 'has_peers': False}, None, ''),
    ({'idle': 1e6, 'is_over': True, 'lost': 'ps 1 at b:1'}, 0,
     'The training is over.'),
    # SIGTERM: the step may end within ten seconds, and a save takes a minute.
    ({'idle': 9.0, 'terminated': 9.0}, None, ''),
    ({'idle': 11.0, 'terminated': 9.0}, None, ''),
    ({'idle': 9.0, 'terminated': 11.0}, None, ''),
    ({'idle': 11.0, 'terminated': 11.0}, 143, 'SIGTERM.'),
    ({'idle': 59.0, 'terminated': 59.0, 'saves': True}, None, ''),
    ({'idle': 61.0, 'terminated': 61.0, 'saves': True}, 143, 'SIGTERM.'),
    # Nothing can be saved without parameter servers.
    ({'idle': 11.0, 'terminated': 11.0, 'saves': True, 'lost': 'ps 1 at b:1'},
     143, 'SIGTERM.'),
    ({'idle': 11.0, 'terminated': 11.0, 'has_peers': False}, 143, 'SIGTERM.'),
])
def test_verdict(known, status, text):
  assert watch.verdict(facts(**known)) == (status, text)


# ------------------------------------------------------------- this process


@pytest.fixture
def ends(monkeypatch):
  """How this process would have been ended: list of (text, status)."""
  found = []
  monkeypatch.setattr(watch, 'leave', lambda *end: found.append(end))
  monkeypatch.setattr(watch, 'LOOK_SECS', 0.02)
  monkeypatch.setattr(watch, '_PROBE_SECS', 0.2)
  return found


def test_ends_a_worker_when_the_training_is_over(ends):
  with watch.Watch([('ps 0', nowhere())], 1000, is_over=lambda: True):
    wait_until(lambda: ends)
  assert ends[0] == ('The training is over.', 0)


@pytest.mark.slow
def test_a_pause_may_take_any_time_and_beats_hold_off_the_end(ends):
  with watch.Watch([('ps 0', nowhere())], 0.5) as watching:
    with watching.pause():
      time.sleep(1)
    for _ in range(10):
      time.sleep(0.1)
      watching.beat()
    assert not ends
    wait_until(lambda: ends)
  assert ends[0][1] == 1 and 'Gave up: no step for 0 s' in ends[0][0]


@pytest.mark.slow
def test_a_wait_lasts_while_peers_answer_and_no_longer(ends, listener):
  with watch.Watch([('chief 0', address(listener))], 0.5) as watching:
    for _ in range(10):
      watching.wait(0.1)
    assert not ends
  with watch.Watch([('chief 0', nowhere())], 0.5) as watching:
    for _ in range(10):
      watching.wait(0.1)
  assert ends[0][1] == 1 and 'no answer from chief 0' in ends[0][0]


def test_the_handler_of_before_is_back_afterwards():
  before = signal.getsignal(signal.SIGTERM)
  with watch.Watch([], 1):
    assert signal.getsignal(signal.SIGTERM) != before
  assert signal.getsignal(signal.SIGTERM) == before


def test_works_without_signals_in_another_thread(ends):
  before, found = signal.getsignal(signal.SIGTERM), []

  def train():
    try:
      with tf.Graph().as_default(), watch.Watch(
          [('ps 0', nowhere())], 0.5) as watching:
        found.append(signal.getsignal(signal.SIGTERM))
        step = tf.assign_add(tf.train.create_global_step(), 1)
        with tf.train.SingularMonitoredSession([watching]) as session:
          found.append(int(session.run(step)))
        wait_until(lambda: ends)  # it still watches
      found.append('end')
    except BaseException as error:
      found.append(error)

  thread = threading.Thread(target=train)
  thread.start()
  thread.join(60)
  assert found == [before, 1, 'end']
  assert ends[0][1] == 1 and 'no answer from ps 0' in ends[0][0]
  assert signal.getsignal(signal.SIGTERM) == before


def test_leaves_no_thread_and_no_open_file(ends):
  def count():
    return len(os.listdir('/proc/self/fd')), threading.active_count()
  before = count()
  for _ in range(5):
    with watch.Watch([], 1):
      pass
  wait_until(lambda: count() <= before)


def test_workers_wait_for_the_checkpoint(tmp_path, monkeypatch):
  monkeypatch.setattr(watch, 'LOOK_SECS', 0.02)
  save(str(tmp_path), 0)
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
      save(str(tmp_path), saved)
    wait_until(lambda: found and found[-1] >= min(12, saved + 4))
    time.sleep(0.5)
    assert min(12, saved + 4) <= found[-1] <= most
  worker.join(20)
  assert not worker.is_alive()


def test_workers_do_not_wait_behind_the_checkpoint(tmp_path):
  # As after the loss of a parameter server, until the restore.
  save(str(tmp_path), 100)
  hook = watch.WaitForCheckpoint(str(tmp_path), 5, watch.Watch([], 1000))
  add = tf.assign_add(tf.train.create_global_step(), 1)
  with tf.train.SingularMonitoredSession([hook]) as session:
    assert [session.run(add) for _ in range(20)][-1] == 20


# ---------------------------------------------------------- other processes


@pytest.mark.slow
def test_ends_a_stuck_process_and_names_who_does_not_answer(listener):
  away = nowhere()
  status, text = Process('''
with watch.Watch([('ps 0', sys.argv[1]), ('ps 1', sys.argv[2])], 3):
  blocked()
''', address(listener), away).end()
  assert status == 1
  assert 'Gave up: no step for 3 s (Experiment.peer_timeout_secs); ' in text
  assert 'no answer from ps 1 at %s.' % away in text


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


@pytest.mark.slow
def test_sigterm_breaks_off_a_pause(tmp_path):
  process = Process(TRAINS, tmp_path, 'paused')
  process.wait_for('ready')
  begin = time.time()
  process.send(signal.SIGTERM)
  status, text = process.end()
  assert status == 143, text
  assert time.time() - begin < 60
  assert marker.latest_step(str(tmp_path)) is None  # saved before evaluations


@pytest.mark.slow
def test_sigterm_ends_a_process_that_no_signal_reaches():
  process = Process('''
watch._STUCK_SECS = 2
with watch.Watch([('ps 0', sys.argv[1])], 1000) as watch:
  blocked()
''', nowhere())
  process.wait_for('ready')
  process.send(signal.SIGTERM)
  status, text = process.end()
  assert status == 143, text
