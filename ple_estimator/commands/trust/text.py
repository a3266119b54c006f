"""Tables of text for a terminal or a log, with columns that line up."""


def table(head, rows, left=1):
  """Yields the lines of a table.

  Args:
    head: list of str, the titles.
    rows: list of lists of str.
    left: int, how many columns, from the first, are aligned to the left.
  """
  lines = [list(head)] + [list(row) for row in rows]
  widths = [max(map(len, column)) for column in zip(*lines)]
  for line in lines:
    yield '  '.join(
        cell.ljust(width) if i < left else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(line, widths))).rstrip()
