"""Optimizers and learning-rate schedules, as a .gin file names them.

A .gin file binds a factory without calling it (`Model.optimizer = @adam`),
because an optimizer makes its slots in the graph of the Estimator, which exists
only inside of model_fn. A learning rate is a number, or a schedule that is also
bound without calling it (`adam.learning_rate = @exponential_decay`).
"""

import contextlib
import inspect

import gin
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.optimizers import update_rules


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
  _check_adam('adam', beta1, beta2, epsilon)
  return tf.train.AdamOptimizer(
      _rate('adam', learning_rate), beta1, beta2, epsilon)


@gin.register
def lazy_adam(learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-8):
  """Adam that leaves the embedding rows alone that a batch does not touch.

  With `adam` the moments of a row decay, and the row moves, even in steps whose
  batch does not have it; here they stay as they are. Dense variables, and rows
  that every batch touches, are updated as by `adam`. The cost of a step depends
  on the rows that its batch touches, not on the size of the tables.

  Args:
    learning_rate: float, or function of the global step to a scalar.
    beta1: float, decay of the first moment.
    beta2: float, decay of the second moment.
    epsilon: float, the paper's epsilon hat.
  """
  _check_adam('lazy_adam', beta1, beta2, epsilon)
  return update_rules.LazyAdam(
      _rate('lazy_adam', learning_rate), beta1, beta2, epsilon)


@gin.register
def adam_async(learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-8,
               apply_sparse_rmsprop=False):
  """Adam for asynchronous training, as DeepRec's AdamAsyncOptimizer.

  Like `lazy_adam`, but each variable counts its own steps, so that no parameter
  server takes part in every update.

  Args:
    learning_rate: float, or function of the global step to a scalar.
    beta1: float, decay of the first moment.
    beta2: float, decay of the second moment.
    epsilon: float, the paper's epsilon hat.
    apply_sparse_rmsprop: bool, whether embedding rows are updated by RMSProp
      with momentum beta1 in place of Adam.
  """
  _check_adam('adam_async', beta1, beta2, epsilon)
  errors.check_bool('adam_async.apply_sparse_rmsprop', apply_sparse_rmsprop)
  return update_rules.AdamAsync(
      _rate('adam_async', learning_rate), beta1, beta2, epsilon,
      apply_sparse_rmsprop)


@gin.register
def adamw(learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-8,
          weight_decay=0.01, decay_follows_rate=True, exclude=()):
  """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019).

  Like `lazy_adam`, but a step first subtracts a share of each weight from it;
  in embedding tables, only from the rows that the batch touches.

  In DeepRec's AdamWOptimizer the share is weight_decay, whatever the learning
  rate: for the same, bind decay_follows_rate to False and weight_decay to the
  value that it has there. (For embedding variables DeepRec's share is
  weight_decay times the learning rate with Adam's bias correction, which after
  some thousand steps is the learning rate.)

  Args:
    learning_rate: float, or function of the global step to a scalar.
    beta1: float, decay of the first moment.
    beta2: float, decay of the second moment.
    epsilon: float, the paper's epsilon hat.
    weight_decay: float, not negative.
    decay_follows_rate: bool, whether the share is weight_decay times the
      learning rate, as in PyTorch and Keras, so that a schedule scales both.
      Otherwise it is weight_decay.
    exclude: tuple of str, e.g. ('bias', 'batch_norm'); variables with one of
      these in their name do not decay.
  """
  _check_adam('adamw', beta1, beta2, epsilon)
  errors.check_number('adamw.weight_decay', weight_decay, least=0)
  errors.check_bool('adamw.decay_follows_rate', decay_follows_rate)
  errors.check_list(
      'adamw.exclude', exclude, lambda name: name and isinstance(name, str),
      "texts, such as ('bias', 'batch_norm')", may_be_empty=True)
  return update_rules.AdamW(
      _rate('adamw', learning_rate), beta1, beta2, epsilon, weight_decay,
      decay_follows_rate, exclude)


@gin.register
def adagrad(learning_rate=0.01, initial_accumulator_value=0.1):
  """Adagrad (Duchi et al., JMLR 2011), as tf.train.AdagradOptimizer.

  Args:
    learning_rate: float, or function of the global step to a scalar.
    initial_accumulator_value: float, positive, start of the sums of squares.
  """
  errors.check_number('adagrad.initial_accumulator_value',
                      initial_accumulator_value, above=0)
  return update_rules.Adagrad(
      _rate('adagrad', learning_rate), initial_accumulator_value)


@gin.register
def adagrad_decay(learning_rate=0.01, initial_accumulator_value=0.1,
                  decay_steps=100000, decay_rate=0.9):
  """Adagrad that forgets, as DeepRec's AdagradDecayOptimizerV2.

  Sums of squares that only grow stop the learning of a model that is trained on
  new data for weeks. Here they are multiplied by decay_rate once in decay_steps
  steps of the run. The sums of an embedding row decay when a batch next touches
  the row, for one period each time.

  Args:
    learning_rate: float, or function of the global step to a scalar.
    initial_accumulator_value: float, positive; the sums of squares at the
      start, which decay does not go below.
    decay_steps: int, global steps of a period.
    decay_rate: float in (0, 1).
  """
  errors.check_number('adagrad_decay.initial_accumulator_value',
                      initial_accumulator_value, above=0)
  errors.check_integer('adagrad_decay.decay_steps', decay_steps, 1)
  errors.check_number('adagrad_decay.decay_rate', decay_rate, above=0, below=1)
  return update_rules.AdagradDecay(
      _rate('adagrad_decay', learning_rate), tf.train.get_global_step(),
      initial_accumulator_value, decay_steps, decay_rate)


@gin.register
def ftrl(learning_rate=0.01, learning_rate_power=-0.5,
         initial_accumulator_value=1e-10, l1=0.0, l2=0.0):
  """FTRL-Proximal (McMahan et al., KDD 2013), as tf.train.FtrlOptimizer.

  With the power -0.5, the first gradient g of a weight w changes it to
    (1 - sqrt(a / (a + g^2))) * w - learning_rate * g / sqrt(a + g^2)
  where a is initial_accumulator_value. FTRL was made for linear models, whose
  weights start at 0. If a is large beside g^2, the weights of a network are set
  to almost 0 too, and it does not learn; so a is small here. With the 0.1 of
  TensorFlow the AUC of gin/base.gin stays at 0.5.

  Args:
    learning_rate: float, or function of the global step to a scalar.
    learning_rate_power: float, not positive; a step is in proportion to the sum
      of squared gradients to this power.
    initial_accumulator_value: float, not negative; start of the sums of
      squares.
    l1: float, not negative, strength of the L1 regularization, which makes
      small weights exactly 0.
    l2: float, not negative, strength of the L2 regularization.
  """
  errors.check_number('ftrl.learning_rate_power', learning_rate_power, most=0)
  for name, value in [('initial_accumulator_value', initial_accumulator_value),
                      ('l1', l1), ('l2', l2)]:
    errors.check_number('ftrl.' + name, value, least=0)
  return update_rules.Ftrl(
      _rate('ftrl', learning_rate), learning_rate_power,
      initial_accumulator_value, l1, l2)


@gin.register
def sgd(learning_rate=0.1, momentum=0.0):
  """Stochastic gradient descent, with momentum if it is not 0.

  Args:
    learning_rate: float, or function of the global step to a scalar.
    momentum: float in [0, 1).
  """
  errors.check_number('sgd.momentum', momentum, least=0, below=1)
  rate = _rate('sgd', learning_rate)
  if momentum:
    return tf.train.MomentumOptimizer(rate, momentum)
  return tf.train.GradientDescentOptimizer(rate)


@gin.register(denylist=['step'])
def exponential_decay(step=None, initial=0.001, decay_steps=10000, rate=0.5,
                      staircase=False, warmup_steps=0):
  """initial * rate^((step - warmup_steps) / decay_steps), a float32 scalar.

  Before step warmup_steps it is initial * (step + 1) / (warmup_steps + 1).

  Args:
    step: int64 scalar, the global step.
    initial: float, the learning rate at step warmup_steps.
    decay_steps: int, steps in which it falls by the factor rate.
    rate: float, positive.
    staircase: bool, whether to fall only at multiples of decay_steps after
      warmup_steps.
    warmup_steps: int, steps in which the learning rate grows to initial.
  """
  _check_is_given('exponential_decay', step)
  errors.check_number('exponential_decay.initial', initial, above=0)
  errors.check_integer('exponential_decay.decay_steps', decay_steps, 1)
  errors.check_number('exponential_decay.rate', rate, above=0)
  errors.check_bool('exponential_decay.staircase', staircase)
  errors.check_integer('exponential_decay.warmup_steps', warmup_steps, 0)
  decayed = tf.train.exponential_decay(
      initial, tf.maximum(step - warmup_steps, 0), decay_steps, rate, staircase)
  return _warmed_up(step, initial, warmup_steps, decayed) if (
      warmup_steps) else decayed


@gin.register(denylist=['step'])
def warmup_cosine(step=None, peak=0.001, warmup_steps=1000, decay_steps=100000,
                  final=0.0):
  """Grows linearly to peak, then falls to final along half a cosine.

  Args:
    step: int64 scalar, the global step.
    peak: float, the learning rate at step warmup_steps.
    warmup_steps: int, steps from 0 to peak.
    decay_steps: int, steps from peak to final.
    final: float, the learning rate from then on.
  """
  _check_is_given('warmup_cosine', step)
  errors.check_number('warmup_cosine.peak', peak, above=0)
  errors.check_integer('warmup_cosine.warmup_steps', warmup_steps, 0)
  errors.check_integer('warmup_cosine.decay_steps', decay_steps, 1)
  errors.check_number('warmup_cosine.final', final, least=0)
  step = tf.cast(step, tf.float32)
  cosine = tf.train.cosine_decay(
      peak, tf.maximum(step - warmup_steps, 0), decay_steps, final / peak)
  return _warmed_up(step, peak, warmup_steps, cosine)


def _warmed_up(step, peak, warmup_steps, decayed):
  """Grows linearly to peak up to a step, and is `decayed` from there on."""
  step = tf.cast(step, tf.float32)
  return tf.where(
      step < warmup_steps, peak * (step + 1) / (warmup_steps + 1), decayed)


def make(optimizer):
  """Calls what is bound to Model.optimizer.

  Args:
    optimizer: function without arguments to a tf.train.Optimizer.

  Returns:
    tf.train.Optimizer.

  Raises:
    UserError: if a binding of the optimizer or its schedule is wrong, or if
      the call fails or returns something else.
  """
  try:
    made = optimizer()
  except errors.UserError as error:  # to whose line gin has added some
    raise errors.UserError(str(error).partition('\n')[0]) from error
  except Exception as error:
    raise errors.UserError(
        'Model.optimizer must be a function without arguments, got %s, which '
        'raises %s: %s' % (errors.written(optimizer), type(error).__name__,
                           str(error).partition('\n')[0])) from error
  errors.check(
      isinstance(made, tf.train.Optimizer), 'Model.optimizer must be a '
      'function to a tf.train.Optimizer, such as @lazy_adam, got %s.',
      errors.written(optimizer))
  return made


@contextlib.contextmanager
def updating(optimizer):
  """Names Model.optimizer where its optimizer fails to update variables.

  An optimizer of the user's own may look at its parameters only then.

  Args:
    optimizer: what is bound to Model.optimizer.

  Raises:
    UserError: in place of any other error.
  """
  try:
    yield
  except errors.UserError:
    raise
  except Exception as error:
    raise errors.UserError(
        'Model.optimizer must be able to update the variables, got %s, which '
        'raises %s: %s' % (errors.written(optimizer), type(error).__name__,
                           str(error).partition('\n')[0])) from error


def check(optimizer):
  """Checks Model.optimizer before there is a graph to train.

  An optimizer and its schedule check what is bound to them when they are
  called. So they are called here, in a graph that is thrown away.

  Args:
    optimizer: function without arguments to a tf.train.Optimizer.

  Raises:
    UserError: if a binding of the optimizer or its schedule is wrong.
  """
  errors.check_function(
      'Model.optimizer', optimizer, tf.train.Optimizer, '@lazy_adam')
  with tf.Graph().as_default():
    tf.train.create_global_step()
    try:
      make(optimizer)
    except errors.UserError as error:
      # A function of the user's own may need the graph that is trained; if it
      # fails there too, training says so.
      if isinstance(error.__cause__,
                    (errors.UserError, TypeError, type(None))):
        raise


def _check_adam(owner, beta1, beta2, epsilon):
  errors.check_number(owner + '.beta1', beta1, least=0, below=1)
  errors.check_number(owner + '.beta2', beta2, least=0, below=1)
  errors.check_number(owner + '.epsilon', epsilon, above=0)


def _check_is_given(schedule, step):
  errors.check(step is not None, 'The learning_rate must be the schedule @%s, '
               'not called yet, got @%s().', schedule, schedule)


def _rate(owner, learning_rate):
  """Returns the learning rate as a number or tensor; TensorBoard shows it."""
  if callable(learning_rate) and not inspect.isclass(learning_rate):
    try:
      rate = learning_rate(tf.train.get_global_step())
    except TypeError as error:  # such as another number of arguments
      raise errors.UserError(
          '%s.learning_rate must be a function of the global step, such as '
          '@exponential_decay, got %s: %s' % (
              owner, errors.written(learning_rate),
              str(error).partition('\n')[0])) from error
    errors.check(
        _is_scalar(rate), '%s.learning_rate must be a schedule that returns a '
        'scalar, such as @exponential_decay, got %s.', owner,
        errors.written(learning_rate))
  else:
    rate = learning_rate
    errors.check(
        errors.is_number(rate) and rate > 0, '%s.learning_rate must be a '
        'finite number above 0 or a schedule, such as @exponential_decay, got '
        '%s.',
        owner, errors.written(rate))
  tf.summary.scalar('learning_rate', rate)
  return rate


def _is_scalar(rate):
  """Whether a schedule has returned a number, or a tensor of one."""
  if tf.is_tensor(rate):
    return rate.dtype != tf.string and rate.shape.is_compatible_with([])
  return errors.is_number(rate) or isinstance(rate, np.number)
