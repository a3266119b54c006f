"""Runs the tests of the C++ kernels under sanitizers (make sanitize).

The kernels are built with -fsanitize=address,undefined in a folder of their
own, and tests/engine/test_kernels.py and tests/network/test_mlp.py run with
that library. A read or write out of range, or undefined behaviour, ends the run
with status 1 and a report. The sanitizers' libraries must be in the process
before anything else, so this script starts itself again with them.

  python tools/sanitize_kernels.py [arguments of pytest]
"""

import os
import subprocess
import sys
import tempfile

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OPTIONS = ['-fsanitize=address,undefined', '-fno-sanitize=vptr',
            '-fno-sanitize-recover=all', '-fno-omit-frame-pointer', '-g',
            '-O1', '-DPLE_NO_CLONES']
_TESTS = ['tests/engine/test_kernels.py', 'tests/network/test_mlp.py']
# What takes memory away, or starts compilers and processes of its own.
_NOT = 'not memory and not compiler'
_PRELOADED = 'PLE_SANITIZERS'


def main(arguments):
  """Runs the tests; returns the exit status."""
  if _PRELOADED not in os.environ:
    return _with_sanitizers(arguments)
  del os.environ['LD_PRELOAD']  # not for the compiler
  sys.path.insert(0, _ROOT)
  import pytest

  from ple_estimator.engine import build
  with tempfile.TemporaryDirectory() as folder:
    build._OPTIONS += _OPTIONS
    build._folders = lambda: [folder]
    build.path()  # ends with the compiler's error if there is one
    return pytest.main(
        ['-q', '-p', 'no:cacheprovider', '-k', _NOT, '--rootdir', _ROOT] +
        (arguments or [os.path.join(_ROOT, test) for test in _TESTS]))


def _with_sanitizers(arguments):
  compiler = os.environ.get('CXX') or 'g++'
  libraries = [
      subprocess.check_output(
          '%s -print-file-name=%s' % (compiler, name), shell=True,
          universal_newlines=True).strip()
      for name in ('libasan.so', 'libubsan.so')]
  return subprocess.call(
      [sys.executable, os.path.abspath(__file__)] + arguments,
      env=dict(
          os.environ, LD_PRELOAD=' '.join(libraries), **{_PRELOADED: '1'},
          # Python and TensorFlow leave memory to the end of the process.
          ASAN_OPTIONS='detect_leaks=0:detect_odr_violation=0',
          UBSAN_OPTIONS='print_stacktrace=1'))


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
