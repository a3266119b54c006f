r"""Writes a first .gin file for files of your own, which trains as it is.

  ple-estimator init shop.csv --labels like,share --out shop.gin
  ple-estimator init day1.parquet day2.parquet --labels like --time at \
      --out shop.gin
  ple-estimator init train.csv --test test.csv --labels 'income=>50K' \
      --out income.gin

Reads all rows of CSV or Parquet files and chooses a kind for each column, with
the reason as a comment in the file that it writes. Encoding, delimiter, quote,
header and words for missing values of CSV are found out; a .gz, .bz2 or .zst
file is decompressed. Files may be URIs such as s3://bucket/day1.csv, as in the
section "Remote files" of gin/README.md; they are read twice.

{labels}

Without --validation the rows are cut into parts, and written as Parquet files
to a folder beside the .gin file: for shop.gin shop_data/. A tenth of the rows
is for validation and, without --test, a tenth for the test. With --time the
last rows are, else those of a tenth of the users, if there is a column of
users, else rows drawn at random. With --validation the files are read where
they are, if they can be.

{rule}
"""

import argparse
import collections
import os
import shlex
import shutil
import sys

import pyarrow as pa

from ple_estimator import config  # noqa: F401, it quiets TensorFlow
from ple_estimator import errors
from ple_estimator import files as files_lib
from ple_estimator.commands.init import choosing
from ple_estimator.commands.init import copying
from ple_estimator.commands.init import describing
from ple_estimator.commands.init import labels as labels_lib
from ple_estimator.commands.init import report
from ple_estimator.commands.init import rows
from ple_estimator.commands.init import splitting
from ple_estimator.commands.init import writing

# What an error of gin, pyarrow or the system is told as.
_MISTAKES = (ValueError, OSError)


def main(arguments=None):
  """Writes a .gin file; returns the exit status.

  Args:
    arguments: list of str; None takes those of the process.
  """
  args = _parser().parse_args(arguments)
  try:
    plan = run(args)
  except _MISTAKES as error:  # UserError is a ValueError
    sys.stderr.write('ple-estimator init: %s\n' % ' '.join(
        str(error).split()))
    return 1
  print('\n'.join(
      [plan.source[:1].upper() + plan.source[1:] + '.', ''] +
      report.table(plan) + ['', _written(args.out, plan)] +
      report.next_steps(args.out, plan)))
  return 0


def run(args):
  """Reads the files and writes the .gin file.

  Args:
    args: the arguments of the command.

  Returns:
    writing.Plan.

  Raises:
    UserError: if the arguments or the files cannot be used.
  """
  args.labels = labels_lib.wanted(args.labels)
  args.columns = args.columns and [
      name.strip() for name in args.columns.split(',')]
  args.bucketise = [name.strip() for name in ','.join(
      args.bucketise or ()).split(',') if name.strip()]
  _check_arguments(args)
  folder = os.path.splitext(args.out)[0] + '_data'
  _check_outputs(args, folder)
  paths = collections.OrderedDict(
      (part, rows.find(name, entries)) for part, name, entries in [
          ('train', 'TRAIN', args.train),
          ('validation', '--validation', args.validation),
          ('test', '--test', args.test)] if entries)
  files = rows.Files(paths['train'], args)
  wanted = labels_lib.resolve(args.labels, files.names, paths['train'][0])
  described, times = _described(files, paths['train'], args.time)
  labels = [labels_lib.describe(label, described[label.column],
                                pa.types.is_boolean(files.types[label.column]))
            for label in wanted]
  user = _user(args, described, labels)
  parts = _parts(paths)
  by = 'time' if args.time else 'user' if user else 'random'
  cut = splitting.Cut(by, args.time or user, parts, times)
  _check_bucketise(args.bucketise, described, labels)
  choices, omitted = _choices(files, described, labels, cut, args.bucketise)
  tally = copying.Tally(labels)
  in_place = _in_place(args, files, described, choices, labels, parts)
  if in_place:
    _count(files, paths, tally)
    reads = _reads_in_place(files, paths, described, tally)
  else:
    reads = _reads_copies(
        files, paths, folder, cut, choices, described, tally)
  plan = writing.Plan(
      _source(args, files, described), _command(args), choices, omitted, labels,
      cut.described() if cut.by else 'the rows are cut as they were given',
      tally, reads, described)
  tally.skipped = files.skipped
  folder_of = os.path.dirname(args.out)
  if folder_of:
    os.makedirs(folder_of, exist_ok=True)
  with open(args.out, 'w') as f:
    f.write(writing.text(plan))
  return plan


def _check_arguments(args):
  files_lib.check_local('--out', args.out)
  errors.check(args.out.endswith('.gin'), '--out must end in .gin, got %r.',
               args.out)
  errors.check(not (args.user and args.time), '--user and --time both cut the '
               'rows: give one of them.')
  errors.check(not (args.random and (args.user or args.time)),
               '--random must not be given with --user or --time.')
  errors.check(args.rows is None or args.rows > 1,
               '--rows must be at least 2, got %s.', args.rows)
  cuts = args.user or args.time or args.random
  errors.check(not (args.validation and cuts), '--user, --time and --random '
               'cut rows, and must not be given with --validation.')


def _check_outputs(args, folder):
  for path in (args.out, folder):
    errors.check(args.force or not os.path.exists(path),
                 '%s exists: give another --out, or --force to write it again.',
                 path)


def _described(files, paths, time):
  """Reads the training rows.

  Returns:
    (described, times): OrderedDict of name to describing.Description, and a
    Counter of the texts of the column `time`, or None.
  """
  errors.check(not time or time in files.names, '--time must be a column (%s), '
               'got %r.', ', '.join(files.names), time)
  describer = describing.Describer(files.names)
  times = collections.Counter() if time else None
  for piece in files.read(paths):
    describer.add(piece.text, piece.stored)
    if time:
      times.update(piece.text.column(time).to_pylist())
  described = describer.finish()
  errors.check(next(iter(described.values())).rows > 1,
               '%s must have rows, got none or one.', paths[0])
  return described, times


def _user(args, described, labels):
  """The column by whose values the rows are cut, or None."""
  if args.time or args.random or args.validation:
    return None
  names = [label.name for label in labels]
  errors.check(
      args.user is None or args.user in described and args.user not in names,
      '--user must be a column that is no label (%s), got %r.',
      ', '.join(name for name in described if name not in names), args.user)
  return args.user or choosing.likely_user(collections.OrderedDict(
      (name, found) for name, found in described.items() if name not in names))


def _check_bucketise(names, described, labels):
  """Raises UserError unless names are of numbers among the features."""
  numbers = [name for name, found in described.items() if found.is_number() and
             found.distinct() > 1 and name not in {of.name for of in labels}]
  for name in names:
    errors.check(name in numbers, '--bucketise must name columns of numbers '
                 'that are no labels (%s), got %r.', ', '.join(numbers), name)


def _parts(paths):
  """The parts that the training files are cut into."""
  if 'validation' in paths:
    return ('train',)
  return ('train', 'validation') if 'test' in paths else splitting.PARTS


def _choices(files, described, labels, cut, bucketise):
  """Returns the list of Choice of all columns, and {name: reason} of others."""
  by_label = {label.name: label for label in labels}
  choices, omitted = [], collections.OrderedDict()
  for name, found in described.items():
    arrow_type = files.types[name]
    if name in by_label:
      label = by_label[name]
      arguments = collections.OrderedDict(
          (key, value) for key, value in label.entry.items()
          if key not in ('name', 'kind'))
      is_text = isinstance(label.entry.get('values'), dict)
      choices.append(choosing.Choice(
          name, 'label', arguments, label.reason,
          'text' if is_text else 'number'))
    elif pa.types.is_nested(arrow_type) and not rows.has_items(arrow_type):
      omitted[name] = 'its type is %s' % arrow_type
    else:
      choices.append(choosing.choose(
          found, arrow_type, cut.by if name == cut.column else None,
          name in bucketise))
  others = ['%s: %s' % (choice.name, choice.reason) for choice in choices
            if choice.kind != 'label'] or ['there is no other']
  errors.check(any(choice.is_feature for choice in choices), 'A column besides '
               'the labels must be a feature, got %s.', '; '.join(others))
  return choices, omitted


def _in_place(args, files, described, choices, labels, parts):
  """Whether the files can be read where they are."""
  if len(parts) > 1 or args.rows or args.skip_bad_rows or not files.is_whole():
    return False
  # These are looked up as the file has them, blanks included.
  if files.padded & {choice.name for choice in choices
                     if 'values' in choice.arguments}:
    return False
  if not files.sniffed:
    return not any(
        isinstance(label.entry.get('values'), dict) or
        described[label.name].null_words() for label in labels) and not any(
            described[c.name].null_words() for c in choices if c.is_feature)
  words = _null_words(described)
  return not any(
      found.commas or set(found.words) - set(found.null_words()) & words
      for found in described.values())


def _null_words(described):
  return {word for found in described.values() for word in found.null_words()}


def _count(files, paths, tally):
  """Counts the rows and labels of files that are read where they are."""
  for part, of_part in paths.items():
    for piece in files.read(of_part):
      usable = tally.usable(piece.text)
      tally.add(part, piece.text.filter(pa.array(usable)))


def _reads_in_place(files, paths, described, tally):
  arguments = collections.OrderedDict()
  if tally.left_out:
    arguments['on_bad_row'] = 'skip'
  if files.sniffed:
    dialect = files.sniffed.dialect
    for name, value, default in [
        ('header', files.sniffed.header, False),
        ('delimiter', dialect.delimiter, ','), ('quote', dialect.quote, '"'),
        ('escape', dialect.escape, None),
        ('null_values', tuple(sorted(_null_words(described))), ())]:
      if value != default:
        arguments[name] = value
  return writing.Reads('CsvInput' if files.sniffed else 'ParquetInput', '.',
                       paths, arguments)


def _reads_copies(files, paths, folder, cut, choices, described, tally):
  partial = folder + '.partial'
  shutil.rmtree(partial, ignore_errors=True)
  os.makedirs(partial)
  written = collections.OrderedDict()
  try:
    for part, of_part in paths.items():
      of = cut if part == 'train' else splitting.Cut(None, None, (part,))
      found = copying.copy(
          files.read(of_part), partial, of, choices, described, tally)
      written.update((os.path.splitext(os.path.basename(path))[0],
                      [os.path.basename(path)]) for path in found)
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(partial, folder)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  return writing.Reads(
      'ParquetInput', folder,
      collections.OrderedDict((part, written[part]) for part in splitting.PARTS
                              if part in written), {})


def _source(args, files, described):
  count = next(iter(described.values())).rows
  sniffed = files.sniffed
  how = 'Parquet' if not sniffed else 'CSV, %s, %r between fields, %s, %s' % (
      sniffed.encoding.upper(), sniffed.dialect.delimiter,
      'with a header' if sniffed.header else 'without a header',
      sniffed.line_end)
  return '%s%s rows of %s (%s)' % (
      'the first ' if args.rows and count >= args.rows else '',
      format(count, ','), ', '.join(args.train), how)


def _command(args):
  words = ['ple-estimator', 'init'] + list(args.train)
  for name in ('test', 'validation'):
    words += ['--' + name] + getattr(args, name) if getattr(args, name) else []
  words += ['--labels', ','.join(label.text for label in args.labels)]
  for name in ('user', 'time', 'encoding', 'delimiter', 'rows'):
    if getattr(args, name):
      words += ['--' + name, str(getattr(args, name))]
  for name in ('columns', 'bucketise'):
    if getattr(args, name):
      words += ['--' + name, ','.join(getattr(args, name))]
  words += ['--' + name.replace('_', '-') for name in (
      'random', 'skip_bad_rows') if getattr(args, name)]
  return ' '.join(map(shlex.quote, words + ['--out', args.out]))


def _written(path, plan):
  parts = ', '.join('%s %s rows' % (part, format(plan.tally.rows[part], ','))
                    for part in plan.reads.files)
  left_out = ['%s rows %s' % (format(count, ','), why) for count, why in [
      (plan.tally.left_out, 'without a label'),
      (plan.tally.skipped, 'with another number of columns')] if count]
  return 'Wrote %s%s: %s%s.' % (
      path, '' if plan.reads.data_dir == '.' else
      ' and %s%s' % (plan.reads.data_dir, os.sep), parts,
      '; left out: %s' % ', '.join(left_out) if left_out else '')


def _parser():
  parser = argparse.ArgumentParser(
      prog='ple-estimator init',
      description=__doc__.format(
          rule=choosing.RULE, labels=labels_lib.RULE),
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('train', nargs='+', metavar='TRAIN',
                      help='files, folders or patterns, paths or URIs: the '
                      'training rows')
  parser.add_argument('--test', nargs='+', metavar='FILE',
                      help='rows to test on')
  parser.add_argument('--validation', nargs='+', metavar='FILE',
                      help='rows by which training stops')
  parser.add_argument('--labels', nargs='+', required=True, metavar='NAMES',
                      help='the columns to predict, commas between them')
  parser.add_argument('--out', required=True, metavar='FILE.gin',
                      help='the file to write')
  parser.add_argument('--columns', metavar='NAMES',
                      help='the columns of a CSV file without header, in their '
                      'order, commas between them')
  parser.add_argument('--bucketise', nargs='+', metavar='NAMES',
                      help='columns of numbers to make categories of, by '
                      'quantiles, commas between them')
  parser.add_argument('--user', metavar='COLUMN',
                      help='all rows of one value are in one part')
  parser.add_argument('--time', metavar='COLUMN',
                      help='the last rows are for validation and test')
  parser.add_argument('--random', action='store_true',
                      help='cut at random, also if there is a column of users')
  parser.add_argument('--rows', type=int, metavar='N',
                      help='read only the first N rows of each part')
  parser.add_argument('--encoding', help='of CSV files; found out by default')
  parser.add_argument('--delimiter', help='of CSV files; found out by default')
  parser.add_argument('--skip-bad-rows', action='store_true',
                      help='leave out rows with another number of columns')
  parser.add_argument('--force', action='store_true',
                      help='write again what exists')
  return parser
