"""The inputs of a served model."""

import tensorflow.compat.v1 as tf

from ple_estimator.data import packing


def input_receiver_fn(reading):
  """Returns the function that makes the inputs of a SavedModel.

  The model takes the columns by name, [batch] each, as the files have them; or,
  by its other signature, serialized tf.train.Examples with at most one value
  per column. A value means in both what it means in a file:

    missing    '' of a text, -1 of an integer, NaN of a number; in an Example
               also a feature that is left out. It is the column's default.
    refused    what a file may not have: an integer out of range, a number that
               is infinite or too large, see numbers.Number. A served
               model cannot refuse a row, so it counts as missing.

  A missing number whose column has no default makes all answers of its row NaN,
  and those of no other row. A missing category without default has the zero
  vector, as in a file.

  Args:
    reading: reading.Reading, whose spec and groups are used: a served model
      reads no labels, keeps no columns and needs no more than TensorFlow.
  """
  columns = reading.spec.read(with_labels=False)

  def receiver():
    examples = tf.placeholder(tf.string, [None], 'examples')
    parsed = tf.io.parse_example(examples, {
        c.name: tf.io.FixedLenFeature([], c.dtype, c.missing)
        for c in columns})
    # A caller feeds the columns, or the Examples that they are parsed from.
    raw = {c.name: tf.placeholder_with_default(
        parsed[c.name], [None], c.scope) for c in columns}
    features, _ = reading.spec.encode(
        raw, without=packing.names(reading.groups))
    features.update(packing.pack(raw, reading.groups))
    return tf.estimator.export.ServingInputReceiver(
        features, raw, receiver_tensors_alternatives={'examples': examples})

  return receiver
