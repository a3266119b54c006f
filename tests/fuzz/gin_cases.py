"""gin/base.gin and bindings of the command line with random mistakes."""

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


def _number(rng):
  """A number and one of the ways to write it in gin."""
  number = int(rng.randint(1, 5000))
  written = csv_cases.pick(rng, [
      '%d', '(%d)', '  %d  # words', '\\\n  %d', '(  # words\n  %d\n)'])
  return number, written % number


def _load(path, bindings, folder):
  """Returns the Experiment of a file."""
  loaded = config.load(path, bindings + [
      'Experiment.model_dir = %r' % os.path.join(folder, 'result')])
  with config.explained(loaded):
    return experiment.Experiment()


def case(rng, folder):
  """Loads base.gin with random changes, or with a known one."""
  gin.clear_config()
  text, bindings, number, refuse = _text(), [], None, False
  how = rng.randint(10)
  if how < 2:
    number, written = _number(rng)
    bindings = ['BATCH_SIZE =' + ' ' + written]
  elif how < 4:
    refuse, bindings = True, [csv_cases.pick(rng, _MISTAKES)]
  elif how < 6:
    lines = [line for line in _text().split('\n')
             if re.match(r'[\w/.]+ = ', line)]
    bindings = [_mutated(csv_cases.pick(rng, lines), rng)]
  else:
    for _ in range(rng.randint(1, 3)):
      text = _mutated(text, rng)
  if number is None and how < 4 or number and rng.rand() < 0.5:
    text, bindings = text + '\n' + bindings[0] + '\n', []
  path = os.path.join(folder, 'x.gin')
  with open(path, 'wb') as f:
    f.write(text.encode())
  try:
    _load(path, bindings, folder)
  except errors.UserError as error:
    outcomes.check(number is None, 'A good file is refused: %s', error)
    return outcomes.refused(error)
  outcomes.check(not refuse, 'A mistake must be refused: %r', bindings or
                 text[-60:])
  if number:
    found = gin.query_parameter('%BATCH_SIZE')
    outcomes.check(found == number, '%r is taken for %r', number, found)
  return outcomes.RIGHT
