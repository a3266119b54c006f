"""What parameter servers a job needs, by hand and by the kernel's counters."""

import shutil

from experiments import SMALL_TABLES
import pytest
import size_cluster

# Two groups of columns, the first with one table and two slots of four numbers
# and a counter, the second with two tables of three and five.
VARIABLES = [
    ('a/embedding', [100, 4], 4, False),
    ('a/embedding/m', [100, 4], 4, False),
    ('a/embedding/v', [100, 4], 4, False),
    ('a/freqs', [100], 8, False),
    ('a/state', [4], 8, False),
    ('b/quotient/part_0', [10, 3], 4, True),
    ('b/remainder', [10, 5], 4, True),
    ('expert/kernel', [8, 6], 4, True),
    ('expert/kernel/Adam', [8, 6], 4, False),
    ('expert/moving_mean', [6], 4, False),
    ('global_step', [], 8, False),
]


def test_a_step_by_hand():
  step = size_cluster._step(
      VARIABLES, [({'a': 10, 'b': 2}, 7), ({'a': 20, 'b': 4}, 5)])
  assert (step.dense, step.moments, step.batch_size) == (8 * 6 * 4, 6 * 4, 7)
  assert step.rows == 15 + 3
  # Up an id and a gradient, down a vector, up the gradient's id.
  assert step.row_traffic * step.rows == pytest.approx(
      15 * (8 + 16 + 8 + 16) + 3 * (8 + 12 + 8 + 12) + 3 * (8 + 20 + 8 + 20))
  assert step.row_memory * step.rows == pytest.approx(
      15 * (3 * 16 + 8) + 3 * (12 + 20))
  assert size_cluster.traffic(step) == pytest.approx(
      2 * (192 + 24) + step.row_traffic * step.rows)


def test_the_scarcest_decides():
  step = size_cluster.Step(dense=10**6, moments=0, rows=1000, row_traffic=100,
                           row_memory=136, batch_size=512)
  # 2.1 MB a step, 20 steps a second, 10 workers: 0.42 GB/s; 200 GB of rows.
  plan = size_cluster.plan(step, workers=10, steps_per_second=20, keys=10**9,
                           memory_gb=64, gbit=10, cores=8)
  assert plan['gb_per_second'] == pytest.approx(0.42)
  assert plan['memory_gb'] == pytest.approx(200)
  assert plan['network'] == 1  # 0.75 GB/s of a card of 1.25
  assert plan['memory'] == 5  # 44.8 GB of 64
  assert plan['ps'] == 5
  assert plan['worker_limit'] == pytest.approx(0.75e9 / 2.1e6)
  more = size_cluster.plan(step, 200, 20, 10**9, 64, 10, 8)
  assert more['network'] == more['ps'] == 12  # 8.4 GB/s


@pytest.mark.cluster
@pytest.mark.skipif(not shutil.which('ss'), reason='needs ss of iproute2')
@pytest.mark.parametrize('gin_file, num_ps', [
    ('gin/base.gin', 1), ('gin/ev.gin', 2)])
def test_predicts_what_is_measured(taobao, gin_file, num_ps):
  bindings = ['DATA_DIR = %r' % taobao, SMALL_TABLES, 'PLE.num_levels = 1',
              'PLE.expert_units = (64,)', 'PLE.gate_units = ()',
              'Tower.units = (32,)', 'Model.averaging = None',
              'Model.interactions = []']
  found = size_cluster.measure(gin_file, bindings, workers=2, num_ps=num_ps,
                               secs=5)
  step = size_cluster.describe(gin_file, bindings)
  assert len(found['bytes']) == num_ps
  assert sum(found['bytes']) == pytest.approx(
      size_cluster.traffic(step), rel=0.2)
