"""Columns that name one table: what they must agree in, and what is read."""

import numpy as np
import pytest
import roads
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import feature_spec
from ple_estimator.data import packing
from ple_estimator.engine import native

HISTORY = {'name': 'history', 'kind': 'hashed_list', 'num_buckets': 97,
           'table': 'item'}
CANDIDATE = {'name': 'candidate', 'kind': 'hashed', 'num_buckets': 97,
             'table': 'item'}


def spec(*columns, **arguments):
  return feature_spec.FeatureSpec(list(columns), dim=4, **arguments)


@pytest.mark.parametrize('change, message', [
    ({'num_buckets': 98}, "'num_buckets' must be the same where 'table' is, "
     "'item', got 97 and 98."),
    ({'dim': 8}, "'dim' must be the same where 'table' is, 'item', got 4 and "
     '8.'),
    ({'stddev': 0.1}, "'stddev' must be the same where 'table' is, 'item', got "
     'None and 0.1.'),
    ({'l2': 0.1}, "'l2' must be the same where 'table' is, 'item', got None "
     'and 0.1.'),
    ({'trainable': False}, "'trainable' must be the same where 'table' is, "
     "'item', got True and False."),
    ({'vectors': 'x.parquet'}, "'vectors' must be the same where 'table' is, "
     "'item', got None and 'x.parquet'."),
    ({'kind': 'integer'}, "'table' must be given by columns in which a value "
     "has the same id, got 'item': make their kinds (hashed and hashed_list go "
     'together) and what these say of ids the same.')])
def test_columns_of_a_table_must_agree(change, message):
  with pytest.raises(errors.UserError) as error:
    spec(HISTORY, dict(CANDIDATE, **change))
  assert str(error.value) == (
      "FeatureSpec.columns, 'history' and 'candidate': " + message)


def test_vocabularies_of_a_table_must_have_the_same_values():
  colours = {'name': 'front', 'kind': 'vocabulary', 'values': ('red', 'blue'),
             'table': 'colour'}
  found = packing.groups(spec(colours, dict(colours, name='back')).categories)
  assert [(group.name, group.num_rows) for group in found] == [
      ('table_colour', 2)]
  with pytest.raises(errors.UserError, match=(
      "'front' and 'back': 'table' must be given by columns in which a value")):
    spec(colours, dict(colours, name='back', values=('blue', 'red')))


@pytest.mark.parametrize('columns, message', [
    ([HISTORY, dict(CANDIDATE, table='items')],
     "FeatureSpec.columns, 'history': 'table' must be a name that two or more "
     "columns give, or None, got 'item', which no other column has."),
    ([HISTORY, CANDIDATE, dict(CANDIDATE, name='table_item', table=None)],
     "FeatureSpec.columns, 'history': 'table' must be another name, got "
     "'item', whose variables would be called like the column table_item."),
    ([HISTORY, dict(CANDIDATE, table=3)],
     "FeatureSpec.columns, 'candidate': table must be a text in quotes or "
     'None, got 3.'),
    ([{'name': 'n', 'kind': 'number', 'table': 'item'}],
     "FeatureSpec.columns, 'n' has unknown table; a column of kind number takes"
     ' name, log1p, mean, std, default, clip.')])
def test_what_is_no_table(columns, message):
  with pytest.raises(errors.UserError) as error:
    spec(*columns)
  assert str(error.value) == message


def hashes(texts):
  with tf.Graph().as_default(), tf.Session() as sess:
    return sess.run(tf.strings.to_hash_bucket_fast(texts, 97)).tolist()


def test_the_same_arrives_on_every_road(tmp_path):
  a, b, c = hashes(['a', 'b', 'c'])
  texts = {'history': ['a|b', '', 'c|a|c'], 'candidate': ['b', 'c', ''],
           'rated': ['c:2', 'a:1|b:0.5', '']}
  of = spec(HISTORY, CANDIDATE, dict(HISTORY, name='rated', weights=':'))
  roads.check(
      tmp_path, of, texts, texts,
      {'history': [[a, b], [], [c, a, c]], 'candidate': [[b], [c], []],
       'rated': [[c], [a, b], []]},
      weights={'history': [[1, 1], [], [1, 1, 1]], 'candidate': [[1], [1], []],
               'rated': [[2], [1, 0.5], []]})


@pytest.mark.parametrize('kernels', [False, True])
def test_a_batch_has_each_row_of_a_table_once(tmp_path, kernels):
  if kernels and not native.available():
    pytest.skip('needs the kernels')
  of = spec(HISTORY, CANDIDATE)
  groups = packing.groups(of.categories)
  for source in roads.files(
      tmp_path, {'history': ['a|b', 'b'], 'candidate': ['b', 'c']}):
    batch = roads.read(source, of, groups, kernels)
    assert sorted(batch['table_item/rows']) == sorted(hashes(['a', 'b', 'c']))
    np.testing.assert_array_equal(batch['table_item/splits'], [0, 2, 3, 4, 5])


def test_keys_of_a_table_are_those_of_the_values_alone():
  group, = packing.groups(spec(HISTORY, CANDIDATE).categories,
                          kind=packing.KeyedGroup)
  packed = group.pack({c.name: c.encode(tf.constant(['a']))
                       for c in group.columns})
  with tf.Session() as sess:
    keys, wanted = sess.run([
        packed['table_item/rows'],
        tf.strings.to_hash_bucket_fast(['a'], 2**63 - 1)])
  np.testing.assert_array_equal(keys, wanted)
