"""A batch in slices, one after another: the same sums in less memory.

The slices run in a loop and not as copies of the graph: the graph does not grow
with their number, which may be less where a batch is short; an iteration
begins when the last one has ended and freed its memory; and the fused ops use
theirs again.
"""

import tensorflow.compat.v1 as tf


def accumulate(fn, batch, k):
  """Calls a function with k slices of a batch and adds up what it returns.

  Slices differ by a row at most; of fewer than k rows each is a slice. Update
  ops (tf.GraphKeys.UPDATE_OPS) that fn adds run once per slice.

  Args:
    fn: function of a structure like `batch`, of a slice of its rows, to (sums,
      rows): a structure of float32 tensors to be added up, whose shapes are
      known and the same for any slice; and [slice, n] float32 to be joined.
      Variables that it makes with tf.get_variable exist once.
    batch: structure (see tf.nest) of tensors [batch, ...].
    k: int, at least 1. With 1, fn is called with the batch, without a loop.

  Returns:
    (sums, rows): as those of fn for the whole batch.
  """
  if k == 1:
    return fn(batch)
  total = tf.shape(tf.nest.flatten(batch)[0])[0]
  count = tf.clip_by_value(total, 1, k)
  made = []  # what fn returned: tensors inside the loop, so only their shapes

  def body(i, sums, rows):
    begin, end = total * i // count, total * (i + 1) // count
    moves = tf.get_collection_ref(tf.GraphKeys.UPDATE_OPS)
    before = len(moves)
    made.extend(fn(tf.nest.map_structure(lambda x: x[begin:end], batch)))
    flat = tf.concat([tf.reshape(x, [-1]) for x in tf.nest.flatten(made[0])],
                     axis=0)
    with tf.control_dependencies(moves[before:]):
      sums += flat
    del moves[before:]  # nothing outside of the loop could wait for them
    return i + 1, sums, rows.write(i, made[1])

  with tf.name_scope('micro_batches'):
    # How many sums there are is known only when the body is built: the first
    # iteration widens the one zero.
    _, sums, rows = tf.while_loop(
        lambda i, sums, rows: i < count, body,
        [0, tf.zeros([1]),
         tf.TensorArray(tf.float32, size=count, infer_shape=False)],
        [tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape(None)],
        parallel_iterations=1, back_prop=False)
    shapes = [x.shape for x in tf.nest.flatten(made[0])]
    parts = tf.split(sums, [shape.num_elements() for shape in shapes])
    rows = rows.concat()
    rows.set_shape(made[1].shape)
  return tf.nest.pack_sequence_as(
      made[0], [tf.reshape(x, shape) for x, shape in zip(parts, shapes)]), rows
