"""Takes the variables of one model for another: what, and how much of each.

Works on arrays alone: the tensors that a new model starts from, by their names
in a checkpoint, and a checkpoint of an older model. Where the two have other
columns or tasks, their layouts (layout.py) say which rows and columns of a
variable stand for the same thing:

  tables of a fixed height  column by column, and of a vector what has the same
                            name and width
  keyed tables              the keys of all columns of a table, with their rows
  first layers of experts   the rows of the columns that both models have, at
    and gates               level 0
  other variables           whole, if they have the same name and shape

Slots are taken with their variable, if the old optimizer has slots of that name
and shape. An average starts as the weight that it is of.
"""

import collections
import re

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator.embeddings import table_parts
from ple_estimator.optimizers import averaging
from ple_estimator.training import layout as layout_lib

TAKEN, PART, NOT = 'taken', 'in part', 'not'
_KEYS = '-keys'
FILTERED = ('-keys_filtered', '-freqs_filtered', '-versions_filtered')
_FIRST = re.compile(r'level_0/.+/dense_0/kernel$|level_0/.+/mix/kernel$')
_POWERS = re.compile(r'beta[12]_power(_\d+)?$')
NEVER = (tf.GraphKeys.GLOBAL_STEP, averaging.START, averaging.DECAY)
_NO_LAYOUT = 'there is no layout.json there, so only equal shapes are taken'

Line = collections.namedtuple('Line', 'name taken source slots why')
Line.__doc__ = """What became of one variable, or one column of a table.

Attributes:
  name: str, as the new model calls it; a column as 'table [column]'.
  taken: TAKEN, PART or NOT.
  source: str, what it was taken from, or ''.
  slots: 'taken', 'new' or '', where there are none.
  why: str, the reason, or ''.
"""

# Of one variable of the new model, what is taken of one variable there: for
# each axis (indices here, indices there), or None for all of it.
Piece = collections.namedtuple('Piece', 'there axes')


class Source:
  """A checkpoint that values are taken from.

  Attributes:
    layout: dict, see layout.py; None if it is not known.
    used: set of str, the names that were read.
  """

  def __init__(self, path, layout, averages):
    """Reads names and shapes.

    Args:
      path: str, of the checkpoint.
      layout: dict or None, with the names that columns have in the new model.
      averages: bool, whether averages are read in place of weights, where the
        checkpoint has them.
    """
    self._reader = tf.train.load_checkpoint(path)
    shapes = self._reader.get_variable_to_shape_map()
    self._wholes = table_parts.joined(shapes)
    self._shapes = {whole: list(shapes[of[0]])
                    for whole, of in self._wholes.items()}
    self._averages = averages
    self._last = None, None  # one array at a time
    self.layout = layout
    self.used = set()

  def __contains__(self, name):
    return name in self._wholes

  def names(self):
    """The names of all tensors, sorted."""
    return sorted(self._wholes)

  def shape(self, name):
    """The shape of a tensor, a list; of keyed tables that of the first part."""
    return self._shapes[name]

  def read(self, name):
    """Returns a tensor as an array."""
    if self._last[0] != name:
      self._last = name, table_parts.read(self._reader, self._wholes[name])
    self.used.add(name)
    return self._last[1]

  def weights(self, name, ending=''):
    """Returns the array of a variable, or its average.

    Args:
      name: str, of the variable or keyed table.
      ending: '-values' of a keyed table.
    """
    average = name + averaging.SUFFIX + ending
    if self._averages and average in self:
      self.used.add(name + ending)
      return self.read(average)
    return self.read(name + ending)


def owner_of(name, names):
  """Splits the name of a tensor into that of a variable and what it is of it.

  Args:
    name: str, e.g. 'x/Adam', 'x', 'table/embedding-freqs'.
    names: what the checkpoint has.

  Returns:
    (owner, ending): ('x', '/Adam'), ('x', ''), ('table/embedding', '-freqs').
  """
  table = name.rpartition('-')[0]  # 'x/embedding' or 'x/embedding/Adam'
  for owner in (table, table.rpartition('/')[0]):
    if owner and owner + _KEYS in names:
      return owner, name[len(owner):]
  owner, _, ending = name.rpartition('/')
  if owner in names or owner + _KEYS in names:
    return owner, '/' + ending
  return name, ''


def owners(names):
  """The variables and keyed tables of a checkpoint with what belongs to them.

  Args:
    names: set of the names of all tensors.

  Returns:
    OrderedDict of owner to the sorted list of its endings, but ''.
  """
  found = collections.OrderedDict()
  for name in sorted(names):
    owner, ending = owner_of(name, names)
    found.setdefault(owner, [])
    if ending:
      found[owner].append(ending)
  return found


def is_average(ending):
  """Whether an ending is one of averaging.py, and not of the optimizer."""
  return ending.split('-')[0] in (averaging.SUFFIX, averaging.STEP)


def counts_steps(slot):
  """Whether a slot counts by the global step, which starts at 0 again."""
  return np.issubdtype(slot.dtype, np.integer)


class Transfer:
  """One transfer from a Source to the tensors of a new model."""

  def __init__(self, source, here, rename, wanted, slots, keyed):
    """Keeps the settings.

    Args:
      source: Source.
      here: dict, the layout of the new model.
      rename: function of a name here to the name there.
      wanted: function of a name here to why it is not to be taken, or ''.
      slots: bool, whether slots are taken.
      keyed: keyed_transfer.Keyed, for keyed tables.
    """
    self._source = source
    self._here = here
    self._rename = rename
    self._wanted = wanted
    self._slots = slots
    self._keyed = keyed
    self._tables = {group['name'] + '/embedding': group
                    for group in here['groups'] if not group['keyed']}

  def run(self, tensors):
    """Puts what is taken into the tensors of the new model.

    Args:
      tensors: dict of name to numpy array, changed in place.

    Returns:
      list of Line.
    """
    lines = []
    for owner, endings in owners(set(tensors)).items():
      if owner in NEVER or _POWERS.match(owner):
        continue
      refused = self._wanted(owner)
      if refused:
        lines.append(Line(owner, NOT, '', '', refused))
      elif owner + _KEYS in tensors:
        lines += self._keyed.take(owner, endings, tensors)
      elif owner in self._tables and self._source.layout:
        lines += self._table(owner, endings, tensors)
      else:
        lines.append(self._variable(owner, endings, tensors))
      _start_averages(owner, endings, tensors)
    if any(line.slots == 'taken' for line in lines):
      lines += self._powers(tensors)
    return lines

  # ----------------------------------------------------- one kind each

  def _variable(self, name, endings, tensors):
    """Takes a variable that is no table; returns its Line."""
    there, source = self._rename(name), self._source
    if there not in source:
      return Line(name, NOT, '', '', 'the other model has none')
    if self._is_of_other_columns(name):
      return Line(name, NOT, there, '', 'its table has other columns')
    axes, why = self._axes(name, there, tensors)
    if axes is None:
      return Line(name, NOT, there, '', why)
    piece = Piece(there, axes)
    _put(tensors, name, source.weights(there), piece)
    slots = self._take_slots(name, endings, tensors, [piece])
    return Line(name, PART if why else TAKEN, there, slots, why)

  def _table(self, name, endings, tensors):
    """Takes a table of a fixed height by columns; returns a Line for each."""
    group, found = self._tables[name], []
    for column, first in zip(group['columns'], layout_lib.firsts(group)):
      rows = np.arange(column['num_buckets']) + first
      found.append((column['name'],) + self._column(column, rows))
    if group.get('table') is not None:
      found = _of_one(found)
    pieces = [piece for _, piece, _, _ in found if piece]
    for piece in pieces:
      _put(tensors, name, self._source.weights(piece.there), piece)
    slots = self._take_slots(name, endings, tensors, pieces)
    return [Line('%s [%s]' % (name, column), taken,
                 piece.there if piece else '', slots if piece else '', why)
            for column, piece, taken, why in found]

  def _column(self, column, rows):
    """Finds the rows of one column of a table.

    Args:
      column: dict of the layout.
      rows: [num_buckets] int, its rows in the new table.

    Returns:
      (Piece or None, taken, why).
    """
    group, there, first = find_column(self._source.layout, column['name'])
    if there is None:
      return None, NOT, 'a new column'
    table = group['name'] + '/embedding'
    if table not in self._source:
      return None, NOT, ('that model has a row per value and no buckets'
                         if group['keyed'] else 'that model composes its rows')
    of, why = _buckets(column, there)
    if of is None:
      return None, NOT, why
    here, _, _ = find_column(self._here, column['name'])
    width, of_width, lacking = widths(self._here, here, self._source.layout,
                                      group)
    if not len(width):
      return None, NOT, lacking
    why = '; '.join(filter(None, [why, lacking]))
    whole = len(of) == len(rows) and not lacking
    return Piece(table, [(rows[:len(of)], first + of), (width, of_width)]), (
        TAKEN if whole else PART), why

  def _axes(self, name, there, tensors):
    """Which indices of a variable stand for the same; (axes or None, why)."""
    source, layout = self._source, self._source.layout
    shape, of_shape = list(tensors[name].shape), source.shape(there)
    different = 'has shape %s, here %s' % (of_shape, shape)
    if layout is None or len(shape) != len(of_shape):
      if shape == of_shape:
        return [None] * len(shape), ''
      return None, different + ('; ' + _NO_LAYOUT if layout is None else '')
    axes, why = [None] * len(shape), ''
    for axis in range(len(shape)):
      here_is = self._labels(name, axis, shape, self._here, tensors)
      there_is = self._labels(there, axis, of_shape, layout, source)
      if here_is is None or there_is is None or here_is == there_is:
        if shape[axis] != of_shape[axis]:
          return None, different
        continue
      axes[axis] = _same(here_is, there_is)
      if not len(axes[axis][0]):
        return None, 'has nothing for these columns or tasks'
      if len(axes[axis][0]) < shape[axis]:
        why = '%d of %d rows' % (len(axes[axis][0]), shape[axis])
    by_label = any(pair is not None for pair in axes[:-1])
    if self._is_of_columns(name) and not by_label and (
        not layout_lib.same(self._here, layout, ['numbers'])):
      return None, 'belongs to the columns, which are others here'
    return axes, why

  def _labels(self, name, axis, shape, layout, names):
    """What the indices of an axis of a variable stand for, or None."""
    scope = name.split('/')[0]
    if axis == 0 and _FIRST.match(name) and not (
        name.endswith('/mix/kernel') and
        name.replace('/mix/', '/dense_0/') in names):
      found = layout_lib.labels(layout['inputs'])
      more = shape[0] - len(found)  # what interactions add behind them
      return found + layout_lib.labels([['', more]]) if more >= 0 else None
    if scope not in layout['interactions']:
      return None
    if axis == 0 and name.endswith('/numbers'):
      found = layout_lib.labels(layout['numbers'])
    elif axis == len(shape) - 1 and axis and (
        name.endswith(('/weights', '/matrices')) or name == 'wide/numbers'):
      found = layout['tasks']
    else:
      return None
    return list(found) if len(found) == shape[axis] else None

  def _is_of_other_columns(self, name):
    """Whether a part of composed rows belongs to other columns than here."""
    scope, layout = name.split('/')[0], self._source.layout
    if layout is None or name.endswith('/shared'):  # by hash of any key
      return False
    here, there = [[[(c['name'], c['num_buckets']) for c in group['columns']]
                    for group in of['groups'] if group['name'] == scope]
                   for of in (self._here, layout)]
    return here != there

  def _is_of_columns(self, name):
    return name.split('/')[0] in self._here['interactions']

  # -------------------------------------------------------------- slots

  def _take_slots(self, name, endings, tensors, pieces):
    """Takes the optimizer's slots of a variable; 'taken', 'new' or ''."""
    own = [ending for ending in endings if not is_average(ending) and
           not counts_steps(tensors[name + ending])]
    if not own or not pieces:
      return ''
    if not self._slots or not all(
        piece.there + ending in self._source and _suits(
            tensors[name + ending].shape, tensors[name].shape,
            self._source.shape(piece.there + ending), piece)
        for ending in own for piece in pieces):
      return 'new'
    for ending in own:
      for piece in pieces:
        rank = tensors[name + ending].ndim
        _put(tensors, name + ending, self._source.read(piece.there + ending),
             piece._replace(axes=piece.axes[:rank]))
    return 'taken'

  def _powers(self, tensors):
    """Takes the powers of Adam's betas, which belong to its slots."""
    found = [name for name in sorted(tensors)
             if _POWERS.match(name) and name in self._source]
    for name in found:
      tensors[name] = self._source.read(name)
    return [Line(name, TAKEN, name, '', 'with the slots') for name in found]


def _of_one(found):
  """Leaves the rows of one of the columns that share a table.

  Args:
    found: list of (name, Piece or None, taken, why), of each column.

  Returns:
    the same list; only the first column that has one has a Piece.
  """
  first = next((of for of in found if of[1]), None)
  if first is None:
    return found
  return [of if of is first else (
      of[0], None, first[2], 'has the rows of %s' % first[0]) for of in found]


def find_column(layout, name):
  """Finds a column of a layout by its name.

  Returns:
    (group, column, first): dicts, and the first row of the column in a table of
    a fixed height; (None, None, 0) if there is none.
  """
  for group in layout['groups']:
    for column, first in zip(group['columns'], layout_lib.firsts(group)):
      if column['name'] == name:
        return group, column, first
  return None, None, 0


def widths(here, group, there, of_group):
  """What of a vector two groups of columns have both.

  Args:
    here, there: dict, the layouts.
    group, of_group: dict, the groups.

  Returns:
    (indices here, indices there, lacking): two int arrays, and in words what is
    not taken, or ''.
  """
  names = [['vector', group['dim']]] + here['own']
  found = _same(layout_lib.labels(names), layout_lib.labels(
      [['vector', of_group['dim']]] + there['own']))
  taken = set(found[0].tolist())
  lacking, at = [], 0
  for name, width in names:
    if not set(range(at, at + width)) <= taken:
      lacking.append('%s of width %d' % (name, width))
    at += width
  return found[0], found[1], lacking and (
      'the other model has no %s' % ', '.join(lacking)) or ''


def _same(here, there):
  """The indices of equal labels, (here, there), two int arrays."""
  at = {label: i for i, label in enumerate(there)}
  pairs = [(i, at[label]) for i, label in enumerate(here) if label in at]
  both = np.array(pairs, np.int64).reshape(-1, 2)
  return both[:, 0], both[:, 1]


def _buckets(column, there):
  """Which bucket of a column of the other model each bucket starts from.

  Returns:
    (buckets, why): [n] int array, or None with the reason; n is less than
    num_buckets where the column here has more ids than there.
  """
  count, of_count = column['num_buckets'], there['num_buckets']
  other = layout_lib.difference(column, there)
  if other:
    return None, other
  if count == of_count:
    return np.arange(count), ''
  if column['kind'] == 'Integer':  # a value is its own row
    common = min(count, of_count)
    return np.arange(common), (
        '%d of %d ids' % (common, count) if common < count else '')
  if not layout_lib.is_hashed(column):
    return None, 'has %d rows there, %d here' % (of_count, count)
  if count % of_count:
    return None, (
        'num_buckets is %d there and %d here, and so the hash of a value is '
        'another: take a multiple of %d' % (of_count, count, of_count))
  # h % (k n) % n = h % n: every value keeps the vector that it had.
  return np.arange(count) % of_count, (
      'each of %d buckets there starts %d here' % (of_count, count // of_count))


def _put(tensors, name, values, piece):
  """Copies the part that a Piece names of an array into a tensor."""
  target = tensors[name]
  if all(pair is None for pair in piece.axes):
    tensors[name] = values.astype(target.dtype).reshape(target.shape)
    return
  full = [np.arange(size) for size in target.shape]
  here = [full[i] if pair is None else pair[0]
          for i, pair in enumerate(piece.axes)]
  there = [full[i] if pair is None else pair[1]
           for i, pair in enumerate(piece.axes)]
  if here:
    target[np.ix_(*here)] = values[np.ix_(*there)]


def _suits(slot, shape, of_slot, piece):
  """Whether a slot is as high and wide as its variable, in both models."""
  rank = len(slot)
  if rank != len(of_slot) or list(slot) != list(shape[:rank]):
    return False
  return all(pair is not None or size == of_size for pair, size, of_size in zip(
      piece.axes, slot, of_slot))


def _start_averages(owner, endings, tensors):
  """Makes the average of a variable, or of rows, the weights."""
  for ending in ('', '-values'):
    if averaging.SUFFIX + ending in endings:
      tensors[owner + averaging.SUFFIX + ending] = tensors[owner + ending]
