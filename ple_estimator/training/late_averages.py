"""Begins to average the weights of a checkpoint that has no averages."""

import contextlib
import os
import shutil
import tempfile

from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import files
from ple_estimator.engine import compat
from ple_estimator.optimizers import averaging
from ple_estimator.training import incremental

_KEYS = '-keys'


@contextlib.contextmanager
def added(path, graph):
  """Gives a checkpoint the averages that a training graph wants to restore.

  Args:
    path: str, of a checkpoint.
    graph: tf.Graph.

  Yields:
    str: `path`, or where it lacks averages, the path of a copy in which
    averaging begins at the step of the checkpoint. The copy is removed at the
    end.
  """
  reader = tf.train.load_checkpoint(path)
  names = set(reader.get_variable_to_shape_map())
  averages = averaging.of_graph(graph)
  if not averages or averaging.START in names:
    yield path
    return
  tensors = {name: reader.get_tensor(name) for name in names}
  step = tensors[tf.GraphKeys.GLOBAL_STEP]
  tensors[averaging.START] = np.int64(step)
  tensors.update(_of_variables(averages[0], tensors))
  tensors.update(_of_keyed(tensors))
  logging.info('The weights are averaged from step %d on: the checkpoint was '
               'trained without Model.averaging.', step)
  folder = tempfile.mkdtemp(dir=os.path.dirname(path), prefix='averages-')
  try:
    copy = files.checkpoint_path(folder, int(step))
    incremental.write(copy, tensors)
    yield copy
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def _of_variables(averages, tensors):
  """The averages, at their first step, of all but keyed tables."""
  found = {}
  for variable in averages.variables:
    name, shape, _ = compat.whole(variable)
    found[name] = np.zeros(shape, variable.dtype.as_numpy_dtype)
    owner = name[:-len(averaging.SUFFIX)]
    if name.endswith(averaging.SUFFIX) and owner in tensors:
      found[name] = tensors[owner]
  return found


def _of_keyed(tensors):
  """The averages of all rows of keyed tables, which begin now."""
  found = {}
  for name in tensors:
    if name.endswith(_KEYS):
      table = name[:-len(_KEYS)]
      values = tensors[table + '-values']
      found[table + averaging.SUFFIX + '-values'] = values
      found[table + averaging.STEP + '-values'] = np.zeros(
          [len(values), 2], np.int64)
  return found
