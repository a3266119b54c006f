"""Which columns go together, so that one can stand in for another.

Two columns are compared by Cramer's V with the correction of Bergsma, "A
bias-correction for Cramer's V and Tschuprow's T", Journal of the Korean
Statistical Society 2013. It is about 0 where two columns are independent, also
where they have thousands of values each, and 1 where one determines the other;
less if a value has only a few rows, since chance alone would do much then.
Numbers are compared by their tenths, lists and vectors as a whole.
"""

import numpy as np

_TENTHS = 10


def codes(values):
  """Numbers the different values of a column.

  Args:
    values: [rows] or [rows, width] numpy array of bytes, integers or numbers,
      of which more than ten different ones become their tenths.

  Returns:
    [rows] int64 from 0.
  """
  values = np.asarray(values)
  if values.ndim == 2:
    return np.unique(values, axis=0, return_inverse=True)[1].ravel()
  different, index = np.unique(values, return_inverse=True)
  if values.dtype.kind != 'f' or len(different) <= _TENTHS:
    return index.ravel()
  known = values[~np.isnan(values)]
  edges = np.unique(np.percentile(
      known, np.linspace(0, 100, _TENTHS + 1)[1:-1]))
  return np.where(np.isnan(values), len(edges) + 1,
                  np.searchsorted(edges, values, 'right'))


def cramers_v(one, other):
  """How far two columns go together, a float from 0 to 1.

  Args:
    one: [rows] int, as `codes` returns it.
    other: the same of the other column.
  """
  one, other = (np.unique(of, return_inverse=True)[1].ravel()
                for of in (one, other))
  rows = len(one)
  cells, counts = np.unique(one.astype(np.int64) * (other.max() + 1) + other,
                            return_counts=True)
  sizes = [np.bincount(of).astype(np.float64) for of in (one, other)]
  at = np.divmod(cells, len(sizes[1]))
  # chi^2 / n, from the cells that are not empty alone.
  square = (counts.astype(np.float64) ** 2 / (
      sizes[0][at[0]] * sizes[1][at[1]])).sum() - 1
  if rows < 2:
    return 0.0
  less = [len(of) - 1 for of in sizes]
  square = max(0.0, square - less[0] * less[1] / (rows - 1))
  least = min(of - of ** 2 / (rows - 1) for of in less)
  return float(min(1.0, np.sqrt(square / least))) if least > 1e-9 else 0.0


def together(columns, least):
  """Groups columns of which every two go together.

  The two groups whose least alike columns are most alike are joined first
  (complete linkage).

  Args:
    columns: dict of column name to numpy array, as `codes` takes it.
    least: float, the Cramer's V that every two columns of a group have at
      least.

  Returns:
    list of lists of two or more names.
  """
  names = list(columns)
  numbered = [codes(columns[name]) for name in names]
  alike = np.full([len(names)] * 2, -1.0)
  for i in range(len(names)):
    for j in range(i):
      alike[i, j] = alike[j, i] = cramers_v(numbered[i], numbered[j])
  groups = [[name] for name in names]
  while alike.size and alike.max() >= least:
    i, j = sorted(np.unravel_index(alike.argmax(), alike.shape))
    groups[i] += groups[j]
    groups[j] = []
    alike[i] = alike[:, i] = np.minimum(alike[i], alike[j])
    alike[j] = alike[:, j] = -1.0
  return [sorted(group, key=names.index) for group in groups if len(group) > 1]
