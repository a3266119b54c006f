"""`ple-estimator explain`: contributions of columns, and shares of experts."""

import json

import every_kind
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

import ple_estimator as ple

LINEAR = ['Model.network = None', 'Model.interactions = [@Wide()]',
          'Task.tower = None', 'Model.attention = None',
          "FeatureSpec.overrides = {'words': {'combiner': 'mean', "
          "'query': None}}"]
KEYED = ['Model.embedding = @EmbeddingVariable()', 'Model.op_fusion = False',
         'EmbeddingVariable.capacity = 1000',
         'lazy_adam.learning_rate = 0.005']  # Poisson's loss overflows sooner


@pytest.fixture(scope='module', params=['tables', 'keyed'])
def every(request, tmp_path_factory):
  return every_kind.train(tmp_path_factory.mktemp(request.param), *(
      KEYED if request.param == 'keyed' else
      ["Precision.compute = 'bfloat16'", 'Model.micro_batches = 2']))


def explained(command, path, *arguments):
  """Runs the command: (what it says, what it writes)."""
  status, said, error = command('explain', *arguments, '--out', path)
  assert status == 0, said + error
  with open(str(path)) as f:
    return said, json.load(f)


@pytest.mark.slow
@pytest.mark.parametrize('baseline', ['mean', 'zero'])
def test_contributions_add_up_to_what_is_predicted(
    command, every, tmp_path, baseline):
  said, found = explained(
      command, tmp_path / 'a.json', every.model_dir, '--rows', '2,5-6,300',
      '--baseline', baseline, '--orders', 6)
  assert [of['row'] for of in found['rows']] == [2, 5, 6, 300]
  run = ple.load(every.gin_file)
  predicted = [of for of in run.experiment.predictions_of(
      run.experiment.rows_of(every.folder + '/eval.parquet'))]
  predicted = {task: np.concatenate([of[task] for of in predicted])
               for task in predicted[0]}
  for of in found['rows']:
    logits = ['y', 'v', 'size/0', 'size/1', 'size/2', 'count', 'yv']
    assert sorted(of['logits']) == sorted(logits)
    for logit in logits:
      assert sum(of['contributions'][logit].values()) == pytest.approx(
          of['logits'][logit] - of['baseline'][logit], abs=1e-3)
      task, _, place = logit.partition('/')
      value = predicted[task][of['row'] - 1]
      assert of['predictions'][logit] == pytest.approx(
          value[int(place)] if place else value, abs=1e-4)
    assert of['predictions']['y'] == pytest.approx(
        1 / (1 + np.exp(-of['logits']['y'])), abs=1e-5)
    assert of['predictions']['count'] == pytest.approx(
        np.exp(of['logits']['count']), rel=1e-4)
    assert 'kind_day' in of['contributions']['y']  # a cross has its own
  first, second = (of['baseline'] for of in found['rows'][:2])
  assert first == second
  assert 'row 300' in said and '(a cross)' in said


@pytest.mark.slow
def test_shares_of_experts_are_those_that_evaluation_has(
    command, every, tmp_path):
  _, found = explained(
      command, tmp_path / 'a.json', every.model_dir, '--rows', '1-300',
      '--orders', 2, '--baseline', 'zero', '--checkpoint', 'last')
  metrics = ple.load(every.gin_file).evaluate()
  shares = {}
  for of in found['rows']:
    for gate, by_expert in of['gates'].items():
      assert sum(by_expert.values()) == pytest.approx(1, abs=1e-5)
      level = gate.split('/')[0]
      for expert, share in by_expert.items():
        assert len(of['experts']['%s/%s' % (level, expert)]) == 8
        shares.setdefault('gate/%s/%s' % (gate, expert), []).append(share)
  assert {name for name in metrics if name.startswith('gate/')} == set(shares)
  for name, values in shares.items():
    # The kernels of evaluation store what lies between products as bfloat16.
    assert np.mean(values) == pytest.approx(metrics[name], abs=5e-3)


@pytest.fixture(scope='module')
def linear(tmp_path_factory):
  return every_kind.train(tmp_path_factory.mktemp('linear'), *LINEAR)


def test_of_a_linear_model_they_are_weights_times_values(
    command, linear, tmp_path):
  """By hand, from the averaged weights in the checkpoint."""
  _, found = explained(
      command, tmp_path / 'a.json', linear.model_dir, '--rows', '1-40',
      '--orders', 2, '--baseline', 'zero', '--checkpoint', 'last')
  saved = tf.train.load_checkpoint(tf.train.latest_checkpoint(
      linear.model_dir))
  kernel = saved.get_tensor('wide/numbers/average')
  table = saved.get_tensor('dim_10_mean/embedding/average')
  rows = every_kind.table(300, 2).to_pydict()
  logits = ['y', 'v', 'size/0', 'size/1', 'size/2', 'count']
  reader = ple.load(linear.gin_file).experiment.model
  group, = [of for of in reader.groups if of.name == 'dim_10_mean']
  names = [column.name for column in group.columns]
  for of in found['rows']:
    at = of['row'] - 1
    day, noise = rows['day'][at], int(rows['noise'][at][1:])
    for i, logit in enumerate(logits):
      got = of['contributions'][logit]
      assert got['x'] == pytest.approx(
          kernel[0, i] * (rows['x'][at] or 0), abs=1e-5)
      assert got['point'] == pytest.approx(
          kernel[1:3, i] @ np.array(rows['point'][at]), abs=1e-5)
      assert got['day'] == pytest.approx(0 if day is None else 3 * table[
          group.offsets[names.index('day')] + day, 4 + i], abs=1e-5)
      if noise < 4:  # those of the vocabulary have their place in it as id
        assert got['noise'] == pytest.approx(3 * table[
            group.offsets[names.index('noise')] + noise, 4 + i], abs=1e-5)
      bias = saved.get_tensor('%s/bias/average' % logit.split('/')[0])
      assert of['baseline'][logit] == pytest.approx(
          bias[int(logit[-1]) if '/' in logit else 0], abs=1e-5)
      assert not any(of['errors'][logit].values()) or (
          of['errors'][logit]['x'] is None)
    assert of['gates'] == {}
  assert max(abs(of['contributions']['y']['x']) for of in found['rows']) > 0.01


def test_the_mean_of_a_linear_model_is_a_row_that_contributes_nothing(
    command, linear, tmp_path):
  said, found = explained(
      command, tmp_path / 'a.json', linear.model_dir, linear.folder +
      '/eval.parquet', '--rows', '1-300', '--orders', 2)
  assert 'Baseline: the mean of 300 rows of' in said
  for logit in ('y', 'count', 'size/2'):
    for column in ('x', 'day', 'words', 'tags', 'kind_day', 'amount'):
      values = [of['contributions'][logit][column] for of in found['rows']]
      assert np.mean(values) == pytest.approx(0, abs=1e-5)


def test_parquet_has_a_line_per_number(command, linear, tmp_path):
  path = tmp_path / 'new' / 'a.parquet'
  status, said, error = command(
      'explain', linear.model_dir, '--rows', '3', '--orders', 4, '--out', path)
  assert status == 0, error
  found = pa.parquet.read_table(str(path)).to_pydict()
  rows = list(zip(*[found[name] for name in (
      'row', 'what', 'of', 'name', 'value')]))
  by_what = {what: {(of, name): value for row, is_what, of, name, value in rows
                    if is_what == what and row == 3}
             for what in set(found['what'])}
  assert set(by_what) == {'contribution', 'error', 'baseline', 'logit',
                          'prediction'}
  for (logit, _), value in by_what['logit'].items():
    if logit == 'yv':  # the log odds of a product are not linear
      continue
    assert sum(of for (owner, _), of in by_what['contribution'].items()
               if owner == logit) == pytest.approx(
                   value - by_what['baseline'][logit, None], abs=1e-4)
  assert 'row 3' in said and 'Predicted: ' in said


@pytest.mark.parametrize('arguments, message', [
    (['{folder}/nope'], 'MODEL must be the folder of a run, such as result/'),
    (['{folder}'], 'MODEL must be the folder of a run, which has operative_'),
    (['{folder}', '--gin_file', '{gin}'],
     'Experiment.model_dir must hold a checkpoint'),
    (['{run}', '--rows', '0'], '--rows must be numbers of rows from 1'),
    (['{run}', '--rows', '2-1'], "such as 1,7,100-120, got '2-1'."),
    (['{run}', '--rows', '301'],
     '--rows must be rows of Experiment.eval_input, which has 300 that can be '
     'used, got 301.'),
    (['{run}', '--reference', '1'], '--baseline mean needs more than one row'),
    (['{run}', '--out', 'a.csv'], '--out must end in .json or .parquet'),
    (['{run}', '--checkpoint', 'nope'], "checkpoint must be 'last', 'best'"),
    (['{export}'], 'MODEL must be the folder of a run, got the SavedModel'),
])
def test_a_mistake_is_one_line(command, linear, tmp_path, arguments, message):
  export = tmp_path / 'export' / '17'
  export.mkdir(parents=True)
  (export / 'saved_model.pb').write_bytes(b'')
  places = {'folder': linear.folder, 'gin': linear.gin_file,
            'run': linear.model_dir, 'export': str(tmp_path / 'export')}
  status, _, error = command('explain', *[of.format(**places)
                                          for of in arguments])
  assert status == 1, error
  assert message.format(**places) in error and error.count('\n') == 1
