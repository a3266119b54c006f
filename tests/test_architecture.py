"""The shape of the package: who may import whom, and how long things are."""

import ast
import importlib
import inspect
import os
import re

import conftest
import pytest
import tensorflow.compat.v1 as tf

PACKAGE = os.path.join(conftest.ROOT, 'ple_estimator')
# Folders, and modules that lie in none, from the bottom to the top. Each
# imports only from what stands before it; inside a folder the same holds for
# its modules.
ORDER = [
    ('errors', []),
    ('files', []),
    ('colors', []),
    ('metrics', ['ranking', 'probabilities', 'intervals', 'paired', 'seeds',
                 'chosen']),
    ('storage', ['uris', 'remote', 'streams', 'sources', 'folders']),
    ('gin_files', ['places', 'statements', 'messages', 'reader', 'applying',
                   'checks', 'operative']),
    ('engine', ['collector', 'compat', 'build', 'native', 'forms', 'purpose']),
    ('cluster', ['roles', 'marker', 'watch', 'parameter_servers',
                 'work_queue.ledger', 'work_queue.plan',
                 'work_queue.bookkeeping', 'work_queue.states',
                 'work_queue.link', 'work_queue.client',
                 'work_queue.work_queue']),
    ('network', ['metrics', 'losses', 'micro_batching', 'precision',
                 'batch_norm', 'mlp', 'ple', 'transfer', 'towers', 'tasks',
                 'gate_pictures',
                 'objective', 'gradients']),
    ('data', ['arrow_values', 'parquet_files', 'columns.base',
              'columns.numbers', 'columns.vector', 'columns.targets',
              'columns.weighted_items', 'columns.aligned',
              'columns.weight_list', 'columns.categories',
              'columns.item_limit', 'columns.hashed_list',
              'columns.bucketised', 'columns.siphash', 'columns.vocabulary',
              'columns.crossed', 'columns.tables', 'columns.ranges',
              'column_kinds',
              'feature_spec', 'reading', 'packing', 'value_vectors', 'sampling',
              'predictions', 'serving', 'encoders',
              'input_files', 'read_plan', 'row_checks', 'reader', 'csv_dialect',
              'csv_lines', 'csv_reader', 'parquet_reader', 'path_columns',
              'stream', 'row_sources', 'inputs']),
    ('embeddings', ['splitmix64', 'admission', 'deeprec', 'table_parts',
                    'table_columns', 'row_allocator', 'table_slots',
                    'table_state', 'keyed_table_checkpoint', 'keyed_table',
                    'partitioned_table', 'hashed', 'keyed',
                    'attention']),
    ('interactions', ['interaction', 'wide', 'factorization_machine',
                      'field_weighted', 'dot_products', 'cross_net',
                      'periodic', 'binned', 'combined']),
    ('balancing', ['batch', 'balancing', 'uncertainty_weights',
                   'dynamic_weight_average', 'grad_norm', 'pcgrad']),
    ('optimizers', ['touched_rows', 'update_rules', 'factories',
                    'deeprec_optimizers', 'averaging', 'train_op']),
    ('training', ['intervals', 'hooks', 'checkpoints', 'lock', 'incremental',
                  'model_dir', 'disk', 'metrics_file', 'losses',
                  'late_averages', 'saver', 'input_plan', 'input_state',
                  'compatibility', 'comparison', 'daily', 'evaluations',
                  'early_stopping', 'summary', 'exports',
                  'evaluated_rows',
                  'evaluator', 'evaluation', 'hparams',
                  'starting_vectors', 'layout', 'transfer', 'keyed_transfer',
                  'known_values', 'warm_start', 'estimator', 'answering',
                  'ending', 'trainer']),
    ('model', []),
    ('components', []),
    ('experiment', []),
    ('config', []),
    ('api', []),
    ('commands', ['words', 'measure', 'csv_to_parquet', 'inspect_embeddings',
                  'loopback', 'local_cluster', 'init.sniffing', 'init.lists',
                  'init.rows', 'init.distinct', 'init.dates',
                  'init.describing',
                  'init.choosing', 'init.labels', 'init.splitting',
                  'init.copying', 'init.like_columns', 'init.writing',
                  'init.report', 'init.command', 'report.configs',
                  'report.events', 'report.rows', 'report.document',
                  'report.charts', 'report.importances', 'report.runs',
                  'report.measures', 'report.resampling', 'report.comparisons',
                  'report.facts', 'report.curves', 'report.overview',
                  'report.learning',
                  'report.quality', 'report.inside', 'report.tables',
                  'report.costs', 'report.summaries', 'report.contents',
                  'report.page', 'report.terminal', 'report.command',
                  'report.compare', 'sweep.space', 'sweep.trials',
                  'sweep.search', 'sweep.optuna_search', 'sweep.stopping',
                  'sweep.sweep', 'sweep.records', 'sweep.checking',
                  'sweep.pool', 'sweep.runs', 'sweep.training',
                  'sweep.results', 'sweep.command', 'trust.text',
                  'trust.saving', 'trust.runs', 'trust.rows', 'trust.check',
                  'trust.associations', 'trust.judged', 'trust.permuting',
                  'trust.importance', 'trust.shapley', 'trust.explaining',
                  'trust.explain']),
    ('run', []),
]
RANK = {}
for at, (name, members) in enumerate(ORDER):
  if members:
    RANK.update(('%s.%s' % (name, member), (at, i))
                for i, member in enumerate(members))
  else:
    RANK[name] = (at, 0)


def _modules():
  """Yields the dotted names of all modules, those of folders included."""
  for folder, _, names in os.walk(PACKAGE):
    for name in names:
      if name.endswith('.py'):
        path = os.path.relpath(os.path.join(folder, name), PACKAGE)
        yield path[:-len('.py')].replace(os.sep, '.')


EVERY = sorted(_modules())
MODULES = [name for name in EVERY if not name.endswith('__init__')]
FOLDERS = [name for name in EVERY if name.endswith('__init__')]
each_module = pytest.mark.parametrize('module', MODULES)


def _tree(module):
  path = os.path.join(PACKAGE, module.replace('.', os.sep) + '.py')
  with open(path) as f:
    return ast.parse(f.read())


def _imports(module):
  """Yields the dotted names that a module of the package imports."""
  for node in ast.walk(_tree(module)):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield alias.name
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        yield '%s.%s' % (node.module, alias.name)


def _end(node):
  """The last line of a node; Python 3.7's ast does not say it."""
  return max(getattr(n, 'end_lineno', None) or getattr(n, 'lineno', 0)
             for n in ast.walk(node))


def test_every_module_has_a_place():
  assert sorted(RANK) == MODULES


@each_module
def test_imports_point_down(module):
  for name in _imports(module):
    if name.startswith('ple_estimator.'):
      other = name[len('ple_estimator.'):]
      assert other in RANK, '%s imports %s' % (module, other)
      assert RANK[other] < RANK[module], '%s imports %s' % (module, other)


@pytest.mark.parametrize('folder', FOLDERS)
def test_a_folder_says_what_lives_there(folder):
  tree = _tree(folder)
  assert len(ast.get_docstring(tree) or '') > 40
  assert len(tree.body) == 1 or folder == '__init__'


@each_module
def test_only_the_engine_touches_private_tensorflow(module):
  names = list(_imports(module))
  assert module.startswith('engine.') or not [
      n for n in names if n.startswith('tensorflow.python')]
  assert [n for n in names if n.startswith('tensorflow')] in (
      [], ['tensorflow.compat.v1']) or module.startswith('engine.')


# Private by their name only: what the standard library documents.
_PUBLIC = {'_replace', '_asdict', '_fields', '_make', '_exit'}
# What a subclass of tf.train.Optimizer is documented to implement.
_EXTENSION_POINTS = {
    '_create_slots', '_prepare', '_finish', '_apply_dense', '_apply_sparse',
    '_resource_apply_dense', '_resource_apply_sparse',
    '_resource_apply_sparse_duplicate_indices'}
_outside_of_the_engine = pytest.mark.parametrize(
    'module', [name for name in MODULES if not name.startswith('engine.')])


def _is_own(node):
  """Whether an expression is the object, or class, that a method is of."""
  if isinstance(node, ast.Call):
    return isinstance(node.func, ast.Name) and node.func.id == 'super'
  return isinstance(node, ast.Name) and node.id in ('self', 'cls')


def _others_attributes(tree):
  """The private attributes of other objects that a module touches."""
  return {node.attr for node in ast.walk(tree)
          if isinstance(node, ast.Attribute) and re.match('_[a-z]', node.attr)
          and not _is_own(node.value)} - _PUBLIC


def _own_names(tree):
  """The private names that a class reads, sets or defines on itself."""
  return {node.attr for node in ast.walk(tree)
          if isinstance(node, ast.Attribute) and _is_own(node.value)} | {
              node.name for node in ast.walk(tree)
              if isinstance(node, ast.FunctionDef)}


def _inherited_private(base):
  """The private names that a class of TensorFlow has or sets."""
  return {name for name in vars(base) if re.match('_[a-z]', name)} | set(
      re.findall(r'\bself\.(_[a-z]\w*)', inspect.getsource(base)))


@_outside_of_the_engine
def test_no_private_attribute_of_another_object(module):
  assert not _others_attributes(_tree(module))


def test_a_private_attribute_of_another_object_is_seen():
  assert _others_attributes(ast.parse(
      'self._a; super()._b(); spec._replace(); x._c; f()._d; y[0]._e = 1; '
      'self.z._f')) == {'_c', '_d', '_e', '_f'}


@_outside_of_the_engine
def test_no_private_name_of_a_tensorflow_class(module):
  loaded = importlib.import_module('ple_estimator.' + module)
  for node in ast.walk(_tree(module)):
    found = isinstance(node, ast.ClassDef) and getattr(loaded, node.name, None)
    if not found:
      continue
    bases = [base for base in inspect.getmro(found)
             if re.match('tensorflow|keras', base.__module__)]
    private = set().union(*map(_inherited_private, bases)) - _EXTENSION_POINTS
    assert not _own_names(node) & private, '%s.%s' % (module, node.name)


def test_a_private_name_of_a_tensorflow_class_is_seen():
  private = _inherited_private(tf.train.CheckpointSaverHook)
  assert {'_save', '_timer', '_listeners', '_summary_writer'} <= private
  assert '_var_list' in _inherited_private(tf.train.Saver)
  assert _own_names(ast.parse(
      'class A:\n  def _save(self):\n    self._timer = x._y')) == {
          '_save', '_timer'}


@each_module
def test_no_argument_shadows_a_module(module):
  tree = _tree(module)
  imported = {alias.asname or alias.name for node in ast.walk(tree)
              if isinstance(node, ast.ImportFrom) and
              node.module.startswith('ple_estimator') for alias in node.names}
  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef):
      arguments = {a.arg for a in node.args.args + node.args.kwonlyargs}
      assert not arguments & imported, '%s.%s' % (module, node.name)


@each_module
def test_functions_fit_a_screen(module):
  for node in ast.walk(_tree(module)):
    if isinstance(node, ast.FunctionDef):
      body = node.body[1:] if ast.get_docstring(node) else node.body
      lines = _end(node) - body[0].lineno + 1 if body else 0
      assert lines <= 50, '%s.%s has %d lines' % (module, node.name, lines)


@each_module
def test_public_names_are_documented(module):
  for node in _tree(module).body:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
      if not re.match('_', node.name):
        assert ast.get_docstring(node), '%s.%s' % (module, node.name)
