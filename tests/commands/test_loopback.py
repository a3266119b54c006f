"""A local cluster is not reached from outside."""

import socket
import subprocess
import sys

import conftest

from ple_estimator.commands import local_cluster
from ple_estimator.commands import loopback

# A server on all interfaces, as TensorFlow's, and a client beside it.
SERVE = '''
import socket, subprocess, sys
from ple_estimator.commands import local_cluster
local_cluster.enter_own_network()
server = socket.socket()
server.bind(('', 0))
server.listen(5)
port = server.getsockname()[1]
beside = subprocess.run([sys.executable, '-c', """
from ple_estimator.commands import local_cluster
print(local_cluster.is_listening('localhost:%d'))
""" % port], stdout=subprocess.PIPE).stdout.decode().strip()
print(port, beside, flush=True)
sys.stdin.read()
'''


def test_who_is_outside_does_not_reach_it():
  process = subprocess.Popen(
      [sys.executable, '-c', SERVE], stdin=subprocess.PIPE,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=conftest.ROOT,
      universal_newlines=True)
  port, beside = process.stdout.readline().split()
  reached = local_cluster.is_listening('localhost:' + port)
  _, said = process.communicate('')
  assert beside == 'True'
  # Not every system allows it; then a line says so.
  assert reached == ('listen on all interfaces' in said)


def test_where_it_is_not_allowed_a_line_says_so(monkeypatch, capsys):
  def refuse():
    raise PermissionError(1, 'Operation not permitted')
  monkeypatch.setattr(loopback, 'enter', refuse)
  local_cluster.enter_own_network()
  said = capsys.readouterr().err
  assert said.startswith('The servers of this cluster listen on all interfaces')
  assert '(A network of their own is not allowed here: Operation not' in said
  assert said.count('\n') == 1


def test_what_fails_half_way_changes_nothing(monkeypatch):
  def fail(name):
    raise OSError(19, 'No such device')
  monkeypatch.setattr(loopback, '_bring_up', fail)
  before = set(socket.if_nameindex())
  try:
    loopback.enter()
  except OSError:
    pass
  assert set(socket.if_nameindex()) == before
