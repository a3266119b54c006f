"""Which items of a list count: the same ones wherever they are looked at."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data.columns import item_limit

FIELDS = [['a', 'b', 'c', 'd'], [], ['e'], ['f', 'g'], ['h', 'i', 'j'], []]


@pytest.mark.parametrize('keep, wanted', [
    ('first', [['a', 'b'], [], ['e'], ['f', 'g'], ['h', 'i'], []]),
    ('last', [['c', 'd'], [], ['e'], ['f', 'g'], ['i', 'j'], []])])
def test_the_same_items_count_everywhere(keep, wanted):
  limit = item_limit.ItemLimit(2, keep)
  assert [limit.of_items(field) for field in FIELDS] == wanted
  items = np.array(sum(FIELDS, []))
  splits = np.cumsum([0] + [len(field) for field in FIELDS])
  kept, of_kept = limit.of_splits(splits)
  assert [items[kept][begin:end].tolist() for begin, end in zip(
      of_kept, of_kept[1:])] == wanted
  indices = [(row, place) for row, field in enumerate(FIELDS)
             for place in range(len(field))]
  in_graph = limit.of_batch(tf.SparseTensor(indices, items, [len(FIELDS), 4]))
  with tf.Session() as session:
    assert session.run(in_graph).tolist() == kept.tolist()


def test_no_limit_takes_all_and_has_no_side():
  assert item_limit.ItemLimit(None, 'first').of_items(FIELDS[0]) == FIELDS[0]
  with pytest.raises(errors.UserError, match="keep must be 'first' without "
                     "max_items, got 'last'"):
    item_limit.ItemLimit(None, 'last')
