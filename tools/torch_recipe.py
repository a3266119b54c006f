#!/usr/bin/env python3
r"""The tuned peer: the network of gin/zoo.gin in compiled PyTorch.

  python tools/torch_recipe.py --data data --steps 150 --dtype bfloat16

prints one line of JSON: steps per second, processor seconds per 1000 steps,
peak memory, and the mean loss of the first and of the last ten steps. It is a
yardstick for speed alone: PLE as someone who knows PyTorch well would write it
for one machine, rid of everything that is not the step.

The network is that of gin/zoo.gin: 17 columns of vectors of 16 numbers, lists
averaged; 3 levels, 2 experts per task and 1 shared; experts, gates and towers
256-128-64 with relu and batch norm; two tasks. tools/torch_model.py is the
part that knows PyTorch, and says how it is made fast.

In the clock are, for the peer as for an experiment: reading the vectors of the
batch, forward pass, loss, backward pass, batch norm's moving averages, Adam of
the network, and lazy Adam of the rows of the batch. An experiment has also in
its clock, and the peer has not:

  input      reading and shuffling Parquet, hashing, and finding the different
             ids of a batch; the peer has that done for one epoch of batches,
             at the most, before its process starts
  progress   losses, summaries every 100 steps, and what tf.estimator does
             around a step

Neither has its start in the clock, compilation and the first 10 steps
included. With bfloat16 the products of both are bfloat16 and their variables
float32; in PyTorch by autocast. The peak of memory is that of the training
process: compiling is in it, and so are the batches, but not the making of
them.

On its first use it makes a virtual environment (by default .venv/torch) with
the packages below, CPU only: it never takes PyTorch's wheel for CUDA, which is
gigabytes. pip has to know where the CPU wheels of PyTorch are. Needs g++.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zlib

import environments
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_MODEL = os.path.join(_ROOT, 'tools', 'torch_model.py')
# The local version says CPU: the index of Python has the one for CUDA only.
PACKAGES = ['torch==2.13.0+cpu', 'numpy==2.2.6']
_HINT = ('The CPU wheels of PyTorch have an index of their own, which '
         "PyTorch's page \"Start Locally\" names: give it to pip in "
         'PIP_EXTRA_INDEX_URL.')
# Memory that is freed stays with the process, and comes in huge pages.
_KEEP = 8 << 30
MALLOC = ('glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=%d:'
          'glibc.malloc.mmap_threshold=%d' % (_KEEP, _KEEP))

# Buckets of the columns, as gin/zoo.gin has them.
BUCKETS = {
    'pid': 10, 'adgroup_id': 100000, 'cate_id': 10000, 'campaign_id': 100000,
    'customer': 100000, 'brand': 100000, 'user_id': 100000, 'cms_segid': 100,
    'cms_group_id': 100, 'age_level': 10, 'pvalue_level': 10,
    'shopping_level': 10, 'occupation': 10, 'new_user_class_level': 10,
    'tag_category_list': 100000, 'tag_brand_list': 100000, 'price': 50}
_LISTS = ('tag_category_list', 'tag_brand_list')
_LABELS = ('clk', 'buy')


# ----------------------------------------------------- what is made beforehand


class Rows:
  """The rows of a Parquet file, with their ids hashed.

  The ids of a column are behind those of the columns before it, so that all
  columns have one table.
  """

  def __init__(self, path):
    """Reads the rows.

    Args:
      path: str, of a file as tools/make_data.py writes it.
    """
    table = pa.parquet.read_table(path, columns=list(_LABELS) + list(BUCKETS))
    self.labels = np.stack([table[name].to_numpy() for name in _LABELS],
                           axis=1).astype(np.float32)
    self._columns = []  # of each (ids, begins of the rows in them)
    first = 0
    for name, buckets in BUCKETS.items():
      values = table[name].combine_chunks()
      if isinstance(values, pa.ChunkedArray):  # of pyarrow before 13
        values = values.chunk(0)
      begins = np.arange(len(values) + 1)
      if name in _LISTS:
        lists = pc.split_pattern(values, '|')
        begins = lists.offsets.to_numpy()
        values = lists.flatten()
      self._columns.append((_hashed(values, buckets) + first, begins))
      first += buckets

  def batch(self, rows):
    """Makes a batch.

    Args:
      rows: [batch] int, which rows.

    Returns:
      (unique, place, begins, labels): [u] int64, the different ids in their
      order; [n] int32, where among those each id is, by row and then column;
      [batch * columns] int32, where in them each field begins; [batch, 2]
      float32.
    """
    ids, counts = [], []
    for values, begins in self._columns:
      count = begins[rows + 1] - begins[rows]
      counts.append(count)
      first = np.repeat(begins[rows] - (np.cumsum(count) - count), count)
      ids.append(values[first + np.arange(len(first))])
    counts = np.stack(counts)  # [columns, batch]
    field = np.arange(counts.size).reshape(counts.shape[::-1]).T
    order = np.argsort(np.repeat(field.ravel(), counts.ravel()), kind='stable')
    unique, place = np.unique(np.concatenate(ids)[order], return_inverse=True)
    lengths = counts.T.ravel()
    return (unique, place.astype(np.int32),
            (np.cumsum(lengths) - lengths).astype(np.int32), self.labels[rows])


def _hashed(values, buckets):
  """[n] int64, the ids of an array of texts, or of numbers below `buckets`."""
  if not pa.types.is_string(values.type):
    return values.to_numpy().astype(np.int64)
  values = values.dictionary_encode()
  of_each = np.array([zlib.crc32(text.encode()) % buckets
                      for text in values.dictionary.to_pylist()], np.int64)
  return of_each[values.indices.to_numpy()]


def write_batches(path, rows, batch_size, count, seed=2021):
  """Writes shuffled batches, one epoch at the most.

  Args:
    path: str, of an .npz file. It has the arrays of the batches, joined:
      'unique', 'place', 'begins', 'labels', and of each 'ends_' and its name:
      [batches] int64, where in it each batch ends.
    rows: Rows.
    batch_size: int.
    count: int, batches.
    seed: int.

  Raises:
    ValueError: if there are fewer rows than a batch has.
  """
  total = len(rows.labels)
  count = min(count, total // batch_size)
  if not count:
    raise ValueError('--batch_size must be at most the %d rows, got %d.' % (
        total, batch_size))
  order = np.random.RandomState(seed).permutation(total)
  batches = [rows.batch(order[i * batch_size:(i + 1) * batch_size])
             for i in range(count)]
  arrays = {}
  for name, parts in zip(('unique', 'place', 'begins', 'labels'),
                         zip(*batches)):
    arrays[name] = np.concatenate(parts)
    arrays['ends_' + name] = np.cumsum([len(part) for part in parts])
  np.savez(path, **arrays)


# ------------------------------------------------------------------ the command


def has_bfloat16():
  """Whether this processor has products of bfloat16 (AVX-512 or AMX)."""
  with open('/proc/cpuinfo') as f:
    flags = {flag for line in f if line.startswith('flags')
             for flag in line.split()}
  return bool(flags & {'avx512_bf16', 'amx_bf16'})


def check_dtype(dtype):
  """Raises ValueError if this processor has no products of a dtype."""
  if dtype == 'bfloat16' and not has_bfloat16():
    raise ValueError('bfloat16 needs a processor with AVX512_BF16 or AMX_BF16, '
                     'and this one has neither.')


def interpreter(args):
  """The interpreter that has PyTorch; its environment is made if need be.

  Args:
    args: the arguments of the command, of `parser`.

  Raises:
    ValueError: if there is none.
  """
  if not shutil.which('g++'):
    raise ValueError('needs g++, by which PyTorch compiles: install it.')
  return environments.interpreter(
      args.environment, PACKAGES, args.python or environments.python(), _HINT)


def environment_variables(args):
  """The variables of the training process."""
  compiled = os.path.abspath(os.path.join(args.environment, 'compiled'))
  return dict(os.environ, GLIBC_TUNABLES=MALLOC,
              TORCHINDUCTOR_CACHE_DIR=compiled)


def run(args):
  """Trains; its last line is the JSON.

  Returns:
    int, the exit status of the training.

  Raises:
    ValueError: if the training cannot begin.
  """
  if args.steps < 10 or args.batch_size < 2 or args.threads < 1:
    raise ValueError('--steps must be at least 10, --batch_size at least 2 and '
                     '--threads at least 1, got %d, %d and %d.' % (
                         args.steps, args.batch_size, args.threads))
  check_dtype(args.dtype)
  python = interpreter(args)
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'batches.npz')
    write_batches(path, Rows(os.path.join(
        args.data, 'taobao_train_data.parquet')), args.batch_size, args.steps)
    return subprocess.call(
        [python, _MODEL, path, '--steps', str(args.steps), '--dtype',
         args.dtype, '--threads', str(args.threads), '--table',
         str(sum(BUCKETS.values())), '--columns', str(len(BUCKETS))],
        env=environment_variables(args))


def parser():
  """The parser of the command line."""
  made = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  add = made.add_argument
  add('--data', default='data', help='folder made by tools/make_data.py')
  add('--steps', type=int, default=150, help='steps timed')
  add('--batch_size', type=int, default=512)
  add('--dtype', choices=['float32', 'bfloat16'], default='float32')
  add('--threads', type=int, default=len(os.sched_getaffinity(0)),
      help='by default one for each processor that it may use')
  add('--environment', default=os.path.join(_ROOT, '.venv', 'torch'),
      help='where the packages are, or will be')
  add('--python', help='interpreter that makes the environment')
  return made


def main():
  """Trains; returns the exit status."""
  args = parser().parse_args()
  try:
    return run(args)
  except (OSError, ValueError) as error:
    sys.stderr.write('torch_recipe: %s\n' % error)
    return 1


if __name__ == '__main__':
  sys.exit(main())
