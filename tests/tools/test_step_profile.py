"""Where the time of a step goes."""

import json
import os
import time

from conftest import needs_kernels
from conftest import tool
from experiments import SMALL_TABLES
import numpy as np
import pytest
import step_profile
import tensorflow.compat.v1 as tf

from ple_estimator.engine import native


def span(thread, begin, end, op, cpu=None):
  return step_profile.Span(thread, begin, end, op, 1, cpu)


def test_times_of_a_step_that_is_known():
  # Thread 1 runs a from 1 to 4 and b from 6 to 9; thread 2 runs c from 2 to 7.
  found = step_profile.Profile(
      [span(1, 1, 4, 'a', 2.5), span(2, 2, 7, 'c'), span(1, 6, 9, 'b')], 10, 2)
  assert found.busy == {1: 6, 2: 5}
  assert found.running == [2, 5, 3]  # 0-1, 9-10; 1-2, 4-6, 7-9; 2-4, 6-7
  assert found.idle == 2 * 10 - 11
  assert found.ops == [('c', 5, None, 1), ('a', 3, 2.5, 1), ('b', 3, None, 1)]
  assert [tuple(gap) for gap in found.gaps] == [
      (7, 10, 4, 'c', 'b', ''), (0, 2, 3, '', 'a', 'c'),
      (4, 6, 2, 'a', 'c', 'b')]


def test_gaps_that_are_close_are_one():
  # A second thread runs twice within a gap, each time for a microsecond.
  found = step_profile.Profile(
      [span(1, 0, 1, 'a'), span(2, 0.3, 0.300001, 'b'),
       span(2, 0.300003, 0.300004, 'b')], 1, 2)
  assert [gap.during for gap in found.gaps] == ['a']
  assert found.gaps[0].idle == pytest.approx(found.idle)


def test_what_is_beyond_a_step_is_cut_off():
  found = step_profile.Profile([span(1, -1, 1, 'a'), span(2, 3, 9, 'b')], 4, 1)
  assert found.busy == {1: 1, 2: 1} and found.idle == 2


@needs_kernels
def test_times_of_a_session_call():
  x = tf.constant(np.random.RandomState(0).rand(256, 64), tf.float32)
  kernels = [tf.constant(np.ones([64, 64]), tf.float32) for _ in range(3)]
  outputs, _ = native.nets(
      [x], [p for kernel in kernels for p in (kernel, tf.zeros([64]))],
      tf.zeros([0]), tf.constant(0, tf.int64), net_input=[0, 0, 0],
      num_hidden=[1, 1, 1], linear=[0, 0, 0], batch_norm=False,
      compute=tf.float32, training=True, epsilon=0.0, activation='relu',
      dropout=0.0)
  total = tf.add_n([tf.reduce_sum(output) for output in outputs])
  metadata = tf.RunMetadata()
  with tf.Session(config=tf.ConfigProto(
      intra_op_parallelism_threads=2)) as session:
    session.run(total)
    begin = time.time()
    with native.trace() as traced:
      session.run(total, options=tf.RunOptions(
          trace_level=tf.RunOptions.FULL_TRACE), run_metadata=metadata)
    wall = time.time() - begin
  spans, waited = step_profile.spans_of(metadata, traced[0], int(1e9 * begin))
  found = step_profile.Profile(spans, wall, 2)
  assert waited == 0
  ops = {op: calls for op, _, _, calls in found.ops}
  assert ops['PleNets'] == 1 and ops['Sum'] == 3
  # No thread does two things at once, and every time is counted once.
  for thread, busy in found.busy.items():
    own = sorted(s for s in spans if s.thread == thread)
    assert all(a.end <= b.begin for a, b in zip(own, own[1:]))
    assert 0 < busy <= wall
  assert sum(s for _, s, _, _ in found.ops) == pytest.approx(
      sum(found.busy.values()))
  assert sum(found.running) == pytest.approx(wall)
  assert sum(n * s for n, s in enumerate(found.running)) == pytest.approx(
      sum(found.busy.values()))
  assert sum(gap.idle for gap in found.gaps) == pytest.approx(found.idle)
  lines = list(step_profile.report(found))
  busy = [[float(cell.split(' ')[0]) for cell in line.split(' | ')[1:3]]
          for line in lines[4:4 + len(found.busy)]]
  assert busy
  for pair in busy:  # busy + idle = wall
    assert sum(pair) == pytest.approx(1e3 * wall, abs=0.02)


def test_waiting_is_not_work():
  traced = np.zeros(3, native._SPAN)
  for one, values in zip(traced, [
      (0, 1000, 700, 1, native.OP), (200, 500, 0, 1, native.WAIT),
      (100, 400, 300, 2, native.HELP)]):
    for name, value in zip(('begin', 'end', 'cpu', 'thread', 'kind'), values):
      one[name] = value
    one['type'] = b'PleNets'
  spans, _ = step_profile.spans_of(tf.RunMetadata(), traced, 0)
  assert [(s.thread, round(1e9 * s.begin), round(1e9 * s.end), s.calls)
          for s in spans] == [(1, 0, 200, 1), (2, 100, 400, 0),
                              (1, 500, 1000, 0)]
  # The processor time of the call is spread over its parts.
  assert [round(1e9 * s.cpu) for s in spans] == [200, 300, 500]


def table_of(lines, title):
  """The rows of the Markdown table whose first column has this title."""
  begin = next(i for i, line in enumerate(lines)
               if line.startswith('| %s |' % title)) + 2
  rows = []
  for line in lines[begin:]:
    if not line.startswith('|'):
      break
    rows.append(line.strip('| ').split(' | '))
  return rows


@pytest.mark.slow
@needs_kernels
def test_profile_shows_how_long_each_thread_is_idle(taobao, tmp_path):
  done = tool('benchmark', 'gin/base.gin', '--data', taobao, '--batch_size',
              '64', '--profile', '--gin_bindings=' + SMALL_TABLES,
              cwd=str(tmp_path))
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  threads = [(float(busy), float(idle), float(share.split()[0]))
             for _, busy, idle, share in table_of(lines, 'Thread')]
  wall = sum(threads[0][:2])
  assert threads == sorted(threads, reverse=True)
  for busy, idle, share in threads:
    assert 0 <= busy <= wall and busy + idle == pytest.approx(wall, abs=0.02)
    assert share == pytest.approx(100 * busy / wall, abs=0.6)
  ops = {row[0]: row[1:] for row in table_of(lines, 'Op')}
  # All that threads did is done for one op or another.
  assert sum(float(row[0]) for row in ops.values()) == pytest.approx(
      sum(busy for busy, _, _ in threads), abs=0.2)
  assert float(ops['PleNetsGrad'][2]) > float(ops['PleNets'][2]) > 1  # MB
  used = next(line for line in lines if line.startswith('Processors not used'))
  idle, of = [float(word.strip(',')) for word in used.split()
              if word.strip(',').replace('.', '').isdigit()][:2]
  assert 0 <= idle <= of == pytest.approx(
      wall * len(os.sched_getaffinity(0)), abs=0.05)
  assert all(float(row[0]) <= idle + 0.01
             for row in table_of(lines, 'Idle core-ms'))
  with open(str(tmp_path / 'timeline-base.json')) as f:
    assert len(json.load(f)['traceEvents']) > 100
