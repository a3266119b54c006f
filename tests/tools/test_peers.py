"""The tool that trains PLE of other frameworks: the rows they are given."""

import json

import numpy as np
import peers
import pyarrow as pa
import pyarrow.parquet
import pytest

GIN = """
include 'gin/base.gin'
FeatureSpec.columns = [
    {'name': 'a', 'kind': 'label', 'values': (0, 1)},
    {'name': 'b', 'kind': 'label', 'values': (0, 1)},
    {'name': 'user', 'kind': 'hashed', 'num_buckets': 9, 'default': ''},
    {'name': 'items', 'kind': 'hashed_list', 'num_buckets': 9, 'default': '',
     'separator': '|'},
    {'name': 'id', 'kind': 'integer', 'num_buckets': 9},
]
Model.tasks = [@a/Task(), @b/Task()]
a/Task:
  name = 'a'
  label = 'a'
b/Task:
  name = 'b'
  label = 'b'
ParquetInput.batch_size = 2
train/ParquetInput.files = 'train.parquet'
eval/ParquetInput.files = 'eval.parquet'
test/ParquetInput.files = 'test.parquet'
"""


@pytest.fixture
def gin_file(tmp_path):
  def write(part, user, items, ids):
    rows = len(user)
    pa.parquet.write_table(pa.table({
        'a': [0, 1, 1][:rows], 'b': [1, 0, 0][:rows], 'user': user,
        'items': items, 'id': ids}), str(tmp_path / (part + '.parquet')))

  write('train', ['y', 'x', 'y'], ['p|q|p', 'r', 'q'], [7, 5, 7])
  write('eval', ['x', 'z'], ['r|s', 'q'], [5, 6])
  write('test', ['y'], ['q|p'], [7])
  path = tmp_path / 'own.gin'
  path.write_text(GIN)
  return path


def arguments(gin_file, *lines):
  class Args:
    gin_files = [str(gin_file)]
    gin_bindings = ['DATA_DIR = %r' % str(gin_file.parent)] + list(lines)
  return Args


def test_values_of_train_rows_get_ids_of_their_own(gin_file, tmp_path):
  assert peers.write_arrays(str(tmp_path), arguments(gin_file)) == ['a', 'b']
  found = {part: np.load(str(tmp_path / (part + '.npz'))) for part in (
      'train', 'eval', 'test')}
  # 0 is no item, 1 a value that only other rows have; then in their order.
  assert found['train']['user'].tolist() == [3, 2, 3]
  assert found['train']['id'].tolist() == [3, 2, 3]
  assert found['train']['items'].tolist() == [[2, 3, 2], [4, 0, 0], [3, 0, 0]]
  assert found['train']['labels'].tolist() == [[0, 1], [1, 0], [1, 0]]
  assert found['eval']['user'].tolist() == [2, 1]
  assert found['eval']['items'].tolist() == [[4, 1], [3, 0]]
  assert found['eval']['id'].tolist() == [2, 1]
  assert found['test']['items'].tolist() == [[3, 2]]
  assert json.loads((tmp_path / 'sizes.json').read_text()) == {
      'user': 4, 'items': 5, 'id': 4}


@pytest.mark.parametrize('line, message', [
    ("a/Task.loss = 'regression'", 'Task a must be binary'),
    ("b/Task.sample_space = ('a', 1)", 'Task b must be binary, of all rows'),
    ("FeatureSpec.overrides = {'items': {'weights': ':'}}",
     'items must be a category'),
    ('Experiment.test_input = None', 'Experiment.test_input must be bound')])
def test_what_the_frameworks_cannot_train_is_refused(
    gin_file, tmp_path, line, message):
  with pytest.raises(ValueError, match=message):
    peers.write_arrays(str(tmp_path), arguments(gin_file, line))


def test_it_is_said_that_lists_are_cut(gin_file, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(peers, '_MOST_ITEMS', 2)
  peers.write_arrays(str(tmp_path), arguments(gin_file))
  assert capsys.readouterr().err == (
      'peers: 1 lists of items are cut to 2 items.\n')


def test_only_the_first_items_of_a_long_list_are_kept(monkeypatch):
  monkeypatch.setattr(peers, '_MOST_ITEMS', 2)
  rows = np.array([0, 0, 0, 2])
  assert peers.padded(np.array([5, 6, 7, 8]), rows, 3).tolist() == [
      [5, 6], [0, 0], [8, 0]]
  assert peers.padded(np.zeros(0, int), rows[:0], 2).tolist() == [[0], [0]]


def test_the_mean_is_over_seeds():
  def run(auc, epoch):
    return {'auc': [auc, 0.5], 'log_loss': [0.25, 0.125], 'epoch': epoch,
            'seconds': 10.0 * epoch}

  assert peers.row_of('x', ['a', 'b'], [run(0.5, 1), run(0.75, 3)]) == [
      'x', '0.6250', '0.5000', '0.2500', '0.1250', '1/3', '20']
