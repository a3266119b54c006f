"""Micro-batches: a batch in slices, one after another, with the same sums.

The slices run in a loop of the graph and not as copies of a part of it. So the
graph does not grow with their number, and a short batch may have fewer. An
iteration begins when the one before has ended and freed its memory, and the
fused ops use the same memory again.
"""

import tensorflow.compat.v1 as tf


def accumulate(fn, batch, k):
  """Calls a function with k slices of a batch and adds up what it returns.

  The numbers of rows of two slices differ by at most 1. A batch of fewer than k
  rows has one slice per row. Update ops (tf.GraphKeys.UPDATE_OPS) that fn adds
  run once per slice.

  Args:
    fn: function of one argument, a structure like `batch` with the rows of a
      slice. It returns (sums, rows): a structure of float32 tensors to be added
      up, with known shapes that are the same for any slice; and [slice, n]
      float32 to be concatenated. Variables that it makes with tf.get_variable
      exist once.
    batch: structure (see tf.nest) of tensors [batch, ...].
    k: int, the number of slices, at least 1. With 1, fn is called with the
      whole batch, without a loop.

  Returns:
    (sums, rows): what fn would return for the whole batch.
  """
  if k == 1:
    return fn(batch)
  total = tf.shape(tf.nest.flatten(batch)[0])[0]
  count = tf.clip_by_value(total, 1, k)
  # What fn returned. These are tensors of the loop: only their shapes, and the
  # structure, can be used outside of it.
  returned = []

  def body(i, sums, rows):
    begin, end = total * i // count, total * (i + 1) // count
    update_ops = tf.get_collection_ref(tf.GraphKeys.UPDATE_OPS)
    before = len(update_ops)
    returned.extend(fn(tf.nest.map_structure(lambda x: x[begin:end], batch)))
    flat = tf.concat(
        [tf.reshape(x, [-1]) for x in tf.nest.flatten(returned[0])], axis=0)
    with tf.control_dependencies(update_ops[before:]):
      sums += flat
    del update_ops[before:]  # no op outside of the loop could wait for them
    return i + 1, sums, rows.write(i, returned[1])

  with tf.name_scope('micro_batches'):
    # The number of sums is known only once the body has been built. So the loop
    # starts from a single zero, to which the first iteration adds all sums.
    _, sums, rows = tf.while_loop(
        lambda i, sums, rows: i < count, body,
        [0, tf.zeros([1]),
         tf.TensorArray(tf.float32, size=count, infer_shape=False)],
        [tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape(None)],
        parallel_iterations=1, back_prop=False)
    shapes = [x.shape for x in tf.nest.flatten(returned[0])]
    parts = tf.split(sums, [shape.num_elements() for shape in shapes])
    rows = rows.concat()
    rows.set_shape(returned[1].shape)
  sums = [tf.reshape(x, shape) for x, shape in zip(parts, shapes)]
  return tf.nest.pack_sequence_as(returned[0], sums), rows
