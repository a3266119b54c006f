"""Averaged weights against sums in numpy, over random streams of rows."""

import conftest
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.embeddings import admission
from ple_estimator.embeddings import partitioned_table
from ple_estimator.engine import native
from ple_estimator.optimizers import averaging
from ple_estimator.optimizers import factories
from ple_estimator.training import saver

DECAY = 0.6  # exponential from update 9 on
HEIGHT = 7
RATE = 0.3


class Graph:
  """A dense variable, a table of fixed height and a keyed one, trained."""

  def __init__(self, parts=1, eviction=None, fused=False, decay=DECAY,
               optimizer=lambda: factories.sgd(RATE)):
    self.graph = tf.Graph()
    with self.graph.as_default():
      tf.set_random_seed(3)
      tf.train.create_global_step()
      self.dense = tf.get_variable(
          'dense', initializer=np.array([1.0, -2.0], np.float32))
      with tf.variable_scope('', partitioner=tf.fixed_size_partitioner(
          parts) if parts > 1 else None):
        table = tf.get_variable('table', initializer=tf.ones([HEIGHT, 3]))
      self.table = tf.convert_to_tensor(table)
      self.rows = tf.placeholder(tf.int64, [None])
      self.keys = tf.placeholder(tf.int64, [None])
      self.pull = tf.placeholder(tf.float32, [])
      self.keyed = partitioned_table.PartitionedTable(
          parts, 'keyed', 3, 20, 'EmbeddingVariable.capacity', 0.5, True, None,
          eviction)
      vectors = self.keyed.lookup(self.keys, tf.ones_like(self.keys))
      touched = tf.nn.embedding_lookup(table, self.rows,
                                       partition_strategy='div')
      loss = sum(tf.reduce_sum(tf.square(x - self.pull))
                 for x in (touched, vectors, self.dense))
      self.step = conftest.train_op(
          optimizer, loss, fused=fused, averaging=averaging.Averaging(decay))
      self.saver = saver.Saver(5, training=True, variables_remain=False)
      init = tf.global_variables_initializer()
      self.saver.build()
    self.session = tf.Session(graph=self.graph)
    self.session.run(init)

  def train(self, rows, keys, pull):
    self.session.run(self.step, {
        self.rows: rows, self.keys: keys, self.pull: pull})

  def save(self, folder, step):
    """What the checkpoint has, by name; a keyed table's parts in one."""
    self.saver.save(self.session, str(folder / 'model.ckpt'), step)
    return contents(str(folder / ('model.ckpt-%d' % step)))

  def restored(self, folder, step):
    self.saver.restore(self.session, str(folder / ('model.ckpt-%d' % step)))
    return self


def contents(path):
  reader = tf.train.load_checkpoint(path)
  found = {}
  for name in sorted(reader.get_variable_to_shape_map()):
    whole = name.replace('/part_0', '').replace('/part_1', '')
    found.setdefault(whole, []).append(reader.get_tensor(name))
  found = {k: np.concatenate(of) if of[0].ndim else of[0]
           for k, of in found.items()}
  order = np.argsort(found['keyed/embedding-keys'])
  return {k: v[order] if k.startswith('keyed/embedding') and
             '_filtered' not in k else v for k, v in found.items()}


class Reference:
  """The weights after every update since each row began, from the formula."""

  def __init__(self, starts):
    self.dense, self.table = [], []  # after every update
    self.keyed = {}  # key -> list of its row after every update
    self.now = {'dense': np.array([1.0, -2.0]), 'table': np.ones([HEIGHT, 3])}
    self.starts = starts

  def train(self, rows, keys, pull):
    to = lambda w, times=1: w - times * RATE * 2 * (w - pull)
    self.now['dense'] = to(self.now['dense'])
    table = self.now['table'].copy()
    for row, times in zip(*np.unique(rows, return_counts=True)):
      table[row] = to(table[row], times)
    self.now['table'] = table
    self.dense.append(self.now['dense'])
    self.table.append(table)
    for key in keys:
      self.keyed.setdefault(key, [])
    for key, past in self.keyed.items():
      last = past[-1] if past else self.starts[key]
      past.append(to(last) if key in keys else last)

  def check(self, found):
    assert list(found['keyed/embedding-keys']) == sorted(self.keyed)
    keyed = [self.keyed[key] for key in sorted(self.keyed)]
    for name, weights in [('dense', [self.dense]), ('table', [self.table])]:
      close(found[name], weights[0][-1])
      close(found[name + '/average'], average(weights[0]))
    for suffix, rows in [('-values', [past[-1] for past in keyed]),
                         ('/average-values', [average(x) for x in keyed])]:
      close(found['keyed/embedding' + suffix], np.reshape(rows, [-1, 3]))


def average(weights):
  """The average by its definition, one update after the other."""
  found = 0
  for t, weight in enumerate(weights, 1):
    found += max(1 - DECAY, 5 / (t + 4)) * (np.array(weight) - found)
  return found


def close(got, wanted):
  np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6)


def batches(steps, seed=0):
  rng = np.random.RandomState(seed)
  for step in range(steps):
    # Row 6 is in no batch, row 5 in one; keys come when the step reaches them.
    rows = np.array(list(rng.randint(0, 5, rng.randint(0, 4))) +
                    [5] * (step == 11), int)
    keys = np.unique(rng.randint(0, 2 + step // 3, rng.randint(0, 5)))
    yield rows, keys, rng.randn()


def starts_of(parts=1):
  """What the row of each key starts from: that of an update that moves none."""
  made = Graph(parts)
  made.train([], np.arange(20), 0.0)
  with made.graph.as_default():
    vectors = made.session.run(
        [part.values for part in made.keyed._parts])
    rows = [made.session.run(part.state.rows.lookup(
        tf.range(20, dtype=tf.int64))) for part in made.keyed._parts]
  return {key: vectors[p][rows[p][key]] / (1 - 2 * RATE)
          for p in range(parts) for key in range(20) if rows[p][key] >= 0}


FORMS = [(1, False), pytest.param(1, True, marks=conftest.needs_kernels),
         (2, False)]


@pytest.mark.slow
@pytest.mark.parametrize('parts, fused', FORMS)
def test_averages_are_the_sums_of_the_definition(tmp_path, parts, fused):
  reference, made = Reference(starts_of()), Graph(parts, fused=fused)
  for step, batch in enumerate(batches(30), 1):
    made.train(*batch)
    reference.train(*batch)
    if step in (1, 2, 9, 20, 30):  # saving does not change what follows
      reference.check(made.save(tmp_path, step))
  assert 3 < len(reference.keyed) < 12


@pytest.mark.slow
@pytest.mark.parametrize('parts', [(1, 1), (2, 1), (1, 2)])
def test_a_restart_changes_nothing(tmp_path, parts):
  reference, made = Reference(starts_of()), Graph(parts[0])
  for step, batch in enumerate(batches(25), 1):
    made.train(*batch)
    reference.train(*batch)
    if step == 13:
      made.save(tmp_path, step)
      made = Graph(parts[1]).restored(tmp_path, step)
  reference.check(made.save(tmp_path, 25))


def test_averaging_that_begins_late_counts_from_there(tmp_path):
  seen = list(batches(20))
  reference, made = Reference(starts_of()), Graph()
  for batch in seen[:8]:
    made.train(*batch)
    reference.train(*batch)
  without(made.save(tmp_path, 8), tmp_path / 'model.ckpt-8')
  reference.dense, reference.table = [], []
  # A row that is there begins with the averages.
  reference.starts.update(
      (key, past[-1]) for key, past in reference.keyed.items())
  reference.keyed = {k: [] for k in reference.keyed}
  made = Graph().restored(tmp_path, 8)
  for batch in seen[8:]:
    made.train(*batch)
    reference.train(*batch)
  found = made.save(tmp_path, 20)
  reference.check(found)
  assert found['averaging/start'] == 8


def without(found, path):
  """Writes a checkpoint as a training without averages would."""
  found = {k: v for k, v in found.items() if 'average' not in k and
           'averaging' not in k}
  names = sorted(found)
  with tf.Graph().as_default(), tf.Session() as session:
    session.run(tf.raw_ops.SaveV2(
        prefix=str(path), tensor_names=names,
        shape_and_slices=[''] * len(names),
        tensors=[found[name] for name in names]))


def test_a_row_that_is_given_to_another_key_begins_anew(tmp_path):
  made = Graph(eviction=admission.GlobalStepEviction(1))
  for step in range(3):
    made.train([], [1], 5.0)
  for step in range(3):
    made.train([], [2], 0.0)
  assert list(made.save(tmp_path, 6)['keyed/embedding-keys']) == [2]
  made.train([], [2], 0.0)
  made.save(tmp_path, 7)  # from here on the row can be given out
  past, start = [], starts_of()[3]
  for step in range(4):
    made.train([], [2, 3], 1.0)
    start = start - RATE * 2 * (start - 1)
    past.append(start)
  found = made.save(tmp_path, 11)
  part, = made.keyed._parts
  with made.graph.as_default():
    assert made.session.run(part.state.rows.lookup(
        tf.constant([3], tf.int64))) == [0]  # that of key 1
  close(found['keyed/embedding/average-values'][1], average(past))


@conftest.needs_kernels
def test_the_fused_op_is_the_formula_and_refuses_what_does_not_fit():
  weights = np.random.RandomState(0).randn(70000).astype('f')
  variables = [tf.get_variable('a', initializer=weights),
               tf.get_variable('b', initializer=np.float32(4))]
  averages = [tf.get_variable('c', initializer=np.ones(70000, np.float32)),
              tf.get_variable('d', initializer=np.float32(2))]
  share = tf.placeholder_with_default(np.float32(0.25), None)
  moved = native.move_averages(averages, variables, share)
  wrong = native.move_averages(averages[:1], variables[1:], share)
  twice = native.move_averages(variables[:1], variables[:1], share)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    before = session.run(averages)  # a tensor that the op must not change
    session.run(moved)
    got = session.run(averages)
    np.testing.assert_allclose(got[0], 0.75 + 0.25 * weights, rtol=1e-6,
                               atol=1e-7)
    assert got[1] == 2.5 and before[1] == 2 and (before[0] == 1).all()
    for op, feed, message in [(wrong, {}, 'c must have the shape of b'),
                              (twice, {}, 'a was given twice'),
                              (moved, {share: [0.5]}, 'must be a scalar')]:
      with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        session.run(op, feed)


def test_an_optimizer_that_moves_all_rows_has_all_averaged(tmp_path):
  """Adam: the averages of rows that batches touch seldom or never."""
  made = Graph(optimizer=lambda: factories.adam(0.1))
  made.train([0, 1, 2, 3, 4, 5, 6], [1, 2, 3], 0.5)
  past = {'table': [], 'keyed': []}
  for rows, pull in [([0], 2.0), ([1, 1], -1.0), ([], 0.0), ([5], 3.0)]:
    found = made.save(tmp_path, len(past['table']) + 1)
    past['table'].append(found['table'])
    past['keyed'].append(found['keyed/embedding-values'])
    made.train(rows, [1], pull)
  found = made.save(tmp_path, 5)
  for name, value, averaged in [
      ('table', 'table', 'table/average'),
      ('keyed', 'keyed/embedding-values', 'keyed/embedding/average-values')]:
    past[name].append(found[value])
    assert np.abs(past[name][-1][-1] - past[name][0][-1]).max() > 0.01
    close(found[averaged], average(past[name]))


@pytest.mark.parametrize('decay', [0, 1, -1, 0.999999999])
def test_refuses_a_decay(decay):
  with pytest.raises(errors.UserError, match=r'Averaging.decay must be a '
                     r'number in \(0, 1\), got'):
    averaging.Averaging(decay)
