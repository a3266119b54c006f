r"""Turns a SavedModel into the one of a later step, by incremental checkpoints.

  python tools/apply_delta.py result/ev/export/saved_model/1795805554 \
      result/ev/incremental/1000/delta-1100 --out serving/1100

The first argument is the SavedModel of a full checkpoint, and those that follow
are what Experiment.incremental has saved after it, in their order. The result
is the SavedModel that an export at the step of the last delta would have been:
the same graph with other variables. A delta holds the rows that steps have
touched, and so is much smaller than an export.

With Model.averaging a SavedModel has averages of the weights. Those of rows
that a delta does not hold change too, and only the weights say how. So
--checkpoint must then name the full checkpoint that the export was made of, and
that the deltas follow.
"""

import argparse
import os
import shutil
import sys
import uuid

import tensorflow.compat.v1 as tf

from ple_estimator import files
from ple_estimator.optimizers import averaging
from ple_estimator.training import checkpoints
from ple_estimator.training import incremental

_STEP = tf.GraphKeys.GLOBAL_STEP


def apply(export, deltas, checkpoint=None):
  """Returns the variables of a SavedModel after some deltas.

  Args:
    export: str, the folder of the SavedModel.
    deltas: list of str, paths of deltas without an ending.
    checkpoint: str, the full checkpoint of the export, or None.

  Returns:
    dict of name to numpy array.

  Raises:
    ValueError: if something is missing or damaged, or does not follow.
  """
  path = os.path.join(export, 'variables', 'variables')
  _check(os.path.exists(path + '.index'), '%s is no SavedModel', export)
  served = incremental.read(path)
  step = int(served[_STEP])
  for delta in deltas:
    said = incremental.problem(delta, step)
    _check(said is None, '%s %s; the state before it is of step %d', delta,
           said, step)
    step = int(tf.train.load_checkpoint(delta).get_tensor(_STEP))
  names = tf.train.load_checkpoint(deltas[0]).get_variable_to_shape_map()
  if averaging.DECAY not in names:
    return incremental.merge(served, deltas, only=True)
  _check(checkpoint, '%s has averaged weights (Model.averaging): --checkpoint '
         'must name the full checkpoint of step %d', deltas[0],
         int(served[_STEP]))
  said = checkpoints.problem(checkpoint)
  _check(said is None, 'checkpoint %s %s', checkpoint, said)
  full = incremental.read(checkpoint)
  _check(full[_STEP] == served[_STEP], '%s is of step %d, and %s of step %d',
         checkpoint, full[_STEP], export, served[_STEP])
  merged = incremental.merge(full, deltas)
  return {name: merged[_average_of(name, merged)] for name in served}


def _average_of(name, tensors):
  """What a SavedModel reads a tensor from."""
  ending = '-values' if name.endswith('-values') else ''
  average = name[:len(name) - len(ending)] + averaging.SUFFIX + ending
  return average if average in tensors else name


def write(export, tensors, out):
  """Writes a SavedModel with other variables, whole or not at all."""
  partial = '%s.%s.partial' % (out.rstrip('/'), uuid.uuid4().hex)
  try:
    shutil.copytree(export, partial,
                    ignore=shutil.ignore_patterns('variables.*', '*.partial'))
    incremental.write(os.path.join(partial, 'variables', 'variables'), tensors)
    os.rename(partial, out)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _check(condition, message, *args):
  if not condition:
    raise ValueError(message % args)


def main(arguments=None):
  """Applies deltas; returns the exit status.

  Args:
    arguments: list of str; None takes those of the process.
  """
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('export', help='the folder of a SavedModel')
  parser.add_argument('deltas', nargs='+', metavar='delta',
                      help='such as result/ev/incremental/1000/delta-1100')
  parser.add_argument('--out', required=True, help='a folder that is not there')
  parser.add_argument('--checkpoint', help='see above')
  args = parser.parse_args(arguments)
  try:
    _check(not os.path.exists(args.out), '--out must not exist, got %s',
           args.out)
    tensors = apply(args.export, args.deltas, args.checkpoint)
    write(args.export, tensors, args.out)
  except (OSError, ValueError, tf.errors.OpError) as error:
    sys.stderr.write('apply_delta: %s\n' % error)
    return 1
  print('%s: step %d' % (files.shown(args.out), tensors[_STEP]))
  return 0


if __name__ == '__main__':
  sys.exit(main())
