"""Rows of make_mtl_data.py: labels and ceilings computed again in numpy."""

import json

import gin
import make_mtl_data
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from ple_estimator import config
from ple_estimator import experiment

SMALL = ['--train', '3000', '--validation', '500', '--test', '2000', '--csv']


def make(kind, out, *options):
  assert make_mtl_data.main([kind, '--out', str(out)] + list(options)) == 0
  return json.loads((out / 'ceiling.json').read_text())


def columns_of(path):
  table = pa.parquet.read_table(str(path))
  return {name: table[name].to_numpy() for name in table.column_names}


def args_of(kind, *options):
  return make_mtl_data.parse_args([kind, '--out', '/nowhere'] + list(options))


@pytest.mark.parametrize('p', [-1, -0.5, 0, 0.7, 1])
def test_functions_of_the_regressions_are_those_of_the_paper(p):
  world = make_mtl_data.Regression(args_of(
      'regression', '--dim', '30', '--correlation', str(p), '--scale', '2'))
  w1, w2 = world.weights
  np.testing.assert_allclose([w1.dot(w1), w2.dot(w2)], 4, atol=1e-9)
  np.testing.assert_allclose(w1.dot(w2) / 4, p, atol=1e-9)
  x = np.random.RandomState(1).normal(size=(50, 30))
  for w, values in zip((w1, w2), world.values(x)):
    for row, value in zip(x, values):
      z = sum(a * b for a, b in zip(w, row))
      wanted = z + sum(np.sin(a * z + b)
                       for a, b in zip(world.alpha, world.beta))
      assert abs(value - wanted) < 1e-9
  found = world.rows(np.random.RandomState(2), 20000)
  for label in ('y1', 'y2'):
    noise = found.columns[label] - found.expected[label]
    # A standard deviation of 20,000 rows is right within 0.5 %, four times.
    assert abs(noise.std() - 0.1) < 0.002 and abs(noise.mean()) < 0.003
  y = np.corrcoef(found.columns['y1'], found.columns['y2'])[0, 1]
  if p in (0, 1):
    assert abs(y - (p and 0.98)) < 0.03
  assert -1.01 < np.sign(p) * y <= 1 or abs(p) == 0


def test_ceiling_of_the_regressions_is_the_noise(tmp_path):
  best = make('regression', tmp_path, '--dim', '7', *SMALL)
  world = make_mtl_data.Regression(args_of('regression', '--dim', '7'))
  for part, found in [('test', lambda label: best[label]),
                      ('validation', lambda label: best[label]['validation'])]:
    rows = columns_of(tmp_path / (part + '.parquet'))
    assert list(rows) == ['y1', 'y2'] + ['x%d' % i for i in range(7)]
    x = np.stack([rows['x%d' % i] for i in range(7)], axis=1)
    for label, values in zip(('y1', 'y2'), world.values(x)):
      mse = ((rows[label] - values)**2).mean()
      assert abs(found(label)['mse'] - mse) < 1e-6
      assert abs(found(label)['rmse'] - mse**0.5) < 1e-6
      assert abs(mse - 0.01) < 0.002
    y = np.corrcoef(rows['y1'], rows['y2'])[0, 1]
    assert abs(found('y1')['label_correlation']['y2'] - y) < 1e-5
  read = pa.csv.read_csv(str(tmp_path / 'test.csv'), pa.csv.ReadOptions(
      autogenerate_column_names=True))
  np.testing.assert_allclose(read.column(1).to_numpy(),
                             columns_of(tmp_path / 'test.parquet')['y2'])


@pytest.mark.parametrize('correlation', [-0.5, 0, 0.8])
def test_scores_of_matching_have_the_correlation_asked_for(correlation):
  world = make_mtl_data.Matching(args_of(
      'matching', '--correlation', str(correlation)))
  found = world.rows(np.random.RandomState(3), 40000)
  rating = found.expected['rating']
  assert abs(rating.std() - 1) < 0.05
  logits = [np.log(p) - np.log1p(-p) for p in (
      found.expected['click'], found.expected['like'])] + [rating]
  measured = np.corrcoef(logits)
  # 2,000 users of 4 numbers, the first ones far more often than the last.
  np.testing.assert_allclose(
      measured[np.triu_indices(3, 1)], correlation, atol=0.08)
  assert abs(found.columns['click'].mean() - 0.3) < 0.02
  assert abs(found.columns['like'].mean() - 0.2) < 0.02
  noise = found.columns['rating'] - rating
  assert abs(noise.std() - 0.5) < 0.01


def test_scores_of_matching_are_products_and_little_else():
  world = make_mtl_data.Matching(args_of(
      'matching', '--users', '60', '--items', '50'))
  found = world.rows(np.random.RandomState(4), 60000)
  user, item = found.columns['user_id'], found.columns['item_id']
  rating = found.expected['rating'] - found.expected['rating'].mean()
  effects = [np.zeros(60), np.zeros(50)]
  for _ in range(20):  # the best sum of an effect of each id
    for k, (ids, other) in enumerate([(user, item), (item, user)]):
      rest = rating - effects[1 - k][other]
      effects[k] = np.bincount(ids, rest) / np.bincount(ids)
  rest = rating - effects[0][user] - effects[1][item]
  assert 0.05 < 1 - rest.var() / rating.var() < 0.35
  # What is left is a matrix of the rank of the vectors, 4.
  cells = np.zeros((60, 50))
  cells[user, item] = rest
  values = np.linalg.svd(cells, compute_uv=False)
  assert (values[:4]**2).sum() > 0.97 * (values**2).sum()
  heavy = np.sort(np.bincount(user))[::-1]
  assert heavy[:6].sum() > 2 * heavy[-6:].sum()


def test_ceiling_of_matching_is_that_of_its_probabilities(tmp_path):
  best = make('matching', tmp_path, '--users', '100', '--items', '50', *SMALL)
  rows = columns_of(tmp_path / 'test.parquet')
  assert list(rows) == ['click', 'like', 'rating', 'user_id', 'item_id',
                        'age_band', 'category']
  world = make_mtl_data.Matching(args_of(
      'matching', '--users', '100', '--items', '50'))
  again = world.rows(np.random.RandomState([2021, 2]), 2000)
  for label in ('click', 'like'):
    assert (again.columns[label] == rows[label]).all()
    p, y = again.expected[label], rows[label]
    loss = -np.mean([np.log(q if one else 1 - q) for q, one in zip(p, y)])
    wins = np.mean([(np.sign(p[y == 1][i] - p[y == 0]) / 2 + 0.5).mean()
                    for i in range(int(y.sum()))])
    assert abs(best[label]['log_loss'] - loss) < 1e-9
    assert abs(best[label]['auc'] - wins) < 1e-9
    assert best[label]['positives'] == y.sum()
  assert abs(best['rating']['rmse'] - 0.5) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize('kind, options, metrics', [
    ('regression', ['--dim', '9'], ['y1/rmse', 'y2/rmse']),
    ('matching', ['--users', '300', '--items', '200'],
     ['click/auc', 'like/auc', 'rating/rmse'])])
def test_gin_file_beside_the_data_trains(tmp_path, kind, options, metrics):
  make(kind, tmp_path, *(options + SMALL))
  gin.clear_config()
  config.load(str(tmp_path / (kind + '.gin')), [
      'Experiment.model_dir = %r' % str(tmp_path / 'model'), 'BATCH_SIZE = 200',
      'Experiment.max_steps = 5', 'PLE.expert_units = (8,)',
      'PLE.gate_units = ()', 'Tower.units = (4,)', 'Experiment.exports = None'])
  made = experiment.Experiment()
  made.train()
  found = json.loads((tmp_path / 'model' / 'metrics.json').read_text())
  assert found['global_step'] == 5
  assert all(np.isfinite(found[name]) for name in metrics)


@pytest.mark.parametrize('name, kind', [
    ('mtl_regression', 'regression'), ('matching', 'matching')])
def test_gin_file_of_the_repository_has_the_columns(tmp_path, name, kind):
  make(kind, tmp_path, *SMALL)
  config.load('gin/%s.gin' % name, [
      'Experiment.model_dir = %r' % str(tmp_path / 'model')])
  made = experiment.Experiment()
  columns = [column.name for column in made.model.features.columns]
  assert columns == list(columns_of(tmp_path / 'test.parquet'))


@pytest.mark.parametrize('options, message', [
    ([], 'a kind must be given: regression or matching'),
    (['matching', '--correlation', '-0.6'],
     '--correlation must be from -0.5 to 1'),
    (['regression', '--correlation', '-1.1'],
     '--correlation must be from -1 to 1'),
    (['regression', '--dim', '1'], '--dim must be at least 2'),
    (['regression', '--scale', '0'], '--scale above 0')])
def test_refused(capsys, options, message):
  with pytest.raises(SystemExit):
    make_mtl_data.main(options)
  assert message in capsys.readouterr().err


def test_data_that_is_there_is_not_overwritten(tmp_path, capsys):
  (tmp_path / 'test.parquet').write_text('mine')
  with pytest.raises(SystemExit):
    make_mtl_data.main(['matching', '--out', str(tmp_path)])
  assert 'has test.parquet already' in capsys.readouterr().err
  assert (tmp_path / 'test.parquet').read_text() == 'mine'
