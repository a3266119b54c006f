"""Update rules that tf.train lacks, each for dense variables and for rows.

Rows that a batch does not touch are neither read nor written. A slot with one
row per row of its variable is filled by an initializer, so that a keyed table
can leave the memory of rows that are not in use untouched. g is the gradient of
a weight w.

References:
  Kingma, Ba: Adam, ICLR 2015.
  Loshchilov, Hutter: Decoupled Weight Decay Regularization, ICLR 2019.
  Duchi et al.: Adaptive Subgradient Methods, JMLR 2011.
  McMahan et al.: Ad Click Prediction, KDD 2013 (FTRL-Proximal).
  DeepRec: AdamAsync-, AdagradDecay- and AdamW-Optimizer.md of its documents,
    and the kernels in training_ali_ops.cc.
"""

import collections

import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.engine import compat
from ple_estimator.engine import native


class LazyAdam(compat.AdamOptimizer):
  """Adam that leaves untouched rows alone.

    rate = learning_rate * sqrt(1 - power2) / (1 - power1)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g^2
    w = w - rate * m / (sqrt(v) + epsilon)

  power1 and power2 are beta1 and beta2 to the number of the step.

  See `use_kernels` for the fused ops.
  """

  def __init__(self, learning_rate, beta1, beta2, epsilon, name='Adam'):
    """Stores the hyperparameters, see factories.lazy_adam.

    Args:
      learning_rate: float or float32 scalar.
      beta1: float.
      beta2: float.
      epsilon: float.
      name: str, of the slots in a checkpoint.
    """
    super().__init__(learning_rate, beta1, beta2, epsilon, name=name)
    self._numbers = dict(learning_rate=learning_rate, beta1=beta1, beta2=beta2,
                         epsilon=epsilon)
    self._has_kernels = False
    self._dense = []

  def use_kernels(self):
    """Updates by the ops of native.py from here on, which must be available.

    One op updates the dense variables of a device whose gradients one op makes,
    such as those of a level, so that it runs while the levels below go
    backward; one updates all others of a device. If the gradients are clipped,
    all wait for the norm, which needs all gradients. One op updates the touched
    rows of each table.
    """
    self._has_kernels = True

  def deeprec_arguments(self):
    """Returns the arguments, by name, of the class that DeepRec has for this.

    None means that DeepRec has none for these arguments.
    """
    return self._numbers

  def _fused(self):
    return self._has_kernels

  def _powers(self, var):
    """The powers of the betas for the next step, the same for all variables."""
    del var
    return self.beta_powers()

  def _scalars(self, var):
    """Learning rate, betas, epsilon and the powers of the betas, float32."""
    powers = [tf.convert_to_tensor(p) for p in self._powers(var)]
    return [tf.cast(x, tf.float32) for x in self.hyperparameters()] + powers

  def _resource_apply_dense(self, grad, var):
    if not self._fused():
      return super()._resource_apply_dense(grad, var)
    self._dense.append((tf.convert_to_tensor(grad), var))  # see _finish
    return grad.op

  def _finish(self, update_ops, name_scope):
    makers = collections.Counter(grad.op.name for grad, _ in self._dense)
    groups = {}
    for grad, var in self._dense:
      maker = grad.op.name if makers[grad.op.name] > 1 else ''
      groups.setdefault((var.device, maker), []).append((grad, var))
    for (device, _), pairs in sorted(groups.items()):
      grads, variables = zip(*pairs)
      with tf.device(device or None):
        update_ops = update_ops + [native.dense_adam(
            variables, [self.get_slot(v, 'm') for v in variables],
            [self.get_slot(v, 'v') for v in variables], grads,
            self._scalars(variables[0]))]
    return super()._finish(update_ops, name_scope)

  def _resource_apply_sparse_duplicate_indices(self, grad, handle, indices):
    if not self._fused():
      return super()._resource_apply_sparse_duplicate_indices(
          grad, handle, indices)
    with tf.device(handle.device or None):
      return native.rows_adam(
          handle, self.get_slot(handle, 'm'), self.get_slot(handle, 'v'),
          tf.cast(indices, tf.int64), grad, self._scalars(handle))

  def _resource_apply_sparse(self, grad, var, indices):
    rate, beta1, beta2, epsilon, power1, power2 = self._scalars(var)
    m, v = self.get_slot(var, 'm'), self.get_slot(var, 'v')
    new_m = beta1 * tf.gather(m, indices) + (1 - beta1) * grad
    new_v = beta2 * tf.gather(v, indices) + (1 - beta2) * tf.square(grad)
    step = rate * tf.sqrt(1 - power2) / (1 - power1) * new_m / (
        tf.sqrt(new_v) + epsilon)
    return _update(var, step, [(m, new_m), (v, new_v)], indices)


class AdamAsync(LazyAdam):
  """LazyAdam with powers of the betas that are counted per variable.

  Nothing is shared by all variables, so no parameter server takes part in every
  update. Each update of a variable counts as a step of it, even if it changes
  no row.
  """

  def __init__(self, learning_rate, beta1, beta2, epsilon,
               apply_sparse_rmsprop):
    """Stores the hyperparameters, see factories.adam_async.

    Args:
      learning_rate: float or float32 scalar.
      beta1: float.
      beta2: float.
      epsilon: float.
      apply_sparse_rmsprop: bool, whether rows are updated without bias
        correction and with epsilon inside of the root, leaving the powers as
        they are:
          v = beta2 * v + (1 - beta2) * g^2
          m = beta1 * m + learning_rate * g / sqrt(v + epsilon)
          w = w - m
    """
    super().__init__(learning_rate, beta1, beta2, epsilon, 'AdamAsync')
    self._betas = beta1, beta2
    self._numbers['apply_sparse_rmsprop'] = apply_sparse_rmsprop
    self._rmsprop = apply_sparse_rmsprop

  def _create_slots(self, var_list):
    for var in var_list:
      for slot in ('m', 'v'):
        compat.make_slot(self, var, slot, tf.zeros_initializer())
      for slot, beta in zip(('beta1_power', 'beta2_power'), self._betas):
        compat.make_slot(self, var, slot, tf.constant_initializer(beta),
                         tf.TensorShape([]), tf.float32)

  def _fused(self):
    return not self._rmsprop and super()._fused()

  def _powers(self, var):
    return [self.get_slot(var, slot) for slot in ('beta1_power', 'beta2_power')]

  def _advance(self, var, update):
    """Multiplies the powers by the betas once an update is done."""
    _, beta1, beta2, _ = self.hyperparameters()
    with tf.control_dependencies([update]):
      return tf.group(*[
          power.assign(power * beta).op for power, beta in zip(
              self._powers(var), (beta1, beta2))])

  def _resource_apply_dense(self, grad, var):
    rate, beta1, beta2, epsilon, power1, power2 = self._scalars(var)
    return self._advance(var, tf.raw_ops.ResourceApplyAdam(
        var=var.handle, m=self.get_slot(var, 'm').handle,
        v=self.get_slot(var, 'v').handle, beta1_power=power1,
        beta2_power=power2, lr=rate, beta1=beta1, beta2=beta2,
        epsilon=epsilon, grad=grad))

  def _resource_apply_sparse_duplicate_indices(self, grad, handle, indices):
    update = super()._resource_apply_sparse_duplicate_indices(
        grad, handle, indices)
    return update if self._rmsprop else self._advance(handle, update)

  def _resource_apply_sparse(self, grad, var, indices):
    if not self._rmsprop:
      return super()._resource_apply_sparse(grad, var, indices)
    rate, beta1, beta2, epsilon, _, _ = self._scalars(var)
    m, v = self.get_slot(var, 'm'), self.get_slot(var, 'v')
    new_v = beta2 * tf.gather(v, indices) + (1 - beta2) * tf.square(grad)
    new_m = beta1 * tf.gather(m, indices) + (
        rate * grad / tf.sqrt(new_v + epsilon))
    return _update(var, new_m, [(m, new_m), (v, new_v)], indices)

  def _finish(self, update_ops, name_scope):
    # Adam would advance the powers that all variables share.
    return tf.group(*update_ops, name=name_scope)


class AdamW(LazyAdam):
  """LazyAdam with a decay of the weights that does not enter the moments.

    w = w - decay * w, then LazyAdam's step; of a table only the touched rows

  decay is learning_rate * weight_decay or weight_decay, see `__init__`.
  """

  def __init__(self, learning_rate, beta1, beta2, epsilon, weight_decay,
               decay_follows_rate, exclude):
    """Stores the hyperparameters, see factories.adamw.

    Args:
      learning_rate: float or float32 scalar.
      beta1: float.
      beta2: float.
      epsilon: float.
      weight_decay: float.
      decay_follows_rate: bool, whether decay is learning_rate * weight_decay;
        else it is weight_decay.
      exclude: tuple of str; variables with one of these in their name do not
        decay.
    """
    super().__init__(learning_rate, beta1, beta2, epsilon, 'AdamW')
    self._weight_decay = weight_decay
    self._follows_rate = decay_follows_rate
    self._exclude = exclude

  def deeprec_arguments(self):
    if self._follows_rate or self._exclude:
      return None
    return dict(self._numbers, weight_decay=self._weight_decay)

  def _decays(self, var):
    return not any(part in var.op.name for part in self._exclude)

  def _create_slots(self, var_list):
    for part in self._exclude:
      errors.check(
          any(part in var.op.name for var in var_list),
          'adamw.exclude must have parts of the names of variables, such as '
          '%r, got %r.', var_list[0].op.name, part)
    super()._create_slots(var_list)

  def _lost(self, weights):
    """Returns what the decay subtracts from weights."""
    decay, rate = self._weight_decay, self.hyperparameters()[0]
    return (rate * decay if self._follows_rate else decay) * weights

  def _resource_apply_dense(self, grad, var):
    if not self._decays(var):
      return super()._resource_apply_dense(grad, var)
    # Once the gradient has been computed, the weights have been read.
    with tf.control_dependencies([grad]):
      decay = var.assign_sub(self._lost(var.read_value()))
    with tf.control_dependencies([decay.op]):
      return super()._resource_apply_dense(tf.identity(grad), var)

  def _resource_apply_sparse_duplicate_indices(self, grad, handle, indices):
    update = super()._resource_apply_sparse_duplicate_indices
    if not self._decays(handle):
      return update(grad, handle, indices)
    with tf.control_dependencies([grad]):
      rows, _ = tf.unique(indices)
      decay = _update(handle, self._lost(tf.gather(handle, rows)), [], rows)
    with tf.control_dependencies([decay]):
      return update(tf.identity(grad), handle, indices)


class Adagrad(tf.train.AdagradOptimizer):
  """tf.train.AdagradOptimizer.

    sum = sum + g^2
    w = w - learning_rate * g / sqrt(sum)
  """

  def __init__(self, learning_rate, initial_accumulator_value):
    """Stores the hyperparameters, see factories.adagrad.

    Args:
      learning_rate: float or float32 scalar.
      initial_accumulator_value: float, the sum of squares at the start.
    """
    super().__init__(learning_rate, initial_accumulator_value)
    self._numbers = dict(learning_rate=learning_rate,
                         initial_accumulator_value=initial_accumulator_value)

  def deeprec_arguments(self):
    """As LazyAdam.deeprec_arguments."""
    return self._numbers


class AdagradDecay(tf.train.Optimizer):
  """Adagrad with sums of squares that decay once in every period of the run.

    if (step + 1) // decay_steps > power:
      sum = max(decay_rate * sum, initial_accumulator_value); power = power + 1
    sum = sum + g^2
    w = w - learning_rate * g / sqrt(sum)

  step is the global step, so a period is the same for all weights; power
  counts the decays of a row. Rows decay only when they are touched. A row that
  has missed several periods decays once at each touch until it has caught up.
  """

  def __init__(self, learning_rate, global_step, initial_accumulator_value,
               decay_steps, decay_rate):
    """Stores the hyperparameters, see factories.adagrad_decay.

    Args:
      learning_rate: float or float32 scalar.
      global_step: int64 variable.
      initial_accumulator_value: float, the sum of squares at the start, which
        decay does not go below.
      decay_steps: int.
      decay_rate: float.
    """
    super().__init__(use_locking=False, name='AdagradDecay')
    self._rate = learning_rate
    self._global_step = global_step
    self._least = initial_accumulator_value
    self._decay_steps = decay_steps
    self._decay_rate = decay_rate
    self._period = None

  def deeprec_arguments(self):
    """As LazyAdam.deeprec_arguments."""
    return dict(
        learning_rate=self._rate, global_step=self._global_step,
        initial_accumulator_value=self._least,
        accumulator_decay_step=self._decay_steps,
        accumulator_decay_rate=self._decay_rate)

  def _create_slots(self, var_list):
    for var in var_list:
      compat.make_slot(
          self, var, 'accumulator', tf.constant_initializer(self._least))
      # One number per row; a scalar variable is a row of its own.
      compat.make_slot(
          self, var, 'accumulator_decay_power', tf.zeros_initializer(),
          var.shape[:1], self._global_step.dtype.base_dtype)

  def _prepare(self):
    # Read once per worker, not once per variable.
    self._period = (self._global_step + 1) // self._decay_steps

  def _resource_apply_dense(self, grad, var):
    return self._apply(grad, var, lambda slot: slot.read_value())

  def _resource_apply_sparse(self, grad, var, indices):
    return self._apply(
        grad, var, lambda slot: tf.gather(slot, indices), indices)

  def _apply(self, grad, var, read, rows=None):
    """Updates a variable, or some rows of it.

    Args:
      grad: [n, ...] float32.
      var: resource variable.
      read: function of a slot to its values for the n rows.
      rows: [n] int, all different; None for the whole variable.

    Returns:
      tf.Operation.
    """
    total = self.get_slot(var, 'accumulator')
    power = self.get_slot(var, 'accumulator_decay_power')
    old, decays = read(total), read(power)
    due = self._period > decays  # [rows]
    new = tf.square(grad) + tf.where(
        due, tf.maximum(self._decay_rate * old, self._least), old)
    return _update(
        var, self._rate * grad / tf.sqrt(new),
        [(total, new), (power, decays + tf.cast(due, decays.dtype))], rows)


class Ftrl(tf.train.FtrlOptimizer):
  """tf.train.FtrlOptimizer with slots that are filled by initializers.

  TensorFlow 1.15 fills them from a tensor as large as the variable.
  """

  def __init__(self, learning_rate, learning_rate_power,
               initial_accumulator_value, l1, l2):
    """Stores the hyperparameters, see factories.ftrl.

    Args:
      learning_rate: float or float32 scalar.
      learning_rate_power: float, not positive.
      initial_accumulator_value: float.
      l1: float.
      l2: float.
    """
    super().__init__(learning_rate, learning_rate_power,
                     initial_accumulator_value, l1, l2)
    self._first = initial_accumulator_value

  def _create_slots(self, var_list):
    for var in var_list:
      compat.make_slot(
          self, var, 'accum', tf.constant_initializer(self._first))
      compat.make_slot(self, var, 'linear', tf.zeros_initializer())


def _update(var, step, slots, rows=None):
  """Subtracts a step from a variable and assigns new values to its slots.

  Args:
    var: resource variable.
    step: [n, ...], n rows of it.
    slots: list of (variable, its new values, [n, ...]).
    rows: [n] int, which rows, all different; None for the whole variable.

  Returns:
    tf.Operation.
  """
  if rows is None:
    updates = [slot.assign(new) for slot, new in slots] + [var.assign_sub(step)]
  else:
    updates = [slot.scatter_update(tf.IndexedSlices(new, rows))
               for slot, new in slots]
    updates.append(var.scatter_sub(tf.IndexedSlices(step, rows)))
  return tf.group(*[update.op for update in updates])
