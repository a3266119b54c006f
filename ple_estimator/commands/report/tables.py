"""Statistics of embedding tables, from a checkpoint.

An ordinary table has the rows of several columns, one after the other;
layout.json says which. Which of its rows were ever trained can be seen by the
optimizer's slots: those of a row that no batch has touched are as they began. A
keyed table (an embedding variable) has only rows that live, and counts how
often each key occurred.
"""

import collections
import os

import numpy as np

from ple_estimator import files
from ple_estimator.commands.report import charts
from ple_estimator.commands.report import document

_BINS = 24

Table = collections.namedtuple(
    'Table', 'name dim rows live norms frequencies waiting')
Table.__doc__ = """Rows of a table.

Attributes:
  name: str, of the column, or of the table if it is not cut into columns.
  dim: int, numbers per row.
  rows: int.
  live: int, rows that were trained; None if no slot tells.
  norms: [rows] float64 of those that live, or of all.
  frequencies: [keys] int64, or None.
  waiting: int, keys that have no row yet; 0 of ordinary tables.
"""


def read(model_dir):
  """The tables of the newest checkpoint of a run.

  Args:
    model_dir: str.

  Returns:
    list of Table; empty without a checkpoint.
  """
  if not os.path.exists(os.path.join(model_dir, 'checkpoint')):
    return []
  # Imported here because TensorFlow takes seconds to load, and a run without a
  # checkpoint needs none of it.
  import tensorflow.compat.v1 as tf

  from ple_estimator.commands import inspect_embeddings
  try:
    path = inspect_embeddings.find(model_dir)
    reader = tf.train.load_checkpoint(path)
  except (ValueError, tf.errors.OpError):
    return []
  layout = files.read_json(
      os.path.join(model_dir, 'layout.json'), {'groups': []}, keys=['groups'])
  return _keyed(reader) + _ordinary(reader, layout['groups'])


def _keyed(reader):
  from ple_estimator.embeddings import table_parts
  wholes = table_parts.joined(reader.get_variable_to_shape_map())
  found = []
  for name in sorted(wholes):
    if name.endswith('-keys'):
      table = name[:-len('-keys')]
      read_part = lambda suffix, table=table: table_parts.read(
          reader, wholes[table + suffix])
      values = read_part('-values')
      found.append(Table(
          table, values.shape[1], len(values), len(values), norms(values),
          read_part('-freqs').astype(np.int64),
          len(read_part('-freqs_filtered'))))
  return found


def _ordinary(reader, groups):
  shapes = reader.get_variable_to_shape_map()
  found = []
  for group in groups:
    own = [name for name in shapes if name.endswith('/embedding') and
           group['name'] in name.split('/')]
    for name in own:
      found += of_columns(
          reader.get_tensor(name), _slots(reader, shapes, name),
          [(column['name'], column['num_buckets'])
           for column in group['columns']], name)
  return found


def _slots(reader, shapes, name):
  """The slots of an optimizer that have as many rows as a table."""
  return [reader.get_tensor(slot) for slot in sorted(shapes)
          if slot.startswith(name + '/') and shapes[slot] == shapes[name] and
          not slot.endswith('/average')]


def of_columns(values, slots, columns, name):
  """The Tables of the columns of one ordinary table.

  Args:
    values: [rows, dim].
    slots: list of [rows, dim].
    columns: list of (name, number of rows), from the first row on; if they
      do not make up all rows, the table is not cut.
    name: str, of the table.

  Returns:
    list of Table.
  """
  if sum(height for _, height in columns) != len(values):
    columns = [(name, len(values))]
  live = np.zeros(len(values), bool)
  for slot in slots:
    # A slot begins alike in all rows: at 0, or at a positive constant that
    # only grows.
    begins = slot.min() if slot.min() > 0 else 0
    live |= (slot != begins).any(axis=1)
  found, first = [], 0
  for column, height in columns:
    at = slice(first, first + height)
    first += height
    of_rows = norms(values[at])
    found.append(Table(
        column, values.shape[1], height,
        int(live[at].sum()) if slots else None,
        of_rows[live[at]] if slots else of_rows, None, 0))
  return found


def norms(values):
  """The Euclidean norm of each row, [rows] float64."""
  return np.sqrt(np.einsum('ij,ij->i', values, values, dtype=np.float64))


def section(found, name, prefix):
  """The tables of a run as a document.Section; None without any.

  Args:
    found: list of Table.
    name: str, of the run.
    prefix: str, of the names of files.
  """
  if not found:
    return None
  counted = [of for of in found if of.frequencies is not None]
  rows = [_row(of) + (_counts(of) if counted else []) for of in found]
  header = ['column or table', 'dim', 'rows', 'live rows', 'median norm',
            '95 % of norms below', 'largest norm']
  note = ('Norms are of rows that live: a row lives once a batch has trained '
          'it. ' if any(of.live is not None for of in found) else
          'The optimizer has no slots that would tell which rows live. ')
  if counted:
    header += ['median count', 'most', 'keys seen once', 'keys waiting']
  else:
    note += ('How often a value occurs is counted by embedding variables only '
             '(gin/ev.gin).')
  figures = [_histogram(found, prefix + '-norms', 'Norms of embedding rows',
                        'norm', lambda of: of.norms)]
  if counted:
    figures.append(_histogram(
        counted, prefix + '-frequencies', 'How often keys occur',
        'log2 of the count', lambda of: np.log2(np.maximum(of.frequencies, 1))))
  return document.Section('Embeddings of %s' % name, [], [document.Table(
      'Embedding tables', header, rows, note)], figures)


def _row(of):
  """What a table's row says of a Table."""
  live = '–' if of.live is None else '{:,} ({})'.format(
      of.live, document.percent(of.live / max(of.rows, 1)))
  ends = (np.percentile(of.norms, [50, 95, 100]) if len(of.norms) else
          [None] * 3)
  return [of.name, '%d' % of.dim, '{:,}'.format(of.rows), live] + [
      document.number(end, 3) for end in ends]


def _counts(of):
  if of.frequencies is None or not len(of.frequencies):
    return ['–'] * 4
  return [document.general(np.median(of.frequencies)),
          '{:,}'.format(int(of.frequencies.max())),
          document.percent(float((of.frequencies <= 1).mean())),
          '{:,}'.format(of.waiting)]


def _histogram(found, name, title, x_title, values_of):
  """The distribution of a number of rows, all tables of a run together."""
  values = np.concatenate([values_of(of) for of in found])
  counts, edges = np.histogram(values, _BINS) if len(values) else (
      np.zeros([1]), np.array([0.0, 1.0]))
  data = [{'of': '%.3g to %.3g' % (low, high), 'x': charts.lean(low),
           'x2': charts.lean(high), 'value': int(count)}
          for low, high, count in zip(edges, edges[1:], counts)]
  spec = {
      'data': {'values': data}, 'height': charts.HEIGHT // 2, 'mark': {
          'type': 'bar', 'binSpacing': 1}, 'encoding': {
              'x': {'field': 'x', 'type': 'quantitative', 'title': x_title,
                    'bin': {'binned': True}, 'axis': {
                        'tickCount': 6, 'labelOverlap': True}},
              'x2': {'field': 'x2'},
              'y': charts.axis('value', 'rows', type='sqrt'),
              'tooltip': [{'field': 'of', 'title': x_title},
                          {'field': 'value', 'title': 'rows',
                           'format': ','}]}}
  return document.Figure(
      name, title, 'Bars: how many, by the square root, so that few are seen '
      'too.', [charts.View('', spec)], document.Table(
          title, [x_title, 'rows'],
          [[of['of'], '{:,}'.format(of['value'])] for of in data]))
