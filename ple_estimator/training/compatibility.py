"""Checks that the checkpoint in a model_dir is of the model of a graph."""

import ast
import collections
import os
import re

from absl import logging
import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.cluster import marker
from ple_estimator.embeddings import deeprec
from ple_estimator.embeddings import keyed_table
from ple_estimator.embeddings import table_parts
from ple_estimator.engine import compat
from ple_estimator.gin_files import operative
from ple_estimator.optimizers import averaging
from ple_estimator.training import saver

_SHOWN = 4

_SHOWN_VALUE = 60

_BINDING = re.compile(r'^([\w./]+\.\w+) = (.*(?:\n .*)*)$', re.M)


_VOCABULARIES = 'vocabularies.json'  # in a model_dir: digests of their files


# Bindings that define a model beyond the shapes of its variables. If one of
# them differs, the checkpoint is of another model.
_IDENTITY = re.compile(
    r'(\w+/)*((PLE|Tower|Attention)\.(?!dropout$|l2$)|FeatureSpec\.|'
    r'(Product)?Task\.(label|loss|of|negative_rate)$|Tweedie\.|'
    r'MultiClass\.(?!class_weights$)|AIT\.(?!calibrator_weight$)|'
    r'MultiHashEmbedding\.(operation|rows)$|'
    r'Model\.interactions$|(Wide|FM|FwFM|Binned)\.(?!l2$)|'
    r'(DotProducts|CrossNet)\.|BatchNorm\.epsilon$|'
    r'UncertaintyWeights\.scale$|DynamicWeightAverage\.window_steps$)')


# Bindings that can be the reason for another shape or name; shown in the error.
_RELATED = re.compile(r'(\w+/)*(Model|\w*Embedding\w*)\.')


# Tensors that only training needs.
_KEYED_TRAINING_ONLY = re.compile(
    r'-(freqs|versions|(keys|freqs|versions)_filtered)$|/counters$')


_TRAINING_ONLY = ('signal_early_stopping/STOP', 'beta1_power', 'beta2_power')
_BALANCING = 'balancing/'  # the variables of Model.balancing


# What training with Model.averaging adds to a checkpoint.
_AVERAGES = re.compile('(%s|%s)(-values)?$|%s$' % (
    averaging.SUFFIX, averaging.STEP, averaging.START))


def check(model_dir, training, path=None, averages=False):
  """Compares the model of a graph with that of a checkpoint.

  Args:
    model_dir: str; one without a checkpoint passes.
    training: bool, whether the graph has the variables of the optimizer.
    path: str, the checkpoint; None is the newest of model_dir.
    averages: bool, whether the weights are averaged, or averages are read.

  Raises:
    UserError: if the checkpoint lacks a variable, has one more, or has one of
      another shape, or if a binding that defines the model differs. The
      message names the variables and bindings.
  """
  path, owner = path or marker.latest_checkpoint(model_dir), path or model_dir
  if path is None:
    return
  saved = dict(tf.train.list_variables(path))
  saved = {whole: saved[of[0]]
           for whole, of in table_parts.joined(saved).items()}
  # The network's own variables before the optimizer's.
  variables = sorted(
      saver.plain_variables(), key=lambda v: (not v.trainable, v.op.name))
  wanted = collections.OrderedDict(
      compat.whole(v)[:2] for v in variables if not deeprec.owns(v.op.name))
  for table in keyed_table.of_graph():
    wanted.update(table.checkpoint.shapes())
  for variable in deeprec.variables():
    wanted[variable.op.name + '-keys'] = [None]
    wanted[variable.op.name + '-values'] = [None] + variable.shape.as_list()
  saved, wanted = _compare_averages(saved, wanted, training, averages, owner)
  lacking = [name for name in wanted if name not in saved]
  shapes = [name for name in wanted
            if name in saved and not _fits(saved[name], wanted[name])]
  more = [name for name in sorted(saved) if name not in wanted and
          name not in _TRAINING_ONLY and not deeprec.owns(name) and
          (training or not _is_training_only(name, saved))]
  changed = (_changed_bindings(model_dir) if _is_inside(path, model_dir)
             else [])
  if not (lacking or shapes or more or
          any(_IDENTITY.match(name) for name, _ in changed)):
    return
  problems = ['lacks %s' % _some(lacking)] if lacking else []
  problems += ['has %s of shape %s, not %s' % (
      name, saved[name], wanted[name]) for name in shapes[:_SHOWN]]
  own = [name for name in more if not _is_slot(name, saved)]
  problems += ['has %s besides' % _some(own or more)] if more else []
  problems += ['was trained with %s' % text for _, text in changed]
  raise errors.UserError(
      '%s holds another model: it %s. Choose another Experiment.model_dir, '
      'delete this one, or go back to its bindings.' % (
          owner, '; it '.join(problems)))


def check_vocabularies(model_dir, columns, path=None, write=False):
  """Compares the files of vocabularies with those that a model was trained by.

  A file that has other values, or another order, gives its ids another meaning,
  and no binding or shape need differ.

  Args:
    model_dir: str.
    columns: list of category columns of the model.
    path: str, the checkpoint that is read; None is the newest of model_dir.
    write: bool, whether to note the files for later runs.

  Raises:
    UserError: if model_dir has a checkpoint of another vocabulary.
  """
  found = {column.name: {'file': column.file, 'digest': column.digest()}
           for column in columns if getattr(column, 'file', None)}
  noted = os.path.join(model_dir, _VOCABULARIES)
  path = path or marker.latest_checkpoint(model_dir)
  if path and _is_inside(path, model_dir):
    before = files.read_json(
        noted, default={'columns': {}}, keys={'columns': dict})['columns']
    for name in sorted(set(found) & set(before)):
      errors.check(
          found[name]['digest'] == before[name]['digest'], '%s holds another '
          'model: it was trained with other values of the column %r, whose '
          'vocabulary was %r, now %r. Choose another Experiment.model_dir, or '
          'go back to that vocabulary.', path, name, before[name]['file'],
          found[name]['file'])
  if write and found:
    files.write_json(noted, {'columns': found}, indent=1)


def _is_inside(path, model_dir):
  """Whether a checkpoint is in a model_dir, or is the best one there."""
  return _folder(path) in (
      _folder(os.path.join(model_dir, at, 'x')) for at in ('', 'best'))


def _compare_averages(saved, wanted, training, averages, owner):
  """Leaves out the averages that only the checkpoint or only the graph has.

  Args:
    saved: dict of name to shape, of the checkpoint.
    wanted: dict of name to shape, of the graph.
    training: bool.
    averages: bool.
    owner: str, where the checkpoint is.

  Returns:
    (saved, wanted), without what need not be in the other.

  Raises:
    UserError: if averages are to be read, and there are none.
  """
  has = averaging.START in saved
  errors.check(
      has or training or not averages, '%s has no averaged weights, because it '
      'was trained without Model.averaging. Bind Model.averaging = None to '
      'read its weights as they are.', owner)
  if has and not averages:
    logging.info('The averaged weights of %s are not %s: Model.averaging is '
                 'None.', owner, 'kept' if training else 'read')
  if has == averages and training:
    return saved, wanted
  return tuple(collections.OrderedDict(
      (name, shape) for name, shape in of.items()
      if not _AVERAGES.search(name)) for of in (saved, wanted))


def _folder(path):
  return os.path.dirname(os.path.abspath(path))


def _is_training_only(name, saved):
  """Whether a tensor is for training only: of a table, optimizer, balancing."""
  return (bool(_KEYED_TRAINING_ONLY.search(name)) or
          name.startswith(_BALANCING) or _is_slot(name, saved))


def _is_slot(name, saved):
  """Whether a variable is an optimizer's, named after the one it belongs to."""
  owner = name.rpartition('/')[0]
  return owner in saved or owner + '-keys' in saved


def _fits(shape, wanted):
  return len(shape) == len(wanted) and all(
      size in (None, saved) for saved, size in zip(shape, wanted))


def _some(names):
  text = ', '.join(names[:_SHOWN])
  rest = len(names) - _SHOWN
  return text + (' and %d more' % rest if rest > 0 else '')


def _changed_bindings(model_dir):
  """Compares the bindings in force with the last operative config there.

  Returns:
    list of (name, text) such as ('PLE.num_levels', 'PLE.num_levels = 3, now
    2'), of those bindings that concern the model.
  """
  path = operative.newest(model_dir)
  if not path:
    return []
  with open(path, errors='replace') as f:
    then = dict(_BINDING.findall(f.read()))
  now = dict(_BINDING.findall(gin.operative_config_str()))
  return [(name, '%s = %s, now %s' % (
      (name,) + tuple(map(_short, _differing(then[name], now[name])))))
          for name in sorted(set(then) & set(now))
          if then[name] != now[name] and (
              _IDENTITY.match(name) or _RELATED.match(name))]


def _differing(then, now):
  """Two texts of a binding; of long lists only the items that differ."""
  if max(len(then), len(now)) <= _SHOWN_VALUE:
    return then, now
  try:
    lists = [ast.literal_eval(' '.join(text.replace('\\\n', ' ').split()))
             for text in (then, now)]
  except (SyntaxError, ValueError):  # has a macro or an object
    return then, now
  if not all(isinstance(items, (list, tuple)) for items in lists):
    return then, now
  return tuple(repr([item for item in lists[i] if item not in lists[1 - i]])
               for i in (0, 1))


def _short(value):
  value = ' '.join(value.replace('\\\n', ' ').split())
  if len(value) <= _SHOWN_VALUE:
    return value
  return value[:_SHOWN_VALUE] + '...'
