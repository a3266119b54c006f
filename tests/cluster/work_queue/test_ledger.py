"""The ledger, compared with the same rules in plain Python."""

import collections
import random

import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.cluster.work_queue import ledger


class Model:
  """What a ledger should do, in plain Python."""

  def __init__(self, slices, epochs):
    self.slices, self.epochs = slices, epochs
    self.generation, self.acked, self.leases = 1, set(), {}

  def window(self):
    first = next(e for e in range(self.epochs + 1) if not all(
        e * self.slices + i in self.acked for i in range(self.slices)))
    return range(first * self.slices,
                 min(first + 2, self.epochs) * self.slices)

  def take(self, who, now, lease):
    if not self.window():
      return ledger.END
    for number in self.window():
      until = self.leases.get(number, (0, -1))[1]
      if number not in self.acked and until <= now:
        self.leases[number] = who, now + lease
        return number
    return ledger.WAIT

  def ack(self, generation, numbers):
    if generation == self.generation:
      self.acked.update(set(numbers) & set(self.window()))

  def renew(self, generation, who, numbers, now, lease):
    for number in set(numbers) & set(self.leases):
      if generation == self.generation and self.leases[number][0] == who:
        self.leases[number] = who, now + lease

  def release(self, who):
    self.leases = {
        n: held for n, held in self.leases.items() if held[0] != who}

  def load(self, acked):
    self.generation, self.acked, self.leases = (
        self.generation + 1, set(acked), {})


def loadable(model):
  first = model.window()[0] if model.window() else (
      model.epochs * model.slices)
  return first // model.slices, [
      ledger.DONE if first + i in model.acked else ledger.FREE
      for i in range(2 * model.slices)]


@pytest.mark.parametrize('seed', range(4))
def test_ledger_does_what_plain_python_does(seed):
  rng = random.Random(seed)
  made, model = ledger.Ledger(), Model(rng.choice([1, 3, 5]), 4)
  now, taken, saved, answers = 0.0, [], set(), collections.Counter()
  with tf.Session(graph=made.graph) as session:
    made.load(session, 1, 77, *loadable(model))
    for _ in range(600):
      now += rng.random()
      who, lease = rng.randint(1, 3), rng.choice([1, 4])
      kind = rng.choice(['take'] * 8 + ['ack'] * 6 + ['renew'] * 2 + [
          'release', 'save', 'load'])
      if kind == 'take':
        generation, digest, number = made.take(session, who, 77, 4, lease, now)
        assert number == model.take(who, now, lease)
        assert (generation, digest) == (model.generation, 77)
        answers[min(number, 0)] += 1
        if number >= 0:
          taken.append((generation, who, number))
      elif kind in ('ack', 'renew') and taken:
        generation, who, number = rng.choice(taken[-9:])
        numbers = sorted({number, rng.choice(taken)[2]})
        if kind == 'ack':
          made.ack(session, generation, numbers)
          model.ack(generation, numbers)
        else:
          made.renew(session, generation, who, numbers, lease, now)
          model.renew(generation, who, numbers, now, lease)
      elif kind == 'release':
        made.release(session, who)
        model.release(who)
      elif kind == 'save':
        saved = set(model.acked)
      elif kind == 'load' and rng.random() < 0.5:
        model.load(saved)
        made.load(session, model.generation, 77, *loadable(model))
      meta, owner = made.read(session)
      epoch, expected = loadable(model)
      assert meta.tolist() == [model.generation, 77, epoch]
      assert [max(o, -1) * (o < 0) for o in owner] == expected
  assert min(answers[0], answers[ledger.WAIT], answers[ledger.END]) > 0


def test_ledger_hands_nothing_to_who_sees_other_files():
  made = ledger.Ledger()
  with tf.Session(graph=made.graph) as session:
    with pytest.raises(tf.errors.FailedPreconditionError):
      made.take(session, 1, 5, 1, 9.)
    made.load(session, 1, 77, 0, [0, 0])
    assert made.take(session, 1, 78, 1, 9.) == (1, 77, ledger.WAIT)
    assert made.take(session, 1, 77, 1, 9.) == (1, 77, 0)
