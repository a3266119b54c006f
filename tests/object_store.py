"""An S3 server on loopback, and a connection to it that drops.

The server is moto's, from PyPI: it keeps buckets in memory and can check the
signatures of requests. It runs in a process of its own, as S3 does.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from urllib import request

import conftest
import pyarrow as pa
import pyarrow.fs

BUCKET = 'rows'
# Not the user's, and no other machine is asked for better ones.
ENVIRONMENT = {
    'AWS_ACCESS_KEY_ID': 'testing', 'AWS_SECRET_ACCESS_KEY': 'testing',
    'AWS_EC2_METADATA_DISABLED': 'true', 'AWS_DEFAULT_REGION': 'us-east-1',
    'AWS_CONFIG_FILE': os.devnull, 'AWS_SHARED_CREDENTIALS_FILE': os.devnull}


class Server:
  """The server, and a client of pyarrow's own to fill it.

  Attributes:
    address: str, 'host:port'.
  """

  def __init__(self, address):
    self.address = address
    self.client = pa.fs.S3FileSystem(
        access_key='testing', secret_key='testing', region='us-east-1',
        scheme='http', endpoint_override=address, allow_bucket_creation=True)

  def lead(self, set_variable):
    """Sets the environment so that s3:// leads to this server.

    Args:
      set_variable: function of a name and a value.
    """
    for name, value in ENVIRONMENT.items():
      set_variable(name, value)
    set_variable('AWS_ENDPOINT_URL', 'http://' + self.address)

  def put(self, name, content):
    """Writes an object, bytes or the text of one; returns its URI."""
    if isinstance(content, str):
      content = content.encode()
    bucket, _, _ = name.partition('/')
    self.client.create_dir(bucket)
    with self.client.open_output_stream(name, compression=None) as stream:
      stream.write(content)
    return 's3://' + name

  def put_folder(self, name, folder):
    """Writes all files of a local folder below a name; returns its URI."""
    for at, _, names in os.walk(str(folder)):
      for file_name in names:
        path = os.path.join(at, file_name)
        with open(path, 'rb') as f:
          self.put('%s/%s' % (name, os.path.relpath(path, str(folder))),
                   f.read())
    return 's3://' + name


@contextlib.contextmanager
def served():
  """Runs a server: yields a Server."""
  address = '127.0.0.1:%d' % conftest.free_port()
  with subprocess.Popen(
      [sys.executable, '-m', 'moto.server', '-H', '127.0.0.1', '-p',
       address.rpartition(':')[2]], stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL, env=dict(os.environ, **ENVIRONMENT)) as server:
    try:
      _wait_for('http://%s/moto-api/data.json' % address, server)
      yield Server(address)
    finally:
      server.terminate()


def _wait_for(url, server):
  until = time.time() + 60
  while True:
    try:
      return request.urlopen(url, timeout=5).read()
    except OSError:
      assert server.poll() is None and time.time() < until, 'no server'
      time.sleep(0.1)


class Proxy:
  """Passes connections on to a server, and cuts some of them.

  Attributes:
    address: str, 'host:port', in place of the server's.
    cuts: int, how many connections are still to be cut.
    after: int, bytes of an answer after which a connection is cut.
    connections: int, how many there have been.
  """

  def __init__(self, server):
    self.cuts, self.after, self.connections = 0, 0, 0
    self._server = server.rpartition(':')
    self._listening = socket.socket()
    self._listening.bind(('127.0.0.1', 0))
    self._listening.listen(64)
    self.address = '127.0.0.1:%d' % self._listening.getsockname()[1]
    threading.Thread(target=self._accept, daemon=True).start()

  def close(self):
    """Takes no more connections."""
    self._listening.close()

  def _accept(self):
    while True:
      try:
        client, _ = self._listening.accept()
      except OSError:
        return
      self.connections += 1
      server = socket.create_connection(
          (self._server[0], int(self._server[2])))
      threading.Thread(target=self._pass, args=(client, server),
                       daemon=True).start()
      threading.Thread(target=self._answer, args=(server, client),
                       daemon=True).start()

  def _pass(self, source, target):
    with contextlib.suppress(OSError):
      while True:
        data = source.recv(1 << 16)
        if not data:
          break
        target.sendall(data)
    _end(source, target)

  def _answer(self, source, target):
    passed = 0
    with contextlib.suppress(OSError):
      while True:
        data = source.recv(1 << 16)
        if not data:
          break
        passed += len(data)
        if self.cuts > 0 and passed > self.after:
          self.cuts -= 1
          target.sendall(data[:max(0, len(data) - passed + self.after)])
          break
        target.sendall(data)
    _end(source, target)


def _end(*sockets):
  for each in sockets:
    with contextlib.suppress(OSError):
      each.shutdown(socket.SHUT_RDWR)
    each.close()
