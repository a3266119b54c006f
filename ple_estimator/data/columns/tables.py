"""Columns that share the rows of one table, as a history and a candidate do."""

import collections

from ple_estimator import errors
from ple_estimator.data.columns import base
from ple_estimator.data.columns import categories
from ple_estimator.data.columns import hashed_list

# What the columns of a table must agree in, as the arguments are called.
_ALIKE = ('num_buckets', 'dim', 'stddev', 'l2', 'trainable', 'vectors')


def scope(table):
  """The name of the group of columns that share a table, and of its variables.

  Args:
    table: str, what the columns are bound to.
  """
  return 'table_' + base.legal_scope(table)


def check(columns):
  """Raises UserError unless columns of one table can share its rows.

  A value must have the same id in all of them, and all must say the same of its
  vector. Lists may have different combiners, separators, weights of items and
  max_items: these say how vectors are put together.

  Args:
    columns: list of base.Column, all categories.
  """
  tables = collections.OrderedDict()
  for column in columns:
    if column.table is not None:
      tables.setdefault(column.table, []).append(column)
  for table, members in tables.items():
    errors.check(
        len(members) > 1, "FeatureSpec.columns, %r: 'table' must be a name "
        'that two or more columns give, or None, got %r, which no other column '
        'has.', members[0].name, table)
    errors.check(
        scope(table) not in [column.scope for column in columns],
        "FeatureSpec.columns, %r: 'table' must be another name, got %r, whose "
        'variables would be called like the column %s.', members[0].name, table,
        scope(table))
    for column in members[1:]:
      _check_pair(members[0], column)


def _check_pair(first, column):
  """Raises UserError unless a column can share a table with the first one."""
  where = 'FeatureSpec.columns, %r and %r' % (first.name, column.name)
  for key in _ALIKE:
    values = [errors.written(getattr(of, key)) for of in (first, column)]
    errors.check(values[0] == values[1], '%s: %r must be the same where '
                 "'table' is, %r, got %s and %s.", where, key, column.table,
                 *values)
  errors.check(
      _ids_by(first) == _ids_by(column), "%s: 'table' must be given by columns "
      'in which a value has the same id, got %r: make their kinds (hashed and '
      'hashed_list go together) and what these say of ids the same.', where,
      column.table)


def _ids_by(column):
  """What decides the id of a value: that of a list is that of its items."""
  kind = type(column)
  return (categories.Hashed if kind is hashed_list.HashedList else kind,
          column.ids_by())
