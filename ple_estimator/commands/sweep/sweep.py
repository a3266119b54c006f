"""Sweep, the root of a sweep's .gin file."""

import gin

from ple_estimator import errors
from ple_estimator import files as files_lib
from ple_estimator.commands.sweep import search as search_lib
from ple_estimator.commands.sweep import space
from ple_estimator.commands.sweep import stopping as stopping_lib
from ple_estimator.training import comparison

_TESTED = ('best', 'all', 'none')


@gin.configurable
class Sweep:
  """What is swept, how, and where the results go.

  Attributes:
    files, lines: list of str, .gin files and lines of all trials.
    space: space.Space.
    search: search.Search.
    seeds: list of int.
    metric: str or tuple of str, see training.comparison.
    stopping: an object with `stops`, or None.
    out: str, the folder of the results; None until the command sets it.
    processes, threads, restarts: int.
    test: 'best', 'all' or 'none'.
  """

  def __init__(self, files=gin.REQUIRED, choices=None, bindings=None, lines=(),
               search=None, seeds=(2021,), metric='mean/auc', stopping=None,
               out=None, processes=1, threads=0, restarts=2, test='best'):
    """Checks the bindings.

    Args:
      files: list of str, the .gin files of all trials, as --gin_file.
      choices: dict of a name, such as 'network', to its options: a list, or a
        dict of what tables call an option to the option. An option is the path
        of a .gin file, a line of gin, a list of these, or None for nothing.
      bindings: dict of a parameter or macro to a list of values, or to a range
        {'low': 1e-4, 'high': 1e-2, 'log': True}, both ends included; of two
        integers all values are integers.
      lines: list of str, lines of gin of all trials, as --gin_bindings.
      search: search.Grid, search.Random or optuna_search.Optuna; None is a
        grid.
      seeds: list of int, for run_config.seed: each trial is trained once with
        each, and is compared by the mean.
      metric: what trials are compared by, as EarlyStopping.metric, in the
        evaluation of the checkpoint that training keeps as its best.
      stopping: stopping.MedianStopping, which ends bad trials early; None ends
        none.
      out: str, the folder of the results; None is result/<name of the file>.
      processes: int, how many runs are trained at a time.
      threads: int, of each run; 0 shares the processors of this machine.
      restarts: int, how often a run is started again that a signal has ended,
        as when memory was short.
      test: which trials are measured on the test rows when all are trained:
        the 'best', 'all', or 'none'.

    Raises:
      UserError: if a value is out of range.
    """
    def is_text(value):
      return isinstance(value, str) and value

    errors.check_list('Sweep.files', files, is_text,
                      "paths of .gin files, such as ['gin/base.gin']")
    errors.check_list('Sweep.lines', lines, is_text,
                      "lines of gin, such as ['EPOCHS = 5']", may_be_empty=True)
    errors.check_is_a('Sweep.search', search, search_lib.Search, '@Grid()',
                      or_none=True)
    errors.check_list(
        'Sweep.seeds', seeds, lambda seed: isinstance(seed, int) and
        seed >= 0 and not isinstance(seed, bool),
        'integers of at least 0, such as [1, 2, 3]')
    errors.check(len(set(seeds)) == len(seeds), 'Sweep.seeds must differ, got '
                 '%s.', errors.written(seeds))
    comparison.check_form('Sweep.metric', metric)
    errors.check_is_a('Sweep.stopping', stopping, stopping_lib.MedianStopping,
                      '@MedianStopping()', own=('stops',), or_none=True)
    errors.check_text('Sweep.out', out, or_none=True)
    files_lib.check_local('Sweep.out', out or '')
    errors.check_integer('Sweep.processes', processes, 1)
    errors.check_integer('Sweep.threads', threads, 0)
    errors.check_integer('Sweep.restarts', restarts, 0)
    errors.check_choice('Sweep.test', test, _TESTED)
    self.files, self.lines = list(files), list(lines)
    self.space = space.Space(choices, bindings)
    self.search = search or search_lib.Grid()
    errors.check(
        not (stopping and self.search.prunes), 'Sweep.stopping must be None '
        'where Optuna.pruner is bound: both end trials early.')
    self.stopping = self.search if self.search.prunes else stopping
    self.seeds = list(seeds)
    self.metric = comparison.stored(metric)
    self.out = out
    self.processes, self.threads = processes, threads
    self.restarts = restarts
    self.test = test

  @property
  def direction(self):
    """A metric, a str, that improves as Sweep.metric does."""
    return self.metric if isinstance(self.metric, str) else self.metric[0]
