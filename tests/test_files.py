"""JSON files that are complete or not there, and names of checkpoints."""

import json
import os
import threading
import time

import pytest

from ple_estimator import errors
from ple_estimator import files


@pytest.mark.parametrize('sync', [False, True])
def test_what_is_written_is_read_again(tmp_path, sync):
  path = str(tmp_path / 'x.json')
  for value in ({'b': [1, 2.5, None], 'a': 'text'}, {'other': 1}):
    files.write_json(path, value, sync=sync)
    assert files.read_json(path) == value
  assert os.listdir(str(tmp_path)) == ['x.json']


def test_the_text_is_that_of_json(tmp_path):
  files.write_json(str(tmp_path / 'x'), {'b': 1, 'a': [2]}, indent=2)
  assert (tmp_path / 'x').read_text() == (
      '{\n  "a": [\n    2\n  ],\n  "b": 1\n}\n')


@pytest.mark.parametrize('text', [
    None, '', '{"a": 1, "b"', '[1, 2]', '3', 'null', '{"a": 1}'])
def test_what_is_missing_cut_or_of_another_form_is_the_default(tmp_path, text):
  path = tmp_path / 'x.json'
  if text is not None:
    path.write_text(text)
  assert files.read_json(str(path), 'default', keys=['a', 'b']) == 'default'


@pytest.mark.parametrize('text', [
    '{"step": "7", "of": {}}', '{"step": 7.5, "of": {}}',
    '{"step": true, "of": {}}', '{"step": null, "of": {}}',
    '{"step": 7, "of": []}', '{"step": 7}', '[' * 100000])
def test_a_value_of_another_type_is_the_default_and_said(
    tmp_path, text, caplog):
  (tmp_path / 'x').write_text(text)
  for _ in range(3):  # who waits for a file reads it again and again
    assert files.read_json(str(tmp_path / 'x'), keys={
        'step': int, 'of': dict}) is None
  assert len(caplog.records) == 1
  assert '%s' % (tmp_path / 'x') in caplog.text


def test_values_of_the_types_asked_for_are_returned(tmp_path, caplog):
  files.write_json(str(tmp_path / 'x'), {'step': 7, 'of': {'a': 1}})
  assert files.read_json(str(tmp_path / 'x'), keys={'step': int, 'of': dict}) \
      == {'step': 7, 'of': {'a': 1}}
  files.read_json(str(tmp_path / 'missing'))
  assert not caplog.records


def test_a_folder_that_looks_like_a_pattern_has_another_path(tmp_path):
  folder = str(tmp_path / 'run[1]')
  plain = files.without_pattern(folder)
  assert not files.is_pattern(plain)
  assert files.shown(plain + '/x') == folder + '/x'
  os.makedirs(os.path.realpath(plain))
  files.write_json(plain + '/x', 1)
  assert os.listdir(folder) == ['x']
  assert files.without_pattern(str(tmp_path)) == str(tmp_path)
  assert files.shown(str(tmp_path)) == str(tmp_path)


def test_a_folder_is_no_file(tmp_path):
  assert files.read_json(str(tmp_path), 7) == 7


def test_keys_that_are_not_asked_for_may_be_there(tmp_path):
  (tmp_path / 'x').write_text('{"a": 1, "b": 2}')
  assert files.read_json(str(tmp_path / 'x'), keys=['a']) == {'a': 1, 'b': 2}


def test_a_value_that_cannot_be_written_leaves_the_file_of_before(tmp_path):
  path = str(tmp_path / 'x.json')
  files.write_json(path, [1])
  with pytest.raises(TypeError):
    files.write_json(path, [2, object()])
  with pytest.raises(OSError):
    files.write_json(str(tmp_path / 'no' / 'x.json'), [3])
  os.mkdir(str(tmp_path / 'folder'))
  with pytest.raises(OSError):  # the write works, the replacement does not
    files.write_json(str(tmp_path / 'folder'), [4])
  assert files.read_json(path) == [1]
  assert sorted(os.listdir(str(tmp_path))) == ['folder', 'x.json']


def test_writers_of_one_path_do_not_disturb_each_other(tmp_path):
  path = str(tmp_path / 'x.json')
  problems = []

  def write(value):
    try:
      for _ in range(100):
        files.write_json(path, [value] * 1000)
        found = json.loads(open(path).read())
        assert len(found) == 1000 and len(set(found)) == 1
    except BaseException as error:
      problems.append(error)

  threads = [threading.Thread(target=write, args=[i]) for i in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not problems
  assert os.listdir(str(tmp_path)) == ['x.json']


@pytest.mark.parametrize('path, step', [
    ('model.ckpt-20', 20), ('/a/run-7/model.ckpt-0', 0),
    ('run[1]/model.ckpt-12345678901', 12345678901), ('model.ckpt', None),
    ('model.ckpt-20.index', None), ('model.ckpt-x', None), ('ckpt-3', None),
    ('model.ckpt-20_temp', None), ('model.ckpt-20/part', None)])
def test_step_of_a_path(path, step):
  assert files.checkpoint_step(path) == step
  if step is not None:
    assert files.checkpoint_path(os.path.dirname(path), step) == path


@pytest.mark.parametrize('name', ['run', 'run[1]', 'a*b?', 'missing'])
def test_steps_of_a_folder(tmp_path, name):
  model_dir = tmp_path / name
  if name != 'missing':
    model_dir.mkdir()
    for entry in ['model.ckpt-100.index', 'model.ckpt-20.index', 'checkpoint',
                  'model.ckpt-20.data-00000-of-00001', 'model.ckpt-9.index',
                  'model.ckpt-300.data-00000-of-00001', 'model.ckpt-x.index']:
      (model_dir / entry).write_text('')
    (tmp_path / 'run1').mkdir()
    (tmp_path / 'run1' / 'model.ckpt-5.index').write_text('')
  assert files.checkpoint_steps(str(model_dir)) == (
      [] if name == 'missing' else [9, 20, 100])


def test_a_number_is_made_once(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  made = []

  def make():
    made.append(1)
    return 40 + len(made)

  assert [files.remembered(key, make) for key in ('a', 'b', 'a', 'b')] == [
      41, 42, 41, 42]
  for path in (tmp_path / 'ple_estimator').iterdir():
    path.write_text('cut')
  assert files.remembered('a', make) == 43


def _remember(tmp_path, monkeypatch, number):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  return files.remembered('a', lambda: number)


def test_what_is_remembered_is_the_users_alone(tmp_path, monkeypatch):
  folder = tmp_path / 'ple_estimator'
  folder.mkdir()
  folder.chmod(0o777)
  before = os.umask(0)
  try:
    _remember(tmp_path, monkeypatch, 5)
  finally:
    os.umask(before)
  path, = folder.iterdir()
  assert folder.stat().st_mode & 0o777 == 0o700
  assert path.stat().st_mode & 0o777 == 0o600


def test_a_number_that_was_changed_is_made_again(tmp_path, monkeypatch):
  _remember(tmp_path, monkeypatch, 12345)
  path, = (tmp_path / 'ple_estimator').iterdir()
  text = path.read_text()
  for bad in (text.replace('12345', '123'), text.replace('12345', '-1'), '123',
              '[]', '', text[:20]):
    path.write_text(bad)
    assert _remember(tmp_path, monkeypatch, 7) == 7, bad
  assert _remember(tmp_path, monkeypatch, 8) == 7


def test_a_file_that_others_can_write_is_not_used(tmp_path, monkeypatch):
  _remember(tmp_path, monkeypatch, 5)
  path, = (tmp_path / 'ple_estimator').iterdir()
  path.chmod(0o666)
  assert _remember(tmp_path, monkeypatch, 6) == 6
  assert _remember(tmp_path, monkeypatch, 7) == 6  # written anew


def test_a_folder_of_somebody_else_is_not_used(tmp_path, monkeypatch, caplog):
  _remember(tmp_path, monkeypatch, 5)
  monkeypatch.setattr(files.os, 'getuid', lambda: 12345)
  assert _remember(tmp_path, monkeypatch, 6) == 6
  assert 'belongs to another user' in caplog.text


def test_without_a_folder_a_number_is_made_every_time(tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  made = []
  for _ in range(2):
    files.remembered('a', lambda: made.append(1) or 1)
  assert len(made) == 2


def test_numbers_that_were_not_used_for_long_are_forgotten(
    tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(files, '_MOST_REMEMBERED', 3)
  folder, now = tmp_path / 'ple_estimator', time.time()
  for i in range(3):
    files.remembered(i, lambda: i)
    (folder / 'a library').write_text('')
    for path in folder.iterdir():  # each is a minute older than the next
      os.utime(str(path), (path.stat().st_mtime - 60,) * 2)
  assert files.remembered(0, lambda: 99) == 0  # used now
  files.remembered(3, lambda: 3)
  assert len(list(folder.iterdir())) == 3 + 1
  assert (folder / 'a library').exists()
  made = [files.remembered(i, lambda: -1) for i in (3, 2, 0)]
  assert made == [3, 2, 0] and time.time() - now < 60
  assert files.remembered(1, lambda: -1) == -1  # it was the oldest


@pytest.mark.parametrize('url', ['s3://bucket/a.csv', 'hdfs://host:9000/b'])
def test_urls_are_refused(url):
  with pytest.raises(errors.UserError) as raised:
    files.check_local('X.out', url)
  assert str(raised.value) == (
      "X.out must be a path, got the URL '%s': what is written there is locked "
      'and renamed, which needs a disk or storage that is mounted; copy it to '
      'that place afterwards.' % url)
  with pytest.raises(errors.UserError) as raised:
    files.check_local('X.source', url, is_read=True)
  assert str(raised.value) == (
      "X.source must be a path, got the URL '%s': it is read from a disk; copy "
      'it to one, or mount its storage.' % url)
  for path in ('/a//b', 'dt=12:00/x', ''):
    files.check_local('X.out', path)


def test_nul_characters_are_refused():
  with pytest.raises(errors.UserError) as raised:
    files.check_local('X.out', 'b\0c')
  assert str(raised.value) == (
      "X.out must be a path, without a NUL character, got 'b\\x00c'.")
