"""Fixtures of data, and how tests look at what a run with a queue has left."""

import glob
import json

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.data import reader


@pytest.fixture
def slices(tmp_path):
  path = tmp_path / 'x'
  path.write_bytes(b'12345')
  return [reader.Slice(str(path), 0, i, i + 1) for i in range(5)]


@pytest.fixture(scope='session')
def numbered(taobao, tmp_path_factory):
  """1,000 rows whose user_id is their number, in row groups of 100."""
  path = tmp_path_factory.mktemp('numbered')
  table = pa.parquet.read_table(taobao + '/taobao_test_data.parquet')
  table = table.set_column(
      table.column_names.index('user_id'), 'user_id',
      pa.array([str(i) for i in range(1000)]))
  pa.parquet.write_table(
      table, str(path / 'taobao_train_data.parquet'), row_group_size=100)
  pa.csv.write_csv(table, str(path / 'numbered.csv'),
                   pa.csv.WriteOptions(include_header=False))
  pa.parquet.write_table(
      table[:200], str(path / 'taobao_validation_data.parquet'))
  return str(path)


def states(tmp_path):
  found = {}
  for path in glob.glob(str(tmp_path / 'model/work_queue/*')):
    with open(path) as f:
      found[int(path.rpartition('-')[2][:-5])] = json.load(f)
  return found


def fractions(tmp_path):
  """The values of the summary work_queue/fraction_done, by event file."""
  found = []
  for path in sorted(glob.glob(str(tmp_path / 'model/*.tfevents.*'))):
    try:
      for event in tf.train.summary_iterator(path):
        found += [value.simple_value for value in event.summary.value
                  if value.tag == 'work_queue/fraction_done']
    except tf.errors.DataLossError:
      pass  # its process was killed while it wrote the last event
  return found
