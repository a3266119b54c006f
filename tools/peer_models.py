#!/usr/bin/env python3
"""Trains PLE of another framework on arrays; a part of tools/peers.py.

It runs in an environment that has that framework, numpy and scikit-learn, and
nothing of this project. Its last line is the JSON of the metrics.
"""

import argparse
import json
import os
import time

import numpy as np
from sklearn import metrics

_DIM = 16
_LEVELS = 3
_OF_A_TASK, _SHARED = 2, 1
_EXPERT = (256, 128, 64)
_TOWER = (256, 128, 64, 32)
_RATE = 0.001
_BATCH = 512
_PATIENCE = 2


class DeepCTR:
  """deepctr.models.PLE, trained by Keras."""

  def __init__(self, sizes, arrays, tasks, seed):
    from deepctr import feature_column
    from deepctr import models
    import tensorflow as tf

    tf.keras.utils.set_random_seed(seed)
    columns = []
    for name, size in sizes.items():
      one = feature_column.SparseFeat(name, size, _DIM)
      if arrays[name].ndim == 2:
        one = feature_column.VarLenSparseFeat(
            one, maxlen=arrays[name].shape[1], combiner='mean')
      columns.append(one)
    self._names = list(sizes)
    self._model = models.PLE(
        columns, shared_expert_num=_SHARED, specific_expert_num=_OF_A_TASK,
        num_levels=_LEVELS, expert_dnn_hidden_units=_EXPERT,
        tower_dnn_hidden_units=_TOWER, seed=seed,
        task_types=['binary'] * tasks,
        task_names=['task%d' % i for i in range(tasks)])
    self._model.compile(tf.keras.optimizers.Adam(_RATE),
                        ['binary_crossentropy'] * tasks)

  def _inputs(self, arrays):
    return {name: arrays[name] for name in self._names}

  def train(self, arrays):
    self._model.fit(self._inputs(arrays), list(arrays['labels'].T),
                    batch_size=_BATCH, epochs=1, verbose=0)

  def predict(self, arrays):
    return np.concatenate(self._model.predict(
        self._inputs(arrays), batch_size=4096, verbose=0), axis=1)


class TorchRechub:
  """torch_rechub's PLE, trained by its MTLTrainer."""

  def __init__(self, sizes, arrays, tasks, seed):
    import torch
    from torch_rechub import trainers
    from torch_rechub.basic import features
    from torch_rechub.models import multi_task

    torch.manual_seed(seed)
    self._torch = torch
    self._names = list(sizes)
    columns = [
        features.SequenceFeature(
            name, size, _DIM, pooling='mean', padding_idx=0)
        if arrays[name].ndim == 2 else features.SparseFeature(name, size, _DIM)
        for name, size in sizes.items()]
    kinds = ['classification'] * tasks
    model = multi_task.PLE(
        columns, kinds, _LEVELS, _OF_A_TASK, _SHARED, {'dims': list(_EXPERT)},
        [{'dims': list(_TOWER)} for _ in kinds])
    self._trainer = trainers.MTLTrainer(
        model, kinds, optimizer_params={'lr': _RATE})

  def _inputs(self, arrays):
    return {name: arrays[name] for name in self._names}

  def train(self, arrays):
    from torch_rechub.utils import data
    self._trainer.train_one_epoch(self._torch.utils.data.DataLoader(
        data.TorchDataset(
            self._inputs(arrays), arrays['labels'].astype('float32')),
        batch_size=_BATCH, shuffle=True))

  def predict(self, arrays):
    from torch_rechub.utils import data
    rows = data.PredictDataset(self._inputs(arrays))
    return np.asarray(self._trainer.predict(
        self._trainer.model,
        self._torch.utils.data.DataLoader(rows, batch_size=4096)))


def measured(labels, p):
  """The AUC and log loss of each task, lists of float."""
  p = np.clip(p.astype(float), 1e-7, 1 - 1e-7)
  return {'auc': [metrics.roc_auc_score(y, q) for y, q in zip(labels.T, p.T)],
          'log_loss': [metrics.log_loss(y, q) for y, q in zip(labels.T, p.T)]}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('peer', choices=['DeepCTR', 'torch-rechub'])
  parser.add_argument('folder', help='what peers.write_arrays has filled')
  parser.add_argument('--seed', type=int, default=2021)
  parser.add_argument('--most_epochs', type=int, default=20)
  args = parser.parse_args()
  parts = {part: dict(np.load(os.path.join(args.folder, part + '.npz')))
           for part in ('train', 'eval', 'test')}
  with open(os.path.join(args.folder, 'sizes.json')) as f:
    sizes = json.load(f)
  # The lists of all parts are as long as the longest of them.
  for name in sizes:
    if parts['train'][name].ndim == 2:
      most = max(part[name].shape[1] for part in parts.values())
      for part in parts.values():
        part[name] = np.pad(
            part[name], [(0, 0), (0, most - part[name].shape[1])])
  kind = {'DeepCTR': DeepCTR, 'torch-rechub': TorchRechub}[args.peer]
  peer = kind(sizes, parts['train'], parts['train']['labels'].shape[1],
              args.seed)
  best, seconds = {}, 0.0
  for epoch in range(1, args.most_epochs + 1):
    begin = time.time()
    peer.train(parts['train'])
    seconds += time.time() - begin
    auc = np.mean(measured(
        parts['eval']['labels'], peer.predict(parts['eval']))['auc'])
    if not best or auc > best['validation']:
      best = {'validation': float(auc), 'epoch': epoch, 'seconds': seconds,
              'p': peer.predict(parts['test'])}
    elif epoch - best['epoch'] >= _PATIENCE:
      break
  print()
  print(json.dumps(dict(
      measured(parts['test']['labels'], best.pop('p')), **best)))


if __name__ == '__main__':
  main()
