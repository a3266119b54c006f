"""An export and deltas make the export of a later step."""

import shutil

import apply_delta
from experiments import COUNTER
from experiments import FEW_COLUMNS
from experiments import SHARED_TABLE
from experiments import broken_off
from experiments import experiment_of
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.training import incremental

AVERAGING = ['Model.averaging = @Averaging()', 'Averaging.decay = 0.9']


def variables(export):
  return incremental.read(str(export) + '/variables/variables')


@pytest.mark.parametrize('gin_file, bindings', [
    ('ev', COUNTER[:2] + AVERAGING),
    ('base', [SHARED_TABLE]),
    pytest.param('ev', [SHARED_TABLE], marks=pytest.mark.slow),
    pytest.param('base', FEW_COLUMNS + AVERAGING, marks=pytest.mark.slow),
    pytest.param('adaptive', FEW_COLUMNS, marks=pytest.mark.slow)])
def test_it_is_the_export_of_the_later_step(taobao, tmp_path, capsys, gin_file,
                                            bindings):
  run = tmp_path / 'run'
  broken_off(gin_file, run, taobao, *bindings)  # deltas 25 and 30 after 20
  full = str(run / 'model.ckpt-20')
  deltas = [str(run / 'incremental' / '20' / ('delta-%d' % step))
            for step in (25, 30)]
  with tf.Graph().as_default():
    made = experiment_of(gin_file, run, taobao, *bindings)
    export = made.export(full)
    wanted = variables(made.export(str(run / 'full' / 'ckpt-30')))
  more = ['--checkpoint', full] if AVERAGING[0] in bindings else []
  out = tmp_path / 'later'
  assert apply_delta.main([export] + deltas + ['--out', str(out)] + more) == 0
  assert capsys.readouterr().out.endswith('later: step 30\n')
  found = variables(out)
  assert sorted(found) == sorted(wanted)
  for name, value in wanted.items():
    np.testing.assert_allclose(
        found[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
  before = variables(export)
  assert any((before[name] != value).any() for name, value in wanted.items()
             if before[name].shape == value.shape)
  with tf.Session(graph=tf.Graph()) as session:
    tf.saved_model.loader.load(session, ['serve'], str(out))
  check_refusals(export, deltas, tmp_path, capsys, more)


def check_refusals(export, deltas, tmp_path, capsys, more):
  """What cannot be applied is told in one line, and leaves nothing."""
  out = ['--out', str(tmp_path / 'none')]

  def refused(arguments, message):
    assert apply_delta.main(arguments) == 1
    said = capsys.readouterr().err
    assert message in said and said.count('\n') == 1
    assert not list(tmp_path.glob('none*'))

  refused([export, deltas[1]] + out + more,
          'follows that of step 25, which is missing; the state before it is '
          'of step 20')
  refused([str(tmp_path), deltas[0]] + out, 'is no SavedModel')
  refused([export, deltas[0], '--out', export], '--out must not exist')
  if more:
    refused([export, deltas[0]] + out, '--checkpoint must name the full check')
  torn = tmp_path / 'torn'
  torn.mkdir()
  for ending in ('.index', '.data-00000-of-00001', '.json'):
    shutil.copy(deltas[0] + ending, str(torn))
  with open(str(torn / 'delta-25.data-00000-of-00001'), 'ab') as f:
    f.write(b'x')
  refused([export, str(torn / 'delta-25')] + out + more, 'is torn')
