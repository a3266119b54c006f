"""The pages of `make docs`: the Markdown of the checkout, by Sphinx.

The files stay where they are, so that their links work on GitHub, in an editor
and here: the checkout is the source folder, and each README.md is a page. A
link to a page, a heading or a file that does not exist is a warning, which
`make docs` turns into an error.
"""

import re

# Sphinx reads this file in its own folder.
with open('../ple_estimator/__init__.py', encoding='utf-8') as f:
  release = re.search(r"__version__ = '(.*)'", f.read()).group(1)
project = 'ple_estimator'
html_title = 'ple_estimator %s' % release

# The sidebar, in this order.
_PAGES = [
    ('Reference', [
        'gin/README', 'data/README', 'result/README', 'distribute_k8s/README',
        'tools/README', 'ple_estimator/engine/kernels/README']),
    ('About', ['docs/glossary', 'docs/design', 'docs/comparison',
               'CONTRIBUTING', 'CHANGELOG'])]
root_doc = 'README'
include_patterns = ['README.md'] + [
    page + '.md' for _, pages in _PAGES for page in pages]
exclude_patterns = ['.*', 'build', 'dist']  # are not even looked into

extensions = ['myst_parser']
myst_heading_anchors = 4  # as deep as the headings that GitHub gives anchors to
highlight_language = 'text'  # of indented blocks, which are commands and output
html_theme = 'furo'
html_copy_source = False
html_show_sphinx = False
# What is wider than the page can be scrolled by the keyboard too, and the
# sidebar's captions are headings of a level.
html_js_files = [(None, {'body': '''
addEventListener('DOMContentLoaded', () => {
  for (const of of document.querySelectorAll('pre, .table-wrapper'))
    of.tabIndex = 0;
  for (const of of document.querySelectorAll('[role=heading]'))
    of.ariaLevel = 2;
});'''})]


def _add_sidebar(app, docname, source):
  """Adds the tree of pages to the first one."""
  if docname == root_doc:
    source[0] += ''.join(
        '\n```{toctree}\n:hidden:\n:caption: %s\n%s\n```\n' % (
            caption, '\n'.join(pages)) for caption, pages in _PAGES)


def setup(app):
  app.connect('source-read', _add_sidebar)
