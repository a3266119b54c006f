"""What becomes of checkpoints that are lost or damaged."""

import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.cluster import marker
from ple_estimator.training import checkpoints

STEPS = (0, 20, 30)


def save(model_dir, step):
  """Writes a checkpoint in two parts, as two parameter servers do."""
  with tf.Graph().as_default():
    prefixes = [os.path.join(model_dir, 'part-%d' % i) for i in range(2)]
    with tf.Session() as session:
      saves = [tf.raw_ops.SaveV2(
          prefix=prefix, tensor_names=[name], shape_and_slices=[''],
          tensors=[np.full([50], step, np.float32)])
               for prefix, name in zip(prefixes, 'ab')]
      with tf.control_dependencies(saves):
        merge = tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=prefixes, destination_prefix=(
                files.checkpoint_path(model_dir, step)),
            delete_old_dirs=False)
      session.run(merge)


@pytest.fixture
def model_dir(tmp_path):
  """Three whole checkpoints and, of each, what lies beside it."""
  found = str(tmp_path / 'run')
  os.makedirs(found + '/work_queue')
  os.makedirs(found + '/incremental/30')
  for step in STEPS:
    save(found, step)
    files.write_json('%s/work_queue/state-%d.json' % (found, step), step)
  name(found, 30, STEPS)
  return found


def name(model_dir, step, steps):
  """Writes the file `checkpoint`."""
  tf.train.update_checkpoint_state(
      model_dir, files.checkpoint_path(model_dir, step),
      [files.checkpoint_path(model_dir, s) for s in steps])


def _path(model_dir, step=30, ending='.data-00001-of-00002'):
  return files.checkpoint_path(model_dir, step) + ending


def _cut(model_dir, step=30):
  with open(_path(model_dir, step), 'r+b') as f:
    f.truncate(20)


def _empty(model_dir, step=30):
  open(_path(model_dir, step), 'w').close()


def _flip(model_dir, step=30):
  with open(_path(model_dir, step), 'r+b') as f:
    f.seek(77)
    byte = f.read(1)[0]
    f.seek(77)
    f.write(bytes([byte ^ 8]))


def _lose_part(model_dir, step=30):
  os.remove(_path(model_dir, step))


def _lose_data(model_dir, step=30):
  for i in range(2):
    os.remove(_path(model_dir, step, '.data-0000%d-of-00002' % i))


def _lose_index(model_dir, step=30):
  os.remove(_path(model_dir, step, '.index'))


def _empty_index(model_dir, step=30):
  open(_path(model_dir, step, '.index'), 'w').close()


def _flip_index(model_dir, step=30):
  with open(_path(model_dir, step, '.index'), 'r+b') as f:
    f.seek(12)
    byte = f.read(1)[0]
    f.seek(12)
    f.write(bytes([byte ^ 1]))


def _lose_all(model_dir, step=30):
  _lose_data(model_dir, step)
  _lose_index(model_dir, step)


DAMAGES = [
    (_cut, 'is cut or changed: b cannot be read'),
    (_empty, 'is cut or changed: b cannot be read'),
    (_flip, 'is cut or changed: b cannot be read'),
    (_lose_part, 'lacks a part (model.ckpt-30.data-00001-of-00002)'),
    (_lose_data, 'has no data (model.ckpt-30.data-*)'),
    (_lose_index, 'has no index (model.ckpt-30.index)'),
    (_empty_index, 'has an index that cannot be read'),
    (_flip_index, 'has an index that cannot be read'),
    (_lose_all, 'is missing')]
each_damage = pytest.mark.parametrize(
    'damage,said', DAMAGES, ids=[f.__name__[1:] for f, _ in DAMAGES])


def _contents(model_dir):
  """dict of name to bytes, of all files."""
  found = {}
  for folder, _, names in os.walk(model_dir):
    for entry in names:
      path = os.path.join(folder, entry)
      with open(path, 'rb') as f:
        found[os.path.relpath(path, model_dir)] = f.read()
  return found


def _lines(caplog):
  return [record.getMessage() for record in caplog.records]


def test_whole_checkpoints_are_left_as_they_are(model_dir, caplog):
  before = _contents(model_dir)
  assert checkpoints.mend(model_dir) == _path(model_dir, ending='')
  assert checkpoints.whole(model_dir) == _path(model_dir, ending='')
  assert _contents(model_dir) == before
  assert not _lines(caplog)


@each_damage
def test_training_goes_on_from_the_newest_whole_one(
    model_dir, damage, said, caplog):
  damage(model_dir)
  before = _contents(model_dir)
  assert checkpoints.mend(model_dir) == _path(model_dir, 20, '')
  assert marker.latest_step(model_dir) == 20
  state = tf.train.get_checkpoint_state(model_dir)
  assert [os.path.basename(p) for p in state.all_model_checkpoint_paths] == [
      'model.ckpt-0', 'model.ckpt-20']
  # Nothing is lost: what was damaged is aside, byte for byte.
  after = _contents(model_dir)
  for path, content in before.items():
    if path == 'checkpoint':
      continue
    aside = os.path.join('damaged', 'model.ckpt-30', os.path.basename(path))
    assert after[aside if '30' in path else path] == content
  assert not os.path.exists(model_dir + '/incremental/30')
  assert any(said in line for line in _lines(caplog))
  assert any('step 20' in line and 'up to step 30 is lost' in line
             for line in _lines(caplog))
  assert checkpoints.mend(model_dir) == _path(model_dir, 20, '')  # and stays


@each_damage
def test_who_only_reads_says_which_is_damaged(model_dir, damage, said):
  damage(model_dir)
  before = _contents(model_dir)
  with pytest.raises(errors.UserError) as caught:
    checkpoints.whole(model_dir)
  text = str(caught.value)
  assert 'run/model.ckpt-30 ' + said + '. ' in text
  assert 'goes on from step 20' in text and '\n' not in text
  assert _contents(model_dir) == before


def test_two_damages_of_one_step_stay_apart(model_dir):
  _cut(model_dir)
  checkpoints.mend(model_dir)
  save(model_dir, 30)
  name(model_dir, 30, STEPS)
  _flip(model_dir)
  assert checkpoints.mend(model_dir) == _path(model_dir, 20, '')
  assert sorted(os.listdir(model_dir + '/damaged')) == [
      'model.ckpt-30', 'model.ckpt-30-2']


@pytest.mark.parametrize(
    'content', [None, b'', b'\xff\xfe\x00', b'x: {', b'{}'])
def test_without_the_file_checkpoint(model_dir, content, caplog):
  os.remove(model_dir + '/checkpoint')
  if content is not None:
    with open(model_dir + '/checkpoint', 'wb') as f:
      f.write(content)
  assert marker.latest_step(model_dir) == 30
  assert checkpoints.whole(model_dir) == _path(model_dir, ending='')
  assert checkpoints.mend(model_dir) == _path(model_dir, ending='')
  assert any('run/checkpoint is missing or damaged' in line and
             'of step 30' in line for line in _lines(caplog))
  state = tf.train.get_checkpoint_state(model_dir)
  assert os.path.basename(state.model_checkpoint_path) == 'model.ckpt-30'


def test_without_it_damaged_ones_are_passed_over(model_dir):
  os.remove(model_dir + '/checkpoint')
  _lose_index(model_dir)
  _flip(model_dir, 20)
  assert checkpoints.mend(model_dir) == _path(model_dir, 0, '')


def test_where_none_is_whole_training_does_not_begin_anew(model_dir):
  before = _contents(model_dir)
  for step in STEPS:
    _flip(model_dir, step)
  changed = _contents(model_dir)
  for act in (checkpoints.mend, checkpoints.whole):
    with pytest.raises(errors.UserError, match='model.ckpt-30 is cut or'):
      act(model_dir)
  assert _contents(model_dir) == changed != before


def test_a_first_save_that_was_broken_off_does_not_stop_a_run(tmp_path, caplog):
  model_dir = str(tmp_path)
  save(model_dir, 0)
  _lose_index(model_dir, 0)
  assert checkpoints.mend(model_dir) is None
  assert marker.latest_checkpoint(model_dir) is None
  assert any('starts at step 0' in line for line in _lines(caplog))
  assert os.path.exists(
      model_dir + '/damaged/model.ckpt-0/model.ckpt-0.data-00000-of-00002')


def test_a_save_that_was_broken_off_is_put_aside(model_dir, caplog):
  save(model_dir, 40)
  _lose_index(model_dir, 40)
  assert checkpoints.whole(model_dir) == _path(model_dir, ending='')
  assert checkpoints.mend(model_dir) == _path(model_dir, ending='')
  assert os.path.exists(model_dir + '/damaged/model.ckpt-40')
  assert any('was not saved to its end' in line for line in _lines(caplog))


def test_a_user_may_go_back_by_the_file_checkpoint(model_dir, caplog):
  name(model_dir, 20, STEPS[:2])
  assert checkpoints.mend(model_dir) == _path(model_dir, 20, '')
  assert any('names step 20: the checkpoint of step 30 is not used' in line
             for line in _lines(caplog))


def test_an_error_of_the_restore_names_the_checkpoint(model_dir):
  translate = checkpoints.translator(model_dir)
  error = tf.errors.DataLossError(None, None, 'x/model.ckpt-30 checksum')
  assert translate(error) is None  # it is whole
  _flip(model_dir)
  assert 'model.ckpt-30 is cut or changed' in str(translate(error))
  assert translate(ValueError('model.ckpt-30')) is None


def test_an_empty_folder_has_none(tmp_path):
  assert checkpoints.mend(str(tmp_path)) is None
  assert checkpoints.whole(str(tmp_path / 'missing')) is None
  assert os.listdir(str(tmp_path)) == []
