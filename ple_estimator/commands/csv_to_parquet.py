r"""Turns CSV files into Parquet, checking every row on the way.

  ple-estimator csv-to-parquet data/taobao_train_data
  ple-estimator csv-to-parquet 'raw/*.csv' --header --out data/all.parquet
  ple-estimator csv-to-parquet raw.csv --out data/taobao.parquet \
      --split-by user_id --test-fraction 0.2

The columns and their types come from the feature spec of a .gin file: labels,
numbers and weights become float, integers int64, all else text. Rows stream
through; memory does not grow with the files. A row that cannot be used ends the
run with its file and row number, and leaves no output behind.

With --split-by, rows go to <out>_train.parquet or <out>_test.parquet by a hash
of that column, so that all rows of one value (one user) go to the same file.
"""

import argparse
import os
import sys
import zlib

import gin
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import files
from ple_estimator.data import csv_dialect
from ple_estimator.data import csv_reader
from ple_estimator.data import feature_spec
from ple_estimator.data import input_files
from ple_estimator.data import parquet_files
from ple_estimator.data import row_checks


class Output:
  """A Parquet file that appears under its name when it is complete."""

  def __init__(self, path, schema, row_group_size):
    self._path = path
    self._row_group_size = row_group_size
    self._partial = path + '.partial'
    self._writer = parquet_files.writer(self._partial, schema)
    self._held, self._held_rows = [], 0
    self.rows = 0

  def write(self, table):
    """Adds rows, a pa.Table."""
    self._held.append(table)
    self._held_rows += table.num_rows
    self.rows += table.num_rows
    while self._held_rows >= self._row_group_size:
      table = pa.concat_tables(self._held)
      self._writer.write_table(
          table.slice(0, self._row_group_size), self._row_group_size)
      rest = table.slice(self._row_group_size)
      self._held, self._held_rows = [rest], rest.num_rows

  def close(self, keep):
    """Ends the file; keep = False removes it."""
    if keep and self._held_rows:
      self._writer.write_table(
          pa.concat_tables(self._held), self._row_group_size)
    self._writer.close()
    if keep:
      os.replace(self._partial, self._path)
    else:
      os.remove(self._partial)


def in_test(values, fraction):
  """Decides by the value alone which rows are test rows.

  Args:
    values: pa.Array of binary.
    fraction: float, the share of values (not rows) that are test.

  Returns:
    [rows] bool numpy array.
  """
  unique = pc.dictionary_encode(values)
  chosen = np.array([zlib.crc32(v) < fraction * 2**32
                     for v in unique.dictionary.to_pylist()], bool)
  return chosen[unique.indices.to_numpy()]


def parts(table, split_by, test_fraction):
  """Splits a table into (ending of the file to write to, pa.Table) pairs."""
  if not split_by:
    return [('.parquet', table)]
  column = table.column(split_by).combine_chunks()
  test = in_test(column.cast(pa.string()).cast(pa.binary()), test_fraction)
  return [('_train.parquet', table.filter(pa.array(~test))),
          ('_test.parquet', table.filter(pa.array(test)))]


def storable(table, spec):
  """Converts for other tools: bytes to text, a missing integer to null."""
  for i, column in enumerate(spec.columns):
    values = table.column(i)
    if pa.types.is_binary(values.type):
      try:
        values = values.cast(pa.string())
      except pa.ArrowInvalid:
        raise errors.UserError(
            'Column %r must be UTF-8 to become Parquet text.' % column.name)
    elif pa.types.is_integer(values.type):
      missing = pc.equal(values, column.missing)
      values = pc.if_else(missing, pa.scalar(None, values.type), values)
    table = table.set_column(i, column.name, values)
  return table


def convert(args, spec):
  """Streams all rows; returns the outputs by path and the rows skipped."""
  files.check_local('The arguments', args.csv)
  files.check_local('--out', args.out or '')
  paths = input_files.find('', args.csv, '', 'The arguments')
  errors.check(args.out or paths == args.csv[:1],
               '--out must be given for more than one file, a directory or a '
               'pattern, got %s.', ' '.join(args.csv))
  bad_rows = row_checks.BadRows(args.skip_bad_rows)
  reader = csv_reader.CsvReader(
      paths, spec.columns, bad_rows, [column.name for column in spec.columns],
      args.header, args.dialect)
  reader.check()
  stem = args.out or paths[0]
  stem = stem[:-len('.parquet')] if stem.endswith('.parquet') else stem
  os.makedirs(os.path.dirname(stem) or '.', exist_ok=True)
  tables = (table for piece in reader.slices() for table in reader.read(piece))
  outputs, done = {}, False
  try:
    for table in tables:
      for ending, part in parts(table, args.split_by, args.test_fraction):
        part, path = storable(part, spec), stem + ending
        if path not in outputs:
          outputs[path] = Output(path, part.schema, args.row_group_size)
        outputs[path].write(part)
    done = True
  finally:
    for output in outputs.values():
      output.close(keep=done)
  return outputs, bad_rows.skipped


def parse_args(argv):
  """The arguments of the command line, checked."""
  parser = argparse.ArgumentParser(
      prog='ple-estimator csv-to-parquet', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('csv', nargs='+', help='files, directories or patterns')
  parser.add_argument('--out', help='file to write; default: the CSV file\'s '
                      'name and .parquet')
  parser.add_argument('--gin_file', default='gin/taobao.gin',
                      help='binds FeatureSpec')
  parser.add_argument('--header', action='store_true',
                      help='the first line names the columns')
  parser.add_argument('--delimiter', default=',',
                      help='one ASCII character between fields')
  parser.add_argument('--quote', default='"',
                      help='the same around fields; empty if quotes are text')
  parser.add_argument('--escape', help='the same, before what is text')
  parser.add_argument('--null_values', nargs='+', default=(), metavar='TEXT',
                      help='what counts as an empty field')
  parser.add_argument('--row-group-size', type=int, default=50000,
                      help='rows per row group')
  parser.add_argument('--skip-bad-rows', action='store_true',
                      help='leave them out instead of stopping')
  parser.add_argument('--split-by', metavar='COLUMN',
                      help='write a train and a test file, see above')
  parser.add_argument('--test-fraction', type=float,
                      help='share of the values of that column in the test '
                      'file; default: 0.2')
  args = parser.parse_args(argv)
  if args.row_group_size < 1:
    parser.error('--row-group-size must be at least 1')
  if args.test_fraction is None:
    args.test_fraction = 0.2
  elif not args.split_by:
    parser.error('--test-fraction needs --split-by')
  args.dialect = csv_dialect.Dialect(
      args.delimiter, args.quote or None, args.escape, args.null_values)
  try:
    args.dialect.check('--')
  except errors.UserError as error:
    parser.error(str(error))
  if not 0 < args.test_fraction < 1:
    parser.error('--test-fraction must be between 0 and 1')
  return args


def main(arguments=None):
  """Converts files; returns the exit status.

  Args:
    arguments: list of str; None takes those of the process.
  """
  args = parse_args(arguments)
  try:
    config.load(args.gin_file, roots=['FeatureSpec', 'Experiment'])
    spec = gin.get_configurable(feature_spec.FeatureSpec)()
    names = [column.name for column in spec.columns]
    errors.check(not args.split_by or args.split_by in names,
                 '--split-by must be a column (%s), got %r.',
                 ', '.join(names), args.split_by)
    outputs, skipped = convert(args, spec)
  except (ValueError, TypeError, OSError) as error:  # gin's, and UserError
    sys.stderr.write('ple-estimator csv-to-parquet: %s\n' % error)
    return 1
  for path, output in sorted(outputs.items()):
    print('%s: %d rows' % (path, output.rows))
  if skipped:
    print('%d bad rows skipped' % skipped)
  return 0

