"""DeepRec's forms, against recorded signatures.

DeepRec cannot be installed where these tests were written, so here alone fakes
take the place of what is tested against: `surface` has the names, arguments and
defaults that DeepRec's documents and sources give (commits 02521de to 262e0ed
of its repository), and notes what it is called with. An argument of another
name fails, as it would there. That DeepRec then does what its documents say is
not tested.
"""

import collections
import os
import types

import gin
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment
from ple_estimator.data import feature_spec
from ple_estimator.embeddings import admission
from ple_estimator.embeddings import deeprec
from ple_estimator.embeddings import hashed
from ple_estimator.embeddings import keyed
from ple_estimator.engine import compat
from ple_estimator.engine import forms
from ple_estimator.engine import purpose
from ple_estimator.optimizers import deeprec_optimizers
from ple_estimator.optimizers import factories
from ple_estimator.optimizers import train_op
from ple_estimator.optimizers import update_rules
from ple_estimator.training import compatibility

ROWS = 97  # of what stands for an embedding variable


def _record(name, arguments, *defaults):
  """A class with this signature, whose instances are what they were given."""
  # Not the tuple itself: what is made of it can be given attributes.
  return type(name, (collections.namedtuple(
      name, arguments, defaults=defaults),), {})


Option = _record(
    'EmbeddingVariableOption', 'ht_type ht_partition_num evict_option ckpt '
    'filter_option storage_option init_option', '', 1000, None, None, None,
    None, None)
Start = _record(
    'InitializerOption', 'initializer default_value_dim '
    'default_value_no_permission', None, 4096, .0)
CounterFilter = _record('CounterFilter', 'filter_freq', 0)
CBFFilter = _record(
    'CBFFilter', 'filter_freq max_element_size false_positive_probability '
    'counter_type', 0, 0, -1.0, tf.uint64)
GlobalStepEvict = _record('GlobalStepEvict', 'steps_to_live', None)
L2WeightEvict = _record('L2WeightEvict', 'l2_weight_threshold', -1.0)
AdamAsync = _record(
    'AdamAsyncOptimizer', 'learning_rate beta1 beta2 epsilon use_locking '
    'apply_sparse_rmsprop name', 0.001, 0.9, 0.999, 1e-8, False, False,
    'AdamAsync')
AdagradDecay = _record(
    'AdagradDecayOptimizerV2', 'learning_rate global_step '
    'initial_accumulator_value accumulator_decay_step accumulator_decay_rate '
    'use_locking name', 0.1, 100000, 0.9, False, 'AdagradDecay')
AdamW = _record(
    'AdamWOptimizer', 'weight_decay learning_rate beta1 beta2 epsilon '
    'use_locking name', 0.001, 0.9, 0.999, 1e-8, False, 'AdamW')


class Surface(types.SimpleNamespace):
  """The API of DeepRec; `calls` is what was called, in order."""

  def __init__(self, without=()):
    fields = dict.fromkeys(
        {'do_op_fusion', 'do_smart_stage', 'micro_batch_num'} - set(without))
    super().__init__(
        calls=[],
        EmbeddingVariableOption=Option, InitializerOption=Start,
        CounterFilter=CounterFilter, CBFFilter=CBFFilter,
        GlobalStepEvict=GlobalStepEvict, L2WeightEvict=L2WeightEvict,
        OptimizerOptions=types.SimpleNamespace(
            DESCRIPTOR=types.SimpleNamespace(fields_by_name=fields)),
        get_embedding_variable=self._get_embedding_variable,
        staged=self._staged, make_prefetch_hook=self._make_prefetch_hook,
        nn=types.SimpleNamespace(
            fused_embedding_lookup_sparse=self._fused_lookup),
        train=types.SimpleNamespace(
            AdamAsyncOptimizer=AdamAsync, AdamWOptimizer=AdamW,
            AdagradDecayOptimizerV2=AdagradDecay,
            mark_target_node=lambda nodes: self._note('mark', nodes=nodes)))
    for path in set(without) - {'do_op_fusion', 'do_smart_stage',
                                'micro_batch_num'}:
      owner, _, name = path.rpartition('.')
      delattr(getattr(self, owner) if owner else self, name)

  def _note(*args, **arguments):  # one of the arguments is `name`
    self, called = args
    self.calls.append((called, arguments))

  def called(self, name):
    """The arguments of the calls of one name."""
    return [arguments for of, arguments in self.calls if of == name]

  def _get_embedding_variable(
      self, name, embedding_dim, key_dtype=tf.int64, value_dtype=None,
      initializer=None, regularizer=None, trainable=True, collections=None,
      caching_device=None, partitioner=None, validate_shape=True,
      custom_getter=None, constraint=None, init_data_source=None,
      ev_option=Option()):
    self._note('get_embedding_variable', name=name, key_dtype=key_dtype,
               embedding_dim=embedding_dim, initializer=initializer,
               ev_option=ev_option)
    made = tf.get_variable(name, [ROWS, embedding_dim], initializer=initializer)
    plain = made.sparse_read

    def sparse_read(indices, name=None, ev_init_value=None, counts=None):
      self._note('sparse_read', indices=indices, counts=counts)
      return plain(indices % ROWS)

    made.sparse_read = sparse_read
    return made

  def _staged(
      self, features, capacity=1, num_threads=1, items=None,
      feed_generator=None, closed_exception_types=(),
      ignored_exception_types=(), use_stage_subgraph_thread_pool=False,
      stage_subgraph_thread_pool_id=0, stage_subgraph_stream_id=0):
    # It takes a tensor, a list or a dict with names, and not more.
    assert isinstance(features, list)
    assert all(isinstance(x, tf.Tensor) for x in features)
    self._note('staged', capacity=capacity, num_threads=num_threads)
    return [tf.identity(x) for x in features]

  def _make_prefetch_hook(self):
    self._note('make_prefetch_hook')
    return tf.train.SessionRunHook()

  def _fused_lookup(
      self, params, sp_ids, sparse_weights=None, partition_strategy=None,
      name=None, combiner=None, max_norm=None, default_id=None,
      prune_invalid_ids=False, blocknums=None):
    self._note('fused', partition_strategy=partition_strategy,
               combiner=combiner)
    return tf.nn.safe_embedding_lookup_sparse(  # whose maths it documents
        params, sp_ids, combiner=combiner, partition_strategy='div')


@pytest.fixture
def surface(monkeypatch):
  """Adds a Surface to TensorFlow's API; a function of what it lacks."""
  def put(*without):
    made = Surface(without)
    monkeypatch.setattr(compat, 'tensorflow', made)
    # Which has the options' proto, but not with DeepRec's fields.
    monkeypatch.setattr(tf, 'OptimizerOptions', made.OptimizerOptions)
    return made
  return put


class _Session:
  """A tf.ConfigProto that knows some fields of OptimizerOptions, and no other.
  """

  def __init__(self, *fields):
    kind = type('OptimizerOptions', (), {'__slots__': fields})
    self.options = kind()
    self.graph_options = types.SimpleNamespace(optimizer_options=self.options)

  def set(self):
    return {name: getattr(self.options, name)
            for name in self.options.__slots__ if hasattr(self.options, name)}


# ------------------------------------------------------- what is found


def test_this_tensorflow_has_no_form_and_says_that_it_is_stock():
  made = forms.Engine()
  assert not [form for form in forms.FORMS if made.has(form)]
  assert made.describe() == compat.describe() == (
      'stock TensorFlow %s' % tf.__version__)
  assert not any(made.uses(form, 'x') for form in forms.FORMS)


def test_deeprec_on_stock_tensorflow_is_refused():
  with pytest.raises(errors.UserError, match=(
      r"Engine\.name = 'deeprec' needs DeepRec, this is stock TensorFlow .*"
      r"set Engine\.name = 'auto'")):
    forms.Engine('deeprec')


@pytest.mark.parametrize('kwargs, message', [
    ({'name': 'tf'}, r"Engine\.name must be 'auto', 'stock' or 'deeprec', "
                     "got 'tf'"),
    ({'forms': ['ev']}, r"Engine\.forms must be a list of embedding_variable, "
                        r".*, got \['ev'\]")])
def test_refuses_unknown_values(kwargs, message):
  with pytest.raises(errors.UserError, match=message):
    forms.Engine(**kwargs)


# What each form needs; without any of it the form is not there.
NEEDS = [
    ('embedding_variable', 'get_embedding_variable'),
    ('embedding_variable', 'EmbeddingVariableOption'),
    ('embedding_variable', 'InitializerOption'),
    ('counter_filter', 'CounterFilter'),
    ('cbf_filter', 'CBFFilter'),
    ('global_step_evict', 'GlobalStepEvict'),
    ('l2_weight_evict', 'L2WeightEvict'),
    ('adam_async', 'train.AdamAsyncOptimizer'),
    ('adagrad_decay', 'train.AdagradDecayOptimizerV2'),
    ('adamw', 'train.AdamWOptimizer'),
    ('staged', 'staged'),
    ('staged', 'make_prefetch_hook'),
    ('fused_lookup', 'nn.fused_embedding_lookup_sparse'),
    ('op_fusion', 'do_op_fusion'),
    ('smart_stage', 'do_smart_stage'),
    ('micro_batch', 'micro_batch_num'),
]


@pytest.mark.parametrize('form, name', NEEDS)
def test_each_feature_is_found_by_itself(surface, form, name):
  surface()
  assert all(forms.Engine().has(f) for f in forms.FORMS)
  surface(name)
  assert [f for f in forms.FORMS if not forms.Engine().has(f)] == [form]


def test_every_form_is_tried_and_documented():
  assert {form for form, _ in NEEDS} == set(forms.FORMS)
  table = forms.__doc__.split('If the feature is missing')[0]
  for form in forms.FORMS:
    assert ' %s' % form in table


def test_a_feature_with_other_arguments_is_not_there(surface, monkeypatch):
  found = surface()
  monkeypatch.setattr(found, 'L2WeightEvict', _record(
      'L2WeightEvict', 'l2_weigt_threshold', -1.0))  # as the model zoo spells
  assert not forms.Engine().has('l2_weight_evict')
  assert forms.Engine().has('global_step_evict')


def test_auto_says_in_one_line_what_is_missing(surface):
  surface('CBFFilter', 'do_op_fusion')
  said = forms.Engine().describe()
  used, missing = said.split('; as on stock TensorFlow: ')
  assert missing == 'cbf_filter, op_fusion' and '\n' not in said
  assert 'embedding_variable' in used and 'micro_batch' not in used


def test_deeprec_refuses_what_is_missing(surface):
  surface('CBFFilter')
  made = forms.Engine('deeprec')
  assert made.uses('counter_filter', 'x')
  with pytest.raises(errors.UserError, match=(
      'Model.embedding needs cbf_filter of DeepRec.*Engine.forms, or set '
      "Engine.name = 'auto'")):
    deeprec.embedding_variable(
        made, 'a', 3, 0.1, admission.CbfFilter(2, 10), None)
  assert not forms.Engine('auto').uses('cbf_filter', 'x')


def test_stock_ignores_features_that_are_there(surface):
  found = surface()
  made = forms.Engine('stock')
  session = _Session('do_op_fusion', 'do_smart_stage', 'micro_batch_num')
  made.configure(session, op_fusion=True, prefetch=2, micro_batches=3)
  assert session.set() == {}
  assert deeprec.embedding_variable(made, 'a', 3, 0.1, None, None) is None
  assert made.staged({'x': tf.zeros([2])}, 3)[1] == []
  assert isinstance(
      deeprec_optimizers.choose(factories.adam_async(), made),
      update_rules.AdamAsync)
  assert found.calls == [] and made.describe() == compat.describe()


def test_forms_choose_among_what_is_there(surface):
  surface()
  made = forms.Engine(forms=['micro_batch', 'staged'])
  assert [f for f in forms.FORMS if made.uses(f, 'x')] == [
      'staged', 'micro_batch']


# -------------------------------------------------------------- session


@pytest.mark.parametrize('given, fields', [
    (dict(op_fusion=True, prefetch=2, micro_batches=4),
     {'do_op_fusion': True, 'do_smart_stage': True, 'micro_batch_num': 4}),
    (dict(op_fusion=False, prefetch=0, micro_batches=1), {}),
    (dict(op_fusion=False, prefetch=1, micro_batches=1),
     {'do_smart_stage': True})])
def test_session_options(surface, given, fields):
  surface()
  session = _Session('do_op_fusion', 'do_smart_stage', 'micro_batch_num')
  forms.Engine(forms=forms.FORMS).configure(session, **given)
  assert session.set() == fields


def test_sets_no_field_that_is_not_there(surface):
  surface('do_op_fusion', 'micro_batch_num')
  session = _Session('do_smart_stage')  # setting another raises
  forms.Engine(forms=forms.FORMS).configure(session, True, 2, 4)
  assert session.set() == {'do_smart_stage': True}


def test_no_smart_stage_without_a_stage(surface):
  surface('make_prefetch_hook')
  session = _Session('do_op_fusion', 'do_smart_stage')
  forms.Engine().configure(session, True, 2, 1)
  assert session.set() == {'do_op_fusion': True}


def test_stages_a_structure_with_the_hook_it_needs(surface):
  found = surface()
  given = ({'b': tf.constant([1, 2]), 'a': tf.constant([3.])},
           {'y': tf.constant([4.])})
  (got, labels), hooks = forms.Engine().staged(given, 5)
  assert found.calls == [('staged', {'capacity': 5, 'num_threads': 1}),
                         ('make_prefetch_hook', {})]
  assert len(hooks) == 1
  with tf.Session() as session:
    got, labels = session.run((got, labels))
  assert got['b'].tolist() == [1, 2] and got['a'].tolist() == [3]
  assert labels['y'].tolist() == [4]


# ------------------------------------------------------------ embeddings


@pytest.mark.parametrize('filter, option', [
    (None, None),
    (admission.CounterFilter(3), CounterFilter(3)),
    (admission.CbfFilter(3, 1000, 0.01), CBFFilter(3, 1000, 0.01, tf.uint32))])
@pytest.mark.parametrize('eviction, evict', [
    (None, None),
    (admission.GlobalStepEviction(40), GlobalStepEvict(40)),
    (admission.L2Eviction(0.3), L2WeightEvict(0.3))])
def test_options_of_an_embedding_variable(
    surface, filter, option, eviction, evict):
  found = surface()
  made = deeprec.embedding_variable(
      forms.Engine(), 'a', 3, 0.5, filter, eviction)
  assert made.op.name == 'a/embedding' and deeprec.variables() == [made]
  (called,) = found.called('get_embedding_variable')
  assert called['embedding_dim'] == 3 and called['key_dtype'] == tf.int64
  options = called['ev_option']
  assert (options.filter_option, options.evict_option) == (option, evict)
  assert options.init_option == Start(called['initializer'], 4096)
  assert options.ht_partition_num == 1000 and options.storage_option is None
  drawn = called['initializer']([40000], tf.float32)
  with tf.Session() as session:
    drawn = session.run(drawn)
  assert drawn.std() == pytest.approx(0.5, rel=0.02)
  assert abs(drawn.mean()) < 0.02


def _packed(spec, group):
  raw = {name: tf.constant(values) for name, values in [
      ('ad', ['a', 'b', 'a']), ('tags', ['x|y', '', 'x|x'])]}
  return group.pack({c.name: c.encode(raw[c.name]) for c in group.columns})


SPEC = feature_spec.FeatureSpec([
    {'name': 'ad', 'kind': 'hashed', 'num_buckets': 11},
    {'name': 'tags', 'kind': 'hashed_list', 'num_buckets': 13},
    {'name': 'clk', 'kind': 'label', 'values': (0, 1)}], dim=4)


def _embed(embedding, engine, training=True):
  (group,) = embedding.groups(SPEC.categories)
  packed = _packed(SPEC, group)
  return embedding(packed, SPEC.categories, purpose.Purpose(
      training=training, engine=engine))[0], packed


@pytest.mark.parametrize('filter, training, counted', [
    (admission.CounterFilter(2), True, True), (None, True, False),
    (admission.CounterFilter(2), False, False)])
def test_embedding_variable_reads_keys_and_counts(
    surface, filter, training, counted):
  found = surface()
  vectors, _ = _embed(
      keyed.EmbeddingVariable(filter=filter), forms.Engine(), training)
  (read,) = found.called('sparse_read')
  assert read['indices'].dtype == tf.int64
  assert (read['counts'] is not None) == counted
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    # ad: a, b, a; tags: x, y, x, x.
    if counted:
      assert read['counts'].dtype == tf.int32
      assert sorted(session.run(read['counts'])) == [1, 1, 2, 3]
    vectors, rows, keys = session.run(
        [vectors, deeprec.variables()[0], read['indices']])
  x = rows[keys[2] % ROWS]
  assert vectors.shape == (3, 8)
  np.testing.assert_allclose(vectors[2, 4:], x, rtol=1e-6)
  np.testing.assert_allclose(vectors[1, 4:], 0)


@pytest.mark.parametrize('embedding', [
    keyed.AdaptiveEmbedding(
        admission.CounterFilter(2), shared_rows=5),
    keyed.DynamicDimensionEmbedding((1, 2)),
    hashed.MultiHashEmbedding(min_buckets=5)])
def test_kinds_that_keep_their_form(surface, embedding):
  found = surface()
  _embed(embedding, forms.Engine(forms=forms.FORMS))
  assert found.calls == []


def test_a_filter_of_ones_own_keeps_our_form(surface):
  class Filter(admission.CounterFilter):
    pass

  surface()
  assert deeprec.embedding_variable(
      forms.Engine(), 'a', 3, 0.1, Filter(2), None) is None


def test_refuses_an_embedding_variable_in_parts(surface, monkeypatch):
  found = surface()
  monkeypatch.setattr(
      found, 'get_embedding_variable',
      lambda name, embedding_dim, key_dtype, initializer, ev_option: [])
  with pytest.raises(errors.UserError, match='bind no partitioner'):
    deeprec.embedding_variable(forms.Engine(), 'a', 3, 0.1, None, None)


@pytest.mark.parametrize('combiner', ['mean', 'sum', 'sqrtn'])
def test_fused_lookup_gives_the_vectors_of_our_form(surface, combiner):
  found = surface()
  spec = feature_spec.FeatureSpec([
      {'name': 'tags', 'kind': 'hashed_list', 'num_buckets': 13,
       'combiner': combiner},
      {'name': 'more', 'kind': 'hashed_list', 'num_buckets': 7,
       'combiner': combiner}], dim=4)
  embedding = hashed.HashEmbedding()
  (group,) = embedding.groups(spec.categories)
  packed = group.pack({
      c.name: c.encode(tf.constant(values)) for c, values in zip(
          group.columns, [['x|y', '', 'x|x|z'], ['', 'p', 'q|p']])})
  ours = embedding(packed, spec.categories, purpose.Purpose(True))[0]
  assert found.calls == []
  with tf.variable_scope('', reuse=True):
    theirs = embedding(packed, spec.categories, purpose.Purpose(
        True, engine=forms.Engine(forms=['fused_lookup'])))[0]
  assert found.calls == [
      ('fused', {'partition_strategy': 'div', 'combiner': combiner})]
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    ours, theirs = session.run([ours, theirs])
  assert ours.shape == (3, 8) and np.abs(ours).max() > 0
  np.testing.assert_allclose(theirs, ours, rtol=1e-5)


# ------------------------------------------------------------ optimizers


def _chosen(optimizer, engine=None):
  return deeprec_optimizers.choose(optimizer, engine or forms.Engine())


def test_optimizers(surface):
  surface()
  step = tf.train.create_global_step()
  assert _chosen(factories.adam_async(
      0.01, 0.8, 0.99, 1e-6, apply_sparse_rmsprop=True)) == AdamAsync(
          0.01, 0.8, 0.99, 1e-6, apply_sparse_rmsprop=True)
  made = _chosen(factories.adagrad_decay(0.02, 0.3, 500, 0.7))
  assert made[1] is step
  assert made._replace(global_step=None) == AdagradDecay(
      0.02, None, 0.3, 500, 0.7)
  assert _chosen(factories.adamw(
      0.03, 0.8, 0.99, 1e-6, weight_decay=0.2, decay_follows_rate=False
  )) == AdamW(0.2, 0.03, 0.8, 0.99, 1e-6)


@pytest.mark.parametrize('make', [
    factories.adam, factories.sgd, factories.ftrl, factories.lazy_adam,
    factories.adagrad, factories.adamw,
    lambda: factories.adamw(decay_follows_rate=False, exclude=('bias',))])
def test_optimizers_without_a_form_stay_what_they_are(surface, make):
  surface()
  made = make()
  assert _chosen(made) is made


def test_an_optimizer_of_ones_own_stays_what_it_is(surface):
  class Own(update_rules.AdamAsync):
    pass

  surface()
  made = Own(0.1, 0.9, 0.999, 1e-8, False)
  assert _chosen(made) is made


def test_deeprec_refuses_an_optimizer_that_is_missing(surface):
  surface('train.AdamAsyncOptimizer')
  made = factories.adam_async()
  assert _chosen(made) is made
  with pytest.raises(errors.UserError, match=(
      'Model.optimizer = @adam_async needs adam_async of DeepRec')):
    _chosen(made, forms.Engine('deeprec'))


def test_optimizers_of_our_tables_are_ours(surface):
  surface('get_embedding_variable')
  tf.train.create_global_step()
  _embed(keyed.EmbeddingVariable(), forms.Engine())
  assert isinstance(_chosen(factories.adam_async()), update_rules.AdamAsync)


@pytest.mark.parametrize('optimizer, kind', [
    (factories.lazy_adam, tf.train.AdamOptimizer),
    (factories.adagrad, tf.train.AdagradOptimizer),
    (factories.adam_async, AdamAsync),
    (factories.adagrad_decay, AdagradDecay)])
def test_optimizers_that_know_embedding_variables(surface, optimizer, kind):
  surface()
  tf.train.create_global_step()
  made = forms.Engine()
  if optimizer is factories.lazy_adam:
    assert isinstance(_chosen(optimizer(), made), update_rules.LazyAdam)
  deeprec.embedding_variable(made, 'a', 3, 0.1, None, None)
  assert type(_chosen(optimizer(), made)) is kind


@pytest.mark.parametrize('optimizer', [
    factories.adam, factories.sgd, factories.ftrl, factories.adamw,
    lambda: factories.adamw(decay_follows_rate=False)])
def test_refuses_optimizers_that_do_not(surface, optimizer):
  surface()
  made = forms.Engine()
  deeprec.embedding_variable(made, 'a', 3, 0.1, None, None)
  with pytest.raises(errors.UserError, match=(
      'Model.optimizer must be @lazy_adam, .*Or leave .embedding_variable. '
      'out of Engine.forms')):
    _chosen(optimizer(), made)


@pytest.mark.parametrize('clip_norm', [None, 1e-3])
def test_gradients_keep_the_tensor_that_holds_the_keys(
    surface, monkeypatch, clip_norm):
  # By it DeepRec finds the counts.
  surface()
  made = forms.Engine()
  tf.train.create_global_step()
  keys = tf.constant([5, 7], tf.int64)
  variable = deeprec.embedding_variable(made, 'a', 3, 0.1, None, None)
  gradient = tf.IndexedSlices(tf.ones([2, 3]), keys, tf.constant([ROWS, 3]))
  applied = []

  class Spy(tf.train.AdamOptimizer):

    def apply_gradients(self, pairs, global_step=None, name=None):
      applied.extend(pairs)
      return super().apply_gradients(pairs, global_step, name)

  monkeypatch.setattr(tf.train, 'AdamOptimizer', Spy)
  train_op.build(factories.lazy_adam, [(gradient, variable)],
                 purpose.Purpose(training=True, engine=made), clip_norm)
  assert applied[0][0].indices is keys


# ----------------------------------------------------------- checkpoints


class _Saved:
  """What checkpoints.py sees of DeepRec's embedding variable."""

  op = types.SimpleNamespace(name='dim_4/embedding')
  shape = tf.TensorShape([4])


@pytest.mark.parametrize('left_out, message', [
    (None, None), ('-keys', 'lacks dim_4/embedding-keys'),
    ('-values', 'lacks dim_4/embedding-values')])
def test_checkpoint_of_an_embedding_variable(tmp_path, left_out, message):
  name = _Saved.op.name
  tf.train.create_global_step()
  tensors = {'global_step': np.int64(2)}
  tensors.update({name + suffix: np.zeros(shape, 'f') for suffix, shape in [
      ('-keys', [2]), ('-values', [2, 4]), ('-freqs', [2]), ('-versions', [0]),
      ('-keys_filtered', [3]), ('-freqs_filtered', [3]),
      ('-partition_offset', [1001]), ('-partition_filter_offset', [1001]),
      ('/Adam-keys', [2]), ('/Adam-values', [2, 4])] if suffix != left_out})
  path = os.path.join(str(tmp_path), 'model.ckpt-2')
  with tf.Session() as session:
    session.run(tf.raw_ops.SaveV2(
        prefix=path, tensor_names=sorted(tensors),
        shape_and_slices=[''] * len(tensors),
        tensors=[tensors[name] for name in sorted(tensors)]))
  tf.train.update_checkpoint_state(str(tmp_path), path)
  tf.add_to_collection(deeprec._VARIABLES, _Saved())
  if message is None:
    compatibility.check(str(tmp_path), training=True)
    return
  with pytest.raises(errors.UserError, match=message):
    compatibility.check(str(tmp_path), training=True)


def test_owns_no_more_than_its_names():
  tf.add_to_collection(deeprec._VARIABLES, _Saved())
  name = _Saved.op.name
  assert deeprec.owns(name) and deeprec.owns(name + '/Adam_1-keys')
  assert not deeprec.owns(name + '_2-keys') and not deeprec.owns('dim_4')


# -------------------------------------------------------------- protocols


def test_stock_tensorflow_has_grpc_alone():
  compat.check_protocol('grpc')
  for name in ('grpc++', 'star_server'):
    with pytest.raises(errors.UserError, match=(
        r'run_config\.protocol = .* needs a server that stock TensorFlow .* '
        r"lacks \(it has GRPC_SERVER\)\. .*or bind 'grpc'")):
      compat.check_protocol(name)
  with pytest.raises(errors.UserError, match=(
      r"run_config\.protocol must be 'grpc', 'grpc\+\+' or 'star_server', "
      "got 'verbs'")):
    compat.check_protocol('verbs')


@pytest.mark.parametrize('servers, has', [
    ('GRPC_SERVER', []), ('GRPC_SERVER, SEASTAR_SERVER', ['grpc++']),
    ('STAR_SERVER, GRPC_SERVER, SEASTAR_SERVER', ['grpc++', 'star_server'])])
def test_protocols_are_found_by_their_servers(monkeypatch, servers, has):
  def no_server(*args, **kwargs):
    raise tf.errors.NotFoundError(
        None, None, 'No server factory registered for the given ServerDef: x\n'
        'The available server factories are: [ %s ]' % servers)

  monkeypatch.setattr(tf.train, 'Server', no_server)
  for name in ('grpc++', 'star_server'):
    if name in has:
      compat.check_protocol(name)
    else:
      with pytest.raises(errors.UserError):
        compat.check_protocol(name)


# ------------------------------------------------------------- a whole run


def _experiment(taobao, tmp_path, gin_file, *bindings):
  config.load(gin_file, [
      'Tower.units = (4,)', 'PLE.expert_units = (5,)', 'PLE.num_levels = 1',
      'PLE.gate_units = (3,)', 'Experiment.exports = None',
      'Experiment.max_steps = 2', 'BATCH_SIZE = 64', 'DATA_DIR = %r' % taobao,
      'Experiment.model_dir = %r' % str(tmp_path),
      'Experiment.eval_input = None', 'Experiment.early_stopping = None',
      'Model.interactions = []', 'Model.averaging = None',
  ] + list(bindings))
  return experiment.Experiment()


def test_a_run_takes_deeprecs_forms(surface, taobao, tmp_path):
  found = surface('do_op_fusion', 'do_smart_stage')  # no such field to set here
  _experiment(taobao, tmp_path, 'gin/ev_counter_filter.gin',
              'ParquetInput.prefetch = 3').train()
  names = [name for name, _ in found.calls]
  assert names == ['staged', 'make_prefetch_hook', 'get_embedding_variable',
                   'sparse_read', 'mark']
  assert found.called('staged') == [{'capacity': 3, 'num_threads': 1}]
  (called,) = found.called('get_embedding_variable')
  assert called['ev_option'].filter_option == CounterFilter(3)
  (marked,) = found.called('mark')
  assert len(marked['nodes']) == 1
  assert (tmp_path / 'model.ckpt-2.index').exists()


@pytest.mark.slow
def test_incremental_checkpoints_keep_our_embedding_variables(
    surface, taobao, tmp_path):
  found = surface('do_op_fusion', 'do_smart_stage')
  made = _experiment(taobao, tmp_path, 'gin/incremental_checkpoint.gin')
  assert 'embedding_variable (for Experiment.incremental)' in (
      made.trainer._engine.describe())
  made.train()
  assert found.called('get_embedding_variable') == []


def test_incremental_checkpoints_refuse_forms_that_ask_for_them(
    surface, taobao, tmp_path):
  surface()
  with pytest.raises(errors.UserError, match=(
      "Engine.forms must not have 'embedding_variable' with "
      'Experiment.incremental')):
    _experiment(taobao, tmp_path, 'gin/incremental_checkpoint.gin',
                "Engine.forms = ('embedding_variable',)")


@pytest.mark.parametrize('name, rows, loops', [
    ('auto', 16, False), ('stock', 62, True)])
def test_deeprec_slices_a_batch_itself(
    surface, taobao, tmp_path, monkeypatch, name, rows, loops):
  surface()
  configured = []
  monkeypatch.setattr(
      forms.Engine, 'configure',
      lambda self, session, *args: configured.append(args))
  made = _experiment(
      taobao, tmp_path, 'gin/micro_batch.gin', 'BATCH_SIZE = 62',
      "Engine.forms = ('micro_batch',)", 'Engine.name = %r' % name)
  assert configured == [(True, 2, 4)]
  batches = tf.data.make_initializable_iterator(made.trainer.input_fn())
  columns, labels = batches.get_next()
  tf.train.create_global_step()
  made.model.model_fn(
      columns, labels, tf.estimator.ModeKeys.TRAIN, engine=made.trainer._engine)
  assert loops == any('micro_batches' in op.name
                      for op in tf.get_default_graph().get_operations())
  with tf.Session() as session:
    session.run(batches.initializer)
    assert len(session.run(labels['clk'])) == rows


@pytest.mark.slow
def test_auto_trains_as_without_an_engine(taobao, tmp_path):
  # One step of the same seed, to the bit.
  found = []
  for name in ('auto', 'stock'):
    with tf.Graph().as_default():
      gin.clear_config()
      path = tmp_path / name
      _experiment(taobao, path, 'gin/base.gin', 'Engine.name = %r' % name,
                  'run_config.intra_op_threads = 1',
                  'run_config.inter_op_threads = 1').train()
      reader = tf.train.load_checkpoint(str(path))
      found.append({n: reader.get_tensor(n)
                    for n in reader.get_variable_to_shape_map()})
  assert set(found[0]) == set(found[1])
  for name, value in found[0].items():
    np.testing.assert_array_equal(value, found[1][name], err_msg=name)


def test_penalties_of_interactions_keep_our_lookup(
    taobao, tmp_path, monkeypatch):
  left_out = []
  monkeypatch.setattr(forms.Engine, 'leave_out',
                      lambda self, *args: left_out.append(args))
  for l2 in (0.0, 0.1):
    gin.clear_config()
    _experiment(taobao, tmp_path, 'gin/base.gin', 'FwFM.l2 = %r' % l2,
                'Model.interactions = [@FwFM()]')
  assert left_out == [('fused_lookup', 'the l2 of Model.interactions')]
