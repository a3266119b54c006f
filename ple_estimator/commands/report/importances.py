"""How much the tasks of a run need each column, as a figure of the run.

`ple-estimator importance RUN --out RUN/importance.json` (or .parquet) leaves in
the folder of the run what is drawn here.
"""

import collections
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq

from ple_estimator import errors
from ple_estimator.commands.report import charts
from ple_estimator.commands.report import document

FILES = ('importance.json', 'importance.parquet')
_FIELDS = ('task', 'columns', 'kind', 'metric', 'value', 'importance', 'low',
           'high', 'rows')
_SHOWN = 20  # lines of a view; the table has all
_KINDS = ['one column or list', 'several columns together']

Importances = collections.namedtuple('Importances', 'path model rows tasks')
Importances.__doc__ = """What `ple-estimator importance` has written.

Attributes:
  path: str, the file.
  model: str, the run and checkpoint that were measured.
  rows: str, the rows that they were measured on.
  tasks: OrderedDict of task to a list of dict with the keys 'columns' (list of
    str), 'kind' (of trust.permuting.Unit), 'metric', 'importance', 'low' and
    'high', the most important first.
"""


def read(model_dir):
  """Reads the importances of a run.

  Args:
    model_dir: str.

  Returns:
    Importances of the newer file of FILES, or None if there is neither.

  Raises:
    UserError: if the file cannot be read, or is of something else.
  """
  paths = [os.path.join(model_dir, name) for name in FILES]
  paths = [path for path in paths if os.path.exists(path)]
  if not paths:
    return None
  path = max(paths, key=os.path.getmtime)
  try:
    about, records = (_json if path.endswith('.json') else _parquet)(path)
    tasks = collections.OrderedDict()
    for record in records:
      tasks.setdefault(record['task'], []).append(
          {name: record[name] for name in _FIELDS})
    return Importances(path, about['model'], about['rows'], tasks)
  except (OSError, ValueError, TypeError, LookupError,
          pa.ArrowException) as error:
    raise errors.UserError(
        '%s must be what ple-estimator importance writes, got a file that '
        'cannot be read as such (%s: %s). Write it anew with --out=%s, or '
        'delete it.' % (path, type(error).__name__,
                        ' '.join(str(error).split()), path))


def _json(path):
  with open(path, encoding='utf-8') as f:
    found = json.load(f)
  return found, found['importances']


def _parquet(path):
  table = pq.read_table(path)
  about = json.loads(
      (table.schema.metadata or {})[b'ple_estimator'].decode('utf-8'))
  return about, [dict(zip(table.column_names, row)) for row in zip(
      *[column.to_pylist() for column in table.columns])]


def change(record):
  """What the importance is: 'drop of AUC', or 'rise of' a loss."""
  return '%s of %s' % ('drop' if record['metric'] == 'AUC' else 'rise',
                       record['metric'].replace('_', ' '))


def columns_of(record):
  """The columns that were permuted together, in words."""
  return ' + '.join(record['columns'])


def most(found, task):
  """The record of the single column or list that a task needs most.

  Args:
    found: Importances.
    task: str.

  Returns:
    dict, or None if only groups were permuted.
  """
  return next((of for of in found.tasks.get(task, ()) if _is_one(of)), None)


def _is_one(record):
  return record['kind'] in ('column', 'aligned')


def figure(found, prefix):
  """A dot and its interval for each column, a view per task.

  Args:
    found: Importances.
    prefix: str, of the file's name.

  Returns:
    document.Figure.
  """
  views, rows, cut = [], [], False
  for task, records in found.tasks.items():
    data = [{'of': columns_of(of), 'name': _KINDS[not _is_one(of)],
             'value': charts.lean(of['importance']),
             'low': charts.lean(of['low']), 'high': charts.lean(of['high'])}
            for of in records[:_SHOWN]]
    cut = cut or len(records) > _SHOWN
    title = change(records[0])
    views.append(charts.View('%s, %s' % (task, title), charts.intervals(
        data, title, _KINDS, 0, [of['of'] for of in data], charts.tooltip(
            of='permuted', value=title, low='from', high='to'))))
    rows += [[columns_of(of), task, title, document.number(of['importance'], 5),
              '%s to %s' % tuple(document.number(of[end], 5)
                                 for end in ('low', 'high')), of['kind']]
             for of in records]
  note = (
      'How much worse each task is when a column has the values of other rows: '
      'the mean of the permutations and its 95 %% interval. Columns that say '
      'the same share their importance, and several together are not the sum '
      'of each. Measured: %s; rows: %s.' % (found.model, found.rows))
  if cut:
    note += ' Drawn are the first %d of each task; the table has all.' % _SHOWN
  return document.Figure(
      prefix + '-importance', 'What each column is worth', note, views,
      document.Table('Importance', ['permuted', 'task', 'measure',
                                    'importance', '95 % interval', 'kind'],
                     rows), _KINDS)
