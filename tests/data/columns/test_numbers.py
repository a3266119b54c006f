"""Numbers: what the network reads of them."""

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator.data import column_kinds


def run(tensors):
  with tf.Session() as sess:
    return sess.run(tensors)


def test_numbers_are_transformed():
  column = column_kinds.Number('x', log1p=True, mean=2.0, std=0.5)
  got = run(column.encode(tf.constant([0.0, 9.0])))
  np.testing.assert_allclose(got, (np.log1p([0, 9]) - 2) / 0.5, rtol=1e-6)
