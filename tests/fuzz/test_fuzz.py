"""Random and damaged files and bindings: no wrong rows, trace, crash or hang.

  python -m pytest tests/fuzz -k csv
  PLE_FUZZ_SEED=17 python -m pytest tests/fuzz -k csv  # one case again
  PLE_FUZZ_CASES=2000 python -m pytest tests/fuzz  # as make fuzz

Every case has a seed, from which all of it follows. The same tests show that
the harness sees each of the four endings that a case must not have.
"""

import collections
import json
import os
import signal
import subprocess
import sys
import time

import conftest
import fuzz
import outcomes
import pytest

# The share of all cases, in percent, as their costs differ.
SHARES = collections.OrderedDict([
    ('csv', 40), ('parquet', 30), ('gin', 20), ('checkpoints', 10)])


def _seeds(kind):
  """The seeds of a kind, as fuzz.py is asked for them: first:count."""
  if 'PLE_FUZZ_SEED' in os.environ:
    return '%d:1' % int(os.environ['PLE_FUZZ_SEED'])
  count = int(os.environ.get('PLE_FUZZ_CASES', 200))
  return '0:%d' % max(1, count * SHARES[kind] // 100)


@pytest.fixture(scope='module')
def found(request, tmp_path_factory):
  """Runs the kinds that were chosen: dict of kind to (seed, outcome, said)."""
  chosen = {item.callspec.params['kind'] for item in request.session.items
            if item.module is request.module and hasattr(item, 'callspec')}
  kinds = [kind for kind in SHARES if kind in chosen]
  folder = tmp_path_factory.mktemp('fuzz')
  done = subprocess.run(
      [sys.executable, os.path.join(os.path.dirname(__file__), 'fuzz.py'),
       '--out', str(folder / 'found.json')] + [
           '%s:%s' % (kind, _seeds(kind)) for kind in kinds],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
      cwd=conftest.ROOT, env=dict(os.environ, PYTHONPATH=conftest.ROOT))
  assert done.returncode == 0, done.stderr[-3000:]
  capture = request.config.pluginmanager.getplugin('capturemanager')
  with capture.global_and_fixture_disabled():
    print('\n' + done.stdout)
  return json.loads((folder / 'found.json').read_text())


@pytest.mark.parametrize('kind', SHARES)
def test_every_case_ends_well(kind, found):
  cases = found[kind]
  first, count = map(int, _seeds(kind).split(':'))
  assert [seed for seed, _, _ in cases] == list(range(first, first + count))
  bad = ['seed %d: %s: %s' % tuple(case) for case in cases
         if case[1] not in outcomes.GOOD]
  assert not bad, '%d of %d cases of %s; repeat one by PLE_FUZZ_SEED.\n%s' % (
      len(bad), count, kind, '\n'.join(bad[:5]))


@pytest.mark.parametrize('kind', SHARES)
def test_cases_are_not_all_of_one_outcome(kind, found):
  names = [outcome for _, outcome, _ in found[kind]]
  if len(names) < 20:
    pytest.skip('of few cases nothing can be said')
  assert outcomes.RIGHT in names and len(set(names)) > 1


def _ending(rng, folder):
  """A case of each ending, by the seed, which the folder is named after."""
  del rng
  seed = int(folder.rpartition('-')[2])
  if seed == 1:
    raise outcomes.Wrong('not these rows')
  elif seed == 2:
    raise KeyError('x')
  elif seed == 3:
    os.kill(os.getpid(), signal.SIGKILL)
  elif seed == 4:
    time.sleep(60)
  return outcomes.RIGHT


def test_wrong_rows_traces_crashes_and_hangs_are_seen(tmp_path, monkeypatch):
  monkeypatch.setitem(fuzz._CASES, 'csv', _ending)
  monkeypatch.setattr(fuzz, '_SECONDS', 0.5)
  cases = fuzz.run('csv', range(6), str(tmp_path))
  assert [(seed, outcome) for seed, outcome, _ in cases] == list(enumerate([
      outcomes.RIGHT, outcomes.WRONG, outcomes.TRACE, outcomes.CRASH,
      outcomes.HANG, outcomes.RIGHT]))
  assert 'KeyError' in cases[2][2] and '-9' in cases[3][2]
