"""The tuned peer: its rows, its network, its steps, and its environment."""

import json
import os
import subprocess
import zlib

import conftest
import environments
import gin
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch_recipe

import ple_estimator as ple

LISTS = {'tag_category_list': ['', 'x|y', 'y'],
         'tag_brand_list': ['p', '', 'p']}
# Runs in the environment of PyTorch: dumps a model, its logits for a batch, and
# what one step without compilation does to its table.
DUMP = """
import sys
import numpy as np
import torch
import torch_model
torch.manual_seed(1)
batch = torch_model.read_batches(sys.argv[1])[0]
unique, place, begins, labels = batch
training = torch_model.Training(%d, %d, sys.argv[3], compiled=False)
network = training.network
with torch.no_grad():
  for parameter in network.parameters():  # biases, gammas and betas too
    parameter.add_(torch.randn_like(parameter) * 0.05)
found = {name: value.detach().numpy().copy()
         for name, value in network.named_parameters()}
found['table'] = training.table.weight.numpy().copy()
with torch.no_grad():
  found['answer'] = training.logits(training.inputs(
      training.table.weight[unique], place, begins)).numpy()
found['loss'] = training.step(*batch).numpy()
found['table_after'] = training.table.weight.numpy()
np.savez(sys.argv[2], **found)
""" % (sum(torch_recipe.BUCKETS.values()), len(torch_recipe.BUCKETS))


@pytest.fixture
def args():
  return torch_recipe.parser().parse_args([])


@pytest.fixture
def torch_python(args):
  try:
    return torch_recipe.interpreter(args)
  except ValueError as error:
    pytest.skip(str(error))


def test_columns_and_network_are_those_of_the_zoo():
  columns = ple.load('gin/zoo.gin').experiment.model.features.categories
  assert torch_recipe.BUCKETS == {
      column.name: column.num_buckets for column in columns}
  # What `logits_of` computes, which the peer's network must agree with.
  for name, value in [
      ('FeatureSpec.dim', 16), ('PLE.num_levels', 3),
      ('PLE.num_task_experts', 2), ('PLE.num_shared_experts', 1),
      ('PLE.expert_units', (256, 128, 64)), ('PLE.gate_units', (256, 128, 64)),
      ('Tower.units', (256, 128, 64)), ('Model.interactions', [])]:
    assert gin.query_parameter(name) == value, name


def test_a_batch_has_the_ids_of_its_rows(tmp_path):
  table = {name: ['%s%d' % (name, i % 2) for i in range(3)]
           for name in torch_recipe.BUCKETS}
  table.update(LISTS, price=[7, 49, 0], clk=[0, 1, 0], buy=[0, 0, 1])
  pa.parquet.write_table(pa.table(table), str(tmp_path / 'a.parquet'))
  rows = np.array([2, 0])
  unique, place, begins, labels = torch_recipe.Rows(
      str(tmp_path / 'a.parquet')).batch(rows)
  expected = []
  for row in rows:
    first = 0
    for name, buckets in torch_recipe.BUCKETS.items():
      value = table[name][row]
      ids = [value] if name == 'price' else [
          zlib.crc32(text.encode()) % buckets for text in (
              value.split('|') if name in LISTS else [value])]
      expected.append([first + one for one in ids])
      first += buckets
  assert [unique[part].tolist() for part in np.split(place, begins[1:])
          ] == expected
  assert sorted(set(unique)) == unique.tolist()
  assert labels.tolist() == [[0, 1], [0, 0]]


def test_batches_are_one_epoch_at_the_most(taobao, tmp_path):
  rows = torch_recipe.Rows(os.path.join(taobao, 'taobao_train_data.parquet'))
  torch_recipe.write_batches(str(tmp_path / 'a.npz'), rows, 700, 9)
  found = np.load(str(tmp_path / 'a.npz'))
  assert found['ends_labels'].tolist() == [700, 1400, 2100, 2800]
  assert len(found['begins']) == 2800 * len(torch_recipe.BUCKETS)
  assert found['ends_unique'][-1] == len(found['unique'])
  with pytest.raises(ValueError, match='at most the 3000 rows, got 3001'):
    torch_recipe.write_batches(str(tmp_path / 'b.npz'), rows, 3001, 9)


def test_what_it_cannot_do_is_said_in_one_line(args, monkeypatch):
  args.steps = 5
  with pytest.raises(ValueError, match='--steps must be at least 10.* got 5,'):
    torch_recipe.run(args)
  args.steps, args.dtype = 10, 'bfloat16'
  monkeypatch.setattr(torch_recipe, 'has_bfloat16', lambda: False)
  with pytest.raises(ValueError, match='needs a processor with AVX512_BF16'):
    torch_recipe.run(args)


def test_an_environment_is_made_once_for_its_packages(tmp_path, capsys):
  maker = tmp_path / 'python'
  maker.write_text('#!/bin/sh\necho "ERROR: no room." >&2\nexit 1\n')
  maker.chmod(0o755)
  folder = tmp_path / 'made'
  folder.mkdir()
  (folder / 'installed').write_text('a==1\nb==2\n')
  assert environments.interpreter(str(folder), ['a==1', 'b==2'], 'no such') == (
      str(folder / 'bin' / 'python'))
  assert not capsys.readouterr().err
  with pytest.raises(ValueError) as raised:
    environments.interpreter(str(folder), ['a==3'], str(maker), 'Do that.')
  assert str(raised.value) == (
      '%s cannot be made: ERROR: no room. Do that.' % folder)
  assert capsys.readouterr().err == 'Installing a==3 into %s, with %s.\n' % (
      folder, maker)
  with pytest.raises(ValueError, match='cannot be made: .*no such'):
    environments.interpreter(str(folder), ['a==3'], 'no such')


def nets(part, x, dump):
  """Dense layers with relu and batch norm, each after the other.

  Args:
    part: str, of the names of the variables.
    x: list of [batch, width], the inputs of the nets.
    dump: dict of arrays.
  """
  found = []
  for i, one in enumerate(x):
    for layer in range(3):
      kernel, bias, gamma, beta = (
          dump['%s.%s.%d' % (part, name, layer)][i]
          for name in ('kernels', 'biases', 'gammas', 'betas'))
      one = np.maximum(np.float64(one) @ kernel + bias, 0)
      one = gamma * (one - one.mean(0)) / np.sqrt(one.var(0) + 1e-3) + beta
    found.append(one)
  return found


def softmax(x):
  x = np.exp(x - x.max(1, keepdims=True))
  return x / x.sum(1, keepdims=True)


def logits_of(dump, x):
  """The forward pass of PLE (Tang et al., eq. 1 to 6) with gates of nets."""
  inputs = [x, x, x]  # of the two tasks, and of what they share
  for level in range(3):
    last = level == 2
    # Two experts and the gate of each task; the shared expert and its gate.
    layout = [0, 0, 0, 1, 1, 1, 2] + [2] * (not last)
    made = nets('levels.%d' % level, [inputs[i] for i in layout], dump)
    shared = [made[6]]
    mixed = [(made[2], made[0:2] + shared), (made[5], made[3:5] + shared)]
    if not last:
      mixed.append((made[7], made[0:2] + made[3:5] + shared))
    inputs = []
    for i, (gate, experts) in enumerate(mixed):
      name = 'gates.%d.%d.' % (level, i)
      shares = softmax(gate @ dump[name + 'weight'].T + dump[name + 'bias'])
      inputs.append(sum(shares[:, j:j + 1] * expert
                        for j, expert in enumerate(experts)))
  towers = nets('towers', inputs, dump)
  return np.concatenate([tower @ dump['logits'][i] + dump['biases'][i]
                         for i, tower in enumerate(towers)], axis=1)


@pytest.fixture
def dumped(torch_python, taobao, args, tmp_path):
  """Returns a function: dtype -> (the arrays of DUMP, the batch)."""
  rows = torch_recipe.Rows(os.path.join(taobao, 'taobao_train_data.parquet'))
  batches = str(tmp_path / 'batches.npz')
  torch_recipe.write_batches(batches, rows, 256, 1)

  def dump(dtype):
    out = str(tmp_path / (dtype + '.npz'))
    subprocess.run(
        [torch_python, '-c', DUMP, batches, out, dtype], check=True,
        env=dict(torch_recipe.environment_variables(args),
                 PYTHONPATH=os.path.join(conftest.ROOT, 'tools')))
    return dict(np.load(out)), dict(np.load(batches))
  return dump


@pytest.mark.slow
def test_its_logits_are_those_of_the_equations(dumped):
  found, batch = dumped('float32')
  vectors = found['table'][batch['unique']]
  fields = np.split(batch['place'], batch['begins'][1:])
  x = np.stack([vectors[field].mean(0) for field in fields])
  x = x.reshape(256, -1)
  expected = logits_of(found, x)
  np.testing.assert_allclose(found['answer'], expected, atol=2e-4)
  assert expected.std() > 0.1
  labels = batch['labels']
  loss = np.mean(np.logaddexp(0, expected) - labels * expected)
  np.testing.assert_allclose(found['loss'], loss, rtol=1e-4)
  # bfloat16 has 8 bits: near these, but not the same.
  rough, _ = dumped('bfloat16')
  error = np.abs(rough['answer'] - expected).mean()
  assert 1e-4 < error < 0.1 * expected.std()


@pytest.mark.slow
def test_a_step_moves_the_rows_of_its_batch_alone(dumped):
  found, batch = dumped('float32')
  moved = np.abs(found['table_after'] - found['table'])
  unique = batch['unique']
  # Adam's first step is the learning rate where a gradient is not near 0.
  assert np.median(moved[unique]) == pytest.approx(0.001, rel=0.01)
  assert moved.max() < 0.00101
  moved[unique] = 0
  assert not moved.any()


@pytest.mark.slow
def test_it_learns(torch_python, made):
  done = conftest.tool('torch_recipe', '--data', made, '--steps', 60,
                       '--batch_size', 512)
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert found['last_loss'] < 0.7 * found['first_loss']
  assert found['dtype'] == 'float32' and found['batch_size'] == 512
  assert 0 < found['steps_per_second'] < 1000
  assert 0 < found['cpu_seconds_per_1000_steps'] < 10000
  assert 200 < found['peak_rss_mb'] < 3000
