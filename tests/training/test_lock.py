"""One run at a time in a model_dir."""

import json
import os
import signal
import socket
import subprocess
import sys

import conftest
import pytest

from ple_estimator import errors
from ple_estimator.training import lock
from ple_estimator.training import model_dir as model_dir_lib

HOLD = '''
import sys, time
from ple_estimator.training import lock
with lock.held(sys.argv[1]):
  print('held', flush=True)
  time.sleep(60)
'''


@pytest.fixture
def other(tmp_path):
  """Another process that holds the lock of tmp_path."""
  process = subprocess.Popen(
      [sys.executable, '-c', HOLD, str(tmp_path)], stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL, cwd=conftest.ROOT)
  assert process.stdout.readline() == b'held\n'
  yield process
  process.kill()
  process.wait()
  process.stdout.close()


def test_a_second_run_names_the_first_and_touches_nothing(tmp_path, other):
  (tmp_path / 'model.ckpt-50_temp').mkdir()  # what the first is saving
  with pytest.raises(errors.UserError) as caught:
    with model_dir_lib.owned(str(tmp_path)):
      pass
  text = str(caught.value)
  assert 'process %d of host %s' % (other.pid, socket.gethostname()) in text
  assert text.startswith('Experiment.model_dir must be that of one run at a '
                         'time: %s is in use' % tmp_path)
  assert '\n' not in text
  assert (tmp_path / 'model.ckpt-50_temp').exists()


def test_a_killed_process_leaves_no_lock(tmp_path, other):
  other.send_signal(signal.SIGKILL)
  other.wait()
  with lock.held(str(tmp_path)):
    said = json.loads((tmp_path / '.lock').read_text())
  assert said == {'host': socket.gethostname(), 'pid': os.getpid()}


def test_runs_of_one_process_come_one_after_another(tmp_path):
  for _ in range(2):
    with lock.held(str(tmp_path)):
      with pytest.raises(errors.UserError, match='in use by process'):
        with lock.held(str(tmp_path / '..' / tmp_path.name)):
          pass


def test_a_run_that_fails_leaves_no_lock(tmp_path):
  with pytest.raises(KeyError):
    with lock.held(str(tmp_path)):
      raise KeyError
  with lock.held(str(tmp_path)):
    pass


@pytest.mark.parametrize('text', [
    '', '{"ho', '[1]', '{"host": "elsewhere", "pid": 7}', '{"pid": "x"}'])
def test_who_is_not_seen_here_is_waited_for(tmp_path, monkeypatch, text, other):
  # A host that was lost keeps its locks until the server hears of it.
  (tmp_path / '.lock').write_text(text)
  waits = []
  monkeypatch.setattr(lock.time, 'sleep', lambda secs: (
      waits.append(secs), other.kill(), other.wait()))
  with lock.held(str(tmp_path), wait_secs=20):
    assert len(waits) == 1


def test_waiting_ends(tmp_path, other):
  (tmp_path / '.lock').write_text('{"host": "elsewhere", "pid": 7}')
  with pytest.raises(errors.UserError, match='process 7 of host elsewhere'):
    with lock.held(str(tmp_path), wait_secs=0):
      pass


def test_without_flock_a_run_is_warned(tmp_path, monkeypatch, caplog):
  def refuse(f, operation):
    raise OSError(95, 'Operation not supported')
  monkeypatch.setattr(lock.fcntl, 'flock', refuse)
  with lock.held(str(tmp_path)):
    pass
  assert 'cannot be locked (Operation not supported)' in caplog.text
