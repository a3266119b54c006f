r"""Runs cases of the fuzzer in processes that may crash or hang.

  python tests/fuzz/fuzz.py --out found.json csv:0:100 gin:17:1

Each argument is a kind, the first seed and how many seeds. The process that
forks starts no session and no thread, so that what it forks can.
"""

import json
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]

from absl import logging as absl_logging
import checkpoint_cases
import csv_cases
import gin_cases
import numpy as np
import outcomes
import parquet_cases

from ple_estimator.engine import compat

_SECONDS = 40  # for one case
_FORK = multiprocessing.get_context('fork')
_CASES = {'csv': csv_cases.case, 'parquet': parquet_cases.case,
          'gin': gin_cases.case, 'checkpoints': checkpoint_cases.case}
KINDS = list(_CASES)


def _one(kind, seed, home):
  """Runs one case; returns its outcome and what is to be said of it."""
  folder = os.path.join(home, '%s-%d' % (kind, seed))
  os.mkdir(folder)
  more = (home,) if kind == 'checkpoints' else ()
  try:
    return _CASES[kind](np.random.RandomState(seed), folder, *more), ''
  except outcomes.Wrong as error:
    return outcomes.WRONG, str(error)
  except Exception:
    return outcomes.TRACE, traceback.format_exc()
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def _many(kind, seeds, home, sender):
  """Runs cases in a process of its own, and tells of each."""
  absl_logging.set_verbosity(absl_logging.FATAL)
  logging.disable(logging.CRITICAL)
  for seed in seeds:
    sender.send((seed, None, None))
    sender.send((seed,) + _one(kind, seed, home))


def _prepare(home, sender):
  absl_logging.set_verbosity(absl_logging.ERROR)
  checkpoint_cases.prepare(home)
  sender.send(True)


def _forked(target, *args):
  """Starts a function in a process; returns it and what receives from it."""
  receiver, sender = _FORK.Pipe(False)
  process = _FORK.Process(target=target, args=args + (sender,))
  process.start()
  sender.close()
  return process, receiver


def run(kind, seeds, home):
  """Runs cases; returns a list of (seed, outcome, what is to be said)."""
  found, left = [], list(seeds)
  while left:
    process, receiver = _forked(_many, kind, left, home)
    try:
      while receiver.poll(_SECONDS):
        seed, outcome, said = receiver.recv()
        if outcome:
          found.append((seed, outcome, said))
      process.kill()
      ending = outcomes.HANG, 'no end after %d s' % _SECONDS
    except EOFError:
      process.join()
      ending = outcomes.CRASH, 'exit status %s' % process.exitcode
    left = left[left.index(found[-1][0]) + 1:] if found and (
        found[-1][0] in left) else left
    if left:
      found.append((left.pop(0),) + ending)
    process.join()
  return found


def main(out, asked):
  """Runs what the command line asks for, and writes it to a file."""
  home, found = tempfile.mkdtemp(), {}
  try:
    if any(words.startswith('checkpoints:') for words in asked):
      process, receiver = _forked(_prepare, home)
      assert receiver.poll(300) and receiver.recv()
      process.join()
    for words in asked:
      kind, first, count = words.split(':')
      begin = time.time()
      found[kind] = run(
          kind, range(int(first), int(first) + int(count)), home)
      print('%s: %s cases, %.1f s' % (kind, count, time.time() - begin))
  finally:
    shutil.rmtree(home)
  with open(out, 'w') as f:
    json.dump(found, f)
  print(outcomes.table({
      kind: [outcome for _, outcome, _ in cases]
      for kind, cases in found.items()}))


if __name__ == '__main__':
  compat.quiet()
  assert sys.argv[1] == '--out'
  main(sys.argv[2], sys.argv[3:])
