"""Putting .gin files together, and what is said of mistakes in them."""

import functools
import glob
import itertools
import os
import re
import sys
import textwrap

from absl import logging
import conftest
import gin
from gin import config_parser
import pytest
import tensorflow.compat.v1 as tf
from test_experiment import other_data
from test_gin import SMALL_TABLES

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment
from ple_estimator.data import column_kinds
from ple_estimator.data import feature_spec
from ple_estimator.gin_files import places

FILES = sorted(os.path.relpath(path, conftest.ROOT) for path in
               glob.glob(os.path.join(conftest.ROOT, 'gin', '*.gin'))
               if not path.endswith('sweep.gin'))  # no experiment
# By choice, but for what gin/base.gin chooses.
CHOICES = {
    'data': ['csv', 'shop'],
    'network': ['shared_bottom', 'mmoe', 'cgc', 'single_task', 'hidden_gate',
                'linear', 'fm', 'small'],
    'precision': ['bf16'],
    'optimizer': ['adamw', 'adam_async', 'adagrad', 'adagrad_decay', 'ftrl',
                  'sgd'],
    'embedding': ['ev', 'ev_counter_filter', 'ev_cbf_filter',
                  'ev_global_step_eviction', 'ev_l2_eviction', 'adaptive',
                  'dynamic_dim', 'multi_hash'],
    'balancing': ['uncertainty_weights', 'dynamic_weight_average', 'grad_norm',
                  'pcgrad'],
}
BESIDES = ['base', 'taobao', 'cvr_on_clicks', 'micro_batch', 'work_queue',
           'incremental_checkpoint', 'mtl_regression', 'matching', 'zoo',
           'ait', 'aitm', 'esmm', 'multi_class', 'poisson', 'tweedie', 'daily',
           'metrics', 'din']
# Two steps of a small network.
TINY = ['Tower.units = (4,)', 'PLE.expert_units = (5,)', 'PLE.num_levels = 1',
        'Experiment.exports = None', 'Experiment.max_steps = 2',
        'Experiment.eval_input = None', 'Experiment.early_stopping = None',
        'BATCH_SIZE = 64', 'EPOCHS = 1']


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A function that writes files to an empty current folder."""
  monkeypatch.chdir(tmp_path)
  path, modules = list(sys.path), set(sys.modules)

  def write(**files):
    for name, text in files.items():
      name, _, suffix = name.rpartition('_')
      place = tmp_path / ('%s.%s' % (name.replace('__', '/'), suffix))
      place.parent.mkdir(parents=True, exist_ok=True)
      place.write_text(textwrap.dedent(text))
  yield write
  sys.path[:] = path
  for name in set(sys.modules) - modules:
    if str(tmp_path) in str(getattr(sys.modules[name], '__file__', '')):
      del sys.modules[name]


def bound(*names):
  return [gin.query_parameter(name) for name in names]


def refusal(gin_files, bindings=()):
  """The one line that loading and building the experiment ends with."""
  with pytest.raises(errors.UserError) as raised:
    loaded = config.load(gin_files, bindings)
    with config.explained(loaded):
      experiment.Experiment()
  message = str(raised.value)
  assert '\n' not in message and 'In call to' not in message
  return message


# ------------------------------------------------------------- combining


@pytest.mark.parametrize('path', FILES)
def test_one_file_is_what_gin_makes_of_it(path, monkeypatch):
  monkeypatch.chdir(conftest.ROOT)
  roots = ['Experiment', 'FeatureSpec']
  loaded = config.load(path, roots=roots)
  found = gin.config_str()
  gin.clear_config()
  gin.bind_parameter('Experiment.model_dir', 'result/' + loaded.name)
  gin.parse_config_files_and_bindings([path], [])
  assert found == gin.config_str()


SHOP = """
    include 'gin/base.gin'
    FeatureSpec:
      dim = 8
      columns = [{'name': 'clk', 'kind': 'label', 'values': (0, 1)},
                 {'name': 'price', 'kind': 'number'}]
    Model.tasks = [@ctr/Task()]
    """


@pytest.mark.parametrize('names', itertools.permutations(
    ['my/shop.gin', 'gin/mmoe.gin', 'gin/bf16.gin']))
@pytest.mark.parametrize('by', ['flags', 'include'])
def test_no_file_undoes_another(folder, names, by):
  folder(my__shop_gin=SHOP, all_gin='\n'.join(
      'include %r' % name for name in names))
  loaded = config.load(names if by == 'flags' else 'all.gin')
  assert loaded.overrides == []
  assert bound('PLE.num_levels', 'PLE.num_shared_experts', 'Precision.compute',
               'FeatureSpec.dim') == [1, 5, 'bfloat16', 8]
  assert len(bound('FeatureSpec.columns')[0]) == 2
  name = loaded.name
  assert name == ('all' if by == 'include' else '-'.join(
      os.path.basename(path)[:-4] for path in names))
  assert bound('Experiment.model_dir') == [os.path.join('result', name)]
  assert sorted(loaded.files) == sorted(
      list(names) + ['gin/base.gin', 'gin/taobao.gin'] +
      (['all.gin'] if by == 'include' else []))


def test_a_file_is_parsed_once_by_whatever_path(folder):
  folder(a__b_gin='Precision.compute = "bfloat16"\ninclude "../c.gin"',
         c_gin='include "gin/base.gin"\nPLE.num_levels = 7',
         x_gin="include 'a/b.gin'\nPLE.num_levels = 4\ninclude 'a/../c.gin'\n"
               "include './a/b.gin'\ninclude %r" % os.path.abspath('c.gin'))
  loaded = config.load(['x.gin', './c.gin', 'a/../x.gin'])
  assert loaded.files == [
      'x.gin', 'a/b.gin', 'c.gin', 'gin/base.gin', 'gin/taobao.gin']
  assert bound('PLE.num_levels') == [4]
  assert loaded.name == 'x-c'


def test_lines_count_in_their_order(folder):
  folder(x_gin="""
      PLE.num_levels = 9  # overridden by what is included below
      include 'gin/base.gin'
      PLE:
        num_task_experts = 4
        # a comment

        expert_units = (  # over several lines
            5,

            6)
      include 'y.gin'
      Tower.units = \\
          (7,)
      """, y_gin='PLE.num_task_experts = 3\nTower.units = (8,)')
  loaded = config.load('x.gin', ['PLE.num_shared_experts = 2\n'
                                 'PLE:\n  gate_units = ()'])
  assert bound('PLE.num_levels', 'PLE.num_task_experts', 'PLE.expert_units',
               'Tower.units', 'PLE.num_shared_experts', 'PLE.gate_units') == [
                   3, 3, (5, 6), (7,), 2, ()]
  with open(os.path.join(conftest.ROOT, 'gin', 'base.gin')) as f:
    line = f.read().splitlines().index('  num_levels = 3') + 1
  assert loaded.overrides == [
      'gin/base.gin line %d: PLE.num_levels = 3 (was 9, x.gin line 2)' % line,
      'y.gin line 1: PLE.num_task_experts = 3 (was 4, x.gin line 5)']


def test_only_what_two_choices_both_bind_is_told(folder, monkeypatch):
  folder(my__shop_gin=SHOP + "BATCH_SIZE = 64\nPLE.num_levels = 2\n"
                             "PLE.num_task_experts = 0\n"
                             "LEARNING_RATE = %r\n" % ('x' * 99))
  said = []
  monkeypatch.setattr(logging, 'info', lambda text, *a: said.append(text % a))
  loaded = config.load(['my/shop.gin', 'gin/mmoe.gin', 'gin/sgd.gin'],
                       ['PLE.num_shared_experts = 3'])
  assert said == loaded.overrides == [
      'gin/mmoe.gin line 5: PLE.num_levels = 1 (was 2, my/shop.gin line 9)',
      "gin/sgd.gin line 4: LEARNING_RATE = 0.1 (was '%s..., my/shop.gin line "
      "11)" % ('x' * (60 - 3 - 1))]


@functools.lru_cache(maxsize=None)
def own_bindings(path):
  """A list of (key, value) of what a file itself binds, macros without."""
  found = []
  with open(path) as f:
    for statement in config_parser.ConfigParser(
        f.read(), gin.config.ParserDelegate()):
      if isinstance(statement, config_parser.BindingStatement):
        scope, selector, arg, value, _ = statement
        if arg:
          name = '%s.%s' % (selector, arg)
          found.append(('/'.join(filter(None, [scope, name])), value))
        else:
          found.append((selector + '/macro.value', value))
  return found


def test_every_file_is_of_a_choice():
  assert sorted(sum(CHOICES.values(), BESIDES)) == sorted(
      ['shop'] + [os.path.basename(path)[:-4] for path in FILES])


def combinations(network):
  """Lists with a choice of each kind, that of the network given by its index.

  Those of all networks have every pair of choices of two kinds among them, as a
  test below counts.
  """
  for i in range(len(CHOICES['embedding'])):
    index = {'network': network, 'embedding': i, 'optimizer': network + i,
             'balancing': network // 2 + 3 * i, 'data': network // 4 + i // 4}
    yield [names[index.get(kind, 0) % len(names)]
           for kind, names in CHOICES.items()]


def test_every_pair_is_among_the_combinations():
  found = {pair for network in range(len(CHOICES['network']))
           for names in combinations(network)
           for pair in itertools.combinations(names, 2)}
  assert found == {pair for kinds in itertools.combinations(CHOICES.values(), 2)
                   for pair in itertools.product(*kinds)}


@pytest.mark.parametrize('network', range(len(CHOICES['network'])))
def test_every_pair_of_choices_combines(folder, network):
  folder(shop_gin=other_data())
  for names in combinations(network):
    paths = [name + '.gin' if name == 'shop' else os.path.join(
        conftest.ROOT, 'gin', name + '.gin') for name in names]
    for order in (paths, paths[::-1]):
      loaded = config.load(order)
      assert loaded.overrides == [], order
      for path in paths:
        for key, value in own_bindings(path):
          assert gin.query_parameter(key) == value, (order, key)
      experiment.Experiment()


# ------------------------------------------------------- files and includes


def test_includes_are_looked_for_beside_the_file_first(folder, tmp_path):
  folder(my__x_gin="include 'part.gin'\ninclude 'other.gin'\n"
                   "include 'gin/base.gin'\ninclude 'last.gin'",
         my__part_gin='', part_gin='1', other_gin='', my__last_gin='')
  assert config.load('my/x.gin').files == [
      'my/x.gin', 'my/part.gin', 'other.gin', 'gin/base.gin', 'gin/taobao.gin',
      'my/last.gin']
  folder(my__x_gin="\ninclude 'nope.gin'")
  assert refusal('my/x.gin') == (
      "my/x.gin line 2: include 'nope.gin' must name an existing file; looked "
      'for %s, %s, %s.' % tuple(os.path.join(str(where), 'nope.gin') for where
                                in (tmp_path / 'my', tmp_path, places.root())))


@pytest.mark.parametrize('name, content, message', [
    ('nope.gin', None, "--gin_file must name an existing file, got 'nope.gin'"),
    ('.', None, 'a folder'),
    ('x.gin', b'\x7fELF\0\0', 'x.gin must be text, got a binary file.'),
    ('x.gin', b'# \xe9\n', 'x.gin must be text in UTF-8.'),
    ('x.gin', b'', "Experiment.model, Experiment.train_input, "
     "Experiment.eval_input, Experiment.run_config must be bound. Does a file "
     "include 'gin/base.gin'?"),
    ('x.gin', b"\ninclude 'x.gin'", "x.gin line 2: include 'x.gin' must not "
     'lead back'),
])
def test_a_file_that_is_none_is_refused(folder, name, content, message):
  folder()
  if content is not None:
    with open(name, 'wb') as f:
      f.write(content)
  assert message in refusal(name)


def test_an_include_must_not_lead_back(folder):
  folder(a_gin="include 'b.gin'", b_gin="# b\n\ninclude 'a.gin'")
  assert refusal('a.gin').startswith("b.gin line 3: include 'a.gin' must not ")


def test_windows_text_is_text(folder):
  folder()
  with open('x.gin', 'wb') as f:
    f.write(b"\xef\xbb\xbfinclude 'gin/base.gin'\r\nPLE.num_levels = 2\r\n")
  config.load('x.gin')
  assert bound('PLE.num_levels') == [2]


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize('text, line, message', [
    # names
    ('PLA.num_levels = 2', 2, "No configurable matching 'PLA'; check the"),
    ('PLA:\n  num_levels = 2', 2, "No configurable matching 'PLA'; check the"),
    ('Model.network = @PLA()', 2, "matching reference '@PLA()'; check the"),
    ('PLE.num_level = 2', 2, 'Did you mean num_levels?'),
    ('PLE:\n  dropout = 0.1\n  num_level = 2', 4, 'Did you mean num_levels?'),
    ('Tower.zzz = 2', 2, 'It has units, activation, batch_norm, dropout, l2, '
     'logit_initializer, bias_scale.'),
    ('run_config.model_dir = 3', 2, "'run_config' has denylisted kwarg"),
    # macros
    ('NOPE = 3', 2, 'got unread NOPE'),
    ('\nBATCH_SZE = 3', 3, '(did you mean BATCH_SIZE?)'),
    ('NOPE/macro.value = 3', 2, 'got unread NOPE'),
    ('ParquetInput.prefetch = %NOPE', 2, 'unbound %NOPE in ParquetInput.prefe'),
    ('CsvInput.prefetch = %NOPE\nExperiment.train_input = @CsvInput()', 2,
     'unbound %NOPE in CsvInput.prefetch'),
    ('DATA_DIR = %NOPE', 2, 'unbound %NOPE in DATA_DIR = %NOPE'),
    # what is bound but not used
    ('crt/Task.weight = 7.0', 2,
     'got unused crt/Task; check the spelling, or bind it where it is meant to '
     'be used (@crt/Task) (did you mean cvr/Task or ctr/Task?).'),
    ('sgd:\n  momentum = 0.1', 3, 'got unused sgd;'),
    # imports
    ('import no.such', 2, "No module named 'no'; modules are looked for in"),
    ('import raises', 2, 'The import failed with ZeroDivisionError: division'),
    # syntax
    ('PLE.num_levels = ', 2, 'Unable to parse value'),
    ('PLE.num_levels', 2, "Couldn't parse statement"),
    ('PLE.num_levels = 1 + 1', 2, 'Expected newline'),
    ('PLE .num_levels = 3', 2, 'Malformatted scope or selector'),
    ('DATA_DIR = data', 2, "Failed to parse token 'data' in 'DATA_DIR = data'"),
    ("DATA_DIR = 'data", 2, 'Unable to parse value'),
    ("DATA_DIR = '''data\n\n", 2, 'ends with three quotes'),
    ('\nDATA_DIR = [1, (2,\n3)\n# end', 3, 'The bracket [ must be closed.'),
    ('PLE.expert_units = (1,\nPLE.num_levels = 2', 2, 'The bracket ( must be'),
    ('PLE:\nnum_levels = 3', 3, 'Expected indentation'),
    ('PLE:\n  num_levels = 3\n num_levels = 4', 4, 'unindent does not match'),
    ('@x = 3', 2, "Unexpected token in '@x = 3'"),
    ('include 3', 2, 'Expected file path as string'),
    ('include', 2, 'Expected file path as string'),
    ('import', 2, 'Unexpected token'),
    # values, which the classes check
    ('PLE.num_levels = 0', 2, 'PLE.num_levels must be an integer of at least'),
    ('PLE.num_levels = %N\nN = 0', 3, 'PLE.num_levels must be an integer of'),
    ("FeatureSpec.overrides = {'x': {}}", 2, 'FeatureSpec.overrides must be'),
    ('PLE.expert_units = %gin.REQUIRED', 2, 'PLE.expert_units set to'),
])
def test_a_mistake_names_file_and_line(folder, text, line, message):
  folder(my__x_gin="include 'gin/base.gin'\n" + text, raises_py='1 / 0')
  found = refusal('my/x.gin')
  assert found.startswith('my/x.gin line %d: ' % line) and message in found


@pytest.mark.parametrize('binding, message', [
    ('PLE.num_levels = ', "binding 'PLE.num_levels =': Unable to parse value;"),
    ('PLE.num_level = 2', "binding 'PLE.num_level = 2': Configurable 'PLE' "),
    ('PLE.num_levels = [', 'The bracket [ must be closed.'),
    ('NOPE = 3', "binding 'NOPE = 3': Macros must be read"),
    ('PLE.num_levels = 0', "binding 'PLE.num_levels = 0': PLE.num_levels must"),
    ('Experiment.model = 3', 'Experiment.model must be an object such as @Mo'),
    ('Model.tasks = 3', 'Model.tasks must be a list of tasks'),
    ('Experiment.run_config = 3', 'Experiment.run_config must be a function'),
    ('Model.tasks = [@x/Task()]', 'Task.name, Task.label must be bound.'),
    ('BATCH_SIZE = %BATCH_SIZE',
     'in a circle, got %BATCH_SIZE -> %BATCH_SIZE.'),
    ('Tower.units = @Tower()', 'in a circle, got Tower -> Tower.'),
    ('Precision.compute = (@Model(), 1)',
     'in a circle, got Model -> Precision -> Model.'),
])
def test_a_mistake_names_the_line_of_the_command(binding, message):
  assert message in refusal('gin/base.gin', [binding])


def test_a_module_with_an_error_of_syntax_is_named(folder):
  folder(x_gin='import mine.broken', mine____init___py='',
         mine__broken_py='x = 1\ny = = 2')
  assert refusal('x.gin').startswith('mine/broken.py line 2: invalid syntax')


def test_a_name_that_two_modules_register_is_told(folder):
  name = 'Twin%d' % os.getpid()  # what is registered stays
  text = 'import gin\n@gin.register\nclass %s:\n  x = 1\n' % name
  folder(one_py=text, two_py=text,
         x_gin='import one\nimport two\nModel.network = @%s()' % name)
  assert 'x.gin line 3: Ambiguous selector' in refusal('x.gin')


def test_a_hash_in_a_text_hides_nothing(folder):
  folder(x_gin="""
      include 'gin/base.gin'
      SEPARATOR = '#'
      FeatureSpec.overrides = {'brand': {'kind': 'hashed_list', 'default': '#',
                                         'separator': %SEPARATOR}}
      """)
  config.load('x.gin')
  experiment.Experiment()


def test_a_macro_has_three_spellings(folder):
  folder(x_gin="""
      include 'gin/base.gin'
      levels/macro.value = 2
      PLE.num_levels = @levels/macro()
      my/EXPERTS = 4
      PLE.num_task_experts = %my/EXPERTS
      """)
  config.load('x.gin')
  network = gin.get_configurable('PLE')()
  assert (network._num_levels, network._num_task_experts) == (2, 4)


# ---------------------------------------------------- several runs, own code


def test_one_process_has_one_run_after_another(folder):
  config.load(['gin/mmoe.gin', 'gin/sgd.gin'])
  assert gin.config_is_locked()
  folder(x_gin="include 'gin/base.gin'\nimport late\nModel.network = @Late()",
         late_py='import gin\n@gin.register\nclass Late:\n  pass\n')
  for _ in range(2):
    config.load('x.gin')
    assert bound('PLE.num_levels', 'LEARNING_RATE/macro.value') == [3, 0.001]
    assert bound('Model.network')[0].selector == 'Late'


def test_a_command_finds_modules_of_the_current_folder(folder, monkeypatch):
  # The first entry of a console script is its own folder, not the current one.
  monkeypatch.setattr(sys, 'path', ['/usr/bin'] + [
      path for path in sys.path if path and path != os.getcwd()])
  folder(x_gin="include 'gin/base.gin'\nimport here",
         here_py='import gin\n@gin.register\nclass Here:\n  pass\n')
  config.load('x.gin')
  assert 'here' in sys.modules


def test_imports_of_a_file_hold_after_an_include(folder):
  folder(x_gin="""
      from __gin__ import dynamic_registration
      import unregistered
      from ple_estimator import model as m
      m.Model.network = @unregistered.Plain()
      include 'gin/base.gin'
      unregistered.Plain.units = 3
      m.Model.network = @unregistered.Plain()
      """, unregistered_py='class Plain:\n'
                           '  def __init__(self, units=1):\n'
                           '    self.units = units\n')
  config.load('x.gin')
  assert gin.query_parameter('Plain.units') == 3


def snippets():
  """(name, files) of each example of "Your own code" in gin/README.md."""
  with open(os.path.join(conftest.ROOT, 'gin', 'README.md')) as f:
    text = f.read().partition('## Your own code')[2].partition('\n## ')[0]
  files = re.findall(r'`(\w+\.(?:py|gin))`:\n\n```\w*\n(.*?)```', text, re.S)
  return [dict(pair) for pair in zip(files[::2], files[1::2])]


@pytest.mark.slow
@pytest.mark.parametrize('files', snippets(), ids=lambda files: max(files))
def test_the_examples_of_own_code_train(folder, taobao, tmp_path, monkeypatch,
                                        files):
  monkeypatch.setattr(column_kinds, 'KINDS', column_kinds.KINDS.copy())
  folder()
  module, gin_file = sorted(files, key=lambda name: name.endswith('.gin'))
  assert len(files[module].splitlines()) <= 15
  for name, text in files.items():
    (tmp_path / name).write_text(text)
  tables = dict(SMALL_TABLES)
  bindings = TINY + ['DATA_DIR = %r' % taobao, 'PLE.gate_units = ()']
  if 'overrides' in files[gin_file]:
    tables['brand'] = dict(tables['brand'], kind='any_case')
  loaded = config.load(gin_file, bindings + [
      'FeatureSpec.overrides = %r' % tables])
  made = experiment.Experiment()
  with tf.Graph().as_default():
    made.train()
  where = os.path.join('result', loaded.name)
  assert os.path.exists(os.path.join(where, 'model.ckpt-2.index'))
  # The record repeats the run, own module included.
  config.load(os.path.join(where, 'operative_config-0.gin'))
  with open(os.path.join(where, 'operative_config-0.gin')) as f:
    assert 'import %s' % module[:-3] in f.read()


def test_the_snippets_are_four():
  assert len(snippets()) == 4 and all(len(files) == 2 for files in snippets())


def test_a_kind_of_column_is_registered_once(monkeypatch):
  monkeypatch.setattr(column_kinds, 'KINDS', column_kinds.KINDS.copy())

  class Mine(column_kinds.Number):
    pass

  for _ in range(2):  # a module may be loaded again
    assert column_kinds.register_kind('mine')(Mine) is Mine
  made = feature_spec.FeatureSpec([{'name': 'x', 'kind': 'mine', 'mean': 2.0}])
  assert isinstance(made['x'], Mine) and made.numbers == ['x']
  with pytest.raises(errors.UserError, match="got 'hashed', which is that of"):
    column_kinds.register_kind('hashed')(Mine)
  with pytest.raises(errors.UserError,
                     match='must be a subclass of column_kinds'):
    column_kinds.register_kind('other')(dict)
