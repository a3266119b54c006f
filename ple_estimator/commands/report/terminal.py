"""Sections as text for a terminal: tables, and figures by their tables."""

import textwrap

_WIDTH = 100  # characters of a paragraph
_LONGEST = 24  # rows of a figure's table that a terminal is to hold
_CELL = 44  # characters


def text(sections, depth=0):
  """Yields the lines of sections.

  Args:
    sections: list of document.Section.
    depth: int, how deep they lie in others.
  """
  for section in sections:
    yield ''
    yield section.title if depth else section.title.upper()
    for paragraph in section.texts:
      yield from textwrap.wrap(paragraph, _WIDTH)
    for table in section.tables:
      yield from _table(table)
    for figure in section.figures:
      if figure.table and len(figure.table.rows) <= _LONGEST:
        yield from _table(figure.table._replace(
            title=figure.title, note=figure.table.note or figure.note))
    yield from text(section.sections, depth + 1)


def _table(table):
  """Yields a table, its columns as wide as what they hold."""
  if not table.rows:
    return
  yield ''
  if table.title:
    yield table.title + ':'
  cells = [[_cut(cell) for cell in row] for row in [table.header] + table.rows]
  widths = [max(map(len, column)) for column in zip(*cells)]
  for i, row in enumerate(cells):
    yield '  ' + '  '.join(
        cell.ljust(width) if at == 0 or not _is_number(cells[1][at])
        else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(row, widths))).rstrip()
    if i == 0:
      yield '  ' + '  '.join('-' * width for width in widths)
  if table.note:
    yield from textwrap.wrap(table.note, _WIDTH)


def _cut(cell):
  cell = ' '.join(cell.split())
  return cell if len(cell) <= _CELL else cell[:_CELL - 3] + '...'


def _is_number(cell):
  return cell[:1].isdigit() or cell[:1] in '+-–<'
