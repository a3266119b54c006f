"""`ple-estimator inspect-embeddings`: what it says of a checkpoint."""

import numpy as np
import tensorflow.compat.v1 as tf


def test_inspect_embeddings_counts_what_a_checkpoint_holds(
    command, tmp_path):
  names = {'t/embedding-keys': np.array([3, 5, 9]),
           't/embedding-values': np.array([[1, 1], [0, 0], [0, 2]], 'f'),
           't/embedding-freqs': np.array([1, 2, 9]),
           't/embedding-versions': np.array([0, 0, 0]),
           't/embedding/Adam-values': np.zeros([3, 2], 'f'),
           't/embedding-keys_filtered': np.array([4]),
           't/embedding-freqs_filtered': np.array([1]),
           't/embedding-versions_filtered': np.array([0])}
  path = str(tmp_path / 'model.ckpt-7')
  save = tf.raw_ops.SaveV2(
      prefix=path, tensor_names=list(names),
      shape_and_slices=[''] * len(names), tensors=list(names.values()))
  with tf.Session() as session:
    session.run(save)
  status, said, error = command(
      'inspect-embeddings', path, '--picture', tmp_path / 'p.svg')
  assert status == 0, error
  lines = said.splitlines()
  # Rows and slots 48 bytes, three numbers a key 72, four hash entries 192.
  assert lines[2] == '| t/embedding | 2 | 3 | 1 | 0.0 | 0.0 |'
  cells = [line.split()[:2] for line in lines if line.startswith('  ')]
  assert cells[:4] == [['1', '2'], ['2-3', '1'], ['4-7', '0'], ['8-15', '1']]
  norms = [int(count) for _, count in cells[4:]]
  assert norms == [1] + [0] * 5 + [1] + [0] * 4 + [1]  # 0, 1 and 2 of 2
  picture = (tmp_path / 'p.svg').read_text(encoding='utf-8')
  assert picture.count('<rect x=') == 4 + 12
  status, said, error = command(
      'inspect-embeddings', tmp_path / 'nope')
  assert status == 1 and 'no checkpoint at' in error
