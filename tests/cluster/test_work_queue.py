"""Every slice is trained once per epoch, whoever dies."""

import collections
import glob
import importlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

import conftest
import gin
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment
from ple_estimator import model
from ple_estimator.cluster.work_queue import ledger
from ple_estimator.cluster.work_queue import work_queue
from ple_estimator.data import reader

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
    self.leases = {
        n: held for n, held in self.leases.items() if held[0] != who}

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
  return [reader.Slice(str(path), 0, i, i + 1) for i in range(5)]


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
  model_fn = model.Model.model_fn

  def naming(self, features, labels, mode, **kwargs):
    if mode == tf.estimator.ModeKeys.TRAIN:
      tf.identity(features['raw/user_id'], 'user_ids')
    return model_fn(self, features, labels, mode, **kwargs)

  monkeypatch.setattr(model.Model, 'model_fn', naming)

  def made(hook, *bindings):
    gin.clear_config()
    config.load('gin/work_queue.gin', SMALL + [
        'Experiment.model_dir = %r' % str(tmp_path / 'model'),
        'DATA_DIR = %r' % numbered] + list(bindings))
    return experiment.Experiment(hooks=[hook])
  return made


def states(tmp_path):
  found = {}
  for path in glob.glob(str(tmp_path / 'model/work_queue/*')):
    with open(path) as f:
      found[int(path.rpartition('-')[2][:-5])] = json.load(f)
  return found


def fractions(tmp_path):
  return [value.simple_value
          for path in glob.glob(str(tmp_path / 'model/*.tfevents.*'))
          for event in tf.train.summary_iterator(path)
          for value in event.summary.value
          if value.tag == 'work_queue/fraction_done']


@pytest.mark.parametrize('kind, shuffle, slice_rows', [
    ('ParquetInput', 0, None), ('CsvInput', 250, 70),
    pytest.param('ParquetInput', 250, 40, marks=pytest.mark.slow),
    pytest.param('ParquetInput', 5000, 100, marks=pytest.mark.slow)])
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


@pytest.mark.parametrize('stop_after', [
    23, pytest.param(30, marks=pytest.mark.slow),
    pytest.param(41, marks=pytest.mark.slow)])
def test_continues_with_what_the_checkpoint_has_not_acknowledged(
    load, tmp_path, stop_after):
  bindings = [
      'Experiment.eval_input = None', 'BATCH_SIZE = 64', 'EPOCHS = 3',
      'WorkQueue.slice_rows = 50', 'run_config.save_steps = 10',
      'train/ParquetInput.shuffle_rows = 150']
  first = Seen(stop_after)
  with pytest.raises(KeyboardInterrupt):
    load(first, *bindings).train()
  assert len(first.sizes) == stop_after
  saved = states(tmp_path)
  step = max(saved)
  assert step == stop_after // 10 * 10
  state = saved[step]
  left = collections.Counter({row: 3 - state['epoch'] for row in range(1000)})
  for slices in state['acknowledged']:
    left.subtract(50 * i + j for i in slices for j in range(50))
  trained = collections.Counter(first.rows[:64 * step])
  trained.update(left)
  assert min(trained.values()) >= 3  # nothing is skipped
  # Rows of one slice may be kept in the buffer for long.
  assert 3000 - sum(left.values()) > 64 * step / 2
  second = Seen()
  load(second, *bindings).train()
  assert collections.Counter(second.rows) == +left
  third = Seen()
  load(third, *bindings).train()  # all is done
  assert not third.rows


@pytest.mark.slow
def test_says_that_all_is_trained_only_when_it_is(load, tmp_path, caplog):
  # What is done again after a loss makes more steps than rows / batch size, 47.
  bindings = [
      'Experiment.eval_input = None', 'BATCH_SIZE = 64', 'EPOCHS = 3',
      'WorkQueue.slice_rows = 50', 'run_config.save_steps = 2',
      'train/ParquetInput.shuffle_rows = 150']
  for stop_after in (45, 5):
    with pytest.raises(KeyboardInterrupt):
      load(Seen(stop_after), *bindings).train()
  assert max(states(tmp_path)) == 48
  caplog.set_level('INFO')
  load(Seen(), *bindings).train()
  assert 'Trained to step' not in caplog.text
  assert 'step 50 of 50' in caplog.text
  assert '100.0 % done' not in caplog.text
  load(Seen(), *bindings).train()
  assert '100.0 % done' in caplog.text


def test_a_step_is_acknowledged_before_it_is_saved(load, tmp_path):
  # In order, a batch is a slice: after n steps n slices are done.
  load(Seen(), 'Experiment.eval_input = None', 'BATCH_SIZE = 50', 'EPOCHS = 2',
       'WorkQueue.slice_rows = 50', 'run_config.save_steps = 7',
       'train/ParquetInput.shuffle_rows = 0').train()
  assert {step: 20 * s['epoch'] + sum(map(len, s['acknowledged']))
          for step, s in states(tmp_path).items()} == {
              step: step for step in (14, 21, 28, 35, 40)}


def test_evaluates_on_the_way_and_shows_progress(load, tmp_path):
  load(Seen(), 'BATCH_SIZE = 50', 'EPOCHS = 2', 'WorkQueue.slice_rows = 50',
       'run_config.save_steps = 10', 'Experiment.eval_steps = 20').train()
  with open(str(tmp_path / 'model/metrics.json')) as f:
    assert json.load(f)['global_step'] == 40
  shares = fractions(tmp_path)
  assert shares == sorted(shares) and len(shares) > 20
  assert shares[0] < 0.2 and shares[-1] == 1


def test_max_steps_still_ends_training(load):
  seen = Seen()
  load(seen, 'Experiment.eval_input = None', 'BATCH_SIZE = 50',
       'Experiment.max_steps = 7').train()
  assert len(seen.sizes) == 7


def test_incremental_checkpoints_have_a_state_too(load, tmp_path):
  bindings = [
      'Experiment.eval_input = None', 'BATCH_SIZE = 50', 'EPOCHS = 2',
      'WorkQueue.slice_rows = 50', 'run_config.save_steps = 20',
      'run_config.keep_checkpoint_max = 1',
      'Model.embedding = @EmbeddingVariable()',
      'Experiment.incremental = @IncrementalCheckpoint()',
      'IncrementalCheckpoint.save_steps = 5',
      'train/ParquetInput.shuffle_rows = 0']
  importlib.import_module('ple_estimator.embeddings.keyed')
  importlib.import_module('ple_estimator.training.incremental')
  with pytest.raises(KeyboardInterrupt):
    load(Seen(33), *bindings).train()
  assert {20, 25, 30} <= set(states(tmp_path))
  second = Seen()
  load(second, *bindings).train()
  # Of 40 slices those are left that were not acknowledged by the delta.
  assert 40 - len(second.sizes) in (28, 29, 30)
  assert not {0, 5, 10, 15} & set(states(tmp_path))
  assert 40 in states(tmp_path)


def test_refuses_to_drop_rows(load):
  with pytest.raises(errors.UserError, match='drop_remainder must be False'):
    load(Seen(), 'ParquetInput.drop_remainder = True').train()


class Source:
  """What a WorkQueue asks of an input."""

  epochs, shuffle_rows = 1, 0

  def __init__(self, slices):
    self._slices = slices

  def slices(self, reading, most_rows):
    return self._slices


@pytest.fixture
def two(slices, tmp_path):
  """Two started WorkQueues, of a chief and a worker, and the ledger's ps."""
  ports = ['localhost:%d' % conftest.free_port() for _ in range(3)]
  jobs = {'ps': ports[:1], 'chief': ports[1:2], 'worker': ports[2:]}
  servers = [tf.train.Server(jobs, job) for job in sorted(jobs)]
  made = []
  for job in ('chief', 'worker'):
    os.environ['TF_CONFIG'] = json.dumps(
        {'cluster': jobs, 'task': {'type': job, 'index': 0}})
    try:
      config = tf.estimator.RunConfig(
          str(tmp_path), session_config=tf.ConfigProto())
    finally:
      del os.environ['TF_CONFIG']
    made.append(work_queue.WorkQueue(lease_secs=1))
    made[-1].start(config, Source(slices), None)
  yield made
  for queue in made:
    queue.close()
  del servers


def train(client, work, rows=2):
  """Reads and sends a slice; returns the serial of its batch."""
  table = client.mark(pa.table({'x': list(range(rows))}), work)
  client.read(work)
  return client.sent(table)


def test_leases_of_two_processes(two, slices):
  chief, worker = two
  b = worker.client()
  assert b.take() is None  # not before the chief has loaded
  chief.begin(tf.train.Coordinator())
  worker.begin(tf.train.Coordinator())
  a = chief.client()
  works = [c.wait() for c in (a, b, a, b)]
  assert [w.piece for w in works] == slices[:4]
  worker.trained(train(b, works[1]))
  # The worker is back, as if it had been killed: its slice is free at once.
  again = worker.client()
  assert again.wait().piece == slices[3]
  # It is killed and does not come back; a lease that is renewed stays.
  again._closed.set()
  last = a.wait()
  assert last.piece == slices[4]
  begin = time.time()
  assert a.wait().piece == slices[3]
  assert 0.2 < time.time() - begin < 5
  for i, work in enumerate([works[0], works[2], last, a.take()]):
    if work:
      chief.trained(train(a, work))
  epoch, share = chief._progress()
  assert (epoch, share) == (0, 0.8)


def test_acknowledgements_from_before_a_restore_are_void(two, slices):
  chief, worker = two
  chief.begin(tf.train.Coordinator())
  client = worker.client()
  first, second = client.wait(), client.wait()
  worker.trained(train(client, first))
  assert chief._progress() == (0, 0.2)
  chief.save(10)
  chief.load(10)
  worker.trained(train(client, second))
  assert chief._progress() == (0, 0.2)
  assert client.wait().piece == slices[1]  # once more


def test_a_process_with_other_files_is_told(two, slices):
  chief, worker = two
  chief.begin(tf.train.Coordinator())
  worker._plan = work_queue.Plan(slices[1:], 1, 0, False)
  with pytest.raises(errors.UserError, match='the same files, slices and seed'):
    worker.client().wait()


def test_nobody_waits_after_a_session_has_ended(two):
  chief, worker = two
  chief.begin(tf.train.Coordinator())
  coordinator = tf.train.Coordinator()
  worker.begin(coordinator)
  a, b = chief.client(), worker.client()
  while a.take():
    pass
  threading.Timer(0.5, coordinator.request_stop).start()
  assert b.wait() is None


def test_a_slice_without_good_rows_is_done(two):
  chief, _ = two
  chief.begin(tf.train.Coordinator())
  client = chief.client()
  first, second = client.take(), client.take()
  client.read(first)
  chief.trained(train(client, second))
  assert chief._progress() == (0, 0.4)


class Cluster:
  """Processes of queue_task.py: 1 ps, a chief and 2 workers."""

  def __init__(self, data, folder, epochs):
    self._folder, self._args = folder, [data, str(folder / 'model')]
    self._epochs = epochs
    ports = ['localhost:%d' % conftest.free_port() for _ in range(4)]
    self._cluster = {'ps': ports[:1], 'chief': ports[1:2], 'worker': ports[2:]}
    self._starts = 0
    self.tasks = {}
    for job, index in [('ps', 0), ('chief', 0), ('worker', 0), ('worker', 1)]:
      self.start(job, index)

  def start(self, job, index=0):
    self._starts += 1
    name = '%s-%d-%d' % (job, index, self._starts)
    with open(str(self._folder / (name + '.err')), 'w') as err:
      self.tasks[job, index] = subprocess.Popen(
          [sys.executable,
           os.path.join(conftest.ROOT, 'tests/cluster/queue_task.py')] +
          self._args + [str(self._folder / (name + '.rows')),
                        str(self._epochs)],
          cwd=conftest.ROOT, stdout=err, stderr=err, env=dict(
              os.environ, PYTHONPATH=conftest.ROOT, TF_CONFIG=json.dumps({
                  'cluster': self._cluster,
                  'task': {'type': job, 'index': index}})))

  def kill(self, job, index=0):
    self.tasks[job, index].kill()
    self.tasks[job, index].wait()

  def rows(self, name='*'):
    """Lists of rows, as processes have trained them."""
    lines = []
    for path in glob.glob(str(self._folder / (name + '.rows'))):
      with open(path) as f:
        lines += [list(map(int, line.split())) for line in f
                  if line.endswith('\n')]
    return lines

  def wait_for(self, steps, name, secs=90):
    """Waits until processes have done steps."""
    end = time.time() + secs
    while len(self.rows(name)) < steps:
      assert time.time() < end, self.errors()
      time.sleep(0.1)

  def join(self, *tasks, secs=120):
    """Waits for the end of tasks."""
    end = time.time() + secs
    for task in tasks:
      try:
        assert self.tasks[task].wait(max(1, end - time.time())) == 0, (
            self.errors())
      except subprocess.TimeoutExpired:
        self.tasks[task].send_signal(signal.SIGUSR1)  # where it is
        time.sleep(1)
        raise AssertionError('%s hangs\n%s' % (task, self.errors()))

  def errors(self):
    text = ''
    for path in sorted(glob.glob(str(self._folder / '*.err'))):
      with open(path) as f:
        text += '== %s\n%s\n' % (path, ''.join(f.readlines()[-80:]))
    return text

  def seen(self):
    """[1000] how often each row is in the variables of the last checkpoint."""
    return tf.train.load_variable(self._args[1], 'seen')


@pytest.fixture
def cluster(numbered, tmp_path):
  made = []

  def start(epochs):
    made.append(Cluster(numbered, tmp_path, epochs))
    return made[0]
  yield start
  for task in made[0].tasks.values():
    task.kill()
    task.wait()


CHIEF, WORKERS = ('chief', 0), [('worker', 0), ('worker', 1)]


def check_end(made, tmp_path, epochs):
  state = states(tmp_path)
  assert state[max(state)]['epoch'] == epochs  # every slice acknowledged
  assert made.seen().min() >= epochs  # none lost
  return made.seen().sum() - 1000 * epochs


@pytest.mark.cluster
def test_cluster_trains_every_row_once(cluster, tmp_path):
  made = cluster(2)
  made.join(CHIEF, *WORKERS)
  assert check_end(made, tmp_path, 2) == 0
  assert all(made.rows(name) for name in ('chief*', 'worker-0*', 'worker-1*'))
  shares = fractions(tmp_path)
  assert shares[-1] == 1 and any(0 < share < 1 for share in shares)


@pytest.mark.cluster
@pytest.mark.parametrize('restart', [False, True])
def test_slices_of_a_killed_worker_are_done_again(cluster, tmp_path, restart):
  epochs = 8 if restart else 3
  made = cluster(epochs)
  made.wait_for(10, 'worker-1*')
  made.kill('worker', 1)
  if restart:
    made.start('worker', 1)
    made.wait_for(1, 'worker-1-5')
    made.join(WORKERS[1])
  made.join(CHIEF, WORKERS[0])
  # What it had in hand: a shuffle buffer, batches made ahead, a slice or two.
  assert 0 <= check_end(made, tmp_path, epochs) <= 64 + 6 * 16 + 2 * 25


@pytest.mark.cluster
def test_parameter_server_comes_back(cluster, tmp_path):
  made = cluster(3)
  made.wait_for(60, '*')
  made.kill('ps')
  time.sleep(1)
  made.start('ps')
  made.join(CHIEF, *WORKERS)
  check_end(made, tmp_path, 3)


@pytest.mark.cluster
def test_workers_go_on_while_the_chief_is_away(cluster, tmp_path):
  made = cluster(4)
  made.wait_for(60, '*')
  made.kill('chief')
  before = len(made.rows('worker*'))
  made.wait_for(before + 20, 'worker*')
  made.start('chief')
  made.join(CHIEF, *WORKERS)
  check_end(made, tmp_path, 4)


@pytest.mark.cluster
def test_all_are_killed_and_start_again(cluster, tmp_path):
  made = cluster(3)
  made.wait_for(100, '*')
  for task in [('ps', 0), CHIEF] + WORKERS:
    made.kill(*task)
  state = states(tmp_path)
  left = 3000 - made.seen().sum()
  acked = 1000 * state[max(state)]['epoch'] + 25 * sum(
      map(len, state[max(state)]['acknowledged']))
  assert 0 < acked <= 3000 - left
  for task in [('ps', 0), CHIEF] + WORKERS:
    made.start(*task)
  made.join(CHIEF, *WORKERS)
  check_end(made, tmp_path, 3)
  # Neither repeats nor skips what is acknowledged.
  assert made.seen().sum() == 3000 - left + 3000 - acked
