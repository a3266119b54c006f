"""Sets of small dense networks: what experts, gates and towers are made of.

A set is described first and computed at once. There are two ways: TensorFlow's
own ops, one after the other, which is the readable form and the reference of
all tests; and one fused op (kernels/nets.cc), which equals it and is several
times faster. Variables are the same, so a checkpoint of one serves the other.
"""

import collections
import contextlib

import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import native

_ACTIVATIONS = {
    'relu': tf.nn.relu,
    'elu': tf.nn.elu,
    'selu': tf.nn.selu,
    'swish': tf.nn.swish,
    'tanh': tf.nn.tanh,
    'sigmoid': tf.nn.sigmoid,
    'leaky_relu': tf.nn.leaky_relu,
}
_MOMENTUM = 0.99  # of batch norm's moving averages; as tf.layers
_EPSILON = 1e-3  # added to its variances; likewise


def check_units(binding, units):
  """Raises UserError unless a binding holds the widths of layers.

  Args:
    binding: str, e.g. 'Tower.units'.
    units: what it is bound to: positive integers, or none.
  """
  errors.check(
      isinstance(units, (list, tuple)) and
      all(isinstance(n, int) and n >= 1 for n in units),
      '%s must be a tuple of positive integers, such as (64,), got %r.',
      binding, units)


class Net(collections.namedtuple('Net', 'x units linear linear_bias')):
  """One network of a set.

  Attributes:
    x: [batch, in_dim] float32.
    units: widths of the hidden layers.
    linear: int, width of a linear layer behind them; 0 is none.
    linear_bias: bool, whether that layer has a bias.
  """

  def __new__(cls, x, units, linear=0, linear_bias=False):
    return super().__new__(cls, x, tuple(units), linear, linear_bias)


# A layer's variables: the kernel, which may be a PartitionedVariable; norm is a
# _Norm, None where no batch norm follows.
_Layer = collections.namedtuple('_Layer', 'kernel bias norm')
_Norm = collections.namedtuple('_Norm', 'gamma beta mean variance')


@contextlib.contextmanager
def _unpartitioned(name):
  """A variable scope for vectors, which are not worth being cut."""
  with tf.variable_scope(name) as scope:
    scope.set_partitioner(None)
    yield


class Mlp:
  """Dense layers, each followed by activation, batch norm and dropout.

  The order (dense, activation, batch norm) is that of the model zoo.
  """

  def __init__(self, owner, activation, batch_norm, dropout, l2):
    """Keeps the hyper-parameters.

    Args:
      owner: str, the class whose bindings these are, for errors.
      activation: str, a key of _ACTIVATIONS.
      batch_norm: bool.
      dropout: float in [0, 1), the share of activations dropped.
      l2: float, each kernel adds l2 * |kernel|^2 / 2 to the loss.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check(activation in _ACTIVATIONS,
                 '%s.activation must be one of %s, got %r.', owner,
                 ', '.join(sorted(_ACTIVATIONS)), activation)
    errors.check(errors.is_number(dropout) and 0 <= dropout < 1,
                 '%s.dropout must be in [0, 1), got %r.', owner, dropout)
    errors.check(errors.is_number(l2) and l2 >= 0,
                 '%s.l2 must not be negative, got %r.', owner, l2)
    self._activation = _ACTIVATIONS[activation]
    self._batch_norm = batch_norm
    self._dropout = dropout
    self._l2 = l2
    # Networks whose Mlp have the same can be one set.
    self.settings = activation, batch_norm, dropout, l2
    # What the fused op has no form of.
    self._can_fuse = activation == 'relu' and not dropout

  def __call__(self, nets, training, precision, op_fusion=False):
    """Builds a set of networks in the default graph.

    Args:
      nets: collections.OrderedDict of variable scope to Net.
      training: bool, whether batch norm and dropout are in training mode.
      precision: precision.Precision of the products.
      op_fusion: bool, whether to use the fused op where there is one.

    Returns:
      dict of variable scope to [batch, width of the last layer] float32.
    """
    layers = collections.OrderedDict()
    for scope, net in nets.items():
      with tf.variable_scope(scope):
        layers[scope] = self._variables(net)
    fused = [scope for scope in nets if layers[scope]] if (
        op_fusion and self._can_fuse and native.available()) else []
    outputs = {}
    if fused:
      outputs = self._fused(
          [(s, nets[s], layers[s]) for s in fused], training, precision)
    for scope, net in nets.items():
      if scope not in outputs:
        with tf.name_scope(scope):
          outputs[scope] = self._plain(net, layers[scope], training, precision)
    return outputs

  def _variables(self, net):
    """Makes the variables of a net; returns a list of _Layer."""
    found, width = [], net.x.shape[-1].value
    for i, units in enumerate(net.units):
      kernel, bias = self._dense_variables(
          'dense_%d' % i, width, units, bias=True)
      norm = self._norm_variables('norm_%d' % i, units)
      found.append(_Layer(kernel, bias, norm))
      width = units
    if net.linear:
      name = 'logit' if net.linear_bias else 'mix'
      kernel, bias = self._dense_variables(
          name, width, net.linear, net.linear_bias)
      found.append(_Layer(kernel, bias, None))
    return found

  def _dense_variables(self, name, width, units, bias):
    regularizer = (lambda w: self._l2 * tf.nn.l2_loss(w)) if self._l2 else None
    with tf.variable_scope(name):
      kernel = tf.get_variable(
          'kernel', [width, units], tf.float32,
          tf.glorot_uniform_initializer(), regularizer)
    with _unpartitioned(name):
      return kernel, tf.get_variable(
          'bias', [units], tf.float32, tf.zeros_initializer()) if bias else None

  def _norm_variables(self, name, units):
    if not self._batch_norm:
      return None
    with _unpartitioned(name):
      ones, zeros = tf.ones_initializer(), tf.zeros_initializer()
      return _Norm(
          tf.get_variable('gamma', [units], tf.float32, ones),
          tf.get_variable('beta', [units], tf.float32, zeros),
          tf.get_variable('moving_mean', [units], tf.float32, zeros,
                          trainable=False),
          tf.get_variable('moving_variance', [units], tf.float32, ones,
                          trainable=False))

  # ---------------------------------------------------- TensorFlow's own ops

  def _plain(self, net, layers, training, precision):
    x, norm = net.x, None
    for i, layer in enumerate(layers):
      x = _dense(x, norm, layer, precision)
      if i == len(net.units):  # the linear layer
        return x
      x = self._activation(x)
      norm = _scale_and_shift(x, layer.norm, training) if layer.norm else None
      if self._dropout:
        x, norm = _normalized(x, norm), None
        x = tf.layers.dropout(x, self._dropout, training=training)
    return _normalized(x, norm)

  # ------------------------------------------------------------ the fused op

  def _fused(self, nets, training, precision):
    """As _plain for a list of (scope, Net, layers); returns a dict."""
    inputs = list(collections.OrderedDict(
        (net.x.name, net.x) for _, net, _ in nets).values())
    position = {x.name: i for i, x in enumerate(inputs)}
    params, norms = [], []
    for _, _, layers in nets:
      for layer in layers:
        norms.extend([layer.norm] if layer.norm else [])
        params.extend(p for p in (layer.kernel, layer.bias) if p is not None)
        params.extend(layer.norm[:2] if layer.norm else [])
    moving = tf.zeros([0]) if training or not norms else tf.concat(
        [x for norm in norms for x in (norm.mean, norm.variance)], axis=0)
    outputs, moments = native.nets(
        inputs, [tf.convert_to_tensor(p) for p in params], moving,
        net_input=[position[net.x.name] for _, net, _ in nets],
        num_hidden=[len(net.units) for _, net, _ in nets],
        linear=[1 + net.linear_bias if net.linear else 0
                for _, net, _ in nets],
        batch_norm=self._batch_norm, compute=precision.dtype,
        training=training, epsilon=_EPSILON)
    if training and norms:
      _move(norms, moments)
    return {scope: output for (scope, _, _), output in zip(nets, outputs)}


# Batch norm (Ioffe and Szegedy, ICML 2015) is x * scale + shift, per column.
# Where a dense layer follows it is done to the kernel instead of the batch,
# (x * scale + shift) W = x (scale W) + shift W, which has fewer rows.


def _scale_and_shift(x, norm, training):
  """What batch norm multiplies [batch, n] float32 with and adds: [n] each."""
  mean, variance = norm.mean, norm.variance
  if training:
    mean, variance = _moments(x)
    for moving, batch in ((norm.mean, mean), (norm.variance, variance)):
      tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, moving.assign_sub(
          (moving - batch) * (1 - _MOMENTUM)))
  scale = norm.gamma * tf.rsqrt(variance + _EPSILON)
  return scale, norm.beta - mean * scale


def _normalized(x, norm):
  """x, or x * scale + shift."""
  return tf.nn.bias_add(x * norm[0], norm[1]) if norm else x


def _dense(x, norm, layer, precision):
  """The dense layer of what norm makes of x, [batch, out] float32."""
  kernel, bias = tf.convert_to_tensor(layer.kernel), layer.bias
  if norm:
    scale, shift = norm
    shift = tf.squeeze(tf.matmul(shift[tf.newaxis], kernel), axis=0)
    bias = shift if bias is None else bias + shift
    kernel = scale[:, tf.newaxis] * kernel
  x = precision.matmul(x, kernel)
  return x if bias is None else tf.nn.bias_add(x, bias)


@tf.custom_gradient
def _moments(x):
  """As tf.nn.moments of the rows, with a gradient of fewer passes over them.

  Sums are products with a vector here, the fastest TensorFlow has.

  Args:
    x: [batch, n] float32.

  Returns:
    (mean, variance): [n] float32.
  """
  rows = tf.shape(x)[:1]
  share = 1 / tf.cast(rows[0], tf.float32)
  weights = tf.fill([1, rows[0]], share)
  mean = tf.squeeze(tf.matmul(weights, x), axis=0)
  variance = tf.squeeze(
      tf.matmul(weights, tf.math.squared_difference(x, mean)), axis=0)

  def grad(d_mean, d_variance):
    slope = 2 * share * d_variance
    return tf.nn.bias_add(x * slope, share * d_mean - slope * mean)

  return (mean, variance), grad


def _move(norms, moments):
  """Moves all averages of fused batch norms, one op per device they are on."""
  by_device, offset = collections.OrderedDict(), 0
  for norm in norms:
    for moving in (norm.mean, norm.variance):
      by_device.setdefault(moving.device, []).append((moving, offset))
      offset += moving.shape[0].value
  for device, pairs in by_device.items():
    with tf.device(device or None):
      tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, native.moving_averages(
          [moving for moving, _ in pairs], [at for _, at in pairs], moments,
          _MOMENTUM))


def mix(logits, experts, members, op_fusion=False):
  """Mixes experts by the softmax of gates.

  Args:
    logits: list of [batch, number of the gate's experts] float32.
    experts: list of [batch, dim] float32.
    members: for each gate, the positions of its experts in `experts`.
    op_fusion: bool, whether to use the fused op where there is one.

  Returns:
    (mixtures, shares): per gate the mixture [batch, dim] and the weights
    [batch, number of the gate's experts], whose rows sum to 1; float32.
  """
  if op_fusion and logits and native.available():
    return native.mix(logits, experts, members)
  shares = [tf.nn.softmax(logit) for logit in logits]
  return [tf.reduce_sum(
      share[:, :, tf.newaxis] * tf.stack([experts[i] for i in of], axis=1),
      axis=1) for share, of in zip(shares, members)], shares
