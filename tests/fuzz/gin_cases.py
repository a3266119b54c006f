"""gin/base.gin and bindings of the command line with random mistakes."""

import ast
import glob
import os
import re

import csv_cases
import gin
import outcomes

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
_VALUES = [
    'None', 'True', "'x'", "''", '-1', '0', '1', '2.5', '1e400', 'nan', '()',
    '[]', '{}', "{'a': 1}", '(1,)', '(0,)', '(-3, 2.0)', '[None]', '@PLE()',
    '@PLE', '@Model()', '@Tower()', '@lazy_adam', '@lazy_adam()', '@run_config',
    '@run_config()', '@Experiment()', '@NoSuch()', '%NOPE', '%BATCH_SIZE', '@',
    '%', "'a\\nb'", '10**9', '1_000', '0x10', '9' * 30, "b'x'", '1j', '...',
    '@ctr/Task()', "['ctr', 'clk']", '[@ctr/Task(), @ctr/Task()]',
    '@ParquetInput()', '@train/CsvInput()', '[[[1]]]', "'\u00e9\u2028'"]
# Lines that must be refused, whatever else there is.
_MISTAKES = [
    'PLE.num_levls = 2', 'PEL.num_levels = 2', 'PLE.num_levels = %NO_SUCH',
    'PLE.num_levels = (1', "Tower.units = [64, 'a]", 'PLE.num_levels 2',
    'PLE.num_levels = ', 'PLE.num_levels = 0', "BATCH_SIZE = 'x'",
    'BATCH_SIZE = 0', 'BATCH_SIZE = %BATCH_SIZE', 'NOT_READ = 1',
    'BATCH_SIZE = %EPOCHS\nEPOCHS = %BATCH_SIZE', "include 'no/such.gin'",
    'import no.such_module', 'Experiment.model = @Experiment()',
    'Task.tower = @ctr/Task()', 'sgd.learning_rate = 0.1', '= 3', 'PLE.',
    'lazy_adam.learning_rate = nan', 'PLE:\n  num_levels = 2\n    x = 3',
    'Experiment.max_steps = -1', 'Precision.compute = float32',
    'x/y/PLE.num_levels = 2', 'ctr/Task.label = 7', '\x00', '}', "'"]


def _text():
  """gin/base.gin with gin/taobao.gin in the place of its include."""
  with open(os.path.join(_ROOT, 'gin', 'base.gin')) as f:
    text = f.read()
  with open(os.path.join(_ROOT, 'gin', 'taobao.gin')) as f:
    return text.replace("include 'gin/taobao.gin'\n", f.read())


def _other_text(rng):
  """A file that is built on gin/base.gin."""
  paths = sorted(glob.glob(os.path.join(_ROOT, 'gin', '*.gin')))
  with open(csv_cases.pick(rng, paths)) as f:
    return f.read()


def _mutated(text, rng):
  """Returns a text with one random change."""
  lines = text.split('\n')
  full = [i for i, line in enumerate(lines) if line.strip()]
  at = csv_cases.pick(rng, full)
  line, how = lines[at], rng.randint(8)
  if how == 0:
    del lines[at]
  elif how == 1:
    lines.insert(at, csv_cases.pick(rng, lines))
  elif how == 2 and '=' in line:
    lines[at] = line.partition('=')[0] + '= ' + csv_cases.pick(rng, _VALUES)
  elif how == 3:
    lines[at] = ' ' * rng.randint(0, 4) + line.strip()
  elif how == 4 and re.search(r'[][(){},\'"=:]', line):
    found = csv_cases.pick(rng, list(re.finditer(r'[][(){},\'"=:]', line)))
    lines[at] = line[:found.start()] + line[found.end():]
  else:
    place = rng.randint(len(line))
    new = csv_cases.pick(rng, ['', line[place] * 2, 'x', '@', '%', '.', '/',
                               '\t', '\u00e9', '#', '\\', '0', '\x00', '\r'])
    lines[at] = line[:place] + new + line[place + 1:]
  return '\n'.join(lines)


def _rewritten(text, rng):
  """Returns lines with other space, comments and blank lines, same meaning."""
  lines = []
  for line in text.split('\n'):
    if rng.rand() < 0.1:
      lines.append(csv_cases.pick(rng, ['', '  # words = 3', '# @None()']))
    if line.strip() and rng.rand() < 0.3:
      line += csv_cases.pick(rng, ['  ', '  # more', '\t', ' #'])
    if re.match(r'[\w/. ]+ = ', line) and rng.rand() < 0.3:
      line = line.replace(' = ', csv_cases.pick(rng, ['=', ' =  ', '  = ']), 1)
    lines.append(line)
  return csv_cases.pick(rng, ['\n', '\n', '\r\n']).join(lines)


def _number(rng):
  """A number and one of the ways to write it in gin."""
  number = int(rng.randint(1, 5000))
  written = csv_cases.pick(rng, [
      '%d', '(%d)', '  %d  # words', '\\\n  %d', '(  # words\n  %d\n)'])
  return number, written % number


def _literal(rng):
  """A parameter of base.gin, and a random value as Python writes it."""
  owner, parameter = csv_cases.pick(rng, [
      ('PLE', 'num_levels'), ('PLE', 'num_task_experts'), ('Tower', 'units'),
      ('PLE', 'expert_units'), ('ctr/Task', 'name'), ('Model', 'micro_batches'),
      ('Task', 'weight'), ('lazy_adam', 'learning_rate'),
      ('Experiment', 'max_steps'), ('EarlyStopping', 'patience_epochs'),
      ('run_config', 'seed'), ('ParquetInput', 'epochs'),
      ('train/ParquetInput', 'shuffle_rows'), ('Precision', 'compute')])
  return '%s.%s' % (owner, parameter), csv_cases.pick(rng, [
      '1', '2', '3.5', '-1', '(4,)', '(8, 4)', '[5]', "'a'", "'clk'", '10_0',
      "'bfloat16'", '1e-3', '0', 'None', 'True', "''", "('a', 1)", '0b11',
      "'a' 'b'", '(2)', '{1: 2}', '-0.5', '1e400'])


def _load(path, bindings, folder):
  """Returns the Experiment of a file."""
  loaded = config.load(path, bindings + [
      'Experiment.model_dir = %r' % os.path.join(folder, 'result')])
  with config.explained(loaded):
    return experiment.Experiment()


class _Case:
  """A file, bindings, and what must come of them.

  Attributes:
    text: str, what the file holds.
    bindings: list of str, lines of the command line.
    values: dict of parameter to value, or None for a file that must be refused.
    good: bool, whether it must not be refused.
  """

  def __init__(self, rng):
    self.text, self.bindings, self.values, self.good = _text(), [], {}, False
    how = rng.randint(12)
    if how < 2:
      number, written = _number(rng)
      self.values, self.good = {'%BATCH_SIZE': number}, True
      self._bind('BATCH_SIZE = ' + written, rng)
    elif how < 4:
      self.values = None
      self._bind(csv_cases.pick(rng, _MISTAKES), rng)
    elif how < 6:
      name, written = _literal(rng)
      self.values = {name: ast.literal_eval(written)}
      self._bind('%s = %s' % (name, written), rng)
    elif how < 7:
      self.text, self.good = _rewritten(self.text, rng), True
      self.values = {'PLE.num_levels': 3, '%BATCH_SIZE': 512, 'cvr/Task.label':
                     'buy', 'PLE.expert_units': (256, 128, 64)}
    elif how < 9:
      lines = [line for line in self.text.split('\n')
               if re.match(r'[\w/.]+ = ', line)]
      self._bind(_mutated(csv_cases.pick(rng, lines), rng), rng)
    else:
      if rng.rand() < 0.5:
        self.text = _other_text(rng)
      for _ in range(rng.randint(1, 3)):
        self.text = _mutated(self.text, rng)

  def _bind(self, line, rng):
    """Puts a line behind those of the file, or on the command line."""
    if rng.rand() < 0.5:
      self.text += '\n%s\n' % line
    else:
      self.bindings = [line]


def case(rng, folder):
  """Loads base.gin with random changes, or with a known one."""
  gin.clear_config()
  made = _Case(rng)
  path = os.path.join(folder, 'x.gin')
  with open(path, 'wb') as f:
    f.write(made.text.encode())
  try:
    _load(path, made.bindings, folder)
  except errors.UserError as error:
    outcomes.check(not made.good, 'A good file is refused: %s', error)
    return outcomes.refused(error)
  outcomes.check(made.values is not None, 'A mistake must be refused: %r',
                 made.bindings or made.text[-60:])
  for name, value in made.values.items():
    found = gin.query_parameter(name)
    outcomes.check(type(found) is type(value) and found == value,
                   '%s is %r and is taken for %r', name, value, found)
  return outcomes.RIGHT
