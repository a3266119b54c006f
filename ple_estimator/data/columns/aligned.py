"""Lists of one length, of which the items at one place belong together.

A history may be a list of items, a list of their categories and a list of the
days on which they were seen: the second category is that of the second item. An
empty item keeps its place, and has no vector. So max_items counts places here,
and leaves the same ones in all lists.
"""

import collections

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow.compat.v1 as tf

from ple_estimator import errors

_ALIKE = ('max_items', 'keep')


def join(columns):
  """Tells each list which other one it must be as long as.

  Args:
    columns: list of base.Column, all categories.

  Raises:
    UserError: if a list is alone, or two would not keep the same places.
  """
  found = collections.OrderedDict()
  for column in columns:
    if column.aligned is not None:
      found.setdefault(column.aligned, []).append(column)
  for name, members in found.items():
    first = members[0]
    errors.check(
        len(members) > 1, "FeatureSpec.columns, %r: 'aligned' must be a name "
        'that two or more lists give, or None, got %r, which no other list '
        'has.', first.name, name)
    for column in members[1:]:
      for key in _ALIKE:
        values = [errors.written(getattr(of, key)) for of in (first, column)]
        errors.check(
            values[0] == values[1], 'FeatureSpec.columns, %r and %r: %r must '
            "be the same where 'aligned' is, %r, got %s and %s.", first.name,
            column.name, key, name, *values)
      column.align(first)


def counts(texts, separator):
  """How many places the fields have: [rows] int, 0 of an empty field.

  Args:
    texts: pa.Array of binary without nulls.
    separator: str.
  """
  separators = pc.count_substring(texts, separator).to_numpy()
  return np.where(is_empty(texts), 0, separators + 1)


def differ(here, there):
  """Which rows of two lists have another number of places.

  A field that is empty may stand for one empty item.

  Args:
    here, there: [rows] int, the `counts` of the lists.

  Returns:
    [rows] bool.
  """
  return (here != there) & (np.maximum(here, there) > 1)


def cut(texts, separator, limit):
  """Leaves the first places of each field, or the last ones.

  Args:
    texts: pa.Array of binary without nulls.
    separator: str.
    limit: item_limit.ItemLimit, which counts places here.

  Returns:
    pa.Array like texts.
  """
  if not len(texts) or not limit.cuts(counts(texts, separator)):
    return texts
  lists = pc.split_pattern(texts, separator)
  kept, splits = limit.of_splits(lists.offsets.to_numpy())
  return pc.binary_join(pa.ListArray.from_arrays(
      pa.array(splits), lists.flatten().filter(pa.array(kept))),
                        separator.encode())


def cut_tensor(text, separator, most, last):
  """As `cut`, of a [batch] string tensor.

  There may be separators without an item behind what is left of a field.
  """
  lists = tf.strings.split(text, sep=separator, result_type='RaggedTensor')
  places = tf.range(tf.size(lists.values, out_type=tf.int64)) - tf.gather(
      lists.row_starts(), lists.value_rowids())
  if last:
    places = tf.gather(lists.row_lengths(), lists.value_rowids()) - 1 - places
  kept = tf.ragged.boolean_mask(lists, lists.with_values(places < most))
  return tf.strings.reduce_join(
      kept.to_tensor(''), axis=1, separator=separator)


def is_empty(texts):
  """Which fields are empty: [rows] bool numpy array.

  Args:
    texts: pa.Array of binary without nulls.
  """
  return pc.equal(texts, pa.scalar(b'', pa.binary())).to_numpy(
      zero_copy_only=False)
