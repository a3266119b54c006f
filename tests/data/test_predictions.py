"""Predictions that are not finite are not written."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from ple_estimator import errors
from ple_estimator.data import predictions


def batches(bad):
  for first in (0, 5, 10):
    ctr = np.linspace(.1, .9, 5 if first < 10 else 3).astype('f')
    if first == 5:
      ctr[3] = bad
    yield {'id': np.arange(first, first + len(ctr)), 'ctr': ctr}


@pytest.mark.parametrize('name', ['p.parquet', 'p.csv'])
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_the_row_and_the_task_are_named(tmp_path, name, bad):
  path = str(tmp_path / name)
  with pytest.raises(errors.UserError, match='The prediction of task ctr is %s '
                     'for row 9 of Experiment.predict_input' % bad):
    predictions.write(path, predictions.finite(batches(bad), ['ctr']))
  assert not os.listdir(str(tmp_path))


@pytest.mark.parametrize('name', ['p.parquet', 'p.csv'])
def test_an_older_file_stays(tmp_path, name):
  path = str(tmp_path / name)
  good = predictions.finite(batches(.5), ['ctr'])
  assert predictions.write(path, good).num_rows == 13
  with pytest.raises(errors.UserError):
    predictions.write(path, predictions.finite(batches(-np.inf), ['ctr']))
  assert os.listdir(str(tmp_path)) == [name]
  assert sum(len(b['ctr']) for b in predictions.Predictions(
      path, 13).batches()) == 13


def test_probabilities_of_classes_are_lists(tmp_path):
  rng = np.random.RandomState(0)
  made = [{'n': np.arange(k), 'kind': rng.rand(k, 3).astype('f')}
             for k in (4, 2)]
  written = predictions.write(
      str(tmp_path / 'x.parquet'), predictions.finite(made, ['kind']))
  table = pa.parquet.read_table(written.path)
  assert table.schema.field('kind').type.value_type == pa.float32()
  found = list(written.batches())
  for name in ('n', 'kind'):
    np.testing.assert_array_equal(
        np.concatenate([batch[name] for batch in found]),
        np.concatenate([batch[name] for batch in made]))
  made[1]['kind'][1, 2] = np.nan
  with pytest.raises(errors.UserError, match='The prediction of task kind is '
                     r'nan for row 6 .*\(1 of the 2 rows'):
    list(predictions.finite(made, ['kind']))
