"""The columns of a data set: what is read, encoded and refused."""

import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import feature_spec


def spec(*columns):
  return feature_spec.FeatureSpec(list(columns), dim=4)


def test_spec_encodes_what_it_reads():
  made = spec({'name': 'y', 'kind': 'label'},
              {'name': 'w', 'kind': 'weight'},
              {'name': 'a', 'kind': 'hashed', 'num_buckets': 7},
              {'name': 'b', 'kind': 'ignored'},
              {'name': 'c', 'kind': 'number'})
  assert [c.name for c in made.read(True)] == ['y', 'w', 'a', 'c']
  assert [c.name for c in made.read(False)] == ['a', 'c']
  assert [c.name for c in made.read(False, ['b', 'y'])] == ['y', 'a', 'b', 'c']
  raw = {'y': tf.ones([2]), 'w': tf.ones([2]), 'a': tf.constant(['u', 'v']),
         'b': tf.constant(['s', 't']), 'c': tf.ones([2])}
  found, labels = made.encode(raw, keep=['b'])
  assert sorted(found) == ['a', 'c', 'raw/b', 'w'] and sorted(labels) == ['y']
  assert made['a'].dim == 4


@pytest.mark.parametrize('columns, message', [
    ([{'kind': 'label'}], "must have a 'name'"),
    ([{'name': 'x', 'kind': 'hash'}],
     "'x': 'kind' must be one of label, hashed, .*, got 'hash'"),
    ([{'name': 'x', 'kind': 'hashed', 'num_bucket': 3}],
     "'x' has unknown num_bucket; a column of kind hashed takes name, num_buc"),
    ([{'name': 'x', 'kind': 'hashed'}], "'x' must have num_buckets"),
    ([{'name': 'x', 'kind': 'hashed', 'num_buckets': 0}],
     "'x': num_buckets must be an integer of at least 1, got 0"),
    ([{'name': 'x', 'kind': 'hashed_list', 'num_buckets': 3,
       'combiner': 'max'}],
     "combiner must be 'mean', 'sum', 'sqrtn' or 'attention'"),
    ([{'name': 'x', 'kind': 'integer', 'num_buckets': 3, 'default': 3}],
     r'default must be -1 or in \[0, 3\), got 3'),
    ([{'name': 'x', 'kind': 'number', 'std': 0}],
     'std must be a finite number above 0, got 0'),
    ([{'name': 'x', 'kind': 'number', 'default': 'a'}],
     "default must be a finite number or None, got 'a'"),
    ([{'name': 'x', 'kind': 'hashed', 'num_buckets': 3, 'default': 5}],
     'default must be a text, got 5'),
    ([{'name': 'x', 'kind': 'label', 'values': 1}],
     r'values must be a list of numbers, such as \(0, 1\), got 1'),
    ([{'name': 'x', 'kind': 'number'}] * 2, 'different names, got x twice'),
    ([{'name': 'x', 'kind': 'label'}], 'must have a feature'),
])
def test_spec_refuses(columns, message):
  with pytest.raises(errors.UserError, match=message):
    feature_spec.FeatureSpec(columns)


def test_an_override_takes_the_place_of_an_argument():
  columns = [{'name': 'a', 'kind': 'hashed', 'num_buckets': 10},
             {'name': 'b', 'kind': 'hashed', 'num_buckets': 10}]
  spec = feature_spec.FeatureSpec(columns, overrides={
      'b': {'num_buckets': 7, 'dim': 3}})
  assert [(c.num_buckets, c.dim) for c in spec.columns] == [(10, 16), (7, 3)]
  with pytest.raises(errors.UserError, match='FeatureSpec.overrides must be of '
                     'columns in FeatureSpec.columns, got c.'):
    feature_spec.FeatureSpec(columns, overrides={'c': {'dim': 3}})
