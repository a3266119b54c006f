"""The columns of a data set, as a .gin file binds them."""

import copy
import inspect

import gin
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.data.columns import aligned
from ple_estimator.data.columns import ranges
from ple_estimator.data.columns import tables


@gin.register
class FeatureSpec:
  """The columns of a data set, bound in one place for all that reads it.

  Attributes:
    columns: list of base.Column that files have, in their order.
    weights: names of the weights of rows.
    labels: names of the labels.
    categories: list of the base.Column that become ids; some may be made of
      others, as a cross is.
    numbers: names of the columns that the network reads as numbers.
    num_numbers: int, how many numbers the network reads of these in a row.
  """

  def __init__(self, columns=gin.REQUIRED, dim=16, overrides=None):
    """Builds the columns.

    Args:
      columns: list of dicts in the order of the file, each with 'name', 'kind'
        (a key of column_kinds.KINDS) and the arguments of that kind's class.
        'names' in place of 'name' makes like columns of one dict: 'I1:I63', see
        columns/ranges.py.
      dim: int, width of the embeddings of columns that do not say their own.
      overrides: dict of column name to a dict of arguments that take the place
        of the column's own, so that an experiment need not repeat the list:
        {'adgroup_id': {'num_buckets': 10_000_000}}.

    Raises:
      UserError: if a column has an unknown kind or argument, lacks one, or
        two have one name; if an override or a query is of no column; if
        columns do not go together that are to share a table (columns/tables.py)
        or to have one length (columns/aligned.py).
    """
    errors.check_list(
        'FeatureSpec.columns', columns, lambda entry: isinstance(entry, dict),
        "dicts, such as [{'name': 'price', 'kind': 'number'}]")
    errors.check_integer('FeatureSpec.dim', dim, 1)
    errors.check(
        overrides is None or isinstance(overrides, dict) and all(
            isinstance(entry, dict) for entry in overrides.values()),
        "FeatureSpec.overrides must be a dict of dicts, such as {'brand': "
        "{'num_buckets': 1000}}, or None, got %s.", errors.written(overrides))
    overrides = dict(overrides or {})
    made = [
        _column(entry, overrides.pop(entry['name'], {}), dim)
        for written in columns for entry in ranges.expand(written)]
    self.columns = [c for c in made if c.name in c.sources]
    errors.check(not overrides, 'FeatureSpec.overrides must be of columns in '
                 'FeatureSpec.columns, got %s.',
                 ', '.join(sorted(map(str, overrides))))
    names = [column.name for column in made]
    twice = sorted({name for name in names if names.count(name) > 1})
    errors.check(not twice, 'FeatureSpec.columns must have different names, '
                 'got %s twice.', ', '.join(twice))
    self.weights = self._named(column_kinds.Weight)
    self.labels = self._named(column_kinds.Label)
    self.categories = [c for c in made if c.is_category]
    for column in self.categories:
      if column.sources != (column.name,):
        column.join(self.columns)
    for column in self.columns:
      if isinstance(column, column_kinds.WeightList):
        column.check_used()
    tables.check(self.categories)
    aligned.join(self.categories)
    _check_queries(self.categories)
    numbers = [c for c in self.columns if isinstance(
        c, (column_kinds.Number, column_kinds.Vector))]
    self.numbers = [c.name for c in numbers]
    self.num_numbers = sum(width for _, width in self.number_widths())
    errors.check(
        self.categories or self.numbers,
        'FeatureSpec.columns must have a feature: a column of another kind '
        'than label, weight and ignored.')

  def _named(self, kind):
    return [c.name for c in self.columns if isinstance(c, kind)]

  def __getitem__(self, name):
    """The column of that name; KeyError if there is none."""
    return {column.name: column for column in self.columns}[name]

  def read(self, with_labels, keep=()):
    """Returns the columns to read from a file, in its order.

    Args:
      with_labels: bool, whether labels and weights are wanted too.
      keep: names of further columns to read.
    """
    unwanted = (column_kinds.Ignored,)
    if not with_labels:
      unwanted += (column_kinds.Label, column_kinds.Weight)
    return [c.unneeded() if isinstance(c, column_kinds.Label) and (
        not with_labels) else c for c in self.columns
            if c.name in keep or not isinstance(c, unwanted)]

  def used_by(self, uses):
    """Returns the same spec, whose labels know the rows that need them.

    Args:
      uses: dict of label to a list of column_kinds.LabelUse.
    """
    spec = copy.copy(self)
    spec.columns = [c.used_by(uses[c.name]) if c.name in uses else c
                    for c in self.columns]
    return spec

  def without_labels(self):
    """Returns the names of all columns but labels and weights, in order."""
    targets = (column_kinds.Label, column_kinds.Weight)
    return [c.name for c in self.columns if not isinstance(c, targets)]

  def encode(self, raw, keep=(), without=()):
    """Turns columns as read into what the model reads.

    Args:
      raw: dict of column name to [batch] tensor of the column's dtype.
      keep: names of columns to carry along unchanged.
      without: names of columns whose features are not wanted.

    Returns:
      (features, labels): dicts of column name to tensor. Categories are
      [batch] int64 ids, or a SparseTensor of them for a list, and a pair of
      SparseTensors, ids and weights, for a weighted list; numbers, weights
      and labels are [batch] float32, a vector [batch, width]; kept columns
      stand under RAW and their name. Labels are those that `raw` has.
    """
    wanted = self.categories + [self[name] for name in self.numbers]
    features = {c.name: c.encode(*[raw[name] for name in c.sources])
                for c in wanted if c.name not in without}
    features.update((n, raw[n]) for n in self.weights if n in raw)
    features.update({column_kinds.RAW + name: raw[name] for name in keep})
    return features, {n: raw[n] for n in self.labels if n in raw}

  def number_widths(self):
    """The numbers that the network reads: a list of (name, width)."""
    return [(name, int(np.prod(self[name].shape))) for name in self.numbers]

  def numbers_of(self, features):
    """The numbers that the network reads.

    Args:
      features: dict of column name to tensor, as `encode` returns it.

    Returns:
      list of [batch, n] float32, one for each of `numbers`.
    """
    return [tf.reshape(features[name], [-1, width])
            for name, width in self.number_widths()]


def _check_queries(categories):
  """Raises UserError unless attention can compare its lists with columns."""
  possible = {c.name: c.dim for c in categories if not c.attends}
  for column in categories:
    if column.joint:
      _check_joint(column, categories)
    if column.query is None:
      continue
    where = 'FeatureSpec.columns, %r' % column.name
    errors.check(
        column.query in possible, "%s: query must be a category column without "
        'attention (%s), got %r.', where, ', '.join(possible) or 'there are '
        'none', column.query)
    errors.check(
        column.dim == possible[column.query], '%s: dim must be that of the '
        'query %r, %d, got %d.', where, column.query, possible[column.query],
        column.dim)


def _check_joint(column, categories):
  """Raises UserError unless a joint list has others, and they have a query."""
  joint = [c for c in categories if c.joint and c.aligned == column.aligned]
  errors.check(
      len(joint) > 1, "FeatureSpec.columns, %r: 'joint' must be True in two or "
      "more lists of the 'aligned' %r, got one.", column.name, column.aligned)
  errors.check(
      any(c.query is not None for c in joint), 'FeatureSpec.columns, %s: '
      "'query' must be given in one or more of these lists, which are 'joint', "
      'got none.', ', '.join(repr(c.name) for c in joint))


def _column(entry, override, dim):
  """Builds the Column of one entry, as ranges.expand returns it."""
  where = 'FeatureSpec.columns, %r' % entry['name']
  names = [name for name in list(entry) + list(override)
           if not isinstance(name, str)]
  errors.check(not names, '%s must have names of arguments as keys, got %s.',
               where, errors.written((names or [None])[0]))
  entry = dict(entry, **override)
  kind = entry.pop('kind', None)
  kinds = column_kinds.KINDS
  errors.check(isinstance(kind, str) and kind in kinds,
               "%s: 'kind' must be one of %s, got %s.", where,
               ', '.join(kinds), errors.written(kind))
  parameters = inspect.signature(kinds[kind]).parameters
  if 'dim' in parameters:
    entry.setdefault('dim', dim)
  unknown = sorted(set(entry) - set(parameters))
  errors.check(not unknown, '%s has unknown %s; a column of kind %s takes %s.',
               where, ', '.join(unknown), kind, ', '.join(parameters))
  lacking = [n for n, p in parameters.items()
             if p.default is p.empty and n not in entry]
  errors.check(not lacking, '%s must have %s.', where, ', '.join(lacking))
  try:
    return kinds[kind](**entry)
  except errors.UserError as error:
    raise errors.UserError('%s: %s' % (where, error))
