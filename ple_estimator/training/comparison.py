"""What evaluations are compared by: a metric, or the mean of several.

A binding such as EarlyStopping.metric holds

  'ctr/auc', 'loss'         a metric as metrics.json has it,
  'mean/auc'                the mean over all tasks that have this metric, or
  ('ctr/auc', 'cvr/auc')    the mean of these metrics, all of which have to
                            improve in one direction.

A mean is not a number if one of its metrics is not. If a task is called mean,
'mean/auc' is the AUC of that task.
"""

import math

from ple_estimator import errors
from ple_estimator.metrics import chosen
from ple_estimator.network import losses
from ple_estimator.network import metrics

_MEAN = 'mean'


def check_form(binding, metric):
  """Raises UserError unless a binding holds a text, or a list of texts.

  Args:
    binding: str, e.g. 'EarlyStopping.metric'.
    metric: what it is bound to.
  """
  if not isinstance(metric, (list, tuple)):
    errors.check_text(binding, metric)
    return
  errors.check_list(
      binding, metric, lambda name: isinstance(name, str) and name,
      "metrics, such as ('ctr/auc', 'cvr/auc')")


def stored(metric):
  """A metric as the functions of this module take it: str or tuple of str."""
  return metric if isinstance(metric, str) else tuple(metric)


def check(binding, metric, tasks, more=()):
  """Raises UserError unless a binding names what evaluations of tasks have.

  Args:
    binding: str, e.g. 'EarlyStopping.metric'.
    metric: str or tuple of str, see `stored`.
    tasks: list of tasks.Task.
    more: names of further metrics of binary tasks, see Metrics.names.
  """
  names = (metric,) if isinstance(metric, str) else metric
  known = _known(tasks, more)
  for name in names:
    task, _, measure = name.partition('/')
    errors.check(
        name in known or isinstance(metric, str) and task == _MEAN and any(
            other.endswith('/' + measure) for other in known if measure),
        "%s must be 'loss' or a task (%s) and a metric of it, such as '%s', "
        "or a mean of these, such as '%s', got %r.%s", binding,
        ', '.join(task.name for task in tasks), known[1],
        _MEAN + '/' + known[1].partition('/')[2], name,
        ' Bind Metrics.names = [%r].' % measure if chosen.is_one(
            measure) else '')
  grow = [name for name in names if metrics.grows(name)]
  errors.check(
      len(grow) in (0, len(names)), '%s must not mix metrics that improve when '
      'they grow (%s) with others that improve when they fall (%s).', binding,
      ', '.join(grow), ', '.join(n for n in names if n not in grow))


def _known(tasks, more):
  """The metrics that evaluations of some tasks can be compared by."""
  return ['loss'] + [
      '%s/%s' % (task.name, measure) for task in tasks
      for measure in task.kind.measures + (
          tuple(more) if task.is_binary else ())]


def is_known(name):
  """Whether an entry of an evaluation is a metric to compare by."""
  return name == 'loss' or (
      name.count('/') == 1 and (name.split('/')[1] in losses.MEASURES or
                                chosen.is_one(name.split('/')[1])))


def name_of(metric):
  """A metric in words: 'ctr/auc', 'mean/auc', 'mean(ctr/auc, cvr/auc)'.

  Args:
    metric: str or tuple of str, see `stored`.
  """
  return metric if isinstance(metric, str) else '%s(%s)' % (
      _MEAN, ', '.join(metric))


def value_of(evaluation, metric):
  """The value of a metric, NaN where it has none.

  Args:
    evaluation: dict of metric name to number or None; or None.
    metric: str or tuple of str, see `stored`.

  Returns:
    float.
  """
  evaluation = evaluation or {}
  if isinstance(metric, str) and metric in evaluation:
    value = evaluation[metric]
    return math.nan if value is None else float(value)
  values = [value_of(evaluation, name) for name in _parts(evaluation, metric)]
  return math.fsum(values) / len(values) if values else math.nan


def is_better(metric, evaluation, than):
  """Whether an evaluation is better than another, NaN being the worst.

  Args:
    metric: str or tuple of str, see `stored`.
    evaluation: dict of metric name to number or None.
    than: the same, or None.
  """
  return metrics.is_better(
      metric if isinstance(metric, str) else metric[0],
      value_of(evaluation, metric), value_of(than, metric))


def _parts(evaluation, metric):
  """The names of the metrics in an evaluation that a mean is taken of."""
  if not isinstance(metric, str):
    return metric
  task, _, measure = metric.partition('/')
  return [name for name in evaluation if task == _MEAN and is_known(name) and
          name.endswith('/' + measure)]
