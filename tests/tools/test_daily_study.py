"""Days that drift, and the comparison on them."""

import json

import conftest
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
def test_all_three_ways_are_trained(tmp_path):
  options = ['--out', tmp_path, '--days', 3, '--rows', 600, '--users', 50,
             '--ads', 40, '--live', 1]
  done = conftest.tool('daily_study', *options)
  assert done.returncode == 0, done.stderr
  assert done.stdout.count('\n') == 6 and '| 3 | 0.' in done.stdout
  found = json.loads((tmp_path / 'days.json').read_text())
  assert found['rows']['with eviction'] < found['rows']['carried on']
  again = conftest.tool('daily_study', *options)
  assert again.stdout == done.stdout
  other = conftest.tool('daily_study', *(options + ['--seed', 1]))
  assert other.returncode == 1 and 'other options' in other.stderr
