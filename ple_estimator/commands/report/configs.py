"""What a run was configured as, and how configurations differ.

Read from operative_config-<step>.gin, for which neither TensorFlow nor modules
of the user's are needed.
"""

import collections
import os
import re

from ple_estimator.gin_files import operative
from ple_estimator.gin_files import statements

_SEED = 'run_config.seed'

Config = collections.namedtuple('Config', 'path text bindings seed')
Config.__doc__ = """The configuration of a run.

Attributes:
  path: str, the file.
  text: str, what it holds.
  bindings: OrderedDict of a binding's name, such as 'PLE.num_levels', to its
    value as .gin files write it; without the seed and the folder of results.
  seed: str, the value of run_config.seed; '' if it is not bound.
"""

Group = collections.namedtuple('Group', 'name runs')
Group.__doc__ = """Runs whose configurations are equal but for the seed.

Attributes:
  name: str.
  runs: list of runs.Run.
"""


def read(model_dir):
  """The newest operative config of a folder, a Config; None without one.

  Args:
    model_dir: str.

  Raises:
    UserError: if the file is no gin.
  """
  path = operative.newest(model_dir)
  return of_values(path, *operative.read(path)) if path else None


def of_values(path, text, values):
  """Makes a Config.

  Args:
    path: str.
    text: str.
    values: dict, from operative.values_of.
  """
  values = collections.OrderedDict(values)
  seed = values.pop(_SEED, '')
  if isinstance(seed, statements.Macro):
    seed = values.pop(seed.name, seed)
  for name in operative.PLACES:
    place = values.pop(name, None)
    if isinstance(place, statements.Macro):
      values.pop(place.name, None)
  return Config(path, text, collections.OrderedDict(
      (name, repr(value)) for name, value in values.items()),
                '' if seed == '' else repr(seed))


def groups(runs):
  """Puts runs together that differ by their seed alone.

  Args:
    runs: list of runs.Run. A run without a config is a group of its own.

  Returns:
    list of Group, in the order of their first runs.
  """
  found = collections.OrderedDict()
  for run in runs:
    key = (run.path if run.config is None else
           tuple(sorted(run.config.bindings.items())))
    found.setdefault(key, []).append(run)
  return [Group(_group_name(members), members) for members in found.values()]


def _group_name(members):
  names = [run.name for run in members]
  if len(names) == 1:
    return names[0]
  common = re.sub(r'[-_./ ]*(seed)?[-_./ ]*$', '', os.path.commonprefix(names))
  return '%s (%d seeds)' % (common or names[0], len(names))


def differences(members):
  """The bindings in which configurations differ.

  What follows from another difference is told once: a part of the model that
  only some of the configs have, with the same bindings wherever it is, is one
  line, `ctr/Task.*`.

  Args:
    members: list of Group.

  Returns:
    list of (name, list of value per group); None where it is not bound, and
    for a group without a config.
  """
  configs = [group.runs[0].config for group in members]
  names = sorted({name for config in configs if config
                  for name in config.bindings})
  whole, parts = [], collections.OrderedDict()
  for name in names:
    values = [config.bindings.get(name) if config else None
              for config in configs]
    bound = [value for value in values if value is not None]
    known = [value for value, config in zip(values, configs) if config]
    if len(set(known)) < 2:
      continue
    if len(set(bound)) == 1:  # the same wherever it is bound
      owner = name.rpartition('.')[0]
      where = tuple(value is not None for value in values)
      parts.setdefault((owner, where), []).append((name, values))
    else:
      whole.append((name, values))
  for (owner, where), found in parts.items():
    if len(found) == 1:
      whole += found
    else:
      whole.append((owner + '.*', [
          '%d bindings' % len(found) if is_bound else None
          for is_bound in where]))
  return sorted(whole)
