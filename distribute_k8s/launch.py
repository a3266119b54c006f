r"""Prepares the process of one task and becomes its trainer.

  python distribute_k8s/launch.py --gin_file=gin/bf16.gin

All arguments go to `python -m ple_estimator.run`, which takes the place of this
process: signals and the exit status are its own. What is read when a process
starts, and so cannot be set from inside the trainer, is set here first:

  MEM_USAGE_STRATEGY  how long jemalloc keeps memory that was freed, a name in
                      STRATEGIES; empty leaves LD_PRELOAD and MALLOC_CONF as
                      they are, which the image sets.
  JEMALLOC_PATH       the library, where it is not in the system's folders.

Where a cgroup allows less processor time than there are processors, which
TensorFlow does not see, the threads are as many as it allows. Nothing is
written, so tasks may share a host. Needs Python 3.6 and no package.
"""

import glob
import math
import os
import sys

_KEEP = ('background_thread:true,metadata_thp:auto,'
         'dirty_decay_ms:%d,muzzy_decay_ms:%d')
# MALLOC_CONF by name, as in the model zoo; None is without jemalloc. The zoo
# takes jemalloc 4.4 for xmin, xmid and 244, 5.1 for the others. Here one
# library serves all: decay_time:0 of 4.4 is both decays 0 since jemalloc 5.
STRATEGIES = {
    'xmin': 'dirty_decay_ms:0,muzzy_decay_ms:0',
    'xmid': '',
    '244': '',
    'min': 'dirty_decay_ms:0,muzzy_decay_ms:0',
    'mid': 'background_thread:true,dirty_decay_ms:10000,muzzy_decay_ms:10000',
    'max': _KEEP % (240000, 240000),
    '251': _KEEP % (60000, 60000),
    'close': None,
}
LIBRARIES = ('/usr/lib/*-linux-gnu/libjemalloc.so.2',
             '/usr/lib64/libjemalloc.so.2', '/usr/lib/libjemalloc.so.2',
             '/usr/local/lib/libjemalloc.so.2')


class LaunchError(Exception):
  """What must be mended before the task can start."""


def with_allocator(environ, libraries=LIBRARIES):
  """Returns a copy of environ with LD_PRELOAD and MALLOC_CONF set.

  Args:
    environ: dict of str, the environment.
    libraries: patterns of paths to look for jemalloc at.

  Raises:
    LaunchError: if the strategy is unknown, or a library is missing.
  """
  environ = dict(environ)
  strategy = environ.get('MEM_USAGE_STRATEGY', '')
  if strategy and strategy not in STRATEGIES:
    raise LaunchError('MEM_USAGE_STRATEGY must be one of %s, got %r.' % (
        ', '.join(sorted(STRATEGIES)), strategy))
  preloaded = environ.pop('LD_PRELOAD', '').replace(':', ' ').split()
  if strategy:
    # Whatever jemalloc the image has, this is the one place that decides.
    preloaded = [path for path in preloaded if 'jemalloc' not in path]
    environ.pop('MALLOC_CONF', None)
    if STRATEGIES[strategy] is not None:
      preloaded.append(_jemalloc(environ, libraries))
    if STRATEGIES[strategy]:
      environ['MALLOC_CONF'] = STRATEGIES[strategy]
  for path in preloaded:
    # The loader says only "cannot be preloaded: ignored" and goes on without.
    if '/' in path and not os.path.isfile(path):
      raise LaunchError('LD_PRELOAD must name existing files, got %r. Install '
                        'it or unset LD_PRELOAD.' % path)
  if preloaded:
    environ['LD_PRELOAD'] = ':'.join(preloaded)
  return environ


def _jemalloc(environ, libraries):
  """Returns the path of jemalloc."""
  wanted = environ.get('JEMALLOC_PATH')
  patterns = [wanted] if wanted else libraries
  for pattern in patterns:
    found = sorted(glob.glob(pattern))
    if found:
      return found[0]
  raise LaunchError(
      'MEM_USAGE_STRATEGY=%s needs jemalloc, and there is none at %s. Install '
      'it (apt-get install libjemalloc2), name it in JEMALLOC_PATH, or set '
      'MEM_USAGE_STRATEGY=close to do without.' % (
          environ['MEM_USAGE_STRATEGY'], ', '.join(patterns)))


def cpu_limit(own='/proc/self/cgroup', root='/sys/fs/cgroup'):
  """Returns the processors' worth of time that cgroups allow, None for all.

  Args:
    own: file that says in which groups this process is.
    root: folder that cgroups are mounted at, version 1 or 2.

  Returns:
    float, the least of the limits of the group and of those around it.
  """
  limits = []
  for line in _read(own).splitlines():
    _, controllers, path = line.split(':', 2)
    if not controllers:  # version 2
      mounts = [root, os.path.join(root, 'unified')]
    elif 'cpu' in controllers.split(','):
      mounts = [os.path.join(root, controllers), os.path.join(root, 'cpu')]
    else:
      continue
    # In a container the path may be the host's, which is not mounted there:
    # then the container's own group is at the mount.
    parts = [part for part in path.split('/') if part]
    for depth in range(len(parts), -1, -1):
      for mount in mounts:
        limits.append(_group_limit(os.path.join(mount, *parts[:depth])))
  return min((limit for limit in limits if limit), default=None)


def _group_limit(folder):
  """Returns the limit of one group, None if there is none."""
  text = _read(os.path.join(folder, 'cpu.max')) or ' '.join(
      _read(os.path.join(folder, 'cpu.cfs_%s_us' % name))
      for name in ('quota', 'period'))
  quota, _, period = text.strip().partition(' ')
  if not period or quota in ('max', '-1'):
    return None
  return int(quota) / int(period)


def _read(path):
  try:
    with open(path) as f:
      return f.read().strip()
  except OSError:
    return ''


def num_threads(limit, processors):
  """Returns how many threads to set, None to leave that to TensorFlow.

  Args:
    limit: float, what cpu_limit returned.
    processors: int, how many this process may run on.
  """
  if limit is None or limit >= processors:
    return None
  return max(1, math.ceil(limit))  # rounded down would leave time unused


def command(arguments, threads):
  """Returns the command line of the trainer.

  Args:
    arguments: list of str, this script's own.
    threads: int, or None.
  """
  # Before the user's own, which win.
  bindings = [] if threads is None else [
      '--gin_bindings=run_config.%s_op_threads = %d' % (name, threads)
      for name in ('inter', 'intra')]
  return [sys.executable, '-m', 'ple_estimator.run'] + bindings + arguments


def main():
  """Becomes the trainer."""
  try:
    environ = with_allocator(os.environ)
  except LaunchError as error:
    sys.exit('launch.py: %s' % error)  # status 1: a new pod would fail as well
  limit = cpu_limit()
  processors = len(os.sched_getaffinity(0))
  threads = num_threads(limit, processors)
  if threads is not None:
    environ.setdefault('OMP_NUM_THREADS', str(threads))  # Arrow reads it too
  sys.stderr.write(
      'launch.py: LD_PRELOAD=%s MALLOC_CONF=%s, %d processors, cgroup limit '
      '%s, threads %s\n' % (
          environ.get('LD_PRELOAD', ''), environ.get('MALLOC_CONF', ''),
          processors, 'none' if limit is None else '%g' % limit,
          threads or 'as TensorFlow chooses'))
  sys.stderr.flush()
  os.execve(sys.executable, command(sys.argv[1:], threads), environ)


if __name__ == '__main__':
  main()
