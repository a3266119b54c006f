"""The pictures of gates, as TensorBoard reads them."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.network import gate_pictures

# Each gate sees three of the four experts.
SHARES = {
    'level_0/ctr': {'ctr/expert_0': 1 / 3, 'ctr/expert_1': 1.0,
                    'shared/expert_0': 0.0},
    'level_0/cvr': {'ctr/expert_1': 1 / 27, 'shared/expert_0': np.nan,
                    'cvr/expert_0': 0.5}}
TAG = ('gates/level_0 (rows: ctr, cvr; columns: ctr/expert_0, ctr/expert_1, '
       'cvr/expert_0, shared/expert_0)/image')
GREY, GREEN, VIOLET, YELLOW = (
    (200, 200, 200), (33, 145, 140), (68, 1, 84), (253, 231, 37))


def _of_training():
  """The summary of a batch."""
  with tf.Graph().as_default(), tf.Session() as session:
    gate_pictures.show({gate: {
        expert: tf.constant(share, tf.float32)
        for expert, share in of_gate.items()}
                        for gate, of_gate in SHARES.items()})
    return tf.Summary.FromString(session.run(tf.summary.merge_all()))


def _of_evaluation():
  """The summary of an evaluation."""
  return gate_pictures.summary(dict({
      'gate/%s/%s' % (gate, expert): share
      for gate, of_gate in SHARES.items()
      for expert, share in of_gate.items()}, loss=1.0))


@pytest.mark.parametrize('made', [_of_training, _of_evaluation])
def test_a_picture_has_the_shares_as_colors(made):
  value, = made().value
  assert value.tag == TAG
  image = value.image
  assert (image.height, image.width) == (64, 128)
  with tf.Graph().as_default(), tf.Session() as session:
    pixels = session.run(tf.image.decode_png(image.encoded_image_string))
  assert pixels.shape == (64, 128, 3)
  cells = [[tuple(pixels[y, x]) for x in range(15, 128, 32)]
           for y in (15, 47)]
  # Of three experts a third is the middle of the scale, 1/27 an eighth:
  # (1/27) ** (ln 2 / ln 3) = 2 ** -3.
  assert np.abs(np.subtract(cells, [
      [GREEN, YELLOW, GREY, VIOLET], [GREY, (71, 45, 123), cells[1][2], VIOLET]
  ])).max() <= 2
  # 0.5 ** (ln 2 / ln 3) = 0.646 lies between the anchors 5/8 and 6/8.
  between = np.array([[40, 174, 128], [94, 201, 98]])
  assert np.abs(between[0] + (between[1] - between[0]) * 0.166 -
                cells[1][2]).max() <= 2
  white = np.all(pixels == 255, axis=2)
  assert white[30:32].all() and white[:, 30:32].all()
  assert not white[:30, :30].any()


def test_no_gates_are_no_picture():
  assert not gate_pictures.summary({'loss': 1.0, 'gates': 2}).value
