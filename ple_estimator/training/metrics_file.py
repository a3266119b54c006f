"""metrics.json and test.json, and metrics that are no numbers."""

import math
import os

from absl import logging

from ple_estimator import errors
from ple_estimator import files
from ple_estimator.metrics import chosen

# What to do about a loss or a prediction that is not finite.
ADVICE = ('Lower the learning rate, bind Model.clip_norm, or look for very '
          'large values in the columns of kind number')


def write(model_dir, values, name='metrics.json', of='evaluation'):
  """Writes metrics.json, NaN as null, and logs the metrics of the tasks.

  Args:
    model_dir: str.
    values: dict of metric name to number, 'global_step' among them.
    name: str, of the file in model_dir.
    of: str, what the log calls it.

  Returns:
    dict, what the file holds.
  """
  flat = as_json(values)
  files.write_json(os.path.join(model_dir, name), flat, indent=2)
  logging.info('%s at step %d: %s', of, flat['global_step'], ', '.join(
      '%s %.4f' % (metric, value) for metric, value in sorted(flat.items())
      if value is not None and metric.count('/') == 1))
  return flat


def as_json(values):
  """Metrics as JSON has them: float, None where not finite; int global_step.

  Args:
    values: dict of metric name to number, 'global_step' among them.
  """
  flat = {name: float(value) for name, value in values.items()}
  flat = {name: value if math.isfinite(value) else None
          for name, value in flat.items()}
  flat['global_step'] = int(flat['global_step'])
  return flat


def check_values(values, tasks, source='Experiment.eval_input'):
  """Says what is wrong with the metrics of an evaluation.

  A task without a row that counts, or with labels of one class, has metrics
  that are not defined: a warning. A prediction that is not finite is an error.

  Args:
    values: dict of metric name to number, 'global_step' among them.
    tasks: list of tasks.Task.
    source: str, the binding that says which rows were evaluated.

  Raises:
    UserError: if a prediction of a task, or the loss, is not finite.
  """
  step, counted = int(values['global_step']), False
  for task in tasks:
    own = {name[len(task.name) + 1:]: float(value)
           for name, value in values.items()
           if name.startswith(task.name + '/')}
    if any(math.isnan(value) for name, value in own.items()
           if name.startswith('label/')):
      logging.warning(
          'Evaluation at step %d: no row counts for task %s, so it has no '
          'metrics: %s.', step, task.name, no_row(task))
      continue
    counted = True
    bad = sorted(name for name, value in own.items() if not math.isfinite(
        value) and not _may_lack(name))
    errors.check(
        not bad, 'The predictions of task %s are not finite in the evaluation '
        'at step %d (%s). %s of %s; or choose an earlier checkpoint.',
        task.name, step, ', '.join('%s is %s' % (name, own[name])
                                   for name in bad), ADVICE, source)
    lacking = [name for name in ('auc', 'calibration')
               if not math.isfinite(own.get(name, 0))]
    if lacking:
      logging.warning(
          'Evaluation at step %d: %s of task %s cannot be computed, since all '
          'labels are alike (their mean is %g).', step, ' and '.join(lacking),
          task.name, own.get('label/mean', math.nan))
  if not counted:
    logging.warning(
        'Evaluation at step %d: no row counts for any task. Has %s a batch '
        '(its drop_remainder), and rows with a weight?', step, source)
  loss = float(values.get('loss', 0))
  errors.check(math.isfinite(loss), 'The loss is %s in the evaluation at step '
               '%d. %s; or choose an earlier checkpoint.', loss, step, ADVICE)


def _may_lack(name):
  """Whether a metric is not a number where rows or classes are missing."""
  return (name in ('auc', 'calibration') or chosen.is_one(name) or
          name.startswith(('auc/', 'rmse/')) or name.endswith('/train'))


def no_row(task):
  """Why no row counts for a task, in words.

  Args:
    task: tasks.Task.
  """
  if task.sample_space:
    return ('no row with a weight above 0 is in its sample space, %r '
            '(Task.sample_space)' % (tuple(task.sample_space),))
  return 'the weights of all rows are 0'
