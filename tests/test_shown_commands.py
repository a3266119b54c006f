"""Every command that a document shows can be typed as it stands.

The blocks of commands are run by bash in a folder in which each program is a
stand-in that notes what it was called with, so that quotes, loops, variables
and lines that go on are the shell's. What was noted is then given to the
parser of the program itself: its flags and words exist, its values have the
right form, and the .gin files and bindings that it names make an experiment.
Only a command that is cheap is run as well, by the test of what it does.
"""

import argparse
import ast
import glob
import importlib
import os
import re
import shlex
import subprocess
import sys

from absl import flags
import conftest
import gin
import pytest

from ple_estimator import config
from ple_estimator import experiment
from ple_estimator import run as run_module  # noqa: F401, its flags
from ple_estimator.commands import words

FOLDERS = ('', 'data', 'distribute_k8s', 'docs', 'gin', 'ple_estimator/**',
           'result', 'tools')
DOCUMENTS = sorted(
    os.path.relpath(path, conftest.ROOT) for folder in FOLDERS
    for path in glob.glob(os.path.join(conftest.ROOT, folder, '*.md'),
                          recursive=True))
each_document = pytest.mark.parametrize('document', DOCUMENTS)
# Programs whose arguments are checked here, and those that are not ours.
OURS = ('ple-estimator', 'python', 'python3', 'pip', 'make', 'pytest')
OTHERS = ('docker', 'curl', 'kubectl', 'sed', 'grep', 'tensorboard', 'mv',
          'mkdir', 'git')
_SHELL = ('for', 'printf', 'export')
_PYTHON = '.venv/python3.11/bin/python'
_STAND_IN = '''#!/bin/bash
printf '%s\\0' "$CALLS_IN" "${0##*/}" "$@" $'\\n' >> "$CALLS"
'''
# Files of the reader's, which are not in the checkout.
_OF_THE_READER = re.compile(r'(my|result|data)/|other\.gin$')
# An argparse error of a command that a sentence shows in part.
_IN_PART = re.compile('arguments are required|expected (one|at least one) arg')


def _read(document):
  with open(os.path.join(conftest.ROOT, document), encoding='utf-8') as f:
    return f.read()


def blocks(text):
  """The indented and fenced blocks of a document that are commands.

  Args:
    text: str.

  Returns:
    list of str, without the indentation.
  """
  fenced = re.findall(r'^```(?:sh|bash|shell)\n(.*?)^```', text, re.M | re.S)
  text = re.sub(r'^```.*?^```', '', text, flags=re.M | re.S)
  indented = [re.sub('^ {4}', '', block, flags=re.M) for block in re.findall(
      r'(?:^(?:#.*)?\n|\A)((?: {4}.*\n?)+)', text, re.M)]
  return fenced + [block for block in indented if re.match(
      r'(\S*/)?(%s)(\s|$)' % '|'.join(OURS + OTHERS + _SHELL), block)]


def quoted(text):
  """The commands between backquotes in the sentences of a document."""
  text = re.sub(r'^ {4}.*$', '', re.sub(
      r'^```.*?^```', '', text, flags=re.M | re.S), flags=re.M)
  found = [' '.join(span.split()) for span in re.findall('`([^`]+)`', text)]
  return [span for span in found if re.match(
      r'(%s) [^<]+$' % '|'.join(OURS), span) and '@sha' not in span]


def calls(script, folder):
  """What a block of commands calls, each a list of str.

  Args:
    script: str.
    folder: pathlib.Path, an empty folder.

  Raises:
    AssertionError: if the shell refuses it, or it calls an unknown program.
  """
  bin_folder, log = folder / 'bin', folder / 'calls'
  for name in [str(bin_folder / name) for name in OURS + OTHERS] + [
      str(folder / _PYTHON)]:
    os.makedirs(os.path.dirname(name), exist_ok=True)
    with open(name, 'w') as f:
      f.write(_STAND_IN)
    os.chmod(name, 0o755)
  log.write_text('')
  done = subprocess.run(
      ['/bin/bash', '-c', script], cwd=str(folder), stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
      env={'PATH': str(bin_folder), 'CALLS': str(log), 'CALLS_IN': '',
           'HOME': str(folder)})
  trouble = re.findall('.*(?:not found|syntax error|No such file|unexpected).*',
                       done.stderr)
  assert not [line for line in trouble if 'LD_PRELOAD' not in line], script
  found = [record.split('\0')[1:] for record in log.read_text().split('\0\n\0')
           if record]
  assert found, script
  return found


class _Parsed(Exception):
  """A command line was parsed."""


def _parse_only(monkeypatch):
  """Has every argparse parser stop once it has accepted a command line."""
  def parse_args(parser, args=None, namespace=None):
    found, rest = parser.parse_known_args(args, namespace)
    if rest:
      parser.error('unrecognized arguments: %s' % ' '.join(rest))
    raise _Parsed(found)

  monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)


def _check_run(arguments):
  """Checks `ple-estimator --gin_file=... --mode=...`."""
  try:
    rest = flags.FLAGS(['ple-estimator'] + arguments)
    assert rest == ['ple-estimator'], rest
    found = flags.FLAGS.gin_file or [], flags.FLAGS.gin_bindings
  finally:
    flags.FLAGS.unparse_flags()
    for name in ('gin_file', 'gin_bindings', 'mode', 'checkpoint'):
      flags.FLAGS[name].unparse()
  gin_files, bindings = found
  there = [os.path.exists(os.path.join(conftest.ROOT, path))
           for path in gin_files]
  for path, is_there in zip(gin_files, there):
    assert is_there or _OF_THE_READER.match(path), path
  if all(there):
    loaded = config.load(gin_files, bindings + [
        "Experiment.model_dir = 'result/of_a_test'"])
    with config.explained(loaded):
      experiment.Experiment()
    gin.clear_config()


def _check_ours(arguments):
  """Checks `ple-estimator ...`."""
  if arguments[0] not in words.MODULES:
    _check_run(arguments)
    return
  with pytest.raises(_Parsed) as parsed:
    words.run(arguments[0], arguments[1:])
  rest = getattr(parsed.value.args[0], 'arguments', None)
  if arguments[0] == 'local-cluster' and rest:
    _check_run([text for text in rest if text != '--'])


def _check_python(arguments, monkeypatch):
  """Checks `python tools/<name>.py ...` and `python -m <module> ...`."""
  if arguments[0] == '-m':
    if arguments[1] == 'ple_estimator.run':
      _check_ours(arguments[2:])
    else:
      assert importlib.util.find_spec(arguments[1]), arguments
    return
  name, = re.findall(r'^tools/(\w+)\.py$', arguments[0])
  tool = importlib.import_module(name)
  monkeypatch.setattr(sys, 'argv', arguments)
  with pytest.raises(_Parsed):
    tool.main()


def _check_pip(arguments):
  """Checks the extras of this package."""
  with open(os.path.join(conftest.ROOT, 'setup.py')) as f:
    call, = [node for node in ast.walk(ast.parse(f.read()))
             if isinstance(node, ast.keyword) and node.arg == 'extras_require']
  extras = {key.value if hasattr(key, 'value') else key.s
            for key in call.value.keys}
  assert arguments[0] == 'install'
  for text in arguments[1:]:
    own = re.match(r'(?:\.|ple-estimator)\[(.*)\]$', text)
    assert not own or set(own.group(1).split(',')) <= extras, text


def _check_make(arguments):
  with open(os.path.join(conftest.ROOT, 'Makefile')) as f:
    known = set(re.findall(r'^(\w+):', f.read(), re.M))
  assert {text for text in arguments if '=' not in text} <= known


def check(call, monkeypatch):
  """Checks one call, of `calls`.

  Args:
    call: list of str.
    monkeypatch: pytest's.
  """
  name, arguments = call[0], call[1:]
  if name == 'ple-estimator':
    _check_ours(arguments)
  elif name in ('python', 'python3'):
    _check_python(arguments, monkeypatch)
  elif name == 'pip':
    _check_pip(arguments)
  elif name == 'make':
    _check_make(arguments)
  elif '--' in arguments:  # kubectl exec
    check(arguments[arguments.index('--') + 1:], monkeypatch)
  for text in arguments:
    assert not re.match('(tools|tests|distribute_k8s)/', text) or (
        glob.glob(os.path.join(conftest.ROOT, text))), text


@each_document
def test_the_blocks_of_commands_can_be_typed(document, tmp_path, monkeypatch):
  _parse_only(monkeypatch)
  for i, block in enumerate(blocks(_read(document))):
    folder = tmp_path / str(i)
    folder.mkdir()
    for call in calls(block, folder):
      check(call, monkeypatch)


@each_document
def test_the_commands_of_sentences_can_be_typed(document, monkeypatch, capsys):
  _parse_only(monkeypatch)
  for text in quoted(_read(document)):
    try:
      check(shlex.split(text), monkeypatch)
    except SystemExit as end:
      said = capsys.readouterr().err
      assert end.code == 0 or _IN_PART.search(said), (text, said)


def test_the_documents_have_commands():
  found = {document: len(blocks(_read(document))) for document in DOCUMENTS}
  assert found['README.md'] >= 11 and found['gin/README.md'] >= 8
  assert found['tools/README.md'] >= 8
  assert len(quoted(_read('README.md'))) >= 5


@pytest.mark.parametrize('script, message', [
    ('ple-estimator --gin_file=gin/nope.gin', 'gin/nope.gin'),
    ('ple-estimator --gin_files=gin/base.gin', 'gin_files'),
    ('ple-estimator --gin_file=gin/base.gin --mode=tests', 'mode'),
    ("ple-estimator --gin_file=gin/base.gin --gin_bindings='PLE.level = 2'",
     'PLE'),
    ('for a in 1 2; do ple-estimator --gin_file=gin/base.gin \\\n'
     '    --gin_bindings=PLE.num_levels=-$a; done', 'num_levels'),
    ('ple-estimator compare result/a', 'required: B'),
    ('ple-estimator report a --outs b', '--outs'),
    ('python tools/make_data.py --out a --trains 3', '--trains'),
    ('ple-estimator local-cluster --workers 2 -- --gin_file=gin/no.gin',
     'gin/no.gin'),
    ("pip install '.[reports]'", 'reports'),
    ('make runs', 'runs'),
    ('pytest tests/nope.py', 'tests/nope.py'),
    ('kubectl apply -f distribute_k8s/x.yaml', 'distribute_k8s/x.yaml'),
    ('kubectl exec x -- python tools/make_data.py --x', '--x'),
])
def test_a_command_that_cannot_be_typed_is_seen(script, message, tmp_path,
                                                monkeypatch, capsys):
  _parse_only(monkeypatch)
  with pytest.raises((AssertionError, SystemExit, Exception)) as raised:
    for call in calls(script, tmp_path):
      check(call, monkeypatch)
  assert not isinstance(raised.value, _Parsed)
  assert message in str(raised.value) + capsys.readouterr().err


@pytest.mark.parametrize('script', [
    'ple-estimators run', 'for a in 1; do make run', "make 'run",
    'ple-estimator --mode=train | no_such_program'])
def test_what_the_shell_refuses_is_seen(script, tmp_path):
  with pytest.raises(AssertionError):
    calls(script, tmp_path)
