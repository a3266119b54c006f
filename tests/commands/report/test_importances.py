"""What `ple-estimator importance` has written, in a run's section."""

import json
import os

import made_runs
import pytest

from ple_estimator.commands.report import contents
from ple_estimator.commands.report import facts as facts_lib
from ple_estimator.commands.report import importances

_RECORDS = [
    ('ctr', ['shop', 'item'], 'correlated', 'AUC', 0.25, 0.2, 0.3),
    ('ctr', ['item'], 'column', 'AUC', 0.125, 0.1, 0.15),
    ('ctr', ['age'], 'column', 'AUC', -0.001, -0.01, 0.008),
    ('spent', ['words', 'places'], 'aligned', 'log_loss', 0.002, -0.1, 0.1)]


def _write(folder, records=_RECORDS):
  path = os.path.join(folder, 'importance.json')
  with open(path, 'w') as f:
    json.dump({
        'model': 'Run a, checkpoint 7', 'rows': '50 rows of b', 'importances': [
            dict(zip(('task', 'columns', 'kind', 'metric', 'importance', 'low',
                      'high'), record), value=0.75, spread=None, rows=50)
            for record in records]}, f)
  return path


@pytest.fixture
def folder(tmp_path):
  return made_runs.make(tmp_path, 'a', num=300)


def _section(folder):
  facts = facts_lib.gather([folder], rounds=20)
  of_run, = contents.of_runs(facts)
  return of_run.section


def test_a_run_shows_each_column_and_task_with_its_interval(folder):
  assert not _section(folder).figures
  _write(folder)
  section = _section(folder)
  figure, = section.figures
  assert [view.title for view in figure.views] == [
      'ctr, drop of AUC', 'spent, rise of log loss']
  values = figure.views[0].spec['data']['values']
  assert [(of['of'], of['value'], of['low'], of['high']) for of in values] == [
      ('shop + item', 0.25, 0.2, 0.3), ('item', 0.125, 0.1, 0.15),
      ('age', -0.001, -0.01, 0.008)]
  # Columns together have another color than one alone.
  assert [of['name'] == values[0]['name'] for of in values] == [
      True, False, False]
  assert figure.table.rows[1] == [
      'item', 'ctr', 'drop of AUC', '0.12500', '0.10000 to 0.15000', 'column']
  assert len(figure.table.rows) == len(_RECORDS)
  for words in ('Run a, checkpoint 7', '50 rows of b'):
    assert words in figure.note
  # An interval around 0 names no column.
  assert ('Of the columns that were permuted alone, the one that each task '
          'needs most: of ctr item, drop of AUC 0.12500 (0.10000 to 0.15000).'
          ) in section.texts[0]
  assert 'spent' not in section.texts[0]


def test_of_many_columns_the_first_are_drawn_and_all_are_in_the_table(folder):
  _write(folder, [('ctr', ['c%d' % i], 'column', 'AUC', 1 / i, 0.9 / i, 1.1 / i)
                  for i in range(1, 31)])
  figure, = _section(folder).figures
  drawn = figure.views[0].spec['data']['values']
  assert [of['of'] for of in drawn] == ['c%d' % i for i in range(1, 21)]
  assert len(figure.table.rows) == 30 and 'the first 20' in figure.note


@pytest.mark.parametrize('text', [
    '{"importances": [', '[1]', '{"model": "a", "rows": "b"}',
    '{"model": "a", "rows": "b", "importances": [{"task": "ctr"}]}'])
def test_a_file_of_something_else_is_one_line(command, folder, tmp_path, text):
  with open(_write(folder), 'w') as f:
    f.write(text)
  status, _, error = command('report', folder, '--out', tmp_path / 'out')
  message = error.strip().splitlines()[-1]
  assert status == 1 and 'importance.json must be what' in message
  assert '--out=' in message


def test_the_newer_of_two_files_is_shown(folder):
  path = _write(folder)
  with open(os.path.join(folder, 'importance.parquet'), 'w') as f:
    f.write('older and damaged')
  os.utime(os.path.join(folder, 'importance.parquet'), (1, 1))
  assert importances.read(folder).path == path
