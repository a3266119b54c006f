"""Ordered tasks: what a task has found out is handed to the one after it."""

import collections

import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.network import ple


@gin.register
class AIT:
  """Another network, behind which each task reads from the one before it.

  The adaptive information transfer of AITM (Xi et al., "Modeling the Sequential
  Dependence among Audience Multi-step Conversions with Multi-task Learning in
  Targeted Display Advertising", KDD 2021, section 3), for tasks that follow
  each other, such as click and conversion. Let q_t [batch, d] be what the other
  network gives to the tower of task t, and z_1 = q_1. Then task t > 1 has

    p = relu(z_(t-1) G + c)
    z_t = sum over u in (p, q_t) of w_u h1(u)
    w_u = softmax over u of <h2(u), h3(u)> / sqrt(d)

  and its tower reads z_t. h1, h2 and h3 are dense layers without activation.

  The behavioural expectation calibrator of the paper adds to the loss of
  training how far the probability of a task lies above that of the one before
  it: see tasks.Task.calibrated.
  """

  def __init__(self, network=gin.REQUIRED, order=None, calibrator_weight=0.0):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      network: ple.PLE or another network, see Model.network.
      order: names of tasks, at least two, such as ('ctr', 'cvr'); tasks that it
        does not name have what the other network gives. None is all tasks in
        the order of Model.tasks, but for products.
      calibrator_weight: float, what the mean over a batch of the calibrator is
        multiplied by; 0.6 in the authors' code. 0 leaves the calibrator out.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check_is_a('AIT.network', network, ple.PLE, '@PLE()',
                      own=('__call__',))
    if order is not None:
      errors.check_list('AIT.order', order, lambda name: isinstance(name, str),
                        "names of tasks, such as ('ctr', 'cvr')")
    errors.check_number('AIT.calibrator_weight', calibrator_weight, least=0)
    self._network = network
    self._order = order
    self._calibrator_weight = calibrator_weight

  def check_tasks(self, tasks):
    """Raises UserError unless the order is one of tasks.

    Args:
      tasks: list of the names of the tasks that have a tower.
    """
    order = self._order or tasks
    errors.check(
        set(order) <= set(tasks) and len(set(order)) == len(order) > 1,
        'AIT.order must be at least two different tasks of Model.tasks (%s), '
        'got %s.', ', '.join(tasks), errors.written(self._order))

  def calibrated(self, tasks):
    """Returns tasks with the calibrator of their order, see Task.calibrated.

    Args:
      tasks: list of tasks.Task of the model.

    Raises:
      UserError: if one of the order cannot have it.
    """
    if not self._calibrator_weight:
      return tasks
    by_name = collections.OrderedDict((task.name, task) for task in tasks)
    order = self._order or [task.name for task in tasks if not task.of]
    for before, name in zip(order, order[1:]):
      by_name[name] = by_name[name].calibrated(
          by_name[before], self._calibrator_weight)
    return list(by_name.values())

  def __call__(self, inputs, tasks, purpose):
    """Builds both in the default graph; as PLE.

    The weights w are among the gates, as 'transfer/<task>' with 'before' and
    'own'.
    """
    found, gates = self._network(inputs, tasks, purpose)
    found, gates = dict(found), dict(gates)
    order = self._order or tasks
    for before, task in zip(order, order[1:]):
      with tf.variable_scope('transfer/' + task):
        handed = tf.nn.relu(_dense(found[before], 'handed', purpose))
        found[task], shares = _attention(
            tf.stack([handed, found[task]], axis=1), purpose)
      gates['transfer/' + task] = dict(zip(
          ('before', 'own'), tf.unstack(shares, axis=1)))
    return found, gates


def _attention(rows, purpose):
  """Mixes [batch, n, d] rows to [batch, d], with weights [batch, n]."""
  _, count, width = rows.shape.as_list()
  flat = tf.reshape(rows, [-1, width])
  h1, h2, h3 = [
      tf.reshape(_dense(flat, name, purpose), [-1, count, width])
      for name in ('h1', 'h2', 'h3')]
  shares = tf.nn.softmax(tf.reduce_sum(h2 * h3, axis=2) / width**0.5)
  return tf.reduce_sum(shares[:, :, tf.newaxis] * h1, axis=1), shares


def _dense(x, name, purpose):
  """A dense layer of as many units as x [rows, d] has."""
  width = x.shape[1].value
  with tf.variable_scope(name) as scope:
    kernel = tf.get_variable('kernel', [width, width], tf.float32,
                             tf.glorot_uniform_initializer())
    scope.set_partitioner(None)  # A bias is too small to be cut.
    bias = tf.get_variable('bias', [width], tf.float32, tf.zeros_initializer())
  return tf.nn.bias_add(purpose.precision.matmul(
      x, tf.convert_to_tensor(kernel)), bias)
