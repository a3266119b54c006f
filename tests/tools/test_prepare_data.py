"""What `make run` does with each kind of data folder."""

import json
import os
import shutil

import make_data
import prepare_data
import pyarrow as pa
import pyarrow.parquet
import pytest


def rows(path):
  return pa.parquet.read_table(str(path)).to_pylist()


def names(folder):
  return sorted(name for name in os.listdir(str(folder)))


PARQUET = ['taobao_%s_data.parquet' % part
           for part in ('test', 'train', 'validation')]


def test_nothing_is_done_where_all_is_there(tmp_path, capsys):
  for name in PARQUET:
    (tmp_path / name).write_text('mine')
  prepare_data.prepare(str(tmp_path))
  assert names(tmp_path) == PARQUET and not capsys.readouterr().out


def test_generated_rows_of_an_older_version_get_their_validation_file(
    made, tmp_path, monkeypatch):
  for name in names(made):
    if 'validation' not in name:
      shutil.copy(str(made / name), str(tmp_path / name))
  old = json.loads((made / 'ceiling.json').read_text())
  for best in old.values():
    del best['validation']
  (tmp_path / 'ceiling.json').write_text(json.dumps(old))
  before = (tmp_path / 'taobao_train_data').read_bytes()
  prepare_data.prepare(str(tmp_path))
  assert (tmp_path / 'taobao_train_data').read_bytes() == before
  found = (tmp_path / 'taobao_validation_data').read_text().splitlines()
  assert len(found) == 50000
  best = json.loads((tmp_path / 'ceiling.json').read_text())
  assert best['clk']['validation']['positives'] == sum(
      line.startswith('1,') for line in found)


def test_rows_of_other_options_are_not_taken_for_generated(
    taobao, tmp_path, capsys):
  shutil.copytree(taobao, str(tmp_path / 'x'))
  with pytest.raises(SystemExit):
    make_data.main(['--out', str(tmp_path / 'x'), '--seed', '7',
                    '--only-validation'])
  assert 'was made with other options' in capsys.readouterr().err


def test_real_rows_as_csv(taobao, tmp_path, capsys):
  for part in ('train', 'test'):
    name = 'taobao_%s_data' % part
    shutil.copy(os.path.join(taobao, name), str(tmp_path / name))
  prepare_data.prepare(str(tmp_path))
  found = [rows(tmp_path / name) for name in PARQUET]
  assert [len(found[0]), len(found[1]) + len(found[2])] == [1000, 3000]
  assert 200 < len(found[2]) < 400
  whole = [line.split(',') for line in (
      tmp_path / 'taobao_train_data').read_text().splitlines()]
  keys = sorted((r[3], r[8], r[18], r[19]) for r in whole)
  assert keys == sorted(
      (r['adgroup_id'], r['user_id'], r['tag_brand_list'], str(r['price']))
      for r in found[1] + found[2])


def test_real_rows_as_parquet_alone(taobao, tmp_path):
  for part in ('train', 'test'):
    name = 'taobao_%s_data.parquet' % part
    shutil.copy(os.path.join(taobao, name), str(tmp_path / name))
  prepare_data.prepare(str(tmp_path))
  assert names(tmp_path) == sorted(
      PARQUET + ['taobao_train_data.whole.parquet'])
  whole = rows(tmp_path / 'taobao_train_data.whole.parquet')
  train, validation = [rows(tmp_path / name) for name in PARQUET[1:]]
  assert whole == rows(os.path.join(taobao, PARQUET[1]))
  assert len(train) + len(validation) == len(whole) == 3000
  assert 200 < len(validation) < 400
  left = list(train)
  assert [row for row in whole if not (left and row == left[0]
                                       and left.pop(0))] == validation


def test_what_cannot_be_made_is_said_in_a_line(taobao, tmp_path, capsys,
                                               monkeypatch):
  shutil.copy(os.path.join(taobao, 'taobao_train_data'),
              str(tmp_path / 'taobao_train_data'))
  monkeypatch.setattr('sys.argv', ['prepare_data', '--out', str(tmp_path)])
  assert prepare_data.main() == 1
  assert capsys.readouterr().err == (
      'prepare_data: %s has neither taobao_test_data nor the same as .parquet: '
      'see data/README.md.\n' % tmp_path)
