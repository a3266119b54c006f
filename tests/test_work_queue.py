"""Every slice is trained once per epoch, whoever dies."""

import collections
import glob
import json
import os
import random

import gin
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import experiment
from ple_estimator import ledger
from ple_estimator import readers
from ple_estimator import run
from ple_estimator import work_queue

SMALL = [
    'PLE.num_levels = 1', 'PLE.expert_units = (4,)', 'PLE.gate_units = ()',
    'Tower.units = (4,)', 'run_config.summary_steps = 1',
    'Experiment.early_stopping = None', 'Experiment.exports = None',
    "ctr/Task.sample_space = ('user_id', '-')"]


class Model:
  """What a ledger should do, in plain Python."""

  def __init__(self, slices, epochs):
    self.slices, self.epochs = slices, epochs
    self.generation, self.acked, self.leases = 1, set(), {}

  def window(self):
    first = next(e for e in range(self.epochs + 1) if not all(
        e * self.slices + i in self.acked for i in range(self.slices)))
    return range(first * self.slices,
                 min(first + 2, self.epochs) * self.slices)

  def take(self, who, now, lease):
    if not self.window():
      return ledger.END
    for number in self.window():
      until = self.leases.get(number, (0, -1))[1]
      if number not in self.acked and until <= now:
        self.leases[number] = who, now + lease
        return number
    return ledger.WAIT

  def ack(self, generation, numbers):
    if generation == self.generation:
      self.acked.update(set(numbers) & set(self.window()))

  def renew(self, generation, who, numbers, now, lease):
    for number in set(numbers) & set(self.leases):
      if generation == self.generation and self.leases[number][0] == who:
        self.leases[number] = who, now + lease

  def release(self, who):
    self.leases = {n: l for n, l in self.leases.items() if l[0] != who}

  def load(self, acked):
    self.generation, self.acked, self.leases = (
        self.generation + 1, set(acked), {})


def loadable(model):
  first = model.window()[0] if model.window() else (
      model.epochs * model.slices)
  return first // model.slices, [
      ledger.DONE if first + i in model.acked else ledger.FREE
      for i in range(2 * model.slices)]


@pytest.mark.parametrize('seed', range(4))
def test_ledger_does_what_plain_python_does(seed):
  rng = random.Random(seed)
  made, model = ledger.Ledger(), Model(rng.choice([1, 3, 5]), 4)
  now, taken, saved, answers = 0.0, [], set(), collections.Counter()
  with tf.Session(graph=made.graph) as session:
    made.load(session, 1, 77, *loadable(model))
    for _ in range(600):
      now += rng.random()
      who, lease = rng.randint(1, 3), rng.choice([1, 4])
      kind = rng.choice(['take'] * 8 + ['ack'] * 6 + ['renew'] * 2 + [
          'release', 'save', 'load'])
      if kind == 'take':
        generation, digest, number = made.take(session, who, 77, 4, lease, now)
        assert number == model.take(who, now, lease)
        assert (generation, digest) == (model.generation, 77)
        answers[min(number, 0)] += 1
        if number >= 0:
          taken.append((generation, who, number))
      elif kind in ('ack', 'renew') and taken:
        generation, who, number = rng.choice(taken[-9:])
        numbers = sorted({number, rng.choice(taken)[2]})
        if kind == 'ack':
          made.ack(session, generation, numbers)
          model.ack(generation, numbers)
        else:
          made.renew(session, generation, who, numbers, lease, now)
          model.renew(generation, who, numbers, now, lease)
      elif kind == 'release':
        made.release(session, who)
        model.release(who)
      elif kind == 'save':
        saved = set(model.acked)
      elif kind == 'load' and rng.random() < 0.5:
        model.load(saved)
        made.load(session, model.generation, 77, *loadable(model))
      meta, owner = made.read(session)
      epoch, expected = loadable(model)
      assert meta.tolist() == [model.generation, 77, epoch]
      assert [max(o, -1) * (o < 0) for o in owner] == expected
  assert min(answers[0], answers[ledger.WAIT], answers[ledger.END]) > 0


def test_ledger_hands_nothing_to_who_sees_other_files():
  made = ledger.Ledger()
  with tf.Session(graph=made.graph) as session:
    with pytest.raises(tf.errors.FailedPreconditionError):
      made.take(session, 1, 5, 1, 9.)
    made.load(session, 1, 77, 0, [0, 0])
    assert made.take(session, 1, 78, 1, 9.) == (1, 77, ledger.WAIT)
    assert made.take(session, 1, 77, 1, 9.) == (1, 77, 0)


@pytest.fixture
def slices(tmp_path):
  path = tmp_path / 'x'
  path.write_bytes(b'12345')
  return [readers.Slice(str(path), 0, i, i + 1) for i in range(5)]


def test_epochs_have_orders_of_their_own(slices):
  plan = work_queue.Plan(slices, 3, 9, shuffle=True)
  orders = [plan.order(e).tolist() for e in range(20)]
  assert all(sorted(order) == list(range(5)) for order in orders)
  assert len(set(map(tuple, orders))) > 10
  assert orders[3] != work_queue.Plan(slices, 3, 8, True).order(3).tolist()
  assert plan.order(3).tolist() == orders[3]
  assert plan.find(13) == (2, slices[orders[2][3]])
  ordered = work_queue.Plan(slices, 3, 9, shuffle=False)
  assert [ordered.find(i)[1] for i in range(5, 10)] == slices


def test_state_file_outlives_seed_epochs_and_folder(slices, tmp_path):
  plan = work_queue.Plan(slices, 3, 9, shuffle=True)
  owner = np.array([-1, 0, -1, 2, 0, 0, -1, 0, 0, 3])
  state = plan.state(1, owner)
  assert state['epoch'] == 1 and state['slices'] == 5
  assert state['acknowledged'] == [
      sorted(plan.order(1)[[0, 2]].tolist()), [plan.order(2)[1]]]
  path = str(tmp_path / 'state.json')
  with open(path, 'w') as f:
    json.dump(state, f)
  os.mkdir(str(tmp_path / 'y'))
  os.rename(slices[0].path, str(tmp_path / 'y' / 'x'))
  moved = [s._replace(path=str(tmp_path / 'y' / 'x')) for s in slices]
  other = work_queue.Plan(moved, 6, 4, shuffle=True)
  epoch, owner, text = other.load(path)
  assert other.state(epoch, owner)['acknowledged'] == state['acknowledged']
  assert 'goes on: 5 slices, 6 epochs, 26.7 % done' in text  # 8 of 30


def test_other_files_begin_afresh(slices, tmp_path):
  plan = work_queue.Plan(slices, 3, 9, True)
  path = str(tmp_path / 'state.json')
  with open(path, 'w') as f:
    json.dump(plan.state(2, np.full(10, ledger.DONE)), f)
  with open(slices[0].path, 'ab') as f:
    f.write(b'6')
  for other, found, text in [
      (work_queue.Plan(slices, 3, 9, True), path, 'files have changed'),
      (work_queue.Plan(slices[1:], 3, 9, True), path, 'files have changed'),
      (plan, path + 'x', 'begins afresh.*has no state')]:
    epoch, owner, said = other.load(found)
    assert (epoch, set(owner)) == (0, {ledger.FREE})
    assert len(owner) == 2 * len(other)
    import re
    assert re.search(text, said)


def test_refuses():
  for value in (0, -1, 2.5):
    with pytest.raises(errors.UserError, match='WorkQueue.slice_rows must be'):
      work_queue.WorkQueue(slice_rows=value)
  for value in (0, None):
    with pytest.raises(errors.UserError, match='WorkQueue.lease_secs must be'):
      work_queue.WorkQueue(lease_secs=value)


@pytest.fixture(scope='session')
def numbered(taobao, tmp_path_factory):
  """1,000 rows whose user_id is their number, in row groups of 100."""
  path = tmp_path_factory.mktemp('numbered')
  table = pa.parquet.read_table(taobao + '/taobao_test_data.parquet')
  table = table.set_column(
      table.column_names.index('user_id'), 'user_id',
      pa.array([str(i) for i in range(1000)]))
  pa.parquet.write_table(
      table, str(path / 'taobao_train_data.parquet'), row_group_size=100)
  pa.csv.write_csv(table, str(path / 'numbered.csv'),
                   pa.csv.WriteOptions(include_header=False))
  pa.parquet.write_table(table[:200], str(path / 'taobao_test_data.parquet'))
  return str(path)


class Seen(tf.train.SessionRunHook):
  """Notes the user_id of every row that a step trains."""

  def __init__(self, stop_after=None):
    self.rows, self.sizes = [], []
    self._stop_after = stop_after

  def before_run(self, run_context):
    return tf.train.SessionRunArgs('user_ids:0')

  def after_run(self, run_context, run_values):
    self.rows += [int(x) for x in run_values.results]
    self.sizes.append(len(run_values.results))
    if len(self.sizes) == self._stop_after:
      raise KeyboardInterrupt


@pytest.fixture
def load(numbered, tmp_path, monkeypatch):
  """An Experiment on the numbered rows, with a hook of its own."""
  model_fn = experiment.Experiment._model_fn

  def naming(self, features, labels, mode, config):
    if mode == tf.estimator.ModeKeys.TRAIN:
      tf.identity(features['raw/user_id'], 'user_ids')
    return model_fn(self, features, labels, mode, config)

  monkeypatch.setattr(experiment.Experiment, '_model_fn', naming)

  def made(hook, *bindings):
    gin.clear_config()
    run.load_config('gin/work_queue.gin', SMALL + [
        'Experiment.model_dir = %r' % str(tmp_path / 'model'),
        'DATA_DIR = %r' % numbered] + list(bindings))
    found = experiment.Experiment()
    found._own_hooks.append(hook)
    return found
  return made


def states(tmp_path):
  found = {}
  for path in glob.glob(str(tmp_path / 'model/work_queue/*')):
    with open(path) as f:
      found[int(path.rpartition('-')[2][:-5])] = json.load(f)
  return found


@pytest.mark.parametrize('kind, shuffle, slice_rows', [
    ('ParquetInput', 0, None), ('ParquetInput', 250, 40),
    ('ParquetInput', 5000, 100), ('CsvInput', 250, 70)])
def test_rows_are_trained_once_per_epoch(
    load, tmp_path, kind, shuffle, slice_rows):
  seen = Seen()
  more = [] if kind == 'ParquetInput' else [
      'Experiment.train_input = @train/CsvInput()',
      "CsvInput.data_dir = %DATA_DIR", "train/CsvInput.files = 'numbered.csv'",
      'CsvInput.batch_size = %BATCH_SIZE']
  load(seen, 'Experiment.eval_input = None', 'BATCH_SIZE = 64',
       'EPOCHS = 3', 'WorkQueue.slice_rows = %r' % slice_rows,
       'run_config.save_steps = 10',
       'train/%s.epochs = 3' % kind,
       'train/%s.shuffle_rows = %d' % (kind, shuffle), *more).train()
  assert len(seen.rows) == 3000
  for epoch in range(3):
    assert sorted(seen.rows[1000 * epoch:][:1000]) == list(range(1000))
  assert (seen.rows[:1000] == list(range(1000))) == (shuffle == 0)
  assert seen.rows[:1000] == seen.rows[1000:2000] or shuffle
  state = states(tmp_path)
  assert state[max(state)]['epoch'] == 3
  checkpoints = glob.glob(str(tmp_path / 'model/model.ckpt-*.index'))
  assert sorted(state) == sorted(
      int(p.rpartition('-')[2][:-6]) for p in checkpoints)
