#!/usr/bin/env python3
"""PLE in PyTorch, and its training step; a part of tools/torch_recipe.py.

It runs in an environment that has PyTorch and numpy, and nothing of this
project. What makes it fast, each of which was measured:

- the nets of a level are one product per layer (addmm, baddbmm);
- batch norm is done to the kernel and bias of the layer behind it;
- torch.compile (Inductor) makes one program of network and loss;
- the different rows of a batch are copied to a small dense table; its gradient
  updates them and their moments, as torch.optim.SparseAdam would, but without
  sparse tensors;
- Adam of the network is PyTorch's fused one;
- malloc keeps memory and takes huge pages (MALLOC of tools/torch_recipe.py).
"""

import argparse
import itertools
import json
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

DIM = 16
UNITS = (256, 128, 64)
LEVELS = 3
TASKS = 2
OF_A_TASK, SHARED = 2, 1
RATE, BETA1, BETA2, ADAM_EPSILON = 0.001, 0.9, 0.999, 1e-8
NORM_EPSILON, NORM_SHARE = 1e-3, 0.01
_WARM_UP_STEPS = 10  # as benchmark.py


def nets_of(level):
  """The nets of a level: a list of (owner, whether it is a gate).

  The nets of an owner are neighbours. The owner TASKS is what all tasks share,
  which has no gate at the last level.
  """
  found = []
  for owner in range(TASKS + 1):
    found += [(owner, False)] * (OF_A_TASK if owner < TASKS else SHARED)
    if owner < TASKS or level < LEVELS - 1:
      found.append((owner, True))
  return found


def experts_of(owner, nets):
  """The positions of the experts that the gate of an owner mixes."""
  return [i for i, (of, is_gate) in enumerate(nets)
          if not is_gate and (owner == TASKS or of in (owner, TASKS))]


class Nets(nn.Module):
  """Some nets of UNITS at once: dense, relu, batch norm, three times."""

  def __init__(self, count, width):
    super().__init__()
    self.kernels, self.biases = nn.ParameterList(), nn.ParameterList()
    self.gammas, self.betas = nn.ParameterList(), nn.ParameterList()
    for i, units in enumerate(UNITS):
      kernel = torch.empty(count, width, units)
      for one in kernel:
        nn.init.xavier_uniform_(one)
      self.kernels.append(kernel)
      self.biases.append(torch.zeros(count, 1, units))
      self.gammas.append(torch.ones(count, 1, units))
      self.betas.append(torch.zeros(count, 1, units))
      self.register_buffer('mean_%d' % i, torch.zeros(count, 1, units))
      self.register_buffer('variance_%d' % i, torch.ones(count, 1, units))
      width = units

  def forward(self, x):
    """Applies the nets to their inputs.

    Args:
      x: [nets, batch, width], or [batch, width], which all of them read.

    Returns:
      [nets, batch, UNITS[-1]].
    """
    scale = shift = None
    for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases)):
      if scale is not None:  # batch norm of the layer before
        bias = bias + torch.bmm(shift, kernel)
        kernel = kernel * scale.transpose(1, 2)
      if x.dim() == 2:
        count, width, units = kernel.shape
        wide = kernel.transpose(0, 1).reshape(width, count * units)
        x = torch.addmm(bias.reshape(-1), x, wide)
        x = x.view(-1, count, units).transpose(0, 1)
      else:
        x = torch.baddbmm(bias, x, kernel)
      x = torch.relu(x)
      mean, variance = self._moments(x.float(), i)
      scale = self.gammas[i] * torch.rsqrt(variance + NORM_EPSILON)
      shift = self.betas[i] - mean * scale
    return x * scale + shift

  def _moments(self, x, i):
    """Mean and variance of a layer's outputs; the averages follow them."""
    mean = x.mean(1, keepdim=True)
    variance = x.var(1, correction=0, keepdim=True)
    with torch.no_grad():
      getattr(self, 'mean_%d' % i).lerp_(mean, NORM_SHARE)
      getattr(self, 'variance_%d' % i).lerp_(variance, NORM_SHARE)
    return mean, variance


class Network(nn.Module):
  """PLE with its towers."""

  def __init__(self, columns):
    super().__init__()
    self.levels, self.gates = nn.ModuleList(), nn.ModuleList()
    width = DIM * columns
    for level in range(LEVELS):
      nets = nets_of(level)
      self.levels.append(Nets(len(nets), width))
      self.gates.append(nn.ModuleList(
          nn.Linear(UNITS[-1], len(experts_of(owner, nets)))
          for owner, is_gate in nets if is_gate))
      width = UNITS[-1]
    self.towers = Nets(TASKS, width)
    self.logits = nn.Parameter(
        nn.init.xavier_uniform_(torch.empty(TASKS, width, 1)))
    self.biases = nn.Parameter(torch.zeros(TASKS, 1, 1))

  def forward(self, x):
    """[batch, columns * DIM] -> [batch, TASKS], logits."""
    for level, nets in enumerate(map(nets_of, range(LEVELS))):
      if level:
        x = torch.cat([
            mixture.expand(sum(of == owner for of, _ in nets), -1, -1)
            for owner, mixture in enumerate(x)])
      x = self._mixtures(level, self.levels[level](x), nets)
    x = self.towers(torch.stack(x))
    return torch.baddbmm(self.biases, x, self.logits).squeeze(2).t()

  def _mixtures(self, level, outputs, nets):
    """The mixture of each owner: a list of [batch, UNITS[-1]]."""
    found = []
    gated = [i for i, (_, is_gate) in enumerate(nets) if is_gate]
    for i, gate in zip(gated, self.gates[level]):
      experts = [outputs[j] for j in experts_of(nets[i][0], nets)]
      shares = torch.softmax(gate(outputs[i]), 1)
      found.append((shares.unsqueeze(2) * torch.stack(experts, 1)).sum(1))
    return found


class Table:
  """Rows of vectors; a step reads and updates those of its batch, by Adam."""

  def __init__(self, height):
    self.weight = torch.randn(height, DIM) * DIM ** -0.5
    self._mean = torch.zeros_like(self.weight)
    self._square = torch.zeros_like(self.weight)
    self._steps = 0

  def read(self, unique):
    """[u] int64 -> [u, DIM], a copy that takes gradients."""
    return self.weight.index_select(0, unique).requires_grad_()

  @torch.no_grad()
  def update(self, unique, vectors):
    """Takes a step of Adam.

    Args:
      unique: [u] int64, all different.
      vectors: [u, DIM], of `read`, with their gradient.
    """
    self._steps += 1
    rate = (RATE * (1 - BETA2 ** self._steps) ** 0.5 /
            (1 - BETA1 ** self._steps))
    gradient = vectors.grad
    mean = self._mean.index_select(0, unique).lerp_(gradient, 1 - BETA1)
    square = self._square.index_select(0, unique).mul_(BETA2).addcmul_(
        gradient, gradient, value=1 - BETA2)
    self._mean.index_copy_(0, unique, mean)
    self._square.index_copy_(0, unique, square)
    self.weight.index_copy_(0, unique, vectors.detach().addcdiv(
        mean, square.sqrt().add_(ADAM_EPSILON), value=-rate))


class Training:
  """A model, and one step after the other."""

  def __init__(self, height, columns, dtype, compiled=True):
    """Makes the variables.

    Args:
      height: int, rows of the table.
      columns: int.
      dtype: 'float32' or 'bfloat16', of the products.
      compiled: bool.
    """
    self.table = Table(height)
    self.network = Network(columns)
    self._columns = columns
    self._is_bfloat16 = dtype == 'bfloat16'
    self._adam = torch.optim.Adam(
        self.network.parameters(), RATE, (BETA1, BETA2), ADAM_EPSILON,
        fused=True)
    self._loss = self.loss
    if compiled:
      self._loss = torch.compile(self.loss, dynamic=False)

  def inputs(self, vectors, place, begins):
    """[batch, columns * DIM], the mean of the vectors of each field."""
    return functional.embedding_bag(
        place, vectors, begins, mode='mean').view(-1, self._columns * DIM)

  def logits(self, x):
    """[batch, columns * DIM] -> [batch, TASKS] float32."""
    with torch.autocast('cpu', torch.bfloat16, enabled=self._is_bfloat16):
      return self.network(x).float()

  def loss(self, x, labels):
    """The mean cross entropy of all tasks, a scalar."""
    return functional.binary_cross_entropy_with_logits(self.logits(x), labels)

  def step(self, unique, place, begins, labels):
    """Trains on a batch, see torch_recipe.Rows.batch; returns its loss."""
    vectors = self.table.read(unique)
    loss = self._loss(self.inputs(vectors, place, begins), labels)
    loss.backward()
    self.table.update(unique, vectors)
    self._adam.step()
    self._adam.zero_grad(set_to_none=True)
    return loss.detach()


def read_batches(path):
  """The batches that torch_recipe.write_batches wrote, as tuples of tensors."""
  with np.load(path) as arrays:
    return list(zip(*(
        [torch.from_numpy(part.copy())
         for part in np.split(arrays[name], arrays['ends_' + name][:-1])]
        for name in ('unique', 'place', 'begins', 'labels'))))


def peak_mb():
  """The most memory that this process had, MB; not that of its parent."""
  with open('/proc/self/status') as f:
    line, = [line for line in f if line.startswith('VmHWM')]
  return int(line.split()[1]) / 1024


def main():
  """Trains, and prints the JSON."""
  parser = argparse.ArgumentParser(description=__doc__)
  add = parser.add_argument
  add('batches')
  add('--steps', type=int, required=True)
  add('--dtype', required=True)
  add('--threads', type=int, required=True)
  add('--table', type=int, required=True)
  add('--columns', type=int, required=True)
  args = parser.parse_args()
  torch.set_num_threads(args.threads)
  torch.manual_seed(2021)
  batches = read_batches(args.batches)
  training = Training(args.table, args.columns, args.dtype)
  batch_size = len(batches[0][-1])
  batches = itertools.cycle(batches)
  losses = [training.step(*next(batches)) for _ in range(_WARM_UP_STEPS)]
  begin, cpu_begin = time.time(), time.process_time()
  losses += [training.step(*next(batches)) for _ in range(args.steps)]
  seconds, cpu = time.time() - begin, time.process_time() - cpu_begin
  print(json.dumps({
      'torch': torch.__version__, 'dtype': args.dtype,
      'batch_size': batch_size, 'steps': args.steps,
      'threads': args.threads, 'steps_per_second': args.steps / seconds,
      'cpu_seconds_per_1000_steps': 1000 * cpu / args.steps,
      'peak_rss_mb': peak_mb(),
      'first_loss': float(torch.stack(losses[:10]).mean()),
      'last_loss': float(torch.stack(losses[-10:]).mean())}))


if __name__ == '__main__':
  main()
