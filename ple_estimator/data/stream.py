"""Streams of Arrow tables: shuffles rows, leaves some out, makes batches."""

import numpy as np
import pyarrow as pa


def shuffled(tables, buffer_rows, rng):
  """Yields the rows of a stream in random order.

  Rows are collected in a buffer. When it is full it is permuted as a whole and
  its first half is yielded. The order does not depend on how the stream is cut
  into tables.

  Args:
    tables: iterable of pa.Table of one schema.
    buffer_rows: int, at least 2.
    rng: np.random.RandomState.

  Yields:
    pa.Table.
  """
  held, rows = [], 0
  for table in tables:
    while table.num_rows:
      part = table.slice(0, buffer_rows - rows)
      table = table.slice(part.num_rows)
      held.append(part)
      rows += part.num_rows
      if rows == buffer_rows:
        mixed = _permuted(held, rng)
        half = buffer_rows // 2
        yield mixed.slice(0, half)
        held, rows = [mixed.slice(half)], buffer_rows - half
  if rows:
    yield _permuted(held, rng)


def _permuted(tables, rng):
  table = pa.concat_tables(tables).combine_chunks()
  return table.take(pa.array(rng.permutation(table.num_rows)))


def without_first(tables, rows):
  """Yields a stream of tables without its first rows."""
  for table in tables:
    left_out = min(rows, table.num_rows)
    rows -= left_out
    yield table.slice(left_out)


def every(tables, index, count):
  """Yields every count-th row of a stream of tables, from row `index` on.

  Args:
    tables: iterable of pa.Table of one schema.
    index: int in [0, count).
    count: int; 1 yields all rows.

  Yields:
    pa.Table; some may be without rows.
  """
  first = index
  for table in tables:
    if count == 1:
      yield table
      continue
    rows = np.arange(first, table.num_rows, count)
    first = (first - table.num_rows) % count
    yield table.take(pa.array(rows, pa.int64()))


def batched(tables, batch_size, drop_remainder=False):
  """Cuts a stream of tables into tables of batch_size rows.

  Args:
    tables: iterable of pa.Table of one schema; None among them yields the
      rows that wait for a full batch as a smaller one.
    batch_size: int.
    drop_remainder: bool, whether to drop a last table with fewer rows.

  Yields:
    pa.Table.
  """
  held, rows = [], 0
  for table in tables:
    if table is None:
      if rows:
        yield pa.concat_tables(held)
      held, rows = [], 0
      continue
    held.append(table)
    rows += table.num_rows
    if rows < batch_size:
      continue
    table = pa.concat_tables(held)
    cut = rows - rows % batch_size
    for start in range(0, cut, batch_size):
      yield table.slice(start, batch_size)
    held, rows = [table.slice(cut)], rows - cut
  if rows and not drop_remainder:
    yield pa.concat_tables(held)
