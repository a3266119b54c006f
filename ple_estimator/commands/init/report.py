"""What init prints: a table of the columns, and the commands to run next."""

import shlex

_WIDEST = 24
_NOTE = 70


def table(plan):
  """Returns the lines of a table with one row per column.

  Args:
    plan: writing.Plan.
  """
  reasons = {label.name: label.reason for label in plan.labels}
  lines = [('column', 'kind', 'different', 'empty', 'what was seen')]
  for choice in plan.choices:
    found = plan.described[choice.name]
    lines.append((
        _cut(choice.name, _WIDEST), choice.kind,
        ('' if found.is_exact() else '~') + format(found.distinct(), ','),
        '%.1f %%' % (100 * found.empty_share()),
        _cut(reasons.get(choice.name, choice.reason), _NOTE)))
  for name, reason in plan.omitted.items():
    lines.append((_cut(name, _WIDEST), '(none)', '', '', _cut(reason, _NOTE)))
  widths = [max(len(line[i]) for line in lines) for i in range(4)]
  return ['%-*s  %-*s  %*s  %*s  %s' % (
      widths[0], line[0], widths[1], line[1], widths[2], line[2], widths[3],
      line[3], line[4]) for line in lines]


def next_steps(path, plan):
  """Returns the lines with the commands to run next.

  Args:
    path: str, of the .gin file.
    plan: writing.Plan.
  """
  command = '  ple-estimator --gin_file=%s' % shlex.quote(path)
  second = ' --mode=test' if 'test' in plan.reads.files else ' --mode=evaluate'
  return ['Next, to train, and then to measure the best checkpoint:', command,
          command + second]


def _cut(text, most):
  text = ' '.join(text.split())
  return text if len(text) <= most else text[:most - 3] + '...'
