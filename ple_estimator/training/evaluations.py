"""The evaluations of a training: what early stopping and `best` go by.

They are in model_dir/evaluations.json, which is written whole after every
evaluation that training makes. An evaluation by --mode=evaluate, which may be
of other rows, is not among them.

  evaluations  list of dicts: the metrics of one evaluation, and its global_step
  best         dict of metric name to the global_step and value of its best;
               of a mean that counts, too: 'mean/auc', 'mean(ctr/auc, cvr/auc)'
  kept         the evaluation of the checkpoint in best/, or null
  exported     the evaluation of the newest SavedModel in export/best, or null
  stopped      why and at which global_step early stopping decided to end the
               training, and the rule it went by; or null
  ended        why and at which global_step training ended, or null
"""

import os

from absl import logging

from ple_estimator import files
from ple_estimator.training import comparison
from ple_estimator.training import metrics_file

_NAME = 'evaluations.json'
_MARKS = ('kept', 'exported', 'stopped', 'ended')


class Evaluations:
  """The evaluations of one model_dir, as the file has them."""

  def __init__(self, model_dir, means=()):
    """Reads nothing yet.

    Args:
      model_dir: str.
      means: list of str or tuple of str, see comparison.stored: what `write`
        names the best of, besides all metrics of the evaluations.
    """
    self._means = list(means)
    self._path = os.path.join(model_dir, _NAME)
    self._version = None
    self._list, self._marks = [], {}

  def read(self):
    """Reads the file if it has been written since it was read last."""
    try:
      found = os.stat(self._path)
    except OSError:
      self._version, self._list, self._marks = None, [], {}
      return
    version = found.st_ino, found.st_mtime_ns, found.st_size
    if version == self._version:
      return
    value = files.read_json(self._path, keys=['evaluations'])
    if not _is_whole(value):
      logging.warning(
          '%s cannot be read: early stopping and the best checkpoint begin '
          'anew.', self._path)
      value = {'evaluations': []}
    self._list = value['evaluations']
    self._marks = {name: value.get(name) for name in _MARKS}
    self._version = version

  def write(self):
    """Writes the file."""
    names = {name: name for of in self._list for name in of
             if comparison.is_known(name)}
    names.update((comparison.name_of(mean), mean) for mean in self._means)
    best = {name: (metric, self.best(metric))
            for name, metric in sorted(names.items())}
    files.write_json(self._path, dict(
        self._marks, evaluations=self._list,
        best={name: {'global_step': of['global_step'],
                     'value': comparison.value_of(of, metric)}
              for name, (metric, of) in best.items() if of}), indent=1)
    self._version = None

  def add(self, values):
    """Takes in an evaluation, in place of an older one of the same step.

    Args:
      values: dict of metric name to number, 'global_step' among them.

    Returns:
      dict, the evaluation as the file has it.
    """
    new = metrics_file.as_json(values)
    self._list = [of for of in self._list
                  if of['global_step'] != new['global_step']] + [new]
    self._version = None  # until it is written, the file is what counts
    return new

  def mark(self, name, value):
    """Sets one of _MARKS to an evaluation or another dict, or to None."""
    self._marks[name] = value
    self._version = None

  def marked(self, name):
    """What `mark` has set, or None."""
    return self._marks.get(name)

  @property
  def first(self):
    """The evaluation that was made first, a dict; None without any."""
    return self._list[0] if self._list else None

  @property
  def last(self):
    """The evaluation that was made last, a dict; None without any."""
    return self._list[-1] if self._list else None

  def values(self, metric):
    """A metric of all evaluations in their order, a list of float.

    Args:
      metric: str or tuple of str, see comparison.stored.
    """
    return [comparison.value_of(of, metric) for of in self._list]

  def best(self, metric):
    """The best evaluation by a metric, the earliest of equals.

    Args:
      metric: str or tuple of str, see comparison.stored.

    Returns:
      dict; None if there is none in which the metric is a number.
    """
    found = None
    for of in self._list:
      if comparison.is_better(metric, of, than=found):
        found = of
    return found

  def forget(self, step):
    """Drops what belongs to another training than one that begins at a step.

    Args:
      step: int, the global step of the checkpoint that training goes on from;
        0 if there is none.
    """
    later = [of for of in self._list if of['global_step'] > step]
    if not later and (step or not self._list):
      return
    logging.warning(
        'Training goes on from step %d: the evaluations after it (to step %d) '
        'no longer count for early stopping.', step,
        max(of['global_step'] for of in self._list))
    self._list = [of for of in self._list if of not in later]
    # It was decided by an evaluation, so that it is later only if that one is.
    stopped = self.marked('stopped')
    if stopped and stopped['global_step'] > step:
      self.mark('stopped', None)
    if not step:
      self._list, self._marks = [], {}
    self.write()


def _is_whole(value):
  """Whether what was read has the form that `write` gives it."""
  def is_evaluation(of):
    return isinstance(of, dict) and isinstance(of.get('global_step'), int) and (
        all(v is None or isinstance(v, (int, float)) for v in of.values()))

  return (isinstance(value, dict) and isinstance(value['evaluations'], list) and
          all(map(is_evaluation, value['evaluations'])) and
          all(value.get(name) is None or is_evaluation(value[name])
              for name in ('kept', 'exported')) and
          (value.get('stopped') is None or files.has_keys(
              value['stopped'],
              {'global_step': int, 'reason': str, 'rule': str})))
