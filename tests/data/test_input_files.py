"""Which files a binding names."""

import os

import pytest

from ple_estimator import errors
from ple_estimator.data import input_files


def test_files_are_found(tmp_path):
  for name in ['b.parquet', 'a.parquet', '_SUCCESS', 'c.csv']:
    (tmp_path / name).write_text('x')
  def found(files, suffix=''):
    paths = input_files.find(str(tmp_path), files, suffix, 'In.files')
    return [p[len(str(tmp_path)) + 1:] for p in paths]
  assert found('*.parquet') == ['a.parquet', 'b.parquet']
  assert found(['c.csv', 'a.parquet']) == ['c.csv', 'a.parquet']
  assert [p.lstrip('./') for p in found('.', '.parquet')] == [
      'a.parquet', 'b.parquet']
  with pytest.raises(errors.UserError, match="In.files must name existing fil"
                     "es, got 'nope': nothing at /.*nope"):
    found('nope')
  assert found(['a.parquet', '*.parquet']) == ['a.parquet', 'b.parquet']
  (tmp_path / 'a.parquet').write_text('')
  with pytest.raises(errors.UserError, match='a.parquet is empty'):
    found('a.parquet')


def tree(folder, *names):
  """Makes files of one byte, and of none where the name ends in '!'."""
  for name in names:
    path = folder / name.rstrip('!')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('' if name.endswith('!') else 'x')


def found(folder, files, suffix='.parquet'):
  return [os.path.relpath(path, str(folder)) for path in input_files.find(
      str(folder), files, suffix, 'In.files')]


def test_folders_of_hive_are_read(tmp_path, caplog):
  tree(tmp_path, 'dt=1/part-0.parquet', 'dt=1/_SUCCESS!', 'dt=2/h=7/b.parquet',
       'dt=2/h=7/a.parquet', 'dt=2/.b.crc', '_temporary/x.parquet',
       'old/c.parquet', 'dt=3/part-0.parquet!')
  partitions = ['dt=1/part-0.parquet', 'dt=2/h=7/a.parquet',
                'dt=2/h=7/b.parquet']
  assert found(tmp_path, '.') == partitions
  said = [record.getMessage() for record in caplog.records]
  assert any("left out 1 folders in %s/., such as 'old'" % tmp_path in line
             for line in said)
  assert any('left out 1 files of 0 bytes, such as %s/./dt=3/part-0.parquet.'
             % tmp_path in line for line in said)
  assert found(tmp_path, 'dt=*') == partitions
  assert found(tmp_path, ['dt=2', '.']) == partitions[1:] + partitions[:1]
  assert found(tmp_path, '**') == partitions + ['old/c.parquet']
  assert found(tmp_path, '**/*.parquet') == partitions + ['old/c.parquet']
  assert found(tmp_path, 'dt=2/**/a.*') == partitions[1:2]
  assert found(tmp_path, '_temporary/*') == ['_temporary/x.parquet']


def test_files_without_ending_are_taken_where_none_has_it(tmp_path):
  tree(tmp_path, 'hive/000000_0', 'hive/000001_0', 'hive/notes.txt',
       'both/000000_0', 'both/a.parquet', 'none/a.csv', 'none/b.txt')
  assert found(tmp_path, 'hive') == ['hive/000000_0', 'hive/000001_0']
  assert found(tmp_path, 'both') == ['both/a.parquet']
  with pytest.raises(errors.UserError, match='nothing that ends in .parquet at '
                     '.*none'):
    found(tmp_path, 'none')
  assert found(tmp_path, 'none', '') == ['none/a.csv', 'none/b.txt']


def test_brackets_in_the_name_of_a_folder_are_no_pattern(tmp_path):
  tree(tmp_path, 'run[1]/a.parquet', 'run[1]/b[2].parquet', 'run1/c.parquet')
  assert found(tmp_path / 'run[1]', '*.parquet') == [
      'a.parquet', 'b[2].parquet']
  assert found(tmp_path / 'run[1]', 'b[2].parquet') == ['b[2].parquet']
  assert found(tmp_path, 'run[1]') == [
      'run[1]/a.parquet', 'run[1]/b[2].parquet']
  with pytest.raises(errors.UserError, match=r"got 'run\[1': nothing at"):
    found(tmp_path, 'run[1')


@pytest.mark.parametrize(
    'files', [None, 5, [], [None], ['a', 3], '', {'a': 1}])
def test_what_names_no_files_is_refused(files, tmp_path):
  with pytest.raises(errors.UserError, match='In.files must be a file, a folder'
                     ', a pattern or a list of these, got '):
    found(tmp_path, files)


def test_only_files_of_0_bytes_are_refused(tmp_path):
  tree(tmp_path, 'a.parquet!', 'b.parquet!')
  with pytest.raises(
      errors.UserError, match='In.files must name a file that is not empty, '
      '.* all 2 files, such as .*a.parquet, have 0'):
    found(tmp_path, '*.parquet')


def test_a_link_to_nothing_is_refused(tmp_path):
  tree(tmp_path, 'a.parquet')
  (tmp_path / 'b.parquet').symlink_to('nothing')
  with pytest.raises(errors.UserError, match='In.files: .*b.parquet is a link '
                     'to nothing'):
    found(tmp_path, '.')


def test_folders_say_values():
  assert input_files.partitions('a/dt=2024-01-01/h=7/x=1.parquet') == {
      'dt': '2024-01-01', 'h': '7'}
  assert input_files.partitions(
      '/t=a%3Ab/u=__HIVE_DEFAULT_PARTITION__/v=/t=c=d/x') == {
          't': 'c=d', 'u': None, 'v': ''}
  assert input_files.partitions('x.parquet') == {}
