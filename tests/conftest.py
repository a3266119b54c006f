import gc
import logging
import os
import re
import signal
import subprocess
import sys

from absl import flags
from absl import logging as absl_logging
import gin
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import run as run_module
from ple_estimator.embeddings import keyed_table
from ple_estimator.engine import compat
from ple_estimator.engine import native
from ple_estimator.engine import purpose
from ple_estimator.optimizers import train_op as train_op_lib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REAL_ROWS = os.path.join(ROOT, '..', 'shared', 'data', 'taobao',
                         'taobao_10k.csv')
sys.path.append(os.path.join(ROOT, 'tools'))

from ple_estimator.commands import local_cluster
from ple_estimator.commands import words

compat.quiet()

# A port is free until its process has started, which takes seconds: tests that
# run side by side (pytest -n) choose among ports of their own.
_SIDE = int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:]) % 8
_FIRST, _END = local_cluster._PORTS
_WIDTH = (_END - _FIRST) // 8
local_cluster._PORTS = (_FIRST + _SIDE * _WIDTH, _FIRST + (_SIDE + 1) * _WIDTH)

# For tests, or their parameters, that run the fused kernels: skipped, in one
# line that says why, where there are none. Asked when the test begins.
needs_kernels = pytest.mark.needs_kernels


def pytest_collection_finish():
  """Has Python's garbage collector leave alone what is imported by now.

  TensorFlow's modules are some hundred thousand objects, which live as long as
  the process. The many objects of a graph had them searched again and again,
  a quarter of the time that it took to build one.
  """
  gc.collect()
  gc.freeze()


def pytest_runtest_setup(item):
  # A parameter of this name says whether a test runs the kernels.
  params = item.callspec.params if hasattr(item, 'callspec') else {}
  needed = (item.get_closest_marker('needs_kernels') or params.get('fused') or
            params.get('op_fusion'))
  if needed and native.missing():
    pytest.skip('needs the fused kernels: ' + native.missing())


@pytest.fixture(autouse=True, scope='session')
def _own_cache(tmp_path_factory):
  """What tests remember is not the user's."""
  os.environ['XDG_CACHE_HOME'] = str(tmp_path_factory.mktemp('cache'))


@pytest.fixture(autouse=True)
def _clean():
  """Every test starts with no bindings and an empty graph."""
  gin.clear_config()
  with tf.Graph().as_default():
    yield
  gin.clear_config()


def tool(name, *args, **kwargs):
  """Runs a program of tools/ as a user does; returns the CompletedProcess."""
  return subprocess.run(
      [sys.executable, os.path.join(ROOT, 'tools', name + '.py')]
      + list(map(str, args)), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      universal_newlines=True, cwd=kwargs.get('cwd', ROOT),
      env=dict(os.environ, PYTHONPATH=ROOT))


@pytest.fixture(scope='session')
def made(tmp_path_factory):
  """A folder with 60,000, 20,000 and 20,000 generated rows."""
  path = tmp_path_factory.mktemp('made')
  done = tool('make_data', '--out', path, '--train', 60000,
              '--validation', 20000, '--test', 20000)
  assert done.returncode == 0, done.stderr
  return path


@pytest.fixture(scope='session')
def object_server():
  """The S3 server of all tests of a process."""
  pytest.importorskip('moto', reason='the S3 server is of the extra `test`')
  import object_store
  with object_store.served() as server:
    yield server


@pytest.fixture
def store(object_server, monkeypatch):
  """An S3 server on loopback, to which s3:// leads: object_store.Server."""
  object_server.lead(monkeypatch.setenv)
  return object_server


@pytest.fixture
def command(capsys):
  """Runs `ple-estimator <word> ...` in this process: (status, out, err)."""
  def run(word, *args):
    try:
      status = words.run(word, list(map(str, args)))
    except SystemExit as end:  # argparse
      status = end.code
    said = capsys.readouterr()
    return status, said.out, said.err
  return run


@pytest.fixture(scope='session')
def taobao(tmp_path_factory):
  """A folder with 3,000, 1,000 and 1,000 generated rows."""
  path = str(tmp_path_factory.mktemp('taobao'))
  subprocess.check_call([
      sys.executable, os.path.join(ROOT, 'tools', 'make_data.py'),
      '--out', path, '--train', '3000', '--validation', '1000',
      '--test', '1000'])
  return path


@pytest.fixture
def many_rows(taobao, tmp_path):
  """Returns a function that writes the 3,000 rows many times over.

  Its file has a million rows in the time in which make_data draws 50,000.
  """
  def write(copies):
    """Writes a file of CSV, and one of Parquet with .parquet behind its name.

    Args:
      copies: int.

    Returns:
      str, the path of the CSV file.
    """
    path = str(tmp_path / ('times-%d' % copies))
    source = os.path.join(taobao, 'taobao_train_data')
    with open(source, 'rb') as f:
      text = f.read()
    with open(path, 'wb') as f:
      for _ in range(copies):
        f.write(text)
    table = pa.parquet.read_table(source + '.parquet')
    with pa.parquet.ParquetWriter(path + '.parquet', table.schema) as writer:
      for _ in range(copies):
        writer.write_table(table)
    return path
  return write


def train_op(optimizer, loss, clip_norm=None, fused=False, averaging=None):
  """train_op.build of the gradients of a loss by all that is trained."""
  trained = tf.trainable_variables() + [
      table.source for table in keyed_table.of_graph()]
  return train_op_lib.build(
      optimizer, list(zip(tf.gradients(loss, trained), trained)),
      purpose.Purpose(training=True, fused=fused), clip_norm, averaging)


def free_port():
  """A TCP port that nobody listens on."""
  return local_cluster.free_ports(1)[0]


def peak_mb():
  """The peak memory of this process in MB.

  Not ru_maxrss, which begins with that of the process that started this one.
  """
  with open('/proc/self/status') as f:
    return int(re.search(r'VmHWM:\s+(\d+)', f.read()).group(1)) // 1024


@pytest.fixture
def run_here(capfd, monkeypatch):
  """Runs the flags of `python -m ple_estimator.run` in this process.

  Several times faster than `run_cli`, whose process imports TensorFlow anew.
  Returns what subprocess.run does.
  """
  def run(*args, **kwargs):
    if 'cwd' in kwargs:
      monkeypatch.chdir(kwargs['cwd'])
    handler, handlers = signal.getsignal(signal.SIGTERM), logging.root.handlers
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.INFO)
    try:
      with tf.Graph().as_default():
        status = run_module.main(flags.FLAGS(
            ['ple_estimator.run'] + list(args)))
    finally:
      flags.FLAGS.unparse_flags()
      for name in ('gin_file', 'gin_bindings', 'mode'):
        flags.FLAGS[name].unparse()
      signal.signal(signal.SIGTERM, handler)
      logging.root.handlers = handlers
      absl_logging.set_verbosity(verbosity)
    said = capfd.readouterr()
    return subprocess.CompletedProcess(args, status, said.out, said.err)
  return run


@pytest.fixture
def run_cli():
  """Runs `python -m ple_estimator.run` as a process of its own."""
  def run(*args, **kwargs):
    kwargs.setdefault('cwd', ROOT)
    return subprocess.run(
        [sys.executable, '-m', 'ple_estimator.run'] + list(args),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True, **kwargs)
  return run
