"""Points that Optuna suggests, from what the trials before have given.

What is on disk is the history of the trials. From it a study is made anew, in
memory, whenever Optuna is asked: a sweep that goes on asks as one that was
never broken off. The sampler of each trial has a seed of its own.
"""

import math
import warnings

import gin

from ple_estimator import errors
from ple_estimator.commands.sweep import search
from ple_estimator.network import metrics

_PRUNERS = ('median', 'successive_halving')


@gin.register
class Optuna(search.Search):
  """Optuna's tree-structured Parzen estimator (Bergstra et al., NIPS 2011)."""

  knows_all = False

  def __init__(self, trials=20, seed=0, startup_trials=10, pruner=None):
    """Checks the bindings.

    Args:
      trials: int, how many. A sweep that is done goes on with more of them.
      seed: int, of the suggestions; not of the trainings.
      startup_trials: int, how many trials are drawn at random before the
        suggestions begin.
      pruner: 'median' or 'successive_halving', Optuna's rule that ends trials
        early; None ends none, and leaves that to Sweep.stopping.

    Raises:
      UserError: if one is out of range.
    """
    errors.check_integer('Optuna.trials', trials, 1)
    errors.check_integer('Optuna.seed', seed, 0, most=2**31 - 1)
    errors.check_integer('Optuna.startup_trials', startup_trials, 0)
    if pruner is not None:
      errors.check_choice('Optuna.pruner', pruner, _PRUNERS)
    self.prunes = pruner is not None
    self._trials = trials
    self._seed = seed
    self._startup_trials = startup_trials
    self._pruner = pruner

  def check(self, space):
    """Raises UserError if there is nothing to suggest, or no Optuna."""
    _optuna()
    errors.check(space.dimensions, '@Optuna() needs something to search: bind '
                 'Sweep.choices or Sweep.bindings.')

  def count(self, space):
    return self._trials

  def ask(self, number, space, history, metric):
    """The point that Optuna suggests; see search.Search.ask."""
    study = self._study(number, space, history, metric)
    asked = study.ask(_distributions(space)).params
    return space.point([
        of.rounded(asked[of.name]) if isinstance(asked[of.name], (int, float))
        else asked[of.name] for of in space.dimensions])

  def stops(self, number, space, history, metric):
    """Whether Optuna's pruner ends a trial; see stopping.MedianStopping.

    What the pruner notes of the trial is put into its `notes`.
    """
    study = self._study(number, space, history, metric)
    frozen = study.get_trials(deepcopy=False)[number]
    ends = bool(study.pruner.prune(study, frozen))  # of numpy
    history[number].notes.update(study.get_trials()[number].system_attrs)
    return ends

  def _study(self, number, space, history, metric):
    """A study that holds the history."""
    optuna = _optuna()
    pruner = {
        None: optuna.pruners.NopPruner,
        'median': optuna.pruners.MedianPruner,
        'successive_halving': lambda: optuna.pruners.SuccessiveHalvingPruner(
            min_resource=1)}[self._pruner]()
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(
            n_startup_trials=self._startup_trials, constant_liar=True,
            seed=(self._seed * 100003 + number) % 2**32),
        pruner=pruner, study_name='sweep',
        direction='maximize' if metrics.grows(metric) else 'minimize')
    distributions = _distributions(space)
    for past in history:
      study.add_trial(_frozen(past, distributions))
    return study


def _frozen(past, distributions):
  """A Past as a trial of Optuna."""
  optuna = _optuna()
  states = optuna.trial.TrialState
  state = {'done': states.COMPLETE, 'stopped': states.PRUNED,
           'failed': states.FAIL, 'open': states.RUNNING}[past.state]
  if past.state == 'done' and math.isnan(past.value):
    state = states.FAIL
  return optuna.trial.create_trial(
      state=state,
      value=past.value if state == states.COMPLETE else None,
      params=dict(past.point), distributions=distributions,
      intermediate_values=dict(enumerate(past.curve, 1)),
      system_attrs=dict(past.notes))


def _distributions(space):
  """Optuna's distribution of each dimension."""
  of = _optuna().distributions
  found = {}
  for dimension in space.dimensions:
    if hasattr(dimension, 'options'):
      found[dimension.name] = of.CategoricalDistribution(
          [option.label for option in dimension.options])
    else:
      kind = (of.IntDistribution if dimension.is_integer else
              of.FloatDistribution)
      found[dimension.name] = kind(
          dimension.low, dimension.high, log=dimension.is_log)
  return found


def _optuna():
  """The package optuna, without its log and its notes on what is new."""
  try:
    import optuna
  except ImportError as error:
    raise errors.UserError(
        "@Optuna() needs the package optuna (%s): pip install "
        "'ple-estimator[sweep]', or bind Sweep.search = @Random()." %
        error) from error
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  warnings.filterwarnings(
      'ignore', category=optuna.exceptions.ExperimentalWarning)
  return optuna
