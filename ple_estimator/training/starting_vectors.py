"""Puts the vectors of files into the tables of a model that starts.

A category column names its file by the argument `vectors`. The file is read
where model_dir has no checkpoint yet, by the chief, and its vectors are fed to
the initializers of the tables: they are never part of a graph. What the file
does not have, and what interactions alone read, keeps its initial values.
"""

import collections

import numpy as np

from ple_estimator.data import value_vectors
from ple_estimator.engine import compat
from ple_estimator.training import saver


def of(model):
  """Returns the StartingVectors of a model.Model; None if no column has any."""
  vectors = StartingVectors(model.groups)
  return vectors if vectors.columns else None


class StartingVectors:
  """The vectors that columns of a model start from.

  Attributes:
    columns: names of these columns; of those that share a table, the first.
  """

  def __init__(self, groups):
    """Reads nothing.

    Args:
      groups: list of packing.Group.
    """
    self._found = [
        (group, column, first) for group in groups
        for column, first in zip(group.owners, group.offsets)
        if column.vectors is not None]
    self.columns = [column.name for _, column, _ in self._found]
    self._rows = None

  def read(self):
    """Reads the files, and keeps what is read for `fill`.

    Raises:
      UserError: if a file cannot be used.
    """
    rows = collections.defaultdict(list)
    for group, column, first in self._found:
      ids, vectors = value_vectors.read(column, group.dim - group.own_dim)
      rows[group.name + '/embedding'].append((first + ids, vectors))
    self._rows = rows

  def fill(self, session):
    """Gives rows of the tables their vectors.

    Args:
      session: tf.Session, in whose graph all variables have initial values.
    """
    if self._rows is None:  # a session that is created again
      self.read()
    for variable in saver.plain_variables():
      name, _, first = compat.whole(variable)
      if name in self._rows:
        self._fill(session, variable, first, self._rows[name])
    self._rows = None

  @staticmethod
  def _fill(session, variable, first, parts):
    """Fills a table, or the part of one that begins with the row `first`."""
    table = np.array(session.run(variable))
    for rows, vectors in parts:
      here = (rows >= first) & (rows < first + len(table))
      table[rows[here] - first, :vectors.shape[1]] = vectors[here]
    session.run(variable.initializer,
                {variable.initializer.inputs[1]: table})
