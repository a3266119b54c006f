"""The shape of the package: who may import whom, and how long things are."""

import ast
import os
import re

import conftest
import pytest

PACKAGE = os.path.join(conftest.ROOT, 'ple_estimator')
# Folders, and modules that lie in none, from the bottom to the top. Each
# imports only from what stands before it; inside a folder the same holds for
# its modules.
ORDER = [
    ('errors', []),
    ('files', []),
    ('engine', ['compat', 'native']),
    ('cluster', ['roles', 'marker', 'watch', 'parameter_servers',
                 'work_queue.ledger', 'work_queue.plan',
                 'work_queue.bookkeeping', 'work_queue.states',
                 'work_queue.link', 'work_queue.client',
                 'work_queue.work_queue']),
    ('network', ['metrics', 'micro_batching', 'precision', 'mlp', 'ple',
                 'towers', 'tasks']),
    ('data', ['column_kinds', 'feature_spec', 'packing', 'predictions',
              'stream', 'readers', 'serving', 'inputs']),
    ('embeddings', ['admission', 'deeprec', 'keyed_table', 'hashed', 'keyed']),
    ('optimizers', ['touched_rows', 'update_rules', 'factories', 'train_op']),
    ('training', ['hooks', 'incremental', 'model_dir', 'saver',
                  'compatibility', 'evaluation']),
    ('model', []),
    ('experiment', []),
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


@each_module
def test_no_argument_shadows_a_module(module):
  imported = {name.rpartition('.')[2] for name in _imports(module)
              if name.startswith('ple_estimator.')}
  for node in ast.walk(_tree(module)):
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
