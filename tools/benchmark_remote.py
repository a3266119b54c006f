#!/usr/bin/env python3
r"""Compares how fast rows are read from a disk and from a remote store.

  python tools/benchmark_remote.py data/taobao_train_data.parquet \
      data/taobao_train_data --serve
  python tools/benchmark_remote.py data/taobao_train_data.parquet \
      --to s3://bucket/speed

Copies the files, `--copies` times each, to a local folder and to the store, and
reads both in turn, `--rounds` times: all columns of gin/taobao.gin as batches
of 512 rows, as training does, without a model. Prints for each file the rows
per second from the disk, those from the store, and their ratio of the same
round: median (least to greatest). A file that does not end in .parquet is CSV.

--serve runs the S3 server of the package moto (of the extra `test`) on
loopback. It takes one of the machine's processors. With --to the files stay at
that URI; the environment says where it is and has the credentials.

The first round fills caches and is not counted.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from urllib import request

import gin
import pyarrow as pa
import pyarrow.fs

from ple_estimator import config
from ple_estimator.commands import local_cluster
from ple_estimator.data import inputs
from ple_estimator.data import reading
from ple_estimator.storage import remote

_BUCKET = 's3://speed'


@contextlib.contextmanager
def served():
  """Runs moto's S3 server, to which s3:// then leads; yields a URI there."""
  port = local_cluster.free_ports(1)[0]
  os.environ.update(
      AWS_ENDPOINT_URL='http://127.0.0.1:%d' % port, AWS_ACCESS_KEY_ID='speed',
      AWS_SECRET_ACCESS_KEY='speed', AWS_EC2_METADATA_DISABLED='true',
      AWS_REGION='us-east-1')
  server = subprocess.Popen(
      [sys.executable, '-m', 'moto.server', '-p', str(port)],
      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  try:
    until = time.time() + 60
    while True:
      try:
        bucket = request.Request(
            os.environ['AWS_ENDPOINT_URL'] + _BUCKET[len('s3:/'):],
            method='PUT')
        request.urlopen(bucket, timeout=5).read()
        break
      except OSError:
        if server.poll() is not None or time.time() > until:
          raise SystemExit('benchmark_remote: no server: pip install '
                           "'moto[s3]' flask flask-cors")
        time.sleep(0.1)
    yield _BUCKET
  finally:
    server.terminate()
    server.wait()


def copied(path, copies, folder, uri):
  """Copies a file to a new folder on both sides; returns their names."""
  name, suffix = os.path.splitext(os.path.basename(path))
  local = os.path.join(folder, name + suffix.replace('.', '-'))
  os.makedirs(local)
  for i in range(copies):
    shutil.copy(path, os.path.join(local, '%02d%s' % (i, suffix)))
  there = '%s/%s' % (uri, os.path.basename(local))
  store, target = remote.system(there)
  pa.fs.copy_files(local, target, destination_filesystem=store)
  return local, there


def rows_per_second(folder, is_parquet, spec):
  """Reads all rows of a folder as batches."""
  kind = inputs.ParquetInput if is_parquet else inputs.CsvInput
  source = kind('*', folder)
  begin = time.perf_counter()
  rows = sum(table.num_rows for table in source.tables(reading.Reading(spec)))
  return rows / (time.perf_counter() - begin)


def compare(path, copies, rounds, folder, uri, spec):
  """Prints the line of a file."""
  places = copied(path, copies, folder, uri)
  pairs = [[rows_per_second(place, path.endswith('.parquet'), spec)
            for place in places] for _ in range(rounds + 1)][1:]
  ratios = [there / here for here, there in pairs]
  print('%s: %d rows/s from the disk, %d from the store, ratio %.2f (%.2f to '
        '%.2f)' % (os.path.basename(path),
                   statistics.median(here for here, _ in pairs),
                   statistics.median(there for _, there in pairs),
                   statistics.median(ratios), min(ratios), max(ratios)))


def main():
  """Compares the files of the command line."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('files', nargs='+', help='with the columns of taobao.gin')
  where = parser.add_mutually_exclusive_group(required=True)
  where.add_argument('--to', metavar='URI', help='a folder of a store')
  where.add_argument('--serve', action='store_true',
                     help='run an S3 server on loopback')
  parser.add_argument('--copies', type=int, default=4, help='of each file')
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()
  config.load('gin/taobao.gin', roots=['FeatureSpec'])
  spec = gin.get_configurable('FeatureSpec')()
  with contextlib.ExitStack() as stack:
    uri = args.to or stack.enter_context(served())
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    for path in args.files:
      compare(path, args.copies, args.rounds, folder, uri, spec)


if __name__ == '__main__':
  main()
