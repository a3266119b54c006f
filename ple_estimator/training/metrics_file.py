"""metrics.json, the names of metrics, and metrics that are no numbers."""

import math
import os

from absl import logging

from ple_estimator import errors
from ple_estimator import files

# What to do about a loss or a prediction that is not finite.
ADVICE = ('Lower the learning rate, bind Model.clip_norm, or look for very '
          'large values in the columns of kind number')


def write(model_dir, values):
  """Writes metrics.json, NaN as null, and logs the metrics of the tasks.

  Args:
    model_dir: str.
    values: dict of metric name to number, 'global_step' among them.

  Returns:
    dict, what metrics.json holds.
  """
  flat = as_json(values)
  files.write_json(os.path.join(model_dir, 'metrics.json'), flat, indent=2)
  logging.info('evaluation at step %d: %s', flat['global_step'], ', '.join(
      '%s %.4f' % (name, value) for name, value in sorted(flat.items())
      if value is not None and name.count('/') == 1))
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


def check_metric(binding, name, tasks):
  """Raises UserError unless a binding names the loss or a metric of a task.

  Args:
    binding: str, e.g. 'EarlyStopping.metric'.
    name: what it is bound to, e.g. 'ctr/auc'.
    tasks: list of tasks.Task.
  """
  by_name = {task.name: task for task in tasks}
  task, _, metric = str(name).partition('/')
  known = [] if task not in by_name else (
      ['auc', 'log_loss', 'accuracy'] if by_name[task].is_binary
      else ['rmse', 'mae'])
  errors.check(
      name == 'loss' or metric in known,
      "%s must be 'loss' or a task (%s) and a metric of it, such as "
      "'%s/auc', got %r.", binding, ', '.join(by_name), tasks[0].name, name)


def check_values(values, tasks):
  """Says what is wrong with the metrics of an evaluation.

  A task without a row that counts, or with labels of one class, has metrics
  that are not defined: a warning. A prediction that is not finite is an error.

  Args:
    values: dict of metric name to number, 'global_step' among them.
    tasks: list of tasks.Task.

  Raises:
    UserError: if a prediction of a task, or the loss, is not finite.
  """
  step, counted = int(values['global_step']), False
  for task in tasks:
    own = {name[len(task.name) + 1:]: float(value)
           for name, value in values.items()
           if name.startswith(task.name + '/')}
    if math.isnan(own.get('label/mean', 0)):
      logging.warning(
          'Evaluation at step %d: no row counts for task %s, so it has no '
          'metrics: %s.', step, task.name, no_row(task))
      continue
    counted = True
    bad = sorted(name for name, value in own.items() if not math.isfinite(
        value) and name not in ('auc', 'calibration'))
    errors.check(
        not bad, 'The predictions of task %s are not finite in the evaluation '
        'at step %d (%s). %s of Experiment.eval_input; or choose an earlier '
        'checkpoint.', task.name, step, ', '.join(
            '%s is %s' % (name, own[name]) for name in bad), ADVICE)
    lacking = [name for name in ('auc', 'calibration')
               if not math.isfinite(own.get(name, 0))]
    if lacking:
      logging.warning(
          'Evaluation at step %d: %s of task %s cannot be computed, since all '
          'labels are alike (their mean is %g).', step, ' and '.join(lacking),
          task.name, own.get('label/mean', math.nan))
  if not counted:
    logging.warning(
        'Evaluation at step %d: no row counts for any task. Has Experiment.'
        'eval_input a batch (its drop_remainder), and rows with a weight?',
        step)
  loss = float(values.get('loss', 0))
  errors.check(math.isfinite(loss), 'The loss is %s in the evaluation at step '
               '%d. %s; or choose an earlier checkpoint.', loss, step, ADVICE)


def no_row(task):
  """Why no row counts for a task, in words.

  Args:
    task: tasks.Task.
  """
  if task.sample_space:
    return ('no row with a weight above 0 is in its sample space, %r '
            '(Task.sample_space)' % (tuple(task.sample_space),))
  return 'the weights of all rows are 0'
