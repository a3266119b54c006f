"""The import direction of the package, kept by a test."""

import ast
import glob
import os

import pytest

import conftest

PACKAGE = os.path.join(conftest.ROOT, 'ple_estimator')
# A module imports only from rows above its own.
ROWS = [
    ['cache', 'errors'],
    ['engine', 'native_build'],
    ['admission', 'native'],
    ['deeprec'],
    ['cluster', 'features', 'keyed_tables', 'ledger', 'metrics', 'nets',
     'packing', 'precision', 'touched_rows', 'update_rules'],
    ['embeddings', 'heads', 'hooks', 'incremental', 'job', 'microbatch',
     'networks', 'optimizers', 'predictions', 'readers',
     'work_queue'],
    ['checkpoints', 'embedding_variables', 'evaluation', 'inputs', 'model'],
    ['experiment'],
    ['run'],
]
ROW = {name: i for i, row in enumerate(ROWS) for name in row}
MODULES = sorted(
    os.path.splitext(os.path.basename(path))[0]
    for path in glob.glob(os.path.join(PACKAGE, '*.py'))
    if not path.endswith('__init__.py'))
each_module = pytest.mark.parametrize('module', MODULES)


def _tree(module):
  with open(os.path.join(PACKAGE, module + '.py')) as f:
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


def test_every_module_has_a_row():
  assert sorted(ROW) == MODULES


@each_module
def test_imports_point_up(module):
  for name in _imports(module):
    if name.startswith('ple_estimator.'):
      other = name.split('.')[1]
      assert ROW[other] < ROW[module], '%s imports %s' % (module, other)


@each_module
def test_only_engine_touches_private_tensorflow(module):
  names = list(_imports(module))
  assert module == 'engine' or not [
      n for n in names if n.startswith('tensorflow.python')]
  assert [n for n in names if n.startswith('tensorflow')] in (
      [], ['tensorflow.compat.v1']) or module == 'engine'


@each_module
def test_functions_fit_a_screen(module):
  for node in ast.walk(_tree(module)):
    if isinstance(node, ast.FunctionDef):
      body = node.body[1:] if ast.get_docstring(node) else node.body
      lines = body[-1].lineno - body[0].lineno + 1 if body else 0
      assert lines <= 50, '%s.%s' % (module, node.name)


@each_module
def test_public_names_are_documented(module):
  for node in _tree(module).body:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
      if not node.name.startswith('_'):
        assert ast.get_docstring(node), '%s.%s' % (module, node.name)
