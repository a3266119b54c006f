"""The colors of all pictures: of the report, of TensorBoard and of docs/."""

import numpy as np

# Colors of runs and tasks, on light and on dark ground: each has a contrast of
# at least 3 to its ground (WCAG 2.1, 1.4.11), and any two differ for those who
# see no red, no green or no blue too, the first ones most. tests/test_colors.py
# measures both. More than ten begin anew.
PALETTES = {
    'light': ['#3388fa', '#de7419', '#123816', '#a26b8b', '#510c85', '#650b51',
              '#827ec4', '#615719', '#047149', '#1d54c2'],
    'dark': ['#5c8efb', '#b65725', '#e1ffac', '#f1a6c1', '#726ea8', '#a06277',
             '#e6b9ff', '#aec151', '#84c080', '#a693de']}
# From nothing to all, the color scale viridis (van der Walt and Smith, 2015),
# which grows in lightness and which Vega and matplotlib know by this name.
SCALE = 'viridis'
_VIRIDIS = ['#440154', '#472d7b', '#3b528b', '#2c728e', '#21918c', '#28ae80',
            '#5ec962', '#addc30', '#fde725']


def rgb(color):
  """The red, green and blue of '#rrggbb', a list of int from 0 to 255."""
  return [int(color[at:at + 2], 16) for at in (1, 3, 5)]


def scale(count=256):
  """The colors of SCALE.

  Args:
    count: int, how many, at least 2.

  Returns:
    [count, 3] uint8.
  """
  known = np.array([rgb(color) for color in _VIRIDIS], np.float64)
  at = np.linspace(0, len(known) - 1, count)
  return np.stack([np.interp(at, np.arange(len(known)), channel)
                   for channel in known.T], axis=1).round().astype(np.uint8)
