"""What --out writes: a JSON or Parquet file that says what it is about."""

import json
import math
import os

import pyarrow.parquet

from ple_estimator import errors
from ple_estimator import files


def check(path):
  """Raises UserError unless a path is one that `write` takes.

  Args:
    path: str; None or '' writes nothing.
  """
  errors.check(
      not path or path.endswith(('.json', '.parquet')), '--out must end in '
      '.json or .parquet, got %r.', path)
  files.check_local('--out', path or '')


def write(path, about, of_json, of_parquet):
  """Writes a file.

  Args:
    path: str; its folder is made.
    about: dict of JSON, what the numbers are of: keys of the JSON file, or
      metadata of the Parquet file, under ple_estimator.
    of_json: function without arguments to a dict of JSON, of which NaN becomes
      null.
    of_parquet: function without arguments to a pa.Table.
  """
  os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
  if path.endswith('.json'):
    files.write_json(path, dict(about, **_without_nan(of_json())), indent=2)
    return
  pyarrow.parquet.write_table(of_parquet().replace_schema_metadata(
      {b'ple_estimator': json.dumps(about).encode()}), path)


def _without_nan(value):
  if isinstance(value, dict):
    return {name: _without_nan(of) for name, of in value.items()}
  if isinstance(value, list):
    return [_without_nan(of) for of in value]
  return None if isinstance(value, float) and math.isnan(value) else value
