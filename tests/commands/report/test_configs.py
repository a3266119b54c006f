"""What a run was configured as, which runs are one but for the seed."""

import collections

import made_runs
import pytest

from ple_estimator import errors
from ple_estimator.commands.report import configs

Run = collections.namedtuple('Run', 'path name config')


def _run(tmp_path, name, **kwargs):
  path = made_runs.make(tmp_path, name, rows=False, num=10, **kwargs)
  return Run(path, name, configs.read(path))


def test_the_seed_and_the_folder_are_apart_and_the_newest_file_counts(tmp_path):
  run = _run(tmp_path, 'a', seed=7)
  assert run.config.seed == '7'
  assert dict(run.config.bindings) == {
      'BATCH_SIZE': '64', 'ParquetInput.batch_size': '%BATCH_SIZE',
      'PLE.num_levels': '2'}
  (tmp_path / 'a' / 'operative_config-9.gin').write_text('PLE.num_levels = 9')
  (tmp_path / 'a' / 'operative_config-10.gin').write_text('PLE.num_levels = 4')
  assert configs.read(run.path).bindings['PLE.num_levels'] == '4'
  assert configs.read(str(tmp_path)) is None


def test_runs_that_differ_by_their_seed_are_one_group(tmp_path):
  runs = [_run(tmp_path, 'ple-1', seed=1), _run(tmp_path, 'deep', levels=3),
          _run(tmp_path, 'ple-2', seed=2),
          Run('x', 'x', None), Run('y', 'y', None)]
  found = configs.groups(runs)
  assert [(group.name, [run.name for run in group.runs])
          for group in found] == [
              ('ple (2 seeds)', ['ple-1', 'ple-2']), ('deep', ['deep']),
              ('x', ['x']), ('y', ['y'])]
  assert configs.differences(found) == [
      ('PLE.num_levels', ['2', '3', None, None])]


def test_a_part_that_only_some_have_is_one_line(tmp_path):
  extra = 'cvr/Task.name = "cvr"\ncvr/Task.weight = 1.0'
  found = configs.groups([_run(tmp_path, 'a'), _run(
      tmp_path, 'b', more=extra), _run(tmp_path, 'c', levels=5, more=extra)])
  assert configs.differences(found) == [
      ('PLE.num_levels', ['2', '2', '5']),
      ('cvr/Task.*', [None, '2 bindings', '2 bindings'])]


def test_a_config_that_is_no_gin_is_refused(tmp_path):
  run = _run(tmp_path, 'a')
  (tmp_path / 'a' / 'operative_config-1.gin').write_text('PLE. = = 1')
  with pytest.raises(errors.UserError, match='operative_config-1.gin line 1'):
    configs.read(run.path)
