"""Days that drift, and the comparison on them."""

import json

import daily_study
import experiments
import make_data
import numpy as np
import pytest


def test_effects_drift_and_ads_are_replaced():
  world = make_data.World(7, users=300, ads=5000)
  before = dict(world._effects)['user']['common'].copy()
  ads = dict(world._effects)['ad']['common'].copy()
  ids = world.ad_columns['adgroup_id'].copy()
  world.drift(np.random.RandomState(3), kept=0.8, new_ads=0.25)
  after = dict(world._effects)['ad']['common']
  same = world.ad_columns['adgroup_id'] == ids
  assert same.mean() == pytest.approx(0.75, abs=0.02)
  assert len(set(world.ad_columns['adgroup_id'])) == 5000
  assert np.corrcoef(after[same], ads[same])[0, 1] == pytest.approx(
      0.8, abs=0.02)
  assert abs(np.corrcoef(after[~same], ads[~same])[0, 1]) < 0.1
  assert after.mean() == pytest.approx(ads.mean(), abs=0.01)
  assert after.std() == pytest.approx(ads.std(), rel=0.05)
  assert dict(world._effects)['user']['common'].std() == pytest.approx(
      before.std(), rel=0.15)


@pytest.mark.slow
def test_all_three_ways_are_trained(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(
      daily_study, '_BINDINGS',
      experiments.SMALL + daily_study._BINDINGS + experiments.FEW_COLUMNS)
  options = ['--out', str(tmp_path), '--days', '3', '--rows', '600', '--users',
             '50', '--ads', '40', '--live', '1']
  capsys.readouterr()
  assert daily_study.main(options) == 0
  said = capsys.readouterr().out
  assert said.splitlines()[-6].startswith('| day |') and '| 3 | 0.' in said
  found = json.loads((tmp_path / 'days.json').read_text())
  assert found['rows']['with eviction'] < found['rows']['carried on']
  assert daily_study.main(options) == 0  # of what is there
  again = capsys.readouterr().out
  assert again.count('\n') == 6 and said.endswith(again)
  assert daily_study.main(options + ['--seed', '1']) == 1
  assert 'other options' in capsys.readouterr().err
