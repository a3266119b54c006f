"""The request for TensorFlow Serving that README.md shows."""

import json
import os
import re

import conftest
import experiments
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator.training import answering


@pytest.fixture(scope='module')
def exported(taobao, tmp_path_factory):
  """The folder of the SavedModels of gin/base.gin after one step."""
  folder = tmp_path_factory.mktemp('served')
  with tf.Graph().as_default():
    made = experiments.load('gin/base.gin', folder, taobao,
                            'Experiment.max_steps = 1')
    made.train()
  return str(folder / 'export' / 'best')


def request():
  with open(os.path.join(conftest.ROOT, 'README.md')) as f:
    found, = re.findall(r'```json\n(.*?)```', f.read(), re.DOTALL)
  return json.loads(found)


def fed(values, tensor):
  """A JSON column as TensorFlow Serving makes a tensor of it, or an error."""
  kinds = {tf.string: str, tf.int64: int, tf.float32: (int, float)}
  flat = np.ravel(values).tolist() if tensor.dtype != tf.string else values
  assert all(isinstance(value, kinds[tensor.dtype]) for value in flat)
  made = np.array(values, tensor.dtype.as_numpy_dtype)
  assert tensor.shape.is_compatible_with(made.shape)
  return made


@pytest.mark.slow
def test_the_request_of_the_readme_fits_the_signature(exported):
  asked = request()
  assert asked['signature_name'] == 'serving_default'
  with answering.of_export(exported) as model:
    rows = asked['instances']
    assert all(set(row) == set(model.inputs) for row in rows)
    answers = model({name: fed([row[name] for row in rows], tensor)
                     for name, tensor in model.inputs.items()})
  assert set(answers) == {'ctr', 'cvr'}
  for values in answers.values():
    assert values.shape == (len(rows),) and ((0 < values) & (values < 1)).all()


def test_a_request_that_does_not_fit_is_seen(exported):
  with answering.of_export(exported) as model:
    for name, value in [('price', '12'), ('pid', 7), ('price', [1, 2])]:
      with pytest.raises(AssertionError):
        fed([value], model.inputs[name])
