"""The kinds of columns by the names that .gin files call them.

The classes are in the folder columns/. Those that a kind of your own may start
from can be had from here too, as column_kinds.Hashed.
"""

import collections
import inspect

from ple_estimator import errors
from ple_estimator.data.columns import base
from ple_estimator.data.columns import bucketised
from ple_estimator.data.columns import categories
from ple_estimator.data.columns import crossed
from ple_estimator.data.columns import hashed_list
from ple_estimator.data.columns import numbers
from ple_estimator.data.columns import targets
from ple_estimator.data.columns import vector
from ple_estimator.data.columns import vocabulary
from ple_estimator.data.columns import weight_list

NO_ID = base.NO_ID
RAW = base.RAW
Column = base.Column
Ignored = base.Ignored
Hashed = categories.Hashed
HashedList = hashed_list.HashedList
Integer = categories.Integer
Bucketised = bucketised.Bucketised
Vocabulary = vocabulary.Vocabulary
Crossed = crossed.Crossed
Number = numbers.Number
Vector = vector.Vector
Label = targets.Label
LabelUse = targets.LabelUse
Weight = targets.Weight
WeightList = weight_list.WeightList

KINDS = collections.OrderedDict([
    ('label', Label),
    ('hashed', Hashed),
    ('hashed_list', HashedList),
    ('integer', Integer),
    ('bucketised', Bucketised),
    ('vocabulary', Vocabulary),
    ('crossed', Crossed),
    ('number', Number),
    ('vector', Vector),
    ('weight', Weight),
    ('weight_list', WeightList),
    ('ignored', Ignored),
])


def register_kind(name):
  """Decorates a class of columns of your own, for 'kind': name.

  Args:
    name: str, not one of KINDS yet, unless by a class of the same name (a
      module may be loaded again).

  Returns:
    function that takes a subclass of Column and returns it.

  Raises:
    UserError: if the name is taken, or the class is no Column.
  """
  def register(kind):
    errors.check(inspect.isclass(kind) and issubclass(kind, Column),
                 'A kind of column must be a subclass of column_kinds.Column, '
                 'got %r for %r.', kind, name)
    taken = KINDS.get(name)
    errors.check(
        taken is None or (taken.__module__, taken.__qualname__) == (
            kind.__module__, kind.__qualname__),
        'A kind of column must have a name of its own, got %r, which is that '
        'of %r.', name, taken)
    KINDS[name] = kind
    return kind
  return register
