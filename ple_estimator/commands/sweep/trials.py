"""Trials: a point of the space as an experiment with a name."""

import collections
import hashlib
import json
import re
import shlex

_LONGEST_NAME = 80
_BARE = re.compile(r'[+-]?\.?\d[\d.]*(e[+-]?\d+)?$|True$|False$|None$')
_NAME_OF_ALL = 'trial'  # where nothing is swept but the seed

Trial = collections.namedtuple('Trial', ['name', 'point', 'files', 'lines'])
Trial.__doc__ = """One combination of what is swept.

Attributes:
  name: str, of its folder.
  point: OrderedDict, see space.
  files: list of str, its .gin files.
  lines: list of str, its lines of gin.
"""


def make(sweep, point, others):
  """Returns the Trial of a point.

  Args:
    sweep: sweep.Sweep.
    point: OrderedDict, see space.
    others: list of Trial, whose names are taken.
  """
  files, lines = sweep.space.parts(point)
  name = _name(point)
  if len(name) > _LONGEST_NAME or name in [other.name for other in others]:
    digest = hashlib.sha256(json.dumps(point).encode()).hexdigest()[:8]
    name = '%s-%s' % (name[:_LONGEST_NAME], digest)
  return Trial(name, point, sweep.files + files, sweep.lines + lines)


def _name(point):
  words = []
  for dimension, value in point.items():
    text = re.sub(r'[^\w.=+-]+', '_', str(value)).strip('_')
    if isinstance(value, str) and not _BARE.match(value):
      words.append(text)
    else:  # says nothing without its parameter
      words.append('%s=%s' % (dimension.rpartition('.')[2], text))
  return '-'.join(words).strip('.') or _NAME_OF_ALL


def command(trial, lines=(), mode='train'):
  """The words of the command line that trains a trial.

  Args:
    trial: Trial.
    lines: further lines of gin.
    mode: str, --mode.

  Returns:
    list of str, what follows `ple-estimator`.
  """
  return (['--gin_file=' + path for path in trial.files] +
          ['--gin_bindings=' + line for line in trial.lines + list(lines)] +
          ([] if mode == 'train' else ['--mode=' + mode]))


def shown(words):
  """Words of a command line as they are typed in a shell."""
  return ' '.join(map(shlex.quote, words))
