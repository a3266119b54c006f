r"""Runs the processes of a cluster on this machine.

  ple-estimator local-cluster --workers 2 --ps 2 --evaluator 1 -- \
      --gin_file=gin/bf16.gin --gin_bindings='EPOCHS = 5'

What comes after -- goes to `python -m ple_estimator.run` in every process.
Each gets the TF_CONFIG that Kubeflow's operator would set, with free ports. Its
output appears here with its name in front, and in a file of that name under
--log_dir. As with the operator, a process that ends with a status of 128 or
more is started again (--restarts times), any other status but 0 ends the job,
and the end of the chief ends it too. The exit status is the worst of all.

TensorFlow's servers listen on all interfaces and run what they are sent. So the
processes get a network of their own, a loopback that nobody else reaches. Where
the system does not allow that, a line says so and the job runs all the same:
keep it behind a firewall. --network=host asks for the network of the machine.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

from ple_estimator.commands import loopback

_ROLES = ('chief', 'worker', 'ps', 'evaluator')
_GRACE_SECS = 30
_POLL_SECS = 0.1
_PORTS = (15000, 32000)


def free_ports(count):
  """Returns TCP ports that no process listens on, all different."""
  ports = set()
  while len(ports) < count:
    # Not of those that the system gives to connections: any of them, even the
    # attempt to reach a process that is not up yet, could take the port away.
    port = random.randrange(*_PORTS)
    with socket.socket() as one:
      try:
        one.bind(('localhost', port))
      except OSError:
        continue
    ports.add(port)
  return list(ports)


def is_listening(address):
  """Whether 'host:port' takes connections."""
  host, _, port = address.rpartition(':')
  try:
    socket.create_connection((host, int(port)), 1).close()
    return True
  except OSError:
    return False


def exit_status(returncode):
  """The status as in a shell: 128 + signal number for a killed process."""
  return 128 - returncode if returncode < 0 else returncode


def enter_own_network():
  """Lets nobody else reach what this process starts; says if it cannot."""
  try:
    loopback.enter()
  except OSError as error:
    sys.stderr.write(
        'The servers of this cluster listen on all interfaces of this machine, '
        'and run what they are sent: keep others out by a firewall. (A network '
        'of their own is not allowed here: %s.)\n' % error.strerror)


class LocalCluster:
  """The processes of a cluster on this machine.

  Attributes:
    processes: dict of name, e.g. 'worker-0', to subprocess.Popen.
    addresses: dict of role to list of 'localhost:port'.
  """

  def __init__(self, counts, command, log_dir, show=None, env=None, cwd=None):
    """Stores the arguments; starts nothing.

    Args:
      counts: dict of 'chief', 'worker', 'ps', 'evaluator' to a number.
      command: list of str.
      log_dir: str, gets one file of output per process.
      show: function of a line of text, or None to show nothing.
      env: dict, the environment; None is this process's.
      cwd: str, the working directory.
    """
    ports = iter(free_ports(sum(counts.values())))
    self.addresses = {
        role: ['localhost:%d' % next(ports) for _ in range(counts[role])]
        for role in _ROLES if counts.get(role)}
    self.processes = {}
    self._command = command
    self._log_dir = log_dir
    self._show = show
    self._env = os.environ if env is None else env
    self._cwd = cwd
    self._readers = []
    os.makedirs(log_dir, exist_ok=True)
    for name in self.names():
      open(self.log_path(name), 'w').close()

  def names(self, *roles):
    """The names of the processes of some roles, or of all."""
    return ['%s-%d' % (role, i) for role in roles or _ROLES
            for i in range(len(self.addresses.get(role, ())))]

  def log_path(self, name):
    """Where the output of a process goes."""
    return os.path.join(self._log_dir, name + '.log')

  def log(self, name):
    """The output of a process up to now."""
    with open(self.log_path(name), errors='replace') as f:
      return f.read()

  def tf_config(self, name):
    """The environment variable TF_CONFIG of a process."""
    role, _, index = name.rpartition('-')
    return json.dumps({
        'cluster': self.addresses,
        'task': {'type': role, 'index': int(index)}, 'environment': 'cloud'})

  def start(self, *names):
    """Starts processes; without names, all."""
    for name in names or self.names():
      process = subprocess.Popen(
          self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
          cwd=self._cwd, env=dict(self._env, TF_CONFIG=self.tf_config(name)))
      self.processes[name] = process
      reader = threading.Thread(
          target=self._copy, args=(name, process.stdout), daemon=True)
      reader.start()
      self._readers.append(reader)

  def _copy(self, name, stream):
    with open(self.log_path(name), 'ab') as f:
      for line in stream:
        f.write(line)
        f.flush()
        if self._show:
          self._show('%-12s %s' % (
              name, line.decode('utf-8', 'replace').rstrip('\n')))

  def send(self, number, *names):
    """Sends a signal to the processes that still run."""
    for name in names or list(self.processes):
      if self.processes[name].poll() is None:
        self.processes[name].send_signal(number)

  def status(self, name):
    """The exit status of a process, None while it runs."""
    code = self.processes[name].poll()
    return None if code is None else exit_status(code)

  def stop(self, secs=_GRACE_SECS):
    """Ends what still runs: SIGTERM, and SIGKILL after some seconds."""
    self.send(signal.SIGCONT)
    self.send(signal.SIGTERM)
    deadline = time.time() + secs
    while time.time() < deadline and any(
        p.poll() is None for p in self.processes.values()):
      time.sleep(_POLL_SECS)
    self.send(signal.SIGKILL)
    for process in self.processes.values():
      process.wait()
    for reader in self._readers:
      reader.join(1)

  def run(self, restarts=0):
    """Starts all and waits for the end of the job.

    Args:
      restarts: int, how often a process is started again whose status is 128
        or more.

    Returns:
      int, the worst exit status; those of processes that had to be ended
      because another failed do not count.
    """
    self.start()
    worst, left = 0, {name: restarts for name in self.names()}
    running = set(self.names())
    leader = (self.names('chief') or self.names('worker'))[0]
    deadline = None
    while running and (deadline is None or time.time() < deadline):
      time.sleep(_POLL_SECS)
      for name in sorted(running):
        status = self.status(name)
        if status is None:
          continue
        if status >= 128 and left[name]:
          left[name] -= 1
          self.start(name)
          continue
        running.remove(name)
        worst = max(worst, status)
        if status:
          return worst
        if name == leader:
          deadline = time.time() + _GRACE_SECS
    return worst


def main(arguments=None):
  """Runs a cluster; returns the exit status, the worst of its processes'.

  Args:
    arguments: list of str; None takes those of the process.
  """
  parser = argparse.ArgumentParser(
      prog='ple-estimator local-cluster', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--chief', type=int, default=1, choices=(0, 1),
                      help='0 lets the first worker lead')
  parser.add_argument('--workers', type=int, default=1)
  parser.add_argument('--ps', type=int, default=1)
  parser.add_argument('--evaluator', type=int, default=0, choices=(0, 1))
  parser.add_argument('--restarts', type=int, default=0)
  parser.add_argument('--network', choices=('own', 'host'), default='own')
  parser.add_argument('--log_dir', default=os.path.join('result', 'logs'))
  parser.add_argument('arguments', nargs='+', metavar='-- ARGUMENTS',
                      help='of python -m ple_estimator.run')
  args = parser.parse_args(arguments)
  if args.network == 'own':
    enter_own_network()
  cluster = LocalCluster(
      {'chief': args.chief, 'worker': args.workers, 'ps': args.ps,
       'evaluator': args.evaluator},
      [sys.executable, '-u', '-m', 'ple_estimator.run'] + args.arguments,
      args.log_dir, show=lambda line: print(line, flush=True))
  signal.signal(signal.SIGTERM, lambda *unused: sys.exit(
      128 + signal.SIGTERM))
  try:
    return cluster.run(args.restarts)
  except KeyboardInterrupt:
    return 128 + signal.SIGINT
  finally:
    cluster.stop()

