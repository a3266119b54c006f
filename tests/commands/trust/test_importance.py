"""`ple-estimator importance`: of a run and of its SavedModel."""

import json
import os

import every_kind
import experiments
import models
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

import ple_estimator as ple
from ple_estimator.commands.report import importances


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  return models.train(str(tmp_path_factory.mktemp('trust')))


@pytest.fixture(scope='module')
def every(tmp_path_factory):
  """A model with columns of every kind, in bfloat16 and of micro-batches."""
  return every_kind.train(
      tmp_path_factory.mktemp('every'), "Precision.compute = 'bfloat16'",
      'Model.micro_batches = 2')


def measured(command, path, *arguments):
  """Runs the command: (what it says, dict of (task, columns) to a record)."""
  status, said, error = command('importance', *arguments, '--out', path)
  assert status == 0, said + error
  with open(str(path)) as f:
    found = json.load(f)['importances']
  return said, {(of['task'], '+'.join(of['columns'])): of for of in found}


@pytest.mark.slow
def test_columns_that_make_the_labels_matter_and_noise_does_not(
    command, trained, tmp_path):
  said, found = measured(command, tmp_path / 'a.json', trained.model_dir)
  for name in ('noise', 'words', 'places'):
    of = found['y', name]
    assert of['low'] <= 0 <= of['high'] and abs(of['importance']) < 0.01
  assert found['y', 'kind']['importance'] > 0.2
  assert found['y', 'x']['low'] > 0.05  # which says less of the labels
  assert found['z', 'kind']['importance'] > 1 > found['z', 'x']['importance']
  assert found['y', 'kind+day']['kind'] == 'crossed'
  assert found['y', 'kind+day']['importance'] == pytest.approx(
      found['y', 'kind']['importance'], abs=0.02)
  assert found['z', 'kind']['rows'] == sum(
      of == 1 for of in models.table(1500, 2)['y'].to_pylist())
  lines = [line.split()[0] for line in said.splitlines() if line]
  assert lines.index('kind') < lines.index('x') < lines.index('noise')
  assert 'Rows: 1,500 rows of Experiment.eval_input, permuted 5 times' in said
  assert 'Columns that say the same share' in ' '.join(said.split())


def permuted(path, names, rows):
  """Writes evaluation rows with some columns of the first permutation."""
  table = every_kind.table(300, 2)
  order = np.random.RandomState([4, 0]).permutation(rows)
  for name in names:
    table = table.set_column(
        table.schema.get_field_index(name), name,
        table[name].take(pa.array(order)))
  pa.parquet.write_table(table, str(path))
  return str(path)


@pytest.mark.slow
def test_it_is_what_prediction_gives_for_a_file_with_permuted_columns(
    command, every, tmp_path):
  _, found = measured(
      command, tmp_path / 'a.json', every.model_dir, '--repeats', 1,
      '--seed', 4, '--rounds', 20, '--checkpoint', 'last')
  run = ple.load(every.gin_file)
  run.evaluate()
  kept = pa.parquet.read_table(every.model_dir + '/eval_rows.parquet')
  kept = {name: np.array(kept[name].to_pylist()) for name in kept.column_names}

  def metrics(predicted):
    label, weight = ({task: kept['%s/%s' % (task, what)] for task in predicted}
                     for what in ('label', 'weight'))
    losses = {
        'size': -np.log(predicted['size'][
            np.arange(300), label['size'].astype(int)]),
        'count': predicted['count'] - label['count'] * np.log(
            predicted['count'])}
    return {task: np.average(losses[task], weights=weight[task])
            if task in losses else experiments.exact_auc(
                predicted[task], label[task], weight[task])
            for task in predicted}

  before = metrics({task: kept[task + '/prediction']
                    for task in ('y', 'v', 'size', 'count', 'yv')})
  for names in [('kind',), ('words', 'places'), ('tags',),
                ('marks', 'scores'), ('point',)]:
    path = permuted(tmp_path / 'moved.parquet', names, 300)
    batches = list(run.experiment.predictions_of(run.experiment.rows_of(path)))
    after = metrics({task: np.concatenate([of[task] for of in batches])
                     for task in before})
    for task, value in before.items():
      of = found[task, '+'.join(names)]
      sign = 1 if of['metric'] == 'AUC' else -1
      assert of['value'] == pytest.approx(value, abs=1e-3)
      assert of['importance'] == pytest.approx(
          sign * (value - after[task]), abs=1e-3)
  assert found['y', 'words+places']['kind'] == 'aligned'
  assert ('y', 'words') not in found and ('y', 'kind_day') not in found
  assert found['v', 'kind']['rows'] == int((kept['v/weight'] > 0).sum()) < 200
  assert found['size', 'kind']['metric'] == 'log_loss'
  assert found['count', 'kind']['metric'] == 'loss'


@pytest.mark.parametrize('name', ['importance.json', 'importance.parquet'])
def test_the_report_of_the_run_has_what_is_written(command, trained, name):
  few = ('importance', trained.model_dir, '--rows', 200, '--repeats', 1,
         '--rounds', 20)
  _, said, _ = command(*few)
  assert '--out %s/importance.json shows' % trained.model_dir in said
  path = os.path.join(trained.model_dir, name)
  status, said, error = command(*(few + ('--out', path)))
  assert status == 0 and '--out' not in said, error
  found = importances.read(trained.model_dir)
  os.remove(path)
  assert found.path == path and 'checkpoint' in found.model
  assert list(found.tasks) == ['y', 'z']
  printed = [line.split() for line in said.splitlines()]
  for columns, _, _, importance, interval, kind in (
      importances.figure(found, 'a').table.rows):
    if kind == 'column':
      assert [columns, importance, 'nan'] + interval.split() in printed


def test_a_savedmodel_has_that_of_its_run(command, trained, tmp_path):
  path, rows = tmp_path / 'a.json', trained.folder + '/eval.parquet'
  few = ['--only', 'kind,noise', '--repeats', 2, '--rounds', 20]
  _, of_run = measured(command, path, trained.model_dir, *few)
  said, served = measured(command, path, trained.export, '--gin_file',
                          trained.gin_file, *few)
  assert 'SavedModel' in said and 'squared error' in said
  assert set(served) == set(of_run) == {
      (task, name) for task in 'yz' for name in ('kind', 'noise')}
  for key, of in of_run.items():
    assert served[key]['importance'] == pytest.approx(
        of['importance'], abs=1e-4)
  # Without its run: rows without a label do not count.
  table = pa.parquet.read_table(rows)
  table = table.set_column(
      table.schema.get_field_index('z'), 'z', pa.array(
          [z if y else None for y, z in zip(table['y'].to_pylist(),
                                            table['z'].to_pylist())]))
  pa.parquet.write_table(table, str(tmp_path / 'labels.parquet'))
  _, named = measured(
      command, path, trained.export, tmp_path / 'labels.parquet', '--labels',
      'y=y,z=z', *few)
  assert named == served


def test_parquet_has_a_line_per_task_and_columns(command, trained, tmp_path):
  path = tmp_path / 'new' / 'a.parquet'
  said, _ = command(
      'importance', trained.model_dir, '--of', 'test', '--only', 'x',
      '--groups', 'x+noise', '--rows', 200, '--repeats', 2, '--rounds', 10,
      '--user', 'kind', '--out', path)[1:]
  assert 'the first 200 of 1,500 rows of Experiment.test_input' in said
  found = pa.parquet.read_table(str(path))
  assert sorted(zip(found['task'].to_pylist(), found['columns'].to_pylist(),
                    found['kind'].to_pylist())) == [
                        (task, names, kind) for task in 'yz'
                        for names, kind in [(['noise', 'x'], 'named'),
                                            (['x'], 'column')]]
  about = json.loads(found.schema.metadata[b'ple_estimator'].decode())
  assert about['repeats'] == 2 and "checkpoint 'best' of step 150" in (
      about['model'])


@pytest.mark.parametrize('arguments, message', [
    (['{folder}/nope'], 'MODEL must be the folder of a run or of a SavedModel'),
    (['{folder}'], 'MODEL must be the folder of a run, which has operative_'),
    (['{folder}', '--gin_file', '{gin}'],
     'Experiment.model_dir must hold a checkpoint: nothing at {folder}'),
    (['{run}', '{folder}/nope.parquet'], 'nope.parquet'),
    (['{run}', '--only', 'kind,nope'],
     '--only must name columns that the model reads (kind, noise, x, day, '
     "point, words, places), got 'nope'."),
    (['{run}', '--only', 'kind_day'], "got 'kind_day'"),
    (['{run}', '--user', 'nope'], '--user must name a column'),
    (['{run}', '--rows', 2], 'Task y must have rows of both labels for AUC'),
    (['{run}', '{folder}/empty.parquet'], 'has no rows'),
    (['{run}', '--labels', 'y=y'], '--labels, --weight and --columns are for'),
    (['{run}', '--out', 'a.txt'], '--out must end in .json or .parquet'),
    (['{run}', '--correlated', '0'], '--correlated must be'),
    (['{export}'], 'A SavedModel does not say what its labels are'),
    (['{export}', '{folder}/eval.parquet', '--labels', 'q=y'],
     "--labels must name outputs of the SavedModel (y, z), got 'q'."),
    (['{export}', '{folder}/eval.parquet', '--labels', 'y=kind'],
     "Column 'kind' of {folder}/eval.parquet must have numbers"),
    (['{export}', '{folder}/eval.parquet', '--labels', 'y'],
     '--labels must be pairs'),
])
def test_a_mistake_is_one_line(command, trained, arguments, message):
  folder = trained.folder
  empty = folder + '/empty.parquet'
  if not os.path.exists(empty):
    pa.parquet.write_table(models.table(0, 1), empty)
  places = {'folder': folder, 'gin': trained.gin_file,
            'run': trained.model_dir, 'export': trained.export}
  status, _, error = command('importance', *[
      str(of).format(**places) for of in arguments])
  assert status == 1, error
  assert message.format(**places) in error and error.count('\n') == 1
