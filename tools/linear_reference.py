#!/usr/bin/env python3
r"""Trains what PLE has to beat on the rows of an experiment, with scikit-learn.

  pip install 'ple-estimator[reference]'
  python tools/linear_reference.py gin/base.gin \
      --validation data/taobao_validation_data.parquet \
      --test data/taobao_test_data.parquet \
      --crosses 'age_level*cate_id' 'cate_id in tag_category_list'

Columns, tasks and files are those of the .gin files, so that the rows are the
same. For each task alone, on the rows of its sample space:

  logistic   logistic regression on one-hot columns (ridge regression where the
             task is a regression); C is chosen. Numbers are standardised, a
             list is the mean of its items.
  crosses    the same with the columns that --crosses names: 'a*b' has a value
             for each pair of values, 'a in b' says whether the list b holds a.
  boosting   HistGradientBoosting on the columns: what has at most 250 values is
             a category, other categories are numbers in the order of their
             frequency, a list is its length. The number of trees is chosen.
  fm         a factorization machine (Rendle, ICDM 2010) in numpy on the one-hot
             columns, trained by Adam; rank, l2 and learning rate are chosen,
             and the epoch at which it stops.

All choices go by the loss of the validation rows. The test rows are read when
everything is chosen, and predicted once.

Where there is no validation file, --validation-share 0.1 takes a tenth of the
train rows, drawn at random; what is chosen is then fitted again to all train
rows (but for fm, which stops by the validation rows).
"""

import argparse
import collections
import itertools
import sys

import gin
import numpy as np
from scipy import sparse
from sklearn import ensemble
from sklearn import linear_model
from sklearn import metrics
import tensorflow.compat.v1 as tf

import ple_estimator as ple
from ple_estimator.data import column_kinds
from ple_estimator.data import input_files
from ple_estimator.data import reading

METHODS = ('logistic', 'crosses', 'boosting', 'fm')
_METRICS = ('auc', 'log_loss', 'rmse', 'mae')
_C = (0.01, 0.03, 0.1, 0.3, 1.0)
_TREES = (50, 100, 200, 400)
_RANKS, _L2, _RATES = (8, 16), (1e-6, 1e-5, 1e-4), (0.003, 0.01)
# A machine first learns the weights of single values; its vectors start near 0
# and grow slowly at first, while the held-out loss may rise.
_PATIENCE = 5
_MOST_CATEGORIES = 250  # HistGradientBoosting takes 255 at most
_SEED = 2021

# The targets of a task: labels and weights are [rows] float64, here [rows] bool
# says which rows are in its sample space.
Targets = collections.namedtuple('Targets', 'label weight here')


# ------------------------------------------------------------------- the rows


def source(binding):
  """The input that a parameter of Experiment is bound to, or None.

  Args:
    binding: str, such as 'train_input'.
  """
  try:
    found = gin.query_parameter('Experiment.' + binding)
  except ValueError:  # nothing is bound
    return None
  if found is None:
    return None
  return found.scoped_configurable_fn()


def source_of(names, option, binding):
  """The input of files that an option names, or else of a binding, or None."""
  if not names:
    return source(binding)
  train = source('train_input')
  return train.of(input_files.find('.', names, train.suffix, option))


def read(rows, model):
  """Reads all rows of an input; returns {column name: [rows] numpy array}."""
  wanted = reading.Reading(model.features, tuple(model.keep))
  reader = rows.reader(wanted)
  reader.check()
  parts = [table for piece in reader.slices() for table in reader.read(piece)]
  found = {}
  for column in wanted.columns():
    arrays = [part.column(column.name).to_numpy() for part in parts]
    found[column.name] = np.concatenate(arrays)
  return found


def targets(table, model):
  """Returns {task name: Targets} of the columns of some rows."""
  weight = model.weight
  rows = len(next(iter(table.values())))
  weights = table[weight].astype(float) if weight else np.ones(rows)
  found = {}
  for task in model.tasks:
    own = (weights * table[task.weight_column] if task.weight_column
           else weights)
    here = own > 0
    if task.sample_space:
      name, value = task.sample_space
      wanted = value.encode() if isinstance(value, str) else value
      here = here & (table[name] == wanted)
    label = np.nan_to_num(task.target(table).astype(float))
    found[task.name] = Targets(label, own, here)
  return found


class Columns:
  """Turns columns into matrices; learns values and scales from train rows."""

  def __init__(self, spec, table, crosses=()):
    """Learns what the train rows hold.

    Args:
      spec: feature_spec.FeatureSpec.
      table: the train rows, as `read` returns them.
      crosses: list of 'a*b' and 'a in b'.

    Raises:
      ValueError: if a cross is of no columns, or of columns of another kind; if
        there is a column that is not what its file has, such as an interval.
    """
    others = [column.name for column in spec.columns + spec.categories
              if isinstance(column, (column_kinds.Bucketised,
                                     column_kinds.Crossed,
                                     column_kinds.Vector))]
    if others:
      raise ValueError(
          'The linear reference reads no column of kind bucketised, crossed or '
          'vector: leave %s out of FeatureSpec.columns.' % ', '.join(others))
    self._spec = spec
    self._crosses = [self._cross(text) for text in crosses]
    self._known, self._scale = {}, {}
    for name, (values, _) in self._categories(table).items():
      self._known[name], counts = np.unique(values, return_counts=True)
      self._known[name, 'rank'] = np.argsort(np.argsort(
          -counts, kind='stable'))
    for name, values in self._numbers(table).items():
      self._scale[name] = np.nanmean(values), np.nanstd(values) or 1.0

  def _cross(self, text):
    kind = ' in ' if ' in ' in text else '*'
    names = [name.strip() for name in text.split(kind)]
    known = {column.name: isinstance(column, column_kinds.HashedList)
             for column in self._spec.categories}
    wanted = [False, kind == ' in ']
    if [known.get(name) for name in names] != wanted:
      raise ValueError(
          "--crosses must be 'a*b' of two categories with one value, or 'a in "
          "b' of such a one and a list, got %r." % text)
    return names[0], kind, names[1]

  def _categories(self, table):
    """{name: (values, row of each value)}, crosses included."""
    found = {}
    for column in self._spec.categories:
      values = table[column.name]
      rows = np.arange(len(values))
      if column.weighted:
        raise ValueError("The columns must be without 'weights' of items, got "
                         '%r: override them with None, and bind the file '
                         'without them.' % column.name)
      if column.table is not None:
        raise ValueError("The columns must be without 'table', which gives a "
                         'value one weight in several columns, got %r: '
                         'override it with None.' % column.name)
      if isinstance(column, column_kinds.HashedList):
        values, rows = items_of(values, column)
      found[column.name] = values, rows
    for first, kind, second in self._crosses:
      values, rows = found[first]
      if kind == '*':
        both = np.array([b'%s*%s' % pair for pair in zip(
            as_bytes(values), as_bytes(found[second][0]))], object)
        found[first + kind + second] = both, rows
      else:
        items, owners = found[second]
        holds = np.zeros(len(values), bool)
        holds[owners[as_bytes(items) == as_bytes(values)[owners]]] = True
        found[first + kind + second] = holds, rows
    return found

  def _numbers(self, table):
    """{name: [rows] float32} of the numbers as the network reads them."""
    with tf.Graph().as_default(), tf.Session() as session:
      return {name: session.run(self._spec[name].encode(
          tf.constant(table[name]))) for name in self._spec.numbers}

  def _codes(self, name, values):
    """The places of values among the known ones, and which are known."""
    known = self._known[name]
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return place, known[place] == values

  def one_hot(self, table):
    """The rows as a scipy.sparse.csr_matrix [rows, values] float64."""
    blocks = []
    for name, (values, rows) in self._categories(table).items():
      place, known = self._codes(name, values)
      count = len(next(iter(table.values())))
      each = 1 / np.maximum(1, np.bincount(rows, minlength=count))
      blocks.append(sparse.csr_matrix(
          (each[rows[known]], (rows[known], place[known])),
          (count, len(self._known[name]))))
    for name, values in self._numbers(table).items():
      mean, std = self._scale[name]
      blocks.append(sparse.csr_matrix(
          np.nan_to_num((values - mean) / std)[:, np.newaxis]))
    return sparse.hstack(blocks, format='csr')

  def dense(self, table):
    """Returns ([rows, columns] float64 with NaN, [columns] bool: categories).

    What was in no train row is NaN.
    """
    found, categories = [], []
    for name, (values, rows) in self._categories(table).items():
      count = len(next(iter(table.values())))
      if name in self._spec_names(column_kinds.HashedList):
        found.append(np.bincount(rows, minlength=count).astype(float))
        categories.append(False)
        continue
      place, known = self._codes(name, values)
      found.append(np.where(known, self._known[name, 'rank'][place], np.nan))
      categories.append(len(self._known[name]) <= _MOST_CATEGORIES)
    for values in self._numbers(table).values():
      found.append(values)
      categories.append(False)
    return np.column_stack(found), np.array(categories)

  def _spec_names(self, kind):
    return [c.name for c in self._spec.categories if isinstance(c, kind)]


def as_bytes(values):
  """An object array of bytes: text as it is, integers in decimal."""
  if values.dtype == object:
    return values
  return np.array([b'%d' % value for value in values], object)


def items_of(texts, column):
  """The items of lists: ([items] object array of bytes, [items] int rows)."""
  lists = [column.items(text) for text in texts]
  rows = np.repeat(np.arange(len(texts)), list(map(len, lists)))
  items = np.empty(len(rows), object)
  items[:] = list(itertools.chain.from_iterable(lists))
  return items, rows


# --------------------------------------------------------------- the methods


class FactorizationMachine:
  """y = w0 + x . w + sum over pairs i < j of v_i . v_j x_i x_j, one task."""

  def __init__(self, binary, rank=8, l2=1e-4, rate=0.01, epochs=30, batch=1000):
    self._binary, self._rank, self._l2 = binary, rank, l2
    self._rate, self._epochs, self._batch = rate, epochs, batch

  def fit(self, x, y, weight, x_held_out, y_held_out, weight_held_out):
    """Trains until five epochs in a row do not lower the held-out loss."""
    rng = np.random.RandomState(_SEED)
    self._w0 = 0.0 if self._binary else np.average(y, weights=weight)
    self._w = np.zeros((x.shape[1], 1 + self._rank))  # weight, then vector
    self._w[:, 1:] = rng.normal(0, 0.1, (x.shape[1], self._rank))
    moments, self.loss, best, waited = [0.0, 0.0], np.inf, None, 0
    step = 0
    for _ in range(self._epochs):
      order = rng.permutation(x.shape[0])
      for start in range(0, len(order), self._batch):
        rows, step = order[start:start + self._batch], step + 1
        self._step(x[rows], y[rows], weight[rows], moments, step)
      loss = loss_of(self._binary, y_held_out, self.predict(x_held_out),
                     weight_held_out)
      waited = 0 if loss < self.loss else waited + 1
      if not waited:
        self.loss, best = loss, (self._w0, self._w.copy())
      if waited == _PATIENCE:
        break
    self._w0, self._w = best
    return self

  def _step(self, x, y, weight, moments, step):
    """One step of Adam (Kingma and Ba, 2015)."""
    error = (self.predict(x) - y) * weight / weight.sum()
    vectors = self._w[:, 1:]
    squares = x.multiply(x)
    gradient = np.column_stack([
        x.T.dot(error),
        x.T.dot(error[:, np.newaxis] * x.dot(vectors))
        - squares.T.dot(error)[:, np.newaxis] * vectors])
    gradient += self._l2 * self._w
    self._w0 -= self._rate * error.sum()
    moments[0] = 0.9 * moments[0] + 0.1 * gradient
    moments[1] = 0.999 * moments[1] + 0.001 * gradient**2
    self._w -= (self._rate * moments[0] / (1 - 0.9**step) / (
        np.sqrt(moments[1] / (1 - 0.999**step)) + 1e-8))

  def predict(self, x):
    """[rows] float64: probabilities, or the numbers of a regression."""
    vectors = self._w[:, 1:]
    pairs = 0.5 * (np.square(x.dot(vectors))
                   - x.multiply(x).dot(np.square(vectors))).sum(axis=1)
    score = self._w0 + x.dot(self._w[:, 0]) + pairs
    if not self._binary:
      return score
    return 1 / (1 + np.exp(-np.clip(score, -30, 30)))


def linear(binary, c):
  """Logistic or ridge regression whose penalty is 1 / C."""
  if binary:
    return linear_model.LogisticRegression(C=c, max_iter=1000)
  # The default tolerance of some versions leaves an error that one can see.
  return linear_model.Ridge(alpha=1 / c, tol=1e-8)


def boosting(binary, trees, categories):
  """HistGradientBoosting of a number of trees; the rest are its defaults."""
  kind = (ensemble.HistGradientBoostingClassifier if binary else
          ensemble.HistGradientBoostingRegressor)
  return kind(max_iter=trees, early_stopping=False, random_state=_SEED,
              categorical_features=categories)


def predicted(model, x, binary):
  """[rows] float64 of a model of scikit-learn, or of FactorizationMachine."""
  if binary and hasattr(model, 'predict_proba'):
    return model.predict_proba(x)[:, 1]
  return model.predict(x)


def loss_of(binary, label, p, weight):
  """The mean log loss, or squared error, that choices go by."""
  if not binary:
    return float(np.average((label - p)**2, weights=weight))
  p = np.clip(p, 1e-7, 1 - 1e-7)
  return float(np.average(
      -label * np.log(p) - (1 - label) * np.log1p(-p), weights=weight))


def measured(binary, label, p, weight):
  """The metrics of the table, by name."""
  loss = loss_of(binary, label, p, weight)
  if binary:
    mixed = len(np.unique(label)) > 1
    return {'log_loss': loss, 'auc': metrics.roc_auc_score(
        label, p, sample_weight=weight) if mixed else None}
  return {'rmse': loss**0.5,
          'mae': float(np.average(np.abs(label - p), weights=weight))}


class Reference:
  """Chooses and fits one method for each task."""

  def __init__(self, method, model, tables, crosses, refit):
    """Prepares the train and the validation rows.

    Args:
      method: one of METHODS.
      model: model.Model, whose features and tasks it takes.
      tables: (train, validation), as `read` returns them.
      crosses: see Columns.
      refit: bool, whether what is chosen is fitted again to both.
    """
    self.method, self._tasks = method, model.tasks
    self._model, self._refit = model, refit
    self._columns = Columns(model.features, tables[0],
                            crosses if method == 'crosses' else ())
    self._x = [self._matrix(table) for table in tables]
    self._targets = [targets(table, model) for table in tables]

  def _matrix(self, table):
    if self.method != 'boosting':
      return self._columns.one_hot(table)
    found, self._is_category = self._columns.dense(table)
    return found

  def _of(self, part, task):
    """Rows of a part, x, y and weight, in the sample space of a task."""
    label, weight, here = self._targets[part][task.name]
    return self._x[part][here], label[here], weight[here]

  def _candidates(self, binary):
    """Yields (what is tried, in words, and a model that is not fitted)."""
    if self.method == 'fm':
      for rank, l2, rate in itertools.product(_RANKS, _L2, _RATES):
        yield 'rank %d, l2 %g, learning rate %g' % (rank, l2, rate), (
            FactorizationMachine(binary, rank, l2, rate))
    elif self.method == 'boosting':
      for trees in _TREES:
        yield '%d trees' % trees, boosting(binary, trees, self._is_category)
    else:
      for c in _C:
        yield 'C = %g' % c, linear(binary, c)

  def fit(self, task):
    """Returns the model of a task that is best on the validation rows."""
    x, y, weight = self._of(0, task)
    held_out = self._of(1, task)
    best = np.inf, None, None
    for words, model in self._candidates(task.is_binary):
      if self.method == 'fm':
        loss = model.fit(x, y, weight, *held_out).loss
      else:
        model.fit(x, y, sample_weight=weight)
        loss = loss_of(task.is_binary, held_out[1], predicted(
            model, held_out[0], task.is_binary), held_out[2])
      if loss < best[0]:
        best = loss, words, model
    sys.stderr.write('%s %s: %s, validation loss %.4f\n' % (
        self.method, task.name, best[1], best[0]))
    if self._refit and self.method != 'fm':
      stack = sparse.vstack if sparse.issparse(x) else np.concatenate
      best[2].fit(stack([x, held_out[0]]), np.concatenate([y, held_out[1]]),
                  sample_weight=np.concatenate([weight, held_out[2]]))
    return best[2]

  def test(self, models, table):
    """Returns {'task/metric': value} of the test rows."""
    x, of_task = self._matrix(table), targets(table, self._model)
    found = {}
    for task in self._tasks:
      label, weight, here = of_task[task.name]
      p = predicted(models[task.name], x[here], task.is_binary)
      for name, value in measured(
          task.is_binary, label[here], p, weight[here]).items():
        found['%s/%s' % (task.name, name)] = value
    return found


def tables_of(args, model):
  """Reads (train, validation) rows."""
  train = read(source('train_input'), model)
  if not args.validation_share:
    held_out = source_of(args.validation, '--validation', 'eval_input')
    if held_out is None:
      raise ValueError('Experiment.eval_input is None: give --validation-share '
                       'for the validation rows.')
    return train, read(held_out, model)
  rows = len(next(iter(train.values())))
  chosen = (np.random.RandomState(_SEED).random_sample(rows)
            < args.validation_share)
  return tuple({name: values[here] for name, values in train.items()}
               for here in (~chosen, chosen))


def known_metrics(found):
  """The metrics of the table, all tasks of one metric together.

  Args:
    found: list of dict of '<task>/<metric>' to float.
  """
  return sorted(
      {name for values in found for name in values
       if name.split('/')[1] in _METRICS},
      key=lambda name: (_METRICS.index(name.split('/')[1]), name))


def compare(args):
  """Yields the lines of the table."""
  model = ple.load(*args.gin_files, bindings=args.gin_bindings).experiment.model
  for task in model.tasks:
    if not task.is_binary and 'rmse' not in task.kind.measures:
      raise ValueError('The tasks must be binary or regressions, got %s with '
                       'the loss %s.' % (task.name, type(task.kind).__name__))
  test_rows = source_of(args.test, '--test', 'test_input')
  if test_rows is None:
    raise ValueError('--test must name the test file: Experiment.test_input is '
                     'not bound.')
  test_rows.check(reading.Reading(model.features, tuple(model.keep)))
  tables = tables_of(args, model)
  fitted = []
  for method in args.methods:
    one = Reference(method, model, tables, args.crosses,
                    bool(args.validation_share))
    fitted.append((one, {task.name: one.fit(task) for task in model.tasks}))
  table = read(test_rows, model)
  found = [one.test(models, table) for one, models in fitted]
  names = known_metrics(found)
  yield ['run', 'step'] + names + ['steps/s']
  yield ['---'] * (len(names) + 3)
  for (one, _), values in zip(fitted, found):
    yield [one.method, ''] + ['%.4f' % values[n] for n in names] + ['']


def main(arguments=None):
  """Prints the table; returns the exit status.

  Args:
    arguments: list of str; None takes those of the process.
  """
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('gin_files', nargs='+', help='of the experiment')
  parser.add_argument('--gin_bindings', action='append', default=[])
  parser.add_argument('--methods', nargs='+', choices=METHODS,
                      help='default: all, crosses only with --crosses')
  parser.add_argument('--crosses', nargs='+', default=[], metavar='CROSS',
                      help="such as 'a*b' or 'a in b', see above")
  parser.add_argument('--validation', nargs='+', metavar='FILE',
                      help='validation rows; default: those of eval_input')
  parser.add_argument('--validation-share', type=float, metavar='SHARE',
                      help='share of the train rows to take for validation')
  parser.add_argument('--test', nargs='+', metavar='FILE',
                      help='test rows; default: those of test_input')
  args = parser.parse_args(arguments)
  if args.validation and args.validation_share is not None:
    parser.error('--validation and --validation-share exclude each other')
  if args.validation_share is not None and not 0 < args.validation_share < 1:
    parser.error('--validation-share must be between 0 and 1')
  args.methods = args.methods or [
      method for method in METHODS if method != 'crosses' or args.crosses]
  if ('crosses' in args.methods) != bool(args.crosses):
    parser.error('--crosses and the method crosses need each other')
  try:
    for row in compare(args):
      print('| %s |' % ' | '.join(row))
  except (OSError, ValueError) as error:
    sys.stderr.write('linear_reference: %s\n' % error)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
