"""Runs in the HPARAMS tab of TensorBoard, as TensorBoard itself reads them."""

import collections
import glob
import json
import time
from urllib import request

import experiments
import pytest
from tensorboard import program
from tensorboard.plugins.hparams import plugin_data_pb2
import tensorflow.compat.v1 as tf

from ple_estimator.training import hparams

METRICS = ['ctr/accuracy', 'ctr/auc', 'ctr/log_loss', 'cvr/accuracy',
           'cvr/auc', 'cvr/log_loss', 'global_step', 'loss', 'mean/auc']


Results = collections.namedtuple('Results', 'evaluations best')
Best = collections.namedtuple('Best', 'metric')


class _Evaluations:
  """What hparams.end asks of evaluations.Evaluations."""

  def __init__(self, kept, last):
    self._kept = kept
    self.last = last

  def marked(self, name):
    return {'kept': self._kept}[name]


def _results(kept, last, metric=('ctr/auc', 'cvr/auc')):
  return Results(_Evaluations(kept, last), Best(metric))


def _best(folder):
  with open(str(folder / 'evaluations.json')) as f:
    return json.load(f)['kept']


@pytest.fixture(scope='module')
def runs(taobao, tmp_path_factory):
  """A folder of two runs, of which one was trained."""
  folder = tmp_path_factory.mktemp('runs')
  with tf.Graph().as_default():
    experiments.load(
        'gin/base.gin', folder / 'deep', taobao, 'Experiment.max_steps = 2',
        'LEARNING_RATE = 0.01', 'Experiment.exports = None',
        *experiments.TWO_LEVELS).train()
  text = (folder / 'deep' / 'operative_config-0.gin').read_text()
  (folder / 'flat').mkdir()
  (folder / 'flat' / 'operative_config-0.gin').write_text(text.replace(
      'PLE.num_levels = 2', 'PLE.num_levels = 1').replace(
          'LEARNING_RATE = 0.01', 'LEARNING_RATE = 0.02'))
  better = {name: value if value is None else value + 1
            for name, value in _best(folder / 'deep').items()}
  (folder / 'flat' / 'evaluations.json').write_text(
      json.dumps({'kept': better}))
  hparams.end(str(folder / 'flat'), _results(better, None, 'mean/auc'))
  return folder


class _Board:
  """A TensorBoard on loopback."""

  def __init__(self, logdir):
    board = program.TensorBoard()
    board.configure(argv=[None, '--logdir', str(logdir), '--port', '0',
                          '--reload_interval', '1'])
    self._url = board.launch().rstrip('/') + '/data/plugin/hparams/'

  def ask(self, name, **values):
    """What the plugin answers, once all that is there is loaded."""
    asked = request.Request(
        self._url + name, json.dumps(dict(values, experimentName='')).encode(),
        {'Content-Type': 'application/json'})
    with request.urlopen(asked, timeout=30) as answer:
      return json.loads(answer.read().decode())

  def groups(self, count, metric, order):
    """The session groups, sorted by a metric, once there are `count`."""
    columns = [{'hparam': 'PLE.num_levels'},
               {'metric': {'group': '', 'tag': metric}, 'order': order}]
    for _ in range(60):
      found = self.ask(
          'session_groups', startIndex=0, sliceSize=10, colParams=columns,
          allowedStatuses=['STATUS_UNKNOWN', 'STATUS_SUCCESS',
                           'STATUS_FAILURE', 'STATUS_RUNNING'])
      found = found.get('sessionGroups', [])
      if len(found) == count and all(of.get('metricValues') for of in found):
        return found
      time.sleep(0.25)
    raise AssertionError(found)


def test_tensorboard_sorts_runs_by_their_metrics(runs):
  board = _Board(runs)
  best = {name: _best(runs / name) for name in ('flat', 'deep')}
  for order, sign in [('ORDER_ASC', 1), ('ORDER_DESC', -1)]:
    groups = board.groups(2, 'ctr/auc', order)
    assert [group['name'] for group in groups] == [
        name + '/hparams' for name in sorted(
            best, key=lambda name: sign * best[name]['ctr/auc'])]
  for group in groups:
    name = group['name'].split('/')[0]
    bound = group['hparams']
    assert bound['PLE.num_levels'] == {'flat': 1, 'deep': 2}[name]
    assert bound['lazy_adam.learning_rate'] == 0.02 / bound['PLE.num_levels']
    assert bound['Model.op_fusion'] is True
    assert bound['ctr/Tower.units'] == '(4,)'
    assert bound['Model.optimizer'] == '@lazy_adam'
    assert 'Experiment.model_dir' not in bound
    values = {of['name']['tag']: of['value'] for of in group['metricValues']}
    assert sorted(values) == METRICS
    for tag in set(METRICS) - {'mean/auc'}:
      assert values[tag] == pytest.approx(best[name][tag], rel=1e-6)
    assert values['mean/auc'] == pytest.approx(
        (best[name]['ctr/auc'] + best[name]['cvr/auc']) / 2, rel=1e-6)
    assert group['sessions'][0]['status'] == 'STATUS_SUCCESS'
  columns = board.ask('experiment')
  assert sorted(of['name']['tag'] for of in columns['metricInfos']) == METRICS
  assert 'PLE.num_levels' in [of['name'] for of in columns['hparamInfos']]


def _summaries(folder):
  """Of all event files: (tag, step, number or plugin data)."""
  found = []
  for path in sorted(glob.glob(str(folder / 'hparams' / '*'))):
    for event in tf.train.summary_iterator(path):
      for value in event.summary.value:
        content = value.metadata.plugin_data.content
        found.append((value.tag, event.step, value.simple_value if (
            not content) else plugin_data_pb2.HParamsPluginData.FromString(
                content)))
  return found


def test_a_run_that_goes_on_has_bindings_and_no_metrics(tmp_path):
  (tmp_path / 'operative_config-0.gin').write_text('PLE.num_levels = 2')
  hparams.start(str(tmp_path))
  (tag, _, data), = _summaries(tmp_path)
  assert tag == '_hparams_/session_start_info'
  assert data.session_start_info.hparams['PLE.num_levels'].number_value == 2


def test_the_end_is_that_of_the_best_checkpoint_and_written_once(tmp_path):
  kept = {'global_step': 7, 'ctr/auc': 0.75, 'cvr/auc': 0.5, 'loss': None,
          'gate/level_0/ctr/ctr/expert_0': 0.5, 'ctr/label/mean': 0.1}
  results = _results(kept, {'global_step': 9, 'ctr/auc': 0.1})
  hparams.end(str(tmp_path), results)  # also where no start was written
  found = _summaries(tmp_path)
  assert {tag: value for tag, step, value in found if step == 7 and (
      not tag.startswith('_hparams_'))} == {
          'ctr/auc': 0.75, 'cvr/auc': 0.5, 'global_step': 7,
          'mean(ctr/auc, cvr/auc)': 0.625}
  assert sorted(tag for tag, _, _ in found if tag.startswith('_hparams_')) == [
      '_hparams_/session_end_info', '_hparams_/session_start_info']
  hparams.end(str(tmp_path), results)
  assert _summaries(tmp_path) == found


def test_a_training_that_begins_again_replaces_the_row(tmp_path):
  hparams.end(str(tmp_path), _results(None, {'global_step': 9, 'loss': 1.5}))
  assert ('loss', 9, 1.5) in _summaries(tmp_path)
  (tmp_path / 'operative_config-9.gin').write_text('PLE.num_levels = 3')
  hparams.start(str(tmp_path))
  (_, _, data), = _summaries(tmp_path)
  assert data.session_start_info.hparams['PLE.num_levels'].number_value == 3


def test_a_run_without_evaluations_ends_too(tmp_path):
  hparams.end(str(tmp_path), _results(None, None))
  assert sorted(tag for tag, _, _ in _summaries(tmp_path)) == [
      '_hparams_/session_end_info', '_hparams_/session_start_info']
