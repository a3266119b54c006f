"""Keyed tables against a model of dicts, over random streams of keys."""

import os
import re
import subprocess
import sys
import zlib

import conftest
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import feature_spec
from ple_estimator.embeddings import admission
from ple_estimator.embeddings import keyed
from ple_estimator.embeddings import keyed_table
from ple_estimator.embeddings import partitioned_table
from ple_estimator.embeddings import table_parts
from ple_estimator.engine import purpose
from ple_estimator.optimizers import factories
from ple_estimator.training import saver

DIM = 3
STDDEV = 0.5
RATE = 0.1
SEED = 7


def splitmix64(x):
  mask = 2 ** 64 - 1
  x = (x + 0x9e3779b97f4a7c15) & mask
  x = ((x ^ (x >> 30)) * 0xbf58476d1ce4e5b9) & mask
  x = ((x ^ (x >> 27)) * 0x94d049bb133111eb) & mask
  return x ^ (x >> 31)


def start_of(key):
  """What the row of a key starts from."""
  base = splitmix64(int(key) ^ SEED ^ zlib.crc32(b'table/embedding'))
  low = [splitmix64((base + i) & (2 ** 64 - 1)) % 2 ** 24 for i in range(DIM)]
  return (np.array(low) / 2 ** 23 - 1) * STDDEV * 3 ** .5


class Reference:
  """The same semantics in dicts, trained with Adagrad."""

  def __init__(self, filter_freq=1, steps_to_live=None, l2=None):
    self.filter_freq = filter_freq
    self.steps_to_live, self.l2 = steps_to_live, l2
    self.rows = {}  # key -> [vector, accumulator, freq, version]
    self.waiting = {}  # key -> [count, version]
    self.step = 0

  def train(self, keys, counts, gradients):
    """One step; returns the vectors that the lookup gave."""
    given = []
    for key, count, gradient in zip(keys, counts, gradients):
      seen = self.waiting.get(key, [0])[0]
      if key not in self.rows and seen + count >= self.filter_freq:
        self.waiting.pop(key, None)
        self.rows[key] = [start_of(key), np.full(DIM, 0.1), seen, 0]
      if key not in self.rows:
        self.waiting[key] = [seen + count, self.step]
        given.append(np.zeros(DIM))
        continue
      row = self.rows[key]
      given.append(row[0])
      row[1] = row[1] + gradient ** 2
      row[0] = row[0] - RATE * gradient / np.sqrt(row[1])
      row[2] += count
      row[3] = self.step
    self.step += 1
    return np.array(given)

  def save(self):
    if self.steps_to_live is not None:
      self.rows = {k: r for k, r in self.rows.items()
                   if self.step - r[3] <= self.steps_to_live}
      self.waiting = {k: r for k, r in self.waiting.items()
                      if self.step - r[1] <= self.steps_to_live}
    if self.l2 is not None:
      self.rows = {k: r for k, r in self.rows.items()
                   if not 0.5 * np.sum(r[0] ** 2) < self.l2}


class Graph:
  """A keyed table that is trained in a session of its own."""

  def __init__(self, capacity=200, filter=None, eviction=None,
               optimizer=lambda: factories.adagrad(RATE), parts=1):
    self.graph = tf.Graph()
    with self.graph.as_default():
      tf.set_random_seed(SEED)
      tf.train.create_global_step()
      # An optimizer wants something to train besides.
      dense = tf.get_variable('dense', initializer=1.0)
      self.table = partitioned_table.PartitionedTable(
          parts, 'table', DIM, capacity, 'EmbeddingVariable.capacity', STDDEV,
          True, filter, eviction)
      self.keys = tf.placeholder(tf.int64, [None])
      self.counts = tf.placeholder(tf.int64, [None])
      self.gradients = tf.placeholder(tf.float32, [None, DIM])
      self.vectors = self.table.lookup(self.keys, self.counts)
      self.step = conftest.train_op(
          optimizer, tf.reduce_sum(self.vectors * self.gradients) + dense)
      self.saver = saver.Saver(5, training=False)
      self.session = tf.Session()
      self.init = tf.global_variables_initializer()

  def train(self, keys, counts, gradients):
    vectors, _ = self.session.run([self.vectors, self.step], {
        self.keys: keys, self.counts: counts, self.gradients: gradients})
    return vectors

  def save(self, path):
    """Saves; returns the contents of the checkpoint by suffix of the name."""
    self.saver.save(self.session, path)
    return contents(path)

  def restore(self, path):
    self.saver.restore(self.session, path)
    return self


def contents(path):
  """What a checkpoint holds of the table, by suffix; keys in ascending order.

  A table in parts is laid together here by names and keys alone.
  """
  reader = tf.train.load_checkpoint(path)
  found = {}
  for name in sorted(reader.get_variable_to_shape_map()):
    if name.startswith('table/embedding'):
      suffix = re.sub(r'^table/embedding(/part_\d)?', '', name)
      found.setdefault(suffix, []).append(reader.get_tensor(name))
  found = {suffix: np.concatenate(of) if len(of) > 1 else of[0]
           for suffix, of in found.items()}
  for waits in ('', '_filtered'):
    order = np.argsort(found['-keys' + waits])
    for suffix in found:
      if '-' in suffix and suffix.endswith('_filtered') == bool(waits):
        found[suffix] = found[suffix][order]
  return found


def batch_of(rng, step):
  """Keys that drift: some come often, most a few times."""
  drawn = np.concatenate([rng.randint(0, 8, 10),
                          rng.randint(step, step + 30, 12)])
  keys, counts = np.unique(drawn, return_counts=True)
  order = rng.permutation(len(keys))
  return keys[order] * 10 ** 15 + 3, counts[order], rng.normal(
      size=(len(keys), DIM))


def check_equal(saved, reference):
  keys = sorted(reference.rows)
  rows = [reference.rows[key] for key in keys]
  assert list(saved['-keys']) == keys
  for i, name in enumerate(
      ['-values', '/Adagrad-values', '-freqs', '-versions']):
    np.testing.assert_allclose(
        saved[name], np.array([row[i] for row in rows]).reshape(
            saved[name].shape), rtol=1e-5, atol=1e-6, err_msg=name)
  waiting = sorted(reference.waiting)
  assert list(saved['-keys_filtered']) == waiting
  assert [list(pair) for pair in zip(
      saved['-freqs_filtered'], saved['-versions_filtered'])] == [
          reference.waiting[key] for key in waiting]


WHOLE = (1, 1, 1)  # parts: of the first process, of the second, the third


@pytest.mark.parametrize('make, kwargs, parts', [
    (lambda: {}, {}, WHOLE),
    (lambda: {'filter': admission.CounterFilter(1)}, {}, WHOLE),
    (lambda: {'filter': admission.CounterFilter(3)}, {'filter_freq': 3},
     WHOLE),
    (lambda: {'eviction': admission.GlobalStepEviction(9)},
     {'steps_to_live': 9}, WHOLE),
    (lambda: {'filter': admission.CounterFilter(3),
              'eviction': admission.GlobalStepEviction(9)},
     {'filter_freq': 3, 'steps_to_live': 9}, WHOLE),
    (lambda: {'filter': admission.CounterFilter(2),
              'eviction': admission.L2Eviction(0.12)},
     {'filter_freq': 2, 'l2': 0.12}, WHOLE),
    # Filters and evictions do their work part by part: each with one of them.
    pytest.param(
        lambda: {'filter': admission.CounterFilter(3),
                 'eviction': admission.GlobalStepEviction(9)},
        {'filter_freq': 3, 'steps_to_live': 9}, (1, 3, 2),
        marks=pytest.mark.slow),
    pytest.param(
        lambda: {'filter': admission.CounterFilter(2),
                 'eviction': admission.L2Eviction(0.12)},
        {'filter_freq': 2, 'l2': 0.12}, (1, 3, 2), marks=pytest.mark.slow),
], ids=['all', 'counter1', 'counter3', 'steps', 'counter_steps', 'counter_l2',
        'counter_steps_in_parts', 'counter_l2_in_parts'])
def test_follows_the_dict_model(tmp_path, make, kwargs, parts):
  rng = np.random.RandomState(0)
  reference = Reference(**kwargs)
  parts = iter(parts)
  trained = Graph(parts=next(parts), **make())
  trained.session.run(trained.init)
  capacities = iter([150, 400])  # smaller, as the live keys fit; then larger
  evicted = 0
  for step in range(90):
    batch = batch_of(rng, step)
    np.testing.assert_allclose(
        trained.train(*batch), reference.train(*batch), rtol=1e-4, atol=1e-6)
    if step % 10 == 9:
      path = str(tmp_path / 'model.ckpt') + '-%d' % step
      before = len(reference.rows)
      reference.save()
      evicted += before - len(reference.rows)
      check_equal(trained.save(path), reference)
    if step in (29, 59):  # go on in another process, so to speak
      trained = Graph(capacity=next(capacities), parts=next(parts),
                      **make()).restore(path)
  assert bool(evicted) == bool({'steps_to_live', 'l2'} & set(kwargs))
  assert bool(reference.waiting) == (kwargs.get('filter_freq', 1) > 1)


@pytest.mark.slow
@pytest.mark.parametrize('parts', [(1, 1), (2, 3), (3, 1)])
def test_cbf_filter_admits_as_an_exact_count_while_it_is_empty(tmp_path, parts):
  # 30 bits of hash per key: no false positive among so few.
  rng = np.random.RandomState(1)
  reference = Reference(filter_freq=3)
  trained = Graph(filter=admission.CbfFilter(3, 10000, 1e-9), parts=parts[0])
  trained.session.run(trained.init)
  for step in range(40):
    batch = batch_of(rng, step)
    np.testing.assert_allclose(
        trained.train(*batch), reference.train(*batch), rtol=1e-4, atol=1e-6)
    if step == 20:
      path = str(tmp_path / 'model.ckpt')
      trained.save(path)
      trained = Graph(filter=admission.CbfFilter(3, 10000, 1e-9),
                      parts=parts[1]).restore(path)
  reference.waiting = {}  # a Bloom filter does not know its keys
  check_equal(trained.save(str(tmp_path / 'last')), reference)


@pytest.mark.parametrize('keys', [
    np.arange(20000), np.random.RandomState(0).randint(0, 2**62, 20000)])
def test_cbf_filter_is_wrong_as_often_as_it_says(keys):
  made = admission.CbfFilter(2, 10000, 0.01)
  assert (made.num_hashes, made.num_counters) == (7, 95851)
  bloom = made.build('bloom')
  counters, = tf.global_variables()
  assert counters.dtype.base_dtype == tf.uint8
  ones = np.ones(10000, np.int64)
  count = bloom.count(tf.constant(keys[:10000]), tf.constant(ones), None)
  seen = bloom.seen(tf.constant(keys))
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    session.run(count)
    got = session.run(seen)
    session.run(count)
    twice = session.run(seen)
    session.run(count)
    assert session.run(seen).max() == 2  # counters stop at the threshold
  assert got[:10000].min() == 1 and twice[:10000].min() == 2
  # A probe finds its k counters taken with probability (1 - e^(-kn/m))^k.
  theory = (1 - np.exp(-7 * 10000 / 95851)) ** 7
  assert (got[10000:] > 0).mean() == pytest.approx(theory, rel=0.35)


@pytest.mark.parametrize('freq, dtype', [
    (255, tf.uint8), (256, tf.uint16), (65536, tf.int32)])
def test_cbf_counters_are_as_small_as_the_threshold_allows(freq, dtype):
  admission.CbfFilter(freq, 100).build('bloom')
  counters, = tf.global_variables()
  assert counters.dtype.base_dtype == dtype


def test_full_table_names_its_binding_and_stays_whole(tmp_path):
  trained = Graph(capacity=10)
  trained.session.run(trained.init)
  ones = np.ones(8, int)
  trained.train(np.arange(8), ones, np.ones((8, DIM)))
  with pytest.raises(tf.errors.InvalidArgumentError,
                     match='EmbeddingVariable.capacity must be raised: 10 rows '
                     'are not enough for training'):
    trained.train(np.arange(5, 13), ones, np.ones((8, DIM)))
  path = str(tmp_path / 'model.ckpt')
  assert list(trained.save(path)['-keys']) == list(range(8))
  larger = Graph(capacity=11).restore(path)
  larger.train(np.arange(8, 11), ones[:3], np.ones((3, DIM)))
  path = str(tmp_path / 'larger')
  assert list(larger.save(path)['-keys']) == list(range(11))
  with pytest.raises(tf.errors.InvalidArgumentError,
                     match='EmbeddingVariable.capacity must be raised: 10 rows '
                     'are not enough for the checkpoint'):
    Graph(capacity=10).restore(path)


@pytest.mark.slow
def test_parts_hold_the_capacity_and_name_its_binding(tmp_path):
  trained = Graph(capacity=1000, parts=3)
  trained.session.run(trained.init)
  ones = np.ones(1000, int)
  trained.train(np.arange(1000) * 8, ones, np.ones((1000, DIM)))
  path = str(tmp_path / 'model.ckpt')
  assert list(trained.save(path)['-keys']) == list(range(0, 8000, 8))
  with pytest.raises(tf.errors.InvalidArgumentError,
                     match='EmbeddingVariable.capacity must be raised: 1000 '
                     'rows are not enough for training'):
    trained.train(np.arange(1000, 2000), ones, np.ones((1000, DIM)))
  Graph(capacity=1000, parts=2).restore(path)
  with pytest.raises(tf.errors.InvalidArgumentError,
                     match='EmbeddingVariable.capacity must be raised: 400 '
                     'rows are not enough for the checkpoint'):
    Graph(capacity=400, parts=2).restore(path)


@pytest.mark.slow
def test_empty_parts_and_batches(tmp_path):
  trained = Graph(parts=3)
  trained.session.run(trained.init)
  path = str(tmp_path / 'model.ckpt')
  assert not len(trained.save(path)['-keys'])
  trained = Graph(parts=2).restore(path)
  trained.train([], [], np.zeros((0, DIM)))
  trained.train([5], [1], np.ones((1, DIM)))  # the other part stays empty
  assert list(trained.save(path)['-keys']) == [5]
  assert list(Graph().restore(path).save(path)['-keys']) == [5]


@pytest.mark.parametrize('saved, parts', [
    (1, 3), (2, 3), (2, 1)])
def test_any_number_of_parts_restores_into_any_other(tmp_path, saved, parts):
  kind = {'filter': admission.CounterFilter(2)}
  trained = Graph(parts=saved, **kind)
  trained.session.run(trained.init)
  keys = np.random.RandomState(0).randint(0, 2**62, 60)
  trained.train(keys, np.arange(60) % 3 + 1, np.ones((60, DIM)))
  path = str(tmp_path / 'model.ckpt')
  wanted = trained.save(path)
  assert len(wanted['-keys']) == 40 and len(wanted['-keys_filtered']) == 20
  got = Graph(parts=parts, **kind).restore(path).save(path + '-again')
  assert sorted(got) == sorted(wanted)
  for name, value in wanted.items():
    np.testing.assert_array_equal(got[name], value, err_msg=name)


def decaying():
  return factories.adagrad_decay(0.1, decay_steps=4, decay_rate=0.5)


@pytest.mark.parametrize('optimizer, parts', [
    (factories.adam, 1), (factories.lazy_adam, 1), (factories.adagrad, 1),
    (factories.sgd, 1), (lambda: factories.sgd(0.1, 0.9), 1),
    (factories.adam_async, 1), (factories.adamw, 1), (decaying, 1),
    (factories.ftrl, 1)] + [
        # Two slots of vectors, none, beside them scalars, and steps of rows.
        pytest.param(make, 3, marks=pytest.mark.slow) for make in (
            factories.lazy_adam, factories.sgd, factories.adam_async, decaying)
    ])
def test_every_optimizer_goes_on_where_it_was(tmp_path, optimizer, parts):
  rng = np.random.RandomState(3)
  batches = [batch_of(rng, step) for step in range(30)]
  through = Graph(optimizer=optimizer)
  through.session.run(through.init)
  for batch in batches:
    through.train(*batch)
  first = Graph(optimizer=optimizer, parts=parts)
  first.session.run(first.init)
  for batch in batches[:15]:
    first.train(*batch)
  path = str(tmp_path / 'half')
  first.save(path)
  second = Graph(capacity=333, optimizer=optimizer,
                 parts=1 + parts // 2).restore(path)
  for batch in batches[15:]:
    second.train(*batch)
  wanted = through.save(str(tmp_path / 'through'))
  got = second.save(str(tmp_path / 'second'))
  assert sorted(got) == sorted(wanted)
  for name, value in wanted.items():
    if parts == 1:
      np.testing.assert_array_equal(got[name], value, err_msg=name)
    else:  # the processor rounds by where a row lies in memory
      np.testing.assert_allclose(
          got[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_reads_only_outside_of_training(tmp_path):
  trained = Graph()
  trained.session.run(trained.init)
  trained.train([5, 9], [1, 1], np.ones((2, DIM)))
  path = str(tmp_path / 'model.ckpt')
  values = trained.save(path)['-values']
  with tf.Graph().as_default():
    tf.train.create_global_step()
    dense = tf.get_variable('dense', initializer=1.0)
    del dense
    table = keyed_table.KeyedTable(
        'table', DIM, 20, 'EmbeddingVariable.capacity', STDDEV, False)
    found = table.lookup(tf.constant([9, 7, 5], tf.int64),
                         tf.constant([1, 1, 1], tf.int64))
    made = saver.Saver(5, training=False)
    with tf.Session() as session:
      made.restore(session, path)
      for _ in range(2):
        got = session.run(found)
        np.testing.assert_array_equal(got[[2, 0]], values)
        np.testing.assert_array_equal(got[1], np.zeros(DIM))


@pytest.mark.parametrize('parts', [1, 3])
def test_a_checkpoint_has_the_tensors_that_are_announced(tmp_path, parts):
  trained = Graph(parts=parts, optimizer=factories.adam_async)
  trained.session.run(trained.init)
  trained.train([5, 9], [1, 1], np.ones((2, DIM)))
  path = str(tmp_path / 'model.ckpt')
  trained.save(path)
  with trained.graph.as_default():
    shapes = [table.checkpoint.shapes() for table in keyed_table.of_graph()]
  assert len(shapes) == parts and all(x == shapes[0] for x in shapes)
  saved = dict(tf.train.list_variables(path))
  scalars = {name for name, shape in saved.items() if not shape}
  wholes = table_parts.joined(saved)
  assert {name for name in wholes
          if name.startswith('table/')} - scalars == set(shapes[0])
  for name, shape in shapes[0].items():
    for part in wholes[name]:
      assert saved[part][1:] == shape[1:] and shape[0] is None, part


def resident_mb():
  with open('/proc/self/status') as f:
    line, = [line for line in f if line.startswith('VmRSS')]
  return int(line.split()[1]) // 1024


def test_memory_of_rows_without_a_key_is_not_touched(tmp_path):
  before = resident_mb()
  trained = Graph(capacity=100_000_000)  # 4.8 GB with counters and slots
  trained.session.run(trained.init)
  trained.train([5, 9], [1, 1], np.ones((2, DIM)))
  path = str(tmp_path / 'model.ckpt')
  trained.save(path)
  trained.restore(path)
  Graph(capacity=100_000_000).restore(path).train(
      [5, 8], [1, 1], np.ones((2, DIM)))
  # TensorFlow 2's allocator keeps 8 bytes for 256.
  assert resident_mb() - before < 800


_WORKER = '''
import sys
import time
import numpy as np
import tensorflow.compat.v1 as tf
from ple_estimator.embeddings import keyed_table
from ple_estimator.embeddings import partitioned_table
from ple_estimator.engine import compat
from ple_estimator.engine import purpose
from ple_estimator.optimizers import factories
from ple_estimator.optimizers import train_op
job, index, cluster = sys.argv[1], int(sys.argv[2]), eval(sys.argv[3])
if sys.argv[4] == 'unlocked':
  compat.Lock.execute = lambda self, fn: fn()
spec = tf.train.ClusterSpec(cluster)
server = tf.train.Server(spec, job_name=job, task_index=index)
if job == 'ps':
  server.join()
with tf.device(tf.train.replica_device_setter(cluster=spec)):
  tf.train.create_global_step()
  dense = tf.get_variable('dense', initializer=1.0)
  table = partitioned_table.PartitionedTable(
      len(cluster['ps']), 't', 2, 3000000, 'capacity', .1, True)
  keys = tf.placeholder(tf.int64, [None])
  vectors = table.lookup(keys, tf.ones_like(keys))
  loss = tf.reduce_sum(vectors) + dense
  parts = keyed_table.of_graph()
  trained = [dense] + [part.source for part in parts]
  step = train_op.build(lambda: factories.adagrad(.1), list(zip(
      tf.gradients(loss, trained), trained)), purpose.Purpose(True))
  rows = [part.state.rows.export() for part in parts]
  states = [part.state.allocator.state for part in parts]
  arrived = [tf.get_variable('arrived%d' % i, initializer=0) for i in (0, 1)]
# Without filters a session ends only when it has told all other workers, those
# too that are gone.
filters = tf.ConfigProto(
    device_filters=['/job:ps', '/job:worker/task:%d' % index])
with tf.Session(server.target, config=filters) as session:
  if index == 0:
    session.run(tf.global_variables_initializer())
  else:
    while session.run(tf.report_uninitialized_variables()).size:
      time.sleep(.05)
  arrive = arrived[index].assign_add(1).op
  def meet(i):
    session.run(arrive)
    while session.run(arrived[1 - index]) < i:
      time.sleep(.001)
  for i in range(40):  # both processes want the same fresh keys at a time
    meet(i + 1)
    session.run(step, {keys: np.arange(i * 10000, i * 10000 + 10000)})
  meet(41)
  if index == 0:
    found, given = zip(*session.run(rows))
    print(sum(map(len, found)), sum(len(set(rows)) for rows in given),
          sum(state[0] for state in session.run(states)),
          len({part.values.device for part in parts}))
'''


def inserted(lock, servers):
  """What _WORKER prints: keys, different rows, the next free row, devices."""
  cluster = {'ps': ['localhost:%d' % conftest.free_port()
                    for _ in range(servers)],
             'worker': ['localhost:%d' % conftest.free_port()
                        for _ in range(2)]}
  env = dict(os.environ, PYTHONPATH=conftest.ROOT, TF_CPP_MIN_LOG_LEVEL='3')
  started = [subprocess.Popen(
      [sys.executable, '-W', 'ignore', '-c', _WORKER, job, str(index),
       repr(cluster), lock], stdout=subprocess.PIPE, env=env)
             for job, index in [('worker', 0), ('worker', 1)] + [
                 ('ps', i) for i in range(servers)]]
  try:
    out, _ = started[0].communicate(timeout=120)
  finally:
    for process in started:
      process.kill()
      process.wait()
  return list(map(int, out.split()))


@pytest.mark.slow
def test_two_processes_insert_into_one_table():
  # In two parts, each of which is a table with a lock on its server.
  assert inserted('locked', 2) == [400000] * 3 + [2]


@pytest.mark.slow
def test_without_the_lock_two_processes_spoil_a_table():
  """So that the test of the lock can fail; they do not meet every time."""
  for _ in range(5):
    keys, rows, next_row, _ = inserted('unlocked', 1)
    assert keys == 400000
    if (rows, next_row) != (keys, keys):  # keys share rows, or rows are lost
      return
  pytest.fail('Two processes without a lock have not met in five attempts.')


@pytest.mark.parametrize('make, message', [
    (lambda: admission.CounterFilter(0), 'CounterFilter.filter_freq must be an '
     'integer from 1 to 16777215, got 0'),
    (lambda: admission.CbfFilter(2, 0), 'CbfFilter.max_element_size must be an '
     'integer of at least 1, got 0'),
    (lambda: admission.CbfFilter(2, 9, 1.5),
     r'CbfFilter.false_positive_probability must be .* in \(0, 1\), got 1.5'),
    (lambda: admission.GlobalStepEviction(0),
     'GlobalStepEviction.steps_to_live must be an integer of at least 1, got'),
    (lambda: admission.L2Eviction(0),
     'L2Eviction.l2_weight_threshold must be .* above 0, got 0'),
])
def test_refuses(make, message):
  with pytest.raises(errors.UserError, match=message):
    make()


def embedded(embedding, training=True):
  """A graph that trains the column c by sgd on what is fed: ids of a batch."""
  column, = feature_spec.FeatureSpec([
      {'name': 'c', 'kind': 'integer', 'num_buckets': 1000}], dim=4).categories
  tf.train.get_or_create_global_step()
  ids = tf.placeholder(tf.int64, [None])
  group, = embedding.groups([column])
  found = group.pack({'c': ids})
  vectors, = embedding(found, [column], purpose.Purpose(training))
  return ids, vectors


def trainer(embedding):
  """Returns train(ids) -> [ids, 4] vectors, with gradients of all ones."""
  ids, vectors = embedded(embedding)
  step = conftest.train_op(lambda: factories.sgd(0.5),
                           tf.reduce_sum(vectors) + tf.get_variable('d', []))
  session = tf.Session()
  session.run(tf.global_variables_initializer())
  return (lambda batch: session.run([vectors, step], {ids: batch})[0]), session


def test_adaptive_rows_start_from_the_shared_vector():
  train, session = trainer(keyed.AdaptiveEmbedding(
      admission.CounterFilter(3), shared_rows=2))
  shared, = [v for v in tf.global_variables() if 'shared' in v.name]
  start = session.run(shared)
  # 4 and 6 share row 0, 5 has row 1; a list of several, and a short batch.
  got = train([4, 6, 5, 4])
  np.testing.assert_array_equal(got, start[[0, 0, 1, 0]])
  now = session.run(shared)  # moved by 0.5 per occurrence
  np.testing.assert_allclose(now, start - [[1.5], [0.5]], rtol=1e-5)
  got = train([4])  # its third: starts from the shared vector, and leaves it
  np.testing.assert_array_equal(got, now[[0]])
  np.testing.assert_array_equal(session.run(shared), now)
  got = train([4, 6])
  np.testing.assert_allclose(got, now[[0, 0]] - [[0.5], [0]], rtol=1e-5)
  np.testing.assert_allclose(
      session.run(shared), now - [[0.5], [0]], rtol=1e-5)


def test_dynamic_dimension_grows_with_the_count():
  train, session = trainer(keyed.DynamicDimensionEmbedding(
      frequencies=(1, 3), stddev=1.0))
  got = train([7, 7, 9])  # twice and once: the first block
  assert (got[:, :2] != 0).all() and (got[:, 2:] == 0).all()
  grown = train([7, 9])
  np.testing.assert_allclose(grown[0, :2], got[0, :2] - 1, rtol=1e-5)
  assert (grown[0, 2:] != 0).all() and (grown[1, 2:] == 0).all()
  after = train([7, 9])
  np.testing.assert_allclose(after[0], grown[0] - 0.5, rtol=1e-5)
  assert (after[1, 2:] != 0).all()
  for block, keys in [(0, 2), (1, 2)]:
    table = keyed_table.of_graph()[block]
    saved = table.checkpoint.snapshot()[table.name + '-keys']
    assert len(session.run(saved)) == keys


@pytest.mark.parametrize('make, message', [
    (lambda: keyed.EmbeddingVariable(0),
     'EmbeddingVariable.capacity must be an integer of at least 1, got 0'),
    (lambda: keyed.AdaptiveEmbedding(None),
     'AdaptiveEmbedding.filter must be given'),
    (lambda: keyed.AdaptiveEmbedding(
        admission.CounterFilter(2), capacity=-1),
     'AdaptiveEmbedding.capacity must be an integer of at least 1, got -1'),
    (lambda: keyed.AdaptiveEmbedding(
        admission.CounterFilter(2), 0), 'AdaptiveEmbedding.shared_rows must'),
    (lambda: keyed.DynamicDimensionEmbedding((4, 1)),
     r'frequencies must be integers that do not fall, got \(4, 1\)'),
    (lambda: keyed.DynamicDimensionEmbedding(
        eviction=admission.L2Eviction(1.0)),
     r'eviction must be .* @GlobalStepEviction\(\) or None, got @L2Eviction'),
    (lambda: embedded(keyed.DynamicDimensionEmbedding((1, 2, 3))),
     'got 3 blocks for dim 4 of c'),
])
def test_embeddings_refuse(make, message):
  with pytest.raises(errors.UserError, match=message):
    make()
