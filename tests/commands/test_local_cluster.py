"""The tool that runs a cluster on one machine, as a user runs it."""

import os
import signal
import subprocess
import sys
import time

import conftest
from experiments import FEW_COLUMNS
from experiments import SMALL
from experiments import metrics_of
import pytest

from ple_estimator.commands import local_cluster


def bindings(tmp_path, taobao, *more):
  return ['--gin_file=gin/base.gin'] + [
      '--gin_bindings=' + line for line in SMALL + FEW_COLUMNS + [
          'PLE.num_levels = 1', 'DATA_DIR = %r' % taobao,
          'Experiment.model_dir = %r' % str(tmp_path / 'model')] + list(more)]


def start(tmp_path, *args):
  # A shell that runs something in the background lets it ignore Ctrl-C, and so
  # what it starts.
  return subprocess.Popen(
      [sys.executable, '-m', 'ple_estimator.run', 'local-cluster', '--log_dir',
       str(tmp_path / 'logs')] + list(args),
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=conftest.ROOT,
      env=dict(os.environ, PYTHONPATH=conftest.ROOT), universal_newlines=True,
      preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def test_ports_differ_and_are_free():
  ports = local_cluster.free_ports(20)
  assert len(set(ports)) == 20
  assert not any(local_cluster.is_listening('localhost:%d' % p) for p in ports)


@pytest.mark.parametrize('code, status', [
    (0, 0), (3, 3), (-signal.SIGKILL, 137), (-signal.SIGTERM, 143)])
def test_exit_status_is_that_of_a_shell(code, status):
  assert local_cluster.exit_status(code) == status


# Stands for a task: what it does depends on who it is.
TASK = '''
import json, os, sys, time
task = json.loads(os.environ['TF_CONFIG'])['task']
name = '%s-%d' % (task['type'], task['index'])
print('I am', name, flush=True)
path = os.path.join(sys.argv[1], name)
again = os.path.exists(path)
open(path, 'w').close()
sys.exit({'worker-0': 0 if again else 143}.get(name, 0))
'''


def test_a_process_with_status_143_is_started_again(tmp_path):
  lines = []
  cluster = local_cluster.LocalCluster(
      {'chief': 1, 'worker': 1, 'ps': 1},
      [sys.executable, '-c', TASK, str(tmp_path)], str(tmp_path / 'logs'),
      show=lines.append)
  assert cluster.run(restarts=1) == 0
  cluster.stop()
  assert cluster.log('worker-0').count('I am worker-0') == 2
  assert sorted({line.split()[0] for line in lines}) == [
      'chief-0', 'ps-0', 'worker-0']
  os.remove(str(tmp_path / 'worker-0'))
  assert cluster.run() == 143
  cluster.stop()


def test_the_worst_status_is_that_of_the_job(tmp_path):
  tool = start(tmp_path, '--workers', '1', '--ps', '1', '--',
               '--gin_file=gin/base.gin', '--checkpoint=best')
  said, _ = tool.communicate(timeout=120)
  assert tool.returncode == 1, said
  assert 'ple_estimator: --checkpoint is for the modes evaluate' in said


@pytest.mark.cluster
def test_a_job_from_the_command_line(tmp_path, taobao):
  tool = start(
      tmp_path, '--workers', '1', '--ps', '1', '--evaluator', '1', '--',
      *bindings(tmp_path, taobao, 'Experiment.max_steps = 30'))
  said, _ = tool.communicate(timeout=300)
  assert tool.returncode == 0, said
  assert metrics_of(tmp_path / 'model')['global_step'] >= 30
  assert os.path.exists(str(tmp_path / 'model' / 'export' / 'latest'))
  for name in ('chief-0', 'worker-0', 'ps-0', 'evaluator-0'):
    assert name in said
    assert os.path.getsize(str(tmp_path / 'logs' / (name + '.log')))


@pytest.mark.cluster
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_end_of_the_tool_is_the_end_of_all(tmp_path, taobao, number):
  tool = start(
      tmp_path, '--workers', '1', '--ps', '1', '--',
      *bindings(tmp_path, taobao))
  said = []
  for line in tool.stdout:
    said.append(line)
    if 'steps/s' in line:
      break
  # A terminal sends Ctrl-C to all processes; whoever sends it to the tool alone
  # expects the same.
  tool.send_signal(number)
  rest, _ = tool.communicate(timeout=120)
  assert tool.returncode == 128 + number, ''.join(said) + rest
  time.sleep(0.5)
  found = subprocess.run(
      ['pgrep', '-f', str(tmp_path / 'model')], stdout=subprocess.PIPE)
  assert not found.stdout
