"""Which processes a sweep starts, when it ends them, and how it goes on.

The processes are real, but do not train: they write made-up evaluations.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ple_estimator import errors
from ple_estimator.commands.sweep import checking
from ple_estimator.commands.sweep import command
from ple_estimator.commands.sweep import optuna_search
from ple_estimator.commands.sweep import pool
from ple_estimator.commands.sweep import records as records_lib
from ple_estimator.commands.sweep import results
from ple_estimator.commands.sweep import search
from ple_estimator.commands.sweep import stopping
from ple_estimator.commands.sweep import sweep as sweep_lib
from ple_estimator.commands.sweep import training

# Stands for a training. Its curve goes by A.b, a third of the way at each step.
# Goes on from its last evaluation, as from a checkpoint.
STAND_IN = '''
import json, os, sys, time
run_dir, mode, b, seed = sys.argv[1:]
b = float(b)
log = open(os.path.join(run_dir, 'times'), 'a')
log.write('%r ' % time.time())
log.flush()
def write(name, value):
  with open(os.path.join(run_dir, name + '.new'), 'w') as f:
    json.dump(value, f)
  os.replace(f.name, os.path.join(run_dir, name))
if mode == 'test':
  write('test.json', {'global_step': 3, 'ctr/auc': b / 2})
else:
  path = os.path.join(run_dir, 'evaluations.json')
  done = json.load(open(path))['evaluations'] if os.path.exists(path) else []
  for step in range(len(done) + 1, 4):
    time.sleep(0.15)
    if b == 0.13 and step == 2:
      print('ple_estimator: The loss is NaN.')
      sys.exit(1)
    kill = os.path.join(run_dir, 'killed')
    if b == 0.17 and step == 2 and not os.path.exists(kill):
      open(kill, 'w').close()
      os.kill(os.getpid(), 9)
    done.append({'global_step': step, 'loss': 1.0,
                 'ctr/auc': b * step / 3 + int(seed) / 1000})
    write('evaluations.json', {'evaluations': done, 'kept': done[-1]})
log.write('%r\\n' % time.time())
'''


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
  """Has a sweep start the above, and look into no experiment."""
  def child(arguments, threads, log):
    said = dict(word.partition('=')[2].split(' = ') for word in arguments
                if word.startswith('--gin_bindings='))
    assert said['run_config.intra_op_threads'] == str(threads)
    return pool.Child(
        [sys.executable, '-S', '-E', '-c', STAND_IN,  # starts at once
         said['Experiment.model_dir'].strip("'"),
         'test' if '--mode=test' in arguments else 'train', said['A.b'],
         said['run_config.seed']], dict(os.environ), log)

  monkeypatch.setattr(pool, 'child', child)
  monkeypatch.setattr(checking, 'check', lambda sweep, trial: ''.join(
      line + '\n' for line in trial.lines))


def made(out, values=(0.2, 0.6, 0.4), **kwargs):
  kwargs.setdefault('bindings', {'A.b': list(values)})
  kwargs.setdefault('metric', 'ctr/auc')
  sweep = sweep_lib.Sweep(['x.gin'], out=str(out), **kwargs)
  sweep.threads = 1
  return sweep


def swept(sweep, say=lambda line: None):
  """Trains all runs; returns (training.Training, results.Results)."""
  records = records_lib.Records(sweep.out)
  with records.held():
    trained = training.Training(sweep, records, say)
    trained.run()
    found = results.Results(sweep, trained)
    found.write(records)
  return trained, found


def times(out):
  """The (begin, end) of all starts that came to their end."""
  return [tuple(map(float, line.split()))
          for path in out.glob('*/*/times')
          for line in path.read_text().splitlines()]


def starts(out):
  """How often each run was started, by its folder."""
  return {str(path.parent.relative_to(out)): len(path.read_text().split())
          for path in out.glob('*/*/times')}


@pytest.mark.slow
def test_trials_are_ordered_by_the_mean_over_their_seeds(tmp_path):
  said = []
  _, found = swept(made(tmp_path, seeds=[1, 3]), said.append)
  assert [row.trial.name for row in found.rows] == [
      'b=0.6', 'b=0.4', 'b=0.2']
  assert found.winner.value == pytest.approx(0.602)
  # The standard deviation of 0.601 and 0.603 is sqrt(2 * 0.001^2).
  assert found.validation() == [
      ['A.b', 'seeds', 'ctr/auc'], ['0.6', '2', '0.6020 ± 0.0014'],
      ['0.4', '2', '0.4020 ± 0.0014'], ['0.2', '2', '0.2020 ± 0.0014']]
  assert len(said) == 6 and said[-1].startswith('6 of 6 | b=0.4, seed 3: done')
  assert (tmp_path / 'table.md').read_text() == (
      '| A.b | seeds | ctr/auc |\n| --- | --- | --- |\n'
      '| 0.6 | 2 | 0.6020 ± 0.0014 |\n| 0.4 | 2 | 0.4020 ± 0.0014 |\n'
      '| 0.2 | 2 | 0.2020 ± 0.0014 |\n')
  written = json.loads((tmp_path / 'sweep.json').read_text())
  assert written['best'] == 'b=0.6'
  assert written['trials'][0]['runs'][1]['value'] == pytest.approx(0.603)


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 3])
def test_as_many_processes_run_as_may(tmp_path, processes):
  swept(made(tmp_path, seeds=[1, 2], processes=processes))
  spans = times(tmp_path)
  assert len(spans) == 6
  most = max(sum(begin <= at < end for begin, end in spans)
             for at, _ in spans)
  assert most == processes


@pytest.mark.slow
def test_what_is_done_is_not_done_again(tmp_path):
  swept(made(tmp_path))
  once = starts(tmp_path)
  assert set(once.values()) == {2}  # a begin and an end
  swept(made(tmp_path))
  assert starts(tmp_path) == once
  # More values and seeds are trained, and no others.
  _, found = swept(made(tmp_path, (0.2, 0.6, 0.4, 0.9), seeds=[2021, 7]))
  again = starts(tmp_path)
  assert len(again) == 8 and {k: again[k] for k in once} == once
  assert found.winner.trial.name == 'b=0.9'


class Broken(Exception):
  """What breaks a sweep off."""


@pytest.mark.slow
def test_a_sweep_that_is_broken_off_gives_the_same_table(tmp_path):
  _, whole = swept(made(tmp_path / 'whole', seeds=[1, 2], processes=2))

  def say(line):
    if line.startswith('3 of'):
      raise Broken()

  with pytest.raises(Broken):
    swept(made(tmp_path / 'out', seeds=[1, 2], processes=2), say)
  before = starts(tmp_path / 'out')
  assert len(before) == 4  # three are done, the fourth was ended
  _, found = swept(made(tmp_path / 'out', seeds=[1, 2], processes=2))
  assert found.validation() == whole.validation()
  after = starts(tmp_path / 'out')
  assert sorted(after[name] - count for name, count in before.items()) == [
      0, 0, 0, 2]


def test_a_run_that_is_killed_goes_on_and_one_that_fails_is_told(tmp_path):
  said = []
  trained, found = swept(made(tmp_path, (0.13, 0.17, 0.05)), said.append)
  assert starts(tmp_path)['b=0.17/seed-2021'] == 3  # two begins and an end
  assert [(row.trial.name, row.state) for row in found.rows] == [
      ('b=0.17', 'done'), ('b=0.05', 'done'), ('b=0.13', 'failed')]
  assert said[0] == ('1 of 3 | b=0.13, seed 2021: FAILED: The loss is NaN.')
  assert found.validation()[-1] == ['0.13', '0', 'failed, 1 of 1']
  # The same sweep tries what has failed again, from its last evaluation.
  trained, _ = swept(made(tmp_path, (0.13, 0.17, 0.05)), said.append)
  assert trained.runs[0][0].error == 'The loss is NaN.' and len(said) == 4
  assert starts(tmp_path)['b=0.13/seed-2021'] == 2  # begins alone


def test_a_run_that_is_killed_too_often_has_failed(tmp_path):
  trained, _ = swept(made(tmp_path, (0.17,), restarts=0))
  assert trained.runs[0][0].error == (
      'signal 9 has ended it 1 times (Sweep.restarts = 0)')


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 2])
def test_bad_trials_are_ended_early(tmp_path, processes):
  """The curves are a third, two thirds and the whole of A.b.

  Means of the first one: 0.2 and 0.3, median 0.25. The trial of 0.3 has 0.1,
  that of 0.9 has 0.3 and at its end 0.9.
  """
  sweep = made(tmp_path, (0.6, 0.9, 0.3, 0.96), seeds=[0, 1],
               processes=processes,
               stopping=stopping.MedianStopping(least_trials=2))
  said = []
  trained, found = swept(sweep, said.append)
  assert [trained.state(i) for i in range(4)] == [
      'done', 'done', 'stopped', 'done']
  assert trained.runs[2][0].curve == pytest.approx([0.1])
  assert found.validation()[-1] == [
      '0.3', '0', 'stopped early, 0.1000 after evaluation 1']
  assert trained.runs[2][1].state in ('stopped', 'done')
  begun = starts(tmp_path)
  if processes == 1:  # its second seed is not begun
    assert 'b=0.3/seed-1' not in begun
  # It stays ended.
  again, _ = swept(sweep)
  assert again.state(2) == 'stopped' and starts(tmp_path) == begun


@pytest.mark.slow
def test_an_optuna_sweep_that_is_broken_off_gives_the_same_table(tmp_path):
  pytest.importorskip('optuna', reason='optuna is of the extra `sweep`')

  def of(name, say=lambda line: None):
    return swept(made(
        tmp_path / name, bindings={'A.b': {'low': 0.2, 'high': 0.9}},
        search=optuna_search.Optuna(
            trials=6, startup_trials=2, pruner='median')), say)

  def say(line):
    if line.startswith('3 of'):
      raise Broken()

  _, whole = of('whole')
  with pytest.raises(Broken):
    of('out', say)
  assert len(list((tmp_path / 'out').glob('*/config.gin'))) == 3
  _, found = of('out')
  assert len(found.validation()) == 7
  assert found.validation() == whole.validation()


def test_an_optuna_study_of_another_space_needs_another_folder(tmp_path):
  pytest.importorskip('optuna', reason='optuna is of the extra `sweep`')
  more = {'search': optuna_search.Optuna(trials=1)}
  swept(made(tmp_path, bindings={'A.b': [0.5]}, **more))
  with pytest.raises(errors.UserError, match='Sweep.out must not have trials '
                     'of other choices and bindings'):
    swept(made(tmp_path, bindings={'A.b': [0.6]}, **more))


def test_a_suggestion_that_cannot_be_built_has_failed(tmp_path, monkeypatch):
  pytest.importorskip('optuna', reason='optuna is of the extra `sweep`')

  def check(sweep, trial):
    raise errors.UserError('A.b must be below 1.')

  monkeypatch.setattr(checking, 'check', check)
  trained, _ = swept(made(tmp_path, search=optuna_search.Optuna(trials=2)))
  assert [of[0].error for of in trained.runs] == ['A.b must be below 1.'] * 2


def test_random_points_are_trained(tmp_path):
  _, found = swept(made(
      tmp_path, bindings={'A.b': {'low': 0.2, 'high': 0.9}},
      search=search.Random(trials=2)))
  assert [row.value for row in found.rows] == sorted(
      [row.trial.point['A.b'] + 2.021 for row in found.rows], reverse=True)


def test_a_trial_whose_files_have_changed_is_refused(tmp_path):
  swept(made(tmp_path, (0.2,), lines=['C.d = 1']))
  with pytest.raises(errors.UserError, match=r'b=0.2 began with other bindings '
                     r'\(C.d = 1; now C.d = 2\)'):
    swept(made(tmp_path, (0.2,), lines=['C.d = 2']))


def test_a_folder_is_of_one_sweep_at_a_time(tmp_path):
  with records_lib.Records(str(tmp_path)).held():
    with pytest.raises(errors.UserError, match='Sweep.out must be that of one '
                       'sweep at a time'):
      swept(made(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize('which, tested', [
    ('none', []), ('best', ['b=0.6']), ('all', ['b=0.2', 'b=0.4', 'b=0.6'])])
def test_runs_are_tested_once(tmp_path, which, tested):
  sweep = made(tmp_path, test=which)
  for _ in range(2):
    _, found = swept(sweep)
    command.test(sweep, found)
    assert sorted(path.parts[-3] for path in tmp_path.glob(
        '*/*/test.json')) == tested
    assert sum(starts(tmp_path).values()) == 2 * (3 + len(tested))
  assert [row[0] for row in found.test()[1:]] == [
      name[2:] for name in reversed(tested)]
  if tested:
    assert found.test()[1] == ['0.6', '1', '0.3000']


def test_a_process_ends_with_its_parent(tmp_path):
  """The parent is killed; its child, which would sleep, ends at once."""
  child = ('from ple_estimator.commands.sweep import pool; import os, time; '
           'pool.end_with(os.getppid()); print(os.getpid(), flush=True); '
           'time.sleep(60)')
  parent = subprocess.Popen(
      [sys.executable, '-c', 'import subprocess, sys; subprocess.call([sys.'
       'executable, "-c", sys.argv[1]])', child], stdout=subprocess.PIPE)
  pid = int(parent.stdout.readline())
  os.kill(parent.pid, signal.SIGKILL)
  parent.wait()
  deadline = time.time() + 20
  while os.path.exists('/proc/%d' % pid) and time.time() < deadline:
    time.sleep(0.05)
  assert not os.path.exists('/proc/%d' % pid)
