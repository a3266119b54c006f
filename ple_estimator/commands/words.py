"""The words of `ple-estimator <word>`, and the module that each one runs."""

import collections
import importlib

# A module is imported only when its word is given: some need no TensorFlow.
MODULES = collections.OrderedDict([
    ('init', 'init.command'),
    ('csv-to-parquet', 'csv_to_parquet'),
    ('inspect-embeddings', 'inspect_embeddings'),
    ('local-cluster', 'local_cluster'),
    ('report', 'report.command'),
    ('compare', 'report.compare'),
    ('metrics', 'measure'),
    ('sweep', 'sweep.command'),
])


def run(word, arguments):
  """Runs one command.

  Args:
    word: str, a key of MODULES.
    arguments: list of str, what follows the word.

  Returns:
    int, the exit status.
  """
  module = importlib.import_module(
      'ple_estimator.commands.' + MODULES[word])
  return module.main(arguments)
