"""Like columns in one line: 'names': 'I1:I63' stands for 63 of them."""

import re

from ple_estimator import errors

_MOST = 100_000  # columns of one range
_END = re.compile(r'(.*?)([0-9]+)([^0-9]*)$', re.S)
_WANTED = (
    "FeatureSpec.columns: 'names' must be a list of names, or a range whose "
    "ends differ only in their last number, such as 'I1:I63' or 'c01:c26', "
    'got %s.')


def expand(entry):
  """Returns the entries of FeatureSpec.columns that one entry stands for.

  Args:
    entry: dict. With 'name' it stands for itself. With 'names' in its place it
      stands for one column of each name. 'names' is a range, or a list of names
      and ranges. The range 'I8:I11' is I8, I9, I10 and I11; 'x08_a:x11_a' is
      x08_a, x09_a, x10_a and x11_a. A name that has a colon is written as
      'name'.

  Returns:
    list of dict, each with a 'name' that is a text.

  Raises:
    UserError: if there is no name, or 'names' is no such range or list.
  """
  written = errors.written(entry)
  if 'names' not in entry:
    errors.check('name' in entry, "FeatureSpec.columns, %s must have a 'name'.",
                 written)
    errors.check_text("FeatureSpec.columns: 'name'", entry['name'])
    return [entry]
  errors.check('name' not in entry, "FeatureSpec.columns, %s must have 'name' "
               "or 'names', got both.", written)
  entry = dict(entry)
  names = entry.pop('names')
  parts = names if isinstance(names, (list, tuple)) else [names]
  errors.check(
      parts and all(isinstance(part, str) and part for part in parts), _WANTED,
      errors.written(names))
  return [dict(entry, name=name) for part in parts for name in _names(part)]


def _names(part):
  """Returns the names that a range stands for; of a name, itself."""
  first, colon, last = part.partition(':')
  if not colon:
    return [part]
  first, last = _END.match(first), _END.match(last)
  errors.check(first and last and first.group(1, 3) == last.group(1, 3),
               _WANTED, errors.written(part))
  before, digits, behind = first.groups()
  numbers = range(int(digits), int(last.group(2)) + 1)
  errors.check(0 < len(numbers) <= _MOST, "FeatureSpec.columns: 'names' must "
               'be a range of 1 to %d columns, got %r.', _MOST, part)
  names = ['%s%0*d%s' % (before, len(digits), number, behind)
           for number in numbers]
  # 'I1:I063' would end in I63.
  errors.check(names[-1] == last.group(), _WANTED, errors.written(part))
  return names
