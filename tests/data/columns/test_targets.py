"""Labels: which values are theirs."""

import pyarrow as pa

from ple_estimator.data import column_kinds


def test_label_values_need_not_be_exact_in_float32():
  allowed = [i / 10 for i in range(30)]
  array = pa.array([str(x).encode() for x in allowed], pa.binary())
  assert column_kinds.Label('x', allowed).parse(array)[1] is None
