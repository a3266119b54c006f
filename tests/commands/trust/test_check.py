"""`ple-estimator check`: a SavedModel against predictions."""

import os
import re

import models
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

import ple_estimator as ple
from ple_estimator import errors
from ple_estimator.commands.trust import check
from ple_estimator.commands.trust import rows
from ple_estimator.training import answering


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  return models.train(str(tmp_path_factory.mktemp('trust')))


def lines_of(said, head):
  """The cells of the lines of a table, by its first words."""
  lines = said.splitlines()
  at = next(i for i, line in enumerate(lines) if line.startswith(head))
  found = []
  for line in lines[at + 1:]:
    if not line:
      break
    found.append(line.split())
  return found


def test_an_export_answers_as_mode_predict(command, trained):
  status, said, error = command(
      'check', trained.export, trained.folder + '/eval.parquet', '--gin_file',
      trained.gin_file, '--seconds', 0.05)
  assert status == 0, said + error
  compared = lines_of(said, 'task')
  assert [line[:2] for line in compared] == [
      ['y', 'columns'], ['y', 'Examples'], ['z', 'columns'], ['z', 'Examples']]
  assert all(float(line[2]) < 1e-5 for line in compared)
  assert '1,500 rows of' in said and 'OK:' in said
  timed = lines_of(said, 'rows in a request')
  assert [int(line[0]) for line in timed] == [1, 32, 512]
  for size, requests, median, p99, rate in timed:
    assert int(requests) >= 20 and 0 < float(median) <= float(p99)
    assert 0 < int(rate) < 2e3 * int(size) / float(median)


@pytest.fixture(scope='module')
def csv_rows(trained, tmp_path_factory):
  """A folder with the rows as CSV, with and without header; predictions."""
  folder = tmp_path_factory.mktemp('csv')
  table = pa.parquet.read_table(trained.folder + '/eval.parquet').slice(0, 60)
  for name, separator in [('words', '|'), ('point', '|')]:
    table = table.set_column(
        table.schema.get_field_index(name), name,
        [[separator.join(map(str, of)) for of in table[name].to_pylist()]])
  pa.csv.write_csv(table, str(folder / 'rows.csv'))
  pa.csv.write_csv(table, str(folder / 'bare.csv'),
                   pa.csv.WriteOptions(include_header=False))
  run = ple.load(trained.gin_file)
  with pa.csv.open_csv(run.predict().path) as f:
    predicted = f.read_all().slice(0, 60)
  pa.csv.write_csv(predicted, str(folder / 'same.csv'))
  off = predicted['z'].to_numpy().copy()
  off[41] += 0.5
  pa.csv.write_csv(predicted.set_column(
      predicted.schema.get_field_index('z'), 'z', [off]),
                   str(folder / 'off.csv'))
  pa.csv.write_csv(predicted.slice(0, 59), str(folder / 'short.csv'))
  return str(folder)


@pytest.mark.parametrize('arguments', [
    ['rows.csv'],
    ['bare.csv', '--columns', 'y,z,kind,noise,x,day,point,words,places']])
def test_a_file_of_predictions_will_do(command, trained, csv_rows, arguments):
  status, said, error = command(
      'check', trained.export, os.path.join(csv_rows, arguments[0]),
      *arguments[1:], '--predictions', csv_rows + '/same.csv', '--seconds', 0)
  assert status == 0, said + error
  assert 'rows in a request' not in said and ': 60 rows of' in said


def test_another_prediction_is_found(command, trained, csv_rows):
  def run(*more):
    return command('check', trained.export, csv_rows + '/rows.csv',
                   '--predictions', csv_rows + '/off.csv', '--seconds', 0,
                   *more)
  status, said, _ = run()
  assert status == 1 and 'DIFFERENT: ' in said
  found = {line[0]: line for line in lines_of(said, 'task')}
  assert found['z'][3] == '42' and 0.05 < float(found['z'][2]) <= 0.5
  assert float(found['y'][2]) < 1e-5
  assert run('--tolerance', 0.6)[0] == 0
  assert run('--rows', 41)[0] == 0


@pytest.mark.parametrize('arguments, message', [
    (['{export}', '{csv}/rows.csv'], 'Give --gin_file, whose run predicts'),
    (['{csv}', '{csv}/rows.csv', '--predictions', 'x.csv'],
     'EXPORT must be a folder with saved_model.pb'),
    (['{export}', '{csv}/nope.csv', '--predictions', '{csv}/same.csv'],
     'FILE must be a file'),
    (['{export}', '{csv}/same.csv', '--predictions', '{csv}/same.csv'],
     'lacks day, kind, noise, places, point, words, x.'),
    (['{export}', '{csv}/rows.csv', '--predictions', '{csv}/rows.csv'], 'OK'),
    (['{export}', '{csv}/rows.csv', '--predictions', '{csv}/short.csv'],
     'must have the predictions of all rows, has 59 of 60.'),
    (['{export}', '{csv}/rows.csv', '--gin_file', '{gin}', '--checkpoint',
      'nope'], "checkpoint must be 'last', 'best' or the path"),
])
def test_a_mistake_is_one_line(command, trained, csv_rows, arguments, message):
  status, said, error = command('check', '--seconds', 0, *[
      a.format(export=trained.export, csv=csv_rows, gin=trained.gin_file)
      for a in arguments])
  if message == 'OK':  # the labels have the names of the tasks
    assert status == 1 and 'DIFFERENT' in said
    return
  assert status == 2
  assert message in error and error.count('\n') == 1


def test_a_step_that_is_gone_is_said(trained):
  experiment = ple.load(trained.gin_file).experiment
  with pytest.raises(errors.UserError, match='has no checkpoint of step 7 any'):
    experiment.checkpoint_of(7)
  with answering.of_export(trained.export) as model:
    path = experiment.checkpoint_of(model.global_step)
  assert re.search('-%d$' % model.global_step, path)


def test_differences_count_what_is_no_number():
  nan = np.nan
  assert check.largest([1.0, nan], [1.0, nan]) == (0, 0)
  assert check.largest([1.0, nan], [1.0, 2.0]) == (np.inf, 1)
  assert check.largest([[1.0, 2.0], [3.0, 4.0]],
                       [[1.0, 2.0], [3.0, 5.0]]) == (0.2, 1)  # 1 of 5
  assert check.largest([0.3], [0.1]) == (pytest.approx(0.2), 0)
  with pytest.raises(errors.UserError, match='must have the shape'):
    check.largest([1.0], [[1.0, 2.0]])


def test_rows_are_read_alike_with_and_without_a_run(trained):
  experiment = ple.load(trained.gin_file).experiment
  path = trained.folder + '/eval.parquet'
  with answering.of_export(trained.export) as model:
    by_run, count = rows.of_run(experiment, path, 100)
    by_type, also = rows.of_file(path, model.inputs, 100)
    assert count == also == 1500
    by_run = rows.fed(by_run, model.inputs)
    by_type = rows.fed(by_type, model.inputs)
  assert sorted(by_run) == ['day', 'kind', 'noise', 'places', 'point', 'words',
                            'x']
  assert np.isnan(by_type['x'][3]) and by_run['x'][3] == 0  # its default
  by_type['x'] = np.nan_to_num(by_type['x'])
  for name, values in by_run.items():
    assert len(values) == 100
    np.testing.assert_array_equal(values, by_type[name])
  original = models.table(1500, 2)
  assert by_run['words'][1] == '|'.join(
      original['words'][1].as_py()).encode()
