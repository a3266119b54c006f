"""Building the kernels, and doing without."""

import os
import re

import pyarrow as pa
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.engine import native


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
  folder = str(tmp_path / 'cache')
  monkeypatch.setattr(native, '_folders', lambda: [folder])
  return folder


@pytest.mark.slow
def test_builds_once(empty_cache):
  path = native._path()
  assert os.path.dirname(path) == empty_cache
  assert os.listdir(empty_cache) == [os.path.basename(path)]
  built = os.path.getmtime(path)
  assert native._path() == path and os.path.getmtime(path) == built


def test_another_source_is_another_library(monkeypatch):
  before = native._digest()
  monkeypatch.setattr(native, '_flags', lambda: ['-O0'])
  assert native._digest() != before


@pytest.mark.parametrize('attribute, value, message', [
    ('_COMPILER', 'no-such-compiler', 'there is no compiler no-such-compiler'),
    ('_flags', lambda: ['-no-such-flag'], 'unrecognized command-line option'),
    ('_onednn', None, 'oneDNN is not installed .pip install onednn-cpu-gomp'),
    ('_folders', lambda: ['/proc/none'], 'no folder can be written to'),
])
def test_says_why_there_are_no_kernels(
    empty_cache, monkeypatch, caplog, attribute, value, message):
  if attribute == '_onednn':
    monkeypatch.setattr(native.sys, 'prefix', empty_cache)
    monkeypatch.setattr(native.site, 'getuserbase', lambda: empty_cache)
  else:
    monkeypatch.setattr(native, attribute, value)
  assert native._library.__wrapped__() is None
  assert 'Fused kernels are not used' in caplog.text
  assert re.search(message, caplog.text)
  assert not os.path.isdir(empty_cache) or not os.listdir(empty_cache)


def test_ops_refuse_what_does_not_fit():
  module = native._library()[0]
  x, kernel = tf.zeros([2, 3]), tf.zeros([4, 5])
  cases = [
      (module.ple_nets([x], [kernel], tf.zeros([0]), num_nets=1, net_input=[0],
                       num_hidden=[0], linear=[1], batch_norm=False,
                       training=True).outputs, 'kernel 0 must have 3 rows'),
      (module.ple_pool(x, tf.constant([2]), tf.constant([0, 1]), columns=1,
                       combiner='sum'), 'index 2 is out of range'),
      (module.ple_pool(x, tf.constant([0]), tf.constant([0, 2]), columns=1,
                       combiner='sum'), 'splits do not fit index'),
      (module.ple_mix([x], [x, x], members=[0, 1], sizes=[2]).mixtures,
       'gate 0 does not fit')]
  with tf.Session() as sess:
    for tensor, message in cases:
      with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        sess.run(tensor)


def test_empty_arrays():
  assert len(native.hash_text(pa.array([], pa.binary()), 10, -1)) == 0
  ids, splits = native.hash_lists(pa.array([], pa.binary()), b'|', 10)
  assert len(ids) == 0 and splits.tolist() == [0]
