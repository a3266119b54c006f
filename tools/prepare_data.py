#!/usr/bin/env python3
r"""Sees to it that a folder has the Parquet files that gin/base.gin reads.

  python tools/prepare_data.py --out data

`make run` calls it. The files are taobao_train_data.parquet,
taobao_validation_data.parquet and taobao_test_data.parquet; those that are
there stay as they are. What is missing comes from what the folder has:

  nothing               rows of make_data.py
  rows of make_data.py that are older than its validation file
                        the validation file, from the same options
  the real rows as CSV, taobao_train_data and taobao_test_data
                        Parquet of both; a tenth of the train rows, drawn at
                        random, becomes the validation file
  such rows as Parquet only
                        a tenth likewise; the whole train file is kept as
                        taobao_train_data.whole.parquet
"""

import argparse
import os
import sys

import make_data
import numpy as np
import pyarrow as pa
import pyarrow.parquet

SHARE, SEED = 0.1, 2021  # of the rows that become validation rows


def path_of(folder, part, ending='.parquet'):
  return os.path.join(folder, 'taobao_%s_data%s' % (part, ending))


def cut(folder):
  """Cuts the validation file from a train file that is Parquet."""
  train, validation = path_of(folder, 'train'), path_of(folder, 'validation')
  whole = path_of(folder, 'train', '.whole.parquet')
  if os.path.exists(whole):
    raise ValueError('%s must be cut, but %s is there already: remove one of '
                     'them.' % (train, whole))
  source = pa.parquet.ParquetFile(train)
  rng = np.random.RandomState(SEED)
  writers = [make_data.parquet_writer(path + '.partial', source.schema_arrow)
             for path in (train, validation)]
  for group in range(source.num_row_groups):
    table = source.read_row_group(group)
    held_out = rng.random_sample(table.num_rows) < SHARE
    for writer, here in zip(writers, (~held_out, held_out)):
      writer.write_table(table.filter(pa.array(here)))
  for writer in writers:
    writer.close()
  os.rename(train, whole)
  for path in (validation, train):
    os.replace(path + '.partial', path)
  print('%s: the rows of %s but for those in %s' % (train, whole, validation))


def convert(folder, part, *options):
  """Runs csv-to-parquet on a CSV file of the folder."""
  # Here, so that what needs no TensorFlow does not wait for it.
  from ple_estimator.commands import csv_to_parquet
  if csv_to_parquet.main([path_of(folder, part, '')] + list(options)):
    raise ValueError('%s could not be converted, see above.' % path_of(
        folder, part, ''))


def generated(folder):
  """Adds the validation file to rows of make_data.py; whether it did so."""
  world = make_data.World(SEED)
  if make_data.difference(world, folder, SEED):
    return False
  return not make_data.main(['--out', folder, '--only-validation'])


def prepare(folder):
  """Makes what is missing; raises ValueError or OSError if it cannot."""
  missing = [part for part in make_data.PARTS
             if not os.path.exists(path_of(folder, part))]
  csv = [part for part in make_data.PARTS
         if os.path.exists(path_of(folder, part, ''))]
  if not csv and len(missing) == len(make_data.PARTS):
    make_data.main(['--out', folder])
    return
  if missing == ['validation'] and generated(folder):
    return
  if 'validation' in missing and 'validation' not in csv:
    if 'train' in csv:
      convert(folder, 'train', '--validation', str(SHARE), '--seed', str(SEED))
    elif 'train' not in missing:
      cut(folder)
    missing = [part for part in missing if part == 'test']
  for part in missing:
    if part not in csv:
      raise ValueError('%s has neither %s nor the same as .parquet: see '
                       'data/README.md.' % (folder, 'taobao_%s_data' % part))
    convert(folder, part)


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--out', default='data', help='the folder')
  args = parser.parse_args()
  try:
    prepare(args.out)
  except (OSError, ValueError) as error:
    sys.stderr.write('prepare_data: %s\n' % error)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
