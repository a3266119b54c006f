"""Building and loading the kernels, and doing without."""

import glob
import os
import re
import stat
import subprocess
import sys

import conftest
import numpy as np
import pyarrow as pa
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.engine import build
from ple_estimator.engine import native


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
  folder = str(tmp_path / 'cache')
  monkeypatch.setattr(build, '_folders', lambda: [folder])
  return folder


@pytest.fixture
def no_compiling(monkeypatch):
  """Makes an empty file the library; returns the folders it was built in."""
  built_in = []

  def run(commands):
    output = commands[0][commands[0].index('-o') + 1]
    if output.endswith('library.so'):
      open(output, 'w').close()
      built_in.append(stat.S_IMODE(os.stat(os.path.dirname(output)).st_mode))

  monkeypatch.setattr(build, '_run', run)
  monkeypatch.setattr(build, '_onednn', lambda: '/usr')
  monkeypatch.setattr(build, '_compiler', lambda: ['true'])
  return built_in


def test_builds_once(empty_cache, no_compiling):
  path = build.path()
  assert os.path.dirname(path) == empty_cache
  assert os.listdir(empty_cache) == [os.path.basename(path)]
  assert build.path() == path
  assert no_compiling == [0o700]


def test_what_is_built_is_nobody_elses_to_write(empty_cache, no_compiling):
  before = os.umask(0)
  try:
    path = build.path()
  finally:
    os.umask(before)
  for made in (path, empty_cache):
    assert not stat.S_IMODE(os.stat(made).st_mode) & 0o022


@pytest.mark.parametrize('which', ['folder', 'file'])
@pytest.mark.parametrize('mode', [0o020, 0o002])
def test_others_must_not_be_able_to_write(
    monkeypatch, tmp_path, caplog, no_compiling, which, mode):
  folders = [str(tmp_path / 'first'), str(tmp_path / 'second')]
  monkeypatch.setattr(build, '_folders', lambda: folders)
  first = build.path()
  assert os.path.dirname(first) == folders[0]
  unsafe = folders[0] if which == 'folder' else first
  os.chmod(unsafe, 0o755 | mode)
  again = build.path()
  lines = [r.getMessage() for r in caplog.records if unsafe in r.getMessage()
           and 'others may write' in r.getMessage()]
  assert len(lines) == 1 and '\n' not in lines[0]
  assert len(no_compiling) == 2  # built anew, not taken from there
  assert os.path.dirname(again) == folders[which == 'folder']


def test_the_library_of_another_user_is_not_taken(
    monkeypatch, caplog, empty_cache, no_compiling):
  build.path()
  owner = os.stat(empty_cache).st_uid
  monkeypatch.setattr(os, 'geteuid', lambda: 12345)
  if owner:
    with pytest.raises(build.Unavailable):
      build.path()
    assert 'belongs to the user number %d' % owner in caplog.text
  else:
    assert build.path()  # root's is taken by all
    os.chown(empty_cache, 54321, -1)
    with pytest.raises(build.Unavailable):
      build.path()
    assert 'belongs to the user number 54321' in caplog.text


def test_another_source_is_another_library(monkeypatch):
  before = build._digest()
  monkeypatch.setattr(build, '_flags', lambda: ['-O0'])
  assert build._digest() != before


@pytest.mark.parametrize('attribute, value, message', [
    ('_compiler', lambda: ['no-such-compiler', '-x'],
     'there is no compiler no-such-compiler'),
    ('_flags', lambda: ['-no-such-flag'], 'no-such-flag'),
    ('_onednn', None, 'oneDNN is not installed .pip install onednn-cpu-gomp'),
    ('_folders', lambda: ['/proc/none'], 'no folder can be written to'),
])
def test_says_why_there_are_no_kernels(
    empty_cache, monkeypatch, caplog, attribute, value, message):
  if attribute == '_onednn':
    monkeypatch.setattr(build.sys, 'prefix', empty_cache)
    monkeypatch.setattr(build.site, 'getuserbase', lambda: empty_cache)
    monkeypatch.setattr(build, '_compiler', lambda: ['true'])
  else:
    monkeypatch.setattr(build, attribute, value)
    if attribute == '_flags':
      monkeypatch.setattr(build, '_onednn', lambda: '/usr')
  if attribute == '_flags' and not build.shutil.which('g++'):
    pytest.skip('there is no compiler to refuse a flag')
  library, why = native._loaded.__wrapped__()
  assert library is None and '\n' not in why and re.search(message, why)
  said = [r.getMessage() for r in caplog.records
          if 'Fused kernels are not used' in r.getMessage()]
  assert len(said) == 1 and why in said[0]
  assert not os.path.isdir(empty_cache) or not os.listdir(empty_cache)


def test_where_tensorflow_sees_a_gpu_they_are_not_used(monkeypatch, caplog):
  asked = []

  def devices(kind):
    asked.append(kind)
    return ['a device']

  monkeypatch.setattr(
      tf.config.experimental, 'list_physical_devices', devices)
  library, why = native._loaded.__wrapped__()
  assert library is None and 'GPU' in why and asked == ['GPU']
  said = [r.getMessage() for r in caplog.records if 'GPU' in r.getMessage()]
  assert len(said) == 1 and '\n' not in said[0]


def test_cxx_names_the_compiler(monkeypatch):
  monkeypatch.setenv('CXX', 'ccache g++-11')
  assert build._compiler() == ['ccache', 'g++-11']
  monkeypatch.setenv('CXX', '')
  assert build._compiler() == ['g++']


def compilers():
  """The g++-N on PATH, of versions that are to work."""
  found = {os.path.basename(path) for folder in os.environ['PATH'].split(':')
           for path in glob.glob(os.path.join(folder, 'g++-*'))}
  return sorted(name for name in found if re.match(r'g\+\+-(9|1[0-3])$', name))


# A product and a hash by the library that CXX builds.
_USE = '''
import sys
import numpy as np
import pyarrow as pa
from ple_estimator.engine import compat
import tensorflow.compat.v1 as tf
from ple_estimator.engine import native
from ple_estimator.engine import build
build._folders = lambda: [sys.argv[1]]
build._OPTIONS.append('-Werror')
assert not native.missing(), native.missing()
x = np.random.RandomState(0).randn(70, 9).astype('f')
w = np.random.RandomState(1).randn(9, 5).astype('f')
y = native._ops().ple_nets(
    [x], [w], tf.zeros([0]), 0, num_nets=1, net_input=[0], num_hidden=[0],
    linear=[1], batch_norm=False, training=True).outputs[0]
texts = [b'a', b'bc', b'x' * 40]
ids = tf.strings.to_hash_bucket_fast(texts, 1000)
with tf.Session() as sess:
  product, wanted = sess.run([y, ids])
np.testing.assert_allclose(product, x.dot(w), rtol=1e-5, atol=1e-5)
np.testing.assert_array_equal(
    native.hash_text(pa.array(texts, pa.binary()), 1000, -1), wanted)
'''


@pytest.mark.slow
@pytest.mark.parametrize('compiler', compilers() or [
    pytest.param('', marks=pytest.mark.skip('no g++-9 to g++-13 on PATH'))])
def test_a_compiler_builds_without_warnings(compiler, tmp_path):
  done = subprocess.run(
      [sys.executable, '-W', 'ignore', '-c', _USE, str(tmp_path / 'cache')],
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
      cwd=conftest.ROOT, env=dict(os.environ, CXX=compiler))
  assert done.returncode == 0, done.stdout


@conftest.needs_kernels
def test_empty_arrays():
  assert len(native.hash_text(pa.array([], pa.binary()), 10, -1)) == 0
  ids, splits, places = native.hash_lists(
      pa.array([], pa.binary()), b'|', 10, True)
  assert len(ids) == len(places) == 0 and splits.tolist() == [0]
  rows, index = native.unique(np.zeros([0], np.int64))
  assert len(rows) == 0 and len(index) == 0
