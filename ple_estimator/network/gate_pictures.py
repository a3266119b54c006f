"""Pictures of gates for TensorBoard: the shares that they give to experts.

There is one picture per level: each gate is a row, and each expert a column.
The lighter a cell, the larger the mean share of the expert in the output of the
gate: white is 1, black is 0 and also an expert that the gate does not see. The
tag of a picture says which row and column is which.
"""

import collections
import re

import numpy as np
import tensorflow.compat.v1 as tf

PREFIX = 'gate/'
_NAME = re.compile(re.escape(PREFIX) + r'([^/]+)/([^/]+)/(.+)$')
_CELL = 32  # pixels


def show(gates):
  """Adds the pictures of a batch to the summaries of the default graph.

  Args:
    gates: dict of '<level>/<gate>' to a dict of expert name to float32 scalar.
  """
  for level, shares in _levels({
      '%s%s/%s' % (PREFIX, gate, expert): share
      for gate, of_gate in gates.items()
      for expert, share in of_gate.items()}).items():
    rows, columns = _names(shares)
    cells = tf.stack([tf.stack([
        shares.get((gate, expert), tf.zeros([])) for expert in columns])
                      for gate in rows])
    with tf.name_scope(None):
      cells = tf.identity(cells, name='gates/' + level)
    tf.add_to_collection(tf.GraphKeys.SUMMARIES, tf.raw_ops.ImageSummary(
        tag=_tag(level, rows, columns), max_images=1, tensor=_enlarged(
            tf.cast(cells * 255 + 0.5, tf.uint8))[None, :, :, None]))


def summary(values):
  """The pictures of an evaluation.

  Args:
    values: dict of metric name to number, among them
      'gate/<level>/<gate>/<expert>'.

  Returns:
    tf.Summary, empty without gates.
  """
  found = tf.Summary()
  for level, shares in _levels(values).items():
    rows, columns = _names(shares)
    cells = np.array([[shares.get((gate, expert), 0.0) for expert in columns]
                      for gate in rows], np.float32)
    cells = (np.clip(np.nan_to_num(cells), 0, 1) * 255 + 0.5).astype(np.uint8)
    with tf.Graph().as_default(), tf.Session() as session:
      pixels = _enlarged(tf.constant(cells))[:, :, None]
      png = session.run(tf.image.encode_png(pixels))
    found.value.add(
        tag=_tag(level, rows, columns) + '/image', image=tf.Summary.Image(
            height=len(rows) * _CELL, width=len(columns) * _CELL, colorspace=1,
            encoded_image_string=png))
  return found


def _levels(values):
  """Sorts shares: OrderedDict of level to a dict of (gate, expert) to one."""
  levels = {}
  for name, value in values.items():
    match = _NAME.match(name)
    if match:
      level, gate, expert = match.groups()
      levels.setdefault(level, {})[gate, expert] = value
  return collections.OrderedDict(sorted(levels.items()))


def _names(shares):
  """Names of the gates and of the experts of a level; shared ones come last."""
  return [sorted({pair[i] for pair in shares}, key=lambda name: (
      name.startswith('shared'), name)) for i in (0, 1)]


def _tag(level, rows, columns):
  return 'gates/%s (rows: %s; columns: %s)' % (
      level, ', '.join(rows), ', '.join(columns))


def _enlarged(cells):
  """Makes each number of a [rows, columns] tensor a square."""
  for axis, count in enumerate(cells.shape.as_list()):
    cells = tf.gather(
        cells, np.repeat(np.arange(count), _CELL), axis=axis)
  return cells
