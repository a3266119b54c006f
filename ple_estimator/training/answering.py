"""SavedModels and checkpoints that answer rows of columns, as a server does.

They are fed with the columns that data/serving.py describes.
"""

import os
import re

import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors

_SIGNATURE = (
    tf.saved_model.signature_constants.DEFAULT_SERVING_SIGNATURE_DEF_KEY)
_BATCH = 4096  # rows that are asked at once, which bounds the memory


class Answering:
  """A graph in a session that predicts rows.

  Attributes:
    session: tf.Session.
    inputs: dict of column name to the tensor that is fed, [batch] or
      [batch, width] string, int64 or float32.
    outputs: dict of task name to [batch] or [batch, n] float32 tensor.
    examples: (tensor of serialized tf.train.Examples, outputs) of the other
      signature of a SavedModel; None without it.
    global_step: int, of the checkpoint.
  """

  def __init__(self, session, inputs, outputs, global_step, examples=None):
    """Stores the arguments."""
    self.session = session
    self.inputs = inputs
    self.outputs = outputs
    self.examples = examples
    self.global_step = global_step

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.session.close()

  def __call__(self, columns):
    """Predicts rows by their columns.

    Args:
      columns: dict of column name to [rows] or [rows, width] numpy array, of
        all `inputs`; text is bytes.

    Returns:
      dict of task name to [rows] or [rows, n] float32 numpy array.
    """
    return self.fed(self.outputs, {
        self.inputs[name]: columns[name] for name in self.inputs})

  def of_examples(self, examples):
    """Predicts serialized tf.train.Examples, [rows] bytes; as `__call__`."""
    tensor, outputs = self.examples
    return self.fed(outputs, {tensor: examples})

  def fed(self, fetches, feeds):
    """Computes tensors of rows, some thousand rows at a time.

    Args:
      fetches: dict of name to [batch, ...] tensor.
      feeds: dict of [batch, ...] tensor to [rows, ...] numpy array.

    Returns:
      dict of name to [rows, ...] numpy array.
    """
    size = len(next(iter(feeds.values())))
    found = [self.session.run(fetches, {
        tensor: values[at:at + _BATCH] for tensor, values in feeds.items()})
             for at in range(0, max(size, 1), _BATCH)]
    return {name: np.concatenate([part[name] for part in found])
            for name in fetches}


def folder_of(path):
  """The folder of a SavedModel that the user names, as a server finds it.

  Args:
    path: str, a folder with saved_model.pb, or one whose folders with a number
      for a name have it: of these TensorFlow Serving loads the largest.

  Raises:
    UserError: if there is none.
  """
  if os.path.isfile(os.path.join(path, 'saved_model.pb')):
    return path
  names = os.listdir(path) if os.path.isdir(path) else []
  versions = [name for name in names if re.match(r'[0-9]+$', name) and
              os.path.isfile(os.path.join(path, name, 'saved_model.pb'))]
  errors.check(versions, 'EXPORT must be a folder with saved_model.pb, or with '
               'numbered folders that have it, got %r. --mode=export writes '
               'one.', path)
  return os.path.join(path, max(versions, key=int))


def of_export(path):
  """Loads a SavedModel as TensorFlow Serving does: tags and signature `serve`.

  Args:
    path: str, as `folder_of` takes it.

  Returns:
    Answering.

  Raises:
    UserError: if there is no SavedModel, or it lacks the signature
      serving_default with a predict method.
  """
  path = folder_of(path)
  graph = tf.Graph()
  session = tf.Session(graph=graph)
  try:
    with graph.as_default():
      made = tf.saved_model.loader.load(
          session, [tf.saved_model.tag_constants.SERVING], path)
  except (RuntimeError, ValueError, tf.errors.OpError) as error:
    session.close()
    raise errors.UserError('%s cannot be loaded: %s' % (
        path, str(error).strip().partition('\n')[0])) from error
  signatures = made.signature_def
  errors.check(_SIGNATURE in signatures, '%s must have the signature %s, got '
               '%s.', path, _SIGNATURE, ', '.join(sorted(signatures)))
  inputs, outputs = _tensors(graph, signatures[_SIGNATURE])
  variables = tf.train.load_checkpoint(
      os.path.join(path, 'variables', 'variables'))
  step = (int(variables.get_tensor('global_step'))
          if variables.has_tensor('global_step') else 0)
  return Answering(session, inputs, outputs, step,
                   _of_examples(graph, signatures, outputs))


def of_checkpoint(path, receiver_fn, build, scaffold, config):
  """Builds a graph on the columns of rows, with the values of a checkpoint.

  Args:
    path: str, of the checkpoint.
    receiver_fn: function without arguments to the ServingInputReceiver of the
      columns, see data/serving.py.
    build: function of a dict of features to a dict of name to [batch, ...]
      tensor, which builds the graph.
    scaffold: function without arguments to the tf.train.Scaffold that reads
      the checkpoint into the graph.
    config: tf.ConfigProto of the session.

  Returns:
    Answering, whose outputs are what `build` returns.
  """
  with tf.Graph().as_default():
    step = tf.train.create_global_step()
    received = receiver_fn()
    outputs = build(received.features)
    session = tf.train.MonitoredSession(tf.train.ChiefSessionCreator(
        scaffold(), config=config, checkpoint_filename_with_path=path))
    return Answering(session, received.receiver_tensors, outputs,
                     int(session.run(step)))


def _tensors(graph, signature):
  """The tensors of a signature: (inputs, outputs), dicts by name."""
  return tuple({name: graph.get_tensor_by_name(info.name)
                for name, info in sorted(of.items())}
               for of in (signature.inputs, signature.outputs))


def _of_examples(graph, signatures, outputs):
  """The signature that takes serialized Examples for the same answers."""
  for name in sorted(signatures):
    if name == _SIGNATURE:
      continue
    inputs, found = _tensors(graph, signatures[name])
    texts = [tensor for tensor in inputs.values() if tensor.dtype == tf.string]
    if len(inputs) == len(texts) == 1 and set(found) == set(outputs):
      return texts[0], found
  return None
