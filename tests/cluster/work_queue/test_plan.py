"""The order of slices, and the state of a run in a file."""

import os
import re

import numpy as np
import pytest
from queue_data import slices

from ple_estimator import files
from ple_estimator.cluster.work_queue import ledger
from ple_estimator.cluster.work_queue import plan
from ple_estimator.cluster.work_queue import states

__all__ = ['slices']  # a fixture


def test_epochs_have_orders_of_their_own(slices):
  made = plan.Plan(slices, 3, 9, shuffle=True)
  orders = [made.order(e).tolist() for e in range(20)]
  assert all(sorted(order) == list(range(5)) for order in orders)
  assert len(set(map(tuple, orders))) > 10
  assert orders[3] != plan.Plan(slices, 3, 8, True).order(3).tolist()
  assert made.order(3).tolist() == orders[3]
  assert made.find(13) == (2, slices[orders[2][3]])
  ordered = plan.Plan(slices, 3, 9, shuffle=False)
  assert [ordered.find(i)[1] for i in range(5, 10)] == slices


def test_state_file_outlives_seed_epochs_and_folder(slices, tmp_path):
  made = plan.Plan(slices, 3, 9, shuffle=True)
  owner = np.array([-1, 0, -1, 2, 0, 0, -1, 0, 0, 3])
  state = made.state(1, owner)
  assert state['epoch'] == 1 and state['slices'] == 5
  assert state['acknowledged'] == [
      sorted(made.order(1)[[0, 2]].tolist()), [made.order(2)[1]]]
  path = str(tmp_path / 'state.json')
  files.write_json(path, state)
  os.mkdir(str(tmp_path / 'y'))
  os.rename(slices[0].path, str(tmp_path / 'y' / 'x'))
  moved = [s._replace(path=str(tmp_path / 'y' / 'x')) for s in slices]
  other = plan.Plan(moved, 6, 4, shuffle=True)
  epoch, owner, text = other.load(path)
  assert other.state(epoch, owner)['acknowledged'] == state['acknowledged']
  assert 'goes on: 5 slices, 6 epochs, 26.7 % done' in text  # 8 of 30


def test_other_files_begin_afresh(slices, tmp_path):
  made = plan.Plan(slices, 3, 9, True)
  path = str(tmp_path / 'state.json')
  files.write_json(path, made.state(2, np.full(10, ledger.DONE)))
  with open(slices[0].path, 'ab') as f:
    f.write(b'6')
  for other, found, text in [
      (plan.Plan(slices, 3, 9, True), path, 'files have changed'),
      (plan.Plan(slices[1:], 3, 9, True), path, 'files have changed'),
      (made, path + 'x', 'begins afresh.*has no state')]:
    epoch, owner, said = other.load(found)
    assert (epoch, set(owner)) == (0, {ledger.FREE})
    assert len(owner) == 2 * len(other)
    assert re.search(text, said)


@pytest.mark.parametrize('name', ['run', 'run[1]'])
def test_states_go_with_their_checkpoints(tmp_path, name):
  model_dir = tmp_path / name
  for path in ('model.ckpt-20.index', 'incremental/20/delta-25.json',
               'work_queue/notes.txt'):
    (model_dir / path).parent.mkdir(parents=True, exist_ok=True)
    (model_dir / path).write_text('')
  for step in (5, 20, 25, 30):
    states.write(str(model_dir), step, {'epoch': step})
  assert files.read_json(states.path(str(model_dir), 25)) == {'epoch': 25}
  states.remove_outdated(str(model_dir))
  assert sorted(os.listdir(str(model_dir / 'work_queue'))) == [
      'notes.txt', 'state-20.json', 'state-25.json']
  states.remove_outdated(str(tmp_path / 'missing'))


@pytest.mark.parametrize('text', ['{"files"', '[]', '{"epoch": 1}'])
def test_a_state_that_cannot_be_used_begins_afresh(slices, tmp_path, text):
  (tmp_path / 'state.json').write_text(text)
  epoch, owner, said = plan.Plan(slices, 3, 9, True).load(
      str(tmp_path / 'state.json'))
  assert epoch == 0 and set(owner) == {ledger.FREE}
  assert 'no state that can be read' in said
