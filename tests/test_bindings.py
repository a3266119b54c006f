"""Every parameter that a .gin file can bind refuses what it cannot use."""

import contextlib
import importlib
import inspect
import os
import pkgutil
import re

import conftest
import gin
import pytest
import tensorflow.compat.v1 as tf

import ple_estimator
from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment
from ple_estimator.balancing import uncertainty_weights
from ple_estimator.cluster import roles
from ple_estimator.cluster.work_queue import work_queue
from ple_estimator.commands.sweep import sweep
from ple_estimator.data import column_kinds
from ple_estimator.data import feature_spec
from ple_estimator.data import inputs
from ple_estimator.embeddings import admission
from ple_estimator.embeddings import hashed
from ple_estimator.engine import forms
from ple_estimator.network import ple
from ple_estimator.network import precision
from ple_estimator.network import towers
from ple_estimator.optimizers import averaging
from ple_estimator.optimizers import factories
from ple_estimator.training import daily
from ple_estimator.training import early_stopping
from ple_estimator.training import exports
from ple_estimator.training import incremental
from ple_estimator.training import warm_start

# What is wrong for almost every parameter.
VALUES = [None, 'x', '', True, -1, 0.5, float('inf'), float('nan'), 1e39, 2**70,
          [], {}, [3], object(), precision.Precision(), towers.Tower]

# What puts a configurable that gin/base.gin does not use into the Experiment.
EV = 'Model.embedding = @EmbeddingVariable()'
COUNTER = 'CounterFilter.filter_freq = 3'
IN_USE = {
    'Metrics': ['Experiment.metrics = @Metrics()'],
    'MultiHashEmbedding': ['Model.embedding = @MultiHashEmbedding()',
                           "MultiHashEmbedding.operation = 'concat'"],
    'EmbeddingVariable': [EV],
    'AdaptiveEmbedding': ['Model.embedding = @AdaptiveEmbedding()',
                          'AdaptiveEmbedding.filter = @CounterFilter()',
                          COUNTER],
    'DynamicDimensionEmbedding': [
        'Model.embedding = @DynamicDimensionEmbedding()'],
    'CounterFilter': [EV, 'EmbeddingVariable.filter = @CounterFilter()',
                      COUNTER],
    'CbfFilter': [EV, 'EmbeddingVariable.filter = @CbfFilter()',
                  'CbfFilter.filter_freq = 3',
                  'CbfFilter.max_element_size = 100'],
    'GlobalStepEviction': [
        EV, 'EmbeddingVariable.eviction = @GlobalStepEviction()',
        'GlobalStepEviction.steps_to_live = 5'],
    'L2Eviction': [EV, 'EmbeddingVariable.eviction = @L2Eviction()',
                   'L2Eviction.l2_weight_threshold = 0.2'],
    'CsvInput': ['Experiment.train_input = @CsvInput()',
                 "CsvInput.files = 'x.csv'"],
    'Task': ['Experiment.early_stopping = None',  # by a metric of ctr
             'Experiment.exports = None'],
    'Daily': ['Experiment.daily = @Daily()'],
    'WarmStart': ['Experiment.warm_start = @WarmStart()',
                  "WarmStart.source = 'x'"],
    'WorkQueue': ['Experiment.work_queue = @WorkQueue()'],
    'IncrementalCheckpoint': [
        'Experiment.incremental = @IncrementalCheckpoint()',
        'IncrementalCheckpoint.save_steps = 5'],
    'Binned': [
        'Model.interactions = [@Binned()]', "FeatureSpec.columns = ["
        "{'name': 'clk', 'kind': 'label', 'values': (0, 1)}, "
        "{'name': 'buy', 'kind': 'label', 'values': (0, 1)}, "
        "{'name': 'x', 'kind': 'number'}]"],
    'ProductTask': [
        'Model.tasks = [@ctr/Task(), @cvr/Task(), @ProductTask()]',
        "ProductTask.name = 'both'",
        'ProductTask.of = [@ctr/Task(), @cvr/Task()]'],
    'Attention': ['Model.attention = @Attention()',
                  "FeatureSpec.overrides = {'tag_brand_list': {"
                  "'combiner': 'attention', 'query': 'brand'}}"],
    'AIT': ['Model.network = @AIT()', 'AIT.network = @PLE()'],
    'Tweedie': ['cvr/Task.loss = @Tweedie()'],
    'MultiClass': ['cvr/Task.loss = @MultiClass()',
                   'MultiClass.num_classes = 2'],
    'BatchNorm': ['PLE.batch_norm = @BatchNorm()'],
    'CrossNet': ['Model.interactions = [@CrossNet()]'],
    'DotProducts': ['Model.interactions = [@DotProducts()]',
                    "DotProducts.columns = ['brand', 'cate_id']"],
    'FM': ['Model.interactions = [@FM()]', 'FM.dim = 3'],
    'Periodic': [
        'Model.interactions = [@Periodic()]', "FeatureSpec.columns = ["
        "{'name': 'clk', 'kind': 'label', 'values': (0, 1)}, "
        "{'name': 'buy', 'kind': 'label', 'values': (0, 1)}, "
        "{'name': 'x', 'kind': 'number'}]"],
    'exponential_decay': ['lazy_adam.learning_rate = @exponential_decay'],
    'warmup_cosine': ['lazy_adam.learning_rate = @warmup_cosine'],
}
IN_USE.update({name: ['Model.balancing = @%s()' % name] for name in [
    'UncertaintyWeights', 'DynamicWeightAverage', 'GradNorm', 'PCGrad']})
IN_USE.update({name: ['Model.optimizer = @' + name] for name in [
    'adam', 'adam_async', 'adamw', 'adagrad', 'adagrad_decay', 'ftrl', 'sgd']})
# What is bound in the .gin file of a sweep, and puts it into the Sweep.
IN_SWEEP = {
    'Sweep': [], 'Grid': ['Sweep.search = @Grid()'],
    'Random': ['Sweep.search = @Random()'],
    'Optuna': ['Sweep.search = @Optuna()'],
    'MedianStopping': ['Sweep.stopping = @MedianStopping()'],
}
# What the .gin files bind in a scope, which wins over a binding without.
SCOPES = {'Task': 'ctr/', 'ParquetInput': 'train/'}

# Of VALUES, what a parameter takes, besides None where that is the default and
# True where the default is a bool.
FRACTION = [0.5]
LEGAL = {
    # texts
    'Metrics.names': [[]], 'Metrics.slices': [[]],
    'Experiment.model_dir': ['x'], 'Task.name': ['x'],
    'ProductTask.name': ['x'], 'ProductTask.weight': FRACTION,
    'ProductTask.gamma': FRACTION,
    'ParquetInput.files': ['x'], 'ParquetInput.data_dir': ['x', ''],
    'CsvInput.files': ['x'], 'CsvInput.data_dir': ['x', ''],
    'CsvInput.delimiter': ['x'], 'CsvInput.quote': ['x'],
    'Daily.partition': ['x', ''], 'Daily.margin': FRACTION,
    'WarmStart.source': ['x'], 'WarmStart.include': [[]],
    'WarmStart.exclude': [[]], 'WarmStart.renames': [{}],
    'WarmStart.columns': [{}],
    'CsvInput.escape': ['x'], 'CsvInput.null_values': [[]],
    # lists that may be empty; [3] are the widths of layers
    'PLE.expert_units': [[3]], 'PLE.gate_units': [[], [3]],
    'Tower.units': [[], [3]], 'Attention.units': [[], [3]],
    'DynamicDimensionEmbedding.frequencies': [[3]],
    'Experiment.predict_columns': [[]],
    'Experiment.hooks': [[]], 'adamw.exclude': [[]], 'Engine.forms': [[]],
    'FeatureSpec.overrides': [{}], 'MultiHashEmbedding.rows': [{}],
    'Sweep.metric': ['x'], 'Sweep.out': ['x'], 'Sweep.lines': [[]],
    'Sweep.choices': [{}], 'Sweep.bindings': [{}], 'Sweep.seeds': [[3]],
    # objects
    'Model.precision': [VALUES[-2]],
    # numbers
    'ftrl.learning_rate_power': [-1],
    'Model.clip_norm': FRACTION, 'PLE.dropout': FRACTION, 'PLE.l2': FRACTION,
    'Tower.dropout': FRACTION, 'Tower.l2': FRACTION,
    'Attention.dropout': FRACTION, 'Task.weight': FRACTION,
    'Task.gamma': FRACTION, 'WorkQueue.lease_secs': FRACTION,
    'Model.embedding_dropout': FRACTION, 'Model.interactions': [[]],
    'Task.positive_weight': FRACTION, 'Task.negative_rate': FRACTION,
    'AIT.calibrator_weight': FRACTION,
    'Task.initial_bias': [-1, 0.5], 'Tower.bias_scale': FRACTION,
    'Wide.scale': FRACTION, 'FM.scale': FRACTION, 'FwFM.scale': FRACTION,
    'FwFM.weight_scale': FRACTION, 'FwFM.matrix_scale': FRACTION,
    'Binned.width': FRACTION,
    'Binned.scale': FRACTION,
    'UncertaintyWeights.scale': FRACTION, 'GradNorm.alpha': FRACTION,
    'DynamicWeightAverage.temperature': FRACTION,
    'CbfFilter.false_positive_probability': FRACTION,
    'L2Eviction.l2_weight_threshold': FRACTION,
    'Experiment.eval_epochs': FRACTION,
    'EarlyStopping.patience_epochs': FRACTION,
}
# A parameter whose name says that it is a positive number or a fraction.
FRACTIONS = {'stddev', 'learning_rate', 'beta1', 'beta2', 'epsilon',
             'weight_decay', 'initial_accumulator_value', 'decay_rate', 'l1',
             'l2', 'momentum', 'initial', 'rate', 'peak', 'final', 'decay'}


# What may only be None if another parameter is not, which it is here.
NEEDED = ['IncrementalCheckpoint.save_steps', 'Task.tower']


def configurables():
  """Yields (name, function or class) of all that the package registers."""
  for found in pkgutil.walk_packages(ple_estimator.__path__, 'ple_estimator.'):
    module = importlib.import_module(found.name)
    for name, value in sorted(vars(module).items()):
      if getattr(value, '__module__', None) != found.name or not (
          inspect.isclass(value) or inspect.isfunction(value)):
        continue
      try:
        gin.get_configurable(value)
      except ValueError:
        continue
      yield name, value


CONFIGURABLES = dict(configurables())


def parameters(made):
  """An OrderedDict of the parameters that can be bound, without self."""
  found = inspect.signature(
      made.__init__ if inspect.isclass(made) else made).parameters.copy()
  for name in ('self', 'step'):
    found.pop(name, None)
  if made.__name__ == 'run_config':
    found.pop('model_dir')
  return found


def is_legal(name, parameter, default, value):
  if value is None:
    # None takes quotes in CSV files for text.
    return parameter == 'quote' or default is None and (
        '%s.%s' % (name, parameter) not in NEEDED)
  if value is True:
    # TensorFlow 1 is refused, see compat.use_xla.
    return isinstance(default, bool) and not (
        parameter == 'xla' and tf.__version__.startswith('1.'))
  legal = LEGAL.get('%s.%s' % (name, parameter), [])
  if parameter in FRACTIONS:
    legal = legal + FRACTION
  return any(value is x or type(value) is type(x) and value == x for x in legal)


def load(bindings, name=None):
  if name in IN_SWEEP:
    return config.load(
        os.path.join(conftest.ROOT, 'gin', 'sweep.gin'), bindings + [
            "Sweep.choices = {'network': ['gin/cgc.gin', 'gin/mmoe.gin']}",
            "Sweep.bindings = {'LEARNING_RATE': {'low': 1e-3, 'high': 1e-2}}"
            if name in ('Random', 'Optuna') else 'Sweep.bindings = None'] +
        IN_SWEEP[name], roots=('Sweep',))
  return config.load(os.path.join(conftest.ROOT, 'gin', 'base.gin'), bindings)


def value_before(scope, bound, default):
  """What a parameter is, whether it is bound or not."""
  for name in (scope + bound, bound):
    with contextlib.suppress(ValueError):
      return gin.query_parameter(name)
  return default


def outcome(loaded, root=experiment.Experiment):
  """The UserError of building the root as text, or None."""
  try:
    with config.explained(loaded):
      root()
  except errors.UserError as error:
    return str(error)


def test_the_walk_finds_what_there_is():
  assert {'Experiment', 'Model', 'PLE', 'Task', 'run_config', 'adam', 'ftrl',
          'warmup_cosine', 'WorkQueue', 'CbfFilter', 'L2Eviction'} <= set(
              CONFIGURABLES)
  text = ''
  for folder, _, names in os.walk(os.path.dirname(ple_estimator.__file__)):
    for name in names:
      if name.endswith('.py'):
        with open(os.path.join(folder, name)) as f:
          text += f.read()
  assert len(CONFIGURABLES) == (
      text.count('\n@gin.register') + text.count('\n@gin.configurable'))


@pytest.mark.parametrize('name', sorted(CONFIGURABLES))
def test_a_wrong_value_is_told_in_one_line(name):
  loaded = load(IN_USE.get(name, []), name)
  root = sweep.Sweep if name in IN_SWEEP else experiment.Experiment
  for parameter, declared in parameters(CONFIGURABLES[name]).items():
    bound = '%s.%s' % (name, parameter)
    before = value_before(SCOPES.get(name, ''), bound, declared.default)
    assert outcome(loaded, root) is None
    for value in VALUES:
      with gin.unlock_config():
        gin.bind_parameter(SCOPES.get(name, '') + bound, value)
      said = outcome(loaded, root)
      if is_legal(name, parameter, declared.default, value):
        assert said is None, (bound, value)
      else:
        assert said is not None, (bound, value)
        assert '\n' not in said and bound in said, (bound, value, said)
        assert errors.written(value) in said, (bound, value, said)
    with gin.unlock_config():
      gin.bind_parameter(SCOPES.get(name, '') + bound, before)


@pytest.mark.parametrize('bindings, message', [
    # an object for a class or function, and the other way round
    (['Model.network = @PLE'],
     'Model.network must be .* @PLE\\(\\) or None, got @PLE.'),
    (['Model.optimizer = @lazy_adam()'], 'Model.optimizer must be a function '
     'that is not called yet, .*got @LazyAdam'),
    (['Model.optimizer = @PLE'], 'Model.optimizer must be .*, got @PLE'),
    (['Model.optimizer = @run_config'], 'Model.optimizer must be a function to '
     'a tf.train.Optimizer, .*, got @run_config'),
    (['Model.optimizer = @exponential_decay'],
     'The learning_rate must be .*, got @exponential_decay'),
    (['lazy_adam.learning_rate = @exponential_decay()'],
     'The learning_rate must be the schedule @exponential_decay, not called'),
    (['lazy_adam.learning_rate = @PLE'],
     'lazy_adam.learning_rate must be .*, got @PLE.'),
    (['lazy_adam.learning_rate = @run_config'],
     'lazy_adam.learning_rate must be .*, got @run_config'),
    (['Experiment.run_config = @run_config()'],
     'Experiment.run_config must be a function that is not called yet'),
    (['Experiment.run_config = @adam'],
     'Experiment.run_config must be a function of model_dir, .* got @adam'),
    (['Experiment.run_config = @Tower'], 'Experiment.run_config must be'),
    (['Task.tower = @Tower'], 'Task.tower must be .* got @Tower.'),
    (['Experiment.engine = @Engine'], 'Experiment.engine must be .*@Engine.'),
    # items of lists
    (['Model.tasks = [3]'], r'Model.tasks must be a list of tasks, .*\[3\]'),
    (['Model.tasks = [@ctr/Task]'], 'Model.tasks must be a list of tasks'),
    (['Experiment.hooks = [@Tower()]'], 'Experiment.hooks must be a list'),
    (['PLE.expert_units = (True,)'], 'PLE.expert_units must be a list'),
    (['Tower.units = (8, -1)'], 'Tower.units must be a list .*, got'),
    (['train/ParquetInput.files = [None]'],
     'ParquetInput.files must be a list'),
    # wholes
    (["FeatureSpec.columns = [{'kind': 'label'}]"], "must have a 'name'"),
    (["FeatureSpec.columns = [{'name': 3}]"], "'name' must be a text.*, got 3"),
    (["FeatureSpec.columns = [{'name': 'x', 'kind': []}]"],
     "'kind' must be one of .*, got \\[\\]"),
    (["FeatureSpec.columns = [{'name': 'x', 3: 4}]"], 'as keys, got 3'),
    (["FeatureSpec.overrides = {3: {}}"],
     'FeatureSpec.overrides must be of .*3'),
    (['Model.embedding = @MultiHashEmbedding()',
      'MultiHashEmbedding.rows = {3: (1, 2)}'],
     'MultiHashEmbedding.rows must be a dict, such as .*, got {3'),
    (["FeatureSpec.overrides = {'brand': 3}"],
     'FeatureSpec.overrides must be a dict of dicts'),
    (["ctr/Task.sample_space = (3, 4)"], 'Task.sample_space must be a pair'),
    (["ctr/Task.sample_space = ('clk', 'x')"],
     'Task.sample_space must have a number'),
    (["ctr/Task.sample_space = ('pid', None)"],
     'Task.sample_space must have a text or number .*, got None'),
])
def test_a_wrong_object_is_told_in_one_line(bindings, message):
  loaded = None
  with pytest.raises(errors.UserError, match=message) as raised:
    loaded = load(bindings)
    with config.explained(loaded):
      experiment.Experiment()
  assert '\n' not in str(raised.value) and loaded


# Objects and functions of every kind, and where each belongs.
OBJECTS = {
    'Experiment.train_input': inputs.CsvInput('x'),
    'Experiment.run_config': roles.run_config,
    'Experiment.early_stopping': early_stopping.EarlyStopping(
        patience_epochs=2),
    'Experiment.exports': exports.Exports(),
    'Experiment.incremental': incremental.IncrementalCheckpoint(save_steps=1),
    'Experiment.engine': forms.Engine(),
    'Experiment.daily': daily.Daily(),
    'Experiment.warm_start': warm_start.WarmStart('x'),
    'Experiment.work_queue': work_queue.WorkQueue(),
    'Model.features': feature_spec.FeatureSpec(
        [{'name': 'clk', 'kind': 'label', 'values': (0, 1)},
         {'name': 'buy', 'kind': 'label', 'values': (0, 1)},
         {'name': 'x', 'kind': 'number'}]),
    'Model.embedding': hashed.HashEmbedding(),
    'Model.network': ple.PLE(),
    'Model.precision': precision.Precision(),
    'Model.optimizer': factories.ftrl,
    'Model.averaging': averaging.Averaging(),
    'Model.balancing': uncertainty_weights.UncertaintyWeights(),
    'lazy_adam.learning_rate': factories.warmup_cosine,
    'Task.tower': towers.Tower(),
    'EmbeddingVariable.filter': admission.CounterFilter(2),
    'EmbeddingVariable.eviction': admission.L2Eviction(0.1),
}


@pytest.mark.parametrize('binding', sorted(OBJECTS))
def test_an_object_that_belongs_elsewhere_is_told_in_one_line(binding):
  loaded = load(IN_USE.get(binding.split('.')[0], []))
  for place, value in OBJECTS.items():
    with gin.unlock_config():
      gin.bind_parameter(binding, value)
    said = outcome(loaded)
    if place == binding:
      assert said is None
    else:
      # An optimizer for a schedule is called with the step for its own rate.
      names = [binding, 'ftrl.learning_rate', 'schedule @warmup_cosine']
      assert said and '\n' not in said and any(
          name in said for name in names), (place, said)


def test_an_object_of_ones_own_serves_if_it_has_what_is_needed():
  class Own:
    def __call__(self, inputs, tasks, purpose):
      pass
  errors.check_is_a('A.b', Own(), ple.PLE, '@PLE()', own=('__call__',))
  errors.check_is_a('A.b', load, ple.PLE, '@PLE()', own=('__call__',))
  for wrong, own in [(Own, ('__call__',)), (Own(), ('groups',)), (Own(), ())]:
    with pytest.raises(errors.UserError, match='A.b must be an object such as '
                       r'@PLE\(\), got .*Own'):
      errors.check_is_a('A.b', wrong, ple.PLE, '@PLE()', own=own)


KINDS = {
    'label': {}, 'ignored': {}, 'number': {}, 'weight': {},
    'hashed': {'num_buckets': 5}, 'hashed_list': {'num_buckets': 5},
    'integer': {'num_buckets': 5}, 'bucketised': {'boundaries': (0, 1)},
    'vocabulary': {'values': ['x', 'y']}, 'vector': {'width': 3},
    'crossed': {'columns': ('p', 'q'), 'num_buckets': 5}, 'weight_list': {},
}
CATEGORIES = ['hashed', 'hashed_list', 'integer', 'bucketised',
              'vocabulary', 'crossed']
OF_KINDS = {
    'default': {'hashed': ['x'], 'hashed_list': ['x'], 'integer': [-1],
                'number': [-1, 0.5], 'weight': FRACTION,
                'bucketised': [-1, 0.5], 'vocabulary': ['x', ''],
                'vector': [-1, 0.5]},
    'separator': {'hashed_list': ['x'], 'vector': ['x'], 'weight_list': ['x']},
    'weights': {'hashed_list': ['x']},
    'mean': dict.fromkeys(['number', 'vector'], [-1, 0.5]),
    'std': dict.fromkeys(['number', 'vector'], FRACTION),
    'values': {'label': [[3]], 'vocabulary': [[3]]},
    'above': {'label': [-1, 0.5]},
    'boundaries': {'bucketised': [[3]]},
    'stddev': dict.fromkeys(CATEGORIES, FRACTION),
    'l2': dict.fromkeys(CATEGORIES, FRACTION),
}
OF_KINDS['default']['hashed'] = OF_KINDS['default']['hashed_list'] = ['x', '']


@pytest.mark.parametrize('kind', list(column_kinds.KINDS))
def test_a_wrong_argument_of_a_column_is_told_in_one_line(kind):
  for parameter, declared in inspect.signature(
      column_kinds.KINDS[kind]).parameters.items():
    for value in VALUES:
      columns = [{'name': 'also', 'kind': 'number'},
                 {'names': ['p', 'q'], 'kind': 'hashed', 'num_buckets': 5},
                 dict(dict(KINDS[kind], name='c', kind=kind),
                      **{parameter: value})]
      if kind == 'weight_list':  # has to be that of a list
        columns.append(dict(KINDS['hashed_list'], kind='hashed_list', name='l',
                            weights_column=columns[-1]['name']))
      legal = OF_KINDS.get(parameter, {}).get(kind, [])
      if parameter == 'name':
        legal = ['x']
      if (value is None and declared.default is None or
          value is True and isinstance(declared.default, bool) and
          parameter != 'joint' or  # needs a combiner that is not the default
          any(type(value) is type(x) and value == x for x in legal)):
        feature_spec.FeatureSpec(columns)
        continue
      with pytest.raises(errors.UserError) as raised:
        feature_spec.FeatureSpec(columns)
      said = str(raised.value)
      assert said.startswith('FeatureSpec.columns') and '\n' not in said
      assert parameter in said and errors.written(value) in said, said


@pytest.mark.parametrize('column, message', [
    (dict(name='x', kind='number', log1p=True, default=-1),
     'from -0.9999999 .*got -1'),
    (dict(name='x', kind='weight', default=-1), r'in \[0, 1e\+15\] .*got -1'),
])
def test_a_default_that_the_column_refuses_is_refused(column, message):
  with pytest.raises(errors.UserError, match="'x': default must .*" + message):
    feature_spec.FeatureSpec([{'name': 'also', 'kind': 'number'}, column])


# ------------------------------------------------------------------ the checks


@pytest.mark.parametrize('bounds, value, wanted', [
    (dict(least=0, below=1), 0.99999999, 'a number in [0, 1)'),  # 1 as float32
    (dict(above=0), 1e-40, 'a finite number above 0'),  # denormal
    (dict(above=0), 0, 'a finite number above 0'),
    (dict(most=0), 0.5, 'a finite number of at most 0'),
    (dict(below=1), 1, 'a finite number below 1'),
    (dict(above=0, most=2), 3, 'a number in (0, 2]'),
    (dict(least=1, or_none=True), 0, 'a finite number of at least 1 or None'),
    ({}, -10**400, 'a finite number'),
])
def test_numbers_are_held_against_their_bounds_as_float32(bounds, value,
                                                          wanted):
  with pytest.raises(errors.UserError) as raised:
    errors.check_number('A.b', value, **bounds)
  assert str(raised.value).startswith('A.b must be %s, got ' % wanted)


def test_bounds_are_let_in():
  errors.check_number('A.b', 0, least=0, below=1)
  errors.check_number('A.b', 3.4028234e38)
  errors.check_number('A.b', None, above=0, or_none=True)
  errors.check_integer('A.b', 2**63 - 1, 1)
  errors.check_integer('A.b', 7, 7, most=7)


@pytest.mark.parametrize('value, text', [
    (towers.Tower, '@Tower'), (towers.Tower(), '@Tower()'), (len, '@len'),
    ("a 'b'", '"a \'b\'"'), ('x\ny', r"'x\ny'"), ('x' * 500,
                                                 "'" + 'x' * 196 + '...'),
])
def test_a_value_is_written_on_one_line(value, text):
  assert errors.written(value) == text


# --------------------------------------------------------- own optimizers


def needs_the_graph():
  rate, = [v for v in tf.global_variables() if v.op.name == 'rate']
  return tf.train.GradientDescentOptimizer(rate)


def test_an_own_optimizer_may_need_the_graph_that_is_trained():
  factories.check(needs_the_graph)
  tf.get_variable('rate', initializer=0.1)
  assert isinstance(factories.make(needs_the_graph), tf.train.Optimizer)


def test_an_own_optimizer_that_fails_is_told_in_one_line():
  with pytest.raises(errors.UserError) as raised:
    factories.make(needs_the_graph)
  assert str(raised.value).startswith(
      'Model.optimizer must be a function without arguments, got '
      '@needs_the_graph, which raises ValueError: not enough values')


def momentum_of_none():
  return tf.train.MomentumOptimizer(0.1, None)


class _HasNoSlots(tf.train.GradientDescentOptimizer):

  def _create_slots(self, var_list):
    raise KeyError('no\nslots')


@pytest.mark.parametrize('optimizer, written, problem', [
    (momentum_of_none, '@momentum_of_none', 'ValueError: None values not'),
    (lambda: _HasNoSlots(0.1), '@<lambda>', r"KeyError: 'no\\nslots'"),
])
def test_an_own_optimizer_that_cannot_update_is_told_in_one_line(
    optimizer, written, problem):
  tf.train.create_global_step()
  variable = tf.get_variable('v', initializer=[1.0])
  with pytest.raises(errors.UserError) as raised:
    conftest.train_op(optimizer, tf.reduce_sum(variable))
  assert re.match('Model.optimizer must be able to update the variables, got '
                  '%s, which raises %s' % (written, problem), str(raised.value))
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize('rate', [
    0.1, lambda step: 0.1, lambda step: tf.constant(0.1),
    lambda step: 0.5 * tf.cast(step, tf.float64)])
def test_a_schedule_returns_a_scalar(rate):
  factories.check(lambda: factories.adam(rate))
  with pytest.raises(errors.UserError, match='adam.learning_rate must be'):
    factories.check(lambda: factories.adam(lambda step: [rate]))
  assert not tf.get_default_graph().get_operations()  # none but rate's own
