"""The C++ kernels: loading and calling them.

`kernels/` holds TensorFlow ops over oneDNN and a few C functions for reading.
build.py compiles them once per TensorFlow, at the first use or by
`python -m ple_estimator.native`. All of them have a form in TensorFlow's own
ops, which runs where they cannot be had, and is what tests compare with.
"""

import contextlib
import ctypes
import functools
import sys

from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator.engine import build


def available():
  """Whether the kernels are used here; builds them at the first call."""
  return not missing()


def missing():
  """Why the kernels are not used here, in one line; '' where they are."""
  return _loaded()[1]


def loaded():
  """Whether the kernels have been loaded; other than `available` builds none.

  What is done by the kernels where they are at hand, and else without them,
  asks this: a run that does not want them must not wait for a compiler.
  """
  # pylint takes cache_info for a method that has no argument left for itself.
  calls = _loaded.cache_info()  # pylint: disable=too-many-function-args
  return calls.currsize > 0 and available()


@functools.lru_cache(maxsize=None)
def _loaded():
  """Returns ((op module, C library), ''), or (None, why not), which it logs."""
  if _sees_gpu():
    why = 'TensorFlow sees a GPU, which they would leave idle'
    logging.warning(
        'Fused kernels are not used: %s. TensorFlow\'s own ops run.', why)
    return None, why
  try:
    path = build.path()
    return (tf.load_op_library(path), _functions(ctypes.CDLL(path))), ''
  except (build.Unavailable, OSError, tf.errors.OpError) as error:
    logging.warning(
        'Fused kernels are not used: %s. TensorFlow\'s own ops train the same '
        'model, slower (see Results in README.md).', error)
    return None, str(error).splitlines()[0]


def _sees_gpu():
  """Whether TensorFlow would use a GPU; does not start one."""
  return bool(tf.config.experimental.list_physical_devices('GPU'))


def _ops():
  return _loaded()[0][0]


def _c():
  return _loaded()[0][1]


# ------------------------------------------------------------------- the ops


def nets(inputs, params, moving, seed, net_input, num_hidden, linear,
         batch_norm, compute, training, epsilon, activation, dropout):
  """Runs a set of small dense networks, each in one thread.

  Args:
    inputs: list of [batch, width] float32.
    params: list of float32 of all nets, in the order of kernels/nets.cc.
    moving: [n] float32, mean and variance of every batch norm, in the order of
      params; empty in training.
    seed: int64 scalar. The mask of dropout is a function of it.
    net_input: list of int, for each net the position of its input.
    num_hidden: list of int, the number of its hidden layers.
    linear: list of int, whether a linear layer follows them: 0, or 1 without
      and 2 with bias.
    batch_norm: bool.
    compute: tf.DType of the products' operands, float32 or bfloat16.
    training: bool, whether batch norm takes the moments of the batch, and
      dropout drops.
    epsilon: float, added to the variance.
    activation: str, that of all hidden layers, a key of mlp._ACTIVATIONS.
    dropout: float in [0, 1), the share of each hidden layer's output that is 0
      in training.

  Returns:
    (outputs, moments): list of [batch, width] float32, and [n] float32 like
    `moving`, of the batch when training.
  """
  outputs, moments, _ = _ops().ple_nets(
      inputs, params, moving, seed, num_nets=len(net_input),
      net_input=net_input, num_hidden=num_hidden, linear=linear,
      batch_norm=batch_norm, compute=compute, training=training,
      epsilon=epsilon, activation=activation, dropout=dropout)
  return outputs, moments


@tf.RegisterGradient('PleNets')
def _nets_grad(op, *gradients):
  attributes = {name: op.get_attr(name) for name in (
      'net_input', 'num_hidden', 'linear', 'batch_norm', 'compute', 'epsilon',
      'activation', 'dropout')}
  num_inputs, num_params = op.get_attr('num_inputs'), op.get_attr('num_params')
  num_nets = op.get_attr('num_nets')
  if not op.get_attr('training'):
    raise NotImplementedError('PleNets has gradients when training only.')
  found = _ops().ple_nets_grad(
      op.inputs[:num_inputs], op.inputs[num_inputs:num_inputs + num_params],
      _dense(gradients[:num_nets], op.outputs), op.outputs[num_nets],
      op.outputs[num_nets + 1], op.inputs[-1], **attributes)
  return list(found[0]) + list(found[1]) + [None, None]


def mix(logits, experts, members):
  """Mixes experts by softmax gates.

  Args:
    logits: list of [batch, number of the gate's experts] float32.
    experts: list of [batch, dim] float32.
    members: for each gate a list of positions in `experts`.

  Returns:
    (mixtures, shares): lists over gates of [batch, dim] and of the softmax of
    the logits, float32.
  """
  return _ops().ple_mix(
      logits, experts, members=sum(members, []),
      sizes=[len(of) for of in members])


@tf.RegisterGradient('PleMix')
def _mix_grad(op, *gradients):
  count = op.get_attr('num_gates')
  gradients = _dense(gradients, op.outputs)
  found = _ops().ple_mix_grad(
      op.outputs[count:], op.inputs[count:], gradients[:count],
      gradients[count:], members=op.get_attr('members'),
      sizes=op.get_attr('sizes'))
  return list(found[0]) + list(found[1])


def pool(vectors, index, splits, columns, combiner, weights=()):
  """Combines the vectors of each field.

  Args:
    vectors: [n, dim] float32.
    index: [ids] int32, rows of `vectors`.
    splits: [columns * batch + 1] int32: the ids of field (column c, row b) are
      index[splits[c * batch + b] to splits[c * batch + b + 1]).
    columns: int.
    combiner: 'mean', 'sum' or 'sqrtn'.
    weights: [ids] float32, how much each id of a field counts, and what
      'mean' and 'sqrtn' divide by; empty where all count 1.

  Returns:
    [batch, columns * dim] float32, zeros where a field has no id, or where its
    weights make the divisor 0.
  """
  return _ops().ple_pool(
      vectors, index, splits, tf.convert_to_tensor(weights, tf.float32),
      columns=columns, combiner=combiner)


@tf.RegisterGradient('PlePool')
def _pool_grad(op, gradient):
  return _ops().ple_pool_grad(
      *(list(op.inputs) + [gradient]), columns=op.get_attr('columns'),
      combiner=op.get_attr('combiner')), None, None, None


def _dense(gradients, outputs):
  """Zeros for the outputs that nothing depends on."""
  return [tf.zeros_like(output) if gradient is None else
          tf.convert_to_tensor(gradient)
          for gradient, output in zip(gradients, outputs)]


def dense_adam(variables, m, v, gradients, scalars):
  """Adam on dense variables; returns the tf.Operation.

  Args:
    variables: list of resource variables, float32.
    m: list of their first moments, resource variables.
    v: list of their second moments, likewise.
    gradients: list of float32 tensors with the shapes of the variables.
    scalars: learning rate, beta1, beta2, epsilon, and the powers of the two
      betas for this step, float32 scalars.
  """
  return _ops().ple_dense_adam(
      [x.handle for x in variables], gradients,
      *scalars, slots=_names(list(m) + list(v)))


def rows_adam(variable, m, v, rows, gradient, scalars):
  """Adam on some rows of a table; returns the tf.Operation.

  Args:
    variable: resource variable [height, width] float32.
    m: its first moment, likewise.
    v: its second moment, likewise.
    rows: [n] int64; of one that comes twice the gradients are added up.
    gradient: [n, width] float32.
    scalars: as `dense_adam`.
  """
  return _ops().ple_rows_adam(
      variable.handle, m.handle, v.handle, rows, gradient, *scalars)


def moving_averages(variables, offsets, moments, momentum):
  """Moves variables towards new values; returns the tf.Operation.

  Each becomes momentum * itself + (1 - momentum) * its part of moments.

  Args:
    variables: list of resource variables [n], float32, on one device.
    offsets: list of int, where in `moments` the part of each begins.
    moments: [sum of n] float32 or more.
    momentum: float or float32 scalar.
  """
  return _ops().ple_moving_averages(
      moments, momentum, vars=_names(variables), offsets=offsets)


def move_averages(averages, variables, share):
  """Moves averages towards variables; returns the tf.Operation.

  Args:
    averages: list of resource variables, float32, on one device; each becomes
      itself + share * (its variable - itself).
    variables: list of resource variables of their shapes, on that device.
    share: float32 scalar.
  """
  return _ops().ple_move_averages(
      share, averages=_names(averages), vars=_names(variables))


def _names(variables):
  """What resource variables are called on their device."""
  return [x.handle.op.get_attr('shared_name') for x in variables]


# ---------------------------------------------------------- the C functions


def onednn_version():
  """The version of oneDNN that the ops call, e.g. 30200 for 3.2.0."""
  return _c().ple_onednn_version()


def _functions(library):
  pointer, integer = ctypes.c_void_p, ctypes.c_int64
  library.ple_hash.restype = None
  library.ple_hash.argtypes = [
      pointer, pointer, integer, integer, integer, pointer]
  library.ple_hash_lists.restype = integer
  library.ple_hash_lists.argtypes = [
      pointer, pointer, integer, ctypes.c_char_p, integer, integer, pointer,
      pointer, pointer]
  library.ple_hash_weighted.restype = integer
  library.ple_hash_weighted.argtypes = [
      pointer, pointer, integer, ctypes.c_char_p, integer, ctypes.c_char_p,
      integer, ctypes.c_double, ctypes.c_double, integer, pointer, pointer,
      pointer, pointer]
  library.ple_hash_beside.restype = integer
  library.ple_hash_beside.argtypes = [
      pointer, pointer, pointer, pointer, integer, ctypes.c_char_p, integer,
      ctypes.c_char_p, integer, ctypes.c_double, ctypes.c_double, integer,
      pointer, pointer, pointer, pointer]
  library.ple_trace_begin.restype = None
  library.ple_trace_end.restype = integer
  library.ple_trace_end.argtypes = [pointer, integer]
  library.ple_unique.restype = integer
  library.ple_unique.argtypes = [pointer, integer, pointer, pointer]
  return library


def hash_text(array, num_buckets, missing):
  """Hashes as tf.strings.to_hash_bucket_fast.

  Args:
    array: pa.BinaryArray without nulls.
    num_buckets: int.
    missing: int, the id of the empty text.

  Returns:
    [rows] int64 numpy array.
  """
  data, offsets = _buffers(array)
  ids = np.empty(len(array), np.int64)
  _c().ple_hash(data, offsets.ctypes.data, len(array), num_buckets,
                         missing, ids.ctypes.data)
  return ids


def hash_lists(array, separator, num_buckets, with_places=False):
  """Cuts texts at a separator, drops empty items and hashes the others.

  Args:
    array: pa.BinaryArray without nulls.
    separator: bytes.
    num_buckets: int.
    with_places: bool, whether places are wanted.

  Returns:
    (ids, splits, places): int64, [rows + 1] int32 and int32 numpy arrays; text
    i has ids[splits[i] to splits[i + 1]), and places[k] is how many items,
    empty ones too, stand in front of that of ids[k]; or None.
  """
  data, offsets = _buffers(array)
  ids = np.empty(int(offsets[-1] - offsets[0]) + len(array), np.int64)
  splits = np.empty(len(array) + 1, np.int32)
  places = np.empty(len(ids) if with_places else 0, np.int32)
  used = _c().ple_hash_lists(
      data, offsets.ctypes.data, len(array), separator, len(separator),
      num_buckets, ids.ctypes.data, splits.ctypes.data,
      places.ctypes.data if with_places else None)
  return (ids[:used].copy(), splits,
          places[:used].copy() if with_places else None)


def hash_weighted(array, separator, mark, limits, num_buckets=None):
  """As hash_lists, of items with a weight behind the last `mark` of each.

  Args:
    array: pa.BinaryArray without nulls.
    separator: bytes, between items.
    mark: bytes, between an item and its weight.
    limits: (least, most), float, between which a weight can be used.
    num_buckets: int; None makes no ids.

  Returns:
    (ids, weights, splits, bad): int64, or None; float32, NaN where there is no
    number; [rows + 1] int32; and [rows] bool, which texts have a weight that
    cannot be used.
  """
  data, offsets = _buffers(array)
  bad = np.empty(len(array), bool)
  return _weighted(array, num_buckets, lambda ids, weights, splits: (
      _c().ple_hash_weighted(
          data, offsets.ctypes.data, len(array), separator, len(separator),
          mark, len(mark), limits[0], limits[1], num_buckets or 0, ids, weights,
          splits, bad.ctypes.data))) + (bad,)


def hash_beside(array, separator, weights, weights_separator, limits,
                num_buckets=None):
  """As hash_lists, of items whose weights stand in texts of their own.

  Args:
    array: pa.BinaryArray without nulls, the items.
    separator: bytes, between items.
    weights: pa.BinaryArray without nulls, of as many rows.
    weights_separator: bytes, between weights.
    limits: (least, most), float, between which a weight can be used.
    num_buckets: int; None makes no ids.

  Returns:
    (ids, weights, splits, problems): as hash_weighted; and [rows] uint8, 1
    where there are not as many weights as items, 2 where an item has a weight
    that cannot be used, else 0.
  """
  (data, offsets), of_weights = _buffers(array), _buffers(weights)
  problems = np.empty(len(array), np.uint8)
  return _weighted(array, num_buckets, lambda ids, found, splits: (
      _c().ple_hash_beside(
          data, offsets.ctypes.data, of_weights[0], of_weights[1].ctypes.data,
          len(array), separator, len(separator), weights_separator,
          len(weights_separator), limits[0], limits[1], num_buckets or 0, ids,
          found, splits, problems.ctypes.data))) + (problems,)


def _weighted(array, num_buckets, fill):
  """Makes (ids, weights, splits) of the items of texts.

  Args:
    array: pa.BinaryArray of the texts.
    num_buckets: int; None makes no ids.
    fill: function of the addresses of the three arrays to the number of items,
      which is negative where there is no memory.
  """
  # An item has at least a byte, or stands alone in its text.
  _, offsets = _buffers(array)
  most = int(offsets[-1] - offsets[0]) + len(array)
  ids = None if num_buckets is None else np.empty(most, np.int64)
  weights = np.empty(most, np.float32)
  splits = np.empty(len(array) + 1, np.int32)
  used = fill(None if ids is None else ids.ctypes.data, weights.ctypes.data,
              splits.ctypes.data)
  if used < 0:
    raise MemoryError('There is no memory to read %d weights.' % most)
  return (None if ids is None else ids[:used].copy(), weights[:used].copy(),
          splits)


def _buffers(array):
  """Returns (address of the text, [rows + 1] int32 offsets) of Arrow's own."""
  _, offsets, data = array.buffers()
  if not len(array):
    return 0, np.zeros(1, np.int32)
  offsets = np.frombuffer(offsets, np.int32)
  return (data.address if data else 0,
          offsets[array.offset:array.offset + len(array) + 1])


def unique(ids):
  """Numbers different ids in the order of their appearance.

  Args:
    ids: [n] int64 numpy array.

  Returns:
    (rows, index): int64 and [n] int32 numpy arrays, rows[index] == ids.
  """
  ids = np.ascontiguousarray(ids)
  rows = np.empty(len(ids), np.int64)
  index = np.empty(len(ids), np.int32)
  count = _c().ple_unique(
      ids.ctypes.data, len(ids), rows.ctypes.data, index.ctypes.data)
  if count < 0:
    raise MemoryError('There is no memory to number %d ids.' % len(ids))
  return rows[:count].copy(), index


# As Span in kernels/trace.h.
_SPAN = np.dtype([('begin', np.int64), ('end', np.int64), ('cpu', np.int64),
                  ('bytes', np.int64), ('thread', np.int32), ('kind', np.int32),
                  ('type', 'S48')])
OP, HELP, WAIT = range(3)  # kinds of spans


@contextlib.contextmanager
def trace(room=100000):
  """Notes when threads work for the ops of this module.

  Args:
    room: int, the most spans that are noted.

  Yields:
    list, to which a numpy array with one element per span is added at the end:
    `begin` and `end` in nanoseconds since 1970; `cpu`, the nanoseconds of
    processor time between them; `bytes`, what the loops and products of nets
    and updates read and wrote, each array once per pass (kernels/trace.h);
    `thread`, its number as in RunMetadata;
    `type`, the op's type as bytes; and `kind`: OP is a call of an op, HELP the
    work of another thread for one, and WAIT, inside of an OP, the time in which
    the caller waits for others.
  """
  found = []
  spans = np.zeros(room, _SPAN)
  _c().ple_trace_begin()
  try:
    yield found
  finally:
    count = _c().ple_trace_end(spans.ctypes.data, room)
    found.append(spans[:count])


def _main():
  """Builds the library; returns the exit status."""
  logging.set_verbosity(logging.INFO)
  try:
    logging.info('The fused kernels: %s', build.path())
    return 0
  except build.Unavailable as error:
    logging.error('There are no fused kernels: %s.', error)
    return 1


if __name__ == '__main__':
  sys.exit(_main())
