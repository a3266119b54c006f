"""WarmStart: a new model starts from the variables of an older one.

It is used once, where model_dir has no checkpoint yet: the variables get their
initial values, those that the other model has are put in their place, and the
result is saved as the checkpoint of step 0. What became of each variable is
logged as a table, and is in model_dir/warm_start.json.
"""

import collections
import os
import re
import shutil
import tempfile

from absl import logging
import gin
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.cluster import marker
from ple_estimator.embeddings import keyed_table
from ple_estimator.optimizers import averaging
from ple_estimator.training import checkpoints
from ple_estimator.training import exports
from ple_estimator.training import incremental
from ple_estimator.training import keyed_transfer
from ple_estimator.training import known_values
from ple_estimator.training import layout as layout_lib
from ple_estimator.training import transfer

_REPORT = 'warm_start.json'
_BEST = 'best'
_BIASES = ('%s/tower/logit/bias', '%s/bias')  # of a task


@gin.register
class WarmStart:
  """What a new model takes from an older one; see Experiment.warm_start."""

  def __init__(self, source=gin.REQUIRED, checkpoint=None, include=(),
               exclude=(), renames=None, columns=None, slots=True,
               averages=True, keys_from_input=True):
    """Checks and stores the arguments; opens nothing.

    A pattern is a regular expression that is looked for in the name of a
    variable, e.g. '^level_0/' or '/tower/'. Names are those of this model in a
    checkpoint, as the table in the log has them.

    Args:
      source: str, the model_dir of the older model, or the path of one of its
        checkpoints, such as 'result/base/model.ckpt-20'.
      checkpoint: 'best' or 'last', which one of a model_dir; None is the best
        if there is one, and otherwise the last.
      include: list of patterns: only variables in whose names one of them is
        found are taken; () takes all.
      exclude: list of patterns of variables that are not taken.
      renames: dict of pattern to what is put in its place: the name of a
        variable here becomes its name in the older model. {'^video/': 'ctr/'}
        starts the tower of the task video from that of ctr.
      columns: dict of the name of a column here to its name there.
      slots: bool, whether the optimizer's slots are taken, where the older
        optimizer has slots of the same names; else they start anew.
      averages: bool, whether weights start from the averages of the older
        model, which are what it was evaluated by (Model.averaging), where it
        has any; False takes the weights as they were trained.
      keys_from_input: bool, what to do for a column whose rows were those of
        hash buckets and now belong to values (EmbeddingVariable): True reads
        the training files once, and each value in them gets a row that starts
        from that of its bucket; False starts without rows.

    Raises:
      UserError: if a value is out of range.
    """
    errors.check_text('WarmStart.source', source)
    files.check_local('WarmStart.source', source, is_read=True)
    if checkpoint is not None:
      errors.check_choice('WarmStart.checkpoint', checkpoint, (_BEST, 'last'))
    for name, value in [('include', include), ('exclude', exclude)]:
      errors.check_list('WarmStart.' + name, value, _is_pattern,
                        "patterns, such as ['^level_0/']", may_be_empty=True)
    _check_names('WarmStart.renames', renames, _is_pattern,
                 "{'^video/': 'ctr/'}")
    _check_names('WarmStart.columns', columns, lambda name: True,
                 "{'item': 'ad'}")
    for name, value in [('slots', slots), ('averages', averages),
                        ('keys_from_input', keys_from_input)]:
      errors.check_bool('WarmStart.' + name, value)
    self._given = source
    self._checkpoint = checkpoint
    self._include, self._exclude = list(include), list(exclude)
    self._renames = collections.OrderedDict(renames or {})
    self._columns = dict(columns or {})
    self._slots = slots
    self._averages = averages
    self._keys_from_input = keys_from_input

  # ------------------------------------------------------------ the source

  def find(self, model_dir):
    """Finds the checkpoint to start from.

    Args:
      model_dir: str, of the new run.

    Returns:
      (path, folder): the checkpoint, and the model_dir that it is of.

    Raises:
      UserError: if there is none, it is damaged, or it is in model_dir itself.
    """
    given = self._given.rstrip('/') or '/'
    if os.path.isdir(given):
      path, folder = self._newest(given), given
    else:
      errors.check(
          os.path.isfile(given + '.index'), 'WarmStart.source must be a '
          'model_dir or the path of a checkpoint without an ending, such as '
          "'result/base/model.ckpt-20', got %r, where there is none.", given)
      errors.check(
          self._checkpoint is None, 'WarmStart.checkpoint must be None where '
          'WarmStart.source is a checkpoint, got %r.', self._checkpoint)
      checkpoints.check(given)
      path, folder = given, os.path.dirname(given) or '.'
      if os.path.basename(os.path.abspath(folder)) == _BEST:
        folder = os.path.dirname(os.path.abspath(folder))
    errors.check(
        os.path.realpath(folder) != os.path.realpath(model_dir),
        'WarmStart.source must be another folder than Experiment.model_dir, '
        'got %r: training goes on from a checkpoint of its own without it.',
        self._given)
    return path, folder

  def _newest(self, folder):
    """The checkpoint of a model_dir that the arguments ask for."""
    best = exports.best_checkpoint(folder)
    errors.check(
        best or self._checkpoint != _BEST, "WarmStart.checkpoint = 'best' "
        'needs a training with evaluations, which keeps it in %s: there is '
        "none. Choose 'last'.", os.path.join(folder, _BEST))
    if best and self._checkpoint != 'last':
      checkpoints.check(best)
      return best
    path = checkpoints.whole(folder)
    errors.check(path, 'WarmStart.source must hold a checkpoint, got %r, where '
                 'there is none.', self._given)
    return incremental.merged(path)

  def kept_biases(self, model_dir, tasks):
    """Which biases of logits are not to be set by the first step.

    Args:
      model_dir: str, of the new run.
      tasks: names of its tasks.

    Returns:
      list of the names of tasks.
    """
    step = marker.latest_step(model_dir)
    if step is not None:  # at step 0 if it was killed there
      said = files.read_json(os.path.join(model_dir, _REPORT),
                             keys={'biases': list})
      return said['biases'] if said and not step else []
    source = transfer.Source(self.find(model_dir)[0], None, self._averages)
    return [task for task in tasks if any(
        not self._refusal(name) and self._there(name) in source
        for name in [form % task for form in _BIASES])]

  def _refusal(self, name):
    """Why a variable is not wanted, or ''."""
    for pattern in self._exclude:
      if re.search(pattern, name):
        return 'WarmStart.exclude'
    if self._include and not any(re.search(p, name) for p in self._include):
      return 'is not in WarmStart.include'
    return ''

  def _there(self, name):
    """The name in the older model of a variable of this one."""
    for pattern, other in self._renames.items():
      name = re.sub(pattern, other, name)
    return name

  # -------------------------------------------------------------- the start

  def init_fn(self, saver, model, train_input, model_dir):
    """What a tf.train.Scaffold calls if there was no checkpoint to restore.

    Args:
      saver: saver.Saver of the training graph.
      model: model.Model.
      train_input: inputs.FileInput.
      model_dir: str.

    Returns:
      function of (scaffold, session).
    """
    def start(scaffold, session):
      del scaffold
      path, folder = self.find(model_dir)
      own = tempfile.mkdtemp(dir=model_dir, prefix='warm_start-')
      try:
        saver.write(session, os.path.join(own, 'initial'))
        tensors = incremental.read(os.path.join(own, 'initial'))
        report = self._transfer(path, folder, model, train_input, tensors,
                                _starts(session))
        incremental.write(os.path.join(own, 'started'), tensors)
        saver.fill(session, os.path.join(own, 'started'))
      finally:
        shutil.rmtree(own, ignore_errors=True)
      biases = self.kept_biases(model_dir, [t.name for t in model.tasks])
      files.write_json(os.path.join(model_dir, _REPORT),
                       dict(report, biases=biases), indent=1)

    return start

  def _transfer(self, path, folder, model, train_input, tensors, starts):
    """Changes the tensors that a new model starts with; logs the table.

    Returns:
      dict, what warm_start.json is to hold.
    """
    here, there = layout_lib.of(model), layout_lib.read(folder)
    if there:
      there = layout_lib.renamed(
          there, {of: name for name, of in self._columns.items()})
    source = transfer.Source(path, there, self._averages)

    def known(group, layout):
      return _known(model, train_input, group, layout)

    keyed = keyed_transfer.Keyed(
        source, here, self._there, self._slots, starts,
        known if self._keys_from_input else None)
    lines = transfer.Transfer(
        source, here, self._there, self._refusal, self._slots, keyed).run(
            tensors)
    left = [name for name in transfer.owners(set(source.names()))
            if name not in transfer.NEVER and not any(
                used == name or transfer.owner_of(
                    used, set(source.names()))[0] == name
                for used in source.used)]
    _say(path, source, lines, left, self._averages)
    return {'source': os.path.abspath(path), 'not_used': left,
            'variables': [dict(line._asdict()) for line in lines]}


def _check_names(binding, value, is_name, example):
  errors.check(
      value is None or isinstance(value, dict) and all(
          isinstance(name, str) and name and is_name(name) and
          isinstance(other, str) for name, other in value.items()),
      '%s must be a dict of texts, such as %s, or None, got %s.', binding,
      example, errors.written(value))


def _is_pattern(value):
  if not isinstance(value, str) or not value:
    return False
  try:
    re.compile(value)
  except re.error:
    return False
  return True


def _starts(session):
  """What rows of keyed tables start with, see keyed_transfer.Keyed."""
  starts = {}
  for table in keyed_table.of_graph(session.graph):
    if table.state.part == 0:
      starts[table.state.whole_name] = dict(
          session.run(table.state.slots.starts()), stddev=table.stddev)
  return starts


def _known(model, train_input, group, layout):
  """The values of a group whose columns had buckets, see known_values.read."""
  made = next(g for g in model.groups if g.name == group['name'])
  buckets = {}
  for column in group['columns']:
    of, there, _ = transfer.find_column(layout, column['name'])
    if of and not of['keyed']:
      buckets[column['name']] = there['num_buckets']
  logging.info('Reading the values of %s in the training files, which get rows '
               'of their own.', ', '.join(buckets))
  return known_values.read(
      train_input, model.features, made, buckets, model.is_fused())


# ---------------------------------------------------------------- the table


def _say(path, source, lines, left, averages):
  """Logs what was taken, what was not, and why."""
  step = int(source.read(tf.GraphKeys.GLOBAL_STEP))
  has = averaging.START in source
  logging.info(
      'Starting from %s, trained to step %d; weights start from %s. The global '
      'step starts at 0.', files.shown(path), step,
      'its averages' if averages and has else
      'its weights: it has no averages' if averages else 'its weights')
  if source.layout is None:
    logging.warning(
        'There is no layout.json beside %s, which training writes: tables and '
        'first layers are taken only if they have the same shape.',
        files.shown(path))
  rows = [('variable', 'taken', 'slots', 'from', 'why')] + _shortened(lines)
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
  for row in rows:
    logging.info('%s', '  '.join(
        [text.ljust(width) for text, width in zip(row, widths)] +
        [row[-1]]).rstrip())
  if left:
    logging.info('Not in this model: %s', ', '.join(left))


def _shortened(lines):
  """One row of text for the variables of a scope with one and the same fate."""
  scopes = collections.OrderedDict()
  for line in lines:
    scope, _, name = line.name.rpartition('/')
    source = line.source.rpartition('/')[0] if (
        line.source.rpartition('/')[2] == name) else line.source
    key = (scope, source, line.taken, line.slots, line.why)
    scopes.setdefault(key, []).append(line)
  # The parts of a layer are one row; so are the layers of a network.
  rows = []
  for (scope, source, taken, slots, why), of in scopes.items():
    first = of[0]
    name = first.name if len(of) == 1 else '%s/* (%d)' % (scope, len(of))
    there = first.source if len(of) == 1 else source and source + '/*'
    rows.append((name, taken, slots, there if first.source != first.name
                 else '', why))
  return rows
