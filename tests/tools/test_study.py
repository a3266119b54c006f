"""The study: its statistics by hand, and a small one that is interrupted."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import conftest
import numpy as np
import pytest
import study
import study_report


def _run(network, seed, y1, y2, correlation=0.5):
  return {'correlation': correlation, 'network': network, 'seed': seed,
          'width': 7, 'parameters': 100, 'learning_rate': 0.01,
          'at_edge': network == 'PLE', 'test': {'y1': y1, 'y2': y2},
          'ceiling': {'y1': 0.01 * seed, 'y2': 0.03 * seed}}


# Of PLE, gains of 10, 30 and 20 % on y1, and of 0, -10 and 40 % on y2.
RUNS = [_run('single-task', 1, 1.0, 2.0), _run('single-task', 2, 2.0, 2.0),
        _run('single-task', 3, 4.0, 5.0), _run('PLE', 2, 1.4, 2.2),
        _run('PLE', 1, 0.9, 2.0), _run('PLE', 3, 3.2, 3.0)]


def test_the_interval_by_hand():
  # Mean 20, standard deviation 10, standard error 10 / sqrt(3) = 5.7735; the
  # 97.5 % quantile of t with 2 degrees of freedom is 4.303.
  mean, low, high = study_report.estimate([10.0, 30.0, 20.0])
  assert mean == pytest.approx(20)
  assert low == pytest.approx(20 - 24.843, abs=1e-3)
  assert high == pytest.approx(20 + 24.843, abs=1e-3)


def test_five_seeds_by_hand():
  # Standard deviation sqrt(10 / 4) = 1.5811, standard error 0.70711, t 2.776.
  mean, low, high = study_report.estimate([1.0, 2.0, 3.0, 4.0, 5.0])
  assert (mean, low, high) == pytest.approx((3, 1.0371, 4.9629), abs=1e-4)


def test_one_seed_has_no_interval():
  assert study_report.estimate([1.5]) == (1.5, None, None)


def test_the_t_table_is_that_of_student():
  """The integral of the density from -t to t is 0.95."""
  for degrees in range(1, 31):
    t = study_report._T[degrees - 1]
    x = np.linspace(0, t, 200001)
    density = math.exp(
        math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(
            degrees * math.pi) * (1 + x**2 / degrees) ** (-(degrees + 1) / 2)
    middle = 2 * ((density[1:] + density[:-1]) / 2).sum() * (x[1] - x[0])
    assert middle == pytest.approx(0.95, abs=1e-4)


def test_gains_are_positive_where_the_network_is_better():
  assert study_report.gains([0.5], [1.0], falls=True) == pytest.approx([50])
  assert study_report.gains([0.88], [0.8], falls=False) == pytest.approx([10])


def test_the_summary_pairs_the_seeds():
  single, ple = study_report.summary(RUNS, ['y1', 'y2'], falls=True)
  assert single['seeds'] == ple['seeds'] == [1, 2, 3]
  assert ple['metric']['y1']['mean'] == pytest.approx((1.4 + 0.9 + 3.2) / 3)
  assert ple['metric']['mean']['mean'] == pytest.approx((1.8 + 1.45 + 3.1) / 3)
  assert ple['metric']['y1']['std'] == pytest.approx(
      math.sqrt(((1.4 - 5.5 / 3)**2 + (0.9 - 5.5 / 3)**2
                 + (3.2 - 5.5 / 3)**2) / 2))
  assert ple['gain']['y1']['mean'] == pytest.approx(20)
  assert ple['gain']['y1']['low'] == pytest.approx(-4.843, abs=1e-3)
  assert ple['gain']['y2']['mean'] == pytest.approx(10)
  # The mean gains of the seeds are 5, 10 and 30: mean 15, sd sqrt(175).
  assert ple['gain']['mean']['mean'] == pytest.approx(15)
  assert ple['gain']['mean']['high'] == pytest.approx(
      15 + 4.303 * math.sqrt(175 / 3))
  assert single['gain']['y1'] == {'mean': 0, 'low': 0, 'high': 0}


def test_there_is_no_gain_over_other_seeds():
  found = study_report.summary(RUNS[1:], ['y1', 'y2'], falls=True)
  assert [row['gain'] for row in found if row['network'] == 'PLE'] == [None]


def test_a_table_per_correlation():
  runs = RUNS + [_run('MMoE', 1, 0.25, 0.5, correlation=0.9)]
  text = study_report.tables(
      study_report.summary(runs, ['y1', 'y2'], True), ['y1', 'y2'], 'MSE')
  assert 'Correlation 0.5, 3 seeds:' in text
  assert '| (ceiling) |  |  | 0.04000 | 0.02000 | 0.06000 |  |  |  |' in text
  assert ('| PLE | 100 | 0.01 (edge) | 2.11667 ± 0.86939 | 1.83333 ± 1.20968 | '
          '2.40000 ± 0.52915 | 15.0 (-17.9 to 47.9) | 20.0 (-4.8 to 44.8) | '
          '10.0 (-55.7 to 75.7) |') in text
  assert 'Correlation 0.9, 1 seed:' in text
  assert ('| MMoE | 100 | 0.01 | 0.37500 | 0.25000 | 0.50000 |  |  |  |'
          in text)


def test_the_tables_go_between_the_marks(tmp_path):
  path = tmp_path / 'README.md'
  path.write_text('before\n%s\nold\n%s\nafter\n' % (
      study_report.BEGIN, study_report.END))
  study_report.into_readme(str(path), 'new ±\n')
  assert path.read_text(encoding='utf-8').split('\n') == [
      'before', study_report.BEGIN, 'new ±', study_report.END, 'after', '']
  path.write_text('no marks')
  with pytest.raises(study_report.StudyError, match='have a line'):
    study_report.into_readme(str(path), 'new')


def test_draws_the_gains(tmp_path):
  pytest.importorskip('matplotlib').use('Agg')
  rows = study_report.summary(RUNS, ['y1', 'y2'], True)
  for name in ('a.png', 'a.svg', 'b.svg'):
    study_report.draw(rows, ['y1', 'y2'], str(tmp_path / name))
  assert (tmp_path / 'a.png').read_bytes()[:4] == b'\x89PNG'
  svg = (tmp_path / 'a.svg').read_text()
  assert svg == (tmp_path / 'b.svg').read_text() and 'PLE' in svg


def test_settings_are_those_of_the_data_and_the_command_line():
  args, _ = study.parse_args(['--out', 'x', '--epochs', '7'])
  assert study.settings_of(args) == study._DEFAULTS['regression']._replace(
      epochs=7)
  args, _ = study.parse_args(['--out', 'x', '--data', 'conflict', '--quick'])
  settings = study.settings_of(args)
  assert (settings.data, settings.train_rows, settings.nonlinear) == (
      'conflict', 600, 0.5)


def test_another_study_needs_another_folder(tmp_path):
  args, _ = study.parse_args(['--out', str(tmp_path)])
  settings = study.settings_of(args)
  first = study.Study(str(tmp_path), settings, args)
  with pytest.raises(study_report.StudyError, match='is in use by another'):
    study.Study(str(tmp_path), settings, args)
  del first  # and with it its lock
  study.Study(str(tmp_path), settings, args)
  with pytest.raises(study_report.StudyError, match=r'epochs 60, now 7\)'):
    study.Study(str(tmp_path), settings._replace(epochs=7), args)


@pytest.mark.parametrize('args, message', [
    (['--epochs', '0'], '--epochs must be at least 1, got 0'),
    (['--seeds', '0'], '--seeds must be at least 1, got 0'),
    (['--learning_rates', '0.1', '0'], '--learning_rates must be above 0'),
    (['--nonlinear', '0.5'], '--nonlinear is for --data conflict'),
    (['--figure', 'a.pdf'], '--figure must end in .svg or .png, got a.pdf')])
def test_a_wrong_option_is_a_line(args, message, capsys):
  with pytest.raises(SystemExit):
    study.parse_args(['--out', 'x'] + args)
  assert message in capsys.readouterr().err


QUICK = ['--quick', '--correlations', '0.5', '--networks', 'single-task',
         'MMoE', '--learning_rates', '0.01', '0.05', '--seeds', '1',
         '--processes', '1']


def _study(out, *args):
  return subprocess.Popen(
      [sys.executable, os.path.join(conftest.ROOT, 'tools', 'study.py'),
       '--out', str(out)] + QUICK + list(args), stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, universal_newlines=True, cwd=conftest.ROOT,
      env=dict(os.environ, PYTHONPATH=conftest.ROOT))


def _runs(out):
  return {path.name: path.stat().st_mtime_ns
          for path in (out / 'runs').glob('*.json')}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_that_is_killed_goes_on(tmp_path):
  readme = tmp_path / 'README.md'
  readme.write_text('%s\n%s\n' % (study_report.BEGIN, study_report.END))
  first = _study(tmp_path / 'out')
  while len(_runs(tmp_path / 'out')) < 2 and first.poll() is None:
    time.sleep(0.05)
  os.kill(first.pid, signal.SIGKILL)
  first.communicate()  # ends when the processes of the pool have ended, too
  before = _runs(tmp_path / 'out')
  assert 2 <= len(before) < 6
  second = _study(tmp_path / 'out', '--readme', str(readme))
  said, _ = second.communicate()
  assert second.returncode == 0, said
  after = _runs(tmp_path / 'out')
  assert len(after) == 6
  assert {name: after[name] for name in before} == before
  assert 'tuning: 4 runs, %d of them done before' % len(before) in said
  assert not os.listdir(str(tmp_path / 'out' / 'training'))
  _check_results(tmp_path / 'out', readme.read_text(encoding='utf-8'))


def _check_results(out, readme):
  """Compares the table with the files of the runs."""
  by_name = {path.name: json.loads(path.read_text())
             for path in (out / 'runs').glob('*.json')}
  tuned, mean = {}, {}
  for network in ('single-task', 'MMoE'):
    losses = {rate: by_name['0.5-%s-%s-seed0.json' % (network, rate)]
              for rate in ('0.01', '0.05')}
    assert all(run['test'] is None for run in losses.values())
    tuned[network] = min(losses, key=lambda r: losses[r]['validation']['loss'])
    run = by_name['0.5-%s-%s-seed1.json' % (network, tuned[network])]
    mean[network] = np.array([run['test']['y1'], run['test']['y2']])
    assert '| %s | %d | %s (edge) | %.5f | %.5f | %.5f |' % (
        network, run['parameters'], tuned[network], mean[network].mean(),
        *mean[network]) in readme
  gain = 100 * (1 - mean['MMoE'] / mean['single-task'])
  assert '| %.1f | %.1f | %.1f |' % (gain.mean(), *gain) in readme
  assert readme.split('\n', 1)[1].startswith('Correlation 0.5, 1 seed:')
