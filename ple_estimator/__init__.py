"""Trains Progressive Layered Extraction (PLE) models from .gin files.

  import ple_estimator as ple
  run = ple.load('gin/base.gin', 'gin/mmoe.gin', bindings=['EPOCHS = 1'])
  run.train()
"""

__version__ = '0.2.0.dev0'


def load(*gin_files, bindings=()):
  """Makes a run of .gin files; see api.Run.

  Args:
    *gin_files: str, paths of .gin files; what comes later wins.
    bindings: list of str, lines of gin that win over the files.

  Returns:
    api.Run, with train, evaluate, predict and export.

  Raises:
    errors.UserError: if a file or a binding is wrong.
  """
  # Here, so that what needs no TensorFlow does not wait for it.
  from ple_estimator import api
  return api.load(*gin_files, bindings=bindings)
