"""The door for Python: one run after another in one process.

  import ple_estimator as ple
  run = ple.load('gin/base.gin', 'gin/mmoe.gin', bindings=['EPOCHS = 1'])
  run.train()
  metrics = run.evaluate()  # of the validation rows
  metrics = run.test()  # of the test rows, at the end
"""

from absl import logging

from ple_estimator import config
from ple_estimator import experiment
from ple_estimator.engine import compat


class Run:
  """One experiment; its methods are the modes of the command line.

  gin has one configuration per process, and some of it is asked for only when a
  graph is built. So a Run puts its own configuration in force again before it
  does anything, if another Run has been loaded meanwhile. Runs may be used one
  after another, not at the same time; and from any thread. In a thread other
  than the main one SIGTERM is not handled.

  Attributes:
    name: str, the names of the .gin files, e.g. 'base-mmoe'.
    overrides: list of str, a line for each binding that a later file changed.
  """

  def __init__(self, gin_files, bindings=()):
    """Parses the files and builds the Experiment; reads no data.

    Args:
      gin_files: list of str, paths of .gin files; what comes later wins.
      bindings: list of str, lines of gin that win over the files.

    Raises:
      UserError: if a file or a binding is wrong.
    """
    self._gin_files, self._bindings = list(gin_files), list(bindings)
    self._load()

  def _load(self):
    compat.quiet()
    if logging.get_verbosity() == logging.WARNING:  # nobody has chosen another
      logging.set_verbosity(logging.INFO)  # as the command does
    self._config = config.load(self._gin_files, self._bindings)
    with config.explained(self._config):
      self._experiment = experiment.Experiment()
    self.name, self.overrides = self._config.name, self._config.overrides

  @property
  def experiment(self):
    """The experiment.Experiment, with this run's configuration in force."""
    if not config.is_in_force(self._config):
      self._load()
    return self._experiment

  @property
  def model_dir(self):
    """str, the folder of the results."""
    return self._experiment.model_dir

  def train(self):
    """Trains to the last step, evaluating on the way; see Experiment.train."""
    self.experiment.train()

  def daily(self):
    """Evaluates, trains and exports each new day of the training files.

    Returns:
      list of dict, one per day, as daily.json has them.
    """
    return self.experiment.daily()

  def evaluate(self, checkpoint='last'):
    """Evaluates a checkpoint.

    Args:
      checkpoint: 'last'; 'best', which training keeps; or the path of one.

    Returns:
      dict of metric name to float, as in metrics.json.
    """
    return self.experiment.evaluate(checkpoint)

  def test(self, checkpoint=None):
    """Evaluates a checkpoint on the test rows, which decide nothing.

    Args:
      checkpoint: see `evaluate`; None is the best one if training has kept
        one, and the last otherwise.

    Returns:
      dict of metric name to float, as in test.json.
    """
    return self.experiment.test(checkpoint)

  def predict(self, checkpoint='last'):
    """Writes the predictions of a checkpoint.

    Args:
      checkpoint: see `evaluate`.

    Returns:
      predictions.Predictions: `path` of the file, `num_rows`, and `batches()`,
      which reads it batch by batch as dicts of name to numpy array.
    """
    return self.experiment.predict(checkpoint)

  def export(self, checkpoint='last'):
    """Writes a SavedModel of a checkpoint; returns its folder, a str.

    Args:
      checkpoint: see `evaluate`.
    """
    return self.experiment.export(checkpoint)


def load(*gin_files, bindings=()):
  """Returns the Run of some .gin files; see Run for the arguments."""
  return Run(gin_files, bindings)
