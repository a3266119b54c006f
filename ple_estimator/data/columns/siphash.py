"""The hash of tf.strings.to_hash_bucket_strong, in numpy.

It is SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF",
INDOCRYPT 2012) with the key (0, 0).
"""

import numpy as np

# tf.strings.to_hash_bucket_strong(x, NUM_BUCKETS, KEY) is the same.
NUM_BUCKETS = 2**63 - 1
KEY = (0, 0)
# b'somepseudorandomlygeneratedbytes', by eight.
_START = (0x736f6d6570736575, 0x646f72616e646f6d, 0x6c7967656e657261,
          0x7465646279746573)


def hashes(texts):
  """Hashes texts to [0, 2^63 - 1).

  Args:
    texts: list of bytes.

  Returns:
    [texts] int64 numpy array.
  """
  found = np.empty(len(texts), np.uint64)
  lengths = np.array([len(text) for text in texts], np.int64)
  for length in np.unique(lengths).tolist():  # together, as they are alike
    at = np.flatnonzero(lengths == length)
    blocks = np.zeros((len(at), length // 8 * 8 + 8), np.uint8)
    joined = b''.join([texts[i] for i in at])
    blocks[:, :length] = np.frombuffer(joined, np.uint8).reshape(
        len(at), length)
    blocks[:, -1] = length % 256
    found[at] = _of_blocks(blocks.view('<u8').astype(np.uint64))
  return (found % np.uint64(NUM_BUCKETS)).astype(np.int64)


def _of_blocks(blocks):
  """[texts, n] uint64 of 8 bytes each -> [texts] uint64."""
  state = [np.full(len(blocks), start, np.uint64) for start in _START]
  for block in blocks.T:
    state[3] = state[3] ^ block
    state = _round(_round(state))
    state[0] = state[0] ^ block
  state[2] = state[2] ^ np.uint64(0xff)
  for _ in range(4):
    state = _round(state)
  return state[0] ^ state[1] ^ state[2] ^ state[3]


def _round(state):
  """One SipRound of the paper; sums are modulo 2^64."""
  a, b, c, d = state
  a, c = a + b, c + d
  b, d = _turned(b, 13) ^ a, _turned(d, 16) ^ c
  a = _turned(a, 32)
  a, c = a + d, c + b
  d, b = _turned(d, 21) ^ a, _turned(b, 17) ^ c
  return [a, b, _turned(c, 32), d]


def _turned(x, bits):
  """Rotates uint64 to the left."""
  return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))
