"""Which rows are trained, counted row by row, when runs break off and go on.

The model counts in a variable how often it was trained on each row. So a
checkpoint says which rows it includes.
"""

import collections
import json
import logging
import os

import numpy as np
import pyarrow as pa
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.cluster import roles
from ple_estimator.data import feature_spec
from ple_estimator.data import inputs
from ple_estimator.data import read_plan
from ple_estimator.data import reading
from ple_estimator.training import estimator
from ple_estimator.training import hooks
from ple_estimator.training import incremental
from ple_estimator.training import input_plan
from ple_estimator.training import input_state
from ple_estimator.training import saver

ROWS = 200  # rows that there are, 0 to 199
SEEN = 'seen'
# What of a tf.estimator.RunConfig an InputState looks at.
Config = collections.namedtuple('Config', [
    'model_dir', 'task_type', 'task_id', 'num_worker_replicas', 'is_chief',
    'tf_random_seed'])


class Killed(Exception):
  """What ends a run before its end."""


class _Kill(tf.train.SessionRunHook):
  """Ends a run behind a step, as a kill does: nothing is saved."""

  def __init__(self, step):
    self._step = step

  def before_run(self, run_context):
    return tf.train.SessionRunArgs(tf.train.get_global_step())

  def after_run(self, run_context, run_values):
    if run_values.results >= self._step:
      raise Killed()


def write(path, rows, bad=()):
  """Writes rows as CSV: a label, which is wrong in bad rows, and a number."""
  path.write_text(''.join(
      '%s,%d\n' % ('x' if row in bad else row % 2, row) for row in rows))


def read():
  return reading.Reading(feature_spec.FeatureSpec([
      {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
      {'name': 'row', 'kind': 'integer', 'num_buckets': ROWS}], 4), ('row',))


class Run:
  """Runs in one folder, each of which goes on where the one before was."""

  def __init__(self, folder):
    self.folder = folder
    self.model_dir = str(folder / 'run')

  def state(self, files, on_changed_files='error', **options):
    options = dict(dict(batch_size=7, shuffle_rows=40, epochs=2), **options)
    source = inputs.CsvInput(files, str(self.folder), **options)
    config = roles.run_config(self.model_dir, save_steps=5, seed=3)
    return input_state.InputState(source, config, on_changed_files), source

  def train(self, files, kill=None, delta_steps=None, max_steps=None,
            **options):
    """Trains to the end of the rows; returns the last step that was saved."""
    state, source = self.state(files, **options)
    state.prepare(read())
    state.say()
    config = roles.run_config(self.model_dir, save_steps=5, seed=3)

    def model_fn(features, labels, mode):
      state.follow(features)
      assert sorted(features) == ['raw/row', 'row']
      seen = tf.get_variable(SEEN, [ROWS], tf.int64, tf.zeros_initializer())
      rows = tf.cast(features['raw/row'], tf.int64)
      made = saver.Saver(5, True, state, variables_remain=False)
      with tf.control_dependencies(
          [seen.scatter_add(tf.IndexedSlices(tf.ones_like(rows), rows))]):
        step = tf.assign_add(tf.train.get_global_step(), 1)
      delta = [incremental.IncrementalCheckpoint(save_steps=delta_steps).hook(
          self.model_dir, made)] if delta_steps else []
      return tf.estimator.EstimatorSpec(
          mode, loss=tf.reduce_mean(labels['clk']), train_op=step,
          training_hooks=[state.hook()] + delta + [
              hooks.CheckpointHook(self.model_dir, made, 5)] + (
                  [_Kill(kill)] if kill else []),
          scaffold=tf.train.Scaffold(saver=made))

    last = max_steps or state.last_step()
    try:
      tf.estimator.Estimator(model_fn, config=config).train(
          lambda: source.dataset(read(), parts=state.parts,
                                 follow=state.iterate), max_steps=last)
    except Killed:
      assert kill
    return incremental.newest_step(self.model_dir), last

  def broken_off(self, files, kill, **options):
    """Trains until it is killed; returns the last step that was saved.

    It is one of a few, because a hook may see a step before or after it counts.
    """
    saved, last = self.train(files, kill, **options)
    assert kill - 6 <= saved <= kill + 1 < last
    return saved

  def seen(self):
    """How often each row is in the last checkpoint: [ROWS] int64."""
    path = incremental.merged(tf.train.latest_checkpoint(self.model_dir))
    return tf.train.load_checkpoint(path).get_tensor(SEEN).tolist()

  def names_in(self, folder):
    return sorted(os.listdir(os.path.join(self.model_dir, folder)))


@pytest.fixture
def run(tmp_path, caplog):
  caplog.set_level(logging.INFO)
  write(tmp_path / 'a.csv', range(60))
  write(tmp_path / 'b.csv', range(60, 100))
  return Run(tmp_path)


def counts(*ranges):
  """[ROWS] of the number of ranges that have a row."""
  found = np.zeros(ROWS, np.int64)
  for rows in ranges:
    found[list(rows)] += 1
  return found.tolist()


def lines(caplog):
  found = [r.getMessage() for r in caplog.records
           if r.getMessage().startswith('Input: ')]
  caplog.clear()
  return found


@pytest.mark.parametrize('shuffle_rows', [
    0, 40, pytest.param(1, marks=pytest.mark.slow)])
def test_every_row_is_trained_once_an_epoch(run, caplog, shuffle_rows):
  # 200 rows in 29 batches; epoch 2 begins in the middle of the 15th.
  files, saved = ['a.csv', 'b.csv'], []
  for kill in (8, 23):
    saved.append(run.broken_off(files, kill, shuffle_rows=shuffle_rows))
    assert sum(run.seen()) == 7 * saved[-1] and max(run.seen()) == len(saved)
  assert run.train(files, shuffle_rows=shuffle_rows) == (29, 29)
  assert run.seen() == counts(range(100), range(100))
  assert lines(caplog) == [
      'Input: goes on in epoch %d at row %d of 100: %s/a.csv, %s/b.csv.' % (
          epoch, row, run.folder, run.folder)
      for epoch, row in [(1, 7 * saved[0]), (2, 7 * saved[1] - 100)]]
  state, _ = run.state(files)
  state.prepare(read())
  assert state.is_at_end() and state.last_step() == 29


def test_batch_size_seed_and_buffer_may_change(run):
  files = ['a.csv', 'b.csv']
  first = run.broken_off(files, 8)
  second = run.broken_off(files, 13, batch_size=16, shuffle_rows=10)
  rows = first * 7 + (second - first) * 16
  assert second > first and sum(run.seen()) == rows
  last = second + (200 - rows + 4) // 5
  assert run.train(files, batch_size=5, shuffle_rows=0) == (last, last)
  assert run.seen() == counts(range(100), range(100))


def test_the_epochs_may_be_raised(run):
  assert run.train('a.csv', epochs=1) == (9, 9)
  assert run.train('a.csv', epochs=3) == (27, 27)  # 120 rows: 18 batches
  assert run.seen() == counts(*[range(60)] * 3)


def test_an_end_that_was_not_known_when_it_was_saved_is_one(run):
  """The last batch may be trained before the thread that reads has ended."""
  assert run.train('a.csv', epochs=1) == (9, 9)
  path = run.folder / 'run' / 'input' / 'state-9.json'
  state = json.loads(path.read_text())
  found, = state['files']
  assert (state['part'], found['epochs']) == (None, 1)
  found['epochs'] = 0
  state['part'] = {'paths': [found['path']], 'epoch': 0, 'row': 60, 'seed': 3,
                   'shuffle_rows': 40}
  path.write_text(json.dumps(state))
  assert run.train('a.csv', epochs=1) == (9, 9)
  assert run.train('a.csv', epochs=3) == (27, 27)
  assert run.seen() == counts(*[range(60)] * 3)


def test_skipped_rows_are_neither_lost_nor_repeated(run):
  bad = range(1, 60, 3)
  write(run.folder / 'a.csv', range(60), bad)
  good = [row for row in range(100) if row not in bad]
  for kill in (8, 18):
    saved = run.broken_off(['a.csv', 'b.csv'], kill, on_bad_row='skip')
    assert sum(run.seen()) == 7 * saved
  # Nobody knows before the end that 160 rows can be used, and not 200.
  step, _ = run.train(['a.csv', 'b.csv'], on_bad_row='skip')
  assert step == 23 and run.seen() == counts(good, good)
  assert run.train(['a.csv', 'b.csv'], on_bad_row='skip') == (23, 23)


def test_rows_that_are_dropped_do_not_come_the_next_day(run, caplog):
  assert run.train('a.csv', epochs=1, drop_remainder=True) == (8, 8)
  assert sum(run.seen()) == 56
  assert run.train(['b.csv'], epochs=1, drop_remainder=True) == (13, 13)
  assert sum(run.seen()[60:]) == 35 and sum(run.seen()) == 56 + 35


def test_the_next_day_starts_at_its_first_row(run, caplog):
  assert run.train('a.csv') == (18, 18)
  # Alone, or beside the old file, of which no row is left.
  for files, end in [('b.csv', 30), (['b.csv', 'c.csv'], 59)]:
    write(run.folder / 'c.csv', range(100, 200))
    assert run.train(files) == (end, end)
  assert run.seen() == counts(range(200), range(200))
  assert lines(caplog) == [
      'Input: new files: starts at their first row: %s/b.csv.' % run.folder,
      'Input: new files: starts at their first row: %s/c.csv.' % run.folder]


def test_what_is_left_comes_before_the_next_day(run, caplog):
  saved = run.broken_off('a.csv', 15)  # in epoch 2 of 60 rows
  run.broken_off(['a.csv', 'b.csv'], 17)
  assert sum(run.seen()[60:]) == 0
  later = run.broken_off(['a.csv', 'b.csv'], 25)
  assert sum(run.seen()[:60]) == 120 and sum(run.seen()) == later * 7
  assert run.train(['b.csv', 'a.csv']) == (29, 29)
  assert run.seen() == counts(range(100), range(100))
  assert lines(caplog)[:2] == [
      'Input: goes on in epoch 2 at row %d of 60: %s/a.csv.' % (
          7 * saved - 60, run.folder),
      'Input: new files: starts at their first row: %s/b.csv.' % run.folder]


def test_epochs_are_counted_back_from_the_rows_that_are_left(run):
  def first_step(files, **options):
    state, _ = run.state(files, **options)
    state.prepare(read())
    return state.first_step()

  assert first_step('a.csv') == 0
  saved = run.broken_off('a.csv', 12)
  assert first_step('a.csv') == 0
  # As many rows as have been read would be fewer steps of larger batches.
  assert first_step('a.csv', batch_size=14) == saved - saved / 2
  # The epochs of 100 rows end with the last row: 120 + 80 rows.
  assert first_step(['a.csv', 'b.csv']) == 0
  assert run.train('a.csv') == (18, 18)
  # The next day begins an epoch at the step that the run is at.
  assert first_step('b.csv') == 18


def test_what_is_left_off_and_repeated_is_said(run, caplog):
  saved = run.broken_off(['a.csv', 'b.csv'], 8)
  before = run.seen()
  write(run.folder / 'c.csv', range(100, 150))
  assert run.train(['b.csv', 'c.csv'], epochs=1) == (saved + 13, saved + 13)
  assert np.subtract(run.seen(), before).tolist() == counts(range(60, 150))
  assert lines(caplog) == [
      'Input: leaves off in epoch 1 at row %d of files that are no longer '
      'named, or have changed: %s/a.csv.' % (7 * saved, run.folder),
      'Input: repeats, because they were read together with these, rows of '
      'that epoch: %s/b.csv.' % run.folder,
      'Input: new files: starts at their first row: %s/c.csv.' % run.folder]


def test_a_changed_file_is_refused_or_starts_anew(run, caplog):
  assert run.train('a.csv', epochs=1) == (9, 9)
  write(run.folder / 'a.csv', range(70))
  with pytest.raises(errors.UserError, match=(
      r"a.csv has changed since it was trained on: it had \d+ bytes and has "
      r"\d+. Give files with new rows new names, or set Experiment.on_changed_"
      r"files = 'restart' to train on changed files from their first row.")):
    run.train('a.csv', epochs=1)
  assert run.train('a.csv', epochs=1, on_changed_files='restart') == (19, 19)
  assert run.seen() == counts(range(60), range(70))
  assert lines(caplog) == [
      'Input: changed file: starts at its first row: %s/a.csv (it had %d bytes '
      'and has %d).' % (run.folder, 10 * 4 + 50 * 5, 10 * 4 + 60 * 5)]


def test_other_bytes_are_a_change_and_another_date_is_none(run):
  assert run.train('a.csv', epochs=1) == (9, 9)
  os.utime(str(run.folder / 'a.csv'), (1e9, 1e9))
  assert run.train('a.csv', epochs=1) == (9, 9)
  write(run.folder / 'a.csv', [1, 0] + list(range(2, 60)))
  with pytest.raises(errors.UserError, match='another date and other bytes'):
    run.train('a.csv', epochs=1)


def test_an_incremental_checkpoint_says_what_was_read(run):
  files = ['a.csv', 'b.csv']
  for kill in (9, 18):
    saved = run.broken_off(files, kill, delta_steps=2)
    assert sum(run.seen()) == 7 * saved
  assert run.names_in('incremental')
  assert run.train(files, delta_steps=2) == (29, 29)
  assert run.seen() == counts(range(100), range(100))


def test_states_go_with_their_checkpoints(run):
  run.train(['a.csv', 'b.csv'], delta_steps=2)
  steps = [name.split('-')[1].split('.')[0] for name in run.names_in('')
           if name.endswith('.index')]
  deltas = [name[len('delta-'):-len('.json')]
            for folder in run.names_in('incremental')
            for name in run.names_in('incremental/' + folder)
            if name.endswith('.json')]
  assert len(steps) == 5
  assert run.names_in('input') == sorted(
      'state-%s.json' % step for step in set(steps + deltas))


@pytest.mark.parametrize('text', [None, '[]'])
def test_a_checkpoint_without_a_state_goes_by_its_step(run, caplog, text):
  saved = run.broken_off('a.csv', 7)
  path = os.path.join(run.model_dir, 'input', 'state-%d.json' % saved)
  os.remove(path)
  if text is not None:
    with open(path, 'w') as f:
      f.write(text)
  assert run.train('a.csv', max_steps=8) == (8, 8)
  assert lines(caplog) == [
      'Input: the checkpoint does not say what was read (nothing that can be '
      'used at %s): takes step * batch_size = %d rows of the files that are '
      'named now as read.' % (path, 7 * saved),
      'Input: goes on in epoch 1 at row %d of 60: %s/a.csv.' % (
          7 * saved, run.folder)]


def test_a_state_of_another_shape_is_none():
  found = {'path': 'a', 'size': 1, 'mtime': 1.5, 'digest': 'x', 'epochs': 0}
  part = {'paths': ['a'], 'epoch': 0, 'row': 1, 'seed': 3, 'shuffle_rows': 0}
  good = {'files': [found], 'part': part, 'last_step': 7}
  assert input_plan.is_state(good)
  assert input_plan.is_state(dict(good, part=None))
  for other in [
      None, [], {}, 'x', dict(good, files={}), dict(good, files=[3]),
      dict(good, files=[dict(found, path=['a'])]), dict(good, last_step=None),
      dict(good, files=[dict(found, epochs='1')]), dict(good, part=[]),
      dict(good, part=dict(part, row=1.5)),
      dict(good, part=dict(part, paths=3)),
      dict(good, part={'paths': ['a']}), {'files': [found], 'part': part}]:
    assert not input_plan.is_state(other), other


def test_max_steps_stops_before_the_end_of_the_rows(run):
  assert run.train('a.csv', max_steps=10) == (10, 10)
  assert run.train('a.csv', max_steps=100) == (18, 100)
  assert run.seen() == counts(range(60), range(60))


def test_a_state_says_what_was_read(run):
  run.train(['a.csv', 'b.csv'], max_steps=16)
  with open(os.path.join(run.model_dir, 'input', 'state-16.json')) as f:
    state = json.load(f)
  paths = [str(run.folder / name) for name in ('a.csv', 'b.csv')]
  assert state['part'] == {'paths': paths, 'epoch': 1, 'row': 12, 'seed': 3,
                           'shuffle_rows': 40}
  assert state['last_step'] == 29
  assert [(found['path'], found['size'], found['mtime'], found['epochs'])
          for found in state['files']] == [
              (path, os.path.getsize(path), os.path.getmtime(path), 1)
              for path in paths]


def of_cluster(run, index, count, files='a.csv', **options):
  """The InputState of a process of a cluster, and its input, prepared."""
  _, source = run.state(files, **options)
  config = Config(run.model_dir, 'worker' if index else 'chief',
                  max(0, index - 1), count, index == 0, 3)
  state = input_state.InputState(source, config, 'error')
  state.prepare(read())
  return state, source


def save(run, state, step):
  """Saves a step, and the state of it as a Saver does."""
  state.save(step)
  with tf.Graph().as_default(), tf.Session() as session:
    variable = tf.Variable(0)
    session.run(variable.initializer)
    tf.train.Saver(save_relative_paths=True).save(
        session, run.model_dir + '/model.ckpt', step, write_meta_graph=False)


def share_of(source, index, count):
  """The rows of a process in an epoch that is not shuffled."""
  part = source.part(source.paths(), 0, seed=3)._replace(stop=1)
  return sum((table['row'].to_pylist() for table in source.tables(
      read(), (index, count), parts=[part])), [])


def rows_of(state, source, index, count, most):
  """The first rows that a process reads."""
  found = []
  for table in source.tables(read(), (index, count), parts=state.parts()):
    found += table['row'].to_pylist()
    if len(found) >= most:
      break
  return found[:most]


def test_processes_of_a_cluster_go_on_by_the_global_step(run, caplog):
  # 120 rows in batches of 5 make 24 steps of whichever process.
  options = dict(batch_size=5, shuffle_rows=0)
  chief, _ = of_cluster(run, 0, 2, **options)
  assert chief.last_step() == 24 and lines(caplog) == []
  save(run, chief, 8)
  for index in (0, 1):  # 40 rows were read, 20 of each share
    state, source = of_cluster(run, index, 2, **options)
    assert state.last_step() == 24
    share = share_of(source, index, 2)
    # Then epoch 2, and then again, for a process that is faster.
    assert rows_of(state, source, index, 2, 80) == (
        share[20:] + share + share + share)[:80]
  state.say()
  assert lines(caplog) == [
      'Input: goes on in epoch 1 at row 40 of 60: %s/a.csv.' % run.folder,
      'Input: in a cluster without Experiment.work_queue each process goes on '
      'at about this row of its share; rows of faster processes are repeated, '
      'those of slower ones skipped.']
  # Another number of processes, and another batch: 80 rows are left.
  state, _ = of_cluster(run, 0, 3, **dict(options, batch_size=10))
  assert state.last_step() == 16


def test_a_cluster_that_went_too_far_has_the_same_last_step(run):
  chief, _ = of_cluster(run, 0, 2, batch_size=5)
  save(run, chief, 26)
  for index in (0, 1):
    state, _ = of_cluster(run, index, 2, batch_size=5)
    assert state.last_step() == 24 and state.is_at_end()
  # The next day.
  state, _ = of_cluster(run, 0, 2, files=['b.csv'], batch_size=5)
  assert state.last_step() == 26 + 16


def test_a_worker_goes_by_the_newest_checkpoint(run):
  worker, source = of_cluster(run, 1, 2, batch_size=5, shuffle_rows=0)
  chief, _ = of_cluster(run, 0, 2, batch_size=5, shuffle_rows=0)
  save(run, chief, 4)  # 20 rows, 10 of each share
  wanted = share_of(source, 1, 2)[10:13]
  assert rows_of(worker, source, 1, 2, 3) == wanted
  # A copy on another machine has another date; the chief judges.
  os.utime(str(run.folder / 'a.csv'), (1e9, 1e9))
  assert rows_of(worker, source, 1, 2, 3) == wanted


class _Stage:
  """An engine that makes batches ahead, as DeepRec does."""

  def staged(self, tensors, capacity):
    assert capacity == 4
    return tf.nest.map_structure(
        lambda x: tf.identity(x, name='stage'), tensors), []


class _Model:

  averaging = None
  groups = tasks = ()
  features = feature_spec.FeatureSpec([{'name': 'x', 'kind': 'number'}])

  def own_names(self):
    return [], []

  def input_names(self):
    return [('x', 1)]

  def logit_names(self):
    return ['ctr']

  def model_fn(self, features, labels, mode, **kwargs):
    assert sorted(features) == ['raw/row', 'row']
    step = tf.train.get_global_step()
    return tf.estimator.EstimatorSpec(
        mode, loss=tf.reduce_mean(labels['clk']),
        train_op=tf.assign_add(step, 1))


def test_a_number_goes_through_the_stage_with_its_batch(run):
  # To fetch what goes into the stage would draw a batch that nobody trains.
  state, source = run.state('a.csv')
  state.prepare(read())
  tf.train.create_global_step()
  features, labels = tf.data.make_initializable_iterator(source.dataset(
      read(), parts=state.parts, follow=state.iterate)).get_next()
  os.makedirs(run.model_dir, exist_ok=True)
  estimator.ModelFn(_Model(), _Stage(), True, 4, state)(
      features, labels, tf.estimator.ModeKeys.TRAIN,
      roles.run_config(run.model_dir))
  number = tf.get_default_graph().get_tensor_by_name('input_rows_read:0')
  assert number.op.inputs[0].op.name.startswith('stage')


def test_a_place_behind_rows_is_found_in_a_plan():
  part = read_plan.Part(['a'], 1, 7, 3, 0, 0)  # 3 + 10 rows
  other = read_plan.Part(['b'], 0, 0, 1, 0, 0)  # 10 rows
  assert read_plan.num_rows([part, other], lambda paths: 10) == 23
  places = [read_plan.after([part, other], rows, lambda paths: 10)
            for rows in (0, 2, 3, 12, 13, 22, 23, 99)]
  assert places == [(0, 1, 7), (0, 1, 9), (0, 2, 0), (0, 2, 9), (1, 0, 0),
                    (1, 0, 9), (2, 0, 0), (2, 0, 0)]


def test_numbers_of_another_iteration_do_not_count():
  part = read_plan.Part(['a'], 1, 7, 3, 0, 0)
  old, new = read_plan.Progress([part]), read_plan.Progress([part])
  numbers = [[number for _, number in progress.sent(
      progress.counted([pa.table({'x': [1, 2]})] * 2))]
             for progress in (old, new)]
  assert new.place(numbers[1][0]) == (0, 1, 9)
  assert new.place(numbers[0][0]) == new.place(0) == (0, 1, 7)
  assert new.place(numbers[1][1]) == (1, 0, 0)  # the end
