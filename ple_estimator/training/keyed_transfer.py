"""Takes the rows of keyed tables, and makes keys of the rows of hashed ones.

A keyed table has a row per value, and its keys are hashes of the values. A
table of a fixed height has a row per bucket, which several values share, and
the values cannot be told from it. But those of the new training files are
known: where a column had buckets and now has keys, each of these values gets a
row that starts from the row of its bucket. Other values start as new ones do.
"""

import collections
import zlib

import numpy as np

from ple_estimator.training import layout as layout_lib
from ple_estimator.training import transfer

_KEYS, _VALUES = '-keys', '-values'
_COUNTS = ('-freqs', '-versions')

# Rows of a keyed table: keys [n] int64, which columns of a row are taken (here,
# there), and a function of an ending to an array [n, ...] or None.
_Rows = collections.namedtuple('_Rows', 'keys width read')


class Keyed:
  """Fills keyed tables from a transfer.Source."""

  def __init__(self, source, here, rename, slots, starts, known):
    """Keeps the settings.

    Args:
      source: transfer.Source.
      here: dict, the layout of the new model.
      rename: function of a name here to the name there.
      slots: bool, whether slots are taken.
      starts: dict of the name of a keyed table to a dict: 'stddev', of what its
        rows start with, and by its ending what one row of a slot starts with.
      known: function of (group here, layout there) to a dict of column name to
        (keys, buckets), [n] int64 each, of the values that are known; or None,
        which makes no rows of buckets.
    """
    self._source = source
    self._here = here
    self._rename = rename
    self._slots = slots
    self._starts = starts
    self._known = known

  def take(self, name, endings, tensors):
    """Fills one table.

    Args:
      name: str, of the table in a checkpoint, such as 'dim_16_mean/embedding'.
      endings: list of str, of its tensors.
      tensors: dict of name to array, changed in place.

    Returns:
      list of transfer.Line.
    """
    if self._source.layout is None:
      return self._take_all(name, endings, tensors)
    group = next((g for g in self._here['groups']
                  if name.startswith(g['name'] + '/')), None)
    if group is None:
      return [transfer.Line(name, transfer.NOT, '', '', 'is of no column')]
    return self._by_column(name, group, endings, tensors)

  def _take_all(self, name, endings, tensors):
    """Takes a table of the same name, where nothing is known of columns."""
    there = self._rename(name)
    if there + _KEYS not in self._source:
      return [transfer.Line(name, transfer.NOT, '', '',
                            'the other model has no such keyed table')]
    width = tensors[name + _VALUES].shape[1]
    of_width = self._source.shape(there + _VALUES)[1]
    if width != of_width:
      return [transfer.Line(name, transfer.NOT, there, '',
                            'is %d wide there, %d here' % (of_width, width))]
    rows = [self._of_keyed(there, (np.arange(width),) * 2, 0)]
    slots = self._fill(name, endings, tensors, rows)
    self._fill_waiting(name, tensors, [(there, 0)])
    return [transfer.Line(name, transfer.TAKEN, there, slots,
                          '%d keys' % len(tensors[name + _KEYS]))]

  def _by_column(self, name, group, endings, tensors):
    """Takes the rows of each column of a table from where they are there."""
    layout, tail = self._source.layout, name[len(group['name']):]
    lines, tables, hashed = [], collections.OrderedDict(), []
    for column in group['columns']:
      label = '%s [%s]' % (name, column['name'])
      of, there, _ = transfer.find_column(layout, column['name'])
      why = _refusal(of, group, column, there, tail, self._source)
      if not why and not of['keyed'] and self._known is None:
        why = ('has buckets there and keys here: WarmStart.keys_from_input = '
               'True gives the values of the training files rows')
      if why:
        lines.append(transfer.Line(label, transfer.NOT, '', '', why))
      elif of['keyed']:
        tables.setdefault(of['name'], (of, []))[1].append((label, column))
      else:
        hashed.append((label, column))
    rows, waiting = [], []
    shares = group.get('table') is not None
    for of, members in tables.values():
      if shares and of.get('table') is None:
        # The keys of a column cannot be told from those of the others there.
        members = members[:1]
      found, salts, of_lines = self._of_table(group, of, tail, members)
      rows += found
      lines += of_lines
      waiting += [(of['name'] + tail, salt) for salt in salts]
    if hashed:
      found, of_lines = self._of_buckets(group, hashed)
      rows += found
      lines += of_lines
    slots = self._fill(name, endings, tensors, rows) if rows else ''
    self._fill_waiting(name, tensors, waiting)
    if shares:
      lines = _of_all(name, group, lines)
    return [line._replace(slots=slots if line.source else '') for line in lines]

  def _of_table(self, group, of, tail, members):
    """The rows of a keyed table there.

    Returns:
      ([_Rows], salts, lines): the rows, and what their keys were combined with
      by exclusive or; [] without any.
    """
    there = of['name'] + tail
    *width, lacking = transfer.widths(
        self._here, group, self._source.layout, of)
    if tail != '/embedding':  # a block, of which only equal ones are taken
      equal = group['dim'] == of['dim'] and not lacking
      size = self._source.shape(there + _VALUES)[1]
      width = [np.arange(size if equal else 0)] * 2
      lacking = lacking or not equal and 'the blocks have other widths' or ''
    if not len(width[0]):
      return [], [], [transfer.Line(label, transfer.NOT, there, '', lacking)
                      for label, _ in members]
    salts = self._salts(group, of, members)
    rows = [self._of_keyed(there, width, salt) for salt in salts]
    names = {column['name'] for column in group['columns']}
    others = [c['name'] for c in of['columns'] if c['name'] not in names]
    why = '; '.join(filter(None, [
        '%d keys' % len(rows[0].keys) + (
            ' of all its columns' if len(of['columns']) > 1 else ''),
        others and 'those of %s come along' % ', '.join(others), lacking]))
    taken = transfer.PART if lacking else transfer.TAKEN
    return rows, salts, [transfer.Line(label, taken, there, '', why)
                         for label, _ in members]

  def _salts(self, group, of, members):
    """What turns the keys of a group there into those of a group here.

    Args:
      group, of: dicts of the layouts, the group here and there.
      members: list of (label, column), the columns that both have.

    Returns:
      list of np.int64, of which each makes the keys of some of these columns.
    """
    salts = collections.OrderedDict()
    for _, column in members:
      _, there, _ = transfer.find_column(self._source.layout, column['name'])
      salts[np.int64(layout_lib.salt(group, column) ^
                     layout_lib.salt(of, there))] = True
    return list(salts)

  def _of_keyed(self, there, width, salt):
    """All rows of a keyed table of the other model; see _salts."""
    source = self._source

    def read(ending):
      if ending == _VALUES:
        return source.weights(there, _VALUES)
      return source.read(there + ending) if there + ending in source else None

    return _Rows(source.read(there + _KEYS) ^ salt, width, read)

  def _of_buckets(self, group, hashed):
    """Rows for the known values of columns with buckets: ([_Rows], lines)."""
    rows, lines, layout = [], [], self._source.layout
    known = self._known(group, layout)
    for label, column in hashed:
      of, _, first = transfer.find_column(layout, column['name'])
      there = of['name'] + '/embedding'
      *width, lacking = transfer.widths(self._here, group, layout, of)
      keys, buckets = known[column['name']]
      if not len(width[0]):
        lines.append(transfer.Line(label, transfer.NOT, there, '', lacking))
        continue
      rows.append(_Rows(keys, width, self._reader(there, first + buckets)))
      lines.append(transfer.Line(
          label, transfer.PART if lacking else transfer.TAKEN, there, '',
          '; '.join(filter(None, [
              '%d values of the training files start from the rows of their '
              'buckets' % len(keys), lacking]))))
    return rows, lines

  def _reader(self, there, rows):
    """A function of an ending to those rows of a table of a fixed height."""
    def read(ending):
      if ending == _VALUES:
        return self._source.weights(there)[rows]
      name = there + ending[:-len(_VALUES)]
      is_slot = ending not in _COUNTS and name in self._source and (
          self._source.shape(name)[:1] == self._source.shape(there)[:1])
      return self._source.read(name)[rows] if is_slot else None

    return read

  def _fill(self, name, endings, tensors, rows):
    """Writes rows into a table; returns 'taken' or 'new', of its slots."""
    keys = np.concatenate([of.keys for of in rows])
    keys, first = np.unique(keys, return_index=True)
    slots, own = [], set(endings) - {_KEYS} - set(transfer.FILTERED)
    for ending in sorted(e for e in own if e.endswith(_VALUES) or e in _COUNTS):
      parts = []
      for of in rows:
        start = self._start(name, ending, len(of.keys), tensors)
        part, is_taken = self._taken(ending, of, start)
        parts.append(part)
        if ending not in (_VALUES,) + _COUNTS and not (
            transfer.is_average(ending) or transfer.counts_steps(start)):
          slots.append(is_taken)
      tensors[name + ending] = np.concatenate(parts)[first]
    tensors[name + _KEYS] = keys
    for ending in own:  # scalars of the optimizer, such as powers
      if tensors[name + ending].ndim == 0 and slots and all(slots):
        there = self._rename(name) + ending
        if there in self._source:
          tensors[name + ending] = self._source.read(there)
    return ('taken' if all(slots) else 'new') if slots else ''

  def _taken(self, ending, rows, start):
    """Puts what is taken of rows into what they start with.

    Args:
      ending: str, of the tensor.
      rows: _Rows.
      start: [n, ...] array, changed in place.

    Returns:
      (array, bool): the rows, and whether anything was taken.
    """
    # The global step starts at 0: so do the steps at which rows were trained.
    if ending == '-versions' or transfer.is_average(ending) or (
        ending not in (_VALUES,) + _COUNTS and (
            not self._slots or transfer.counts_steps(start))):
      return start, False
    found = rows.read(ending)
    if found is None or found.ndim != start.ndim:
      return start, False
    if found.ndim == 1:
      return found.astype(start.dtype), True
    start[:, rows.width[0]] = found[:, rows.width[1]]
    return start, True

  def _start(self, name, ending, count, tensors):
    """What rows of a tensor start with, [count, ...]."""
    empty, of = tensors[name + ending], self._starts[name]
    shape = (count,) + empty.shape[1:]
    if ending == _VALUES:  # as KeyedTable draws them: uniform around 0
      bound = 3 ** 0.5 * of['stddev']
      rng = np.random.RandomState(zlib.crc32(name.encode()))
      return rng.uniform(-bound, bound, shape).astype(empty.dtype)
    if ending in of:
      return np.broadcast_to(of[ending], shape).astype(empty.dtype)
    return np.zeros(shape, empty.dtype)

  def _fill_waiting(self, name, tensors, tables):
    """Takes the keys that wait at a filter, with their counts."""
    keys_, freqs_, versions_ = transfer.FILTERED
    tables = [pair for pair in tables if pair[0] + keys_ in self._source]
    if not tables or name + keys_ not in tensors:
      return
    keys = np.concatenate([
        self._source.read(there + keys_) ^ salt for there, salt in tables])
    freqs = np.concatenate([
        self._source.read(there + freqs_) for there, _ in tables])
    keys, first = np.unique(keys, return_index=True)
    outside = ~np.isin(keys, tensors[name + _KEYS])
    tensors[name + keys_] = keys[outside]
    tensors[name + freqs_] = freqs[first][outside]
    tensors[name + versions_] = np.zeros(outside.sum(), np.int64)


def _of_all(name, group, lines):
  """Says of all columns that share a table where its rows are from.

  Args:
    name: str, of the table.
    group: dict of the layout.
    lines: list of transfer.Line, of some columns.

  Returns:
    list of transfer.Line, of all columns.
  """
  by_name = {line.name: line for line in lines}
  labels = ['%s [%s]' % (name, column['name']) for column in group['columns']]
  taken = [label for label in labels
           if label in by_name and by_name[label].taken != transfer.NOT]
  if not taken:
    return lines
  return [by_name[label] if label in taken else transfer.Line(
      label, by_name[taken[0]].taken, '', '', 'has the rows of %s' %
      group['columns'][labels.index(taken[0])]['name']) for label in labels]


def _refusal(of, group, column, there, tail, source):
  """Why nothing of a column can be taken into a keyed table, or ''.

  Args:
    of: dict of the layout, the group there; None if there is none.
    group: dict of the layout, the group here.
    column, there: dict of the layout, the column here and there.
    tail: str, what follows the name of the group in that of the table.
    source: transfer.Source.
  """
  if of is None:
    return 'a new column'
  other = layout_lib.difference(column, there)
  if other:
    return other
  if of['keyed'] and there['was'] != column['name'] and (
      layout_lib.salt(group, column) and layout_lib.salt(of, there)):
    return 'its keys are made with the name that it had, %s' % there['was']
  if of['keyed']:
    return '' if of['name'] + tail + _KEYS in source else (
        'that model has its rows in other tables')
  if tail != '/embedding':
    return 'has buckets there, and blocks here'
  return '' if of['name'] + tail in source else (
      'that model composes its rows')
