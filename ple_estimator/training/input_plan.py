"""What a run reads next, made from what the checkpoint says was read.

A state says this of the files that a run names:

  files    of each its path or URI, size, date, a digest of its first and last
           bytes, and how many whole epochs of it have been trained
  last_step
           the global step at which all rows of the run will have been read
  part     the files of the epoch in hand, how many of its usable rows have been
           trained, and what gives their order: seed and shuffle_rows

The same files go on exactly: the epoch in hand from its next row, in the order
in which it was begun. Files that were not named before start at their first
row, after what is left of the old ones. A file is changed if its size differs,
or its date and its first or last bytes.
"""

import collections
import hashlib
import os

from ple_estimator import errors
from ple_estimator.data import read_plan
from ple_estimator.storage import sources
from ple_estimator.storage import uris

_DIGEST_BYTES = 64 << 10  # at each end of a file
_FILE_KEYS = {'path', 'size', 'mtime', 'digest', 'epochs'}
_PART_KEYS = {'paths', 'epoch', 'row', 'seed', 'shuffle_rows'}
_SHOWN = 3  # files that a line names

Plan = collections.namedtuple('Plan', ['parts', 'files', 'lines'])
Plan.__doc__ = """What to read.

Attributes:
  parts: list of read_plan.Part.
  files: dict of absolute path to what a state says of each file that is named,
    as it is before the first of the parts.
  lines: list of str, what is gone on with, for the log.
"""


def make(state, source, seed, on_changed_files, count_rows):
  """Plans what to read.

  Args:
    state: dict that `state_at` made, or None.
    source: inputs.FileInput, what is trained on.
    seed: int, of the order of files and rows.
    on_changed_files: 'error', 'restart' to read a changed file as a new one, or
      'ignore' to take it for the same.
    count_rows: function of a list of paths to the number of their rows.

  Returns:
    Plan.

  Raises:
    UserError: if a file has changed since it was read, and this is an error.
  """
  named = collections.OrderedDict(
      (uris.absolute(path), path) for path in source.paths())
  lines = []
  known = _known(state, named, on_changed_files, lines)
  # First: what it finds out of the part in hand belongs to the records.
  in_hand = _in_hand(state, known, source.epochs, count_rows, lines)
  files = dict(zip(named, sources.each(
      lambda path: _record(path, known.get(path)), list(named))))
  parts, rest = [], set(named)
  if in_hand:
    paths = [named[path] for path in in_hand['paths']]
    parts.append(read_plan.Part(
        paths, in_hand['epoch'], in_hand['row'], in_hand['epoch'] + 1,
        in_hand['seed'], in_hand['shuffle_rows']))
    parts.append(source.part(paths, in_hand['epoch'] + 1, seed))
    rest -= set(in_hand['paths'])
  for epoch in sorted({files[path]['epochs'] for path in rest}, reverse=True):
    paths = [named[path] for path in named
             if path in rest and files[path]['epochs'] == epoch]
    parts.append(source.part(paths, epoch, seed))
    if 0 < epoch < source.epochs:
      lines.append('goes on in epoch %d at row 0 of %s: %s' % (
          epoch + 1, '{:,}'.format(count_rows(paths)), _listed(paths)))
  new = [path for path in named if state and not any(
      path == found['path'] for found in state['files'])]
  if new:
    lines.append('new files: starts at their first row: %s' % _listed(new))
  return Plan([part for part in parts if part.epoch < part.stop], files, lines)


def state_at(plan, place):
  """What a state holds when a plan has been read up to a place.

  Args:
    plan: Plan.
    place: read_plan.Place.

  Returns:
    dict that JSON can hold; `last_step` is added by the caller.
  """
  epochs, in_hand = {}, None
  for i, part in enumerate(plan.parts[:place.part + 1]):
    read = part.stop if i < place.part else place.epoch
    epochs.update((uris.absolute(path), read) for path in part.paths)
    if i == place.part and place.row:
      in_hand = {
          'paths': [uris.absolute(path) for path in part.paths],
          'epoch': place.epoch, 'row': place.row, 'seed': part.seed,
          'shuffle_rows': part.shuffle_rows}
  return {'part': in_hand, 'files': [
      dict(found, epochs=epochs.get(path, found['epochs']))
      for path, found in sorted(plan.files.items())]}


def is_state(state):
  """Whether a value that was read from a file is a state."""
  if not isinstance(state, dict) or not isinstance(state.get('files'), list):
    return False
  part = state.get('part')
  dicts = state['files'] + ([part] if part is not None else [])
  if not all(isinstance(found, dict) for found in dicts):
    return False
  numbers = [state.get('last_step')] + [
      found[key] for found in dicts
      for key in _FILE_KEYS | _PART_KEYS if key in found and key not in (
          'path', 'paths', 'digest', 'mtime')]
  if not (all(_FILE_KEYS <= set(found) for found in state['files']) and
          (part is None or _PART_KEYS <= set(part) and
           isinstance(part['paths'], list))):
    return False
  paths = [found['path'] for found in state['files']] + (
      part['paths'] if part else [])
  return (all(isinstance(path, str) for path in paths) and
          all(isinstance(number, int) for number in numbers))


def _known(state, named, on_changed_files, lines):
  """What a state says of the files that are named and unchanged, by path."""
  known = {}
  for found in state['files'] if state else ():
    path = found['path']
    if path not in named:
      continue
    problem = on_changed_files != 'ignore' and _change(path, found)
    errors.check(
        not problem or on_changed_files == 'restart',
        '%s has changed since it was trained on: %s. Give files with new rows '
        "new names, or set Experiment.on_changed_files = 'restart' to train on "
        'changed files from their first row.', named[path], problem)
    if problem:
      lines.append('changed file: starts at its first row: %s (%s)' % (
          named[path], problem))
    else:
      known[path] = found
  return known


def _change(path, found):
  """In words, how a file differs from what a state says of it, or ''."""
  size, mtime = sources.stat(path)
  if size != found['size']:
    return 'it had %d bytes and has %d' % (found['size'], size)
  if mtime != found['mtime'] and _digest(path, size) != found['digest']:
    return 'it has another date and other bytes'
  return ''


def _in_hand(state, known, epochs, count_rows, lines):
  """The part that a state was in the middle of, or None.

  Returns:
    dict, as a state has it, only if all of its files are there as they were and
    rows of its epoch are still to be read.
  """
  part = state and state['part']
  if not part:
    return None
  where = 'epoch %d at row %s' % (part['epoch'] + 1, '{:,}'.format(part['row']))
  lacking = [path for path in part['paths'] if path not in known]
  if lacking:
    kept = [path for path in part['paths'] if path in known]
    lines.append('leaves off in %s of files that are no longer named, or have '
                 'changed: %s' % (where, _listed(lacking)))
    if kept:
      lines.append('repeats, because they were read together with these, rows '
                   'of that epoch: %s' % _listed(kept))
    return None
  rows = count_rows(part['paths'])
  if part['row'] >= rows:  # its end was not known when it was saved
    for path in part['paths']:
      known[path] = dict(known[path], epochs=part['epoch'] + 1)
    return None
  if part['epoch'] < epochs:
    lines.append('goes on in %s of %s: %s' % (
        where, '{:,}'.format(rows), _listed(part['paths'])))
    return part
  return None


def _record(path, known):
  """What a state says of a file; known is what it said before, or None."""
  size, mtime = sources.stat(path)
  if known:
    return dict(known, mtime=mtime)
  return {'path': path, 'size': size, 'mtime': mtime,
          'digest': _digest(path, size), 'epochs': 0}


def _digest(path, size):
  """A hash of the first and the last bytes of a file."""
  end = min(size, _DIGEST_BYTES)
  with sources.opened(path, 0, end) as f:
    found = hashlib.sha256(f.read(_DIGEST_BYTES))
  with sources.opened(path, max(end, size - _DIGEST_BYTES), size) as f:
    found.update(f.read(_DIGEST_BYTES))
  return found.hexdigest()


def _listed(paths):
  """Names some files, relative to the current folder where that is shorter."""
  names = [path if uris.is_remote(path) else min(
      path, os.path.relpath(path), key=len) for path in paths]
  more = len(names) - _SHOWN
  return ', '.join(names[:_SHOWN]) + (' and %d more' % more if more > 0 else '')
