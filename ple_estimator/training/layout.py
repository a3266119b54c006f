"""What the rows of a model's variables stand for: columns and tasks.

A table holds the rows of several columns, one column after the other, unless
they share them, and a kernel that reads the concatenated vectors has a row for
each of their numbers.
Which column a row belongs to cannot be seen in a checkpoint. So training writes
it to model_dir/layout.json:

  groups        list of dicts: name; keyed, whether every value has a row of its
                own; dim, the width of the vectors that the experts read;
                columns, a list of dicts of name, kind, num_buckets and ids,
                what else decides the ids (columns.base.Column.ids_by); and
                table, where all these columns share the rows of one
  own           list of [name, width]: what of a row interactions alone read,
                behind these, such as ['wide/ctr', 1] or ['fwfm', 16]
  inputs        list of [name, width]: what the experts read, in order
  numbers       list of [name, width]: the numbers that the network reads
  tasks         names of the logits: tasks, and 'task/0' of the first class
  interactions  variable scopes of the interactions

WarmStart compares that of one model with that of another.
"""

import os

from ple_estimator import files
from ple_estimator.data import packing

_NAME = 'layout.json'
_LISTS = ('groups', 'own', 'inputs', 'numbers', 'tasks', 'interactions')


def of(model):
  """Returns the layout of a model.Model, a dict that JSON can hold."""
  own, scopes = model.own_names()
  return {
      'groups': [_group(group) for group in model.groups],
      'own': [[name, width] for name, width in own],
      'inputs': [[name, width] for name, width in model.input_names()],
      'numbers': [[name, width] for name, width
                  in model.features.number_widths()],
      'tasks': model.logit_names(),
      'interactions': list(scopes)}


def _group(group):
  found = {
      'name': group.name, 'dim': group.dim - group.own_dim,
      'keyed': isinstance(group, packing.KeyedGroup),
      'columns': [{'name': c.name, 'kind': type(c).__name__,
                   'num_buckets': c.num_buckets, 'ids': c.ids_by()}
                  for c in group.columns]}
  return found if group.table is None else dict(found, table=group.table)


def firsts(group):
  """The first row of each column of a group in a table of a fixed height."""
  return packing.firsts([column['num_buckets'] for column in group['columns']],
                        group.get('table'))[0]


def salt(group, column):
  """What the keys of a column are combined with, see packing.KeyedGroup.

  Args:
    group: dict, the group of the column.
    column: dict. The name that it has in its model counts, see `renamed`.

  Returns:
    int; 0 where keys are the values alone.
  """
  if len(group['columns']) == 1 or group.get('table') is not None:
    return 0
  return packing.salt(column.get('was', column['name']))


def difference(here, there):
  """Why no value has the same id in two columns, or '' if values may.

  Args:
    here, there: dicts of a column, as layout.json has them.
  """
  kinds = here['kind'], there['kind']
  if kinds[0] != kinds[1] and not all(map(_is_text, kinds)):
    return 'is of kind %s there, %s here' % kinds[::-1]
  if here.get('ids') != there.get('ids'):
    return 'has other %s there' % {
        'Bucketised': 'boundaries', 'Vocabulary': 'values',
        'Crossed': 'columns'}.get(kinds[0], 'ids')
  return ''


def _is_text(kind):
  return kind in ('Hashed', 'HashedList')


def is_hashed(column):
  """Whether the id of a value is the remainder of a hash by num_buckets."""
  return _is_text(column['kind']) or column['kind'] == 'Crossed'


def write(model_dir, layout):
  """Writes a layout to a model_dir; OSError if that cannot be done."""
  files.write_json(os.path.join(model_dir, _NAME), layout, indent=1)


def read(model_dir):
  """Returns the layout of a model_dir; None if there is no usable one."""
  return files.read_json(os.path.join(model_dir, _NAME),
                         keys={name: list for name in _LISTS})


def labels(pairs):
  """Names every index of an axis.

  Args:
    pairs: list of [name, width].

  Returns:
    list of (name, width, int), one per index. Indices of the same label stand
    for the same thing: the i-th number of a vector of that name and width.
  """
  return [(name, width, i) for name, width in pairs for i in range(width)]


def renamed(layout, columns):
  """A layout in which columns have other names.

  Args:
    layout: dict.
    columns: dict of name now to new name.

  Returns:
    dict. A column also has its name there, 'was'.
  """
  def name_of(name):
    return columns.get(name, name)

  groups = [dict(group, columns=[
      dict(column, name=name_of(column['name']), was=column['name'])
      for column in group['columns']]) for group in layout['groups']]
  return dict(layout, groups=groups, **{
      axis: [[name_of(name), width] for name, width in layout[axis]]
      for axis in ('numbers', 'inputs')})


def same(here, there, names=('numbers', 'tasks')):
  """Whether two layouts have the same columns, and what else is named."""
  def columns(layout):
    return [[column['name'] for column in group['columns']]
            for group in layout['groups']]

  return columns(here) == columns(there) and all(
      here[name] == there[name] for name in names)
