r"""Runs the experiment that .gin files describe, or a command beside training.

  python -m ple_estimator.run --gin_file=gin/bf16.gin
  python -m ple_estimator.run --gin_file=gin/bf16.gin --mode=export
  python -m ple_estimator.run --gin_file=gin/bf16.gin \
      --gin_bindings='Experiment.max_steps = 100'
  python -m ple_estimator.run --gin_file=my/shop.gin --gin_file=gin/mmoe.gin
  python -m ple_estimator.run init shop.csv --labels like --out shop.gin
  python -m ple_estimator.run csv-to-parquet data/taobao_train_data
"""

import atexit
import logging as stdlib_logging
import signal
import sys

from absl import app
from absl import flags
from absl import logging

from ple_estimator import errors
from ple_estimator.commands import words
from ple_estimator.engine import collector

_GIN_FILES = flags.DEFINE_multi_string(
    'gin_file', None,
    'The experiment to run, e.g. gin/base.gin. May be given several times: '
    'what comes later wins')
_GIN_BINDINGS = flags.DEFINE_multi_string(
    'gin_bindings', [],
    "One line of gin, applied after --gin_file, e.g. 'BATCH_SIZE = 1024'")
_MODE = flags.DEFINE_enum(
    'mode', 'train', ['train', 'evaluate', 'test', 'predict', 'export',
                      'daily'],
    'train: trains to the last step and evaluates on the way; goes on from the '
    'last checkpoint. evaluate: writes metrics.json of a checkpoint. test: '
    'writes test.json of the best checkpoint, on Experiment.test_input. '
    'predict: writes predictions of Experiment.predict_input. export: writes a '
    'SavedModel. daily: for each new day of the training files, evaluates the '
    'model on it, trains, and exports (gin/daily.gin). All go to '
    'Experiment.model_dir, by default result/<gin files>')
_CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None,
    "Which checkpoint evaluate, test, predict and export read: 'last'; 'best', "
    'which training keeps in model_dir/best, by Exports.best_metric; or the '
    "path of one, e.g. result/base/model.ckpt-20. The default is 'last', and "
    "of test 'best' if there is one")


def import_all():
  """Imports what an Experiment needs; returns (config, experiment).

  They are imported here because they import TensorFlow, which some commands do
  not need.
  """
  is_first = 'ple_estimator.experiment' not in sys.modules
  with collector.paused():
    from ple_estimator import config
    from ple_estimator import experiment
    from ple_estimator.engine import compat
  if is_first:
    collector.leave_alone()
  compat.quiet()
  return config, experiment


def _load_experiment():
  """Returns the Experiment; any error up to here is one of configuration."""
  config, experiment = import_all()
  loaded = config.load(_GIN_FILES.value, _GIN_BINDINGS.value)
  with config.explained(loaded):
    return experiment.Experiment()


def _of_loss(error):
  """The UserError of a loss that a hook of TensorFlow's finds to be NaN."""
  from ple_estimator.training import losses
  return losses.user_error(error)


def _on_sigterm(signum, frame):
  # Without a handler, process 1 of a container does not receive SIGTERM.
  del frame
  sys.exit(128 + signum)


def main(argv):
  """Runs one mode; returns the exit status."""
  signal.signal(signal.SIGTERM, _on_sigterm)
  logging.use_absl_handler()
  # On a terminal a line takes the place of the progress bar.
  start = '\r\x1b[K' if sys.stderr.isatty() else ''
  logging.get_absl_handler().setFormatter(stdlib_logging.Formatter(
      start + '%(asctime)s %(message)s', '%H:%M:%S'))
  try:
    errors.check(len(argv) < 2, 'Unknown arguments: %s.', ' '.join(argv[1:]))
    errors.check(
        not (_CHECKPOINT.value and _MODE.value in ('train', 'daily')),
        '--checkpoint is '
        'for the modes evaluate, test, predict and export: training goes on '
        'from the last. Got %r.', _CHECKPOINT.value)
    more = {'checkpoint': _CHECKPOINT.value} if _CHECKPOINT.value else {}
    with errors.translated(_of_loss):
      getattr(_load_experiment(), _MODE.value)(**more)
  except errors.UserError as error:
    logging.debug('Where it was raised:', exc_info=True)
    sys.stderr.write('ple_estimator: %s\n' % error)
    return 1
  except KeyboardInterrupt:
    sys.stderr.write('ple_estimator: interrupted; the same command goes on '
                     'from the last checkpoint.\n')
    return 128 + signal.SIGINT
  return 0


def console():
  """The command ple-estimator."""
  if len(sys.argv) > 1 and sys.argv[1] in words.MODULES:
    sys.exit(words.run(sys.argv[1], sys.argv[2:]))
  # At the end of Python as well: whatever graphs hold, the system takes back.
  atexit.register(collector.leave_alone)
  flags.mark_flag_as_required('gin_file')
  logging.set_verbosity(logging.INFO)
  app.run(main)


if __name__ == '__main__':
  console()
