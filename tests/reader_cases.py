"""The columns, files and readers that tests of readers share."""

from ple_estimator.data import csv_dialect
from ple_estimator.data import csv_reader
from ple_estimator.data import feature_spec
from ple_estimator.data import parquet_reader
from ple_estimator.data import row_checks

SPEC = feature_spec.FeatureSpec([
    {'name': 'y', 'kind': 'label'},
    {'name': 'id', 'kind': 'integer', 'num_buckets': 100000},
    {'name': 'word', 'kind': 'hashed', 'num_buckets': 7},
])


def lines(count):
  """Lines of CSV with ids from 0."""
  return ['%d,%d,w%s' % (i % 2, i, 'x' * (i % 13)) for i in range(count)]


def of_csv(path, skip=False, header=False, dialect=csv_dialect.Dialect()):
  """Returns a CsvReader and its BadRows."""
  bad = row_checks.BadRows(skip)
  names = [column.name for column in SPEC.columns]
  return csv_reader.CsvReader(
      [str(path)], SPEC.read(True), bad, names, header, dialect), bad


def of_parquet(path, skip=False, labels=True):
  """Returns a ParquetReader and its BadRows."""
  bad = row_checks.BadRows(skip)
  return parquet_reader.ParquetReader([str(path)], SPEC.read(labels), bad), bad


def ids(reader, slices=None):
  """The ids in slices, or in all rows."""
  return [x for piece in (slices or reader.slices())
          for table in reader.read(piece) for x in table['id'].to_pylist()]
