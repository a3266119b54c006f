"""Sets of small dense networks, of which experts, gates and towers consist.

A set of networks is described first and then computed at once, in one of two
ways. TensorFlow's own ops, one after the other, are the readable form, which
all tests compare with. One fused op (kernels/nets.cc) gives the same numbers
and is several times faster. Both have the same variables, so each can restore a
checkpoint of the other.
"""

import collections
import contextlib

import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.engine import native
from ple_estimator.network import batch_norm as batch_norm_lib

_ACTIVATIONS = {
    'relu': tf.nn.relu,
    'elu': tf.nn.elu,
    'selu': tf.nn.selu,
    'swish': tf.nn.swish,
    'tanh': tf.nn.tanh,
    'sigmoid': tf.nn.sigmoid,
    'leaky_relu': tf.nn.leaky_relu,
}


def check_units(binding, units, may_be_empty=True):
  """Raises UserError unless a binding holds the widths of layers.

  Args:
    binding: str, the name of the binding, e.g. 'Tower.units'.
    units: its value, which must be a list or tuple of positive integers.
    may_be_empty: bool, whether there may be no layer.
  """
  errors.check_list(
      binding, units, errors.is_count, 'positive integers, such as (64,)',
      may_be_empty)


class Input:
  """An input whose product with a kernel costs less than the input itself.

  Only networks that TensorFlow's own ops compute take one.

  Attributes:
    width: int, of the input, and so the number of rows of the kernel.
  """

  width = None

  def times(self, kernel, precision):
    """Multiplies the input with a kernel.

    Args:
      kernel: [width, out] float32.
      precision: precision.Precision of the products.

    Returns:
      [batch, out] float32.
    """
    raise NotImplementedError


class Net(collections.namedtuple(
    'Net', 'x units linear linear_bias linear_zeros bias_scale')):
  """One network of a set.

  Attributes:
    x: [batch, in_dim] float32, or Input.
    units: widths of the hidden layers.
    linear: int, width of a linear layer behind them; 0 is none.
    linear_bias: bool, whether that layer has a bias.
    linear_zeros: bool, whether the kernel of that layer starts from zeros, not
      from Glorot's uniform numbers.
    bias_scale: float, what the variable is multiplied by to give that bias.
  """

  def __new__(cls, x, units, linear=0, linear_bias=False, linear_zeros=False,
              bias_scale=1.0):
    return super().__new__(cls, x, tuple(units), linear, linear_bias,
                           linear_zeros, bias_scale)


# The variables of a layer. The kernel may be a PartitionedVariable; bias is
# None in a layer without one; norm is a batch_norm.Norm, or None where no batch
# norm follows.
_Layer = collections.namedtuple('_Layer', 'kernel bias norm')


@contextlib.contextmanager
def _unpartitioned(name):
  """A variable scope without partitioner: vectors are too small to be cut."""
  with tf.variable_scope(name) as scope:
    scope.set_partitioner(None)
    yield


class Mlp:
  """Dense layers, each followed by activation, batch norm and dropout.

  The order (dense, activation, batch norm) is that of the model zoo. Dropout
  (Srivastava et al., JMLR 2014) is in training only, and divides what it keeps
  by 1 - dropout. It acts on hidden layers, the last one included, and not on a
  linear layer. The fused op and the readable form draw different masks.
  """

  def __init__(self, owner, activation, batch_norm, dropout, l2):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      owner: str, the class that a user binds these arguments of, for errors.
      activation: str, a key of _ACTIVATIONS.
      batch_norm: batch_norm.BatchNorm; True is one with its defaults, False
        is none.
      dropout: float in [0, 1), the share of activations dropped.
      l2: float, each kernel adds l2 * |kernel|^2 / 2 to the loss.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check_choice(owner + '.activation', activation,
                        sorted(_ACTIVATIONS))
    if batch_norm is True:
      batch_norm = batch_norm_lib.BatchNorm()
    if batch_norm is not False:
      errors.check_is_a(owner + '.batch_norm', batch_norm,
                        batch_norm_lib.BatchNorm, '@BatchNorm(), True or False')
    errors.check_number(owner + '.dropout', dropout, least=0, below=1)
    errors.check_number(owner + '.l2', l2, least=0)
    self._activation = activation
    self._batch_norm = batch_norm
    self._dropout = dropout
    self._l2 = l2
    # Networks of several Mlps with equal settings can be computed as one set.
    self.settings = (
        activation, batch_norm and batch_norm.settings, dropout, l2)

  def __call__(self, nets, purpose):
    """Builds a set of networks in the default graph.

    Args:
      nets: collections.OrderedDict of variable scope to Net.
      purpose: purpose.Purpose of the graph: batch norm and dropout are in
        training mode if it trains, and the fused op computes the set if it is
        fused. Each call draws its own masks of dropout, and so does each run.

    Returns:
      dict of variable scope to [batch, width of the last layer] float32.
    """
    layers = collections.OrderedDict()
    for scope, net in nets.items():
      with tf.variable_scope(scope):
        layers[scope] = self._variables(net)
    outputs = {}
    if purpose.fused:
      outputs = self._fused([(scope, net, layers[scope])
                             for scope, net in nets.items() if layers[scope]],
                            purpose)
    for scope, net in nets.items():
      if scope not in outputs:
        with tf.name_scope(scope):
          outputs[scope] = self._plain(net, layers[scope], purpose)
    return outputs

  def _variables(self, net):
    """Makes the variables of a net; returns a list of _Layer."""
    layers = []
    width = (net.x.width if isinstance(net.x, Input) else
             net.x.shape[-1].value)
    for i, units in enumerate(net.units):
      kernel, bias = self._dense_variables(
          'dense_%d' % i, width, units, bias=True)
      norm = self._norm_variables('norm_%d' % i, units)
      layers.append(_Layer(kernel, bias, norm))
      width = units
    if net.linear:
      name = 'logit' if net.linear_bias else 'mix'
      kernel, bias = self._dense_variables(
          name, width, net.linear, net.linear_bias, net.linear_zeros)
      if bias is not None and net.bias_scale != 1:
        bias = net.bias_scale * bias
      layers.append(_Layer(kernel, bias, None))
    return layers

  def _dense_variables(self, name, width, units, bias, zeros=False):
    regularizer = (lambda w: self._l2 * tf.nn.l2_loss(w)) if self._l2 else None
    with tf.variable_scope(name):
      kernel = tf.get_variable(
          'kernel', [width, units], tf.float32,
          tf.zeros_initializer() if zeros else tf.glorot_uniform_initializer(),
          regularizer)
    with _unpartitioned(name):
      return kernel, tf.get_variable(
          'bias', [units], tf.float32, tf.zeros_initializer()) if bias else None

  def _norm_variables(self, name, units):
    if not self._batch_norm:
      return None
    with _unpartitioned(name):
      return self._batch_norm.variables(units)

  # ---------------------------------------------------- TensorFlow's own ops

  def _plain(self, net, layers, purpose):
    """Computes one network by TensorFlow's own ops; returns its output."""
    x, norm = net.x, None
    for i, layer in enumerate(layers):
      x = _dense(x, norm, layer, purpose.precision)
      if i == len(net.units):  # the linear layer
        return x
      x = _ACTIVATIONS[self._activation](x)
      norm = (self._batch_norm.scale_and_shift(x, layer.norm, purpose.training)
              if layer.norm else None)
      if self._dropout:
        x, norm = batch_norm_lib.normalized(x, norm), None
        x = tf.layers.dropout(x, self._dropout, training=purpose.training)
    return batch_norm_lib.normalized(x, norm)

  # ------------------------------------------------------------ the fused op

  def _fused(self, nets, purpose):
    """Computes networks by the fused op.

    Args:
      nets: list of (scope, Net, its _Layers, at least one).
      purpose: purpose.Purpose.

    Returns:
      dict of scope to output, the same as _plain gives.
    """
    if not nets:
      return {}
    _, described, layers = zip(*nets)
    inputs, net_input = _inputs(described)
    norms = [layer.norm for layer in sum(layers, []) if layer.norm]
    outputs, moments = native.nets(
        inputs, _parameters(sum(layers, [])),
        tf.zeros([0]) if purpose.training
        else batch_norm_lib.moving_moments(norms),
        self._seed(purpose), net_input=net_input,
        num_hidden=[len(net.units) for net in described],
        linear=[1 + net.linear_bias if net.linear else 0 for net in described],
        batch_norm=bool(norms), compute=purpose.precision.dtype,
        training=purpose.training,
        epsilon=self._batch_norm.epsilon if norms else 0.0,
        activation=self._activation, dropout=self._dropout)
    if purpose.training and norms:
      self._batch_norm.move(norms, moments)
    return {scope: output for (scope, _, _), output in zip(nets, outputs)}

  def _seed(self, purpose):
    """The seed of the masks of dropout, int64: another one at each run."""
    if not (purpose.training and self._dropout):
      return tf.constant(0, tf.int64)
    return tf.random_uniform([], maxval=tf.int64.max, dtype=tf.int64)


def _inputs(nets):
  """Lists the different inputs of nets.

  Args:
    nets: iterable of Net.

  Returns:
    (inputs, positions): a list of [batch, width] float32, each once, and for
    each net the position of its input in that list.
  """
  inputs = collections.OrderedDict((net.x.name, net.x) for net in nets)
  names = list(inputs)
  return list(inputs.values()), [names.index(net.x.name) for net in nets]


def _parameters(layers):
  """Lists the trained tensors of _Layers in the order of kernels/nets.cc."""
  parameters = []
  for layer in layers:
    parameters.extend([layer.kernel] if layer.bias is None
                      else [layer.kernel, layer.bias])
    parameters.extend([layer.norm.gamma, layer.norm.beta] if layer.norm else [])
  return [tf.convert_to_tensor(parameter) for parameter in parameters]


def _dense(x, norm, layer, precision):
  """Applies a norm (scale, shift), or None, and a dense layer to x.

  Args:
    x: [batch, in] float32, or Input, which has no norm.
    norm: (scale, shift), [in] float32 each, see BatchNorm.scale_and_shift, or
      None. The kernel is scaled instead of x, because it has fewer rows:
      (x * scale + shift) W = x (scale W) + shift W.
    layer: _Layer.
    precision: precision.Precision of the product.

  Returns:
    [batch, out] float32.
  """
  kernel, bias = tf.convert_to_tensor(layer.kernel), layer.bias
  if norm:
    scale, shift = norm
    shift = tf.squeeze(tf.matmul(shift[tf.newaxis], kernel), axis=0)
    bias = shift if bias is None else bias + shift
    kernel = scale[:, tf.newaxis] * kernel
  x = (x.times(kernel, precision) if isinstance(x, Input) else
       precision.matmul(x, kernel))
  return x if bias is None else tf.nn.bias_add(x, bias)


def mix(logits, experts, members, fused=False):
  """Mixes experts by the softmax of gates.

  Args:
    logits: list of [batch, number of the gate's experts] float32.
    experts: list of [batch, dim] float32.
    members: for each gate, the positions of its experts in `experts`.
    fused: bool, whether to use the fused op of native.py.

  Returns:
    (mixtures, shares): two lists of float32 with one tensor per gate, the
    mixture [batch, dim] and the weights [batch, number of the gate's experts],
    in which each row sums to 1.
  """
  if fused and logits:
    return native.mix(logits, experts, members)
  shares = [tf.nn.softmax(logit) for logit in logits]
  return [tf.reduce_sum(
      share[:, :, tf.newaxis] * tf.stack([experts[i] for i in of], axis=1),
      axis=1) for share, of in zip(shares, members)], shares
