#!/usr/bin/env python3
"""Draws the pictures of the README.

  python tools/draw_pictures.py            # docs/ple.svg and docs/folders.svg
  python tools/draw_pictures.py --out DIR  # the same in another folder

ple.svg shows two levels of PLE with two tasks. folders.svg shows the folders of
the package in the order of tests/test_architecture.py, each with the first
sentence of its docstring and with its modules, so it cannot differ from the
code. tests/test_words.py fails if docs/ does not hold what this script draws.
"""

import argparse
import ast
import html
import os
import re
import textwrap

from ple_estimator import colors

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_WIDTH = 760


def _task(index):
  """The colour of a task, as in the report, in light and in dark mode."""
  return tuple(colors.PALETTES[mode][index] for mode in ('light', 'dark'))


# Class: (its colour in light mode, its colour in dark mode).
_FILLS = {'page': ('#ffffff', '#0d1117'), 'frame': ('#f3f4f6', '#161b22'),
          'shared': ('#dfe3e8', '#30363d'), 'ctr': ('#cfe4ff', '#153a66'),
          'cvr': ('#ffe2c2', '#5a3410'), 'text': ('#1f2328', '#e6edf3'),
          'quiet': ('#59636e', '#9aa4af')}
_STROKES = {'shared': ('#6e7781', '#8b949e'), 'ctr': _task(0),
            'cvr': _task(1)}
_FONTS = ('text { font-family: Helvetica, Arial, sans-serif; font-size: 13px } '
          '.mono { font-family: Menlo, Consolas, monospace } '
          '.small { font-size: 11px } .bold { font-weight: bold } '
          '.middle { text-anchor: middle } '
          'path { fill: none; stroke-width: 1.5 } '
          '.reads { stroke-dasharray: 4 3 }')


def _colours(mode):
  """Returns the CSS rules of a mode: 0 is light, 1 is dark."""
  return ' '.join(
      ['.%s { fill: %s }' % (name, _FILLS[name][mode])
       for name in sorted(_FILLS)] +
      ['.%s-line { stroke: %s } .%s-head { fill: %s }' % (
          name, _STROKES[name][mode], name, _STROKES[name][mode])
       for name in sorted(_STROKES)])


def _svg(height, title, body):
  """Returns an SVG document.

  Args:
    height: int, pixels.
    title: str, what the picture shows, for those who cannot see it.
    body: list of str, its elements.
  """
  heads = ['<marker id="%s-head" viewBox="0 0 8 8" refX="7" refY="4" '
           'markerWidth="7" markerHeight="7" orient="auto"><polygon '
           'class="%s-head" points="0,0 8,4 0,8"/></marker>' % (name, name)
           for name in sorted(_STROKES)]
  return '\n'.join(
      ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" '
       'height="%d" role="img">' % (_WIDTH, height, _WIDTH, height),
       '<title>%s</title>' % html.escape(title),
       '<style>%s %s @media (prefers-color-scheme: dark) { %s }</style>' % (
           _FONTS, _colours(0), _colours(1)),
       '<defs>'] + heads + ['</defs>',
       '<rect class="page" width="%d" height="%d" rx="8"/>' % (
           _WIDTH, height)] + body + ['</svg>', ''])


def _text(x, y, text, classes='text'):
  return '<text x="%d" y="%d" class="%s">%s</text>' % (
      x, y, classes, html.escape(text))


def _box(x, y, width, height, kind, text=''):
  """A box with a text in its middle; x and y are its upper left corner."""
  box = '<rect x="%d" y="%d" width="%d" height="%d" rx="6" class="%s"/>' % (
      x, y, width, height, kind)
  return box + (_text(x + width // 2, y + height // 2 + 5, text, 'text middle')
                if text else '')


def _arrow(points, kind, classes=''):
  """An arrow of a kind's colour through points (x, y)."""
  return '<path class="%s-line %s" marker-end="url(#%s-head)" d="M%s"/>' % (
      kind, classes, kind, ' L'.join('%d %d' % point for point in points))


# ------------------------------------------------------------------ PLE

# Where the experts of each owner stand, and its gate.
_EXPERTS = {'ctr': (110, 190), 'shared': (380,), 'cvr': (570, 650)}
_GATES = {'ctr': 150, 'shared': 380, 'cvr': 610}
_OWNERS = ('ctr', 'shared', 'cvr')
_FEEDS = 28  # how far beside the experts a gate's own input passes them


def _level(top, name, is_last):
  """Draws a level whose frame is 190 high.

  Args:
    top: int, y of the frame.
    name: str, what is written on it.
    is_last: bool, whether it has no shared gate.
  """
  drawn = [_box(40, top, 680, 190, 'frame'),
           _text(225, top + 22, name, 'text bold')]
  gates = [owner for owner in _OWNERS if owner != 'shared' or not is_last]
  for owner in _OWNERS:
    drawn += [_box(x - 36, top + 128, 72, 34, owner, 'expert')
              for x in _EXPERTS[owner]]
  for gate in gates:
    drawn.append(_box(_GATES[gate] - 55, top + 36, 110, 34, gate,
                      '%s gate' % gate))
    for owner in _OWNERS:
      if gate in ('shared', owner) or owner == 'shared':
        drawn += [_arrow([(x, top + 128), (
            _GATES[gate] + (x - _GATES[gate]) // 5, top + 72)], gate)
                  for x in _EXPERTS[owner]]
  return drawn


def _enters(top, bottom, owner, is_read):
  """Draws how the input of an owner reaches its experts and its gate.

  Args:
    top: int, y of the frame of the level that reads the input.
    bottom: int, y where the input comes from.
    owner: str, one of _OWNERS.
    is_read: bool, whether the level has a gate of this owner.
  """
  middle, fork = _GATES[owner], (top + 190 + bottom) // 2
  drawn = [_arrow([(middle, bottom), (middle, fork), (x, fork), (x, top + 164)],
                  owner) for x in _EXPERTS[owner]]
  if is_read:
    side = 1 if owner == 'cvr' else -1
    x = side * (36 + _FEEDS) + (max if side > 0 else min)(_EXPERTS[owner])
    drawn.append(_arrow(
        [(middle, fork), (x, fork), (x, top + 53),
         (middle + side * 57, top + 53)], owner, 'reads'))
  return drawn


def ple():
  """Returns the picture of PLE as SVG text."""
  last, first, inputs = 110, 340, 570
  body = _level(last, 'last level: no shared gate', True)
  body += _level(first, 'level 0', False)
  body.append(_box(40, inputs, 680, 38, 'shared', 'input: the embeddings of '
                   'all columns and the numbers, side by side'))
  for owner in _OWNERS:
    body += _enters(first, inputs, owner, True)
    body += _enters(last, first + 36, owner, owner != 'shared')
  for task in ('ctr', 'cvr'):
    x = _GATES[task]
    body += [_box(x - 55, 50, 110, 34, task, '%s tower' % task),
             _arrow([(x, last + 36), (x, 86)], task),
             _arrow([(x, 50), (x, 32)], task),
             _text(x, 24, 'prediction of %s' % task, 'text middle')]
  notes = ['Solid arrows into a gate: the experts that it mixes.',
           'Dashed: what it reads to give each expert a weight.']
  body += [_text(222, 60 + 16 * i, note, 'quiet small')
           for i, note in enumerate(notes)]
  return _svg(628, 'PLE: two levels of experts and gates, and a tower per task',
              body)


# -------------------------------------------------------------- folders

def order():
  """Returns ORDER of tests/test_architecture.py: [(name, [module, ...])]."""
  path = os.path.join(_ROOT, 'tests', 'test_architecture.py')
  with open(path) as f:
    for node in ast.parse(f.read()).body:
      if isinstance(node, ast.Assign) and node.targets[0].id == 'ORDER':
        return ast.literal_eval(node.value)
  raise ValueError('%s must assign ORDER.' % path)


def _first_sentence(name, is_folder):
  """Returns the first line of the docstring of a folder or module."""
  path = os.path.join(_ROOT, 'ple_estimator', name)
  path += os.sep + '__init__.py' if is_folder else '.py'
  with open(path) as f:
    return ast.get_docstring(ast.parse(f.read())).splitlines()[0]


def _modules(members):
  """Returns the lines that list modules; a folder inside is named once."""
  names = []
  for member in members:
    name = re.sub(r'\..*', '/', member)
    if name not in names:
      names.append(name)
  return textwrap.wrap(', '.join(names), 86, break_on_hyphens=False)


def folders():
  """Returns the picture of the package's folders as SVG text."""
  body, y = [], 46
  for name, members in reversed(order()):
    lines = _modules(members)
    height = 30 + 16 * len(lines)
    body += [_box(20, y, 720, height, 'ctr' if members else 'shared'),
             _text(32, y + 20, name + ('/' if members else ''),
                   'text bold mono'),
             _text(142, y + 20, _first_sentence(name, bool(members)))]
    body += [_text(142, y + 38 + 16 * i, line, 'quiet small mono')
             for i, line in enumerate(lines)]
    y += height + 6
  title = ('Each row imports only from the rows below it; inside a row a '
           'module only from those to its left.')
  return _svg(y + 14, 'The folders of the package. ' + title,
              [_text(20, 30, title, 'quiet')] + body)


PICTURES = {'ple.svg': ple, 'folders.svg': folders}


def main():
  parser = argparse.ArgumentParser(
      description=__doc__.splitlines()[0],
      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
  parser.add_argument('--out', default=os.path.join(_ROOT, 'docs'),
                      help='folder to write to')
  args = parser.parse_args()
  os.makedirs(args.out, exist_ok=True)
  for name in sorted(PICTURES):
    path = os.path.join(args.out, name)
    with open(path, 'w', encoding='utf-8') as f:
      f.write(PICTURES[name]())
    print(path)


if __name__ == '__main__':
  main()
