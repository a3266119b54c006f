"""Writes what was decided as a .gin file, with the reasons as comments."""

import collections
import textwrap

from ple_estimator.commands.init import choosing
from ple_estimator.commands.init import like_columns

_WIDTH = 80
_FEW_ROWS = 100000
_MOST_NUMBERS = 40  # for which each number gets vectors of its own in base
_TOO_MANY_NUMBERS = 100  # the same in small
_MOST_BUCKETS = 5000000
_LEAST_CLASS = 10  # rows with the rarer value, for an AUC to say something

# How the rows are read: 'ParquetInput' or 'CsvInput'; the folder; an
# OrderedDict of 'train', 'validation' and 'test' to file names; and an
# OrderedDict of further arguments of the input.
Reads = collections.namedtuple('Reads', 'kind data_dir files arguments')


class Plan(collections.namedtuple(
    'Plan', 'source command choices omitted labels cut tally reads described')):
  """All that was decided.

  Attributes:
    source: str, what the file says of the files that were read.
    command: str, by which it was written.
    choices: list of choosing.Choice in the order of the file, labels among
      them.
    omitted: dict of name to reason, of columns that cannot be read at all.
    labels: list of labels.Label.
    cut: str, how the rows were cut into parts.
    tally: copying.Tally.
    reads: Reads.
    described: OrderedDict of name to describing.Description.
  """

  __slots__ = ()

  def num_train(self):
    """The number of training rows."""
    return self.tally.rows['train']

  def base(self):
    """(file to include, reason): small.gin for few rows, else base.gin."""
    few = self.num_train() < _FEW_ROWS
    return ('gin/small.gin' if few else 'gin/base.gin'), (
        '%s training rows are %s: gin/%s.gin has %s' % (
            format(self.num_train(), ','),
            'fewer than 100,000' if few else '100,000 or more',
            'small' if few else 'base',
            'small batches and experts' if few else
            'large batches and three levels of experts'))

  def num_buckets(self):
    """The rows of all embedding tables, if they are hashed."""
    return sum(c.arguments.get('num_buckets', 0) for c in self.choices)

  def has_row_per_value(self):
    """Whether hashed tables would be too large."""
    return self.num_buckets() > _MOST_BUCKETS

  def judged(self):
    """The labels by whose AUC a checkpoint can be judged.

    Those are binary, with some validation rows of either value.
    """
    return [label for label in self.labels if label.is_binary and
            self.tally.least_class('validation', label) >= _LEAST_CLASS]

  def metric(self):
    """(metric, reason) of early stopping and of the best checkpoint."""
    judged = self.judged()
    binary = [label for label in self.labels if label.is_binary]
    if judged and judged == binary:
      return 'mean/auc', None if binary == self.labels else (
          'The mean AUC of the binary tasks decides.')
    if judged:
      names = tuple('%s/auc' % label.task for label in judged)
      return names if len(names) > 1 else names[0], (
          'Only these tasks decide: of the others the validation rows have '
          'fewer than %d rows of one value.' % _LEAST_CLASS)
    if not binary and len(self.labels) == 1:
      return '%s/%s' % (self.labels[0].task, self.labels[0].measure), None
    return 'loss', ('The loss decides: %s.' % (
        'errors of different labels have no common mean' if not binary else
        'the validation rows have fewer than %d rows of one value for an AUC'
        % _LEAST_CLASS))


def text(plan):
  """The .gin file of a Plan, a str of ASCII."""
  include, why = plan.base()
  lines = _comment('%s for %s.' % (
      'One task' if len(plan.labels) == 1 else '%d tasks' % len(plan.labels),
      plan.source))
  lines += _comment('Written by: ' + plan.command)
  lines += _comment('%s. %s.' % (why, plan.cut[:1].upper() + plan.cut[1:]))
  lines.append('include %r' % include)
  if plan.reads.kind == 'CsvInput':
    lines.append("include 'gin/csv.gin'")
  if plan.has_row_per_value():
    lines += _comment(
        'Hashed tables would have %s rows, so every value has a row of its own '
        'instead, and none share one; num_buckets below is not used.' %
        format(plan.num_buckets(), ','))
    lines.append("include 'gin/ev.gin'")
  for section in (_input, _columns, _model, _judging):
    lines += [''] + section(plan)
  ascii_lines = '\n'.join(lines).encode('ascii', 'backslashreplace')
  return ascii_lines.decode('ascii').rstrip('\n') + '\n'


def _input(plan):
  reads = plan.reads
  lines = ['DATA_DIR = %s  # from the folder in which the command is run' %
           ascii(reads.data_dir)]
  if reads.arguments:
    lines.append('%s:' % reads.kind)
    lines += ['  %s = %s' % (name, ascii(value))
              for name, value in reads.arguments.items()]
  for scope, part in [('train', 'train'), ('eval', 'validation'),
                      ('test', 'test')]:
    if part in reads.files:
      found = reads.files[part]
      lines.append('%s/%s.files = %s  # %s rows' % (
          scope, reads.kind, ascii(found[0] if len(found) == 1 else found),
          format(plan.tally.rows[part], ',')))
    else:
      lines.append('Experiment.test_input = None  # no test rows were given')
  return lines


def _columns(plan):
  lines = ['FeatureSpec.columns = [']
  reasons = {label.name: label.reason for label in plan.labels}
  for members, choice in like_columns.grouped(plan.choices):
    reason = reasons.get(choice.name, choice.reason)
    seen = '' if len(members) > 1 else (
        choosing.seen(plan.described[choice.name]) + '; ')
    lines += _comment('%s: %s%s.' % (choice.name, seen, reason), '    # ')
    lines += _dict(_entry(choice, len(members) > 1))
  for name, reason in plan.omitted.items():
    lines += _comment('%s is left out: %s.' % (name, reason), '    # ')
  return lines + [']']


def _dict(entry):
  """The lines of an entry of FeatureSpec.columns, broken where they may be."""
  items = []
  for name, value in entry.items():
    key = ascii(name) + ': '
    if isinstance(value, (tuple, dict)) and len(value) > 2:
      is_dict = isinstance(value, dict)
      parts = ['%s: %s' % (ascii(k), ascii(v)) for k, v in value.items()
               ] if is_dict else list(map(ascii, value))
      parts[0] = key + ('{' if is_dict else '(') + parts[0]
      parts[-1] += '}' if is_dict else ')'
      items += parts
    else:
      items.append(key + ascii(value))
  items[0] = '{' + items[0]
  items[-1] += '}'
  lines = ['   ']
  for item in items:
    if len(lines[-1]) + len(item) + 2 > _WIDTH and lines[-1].strip():
      lines.append('       ')
    lines[-1] += ' %s,' % item
  return lines


def _entry(choice, is_range):
  return collections.OrderedDict(
      [('names' if is_range else 'name', choice.name), ('kind', choice.kind)],
      **choice.arguments)


def _model(plan):
  lines = ['Model.tasks = [%s]' % ', '.join(
      '@%s/Task()' % label.task for label in plan.labels)]
  for label in plan.labels:
    lines += ['%s/Task:' % label.task, '  name = %r' % label.task,
              '  label = %s' % ascii(label.name)]
    if not label.is_binary:
      lines.append('  loss = ' + label.loss)
      if label.weight != 1:
        lines.append('  weight = %r  # so that tasks count alike' %
                     label.weight)
    if label.num_classes:
      lines.append('%s/MultiClass.num_classes = %d' % (
          label.task, label.num_classes))
  numbers = sum(
      1 if choice.kind == 'number' else choice.arguments['width']
      for choice in plan.choices if choice.kind in ('number', 'vector'))
  if plan.base()[0] == 'gin/base.gin' and 0 < numbers <= _MOST_NUMBERS:
    lines += ['', '# Vectors of the numbers, as in gin/small.gin.',
              'Model.interactions = [@Wide(), @FwFM(), @Periodic(), @Binned()]']
  elif plan.base()[0] == 'gin/small.gin' and numbers > _TOO_MANY_NUMBERS:
    lines += ['', '# Of gin/small.gin without vectors for each of %d numbers.' %
              numbers, 'Model.interactions = [@Wide(), @FwFM()]']
  if plan.has_row_per_value():
    values = sum(choice.arguments.get('num_buckets', 0) // 20
                 for choice in plan.choices)
    lines += ['', 'EmbeddingVariable.capacity = %d  # twice the values' %
              max(1000000, 2 * values)]
  return lines


def _judging(plan):
  metric, reason = plan.metric()
  if metric == 'mean/auc' and not reason:
    return []
  return _comment(reason or 'The error decides.') + [
      'EarlyStopping.metric = %r' % (metric,),
      'Exports.best_metric = %r' % (metric,)]


def _comment(sentence, start='# '):
  # What a file or its header says must not end the comment.
  return textwrap.wrap(
      ' '.join(sentence.split()), _WIDTH, initial_indent=start,
      subsequent_indent=start if start == '# ' else start + '  ',
      break_long_words=False, break_on_hyphens=False)
