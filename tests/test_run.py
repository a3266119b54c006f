"""The command line: what users mistype gets one clear message and status 1."""

import os
import re
import signal
import subprocess
import sys
import time

import conftest
from experiments import SMALL
from experiments import SMALL_TABLES
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import pytest

from ple_estimator.cluster import marker

# What training reads.
PARQUET = ('taobao_train_data.parquet', 'taobao_validation_data.parquet')


def bindings(*lines):
  return ['--gin_bindings=' + line for line in lines]


def refused(done):
  """The message of a run that ended as a user's mistake should."""
  assert done.returncode == 1, done.stderr
  assert 'Traceback' not in done.stderr
  lines = [line for line in done.stderr.splitlines()
           if line.startswith('ple_estimator: ')]
  assert len(lines) == 1, done.stderr
  return lines[0]


def test_a_model_dir_that_cannot_be_made_is_named(run_here, taobao):
  done = run_here('--gin_file=gin/base.gin', *bindings(
      'DATA_DIR = %r' % taobao, "Experiment.model_dir = '/dev/null/x'"))
  assert ('Experiment.model_dir must be a folder that can be written to, got '
          "'/dev/null/x': Not a directory.") in refused(done)


@pytest.mark.parametrize('args, message', [
    (['--gin_file=gin/nope.gin'], "must name an existing file, got 'gin/nope"),
    (['--gin_file=gin/base.gin'] + bindings('PLE.num_level = 2'),
     "'PLE' doesn't have a parameter named 'num_level'"),
    (['--gin_file=gin/base.gin'] + bindings('PLA.num_levels = 2'), 'PLA'),
    (['--gin_file=gin/base.gin'] + bindings('BATCHSIZE = 2'),
     'got unread BATCHSIZE'),
    (['--gin_file=gin/base.gin'] + bindings('PLE.num_levels = 0'),
     'PLE.num_levels must be an integer of at least 1, got 0'),
    (['--gin_file=gin/base.gin'] + bindings('PLE.num_levels = '),
     "binding 'PLE.num_levels =': Unable to parse value; a value is"),
    (['--gin_file=gin/base.gin'] + bindings('CsvInput.prefetch = %NOPE'),
     'Macros must be bound (NOPE = ...), got unbound %NOPE'),
    (['--gin_file=gin/base.gin', '--mode=test'] +
     bindings("Experiment.model_dir = '/nowhere'"),
     'Experiment.model_dir must hold a checkpoint: nothing at /nowhere. Train'),
    (['--gin_file=gin/base.gin', 'extra'], 'Unknown arguments: extra'),
    (['--gin_file=gin/base.gin'] + bindings("DATA_DIR = '/nowhere'"),
     "files must name existing files, got 'taobao_train_data.parquet': "
     'nothing at /nowhere/taobao_train_data.parquet'),
])
def test_a_mistake_is_one_line(run_here, args, message):
  assert message in refused(run_here(*args))


def spoilt(taobao, tmp_path, spoil):
  """Arguments to train on a copy of the rows that `spoil` has had."""
  for part in ('train', 'validation'):
    name = 'taobao_%s_data' % part
    rows = open(os.path.join(taobao, name)).read().splitlines()
    (tmp_path / name).write_text('\n'.join(
        spoil(rows) if part == 'train' else rows) + '\n')
  return ['--gin_file=gin/csv.gin'] + bindings(
      'DATA_DIR = %r' % str(tmp_path), 'EPOCHS = 1', SMALL_TABLES,
      'Experiment.model_dir = %r' % str(tmp_path / 'out'),
      'Experiment.exports = None', *SMALL)


@pytest.mark.slow
def test_a_bad_row_in_the_middle_is_named(run_cli, taobao, tmp_path):
  def spoil(rows):
    rows = rows * 8  # beyond the block that is looked at before training
    rows[23000] = rows[23000] + ',1'
    return rows
  done = run_cli(*spoilt(taobao, tmp_path, spoil))
  assert 'taobao_train_data row 23001 must have 20 columns, got 21.' in refused(
      done)
  args = spoilt(taobao, tmp_path, spoil) + bindings(
      "train/CsvInput.on_bad_row = 'skip'", 'BATCH_SIZE = 2000')
  done = run_cli(*args)
  assert done.returncode == 0, done.stderr
  assert 'Skipped: %s' % tmp_path in done.stderr
  assert 'skipped 1 bad rows of 24000 in epoch 0' in done.stderr


def test_truncated_parquet_is_refused_before_training(run_here, taobao,
                                                      tmp_path):
  for name in PARQUET:
    with open(os.path.join(taobao, name), 'rb') as f:
      data = f.read()
    (tmp_path / name).write_bytes(
        data[:-1000] if 'validation' in name else data)
  done = run_here('--gin_file=gin/base.gin', *bindings(
      'DATA_DIR = %r' % str(tmp_path),
      'Experiment.model_dir = %r' % str(tmp_path / 'out')))
  assert 'taobao_validation_data.parquet must be a whole Parquet file' in (
      refused(done))
  assert not os.path.exists(str(tmp_path / 'out'))


def test_gin_files_are_found_from_anywhere(run_here, tmp_path):
  done = run_here('--gin_file=gin/bf16.gin', cwd=str(tmp_path))
  assert 'nothing at %s' % (tmp_path / 'data') in refused(done)


@pytest.mark.slow
def test_files_are_combined(run_cli, taobao, tmp_path):
  env = dict(os.environ, PYTHONPATH=conftest.ROOT)
  (tmp_path / 'shop.gin').write_text(
      "include 'gin/base.gin'\nDATA_DIR = %r\nEPOCHS = 1\n"
      'PLE.num_levels = 2\nBATCH_SIZE = 1000\nTower.units = (4,)\n'
      'PLE.expert_units = (8,)\nPLE.gate_units = ()\n'
      'Experiment.exports = None\n%s\n' % (taobao, SMALL_TABLES))
  done = run_cli('--gin_file=shop.gin', '--gin_file=gin/mmoe.gin',
                 '--gin_file=gin/bf16.gin', cwd=str(tmp_path), env=env)
  assert done.returncode == 0, done.stderr
  told = [line[9:] for line in done.stderr.splitlines() if '.gin' in line]
  assert told == [
      'gin/mmoe.gin line 5: PLE.num_levels = 1 (was 2, shop.gin line 4)']
  record = tmp_path / 'result' / 'shop-mmoe-bf16' / 'operative_config-0.gin'
  assert "Precision.compute = 'bfloat16'" in record.read_text()


@pytest.mark.slow
def test_progress_is_lines_without_a_terminal(run_cli, taobao, tmp_path):
  done = run_cli(*spoilt(taobao, tmp_path, lambda rows: rows))
  assert done.returncode == 0, done.stderr
  lines = re.findall(
      r'step (\d+) of 30 \| [\d.]+ steps/s \| \d+ examples/s \| loss [\d.]+ '
      r'\(ctr [\d.]+, cvr [\d.]+\) \| \d+:\d\d left', done.stderr)
  assert lines and int(lines[-1]) <= 30
  assert len(done.stderr.splitlines()) < 30, done.stderr


def test_killed_training_goes_on_from_its_last_checkpoint(taobao, tmp_path):
  args = [sys.executable, '-m', 'ple_estimator.run'] + spoilt(
      taobao, tmp_path, lambda rows: rows) + bindings(
          'run_config.save_steps = 5', 'Experiment.max_steps = 100000',
          'Experiment.eval_steps = 100000', 'EPOCHS = 100000')
  process = subprocess.Popen(args, cwd=conftest.ROOT,
                             stderr=subprocess.DEVNULL)
  try:
    out = tmp_path / 'out'
    deadline = time.time() + 120
    # No certain one of them: five are kept, which may take less than a sleep.
    while (marker.latest_step(str(out)) or 0) < 20:
      assert time.time() < deadline and process.poll() is None
      time.sleep(0.1)
  finally:
    process.send_signal(signal.SIGKILL)
    process.wait()
  with open(str(out / 'checkpoint')) as f:
    step = int(re.search(r'ckpt-(\d+)', f.read()).group(1))
  done = subprocess.run(
      args + bindings('Experiment.max_steps = %d' % (step + 3)),
      cwd=conftest.ROOT, stderr=subprocess.PIPE)
  assert done.returncode == 0, done.stderr
  assert (out / ('model.ckpt-%d.index' % (step + 3))).exists()


@pytest.mark.slow
def test_columns_of_another_type_are_refused(run_cli, taobao, tmp_path):
  for name in PARQUET:
    table = pa.parquet.read_table(os.path.join(taobao, name))
    index = table.column_names.index('price')
    table = table.set_column(index, 'price', pa.compute.add(
        table['price'].cast(pa.float64()), 0.5))
    pa.parquet.write_table(table, str(tmp_path / name))
  done = run_cli('--gin_file=gin/base.gin', *bindings(
      'DATA_DIR = %r' % str(tmp_path),
      'Experiment.model_dir = %r' % str(tmp_path / 'out'), SMALL_TABLES,
      *SMALL))
  assert "row 1 column 'price' must be" in refused(done)


def test_a_bad_row_of_parquet_is_one_line(run_cli, taobao, tmp_path):
  for name in PARQUET:
    table = pa.parquet.read_table(os.path.join(taobao, name))
    if 'train' in name:
      labels = table['clk'].to_pylist()
      labels[77] = 7
      table = table.set_column(0, 'clk', pa.array(labels))
    pa.parquet.write_table(table, str(tmp_path / name))
  done = run_cli('--gin_file=gin/base.gin', *bindings(
      'DATA_DIR = %r' % str(tmp_path), SMALL_TABLES,
      'Experiment.model_dir = %r' % str(tmp_path / 'out'), *SMALL))
  assert "row 78 column 'clk' must be one of 0, 1, got 7." in refused(done)
