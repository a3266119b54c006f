"""What the rows of variables stand for."""

from ple_estimator.training import layout


def test_a_vector_that_has_another_name_keeps_its_numbers():
  older = {'groups': [], 'numbers': [['age', 1], ['face', 2]],
           'inputs': [['ad', 4], ['age', 1], ['face', 2]]}
  now = layout.renamed(older, {'face': 'look'})
  assert layout.labels(now['numbers']) == [
      ('age', 1, 0), ('look', 2, 0), ('look', 2, 1)]
  assert now['inputs'] == [['ad', 4], ['age', 1], ['look', 2]]
  assert older['numbers'][1] == ['face', 2]
