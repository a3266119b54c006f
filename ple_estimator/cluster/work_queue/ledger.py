"""Which client has which slice: the state of a work queue on one device.

Slices are handed out in a window of two epochs, one after another, so that
no client waits at the end of an epoch for slices of others. The state is
three variables, which no Saver and no initializer of a model knows:

  meta    [3] int64: generation, digest, epoch (the first of the window)
  owner   [2 n] int64, by position in the window: 0 free, -1 acknowledged, else
          the number of the client that has a lease of it
  expiry  [2 n] float64, when the lease ends, in seconds of the device's clock

Position p is slice order(epoch + p // n)[p % n], which clients know and the
ledger need not; its number, which stays when the window moves, is
epoch * n + p. A generation is the time between two loads, i.e. between two
restores of the variables that are trained: what was read in one and trained in
the next may have been lost in between, and an acknowledgement of it is void.

Every change is one op under a lock on that device. So no client can leave it
half done, and there is no master to wait for; a client that dies leaves only
its leases.
"""

import collections

import tensorflow.compat.v1 as tf

from ple_estimator.engine import compat

FREE, DONE = 0, -1  # owners that are none
WAIT, END = -1, -2  # positions that are none
_State = collections.namedtuple(
    '_State', 'generation digest epoch owner expiry')


class Ledger:
  """The ops of the ledger; each method takes the session to run them in.

  A method raises tf.errors.FailedPreconditionError before the first `load`, as
  it does after the device was lost and is back.

  Attributes:
    graph: tf.Graph, for the session. Sessions to one cluster share the state.
  """

  def __init__(self, device=''):
    """Makes the ops.

    Args:
      device: str, where the state is.
    """
    self.graph = tf.Graph()
    with self.graph.as_default(), tf.device(device):
      self._variables = [_variable('meta', tf.int64), _variable(
          'owner', tf.int64), _variable('expiry', tf.float64)]
      self._lock = compat.Lock('work_queue')
      self._now = tf.placeholder_with_default(tf.timestamp(), [])
      self._who = tf.placeholder(tf.int64, [])
      self._lease_secs = tf.placeholder(tf.float64, [])
      self._generation = tf.placeholder(tf.int64, [])
      self._digest = tf.placeholder(tf.int64, [])
      self._epochs = tf.placeholder(tf.int64, [])
      self._numbers = tf.placeholder(tf.int64, [None])
      self._loaded = tf.placeholder(tf.int64, [3]), tf.placeholder(
          tf.int64, [None])
      self._take = self._change(self._taken)
      self._ack = self._change(self._acked)
      self._renew = self._change(self._renewed)
      self._release = self._change(self._released)
      self._read = self._lock.execute(
          lambda: [v.read_value() for v in self._variables[:2]])
      self._load = self._lock.execute(self._replaced)
      self.ready = tf.no_op()

  def load(self, session, generation, digest, epoch, owner):
    """Replaces all contents; earlier leases become void.

    Args:
      session: tf.Session.
      generation: int, one that was not used before.
      digest: int, of the slices and their order.
      epoch: int, the first of the window.
      owner: [2 n] int64, DONE where a slice is acknowledged, else FREE.
    """
    session.run(self._load, dict(zip(
        self._loaded, ([generation, digest, epoch], owner))))

  def take(self, session, who, digest, epochs, lease_secs, now=None):
    """Leases the first slice that is free.

    Args:
      session: tf.Session.
      who: int, above 0, the client's number.
      digest: int; nothing is handed out to a client with another.
      epochs: int, how many there are.
      lease_secs: float.
      now: float, the time in tests; None is the device's.

    Returns:
      (generation, digest, number of the slice); for the number WAIT if all
      that is left is leased by others, END if all is acknowledged.
    """
    return tuple(int(x) for x in self._run(session, self._take, {
        self._who: who, self._digest: digest, self._epochs: epochs,
        self._lease_secs: lease_secs}, now))

  def ack(self, session, generation, numbers):
    """Marks slices as done, if nothing was loaded since they were taken."""
    session.run(self._ack, {
        self._generation: generation, self._numbers: numbers})

  def renew(self, session, generation, who, numbers, lease_secs, now=None):
    """Makes the leases of slices end lease_secs from now."""
    self._run(session, self._renew, {
        self._generation: generation, self._who: who, self._numbers: numbers,
        self._lease_secs: lease_secs}, now)

  def release(self, session, who):
    """Ends all leases of a client."""
    session.run(self._release, {self._who: who})

  def read(self, session):
    """Returns (meta, owner), as the head of this file has them."""
    return session.run(self._read)

  def _run(self, session, op, feeds, now):
    if now is not None:
      feeds[self._now] = now
    return session.run(op, feeds)

  def _change(self, rule):
    """A function of a _State to (_State, int64 vector), as an op."""
    def execute():
      meta, owner, expiry = [v.read_value() for v in self._variables]
      state, answer = rule(_State(meta[0], meta[1], meta[2], owner, expiry))
      writes = _assign(self._variables, [
          tf.stack(state[:3]), state.owner, state.expiry])
      with tf.control_dependencies(writes):
        return tf.identity(answer)
    return self._lock.execute(execute)

  def _replaced(self):
    meta, owner = self._loaded
    with tf.control_dependencies(_assign(self._variables, [
        meta, owner, tf.zeros_like(owner, tf.float64)])):
      return tf.identity(meta)

  def _taken(self, state):
    positions = tf.range(_size(state))
    left = (self._epochs - state.epoch) * (_size(state) // 2)
    free = (tf.equal(state.owner, FREE) |
            ((state.owner > 0) & (state.expiry <= self._now)))
    free &= (positions < left) & tf.equal(state.digest, self._digest)
    is_any_free = tf.reduce_any(free)
    position = tf.argmax(tf.cast(free, tf.int32))
    chosen = tf.equal(positions, position) & is_any_free
    number = tf.where(
        is_any_free, state.epoch * (_size(state) // 2) + position,
        tf.where(left > 0, _scalar(WAIT), _scalar(END)))
    return state._replace(
        owner=_where(chosen, self._who, state.owner),
        expiry=_where(chosen, self._now + self._lease_secs, state.expiry)
    ), tf.stack([state.generation, state.digest, number])

  def _acked(self, state):
    state = state._replace(owner=_where(
        self._named(state), _scalar(DONE), state.owner))
    # The second epoch of the window may have been waiting for the first.
    return _moved_on(_moved_on(state)), tf.stack([state.generation])

  def _renewed(self, state):
    mine = self._named(state) & tf.equal(state.owner, self._who)
    return state._replace(expiry=_where(
        mine, self._now + self._lease_secs, state.expiry)
    ), tf.stack([state.generation])

  def _released(self, state):
    mine = tf.equal(state.owner, self._who)
    return state._replace(owner=_where(
        mine, _scalar(FREE), state.owner)), tf.stack([state.generation])

  def _named(self, state):
    """[2 n] bool, whether a position is that of one of `numbers`."""
    size = _size(state)
    positions = self._numbers - state.epoch * (size // 2)
    # What lies before the window is done already.
    positions = tf.boolean_mask(
        positions, (positions >= 0) & (positions < size))
    hits = tf.scatter_nd(positions[:, None], tf.ones_like(positions), [size])
    return (hits > 0) & tf.equal(state.generation, self._generation)


def _moved_on(state):
  """Moves the window by an epoch if its first one is done."""
  size = _size(state) // 2
  done = tf.reduce_all(tf.equal(state.owner[:size], DONE))

  def moved(values):
    return tf.where(tf.fill(tf.shape(values), done), tf.concat(
        [values[size:], tf.zeros_like(values[size:])], 0), values)

  return state._replace(
      epoch=state.epoch + tf.cast(done, tf.int64),
      owner=moved(state.owner), expiry=moved(state.expiry))


def _size(state):
  return tf.size(state.owner, out_type=tf.int64)


def _variable(name, dtype):
  """A variable of any length, in no collection."""
  return tf.Variable(
      tf.placeholder_with_default(tf.zeros([0], dtype), [None]),
      trainable=False, collections=[], validate_shape=False, use_resource=True,
      name='work_queue/' + name)


def _assign(variables, values):
  # Variable.assign would compare the lengths.
  return [tf.raw_ops.AssignVariableOp(resource=v.handle, value=value)
          for v, value in zip(variables, values)]


def _scalar(value):
  return tf.constant(value, tf.int64)


def _where(condition, value, otherwise):
  """tf.where of a scalar and a vector."""
  return tf.where(condition, tf.fill(tf.shape(otherwise), value), otherwise)
