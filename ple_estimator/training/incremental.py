"""Incremental checkpoints hold only what has changed since a full checkpoint.

A delta is one such file. It holds the rows that steps have touched since the
previous delta, with their slots and counters, and all dense variables. Deltas
form a chain from a full checkpoint:

  model_dir/incremental/<step of the full checkpoint>/delta-<step>.json
  model_dir/incremental/<step of the full checkpoint>/delta-<step>.{index,data}

The .json is written last. It names the previous delta and the lengths of the
files. To restore, the chain is followed up to the first delta that is damaged
or missing, and the result is written as an ordinary checkpoint, equal to a full
one of that step:

  model_dir/incremental/<step of the full checkpoint>/merged/model.ckpt-<step>

So training, evaluation, prediction and export read ordinary checkpoints only.
Rows are evicted only when a full checkpoint is saved.
"""

import collections
import os
import re
import shutil
import time
import uuid

from absl import logging
import gin
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.cluster import marker
from ple_estimator.embeddings import keyed_table
from ple_estimator.embeddings import table_parts
from ple_estimator.engine import compat
from ple_estimator.optimizers import averaging
from ple_estimator.optimizers import touched_rows
from ple_estimator.training import checkpoints

_FOLDER = 'incremental'
_FILES = ('.index', '.data-00000-of-00001')


@gin.register
class IncrementalCheckpoint:
  """Saves deltas while training; see Experiment.incremental."""

  def __init__(self, save_secs=None, save_steps=None):
    """Checks and stores the hyperparameters; builds no graph.

    Args:
      save_secs: number, seconds between deltas.
      save_steps: int, global steps between deltas, instead of save_secs.

    Raises:
      UserError: unless one of the two is given, and positive.
    """
    errors.check_number('IncrementalCheckpoint.save_secs', save_secs, above=0,
                        or_none=True)
    errors.check_integer('IncrementalCheckpoint.save_steps', save_steps, 1,
                         or_none=True)
    errors.check((save_secs is None) != (save_steps is None),
                 'IncrementalCheckpoint.save_secs or IncrementalCheckpoint.'
                 'save_steps must be given, and not both, got %r and %r.',
                 save_secs, save_steps)
    self._save_secs = save_secs
    self._save_steps = save_steps

  def hook(self, model_dir, saver):
    """Returns the hook for the chief of a run.

    Args:
      model_dir: str.
      saver: saver.Saver of the full checkpoints.
    """
    return _Hook(model_dir, saver, tf.train.SecondOrStepTimer(
        every_secs=self._save_secs, every_steps=self._save_steps))


class _Hook(tf.train.SessionRunHook):
  """Saves a delta when one is due and no full checkpoint was saved instead."""

  def __init__(self, model_dir, saver, timer):
    self._model_dir = model_dir
    self._saver = saver
    self._timer = timer
    self._base = self._last = None

  def begin(self):
    self._path = tf.placeholder(tf.string, [])
    self._since = tf.placeholder(tf.int64, [])
    tensors = _changes(self._since)
    names = sorted(tensors)
    self._save = tf.raw_ops.SaveV2(
        prefix=self._path, tensor_names=names,
        shape_and_slices=[''] * len(names),
        tensors=[tensors[name] for name in names])

  def before_run(self, run_context):
    return tf.train.SessionRunArgs(tf.train.get_global_step())

  def after_run(self, run_context, run_values):
    session = run_context.session
    step = int(run_values.results)
    if self._saver.last_step is None:
      return
    if self._saver.last_step != self._base:  # a new chain begins
      self._base = self._last = self._saver.last_step
      self._timer.update_last_triggered_step(self._base)
      _clean(self._model_dir)
    # What the run has read is the step before or after its own.
    if not self._timer.should_trigger_for_step(step + 1):
      return
    step = int(session.run(tf.train.get_global_step()))
    if self._timer.should_trigger_for_step(step) and step > self._last:
      self._timer.update_last_triggered_step(step)
      self._write(session, step)

  def save(self, session, path, since):
    """Writes what has changed since a global step."""
    session.run(self._save, {self._path: path, self._since: since})

  def _write(self, session, step):
    self._saver.check(session, self._model_dir, step)
    path = _delta(self._model_dir, self._base, step)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    begin = time.time()
    if self._saver.input_state:
      self._saver.input_state.save(step)
    self.save(session, path, self._last)
    sizes = {suffix: os.path.getsize(path + suffix) for suffix in _FILES}
    files.write_json(path + '.json', {'previous': self._last, 'sizes': sizes})
    self._last = step
    logging.info('incremental checkpoint of step %d: %.1f MB in %.1f s', step,
                 sum(sizes.values()) / 1e6, time.time() - begin)


def _changes(since):
  """Returns what a delta holds: a dict of name to tensor; parts are joined.

  Args:
    since: int64 scalar, the global step of the previous delta.
  """
  pieces = collections.defaultdict(list)
  apart = set()
  for table in keyed_table.of_graph():
    for name, tensor in table.checkpoint.snapshot(since).items():
      pieces[table_parts.whole_name(name)].append(tensor)
    apart.update(id(v) for v in table.variables)
  for rows in touched_rows.of_graph():
    for name, tensor in rows.changes(since).items():
      pieces[name].append(tensor)
    apart.update(id(v) for v in rows.variables)
  for averages in averaging.of_graph():  # for `_merge`
    pieces[averaging.DECAY].append(tf.constant(averages.decay, tf.float64))
  others = [v for v in tf.global_variables() if id(v) not in apart]
  for variable in sorted(others, key=lambda v: compat.whole(v)[2]):
    name = compat.whole(variable)[0]
    if not (compat.is_copy(variable) and name in pieces):
      pieces[name].append(variable.read_value())
  return {name: of[0] if len(of) == 1 else tf.concat(of, axis=0)
          for name, of in pieces.items()}


def _delta(model_dir, base, step):
  return os.path.join(model_dir, _FOLDER, str(base), 'delta-%d' % step)


def _clean(model_dir):
  """Removes the deltas of full checkpoints that were deleted."""
  folder = os.path.join(model_dir, _FOLDER)
  full = {str(step) for step in files.checkpoint_steps(model_dir)}
  for base in os.listdir(folder) if os.path.isdir(folder) else ():
    if base not in full:
      shutil.rmtree(os.path.join(folder, base), ignore_errors=True)


def _chain(model_dir, base):
  """Lists the deltas after a full checkpoint, up to the first unusable one.

  Returns:
    list of int, their steps.
  """
  folder = os.path.join(model_dir, _FOLDER, str(base))
  saved = {int(step) for step in re.findall(
      r'delta-(\d+)\.', ' '.join(os.listdir(folder)))
           } if os.path.isdir(folder) else set()
  steps = []
  for step in sorted(saved):
    found = problem(_delta(model_dir, base, step), ([base] + steps)[-1])
    if found:
      logging.warning(
          'Incremental checkpoint of step %d %s: what was trained after step '
          '%d is lost.', step, found, ([base] + steps)[-1])
      break
    steps.append(step)
  return steps


def problem(path, previous):
  """What is wrong with a delta.

  Args:
    path: str, of the delta without an ending.
    previous: int, the global step of the state that it has to follow.

  Returns:
    str that goes on after 'the delta', or None if it can be used.
  """
  said = files.read_json(path + '.json', keys={'previous': int, 'sizes': dict})
  if said is None or not set(_FILES) <= set(said['sizes']):
    return 'cannot be read (%s.json is missing or cut)' % os.path.basename(path)
  try:
    if said['previous'] != previous:
      return 'follows that of step %d, which is missing' % said['previous']
    for suffix in _FILES:
      if os.path.getsize(path + suffix) != said['sizes'][suffix]:
        return 'is torn (%s)' % suffix
    reader = tf.train.load_checkpoint(path)
    for name in reader.get_variable_to_shape_map():
      reader.get_tensor(name)  # compares checksums
  except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
    return 'cannot be read (%s)' % type(error).__name__
  return None


def newest_step(model_dir):
  """Returns the global step of the newest state of a model_dir, or None.

  It is that of the newest delta, or else of the newest full checkpoint.
  """
  base = marker.latest_step(model_dir)
  if base is None:
    return None
  return ([base] + _chain(model_dir, base))[-1]


def merged(path):
  """Merges a full checkpoint and its deltas into the newest state.

  Args:
    path: str, of the full checkpoint, model_dir/model.ckpt-<step>.

  Returns:
    str, the path of a checkpoint of the ordinary form; `path` itself if there
    is no delta.
  """
  model_dir, base = os.path.dirname(path), files.checkpoint_step(path)
  steps = [] if base is None else _chain(model_dir, base)
  if not steps:
    return path
  target = files.checkpoint_path(
      os.path.join(model_dir, _FOLDER, str(base), 'merged'), steps[-1])
  found = checkpoints.problem(target)
  if found:
    if os.path.exists(target + '.index'):
      logging.warning('%s %s: it is made again.', files.shown(target), found)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    write(target, merge(read(path), [
        _delta(model_dir, base, step) for step in steps]))
    logging.info('Merged %d incremental checkpoints with the full one of step '
                 '%d: step %d.', len(steps), base, steps[-1])
  return target


def write(path, tensors):
  """Writes a checkpoint; its index comes last, so it is whole or not there.

  Several processes may write the same.

  Args:
    path: str, of the checkpoint.
    tensors: dict of name to numpy array.
  """
  partial = '%s.%s.partial' % (path, uuid.uuid4().hex)
  names = sorted(tensors)
  with tf.Graph().as_default(), tf.Session() as session:
    feeds = [tf.placeholder(tensors[name].dtype) for name in names]
    save = tf.raw_ops.SaveV2(
        prefix=partial, tensor_names=names,
        shape_and_slices=[''] * len(names), tensors=feeds)
    session.run(save, {feed: tensors[name]
                       for feed, name in zip(feeds, names)})
  for suffix in reversed(_FILES):
    os.replace(partial + suffix, path + suffix)


def merge(full, paths, only=False):
  """Replaces tensors, and rows of tables, by those of deltas.

  Args:
    full: dict of name to array, of a checkpoint; changed in place.
    paths: list of str, of the deltas that follow it.
    only: bool, whether to leave out what `full` does not have, such as slots
      that a SavedModel has not.

  Returns:
    dict of name to array, of a checkpoint of the last of them.
  """
  merged = full
  for path in paths:
    delta = read(path)
    if only:
      delta = {name: value for name, value in delta.items()
               if name in full or name.endswith('-rows') or (
                   name.endswith('-values') and name[:-len('-values')] in full)}
    keyed = [name[:-len('-keys')] for name in delta if name.endswith('-keys')]
    for name in keyed:
      merged.update(_merge_keyed(name, merged, delta))
    for name in [n for n in delta if n.endswith('-rows')]:
      rows = delta.pop(name)
      for part in [n for n in delta if n.startswith(name[:-len('-rows')]) and
                   n.endswith('-values') and n[:-len('-values')] in merged]:
        merged[part[:-len('-values')]][rows] = delta.pop(part)
    merged.update({name: value for name, value in delta.items()
                  if not any(_is_part(name, of) for of in keyed)})
  # The averages of a delta's rows are those of their last update.
  decay = merged.pop(averaging.DECAY, None)
  if decay is not None:
    merged.update(averaging.caught_up(merged, decay))
  return merged


def _is_part(name, table):
  """Whether a tensor belongs to a keyed table."""
  return re.match(re.escape(table) + r'(/\w+)?-\w+$', name)


def _merge_keyed(table, full, delta):
  """Returns the tensors of a keyed table with the rows of a delta in place."""
  merged = {}
  waits = table + '-keys_filtered'
  own = [n for n in delta if _is_part(n, table) and not n.endswith('_filtered')]
  waiting = [n for n in delta
             if _is_part(n, table) and n.endswith('_filtered')]
  for key_name, names in [(table + '-keys', own), (waits, waiting)]:
    if key_name not in delta:  # a SavedModel has no keys that wait
      continue
    keys = np.concatenate([delta[key_name], full[key_name]])
    keys, first = np.unique(keys, return_index=True)  # the delta's, if there
    if key_name == waits:  # a key with a row does not wait
      outside = ~np.isin(keys, merged[table + '-keys'])
      keys, first = keys[outside], first[outside]
    for name in names:
      merged[name] = np.concatenate([delta[name], full[name]])[first]
  return merged


def read(path):
  """Returns the tensors of a checkpoint or delta: a dict of name to array."""
  reader = tf.train.load_checkpoint(path)
  wholes = table_parts.joined(reader.get_variable_to_shape_map())
  return {name: table_parts.read(reader, of) for name, of in wholes.items()}
