"""Columns that are written as one range: I1 to I63 is 'I1:I63'."""

import collections
import re

import numpy as np

from ple_estimator.commands.init import choosing
from ple_estimator.data.columns import ranges

_LEAST = 3  # columns of a range
_SHIFT = 0.25  # in standard deviations, between the means of like numbers
_STRETCH = 1.5  # between their standard deviations
_NUMBERED = re.compile(r'(.*?)([0-9]+)([^0-9]*)\Z', re.S)

# Columns of one entry: a list of choosing.Choice in the order of the file, and
# the Choice that stands for all of them, whose name is that of the range, or of
# the column if it is only one.
Group = collections.namedtuple('Group', 'members choice')


def grouped(choices):
  """Puts like columns that follow each other in file and number together.

  They are like if their kind and its arguments are the same. Numbers are also
  like if their means are less than a quarter of a standard deviation apart and
  the deviations differ by less than half; they are then standardised alike.

  Args:
    choices: list of choosing.Choice in the order of the file.

  Returns:
    list of Group.
  """
  groups, at = [], 0
  while at < len(choices):
    end = at + 1
    while end < len(choices) and _continue(choices[at:end], choices[end]):
      end += 1
    members = choices[at:end]
    name = '%s:%s' % (members[0].name, members[-1].name)
    if len(members) < _LEAST or not _is_range(name, members):
      groups += [Group([choice], choice) for choice in members]
    else:
      groups.append(Group(members, _together(name, members)))
    at = end
  return groups


def _continue(members, choice):
  """Whether a column can follow some of a range."""
  first = members[0]
  if not first.is_feature or (choice.kind, choice.stored) != (
      first.kind, first.stored):
    return False
  before, after = [_NUMBERED.match(c.name) for c in (members[-1], choice)]
  if not before or not after or int(after.group(2)) != int(
      before.group(2)) + 1 or before.group(1, 3) != after.group(1, 3):
    return False
  if choice.arguments == first.arguments:
    return True
  return choice.kind == 'number' and all(
      _are_alike(member.arguments, choice.arguments) for member in members)


def _are_alike(one, other):
  """Whether two numbers can be standardised in the same way."""
  least, most = sorted([one['std'], other['std']])
  return bool(
      one.get('log1p') == other.get('log1p') and most < _STRETCH * least and
      abs(one['mean'] - other['mean']) < _SHIFT * least)


def _is_range(name, members):
  """Whether a range stands for these columns and no others."""
  try:
    entries = ranges.expand({'names': name})
  except ValueError:  # such as I9:I010
    return False
  return [entry['name'] for entry in entries] == [
      member.name for member in members]


def _together(name, members):
  """The Choice of several like columns."""
  first = members[0]
  arguments, reason = collections.OrderedDict(first.arguments), first.reason
  if any(member.arguments != arguments for member in members):
    every = [member.arguments for member in members]
    means = np.array([of['mean'] for of in every])
    variances = np.array([of['std'] for of in every]) ** 2
    arguments['mean'] = choosing.short(means.mean())
    arguments['std'] = choosing.short(
        np.sqrt(variances.mean() + means.var()))
    arguments['clip'] = (min(of['clip'][0] for of in every),
                         max(of['clip'][1] for of in every))
    arguments['default'] = choosing.short(
        np.median([of['default'] for of in every]), *arguments['clip'])
    reason = 'numbers, %.7g to %.7g, which are standardised alike' % (
        arguments['clip'])
  return choosing.Choice(
      name, first.kind, arguments, '%d columns of one form: %s' % (
          len(members), reason), first.stored)
