"""The Markdown names what exists, and the pictures show what is there."""

import glob
import os
import re

import conftest
import draw_pictures
import pytest

from ple_estimator.commands import words

FOLDERS = ('', 'data', 'distribute_k8s', 'docs', 'gin', 'ple_estimator/**',
           'result', 'tools')
DOCUMENTS = sorted(
    os.path.relpath(path, conftest.ROOT) for folder in FOLDERS
    for path in glob.glob(os.path.join(conftest.ROOT, folder, '*.md'),
                          recursive=True))
each_document = pytest.mark.parametrize('document', DOCUMENTS)
_MAX_COLUMNS = 120
# A quoted text is a path of the checkout if it ends like one of its files, or
# begins with one of its folders.
_PATH = re.compile(
    r'[\w*-][\w.*/-]*\.(py|gin|cc|h|md|yaml|svg)$|'
    r'(ple_estimator|gin|tools|tests|docs|distribute_k8s|\.ci)/[\w.*/-]*$')
# Files of the reader's, and those that a run writes.
_OF_THE_READER = re.compile('(my|result)/|operative_config')


def _read(document):
  with open(os.path.join(conftest.ROOT, document), encoding='utf-8') as f:
    return f.read()


def _prose(text):
  """A document without its fenced and indented blocks."""
  return re.sub(r'^ {4}.*$', '', re.sub(
      r'^```.*?^```', '', text, flags=re.M | re.S), flags=re.M)


def _quoted_paths(text):
  """The paths of the checkout that a document has in backquotes.

  Files that the document itself shows in full (`name`: and a block) are left
  out, and so are those of a run or of the reader.
  """
  shown = set(re.findall(r'`([\w.]+)`:\n\n```', text))
  return [quoted for quoted in re.findall('`([^`\n]+)`', _prose(text))
          if _PATH.match(quoted) and quoted not in shown
          and not _OF_THE_READER.match(quoted)]


def _exists(path, document):
  """Whether a path or pattern is in the root or in a document's folder."""
  return any(glob.glob(os.path.join(conftest.ROOT, folder, path))
             for folder in ('', os.path.dirname(document)))


def _anchors(text):
  """The anchors that GitHub gives to the headings of a document."""
  return {re.sub(r'[^\w -]', '', heading).lower().replace(' ', '-')
          for heading in re.findall(r'^#+ (.*)$', _prose(text), re.M)}


def test_there_are_documents():
  assert {'README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'gin/README.md',
          'ple_estimator/engine/kernels/README.md'} <= set(DOCUMENTS)


@each_document
def test_lines_fit(document):
  # A row of a table cannot be broken.
  assert not [line for line in _read(document).splitlines()
              if len(line) > _MAX_COLUMNS and not line.startswith('|')]


@each_document
def test_paths_in_backquotes_exist(document):
  assert not [path for path in _quoted_paths(_read(document))
              if not _exists(path, document)]


def test_a_path_that_does_not_exist_is_seen():
  text = ('`gin/base.gin` `nope.py` `gin/nope*` `my/a.gin` `own.py`:\n\n```py\n'
          '`b.py`\n```\n    `c.py`\n')
  assert _quoted_paths(text) == ['gin/base.gin', 'nope.py', 'gin/nope*']
  assert not _exists('gin/nope*', 'gin/README.md')
  assert _exists('base.gin', 'gin/README.md')


@each_document
def test_links_lead_somewhere(document):
  text = _read(document)
  for target in re.findall(r'\]\(([^)\s]+)\)', text):
    path, _, anchor = target.partition('#')
    where = os.path.normpath(os.path.join(os.path.dirname(document), path))
    where = where if path else document
    assert os.path.exists(os.path.join(conftest.ROOT, where)), target
    assert not anchor or anchor in _anchors(_read(where)), target


@each_document
def test_commands_and_their_files_exist(document):
  text = _read(document)
  named = re.findall(r'\bple-estimator ([a-z][\w-]*)', text)
  assert set(named) <= set(words.MODULES)
  files = re.findall(r'python3? (tools/\w+\.py)', text)
  files += re.findall(r'--gin_file=([\w/.-]+)', text)
  files += re.findall(r'\bgin/\w+\.gin\b', text)
  assert not [path for path in files if not _OF_THE_READER.match(path)
              and not re.match(r'gin/$|\.+$', path)
              and not _exists(path, document)]


def test_every_command_and_tool_is_described():
  everything = ''.join(map(_read, DOCUMENTS))
  for word in words.MODULES:
    assert 'ple-estimator %s' % word in everything
  tools = _read('tools/README.md')
  for path in glob.glob(os.path.join(conftest.ROOT, 'tools', '*.py')):
    assert '`%s`' % os.path.basename(path) in tools


def test_make_docs_installs_the_extra():
  names = re.search(r"'docs': \[(.*)\]", _read('setup.py')).group(1)
  assert sorted(re.findall("'(.*?)'", names)) == sorted(re.findall(
      r'([\w-]+)==', _read('Makefile').split('$(DOCS)/installed:')[1]))


@each_document
def test_each_document_is_a_page_of_make_docs(document):
  assert "'%s'" % document[:-len('.md')] in _read('docs/conf.py')


@pytest.mark.parametrize('name', sorted(draw_pictures.PICTURES))
def test_pictures_are_those_of_the_script(name):
  assert _read(os.path.join('docs', name)) == draw_pictures.PICTURES[name](), (
      'python tools/draw_pictures.py draws them again.')
