"""The command `ple-estimator sweep`, on files and with real trainings."""

import glob
import json
import os
import re
import signal
import subprocess
import sys
import time

import conftest
from experiments import FEW_COLUMNS
from experiments import SMALL
import pytest

from ple_estimator.commands import words
from ple_estimator.commands.sweep import command as sweep_command

FAMILY = ['single_tasks', 'shared_bottom', 'MMoE', 'CGC', 'PLE']


def test_the_family_of_networks_is_listed(command):
  status, said, _ = command('sweep', 'gin/sweep.gin', '--dry_run')
  assert status == 0
  assert said.splitlines()[0] == '5 trials, each with the seeds 1, 2, 3:'
  assert [line for line in said.splitlines()[1:] if line[0] != ' '] == FAMILY
  assert ("    ple-estimator --gin_file=gin/base.gin --gin_file=gin/mmoe.gin "
          "'--gin_bindings=Experiment.exports = None'") in said


def test_the_sweep_of_the_documents_is_one(command, tmp_path):
  with open(os.path.join(conftest.ROOT, 'gin', 'README.md')) as f:
    text, = re.findall(r'^```\n(# [^`]*^Sweep:.*?)^```', f.read(), re.M | re.S)
  status, said, err = command('sweep', written(
      tmp_path, text.replace('my/shop.gin', 'gin/base.gin')), '--dry_run')
  assert status == 0, err
  assert said.startswith('30 trials, each with the seeds 1, 2, 3:')
  assert '--gin_file=gin/ev.gin' in said and '--gin_file=gin/adamw.gin' in said


def test_the_report_is_made_of_the_runs_that_are_done(monkeypatch):
  asked = []
  monkeypatch.setitem(words.MODULES, 'report', 'report.command')
  monkeypatch.setattr(words, 'run', lambda *args: asked.append(args))
  sweep_command.report('result/x', ['a/seed-1', 'b/seed-1'])
  sweep_command.report('result/x', [])
  assert asked == [('report', [
      'a/seed-1', 'b/seed-1', '--out', 'result/x/report'])]


def test_without_the_report_there_are_curves(monkeypatch, capsys):
  monkeypatch.delitem(words.MODULES, 'report', raising=False)
  sweep_command.report('result/x', ['a/seed-1'])
  assert capsys.readouterr().out == 'Curves: tensorboard --logdir=result/x\n'


def written(tmp_path, text):
  path = tmp_path / 'my.gin'
  path.write_text(text)
  return str(path)


SWEEP = '''
Sweep:
  files = ['gin/base.gin']
  out = %r
'''


@pytest.mark.parametrize('line, message', [
    ("Sweep.bindings = {'PLE.droput': [0.1, 0.2]}", "trial droput=0.1: binding "
     "'PLE.droput = 0.1': Configurable 'PLE' doesn't have a parameter named "
     "'droput'. Did you mean dropout?"),
    ("Sweep.bindings = {'LEARNIGN_RATE': [0.1]}", "trial LEARNIGN_RATE=0.1: "
     "binding 'LEARNIGN_RATE = 0.1': Macros must be read somewhere "),
    # The first trial is right, the second is not.
    ("Sweep.bindings = {'PLE.dropout': [0.1, 1.5]}", "trial dropout=1.5: "
     "binding 'PLE.dropout = 1.5': PLE.dropout must be a number in [0, 1), got "
     "1.5."),
    ("Sweep.choices = {'n': ['gin/mmoe.gin', 'gin/nope.gin']}", 'trial nope: '
     "--gin_file must name an existing file, got 'gin/nope.gin'"),
    ("Sweep.metric = 'ctr/acu'", "trial trial: Sweep.metric must be 'loss' or"),
    ("Sweep.lines = ['Experiment.test_input = None']", 'trial trial: '
     "Experiment.test_input must be given for Sweep.test = 'best'."),
    ("Sweep.lines = ['Experiment.eval_input = None', 'Experiment.exports = None"
     "', 'Experiment.early_stopping = None']",
     'trial trial: Experiment.eval_input must be given for a sweep'),
    ('Sweep.trails = 3', "Configurable 'Sweep' doesn't have a parameter named "
     "'trails'"),
    ("Sweep.bindings = {'PLE.dropout': {'low': 0.1, 'high': 0.2}}",
     "Sweep.bindings['PLE.dropout'] must be a list for @Grid()"),
    ("Sweep.search = @PLE()", 'Sweep.search must be an object such as @Grid()'),
    ('Sweep.processes = 0', 'Sweep.processes must be an integer of at least 1'),
])
def test_a_mistake_is_told_before_anything_is_trained(
    command, tmp_path, line, message):
  out = tmp_path / 'out'
  status, _, said = command('sweep', written(
      tmp_path, SWEEP % str(out) + line))
  assert status == 1
  assert said.count('\n') == 1 and message in said, said
  assert not glob.glob(str(out / '*' / 'seed-*'))


def test_suggestions_are_checked_at_their_ends(command, tmp_path):
  pytest.importorskip('optuna', reason='optuna is of the extra `sweep`')
  path = written(tmp_path, SWEEP % str(tmp_path / 'out') + (
      "Sweep.search = @Optuna()\nOptuna.trials = 7\n"
      "Sweep.bindings = {'PLE.dropout': {'low': 0.0, 'high': %s}}"))
  with open(path) as f:
    text = f.read()
  status, said, _ = command('sweep', written(tmp_path, text % 0.5), '--dry_run')
  assert status == 0 and said.startswith('7 trials, which are chosen as')
  assert 'dropout=0.0\n' in said and 'dropout=0.5\n' in said
  status, _, said = command('sweep', written(tmp_path, text % 1.5), '--dry_run')
  assert status == 1 and 'got 1.5' in said
  status, _, said = command('sweep', written(tmp_path, text % 1.5))
  assert status == 1 and 'got 1.5' in said  # before anything is trained


def test_a_cluster_is_refused(command, monkeypatch):
  monkeypatch.setenv('TF_CONFIG', '{}')
  status, _, said = command('sweep', 'gin/sweep.gin', '--dry_run')
  assert status == 1 and 'unset TF_CONFIG' in said


# ------------------------------------------------------------ real trainings

LINES = SMALL + FEW_COLUMNS + [
    'EPOCHS = 3', 'Experiment.exports = None', 'PLE.num_levels = 1',
    'Experiment.eval_epochs = 1', 'Experiment.eval_steps = None']


def real(tmp_path, taobao, *lines):
  return written(tmp_path, '\n'.join([
      "Sweep.files = ['gin/base.gin']",
      "Sweep.choices = {'network': ['gin/shared_bottom.gin', 'gin/mmoe.gin']}",
      'Sweep.lines = %r' % (LINES + ['DATA_DIR = %r' % taobao]),
      'Sweep.seeds = [1, 2]', 'Sweep.processes = 2', 'Sweep.threads = 1',
      "Sweep.test = 'all'"] + list(lines)))


def start(path, out):
  return subprocess.Popen(
      [sys.executable, '-m', 'ple_estimator.run', 'sweep', path,
       '--gin_bindings', 'Sweep.out = %r' % str(out)],
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=conftest.ROOT,
      env=dict(os.environ, PYTHONPATH=os.pathsep.join([conftest.ROOT] + [
          os.environ.get('PYTHONPATH', '')])), universal_newlines=True)


def wait_for(process, pattern):
  """Waits until a file is there; its path."""
  while not glob.glob(str(pattern)):
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.05)
  return glob.glob(str(pattern))[0]


def processes_of(out):
  """The ids of the processes that train in a folder."""
  found = subprocess.run(['pgrep', '-f', str(out) + '/'],
                         stdout=subprocess.PIPE, universal_newlines=True)
  return list(map(int, found.stdout.split()))


def wait_for_none(out):
  deadline = time.time() + 30
  while processes_of(out) and time.time() < deadline:
    time.sleep(0.1)
  assert not processes_of(out)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_that_is_killed_gives_the_same_table(taobao, tmp_path):
  path = real(tmp_path, taobao)
  whole = start(path, tmp_path / 'whole')
  said, _ = whole.communicate()
  assert whole.returncode == 0, said
  out = tmp_path / 'out'

  terminated = start(path, out)
  wait_for(terminated, out / '*' / 'seed-*' / 'model.ckpt-30.index')
  assert 1 <= len(processes_of(out)) <= 2
  terminated.send_signal(signal.SIGTERM)
  said, _ = terminated.communicate()
  assert terminated.returncode == 143 and 'the same command goes on' in said
  assert not processes_of(out)

  killed = start(path, out)
  # First a run, which goes on in the same sweep; then the sweep itself.
  wait_for(killed, out / 'shared_bottom' / 'seed-*' / 'model.ckpt-60.index')
  for pid in processes_of(out)[:1]:
    os.kill(pid, signal.SIGKILL)
  wait_for(killed, out / 'mmoe' / 'seed-*' / 'model.ckpt-30.index')
  killed.kill()
  killed.communicate()
  wait_for_none(out)
  done = glob.glob(str(out / '*' / '*' / 'run.json'))
  times = [os.stat(name).st_mtime_ns for name in done]
  assert done

  last = start(path, out)
  said, _ = last.communicate()
  assert last.returncode == 0, said
  assert '4 runs, %d of them done' % len(done) in said
  assert [os.stat(name).st_mtime_ns for name in done] == times
  tables = [(folder / 'table.md').read_text(encoding='utf-8')
            for folder in (tmp_path / 'whole', out)]
  assert tables[0] == tables[1] and tables[0].count('±') == 12
  check_table(out, said)


def check_table(out, said):
  """The table has the means of what the runs have written."""
  for network in ('shared_bottom', 'mmoe'):
    row = [network, '2']
    for name in ('validation', 'test'):
      values = {'ctr': [], 'cvr': []}
      for seed in (1, 2):
        folder = out / network / ('seed-%d' % seed)
        metrics = json.loads((folder / 'test.json').read_text())
        if name == 'validation':
          metrics = json.loads(
              (folder / 'evaluations.json').read_text())['kept']
        for task, of in values.items():
          of.append(metrics[task + '/auc'])
      values['mean'] = [(a + b) / 2 for a, b in zip(*values.values())]
      cells = ['%.4f ± %.4f' % ((a + b) / 2, abs(a - b) / 2 ** 0.5)
               for a, b in (values[n] for n in ('mean', 'ctr', 'cvr'))]
      assert any(line.split('  ')[0] == network and all(
          cell in line for cell in cells) for line in said.splitlines()), row


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_diverges_does_not_stop_the_others(taobao, tmp_path):
  path = real(
      tmp_path, taobao, 'Sweep.seeds = [1]', 'Sweep.choices = None',
      "Sweep.bindings = {'LEARNING_RATE': [1e30, 0.001]}",
      "Sweep.test = 'best'")
  process = start(path, tmp_path / 'out')
  said, _ = process.communicate()
  assert process.returncode == 1
  assert 'LEARNING_RATE=1e+30, seed 1: FAILED: ' in said
  assert 'Best by mean/auc of the validation rows: LEARNING_RATE=0.001' in said
  assert len(glob.glob(str(tmp_path / 'out' / '*' / '*' / 'test.json'))) == 1
