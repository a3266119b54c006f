"""Day by day: progressive validation, the gate, and going on after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import conftest
import experiments
import pyarrow.parquet as pq
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.training import daily


@pytest.fixture(scope='module')
def days(taobao, tmp_path_factory):
  """A folder with dt=1 to dt=3, of 400 rows each."""
  path = tmp_path_factory.mktemp('days')
  rows = pq.read_table(taobao + '/taobao_train_data.parquet')
  for i in range(3):
    (path / ('dt=%d' % (i + 1))).mkdir()
    pq.write_table(rows.slice(400 * i, 400),
                   str(path / ('dt=%d' % (i + 1)) / 'part-0.parquet'))
  shutil.copy(taobao + '/taobao_validation_data.parquet', str(path))
  return path


def run(model_dir, days, *bindings, hooks=()):
  with tf.Graph().as_default():
    return experiments.load(
        'gin/daily.gin', model_dir, days, "train/ParquetInput.files = 'dt=*'",
        'Experiment.eval_epochs = 1', 'Experiment.eval_steps = None',
        *bindings, hooks=hooks).daily()


def record(model_dir):
  with open(str(model_dir / 'daily.json')) as f:
    return json.load(f)


class _Killed(Exception):
  pass


class _KillAt(tf.train.SessionRunHook):

  def __init__(self, step):
    self._step = step

  def after_run(self, run_context, run_values):
    if run_context.session.run(tf.train.get_global_step()) == self._step:
      raise _Killed()


@pytest.mark.slow
def test_a_day_is_evaluated_before_it_is_trained_and_goes_on_after_a_kill(
    days, tmp_path):
  whole = run(tmp_path / 'whole', days)
  assert [day['day'] for day in whole] == ['dt=1', 'dt=2', 'dt=3']
  assert [day['step'] for day in whole] == [4, 8, 12]
  assert whole[0]['before'] is None and whole[0]['export']
  # What is said of day 2 is the evaluation of a model that has only day 1.
  first = experiments.load(
      'gin/daily.gin', tmp_path / 'whole', days,
      "eval/ParquetInput.files = 'dt=2'").evaluate(
          str(tmp_path / 'whole' / 'model.ckpt-4'))
  assert whole[1]['before']['loss'] == pytest.approx(first['loss'], rel=1e-5)
  assert whole[1]['before']['global_step'] == 4

  # Killed in the middle of day 2, whose checkpoints are saved at each step.
  part, quick = tmp_path / 'part', 'Daily.export = False'
  with pytest.raises(_Killed):
    run(part, days, quick, 'run_config.save_steps = 1', hooks=[_KillAt(6)])
  found = record(part)
  assert [day['day'] for day in found['days']] == ['dt=1']
  assert found['in_hand']['day'] == 'dt=2'
  resumed = run(part, days, quick)
  assert [day['step'] for day in resumed] == [4, 8, 12]
  for now, then in zip(resumed[1:], whole[1:]):
    assert now['before']['loss'] == pytest.approx(
        then['before']['loss'], rel=1e-5)
  # A further call has nothing to do.
  assert run(part, days, quick) == resumed
  text = (part / 'daily.md').read_text()
  assert text.count('\n') == 5 and '| dt=3 | 12 |' in text


def test_new_days_are_found_and_an_older_one_is_refused(days, tmp_path):
  folder = tmp_path / 'days'
  shutil.copytree(str(days), str(folder))
  shutil.rmtree(str(folder / 'dt=1'))
  shutil.move(str(folder / 'dt=3'), str(tmp_path / 'dt=3'))
  assert len(run(tmp_path / 'run', folder, 'Daily.export = False')) == 1
  shutil.move(str(tmp_path / 'dt=3'), str(folder))
  done = run(tmp_path / 'run', folder, 'Daily.export = False')
  assert [day['day'] for day in done] == ['dt=2', 'dt=3']
  assert [day['why'] for day in done] == ['Daily.export is False'] * 2
  shutil.copytree(str(days / 'dt=1'), str(folder / 'dt=1'))
  with pytest.raises(errors.UserError, match='dt=1 comes before dt=3'):
    run(tmp_path / 'run', folder, 'Daily.export = False')


class _Actions:
  """A model whose metrics are given."""

  def __init__(self, values):
    self._values = iter(values)
    self._step = None

  def actions(self):
    def train(paths):
      del paths
      self._step = (self._step or 0) + 1
    return daily.Actions(
        lambda paths: {'ctr/auc': 0.5, 'ctr/log_loss': 0.5}, train,
        lambda: next(self._values), lambda: 'saved', lambda: self._step)


@pytest.mark.parametrize('metric, values, exported', [
    # 0.75 is within 0.05 of 0.79, 0.73 is not; 0.74 is compared with 0.75.
    ('ctr/auc', [0.79, 0.75, 0.69, 0.71, None], [1, 1, 0, 1, 0]),
    ('ctr/log_loss', [0.3, 0.34, 0.4, 0.38, 0.1], [1, 1, 0, 1, 1]),
])
def test_the_gate(tmp_path, metric, values, exported):
  made = daily.Daily('', metric, margin=0.05)
  done = made.run(str(tmp_path), list('abcde'), _Actions(
      {metric: value} for value in values).actions())
  assert [bool(day['export']) for day in done] == list(map(bool, exported))
  assert 'worse than' in done[2]['why'] and 'margin 0.05' in done[2]['why']


def test_the_record_names_files_whatever_the_current_folder_is(
    tmp_path, monkeypatch):
  monkeypatch.chdir(str(tmp_path))
  done = daily.Daily().run(
      str(tmp_path), ['dt=1/a', 's3://bucket/dt=2/b'],
      _Actions([{'mean/auc': 0.5}] * 2).actions())
  assert [day['files'] for day in done] == [
      [str(tmp_path / 'dt=1' / 'a')], ['s3://bucket/dt=2/b']]


DONE = {'day': 'a', 'files': ['a'], 'before': None, 'gate': None, 'step': 1,
        'why': 'x', 'export': None, 'seconds': 1.5}


@pytest.mark.parametrize('text, message', [
    ('', 'cannot be read: '), ('{"days": [', 'cannot be read: '),
    ('[]', r'must hold days, in_hand, got \[\]'),
    ('{"days": []}', 'must hold days, in_hand, got '),
    (json.dumps({'days': [3], 'in_hand': None}),
     'must hold days with .* got 3'),
    (json.dumps({'days': [dict(DONE, step=None)], 'in_hand': None}),
     'must hold days with before, day, export, files, gate, seconds, step, '),
    (json.dumps({'days': [DONE], 'in_hand': {'day': 'b'}}),
     'must hold days with before, day, files, got {"day": "b"}')])
def test_a_damaged_record_is_refused(tmp_path, text, message):
  path = tmp_path / 'daily.json'
  path.write_text(text)
  asked = []
  with pytest.raises(errors.UserError, match='^%s %s' % (
      path, message)) as raised:
    daily.Daily('').run(str(tmp_path), ['a', 'b'], daily.Actions(
        *[lambda *args: asked.append(args)] * 5))
  said = str(raised.value)
  assert '\n' not in said and 'Put a copy of it in its place.' in said
  assert not asked and path.read_text() == text


def test_a_record_is_gone_on_with(tmp_path):
  (tmp_path / 'daily.json').write_text(json.dumps(
      {'days': [DONE], 'in_hand': None}))
  done = daily.Daily('').run(
      str(tmp_path), ['a', 'b'], _Actions([{'mean/auc': 0.5}]).actions())
  assert done[0] == DONE and [day['day'] for day in done] == ['a', 'b']


def test_files_are_sorted_into_days():
  made = daily.Daily()
  assert list(made.days(['x/dt=2/b', 'x/dt=1/a', 'x/dt=2/a']).items()) == [
      ('dt=1', ['x/dt=1/a']), ('dt=2', ['x/dt=2/b', 'x/dt=2/a'])]
  with pytest.raises(errors.UserError, match='Daily.partition must be in'):
    made.days(['x/dt=1/a', 'x/b'])
  assert list(daily.Daily('').days(['b', 'a'])) == ['b', 'a']


def command_of(model_dir, days):
  """The command of a run that saves every step, as a list of str."""
  bindings = experiments.SMALL + experiments.FEW_COLUMNS + [
      'PLE.num_levels = 1', 'Experiment.model_dir = %r' % str(model_dir),
      'DATA_DIR = %r' % str(days), "train/ParquetInput.files = 'dt=*'",
      'Experiment.eval_epochs = 1', 'Experiment.eval_steps = None',
      'BATCH_SIZE = 40', 'run_config.save_steps = 1', 'Daily.margin = 1.0',
      'run_config.keep_checkpoint_max = 100']
  return [sys.executable, '-m', 'ple_estimator.run',
          '--gin_file=gin/daily.gin', '--mode=daily'] + [
              '--gin_bindings=' + binding for binding in bindings]


def killed(command, model_dir, moment, delay):
  """Runs a command and kills it some time after a moment.

  Args:
    command: list of str.
    model_dir: path of the run.
    moment: str, what the log says, or the name of a file of the run.
    delay: float, seconds.

  Returns:
    bool, whether the moment came.
  """
  log = model_dir.parent / 'log'
  with open(str(log), 'w') as stream:
    process = subprocess.Popen(command, cwd=conftest.ROOT, stderr=stream,
                               stdout=subprocess.DEVNULL)
  while process.poll() is None:
    if (model_dir / moment).exists() or moment in log.read_text():
      time.sleep(delay)
      process.send_signal(signal.SIGKILL)
      process.wait()
    time.sleep(0.002)
  return process.returncode == -signal.SIGKILL


# In their order: in the middle of day 1, while day 2 is evaluated, in its
# middle, before its last checkpoint is evaluated, while it is exported, and
# while day 3 is.
MOMENTS = [('model.ckpt-3.index', 0), ('dt=2: 1 files', 0.2),
           ('model.ckpt-14.index', 0), ('model.ckpt-20.index', 0),
           ('dt=2 is exported', 0.2), ('dt=3 is exported', 0)]


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_ends_as_another_one(
    days, tmp_path):
  whole = subprocess.run(
      command_of(tmp_path / 'whole', days), cwd=conftest.ROOT,
      stderr=subprocess.PIPE, universal_newlines=True)
  assert whole.returncode == 0, whole.stderr
  command = command_of(tmp_path / 'part', days)
  for moment in MOMENTS:
    assert killed(command, tmp_path / 'part', *moment), moment
  last = subprocess.run(command, cwd=conftest.ROOT, stderr=subprocess.PIPE,
                        universal_newlines=True)
  assert last.returncode == 0, last.stderr
  wanted, found = [record(tmp_path / name) for name in ('whole', 'part')]
  assert found['in_hand'] is None
  for then, now in zip(wanted['days'], found['days']):
    for key in ('day', 'files', 'step'):
      assert now[key] == then[key]
    assert bool(now['export']) == bool(then['export'])
    for key in ('before', 'gate'):
      assert now[key] == (then[key] and pytest.approx(then[key], rel=1e-3))
  assert len(found['days']) == 3 and found['days'][-1]['step'] == 30
  # Each day has ten steps of 40 rows. The state of its last step is written
  # again when the next day begins.
  for step in range(1, 31):
    done, steps = divmod(step, 10)
    for name in ('whole', 'part'):
      with open(str(tmp_path / name / 'input' / ('state-%d.json' % step))) as f:
        state = json.load(f)
      of, = state['files']
      assert os.path.basename(os.path.dirname(of['path'])) == 'dt=%d' % min(
          done + 1, 3)
      assert of['epochs'] == (done == 3)
      assert (state['part'] or {'row': 0})['row'] == 40 * steps


@pytest.mark.parametrize('bindings, message', [
    (['Experiment.daily = None'], 'Experiment.daily must be given'),
    (['Experiment.max_steps = 5'], 'Experiment.max_steps must be 0 for mode'),
    (['Experiment.early_stopping = @EarlyStopping()'],
     'Experiment.early_stopping must be None for mode'),
    (['Experiment.work_queue = @WorkQueue()'],
     'Experiment.work_queue must be None for mode'),
])
def test_what_is_not_for_days_is_refused(days, tmp_path, bindings, message):
  with pytest.raises(errors.UserError, match=message):
    run(tmp_path, days, *bindings)
