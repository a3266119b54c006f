"""Ranges of like columns: the names that they stand for."""

import pytest

from ple_estimator import errors
from ple_estimator.data import feature_spec
from ple_estimator.data.columns import ranges


@pytest.mark.parametrize('names, expected', [
    ('I1:I3', ['I1', 'I2', 'I3']),
    ('I8:I11', ['I8', 'I9', 'I10', 'I11']),
    ('c08:c11', ['c08', 'c09', 'c10', 'c11']),
    ('2x0_a:2x2_a', ['2x0_a', '2x1_a', '2x2_a']),
    ('7:9', ['7', '8', '9']),
    ('99:101', ['99', '100', '101']),
    ('I5:I5', ['I5']),
    ('age', ['age']),
    (['age', 'I1:I2', 'height'], ['age', 'I1', 'I2', 'height']),
], ids=str)
def test_a_range_stands_for_its_names(names, expected):
  entry = {'names': names, 'kind': 'number', 'log1p': True}
  assert ranges.expand(entry) == [
      {'name': name, 'kind': 'number', 'log1p': True} for name in expected]
  assert entry['names'] == names


@pytest.mark.parametrize('names, message', [
    ('I1:J3', "differ only in their last number, .* got 'I1:J3'"),
    ('I1a:I3b', "differ only in their last number, .* got 'I1a:I3b'"),
    ('I1:I03', "differ only in their last number, .* got 'I1:I03'"),
    ('a:b', "differ only in their last number, .* got 'a:b'"),
    (':', "differ only in their last number, .* got ':'"),
    ('I1:I2:I3', "differ only in their last number, .* got 'I1:I2:I3'"),
    ('I3:I1', "must be a range of 1 to 100000 columns, got 'I3:I1'"),
    ('I0:I9999999999', 'must be a range of 1 to 100000 columns'),
    ('', "must be a list of names, or a range .* got ''"),
    ([], r'must be a list of names, or a range .* got \[\]'),
    (['a', 3], 'must be a list of names, or a range'),
    (None, 'must be a list of names, or a range .* got None'),
])
def test_what_is_no_range_is_refused(names, message):
  with pytest.raises(errors.UserError, match=message) as raised:
    ranges.expand({'names': names, 'kind': 'number'})
  assert '\n' not in str(raised.value)


def test_a_column_has_a_name_or_names():
  with pytest.raises(errors.UserError, match="'name' or 'names', got both"):
    ranges.expand({'name': 'a', 'names': 'I1:I3', 'kind': 'number'})


def test_one_line_makes_like_columns_that_can_be_overridden():
  spec = feature_spec.FeatureSpec(
      [{'name': 'y', 'kind': 'label'},
       {'names': 'I1:I63', 'kind': 'number', 'default': 0.0},
       {'names': ['a', 'c1:c2'], 'kind': 'hashed', 'num_buckets': 10}],
      overrides={'c2': {'num_buckets': 7}})
  assert [c.name for c in spec.columns] == ['y'] + [
      'I%d' % i for i in range(1, 64)] + ['a', 'c1', 'c2']
  assert spec.numbers == ['I%d' % i for i in range(1, 64)]
  assert [c.num_buckets for c in spec.categories] == [10, 10, 7]
  with pytest.raises(errors.UserError, match='different names, got I2 twice'):
    feature_spec.FeatureSpec([{'names': ['I1:I3', 'I2'], 'kind': 'number'}])
