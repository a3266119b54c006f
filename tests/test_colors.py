"""The colors of pictures can be told apart by everybody, on their ground."""

import itertools

import numpy as np
import pytest

from ple_estimator import colors

# What is seen without one kind of cones, on linear red, green and blue:
# Machado, Oliveira and Fernandes, IEEE TVCG 2009, severity 1.
SIGHTS = {
    'all colors': np.eye(3),
    'no red': [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    'no green': [[0.367322, 0.860646, -0.227968],
                 [0.280085, 0.672501, 0.047413],
                 [-0.011820, 0.042940, 0.968881]],
    'no blue': [[1.255528, -0.076749, -0.178779],
                [-0.078411, 0.930809, 0.147602],
                [0.004733, 0.691367, 0.303900]]}
GROUNDS = {'light': '#ffffff', 'dark': '#12171e'}
# Least difference (CIE 1976) of the first so many; above 2.3 it is just seen.
LEAST = [(3, 45), (5, 28), (10, 16)]
_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375],
                 [0.2126729, 0.7151522, 0.0721750],
                 [0.0193339, 0.1191920, 0.9503041]])


def linear(color):
  """[3] linear red, green and blue, of sRGB."""
  parts = np.array(colors.rgb(color)) / 255
  return np.where(parts <= 0.04045, parts / 12.92,
                  ((parts + 0.055) / 1.055) ** 2.4)


def lab(color, sight):
  """[3], a color in CIELAB as somebody sees it."""
  seen = np.clip(np.dot(SIGHTS[sight], linear(color)), 0, 1)
  ratio = _XYZ.dot(seen) / _XYZ.sum(axis=1)
  f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio),
               ratio / (3 * (6 / 29) ** 2) + 4 / 29)
  return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(a, b):
  """The contrast of two colors, as WCAG 2.1 defines it."""
  low, high = sorted(_XYZ[1].dot(linear(color)) for color in (a, b))
  return (high + 0.05) / (low + 0.05)


def difference(palette, sight):
  """The least difference between two colors of a list."""
  return min(np.linalg.norm(lab(a, sight) - lab(b, sight))
             for a, b in itertools.combinations(palette, 2))


def test_known_colors_are_measured_right():
  np.testing.assert_allclose(  # CIE 15: red of sRGB under D65
      lab('#ff0000', 'all colors'), [53.24, 80.09, 67.20], atol=0.05)
  assert contrast('#ffffff', '#000000') == pytest.approx(21)
  # Red and green of one lightness, which differ by their hue.
  assert difference(['#b3261e', '#157a4a'], 'all colors') > 90
  assert difference(['#b3261e', '#5f6a00'], 'no green') < 20


@pytest.mark.parametrize('scheme', sorted(GROUNDS))
def test_colors_are_seen_on_their_ground(scheme):
  """A contrast of 3 for lines (WCAG 2.1, 1.4.11)."""
  for color in colors.PALETTES[scheme]:
    assert contrast(color, GROUNDS[scheme]) >= 3, color


@pytest.mark.parametrize('sight', sorted(SIGHTS))
@pytest.mark.parametrize('scheme', sorted(GROUNDS))
def test_colors_are_told_apart(scheme, sight):
  palette = colors.PALETTES[scheme]
  assert len(palette) == 10
  for count, least in LEAST:
    assert difference(palette[:count], sight) >= least, count


@pytest.mark.parametrize('sight', sorted(SIGHTS))
def test_the_scale_grows_in_lightness(sight):
  made = colors.scale(64)
  assert made.shape == (64, 3) and made.dtype == np.uint8
  lightness = [lab('#%02x%02x%02x' % tuple(color), sight)[0] for color in made]
  assert (np.diff(lightness) > 0).all()
  assert lightness[0] < 25 and lightness[-1] > 85
