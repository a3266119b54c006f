"""Epochs in global steps, and when the next evaluation is due.

A global step is one batch of one process. So an epoch has rows / batch_size
global steps, however many workers there are, and whether each has a share of
the rows or a work queue hands them out. That is no whole number in general, so
it is kept as a fraction: the k-th epoch ends with the first global step that is
not before k * rows / batch_size.
"""

import collections
import fractions
import math


class Epochs(collections.namedtuple('Epochs', ['steps', 'start'])):
  """The epochs of a run.

  Attributes:
    steps: Fraction, global steps in an epoch, more than 0.
    start: Fraction, a global step at which an epoch begins; it may be negative
      if the batch size has changed.
  """

  def end(self, epochs):
    """The global step, an int, that ends some epochs of a run's first."""
    return math.ceil(self.start + _exact(epochs) * self.steps)

  def steps_in(self, epochs):
    """Whole global steps that fit into some epochs, at least one.

    Args:
      epochs: number above 0.

    Returns:
      int. It is rounded down: an evaluation is due at the first step that is
      not before the end of an epoch, so two of them may be that much closer
      than a whole epoch.
    """
    return max(1, math.floor(_exact(epochs) * self.steps))

  def interval(self, epochs):
    """Returns the Interval of some epochs, from the start of an epoch on.

    Args:
      epochs: number above 0.
    """
    return Interval(max(fractions.Fraction(1), _exact(epochs) * self.steps),
                    self.start)

  def describe(self, steps):
    """Some global steps in words, e.g. '782 steps (2 epochs)'."""
    epochs = '%.3g' % (steps / self.steps)
    return '%d step%s (%s epoch%s)' % (
        steps, '' if steps == 1 else 's', epochs, '' if epochs == '1' else 's')


class Interval(collections.namedtuple('Interval', ['steps', 'start'])):
  """How often something is due: at multiples of a number of steps.

  Attributes:
    steps: int or Fraction, global steps, at least 1.
    start: int or Fraction, the global step from which they are counted.
  """

  def is_due(self, last, step):
    """Whether a multiple lies after one global step and not after another.

    Args:
      last: int, the global step when it was done last.
      step: int, the global step now.
    """
    return (step - self.start) // self.steps > (last - self.start) // self.steps


def epochs(rows, batch_size, start=0):
  """Returns the Epochs of a run.

  Args:
    rows: int, in an epoch.
    batch_size: int, rows per global step.
    start: int or Fraction, a global step at which an epoch begins.
  """
  return Epochs(fractions.Fraction(max(1, rows), batch_size),
                fractions.Fraction(start))


def _exact(number):
  """The Fraction that a number is written as: 0.1 is a tenth."""
  return fractions.Fraction(str(number))
