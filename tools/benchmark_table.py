"""The table of tools/benchmark.py."""

import statistics

_COLUMNS = [
    ('Framework', 'framework'), ('DType', 'dtype'), ('Accuracy', 'accuracy'),
    ('AUC', 'auc'), ('Global steps/s', 'steps_per_second'),
    ('Examples/s', 'examples_per_second'), ('Ratio', 'ratio'),
    ('Roofline', 'roofline'), ('Limit', 'limit'),
    ('CPU s', 'cpu_seconds_per_1000_steps'),
    ('Peak RSS', 'peak_rss_mb'), ('Start-up', 'start_up_seconds')]


def summary(name, runs, base):
  """One row of the table from the runs of one experiment.

  Args:
    name: str.
    runs: list of dicts, one per round, of `recipe` or `experiment`.
    base: list of the steps/s of the first run in the same rounds.
  """
  row = {'name': name, 'runs': runs}
  for key in ('steps_per_second', 'cpu_seconds_per_1000_steps', 'peak_rss_mb',
              'start_up_seconds'):
    values = [one[key] for one in runs if key in one]
    if values:
      row[key] = statistics.median(values)
  ratios = [one['steps_per_second'] / b for one, b in zip(runs, base)]
  row['ratio'] = statistics.median(ratios)
  row['ratio_range'] = [min(ratios), max(ratios)]
  return row


def markdown(rows):
  """Yields the lines of the table."""
  yield '| Run | %s |' % ' | '.join(title for title, _ in _COLUMNS)
  yield '|%s' % ('---|' * (len(_COLUMNS) + 1))
  for row in rows:
    cells = dict(row)
    for key, form in [
        ('accuracy', '%.4f'), ('auc', '%.4f'), ('steps_per_second', '%.1f'),
        ('examples_per_second', '%d'), ('peak_rss_mb', '%d MB'),
        ('cpu_seconds_per_1000_steps', '%.0f'), ('start_up_seconds', '%.1f s')]:
      if row.get(key) is not None:
        cells[key] = form % row[key]
    if 'ratio_range' in row:
      cells['ratio'] = '%.2f (%.2f to %.2f)' % (
          (row['ratio'],) + tuple(row['ratio_range']))
    for key in ('roofline', 'limit'):
      if key in row:
        cells[key] = '%.0f %%' % (100 * row[key])
    yield '| %s | %s |' % (row['name'], ' | '.join(
        str(cells.get(key) or '-') for _, key in _COLUMNS))
