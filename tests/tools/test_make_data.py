"""Generated rows: that they stay, and what their labels are drawn from."""

import hashlib
import json

from conftest import tool
import make_data
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest


def labels_of(path):
  table = pa.parquet.read_table(str(path))
  return {task: table[task].to_numpy() for task in make_data.TASKS}


def test_rows_are_those_that_all_published_figures_are_of(made):
  # Of the files that the tool wrote before there was a validation file.
  for part, digest in [
      ('train', '68353516faedb1ef65c128358131d69ddcd3e070374491e9ab03996a886a'
       '916b'),
      ('test', 'e65444e520dedf515510df6d73d52952f5fe7bd330d7e2088970bc81fe77'
       'faab')]:
    found = (made / ('taobao_%s_data' % part)).read_bytes()
    assert hashlib.sha256(found).hexdigest() == digest, part


def test_validation_rows_are_others_with_a_ceiling_of_their_own(made):
  rows = {part: (made / ('taobao_%s_data' % part)).read_text().splitlines()
          for part in make_data.PARTS}
  assert len(rows['validation']) == 20000
  # Popular users see popular ads again; else no row is in both files.
  assert len(set(rows['validation']) & set(rows['test'])) < 2000
  found = json.loads((made / 'ceiling.json').read_text())
  assert set(found) == set(make_data.TASKS)
  labels = labels_of(made / 'taobao_validation_data.parquet')
  for task, best in found.items():
    there = best['validation']
    assert there['positives'] == labels[task].sum() != best['positives']
    assert abs(there['auc'] - best['auc']) < 0.02
    assert abs(there['log_loss'] - best['log_loss']) < 0.02
    correlation, = best['logit_correlation'].values()
    assert abs(correlation - 0.89) < 0.01


@pytest.mark.parametrize('correlation, nonlinear', [
    (0, 0.7), (-0.5, 0.7), (0.95, 0), (1, 1)])
def test_logits_have_the_correlation_that_was_asked_for(correlation, nonlinear):
  world = make_data.World(3, users=500, ads=300)
  world.labels = make_data.SeparateTasks(world, 3, correlation, nonlinear)
  _, truth = world.rows(np.random.RandomState([3, 0]), 40000)
  logits = [np.log(truth[task].p / (1 - truth[task].p))
            for task in make_data.TASKS]
  x, y = [(z - z.mean()) / z.std() for z in logits]
  # Rows repeat users and ads, so that some more than 1 / sqrt(40000).
  assert abs((x * y).mean() - correlation) < 0.03
  for task, logit in zip(make_data.TASKS, logits):
    share = np.cov(truth[task].nonlinear, logit)[0, 1] / logit.var()
    assert abs(share - nonlinear) < 0.03
    assert abs(truth[task].label.mean() - truth[task].p.mean()) < 0.01
    assert abs(logit.std() - 2.5) < 0.1
  found = make_data.ceiling(truth)['clk']
  assert abs(found['logit_correlation']['buy'] - (x * y).mean()) < 1e-6
  assert abs(found['nonlinear'] - nonlinear) < 0.03


def test_labels_of_separate_tasks_are_the_only_other_columns(tmp_path):
  for name, options in [('a', []), ('b', ['--correlation', '0'])]:
    done = tool('make_data', '--out', tmp_path / name, '--train', 2000,
                '--validation', 500, '--test', 500, *options)
    assert not done.returncode, done.stderr
  a, b = [pa.parquet.read_table(str(
      tmp_path / name / 'taobao_train_data.parquet')) for name in 'ab']
  assert a.column_names == b.column_names
  assert a.drop(['clk', 'buy']).equals(b.drop(['clk', 'buy']))
  clk, buy = [b[task].to_numpy() for task in make_data.TASKS]
  assert (buy & ~clk & 1).any()  # without a click
  assert abs(clk.mean() - 0.15) < 0.04 and abs(buy.mean() - 0.3) < 0.05


def test_network_has_nearly_nothing_of_first_order():
  world = make_data.World(5, users=60, ads=40)
  tasks = make_data.SeparateTasks(world, 5, 0, 1)
  user, ad = [x.ravel() for x in np.meshgrid(
      np.arange(60), np.arange(40), indexing='ij')]
  counts = [np.bincount(x, minlength=n).astype(float) for x, n in zip(
      world.draw(np.random.RandomState(0), 50000)[:2], (60, 40))]
  weight = [c / c.sum() for c in counts]
  outputs = tasks._functions(user, ad, 0 * user)[:, 2:].reshape([60, 40, 2])
  # As users and ads come nearly independently: means over the other's rows.
  both = np.einsum('u,a,uat->t', weight[0], weight[1], outputs)
  of_user = np.einsum('a,uat->ut', weight[1], outputs) - both
  of_ad = np.einsum('u,uat->at', weight[0], outputs) - both
  whole = np.einsum('u,a,uat->t', weight[0], weight[1], (outputs - both)**2)
  first = (np.einsum('u,ut->t', weight[0], of_user**2)
           + np.einsum('a,at->t', weight[1], of_ad**2))
  assert (first < 0.15 * whole).all()


@pytest.mark.parametrize('options, message', [
    (['--nonlinear', '0.5'], '--nonlinear needs --correlation'),
    (['--correlation', '1.5'], '--correlation must be from -1 to 1'),
    (['--correlation', '0', '--nonlinear', '-1'],
     '--nonlinear must be from 0 to 1'),
    (['--validation', '0'], '--train, --validation and --test must be'),
    (['--only-validation'], '--only-validation: there is no ')])
def test_refused(capsys, tmp_path, options, message):
  with pytest.raises(SystemExit):
    make_data.main(['--out', str(tmp_path)] + options)
  assert message in capsys.readouterr().err
