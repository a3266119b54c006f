"""Makes folders as runs leave them, with rows whose truth is known."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CONFIG = '''
# Macros:
BATCH_SIZE = 64
SEED = %(seed)s

Experiment.model_dir = '%(model_dir)s'
ParquetInput.batch_size = %%BATCH_SIZE
PLE.num_levels = %(levels)d
run_config.seed = %%SEED
%(more)s
'''


def labels_of(num, seed=0):
  """[num] truth, and labels of two tasks, float32."""
  random = np.random.RandomState(seed)
  truth = random.normal(size=num)
  ctr = random.rand(num) < 1 / (1 + np.exp(1 - 1.5 * truth))
  cvr = ctr & (random.rand(num) < 0.4)
  return truth, {'ctr': ctr.astype('f'), 'cvr': cvr.astype('f')}


def predictions_of(truth, noise, seed):
  """[num] probabilities that know the truth up to a noise."""
  random = np.random.RandomState(seed)
  return (1 / (1 + np.exp(1 - 1.5 * (
      truth + noise * random.normal(size=len(truth)))))).astype('f')


def write_rows(path, tasks, columns=None, user=None, slices=(), kinds=None,
               seen=None, step=30):
  """Writes a file of evaluated rows.

  Args:
    path: the file.
    tasks: dict of task to (labels, predictions, weights), [rows] each;
      predictions may be [rows, classes].
    columns: dict of other columns.
    user: str or None, one of them.
    slices: names of them.
    kinds: dict of task to kind; None is binary.
    seen: int, how many rows were evaluated; None is those of the file.
    step: int.
  """
  made = {}
  for task, (labels, predictions, weights) in tasks.items():
    made[task + '/label'] = pa.array(np.asarray(labels, 'f'))
    made[task + '/weight'] = pa.array(np.asarray(weights, 'f'))
    predictions = np.asarray(predictions, 'f')
    made[task + '/prediction'] = pa.array(
        predictions) if predictions.ndim == 1 else (
            pa.FixedSizeListArray.from_arrays(
                pa.array(predictions.ravel()), predictions.shape[1]))
  made.update(columns or {})
  rows = len(next(iter(tasks.values()))[0])
  table = pa.table(made).replace_schema_metadata({
      b'ple_estimator': json.dumps({
          'global_step': step, 'checkpoint': 'model.ckpt-%d' % step,
          'input': ['a.parquet'], 'rows': rows, 'rows_seen': seen or rows,
          'user': user, 'slices': list(slices),
          'tasks': {task: (kinds or {}).get(task, 'binary')
                    for task in tasks}}).encode()})
  pq.write_table(table, str(path))


def make(folder, name, noise=0.3, seed=1, levels=2, tasks=('ctr', 'cvr'),
         num=2000, of='eval', more='', rows=True, user=False):
  """Makes a run of two tasks; returns its folder, a str."""
  path = folder / name
  path.mkdir(parents=True)
  (path / 'operative_config-0.gin').write_text(CONFIG % {
      'seed': seed, 'model_dir': path, 'levels': levels, 'more': more})
  truth, labels = labels_of(num)
  predictions = predictions_of(truth, noise, seed)
  evaluations = []
  for step in (10, 20, 30):
    evaluation = {'global_step': step, 'loss': 1.0 / step}
    for task in tasks:
      evaluation.update({task + '/auc': 0.5 + step / 100,
                         task + '/log_loss': 0.5 - step / 100,
                         task + '/calibration': 1.0})
    evaluations.append(evaluation)
  (path / 'evaluations.json').write_text(json.dumps({
      'evaluations': evaluations, 'best': {},
      'ended': {'global_step': 30, 'reason': 'no more rows'}}))
  for file in ('metrics.json',) + (('test.json',) if of == 'test' else ()):
    (path / file).write_text(json.dumps(evaluations[-1]))
  if rows:
    write_rows(
        path / ('%s_rows.parquet' % of),
        {task: (labels[task], predictions, np.ones(num)) for task in tasks},
        {'user_id': np.arange(num) // 5, 'age': np.arange(num) % 3},
        'user_id' if user else None, ['age'])
  return str(path)
