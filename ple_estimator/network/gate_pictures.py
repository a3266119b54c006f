"""Pictures of gates for TensorBoard: the shares that they give to experts.

There is one picture per level: each gate is a row, and each expert a column.
The color of a cell is the mean share of the expert in the output of the gate,
from violet (0) to yellow (1), with the green in the middle where the gate uses
all experts that it sees alike. Grey is an expert that it does not see. The tag
of a picture says which row and column is which.
"""

import collections
import re

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import colors

PREFIX = 'gate/'
_NAME = re.compile(re.escape(PREFIX) + r'([^/]+)/([^/]+)/(.+)$')
_CELL = 32  # pixels, with _GAP of white at the right and below
_GAP = 2
# What a pixel shows: a share, an expert that is not seen, or a gap.
_NUM_SHARES = 256
_NOT_SEEN, _WHITE = _NUM_SHARES, _NUM_SHARES + 1
_COLORS = np.concatenate([
    colors.scale(_NUM_SHARES), [[200] * 3, [255] * 3]]).astype(np.uint8)


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
        tag=_tag(level, rows, columns), max_images=1, tensor=_pixels(
            cells, _seen(shares, rows, columns))[None]))


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
    with tf.Graph().as_default(), tf.Session() as session:
      png = session.run(tf.image.encode_png(_pixels(
          tf.constant(cells), _seen(shares, rows, columns))))
    found.value.add(
        tag=_tag(level, rows, columns) + '/image', image=tf.Summary.Image(
            height=len(rows) * _CELL, width=len(columns) * _CELL, colorspace=3,
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


def _seen(shares, rows, columns):
  """[rows, columns] bool, whether a gate sees an expert."""
  return np.array([[(gate, expert) in shares for expert in columns]
                   for gate in rows])


def _pixels(shares, seen):
  """Draws the shares of a level.

  Args:
    shares: [rows, columns] float32 tensor.
    seen: [rows, columns] bool array.

  Returns:
    [rows * 32, columns * 32, 3] uint8 tensor.
  """
  # 1 / n becomes 0.5, and 0 and 1 stay, for a gate that sees n experts.
  power = np.log(2) / np.log(np.maximum(2, seen.sum(axis=1, keepdims=True)))
  shares = tf.where(tf.is_finite(shares), shares, tf.zeros_like(shares))
  levels = tf.clip_by_value(shares, 0, 1) ** power.astype(np.float32)
  shown = tf.where(
      seen, tf.cast(tf.round(levels * (_NUM_SHARES - 1)), tf.int32),
      np.full(seen.shape, _NOT_SEEN, np.int32))
  gap = np.zeros([size * _CELL for size in seen.shape], bool)
  for axis, count in enumerate(seen.shape):
    shown = tf.gather(
        shown, np.repeat(np.arange(count), _CELL), axis=axis)
    inside = np.arange(count * _CELL) % _CELL < _CELL - _GAP
    gap |= ~inside.reshape([-1, 1] if axis == 0 else [1, -1])
  return tf.gather(_COLORS, tf.where(
      gap, np.full(gap.shape, _WHITE, np.int32), shown))
