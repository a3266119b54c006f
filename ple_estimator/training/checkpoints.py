"""Which full checkpoints a model_dir holds, and which of them are whole.

A checkpoint is whole if its index can be read, all of its parts are there, and
every variable has the checksum that the index says. To find out is to read all
of it, but for variables so large that this process may not have the room: those
TensorFlow checks when it restores them.

Training goes on from the newest whole checkpoint. What is damaged is moved to
model_dir/damaged/, where nobody looks for it and nothing writes over it: if it
is mended (a part was copied back, say) it can be moved back. Evaluation,
prediction and export name a damaged checkpoint instead, and end.
"""

import os
import re
import shutil

from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.cluster import marker

DAMAGED = 'damaged'  # a folder in model_dir

_FILE = re.compile(r'model\.ckpt-(\d+)\.(index|data-\d+-of-\d+)$')
_PART = re.compile(r'\.data-(\d+)-of-(\d+)$')
_LARGE = 2 << 30  # bytes of a variable that is left to the restore
# What TensorFlow raises, or its reader in Python, where a file is damaged.
_ERRORS = (tf.errors.OpError, ValueError, RuntimeError, LookupError, OSError)


def problem(path):
  """What is wrong with a checkpoint; reads all of it.

  Args:
    path: str, e.g. 'result/base/model.ckpt-20'.

  Returns:
    str that goes on after 'checkpoint x', or None if it is whole.
  """
  parts = [name for name in _files_of(path) if _PART.search(name)]
  if not os.path.exists(path + '.index'):
    return 'has no index (%s.index)' % os.path.basename(path) if parts else (
        'is missing')
  if not parts:
    return 'has no data (%s.data-*)' % os.path.basename(path)
  count = max(int(_PART.search(name).group(2)) for name in parts)
  for i in range(count):
    name = '%s.data-%05d-of-%05d' % (os.path.basename(path), i, count)
    if name not in parts:
      return 'lacks a part (%s)' % name
  try:
    reader = tf.train.load_checkpoint(path)
    types = reader.get_variable_to_dtype_map()
    shapes = reader.get_variable_to_shape_map()
  except _ERRORS:
    return 'has an index that cannot be read'
  if not shapes:
    return 'has an empty index'
  for name in sorted(shapes):
    if np.prod(shapes[name], dtype=np.int64) * types[name].size < _LARGE:
      try:
        reader.get_tensor(name)  # compares the checksum
      except _ERRORS:
        return 'is cut or changed: %s cannot be read' % name
  return None


def _files_of(path):
  """The names of the files of a checkpoint, whole or not."""
  folder = os.path.dirname(path) or '.'
  own = os.path.basename(path) + '.'
  return sorted(name for name in os.listdir(folder)
                if name.startswith(own) and _FILE.match(name)) if (
                    os.path.isdir(folder)) else []


def _named(model_dir):
  """marker.named_checkpoint, spelt as files.checkpoint_path spells it."""
  path = marker.named_checkpoint(model_dir)
  step = files.checkpoint_step(path) if path else None
  own = None if step is None else files.checkpoint_path(model_dir, step)
  return own if own and _is_in(path, model_dir) else path


def _is_in(path, model_dir):
  return os.path.realpath(os.path.dirname(path)) == os.path.realpath(model_dir)


def _steps(model_dir):
  """The global steps of which there are files, ascending."""
  found = map(_FILE.match, os.listdir(model_dir))
  return sorted({int(match.group(1)) for match in found if match})


def whole(model_dir):
  """The newest full checkpoint, to evaluate, predict or export.

  Args:
    model_dir: str.

  Returns:
    str, its path; None if there is none.

  Raises:
    UserError: if it is damaged; the message says which is whole.
  """
  named = _named(model_dir)
  path = named or marker.latest_checkpoint(model_dir)
  if path is None:
    return None
  if named is None:
    logging.warning('%s is missing or damaged: the newest checkpoint there is '
                    '%s.', files.shown(os.path.join(model_dir, 'checkpoint')),
                    os.path.basename(path))
  check(path)
  return path


def check(path):
  """Raises UserError if a checkpoint is damaged; says which is whole.

  Args:
    path: str, e.g. 'result/base/model.ckpt-20'.
  """
  found = problem(path)
  if found is None:
    return
  step = files.checkpoint_step(path)
  older = next(
      (other for other in reversed(files.checkpoint_steps(
          os.path.dirname(path)))
       if other != step and problem(files.checkpoint_path(
           os.path.dirname(path), other)) is None), None)
  raise errors.UserError('Checkpoint %s %s. %s' % (
      files.shown(path), found,
      'No other there is whole: copy it back, or train anew in another '
      'Experiment.model_dir.' if older is None else
      'Copy it back, or train again: training goes on from step %d, the newest '
      'that is whole.' % older))


def mend(model_dir, unusable=None, why='cannot be restored'):
  """Makes the newest whole checkpoint the one that training goes on from.

  For the process that saves, before it looks for a checkpoint.

  Args:
    model_dir: str.
    unusable: str, the path of a checkpoint that cannot be used though it looks
      whole, or None.
    why: str, what is wrong with it.

  Returns:
    str, the path of the checkpoint, or None if training starts at step 0.

  Raises:
    UserError: if there are checkpoints and none is whole.
  """
  named = _named(model_dir)
  paths = [files.checkpoint_path(model_dir, step)
           for step in _steps(model_dir)]
  damaged, good = {}, None
  # The one that `checkpoint` names comes first, as with TensorFlow.
  for path in [named] * bool(named) + [p for p in paths[::-1] if p != named]:
    found = why if path == unusable else problem(path)
    if found is None:
      good = path
      break
    damaged[path] = found
  damaged = dict(_unfinished(paths, good), **damaged)
  by_step = {files.checkpoint_step(path) or 0: path for path in damaged}
  if good is None and by_step and max(by_step):
    _refuse(by_step, damaged)
  for step in sorted(by_step):
    if _is_in(by_step[step], model_dir):
      _set_aside(model_dir, step, damaged[by_step[step]])
  _say(model_dir, good, by_step, named)
  return good


def leave_out(path):
  """Makes training go on before a checkpoint whose model has diverged.

  Its files go to damaged/, unless no older checkpoint is whole. For the process
  that saves.

  Args:
    path: str, of the newest checkpoint.

  Returns:
    str, a sentence on where training goes on; '' if nothing was changed.
  """
  if not files.checkpoint_step(path):  # not even trained
    return ''
  try:
    good = mend(os.path.dirname(path), path, 'gives values that are not finite')
  except errors.UserError:  # no other is whole
    return ''
  return (' This checkpoint is now in %s; the same command goes on from that '
          'of step %d.' % (
              files.shown(os.path.join(os.path.dirname(path), DAMAGED)),
              files.checkpoint_step(good)))


def _unfinished(paths, good):
  """Checkpoints after the one to go on from that lack an index."""
  step = files.checkpoint_step(good) if good else None
  return {} if step is None else {
      path: 'was not saved to its end' for path in paths
      if files.checkpoint_step(path) > step and
      not os.path.exists(path + '.index')}


def _refuse(by_step, damaged):
  path = by_step[max(by_step)]
  raise errors.UserError(
      'Experiment.model_dir must hold a whole checkpoint, or none: %s %s%s. '
      'Copy its files back, or choose another Experiment.model_dir to train '
      'anew.' % (
          files.shown(path), damaged[path],
          ', and %d others are damaged too' % (len(damaged) - 1)
          if len(damaged) > 1 else ''))


def _set_aside(model_dir, step, found):
  """Moves what belongs to a damaged checkpoint to model_dir/damaged/."""
  names = _files_of(files.checkpoint_path(model_dir, step))
  names += [name for name in (
      os.path.join('incremental', str(step)),
      os.path.join('work_queue', 'state-%d.json' % step))
            if os.path.exists(os.path.join(model_dir, name))]
  folder = os.path.join(model_dir, DAMAGED, 'model.ckpt-%d' % step)
  number = 1
  while os.path.exists(folder):
    number += 1
    folder = os.path.join(
        model_dir, DAMAGED, 'model.ckpt-%d-%d' % (step, number))
  if names:
    os.makedirs(folder)
  for name in names:
    shutil.move(os.path.join(model_dir, name),
                os.path.join(folder, os.path.basename(name)))
  logging.warning('Checkpoint %d %s.%s', step, found,
                  ' Its files are now in %s.' % files.shown(folder)
                  if names else '')


def _say(model_dir, good, by_step, named):
  """Writes the file `checkpoint` if it is wrong; says what is lost."""
  state = os.path.join(model_dir, 'checkpoint')
  if good is None:
    if by_step:
      logging.warning('No checkpoint is whole: training starts at step 0.')
    if os.path.exists(state):  # it names what is not there
      os.makedirs(os.path.join(model_dir, DAMAGED), exist_ok=True)
      os.replace(state, os.path.join(model_dir, DAMAGED, 'checkpoint'))
    return
  step = files.checkpoint_step(good)
  lost = [other for other in by_step if other > step]
  if lost:
    logging.warning('Training goes on from the checkpoint of step %d, the '
                    'newest that is whole: what was trained from there up to '
                    'step %d is lost.', step, max(lost))
  newer = [other for other in files.checkpoint_steps(model_dir) if other > step]
  if newer:
    logging.warning('%s names step %d: the checkpoint of step %d is not used, '
                    'and will be replaced.', files.shown(state), step,
                    newer[-1])
  if good == named:
    return
  if not named:
    logging.warning('%s is missing or damaged: training goes on from the '
                    'newest whole checkpoint there, of step %d.',
                    files.shown(state), step)
  kept = [other for other in files.checkpoint_steps(model_dir)
          if other <= step]
  # As TensorFlow writes it with save_relative_paths; the older ones are those
  # that it removes in time.
  files.write_text(state, ''.join(
      '%s: "model.ckpt-%d"\n' % line
      for line in [('model_checkpoint_path', step)] + [
          ('all_model_checkpoint_paths', other) for other in kept]))


def translator(model_dir):
  """Makes the function that turns an error of a restore into a UserError.

  Args:
    model_dir: str.

  Returns:
    function of an exception to a UserError, or to None if it does not come of
    a damaged checkpoint.
  """
  def translate(error):
    if not isinstance(error, (
        tf.errors.DataLossError, tf.errors.OutOfRangeError,
        tf.errors.NotFoundError)) or 'model.ckpt-' not in str(error):
      return None
    try:
      whole(model_dir)
    except errors.UserError as found:
      return found
    return None
  return translate
