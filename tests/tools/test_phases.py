"""What tools/phases.py says a run spends its time on."""

import importlib
import inspect

import conftest
import phases
import pytest


def test_a_phase_has_not_the_time_of_those_it_calls(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(phases.time, 'time', lambda: now[0])
  clock = phases.Clock(99.0)

  def later(seconds, inner=None):
    def run():
      now[0] += seconds
      if inner:
        inner()
      now[0] += seconds

    return run

  inner = clock.timed('inner', later(2))
  outer = clock.timed('outer', later(10, inner))
  clock.note('start')
  outer()
  now[0] += 0.5
  inner()
  assert clock.seconds == {
      'start': 1.0, 'outer': 20.0, 'inner': 8.0, phases._OTHER: 0.5}


def test_a_function_that_raises_has_its_time_noted(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(phases.time, 'time', lambda: now[0])
  clock = phases.Clock(0.0)

  def fail():
    now[0] += 3
    raise ValueError('no')

  with pytest.raises(ValueError, match='no'):
    clock.timed('failing', fail)()
  now[0] += 1
  clock.timed('next', lambda: None)()
  assert clock.seconds == {
      phases._OTHER: 1.0, 'failing': 3.0, 'next': 0.0}


@pytest.mark.parametrize('phase, module, path', phases.PHASES)
def test_what_is_timed_is_there(phase, module, path):
  holder = importlib.import_module(module)
  for part in path.split('.'):
    holder = getattr(holder, part)
  assert inspect.isfunction(holder), phase


def test_the_table_has_medians_in_the_order_of_a_run():
  rounds = [{'start: Python': 1.0, 'in all': total, 'training: steps': steps,
             'evaluation: graph': 3.0, phases._OTHER: 0.5}
            for total, steps in [(10.0, 2.0), (12.0, 7.0), (11.0, 3.0)]]
  lines = list(phases.table(rounds))
  assert lines[2:] == [
      '| start: Python | 1.00 | 1.00 to 1.00 |',
      '| training: steps | 3.00 | 2.00 to 7.00 |',
      '| evaluation: graph | 3.00 | 3.00 to 3.00 |',
      '| %s | 0.50 | 0.50 to 0.50 |' % phases._OTHER,
      '| in all | 11.00 | 10.00 to 12.00 |']


@pytest.mark.slow
def test_the_phases_of_a_run_add_up(taobao):
  done = conftest.tool(
      'phases', 'gin/base.gin', '--data', taobao, '--gin_bindings',
      'Experiment.max_steps = 2', '--gin_bindings',
      'PLE.expert_units = (8,)')
  rows = {}
  for line in done.stdout.splitlines()[2:]:
    _, phase, seconds, _, _ = line.split('|')
    rows[phase.strip()] = float(seconds)
  total = rows.pop('in all')
  assert abs(sum(rows.values()) - total) < 0.01 * (len(rows) + 1)
  for phase in ('start: imports', 'training: graph of the model',
                'training: first step', 'training: steps', 'checkpoints',
                'evaluation: graph', 'evaluation: pass', 'export'):
    assert rows[phase] > 0, phase
