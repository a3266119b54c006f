"""Which files a binding names."""

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
