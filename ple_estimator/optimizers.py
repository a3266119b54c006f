"""Optimizers, learning-rate schedules and the training op.

What a .gin file names is a factory, bound uncalled (`Model.optimizer = @adam`):
an optimizer makes its slots in the graph of the Estimator, which exists only
inside model_fn. A learning rate is a number or a schedule, bound uncalled too
(`adam.learning_rate = @exponential_decay`).
"""

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import keyed_tables
from ple_estimator import native


@gin.register
def adam(learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-8):
  """Adam (Kingma and Ba, ICLR 2015), as tf.train.AdamOptimizer.

  The moments of all embedding rows decay at every step, touched or not.

  Args:
    learning_rate: float, or function of the global step to a scalar.
    beta1: float, decay of the first moment.
    beta2: float, decay of the second moment.
    epsilon: float, the paper's epsilon hat.
  """
  return tf.train.AdamOptimizer(
      _rate('adam', learning_rate), beta1, beta2, epsilon)


@gin.register
def lazy_adam(learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-8):
  """Adam that leaves the embedding rows alone that a batch does not touch.

  Adam's moments of a row go on decaying, and the row goes on moving, while no
  batch has it; here they stand still. Dense variables, and rows that every
  batch touches, are updated as by `adam`. A step then costs what the batch
  touches, not what the tables hold.

  Args:
    learning_rate: float, or function of the global step to a scalar.
    beta1: float, decay of the first moment.
    beta2: float, decay of the second moment.
    epsilon: float, the paper's epsilon hat.
  """
  return _LazyAdam(_rate('lazy_adam', learning_rate), beta1, beta2, epsilon)


class _LazyAdam(tf.train.AdamOptimizer):
  """Adam with updates of rows; and, fused, of all dense variables at once.

  Attributes:
    op_fusion: bool, whether to use the fused ops; train_op sets it.
  """

  op_fusion = False

  def __init__(self, learning_rate, beta1, beta2, epsilon):
    super().__init__(learning_rate, beta1, beta2, epsilon, name='Adam')
    self._dense = []

  def _fused(self):
    return self.op_fusion and native.available()

  def _scalars(self):
    """Learning rate, betas, epsilon and the powers of the betas, float32."""
    powers = [tf.convert_to_tensor(p) for p in self._get_beta_accumulators()]
    return [tf.cast(x, tf.float32) for x in (
        self._lr_t, self._beta1_t, self._beta2_t, self._epsilon_t)] + powers

  def _resource_apply_dense(self, grad, var):
    if not self._fused():
      return super()._resource_apply_dense(grad, var)
    self._dense.append((tf.convert_to_tensor(grad), var))  # see _finish
    return grad.op

  def _finish(self, update_ops, name_scope):
    by_device = {}
    for grad, var in self._dense:
      by_device.setdefault(var.device, []).append((grad, var))
    for device, pairs in sorted(by_device.items()):
      grads, variables = zip(*pairs)
      with tf.device(device or None):
        update_ops = update_ops + [native.dense_adam(
            variables, [self.get_slot(v, 'm') for v in variables],
            [self.get_slot(v, 'v') for v in variables], grads,
            self._scalars())]
    return super()._finish(update_ops, name_scope)

  def _resource_apply_sparse_duplicate_indices(self, grad, handle, indices):
    if not self._fused():
      return super()._resource_apply_sparse_duplicate_indices(
          grad, handle, indices)
    with tf.device(handle.device or None):
      return native.rows_adam(
          handle, self.get_slot(handle, 'm'), self.get_slot(handle, 'v'),
          tf.cast(indices, tf.int64), grad, self._scalars())

  def _resource_apply_sparse(self, grad, var, indices):
    rate, beta1, beta2, epsilon, power1, power2 = self._scalars()
    m, v = self.get_slot(var, 'm'), self.get_slot(var, 'v')
    new_m = beta1 * tf.gather(m, indices) + (1 - beta1) * grad
    new_v = beta2 * tf.gather(v, indices) + (1 - beta2) * tf.square(grad)
    step = rate * tf.sqrt(1 - power2) / (1 - power1) * new_m / (
        tf.sqrt(new_v) + epsilon)
    return tf.group(*[
        update.op for update in (
            m.scatter_update(tf.IndexedSlices(new_m, indices)),
            v.scatter_update(tf.IndexedSlices(new_v, indices)),
            var.scatter_sub(tf.IndexedSlices(step, indices)))])


@gin.register
def adagrad(learning_rate=0.01, initial_accumulator_value=0.1):
  """Adagrad (Duchi et al., JMLR 2011), as tf.train.AdagradOptimizer.

  Args:
    learning_rate: float, or function of the global step to a scalar.
    initial_accumulator_value: float, positive, start of the sums of squares.
  """
  return tf.train.AdagradOptimizer(
      _rate('adagrad', learning_rate), initial_accumulator_value)


@gin.register
def sgd(learning_rate=0.1, momentum=0.0):
  """Stochastic gradient descent, with momentum if it is not 0.

  Args:
    learning_rate: float, or function of the global step to a scalar.
    momentum: float in [0, 1).
  """
  errors.check(0 <= momentum < 1,
               'sgd.momentum must be in [0, 1), got %r.', momentum)
  rate = _rate('sgd', learning_rate)
  if momentum:
    return tf.train.MomentumOptimizer(rate, momentum)
  return tf.train.GradientDescentOptimizer(rate)


@gin.register(denylist=['step'])
def exponential_decay(step, initial=0.001, decay_steps=10000, rate=0.5,
                      staircase=False):
  """initial * rate^(step / decay_steps), a float32 scalar.

  Args:
    step: int64 scalar, the global step.
    initial: float, the learning rate at step 0.
    decay_steps: int, steps in which it falls by the factor rate.
    rate: float.
    staircase: bool, whether to fall only at multiples of decay_steps.
  """
  return tf.train.exponential_decay(
      initial, step, decay_steps, rate, staircase)


@gin.register(denylist=['step'])
def warmup_cosine(step, peak=0.001, warmup_steps=1000, decay_steps=100000,
                  final=0.0):
  """Grows linearly to peak, then falls to final along half a cosine.

  Args:
    step: int64 scalar, the global step.
    peak: float, the learning rate at step warmup_steps.
    warmup_steps: int, steps from 0 to peak.
    decay_steps: int, steps from peak to final.
    final: float, the learning rate from then on.
  """
  errors.check(peak > 0, 'warmup_cosine.peak must be positive, got %r.', peak)
  step = tf.cast(step, tf.float32)
  cosine = tf.train.cosine_decay(
      peak, tf.maximum(step - warmup_steps, 0), decay_steps, final / peak)
  return tf.where(step < warmup_steps,
                  peak * (step + 1) / max(1, warmup_steps + 1), cosine)


def train_op(optimizer, loss, clip_norm=None, op_fusion=False):
  """One training step: gradients, clipping, update, batch norm statistics.

  Args:
    optimizer: function without arguments to a tf.train.Optimizer.
    loss: float32 scalar.
    clip_norm: float, the global norm that gradients are scaled down to if
      theirs is larger (Pascanu et al., ICML 2013); None leaves them.
    op_fusion: bool, whether the optimizer may use its fused ops.

  Returns:
    tf.Operation.
  """
  made = optimizer()
  made.op_fusion = op_fusion
  tables = keyed_tables.of_graph()
  sources = [table.source for table in tables]
  pairs = [(g, v) for g, v in made.compute_gradients(
      loss, tf.trainable_variables() + sources) if g is not None]
  gradients, variables = zip(*pairs[:len(pairs) - len(sources)])
  keyed = [table.masked(g) for table, (g, _) in zip(
      tables, pairs[len(gradients):])]
  summed = [_sum_rows(g) for g in gradients]
  norm = tf.global_norm(summed + keyed)
  if clip_norm is not None:
    clipped, _ = tf.clip_by_global_norm(summed + keyed, clip_norm, norm)
    gradients, keyed = clipped[:len(summed)], clipped[len(summed):]
  tf.summary.scalar('gradient_norm', norm)
  _make_slots(made, variables, tables)
  # Hooks that read the step in the same run must see it before the update; one
  # that reads it now before, now after takes a fast run for a stuck one.
  # So must all lookups have been made.
  first = (tf.get_collection(tf.GraphKeys.UPDATE_OPS) +
           tf.get_collection('global_step_read_op_cache') + [loss])
  with tf.control_dependencies(first):
    step = tf.train.get_global_step().read_value()
    updates = list(zip(gradients, variables)) + [
        (tf.IndexedSlices(g, table.own(step)), table.values)
        for g, table in zip(keyed, tables)]
    with tf.control_dependencies([step]):
      return made.apply_gradients(updates, tf.train.get_global_step())


def _make_slots(optimizer, variables, tables):
  """Makes the slots of an optimizer; those of keyed tables without rows."""
  for table in tables:
    with tf.variable_scope(
        tf.get_variable_scope(), custom_getter=table.slot_getter):
      optimizer._create_slots([table.values])
  optimizer._create_slots(variables)


def _sum_rows(gradient):
  """Adds up the slices of each row; a norm of parts would be another one."""
  if not isinstance(gradient, tf.IndexedSlices):
    return gradient
  rows, position = tf.unique(gradient.indices)
  return tf.IndexedSlices(
      tf.unsorted_segment_sum(gradient.values, position, tf.size(rows)),
      rows, gradient.dense_shape)


def _rate(owner, learning_rate):
  """The learning rate as a number or tensor, noted for TensorBoard."""
  if callable(learning_rate):
    learning_rate = learning_rate(tf.train.get_global_step())
  else:
    errors.check(learning_rate > 0,
                 '%s.learning_rate must be positive, got %r.',
                 owner, learning_rate)
  tf.summary.scalar('learning_rate', learning_rate)
  return learning_rate
