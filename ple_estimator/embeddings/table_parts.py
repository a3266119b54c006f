"""Divides the keys and rows of a keyed table among parameter servers.

With n parameter servers a table has n parts, and a key belongs to exactly one
of them. Part i of the table X is saved as X/part_i, as DeepRec does; a table
with a single part is saved as X. `joined` and `read` serve code that reads a
checkpoint without restoring it.
"""

import collections
import math
import re

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator.embeddings import splitmix64

_PART = re.compile(r'/part_(\d+)(?=(/\w+)?-\w+$)')


def part_of(keys, num_parts):
  """Which part each key belongs to: [n] int64 -> [n] int32."""
  # Scrambled first: ids are often multiples of some number.
  positive = splitmix64.not_negative(splitmix64.scramble(keys))
  return tf.cast(tf.mod(positive, np.int64(num_parts)), tf.int32)


def height(capacity, num_parts):
  """How many rows each part gets in a table that is to hold `capacity` keys.

  Keys are distributed as if at random, so one part gets more of them than
  another: the number of keys of a part has a standard deviation of at most the
  root of its mean. With six of these as reserve, fewer than one table in a
  billion has a part that is full too early.
  """
  share = -(-capacity // num_parts)
  return min(capacity, share + math.ceil(6 * share ** 0.5) + 6)


def next_task(device, num_parts):
  """The device of the parameter server that comes after the one of a device.

  Args:
    device: str, e.g. '/job:ps/task:1'.
    num_parts: int, how many parameter servers there are.

  Returns:
    str; '' if the device has no job, as in a training without a cluster.
  """
  spec = tf.DeviceSpec.from_string(device)
  if spec.job is None:
    return ''
  return tf.DeviceSpec(
      job=spec.job, task=((spec.task or 0) + 1) % num_parts).to_string()


def name_of(whole, part, num_parts):
  """The name of one part of what is called `whole`."""
  return '%s/part_%d' % (whole, part) if num_parts > 1 else whole


def whole_name(tensor):
  """The name of a tensor of a checkpoint without the part it belongs to."""
  return _PART.sub('', tensor)


def joined(names):
  """Which tensors of a checkpoint are parts of the same whole.

  Args:
    names: iterable of the names of all tensors.

  Returns:
    dict of the name of the whole to a list of names. A tensor of a table that
    was saved in parts consists of all of these, in this order; for any other
    tensor the list has its own name alone.
  """
  wholes = collections.defaultdict(list)
  for name in names:
    part = _PART.search(name)
    wholes[whole_name(name)].append((int(part.group(1)) if part else 0, name))
  return {whole: [name for _, name in sorted(numbered)]
          for whole, numbered in wholes.items()}


def read(reader, names):
  """Reads a tensor of a checkpoint, of all parts, as an array.

  Args:
    reader: what tf.train.load_checkpoint returns.
    names: list of str, the names of its parts, see `joined`.
  """
  arrays = [reader.get_tensor(name) for name in names]
  return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def sources_in(names, table, part, num_parts):
  """Which tables of a checkpoint may hold keys of one part of a table.

  The checkpoint may be of another number of parts.

  Args:
    names: set of the names of all tensors of the checkpoint.
    table: str, the name of the whole table.
    part: int, the part that is to be restored.
    num_parts: int, how many parts the table has now.

  Returns:
    list of str, the names of tables or parts, at least one. If the checkpoint
    does not have the table, it is the part's own name, which the restore will
    then report as missing.
  """
  if table + '-keys' in names:
    return [table]
  saved = ['%s/part_%d' % (table, i) for i in range(len(names))]
  saved = [name for name in saved if name + '-keys' in names]
  # A key belongs to `part` if its number modulo num_parts is `part`, and was
  # saved in part i if its number modulo len(saved) is i. Both can hold only if
  # part and i are equal modulo the greatest common divisor.
  common = math.gcd(num_parts, len(saved))
  return saved[part % common:len(saved):common] or [
      name_of(table, part, num_parts)]
