"""Lists of categories in one field, which become one vector."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import arrow_values
from ple_estimator.data.columns import aligned as aligned_lists
from ple_estimator.data.columns import categories
from ple_estimator.data.columns import item_limit
from ple_estimator.data.columns import weight_list
from ple_estimator.data.columns import weighted_items
from ple_estimator.engine import native


class HashedList(categories.Hashed):
  """Several hashed categories in one field, pooled into one vector.

  With `weights` each item has a weight w_i beside its vector e_i, and the
  vector of the field is, as tf.nn.embedding_lookup_sparse makes it with
  sp_weights:

    sum    sum_i w_i e_i
    mean   sum_i w_i e_i / sum_i w_i
    sqrtn  sum_i w_i e_i / sqrt(sum_i w_i^2)

  It is the zero vector where the divisor is 0. A row of a file with a weight
  that is missing, no number, or out of range is a bad row. A served model,
  which cannot refuse a row, drops such an item.

  With the combiner 'attention' a network finds the weight of each item, by how
  it goes with the value of another column (embeddings/attention.py).
  """

  can_be_crossed = False
  wants = 'text, a number that is whole, or a list of them'

  def __init__(self, name, num_buckets, dim, default='', separator='|',
               combiner='mean', stddev=None, l2=None, max_items=None,
               keep='first', trainable=True, weights=None, vectors=None,
               table=None, aligned=None, query=None, weights_column=None,
               joint=False):
    """Checks and stores the arguments of the column.

    Args:
      name: str.
      num_buckets: int, rows of the embedding table.
      dim: int, width of the embedding.
      default: str, what an empty field stands for; '' gives it no id, and so
        the zero vector.
      separator: str, between the items of a field; empty items are dropped.
      combiner: 'mean', 'sum' or 'sqrtn', as in tf.nn.embedding_lookup_sparse;
        or 'attention', see Model.attention.
      stddev: float, as Hashed.
      l2: float, as Hashed.
      max_items: int, how many items of a field count, after empty ones have
        been dropped, but for `aligned`; None counts all.
      keep: 'first' or 'last', which items count where there are more.
      trainable: bool, as Hashed.
      weights: str, the character between an item and its weight: ':' reads
        'a:0.5|b:2', and a map of Parquet from items to numbers. The weight is
        behind the last one of an item. None has no weights.
      vectors: str, as Hashed; the values of the file are single items.
      table: str, as Hashed.
      aligned: str, a name: in each row, lists that give the same one must have
        the same number of items, of which empty ones keep their places. They
        must have the same max_items and keep, which counts places. A served
        model, which cannot refuse a row, takes each list as it is.
      query: str, with the combiner 'attention': the name of another category
        column of the same dim, such as the item that is shown to a user whose
        history this list is. If that is a list, its combined vector counts.
      weights_column: str, the name of a column of kind weight_list with the
        weights of the items, in place of `weights`; lists may share one.
      joint: bool, with `aligned` and the combiner 'attention': whether one
        network weighs all lists of the same `aligned` that are joint. It sees
        the vectors that these have at one place beside each other, and those
        of their queries. A joint list may be without a query of its own.
    """
    super().__init__(name, num_buckets, dim, default, stddev, l2, trainable,
                     vectors, table)
    errors.check_text('separator', separator)
    errors.check_choice('combiner', combiner,
                        ('mean', 'sum', 'sqrtn', 'attention'))
    self._attend(combiner, query, weights, weights_column, joint)
    self._limit = item_limit.ItemLimit(max_items, keep)
    errors.check_text('aligned', aligned, or_none=True)
    errors.check(
        aligned is None or not default, "default must be '' with aligned, where"
        ' each item has its place, got %s.', errors.written(default))
    errors.check(
        aligned is not None or not joint, 'aligned must be a name with '
        "'joint': True, which is for lists of one length, got None.")
    self.max_items = max_items
    self.keep = keep
    self._separator = separator
    self.combiner = combiner
    self.aligned = aligned
    self._as_long_as = None
    self._weighted_items = None
    self._beside = None
    if weights is not None:
      self._weigh(weights, default)
    if weights_column is not None:
      self._weigh_by(weights_column, weights, default)

  def _attend(self, combiner, query, weights, weights_column, joint):
    """Checks and stores by which column attention weighs the items."""
    errors.check_text('query', query, or_none=True)
    errors.check_bool('joint', joint)
    self.attends = combiner == 'attention'
    if self.attends:
      errors.check(
          query is not None or joint, 'query must be the name of a category '
          "column with the combiner 'attention', such as 'item_id', got None.")
      for name, value in [('weights', weights),
                          ('weights_column', weights_column)]:
        errors.check(
            value is None, "%s must be None with the combiner 'attention', "
            "which finds a weight for each item, got %s: with 'mean', 'sum' or "
            "'sqrtn' the items have these weights.", name,
            errors.written(value))
    else:
      errors.check(
          query is None, 'query must be None with the combiner %r, got %r: '
          "items are weighed by another column with 'combiner': 'attention'.",
          combiner, query)
      errors.check(
          not joint, 'joint must be False with the combiner %r, got True: it '
          "is for lists with 'combiner': 'attention'.", combiner)
    self.query = query
    self.joint = joint

  def _weigh(self, weights, default):
    """Reads a weight behind each item."""
    self._weighted_items = weighted_items.WeightedItems(
        self._separator, weights, self.combiner)
    self.weighted = True
    self.wants = 'text, a list of it, or a map to numbers'
    errors.check(
        not self._weighted_items.bad_rows(
            pa.array([default.encode()], pa.binary())).any(),
        'default must %s, got %s.', self.requirement(), errors.written(default))

  def _weigh_by(self, weights_column, weights, default):
    """Reads the weights in another column."""
    errors.check_text('weights_column', weights_column)
    errors.check(
        weights is None, 'weights must be None with weights_column, got %s: '
        'the weights are behind the items or in a column of their own.',
        errors.written(weights))
    errors.check(
        not default, "default must be '' with weights_column, where each item "
        'has a weight, got %s.', errors.written(default))
    self.sources = (self.name, weights_column)
    self.weighted = True
    self._beside = weight_list.BesideItems(
        self.name, self._separator, self.combiner)

  def join(self, columns):
    """Looks up the column of its weights; called once, before it makes ids.

    Args:
      columns: list of base.Column, all that files have.

    Raises:
      UserError: if there is none of kind weight_list.
    """
    possible = {column.name: column for column in columns
                if isinstance(column, weight_list.WeightList)}
    errors.check(
        self.sources[1] in possible, 'FeatureSpec.columns, %r: weights_column '
        'must be a column of kind weight_list (%s), got %r.', self.name,
        ', '.join(possible) or 'there are none', self.sources[1])
    self._beside.join(possible[self.sources[1]])

  def align(self, other):
    """Sets the list that this one must be as long as, see aligned.py."""
    self._as_long_as = other

  def accepts(self, arrow_type):
    if arrow_values.is_list(arrow_type):
      return super().accepts(arrow_type.value_type)
    if self._weighted_items and self._weighted_items.accepts(arrow_type):
      return True
    return super().accepts(arrow_type)

  def parse(self, array):
    if pa.types.is_map(array.type):
      texts, bad = self._join(*self._weighted_items.items_of_map(array))
    elif arrow_values.is_list(array.type):
      items, bad_items = super().parse(array.flatten())
      texts, bad = self._join(pa.ListArray.from_arrays(
          pa.array(arrow_values.splits(array)), items), bad_items)
    else:
      texts, bad = super().parse(array)
    if self._weighted_items:
      bad_weights = self._weighted_items.bad_rows(texts)
      bad = bad_weights if bad is None else bad | bad_weights
      bad = bad if bad.any() else None
    return texts, bad

  def unfit(self, columns):
    """As Column: rows in which another list has more or fewer items."""
    if self._as_long_as is None:
      return []
    here, there = [of.places(columns[of.name])
                   for of in (self, self._as_long_as)]
    bad = aligned_lists.differ(here, there)
    return [(bad & (there == count), 'must have %d items, as column %r has, '
             'with which it is aligned' % (count, self._as_long_as.name))
            for count in np.unique(there[bad]).tolist()]

  def places(self, texts):
    """How many items each field has, empty ones too: [rows] int.

    Args:
      texts: pa.Array as `parse` returns it.
    """
    return aligned_lists.counts(texts, self._separator)

  def _join(self, lists, bad_items):
    """Joins lists to the text that a file without lists would have.

    Args:
      lists: pa.ListArray of binary, without an offset.
      bad_items: bool numpy array, which items are bad; None is none.

    Returns:
      (texts, bad), as `parse`.
    """
    holds = pc.match_substring(lists.values, self._separator).to_numpy(
        zero_copy_only=False)
    if bad_items is not None:
      holds = holds | bad_items
    bad = None
    if holds.any():
      bad = arrow_values.any_in(holds, lists.offsets.to_numpy())
    return pc.binary_join(lists, self._separator.encode()), bad

  def requirement(self):
    if self._weighted_items:
      return self._weighted_items.requirement()
    return ('have items of text or whole numbers of at most 2^53, without the '
            'separator %r inside' % self._separator)

  def encode(self, text, *weights):
    """[batch] string -> SparseTensor [batch, items] of int64 ids.

    Of a weighted list it is a pair: the ids, and a SparseTensor of float32
    weights with the same indices.

    Args:
      text: [batch] string.
      *weights: with weights_column, [batch] string of that column.
    """
    if self._beside:
      return self._hash_weighted(*self._beside.encode(
          text, weights[0], self.max_items if self.aligned else None,
          self.keep == 'last'))
    if self._default:
      text = tf.where(tf.equal(text, ''),
                      tf.fill(tf.shape(text), self._default), text)
    if self.aligned and self.max_items:
      text = aligned_lists.cut_tensor(
          text, self._separator, self.max_items, self.keep == 'last')
    if self._weighted_items:
      return self._hash_weighted(*self._weighted_items.encode(text))
    items = tf.strings.split(
        text, sep=self._separator, result_type='RaggedTensor').to_sparse()
    items = tf.sparse.retain(items, tf.not_equal(items.values, ''))
    if self.max_items:
      items = tf.sparse.retain(items, self._limit.of_batch(items))
    return self._hash_all(items)

  def _hash_weighted(self, items, weights):
    """The ids and weights of those items that max_items leaves."""
    if self.max_items:
      kept = self._limit.of_batch(items)
      items, weights = [tf.sparse.retain(x, kept) for x in (items, weights)]
    return self._hash_all(items), weights

  def _hash_all(self, items):
    return tf.SparseTensor(
        items.indices, self._hash(items.values), items.dense_shape)

  def item_ids(self, values):
    return self._hash(values)

  def ids(self, array, *weights):
    if self._default:
      array = pc.if_else(pc.equal(array, pa.scalar(b'', pa.binary())),
                         pa.scalar(self._default.encode(), pa.binary()), array)
    if self.aligned and self.max_items:
      array = aligned_lists.cut(array, self._separator, self._limit)
      weights = [self._beside.cut(of, self._limit) for of in weights]
    if self.weighted:
      ids, of_ids, splits = (
          self._beside.ids(array, weights[0], self.num_buckets)
          if self._beside else self._weighted_items.ids(
              array, self.num_buckets))
      found = (ids, of_ids)
    else:
      ids, splits, places = native.hash_lists(
          array, self._separator.encode(), self.num_buckets, self.joint)
      found = (ids, places) if self.joint else (ids,)
    if self.max_items:
      kept, splits = self._limit.of_splits(splits)
      found = tuple(values[kept] for values in found)
    return (found[0], splits) + found[1:]

  def items(self, text):
    """The items of a field that count, a list of bytes; of an empty one none.

    Args:
      text: bytes, of a column without weights.
    """
    items = text.split(self._separator.encode())
    if not self.aligned:
      items = [item for item in items if item]
    return [item for item in self._limit.of_items(items) if item]
