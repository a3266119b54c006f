"""SipHash in numpy against the paper and TensorFlow."""

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator.data.columns import siphash


def test_hashes_are_those_of_tensorflow():
  rng = np.random.RandomState(1)
  texts = [b''] + [rng.bytes(n) for n in list(range(70)) + [255, 256, 1000]]
  with tf.Session() as sess:
    expected = sess.run(tf.strings.to_hash_bucket_strong(
        texts, siphash.NUM_BUCKETS, siphash.KEY))
  np.testing.assert_array_equal(siphash.hashes(texts), expected)


def test_there_may_be_no_text():
  assert siphash.hashes([]).tolist() == []
