"""How parameter servers end."""

import json
import signal
import time

from processes import Process
from processes import nowhere
import pytest

from ple_estimator.cluster import parameter_servers
from ple_estimator.cluster import roles

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


@pytest.fixture
def chief(tf_config, monkeypatch, tmp_path):
  """The RunConfig of this process as the chief, and its server."""
  monkeypatch.setenv('TF_CONFIG', tf_config('chief'))
  config = roles.run_config(str(tmp_path))
  return config, roles.server(config)


@pytest.mark.slow
def test_parameter_servers_end_with_the_job(tmp_path, tf_config, chief):
  servers = [Process(SERVES, tmp_path, 1000, TF_CONFIG=tf_config('ps', i))
             for i in range(2)]
  parameter_servers.end_parameter_servers(chief[0])
  for process in servers:
    status, text = process.end()
    assert status == 0, text
    assert 'The job is done.' in text


def test_the_end_of_a_job_does_not_wait_for_a_lost_server(
    chief, monkeypatch, caplog):
  monkeypatch.setattr(parameter_servers, '_STOP_SECS', 2)
  begin = time.time()
  parameter_servers.end_parameter_servers(chief[0])
  assert 2 <= time.time() - begin < 20
  assert 'Parameter server 0, 1 did not answer when told that' in caplog.text


def test_parameter_servers_end_on_sigterm(tmp_path, tf_config):
  process = Process(SERVES, tmp_path, 1000, TF_CONFIG=tf_config('ps'))
  process.wait_for('Parameter server 0 at ')
  time.sleep(1)  # it says so before it listens to signals
  process.send(signal.SIGTERM)
  status, text = process.end()
  assert status == 143, text


@pytest.mark.slow
def test_parameter_servers_give_up_without_a_chief(tmp_path, tf_config):
  status, text = Process(
      SERVES, tmp_path, 3, TF_CONFIG=tf_config('ps')).end()
  assert status == 1
  assert 'Gave up: chief 0 at localhost:' in text
  assert 'did not answer for 3 s (Experiment.peer_timeout_secs)' in text
