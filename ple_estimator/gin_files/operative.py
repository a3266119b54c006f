"""The operative config of a run: all that was bound, defaults among it.

gin.tf.GinConfigSaverHook writes operative_config-<step>.gin to a model_dir
whenever a training starts. It is read here as any .gin file is, which looks
nothing up: no module of the user's is needed.
"""

import collections
import os
import re

from ple_estimator.gin_files import reader as reader_lib
from ple_estimator.gin_files import statements

_NAME = re.compile(r'operative_config-(\d+)\.gin$')
# Where a run reads and writes makes no difference to what it is.
PLACES = ('Experiment.model_dir', 'Experiment.predictions_path')
_LONGEST = 60  # characters of a list, dict or reference in `flat`


def newest(model_dir):
  """The path of the newest operative config of a folder; None without one.

  Args:
    model_dir: str.
  """
  found = [(int(match.group(1)), match.group()) for match in map(
      _NAME.match, os.listdir(model_dir) if os.path.isdir(model_dir) else ())
           if match]
  return os.path.join(model_dir, max(found)[1]) if found else None


def read(path):
  """Reads an operative config.

  Args:
    path: str.

  Returns:
    (str, OrderedDict): the text of the file, and the values of its bindings by
    their names, such as 'ctr/Task.weight', the macros among them.

  Raises:
    UserError: if the file is no gin.
  """
  reader = reader_lib.Reader()
  reader.read_file(os.path.abspath(path))
  return (next(iter(reader.sources.values())).text,
          values_of(reader.bindings))


def values_of(bindings):
  """The values of bindings by their names; the later of two wins.

  Args:
    bindings: list of statements.Binding.

  Returns:
    OrderedDict of str to any value, with statements.Macro and
    statements.Reference in it.
  """
  return collections.OrderedDict(
      (binding.name(), binding.value) for binding in bindings)


def flat(values):
  """Bindings that fit into one cell of a table.

  Args:
    values: dict of the name of a binding to its value, from `read`.

  Returns:
    OrderedDict of the name of a binding to bool, int, float or str. A macro is
    replaced by its value and is no entry of its own. References, lists, tuples
    and dicts are texts as .gin files write them. What says nothing of a model
    is left out: None, texts of these that are longer than 60 characters, those
    of Experiment, and the places of a run.
  """
  found = collections.OrderedDict()
  for name, value in values.items():
    if '.' not in name or name in PLACES:  # a macro has no class
      continue
    seen = set()
    while isinstance(value, statements.Macro) and value.name not in seen:
      seen.add(value.name)
      value = values.get(value.name)
    if isinstance(value, (bool, int, float, str)):
      found[name] = value
    elif value is not None and len(repr(value)) <= _LONGEST and (
        not name.startswith('Experiment.')):
      found[name] = repr(value)
  return found
