"""Scrambled keys against published numbers, vectors against statistics."""

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator.embeddings import splitmix64


def evaluated(tensor):
  with tf.Session() as session:
    return session.run(tensor)


def test_scrambles_as_the_published_generator():
  # The first numbers of the generator with seed 0: its state grows by GOLDEN.
  states = [i * 0x9e3779b97f4a7c15 % 2 ** 64 for i in range(5)]
  got = evaluated(splitmix64.scramble(tf.constant(
      np.array(states, np.uint64).astype(np.int64))))
  assert got.astype(np.uint64).tolist() == [
      0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f,
      0xf88bb8a8724c81ec, 0x1b39896a51a8749b]


def test_not_negative_keeps_63_bits():
  numbers = np.array([5, -1, -2**63, 2**63 - 1])
  assert evaluated(splitmix64.not_negative(tf.constant(numbers))).tolist() == [
      number % 2 ** 63 for number in numbers.tolist()]


def test_uniform_vectors_have_the_standard_deviation():
  got = evaluated(splitmix64.uniform(
      tf.range(20000, dtype=tf.int64), 3, 0.5, seed=11))
  assert got.shape == (20000, 3) and got.dtype == np.float32
  # A uniform distribution on [-b, b) has the standard deviation b / sqrt(3).
  assert np.abs(got).max() <= 0.5 * 3 ** .5
  np.testing.assert_allclose(got.mean(axis=0), 0, atol=0.015)
  np.testing.assert_allclose(got.std(axis=0), 0.5, rtol=0.01)
  assert np.abs(np.corrcoef(got.T) - np.eye(3)).max() < 0.03


def test_uniform_vectors_depend_on_key_and_seed_alone():
  keys = np.array([3, 2**62, 7])
  make = lambda keys, seed: evaluated(
      splitmix64.uniform(tf.constant(keys), 4, 1.0, seed))
  np.testing.assert_array_equal(make(keys, 5)[::-1], make(keys[::-1], 5))
  assert (make(keys, 5) != make(keys, 6)).all()
