r"""Turns CSV files into Parquet, checking every row on the way.

  ple-estimator csv-to-parquet data/taobao_train_data
  ple-estimator csv-to-parquet 'raw/*.csv' --header --out data/all.parquet
  ple-estimator csv-to-parquet s3://bucket/day1.csv.gz --out data/day1.parquet
  ple-estimator csv-to-parquet --validation 0.1 data/taobao_train_data
  ple-estimator csv-to-parquet raw.csv --out data/taobao.parquet \
      --split-by user_id --test-fraction 0.2 --validation 0.1

The columns and their types come from the feature spec of a .gin file: labels,
numbers and weights become float, integers int64, all else text. Labels whose
'values' are a dict stay the text of the file, so that the same spec reads the
Parquet file; a label may be missing, as only the tasks say where. Rows stream
through; memory does not grow with the files. A row that cannot be used ends the
run with its file and row number, and leaves no output behind.

With --validation, that share of the rows, drawn at random, goes to a file of
its own: its name is that of the other one with "validation" in the place of
"train", here data/taobao_validation_data.parquet; where the name has no
"train", <out>_validation.parquet. The same seed draws the same rows.

With --split-by, rows go to <out>_train.parquet or <out>_test.parquet by a hash
of that column, so that all rows of one value (one user) go to the same file.
With --validation too, that share of the values that are not in the test file
goes to <out>_validation.parquet.
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
from ple_estimator.storage import uris


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


class Split:
  """Decides which rows go to which file."""

  def __init__(self, stem, split_by, test_fraction, validation, seed):
    """Stores the options.

    Args:
      stem: str, the path of the output without .parquet.
      split_by: str, the column whose value decides; None splits by no value.
      test_fraction: float, the share of values (not rows) that are test.
      validation: float, the share of rows for validation, or with split_by of
        the values that are not test; None makes no such file.
      seed: int, of the draw of rows.
    """
    self._stem = stem
    self._split_by = split_by
    self._test = test_fraction if split_by else 0
    self._validation = validation or 0
    self._rng = np.random.RandomState(seed)

  def parts(self, table):
    """Splits a table into (path of the file to write to, pa.Table) pairs."""
    if self._split_by:
      chance = hashes(self._split_by_values(table))
    elif self._validation:
      chance = self._rng.random_sample(table.num_rows)
    else:
      return [(self._stem + '.parquet', table)]
    held_out = self._test + (1 - self._test) * self._validation
    found = [(self._path('train'), chance >= held_out)]
    if self._validation:
      found.append((self._path('validation'),
                    (chance >= self._test) & (chance < held_out)))
    if self._split_by:
      found.append((self._path('test'), chance < self._test))
    return [(path, table.filter(pa.array(here))) for path, here in found]

  def _split_by_values(self, table):
    column = table.column(self._split_by).combine_chunks()
    return column.cast(pa.string()).cast(pa.binary())

  def _path(self, part):
    if self._split_by:
      return '%s_%s.parquet' % (self._stem, part)
    if part == 'train':
      return self._stem + '.parquet'
    folder, name = os.path.split(self._stem)
    before, train, after = name.rpartition('train')
    return os.path.join(folder, '%s.parquet' % (
        before + part + after if train else '%s_%s' % (name, part)))


def hashes(values):
  """A number from 0 to 1 for each value, which depends on the value alone.

  Args:
    values: pa.Array of binary.

  Returns:
    [rows] float64 numpy array, at least 0 and below 1.
  """
  unique = pc.dictionary_encode(values)
  found = np.array([zlib.crc32(v) / 2**32
                    for v in unique.dictionary.to_pylist()], np.float64)
  return found[unique.indices.to_numpy()]


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
  uris.check('The arguments', args.csv)
  files.check_local('--out', args.out or '')
  paths = input_files.find('', args.csv, '', 'The arguments')
  errors.check(args.out or paths == args.csv[:1] and
               not uris.is_remote(paths[0]),
               '--out must be given for more than one file, a directory, a '
               'pattern or a remote file, got %s.', ' '.join(args.csv))
  bad_rows = row_checks.BadRows(args.skip_bad_rows)
  reader = csv_reader.CsvReader(
      paths, [column.stored() for column in spec.columns], bad_rows,
      [column.name for column in spec.columns], args.header, args.dialect)
  reader.check()
  stem = args.out or paths[0]
  stem = stem[:-len('.parquet')] if stem.endswith('.parquet') else stem
  os.makedirs(os.path.dirname(stem) or '.', exist_ok=True)
  tables = (table for piece in reader.slices() for table in reader.read(piece))
  split = Split(stem, args.split_by, args.test_fraction, args.validation,
                args.seed)
  outputs, done = {}, False
  try:
    for table in tables:
      for path, part in split.parts(table):
        part = storable(part, spec)
        if path not in outputs:
          outputs[path] = Output(path, part.schema, args.row_group_size)
        outputs[path].write(part)
    _check_parts(args, outputs)
    done = True
  finally:
    for output in outputs.values():
      output.close(keep=done)
  return outputs, bad_rows.skipped


def _check_parts(args, outputs):
  """Raises UserError if --validation leaves a file without rows."""
  empty = [path for path, output in sorted(outputs.items()) if not output.rows]
  errors.check(not (args.validation and empty), '--validation %g leaves no row '
               'for %s: choose another share, or another --seed.',
               args.validation, ', '.join(empty))


def parse_args(argv):
  """The arguments of the command line, checked."""
  parser = _parser()
  args = parser.parse_args(argv)
  if args.row_group_size < 1:
    parser.error('--row-group-size must be at least 1')
  if args.test_fraction is None:
    args.test_fraction = 0.2
  elif not args.split_by:
    parser.error('--test-fraction needs --split-by')
  if args.seed is None:
    args.seed = 2021
  elif not args.validation or args.split_by:
    parser.error('--seed needs --validation without --split-by')
  args.dialect = csv_dialect.Dialect(
      args.delimiter, args.quote or None, args.escape, args.null_values)
  try:
    args.dialect.check('--')
  except errors.UserError as error:
    parser.error(str(error))
  if not 0 < args.test_fraction < 1:
    parser.error('--test-fraction must be between 0 and 1')
  if args.validation is not None and not 0 < args.validation < 1:
    parser.error('--validation must be between 0 and 1')
  if not 0 <= args.seed < 2**32:
    parser.error('--seed must be from 0 to 4294967295')
  return args


def _parser():
  parser = argparse.ArgumentParser(
      prog='ple-estimator csv-to-parquet', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('csv', nargs='+', help='files, directories or '
                      'patterns; paths or URIs such as s3://bucket/a.csv')
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
  parser.add_argument('--validation', type=float, metavar='SHARE',
                      help='share of the rows that go to a validation file, '
                      'see above')
  parser.add_argument('--seed', type=int, help='of the draw of rows for '
                      '--validation; default: 2021')
  return parser


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

