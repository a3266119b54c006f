"""The tool that compares what kinds of columns cost."""

import benchmark_columns
import pytest
import tensorflow.compat.v1 as tf

import ple_estimator as ple

KINDS = benchmark_columns._SCALARS + benchmark_columns._LISTS


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('rows')
  benchmark_columns.write_rows(str(path / 'rows.parquet'), 40, count=4)
  return path


@pytest.mark.parametrize('kind', KINDS)
def test_each_kind_reads_the_rows_that_are_made(folder, tmp_path, kind):
  path = str(tmp_path / 'one.gin')
  benchmark_columns.write_experiment(path, None, kind, count=4)
  run = ple.load(path, bindings=[
      'DATA_DIR = %r' % str(folder), 'BATCH_SIZE = 40', 'EPOCHS = 1',
      'Experiment.eval_input = None', 'Experiment.early_stopping = None',
      'Experiment.exports = None',
      'Experiment.model_dir = %r' % str(tmp_path / 'model')])
  _, labels = tf.data.make_one_shot_iterator(
      run.experiment.trainer.input_fn()).get_next()
  with tf.Session() as session:
    found = session.run(labels)
  assert [len(values) for values in tf.nest.flatten(found)] == [40]


def test_ratios_are_those_of_one_round():
  def runs(*speeds):
    return [{'steps_per_second': speed, 'cpu_seconds_per_1000_steps': 2.0,
             'peak_rss_mb': 7.0} for speed in speeds]

  assert benchmark_columns.row_of(
      'vector', runs(10., 30., 8.), runs(20., 20., 20.)) == (
          '| vector | 10 | 0.50 (0.40 to 1.50) | 2.00 | 7 MB |')


@pytest.mark.slow
def test_the_table_has_a_line_per_kind(capsys):
  benchmark_columns.main([
      '--kinds', 'vector', '--rounds', '1', '--rows', '600', '--steps', '20',
      '--columns', '2'])
  lines = capsys.readouterr().out.splitlines()
  assert [line.split(' | ')[0] for line in lines] == [
      '| kind', '|---|---|---|---|---|', '| hashed', '| vector']
