"""The reference of scikit-learn, against scikit-learn called directly."""

import gin
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import ple_estimator as ple

pytest.importorskip(
    'sklearn', reason="needs scikit-learn: pip install '.[test]'")

# pylint: disable=wrong-import-position
import linear_reference
from sklearn import ensemble
from sklearn import linear_model
from sklearn import metrics
from sklearn import preprocessing

# pylint: enable=wrong-import-position

COLUMNS = '''
include 'gin/base.gin'
FeatureSpec.columns = [
    {'name': 'y', 'kind': 'label', 'values': (0, 1)},
    {'name': 'z', 'kind': 'label'},
    {'name': 'a', 'kind': 'hashed', 'num_buckets': 9},
    {'name': 'b', 'kind': 'integer', 'num_buckets': 9},
    {'name': 'tags', 'kind': 'hashed_list', 'num_buckets': 9},
    {'name': 'x', 'kind': 'number', 'mean': 5.0},
]
Model.tasks = [@y/Task(), @z/Task()]
y/Task:
  name = 'y'
  label = 'y'
z/Task:
  name = 'z'
  label = 'z'
  loss = 'regression'
train/ParquetInput.files = 'train.parquet'
eval/ParquetInput.files = 'validation.parquet'
EarlyStopping.metric = 'y/auc'
Exports.best_metric = 'y/auc'
'''
FAST = {'_C': (0.1, 1.0), '_TREES': (5, 20), '_RANKS': (2,), '_L2': (1e-4,),
        '_RATES': (0.01,)}


def drawn(rng, count):
  """Rows whose y depends on a pair, and whose z on a number and on tags."""
  a, b = rng.randint(0, 4, count), rng.randint(0, 5, count)
  tags = [[int(t) for t in rng.permutation(4)[:rng.randint(0, 4)]]
          for _ in range(count)]
  x = rng.normal(5, 2, count)
  logit = 2.0 * ((a + b) % 2) - 1 + 0.3 * (x - 5)
  y = rng.random_sample(count) < 1 / (1 + np.exp(-logit))
  z = x + np.array([2.0 * (i in t) for i, t in zip(a, tags)]) + rng.normal(
      0, 0.1, count)
  return {'y': y.astype(np.int64), 'z': z.astype(np.float32),
          'a': a.astype(str), 'b': b, 'tags': tags, 'x': x}


@pytest.fixture
def folder(tmp_path, monkeypatch):
  rng = np.random.RandomState(0)
  for part, count in [('train', 2000), ('validation', 500), ('test', 800)]:
    rows = drawn(rng, count)
    rows['tags'] = ['|'.join(map(str, t)) for t in rows['tags']]
    pa.parquet.write_table(
        pa.table(rows), str(tmp_path / (part + '.parquet')))
  (tmp_path / 'x.gin').write_text(
      COLUMNS + 'DATA_DIR = %r\n' % str(tmp_path))
  for name, value in FAST.items():
    monkeypatch.setattr(linear_reference, name, value)
  return tmp_path


def table_of(out):
  """{run: {column: text}} of a Markdown table."""
  lines = [[cell.strip() for cell in line.strip('| ').split(' | ')]
           for line in out.splitlines() if line.startswith('|')]
  return {line[0]: dict(zip(lines[0], line)) for line in lines[2:]}


def rows_of(folder, part):
  table = pa.parquet.read_table(str(folder / (part + '.parquet')))
  return {n: np.array(table[n].to_pylist()) for n in table.column_names}


def dense(rows, names):
  """One-hot columns by scikit-learn, tags by hand, x standardised."""
  train = rows[0]
  encoder = preprocessing.OneHotEncoder(handle_unknown='ignore').fit(
      np.stack([train[name].astype(str) for name in names], axis=1))
  found = []
  for part in rows:
    blocks = [encoder.transform(np.stack(
        [part[name].astype(str) for name in names], axis=1)).toarray()]
    lists = [text.split('|') if text else [] for text in part['tags']]
    blocks.append(np.array([[(str(i) in items) / max(1, len(items))
                             for i in range(4)] for items in lists]))
    blocks.append((part['x'] - train['x'].mean())[:, None] / train['x'].std())
    found.append(np.concatenate(blocks, axis=1))
  return found


def run(folder, capsys, *options):
  status = linear_reference.main([
      str(folder / 'x.gin'), '--test', str(folder / 'test.parquet')]
      + list(options))
  said = capsys.readouterr()
  assert status == 0, said.err
  return table_of(said.out), said.err


def test_linear_models_are_those_of_scikit_learn(folder, capsys):
  found, said = run(folder, capsys, '--methods', 'logistic', 'crosses',
                    '--crosses', 'a*b', 'a in tags')
  rows = [rows_of(folder, part) for part in ('train', 'validation', 'test')]
  for part in rows:
    part['a*b'] = np.char.add(part['a'].astype(str), part['b'].astype(str))
    part['a in tags'] = np.array([
        a in text.split('|') for a, text in zip(part['a'], part['tags'])])
  for method, names in [('logistic', ['a', 'b']),
                        ('crosses', ['a', 'b', 'a*b', 'a in tags'])]:
    x = dense(rows, names)
    best = None
    for c in FAST['_C']:
      model = linear_model.LogisticRegression(C=c, max_iter=1000)
      model.fit(x[0], rows[0]['y'])
      p = [model.predict_proba(part)[:, 1] for part in x]
      loss = metrics.log_loss(rows[1]['y'], p[1])
      best = min(best or (loss, c, p[2]), (loss, c, p[2]), key=lambda b: b[0])
    assert '%s y: C = %g, validation loss %.4f' % (
        method, best[1], best[0]) in said
    assert abs(float(found[method]['y/auc']) - metrics.roc_auc_score(
        rows[2]['y'], best[2])) < 2e-4
    assert abs(float(found[method]['y/log_loss']) - metrics.log_loss(
        rows[2]['y'], best[2])) < 2e-4
    ridge = min((linear_model.Ridge(alpha=1 / c).fit(x[0], rows[0]['z'])
                 for c in FAST['_C']), key=lambda m: (
                     (m.predict(x[1]) - rows[1]['z'])**2).mean())
    rmse = ((ridge.predict(x[2]) - rows[2]['z'])**2).mean()**0.5
    assert abs(float(found[method]['z/rmse']) - rmse) < 2e-4
  # What the crosses are for.
  assert float(found['crosses']['y/auc']) > float(
      found['logistic']['y/auc']) + 0.05
  assert float(found['crosses']['z/rmse']) < 0.7 * float(
      found['logistic']['z/rmse'])


def test_boosting_is_that_of_scikit_learn(folder, capsys):
  found, said = run(folder, capsys, '--methods', 'boosting')
  rows = [rows_of(folder, part) for part in ('train', 'validation', 'test')]
  order = {name: list(np.unique(rows[0][name])) for name in 'ab'}
  ranks = {}
  for name in 'ab':  # the more often, the smaller
    counts = [-(rows[0][name] == value).sum() for value in order[name]]
    ranks[name] = np.argsort(np.argsort(counts, kind='stable'))
  x = [np.stack([ranks['a'][[order['a'].index(v) for v in part['a']]],
                 ranks['b'][[order['b'].index(v) for v in part['b']]],
                 [len(t.split('|')) if t else 0 for t in part['tags']],
                 part['x'] - 5], axis=1) for part in rows]
  trees = 20 if 'boosting y: 20 trees' in said else 5
  model = ensemble.HistGradientBoostingClassifier(
      max_iter=trees, early_stopping=False, random_state=2021,
      categorical_features=[0, 1]).fit(x[0], rows[0]['y'])
  wanted = metrics.roc_auc_score(rows[2]['y'], model.predict_proba(x[2])[:, 1])
  assert abs(float(found['boosting']['y/auc']) - wanted) < 2e-3


def test_factorization_machine_is_its_equation():
  rng = np.random.RandomState(1)
  model = linear_reference.FactorizationMachine(False, rank=3, epochs=1)
  x = linear_reference.sparse.csr_matrix(rng.normal(size=(6, 5)))
  model.fit(x, rng.normal(size=6), np.ones(6), x, np.zeros(6), np.ones(6))
  dense_x, w, v = x.toarray(), model._w[:, 0], model._w[:, 1:]
  wanted = [model._w0 + row.dot(w) + sum(
      v[i].dot(v[j]) * row[i] * row[j]
      for i in range(5) for j in range(i + 1, 5)) for row in dense_x]
  np.testing.assert_allclose(model.predict(x), wanted, atol=1e-12)


@pytest.mark.parametrize('binary', [True, False])
def test_gradient_of_the_factorization_machine(binary):
  rng = np.random.RandomState(2)
  model = linear_reference.FactorizationMachine(binary, rank=2, l2=0.1, rate=1)
  x = linear_reference.sparse.csr_matrix(rng.normal(size=(7, 4)))
  y, weight = (rng.random_sample(7) < 0.5).astype(float), 1 + rng.rand(7)
  model._w0, model._w = 0.2, rng.normal(0, 0.5, (4, 3))

  def loss(w):
    model._w = w
    p = model.predict(x)
    each = (-y * np.log(p) - (1 - y) * np.log(1 - p) if binary
            else 0.5 * (p - y)**2)
    return (each * weight).sum() / weight.sum() + 0.05 * (w**2).sum()

  start, wanted = model._w.copy(), np.zeros((4, 3))
  for place in np.ndindex(4, 3):
    step = np.zeros((4, 3))
    step[place] = 1e-6
    wanted[place] = (loss(start + step) - loss(start - step)) / 2e-6
  model._w, moments = start.copy(), [0.0, 0.0]
  model._step(x, y, weight, moments, 1)
  np.testing.assert_allclose(moments[0] / 0.1, wanted, atol=1e-6)


def test_factorization_machine_learns_pairs(folder, capsys):
  found, _ = run(folder, capsys, '--methods', 'logistic', 'fm')
  assert float(found['fm']['y/auc']) > float(found['logistic']['y/auc']) + 0.05


def test_share_of_train_rows_is_fitted_again(folder, capsys):
  found, _ = run(folder, capsys, '--methods', 'logistic', '--validation-share',
                 '0.3')
  x, _, tested = dense([rows_of(folder, part) for part in (
      'train', 'validation', 'test')], ['a', 'b'])
  y = [rows_of(folder, part)['y'] for part in ('train', 'test')]
  wanted = [metrics.roc_auc_score(y[1], linear_model.LogisticRegression(
      C=c, max_iter=1000).fit(x, y[0]).predict_proba(tested)[:, 1])
            for c in FAST['_C']]
  # The scale of x is that of 70 % of the rows, so not to the last digit.
  assert min(abs(float(found['logistic']['y/auc']) - w) for w in wanted) < 1e-3


def test_sample_space_and_weights_choose_the_rows(folder):
  model = ple.load(str(folder / 'x.gin'), bindings=[
      "y/Task.sample_space = ('a', '1')"]).experiment.model
  table = linear_reference.read(linear_reference.source('train_input'), model)
  found = linear_reference.targets(table, model)
  rows = rows_of(folder, 'train')
  np.testing.assert_array_equal(found['y'].here, rows['a'] == '1')
  assert found['z'].here.all() and (found['z'].weight == 1).all()
  gin.clear_config()


def test_columns_that_share_a_table_are_refused(folder, capsys):
  (folder / 'shared.gin').write_text(
      "include 'x.gin'\nFeatureSpec.overrides = {'a': {'table': 't'}, "
      "'tags': {'table': 't'}}\n")
  status = linear_reference.main([
      str(folder / 'shared.gin'), '--test', str(folder / 'test.parquet')])
  assert status == 1 and capsys.readouterr().err == (
      "linear_reference: The columns must be without 'table', which gives a "
      "value one weight in several columns, got 'a': override it with None.\n")


@pytest.mark.parametrize('options, message', [
    (['--methods', 'crosses', '--crosses', 'a*tags'],
     "linear_reference: --crosses must be 'a*b' of two categories with one "
     "value, or 'a in b' of such a one and a list, got 'a*tags'.\n"),
    (['--test', 'nope.parquet'], "must name existing files, got 'nope.parquet'")
])
def test_what_is_wrong_is_said_in_a_line(folder, capsys, options, message):
  status = linear_reference.main([
      str(folder / 'x.gin'), '--test', str(folder / 'test.parquet')] + options)
  assert status == 1 and message in capsys.readouterr().err


def test_crosses_need_their_method(capsys):
  with pytest.raises(SystemExit):
    linear_reference.main(['gin/base.gin', '--methods', 'crosses'])
  assert '--crosses and the method crosses need each other' in (
      capsys.readouterr().err)
