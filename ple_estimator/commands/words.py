"""The words of `ple-estimator <word>`, and the module that each one runs."""

import collections
import importlib
import os

# A module is imported only when its word is given: some need no TensorFlow.
MODULES = collections.OrderedDict([
    ('init', 'init.command'),
    ('csv-to-parquet', 'csv_to_parquet'),
    ('inspect-embeddings', 'inspect_embeddings'),
    ('local-cluster', 'local_cluster'),
    ('report', 'report.command'),
    ('compare', 'report.compare'),
    ('metrics', 'measure'),
    ('check', 'trust.check'),
    ('importance', 'trust.importance'),
    ('explain', 'trust.explain'),
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
  # Lines of TensorFlow's C++ about its build are no part of a report.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  module = importlib.import_module(
      'ple_estimator.commands.' + MODULES[word])
  return module.main(arguments)
